"""Strategies, the training loop and tasks, at the module paths that PaddleHub 1.x used."""

from paddle_ftstrat.finetune import strategy

__all__ = ["strategy"]
