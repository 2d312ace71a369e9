"""What can be hung into the training loop: progress, early stopping, keeping the best model, user code."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from paddle_ftstrat import _errors
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.training.recorder import bar, say, summary
from paddle_ftstrat.training.state import Training

EVENTS = (
    "fit_begin",
    "epoch_begin",
    "batch_begin",
    "after_loss",
    "before_update",
    "after_update",
    "batch_end",
    "validate_begin",
    "validate_end",
    "epoch_end",
    "fit_end",
)


class StopTraining(Exception):
    """Raised by a callback to end the fit after the current update, in good order.

    Example:
        >>> class OneUpdate(Callback):
        ...     def on_batch_end(self, learner):
        ...         raise StopTraining
    """


class Callback:
    """Base of callbacks: override the events you need. Each gets the Learner, whose `state` tells where it is.

    Order in a fit: `on_fit_begin`, per epoch `on_epoch_begin`, per batch `on_batch_begin`, `on_after_loss` (in
    evaluations, too), `on_before_update` (the gradients are there), `on_after_update`, `on_batch_end`;
    `on_validate_begin`, `on_validate_end`, `on_epoch_end`, `on_fit_end` (also after an error or a stop). Where
    gradients are accumulated, the two events of the update come with the last of its batches; a skipped update (mixed
    precision) has no `on_after_update`.

    A callback with `state_dict()` and `set_state_dict(state)` (nested dicts of tensors and of what JSON can hold) is
    saved in checkpoints; on resuming, `set_state_dict` comes after `on_fit_begin`. Of the last fit that an earlier
    process finished they hear these two and `on_fit_end`, with `learner.state.finished`.

    Example:
        >>> class Stop(Callback):
        ...     def on_batch_end(self, learner):
        ...         if learner.state.step == 3:
        ...             raise StopTraining
    """

    def on_fit_begin(self, learner: Training) -> None:
        """The plan is bound; nothing was trained yet."""

    def on_epoch_begin(self, learner: Training) -> None:
        """Layers of this epoch are thawed."""

    def on_batch_begin(self, learner: Training) -> None:
        """`learner.state.batch` is the batch to come."""

    def on_after_loss(self, learner: Training, batch: Any, output: Any, loss: float) -> None:
        """What the model returned for a batch, and the loss of it, are known; in training and in evaluations."""

    def on_before_update(self, learner: Training) -> None:
        """`learner.state.loss` is known and the gradients are there."""

    def on_after_update(self, learner: Training) -> None:
        """The weights have moved; `learner.state.step` counts this update."""

    def on_batch_end(self, learner: Training) -> None:
        """The batch is done with, and the update if it was its last."""

    def on_validate_begin(self, learner: Training) -> None:
        """An evaluation begins."""

    def on_validate_end(self, learner: Training) -> None:
        """`learner.state.values` are the results."""

    def on_epoch_end(self, learner: Training) -> None:
        """The epoch's results are in `learner.recorder.values[-1]`."""

    def on_fit_end(self, learner: Training) -> None:
        """The fit is over, in whatever way."""


def as_list(given: Any) -> list[Any]:
    """One, several or None, of callbacks and the like, as a list."""
    return list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]


@contextmanager
def evaluated_weights(learner: Training) -> Iterator[None]:
    """Inside it the model holds the weights that validation sees: averaged ones, in a fit that averages them."""
    with ExitStack() as stack:
        if learner.state.running and learner.run.has_average:
            stack.enter_context(learner.run.averaged())
        for callback in learner.callbacks or learner.cbs:
            if hasattr(callback, "averaged"):
                stack.enter_context(callback.averaged())
        yield


