"""The learning-rate finder: one short trial with a rising LR that leaves no trace, and what it suggests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import masters
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.schedules.annealing import SchedExp
from paddle_ftstrat.schedules.suggest import minimum, slide, steep, suggest, valley
from paddle_ftstrat.training import rng
from paddle_ftstrat.training.callbacks import Callback, StopTraining
from paddle_ftstrat.training.checkpoint.manager import CheckpointManager, Start
from paddle_ftstrat.training.loop import Loop
from paddle_ftstrat.training.recorder import Recorder, Sweep, bar, say
from paddle_ftstrat.training.state import Position, Span, Training, TrainState

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

    def on_fit_begin(self, learner: Training) -> None:
        learner.state.skip_validation = True
        self._first, self._best = len(learner.recorder.losses), math.inf
        self._bar = bar(total=self.num_it, desc="lr_find", unit="update", disable=learner.quiet)
        schedule = SchedExp(self.start_lr, self.end_lr).over(self.num_it)
        plan = replace(learner.run.plan, schedules={"lr": schedule}, max_train_steps=self.num_it)
        learner.run.follow(plan)

    def on_after_update(self, learner: Training) -> None:
        self._bar.set_postfix_str(f"loss={learner.state.loss:.4f} lr={learner.recorder.lrs[-1]:.2e}", refresh=False)
        self._bar.update()
        loss, done = learner.recorder.smooth_losses[-1], len(learner.recorder.losses) - self._first
        if done > self.num_it // 10:
            # The average of the first few batches is mere noise, which no suggestion looks at, either.
            self._best = min(self._best, loss)
        if done >= self.num_it or (self.stop_div and loss > DIVERGED * self._best):
            raise StopTraining

    def on_fit_end(self, learner: Training) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def sweep(
    learner: Loop, bind: Callable[[], Binding], run: Binding | None, finder: LRFinder, functions: Sequence[Any]
) -> tuple[Any, Sweep]:
    """The LR finder's suggestions for a Learner, which is afterwards as it was before, and the sweep behind them.

    `bind` makes the binding of the trial, which may use `run`, where there is one in force; `functions` suggest LRs.

    Raises:
        FloatingPointError: the loss is not finite, and the finder does not stop at that.
        ValueError: too few updates before divergence.
        RuntimeError: the Learner is in a fit.
    """
    learner.check_idle()
    learner.prepare()
    kept = learner.run, learner.recorder, learner.state, learner.journal
    with preserved(learner.model, run):
        start = Start(Position(1, 0, 0), Span(0, finder.num_it), seed=0)
        epochs = -(-finder.num_it // learner.updates)
        learner.run, learner.recorder, learner.journal = bind(), Recorder(), CheckpointManager(None, learner.ranks)
        learner.state = TrainState(epochs, len(learner.train), learner.updates, start.span)
        try:
            try:
                with learner.calling([finder]), threads.cpu_threads(learner.num_threads):
                    learner.train_from(start)
            except FloatingPointError:
                if not finder.stop_div:
                    raise
            lrs, losses = learner.recorder.lrs, learner.recorder.smooth_losses
            found, points = suggest(lrs, losses, finder.num_it, functions)
        finally:
            learner.run, learner.recorder, learner.state, learner.journal = kept
    if not learner.quiet:
        names = " ".join(f"{name}={lr:.2e}" for name, lr in found._asdict().items())
        say(f"lr_find, {len(lrs)} updates: {names}")
    return found, Sweep(lrs, losses, found._asdict(), points)


@contextmanager
def preserved(model: nn.Layer, run: Binding | None = None) -> Iterator[None]:
    """Whatever happens inside, afterwards all is as before, after an exception too.

    That is: weights and buffers, train and eval flags, parameter settings and frozen set, random number generators;
    and of a binding that the trial uses: its plan and all of its state.
    """
    values = _cloned(model.state_dict())
    weights = select.named_weights(model)
    fields = {name: settings.capture(param) for name, param in weights.items()}
    kept = masters.capture(weights.values())
    if run is not None:
        plan, per_epoch, state = run.plan, run.steps_per_epoch, run.state_dict()
        state["optimizer"] = {name: _cloned(kinds) for name, kinds in state["optimizer"].items()}
    try:
        with rng.preserved(), _paddle.kept(model):
            yield
    finally:
        if run is not None:
            run.follow(plan, per_epoch)
            for name, param in weights.items():
                if name not in state["optimizer"]:
                    _paddle.drop_accumulators(run.optimizer, param)
            run.set_state_dict(state)
        with paddle.no_grad():
            for name, value in model.state_dict().items():
                value.set_value(values[name])
        masters.put_back(kept)
        for name, param in weights.items():
            param.clear_gradient(False)
            settings.put_back(param, fields[name])
        _paddle.forget_traces(_paddle.unwrap(model))


def _cloned(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.clone() for name, value in tensors.items()}
