"""The training loop: one for strategies, policies and tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding, bind
from paddle_ftstrat.finetune import checkpoint, data
from paddle_ftstrat.finetune import metrics as evaluation
from paddle_ftstrat.finetune.callbacks import Callback, ProgressCallback, StopTraining
from paddle_ftstrat.finetune.recorder import Recorder
from paddle_ftstrat.finetune.strategy import DefaultStrategy
from paddle_ftstrat.param_attr.depth import call
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules import curves


@dataclass
class TrainState:
    """Where the loop is. Epochs and batches count from 1, `step` counts the updates done in this fit."""

    num_epoch: int
    batches: int
    epoch: int = 0
    batch_number: int = 0
    step: int = 0
    batch: Any = None
    loss: float = math.nan
    values: dict[str, float] | None = None


class Learner:
    """Trains a model: the loop, validation, callbacks and a record of what happened.

    Args:
        model: a `paddle.nn.Layer`.
        train: training data, a `paddle.io.DataLoader` or a Dataset.
        valid: validation data, likewise, or None.
        loss: function (output, label) → scalar tensor; None takes cross entropy for integer labels and mean squared
            error for others. A batch without label means that the model returns its loss.
        opt: optimizer name or class, for fits without a strategy.
        lr: learning rate, for fits without one.
        wd: decoupled weight decay of fits without a strategy; None leaves the optimizer's own.
        metrics: what validation computes besides the loss (see `finetune.metrics.find`).
        path: folder for `save` and `load`.
        batch_size: samples per batch where `train` or `valid` is a Dataset.
        callbacks: callbacks of every fit.
        progress: show progress bars; None: on a terminal.

    Attributes:
        state: where the loop is (`TrainState`).
        recorder: LRs, losses and results so far.
        run: the binding of the last fit.

    Raises:
        ValueError, TypeError: unusable data, metrics or numbers, before anything is trained.

    Example:
        >>> x = paddle.randn([64, 4])
        >>> pairs = paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        >>> learner = Learner(nn.Linear(4, 2), pairs, pairs, metrics="acc", lr=0.1, batch_size=16)
        >>> results = learner.fit(5)
        >>> sorted(results[-1])
        ['acc', 'epoch', 'train_loss', 'valid_loss']

    Source: the interface is fastai's `Learner`.
    """

    def __init__(
        self,
        model: nn.Layer,
        train: Any,
        valid: Any = None,
        loss: Callable[[Any, Any], Any] | None = None,
        opt: str | type = "adam",
        lr: float = 1e-3,
        wd: float | None = None,
        metrics: Any = None,
        path: str | Path = ".",
        batch_size: int = 64,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> None:
        if not isinstance(model, nn.Layer):
            raise TypeError(f"model must be a paddle.nn.Layer, not {type(model).__name__}")
        self.model = model
        self.batch_size = _errors.check_whole("batch_size", batch_size, minimum=1)
        self.train = data.as_loader(train, self.batch_size, shuffle=True, what="train")
        self.valid = None if valid is None else data.as_loader(valid, self.batch_size, shuffle=False, what="valid")
        self.loss = loss
        self.opt = opt
        self.lr = _errors.check_number("lr", lr, above=0)
        self.wd = None if wd is None else _errors.check_number("wd", wd, minimum=0)
        self.metrics = evaluation.find(metrics)
        self.path = Path(path)
        self.callbacks = list(callbacks)
        self.progress = progress
        self.recorder = Recorder()
        self.state = TrainState(0, len(self.train))
        self.run: Binding | None = None
        self._callbacks: Sequence[Callback] = ()

    def fit(
        self,
        n_epoch: int,
        lr: float | None = None,
        wd: float | None = None,
        strategy: DefaultStrategy | None = None,
        callbacks: Sequence[Callback] = (),
        **bind_options: Any,
    ) -> list[dict[str, float]]:
        """Train for `n_epoch` epochs, with a strategy or at a constant LR.

        Args:
            n_epoch: number of epochs, ≥ 1.
            lr: learning rate of a fit without strategy; None: the Learner's.
            wd: decoupled weight decay of a fit without strategy; None: the Learner's.
            strategy: a strategy; it brings its own optimizer, LR and decay.
            callbacks: callbacks of this fit, after the Learner's.
            **bind_options: `pretrained`, `layers`, `no_decay`, `sample_input` as for `strategy.bind`.

        Returns:
            The results of each epoch.

        Raises:
            ValueError: bad numbers, or a strategy together with `lr` or `wd`.
            FloatingPointError: the loss is not finite; the model keeps the weights of the last good update.
        """
        n_epoch = _errors.check_whole("n_epoch", n_epoch, minimum=1)
        run = self._bind(n_epoch, lr, wd, strategy, bind_options)
        return self._loop(run, n_epoch, [*self.callbacks, *callbacks])

    def validate(self, data_: Any = None) -> dict[str, float]:
        """Loss and metrics over the validation data, or other data, in eval mode.

        Args:
            data_: a DataLoader or Dataset; None: the Learner's `valid`.

        Raises:
            ValueError: there is no validation data.
        """
        loader = self.valid if data_ is None else data.as_loader(data_, self.batch_size, shuffle=False, what="data")
        if loader is None:
            raise ValueError("no validation data: give Learner(valid=...) or validate(data)")
        found = evaluation.Evaluation(self.metrics)
        with _eval_mode(self.model), paddle.no_grad():
            for batch in loader:
                inputs, label = data.split_batch(batch)
                output = call(self.model, inputs)
                loss = self._loss_of(output, label)
                found.add(output, label, float(loss), data.batch_size_of(batch))
        return found.values()

    def evaluate(self, data_: Any = None) -> dict[str, float]:
        """`validate` with the callbacks' events around it."""
        self._tell("validate_begin")
        self.state.values = self.validate(data_)
        self._tell("validate_end")
        return self.state.values

    def predict(self, data_: Any) -> Any:
        """The model's outputs over data, in eval mode, joined along the first axis.

        Args:
            data_: a DataLoader or Dataset, whose batches may have a label at their end (which is left out) or consist
                of one input.
        """
        loader = data.as_loader(data_, self.batch_size, shuffle=False, what="data")
        with _eval_mode(self.model), paddle.no_grad():
            return data.concatenated([call(self.model, data.only_inputs(batch)) for batch in loader])

    def save(self, fname: str, with_opt: bool = True) -> Path:
        """Write model (and optimizer, LR position, epoch) to `path`/models/`fname`.safetensors.

        Raises:
            OSError: the folder cannot be written; an older file stays.
        """
        tensors = checkpoint.flatten("model", self.model.state_dict())
        facts: dict[str, Any] = {}
        if with_opt and self.run is not None:
            state = self.run.state_dict()
            tensors.update(checkpoint.flatten("optimizer", state.pop("optimizer")))
            tensors.update(checkpoint.flatten("anchors", state.pop("anchors")))
            facts = {"run": state}
        return checkpoint.write(self._file(fname), tensors, facts)

    def load(self, fname: str, with_opt: bool = True) -> None:
        """Load what `save` wrote; the optimizer's state only where there is one on both sides.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or parameters of other names or shapes; nothing is changed then.
        """
        tensors, facts = checkpoint.read(self._file(fname))
        weights = checkpoint.unflatten("model", tensors)
        _check_weights(self.model, weights)
        if with_opt and self.run is not None and "run" in facts:
            state = {part: checkpoint.unflatten(part, tensors) for part in ("optimizer", "anchors")}
            self.run.set_state_dict({**facts["run"], **state})
        self.model.set_state_dict(weights)

    def value_names(self) -> list[str]:
        """Names in the results of an epoch."""
        return ["epoch", "train_loss", *(["valid_loss", *self.metrics] if self.valid is not None else [])]

    def _bind(
        self, n_epoch: int, lr: float | None, wd: float | None, strategy: DefaultStrategy | None, options: dict
    ) -> Binding:
        per_epoch = len(self.train)
        if strategy is None:
            plan = Plan(
                curve=curves.constant(_errors.check_number("lr", self.lr if lr is None else lr, above=0)),
                max_train_steps=n_epoch * per_epoch,
                optimizer=self.opt,
                weight_decay=self.wd if wd is None else _errors.check_number("wd", wd, minimum=0),
            )
            return bind(plan, self.model, steps_per_epoch=per_epoch, **options)
        if not isinstance(strategy, DefaultStrategy):
            raise TypeError(f"strategy must be a strategy of paddle_ftstrat, not {strategy!r}")
        if lr is not None or wd is not None:
            raise ValueError("a strategy brings its own learning rate and decay: leave lr and wd out")
        if "sample_input" not in options and options.get("layers") is None:
            options = {**options, "sample_input": data.first_inputs(self.train)}
        return strategy.bind(self.model, num_epoch=n_epoch, steps_per_epoch=per_epoch, **options)

    def _loop(self, run: Binding, n_epoch: int, callbacks: list[Callback]) -> list[dict[str, float]]:
        self.run = run
        self.state = TrainState(n_epoch, len(self.train))
        callbacks = [*callbacks, ProgressCallback(self.progress)]
        already = len(self.recorder.values)
        self._callbacks = callbacks
        try:
            self._tell("fit_begin")
            for epoch in range(1, n_epoch + 1):
                self.state.epoch = epoch
                self._one_epoch(run)
        except StopTraining:
            pass
        finally:
            self._tell("fit_end")
        return self.recorder.values[already:]

    def _one_epoch(self, run: Binding) -> None:
        state = self.state
        run.begin_epoch()
        self._tell("epoch_begin")
        self.model.train()
        first = len(self.recorder.losses)
        for state.batch_number, state.batch in enumerate(self.train, 1):
            self._one_batch(run)
        losses = self.recorder.losses[first:]
        values = {"epoch": float(state.epoch), "train_loss": sum(losses) / len(losses)}
        if self.valid is not None:
            found = self.evaluate()
            values.update({"valid_loss" if name == "loss" else name: value for name, value in found.items()})
        self.recorder.add_epoch(values)
        self._tell("epoch_end")

    def _one_batch(self, run: Binding) -> None:
        state = self.state
        self._tell("batch_begin")
        inputs, label = data.split_batch(state.batch)
        loss = self._loss_of(call(self.model, inputs), label)
        state.loss = float(loss)
        lr = run.optimizer.get_lr()
        if not math.isfinite(state.loss):
            run.optimizer.clear_grad(set_to_zero=False)
            raise FloatingPointError(
                f"the loss is {state.loss} at update {state.step + 1} (epoch {state.epoch}, batch "
                f"{state.batch_number}) with learning rate {lr:g}; the weights are those of the update before"
            )
        loss.backward()
        self._tell("before_update")
        run.step()
        state.step += 1
        self.recorder.add_update(lr, state.loss)
        self._tell("batch_end")

    def _loss_of(self, output: Any, label: Any) -> Any:
        if label is None:
            loss = output[0] if isinstance(output, (list, tuple)) else output
            if loss.size != 1:
                raise ValueError(
                    f"a batch without label needs a model that returns its loss, not an output of shape {loss.shape}; "
                    "batches are (input, …, label) or dicts with 'labels'"
                )
            return loss
        if self.loss is not None:
            return self.loss(output, label)
        whole = label.dtype in (paddle.int64, paddle.int32)
        return nn.functional.cross_entropy(output, label) if whole else nn.functional.mse_loss(output, label)

    def _tell(self, event: str) -> None:
        for callback in self._callbacks:
            getattr(callback, "on_" + event)(self)

    def _file(self, fname: str) -> Path:
        return self.path / "models" / f"{fname}.safetensors"


class _eval_mode:
    """The model in eval mode inside, and each layer's own mode afterwards."""

    def __init__(self, model: nn.Layer) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._modes = [(layer, layer.training) for layer in self._model.sublayers(include_self=True)]
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        for layer, training in self._modes:
            layer.training = training


def _check_weights(model: nn.Layer, weights: dict[str, Any]) -> None:
    mine = model.state_dict()
    differ = sorted(set(mine) ^ set(weights))
    if differ:
        raise ValueError(f"the file and the model differ in {_errors.listing(differ)}")
    for name, value in mine.items():
        if list(value.shape) != list(weights[name].shape):
            raise ValueError(f"{name}: the file has shape {list(weights[name].shape)}, the model {list(value.shape)}")
