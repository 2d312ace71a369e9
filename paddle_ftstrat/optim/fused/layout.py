"""The tables that the passes over memory read: addresses and numbers of each parameter, and chunks of equal work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Columns of the address table, a row per parameter: int64 addresses of float32 values, 0 for none.
PARAM, GRAD, ANCHOR, FIRST, SECOND = range(5)
ADDRESSES = 5

# Columns of the number table, a row per parameter, float32:
# x = clamp(SCALE·g, LOW, HIGH) + L2·(p − anchor) + L1·sign(p), no clamp where LOW ≥ HIGH;
# p ← (p + BEFORE·p − LR·rule(x))·AFTER, where the rule has the constants A, B and EPS.
SCALE, L2, L1, LOW, HIGH, LR, BEFORE, AFTER, A, B, EPS = range(11)
NUMBERS = 11

CHUNK = 1 << 16


@dataclass(frozen=True)
class Chunks:
    """Stretches of parameters in their order: which parameter, from which of its values on, how many.

    `first` is the number of each parameter's first chunk, `ends` the number of values up to the end of each chunk.
    All arrays are int64.
    """

    index: np.ndarray
    start: np.ndarray
    length: np.ndarray
    first: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


def chunks_of(sizes: Sequence[int]) -> Chunks:
    """Cut parameters of these numbers of values into chunks of at most CHUNK.

    Example:
        >>> chunks = chunks_of([3, CHUNK + 1])
        >>> chunks.index.tolist(), chunks.start.tolist(), chunks.length.tolist()
        ([0, 1, 1], [0, 0, 65536], [3, 65536, 1])
    """
    sizes = np.asarray(sizes, np.int64)
    counts = np.maximum(-(-sizes // CHUNK), 1)
    first = np.cumsum(counts) - counts
    index = np.repeat(np.arange(len(sizes)), counts)
    start = (np.arange(len(index)) - first[index]) * CHUNK
    length = np.minimum(sizes[index] - start, CHUNK)
    return Chunks(index, start, length, first, np.cumsum(length))


def shares(chunks: Chunks, count: int) -> list[tuple[int, int]]:
    """The chunks as `count` ranges (first, past the last) of about equal numbers of values; empty ones are left out.

    Example:
        >>> shares(chunks_of([5, 5, 10]), 2)
        [(0, 2), (2, 3)]
    """
    total = int(chunks.ends[-1])
    targets = [total * part / count for part in range(1, count)]
    # A chunk belongs to the share in which its middle lies.
    middles = chunks.ends - chunks.length / 2
    cuts = [0, *np.searchsorted(middles, targets).tolist(), len(chunks)]
    return [(a, b) for a, b in zip(cuts, cuts[1:]) if b > a]


def overlap(starts: np.ndarray, ends: np.ndarray) -> bool:
    """Whether any two of the byte ranges [start, end) share a byte.

    Example:
        >>> overlap(np.array([0, 8]), np.array([8, 12])), overlap(np.array([0, 8]), np.array([9, 12]))
        (False, True)
    """
    order = np.argsort(starts)
    return bool(np.any(starts[order][1:] < ends[order][:-1]))


def touches(starts: np.ndarray, ends: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether any of the byte ranges [start, end) meets one of [low, high), which are sorted and apart.

    Example:
        >>> touches(np.array([4]), np.array([8]), np.array([0, 8]), np.array([4, 9]))
        False
        >>> touches(np.array([4]), np.array([9]), np.array([0, 8]), np.array([4, 9]))
        True
    """
    if len(starts) > CHUNK // 32:  # so many are found faster in order
        order = np.argsort(starts)
        starts, ends = starts[order], ends[order]
    before = np.searchsorted(low, ends) - 1
    return bool(np.any((before >= 0) & (high[before] > starts)))
