"""Texts and labels from CSV and TSV files as they come: what cannot be read is counted and named by its line."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TEXT_NAMES = ("text", "review", "content", "sentence", "comment", "text_a")
LABEL_NAMES = ("label", "class", "category", "sentiment")


@dataclass(frozen=True)
class Table:
    """What one file holds.

    Attributes:
        path: the file.
        texts: one per usable row.
        labels: one per usable row; empty if no label was asked for.
        broken: (line number, what is wrong) of each row that was skipped.
    """

    path: str
    texts: list[str]
    labels: list[str] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def summary(self, shown: int = 5) -> str:
        """How many rows there are, how many were skipped, and the first of these by line."""
        text = f"{self.path}: {len(self.texts)} rows"
        if not self.broken:
            return text
        lines = [f"  line {number}: {problem}" for number, problem in self.broken[:shown]]
        lines += [f"  and {len(self.broken) - shown} more"] if len(self.broken) > shown else []
        return "\n".join([f"{text}; {len(self.broken)} broken rows were skipped:", *lines])


def read_table(path: str | Path, text: str | None = None, label: str | None = None, labelled: bool = True) -> Table:
    """The texts (and labels) of a CSV or TSV file with a heading line, UTF-8 with or without byte order mark.

    A name that ends in .tsv means tabs and no quoting; any other means commas, with quotes as in RFC 4180.

    Args:
        path: the file.
        text: the column of the texts; None: the first of `text`, `review`, `content`, … that there is.
        label: the column of the labels; None: the first of `label`, `class`, … that there is.
        labelled: whether labels are wanted.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, or no row is usable.
    """
    path = Path(path)
    # A broken byte must not cost the whole file: it is kept as a lone surrogate, which no real text has.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = list(file)
    rows = _tsv_rows(lines) if path.suffix.lower() == ".tsv" else _csv_rows(lines)
    heading = next(rows, (0, [], None))[1]
    columns = [_column(path, heading, text, TEXT_NAMES, "text")]
    if labelled:
        columns.append(_column(path, heading, label, LABEL_NAMES, "label"))
    table = Table(str(path), [])
    for number, fields, problem in rows:
        problem = problem or _problem(fields, heading, columns)
        if problem:
            table.broken.append((number, problem))
            continue
        table.texts.append(fields[columns[0]].strip())
        if labelled:
            table.labels.append(fields[columns[1]].strip())
    if not table.texts:
        raise ValueError(f"no usable row. {table.summary()}\nIs the file UTF-8, with a line of headings?")
    return table


def _column(path: Path, heading: Sequence[str], wanted: str | None, usual: Sequence[str], what: str) -> int:
    names = [name.strip() for name in heading]
    found = next((name for name in ([wanted] if wanted else usual) if name in names), None)
    if found is None:
        sought = repr(wanted) if wanted else f"any of {', '.join(usual)}"
        raise ValueError(f"{path}: no {what} column: looked for {sought}, the file has {names}; give --{what}-column")
    return names.index(found)


def _problem(fields: Sequence[str], heading: Sequence[str], columns: Sequence[int]) -> str | None:
    if len(fields) != len(heading):
        return f"{len(fields)} fields instead of {len(heading)}"
    for column in columns:
        if not fields[column].strip():
            return f"nothing in column {heading[column].strip()!r}"
        if any("\udc80" <= one <= "\udcff" for one in fields[column]):
            return f"not UTF-8 in column {heading[column].strip()!r}"
    return None


def _tsv_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str], str | None]]:
    for number, line in enumerate(lines, 1):
        if line.strip("\r\n"):
            yield number, line.rstrip("\r\n").split("\t"), None


def _csv_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str], str | None]]:
    """(line it begins in, fields, problem) of each row; after a broken one, reading goes on in the next line.

    Otherwise one quote that is never closed would swallow the rest of the file.
    """
    begin = 0
    while begin < len(lines):
        reader, first = csv.reader(itertools.islice(lines, begin, None), strict=True), begin
        while True:
            number = first + reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, [], str(error)
                begin = number
                break
            if fields:
                yield number, fields, None
