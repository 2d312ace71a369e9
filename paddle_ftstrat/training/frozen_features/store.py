"""Rows of numbers by sample: in memory as far as a budget allows, else in files that vanish afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_GIB = 2**30


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
