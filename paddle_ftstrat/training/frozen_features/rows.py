"""What a layer returns for a batch as a row per sample and back, and a place for the rows; samples' own keys."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.utils import flatten, pack_sequence_as

_PLAIN = (type(None), bool, int, float, str)
FLOATS = (paddle.float16, paddle.bfloat16, paddle.float32, paddle.float64)
_HALVES = (paddle.float16, paddle.bfloat16)
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

    def poison(self, batch: int, filled: Callable[[list[int], Any], Any]) -> Any:
        """An output of this form that nobody may use, of tensors that `filled(shape, dtype)` makes."""
        values = list(self.entries)
        for place, entry in enumerate(values):
            if isinstance(entry, (Leaf, paddle.Tensor)):
                shape = entry.shape_for(batch) if isinstance(entry, Leaf) else list(entry.shape)
                values[place] = filled(shape, entry.dtype)
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
    for leaf, *both in zip(layout.leaves, rows, others):
        if leaf.dtype not in FLOATS:
            equal = np.array_equal(*both)
        else:
            equal = _near(*(_numbers(paddle.to_tensor(each, dtype=leaf.dtype)) for each in both), leaf.dtype, half)
        if not equal:
            return False
    return True


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


def _same(value: Any, other: Any) -> bool:
    if not isinstance(value, paddle.Tensor):
        return type(value) is type(other) and (not isinstance(value, _PLAIN) or value == other)
    if not isinstance(other, paddle.Tensor) or value.dtype != other.dtype or list(value.shape) != list(other.shape):
        return False
    a, b = _numbers(value.detach()), _numbers(other.detach())
    if value.place.is_cpu_place():
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return _near(a, b, value.dtype, _casts())


def _near(values: np.ndarray, others: np.ndarray, dtype: Any, half: bool) -> bool:
    """Whether arrays differ by no more than the rounding of sums, as a part of their largest value."""
    tolerance = 2e-2 if half else 1e-9 if dtype == paddle.float64 else 1e-4
    size = float(np.nanmax(np.abs(values), initial=0))
    return np.allclose(values, others, rtol=0, atol=tolerance * size, equal_nan=True)


def _numbers(tensor: Any) -> np.ndarray:
    return (tensor.astype("float32") if tensor.dtype in _HALVES else tensor).numpy()


def _casts() -> bool:
    """Whether mixed precision is on here."""
    one = paddle.ones([1, 1])
    return paddle.matmul(one, one).dtype in _HALVES


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
    digests = [hashlib.blake2b(digest_size=8) for _ in range(batch)]
    by_sample = False
    for value in flatten(inputs):
        array = np.ascontiguousarray(value.numpy()) if isinstance(value, paddle.Tensor) else np.asarray(value)
        common = f"{array.dtype}{array.shape[1:]}".encode()
        if is_by_sample(value, batch):
            by_sample = True
            rows = array.reshape(batch, -1).view(np.uint8)
        else:
            common += array.tobytes() if array.dtype != object else repr(value).encode()
            rows = [b""] * batch
        for digest, row in zip(digests, rows):
            digest.update(common)
            digest.update(row)
    if not by_sample:
        raise ValueError(f"indices names {batch} samples, but no input of the model has {batch} rows")
    return np.array([int.from_bytes(digest.digest(), "little") for digest in digests], np.uint64)


def is_by_sample(value: Any, batch: int) -> bool:
    """Whether an input is an array with a row for each of `batch` samples."""
    shape = getattr(value, "shape", ())
    return isinstance(value, (paddle.Tensor, np.ndarray)) and len(shape) > 0 and int(shape[0]) == batch


class FeatureStore:
    """Some arrays [samples, width], filled row by row, and which rows are there.

    Args:
        columns: (width, numpy dtype) of each array.
        memory: bytes that the arrays may take together; beyond that all of them are files.
        folder: where the files go, as a temporary folder of its own; None: where the system puts temporary files.
        samples: how many rows there will be; None: the arrays grow with the highest index.

    Example:
        >>> store = FeatureStore([(2, np.dtype("float32"))], memory=2**20, samples=4)
        >>> store.put(np.array([3, 1]), np.zeros(2, "uint64"), [np.array([[5, 6], [7, 8]], "float32")])
        >>> store.has(np.array([0, 1])).tolist()
        [False, True]
        >>> store.get(np.array([1]))[0]
        array([[7., 8.]], dtype=float32)
        >>> store.close()
    """

    def __init__(
        self,
        columns: Sequence[tuple[int, Any]],
        memory: int,
        folder: str | os.PathLike | None = None,
        samples: int | None = None,
    ) -> None:
        self._columns = [(int(width), np.dtype(dtype)) for width, dtype in columns]
        self._memory = memory
        self._parent = folder
        self._files: tempfile.TemporaryDirectory | None = None
        self._arrays: list[np.ndarray] = [np.empty((0, width), dtype) for width, dtype in self._columns]
        self._keys = np.zeros(0, np.uint64)
        self._present = np.zeros(0, bool)
        self._make_room(samples or 0)

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in files."""
        return self._files is not None

    def __len__(self) -> int:
        """How many rows are there."""
        return int(self._present.sum())

    def has(self, indices: np.ndarray) -> np.ndarray:
        """Of each index, whether its row is there."""
        known = indices < len(self._present)
        known[known] = self._present[indices[known]]
        return known

    def keys(self, indices: np.ndarray) -> np.ndarray:
        """The key that each row was put with; of rows that are there."""
        return self._keys[indices]

    def put(self, indices: np.ndarray, keys: np.ndarray, rows: Sequence[np.ndarray]) -> None:
        """Write the rows [len(indices), width] of each array, each with a key that says what it was made from."""
        highest = int(indices.max()) + 1
        if highest > len(self._present):
            self._make_room(max(highest, 2 * len(self._present)))
        for array, values in zip(self._arrays, rows):
            array[indices] = values
        self._keys[indices] = keys
        self._present[indices] = True

    def get(self, indices: np.ndarray) -> list[np.ndarray]:
        """A copy of these rows of each array."""
        return [array[indices] for array in self._arrays]

    def close(self) -> None:
        """Forget all rows and remove the files. A store that is dropped without it does so, too."""
        self._arrays = []
        self._present = np.zeros(0, bool)
        if self._files is not None:
            self._files.cleanup()
            self._files = None

    def _make_room(self, samples: int) -> None:
        size = samples * sum(width * dtype.itemsize for width, dtype in self._columns)
        before, old_files = self._arrays, self._files
        if size > self._memory:
            self._files = self._folder_for(size)
            paths = [Path(self._files.name, f"{i}.rows") for i in range(len(self._columns))]
            self._arrays = [_mapped(path, samples, *column) for path, column in zip(paths, self._columns)]
        else:
            self._arrays = [np.empty((samples, width), dtype) for width, dtype in self._columns]
        for array, rows in zip(self._arrays, before):
            array[: len(rows)] = rows
        added = samples - len(self._present)
        self._keys = np.concatenate([self._keys, np.zeros(added, np.uint64)])
        self._present = np.concatenate([self._present, np.zeros(added, bool)])
        if old_files is not None:
            del before, rows
            old_files.cleanup()

    def _folder_for(self, size: int) -> tempfile.TemporaryDirectory:
        parent = Path(tempfile.gettempdir() if self._parent is None else self._parent)
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if size > free:
            raise ValueError(
                f"cache_frozen: the frozen features take {size / _GIB:.3g} GiB, more than the memory allowed "
                f"({self._memory / _GIB:.3g} GiB) and than what is free in {parent} ({free / _GIB:.3g} GiB)"
            )
        return tempfile.TemporaryDirectory(prefix="ftstrat-features-", dir=parent)


def _mapped(path: Path, samples: int, width: int, dtype: np.dtype) -> np.ndarray:
    """A file as an array. Its space is taken now: a disk that fills up under a mapped file kills the process."""
    size = max(1, samples * width * dtype.itemsize)
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    if width == 0:
        return np.empty((samples, 0), dtype)
    return np.memmap(path, dtype, mode="r+", shape=(samples, width))
