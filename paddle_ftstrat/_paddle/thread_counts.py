"""How many threads Paddle's CPU kernels use. Checked on paddlepaddle 2.6.2 and 3.3.1.

Their wheels for Linux and Windows bring Intel's OpenMP, which Paddle's own kernels, oneDNN and MKL all use. The number
belongs to the thread that calls; MKL's is the process's.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import paddle
from paddle.base import core

_OPENMP = ("libiomp5.so", "libiomp5md.dll", "libiomp5.dylib")


class _Said(threading.local):
    """What this thread said last, where the runtime cannot be asked."""

    threads: int | None = None


_SAID = _Said()


def set_threads(threads: int) -> None:
    """Let Paddle's kernels use `threads` threads when this thread calls them; 0.2 µs."""
    core.set_num_threads(threads)
    _SAID.threads = threads


def get_threads() -> int:
    """How many threads Paddle's kernels use when this thread calls them."""
    ask = _runtime()
    if ask is not None:
        return ask()
    return written_threads() if _SAID.threads is None else _SAID.threads


def written_threads() -> int:
    """OMP_NUM_THREADS as importing Paddle leaves it: what the user set, else 1."""
    try:
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "1")))
    except ValueError:
        return 1


@functools.cache
def _runtime() -> Callable[[], int] | None:
    """The function of Paddle's OpenMP that tells the number; None where Paddle was built without."""
    folder = Path(paddle.__file__).parent / "libs"
    for name in _OPENMP:
        if (folder / name).exists():
            # Paddle has it loaded; this gives another handle of the same library.
            return ctypes.CDLL(str(folder / name)).omp_get_max_threads
    return None


def is_loaded_in(maps: str) -> bool:
    """Whether a process has Paddle loaded, by the text of its /proc/PID/maps."""
    return "/libpaddle.so" in maps
