"""Strategies, the training loop and tasks, at the module paths that PaddleHub 1.x used."""

from paddle_ftstrat.finetune import config, learner, strategy, task

__all__ = ["config", "learner", "strategy", "task"]
