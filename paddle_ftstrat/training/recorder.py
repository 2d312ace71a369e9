"""What happened during training: LR and loss of every update, results of every epoch; pictures and log lines of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from paddle_ftstrat.pictures import finished, pyplot

SMOOTHING = 0.98
T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """An LR finder's trial: LRs, smoothed losses; by name, the suggested LRs and the points they were read off at."""

    lrs: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    suggested: Mapping[str, float]
    points: Mapping[str, tuple[float, float]]


@dataclass(repr=False)
class Recorder:
    """The trace of all fits of a Learner.

    Attributes:
        lrs: LR of each update, before multipliers.
        losses: training loss of each update.
        smooth_losses: its moving average, s ← 0.98·s + 0.02·loss, divided by 1 − 0.98ⁿ after n updates.
        values: per epoch, a dict of `epoch`, `train_loss`, `valid_loss` and the metrics.
        hps: hyper-parameters that the last fit scheduled, name → value of each of its updates (the top group's).
        sweep: the last `lr_find`.

    Source: fastai's `Recorder`.
    """

    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smooth_losses: list[float] = field(default_factory=list)
    values: list[dict[str, float]] = field(default_factory=list)
    hps: dict[str, list[Any]] = field(default_factory=dict)
    sweep: Sweep | None = None
    ends: list[int] = field(default_factory=list)
    average: float = 0.0

    def __repr__(self) -> str:
        last = " ".join(f"{name}={value:.4g}" for name, value in (self.values[-1] if self.values else {}).items())
        return f"Recorder({len(self.losses)} updates{', last epoch: ' + last if last else ''})"

    def add_update(self, lr: float, loss: float, hypers: Mapping[str, Any]) -> None:
        """Note one update: its LR, its loss, and what is scheduled, a number or one per layer group."""
        self.lrs.append(lr)
        self.losses.append(loss)
        for name, value in hypers.items():
            self.hps.setdefault(name, []).append(float(value[-1] if isinstance(value, list) else value))
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.smooth_losses.append(self.average / (1 - SMOOTHING ** len(self.losses)))

    def add_epoch(self, values: dict[str, float]) -> None:
        """Note one epoch's results."""
        self.values.append(values)
        self.ends.append(len(self.losses))

    def plot_loss(self, skip_start: int = 5, with_valid: bool = True, path: Any = None) -> Any:
        """Draw the smoothed training loss over the updates, and the validation loss at the ends of epochs.

        Args:
            skip_start: leave out so many updates at the beginning, whose loss would set the scale.
            with_valid: draw the validation loss.
            path: image file to write.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: nothing was trained yet.
        """
        _needed(self.losses, "plot_loss needs a fit")
        figure, axes = _figure("loss over the updates")
        skip = min(skip_start, len(self.losses) - 1)
        updates = np.arange(1, len(self.losses) + 1)
        axes.plot(updates[skip:], self.losses[skip:], color="0.8", lw=0.8, label="training, each batch")
        axes.plot(updates[skip:], self.smooth_losses[skip:], color="tab:blue", lw=2, label="training, smoothed")
        shown = [(end, row["valid_loss"]) for end, row in zip(self.ends, self.values) if "valid_loss" in row]
        if with_valid and shown:
            axes.plot(*zip(*shown), "o-", color="tab:orange", lw=1.5, ms=4, label="validation")
        axes.set(xlabel="update", ylabel="loss")
        axes.legend(frameon=False)
        return finished(figure, path)

    def plot_sched(self, keys: Any = None, path: Any = None) -> Any:
        """Draw the hyper-parameters that the last fit scheduled, one panel each.

        Args:
            keys: their names; None: all.
            path: image file to write.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the last fit scheduled nothing, or not this.
        """
        _needed(self.hps, "plot_sched needs a fit with a schedule (fit_one_cycle, ParamScheduler, …)")
        keys = list(self.hps) if keys is None else [keys] if isinstance(keys, str) else list(keys)
        missing = [key for key in keys if key not in self.hps]
        if missing:
            raise ValueError(f"{missing} was not scheduled in the last fit; {list(self.hps)} was")
        plt = pyplot()
        figure, panels = plt.subplots(
            1, len(keys), figsize=(5 * len(keys), 3.6), constrained_layout=True, squeeze=False
        )
        for axes, key in zip(panels[0], keys):
            axes.plot(np.arange(len(self.hps[key])), self.hps[key], lw=2)
            axes.set(xlabel="update", ylabel=_LABELS.get(key, key), title=_LABELS.get(key, key))
        return finished(figure, path)

    def plot_lr_find(self, path: Any = None) -> Any:
        """Draw the loss over the LR of the last `lr_find`, with its suggestions marked.

        Args:
            path: image file to write.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there was no `lr_find`.
        """
        sweep = _needed(self.sweep, "plot_lr_find needs lr_find")
        figure, axes = _figure("learning-rate finder")
        skipped = len(sweep.lrs) // 10
        axes.plot(sweep.lrs[skipped:], sweep.losses[skipped:], lw=2, color="0.3")
        for index, (name, (lr, loss)) in enumerate(sweep.points.items()):
            axes.plot(lr, loss, "o", ms=9, color=f"C{index}", label=f"{name}: {sweep.suggested[name]:.2e}")
        axes.set(xlabel="learning rate (log)", ylabel="smoothed training loss", xscale="log")
        axes.set_ylim(*_window(sweep.losses))
        axes.legend(frameon=False, title="suggested")
        return finished(figure, path)


