"""A strategy in PaddleDetection: as an entry of its YAML, or in a `ppdet.engine.Trainer` that is there."""

from __future__ import annotations

import importlib
from typing import Any

from paddle.optimizer.lr import LRScheduler

from paddle_ftstrat import _errors
from paddle_ftstrat.integrations.carrying import STRATEGY, anchor_at_first_update, bind_block, check_host

_MARK = "ftstrat"


class Pending(LRScheduler):
    """Stands in for the LR scheduler of a binding that is not made yet.

    Args:
        steps_per_epoch: updates per epoch.
        base_lr: η of the configuration.
    """

    def __init__(self, steps_per_epoch: int, base_lr: float) -> None:
        self.steps_per_epoch, self.run = steps_per_epoch, None
        super().__init__(learning_rate=base_lr)

    def get_lr(self) -> float:
        """The LR of the coming update."""
        return self.base_lr if self.run is None else self.run.lr_scheduler.get_lr()

    def step(self, epoch: int | None = None) -> None:
        """Step the binding's scheduler."""
        if self.run is None:
            super().step(epoch)
        else:
            self.run.lr_scheduler.step(epoch)


def install() -> None:
    """Let PaddleDetection's configurations ask for a strategy: `OptimizerBuilder: {optimizer: {strategy: {...}}}`.

    Call it before `ppdet.engine.Trainer` is made, or start the script with `python -m paddle_ftstrat.integrations
    paddledet tools/train.py -c …`. Beside `strategy` may stand `pretrained`, `layers`, `no_decay` and `fused` of
    `bind`. `LearningRate.base_lr` is η where the strategy has no `learning_rate`; PaddleDetection's schedulers, which
    base files bring, are not used. Layers thaw and L2SP is anchored as in any loop; the weights of `pretrain_weights`
    are what it pulls towards.

    Raises:
        ImportError: PaddleDetection is not installed.
        ValueError: when the Trainer is made: `clip_grad_by_norm`, `clip_grad_by_value` or other keys beside the
            strategy, which has its own, or what `bind` refuses. Of a `regularizer`, which PaddleDetection has by
            default, a warning tells.

    Source: checked with paddledet 2.6.0: `ppdet/optimizer/optimizer.py`, `ppdet/engine/trainer.py`.
    """
    with _errors.needed("PaddleDetection is not installed", "paddledet"):
        built = importlib.import_module("ppdet.optimizer.optimizer")
        workspace = importlib.import_module("ppdet.core.workspace")
    rate, builder = built.LearningRate, built.OptimizerBuilder
    if hasattr(builder, _MARK):
        return
    rate_call, builder_call = rate.__call__, builder.__call__

    def learning_rate(self: Any, step_per_epoch: int) -> Any:
        asked = dict(workspace.global_config["OptimizerBuilder"].get("optimizer") or {})
        return Pending(step_per_epoch, self.base_lr) if STRATEGY in asked else rate_call(self, step_per_epoch)

    def optimizer(self: Any, learning_rate: Any, model: Any = None) -> Any:
        if STRATEGY not in self.optimizer:
            return builder_call(self, learning_rate, model)
        # What base files bring is in `self.optimizer`, too: dicts are merged.
        block = {key: value for key, value in self.optimizer.items() if key not in ("type", "momentum")}
        for name in ("clip_grad_by_norm", "clip_grad_by_value"):
            if getattr(self, name) is not None:
                raise ValueError(f"OptimizerBuilder.{name} beside a strategy: use the strategy's `clip`")
        if self.regularizer and self.regularizer != "None":
            # It may be PaddleDetection's default, which nobody wrote.
            _errors.warn(
                f"OptimizerBuilder.regularizer {self.regularizer} is not used beside a strategy, which has its own "
                "`regularization`; `regularizer: null` says so"
            )
        length = {"num_epoch": workspace.global_config["epoch"], "steps_per_epoch": learning_rate.steps_per_epoch}
        learning_rate.run = run = bind_block(block, model, "PaddleDetection", learning_rate.base_lr, **length)
        anchor_at_first_update(run)
        return run.optimizer

    rate.__call__, builder.__call__ = learning_rate, optimizer
    setattr(builder, _MARK, True)


def attach(run: Any, trainer: Any) -> None:
    """Let a `ppdet.engine.Trainer` train with a binding in place of the optimizer of its configuration.

    Args:
        run: the binding, of `trainer.model`, with `num_epoch=cfg.epoch, steps_per_epoch=len(trainer.loader)`.
        trainer: the Trainer, in mode "train".

    Raises:
        ValueError: it trains another model, or in several processes with layers to be thawed.
    """
    if trainer.model is not run.model:
        raise ValueError("the Trainer trains another model than the binding: bind trainer.model")
    check_host(run, "PaddleDetection")
    trainer.optimizer, trainer.lr = run.optimizer, run.lr_scheduler
