"""The learning-rate finder: one short trial with a rising LR, and what it suggests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.annealing import SchedExp
from paddle_ftstrat.schedules.suggest import minimum, slide, steep, suggest, valley
from paddle_ftstrat.training.callbacks import Callback, StopTraining
from paddle_ftstrat.training.recorder import Recorder, Sweep

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner

__all__ = ["LRFinder", "minimum", "slide", "steep", "valley"]

DIVERGED = 4.0


class LRFinder(Callback):
    """Raises the LR exponentially over `num_it` updates and ends the fit then, or when the loss diverges.

    lr(i) = start_lr·(end_lr/start_lr)^(i/num_it). Diverged is a smoothed loss over 4 × its best after the first tenth
    of the updates, or one that is not finite. Evaluations are skipped. The Learner's `lr_find` wraps it in a trial that
    leaves no trace.

    Args:
        start_lr: the first LR, > 0.
        end_lr: the last LR, > start_lr.
        num_it: number of updates, ≥ 6.
        stop_div: stop when the loss diverges.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> LRFinder(start_lr=1e-6, num_it=50).end_lr
        10.0

    Source: fastai's `LRFinder`; Smith, "Cyclical Learning Rates" (arXiv:1506.01186, section 3.3).
    """

    def __init__(self, start_lr: float = 1e-7, end_lr: float = 10.0, num_it: int = 100, stop_div: bool = True) -> None:
        self.start_lr = _errors.check_number("start_lr", start_lr, above=0)
        self.end_lr = _errors.check_number("end_lr", end_lr, above=self.start_lr)
        self.num_it = _errors.check_whole("num_it", num_it, minimum=6)
        self.stop_div = stop_div
        self._first = 0
        self._best = math.inf
        self._bar: Any = None

    def on_fit_begin(self, learner: Learner) -> None:
        learner.state.skip_validation = True
        self._first, self._best = len(learner.recorder.losses), math.inf
        self._bar = tqdm(total=self.num_it, desc="lr_find", unit="update", disable=learner.quiet, leave=False)
        schedule = SchedExp(self.start_lr, self.end_lr).over(self.num_it)
        plan = replace(learner.run.plan, schedules={"lr": schedule}, max_train_steps=self.num_it)
        learner.run.follow(plan)

    def on_after_update(self, learner: Learner) -> None:
        self._bar.set_postfix_str(f"loss={learner.state.loss:.4f} lr={learner.recorder.lrs[-1]:.2e}", refresh=False)
        self._bar.update()
        loss, done = learner.recorder.smooth_losses[-1], len(learner.recorder.losses) - self._first
        if done > self.num_it // 10:
            # The average of the first few batches is mere noise, which no suggestion looks at, either.
            self._best = min(self._best, loss)
        if done >= self.num_it or (self.stop_div and loss > DIVERGED * self._best):
            raise StopTraining

    def on_fit_end(self, learner: Learner) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def suggestions(recorder: Recorder, finder: LRFinder, functions: Sequence[Callable[..., Any]]) -> tuple[Any, Sweep]:
    """What the functions suggest, and the sweep they judge by, of the fit that the recorder has seen."""
    lrs, losses = recorder.lrs, recorder.smooth_losses
    found, points = suggest(lrs, losses, finder.num_it, functions)
    return found, Sweep(list(lrs), list(losses), found._asdict(), points)
