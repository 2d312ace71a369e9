"""What holds for each parameter, as rows for a program and as a table for a person."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.param_attr.rows import FrozenRows
from paddle_ftstrat.param_attr.settings import text_of


@dataclass(frozen=True)
class Row:
    """One parameter.

    `learning_rate` is the multiplier in force, `own_learning_rate` the ParamAttr's and `factor` the strategy's share in
    it. `regularizer` and `decay` are what applies, `regularizer_from` / `decay_from` whose they are (ParamAttr,
    strategy, optimizer). `trainable` is what Paddle goes by; `first_epoch` (from 1) when a strategy lets it train,
    0 for never. `frozen_rows` are those that `freeze_rows` keeps as they are.
    """

    name: str
    shape: tuple[int, ...]
    block: int | None = None
    trainable: bool = True
    first_epoch: int = 1
    learning_rate: float = 1.0
    own_learning_rate: float = 1.0
    factor: float = 1.0
    regularizer: str = ""
    regularizer_from: str = ""
    decay: float = 0.0
    decay_from: str = ""
    need_clip: bool = True
    frozen_rows: FrozenRows | None = None


@dataclass(frozen=True)
class Owner:
    """Whose settings are in force on a parameter: a binding, with what only it knows of each parameter."""

    rows: dict[str, Row] = dataclasses.field(default_factory=dict, compare=False)


class Description(Sequence[Row]):
    """Rows that print as a table.

    Example:
        >>> import paddle
        >>> rows = describe(paddle.nn.Linear(2, 3))
        >>> rows[0].name, rows[0].shape, rows.to_dict()[1]["trainable"]
        ('weight', (2, 3), True)
    """

    def __init__(self, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
        self.rows = tuple(rows)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def to_dict(self) -> list[dict[str, Any]]:
        """A dict per parameter, with the fields of `Row`."""
        return [dataclasses.asdict(row) for row in self.rows]

    def __str__(self) -> str:
        headings = ("parameter", "shape", "block", "trains", "LR ×", "regularizer", "decay", "clip")
        return "\n".join([table(headings, map(_cells, self.rows)), *self.notes])

    __repr__ = __str__


def describe(model: Any) -> Description:
    """A row per parameter of a model, bound or not: shape, LR multiplier, regularizer, decay, clipping, freezing.

    Args:
        model: the model.

    Example:
        >>> import paddle
        >>> print(describe(paddle.nn.Linear(2, 3)))  # doctest: +ELLIPSIS
        parameter...
    """
    return Description([row_of(name, param) for name, param in select.named_weights(model).items()])


def row_of(name: str, param: Any) -> Row:
    """The row of one parameter, from what is in force and, if it is bound, from the binding's own row."""
    now, owner = settings.in_force(param), settings.owner_of(param)
    bound = owner.rows.get(name) if isinstance(owner, Owner) else None
    if bound is None:
        bound = Row(
            name,
            tuple(param.shape),
            first_epoch=int(now.trainable),
            own_learning_rate=now.learning_rate,
            regularizer=text_of(now.regularizer),
            regularizer_from="" if now.regularizer is None else "ParamAttr",
        )
    return dataclasses.replace(
        bound,
        trainable=now.trainable,
        first_epoch=bound.first_epoch if settings.own(param).trainable else 0,
        learning_rate=now.learning_rate,
        need_clip=now.need_clip,
        frozen_rows=settings.frozen_rows(param),
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int = 10_000) -> str:
    """Cells under headings, in columns as wide as their longest cell; what is wider than `width` is folded.

    Example:
        >>> print(table(("name", "size"), [("weight", "6"), ("b", "3")]))
        name    size
        weight  6
        b       3
    """
    from rich.console import Console  # at the first table: it takes a while
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, markup=False).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _cells(row: Row) -> tuple[str, ...]:
    trains = "yes" if row.trainable else "frozen now"
    if row.first_epoch == 0:
        trains = "frozen"
    elif row.first_epoch > 1:
        trains = f"from epoch {row.first_epoch}" + ("" if row.trainable else " (frozen now)")
    if row.frozen_rows and row.first_epoch:
        trains += f"; {row.frozen_rows}"
    product = row.own_learning_rate != 1.0 and row.factor != 1.0
    return (
        row.name,
        "×".join(map(str, row.shape)) or "scalar",
        "-" if row.block is None else str(row.block),
        trains,
        f"{row.learning_rate:.4g}" + (f" = {row.own_learning_rate:.4g} · {row.factor:.4g}" if product else ""),
        f"{row.regularizer} ({row.regularizer_from})" if row.regularizer else "-",
        f"{row.decay:g} ({row.decay_from})" if row.decay else "-",
        "yes" if row.need_clip else "no",
    )


def one_line(run: Any) -> str:
    """A binding in a line: on what, how far, and what comes next."""
    blocks = len(run.blocks)
    parts = [
        f"{type(run.optimizer).__name__} on {type(run.model).__name__}",
        f"{sum(map(len, run.blocks))} parameters in {blocks} block{'s' * (blocks != 1)}",
        f"{run.lr_scheduler.last_epoch} of {run.plan.max_train_steps or '∞'} updates done",
        f"in epoch {run.epoch}" if run.in_force else "not in force any more",
        f"learning rate {run.optimizer.get_lr():g}",
    ]
    return f"{type(run).__name__}({', '.join(parts)})"
