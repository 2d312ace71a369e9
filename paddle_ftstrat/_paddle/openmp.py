"""Paddle's OpenMP: how many threads it has now, and other work on the same threads.

Checked on paddlepaddle 2.6.2 and 3.3.1. Their wheels for Linux and Windows bring Intel's, which Paddle's own kernels,
oneDNN and MKL all use.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle

_LIBRARIES = ("libiomp5.so", "libiomp5md.dll", "libiomp5.dylib")
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def library() -> Any:
    """Another handle of the library that Paddle has loaded; None where Paddle was built without."""
    folder = Path(paddle.__file__).parent / "libs"
    found = (folder / name for name in _LIBRARIES if (folder / name).exists())
    return next((ctypes.CDLL(str(path)) for path in found), None)


def share(body: int, data: int, threads: int) -> None:
    """Call the C function void(void *) at the address `body` with `data` in so many threads at once, without the GIL.

    They are those that Paddle's kernels run on: other threads would have to wait for these, which go on spinning for
    200 ms after their work. Without OpenMP the function is called in this thread alone.
    """
    parallel = _parallel() if threads > 1 else None
    if parallel is None:
        _CALL(body)(data)
    else:
        parallel(body, data, threads, 0)


@functools.cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """What begins a parallel region, under the name that it has in GCC's OpenMP; None where there is none."""
    parallel = getattr(library(), "GOMP_parallel", None)
    if parallel is not None:
        parallel.restype, parallel.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return parallel
