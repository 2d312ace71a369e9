"""The one place where a plan becomes Paddle objects: parameter settings, an optimizer, a clip, an LR scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _compat, _errors
from paddle_ftstrat.hapi import StrategyCallback
from paddle_ftstrat.optim import build, state
from paddle_ftstrat.param_attr import depth, describe, select, settings
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.resolve import Resolved, resolve, resolve_depths
from paddle_ftstrat.schedules import picture
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
) -> Binding:
    """Carry a plan out on a model.

    Args:
        plan: what to do.
        model: a model with parameters; DataParallel and `paddle.jit.to_static` models too.
        steps_per_epoch: updates per epoch, for pictures and for a reminder to call `begin_epoch`.
        sample_input: one input, to trace the order of the layers (see `find_units`).
        pretrained: selectors or a mapping whose keys name the parameters that L2SP anchors; None anchors all.
        layers: the layers by hand, bottom first (see `find_units`).
        no_decay: selectors of the parameters that decoupled decay skips; None: biases and normalisation layers.

    Raises:
        ValueError, TypeError: anything wrong in the plan, the model or their combination; nothing is changed then.
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"model must be a paddle.nn.Layer, not {type(model).__name__}")
    weights = select.named_weights(model)
    if not weights:
        raise ValueError("the model has no parameters to train")
    units = depth.find_units(model, sample_input, layers)
    skipped = select.norm_or_bias(model) if no_decay is None else _selected(model, no_decay, "no_decay")
    depths = resolve_depths(plan, model, units)
    rows = resolve(plan, weights, depths, _pretrained(plan, model, pretrained), skipped)
    scheduler = CurveLR(plan.curve)
    optimizer, decay = build.build_optimizer(plan, model, rows, scheduler, skipped)
    _warn_of_few_layers(plan, len(units))
    return Binding(plan, model, rows, optimizer, scheduler, decay, steps_per_epoch)


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
        ...     run.step()
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
        decay: build.Decay,
        steps_per_epoch: int | None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.steps_per_epoch = steps_per_epoch
        self.epoch = 0
        self._rows = list(rows)
        self._watched = self._rows[0].param
        self._last_epoch = max((row.depth.first_epoch for row in rows), default=1)
        self._owner = describe.Owner({row.name: _description(row, decay) for row in rows})
        self._remind_at = steps_per_epoch if self._last_epoch > 1 else None
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
        self._apply(self.epoch)

    def step(self) -> None:
        """One update: `optimizer.step()`, `optimizer.clear_grad()`, `lr_scheduler.step()`.

        Raises:
            RuntimeError: the binding is not in force any more.
        """
        if settings.owner_of(self._watched) is not self._owner:
            self._check_in_force()
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        self.lr_scheduler.step()
        if self._remind_at is not None and self.lr_scheduler.last_epoch > self._remind_at:
            self._remind()

    def state_dict(self) -> dict[str, Any]:
        """What the model does not hold: optimizer state by structured name, curve position, epoch, L2SP anchors."""
        weights = self._weights()
        anchors = {row.name: row.settings.regularizer.anchor for row in self._anchored()}
        anchors = {name: anchor for name, anchor in anchors.items() if anchor is not None}
        return {
            "optimizer": state.get_state(self.optimizer, weights),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "epoch": self.epoch,
            "max_train_steps": self.plan.max_train_steps,
            "anchors": anchors,
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
        anchors = self._checked_anchors(state_dict["anchors"])
        state.set_state(self.optimizer, self._weights(), state_dict["optimizer"])
        for regularizer, value in anchors:
            regularizer.anchor = value
        self.lr_scheduler.set_state_dict(dict(state_dict["lr_scheduler"]))
        self.epoch = int(state_dict["epoch"])
        self._apply(max(self.epoch, 1))

    def describe(self) -> describe.Description:
        """What holds for each parameter, as rows and as a table, with the plan's totals below it."""
        rows = [describe.row_of(row.name, row.param) for row in self._rows]
        training = sum(int(np.prod(row.shape)) for row in rows if row.trainable)
        total = sum(int(np.prod(row.shape)) for row in rows)
        clip = self.plan.clip
        notes = [
            "",
            f"optimizer {type(self.optimizer).__name__}, LR of the next update {self.optimizer.get_lr():.6g}, "
            f"update {self.lr_scheduler.last_epoch} of {self.plan.max_train_steps or '∞'}",
            f"clip {clip.kind}({clip.value:g})" if clip else "no gradient clipping",
            f"{training:,} of {total:,} values train now, in {len(self.blocks)} blocks",
        ]
        return describe.Description(rows, notes)

    def plot(self, path: Any = None, steps: int | None = None) -> Any:
        """Draw the LR of every block over the updates; frozen stretches are dotted, a dot marks the thaw.

        Args:
            path: image file to write; None only returns the figure.
            steps: how many updates; by default the plan's length.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the plan has no length and `steps` is not given.
        """
        steps = steps or self.plan.max_train_steps
        if steps is None:
            raise ValueError("a plan without max_train_steps has no length to draw: give plot(steps=...)")
        lrs = np.asarray(self.plan.curve(np.arange(steps, dtype=np.float64)))
        lines = [picture.Line(*line) for line in self._lines(lrs)]
        title = f"{type(self.optimizer).__name__}: learning rate of {len(self.blocks)} blocks"
        return picture.draw_plan(lines, title, self.steps_per_epoch, path)

    def callback(self) -> StrategyCallback:
        """A callback for `paddle.Model.fit`: LR per batch, unfreezing per epoch."""
        return StrategyCallback(self)

    def release(self) -> None:
        """Give the model its user's own settings back. Afterwards `step` and `begin_epoch` raise."""
        for row in self._rows:
            settings.restore(row.param, self._owner)
        _compat.forget_traces(_compat.unwrap(self.model))

    def _apply(self, epoch: int) -> None:
        before = [row.param.stop_gradient for row in self._rows]
        for row in self._rows:
            settings.apply(row.param, row.in_epoch(epoch), self._owner)
        if before != [row.param.stop_gradient for row in self._rows]:
            _compat.forget_traces(_compat.unwrap(self.model))

    def _weights(self) -> dict[str, Any]:
        return {row.name: row.param for row in self._rows}

    def _anchored(self) -> list[Resolved]:
        return [row for row in self._rows if hasattr(row.settings.regularizer, "anchor")]

    def _checked_anchors(self, given: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        anchored = {row.name: row for row in self._anchored()}
        # What was frozen when it was bound has an anchor only since it was thawed, here or there.
        differ = [name for name in given if name not in anchored]
        differ += [name for name, row in anchored.items() if row.own.trainable and name not in given]
        if differ:
            raise ValueError(f"L2SP anchors of the state and of this binding differ: {_errors.listing(sorted(differ))}")
        pairs = []
        for name, row in anchored.items():
            value = given.get(name)
            if value is not None:
                value = (value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)).astype("float32")
            if value is not None and list(value.shape) != list(row.param.shape):
                raise ValueError(
                    f"the L2SP anchor of {name!r} has shape {list(value.shape)}, not {list(row.param.shape)}"
                )
            pairs.append((row.settings.regularizer, value))
        return pairs

    def _lines(self, lrs: np.ndarray) -> list[tuple[str, np.ndarray, int]]:
        """(label, LRs, frozen updates) of each block, top first; blocks that look alike share a line."""
        merged: dict[tuple[float, int], list[int]] = {}
        for row in self._rows:
            frozen = len(lrs) if not row.own.trainable else (row.depth.first_epoch - 1) * (self.steps_per_epoch or 0)
            members = merged.setdefault((row.settings.learning_rate, frozen), [])
            if row.depth.block not in members:
                members.append(row.depth.block)
        ordered = sorted(merged.items(), key=lambda item: -max(item[1]))
        return [
            (f"block {_spans(blocks)} (×{factor:.3g})", lrs * factor, min(frozen, len(lrs)))
            for (factor, frozen), blocks in ordered
        ]

    def _check_in_force(self) -> None:
        if settings.owner_of(self._watched) is not self._owner:
            raise RuntimeError("this binding is not in force: it was released, or the model was bound again since")

    def _remind(self) -> None:
        if self.epoch == 0:
            warnings.warn(
                "the plan thaws layers epoch by epoch, but begin_epoch() was not called: call it at the start of "
                "every epoch, or only the top layers train",
                stacklevel=3,
            )
        self._remind_at = None


def _description(row: Resolved, decay: build.Decay) -> describe.Row:
    fallback = decay.coupled if row.settings.regularizer is None else None
    return describe.Row(
        name=row.name,
        shape=tuple(row.param.shape),
        block=row.depth.block,
        trainable=row.own.trainable,
        first_epoch=row.depth.first_epoch,
        learning_rate=row.settings.learning_rate,
        own_learning_rate=row.own.learning_rate,
        factor=row.depth.factor,
        regularizer=describe.text_of(row.settings.regularizer or fallback),
        regularizer_from="optimizer" if fallback is not None else row.regularizer_from,
        decay=decay.coefficient(row.name),
        decay_from=decay.source if decay.coefficient(row.name) else "",
        need_clip=row.settings.need_clip,
    )


def _selected(model: nn.Layer, selectors: Any, what: str) -> set[str]:
    return set() if not isinstance(selectors, str) and not selectors else select.select_all(model, selectors, what)


def _pretrained(plan: Plan, model: nn.Layer, pretrained: Any) -> Collection[str]:
    if not plan.l2sp:
        if pretrained is not None:
            warnings.warn("pretrained= only matters to L2SP, which this strategy does not use", stacklevel=4)
        return ()
    if pretrained is None:
        warnings.warn(
            "L2SP without pretrained=: every parameter, a new head too, is pulled back to its value of now; "
            "name the pretrained ones, or pretrained='*' for all",
            stacklevel=4,
        )
        return select.named_weights(model)
    if isinstance(pretrained, Mapping):
        known = {alias: name for name, aliases in select.all_names(model).items() for alias in aliases}
        found = {known[key] for key in pretrained if key in known}
        if not found:
            raise ValueError("pretrained: none of its keys is a parameter of the model, " + _errors.listing(pretrained))
        return found
    if isinstance(pretrained, (list, tuple, set)):
        # Names of loaded entries may include running statistics, which L2SP has nothing to do with.
        running = select.statistics(model)
        pretrained = [entry for entry in pretrained if not (isinstance(entry, str) and entry in running)]
    return _selected(model, pretrained, "pretrained")


def _warn_of_few_layers(plan: Plan, count: int) -> None:
    for key, spec in (("discriminative", plan.discriminative), ("gradual_unfreeze", plan.gradual_unfreeze)):
        if spec is not None and not spec.params_layer and spec.blocks > count:
            warnings.warn(
                f"{key}: {spec.blocks} blocks, but the model has {count} layers; each layer is a block", stacklevel=4
            )


def _spans(numbers: Sequence[int]) -> str:
    """Block numbers in short: [0, 1, 2, 5] → "0-2, 5"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in spans)
