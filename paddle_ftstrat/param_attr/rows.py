"""Rows of a head or an embedding, one per label: which axis they lie on, and keeping some of them as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.param_attr.settings import frozen_rows as frozen_rows

# The axis of the weight that has an entry per label: Linear's are [in, out], an Embedding's [labels, width].
_LABEL_AXES = (
    (nn.Embedding, 0),
    (nn.Linear, 1),
    ((nn.Conv1D, nn.Conv2D, nn.Conv3D), 0),
    ((nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose), 1),
)


@dataclass(frozen=True)
class FrozenRows:
    """Rows that do not train: their indices, ascending, along an axis of so many."""

    axis: int
    rows: tuple[int, ...]
    size: int

    @cached_property
    def index(self) -> Any:
        """The rows as a tensor."""
        return paddle.to_tensor(np.array(self.rows, np.int64))

    @cached_property
    def mask(self) -> Any:
        """True for each of them, along one axis."""
        return paddle.to_tensor(np.isin(np.arange(self.size), self.rows))

    def others(self, shape: Sequence[int]) -> Any:
        """1.0 for what trains of a parameter of this shape, 0.0 for these rows."""
        mask = np.ones(shape, np.float32)
        mask[(slice(None),) * self.axis + (list(self.rows),)] = 0.0
        return paddle.to_tensor(mask, place=paddle.CPUPlace())

    @property
    def share(self) -> float:
        """The part of the parameter that does not train."""
        return len(self.rows) / self.size

    def __str__(self) -> str:
        return f"{len(self.rows)} of {self.size} {'rows' if self.axis == 0 else f'rows (axis {self.axis})'} frozen"


def label_axes(model: nn.Layer) -> dict[str, int]:
    """The axis of each weight that has an entry per label, by structured name; of weights where the layer tells.

    Example:
        >>> label_axes(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)))
        {'0.weight': 0, '1.weight': 1, '1.bias': 0}
    """
    found: dict[str, int] = {}
    aliases = select.structured_names(model)
    for path, layer in select.every_layer(_paddle.unwrap(model)):
        axis = next((axis for kinds, axis in _LABEL_AXES if isinstance(layer, kinds)), None)
        for attribute, param in select.own_parameters(layer):
            at = 0 if param.ndim == 1 else axis if attribute == "weight" else None
            if at is not None:
                found.setdefault(aliases[select.join(path, attribute)], at)
    return found


def freeze_rows(param: Any, rows: Any, axis: int | None = None) -> None:
    """Keep rows of a parameter as they are, bit for bit, while the others train.

    The gradient of frozen rows is 0 before it is clipped, so that they have no part in the norm, and they have their
    values back after the update, whatever momentum, decay or a regularizer did. Frozen before or under a binding, they
    are the user's own setting, as `stop_gradient` is: no strategy thaws them, `describe` shows them, a binding's state
    holds them. The optimizer has to be a binding's or one of `paddle_ftstrat.optim`; a Paddle optimizer that no
    strategy has bound does not know of it.

    Args:
        param: a parameter; or a layer (Linear, Embedding, Conv): its weight's and its bias's entries for these labels.
        rows: indices ≥ 0, or as many booleans as there are rows. They are added to those that are frozen already.
        axis: the axis that they count along; None: of a layer that of its labels (Linear's weight is [in, out]: the
            last one), of a parameter 0.

    Raises:
        ValueError: an index or axis that does not exist, no rows, rows of another axis frozen already; or the weight of
            a Linear without `axis`, where rows are inputs and columns are labels; nothing is changed then.
        TypeError: neither a parameter nor a layer, or rows that are neither indices nor booleans.

    Example:
        >>> import paddle_ftstrat as hub
        >>> head = nn.Linear(2, 3)
        >>> freeze_rows(head, [0, 1])
        >>> before = head.weight.numpy()
        >>> run = hub.AdamWeightDecayStrategy(0.1, weight_decay=0.5).bind(head, max_train_steps=1)
        >>> head(paddle.ones([1, 2])).sum().backward()
        >>> done = run.step()
        >>> (head.weight.numpy() == before).tolist()
        [[True, True, False], [True, True, False]]
    """
    merged = []
    for one, at in _axes(param, axis):
        before, size = frozen_rows(one), one.shape[at]
        if before is not None and before.axis != at:
            raise ValueError(f"{before} of {one.name!r}, so that none of axis {at} can be: unfreeze_rows(param) first")
        rows_of_both = {*_indices(rows, size), *(before.rows if before else ())}
        merged.append((one, FrozenRows(at, tuple(sorted(rows_of_both)), size)))
    for one, frozen in merged:
        settings.note(one, settings.ROWS, frozen)


def unfreeze_rows(param: Any, rows: Any = None, axis: int | None = None) -> None:
    """Let rows of a parameter train again.

    Args:
        param: a parameter or a layer, as for `freeze_rows`.
        rows: indices or booleans; None: all.
        axis: the axis that they count along, as for `freeze_rows`.

    Raises:
        ValueError, TypeError: as for `freeze_rows`.

    Example:
        >>> embedding = nn.Embedding(4, 2)
        >>> freeze_rows(embedding.weight, [0, 1])
        >>> unfreeze_rows(embedding.weight, [1])
        >>> frozen_rows(embedding.weight).rows
        (0,)
    """
    for one, at in _axes(param, axis, guess=True):
        frozen = frozen_rows(one)
        if frozen is None:
            continue
        if axis is not None and at != frozen.axis:
            raise ValueError(f"{frozen} of {one.name!r}, not of axis {axis}")
        thawed = set(frozen.rows if rows is None else _indices(rows, frozen.size))
        left = tuple(row for row in frozen.rows if row not in thawed)
        settings.note(one, settings.ROWS, FrozenRows(frozen.axis, left, frozen.size) if left else None)


def checked(resolved: Iterable[Any], given: Any) -> Callable[[], None]:
    """What freezes the rows that `settings.saved_rows` noted, and no others, of what has a `name` and a `param`.

    None, of an older state, changes nothing.

    Raises:
        ValueError: it is no note of rows of these parameters.
    """
    params = {one.name: one.param for one in resolved}
    if given is None:
        return lambda: None
    frozen: dict[str, FrozenRows | None] = dict.fromkeys(params)
    try:
        for name, (axis, rows) in given.items():
            size = params[name].shape[_errors.check_whole("axis", axis)]
            frozen[name] = FrozenRows(axis, tuple(_indices(rows, size)), size)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"the frozen rows of the state are none of this model's: {error!r:.200}") from error

    def put() -> None:
        for name, rows in frozen.items():
            settings.note(params[name], settings.ROWS, rows)

    return put


def values(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values of the frozen rows of (name, parameter) pairs, by name."""
    found = {name: (param, frozen_rows(param)) for name, param in named}
    return {
        f"{name} ({rows})": paddle.index_select(param.detach().astype("float32"), rows.index, rows.axis)
        for name, (param, rows) in found.items()
        if rows is not None
    }


