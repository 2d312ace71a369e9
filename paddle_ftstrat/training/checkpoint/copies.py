"""Copies of tensors in one block of memory, which the next copies use again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from paddle_ftstrat.training.checkpoint import tensor_file
from paddle_ftstrat.transfer.contents import Entry, storage_dtype
from paddle_ftstrat.transfer.targets import memory

_ALIGNMENT = 64  # bytes
_THREADS = 4  # one alone does not use all of the memory's bandwidth


class Copies:
    """Takes copies of dicts of tensors; each `take` overwrites those of the one before.

    The block stays allocated: most of the time of a first copy goes into getting memory from the system, and one block
    costs less of it than many arrays.

    Example:
        >>> copies, array = Copies(), np.ones(2)
        >>> taken = copies.take({"model": {"w": array}})
        >>> array[0] = 5
        >>> taken["model"]["w"].read().tolist()
        [1.0, 1.0]
    """

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)

    def take(self, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Entry]]:
        """The tensors as they are now.

        Args:
            parts: name → name → Paddle tensor or numpy array.

        Raises:
            TypeError: something that is no tensor.
            ValueError: a dtype that Paddle or safetensors does not have.
        """
        entries = {part: tensor_file.as_entries(tensors) for part, tensors in parts.items()}
        places, position = [], 0
        for part, described in entries.items():
            for name, entry in described.items():
                places.append((part, name, position))
                position += -(-_bytes(entry) // _ALIGNMENT) * _ALIGNMENT
        if position > self._block.size:
            self._block = np.empty(0, np.uint8)  # given back before more is asked for
            self._block = np.empty(position, np.uint8)

        def copy(place: tuple[str, str, int]) -> Entry:
            part, name, start = place
            return _copy(parts[part][name], entries[part][name], self._block, start)

        taken: dict[str, dict[str, Entry]] = {part: {} for part in parts}
        with ThreadPoolExecutor(_THREADS) as threads:
            for (part, name, _), entry in zip(places, threads.map(copy, places)):
                taken[part][name] = entry
        return taken


def _bytes(entry: Entry) -> int:
    return entry.size * storage_dtype(entry.dtype).itemsize


def _copy(tensor: Any, entry: Entry, block: np.ndarray, start: int) -> Entry:
    array = block[start : start + _bytes(entry)].view(storage_dtype(entry.dtype)).reshape(entry.shape)
    source = tensor if isinstance(tensor, np.ndarray) else memory(tensor, entry.dtype)
    np.copyto(array, entry.read() if source is None else source)
    return Entry(entry.shape, entry.dtype, lambda: array)
