"""`ftstrat migrate`: files and folders in, rewritten files, a diff or a check out, and a summary."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ftstrat import _files

if TYPE_CHECKING:
    from paddle_ftstrat.tools.migrate.site import Note

HELP = "rewrite PaddleHub 1.x fine-tuning scripts and notebooks"
DESCRIPTION = """\
Rewrites scripts and Jupyter notebooks for PaddleHub 1.x in place (or to -o), comments and formatting kept. What cannot
be rewritten gets a `# TODO(ftstrat): …` line with the replacement to write. Running it again changes nothing more.

exit code: 0 all done, 1 something is left to do by hand, 2 something failed"""
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "build", "dist")
DONE, BY_HAND, FAILED = 0, 1, 2


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a Python file, a notebook, or a folder of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="write to this file, or folder for several; - prints"
    )
    parser.add_argument("--diff", action="store_true", help="print the changes, write nothing")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 also where a file would be rewritten"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    try:
        import libcst  # noqa: F401
    except ImportError:
        print("ftstrat migrate needs LibCST: pip install 'paddle_ftstrat[migrate]'", file=sys.stderr)
        return FAILED
    printing = arguments.output == Path("-")
    write = not (arguments.diff or arguments.check or printing)
    jobs = list(_jobs(arguments.paths, arguments.output))
    clash = "-o - prints one file, not several" if printing and len(jobs) > 1 else _clash(jobs)
    if clash:
        print(f"ftstrat migrate: {clash}", file=sys.stderr)
        return FAILED
    show = "diff" if arguments.diff else "text" if printing and not arguments.check else ""
    reports = [found for found in (_one(path, target, write, show) for path, target in jobs) if found]
    print(_render(reports, write or printing), file=sys.stderr if show else sys.stdout)
    would_change = arguments.check and any(found.changed for found in reports)
    return max([BY_HAND if would_change else DONE, *(found.code for found in reports)])


def _jobs(paths: Sequence[Path], output: Path | None) -> Iterator[tuple[Path, Path]]:
    """(file, where its new text goes) for all files that are meant."""
    into_folder = output is not None and (len(paths) > 1 or paths[0].is_dir() or output.is_dir())
    for path in paths:
        if not path.is_dir():
            yield path, path if output is None else output / path.name if into_folder else output
            continue
        for place, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
            for file in (Path(place, name) for name in sorted(files) if name.endswith((".py", ".ipynb"))):
                yield file, file if output is None else output / file.relative_to(path)


def _clash(jobs: Sequence[tuple[Path, Path]]) -> str:
    """What is wrong about the targets, "" for nothing."""
    sources: dict[Path, Path] = {}
    for path, target in jobs:
        other = sources.setdefault(target.absolute(), path)
        if other.absolute() != path.absolute():
            return f"{other} and {path} would both be written to {target}"
    return ""


def _one(path: Path, target: Path, write: bool, show: str) -> FileReport | None:
    """Migrate one file; None where it has nothing to do with PaddleHub or fluid. `show`: "diff", "text" or ""."""
    from paddle_ftstrat.tools.migrate import rewriter

    try:
        old = path.read_bytes()
        rewrite = rewriter.migrate_notebook if path.suffix == ".ipynb" else rewriter.migrate
        migrated = rewrite(old)
        changed = migrated.code != old
        if write and (changed or target != path):
            with _files.replacing(target) as file:
                file.write(migrated.code)
    except (OSError, ValueError) as error:
        return FileReport(path, error=str(error))
    except Exception as error:  # one file, whatever is the matter with it, must not stop the others
        return FileReport(path, error=f"an error of this tool: {type(error).__name__}: {error}")
    if show == "diff" and changed:
        sys.stdout.writelines(_diff(path, target, old, migrated.code))
    elif show == "text":
        sys.stdout.write(migrated.code.decode("utf-8", "replace"))
    if not (changed or migrated.left):
        return None
    return FileReport(path, changed, migrated.rewritten, migrated.left, target)


def _diff(path: Path, target: Path, old: bytes, new: bytes) -> Iterator[str]:
    before, after = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (old, new))
    for line in difflib.unified_diff(before, after, str(path), str(target)):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _render(reports: Sequence[FileReport], written: bool) -> str:
    """The summary for a person: what was rewritten and what is left, file by file, and the totals."""
    if not reports:
        return "nothing here uses PaddleHub 1.x or paddle.fluid"
    failed = sum(report.code == FAILED for report in reports)
    by_hand = sum(report.code == BY_HAND for report in reports)
    done = len(reports) - failed - by_hand
    totals = [f"{done} done" if written else f"{done} without anything by hand"]
    if by_hand:
        places = _count(sum(len(report.left) for report in reports), "place")
        totals.append(f"{by_hand} with {places} marked `# TODO(ftstrat)`")
    totals += [f"{failed} failed"] if failed else []
    return "\n\n".join(
        [*(_of_file(report, written) for report in reports), f"{_count(len(reports), 'file')}: {', '.join(totals)}"]
    )


def _of_file(report: FileReport, written: bool) -> str:
    if report.error:
        return f"{report.path}: left as it is: {report.error}"
    where = f" → {report.target}" if report.target != report.path else ""
    state = "nothing to rewrite"
    if report.changed:
        state = "rewritten" if written else "would be rewritten"
    if report.left:
        state += f", {_count(len(report.left), 'place')} left to do by hand"
    unit = "code cell" if report.path.suffix == ".ipynb" else "line"
    lines = [f"{report.path}{where}: {state}"]
    lines += _section(f"rewritten ({unit}s of the old text)", unit, report.rewritten)
    lines += _section(f"by hand ({unit}s of the new text)", unit, report.left)
    return "\n".join(lines)


def _section(title: str, unit: str, notes: Iterable[Note]) -> list[str]:
    places: dict[str, list[int]] = {}
    for note in sorted(notes, key=lambda note: note.line):
        places.setdefault(note.text, []).append(note.line)
    lines = [f"    {unit} {', '.join(map(str, lines)):>4}  {text}" for text, lines in places.items()]
    return [f"  {title}", *lines] if lines else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
