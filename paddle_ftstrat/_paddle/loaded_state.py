"""Private Paddle for optimizer state that others loaded. Checked on paddlepaddle 2.6.2, 3.0.0 and 3.3.1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paddle_ftstrat import _paddle


def settle(optimizer: Any, params: Iterable[Any]) -> None:
    """Give these parameters the state that `optimizer.set_state_dict` left for them; all others begin without one.

    Paddle keeps a loaded state until a parameter's first update, and from then on asserts that it holds one for each:
    a state that was saved while layers were frozen fails at the update after they thaw.
    """
    waiting = getattr(optimizer, "_accumulators_holder", None)
    if not waiting:
        return
    # The entries are called <parameter>_<accumulator>_<number>.
    loaded = [param for param in params if any(key.startswith(param.name + "_") for key in waiting)]
    if loaded:
        _paddle.create_accumulators(optimizer, loaded)
    optimizer._accumulators_holder = {}
