"""Where the samples of a batch lie in what a layer returns: taking it apart into a row per sample, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle.utils import flatten, pack_sequence_as

_PLAIN = (type(None), bool, int, float, str)
_FLOATS = (paddle.float16, paddle.bfloat16, paddle.float32, paddle.float64)
_HALVES = (paddle.float16, paddle.bfloat16)


@dataclass(frozen=True)
class Leaf:
    """One tensor of an output: `shape` for a batch of any size, with `per` entries of `axis` for each sample."""

    shape: tuple[int, ...]
    axis: int
    per: int
    dtype: Any
    place: Any

    @property
    def width(self) -> int:
        """Numbers per sample."""
        return self.per * math.prod(size for axis, size in enumerate(self.shape) if axis != self.axis)

    def shape_for(self, batch: int) -> list[int]:
        """The shape for a batch of this size."""
        return [batch * self.per if axis == self.axis else size for axis, size in enumerate(self.shape)]

    def rows(self, tensor: Any, batch: int) -> np.ndarray:
        """The tensor's numbers as [batch, width], a copy."""
        return np.moveaxis(tensor.numpy(), self.axis, 0).reshape(batch, self.width)

    def tensor(self, rows: np.ndarray) -> Any:
        """The tensor that `rows` made these rows [batch, width] of."""
        shape = self.shape_for(len(rows))
        values = rows.reshape([shape.pop(self.axis), *shape])
        values = np.ascontiguousarray(np.moveaxis(values, 0, self.axis))
        return paddle.to_tensor(values, dtype=self.dtype, place=self.place)


@dataclass(frozen=True)
class Layout:
    """The form of a layer's output: its nesting, its tensors, and what is the same for every batch."""

    nesting: Any
    entries: tuple[Any, ...]

    @property
    def leaves(self) -> list[Leaf]:
        """The tensors that hold samples, in order."""
        return [entry for entry in self.entries if isinstance(entry, Leaf)]

    def rows(self, output: Any, batch: int) -> list[np.ndarray]:
        """A row per sample of each tensor.

        Raises:
            ValueError: the output is not of this form.
        """
        values = flatten(output)
        if len(values) != len(self.entries):
            raise ValueError(f"returned {len(values)} values after {len(self.entries)} in the first batch")
        found = []
        for entry, value in zip(self.entries, values):
            if not isinstance(entry, Leaf):
                if not _same(entry, value):
                    raise ValueError("returned something without a batch axis that changes from batch to batch")
                continue
            shape, expected = list(getattr(value, "shape", [])), entry.shape_for(batch)
            if shape != expected or value.dtype != entry.dtype:
                raise ValueError(
                    f"returned {value.dtype} {shape} where {entry.dtype} {expected} would fit the first batch: samples "
                    "need one shape (padding to one length)"
                )
            found.append(entry.rows(value, batch))
        return found

    def output(self, rows: Sequence[np.ndarray]) -> Any:
        """The output that `rows` took apart; constants for autograd."""
        remaining = iter(rows)
        return self._packed(
            [entry.tensor(next(remaining)) if isinstance(entry, Leaf) else entry for entry in self.entries]
        )

    def poison(self, batch: int, filled: Callable[[list[int], Any], Any]) -> Any:
        """An output of this form that nobody may use, of tensors that `filled(shape, dtype)` makes."""
        return self._packed([_poison(entry, batch, filled) for entry in self.entries])

    def _packed(self, values: list[Any]) -> Any:
        return pack_sequence_as(self.nesting, values)


def find_layout(whole: Any, part: Any, batch: int, part_batch: int) -> Layout:
    """The form of an output, from that for a batch and that for a batch of another size.

    Raises:
        ValueError: there is something in it that is neither a tensor nor plain, or there are no rows per sample.

    Example:
        >>> layout = find_layout((paddle.ones([2, 4, 3]), 7), (paddle.ones([2, 6, 3]), 7), batch=2, part_batch=3)
        >>> layout.leaves[0].axis, layout.leaves[0].per, layout.leaves[0].shape_for(5)
        (1, 2, [2, 10, 3])
    """
    values, others = flatten(whole), flatten(part)
    if len(values) != len(others):
        raise ValueError(f"returns {len(values)} values for {batch} samples and {len(others)} for {part_batch}")
    entries = tuple(_entry(value, other, batch, part_batch) for value, other in zip(values, others))
    return Layout(pack_sequence_as(whole, list(range(len(values)))), entries)


