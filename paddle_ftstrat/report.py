"""What a binding shows a person: the table of its parameters and the lines of its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import picture
from paddle_ftstrat.optim import fused
from paddle_ftstrat.optim.decay import Decay
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.resolve import Resolved


def row_of(row: Resolved, decay: Decay) -> description.Row:
    """What `describe` tells of one parameter of a binding."""
    fallback = decay.coupled if row.settings.regularizer is None else None
    return description.Row(
        name=row.name,
        shape=tuple(row.param.shape),
        block=row.depth.block,
        trainable=row.own.trainable,
        first_epoch=row.depth.first_epoch,
        learning_rate=row.settings.learning_rate,
        own_learning_rate=row.own.learning_rate,
        factor=row.depth.factor,
        regularizer=description.text_of(row.settings.regularizer or fallback),
        regularizer_from="optimizer" if fallback is not None else row.regularizer_from,
        decay=decay.of(row.name),
        decay_from=decay.source if decay.of(row.name) else "",
        need_clip=row.settings.need_clip,
    )


def describe_rows(rows: Sequence[Resolved], plan: Plan, optimizer: Any, update: int) -> description.Description:
    """What holds for each parameter, as rows and as a table, with the plan's totals below it."""
    blocks = 1 + max(row.depth.block for row in rows)
    shown = [description.row_of(row.name, row.param) for row in rows]
    training = sum(int(np.prod(row.shape)) for row in shown if row.trainable)
    total = sum(int(np.prod(row.shape)) for row in shown)
    clip = plan.clip
    notes = [
        "",
        f"optimizer {type(optimizer).__name__}, LR of the next update {optimizer.get_lr():.6g}, "
        f"update {update} of {plan.max_train_steps or '∞'}",
        f"clip {clip.kind}({clip.value:g})" if clip else "no gradient clipping",
        fused.describe(optimizer),
        f"{training:,} of {total:,} values train now, in {blocks} {'block' if blocks == 1 else 'blocks'}",
    ]
    return description.Description(shown, notes)


def lines(rows: Sequence[Resolved], lrs: np.ndarray, steps_per_epoch: int | None) -> list[picture.Line]:
    """The LRs of each block for a picture, top block first; blocks that look alike share a line."""
    merged: dict[tuple[float, int], list[int]] = {}
    for row in rows:
        frozen = len(lrs) if not row.own.trainable else (row.depth.first_epoch - 1) * (steps_per_epoch or 0)
        members = merged.setdefault((row.settings.learning_rate, frozen), [])
        if row.depth.block not in members:
            members.append(row.depth.block)
    ordered = sorted(merged.items(), key=lambda item: -max(item[1]))
    return [
        picture.Line(f"block {_spans(blocks)} (×{factor:.3g})", lrs * factor, min(frozen, len(lrs)))
        for (factor, frozen), blocks in ordered
    ]


def _spans(numbers: Sequence[int]) -> str:
    """Block numbers in short: [0, 1, 2, 5] → "0-2, 5"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in spans)
