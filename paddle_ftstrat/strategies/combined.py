"""DefaultStrategy and CombinedStrategy: what to schedule, regularise and clip, compiled to a plan."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import methods, table
from paddle_ftstrat.optim.averaging import AVERAGES
from paddle_ftstrat.optim.perturbation import PERTURBATIONS
from paddle_ftstrat.plan import Clip, Discriminative, Phase, Plan, Spread, starts_of
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.schedules.schedule import Schedule, check_steps
from paddle_ftstrat.strategies import keys
from paddle_ftstrat.strategies.keys import CLIP, REGULARIZATION, SCHEDULER, items_of
from paddle_ftstrat.strategies.search import SearchSpace
from paddle_ftstrat.strategies.serialize import Serializable


class DefaultStrategy(Serializable):
    """An optimizer and a constant learning rate: lr(t) = η.

    Args:
        learning_rate: η > 0.
        optimizer_name: a name of the optimizer table (any case) or a `paddle.optimizer.Optimizer` class.
        averaging: an average of the weights: `{"EMA": decay}`, `{"SWA": start}`, or with all options as a dict.
        perturbation: gradients at moved weights: `{"FGM": ε}`, `{"PGD": {...}}` or `{"SAM": ρ}`.
        **kwargs: options of the optimizer (`beta1`, `momentum`, `epsilon`, …).

    Raises:
        ValueError: an unknown optimizer, option, average or perturbation, or η ≤ 0.
        TypeError: a learning rate that is not a number.

    Example:
        >>> DefaultStrategy(learning_rate=0.1, optimizer_name="momentum", momentum=0.8)
        DefaultStrategy(optimizer 'momentum', learning_rate 0.1, momentum=0.8)

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        *,
        averaging: Mapping[str, Any] | None = None,
        perturbation: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.learning_rate = _errors.check_number("learning_rate", learning_rate, above=0)
        self.optimizer_name = optimizer_name
        self.optimizer_options = kwargs
        self.averaging = None if averaging is None else methods.make("averaging", averaging, AVERAGES)
        self.perturbation = None
        if perturbation is not None:
            self.perturbation = methods.make("perturbation", perturbation, PERTURBATIONS)
        row = table.find(optimizer_name)
        table.check_options(row, kwargs)
        table.checked_values(row, kwargs)

    def plan(self, max_train_steps: int | None = None, steps_per_epoch: int | None = None) -> Plan:
        """The plan of this strategy for a training of `max_train_steps` updates, `steps_per_epoch` in each epoch."""
        if max_train_steps is not None:
            check_steps(max_train_steps)
        if self.averaging is not None:
            self.averaging.begins(max_train_steps)
        return Plan(
            {"lr": curves.constant(self.learning_rate)},
            max_train_steps=max_train_steps,
            optimizer=self.optimizer_name,
            optimizer_options=self.optimizer_options,
            averaging=self.averaging,
            perturbation=self.perturbation,
        )

    def bind(
        self,
        model: nn.Layer,
        max_train_steps: int | None = None,
        num_epoch: int | None = None,
        steps_per_epoch: int | None = None,
        sample_input: Any = None,
        pretrained: Any = None,
        layers: Sequence[Any] | None = None,
        no_decay: Any = None,
        fused: bool | None = None,
        fisher: Mapping[str, Any] | None = None,
        accelerate: bool | None = None,
    ) -> Binding:
        """Put the strategy in force on a model: parameter settings, optimizer, clip and LR scheduler.

        Args:
            model: the model to train.
            max_train_steps: T, the number of updates; else num_epoch · steps_per_epoch. Only schedules need it.
            num_epoch, steps_per_epoch: number of epochs, and updates per epoch.
            sample_input: one input (tensor, tuple or dict), to find the order in which layers run; else as registered.
            pretrained: selectors of the parameters that came from pretraining, their state dict, or the report of
                `load_pretrained`: L2SP anchors these. Without it, what `load_pretrained` filled; if that is nothing,
                all parameters, with a warning.
            layers: the layers by hand, bottom first, each a selector (glob, sublayer name, regex, function, layer).
            no_decay: selectors of parameters that decoupled decay skips, `[]` for none; else biases and normalisation.
            fused: False for Paddle's operations; else one fused pass where that fits, True refusing where it never can.
            fisher: for EWC, what `hub.fisher` gives: parameter name → how much each of its values matters.
            accelerate: False for Paddle's layers as they are; else `hub.accelerate`, True refusing where none can be.

        Returns:
            The binding: `run.optimizer`, `run.lr_scheduler`, `run.begin_epoch()`, `run.step()`.

        Raises:
            ValueError, TypeError: anything wrong, before anything is changed.

        Example:
            >>> import paddle
            >>> run = DefaultStrategy(0.1, "sgd").bind(paddle.nn.Linear(2, 2))
            >>> run.optimizer.get_lr()
            0.1
        """
        steps = _training_length(max_train_steps, num_epoch, steps_per_epoch)
        return Binding(
            self.plan(steps, steps_per_epoch),
            model,
            steps_per_epoch=steps_per_epoch,
            sample_input=sample_input,
            pretrained=pretrained,
            layers=layers,
            no_decay=no_decay,
            fused=fused,
            fisher=fisher,
            accelerate=accelerate,
        )

    def suggest_space(self) -> SearchSpace:
        """The numbers of this strategy that are worth a search, with a range around each (see `SearchSpace`).

        Raises:
            ValueError: the strategy cannot be written as plain data.

        Example:
            >>> list(DefaultStrategy(1e-4).suggest_space())
            ['learning_rate']
        """
        return SearchSpace(self)

    def __repr__(self) -> str:
        optimizer = getattr(self.optimizer_name, "__name__", self.optimizer_name)
        parts = [f"optimizer {optimizer!r}", f"learning_rate {self.learning_rate:g}"]
        parts += [f"{name}={value!r}" for name, value in self.optimizer_options.items()]
        parts += [*self._more(), *(str(member) for member in (self.averaging, self.perturbation) if member)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _more(self) -> list[str]:
        return []


class CombinedStrategy(DefaultStrategy):
    """Any combination of schedules, regularisers and clipping, said in dicts.

    Args:
        optimizer_name: a name of the optimizer table or an Optimizer class.
        learning_rate: η > 0, the peak of every schedule.
        scheduler: any of `warmup` (fraction), `linear_decay` {start_point, end_learning_rate}, `noam_decay` (bool),
            `slanted_triangle` {cut_fraction, ratio}, `discriminative` {blocks, factor, params_layer},
            `gradual_unfreeze` (epochs, or {blocks, params_layer}), `layer_decay` (d, or {decay, minimum}),
            `layer_factors` (by layer, as `hub.auto_rgn` measures them, or a list, bottom first), or any registered
            schedule with its options (`cosine_decay`, `one_cycle`, …). As in PaddleHub, linear_decay is off
            without start_point, slanted_triangle without cut_fraction; discriminative without blocks is layer by layer.
        regularization: any of `L2`, `L2SP`, `EWC` (coefficients of what is added to the gradient), `weight_decay`
            (decoupled).
        clip: one of `GlobalNorm`, `Norm`, `Value`.
        averaging, perturbation: as for `DefaultStrategy`.
        **kwargs: options of the optimizer.

    Raises:
        ValueError: an unknown key at any depth (with the nearest known one) or a value out of range.
        TypeError: a value of the wrong type.

    Example:
        >>> strategy = CombinedStrategy(
        ...     scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.1}}, clip={"Norm": 1.0}
        ... )
        >>> strategy
        CombinedStrategy(optimizer 'adam', learning_rate 0.0001, warmup 0.1, linear_decay from 0.1 to 0, clip Norm 1)

    Source: PaddleHub 1.8 `finetune/strategy.py`. Its LR after a warmup without decay stayed at η(W−1)/W, and printing
    a strategy cleared its clip; neither is kept.
    """

    def __init__(
        self,
        optimizer_name: str | type = "adam",
        learning_rate: float = 1e-4,
        scheduler: Mapping[str, Any] | None = None,
        regularization: Mapping[str, float] | None = None,
        clip: Mapping[str, float] | None = None,
        *,
        averaging: Mapping[str, Any] | None = None,
        perturbation: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, optimizer_name, averaging=averaging, perturbation=perturbation, **kwargs)
        self._scheduler = copy.deepcopy(SCHEDULER)
        self._regularization = dict(REGULARIZATION)
        self._clip = dict(CLIP)
        self._weight_decay_given = False
        for key, value in items_of("scheduler", scheduler):
            self.add_scheduler(key, value)
        for key, value in items_of("regularization", regularization):
            self.add_regularization(key, value)
        for key, value in items_of("clip", clip):
            self.add_clip(key, value)

    @property
    def scheduler(self) -> dict[str, Any]:
        """A copy of the scheduler dict, defaults included."""
        return copy.deepcopy(self._scheduler)

    @property
    def regularization(self) -> dict[str, float]:
        """A copy of the regularization dict, defaults included."""
        return dict(self._regularization)

    @property
    def clip(self) -> dict[str, float]:
        """A copy of the clip dict, defaults included."""
        return dict(self._clip)

    def add_scheduler(self, name: str = "warmup", value: Any = None, **values: Any) -> CombinedStrategy:
        """Set one key of the scheduler dict: a plain `value`, or the entries of a dict as `**values`.

        Example:
            >>> strategy = CombinedStrategy().add_scheduler("warmup", 0.1).add_scheduler("discriminative", blocks=3)
            >>> strategy.scheduler["discriminative"]["blocks"]
            3

        Raises:
            ValueError, TypeError: as for the class.
        """
        self._scheduler[name] = keys.entry(name, self._scheduler.get(name), value, values)
        return self

    def add_regularization(self, name: str = "L2", value: float = 1e-3) -> CombinedStrategy:
        """Set one coefficient of the regularization dict.

        Example:
            >>> CombinedStrategy().add_regularization("L2SP", 0.01).regularization["L2SP"]
            0.01

        Raises:
            ValueError, TypeError: as for the class.
        """
        _errors.check_keys("regularization", [name], [*REGULARIZATION, "EWC"])
        self._regularization[name] = _errors.check_number(f"regularization.{name}", value, minimum=0)
        self._weight_decay_given |= name == "weight_decay"
        return self

    def add_clip(self, name: str = "GlobalNorm", value: float = 1.0) -> CombinedStrategy:
        """Set one bound of the clip dict; 0 switches it off.

        Example:
            >>> CombinedStrategy().add_clip("Norm", 2.0).clip["Norm"]
            2.0

        Raises:
            ValueError, TypeError: as for the class.
        """
        _errors.check_keys("clip", [name], CLIP)
        bound = _errors.check_number(f"clip.{name}", value, minimum=0)
        # What float32 takes for 0 would be no bound for Paddle, but an error in the middle of training.
        self._clip[name] = bound and _errors.check_number(f"clip.{name}", bound, minimum=_errors.FLOAT32_TINY)
        return self

    def plan(self, max_train_steps: int | None = None, steps_per_epoch: int | None = None) -> Plan:
        """The plan for a training of `max_train_steps` updates; warns of keys that others override.

        Raises:
            ValueError: a schedule or a phase needs `max_train_steps`, or the phases are longer than that.
        """
        phases = self._phases()
        starts = starts_of(phases, max_train_steps, steps_per_epoch)
        schedules = self._schedules(max_train_steps, steps_per_epoch)
        return replace(
            super().plan(max_train_steps),
            schedules=self._with_phases(schedules, phases, starts, max_train_steps),
            l2=self._regularization["L2"],
            l2sp=self._regularization["L2SP"],
            ewc=self._regularization.get("EWC", 0.0),
            weight_decay=self._regularization["weight_decay"] if self._weight_decay_given else None,
            clip=self._chosen_clip(),
            depth=self._depth(),
            phases=phases,
            starts=starts,
        )

    def _with_phases(
        self, schedules: dict[str, Schedule], phases: Sequence[Phase], starts: Sequence[int] | None, steps: int | None
    ) -> dict[str, Schedule]:
        """The strategy's schedules with those that phases have of their own joined in."""
        if steps is not None and starts is not None and starts[-1] >= steps and phases[-1].has_schedule:
            raise ValueError(f"the phases before the last take {starts[-1]} updates, but the training has {steps}")
        if not any(phase.has_schedule for phase in phases):
            return schedules
        if starts is None or steps is None:
            raise ValueError(
                "phases with schedules of their own need the length of the training: give bind() steps_per_epoch and "
                "num_epoch or max_train_steps"
            )
        whole = schedules["lr"]
        for phase, start, end in zip(phases, starts, [*starts[1:], steps]):
            if phase.has_schedule:
                whole = whole.then(start, self._own_schedule(phase, end - start).at(start))
                whole = whole.then(end, schedules["lr"]) if end < steps else whole
        return {**schedules, "lr": Schedule(whole.pieces, end=steps)}

    def _own_schedule(self, phase: Phase, steps: int) -> Schedule:
        """The schedule that a phase has of its own, over its updates."""
        scheduler: dict[str, Any] = dict(SCHEDULER)
        for key, value in items_of("phase.scheduler", phase.scheduler):
            if key in (*keys.DEPTH, "gradual_unfreeze"):
                raise ValueError(f"phase.scheduler has {key!r}: give it to the strategy, it holds for all phases")
            scheduler[key] = keys.entry(key, scheduler.get(key), value, {})
        return keys.lr_schedule(scheduler, phase.learning_rate or self.learning_rate, steps)

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        return {"lr": keys.lr_schedule(self._scheduler, self.learning_rate, max_train_steps)}

    def _depth(self) -> Discriminative | Spread | None:
        return keys.depth_of(self._scheduler)

    def _phases(self) -> tuple[Phase, ...]:
        return keys.unfreezing(self._scheduler)

    def _chosen_clip(self) -> Clip | None:
        asked = [kind for kind in CLIP if self._clip[kind] > 0]
        if len(asked) > 1:
            warnings.warn(f"clip {asked[0]!r} takes over: {', '.join(asked[1:])} ignored", stacklevel=4)
        return Clip(asked[0], self._clip[asked[0]]) if asked else None

    def _more(self) -> list[str]:
        more = keys.summary(self._scheduler)
        more += [f"{name} {value:g}" for name, value in self._regularization.items() if value]
        more += [f"clip {name} {value:g}" for name, value in self._clip.items() if value]
        return more


def _training_length(steps: int | None, epochs: int | None, per_epoch: int | None) -> int | None:
    if epochs is not None:
        _errors.check_whole("num_epoch", epochs, minimum=1)
    if per_epoch is not None:
        _errors.check_whole("steps_per_epoch", per_epoch, minimum=1)
    if steps is not None:
        return check_steps(steps)
    return epochs * per_epoch if epochs is not None and per_epoch is not None else None