def close(layout: Layout, rows: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether rows agree as far as batches of different sizes let them: other kernels sum in another order."""
    half = any(leaf.dtype in _HALVES for leaf in layout.leaves) or _casts()
    return all(_close(leaf, a, b, half) for leaf, a, b in zip(layout.leaves, rows, others))


def not_a_number(shape: Sequence[int], dtype: Any) -> Any:
    """A tensor of NaN, or of zeros where the dtype has no NaN."""
    return paddle.full(list(shape), math.nan if dtype in _FLOATS else 0, dtype)


def same_output(output: Any, other: Any) -> bool:
    """Whether two outputs of a model are equal: bit for bit on CPU, where kernels do not choose how to sum."""
    values, others = flatten(output), flatten(other)
    return len(values) == len(others) and all(map(_same, values, others))


def _entry(value: Any, other: Any, batch: int, part_batch: int) -> Any:
    if not isinstance(value, paddle.Tensor):
        if not isinstance(value, _PLAIN):
            raise ValueError(
                f"returns a {type(value).__name__}; tensors, or tuples, lists and dicts of them are needed"
            )
        return value
    shape, shape_of_part = tuple(value.shape), tuple(getattr(other, "shape", ()))
    if len(shape) != len(shape_of_part):
        raise ValueError(f"returns {list(shape)} for {batch} samples and {list(shape_of_part)} for {part_batch}")
    axes = [axis for axis, (a, b) in enumerate(zip(shape, shape_of_part)) if a != b]
    if not axes:
        return value.detach()
    axis = axes[0]
    if len(axes) > 1 or shape[axis] % batch or shape[axis] // batch * part_batch != shape_of_part[axis]:
        raise ValueError(
            f"returns {list(shape)} for {batch} samples and {list(shape_of_part)} for {part_batch}: no rows per sample"
        )
    return Leaf(shape, axis, shape[axis] // batch, value.dtype, value.place)


def _poison(entry: Any, batch: int, filled: Callable[[list[int], Any], Any]) -> Any:
    if isinstance(entry, Leaf):
        return filled(entry.shape_for(batch), entry.dtype)
    return filled(list(entry.shape), entry.dtype) if isinstance(entry, paddle.Tensor) else entry


def _same(value: Any, other: Any) -> bool:
    if not isinstance(value, paddle.Tensor):
        return type(value) is type(other) and (not isinstance(value, _PLAIN) or value == other)
    if not isinstance(other, paddle.Tensor) or value.dtype != other.dtype or list(value.shape) != list(other.shape):
        return False
    a, b = _numbers(value.detach()), _numbers(other.detach())
    if value.place.is_cpu_place():
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return np.allclose(a, b, rtol=0, atol=_tolerance(value.dtype, _casts()) * _size(a), equal_nan=True)


def _close(leaf: Leaf, rows: np.ndarray, others: np.ndarray, half: bool) -> bool:
    if leaf.dtype not in _FLOATS:
        return np.array_equal(rows, others)
    a, b = (_numbers(paddle.to_tensor(each, dtype=leaf.dtype)) for each in (rows, others))
    return np.allclose(a, b, rtol=0, atol=_tolerance(leaf.dtype, half) * _size(a), equal_nan=True)


def _numbers(tensor: Any) -> np.ndarray:
    return (tensor.astype("float32") if tensor.dtype in _HALVES else tensor).numpy()


def _size(values: np.ndarray) -> float:
    return float(np.nanmax(np.abs(values), initial=0))


def _tolerance(dtype: Any, half: bool) -> float:
    if half:
        return 2e-2
    return 1e-9 if dtype == paddle.float64 else 1e-4


def _casts() -> bool:
    """Whether mixed precision is on here."""
    one = paddle.ones([1, 1])
    return paddle.matmul(one, one).dtype in _HALVES
