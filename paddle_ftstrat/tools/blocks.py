"""The blocks of layers that a plan tells apart, with a model and without one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import table
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import Discriminative, Phase, Plan, Top


@dataclass(frozen=True)
class Block:
    """A block of layers, or several that are alike.

    `label` names it, `factor` is its share in the LR, `first_epoch` (from 1) the first that it trains in, 0 for never,
    `trains` whether it does so in each of the plan's phases. `regulariser` and `decay` say what holds, `remarks` what
    single parameters have of their own. `names` are those of its parameters, where a model is known.
    """

    label: str
    factor: float
    first_epoch: int
    trains: tuple[bool, ...]
    regulariser: str
    decay: str
    remarks: str = ""
    names: tuple[str, ...] = ()


def decay_of(plan: Plan) -> str:
    """The decoupled weight decay of a plan in a word or two.

    Example:
        >>> decay_of(Plan({}, optimizer="adamw")), decay_of(Plan({}, weight_decay=0.1))
        ("AdamW's own", '0.1')
    """
    row = table.find(plan.optimizer)
    if plan.weight_decay is None:
        return f"{row.cls.__name__}'s own" if row.decay == "native" else "none"
    return f"{plan.weight_decay:g}" if plan.weight_decay else "none"


def blocks_of(run: Binding) -> list[Block]:
    """The blocks of a bound model, top first, neighbours that are alike in one."""
    rows: dict[int, list[description.Row]] = {}
    for row in run.describe():
        rows.setdefault(row.block or 0, []).append(row)
    trains = run.trains
    return _merged([(number, _block(rows[number], trains)) for number in sorted(rows, reverse=True)], len(rows))


def _block(rows: Sequence[description.Row], trains: Mapping[str, tuple[bool, ...]]) -> Block:
    thawed = [row.first_epoch for row in rows if row.first_epoch]
    own = Counter(row.own_learning_rate for row in rows if row.own_learning_rate != 1.0)
    remarks = [f"{count} with their own ×{multiplier:g}" for multiplier, count in own.items()]
    if thawed and len(thawed) < len(rows):
        remarks.append(f"{len(rows) - len(thawed)} frozen beforehand")
    return Block(
        label="",
        factor=rows[0].factor,
        first_epoch=min(thawed, default=0),
        trains=tuple(map(any, zip(*(trains[row.name] for row in rows)))),
        regulariser=_shared(
            f"{row.regularizer} ({row.regularizer_from})" if row.regularizer else "none" for row in rows
        ),
        decay=_shared(f"{row.decay:g}" if row.decay else "none" for row in rows),
        remarks=", ".join(remarks),
        names=tuple(row.name for row in rows),
    )


def _shared(texts: Iterable[str]) -> str:
    """What all parameters of a block have in common, or how many have what."""
    counted = Counter(texts)
    if len(counted) == 1:
        return next(iter(counted))
    return ", ".join(f"{text} on {count}" for text, count in counted.most_common())


def _merged(blocks: Sequence[tuple[int, Block]], count: int) -> list[Block]:
    """Blocks in words, neighbours that are alike in one. `blocks` come top first."""
    runs: list[list[tuple[int, Block]]] = []
    for number, block in blocks:
        if runs and _same(runs[-1][-1][1], block):
            runs[-1].append((number, block))
        else:
            runs.append([(number, block)])
    return [_as_one(run, count) for run in runs]


def _same(a: Block, b: Block) -> bool:
    def looks(block: Block) -> tuple[Any, ...]:
        return block.factor, block.first_epoch, block.trains, block.regulariser, block.decay, block.remarks

    return looks(a) == looks(b)


def _as_one(run: Sequence[tuple[int, Block]], count: int) -> Block:
    top, bottom = run[0][0], run[-1][0]
    label = f"{bottom}" if top == bottom else f"{bottom}–{top}"
    if count > 1:
        where = [word for word, is_there in (("bottom", bottom == 0), ("top", top == count - 1)) if is_there]
        label += f" ({' to '.join(where)})" if where else ""
    first = run[0][1]
    names = tuple(name for _, block in reversed(run) for name in block.names)
    return replace(first, label=label, names=names)


def blocks_without_model(plan: Plan) -> list[Block]:
    """The blocks of a model that divides evenly: shares of the depth instead of names.

    What phases train by other means than shares of the depth are blocks of their own, on top.
    """
    factors, thaws = _factors(plan.depth), _thaws(plan)
    count = math.lcm(len(factors), len(thaws))
    regulariser = ", ".join(f"{name}({value:g})" for name, value in (("L2SP", plan.l2sp), ("L2", plan.l2)) if value)
    runs: dict[Any, list[int]] = {}
    for layer in range(count):
        key = factors[layer * len(factors) // count], thaws[layer * len(thaws) // count]
        runs.setdefault(key, []).append(layer)
    found = [
        _without_names(plan, _share(run[0], run[-1] + 1, count), factor, trains, regulariser)
        for (factor, trains), run in sorted(runs.items(), key=lambda item: -item[1][0])
    ]
    if isinstance(plan.depth, Discriminative) and not (plan.depth.blocks or plan.depth.params_layer):
        found = [replace(one, remarks=f"each layer ×1/{plan.depth.factor:g} of the one above") for one in found]
    others = dict.fromkeys(str(phase.train) for phase in plan.phases if not _by_share(phase))
    for label in reversed(others):
        trains = tuple(phase.train == "all" or str(phase.train) == label for phase in plan.phases)
        found.insert(0, _without_names(plan, label, 1.0, trains, regulariser))
    return found


def _without_names(plan: Plan, label: str, factor: float, trains: tuple[bool, ...], regulariser: str) -> Block:
    epochs = plan.first_epochs or [1] * len(trains)
    first = epochs[trains.index(True)] if True in trains else 0
    return Block(label, factor, first, trains, regulariser or "none", decay_of(plan))


def _by_share(phase: Phase) -> bool:
    return isinstance(phase.train, Top) or phase.train == "all"


def _factors(spec: Any) -> list[float]:
    """LR factors, bottom first, over as many equal parts as the plan has."""
    if isinstance(spec, Discriminative) and (spec.blocks or spec.params_layer):
        numbers = sorted(set(spec.params_layer.values())) if spec.params_layer else list(range(spec.blocks))
        return [max(spec.factor ** -(numbers[-1] - number), spec.minimum) for number in numbers]
    return [1.0]


def _thaws(plan: Plan) -> list[tuple[bool, ...]]:
    """In which phases each of as many equal parts trains, bottom first."""
    tops = [phase.train for phase in plan.phases if isinstance(phase.train, Top)]
    parts = max((top.of or top.count for top in tops), default=1)
    if tops and tops[-1].params_layer:
        given = tops[-1].params_layer.values()
        parts = 1 + max(given) - min(given)

    def trains(phase: Phase, part: int) -> bool:
        return part >= parts - phase.train.count if isinstance(phase.train, Top) else phase.train == "all"

    return [tuple(trains(phase, part) for phase in plan.phases) for part in range(parts)]


def _share(start: int, end: int, count: int) -> str:
    if (start, end) == (0, count):
        return "all layers"
    if start == 0:
        return f"bottom {end / count:.0%}"
    if end == count:
        return f"top {(count - start) / count:.0%}"
    return f"{start / count:.0%}–{end / count:.0%} up"
