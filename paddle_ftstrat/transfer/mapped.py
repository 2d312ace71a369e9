"""A file in memory without being read: views with checked bounds, and pages given back after use."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ftstrat.transfer.contents import Entry, count, storage_dtype

MAX_JSON = 12_000_000  # bytes; the header of 20,000 arrays takes a quarter of it
_MAX_VALUES = 1_000_000  # of JSON; the smallest takes some fifty bytes of memory
_PAGE = mmap.ALLOCATIONGRANULARITY


class Mapped:
    """A regular file mapped read-only.

    Args:
        path: the file.

    Raises:
        ValueError: not a regular file (a pipe would wait forever, a device never end), or empty.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise ValueError(f"{self.path} is not a regular file")
        with self.path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size == 0:
                raise ValueError(f"{self.path} is empty")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.buffer = memoryview(self._map)

    def slice(self, start: int, length: int) -> memoryview:
        """The bytes [start, start + length), not copied.

        Raises:
            ValueError: they are not all in the file.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise ValueError(
                f"{self.path} is truncated or damaged: it says that {length} bytes stand at byte {start}, "
                f"but it has {self.size} bytes"
            )
        return self.buffer[start : start + length]

    def json(self, start: int, length: int) -> Any:
        """The JSON in the bytes [start, start + length), which is bounded before it is parsed.

        Raises:
            ValueError: no JSON, too long, too deep, or with a name twice in a dict.
        """
        if length > MAX_JSON:
            raise ValueError(f"it has {length:,} bytes, and {MAX_JSON:,} are allowed")
        # Given bytes, the parser would guess their encoding, and import its module.
        text = str(self.slice(start, length), "utf-8").removeprefix("\ufeff")
        if sum(map(text.count, ",[{")) > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values")
        try:
            return json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_short_int)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error

    def entry(self, start: int, shape: tuple[int, ...], dtype: str, order: str = "<") -> Entry:
        """An array of the file, its elements in row-major order from byte `start` on.

        Raises:
            ValueError: it is not all in the file.
        """
        stored = storage_dtype(dtype, order)
        length = count(shape) * stored.itemsize
        data = self.slice(start, length)
        return Entry(
            shape, dtype, lambda: np.frombuffer(data, stored).reshape(shape), lambda: self.release(start, length)
        )

    def release(self, start: int, length: int) -> None:
        """Let the system take the pages of these bytes back; a later use reads them again."""
        first, end = -(-start // _PAGE) * _PAGE, (start + length) // _PAGE * _PAGE
        if end > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"the number {digits[:20]}… has {len(digits)} digits")
    return int(digits)
