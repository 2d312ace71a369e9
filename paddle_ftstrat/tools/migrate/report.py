"""What a migration did and left to do, as data and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DONE, BY_HAND, FAILED = 0, 1, 2
_TODO = re.compile(r"\s*# TODO\(ftstrat\): (.*)")
_CONTINUED = re.compile(r"\s*#     (\S.*)")


@dataclass(frozen=True)
class Note:
    """Something at a line, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Migrated:
    """The outcome for one text: the new bytes; what was rewritten, by lines of the old, what is left, by the new."""

    code: bytes
    rewritten: tuple[Note, ...] = ()
    left: tuple[Note, ...] = ()


@dataclass(frozen=True)
class FileReport:
    """The outcome for one file: `target` is where the new text is (None: nowhere), `error` why there is none."""

    path: Path
    changed: bool = False
    rewritten: tuple[Note, ...] = ()
    left: tuple[Note, ...] = ()
    target: Path | None = None
    error: str = ""

    @property
    def code(self) -> int:
        """The exit code for this file alone."""
        return FAILED if self.error else BY_HAND if self.left else DONE


def todos(text: str) -> tuple[Note, ...]:
    """The `# TODO(ftstrat): …` comments of a text, with the lines that they stand on.

    Example:
        >>> todos("x = 1\\n# TODO(ftstrat): write\\n#     the rest\\ny = 2\\n")
        (Note(line=2, text='write the rest'),)
    """
    found: list[Note] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        begun, continued = _TODO.match(line), _CONTINUED.match(line)
        if begun:
            found.append(Note(number, begun[1]))
        elif inside and continued:
            found[-1] = Note(found[-1].line, f"{found[-1].text} {continued[1]}")
        inside = bool(begun or (inside and continued))
    return tuple(found)


def render(reports: Sequence[FileReport], written: bool) -> str:
    """The summary for a person: what was rewritten and what is left, file by file, and the totals.

    Args:
        reports: one per file that has anything to do with PaddleHub or fluid.
        written: whether the new texts were written, or would have been.
    """
    parts = [_file(report, written) for report in reports]
    return "\n\n".join([*parts, _totals(reports, written)])


def _file(report: FileReport, written: bool) -> str:
    if report.error:
        return f"{report.path}: left as it is: {report.error}"
    where = f" → {report.target}" if report.target is not None and report.target != report.path else ""
    lines = [f"{report.path}{where}: {_state(report, written)}"]
    lines += _section("rewritten (lines of the old text)", report.rewritten)
    lines += _section("by hand (lines of the new text)", report.left)
    return "\n".join(lines)


def _state(report: FileReport, written: bool) -> str:
    changed = "rewritten" if written else "would be rewritten"
    done = changed if report.changed else "nothing to rewrite"
    return f"{done}, {_count(len(report.left), 'place')} left to do by hand" if report.left else done


def _section(title: str, notes: Iterable[Note]) -> list[str]:
    places: dict[str, list[int]] = {}
    for note in sorted(notes, key=lambda note: note.line):
        places.setdefault(note.text, []).append(note.line)
    lines = [f"    line {', '.join(map(str, lines)):>4}  {text}" for text, lines in places.items()]
    return [f"  {title}", *lines] if lines else []


def _totals(reports: Sequence[FileReport], written: bool) -> str:
    if not reports:
        return "nothing here uses PaddleHub 1.x or paddle.fluid"
    failed = sum(report.code == FAILED for report in reports)
    by_hand = sum(report.code == BY_HAND for report in reports)
    places = sum(len(report.left) for report in reports)
    done = len(reports) - failed - by_hand
    parts = [f"{done} done" if written else f"{done} without anything by hand"]
    parts += [f"{by_hand} with {_count(places, 'place')} marked `# TODO(ftstrat)`"] if by_hand else []
    parts += [f"{failed} failed"] if failed else []
    return f"{_count(len(reports), 'file')}: {', '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
