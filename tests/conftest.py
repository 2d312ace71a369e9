"""Shared by all tests: reproducible randomness, reference numbers, small models."""

import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import settings

from paddle_ftstrat._paddle import threads

# A slow machine is no failure; and where a change is judged, the same examples have to be tried each time.
settings.register_profile("patient", deadline=None)
settings.register_profile("judged", deadline=None, derandomize=True)
settings.load_profile("judged" if os.environ.get("CI") else "patient")

# As training does it, and before any test uses a matrix product: later, it would be too late for this process.
threads.take_widest_code()

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    """The reference numbers of one file in tests/golden."""
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture(autouse=True)
def _seeded():
    paddle.seed(0)
    np.random.seed(0)
