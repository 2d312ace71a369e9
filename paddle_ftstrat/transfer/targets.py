"""What of a model can be loaded, which arrays of a file in Paddle's layout it takes, and the copy into it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _paddle
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.transfer.contents import BFLOAT16, storage_dtype
from paddle_ftstrat.transfer.rows import Carried

FLOATS = (BFLOAT16, "float16", "float32", "float64")
_BLOCK = 8 * 2**20  # bytes that are in use at a time


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
        return shape if self.shape is None or prod(self.shape) != prod(shape) else self.shape

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

    Raises:
        TypeError: not a layer.

    Example:
        >>> import paddle
        >>> [(t.name, t.kind) for t in find_targets(paddle.nn.BatchNorm1D(3)).values()]
        [('weight', 'weight'), ('bias', 'weight'), ('_mean', 'statistic'), ('_variance', 'statistic')]
    """
    _paddle.check_layer(model)
    model = _paddle.unwrap(model)
    aliases = select.all_names(model)
    found = {
        name: Target(name, param, "weight", tuple(aliases[name])) for name, param in select.named_weights(model).items()
    }
    found |= {name: Target(name, value, "statistic", (name,)) for name, value in select.statistics(model).items()}
    persistent = model.state_dict()
    for name, value in model.named_buffers():
        if name in persistent and name not in found:
            found[name] = Target(name, value, "buffer", (name,))
    return found


def convertible(source: str, target: str) -> bool:
    """Whether values of one type may fill a tensor of another: any float any float, else only what loses nothing.

    Example:
        >>> convertible("float16", "float32"), convertible("int32", "int64"), convertible("int64", "float32")
        (True, True, False)
    """
    if source == target or (source in FLOATS and target in FLOATS):
        return True
    try:
        given, wanted = np.dtype(source), np.dtype(target)
    except TypeError:  # bfloat16, and what numpy does not know either
        return False
    return given.kind == wanted.kind and np.can_cast(given, wanted, "safe")


def overflows(array: np.ndarray, source: str) -> bool:
    """Whether a finite value of the array is beyond what float16 can hold."""
    values = values_in(array, source, "float32") if source == BFLOAT16 else array
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.abs(finite).max() > np.finfo(np.float16).max)


def put(
    target: Target, array: np.ndarray, dtype: str, release: Callable[[], None], carried: Carried | None = None
) -> None:
    """Copy an array of a dtype into a tensor of the same shape, in place.

    `release` is called when a part of the array that lies in one piece has been copied. `carried` copies rows into a
    tensor of another shape.
    """
    tensor, wanted = target.tensor, target.dtype
    view = memory(tensor, wanted)
    if carried is not None:
        whole = carried.put(values_in(array, dtype, wanted), np.array(tensor.numpy() if view is None else view))
        array, dtype, release = whole, wanted, lambda: None
    if view is None or not array.ndim:
        tensor.set_value(np.ascontiguousarray(values_in(array, dtype, wanted)).reshape(array.shape))
        release()
        return
    in_one_piece = array.flags.c_contiguous
    rows = max(1, _BLOCK // max(1, view[:1].nbytes)) if in_one_piece or dtype != wanted else len(view)
    for start in range(0, len(view), rows):
        view[start : start + rows] = values_in(array[start : start + rows], dtype, wanted)
        if in_one_piece:
            release()
    release()


def memory(tensor: Any, dtype: str) -> np.ndarray | None:
    """The memory of a tensor as an array, not a copy of it; None where it lies elsewhere, in pieces, or there is none.

    Paddle's own `set_value` needs the whole array at once, its `numpy()` makes a new one. The tensor has to live as
    long as the array is used; bfloat16 gives the uint16 of its bits.

    Example:
        >>> import paddle
        >>> tensor = paddle.zeros([2]).cpu()
        >>> memory(tensor, "float32").tolist()
        [0.0, 0.0]
    """
    if not tensor.place.is_cpu_place() or not tensor.is_contiguous() or not tensor.data_ptr():
        return None
    shape, stored = tuple(tensor.shape), storage_dtype(dtype)
    held = (ctypes.c_char * (prod(shape) * stored.itemsize)).from_address(tensor.data_ptr())
    return np.ndarray(shape, stored, held)


def values_in(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """An array's values in another type, where each of them may be "bfloat16" in its bits; not copied needlessly."""
    if source == target:
        return array
    if source == BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if target != BFLOAT16:
        return array.astype(target, copy=False)
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    # Round to nearest, ties to even, as torch and Paddle 3 do (2.6 cuts off); a NaN must not round up to infinity.
    rounded = ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype(np.uint16)
    return np.where(np.isnan(bits.view(np.float32)), np.uint16(0x7FC0), rounded)
