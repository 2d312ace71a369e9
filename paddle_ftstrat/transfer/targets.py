"""What of a model can be loaded, and which arrays of a file in Paddle's layout it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _paddle
from paddle_ftstrat.param_attr import select


@dataclass(frozen=True)
class Target:
    """One tensor of a model: a weight, a running statistic or a persistent buffer."""

    name: str
    tensor: Any
    kind: str
    aliases: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        """Its type by numpy's name, or "bfloat16"."""
        return str(self.tensor.dtype).rpartition(".")[2]


@dataclass(frozen=True)
class Piece:
    """How a target is made from an array of a file: a part of it, transposed or not, in the target's shape.

    Attributes:
        target: name of the target.
        part: (i, n): the i-th of n equal parts of the first axis; None takes all of it.
        transpose: whether the (two) axes are exchanged.
        shape: the shape it is given at last, None keeps it; only for arrays whose elements keep their order.
        undecided: nothing says whether a square matrix has to be transposed; another shape fits in one way only.
    """

    target: str
    part: tuple[int, int] | None = None
    transpose: bool = False
    shape: tuple[int, ...] | None = None
    undecided: bool = False

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape that an array of `shape` comes out with, None if it cannot be cut or exchanged like that."""
        if self.part is not None:
            if not shape or shape[0] % self.part[1]:
                return None
            shape = (shape[0] // self.part[1], *shape[1:])
        if self.transpose:
            if len(shape) != 2:
                return None
            shape = shape[::-1]
        return shape if self.shape is None or np.prod(self.shape) != np.prod(shape) else self.shape

    def take(self, array: np.ndarray) -> np.ndarray:
        """The target's array, as a view where that is possible."""
        if self.part is not None:
            index, parts = self.part
            size = array.shape[0] // parts
            array = array[index * size : (index + 1) * size]
        if self.transpose:
            array = array.T
        return array if self.shape is None else array.reshape(self.shape)


def find_targets(model: nn.Layer) -> dict[str, Target]:
    """Everything of a model that a file can hold, once, by structured name.

    Example:
        >>> import paddle
        >>> [(t.name, t.kind) for t in find_targets(paddle.nn.BatchNorm1D(3)).values()]
        [('weight', 'weight'), ('bias', 'weight'), ('_mean', 'statistic'), ('_variance', 'statistic')]
    """
    model = _paddle.unwrap(model)
    aliases = select.all_names(model)
    found = {}
    for name, param in select.named_weights(model).items():
        found[name] = Target(name, param, "weight", tuple(aliases[name]))
    for name, value in select.statistics(model).items():
        found[name] = Target(name, value, "statistic", (name,))
    persistent = model.state_dict()
    for name, value in model.named_buffers():
        if name in persistent and name not in found:
            found[name] = Target(name, value, "buffer", (name,))
    return found


def paddle_keys(targets: dict[str, Target]) -> dict[str, list[Piece]]:
    """Key of a file in Paddle's layout → what it fills; a shared weight may stand under any of its names."""
    return {alias: [Piece(target.name)] for target in targets.values() for alias in target.aliases}
