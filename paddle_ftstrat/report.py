"""What a binding shows a person: the table of its parameters and the lines of its picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_ftstrat.optim import fused
from paddle_ftstrat.optim.build import Decay
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


def one_line(run: Any) -> str:
    """A binding in a line: on what, how far, and what comes next."""
    parts = [
        f"{type(run.optimizer).__name__} on {type(run.model).__name__}",
        f"{sum(map(len, run.blocks))} parameters in {len(run.blocks)} {'block' if len(run.blocks) == 1 else 'blocks'}",
        f"{run.lr_scheduler.last_epoch} of {run.plan.max_train_steps or '∞'} updates done",
        f"in epoch {run.epoch}" if run.in_force else "not in force any more",
        f"learning rate {run.optimizer.get_lr():g}",
    ]
    return f"{type(run).__name__}({', '.join(parts)})"


def remind_of_epochs(run: Any) -> bool:
    """Warn, in whatever loop it is that steps the LR, when the second epoch has come and none was begun.

    Args:
        run: a binding that thaws layers epoch by epoch.

    Returns:
        Whether nothing is left to remind of.
    """
    # Where the length of an epoch is not known, at least as many as there are phases have to fit into the training.
    first = run.steps_per_epoch or (run.plan.max_train_steps or 0) // run.plan.first_epochs[-1]
    forgotten = run.epoch == 0 and run.in_force
    if forgotten and run.lr_scheduler.last_epoch <= first:
        return False
    if forgotten:
        warnings.warn(
            "the plan thaws layers epoch by epoch, but begin_epoch() was not called, so only the top layers "
            "train: call it at the start of every epoch, or give paddle.Model.fit run.callback(), PaddleNLP's "
            "Trainer run.trainer_callback()",
            stacklevel=5,
        )
    return True
