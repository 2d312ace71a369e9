"""Arrays into tensors: the types that may become one another, and the copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from paddle_ftstrat.transfer.contents import BFLOAT16, storage_dtype

_FLOATS = (BFLOAT16, "float16", "float32", "float64")
_BLOCK = 8 * 2**20  # bytes that are in use at a time


def convertible(source: str, target: str) -> bool:
    """Whether values of one type may fill a tensor of another: any float any float, else only what loses nothing.

    Example:
        >>> convertible("float16", "float32"), convertible("int32", "int64"), convertible("int64", "float32")
        (True, True, False)
    """
    if source == target or (source in _FLOATS and target in _FLOATS):
        return True
    if BFLOAT16 in (source, target):
        return False
    try:
        both = (np.dtype(source), np.dtype(target))
    except TypeError:
        return False
    return both[0].kind == both[1].kind and np.can_cast(*both, "safe")


def overflows(array: np.ndarray, source: str, target: str) -> bool:
    """Whether a finite value of the array is beyond what the target type can hold."""
    if target != "float16" or source == "float16":
        return False
    values = _convert(array, source, "float32") if source == BFLOAT16 else array
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.abs(finite).max() > np.finfo(np.float16).max)


def put(tensor: Any, array: np.ndarray, source: str, target: str, release: Callable[[], None]) -> None:
    """Copy an array into a tensor of the same shape, in place.

    Args:
        tensor: a Paddle tensor.
        array: its new values; bfloat16 as the uint16 of its bits.
        source: dtype of the array.
        target: dtype of the tensor.
        release: called when a part of the array that lies in one piece has been copied.
    """
    view = memory(tensor, target)
    if view is None or not array.ndim:
        tensor.set_value(np.ascontiguousarray(_convert(array, source, target)).reshape(array.shape))
        release()
        return
    in_one_piece = array.flags.c_contiguous
    rows = max(1, _BLOCK // max(1, view[:1].nbytes)) if in_one_piece or source != target else len(view)
    for start in range(0, len(view), rows):
        view[start : start + rows] = _convert(array[start : start + rows], source, target)
        if in_one_piece:
            release()
    release()


def memory(tensor: Any, dtype: str) -> np.ndarray | None:
    """The memory of a tensor as an array, not a copy of it; None where it lies elsewhere, in pieces, or there is none.

    Paddle's own `set_value` needs the whole array at once, its `numpy()` makes a new one.

    Args:
        tensor: a Paddle tensor; it has to live as long as the array is used.
        dtype: its dtype; bfloat16 gives the uint16 of its bits.

    Example:
        >>> import paddle
        >>> tensor = paddle.zeros([2]).cpu()
        >>> memory(tensor, "float32").tolist()
        [0.0, 0.0]
    """
    if not tensor.place.is_cpu_place() or not tensor.is_contiguous() or not tensor.data_ptr():
        return None
    stored = storage_dtype(dtype)
    shape = tuple(tensor.shape)
    length = int(np.prod(shape)) * stored.itemsize
    memory = (ctypes.c_char * length).from_address(tensor.data_ptr())
    return np.frombuffer(memory, stored).reshape(shape)


def _convert(array: np.ndarray, source: str, target: str) -> np.ndarray:
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
