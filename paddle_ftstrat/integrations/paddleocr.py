"""A strategy in PaddleOCR's configuration: `Optimizer: {strategy: {...}}`, with an unchanged tools/train.py."""

from __future__ import annotations

import importlib
from typing import Any

from paddle_ftstrat.integrations.carrying import STRATEGY, anchor_at_first_update, bind_block

_MARK = "ftstrat"


def install() -> None:
    """Let PaddleOCR's configurations ask for a strategy: `Optimizer: {strategy: {...}}`.

    Call it before tools/train.py is imported, or start it with `python -m paddle_ftstrat.integrations paddleocr
    tools/train.py -c …`. Beside `strategy` may stand `pretrained`, `layers`, `no_decay` and `fused` of `bind`. Layers
    thaw by the count of updates, and the checkpoints of PaddleOCR hold what a resumed training needs. PaddleOCR loads
    `Global.pretrained_model` after it has built the optimizer: L2SP pulls towards the weights of the first update.

    Raises:
        ImportError: PaddleOCR's folder is not where Python looks: its training code is in no package.
        ValueError: when the optimizer is built: keys beside the strategy that would have no effect, or what `bind`
            refuses.

    Source: PaddleOCR `ppocr/optimizer/__init__.py`, `tools/train.py`, `tools/program.py`, read at versions of 2024.
    """
    try:
        optimizers: Any = importlib.import_module("ppocr.optimizer")
    except ImportError as error:
        raise ImportError(
            "ppocr is not there: start in PaddleOCR's folder (git clone https://github.com/PaddlePaddle/PaddleOCR), "
            f"with its requirements installed ({error})"
        ) from error
    if hasattr(optimizers.build_optimizer, _MARK):
        return
    build = optimizers.build_optimizer

    def build_optimizer(config: Any, epochs: int, step_each_epoch: int, model: Any) -> Any:
        if STRATEGY not in config:
            return build(config, epochs, step_each_epoch, model)
        run = bind_block(config, model, "PaddleOCR", num_epoch=epochs, steps_per_epoch=step_each_epoch)
        anchor_at_first_update(run)
        return run.optimizer, run.lr_scheduler

    setattr(build_optimizer, _MARK, True)
    optimizers.build_optimizer = build_optimizer
