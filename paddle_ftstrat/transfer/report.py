"""What loading did: a row per tensor of the model and per key of the file, as data and as a table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.transfer.rows import Carried

STATUSES = ("mismatched", "missing", "partly", "unexpected", "excluded", "loaded", "dropped")
_WIDEST = 200  # characters of a cell


class Mismatch(NamedTuple):
    """Two shapes that should be one: the file's, in Paddle's layout, and the model's."""

    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One tensor of the model, or one key of the file that no tensor took.

    `status` is one of `STATUSES`; `name` is the model's, `key` the file's, "" where there is none. `kind` is "weight",
    "statistic" or "buffer". `file_shape` is the shape in Paddle's layout. `note` says why. `carried` are the rows that
    `rows=` took over; a tensor with new ones among them is "partly" loaded.
    """

    status: str
    name: str = ""
    key: str = ""
    kind: str = ""
    shape: tuple[int, ...] | None = None
    file_shape: tuple[int, ...] | None = None
    dtype: str = ""
    file_dtype: str = ""
    shared: tuple[str, ...] = ()
    note: str = ""
    carried: Carried | None = None

    def cells(self) -> list[str]:
        """What stands in the table."""
        shape = self.file_shape if self.shape is None else self.shape
        size = "-" if shape is None else "×".join(map(str, shape)) or "scalar"
        cells = (self.status, self.name or "-", self.key or "-", size, self.note)
        return [_errors.shortened(cell, _WIDEST) for cell in cells]


@dataclass(frozen=True)
class LoadReport:
    """What `load_pretrained` did, or would have done.

    Attributes:
        source: the file.
        layout: "paddle" or "torch", the layout that its matrices were taken to have, and `decided_by` why.
        rows: a `Row` per tensor of the model (a shared one once) and per key that no tensor took.
        notes: hints and remarks.

    Example:
        >>> import paddle, paddle_ftstrat.transfer as transfer
        >>> model = paddle.nn.Linear(2, 3)
        >>> report = transfer.load_pretrained(model, {"weight": paddle.ones([2, 3]), "pool.bias": paddle.ones([3])})
        >>> report.loaded, report.missing, report.unexpected, report.mismatched
        (['weight'], ['bias'], ['pool.bias'], {})
        >>> print(report)
        1 of 2 weights loaded from a dict (paddle layout: the tensors are paddle's)
        <BLANKLINE>
        status      in the model  in the file  shape  note
        missing     bias          -            3
        unexpected  -             pool.bias    3
        loaded      weight        weight       2×3
    """

    source: str
    layout: str
    decided_by: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def _with(self, status: str) -> list[Row]:
        return [row for row in self.rows if row.status == status]

    @property
    def loaded(self) -> list[str]:
        """Names of the tensors that were loaded: weights, running statistics, buffers."""
        return [row.name for row in self._with("loaded")]

    @property
    def weights(self) -> list[str]:
        """The weights among `loaded`, which is what a strategy's `pretrained` means."""
        return [row.name for row in self._with("loaded") if row.kind == "weight"]

    @property
    def carried(self) -> dict[str, Carried]:
        """Name → the rows that `rows=` took over (`sources`: row of the model → row of the file) and the `new` ones."""
        return {row.name: row.carried for row in self.rows if row.carried is not None}

    @property
    def missing(self) -> list[str]:
        """Names of the tensors that the file (or what was wanted of it) does not have."""
        return [row.name for row in self._with("missing")]

    @property
    def unexpected(self) -> list[str]:
        """Keys that were wanted, but that the model has no tensor for."""
        return [row.key for row in self._with("unexpected")]

    @property
    def mismatched(self) -> dict[str, Mismatch]:
        """Name → the file's shape (in Paddle's layout) and the model's, of what could not be loaded."""
        return {row.name: Mismatch(row.file_shape or (), row.shape or ()) for row in self._with("mismatched")}

    @property
    def excluded(self) -> list[str]:
        """Keys that `include`, `exclude` or `rename` left out."""
        return [row.key for row in self._with("excluded")]

    @property
    def dropped(self) -> list[str]:
        """Keys that Paddle has no use for."""
        return [row.key for row in self._with("dropped")]

    @property
    def renamed(self) -> dict[str, str]:
        """Name → key, of what is called otherwise in the file."""
        return {row.name: row.key for row in self._with("loaded") if row.name != row.key}

    @property
    def converted(self) -> dict[str, tuple[str, str]]:
        """Name → (the file's dtype, the model's), of what was converted."""
        rows = (row for row in self._with("loaded") if row.dtype != row.file_dtype)
        return {row.name: (row.file_dtype, row.dtype) for row in rows}

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """Name → all names, of loaded weights that stand in several places; each counts once."""
        return {row.name: row.shared for row in self._with("loaded") if len(row.shared) > 1}

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return dataclasses.asdict(self)

    def table(self, limit: int | None = None) -> str:
        """The report as text.

        Args:
            limit: how many rows of each status, the rest being counted, and of what was dropped none; None shows all.
        """
        shown: list[Row] = []
        more = []
        for status in STATUSES:
            rows = self._with(status)
            if limit is not None and status == "dropped":
                more += [f"{len(rows)} dropped, for which Paddle has no use"] if rows else []
                continue
            shown += rows[:limit]
            if limit is not None and len(rows) > limit:
                more.append(f"… and {len(rows) - limit} more {status}")
        changes = Counter(self.converted.values())
        more += [f"{count} converted from {old} to {new}" for (old, new), count in changes.items()]
        table = description.table(
            ("status", "in the model", "in the file", "shape", "note"), [row.cells() for row in shown]
        )
        return "\n".join([self._summary(), "", table, *more, *self.notes])

    def __str__(self) -> str:
        return self.table(_errors.MAX_LISTED)

    def _summary(self) -> str:
        parts = []
        for kind in ("weight", "statistic", "buffer"):
            counts = Counter(row.status for row in self.rows if row.kind == kind)
            if counts:
                parts.append(f"{counts['loaded']} of {sum(counts.values())} {kind}s")
            if counts["partly"]:
                parts.append(f"rows of {counts['partly']} more")
        return f"{', '.join(parts)} loaded from {self.source} ({self.layout} layout: {self.decided_by})"


class LoadError(ValueError):
    """Loading was refused, and the model is as it was; `report` tells what would have been loaded.

    Example:
        >>> import paddle, paddle_ftstrat.transfer as transfer
        >>> try:
        ...     transfer.load_pretrained(paddle.nn.Linear(2, 2), {"weight": paddle.ones([2, 2])}, strict=True)
        ... except LoadError as error:
        ...     error.report.missing
        ['bias']
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(f"{message}\n\n{report}")
        self.report = report
