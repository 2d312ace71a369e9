"""Memory behind tensors. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

from typing import Any


def has_values(tensor: Any) -> bool:
    """False for a tensor that never got memory, such as the dropout state of an LSTM, made for cuDNN only."""
    return bool(tensor._is_initialized())
