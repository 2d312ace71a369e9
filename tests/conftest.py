"""Shared by all tests: reproducible randomness, reference numbers, small models."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    """The reference numbers of one file in tests/golden."""
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture(autouse=True)
def _seeded():
    paddle.seed(0)
    np.random.seed(0)
