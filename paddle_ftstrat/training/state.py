"""Where a training loop is, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """The stretch of a fit's updates that its curve covers: `length` updates from update `begin` on."""

    begin: int
    length: int


@dataclass(frozen=True)
class Position:
    """The batch to come: its epoch (from 1), the batches of that epoch that are done, the updates that are done.

    `losses` is the number of losses that the recorder had when the epoch began.
    """

    epoch: int
    batch: int
    step: int
    losses: int | None = None


@dataclass
class TrainState:
    """Where the loop is.

    Attributes:
        num_epoch: epochs of the fit.
        batches: batches of an epoch.
        updates: updates of an epoch; fewer than batches where gradients are accumulated.
        span: what the curve covers.
        seed: what the randomness of each batch follows from.
        epoch: the epoch, from 1.
        batch_number: batches of the epoch begun so far, the current one included.
        step: index of the coming update in the fit.
        batch: the current batch.
        loss: loss of the current batch; when an update is done, of all its batches.
        values: results of the last evaluation.
        skip_validation: set by a callback to leave evaluations out.
        finished: whether an earlier process finished the fit: its callbacks hear that it begins and ends, no more.
    """

    num_epoch: int
    batches: int
    updates: int = 0
    span: Span = Span(0, 0)
    seed: int = 0
    epoch: int = 0
    batch_number: int = 0
    step: int = 0
    batch: Any = None
    loss: float = math.nan
    values: dict[str, float] | None = None
    skip_validation: bool = False
    finished: bool = False
    epoch_losses: int = 0
    epoch_host: dict[str, Any] = field(default_factory=dict)
    reading_host: dict[str, Any] = field(default_factory=dict)

    @property
    def curve_step(self) -> int:
        """Index of the coming update on the curve."""
        return self.step - self.span.begin

    @property
    def position(self) -> Position:
        """What a later run needs to go on from here."""
        return Position(self.epoch, self.batch_number, self.step, self.epoch_losses)
