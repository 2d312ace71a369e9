"""Strategies that say the training phase by phase: LP-FT, and phases of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.plan import Phase, Plan, Plateau, starts_of
from paddle_ftstrat.schedules.schedule import Schedule
from paddle_ftstrat.strategies import keys
from paddle_ftstrat.strategies.combined import CombinedStrategy

_PHASE_KEYS = tuple(field.name for field in dataclasses.fields(Phase))


class PhasedStrategy(CombinedStrategy):
    """A training in phases: each says what trains, for how long, with which schedule, and how it ends.

    Args:
        phases: the phases in order, each a `Phase` or a dict of its arguments; one of them at most has no length and
            takes what the others leave.
        learning_rate: η of the phases that give none.
        scheduler: as for CombinedStrategy, without `gradual_unfreeze`: the schedule of the phases that have none of
            their own, counted from the beginning of the training; and LRs by depth in all phases.
        optimizer_name, regularization, clip, averaging, perturbation, **kwargs: as for CombinedStrategy.

    Raises:
        ValueError, TypeError: no phase, several without a length, and what CombinedStrategy refuses.

    Example:
        >>> strategy = PhasedStrategy([Phase("head", epochs=2, learning_rate=1e-3), Phase("all", learning_rate=1e-4)])
        >>> plan = strategy.plan(max_train_steps=50, steps_per_epoch=10)
        >>> plan.starts, [plan.lr(t) for t in (0, 19, 20, 49)]
        ((0, 20), [0.001, 0.001, 0.0001, 0.0001])

    Source: finetuning-scheduler's phases.
    """

    def __init__(
        self,
        phases: Sequence[Phase | Mapping[str, Any]],
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
        members = {"averaging": averaging, "perturbation": perturbation}
        super().__init__(optimizer_name, learning_rate, scheduler, regularization, clip, **members, **kwargs)
        if isinstance(phases, (str, Mapping)) or not isinstance(phases, Sequence) or not phases:
            raise ValueError(f"phases must be a list with at least one Phase, not {phases!r}")
        self.phases = tuple(_phase(index, given) for index, given in enumerate(phases))
        # Judged now, before there is a training: lengths, and the schedules of single phases.
        starts_of(self.phases, None, None)
        for phase in self.phases:
            self._own_schedule(phase, 1000)

    def plan(self, max_train_steps: int | None = None, steps_per_epoch: int | None = None) -> Plan:
        """The plan for a training of `max_train_steps` updates; schedules of single phases are joined in.

        Raises:
            ValueError: as for CombinedStrategy, or the phases have another length than the training.
        """
        plan = super().plan(max_train_steps, steps_per_epoch)
        starts, steps, last = plan.starts, max_train_steps, self.phases[-1]
        some_have_schedules = any(phase.has_schedule for phase in self.phases)
        if starts is None or steps is None:
            if some_have_schedules:
                raise ValueError(
                    "phases with schedules of their own need the length of the training: give bind() steps_per_epoch "
                    "and num_epoch or max_train_steps"
                )
            return plan
        if starts[-1] >= steps:
            raise ValueError(f"the phases before the last take {starts[-1]} updates, but the training has {steps}")
        length = last.updates or (last.length_in_epochs or 0) * (steps_per_epoch or 0)
        if length and starts[-1] + length != steps:
            raise ValueError(
                f"the phases take {starts[-1] + length} updates, but the training has {steps}: give one of them no "
                "length, and it takes what the others leave"
            )
        if not some_have_schedules:
            return plan
        lr = shared = plan.schedules["lr"]
        for phase, start, end in zip(self.phases, starts, [*starts[1:], steps]):
            if phase.has_schedule:
                lr = lr.then(start, self._own_schedule(phase, end - start).at(start))
                lr = lr.then(end, shared) if end < steps else lr
        return replace(plan, schedules={**plan.schedules, "lr": Schedule(lr.pieces, end=steps)})

    def _own_schedule(self, phase: Phase, steps: int) -> Schedule:
        """The schedule that a phase has of its own, over its updates."""
        scheduler = dict(keys.SCHEDULER)
        for key, value in keys.items_of("phase.scheduler", phase.scheduler):
            if key in (*keys.DEPTH, "gradual_unfreeze"):
                raise ValueError(f"phase.scheduler has {key!r}: give it to the strategy, it holds for all phases")
            scheduler[key] = keys.entry(key, scheduler.get(key), value, {})
        return keys.lr_schedule(scheduler, phase.learning_rate or self.learning_rate, steps)

    def add_scheduler(self, name: str = "warmup", value: Any = None, **values: Any) -> CombinedStrategy:
        """Set one key of the scheduler dict, as for CombinedStrategy; `gradual_unfreeze` is said by phases instead.

        Raises:
            ValueError, TypeError: as for the class.
        """
        if name == "gradual_unfreeze":
            raise ValueError("gradual_unfreeze and phases both say what trains when: write it as phases")
        return super().add_scheduler(name, value, **values)

    @property
    def num_epoch(self) -> int | None:
        """The epochs of all phases at their longest, None where one of them has another kind of length."""
        epochs = [phase.length_in_epochs for phase in self.phases if phase.length_in_epochs is not None]
        return sum(epochs) if len(epochs) == len(self.phases) else None

    def _phases(self) -> tuple[Phase, ...]:
        return self.phases

    def _more(self) -> list[str]:
        return [*(_in_words(phase) for phase in self.phases), *super()._more()]


class LPFTStrategy(PhasedStrategy):
    """Linear probing, then fine-tuning: the head alone first, then everything from the head that was found.

    Args:
        head_learning_rate: η of the first phase.
        learning_rate: η of the second one.
        head_epochs: epochs of the first phase; the second has the rest.
        scheduler: schedule of the second phase, as for CombinedStrategy; None: a constant LR.
        optimizer_name, regularization, clip, **kwargs: as for CombinedStrategy.

    Raises:
        ValueError, TypeError: as for PhasedStrategy.

    Example:
        >>> plan = LPFTStrategy(1e-2, 1e-4).plan(max_train_steps=30, steps_per_epoch=10)
        >>> [phase.train for phase in plan.phases], plan.lr(0), plan.lr(10)
        (['head', 'all'], 0.01, 0.0001)

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features" (arXiv:2202.10054).
    """

    def __init__(
        self,
        head_learning_rate: float,
        learning_rate: float,
        head_epochs: int = 1,
        scheduler: Mapping[str, Any] | None = None,
        optimizer_name: str | type = "adam",
        regularization: Mapping[str, float] | None = None,
        clip: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        probe = Phase("head", epochs=head_epochs, learning_rate=head_learning_rate, name="linear probing")
        tune = Phase("all", learning_rate=learning_rate, scheduler=scheduler, name="fine-tuning")
        super().__init__(
            [probe, tune], optimizer_name, learning_rate, regularization=regularization, clip=clip, **kwargs
        )


def default_phases(
    model: nn.Layer, learning_rate: float = 1e-3, epochs: int = 1, sample_input: Any = None, factor: float = 2.0
) -> PhasedStrategy:
    """A strategy to start from: one phase per layer group, thawed from the top; `to_yaml` writes it to be edited.

    Args:
        model: the model.
        learning_rate: η of the first phase; each next one has 1/factor of it.
        epochs: epochs of each phase.
        sample_input: one input, to trace the order of the layers.
        factor: LR of a phase over that of the next.

    Example:
        >>> from paddle_ftstrat.strategies.phases import default_phases
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
        >>> print(default_phases(model).to_yaml(), end="")
        strategy: PhasedStrategy
        phases:
        - train:
          - 1.*
          epochs: 1
          learning_rate: 0.001
        - train:
          - 1.*
          - 0.*
          epochs: 1
          learning_rate: 0.0005

    Source: the schedule that finetuning-scheduler generates.
    """
    _errors.check_whole("epochs", epochs, minimum=1)
    rate = _errors.check_number("learning_rate", learning_rate, above=0)
    _errors.check_number("factor", factor, above=0)
    globs = [f"{unit.name}.*" if unit.name else "*" for unit in reversed(find_units(model, sample_input))]
    return PhasedStrategy(
        [
            {"train": globs[: index + 1], "epochs": epochs, "learning_rate": rate / factor**index}
            for index in range(len(globs))
        ]
    )


def _phase(index: int, given: Any) -> Phase:
    if isinstance(given, Phase):
        if isinstance(given.train, (list, tuple)) and not given.train:
            raise ValueError(f"phases[{index}]: train=[] trains nothing")
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"phases[{index}] must be a Phase or a dict of its arguments, not {given!r}")
    _errors.check_keys(f"key of phases[{index}]", given, _PHASE_KEYS)
    until = given.get("until")
    if isinstance(until, Mapping):
        _errors.check_keys(f"key of phases[{index}].until", until, [one.name for one in dataclasses.fields(Plateau)])
        until = Plateau(**until)
    return _phase(index, Phase(**{**given, "until": until}))


def _in_words(phase: Phase) -> str:
    lengths = {"epochs": phase.length_in_epochs, "updates": phase.updates, "share": phase.share}
    length = next((f"{value:g} {key}" for key, value in lengths.items() if value is not None), "the rest")
    rate = "" if phase.learning_rate is None else f" at {phase.learning_rate:g}"
    until = "" if phase.until is None else f" until {phase.until.monitor} stays"
    return f"{phase.name or 'phase'} ({phase.train}) {length}{rate}{until}"
