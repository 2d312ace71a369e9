"""Random number generators of Python, numpy and Paddle."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the generators of Python, numpy and Paddle as they were before."""
    host, state = host_state(), paddle.get_rng_state()
    try:
        yield
    finally:
        set_host_state(host)
        paddle.set_rng_state(state)


def host_state() -> dict[str, Any]:
    """The state of Python's and numpy's generator, as JSON can hold it."""
    version, numbers, gauss = random.getstate()
    state = np.random.get_state(legacy=False)
    inner, cached = state["state"], [int(state["has_gauss"]), float(state["gauss"])]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [state["bit_generator"], inner["key"].tolist(), int(inner["pos"]), *cached],
    }


def set_host_state(state: Mapping[str, Any]) -> None:
    """Put Python's and numpy's generator where `host_state` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))


def draw_seed() -> int:
    """A seed from Paddle's generator, so that `paddle.seed` decides it."""
    return int(paddle.randint(0, 2**31 - 1, [1], dtype="int64").item())


def fold(seed: int, *numbers: int) -> int:
    """A seed that follows from a seed and some numbers, different for each of them.

    Example:
        >>> fold(0, 1, 2) == fold(0, 1, 2), fold(0, 1, 2) == fold(0, 2, 1)
        (True, False)
    """
    packed = struct.pack(f"<{1 + len(numbers)}q", seed, *numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=7).digest(), "little")
