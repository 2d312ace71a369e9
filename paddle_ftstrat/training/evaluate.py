"""Running a model over data without training it: evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import paddle

from paddle_ftstrat._paddle import modes, threads
from paddle_ftstrat.param_attr.depth import call
from paddle_ftstrat.training import data, distributed, evaluation, losses, reading

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner


def evaluate(learner: Learner, loader: Any) -> dict[str, float]:
    """Loss and metrics over a loader in eval mode, over all processes' shares of it together."""
    found = evaluation.Evaluation(learner.metrics)
    sampler = data.own_sampler(loader)
    # A user's loader that is not shared out gives each process everything.
    who = learner.ranks if data.is_shared(loader) else distributed.ONE
    with _running(learner):
        for number, batch in enumerate(reading.read(loader)):
            inputs, label = data.split_batch(batch)
            with learner.precision.forward():
                output = call(learner.model, inputs)
                loss = float(losses.loss_of(learner.loss, output, label).item())
            learner.tell("after_loss", batch, output, loss)
            count = data.batch_size_of(batch) if sampler is None else sampler.count(number)
            if who.several:
                loss, count, output, label = _together(loss, count, output, label, who)
            found.add(output, label, loss, count)
    if not found.samples:
        raise ValueError("there is no batch to evaluate: the loader gave none")
    return found.values()


def predict(learner: Learner, loader: Any) -> Any:
    """The model's outputs over a loader in eval mode, joined along the first axis."""
    with _running(learner), learner.precision.forward():
        return data.concatenated([call(learner.model, data.only_inputs(batch)) for batch in reading.read(loader)])


@contextmanager
def _running(learner: Learner) -> Iterator[None]:
    with modes.evaluating(learner.model), paddle.no_grad(), threads.cpu_threads(learner.num_threads):
        yield


def _together(loss: float, count: int, output: Any, label: Any, who: distributed.Ranks) -> tuple[float, int, Any, Any]:
    """One batch of all processes as if it had been one process's."""
    weighted, samples = distributed.added([loss * count, count], who)
    joined = distributed.joined_rows((output, label), count, who) if label is not None else (None, None)
    return weighted / samples, int(samples), *joined
