"""DefaultStrategy and CombinedStrategy: what to schedule, regularise and clip, compiled to a plan."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding, bind
from paddle_ftstrat.finetune.serialize import Serializable
from paddle_ftstrat.finetune.strategy_dicts import (
    CLIP,
    REGULARIZATION,
    SCHEDULER,
    as_entries,
    boolean,
    items_of,
    merged,
)
from paddle_ftstrat.optim import table
from paddle_ftstrat.plan import Clip, Discriminative, GradualUnfreeze, Plan
from paddle_ftstrat.schedules import curves


class DefaultStrategy(Serializable):
    """An optimizer and a constant learning rate: lr(t) = η.

    Args:
        learning_rate: η > 0.
        optimizer_name: a name of the optimizer table (any case) or a `paddle.optimizer.Optimizer` class.
        **kwargs: options of the optimizer (`beta1`, `momentum`, `epsilon`, …).

    Raises:
        ValueError: an unknown optimizer or option, or η ≤ 0.
        TypeError: a learning rate that is not a number.

    Example:
        >>> DefaultStrategy(learning_rate=0.1, optimizer_name="momentum", momentum=0.8)
        DefaultStrategy(optimizer 'momentum', learning_rate 0.1, momentum=0.8)

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(self, learning_rate: float = 1e-4, optimizer_name: str | type = "adam", **kwargs: Any) -> None:
        self.learning_rate = _errors.check_number("learning_rate", learning_rate, above=0)
        self.optimizer_name = optimizer_name
        self.optimizer_options = kwargs
        row = table.find(optimizer_name)
        table.check_options(row, kwargs)
        table.checked_values(row, kwargs)

    def plan(self, max_train_steps: int | None = None) -> Plan:
        """The plan of this strategy for a training of `max_train_steps` updates."""
        if max_train_steps is not None:
            curves.check_steps(max_train_steps)
        return Plan(
            curve=curves.constant(self.learning_rate),
            max_train_steps=max_train_steps,
            optimizer=self.optimizer_name,
            optimizer_options=self.optimizer_options,
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
        return bind(
            self.plan(steps),
            model,
            steps_per_epoch=steps_per_epoch,
            sample_input=sample_input,
            pretrained=pretrained,
            layers=layers,
            no_decay=no_decay,
            fused=fused,
        )

    def __repr__(self) -> str:
        optimizer = getattr(self.optimizer_name, "__name__", self.optimizer_name)
        parts = [f"optimizer {optimizer!r}", f"learning_rate {self.learning_rate:g}"]
        parts += [f"{name}={value!r}" for name, value in self.optimizer_options.items()]
        return f"{type(self).__name__}({', '.join(parts + self._more())})"

    def _more(self) -> list[str]:
        return []


class CombinedStrategy(DefaultStrategy):
    """Any combination of schedules, regularisers and clipping, said in dicts.

    Args:
        optimizer_name: a name of the optimizer table or an Optimizer class.
        learning_rate: η > 0, the peak of every schedule.
        scheduler: any of `warmup` (fraction), `linear_decay` {start_point, end_learning_rate}, `noam_decay` (bool),
            `slanted_triangle` {cut_fraction, ratio}, `discriminative` {blocks, factor, params_layer},
            `gradual_unfreeze` (epochs, or {blocks, params_layer}). As in PaddleHub, linear_decay is off without
            start_point, slanted_triangle without cut_fraction; discriminative without blocks is for every layer.
        regularization: any of `L2`, `L2SP` (coefficients added to the gradient), `weight_decay` (decoupled).
        clip: one of `GlobalNorm`, `Norm`, `Value`.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, optimizer_name, **kwargs)
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
        _errors.check_keys("scheduler", [name], SCHEDULER)
        if isinstance(SCHEDULER[name], dict):
            self._scheduler[name] = merged(name, self._scheduler[name], as_entries(name, value, values))
        elif values:
            raise TypeError(f"scheduler {name!r} takes one value, not the entries {sorted(values)}")
        elif name == "warmup":
            self._scheduler[name] = _errors.check_number("scheduler.warmup", value, minimum=0, maximum=1)
        else:
            self._scheduler[name] = boolean(f"scheduler.{name}", value)
        return self

    def add_regularization(self, name: str = "L2", value: float = 1e-3) -> CombinedStrategy:
        """Set one coefficient of the regularization dict.

        Example:
            >>> CombinedStrategy().add_regularization("L2SP", 0.01).regularization["L2SP"]
            0.01

        Raises:
            ValueError, TypeError: as for the class.
        """
        _errors.check_keys("regularization", [name], REGULARIZATION)
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

    def plan(self, max_train_steps: int | None = None) -> Plan:
        """The plan for a training of `max_train_steps` updates; warns of keys that others override.

        Raises:
            ValueError: a schedule needs `max_train_steps`.
        """
        return replace(
            super().plan(max_train_steps),
            curve=self._curve(max_train_steps),
            l2=self._regularization["L2"],
            l2sp=self._regularization["L2SP"],
            weight_decay=self._regularization["weight_decay"] if self._weight_decay_given else None,
            clip=self._chosen_clip(),
            discriminative=self._discriminative(),
            gradual_unfreeze=self._gradual_unfreeze(),
        )

    def _curve(self, max_train_steps: int | None) -> curves.Curve:
        asked = self._asked_curves()
        if not asked:
            return curves.constant(self.learning_rate)
        if max_train_steps is None:
            raise ValueError(
                f"scheduler {asked} needs the length of the training: give bind() max_train_steps, "
                "or num_epoch and steps_per_epoch"
            )
        chosen, ignored = _strongest(asked)
        if ignored:
            warnings.warn(f"scheduler {chosen!r} takes over: {', '.join(ignored)} ignored", stacklevel=4)
        return self._build_curve(chosen, max_train_steps)

    def _asked_curves(self) -> list[str]:
        given = self._scheduler
        on = {
            "slanted_triangle": given["slanted_triangle"]["cut_fraction"] > 0,
            "noam_decay": given["noam_decay"],
            "linear_decay": given["linear_decay"]["start_point"] < 1,
            "warmup": given["warmup"] > 0,
        }
        return [name for name, wanted in on.items() if wanted]

    def _build_curve(self, name: str, steps: int) -> curves.Curve:
        given, warmup = self._scheduler, self._scheduler["warmup"]
        if name == "noam_decay" and curves.warmup_steps(steps, warmup) == 0:
            warnings.warn("noam_decay needs a warmup of at least one update: the LR stays constant", stacklevel=5)
            return curves.constant(self.learning_rate)
        options = {
            "slanted_triangle": given["slanted_triangle"],
            "noam_decay": {"warmup_proportion": warmup},
            "linear_decay": {**given["linear_decay"], "warmup_proportion": warmup},
            "warmup": {"proportion": warmup},
        }
        return curves.CURVES[name](self.learning_rate, steps, **options[name])

    def _chosen_clip(self) -> Clip | None:
        asked = [kind for kind in CLIP if self._clip[kind] > 0]
        if len(asked) > 1:
            warnings.warn(f"clip {asked[0]!r} takes over: {', '.join(asked[1:])} ignored", stacklevel=4)
        return Clip(asked[0], self._clip[asked[0]]) if asked else None

    def _discriminative(self) -> Discriminative | None:
        given = self._scheduler["discriminative"]
        if given["blocks"] == 0 and not given["params_layer"]:
            return None
        return Discriminative(given["factor"], *_by_depth("discriminative", given))

    def _gradual_unfreeze(self) -> GradualUnfreeze | None:
        given = self._scheduler["gradual_unfreeze"]
        if not given["blocks"] and not given["params_layer"]:
            return None
        return GradualUnfreeze(*_by_depth("gradual_unfreeze", given))

    def _more(self) -> list[str]:
        given, more = self._scheduler, []
        for name in reversed(self._asked_curves()):
            linear, slanted = given["linear_decay"], given["slanted_triangle"]
            more.append(
                {
                    "warmup": f"warmup {given['warmup']:g}",
                    "linear_decay": f"linear_decay from {linear['start_point']:g} to {linear['end_learning_rate']:g}",
                    "noam_decay": "noam_decay",
                    "slanted_triangle": f"slanted_triangle {slanted['cut_fraction']:g}, ratio {slanted['ratio']:g}",
                }[name]
            )
        for name in ("discriminative", "gradual_unfreeze"):
            entry = given[name]
            if entry["blocks"] != 0 or entry["params_layer"]:
                how = "params_layer" if entry["params_layer"] else f"{entry['blocks'] or 'layers as'} blocks"
                more.append(f"{name} {how}" + (f", factor {entry['factor']:g}" if "factor" in entry else ""))
        more += [f"{name} {value:g}" for name, value in self._regularization.items() if value]
        more += [f"clip {name} {value:g}" for name, value in self._clip.items() if value]
        return more


def _training_length(steps: int | None, epochs: int | None, per_epoch: int | None) -> int | None:
    if epochs is not None:
        _errors.check_whole("num_epoch", epochs, minimum=1)
    if per_epoch is not None:
        _errors.check_whole("steps_per_epoch", per_epoch, minimum=1)
    if steps is not None:
        return curves.check_steps(steps)
    return epochs * per_epoch if epochs is not None and per_epoch is not None else None


def _strongest(asked: Sequence[str]) -> tuple[str, list[str]]:
    """The curve that wins among those asked for, and what it leaves unused. A warmup joins noam and linear decay."""
    chosen = asked[0]
    joins = {"slanted_triangle": (), "noam_decay": ("warmup",), "linear_decay": ("warmup",), "warmup": ()}[chosen]
    return chosen, [name for name in asked[1:] if name not in joins]


def _by_depth(what: str, given: Mapping[str, Any]) -> tuple[int, Mapping[str, int] | None]:
    if given["blocks"] and given["params_layer"]:
        warnings.warn(f"{what}: params_layer takes over: blocks={given['blocks']} ignored", stacklevel=5)
    return (0, given["params_layer"]) if given["params_layer"] else (given["blocks"], None)
