"""The one place where a plan becomes Paddle objects: parameter settings, an optimizer, a clip, an LR scheduler."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _errors, _paddle, acceleration, pictures, resolve
from paddle_ftstrat._paddle import threads
from paddle_ftstrat._paddle.layers import trained_changed
from paddle_ftstrat.optim import averaging, build, masters, state
from paddle_ftstrat.optim.perturbation import Perturbing
from paddle_ftstrat.param_attr import depth, description, settings
from paddle_ftstrat.plan import Plan, Progress
from paddle_ftstrat.transfer.merge import update_statistics


class Binding:
    """A plan in force on a model. Made by `strategy.bind(...)`; valid until `release()` or the next bind.

    Args:
        plan: what to do.
        model: a model with parameters; one of `paddle.jit.to_static` too, and one that `paddle.DataParallel` wraps
            unless there are several processes and the plan thaws layers later.
        steps_per_epoch, sample_input, pretrained, layers, no_decay, fused, fisher, accelerate: of `strategy.bind`.

    Raises:
        ValueError, TypeError: anything wrong in the plan, the model or their combination; nothing is changed then.
        RuntimeError: Paddle is in static mode.

    Attributes:
        optimizer: the `paddle.optimizer.Optimizer`; `optimizer.get_lr()` is the LR of the coming update.
        lr_scheduler: the `paddle.optimizer.lr.LRScheduler` that it follows.
        average, perturbing: what keeps the strategy's average (`average.values`) and makes its further passes, or None.
        epoch: the epoch that was begun last, counted from 1; 0 before the first `begin_epoch`. As long as no epoch is
            begun, phases change by themselves with the count of updates, where `steps_per_epoch` is known.

    Example:
        >>> import paddle, paddle_ftstrat as hub
        >>> model = paddle.nn.Linear(4, 2)
        >>> run = hub.DefaultFinetuneStrategy(learning_rate=0.1, optimizer_name="sgd").bind(model)
        >>> for x in paddle.randn([3, 8, 4]):
        ...     model(x).square().mean().backward()
        ...     done = run.step()
        >>> run.optimizer.get_lr(), run.blocks
        (0.1, [['weight', 'bias']])
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Layer,
        *,
        steps_per_epoch: int | None = None,
        sample_input: Any = None,
        pretrained: Any = None,
        layers: Sequence[Any] | None = None,
        no_decay: Any = None,
        fused: bool | None = None,
        fisher: Any = None,
        accelerate: bool | None = None,
    ) -> None:
        weights = resolve.check_model(model)
        self._accelerated = acceleration.survey(model, accelerate)
        threads.take_widest_code()
        self.plan, self.model, self.steps_per_epoch = plan, model, steps_per_epoch
        self._units = depth.find_units(model, sample_input, layers)
        depths = resolve.resolve_depths(plan, model, self._units, steps_per_epoch)
        named = resolve.resolve_anchors(plan, model, pretrained, fisher), resolve.resolve_no_decay(model, no_decay)
        self._rows = resolve.resolve(plan, weights, depths, *named)
        self.perturbing = None if plan.perturbation is None else Perturbing(plan.perturbation, model)
        self.lr_scheduler = build.ScheduleLR(plan.lr)
        built = build.build_optimizer(plan, model, self._rows, self.lr_scheduler, fused)
        self.optimizer, self._decay, self._hypers = built
        self.average = None if plan.averaging is None else averaging.keep(self, weights)
        self._owner = description.Owner()
        self.lr_scheduler.heard = self._coming
        self._begin()
        self._accelerated.apply()

    def _begin(self) -> None:
        """Stand at the plan's first update."""
        self.epoch, self.progress = 0, Progress()
        if self.plan.thaws:
            resolve.refuse_wrapped(self.model)
        self._reminded = not self.plan.thaws or self.plan.starts is not None
        self._apply()
        self._coming(stepped=False)

    @property
    def blocks(self) -> list[list[str]]:
        """Structured parameter names of each block, bottom block first."""
        return resolve.by_block(self._rows, lambda row: row.name)

    def begin_epoch(self, epoch: int | None = None) -> None:
        """Apply the unfreezing plan of the next epoch, or of `epoch` (counted from 1).

        Raises:
            RuntimeError: the binding is not in force any more.
            ValueError: epoch < 1.
        """
        self._check_in_force()
        epoch = self.epoch + 1 if epoch is None else _errors.check_whole("epoch", epoch, minimum=1)
        if self.plan.first_epochs is not None and not self.progress.by_updates:
            if epoch < min(self.epoch or epoch + 1, self.progress.began):
                self.progress = Progress()
            while (ends := self.progress.over_in(self.plan, epoch)) is not None:
                self._next_phase(ends)
        self.epoch = epoch
        self._apply()

    def evaluated(self, values: Mapping[str, float]) -> bool:
        """Tell the results of an evaluation, by which a phase with `until=Plateau(...)` may end.

        Args:
            values: name → value, among them the one that the phase monitors.

        Returns:
            Whether the phase has ended with it. The next one begins with the coming update; after the last,
            `progress.finished` is True.

        Raises:
            ValueError: the monitored value is not there.
        """
        self._check_in_force()
        phase, progress = self.plan.phases[self.progress.phase], self.progress
        weights = self.model.state_dict() if phase.restore else None
        if phase.until is None or progress.finished or not progress.judge(phase.until, values, weights):
            return False
        t, per_epoch = self.lr_scheduler.last_epoch, self.steps_per_epoch
        progress.by_updates |= bool(per_epoch and (t - progress.skipped) % per_epoch)
        self._next_phase(self.epoch + 1)
        if self.plan.starts is not None and not self.progress.finished:
            start = max(self.plan.starts[self.progress.phase], t)
            self.progress.skipped += start - t
            self.lr_scheduler.step(start)
        self._apply()
        return True

    def _next_phase(self, epoch: int) -> None:
        """Leave the phase for the one that begins with an epoch, or for the end of the training."""
        phase, following = self.plan.phases[self.progress.phase], self.plan.phases[self.progress.phase + 1 :]
        if phase.restore and self.progress.best_weights:
            self.model.set_state_dict(self.progress.best_weights)
        if not following:
            self.progress.finished = True
            return
        self.progress = self.progress.at(self.progress.phase + 1, epoch)
        if following[0].reset_optimizer:
            for row in self._rows:
                _paddle.drop_accumulators(self.optimizer, row.param)

    def step(self, scaler: Any = None) -> bool:
        """One update: `optimizer.step()`, `optimizer.clear_grad()`, `lr_scheduler.step()`.

        Args:
            scaler: the `paddle.amp.GradScaler` whose `scale(loss)` gave the gradients, in float16; it is updated too.

        Returns:
            Whether the update was done. With infinite gradients a scaler skips it: neither weights nor decay nor the
            schedule move then.

        Raises:
            RuntimeError: the binding is not in force any more, or has a perturbation and this does not follow `losses`.
            FloatingPointError: a gradient is not finite; weights and optimizer state are as before.
        """
        self._check_in_force()
        if self.perturbing is not None:
            self.perturbing.check()
        done = True
        try:
            with threads.one_thread():
                if scaler is None:
                    self.optimizer.step()
                else:
                    done = masters.scaled_step(scaler, self.optimizer, [row.param for row in self._rows])
        finally:
            # Gradients that were refused must not be part of the next ones.
            self.optimizer.clear_grad(set_to_zero=False)
        if done:
            self.lr_scheduler.step()
        return done

    def losses(self, loss_of: Callable[..., Any], batches: Iterable[Any] | None = None) -> Iterator[Any]:
        """The losses of an update, for a loop that calls `backward()` on each; `step()` comes after the loop.

        Without a perturbation in the strategy that is one per batch; with one, each pass has one per batch.

        Args:
            loss_of: function of nothing, or of a batch, that gives the loss.
            batches: the batches of one update; the perturbation is that of their whole gradient.

        Example:
            >>> import paddle, paddle_ftstrat as hub
            >>> run = hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 0.05}).bind(paddle.nn.Linear(4, 2))
            >>> for x in paddle.randn([3, 8, 4]):
            ...     for loss in run.losses(lambda: run.model(x).square().mean()):
            ...         loss.backward()
            ...     done = run.step()
        """
        return (self.perturbing or Perturbing(None, self.model)).losses(loss_of, batches)

    @property
    def has_average(self) -> bool:
        """Whether the strategy's `averaging`, or an optimizer that averages by itself, gives averaged weights."""
        return self.average is not None or hasattr(self.optimizer, "averaged_weights")

    def averaged(self) -> AbstractContextManager[None]:
        """Inside it the model has the averaged weights, its own where no average has begun; afterwards its own again.

        What `update_statistics` gathers inside is undone, too.

        Raises:
            RuntimeError: there are none (see `has_average`).
        """
        return averaging.averaged(self)

    def update_statistics(self, loader: Iterable[Any]) -> None:
        """Gather the statistics of BatchNorm layers anew, for the weights of now (see `transfer.update_statistics`)."""
        update_statistics(self.model, loader)

    def follow(self, plan: Plan, steps_per_epoch: int | None = None) -> None:
        """Follow another plan's schedules, depth factors and phases from its first update on.

        The optimizer goes on with its state, and so do regularisation, decay and clipping.

        Args:
            plan, steps_per_epoch: the plan, and the updates per epoch, None for as before.

        Raises:
            ValueError: the plan does not fit the model or the optimizer; nothing is changed.
        """
        self._check_in_force()
        steps_per_epoch = steps_per_epoch or self.steps_per_epoch
        depths = resolve.resolve_depths(plan, self.model, self._units, steps_per_epoch)
        self._hypers.check(plan.schedules)
        self._rows = [row.at(depths[row.name]) for row in self._rows]
        followed = ("schedules", "max_train_steps", "depth", "phases", "starts")
        self.plan = replace(self.plan, **{key: getattr(plan, key) for key in followed})
        self.steps_per_epoch = steps_per_epoch
        self.lr_scheduler.follow(plan.lr)
        self._begin()

    @property
    def trains(self) -> dict[str, tuple[bool, ...]]:
        """Whether each parameter trains in each phase, by structured name; never what the user froze."""
        return {row.name: tuple(row.own.trainable and one for one in row.depth.trains) for row in self._rows}

    @property
    def dropped_epochs(self) -> int:
        """Whole epochs of the planned training that phases which ended early have left out."""
        return self.progress.skipped // self.steps_per_epoch if self.steps_per_epoch else 0

    @property
    def in_force(self) -> bool:
        """Whether the model's settings are this binding's."""
        return settings.owner_of(self._rows[0].param) is self._owner

    @property
    def block_factors(self) -> list[float]:
        """The factor in each block's LR, bottom block first; others may be set, for the updates to come."""
        return [factor for _, factor in sorted({(row.depth.block, row.depth.factor) for row in self._rows})]

    @block_factors.setter
    def block_factors(self, factors: Sequence[float]) -> None:
        if len(factors) != len(self.blocks):
            raise ValueError(f"{len(factors)} factors were given, but there are {len(self.blocks)} blocks")
        self._rows = [row.at(replace(row.depth, factor=factors[row.depth.block])) for row in self._rows]
        self._apply()

    def hyper(self, name: str) -> Any:
        """A hyper-parameter in force: `mom` (or β₁), `sqr_mom` (β₂, ρ), `eps`, `wd`; a list where blocks differ."""
        return self._hypers.get(name, lambda: resolve.by_block(self._rows, lambda row: row.param.name))

    def has_hyper(self, name: str) -> bool:
        """Whether the optimizer has a hyper-parameter (see `hyper`)."""
        return self._hypers.has(name)

    def set_hyper(self, name: str, value: Any) -> None:
        """Use another value of a hyper-parameter (see `hyper`) from the next update on, or a list with one per block.

        Raises:
            ValueError: an unknown name, one that the optimizer lacks, a value out of range, or a list of another
                length than the number of blocks.
        """
        self._check_in_force()
        self._hypers.set(name, value, lambda: resolve.by_block(self._rows, lambda row: row.param.name))

    def state_dict(self) -> dict[str, Any]:
        """What the model does not hold: optimizer state by structured name, curve position, epoch, L2SP anchors."""
        return state.of_binding(self, self._rows)

    def set_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken; the model's weights are the caller's to load.

        Raises:
            ValueError: the state is of another model, optimizer, strategy or training length; nothing is changed.
        """
        self._check_in_force()
        state.set_binding(self, self._rows, state_dict)

    def describe(self) -> description.Description:
        """What holds for each parameter, as rows and as a table, with the plan's totals below it."""
        t, layers = self.lr_scheduler.last_epoch, str(self._accelerated)
        return resolve.describe_rows(self._rows, self.plan, self.optimizer, t, layers)

    def plot(self, path: Any = None, steps: int | None = None) -> Any:
        """Draw the LR of every block over the updates; frozen stretches are dotted, a dot marks the thaw.

        Args:
            path: image file to write; None only returns the figure.
            steps: how many updates; by default the plan's length.

        Raises:
            ImportError, ValueError: there is no matplotlib; neither the plan nor `steps` has a length.
        """
        return pictures.plot(self, self._rows, path, steps or self.plan.max_train_steps)

    def callback(self, initial_epoch: int | None = None) -> Any:
        """A callback for `paddle.Model.fit`: LR per update, phases (see `integrations.paddle_model`)."""
        return import_module("paddle_ftstrat.integrations.paddle_model").StrategyCallback(self, initial_epoch)

    def trainer_callback(self) -> Any:
        """A callback for PaddleNLP's `Trainer`: phases (see `integrations.trainers`)."""
        return import_module("paddle_ftstrat.integrations.trainers").trainer_callback(self)

    def attach(self, host: Any = None) -> tuple[Any, Any]:
        """Put the binding into somebody else's loop; its optimizer and LR scheduler (see `integrations.hosts`)."""
        return import_module("paddle_ftstrat.integrations.hosts").attach(self, host)

    def release(self) -> None:
        """Give the model its user's own settings back. Afterwards `step` and `begin_epoch` raise."""
        if self.in_force:
            acceleration.accelerate(self.model, undo=True)
        for row in self._rows:
            settings.restore(row.param, self._owner)
        _paddle.forget_traces(_paddle.unwrap(self.model))

    def __repr__(self) -> str:
        return description.one_line(self)

    def _coming(self, stepped: bool) -> None:
        """Put in force what the plan's schedules say of the coming update; go on to its phase."""
        t, schedules = self.lr_scheduler.last_epoch, self.plan.schedules
        if not self.in_force:
            return
        if (phase := self._phase_at(t)) != self.progress.phase:
            # Where nobody begins epochs, each phase begins with the epoch that is its first.
            epochs = self.plan.first_epochs if self.epoch == 0 else None
            while stepped and self.progress.phase < phase:
                self._next_phase(epochs[self.progress.phase + 1] if epochs else self.epoch)
            if not stepped:
                self.progress = self.progress.at(phase, epochs[phase] if epochs else self.epoch)
            self._apply()
        for name in schedules:
            if name != "lr":
                self.set_hyper(name, schedules[name](t))
        if schedules["lr"].shape:
            self._spread(schedules["lr"](t))
        if stepped and not self._reminded:
            self._reminded = resolve.remind_of_epochs(self)

    def _phase_at(self, t: int) -> int:
        """The phase of an update; that of now, unless phases change by updates: also while no epoch has begun."""
        by_updates = self.plan.first_epochs is None or self.progress.by_updates or self.epoch == 0
        if self.plan.starts is None or not (self.plan.thaws and by_updates):
            return self.progress.phase
        return bisect_right(self.plan.starts, t) - 1

    def _spread(self, lrs: Any) -> None:
        """Blocks whose LR is another share of the top one's than before get a new factor."""
        if len(lrs) != len(self.blocks):
            raise ValueError(f"lr has {len(lrs)} values, but there are {len(self.blocks)} blocks")
        factors = np.asarray(lrs) / (lrs[-1] or 1)
        if lrs[-1] and not np.allclose(factors, self.block_factors, rtol=1e-12, atol=0):
            self.block_factors = factors.tolist()

    def _apply(self) -> None:
        """Put the settings of the phase in force; the kept float32 values follow weights that others have changed."""
        masters.catch_up(row.param for row in self._rows)
        self._owner.rows.update((row.name, resolve.row_of(row, self._decay)) for row in self._rows)
        changed = resolve.changes(self._rows, self.progress.phase, self.model)
        for row in self._rows:
            settings.apply(row.param, row.in_phase(self.progress.phase), self._owner)
        if changed:
            trained_changed(_paddle.unwrap(self.model))
        if self.average is not None:
            self.average.join()

    def _check_in_force(self) -> None:
        if not self.in_force:
            raise RuntimeError("this binding is not in force: it was released, or the model was bound again since")
