"""A strategy in PaddleSeg's configuration: `optimizer: {type: Strategy, strategy: {...}}`."""

from __future__ import annotations

import importlib
from typing import Any

from paddle.optimizer import lr as schedulers

from paddle_ftstrat import _errors
from paddle_ftstrat.integrations.carrying import STRATEGY, bind_block

_NAME = "Strategy"


def install() -> None:
    """Enter the component `Strategy` in PaddleSeg's registry of optimizers.

    In the configuration: `optimizer: {type: Strategy, strategy: {...}, steps_per_epoch: 100}`, beside which may stand
    `pretrained`, `layers`, `no_decay` and `fused` of `bind`. PaddleSeg counts iterations; `steps_per_epoch`, training
    images // (batch_size · processes), says after how many the next layers thaw. Of `lr_scheduler`, which PaddleSeg
    demands, `{type: PolynomialDecay, learning_rate: η}` gives the length of the training and η.

    Call it before the configuration is built, or start the script with `python -m paddle_ftstrat.integrations paddleseg
    tools/train.py --config …`. In a script of one's own no entry is needed: `paddleseg.core.train(model, …,
    optimizer=run.attach()[0])`.

    Raises:
        ImportError: PaddleSeg is not installed.
        ValueError: when the optimizer is built: options of the schedule that would have no effect, or what `bind`
            refuses.

    Source: checked with paddleseg 2.8.0: `paddleseg/cvlibs/builder.py`, `paddleseg/core/train.py`.
    """
    with _errors.needed("PaddleSeg is not installed", "paddleseg"):
        manager = importlib.import_module("paddleseg.cvlibs.manager")
    if _NAME not in manager.OPTIMIZERS.components_dict:
        manager.OPTIMIZERS.add_component(Strategy)


class Strategy:
    """PaddleSeg's optimizer component: bound when it is called with the model and the LR scheduler.

    Args:
        steps_per_epoch: iterations per epoch, ≥ 1.
        block: `strategy`, and what else `bind` takes.
    """

    def __init__(self, steps_per_epoch: int, **block: Any) -> None:
        self.steps_per_epoch = _errors.check_whole("optimizer.steps_per_epoch", steps_per_epoch, minimum=1)
        if STRATEGY not in block:
            raise ValueError(f"optimizer: type {_NAME} needs `strategy: {{...}}` beside it")
        self.block = block

    def __call__(self, model: Any, lr: Any) -> Any:
        """The binding's optimizer."""
        if type(lr) is not schedulers.PolynomialDecay:
            raise ValueError(
                f"lr_scheduler {type(lr).__name__} beside a strategy would have no effect: write "
                "lr_scheduler: {type: PolynomialDecay, learning_rate: η}, from which η and `iters` are taken, and the "
                "warmup and the decay into the strategy"
            )
        length = {"max_train_steps": lr.decay_steps, "steps_per_epoch": self.steps_per_epoch}
        return bind_block(self.block, model, "PaddleSeg", lr.base_lr, **length).optimizer