@paddle.no_grad()
def silence(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Set the gradients of frozen rows to 0, in place.

    Returns:
        The parameters concerned with the values of their frozen rows, for `put_back`.
    """
    held = []
    for param, grad in pairs:
        frozen = frozen_rows(param)
        if frozen is not None and grad is not None:
            held.append((param, _taken(param, frozen)))
            _overwrite(grad, frozen, paddle.zeros_like(held[-1][1]))
    return held


@paddle.no_grad()
def put_back(held: Iterable[tuple[Any, Any]]) -> None:
    """Give frozen rows their values of before the update."""
    for param, values in held:
        if (frozen := frozen_rows(param)) is not None:
            _overwrite(param, frozen, values)


def _axes(param: Any, axis: Any, guess: bool = False) -> list[tuple[Any, int]]:
    """The parameters that are meant, and the axis of each; `guess` takes 0 where nothing tells."""
    if isinstance(param, nn.Layer):
        axes = label_axes(param)
        own = {name: one for name, one in select.own_parameters(param) if name in axes}
        if axis is not None or len(own) != len(select.named_weights(param)) or not own:
            raise ValueError(
                f"{type(param).__name__}: rows of a whole layer are those of a Linear, Embedding or Conv, along its "
                "own axis; give a parameter, and the axis of its rows"
            )
        return [(one, axes[name]) for name, one in own.items()]
    if not isinstance(param, paddle.Tensor) or not hasattr(param, "optimize_attr"):
        raise TypeError(f"param must be a parameter or a layer, not {type(param).__name__}")
    if axis is None and not guess and param.ndim == 2 and param.name.startswith("linear_"):
        raise ValueError(
            f"{param.name!r} looks like the weight of a Linear, [in, out], whose labels are its columns: say axis=1, "
            "or give the layer; axis=0 means rows of inputs"
        )
    axis = 0 if axis is None else _errors.check_whole("axis", axis)
    if axis >= param.ndim:
        raise ValueError(f"axis = {axis}, but {param.name!r} has shape {param.shape}")
    return [(param, axis)]


def _indices(rows: Any, size: int) -> list[int]:
    array = np.asarray(list(rows) if isinstance(rows, (range, set)) else rows)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "biu":
        raise TypeError(
            f"rows must be a list of indices, or of as many booleans as there are rows, not {_errors.shown(rows)}"
        )
    if array.dtype.kind == "b":
        if len(array) != size or not array.any():
            raise ValueError(f"rows has {len(array)} booleans, {array.sum()} of them True, but there are {size} rows")
        return np.flatnonzero(array).tolist()
    outside = array[(array < 0) | (array >= size)]
    if outside.size:
        raise ValueError(f"rows has the index {outside[0]}, but there are {size} rows: 0 to {size - 1}")
    return array.tolist()


def _taken(param: Any, frozen: FrozenRows) -> Any:
    """The values of frozen rows; along another axis than the first, those of all, which is faster to write back."""
    if frozen.axis:
        return param.detach().clone()
    return paddle.index_select(_wide(param), frozen.index)


def _overwrite(tensor: Any, frozen: FrozenRows, values: Any) -> None:
    """Put `_taken` values into the frozen rows, in place."""
    if frozen.axis:
        mask = frozen.mask.reshape([-1, *[1] * (tensor.ndim - frozen.axis - 1)])
        paddle.assign(paddle.where(mask, values, tensor), output=tensor)
        return
    wide = _wide(tensor)
    paddle.scatter_(wide, frozen.index, values)
    if wide is not tensor:
        paddle.assign(wide.astype(tensor.dtype), output=tensor)


def _wide(tensor: Any) -> Any:
    """Half precision as float32, for the operations that the CPU has."""
    return tensor.astype("float32") if tensor.dtype in (paddle.float16, paddle.bfloat16) else tensor
