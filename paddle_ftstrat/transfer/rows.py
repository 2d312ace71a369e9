"""Rows of labels between a file and a model that know different ones: which row of the one is which of the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.rows import label_axes


@dataclass(frozen=True)
class Carried:
    """Which rows of a tensor come from the file.

    Attributes:
        axis: the axis that they count along.
        sources: row of the model → row of the file.
        new: the rows that keep their initialisation: their labels, or indices where there are none.
    """

    axis: int
    sources: Mapping[int, int]
    new: tuple[Any, ...] = ()

    def put(self, values: np.ndarray, into: np.ndarray) -> np.ndarray:
        """The array `into`, changed in place, with the rows that come from `values`."""
        at, source = (np.fromiter(side, np.intp, len(self.sources)) for side in (self.sources, self.sources.values()))
        np.moveaxis(into, self.axis, 0)[at] = np.moveaxis(values, self.axis, 0)[source]
        return into

    def __str__(self) -> str:
        total = len(self.sources) + len(self.new)
        new = f", new: {_errors.listing(self.new, 4)}" if self.new else ""
        return f"{len(self.sources)} of {total} {'rows' if self.axis == 0 else f'rows (axis {self.axis})'} carried{new}"


@dataclass(frozen=True)
class Request:
    """What `rows=` asks for one tensor: label lists of the file and the model, or a map row → row of the file.

    `axis` is that of the labels by the layer's type, None where it does not tell.
    """

    selector: Any
    labels: tuple[tuple[Any, ...], tuple[Any, ...]] | None
    sources: Mapping[int, int]
    axis: int | None

    def carried(self, name: str, file_shape: tuple[int, ...] | None, shape: tuple[int, ...]) -> Carried:
        """The rows for a tensor of these shapes, both in Paddle's layout.

        Raises:
            ValueError: the shapes differ in another axis, no axis has as many entries as there are labels, or several
                have; or the map names a row that one side does not have.
        """
        what = f"rows[{self.selector!r}]: {name!r} has shape {list(shape)}, in the file {list(file_shape or ())}"
        if file_shape is None or len(file_shape) != len(shape):
            raise ValueError(f"{what}: rows cannot be told from that")
        counts = None if self.labels is None else (len(self.labels[0]), len(self.labels[1]))
        fitting = [
            axis
            for axis, sizes in enumerate(zip(file_shape, shape))
            if (*file_shape[:axis], *file_shape[axis + 1 :]) == (*shape[:axis], *shape[axis + 1 :])
            and counts in (None, sizes)
        ]
        axis = self.axis if self.axis in fitting else fitting[0] if len(fitting) == 1 else None
        if axis is None:
            why = f"axes {fitting} could be that of the labels" if fitting else "no axis is that of the labels"
            labels = f", and there are {counts[0]} and {counts[1]} labels" if counts else ""
            raise ValueError(f"{what}: {why}: all others have to be equal{labels}")
        for rows, size, where in (
            (self.sources.keys(), shape[axis], "model"),
            (self.sources.values(), file_shape[axis], "file"),
        ):
            outside = [row for row in rows if row >= size]
            if outside:
                raise ValueError(f"{what}: the {where} has no row {outside[0]}, only 0 to {size - 1} on axis {axis}")
        new = [row for row in range(shape[axis]) if row not in self.sources]
        return Carried(axis, self.sources, tuple(self.labels[1][row] for row in new) if self.labels else tuple(new))


def requests(model: nn.Layer, rows: Any) -> dict[str, Request]:
    """The tensors that `rows=` of `load_pretrained` speaks of, by structured name.

    Raises:
        ValueError: a selector that matches nothing, labels that are not unique or have nothing in common, negative
            rows, or two selectors for one weight.
        TypeError: something of another form.

    Example:
        >>> found = requests(nn.Linear(2, 3), {"*": (["a", "b"], ["b", "c", "a"])})
        >>> found["weight"].sources, found["weight"].axis
        ({0: 1, 2: 0}, 1)
    """
    if rows is None:
        return {}
    if not isinstance(rows, Mapping):
        raise TypeError(
            f"rows must be a dict selector → (labels of the file, labels of the model), not {_errors.shown(rows)}"
        )
    found: dict[str, Request] = {}
    axes = label_axes(model)
    for selector, given in rows.items():
        what = f"rows[{selector!r}]"
        labels = None
        if isinstance(given, Mapping):
            sources = {_errors.check_whole(what, new): _errors.check_whole(what, old) for new, old in given.items()}
            if not sources:
                raise ValueError(f"{what} maps no rows")
        else:
            labels = _labels(what, given)
            place = {label: row for row, label in enumerate(labels[0])}
            sources = {row: place[label] for row, label in enumerate(labels[1]) if label in place}
            if not sources:
                old, new = (_errors.listing(map(repr, side), 4) for side in labels)
                raise ValueError(f"{what}: no label of the model ({new}) is one of the file ({old})")
        for name in select.select(model, selector, what):
            if name in found:
                raise ValueError(f"{what} and rows[{found[name].selector!r}] both mean {name!r}")
            found[name] = Request(selector, labels, sources, axes.get(name))
    return found


def _labels(what: str, given: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The labels of the file and of the model."""
    sides = given if isinstance(given, (tuple, list)) and len(given) == 2 else [None]
    if not all(isinstance(side, Iterable) and not isinstance(side, (str, bytes, Mapping)) for side in sides):
        raise TypeError(
            f"{what} must be (labels of the file, labels of the model) or a dict row → row of the file, "
            f"not {_errors.shown(given)}"
        )
    old, new = map(tuple, sides)
    for side, where in ((old, "file"), (new, "model")):
        label, times = Counter(side).most_common(1)[0] if side else (None, 0)
        if times > 1:
            raise ValueError(f"{what}: the labels of the {where} are not unique: {label!r} stands there twice")
    return old, new
