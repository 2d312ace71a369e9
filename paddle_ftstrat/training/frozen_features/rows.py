"""Outputs of layers as rows, one per sample: their form, whether they agree, and where they are kept."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.utils import flatten, pack_sequence_as

from paddle_ftstrat.optim.masters import is_half
from paddle_ftstrat.training.metrics import array

_PLAIN = (type(None), bool, int, float, str)
_FLOATS = (paddle.float16, paddle.bfloat16, paddle.float32, paddle.float64)
_GIB = 2**30


@dataclass(frozen=True)
class Leaf:
    """One tensor of an output: `shape` for a batch of any size, with `per` entries of `axis` for each sample."""

    shape: tuple[int, ...]
    axis: int
    per: int
    dtype: Any
    place: Any

    def shape_for(self, batch: int) -> list[int]:
        """The shape for a batch of this size."""
        return [batch * self.per if axis == self.axis else size for axis, size in enumerate(self.shape)]

    def rows(self, tensor: Any, batch: int) -> np.ndarray:
        """The tensor's numbers as [batch, width], a copy."""
        return np.moveaxis(tensor.numpy(), self.axis, 0).reshape(batch, -1)

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
        values = [entry.tensor(next(remaining)) if isinstance(entry, Leaf) else entry for entry in self.entries]
        return pack_sequence_as(self.nesting, values)

    def poison(self, batch: int, made: dict[tuple[Any, ...], Any]) -> Any:
        """An output of this form that nobody may use: NaN and 0, of tensors that are in `made`, or are put there."""
        values = list(self.entries)
        for place, entry in enumerate(values):
            if isinstance(entry, (Leaf, paddle.Tensor)):
                shape = entry.shape_for(batch) if isinstance(entry, Leaf) else entry.shape
                key = (*shape, entry.dtype)
                if key not in made:
                    made[key] = paddle.full(shape, math.nan if entry.dtype in _FLOATS else 0, entry.dtype)
                # The model may reshape what it gets in place.
                values[place] = made[key].detach()
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


