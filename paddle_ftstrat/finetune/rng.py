"""Random number generators of Python, numpy and Paddle, as one thing to save and restore."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle


def get_state() -> dict[str, Any]:
    """The state of the three generators."""
    return {"python": random.getstate(), "numpy": np.random.get_state(), "paddle": paddle.get_rng_state()}


def set_state(state: dict[str, Any]) -> None:
    """Put the three generators where `get_state` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    paddle.set_rng_state(state["paddle"])


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the generators as they were before."""
    state = get_state()
    try:
        yield
    finally:
        set_state(state)
