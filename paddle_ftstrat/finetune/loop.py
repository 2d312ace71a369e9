"""The training loop: epochs, batches, the update, and the events around them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.finetune import data
from paddle_ftstrat.finetune.callbacks import ProgressCallback, StopTraining
from paddle_ftstrat.param_attr.depth import call

if TYPE_CHECKING:
    from paddle_ftstrat.finetune.learner import Learner


@dataclass
class TrainState:
    """Where the loop is. Epochs and batches count from 1; `step` is the index of the coming update in the fit."""

    num_epoch: int
    batches: int
    epoch: int = 0
    batch_number: int = 0
    step: int = 0
    batch: Any = None
    loss: float = math.nan
    values: dict[str, float] | None = None
    skip_validation: bool = False


def fit(learner: Learner, run: Binding, n_epoch: int, cbs: Iterable[Any], start_epoch: int) -> list[dict[str, float]]:
    """Train from epoch `start_epoch` on to `n_epoch`; the results of each epoch.

    Raises:
        FloatingPointError: the loss is not finite; the model keeps the weights of the last good update.
    """
    learner.run = run
    learner.state = TrainState(n_epoch, len(learner.train), step=start_epoch * len(learner.train))
    already = len(learner.recorder.values)
    learner.recorder.hps = {}
    learner.telling = [*learner.cbs, *cbs, ProgressCallback(learner.progress)]
    try:
        learner.tell("fit_begin")
        for epoch in range(start_epoch + 1, n_epoch + 1):
            learner.state.epoch = epoch
            _one_epoch(learner, run)
    except StopTraining:
        pass
    finally:
        learner.tell("fit_end")
        learner.telling = []
    return learner.recorder.values[already:]


def _one_epoch(learner: Learner, run: Binding) -> None:
    state = learner.state
    run.begin_epoch(state.epoch)
    learner.tell("epoch_begin")
    learner.model.train()
    first = len(learner.recorder.losses)
    for state.batch_number, state.batch in enumerate(learner.train, 1):
        _one_batch(learner, run)
    losses = learner.recorder.losses[first:]
    values = {"epoch": float(state.epoch), "train_loss": sum(losses) / len(losses)}
    if learner.valid is not None and not state.skip_validation:
        found = learner.validate()
        values.update({"valid_loss" if name == "loss" else name: value for name, value in found.items()})
    learner.recorder.add_epoch(values)
    learner.tell("epoch_end")


def _one_batch(learner: Learner, run: Binding) -> None:
    state = learner.state
    learner.tell("batch_begin")
    inputs, label = data.split_batch(state.batch)
    loss = loss_of(learner.loss, call(learner.model, inputs), label)
    state.loss = float(loss)
    lr = run.optimizer.get_lr()
    if not math.isfinite(state.loss):
        run.optimizer.clear_grad(set_to_zero=False)
        raise FloatingPointError(
            f"the loss is {state.loss} at update {state.step + 1} (epoch {state.epoch}, batch "
            f"{state.batch_number}) with learning rate {lr:g}; the weights are those of the update before"
        )
    loss.backward()
    learner.tell("before_update")
    run.step()
    state.step += 1
    learner.recorder.add_update(lr, state.loss)
    learner.tell("batch_end")


def loss_of(given: Any, output: Any, label: Any) -> Any:
    """The loss by the given function, by the label's type, or from a model that returns its loss."""
    if label is None:
        loss = output[0] if isinstance(output, (list, tuple)) else output
        if loss.size != 1:
            raise ValueError(
                f"a batch without label needs a model that returns its loss, not an output of shape {loss.shape}; "
                "batches are (input, …, label) or dicts with 'labels'"
            )
        return loss
    if given is not None:
        return given(output, label)
    whole = label.dtype in (paddle.int64, paddle.int32)
    return nn.functional.cross_entropy(output, label) if whole else nn.functional.mse_loss(output, label)
