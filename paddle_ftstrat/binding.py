"""The one place where a plan becomes Paddle objects: parameter settings, an optimizer, a clip, an LR scheduler."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _compat, _errors, report, threads
from paddle_ftstrat.hapi import StrategyCallback
from paddle_ftstrat.nlp_trainer import trainer_callback
from paddle_ftstrat.optim import build, hyper, masters, state
from paddle_ftstrat.optim.decay import Decay
from paddle_ftstrat.optim.hyper import HyperParameters
from paddle_ftstrat.optim.regularizer import anchored, checked_anchors
from paddle_ftstrat.param_attr import depth, description, select, settings
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.resolve import (
    Resolved,
    refuse_wrapped,
    resolve,
    resolve_depths,
    resolve_no_decay,
    resolve_pretrained,
)
from paddle_ftstrat.schedules.adapter import CurveLR


def bind(
    plan: Plan,
    model: nn.Layer,
    *,
    steps_per_epoch: int | None = None,
    sample_input: Any = None,
    pretrained: Any = None,
    layers: Sequence[Any] | None = None,
    no_decay: Any = None,
    fused: bool | None = None,
) -> Binding:
    """Carry a plan out on a model.

    Args:
        plan: what to do.
        model: a model with parameters; one of `paddle.jit.to_static` too, and one that `paddle.DataParallel` wraps
            unless there are several processes and the plan thaws layers later.
        steps_per_epoch: updates per epoch, for pictures and for a reminder to call `begin_epoch`.
        sample_input: one input, to trace the order of the layers (see `find_units`).
        pretrained: selectors or a mapping whose keys name the parameters that L2SP anchors; None anchors all.
        layers: the layers by hand, bottom first (see `find_units`).
        no_decay: selectors of the parameters that decoupled decay skips; None: biases and normalisation layers.
        fused: True or None for updates in one fused pass wherever that fits, with True refusing an optimizer that it
            never fits; False for Paddle's own operations.

    Raises:
        ValueError, TypeError: anything wrong in the plan, the model or their combination; nothing is changed then.
        RuntimeError: Paddle is in static mode.
    """
    if not paddle.in_dynamic_mode():
        raise RuntimeError(
            "strategies train in dynamic mode, but Paddle is in static mode: call paddle.disable_static()"
        )
    if not isinstance(model, nn.Layer):
        raise TypeError(f"model must be a paddle.nn.Layer, not {type(model).__name__}")
    weights = select.named_weights(model)
    if not weights:
        raise ValueError("the model has no parameters to train")
    threads.take_widest_code()
    units = depth.find_units(model, sample_input, layers)
    depths = resolve_depths(plan, model, units)
    anchored = resolve_pretrained(plan, model, pretrained)
    rows = resolve(plan, weights, depths, anchored, resolve_no_decay(model, no_decay))
    scheduler = CurveLR(plan.curve)
    optimizer, decay, hypers = build.build_optimizer(plan, model, rows, scheduler, fused)
    return Binding(plan, model, rows, optimizer, scheduler, decay, hypers, steps_per_epoch)


class Binding:
    """A plan in force on a model. Made by `strategy.bind(...)`; valid until `release()` or the next bind.

    Attributes:
        optimizer: the `paddle.optimizer.Optimizer`; `optimizer.get_lr()` is the LR of the coming update.
        lr_scheduler: the `paddle.optimizer.lr.LRScheduler` that it follows.
        blocks: structured parameter names of each block, bottom block first.
        epoch: the epoch that was begun last, counted from 1; 0 before the first `begin_epoch`.

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
        rows: Sequence[Resolved],
        optimizer: Any,
        lr_scheduler: CurveLR,
        decay: Decay,
        hypers: HyperParameters,
        steps_per_epoch: int | None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.steps_per_epoch = steps_per_epoch
        self.epoch = 0
        self._rows = list(rows)
        self._decay = decay
        self._hypers = hypers
        self._held: frozenset[str] = frozenset()
        self._watched = self._rows[0].param
        self._owner = description.Owner()
        self._publish()
        if (last := max(row.depth.first_epoch for row in rows)) > 1:
            refuse_wrapped(model)
            report.remind_of_epochs(self, last)
        self._apply(1)

    @property
    def blocks(self) -> list[list[str]]:
        """Structured parameter names of each block, bottom block first."""
        blocks: list[list[str]] = [[] for _ in range(1 + max(row.depth.block for row in self._rows))]
        for row in self._rows:
            blocks[row.depth.block].append(row.name)
        return blocks

    def begin_epoch(self, epoch: int | None = None) -> None:
        """Apply the unfreezing plan of the next epoch, or of `epoch` (counted from 1).

        Raises:
            RuntimeError: the binding is not in force any more.
            ValueError: epoch < 1.
        """
        self._check_in_force()
        self.epoch = self.epoch + 1 if epoch is None else _errors.check_whole("epoch", epoch, minimum=1)
        masters.catch_up(row.param for row in self._rows)
        self._apply(self.epoch)

    def step(self, scaler: Any = None) -> bool:
        """One update: `optimizer.step()`, `optimizer.clear_grad()`, `lr_scheduler.step()`.

        Args:
            scaler: the `paddle.amp.GradScaler` whose `scale(loss)` gave the gradients, in float16; it is updated too.

        Returns:
            Whether the update was done. With infinite gradients a scaler skips it: neither weights nor decay nor the
            schedule move then.

        Raises:
            RuntimeError: the binding is not in force any more.
            FloatingPointError: a gradient is not finite; weights and optimizer state are as before.
        """
        self._check_in_force()
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
        if not done:
            return False
        self.lr_scheduler.step()
        return True

    def reschedule(self, curve: Any, max_train_steps: int | None, steps_per_epoch: int | None = None) -> None:
        """Follow another curve from its update 0 on, with the same optimizer and its state; epochs count anew.

        Args:
            curve: function update index → LR.
            max_train_steps: its length, None for a curve without one.
            steps_per_epoch: updates per epoch; None: as before.
        """
        self._check_in_force()
        self.plan = replace(self.plan, curve=curve, max_train_steps=max_train_steps)
        self.steps_per_epoch = steps_per_epoch or self.steps_per_epoch
        self.lr_scheduler.set_curve(curve)
        self.epoch = 0

    def set_block_factors(self, factors: Sequence[float]) -> None:
        """Let each block's LR be the curve times a factor (and a parameter's own multiplier), bottom block first.

        Raises:
            ValueError: not one factor ≥ 0 per block.
        """
        self._check_in_force()
        checked = [_errors.check_number(f"factors[{i}]", factor, minimum=0) for i, factor in enumerate(factors)]
        if len(checked) != len(self.blocks):
            raise ValueError(f"{len(checked)} factors were given, but there are {len(self.blocks)} blocks")
        self._rows = [row.with_factor(checked[row.depth.block]) for row in self._rows]
        self._publish()
        self._apply(max(self.epoch, 1))

    def hold(self, names: Collection[str]) -> None:
        """Freeze these parameters and no others, beside what the plan freezes; `hold([])` lets all go again.

        Raises:
            ValueError: there is no such parameter.
        """
        self._check_in_force()
        _errors.check_keys("parameter", names, self._weights())
        self._held = frozenset(names)
        self._apply(max(self.epoch, 1))

    @property
    def held(self) -> frozenset[str]:
        """Names of the parameters that `hold` keeps frozen."""
        return self._held

    @property
    def in_force(self) -> bool:
        """Whether the model's settings are this binding's."""
        return settings.owner_of(self._watched) is self._owner

    @property
    def block_factors(self) -> list[float]:
        """The factor in each block's LR, bottom block first."""
        factors = {row.depth.block: row.depth.factor for row in self._rows}
        return [factors[block] for block in range(len(factors))]

    def hyper(self, name: str) -> Any:
        """A hyper-parameter in force: `mom` (or β₁), `sqr_mom` (β₂, ρ), `eps`, `wd`; a list where blocks differ."""
        value = self._hypers.get(name)
        if not isinstance(value, dict):
            return value
        by_block = {row.depth.block: value[row.param.name] for row in self._rows if row.param.name in value}
        return [by_block.get(block) for block in range(len(self.blocks))]

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
        if np.ndim(value) == 0:
            self._hypers.set(name, value)
            return
        if len(value) != len(self.blocks):
            raise ValueError(f"{name} has {len(value)} values, but there are {len(self.blocks)} blocks")
        self._hypers.set(name, {row.param.name: value[row.depth.block] for row in self._rows})

    def state_dict(self) -> dict[str, Any]:
        """What the model does not hold: optimizer state by structured name, curve position, epoch, L2SP anchors."""
        weights = self._weights()
        anchors = {name: row.settings.regularizer.anchor for name, row in anchored(self._rows).items()}
        anchors = {name: anchor for name, anchor in anchors.items() if anchor is not None}
        return {
            "optimizer": state.get_state(self.optimizer, weights),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "epoch": self.epoch,
            "max_train_steps": self.plan.max_train_steps,
            "anchors": anchors,
            "block_factors": self.block_factors,
            "held": sorted(self.held),
            "hypers": {name: self.hyper(name) for name in hyper.NAMES if self.has_hyper(name)},
        }

    def set_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken; the model's weights are the caller's to load.

        Raises:
            ValueError: the state is of another model, optimizer, strategy or training length; nothing is changed.
        """
        self._check_in_force()
        needed = ("optimizer", "lr_scheduler", "epoch", "max_train_steps", "anchors")
        missing = [key for key in needed if key not in state_dict]
        if missing:
            raise ValueError(f"not the state of a binding: {missing} missing")
        if state_dict["max_train_steps"] != self.plan.max_train_steps:
            raise ValueError(
                f"the state was saved with max_train_steps={state_dict['max_train_steps']}, this binding has "
                f"{self.plan.max_train_steps}: the LR curve would mix two lengths; bind with the same length"
            )
        anchors = checked_anchors(self._rows, state_dict["anchors"])
        state.set_state(self.optimizer, self._weights(), state_dict["optimizer"])
        for regularizer, value in anchors:
            regularizer.anchor = value
        self.lr_scheduler.set_state_dict(dict(state_dict["lr_scheduler"]))
        self.epoch = int(state_dict["epoch"])
        for name, value in state_dict.get("hypers", {}).items():
            self.set_hyper(name, value)
        self.set_block_factors(state_dict.get("block_factors", self.block_factors))
        self.hold(state_dict.get("held", self.held))

    def describe(self) -> description.Description:
        """What holds for each parameter, as rows and as a table, with the plan's totals below it."""
        return report.describe_rows(self._rows, self.plan, self.optimizer, self.lr_scheduler.last_epoch)

    def plot(self, path: Any = None, steps: int | None = None) -> Any:
        """Draw the LR of every block over the updates; frozen stretches are dotted, a dot marks the thaw.

        Args:
            path: image file to write; None only returns the figure.
            steps: how many updates; by default the plan's length.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the plan has no length and `steps` is not given.
        """
        return report.plot(self, self._rows, path, steps or self.plan.max_train_steps)

    def callback(self, initial_epoch: int | None = None) -> StrategyCallback:
        """A callback for `paddle.Model.fit`: LR per update, unfreezing per epoch (see `hapi.StrategyCallback`)."""
        return StrategyCallback(self, initial_epoch)

    def trainer_callback(self) -> Any:
        """A callback for PaddleNLP's `Trainer`: unfreezing per epoch (see `nlp_trainer.trainer_callback`)."""
        return trainer_callback(self)

    def release(self) -> None:
        """Give the model its user's own settings back. Afterwards `step` and `begin_epoch` raise."""
        for row in self._rows:
            settings.restore(row.param, self._owner)
        _compat.forget_traces(_compat.unwrap(self.model))

    def __repr__(self) -> str:
        return report.one_line(self)

    def _apply(self, epoch: int) -> None:
        puts = [row.in_epoch(epoch, self._held) for row in self._rows]
        trains = [put.trainable and settings.own(row.param).trainable for row, put in zip(self._rows, puts)]
        changed = trains != [not row.param.stop_gradient for row in self._rows]
        if changed:
            refuse_wrapped(self.model)
        for row, put in zip(self._rows, puts):
            settings.apply(row.param, put, self._owner)
        if changed:
            _compat.forget_traces(_compat.unwrap(self.model))

    def _publish(self) -> None:
        self._owner.rows.clear()
        self._owner.rows.update((row.name, report.row_of(row, self._decay)) for row in self._rows)

    def _weights(self) -> dict[str, Any]:
        return {row.name: row.param for row in self._rows}

    def _check_in_force(self) -> None:
        if not self.in_force:
            raise RuntimeError("this binding is not in force: it was released, or the model was bound again since")
