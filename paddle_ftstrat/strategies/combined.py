"""CombinedStrategy, what to schedule, regularise and clip said in dicts; and PaddleHub 1.x's presets of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.plan import Clip, Discriminative, Phase, Plan, Spread, starts_of
from paddle_ftstrat.schedules.schedule import Schedule
from paddle_ftstrat.strategies import keys
from paddle_ftstrat.strategies.base import DefaultStrategy
from paddle_ftstrat.strategies.keys import CLIP, REGULARIZATION, SCHEDULER, items_of


class CombinedStrategy(DefaultStrategy):
    """Any combination of schedules, regularisers and clipping, said in dicts.

    Args:
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
        optimizer_name, averaging, perturbation, **kwargs: as for `DefaultStrategy`.

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
        for name, value in items_of("scheduler", scheduler):
            self.add_scheduler(name, value)
        for name, value in items_of("regularization", regularization):
            self.add_regularization(name, value)
        for name, value in items_of("clip", clip):
            self.add_clip(name, value)

    @property
    def scheduler(self) -> dict[str, Any]:
        """A copy of the scheduler dict, defaults included."""
        return copy.deepcopy(self._scheduler)

    @property
    def regularization(self) -> dict[str, float]:
        """A copy of the regularization dict, defaults included."""
        return {name: value or 0.0 for name, value in self._regularization.items()}

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
        return replace(
            super().plan(max_train_steps),
            schedules=self._schedules(max_train_steps, steps_per_epoch),
            l2=self._regularization["L2"] or 0.0,
            l2sp=self._regularization["L2SP"] or 0.0,
            ewc=self._regularization.get("EWC") or 0.0,
            weight_decay=self._regularization["weight_decay"],
            clip=self._chosen_clip(),
            depth=self._depth(),
            phases=phases,
            starts=starts_of(phases, max_train_steps, steps_per_epoch),
        )

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        return {"lr": keys.lr_schedule(self._scheduler, self.learning_rate, max_train_steps)}

    def _depth(self) -> Discriminative | Spread | None:
        return keys.depth_of(self._scheduler)

    def _phases(self) -> tuple[Phase, ...]:
        return keys.unfreezing(self._scheduler)

    def _chosen_clip(self) -> Clip | None:
        asked = [kind for kind in CLIP if self._clip[kind] > 0]
        if len(asked) > 1:
            _errors.warn(f"clip {asked[0]!r} takes over: {', '.join(asked[1:])} ignored")
        return Clip(asked[0], self._clip[asked[0]]) if asked else None

    def _more(self) -> list[str]:
        more = keys.summary(self._scheduler)
        more += [f"{name} {value:g}" for name, value in self._regularization.items() if value]
        more += [f"clip {name} {value:g}" for name, value in self._clip.items() if value]
        return more


class AdamWeightDecayStrategy(CombinedStrategy):
    """BERT's recipe: warmup, linear or noam decay, decoupled weight decay, clip by global norm 1.

    Args:
        learning_rate: η > 0.
        lr_scheduler: "linear_decay" or "noam_decay".
        warmup_proportion: w in [0, 1].
        weight_decay: decoupled decay, ≥ 0; biases and normalisation layers are left out.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> AdamWeightDecayStrategy(learning_rate=5e-5, warmup_proportion=0.1).scheduler["linear_decay"]["start_point"]
        0.1

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        lr_scheduler: str = "linear_decay",
        warmup_proportion: float = 0.0,
        weight_decay: float = 0.01,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        scheduler: dict[str, Any] = {"warmup": warmup_proportion}
        if lr_scheduler == "linear_decay":
            scheduler["linear_decay"] = {"start_point": warmup_proportion, "end_learning_rate": 0.0}
        elif lr_scheduler == "noam_decay":
            scheduler["noam_decay"] = True
        else:
            raise ValueError(_errors.unknown("lr_scheduler", lr_scheduler, ["linear_decay", "noam_decay"]))
        super().__init__(
            optimizer_name,
            learning_rate,
            scheduler=scheduler,
            regularization={"weight_decay": weight_decay},
            clip={"GlobalNorm": 1.0},
            **kwargs,
        )


class DefaultFinetuneStrategy(CombinedStrategy):
    """Constant learning rate with L2: gradient += λw.

    Args:
        learning_rate: η > 0.
        regularization_coeff: λ ≥ 0.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> DefaultFinetuneStrategy(regularization_coeff=0.01).regularization["L2"]
        0.01

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        regularization_coeff: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer_name, learning_rate, regularization={"L2": regularization_coeff}, **kwargs)


class L2SPFinetuneStrategy(CombinedStrategy):
    """Constant learning rate with L2 towards the pretrained values: gradient += λ(w − w⁰).

    Args:
        learning_rate: η > 0.
        regularization_coeff: λ ≥ 0. The default, PaddleHub's, changes little in short trainings; with Adam 0.1 to 1
            held a high LR back where that was measured (docs/effectiveness.md).
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> L2SPFinetuneStrategy(regularization_coeff=0.01).regularization["L2SP"]
        0.01

    Source: Li, Grandvalet & Davoine (arXiv:1802.01483); PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        regularization_coeff: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer_name, learning_rate, regularization={"L2SP": regularization_coeff}, **kwargs)


class ULMFiTStrategy(CombinedStrategy):
    """ULMFiT: slanted triangular LR, discriminative LR and gradual unfreezing.

    Args:
        learning_rate: η > 0, the peak of the top block.
        cut_fraction: share of updates in which the LR rises; 0 switches the triangle off.
        ratio: η/ratio is the lowest LR.
        dis_blocks: number of blocks with LRs of their own, None: every layer; 0 switches discriminative LRs off.
        factor: each block's LR over that of the block below.
        dis_params_layer: parameter name → layer number, instead of blocks.
        frz_blocks: number of epochs over which the model thaws from the top; 0 switches unfreezing off.
        frz_params_layer: parameter name → layer number, instead of blocks.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> ULMFiTStrategy(learning_rate=1e-3, frz_blocks=0).scheduler["gradual_unfreeze"]["blocks"]
        0

    Source: Howard & Ruder (arXiv:1801.06146, section 3); PaddleHub 1.8 `finetune/strategy.py`, where unfreezing
    toggled `stop_gradient` too late to freeze anything.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        cut_fraction: float = 0.1,
        ratio: float = 32,
        dis_blocks: int | None = 3,
        factor: float = 2.6,
        dis_params_layer: Mapping[str, int] | None = None,
        frz_blocks: int = 3,
        frz_params_layer: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        # The default number of blocks is no wish of the user's, so params_layer replaces it without a warning.
        dis_blocks = 0 if dis_params_layer and dis_blocks == 3 else dis_blocks
        frz_blocks = 0 if frz_params_layer and frz_blocks == 3 else frz_blocks
        scheduler = {
            "slanted_triangle": {"cut_fraction": cut_fraction, "ratio": ratio},
            "discriminative": {"blocks": dis_blocks, "factor": factor, "params_layer": dis_params_layer},
            "gradual_unfreeze": {"blocks": frz_blocks, "params_layer": frz_params_layer},
        }
        super().__init__(optimizer_name, learning_rate, scheduler=scheduler, **kwargs)
