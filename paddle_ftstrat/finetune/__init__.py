"""PaddleHub 1.x's module paths of strategies, configuration and tasks; here names are only handed on."""

from paddle_ftstrat.finetune import config, lr_find, strategy, task

__all__ = ["config", "lr_find", "strategy", "task"]
