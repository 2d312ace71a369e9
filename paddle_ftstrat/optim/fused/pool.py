"""Threads that run compiled passes, which hold no lock of Python meanwhile.

Neither OpenMP (hangs after a fork, as DataLoader workers do it) nor numba's own threads (not safe where two threads
use them) fit here, so the passes are plain functions and these are plain threads of Python.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

# Below this many values per thread, waking one costs more than it takes over.
GRAIN = 1 << 19


def threads_for(values: int, allowed: int) -> int:
    """How many threads a pass over so many values is worth, at most `allowed`.

    Example:
        >>> threads_for(1000, 8), threads_for(10 * GRAIN, 8)
        (1, 8)
    """
    return max(1, min(allowed, values // GRAIN))


def run(function: Callable[[int, int], None], ranges: Sequence[tuple[int, int]]) -> None:
    """Call `function(first, last)` for each range, one of them in this thread and the others beside it."""
    others = [_executor(os.getpid(), len(ranges) - 1).submit(function, *part) for part in ranges[1:]]
    try:
        function(*ranges[0])
    finally:
        for other in others:
            other.result()


@functools.cache
def _executor(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has its parent's objects but not its threads: by process, it makes threads of its own.
    return ThreadPoolExecutor(threads, thread_name_prefix="ftstrat-update")