def _entry(value: Any, other: Any, batch: int, part_batch: int) -> Any:
    if not isinstance(value, paddle.Tensor):
        if not isinstance(value, _PLAIN):
            raise ValueError(
                f"returns a {type(value).__name__}; tensors, or tuples, lists and dicts of them are needed"
            )
        return value
    shape, shape_of_part = tuple(value.shape), tuple(getattr(other, "shape", ()))
    what = f"returns {list(shape)} for {batch} samples and {list(shape_of_part)} for {part_batch}"
    if len(shape) != len(shape_of_part):
        raise ValueError(what)
    axes = [axis for axis, (a, b) in enumerate(zip(shape, shape_of_part)) if a != b]
    if not axes:
        return value.detach()
    axis = axes[0]
    if len(axes) > 1 or shape[axis] % batch or shape[axis] // batch * part_batch != shape_of_part[axis]:
        raise ValueError(f"{what}: no rows per sample")
    return Leaf(shape, axis, shape[axis] // batch, value.dtype, value.place)


def close(layout: Layout, rows: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether rows agree as far as batches of different sizes let them: other kernels sum in another order."""
    half = any(map(is_half, layout.leaves)) or _casts()
    return all(
        _near(paddle.to_tensor(one, dtype=leaf.dtype), paddle.to_tensor(other, dtype=leaf.dtype), half)
        for leaf, one, other in zip(layout.leaves, rows, others)
    )


def same_output(output: Any, other: Any) -> bool:
    """Whether two outputs of a model are equal: bit for bit on CPU, where kernels do not choose how to sum."""
    values, others = flatten(output), flatten(other)
    return len(values) == len(others) and all(map(_same, values, others))


def _same(value: Any, other: Any) -> bool:
    if not isinstance(value, paddle.Tensor):
        return type(value) is type(other) and (not isinstance(value, _PLAIN) or value == other)
    if not isinstance(other, paddle.Tensor) or value.dtype != other.dtype or list(value.shape) != list(other.shape):
        return False
    if value.place.is_cpu_place():
        return np.array_equal(array(value), array(other), equal_nan=value.dtype in _FLOATS)
    return _near(value, other, _casts())


def _near(one: Any, other: Any, half: bool) -> bool:
    """Whether tensors differ by no more than the rounding of sums, as a part of their largest value."""
    a, b = array(one), array(other)
    if one.dtype not in _FLOATS:
        return np.array_equal(a, b)
    tolerance = 2e-2 if half else 1e-9 if one.dtype == paddle.float64 else 1e-4
    size = float(np.nanmax(np.abs(a), initial=0))
    return np.allclose(a, b, rtol=0, atol=tolerance * size, equal_nan=True)


def _casts() -> bool:
    """Whether mixed precision is on here."""
    one = paddle.ones([1, 1])
    return is_half(paddle.matmul(one, one))


def sample_keys(inputs: Any, batch: int) -> np.ndarray:
    """A number for each sample that follows from all its inputs.

    Args:
        inputs: what the model is called with.
        batch: how many samples that are; tensors with that many rows hold one row per sample.

    Returns:
        uint64 of shape [batch].

    Raises:
        ValueError: no input has `batch` rows.

    Example:
        >>> keys = sample_keys({"ids": paddle.to_tensor([[1, 2], [3, 4], [1, 2]])}, 3)
        >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
        (True, False)
    """
    values = flatten(inputs)
    if not any(is_by_sample(value, batch) for value in values):
        raise ValueError(f"indices names {batch} samples, but no input of the model has {batch} rows")
    digests = [hashlib.blake2b(digest_size=8) for _ in range(batch)]
    for value in values:
        if is_by_sample(value, batch):
            contents = [content(row) for row in (value.numpy() if isinstance(value, paddle.Tensor) else value)]
        else:
            contents = [content(value)] * batch
        for digest, held in zip(digests, contents):
            digest.update(held)
    return np.array([int.from_bytes(digest.digest(), "little") for digest in digests], np.uint64)


def content(value: Any) -> bytes:
    """What a tensor, an array or anything else holds, as bytes."""
    held = np.ascontiguousarray(value.numpy() if isinstance(value, paddle.Tensor) else value)
    return repr(value).encode() if held.dtype == object else f"{held.dtype}{held.shape}".encode() + held.tobytes()


def is_by_sample(value: Any, batch: int) -> bool:
    """Whether an input is an array with a row for each of `batch` samples."""
    return isinstance(value, (paddle.Tensor, np.ndarray)) and value.ndim > 0 and int(value.shape[0]) == batch


class FeatureStore:
    """Some arrays [samples, width], filled row by row, and which rows are there.

    Args:
        columns: (width, numpy dtype) of each array.
        samples: how many rows there may be.
        memory: bytes that the arrays may take together; beyond that all of them are files.
        folder: where the files go, as a temporary folder of its own; None: where the system puts temporary files.

    Attributes:
        present: whether each row is there, bool [samples].
        keys: what each row was made from (see `sample_keys`), uint64 [samples].

    Example:
        >>> store = FeatureStore([(2, np.dtype("float32"))], samples=4, memory=2**20)
        >>> store.put(np.array([3, 1]), np.zeros(2, "uint64"), [np.array([[5, 6], [7, 8]], "float32")])
        >>> store.present.tolist(), store.get(np.array([1]))[0]
        ([False, True, False, True], array([[7., 8.]], dtype=float32))
        >>> store.close()
    """

    def __init__(
        self,
        columns: Sequence[tuple[int, np.dtype[Any]]],
        samples: int,
        memory: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.present, self.keys = np.zeros(samples, bool), np.zeros(samples, np.uint64)
        self._files: tempfile.TemporaryDirectory[str] | None = None
        size = samples * sum(width * dtype.itemsize for width, dtype in columns)
        if size <= memory:
            self._arrays = [np.empty((samples, width), dtype) for width, dtype in columns]
            return
        parent = Path(folder or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if size > free:
            raise ValueError(
                f"cache_frozen: the frozen features take {size / _GIB:.3g} GiB, more than the memory allowed "
                f"({memory / _GIB:.3g} GiB) and than what is free in {parent} ({free / _GIB:.3g} GiB)"
            )
        self._files = tempfile.TemporaryDirectory(prefix="ftstrat-features-", dir=parent)
        paths = [Path(self._files.name, f"{i}.rows") for i in range(len(columns))]
        self._arrays = [_mapped(path, (samples, width), dtype) for path, (width, dtype) in zip(paths, columns)]

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in files."""
        return self._files is not None

    def put(self, indices: np.ndarray, keys: np.ndarray, rows: Sequence[np.ndarray]) -> None:
        """Write the rows [len(indices), width] of each array, and the key of each."""
        for held, values in zip(self._arrays, rows):
            held[indices] = values
        self.keys[indices], self.present[indices] = keys, True

    def get(self, indices: np.ndarray) -> list[np.ndarray]:
        """A copy of these rows of each array."""
        return [held[indices] for held in self._arrays]

    def close(self) -> None:
        """Remove the files. A store that is dropped without it does so, too."""
        self._arrays = []
        if self._files is not None:
            self._files.cleanup()


def _mapped(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """A file as an array. Its space is taken now: a disk that fills up under a mapped file kills the process."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype, mode="r+", shape=shape)
