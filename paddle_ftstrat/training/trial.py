"""A trial fit that leaves no trace but what it measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paddle_ftstrat._paddle import threads
from paddle_ftstrat.training import fit, loop, snapshot
from paddle_ftstrat.training.callbacks import say
from paddle_ftstrat.training.checkpoint.manager import Journal, Start
from paddle_ftstrat.training.lr_find import LRFinder, suggestions
from paddle_ftstrat.training.recorder import Recorder, Sweep
from paddle_ftstrat.training.state import Position, Span, TrainState

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner


def sweep(learner: Learner, finder: LRFinder, functions: Sequence[Callable[..., Any]]) -> tuple[Any, Sweep]:
    """The LR finder's suggestions for a Learner, which is afterwards as it was before, and the sweep behind them.

    Raises:
        FloatingPointError: the loss is not finite, and the finder does not stop at that.
        ValueError: too few updates before divergence.
        RuntimeError: the Learner is in a fit.
    """
    fit.check_idle(learner)
    fit.prepare(learner)
    binding = learner.own.binding
    kept = learner.run, learner.recorder, learner.state, learner.journal
    with snapshot.preserved(learner.model, binding if binding is not None and binding.in_force else None):
        learner.run = run = learner.own.run()
        # What the phases of an earlier fit froze at its beginning is no matter of the sweep.
        learner.own.freeze_to(learner.own.frozen)
        learner.recorder = Recorder()
        learner.journal = Journal(None, learner.ranks)
        epochs = -(-finder.num_it // learner.updates)
        start = Start(Position(1, 0, 0), Span(0, finder.num_it), seed=0)
        learner.state = state = TrainState(epochs, len(learner.train), learner.updates, start.span)
        try:
            try:
                with fit.told(learner, [finder]), threads.cpu_threads(learner.num_threads):
                    loop.fit(learner, run, state, start)
            except FloatingPointError:
                if not finder.stop_div:
                    raise
            found, swept = suggestions(learner.recorder, finder, functions)
            if not learner.quiet:
                names = " ".join(f"{name}={lr:.2e}" for name, lr in swept.suggested.items())
                say(f"lr_find, {len(swept.lrs)} updates: {names}")
            return found, swept
        finally:
            learner.own.binding = binding
            learner.run, learner.recorder, learner.state, learner.journal = kept