_LABELS = {"lr": "learning rate", "mom": "momentum (β₁)", "sqr_mom": "β₂ (ρ)", "wd": "weight decay", "eps": "epsilon"}


def _needed(there: T | None, otherwise: str) -> T:
    if not there:
        raise ValueError(f"{otherwise} first")
    return there


def _window(losses: list[float]) -> tuple[float, float]:
    """The range of losses to show: from the best to a bit over the start; where the loss blows up is cut off."""
    shown = losses[len(losses) // 10 :]
    low, high = min(shown), max(shown[: max(1, len(shown) // 2)])
    span = max(high - low, 0.1 * abs(high), 1e-12)
    return low - 0.1 * span, low + 1.5 * span


def _figure(title: str) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(figsize=(7, 4.2), constrained_layout=True)
    axes.set_title(title)
    return figure, axes


def summary(values: dict[str, float]) -> str:
    """`loss=0.3010 acc=0.9000`, for log lines."""
    return " ".join(f"{name}={value:.4f}" for name, value in values.items())


def logger() -> logging.Logger:
    """The library's logger. Unless the user has set logging up, it prints times and levels, beside tqdm's bars.

    Set up is: a level for this logger, or for one above it that lets INFO through. That there are handlers says
    nothing: importing Paddle 2.6 hands one to the root logger.
    """
    log = logging.getLogger("paddle_ftstrat")
    if log.level == logging.NOTSET and (not log.hasHandlers() or not log.isEnabledFor(logging.INFO)):
        handler = _BesideBars()
        handler.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)8s] - %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def silent() -> logging.Logger:
    """A logger that says nothing."""
    log = logging.getLogger("paddle_ftstrat.silent")
    log.disabled = True
    return log


class _BesideBars(logging.Handler):
    def emit(self, record: Any) -> None:
        say(self.format(record))


def say(line: str) -> None:
    """Print a line beside tqdm's bars; at once, since a log file is followed while training goes on."""
    from tqdm import tqdm

    tqdm.write(line)
    sys.stdout.flush()


def bar(*args: Any, **options: Any) -> Any:
    """tqdm's bar, which goes when it is done."""
    from tqdm.auto import tqdm  # asks for notebooks' widgets, which takes a while

    return tqdm(*args, leave=False, **options)
