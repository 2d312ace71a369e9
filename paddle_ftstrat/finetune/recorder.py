"""What happened during training: LR and loss of every update, results of every epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SMOOTHING = 0.98


@dataclass
class Recorder:
    """The trace of all fits of a Learner.

    Attributes:
        lrs: LR of each update, before multipliers.
        losses: training loss of each update.
        smooth_losses: its moving average, s ← 0.98·s + 0.02·loss, divided by 1 − 0.98ⁿ after n updates.
        values: per epoch, a dict of `epoch`, `train_loss`, `valid_loss` and the metrics.
        hps: hyper-parameters that were scheduled, name → value of each update.

    Source: fastai's `Recorder`.
    """

    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smooth_losses: list[float] = field(default_factory=list)
    values: list[dict[str, float]] = field(default_factory=list)
    hps: dict[str, list[Any]] = field(default_factory=dict)
    _average: float = 0.0

    def add_update(self, lr: float, loss: float) -> None:
        """Note one update."""
        self.lrs.append(lr)
        self.losses.append(loss)
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        self.smooth_losses.append(self._average / (1 - SMOOTHING ** len(self.losses)))

    def add_epoch(self, values: dict[str, float]) -> None:
        """Note one epoch's results."""
        self.values.append(values)
