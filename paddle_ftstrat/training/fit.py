"""One fit from beginning to end: where it begins, the binding, the loop, the checkpoints."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules.schedule import ParamScheduler
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.training import data, distributed, loop, rng
from paddle_ftstrat.training.callbacks import ProgressCallback
from paddle_ftstrat.training.checkpoint import fingerprint
from paddle_ftstrat.training.frozen_features import DEFAULT_MEMORY, FrozenFeatures
from paddle_ftstrat.training.state import Span, TrainState

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner

_beginning = threading.Lock()


def prepare(learner: Learner) -> None:
    """What has to be done once to a Learner's model before it is bound: equal weights everywhere, its precision."""
    if not learner.prepared:
        distributed.synchronize(learner.model, learner.ranks)
        learner.precision.prepare(learner.model)
        learner.prepared = True


def train(
    learner: Learner,
    method: str,
    epochs: tuple[int, int],
    given: Mapping[str, Any],
    bound: Callable[[Span], Binding],
    cbs: list[Any],
) -> list[dict[str, float]]:
    """Carry out a fit, or what is left of it.

    Args:
        learner: the Learner.
        method: the name of the fitting method.
        epochs: number of epochs, and how many of them were done before by the user's account.
        given: what else decides the fit, for its fingerprint.
        bound: makes the binding for a curve's length.
        cbs: the fit's callbacks.

    Returns:
        The results of each epoch, of those before a resumption too.
    """
    n_epoch, start_epoch = epochs
    given = {**given, **fingerprint.of_schedules([*learner.cbs, *cbs])}
    about = fingerprint.of_fit(learner, method, n_epoch, {**given, "begun at epoch": start_epoch})
    distributed.same_everywhere(about, learner.ranks)
    prepare(learner)
    cbs = [*cbs, ProgressCallback(learner.quiet)]
    with told(learner, cbs), threads.cpu_threads(learner.num_threads), learner.journal.writing():
        start = learner.journal.begin(learner, about, start_epoch, learner.updates)
        learner.run = run = bound(start.span)
        run.lr_scheduler.step(start.position.step - start.span.begin)
        learner.state = state = TrainState(n_epoch, len(learner.train), learner.updates, start.span, start.seed)
        state.finished = start.finished is not None
        try:
            if not state.finished:
                with _features(learner):
                    loop.fit(learner, run, state, start)
                learner.journal.finish(learner, run)
            elif start.resumed is not None:
                loop.fit(learner, run, state, start)
        finally:
            learner.journal.wait()
        if state.finished:
            # What callbacks have drawn just now was drawn before, too.
            paddle.seed(rng.fold(state.seed, 0))
            rng.set_host_state(start.finished)
    return learner.journal.results(learner)


def planned(learner: Learner, strategy: DefaultStrategy, span: Span, cbs: Iterable[Any]) -> Plan:
    """The plan of a fit: a strategy's over the fit's length, with what ParamSchedulers among the callbacks schedule.

    Raises:
        ValueError: a phase waits for a value of a validation, and there is none.
    """
    steps = max(span.length, 1)
    plan = strategy.plan(steps, learner.updates)
    if learner.valid is None:
        # Where there is validation, callbacks may add values to it.
        monitored = [phase.until.monitor for phase in plan.phases if phase.until is not None]
        _errors.check_keys("monitored value", monitored, learner.value_names())
    by_hand = {k: v for c in [*learner.cbs, *cbs] if isinstance(c, ParamScheduler) for k, v in c.over(steps).items()}
    return replace(plan, schedules={**plan.schedules, **by_hand})


@contextmanager
def told(learner: Learner, cbs: Iterable[Any]) -> Iterator[None]:
    """Inside it the Learner's callbacks and these hear of what happens.

    Raises:
        RuntimeError: the Learner is in a fit.
    """
    with _beginning:
        check_idle(learner)
        learner.telling = [*learner.cbs, *cbs]
    try:
        yield
    finally:
        learner.telling = []


def check_idle(learner: Learner) -> None:
    """Refuse a second fit of a Learner at the same time.

    Raises:
        RuntimeError: the Learner is in a fit.
    """
    if learner.telling:
        raise RuntimeError(
            "this Learner is in a fit already, begun by another thread or around the callback that begins this one: "
            "wait for its end, or make a Learner with a model of its own"
        )


@contextmanager
def _features(learner: Learner) -> Iterator[None]:
    """Inside it the frozen layers are computed once per sample, if the Learner is to do so."""
    if not learner.cache_frozen:
        yield
        return
    if data.own_sampler(learner.train) is None:
        raise ValueError("cache_frozen needs to know which samples a batch has: hand over a Dataset, not a DataLoader")
    units = find_units(learner.model, data.first_inputs(learner.train))
    memory = DEFAULT_MEMORY if learner.cache_frozen is True else learner.cache_frozen
    learner.features = FrozenFeatures(learner.model, units, memory, dataset=learner.train.dataset)
    try:
        yield
    finally:
        if not learner.features.was_used:
            warnings.warn(
                "cache_frozen: nothing was reused, because no layers at the bottom stayed frozen for two epochs",
                stacklevel=6,
            )
        learner.features.close()
        learner.features = None
