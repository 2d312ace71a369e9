"""The training loop: one fit from beginning to end, its epochs, batches and updates, and the events around them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim.perturbation import Perturbing
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import call, find_units, split_batch
from paddle_ftstrat.training import data, distributed, evaluation, precision, rng
from paddle_ftstrat.training.callbacks import StopTraining, as_list, evaluated_weights
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.checkpoint.manager import CheckpointManager, Checkpoints, Start
from paddle_ftstrat.training.checkpoint.store import Checkpoint
from paddle_ftstrat.training.frozen_features import DEFAULT_MEMORY, FrozenFeatures
from paddle_ftstrat.training.recorder import Recorder
from paddle_ftstrat.training.state import Position, TrainState

_beginning = threading.Lock()


class Part(NamedTuple):
    """What one batch gives to its update: its loss, summed over its samples, and the weight of its mean loss.

    With its number in the epoch, from 1, and the batch, where the update goes over it again.
    """

    loss: float
    samples: int
    weight: float
    number: int
    batch: Any = None


class Loop:
    """What a Learner trains with: data, loss, precision, processes, callbacks, checkpoints, and the loop over them.

    Args: as for `Learner`.
    """

    def __init__(
        self,
        model: nn.Layer,
        train: Any,
        valid: Any,
        loss: Callable[[Any, Any], Any] | None,
        metrics: Any,
        path: str | Path,
        batch_size: int,
        cbs: Any,
        progress: bool | None,
        checkpoints: Checkpoints | str | Path | None,
        accumulate: int,
        amp: str | precision.Precision | None,
        data_parallel: bool,
        num_threads: int | None,
        cache_frozen: bool | int,
    ) -> None:
        _paddle.check_layer(model)
        threads.take_widest_code()
        # Under DataParallel layers could not be thawed; gradients are reduced without it.
        self.model = _paddle.unwrap(model)
        self.ranks = distributed.ranks(data_parallel)
        self.batch_size = _errors.check_whole("batch_size", batch_size, minimum=1)
        self.accumulate = _errors.check_whole("accumulate", accumulate, minimum=1)
        self.train = self._loader(train, "train", shuffle=True)
        self.valid = None if valid is None else self._loader(valid, "valid")
        self.num_threads = None if num_threads is None else _errors.check_whole("num_threads", num_threads, minimum=1)
        self.cache_frozen = cache_frozen
        self.features: FrozenFeatures | None = None
        self.precision = amp if isinstance(amp, precision.Precision) else precision.mixed_precision(amp)
        self.loss = loss
        self.metrics = evaluation.find(metrics)
        self.path = Path(path)
        self.cbs = as_list(cbs)
        self.progress = progress
        self.recorder = Recorder()
        self.updates = -(-len(self.train) // self.accumulate)
        self.state = TrainState(0, len(self.train), self.updates)
        self.weights: Mapping[str, Any] = select.named_weights(self.model)
        self.run: Binding = None  # type: ignore[assignment]  # before the first fit only, where nothing asks for it
        self.callbacks: list[Any] = []
        self.notes: dict[str, Any] = {}
        self.journal = CheckpointManager(checkpoints, self.ranks)
        self._prepared = False

    def validate(self, dataset: Any = None) -> dict[str, float]:
        """Loss and metrics over the validation data, or other data, in eval mode.

        Args:
            dataset: a DataLoader or Dataset; None: the Learner's `valid`.

        Raises:
            ValueError: there is no validation data.
        """
        loader = self.valid if dataset is None else self._loader(dataset, "data")
        if loader is None:
            raise ValueError("no validation data: give Learner(valid=...) or validate(data)")
        with evaluated_weights(self):
            self.call_event("validate_begin")
            self.state.values = evaluation.evaluate(self, loader)
            self.call_event("validate_end")
        return self.state.values

    def save(self, fname: str, with_opt: bool = True) -> Path:
        """Write model (and optimizer, LR position, epoch) to `path`/models/`fname`.safetensors.

        Raises:
            OSError: the folder cannot be written; an older file stays.
        """
        path = self._file(fname)
        return contents.save(path, self.model, self.run if with_opt else None) if self.ranks.is_main_process else path

    def load(self, fname: str, with_opt: bool = True) -> None:
        """Load what `save` wrote; the optimizer's state only where there is one on both sides.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or parameters of other names or shapes; nothing is changed then.
        """
        distributed.wait_for_all(self.ranks)
        contents.load(self._file(fname), self.model, self.run if with_opt else None)

    def _file(self, fname: str) -> Path:
        return self.path / "models" / f"{fname}.safetensors"

    def _loader(self, given: Any, what: str, shuffle: bool = False) -> Any:
        return data.as_loader(given, self.batch_size, shuffle, what, self.ranks)

    @property
    def quiet(self) -> bool | None:
        """Whether progress is shown: True shows nothing, None lines, and bars on a terminal."""
        if not self.ranks.is_main_process:
            return True
        return None if self.progress is None else not self.progress

    def value_names(self) -> list[str]:
        """Names in the results of an epoch."""
        return ["epoch", "train_loss", *(["valid_loss", *self.metrics] if self.valid is not None else [])]

    def call_event(self, event: str, *given: Any) -> None:
        """Call an event, e.g. `epoch_end`, of every callback; one without a method for it is passed over."""
        for callback in self.callbacks:
            method = getattr(callback, "on_" + event, None)
            if method is not None:
                method(self, *given)

    @contextmanager
    def calling(self, cbs: Iterable[Any]) -> Iterator[None]:
        """Inside it the events of these callbacks and of the Learner's own are called.

        Raises:
            RuntimeError: the Learner is in a fit.
        """
        with _beginning:
            self.check_idle()
            self.callbacks = [*self.cbs, *cbs]
        try:
            yield
        finally:
            self.callbacks = []

    def check_idle(self) -> None:
        """Refuse a second fit at the same time.

        Raises:
            RuntimeError: the Learner is in a fit.
        """
        if self.callbacks:
            raise RuntimeError(
                "this Learner is in a fit already, begun by another thread or around the callback that begins this "
                "one: wait for its end, or make a Learner with a model of its own"
            )

    def prepare(self) -> None:
        """What has to be done once to the model before it is bound: equal weights everywhere, its precision."""
        if not self._prepared:
            distributed.synchronize(self.model, self.ranks)
            self.precision.prepare(self.model)
            self._prepared = True

    @contextmanager
    def _features(self) -> Iterator[None]:
        """Inside it the frozen layers are computed once per sample, if that is asked for."""
        if not self.cache_frozen:
            yield
            return
        if data.own_sampler(self.train) is None:
            raise ValueError(
                "cache_frozen has to know which samples a batch has: hand over a Dataset, not a DataLoader"
            )
        units = find_units(self.model, data.first_inputs(self.train))
        memory = DEFAULT_MEMORY if self.cache_frozen is True else self.cache_frozen
        self.features = FrozenFeatures(self.model, units, self.train.dataset, memory)
        try:
            yield
        finally:
            if not self.features.was_used:
                text = "cache_frozen: nothing was reused, because no layers at the bottom stayed frozen for two epochs"
                _errors.warn(text)
            self.features.close()
            self.features = None

    def train_from(self, start: Start) -> None:
        """Train from `start` on to the end of epoch `state.num_epoch`. The results go into the recorder.

        The callbacks hear of it; also of a fit that an earlier process finished, where they get the state that they had
        at its end.

        Raises:
            FloatingPointError: the loss is not finite; the model keeps the weights of the last good update.
        """
        state, run, begin, resumed = self.state, self.run, start.position, start.resumed
        over = state.finished or begin.epoch > state.num_epoch
        state.epoch, state.batch_number = (begin.epoch - 1, state.batches) if over else (begin.epoch, begin.batch)
        state.step = begin.step
        self.recorder.hps = {name: [] for name in run.plan.schedules}
        state.running = True
        try:
            self.call_event("fit_begin")
            if resumed is not None:
                self.journal.restore(self, run, resumed)
            while not (state.finished or run.progress.finished) and begin.epoch <= state.num_epoch - run.dropped_epochs:
                self._one_epoch(begin, resumed)
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
            state.running = False
            self.call_event("fit_end")
            paddle.seed(rng.fold(state.seed, 0))

    def _one_epoch(self, begin: Position, resumed: Checkpoint | None) -> None:
        state, recorder, run = self.state, self.recorder, self.run
        state.epoch, state.batch_number = begin.epoch, begin.batch
        state.epoch_losses = len(recorder.losses) if begin.losses is None else begin.losses
        run.begin_epoch(state.epoch)
        # What callbacks draw is the same after a resumption, too.
        paddle.seed(rng.fold(state.seed, state.epoch))
        self.journal.begin_epoch(self, begin, resumed)
        self.call_event("epoch_begin")
        self.model.train()
        phase = self._hold_frozen()
        parts = []
        with closing(self.journal.batches(self, begin, resumed)) as batches:
            for state.batch in batches:
                self._check_length(state.batch_number == state.batches, "more")
                state.batch_number += 1
                parts.append(self._one_batch())
                if state.batch_number % self.accumulate == 0 or state.batch_number == state.batches:
                    self._one_update(parts)
                    parts = []
                    if run.progress.phase != phase:
                        phase = self._hold_frozen()
                self.call_event("batch_end")
                self.journal.after_batch(self, run)
        self._check_length(state.batch_number < state.batches, f"only {state.batch_number}")
        paddle.seed(rng.fold(state.seed, state.epoch, state.batches + 1))
        seen = recorder.losses[state.epoch_losses :]
        values = {"epoch": float(state.epoch), "train_loss": sum(seen) / len(seen) if seen else math.nan}
        if self.valid is not None and not state.skip_validation:
            values.update({"valid_loss" if name == "loss" else name: v for name, v in self.validate().items()})
        recorder.add_epoch(values)
        run.evaluated(values)
        self.call_event("epoch_end")
        self.journal.after_epoch(self, run)

    def _hold_frozen(self) -> int:
        """Let the stored features be those of what is frozen now; the phase that says so."""
        if self.features is not None:
            self.features.begin_phase([name for name, param in self.weights.items() if param.stop_gradient])
        return self.run.progress.phase

    def _check_length(self, differs: bool, came: str) -> None:
        """Refuse an epoch of another length than the one that the schedules were planned for."""
        if differs:
            raise ValueError(
                f"train has a length of {self.state.batches} batches, on which the schedules count, but gave {came} in "
                f"epoch {self.state.epoch}: make the loader's (or its batch_sampler's) len and what it gives agree"
            )

    def forward(self, batch: Any, number: int) -> tuple[Any, Any]:
        """What the model returns for a batch, the how manieth of the epoch, and the loss of it."""
        inputs, label = split_batch(batch)
        with self.precision.forward():
            sampler = data.own_sampler(self.train)
            if self.features is None or sampler is None:
                compute = partial(call, self.model, inputs)
            else:
                compute = partial(self.features.call, inputs, sampler.indices(self.state.epoch, number - 1))
            output = compute()
            again = (compute(),) if isinstance(self.loss, evaluation.RDrop) else ()
            return output, evaluation.loss_of(self.loss, output, label, *again)

    def _one_batch(self) -> Part:
        """Forward and backward of the batch."""
        state = self.state
        paddle.seed(rng.fold(state.seed, state.epoch, state.batch_number, self.ranks.rank))
        self.call_event("batch_begin")
        samples, weight = data.share(self.train, state.batch, state.batch_number - 1, self.accumulate, self.ranks)
        output, loss = self.forward(state.batch, state.batch_number)
        state.loss = float(loss.item())
        self.call_event("after_loss", state.batch, output, state.loss)
        self.precision.backward(loss if weight == 1 else loss * weight)
        again = None if self.run.perturbing is None else state.batch
        return Part(state.loss * samples, samples, weight, state.batch_number, again)

    def _one_update(self, parts: Sequence[Part]) -> None:
        """The update of the gradients of its batches."""
        state, run, dist = self.state, self.run, self.ranks
        totals = [float(sum(column)) for column in zip(*(part[:3] for part in parts))]
        loss, samples, weights = distributed.added(totals, dist)
        state.loss = loss / samples
        lr = run.optimizer.get_lr()
        if not math.isfinite(state.loss):
            run.optimizer.clear_grad(set_to_zero=False)
            raise FloatingPointError(
                f"the loss is {state.loss} at update {state.step + 1} (epoch {state.epoch}, batch "
                f"{state.batch_number}) with learning rate {lr:g}; the weights are those of the update before"
            )
        distributed.reduce_gradients(self.weights.values(), dist)
        if run.perturbing is not None:
            self._go_over_again(run.perturbing, parts)
        if not math.isclose(weights, dist.world, rel_tol=1e-9):
            with paddle.no_grad():
                for param in self.weights.values():
                    if not param.stop_gradient and param.grad is not None:
                        param.grad.scale_(dist.world / weights)
        self.call_event("before_update")
        hypers = {name: lr if name == "lr" else run.hyper(name) for name in run.plan.schedules}
        done = self.precision.update(run)
        distributed.average_statistics(self.model, dist)
        if done:
            state.step += 1
            self.recorder.add_update(lr, state.loss, hypers)
            self.call_event("after_update")

    def _go_over_again(self, perturbing: Perturbing, parts: Sequence[Part]) -> None:
        """The further passes of an update whose strategy moves the weights; gradients are the update's then.

        Each pass is over all batches and processes before the next move, so that neither how a batch is divided among
        processes nor how it is accumulated changes the update. The gradients of the plain pass have been averaged.
        """
        state, rule = self.state, perturbing.rule
        with closing(perturbing.passes()) as passes:
            for number, _ in enumerate(passes, 1):
                draws = () if rule is not None and rule.same_draws else (number,)
                for part in parts:
                    paddle.seed(rng.fold(state.seed, state.epoch, part.number, self.ranks.rank, *draws))
                    loss = self.forward(part.batch, part.number)[1]
                    self.precision.backward(loss if part.weight == 1 else loss * part.weight)
                distributed.reduce_gradients(self.weights.values(), self.ranks)
