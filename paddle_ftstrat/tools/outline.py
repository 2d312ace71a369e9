"""A strategy's plan laid out over a training: blocks of layers, with a model and without one, and stages of both."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import table
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import Discriminative, Plan, Spread, Top, spread
from paddle_ftstrat.schedules.schedule import Stretch
from paddle_ftstrat.strategies import DefaultStrategy


@dataclass(frozen=True)
class Block:
    """A block of layers, or several that are alike.

    `label` names it, `factor` is its share in the LR, `trains` whether it does so in each of the plan's phases.
    `regulariser` and `decay` say what holds, `remarks` what single parameters have of their own. `names` are those of
    its parameters, where a model is known.
    """

    label: str
    factor: float
    trains: tuple[bool, ...]
    regulariser: str
    decay: str
    remarks: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A part of the training in which the same blocks train and the schedule has one form."""

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
    def starts(self) -> tuple[int, ...]:
        """The first update of each of the plan's phases."""
        return self.plan.starts or (0,)

    @property
    def stretches(self) -> list[Stretch]:
        """The parts of the LR curve, in order."""
        return self.plan.lr.stretches(self.steps)

    @property
    def phases(self) -> list[Stage]:
        """The stages of the training: a new one with each part of the schedule, each phase and each change of layers.

        Phases of gradual unfreezing go by what they change alone.
        """
        trains = [block.trains for block in self.blocks]
        begun = {
            start
            for index, start in enumerate(self.starts)
            if index == 0 or self.phase_name(index) or any(one[index] != one[index - 1] for one in trains)
        }
        ordered = sorted(t for t in begun | {stretch.start for stretch in self.stretches} if t < self.steps)
        stages = []
        for start, end in zip(ordered, [*ordered[1:], self.steps]):
            form = next(stretch.name for stretch in reversed(self.stretches) if stretch.start <= start)
            name = self.phase_name(self.planned_phase(start))
            epochs = [min(t // self.steps_per_epoch, self.epochs - 1) + 1 for t in (start, end - 1)]
            stages.append(Stage(f"{name}: {form}" if name else form, start, end, *epochs))
        return stages

    def planned_phase(self, t: int) -> int:
        """Which of the plan's phases update t is in."""
        return bisect_right(self.starts, t) - 1

    def phase_name(self, index: int) -> str:
        """What a phase of the plan is called; "" for those of gradual unfreezing, and where there is one only."""
        phase = self.plan.phases[index]
        if not self.plan.thaws or isinstance(phase.train, Top):
            return ""
        return phase.name or f"phase {index + 1}"

    def when(self, index: int) -> str:
        """When a phase of the plan begins: the epoch, or the update where that is in the middle of one."""
        start = self.starts[index]
        whole, rest = divmod(start, self.steps_per_epoch)
        return f"update {start}" if rest else f"epoch {whole + 1}"


def outline(
    strategy: DefaultStrategy,
    steps: int,
    epochs: int,
    model: nn.Layer | None = None,
    sample_input: Any = None,
    **options: Any,
) -> Outline:
    """Lay a strategy out over a training of so many updates and, at most as many, epochs.

    A model is bound to the strategy; without one layers are told as shares of the depth. `sample_input` is one input,
    for the order of the layers; `options` are `pretrained`, `no_decay` and `layers`, as for `strategy.bind`. What the
    plan itself refuses is raised, what only the binding refuses is in `Outline.failed`.

    Example:
        >>> import paddle_ftstrat as hub
        >>> [(stage.name, stage.start, stage.end) for stage in outline(hub.ULMFiTStrategy(), 100, 5).phases]
        [('rise', 0, 10), ('fall', 10, 20), ('fall', 20, 40), ('fall', 40, 100)]
    """
    run, failed, length = None, "", per_epoch(steps, epochs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = strategy.plan(steps, length)
        if model is not None:
            given = {name: value for name, value in options.items() if value}
            given.update(max_train_steps=steps, steps_per_epoch=length, sample_input=sample_input)
            try:
                run = strategy.bind(model, **given)
            except (ValueError, TypeError, RuntimeError) as error:
                failed = str(error)
    warned = tuple(dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)))
    blocks = _of_binding(run) if run is not None else _without_model(plan)
    return Outline(strategy, plan, steps, epochs, model, run, failed, warned, options, tuple(blocks))


def per_epoch(steps: int, epochs: int) -> int:
    """Updates of an epoch: rounded up, unless that would leave no update for the last one.

    Example:
        >>> per_epoch(400, 4), per_epoch(400, 3), per_epoch(10, 7)
        (100, 134, 1)
    """
    rounded_up = -(-steps // epochs)
    return rounded_up if rounded_up * (epochs - 1) < steps else max(1, steps // epochs)


def optimizer_of(plan: Plan) -> str:
    """The name of the optimizer's class."""
    row = table.find(plan.optimizer)
    return row.cls.__name__ if row.cls else row.name


def decay_of(plan: Plan) -> str:
    """The decoupled weight decay of a plan in a word or two.

    Example:
        >>> decay_of(Plan({}, optimizer="adamw")), decay_of(Plan({}, weight_decay=0.1))
        ("AdamW's own", '0.1')
    """
    if plan.weight_decay is None and table.find(plan.optimizer).decay == "native":
        return f"{optimizer_of(plan)}'s own"
    return f"{plan.weight_decay:g}" if plan.weight_decay else "none"


def _of_binding(run: Binding) -> Iterator[Block]:
    """The blocks of a bound model, neighbours that are alike in one."""
    rows: dict[int, list[description.Row]] = {}
    for row in run.describe():
        rows.setdefault(row.block or 0, []).append(row)
    blocks = [(number, _block(rows[number], run.trains)) for number in sorted(rows, reverse=True)]
    for alike, members in groupby(blocks, key=lambda item: replace(item[1], names=())):
        numbers, found = zip(*members)
        top, bottom = numbers[0], numbers[-1]
        label = f"{bottom}" if top == bottom else f"{bottom}–{top}"
        where = ["bottom"] * (bottom == 0) + ["top"] * (top == len(rows) - 1)
        if where and len(rows) > 1:
            label += f" ({' to '.join(where)})"
        yield replace(alike, label=label, names=tuple(name for block in reversed(found) for name in block.names))


def _block(rows: Sequence[description.Row], trains: Mapping[str, tuple[bool, ...]]) -> Block:
    frozen = sum(not any(trains[row.name]) for row in rows)
    own = Counter(row.own_learning_rate for row in rows if row.own_learning_rate != 1.0)
    remarks = [f"{count} with their own ×{multiplier:g}" for multiplier, count in own.items()]
    remarks += [f"{frozen} frozen beforehand"] if 0 < frozen < len(rows) else []
    remarks += [f"{row.name} with {row.frozen_rows}" for row in rows if row.frozen_rows]
    regularisers = (f"{row.regularizer} ({row.regularizer_from})" if row.regularizer else "none" for row in rows)
    return Block(
        label="",
        factor=rows[0].factor,
        trains=tuple(map(any, zip(*(trains[row.name] for row in rows)))),
        regulariser=_shared(regularisers),
        decay=_shared(f"{row.decay:g}" if row.decay else "none" for row in rows),
        remarks=", ".join(remarks),
        names=tuple(row.name for row in rows),
    )


def _shared(texts: Iterable[str]) -> str:
    """What all parameters of a block have in common, or how many have what."""
    counted = Counter(texts).most_common()
    return counted[0][0] if len(counted) == 1 else ", ".join(f"{text} on {count}" for text, count in counted)


def _without_model(plan: Plan) -> list[Block]:
    """The blocks of a model that divides evenly: shares of the depth instead of names, and what phases name, on top."""
    coefficients = {"EWC": plan.ewc, "L2SP": plan.l2sp, "L2": plan.l2}
    regulariser = ", ".join(f"{name}({value:g})" for name, value in coefficients.items() if value) or "none"
    depth, decay, remarks = plan.depth, decay_of(plan), ""
    if isinstance(depth, Discriminative) and not (depth.blocks or depth.params_layer or depth.factors):
        remarks = f"each layer ×1/{depth.factor:g} of the one above"
    elif isinstance(depth, Spread) and spread_factor(depth) != 1:
        remarks = f"×{spread_factor(depth):g} at the bottom"
    named = [label_of(phase.train) for phase in plan.phases]
    blocks = [
        Block(label, 1.0, tuple(name in (label, "") for name in named), regulariser, decay)
        for label in dict.fromkeys(filter(None, named))
    ]
    factors, thaws = factors_of(depth), _thaws(plan)
    count = math.lcm(len(factors), len(thaws))
    parts = [(factors[i * len(factors) // count], thaws[i * len(thaws) // count]) for i in range(count)]
    for (factor, trains), run in groupby(reversed(range(count)), key=parts.__getitem__):
        layers = sorted(run)
        start, end = layers[0] / count, (layers[-1] + 1) / count
        if (start, end) == (0, 1):
            label = "the others" if blocks else "all layers"
        elif start == 0:
            label = f"bottom {end:.0%}"
        else:
            label = f"top {1 - start:.0%}" if end == 1 else f"{start:.0%}–{end:.0%} up"
        blocks.append(Block(label, factor, trains, regulariser, decay, remarks))
    return blocks


def spread_factor(spec: Spread) -> float:
    """The bottom layers' share in the top layers' LR.

    Example:
        >>> spread_factor(Spread(slice(1e-5, 1e-3))), spread_factor(Spread(0.1))
        (0.01, 1.0)
    """
    single = isinstance(spec.lr, slice) or np.ndim(spec.lr) == 0
    rates = spread(spec.lr, 2 if single else len(spec.lr))
    return round(rates[0] / rates[-1], 9) if rates[-1] else 1.0


def label_of(train: Any) -> str:
    """What a phase trains, where that is no share of the depth; else ""."""
    if isinstance(train, Top) or (isinstance(train, str) and train == "all"):
        return ""
    if isinstance(train, int):
        return "top layer" if train == 1 else f"top {train} layers"
    return ", ".join(map(str, train)) if isinstance(train, (list, tuple)) else str(train)


def factors_of(spec: Any) -> list[float]:
    """LR factors, bottom first, over as many equal parts as the plan has."""
    if not isinstance(spec, Discriminative):
        return [1.0]
    if spec.factors:
        return list(spec.factors.values() if isinstance(spec.factors, Mapping) else spec.factors)
    numbers = sorted(set(spec.params_layer.values())) if spec.params_layer else range(spec.blocks or 1)
    return [max(spec.factor ** -(numbers[-1] - number), spec.minimum) for number in numbers]


def _thaws(plan: Plan) -> list[tuple[bool, ...]]:
    """In which phases each of as many equal parts trains, bottom first."""
    tops = [phase.train for phase in plan.phases if isinstance(phase.train, Top)]
    parts = max((top.of or top.count for top in tops), default=1)
    if tops and tops[-1].params_layer:
        given = tops[-1].params_layer.values()
        parts = 1 + max(given) - min(given)

    def trains(train: Any, part: int) -> bool:
        return part >= parts - train.count if isinstance(train, Top) else not label_of(train)

    return [tuple(trains(phase.train, part) for phase in plan.phases) for part in range(parts)]
