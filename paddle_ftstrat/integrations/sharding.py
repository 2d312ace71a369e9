"""A binding in an optimizer that fleet shards: stage 1, its parameters whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle import sharding
from paddle_ftstrat.integrations.carrying import check_host
from paddle_ftstrat.param_attr import select, settings

_WHOLE = "leave split_param out (PaddleFormers has it on: split_param=False)"


def attach(run: Any, outer: Any) -> None:
    """Let a binding go on under `fleet.distributed_optimizer(run.optimizer)`.

    Learning rates per layer, decoupled decay, the global norm and unfreezing work as they are; L2, L2SP and
    `ParamAttr(regularizer=)`, for which sharding stage 1 raises, are hidden from it and go through the update. Each
    process has all L2SP anchors, and the optimizer state of its own parameters.

    Args:
        run: the binding.
        outer: what fleet made of `run.optimizer`.

    Raises:
        ValueError: it wraps another optimizer, comes from `paddle.distributed.shard_optimizer`, or splits parameters
            (version 2) while the plan freezes or regularizes.
    """
    if sharding.is_placed(outer):
        raise ValueError(
            "paddle.distributed.shard_optimizer: its state_dict() makes an update in order to have a state, which "
            "moves each weight that decays, and placed parameters do not keep their settings; use fleet's sharding "
            "stage 1"
        )
    if not sharding.wraps(outer, run.optimizer):
        raise ValueError("this wraps another optimizer than the binding's: fleet.distributed_optimizer(run.optimizer)")
    if sharding.splits(outer):
        refuse_splitting(run)
        return
    stage = sharding.stage_one(outer)
    check_host(run, "fleet", wraps=stage is None)
    if stage is None:
        return
    weights = list(select.named_weights(run.model).values())

    def hide() -> Callable[[], None]:
        held = [(param, settings.capture(param)) for param in weights if param.regularizer is not None]
        for param, (attr, _, need_clip, stop_gradient) in held:
            settings.put_back(param, (attr, None, need_clip, stop_gradient))

        def show() -> None:
            for param, captured in held:
                settings.put_back(param, captured)

        return show

    sharding.hide_while_checked(stage, run.optimizer, hide)


def refuse_splitting(run: Any) -> None:
    """Refuse what cannot be where stage 1 splits parameters.

    Raises:
        ValueError: something is frozen, now or in the course of the training, or has a regularizer.
    """
    weights = select.named_weights(run.model)
    if run.plan.thaws or any(param.stop_gradient for param in weights.values()):
        raise ValueError(
            "sharding stage 1 with split parameters (version 2): Paddle asserts there that every parameter trains, and "
            f"this plan freezes some; {_WHOLE}"
        )
    regularized = [name for name, param in weights.items() if param.regularizer is not None]
    if regularized:
        raise ValueError(
            f"sharding stage 1 with split parameters (version 2): {_errors.listing(regularized, 3)} have a "
            f"regularizer, which does not follow a parameter into its slices; {_WHOLE}, or use weight_decay in place "
            "of L2 or L2SP"
        )
