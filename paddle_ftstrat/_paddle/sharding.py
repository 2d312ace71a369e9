"""What Paddle wraps around an optimizer: main_grad, hybrid parallelism, sharding stage 1.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from paddle_ftstrat import _paddle

_WHOLE, _SPLIT = "DygraphShardingOptimizer", "DygraphShardingOptimizerV2"
_PLACED = "_ShardOptimizer"
_WRAPPERS = ("HybridParallelOptimizer", "MixPrecisionOptimizer", _WHOLE, _SPLIT, _PLACED)


def is_wrapper(optimizer: Any) -> bool:
    """Whether this is something that Paddle has put around an optimizer."""
    return type(optimizer).__name__ in _WRAPPERS


def wraps(outer: Any, optimizer: Any) -> bool:
    """Whether an optimizer is this one, or something around it."""
    return any(layer is optimizer for layer in _layers(outer))


def is_placed(optimizer: Any) -> bool:
    """Whether it is what `paddle.distributed.shard_optimizer` makes."""
    return type(optimizer).__name__ == _PLACED


def stage_one(outer: Any) -> Any | None:
    """What shards in stage 1 and leaves parameters whole, None where nothing does."""
    return next((layer for layer in _layers(outer) if type(layer).__name__ == _WHOLE), None)


def splits(outer: Any) -> bool:
    """Whether stage 1 splits parameters, too (its version 2)."""
    return any(type(layer).__name__ == _SPLIT for layer in _layers(outer))


def hide_while_checked(stage: Any, optimizer: Any, hide: Callable[[], Callable[[], None]]) -> None:
    """Have `hide()` called before each step of stage 1, and what it returns before the update inside.

    Stage 1 raises where a parameter has a regularizer, and then has the optimizer inside update its share of the
    parameters, which does with regularizers what it always does.
    """
    step, apply = stage.step, optimizer._apply_optimize
    hidden: list[Callable[[], None]] = []

    def hidden_step() -> None:
        hidden.append(hide())
        try:
            step()
        finally:
            while hidden:
                hidden.pop()()

    def shown(*args: Any, **kwargs: Any) -> Any:
        while hidden:
            hidden.pop()()
        return apply(*args, **kwargs)

    stage.step = hidden_step
    _paddle.stand_in(optimizer, "_apply_optimize", shown, hide)


def _layers(outer: Any) -> Iterator[Any]:
    while outer is not None:
        yield outer
        outer = vars(outer).get("_inner_opt")