class ProgressCallback(Callback):
    """A tqdm bar per epoch with loss, LR and speed, and a line of results after each.

    Args:
        quiet: True shows nothing, False bars and lines, None lines, and on a terminal bars.
    """

    def __init__(self, quiet: bool | None = None) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._started = 0.0

    def on_epoch_begin(self, learner: Training) -> None:
        state = learner.state
        self._started = time.perf_counter()
        label = f"epoch {state.epoch}/{state.num_epoch}"
        done = state.batch_number
        self._bar = bar(total=state.batches, initial=done, desc=label, unit="batch", disable=self._quiet)

    def on_batch_end(self, learner: Training) -> None:
        if self._bar is not None and not self._bar.disable:
            if learner.recorder.losses:
                loss, lr = learner.recorder.smooth_losses[-1], learner.recorder.lrs[-1]
                self._bar.set_postfix_str(f"loss={loss:.4f} lr={lr:.2e}", refresh=False)
            self._bar.update()

    def on_epoch_end(self, learner: Training) -> None:
        if not self._quiet:
            state, seconds = learner.state, time.perf_counter() - self._started
            values = {key: value for key, value in learner.recorder.values[-1].items() if key != "epoch"}
            say(f"epoch {state.epoch}/{state.num_epoch}: {summary(values)} ({seconds:.1f} s)")
        self._close()

    def on_fit_end(self, learner: Training) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a score beats the best so far by more than `min_delta`; NaN beats nothing.

    Args:
        value: the new score.
        best: the best so far; None before there is one.
        mode: "min" or "max", what is better.
        min_delta: by how much it has to be better.

    Example:
        >>> better(0.9, 0.8, "max"), better(0.9, 0.8, "min"), better(0.1, None, "max")
        (True, False, True)
    """
    if best is None:
        return math.isfinite(value)
    return value < best - min_delta if mode == "min" else value > best + min_delta


class TrackerCallback(Callback):
    """Watches one value of the epoch results and knows whether it got better.

    Args:
        monitor: `valid_loss`, `train_loss` or a metric's name.
        mode: "min" or "max"; None: names with loss, error, mse, mae, mape or perplexity in them are better when
            lower, all else when higher.
        min_delta: by how much a value has to be better to count, ≥ 0.

    Raises:
        ValueError: an unknown mode, or a monitored value that the epochs do not have.
    """

    # What it knows when a fit begins.
    start: ClassVar[Mapping[str, Any]] = {"best": None}

    def __init__(self, monitor: str = "valid_loss", mode: str | None = None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(_errors.unknown("mode", mode, ["min", "max"]))
        self.monitor = monitor
        self.mode = mode or mode_of(monitor)
        self.min_delta = _errors.check_number("min_delta", min_delta, minimum=0)
        self.known = dict(self.start)
        self._resumed: Mapping[str, Any] | None = None

    @property
    def best(self) -> float | None:
        """The best value so far; None before there is one."""
        return self.known["best"]

    def on_fit_begin(self, learner: Training) -> None:
        """Start anew, or where the state says that was set before the fit; refuse a value that will never come."""
        self._check(learner.value_names())
        self.known = dict(self.start if self._resumed is None else self._resumed)

    def _check(self, names: Sequence[str]) -> None:
        """Refuse to monitor what is not among the names of an epoch's results."""
        if self.monitor not in names:
            raise ValueError("monitor: " + _errors.unknown("value", self.monitor, names))

    def on_fit_end(self, learner: Training) -> None:
        self._resumed = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit has to know."""
        return dict(self.known)

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken, in the fit that runs, or in the next one."""
        self._resumed, self.known = state, dict(state)

    def improved(self, learner: Training) -> bool:
        """Whether the last epoch is the best so far; remembers it if so."""
        value = learner.recorder.values[-1][self.monitor]
        found = better(value, self.best, self.mode, self.min_delta)
        if found:
            self.known["best"] = value
        return found


class EarlyStoppingCallback(TrackerCallback):
    """Ends the fit when the monitored value has not got better for `patience` epochs.

    Args:
        monitor: `valid_loss`, `train_loss` or a metric's name.
        mode: "min" or "max"; None chooses by name.
        min_delta: by how much a value has to be better to count.
        patience: number of epochs without improvement that are put up with, ≥ 0.

    Raises:
        ValueError, TypeError: `patience` is not a whole number ≥ 0, an unknown mode, or a `min_delta` below 0.

    Example:
        >>> EarlyStoppingCallback("acc", patience=2).mode
        'max'

    Source: fastai's `EarlyStoppingCallback`.
    """

    start: ClassVar[Mapping[str, Any]] = {"best": None, "waited": 0}

    def __init__(
        self, monitor: str = "valid_loss", mode: str | None = None, min_delta: float = 0.0, patience: int = 1
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = _errors.check_whole("patience", patience)

    def on_epoch_end(self, learner: Training) -> None:
        self.known["waited"] = 0 if self.improved(learner) else self.known["waited"] + 1
        if self.known["waited"] > self.patience:
            raise StopTraining


class SaveModelCallback(TrackerCallback):
    """Saves the model whenever the monitored value gets better, and loads the best one at the end.

    Args:
        monitor: `valid_loss`, `train_loss` or a metric's name.
        mode: "min" or "max"; None chooses by name.
        min_delta: by how much a value has to be better to count.
        fname: file name below the Learner's `path`/models, without ending.
        every_epoch: save each epoch as `fname_epoch` instead, and load nothing at the end.
        with_opt: save the optimizer's state, too.

    Raises:
        ValueError, TypeError: as `EarlyStoppingCallback`.

    Example:
        >>> SaveModelCallback(monitor="acc", fname="best", with_opt=True).mode
        'max'

    Source: fastai's `SaveModelCallback`.
    """

    start: ClassVar[Mapping[str, Any]] = {"best": None, "saved": False}

    def __init__(
        self,
        monitor: str = "valid_loss",
        mode: str | None = None,
        min_delta: float = 0.0,
        fname: str = "model",
        every_epoch: bool = False,
        with_opt: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.fname, self.every_epoch, self.with_opt = fname, every_epoch, with_opt

    def _check(self, names: Sequence[str]) -> None:
        """Refuse to monitor what is not among the names of an epoch's results, if anything is monitored."""
        if not self.every_epoch:
            super()._check(names)

    def on_epoch_end(self, learner: Training) -> None:
        if not self.every_epoch and not self.improved(learner):
            return
        with evaluated_weights(learner):
            name = f"{self.fname}_{learner.state.epoch}" if self.every_epoch else self.fname
            learner.save(name, with_opt=self.with_opt)
        self.known["saved"] = not self.every_epoch

    def on_fit_end(self, learner: Training) -> None:
        super().on_fit_end(learner)
        if self.known["saved"] and not learner.state.finished:
            learner.load(self.fname, with_opt=self.with_opt)
