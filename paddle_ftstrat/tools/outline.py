"""A strategy's plan laid out over a training: stretches of the curve, blocks of layers, phases of both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle import nn

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules.schedule import Stretch
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.tools.blocks import Block, blocks_of, blocks_without_model


@dataclass(frozen=True)
class Phase:
    """A part of the training in which the same blocks train and the curve has one form."""

    name: str
    start: int
    end: int
    first_epoch: int
    last_epoch: int


@dataclass(frozen=True)
class Outline:
    """Everything that is to be told about a strategy.

    `warned` are the warnings that the plan and the binding gave. `run` is the binding to `model`; it is None without a
    model, and where binding failed, for the reason in `failed`. Blocks come top first.
    """

    strategy: DefaultStrategy
    plan: Plan
    steps: int
    epochs: int
    model: nn.Layer | None = None
    run: Binding | None = None
    failed: str = ""
    warned: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch; where they do not come out even, the last epoch is shorter."""
        return per_epoch(self.steps, self.epochs)

    @property
    def rows(self) -> Sequence[description.Row]:
        """What holds for each parameter; empty without a binding."""
        return self.run.describe() if self.run is not None else ()

    @property
    def stretches(self) -> list[Stretch]:
        """The parts of the LR curve, in order."""
        return self.plan.lr.stretches(self.steps)

    @property
    def phases(self) -> list[Phase]:
        """The phases of the training, in order: a new one with each part of the schedule and each change of layers."""
        planned, trains = self.plan.starts or (0,), [block.trains for block in self.blocks]
        thaws = {
            start
            for index, start in enumerate(planned)
            if index == 0 or any(one[index] != one[index - 1] for one in trains)
        }
        ordered = sorted(t for t in thaws | {s.start for s in self.stretches} if t < self.steps)
        return [self._phase(start, end) for start, end in zip(ordered, [*ordered[1:], self.steps])]

    def planned_phase(self, t: int) -> int:
        """Which of the plan's phases update t is in."""
        return max(index for index, start in enumerate(self.plan.starts or (0,)) if start <= t)

    def _phase(self, start: int, end: int) -> Phase:
        name = next(s.name for s in reversed(self.stretches) if s.start <= start)
        epochs = [min(t // self.steps_per_epoch, self.epochs - 1) + 1 for t in (start, end - 1)]
        return Phase(name, start, end, *epochs)


def outline(
    strategy: DefaultStrategy,
    steps: int,
    epochs: int,
    model: nn.Layer | None = None,
    sample_input: Any = None,
    **options: Any,
) -> Outline:
    """Lay a strategy out over a training.

    Args:
        strategy: the strategy.
        steps: T, updates of the whole training.
        epochs: number of epochs, at most `steps`.
        model: the model; it is bound to the strategy. Without it layers are told as shares of the depth.
        sample_input: one input, for the order of the layers.
        **options: `pretrained`, `no_decay` and `layers`, as for `strategy.bind`.

    Raises:
        ValueError, TypeError: what the plan itself refuses. What only the binding refuses is in `Outline.failed`.

    Example:
        >>> import paddle_ftstrat as hub
        >>> [(phase.name, phase.start, phase.end) for phase in outline(hub.ULMFiTStrategy(), 100, 5).phases]
        [('rise', 0, 10), ('fall', 10, 20), ('fall', 20, 40), ('fall', 40, 100)]
    """
    run, failed = None, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = strategy.plan(steps, per_epoch(steps, epochs))
        if model is not None:
            given = {name: value for name, value in options.items() if value}
            length = {"max_train_steps": steps, "steps_per_epoch": per_epoch(steps, epochs)}
            try:
                run = strategy.bind(model, sample_input=sample_input, **length, **given)
            except (ValueError, TypeError, RuntimeError) as error:
                failed = str(error)
    warned = tuple(dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)))
    found = blocks_of(run) if run is not None else blocks_without_model(plan)
    return Outline(strategy, plan, steps, epochs, model, run, failed, warned, options, tuple(found))


def per_epoch(steps: int, epochs: int) -> int:
    """Updates of an epoch: rounded up, unless that would leave no update for the last one.

    Example:
        >>> per_epoch(400, 4), per_epoch(400, 3), per_epoch(10, 7)
        (100, 134, 1)
    """
    rounded_up = -(-steps // epochs)
    return rounded_up if rounded_up * (epochs - 1) < steps else max(1, steps // epochs)
