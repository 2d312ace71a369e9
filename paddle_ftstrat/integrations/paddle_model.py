"""The callback that carries a binding into `paddle.Model.fit`."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import numpy as np
from paddle.callbacks import LRScheduler

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.integrations.carrying import check_host
from paddle_ftstrat.param_attr import select

_BLOCK = "lr/block_"


class StrategyCallback(LRScheduler):
    """Steps a binding's LR after each update and thaws layers at each epoch of `paddle.Model.fit`.

    An update is what the optimizer did: with `accumulate_grad_batches=k` one for k batches (whose gradients Paddle adds
    up, so the loss wants dividing by k), and none for a batch that mixed precision skips.

    After each update `logs` holds `lr`, which Paddle's progress bar and its VisualDL callback show, too, and
    `lr/block_0`, … of each block, bottom block first, for callbacks that come after this one.

    It is a `paddle.callbacks.LRScheduler`, because `fit` adds one of those by itself, which would step the LR a second
    time, unless it is given one.

    Args:
        run: the binding; the model is prepared with `model.prepare(optimizer=run.optimizer, …)`.
        initial_epoch: how many epochs of the plan were done before this fit; None goes on where the binding is, which
            after `run.set_state_dict(…)` is where the state was taken.

    Raises:
        ValueError: `initial_epoch` with a binding that does not know its steps_per_epoch; when the fit begins, a model
            that was prepared with another optimizer, or layers to be thawed under Paddle's DataParallel.
    """

    def __init__(self, run: Any, initial_epoch: int | None = None) -> None:
        super().__init__(by_step=True, by_epoch=False)
        self.run = run
        self._first = None if initial_epoch is None else _errors.check_whole("initial_epoch", initial_epoch)
        if self._first is not None and run.steps_per_epoch is None:
            raise ValueError("initial_epoch needs the number of updates per epoch: bind(…, steps_per_epoch=…)")
        self._listens = False
        self._updated = False
        self._updates = 0
        self._averaged = ExitStack()

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse a model that was prepared with another optimizer; go to the first epoch of the fit."""
        if self.model._optimizer is not self.run.optimizer:
            raise ValueError("prepare the model with the binding's optimizer: model.prepare(run.optimizer, ...)")
        check_host(self.run, "paddle.Model")
        # What `paddle.Model.load` read may be of a time when other layers were frozen.
        _paddle.settle(self.run.optimizer, select.named_weights(self.run.model).values())
        if not self._listens:
            _paddle.after_update(self.run.optimizer, self._hear)
            self._listens = True
        if self._first is not None:
            self.run.lr_scheduler.step(self._first * self.run.steps_per_epoch)
        # This list is what Paddle's own callbacks look up in the logs.
        shown = self.params.get("metrics")
        if shown is not None and "lr" not in shown:
            shown.append("lr")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Apply the unfreezing plan of the epoch."""
        self.run.begin_epoch(None if self._first is None else self._first + epoch + 1)
        self._updated, self._updates = False, 0

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Step the LR where there was an update."""
        if not self._updated:
            return
        self._updated = False
        self._updates += 1
        if logs is not None:
            _forget(logs)
            lr = self.run.optimizer.get_lr()
            logs["lr"] = lr
            logs.update((f"{_BLOCK}{i}", lr * factor) for i, factor in enumerate(self.run.block_factors))
        self.run.lr_scheduler.step()

    def on_train_end(self, logs: Any = None) -> None:
        """Take what is ours out of the logs, which Paddle uses for the next fit, too."""
        if logs is not None:
            _forget(logs)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Evaluate the averaged weights, where the strategy has an average and the fit runs."""
        if self.run.epoch and self.run.has_average:
            self._averaged.enter_context(self.run.averaged())

    def on_eval_end(self, logs: Any = None) -> None:
        """Let the evaluation's values, `valid_loss`, `valid_acc`, …, end a phase that goes by them."""
        self._averaged.close()
        phase = self.run.plan.phases[self.run.progress.phase]
        if phase.until is None or self.run.epoch == 0:
            return
        scores = {name: value for name, value in (logs or {}).items() if name not in ("step", "batch_size")}
        self.run.evaluated({f"valid_{name}": float(np.mean(value)) for name, value in scores.items()})
        self.model.stop_training |= self.run.progress.finished

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Say when the epochs have another length than the plan."""
        planned = self.run.steps_per_epoch
        if planned is not None and self._updates != planned and not self.model.stop_training:
            _errors.warn(
                f"the plan was bound for {planned} updates per epoch, but this epoch had {self._updates}: bind with "
                f"steps_per_epoch={self._updates} (batches over accumulate_grad_batches, rounded up)"
            )

    def _hear(self, params_grads: Any) -> None:
        self._updated = True


def attach(run: Any, model: Any) -> None:
    """Give every `fit` of a `paddle.Model` the callback of a binding.

    Args:
        run: the binding.
        model: the `paddle.Model`, of the network that is bound.

    Raises:
        ValueError: the network is another one.
    """
    if _paddle.unwrap(model.network) is not _paddle.unwrap(run.model):
        raise ValueError("this paddle.Model has another network than the binding: bind model.network")
    fit = model.fit

    def fit_with_strategy(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(fit).bind(*args, **kwargs).arguments
        callbacks = given.pop("callbacks", None) or []
        callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        return fit(**given, callbacks=[StrategyCallback(run), *callbacks])

    model.fit = fit_with_strategy


def _forget(logs: dict[str, Any]) -> None:
    for name in [name for name in logs if name == "lr" or name.startswith(_BLOCK)]:
        del logs[name]
