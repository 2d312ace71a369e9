"""Where a training is, as plain data, and what callbacks and checkpoints see of the Learner that carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paddle import nn
from paddle.metric import Metric

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.training.distributed import Ranks
from paddle_ftstrat.training.precision import Precision
from paddle_ftstrat.training.recorder import Recorder


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
        running: whether the fit runs, so that evaluations are of the average, where the strategy has one.
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
    running: bool = False
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


class Training(Protocol):
    """What callbacks, evaluation and checkpoints need of a Learner (see its attributes)."""

    model: nn.Layer
    train: Any
    valid: Any
    loss: Any
    metrics: dict[str, Metric]
    accumulate: int
    num_threads: int | None
    ranks: Ranks
    precision: Precision
    weights: Mapping[str, Any]
    run: Binding
    state: TrainState
    recorder: Recorder
    cbs: list[Any]
    callbacks: list[Any]
    notes: dict[str, Any]

    @property
    def quiet(self) -> bool | None:
        """Whether progress is shown: True shows nothing, None lines, and bars on a terminal."""

    def call_event(self, event: str, *given: Any) -> None:
        """Call an event of every callback."""

    def forward(self, batch: Any, number: int) -> tuple[Any, Any]:
        """What the model returns for a batch, the how manieth of the epoch, and the loss of it."""

    def value_names(self) -> list[str]:
        """Names in the results of an epoch."""

    def save(self, fname: str, with_opt: bool = True) -> Path:
        """Write the model, and the optimizer's state."""

    def load(self, fname: str, with_opt: bool = True) -> None:
        """Load what `save` wrote."""
