"""The training loop: epochs, batches, updates, and the events around them."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import paddle

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr.depth import call
from paddle_ftstrat.training import data, distributed, losses, rng
from paddle_ftstrat.training.callbacks import StopTraining
from paddle_ftstrat.training.checkpoint.manager import Start
from paddle_ftstrat.training.checkpoint.store import Checkpoint
from paddle_ftstrat.training.state import Position, TrainState

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner


def fit(learner: Learner, run: Binding, state: TrainState, start: Start) -> None:
    """Train from `start` on to the end of epoch `state.num_epoch`. The results go into the Learner's recorder.

    The Learner's `telling` are the callbacks that hear of it; also of a fit that an earlier process finished, where
    they get the state that they had at its end.

    Raises:
        FloatingPointError: the loss is not finite; the model keeps the weights of the last good update.
    """
    begin, resumed = start.position, start.resumed
    over = state.finished or begin.epoch > state.num_epoch
    state.epoch, state.batch_number = (begin.epoch - 1, state.batches) if over else (begin.epoch, begin.batch)
    state.step = begin.step
    learner.recorder.hps = {name: [] for name in run.plan.schedules}
    try:
        learner.tell("fit_begin")
        if resumed is not None:
            learner.journal.restore(learner, run, resumed)
        while not (state.finished or run.progress.finished) and begin.epoch <= state.num_epoch - run.dropped_epochs:
            _one_epoch(learner, run, begin, resumed)
            begin, resumed = Position(begin.epoch + 1, 0, state.step), None
        # After a resumption, too, whose last phase had ended early.
        state.epoch, state.batch_number = begin.epoch - 1, state.batches
    except StopTraining:
        pass
    finally:
        # A stop between the batches of one update leaves gradients that are none of the next fit's.
        run.optimizer.clear_grad(set_to_zero=False)
        # What is drawn at the end and after it follows from the fit alone, whether it was resumed or not.
        paddle.seed(rng.fold(state.seed, 0))
        learner.tell("fit_end")
        paddle.seed(rng.fold(state.seed, 0))


def _one_epoch(learner: Learner, run: Binding, begin: Position, resumed: Checkpoint | None) -> None:
    state, recorder = learner.state, learner.recorder
    state.epoch, state.batch_number = begin.epoch, begin.batch
    state.epoch_losses = len(recorder.losses) if begin.losses is None else begin.losses
    run.begin_epoch(state.epoch)
    # What callbacks draw is the same after a resumption, too.
    paddle.seed(rng.fold(state.seed, state.epoch))
    learner.journal.begin_epoch(learner, begin, resumed)
    learner.tell("epoch_begin")
    learner.model.train()
    phase = _hold_frozen(learner, run)
    gathered = _Gathered()
    with closing(learner.journal.batches(learner, begin, resumed)) as batches:
        for state.batch in batches:
            _check_length(state, state.batch_number == state.batches, "more")
            state.batch_number += 1
            _one_batch(learner, gathered)
            if state.batch_number % learner.accumulate == 0 or state.batch_number == state.batches:
                _one_update(learner, run, gathered)
                gathered = _Gathered()
                if run.progress.phase != phase:
                    phase = _hold_frozen(learner, run)
            learner.tell("batch_end")
            learner.journal.after_batch(learner, run)
    _check_length(state, state.batch_number < state.batches, f"only {state.batch_number}")
    paddle.seed(rng.fold(state.seed, state.epoch, state.batches + 1))
    seen = recorder.losses[state.epoch_losses :]
    values = {"epoch": float(state.epoch), "train_loss": sum(seen) / len(seen) if seen else math.nan}
    if learner.valid is not None and not state.skip_validation:
        found = learner.validate()
        values.update({"valid_loss" if name == "loss" else name: value for name, value in found.items()})
    recorder.add_epoch(values)
    run.evaluated(values)
    learner.tell("epoch_end")
    learner.journal.after_epoch(learner, run)


def _hold_frozen(learner: Learner, run: Binding) -> int:
    """Let the stored features be those of what is frozen now; the phase that says so."""
    if learner.features is not None:
        learner.features.begin_phase([name for name, param in learner.weights.items() if param.stop_gradient])
    return run.progress.phase


def _check_length(state: TrainState, differs: bool, came: str) -> None:
    """Refuse an epoch of another length than the one that the schedules were planned for."""
    if differs:
        raise ValueError(
            f"train has a length of {state.batches} batches, on which the schedules count, but gave {came} in epoch "
            f"{state.epoch}: make the loader's (or its batch_sampler's) len and what it gives agree"
        )


class _Gathered:
    """The batches of one update so far: the sum of their losses over samples, the samples, what weighs them."""

    def __init__(self) -> None:
        self.loss, self.samples, self.weights = 0.0, 0, 0.0


def _one_batch(learner: Learner, gathered: _Gathered) -> None:
    state = learner.state
    paddle.seed(rng.fold(state.seed, state.epoch, state.batch_number, learner.ranks.rank))
    learner.tell("batch_begin")
    inputs, label = data.split_batch(state.batch)
    samples, weight = _share(learner)
    with learner.precision.forward():
        loss = losses.loss_of(learner.loss, _output(learner, inputs), label)
    state.loss = float(loss.item())
    gathered.loss += state.loss * samples
    gathered.samples += samples
    gathered.weights += weight
    learner.precision.backward(loss if weight == 1 else loss * weight)


def _output(learner: Learner, inputs: Any) -> Any:
    if learner.features is None:
        return call(learner.model, inputs)
    state = learner.state
    return learner.features.call(inputs, data.own_sampler(learner.train).indices(state.epoch, state.batch_number - 1))


def _share(learner: Learner) -> tuple[int, float]:
    """How many samples of the current batch count, and the weight of its mean loss in the update's gradient.

    Gradients are summed over the batches of an update and averaged over the processes. The weights make of this the
    mean over all samples of the update.
    """
    state, number = learner.state, learner.state.batch_number - 1
    sampler = data.own_sampler(learner.train)
    samples = data.batch_size_of(state.batch) if sampler is None else sampler.count(number)
    if learner.accumulate == 1 and not learner.ranks.several:
        return samples, 1.0
    if sampler is None:
        # How many samples the rest of the update will have, only the loader knows: corrected at the update.
        nominal = getattr(learner.train.batch_sampler, "batch_size", None) or 1
        return samples, samples / learner.accumulate / nominal
    first = number - number % learner.accumulate
    together = sum(sampler.total(batch) for batch in range(first, min(first + learner.accumulate, len(sampler))))
    return samples, samples * learner.ranks.world / together


def _one_update(learner: Learner, run: Binding, gathered: _Gathered) -> None:
    state, who = learner.state, learner.ranks
    loss, samples, weights = distributed.added([gathered.loss, gathered.samples, gathered.weights], who)
    state.loss = loss / samples
    lr = run.optimizer.get_lr()
    if not math.isfinite(state.loss):
        run.optimizer.clear_grad(set_to_zero=False)
        raise FloatingPointError(
            f"the loss is {state.loss} at update {state.step + 1} (epoch {state.epoch}, batch "
            f"{state.batch_number}) with learning rate {lr:g}; the weights are those of the update before"
        )
    distributed.reduce_gradients(learner.weights.values(), who)
    if not math.isclose(weights, who.world, rel_tol=1e-9):
        with paddle.no_grad():
            for param in learner.weights.values():
                if not param.stop_gradient and param.grad is not None:
                    param.grad.scale_(who.world / weights)
    learner.tell("before_update")
    hypers = {name: lr if name == "lr" else run.hyper(name) for name in run.plan.schedules}
    done = learner.precision.update(run)
    distributed.average_statistics(learner.model, who)
    if done:
        state.step += 1
        learner.recorder.add_update(lr, state.loss, hypers)
        learner.tell("after_update")
