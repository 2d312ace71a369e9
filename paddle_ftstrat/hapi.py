"""The callback that carries a binding into `paddle.Model.fit`."""

from __future__ import annotations

from typing import Any

from paddle.callbacks import LRScheduler


class StrategyCallback(LRScheduler):
    """Steps a binding's LR after each batch and thaws layers at each epoch of `paddle.Model.fit`.

    It is a `paddle.callbacks.LRScheduler`, because `fit` adds one of those by itself, which would step the LR a second
    time, unless it is given one.

    Args:
        run: the binding; the model is prepared with `model.prepare(optimizer=run.optimizer, …)`.
    """

    def __init__(self, run: Any) -> None:
        super().__init__(by_step=True, by_epoch=False)
        self.run = run

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse a model that was prepared with another optimizer."""
        if self.model._optimizer is not self.run.optimizer:
            raise ValueError("prepare the model with the binding's optimizer: model.prepare(run.optimizer, ...)")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Apply the unfreezing plan of the epoch."""
        self.run.begin_epoch()
