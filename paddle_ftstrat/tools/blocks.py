"""The blocks of layers that a plan tells apart, with a model and without one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import table
from paddle_ftstrat.param_attr import depth, description
from paddle_ftstrat.plan import Plan


@dataclass(frozen=True)
class Block:
    """A block of layers, or several that are alike.

    `label` names it, `factor` is its share in the LR, `first_epoch` (from 1) the first that it trains in, 0 for never.
    `regulariser` and `decay` say what holds, `remarks` what single parameters have of their own. `names` are those of
    its parameters, where a model is known.
    """

    label: str
    factor: float
    first_epoch: int
    regulariser: str
    decay: str
    remarks: str = ""
    names: tuple[str, ...] = ()


def decay_of(plan: Plan) -> str:
    """The decoupled weight decay of a plan in a word or two.

    Example:
        >>> decay_of(Plan(curve=None, optimizer="adamw")), decay_of(Plan(curve=None, weight_decay=0.1))
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
    return _merged([(number, _block(rows[number])) for number in sorted(rows, reverse=True)], len(rows))


def _block(rows: Sequence[description.Row]) -> Block:
    thawed = [row.first_epoch for row in rows if row.first_epoch]
    own = Counter(row.own_learning_rate for row in rows if row.own_learning_rate != 1.0)
    remarks = [f"{count} with their own ×{multiplier:g}" for multiplier, count in own.items()]
    if thawed and len(thawed) < len(rows):
        remarks.append(f"{len(rows) - len(thawed)} frozen beforehand")
    return Block(
        label="",
        factor=rows[0].factor,
        first_epoch=min(thawed, default=0),
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
        return block.factor, block.first_epoch, block.regulariser, block.decay, block.remarks

    return looks(a) == looks(b)


def _as_one(run: Sequence[tuple[int, Block]], count: int) -> Block:
    top, bottom = run[0][0], run[-1][0]
    label = f"{bottom}" if top == bottom else f"{bottom}–{top}"
    if count > 1:
        where = [word for word, is_there in (("bottom", bottom == 0), ("top", top == count - 1)) if is_there]
        label += f" ({' to '.join(where)})" if where else ""
    first = run[0][1]
    names = tuple(name for _, block in reversed(run) for name in block.names)
    return Block(label, first.factor, first.first_epoch, first.regulariser, first.decay, first.remarks, names)


def blocks_without_model(plan: Plan) -> list[Block]:
    """The blocks of a model that divides evenly: shares of the depth instead of names."""
    levels, thaws = _levels(plan)
    count = math.lcm(len(levels), len(thaws))
    by_layer = plan.discriminative is not None and not (plan.discriminative.blocks or plan.discriminative.params_layer)
    remark = f"each layer ×1/{plan.discriminative.factor:g} of the one above" if by_layer else ""
    regulariser = ", ".join(f"{name}({value:g})" for name, value in (("L2SP", plan.l2sp), ("L2", plan.l2)) if value)
    runs: dict[tuple[float, int], list[int]] = {}
    for layer in range(count):
        key = levels[layer * len(levels) // count], thaws[layer * len(thaws) // count]
        runs.setdefault(key, []).append(layer)
    return [
        Block(_share(run[0], run[-1] + 1, count), factor, epoch, regulariser or "none", decay_of(plan), remark)
        for (factor, epoch), run in sorted(runs.items(), key=lambda item: -item[1][0])
    ]


def _levels(plan: Plan) -> tuple[list[float], list[int]]:
    """LR factors and first epochs, bottom first, each over as many equal parts as the plan has."""
    factors, epochs = [1.0], [1]
    if plan.discriminative is not None:
        numbers = _numbers(plan.discriminative)
        factors = [plan.discriminative.factor ** -(numbers[-1] - number) for number in numbers]
    if plan.gradual_unfreeze is not None:
        numbers = _numbers(plan.gradual_unfreeze)
        epochs = [numbers[-1] - number + 1 for number in numbers]
    return factors, epochs


def _numbers(spec: Any) -> list[int]:
    if spec.params_layer:
        return sorted(set(spec.params_layer.values()))
    return depth.split(spec.blocks or 1, spec.blocks or 1)


def _share(start: int, end: int, count: int) -> str:
    if (start, end) == (0, count):
        return "all layers"
    if start == 0:
        return f"bottom {end / count:.0%}"
    if end == count:
        return f"top {(count - start) / count:.0%}"
    return f"{start / count:.0%}–{end / count:.0%} up"
