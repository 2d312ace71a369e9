"""`ftstrat migrate`: files and folders in, rewritten files, a diff or a check out, and a summary."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_ftstrat import _files
from paddle_ftstrat.tools.migrate import report
from paddle_ftstrat.tools.migrate.report import FileReport

HELP = "rewrite PaddleHub 1.x and paddle.fluid fine-tuning scripts"
DESCRIPTION = """\
Rewrites scripts for PaddleHub 1.x or paddle.fluid in place (or to -o), comments and formatting kept. What cannot be
rewritten gets a `# TODO(ftstrat): …` line with the replacement to write. Running it again changes nothing more.

exit code: 0 all done, 1 something is left to do by hand, 2 something failed"""
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "build", "dist")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a Python file, or a folder of them")
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
        return report.FAILED
    printing = arguments.output == Path("-")
    write = not (arguments.diff or arguments.check or printing)
    jobs = list(_jobs(arguments.paths, arguments.output))
    clash = "-o - prints one file, not several" if printing and len(jobs) > 1 else _clash(jobs)
    if clash:
        print(f"ftstrat migrate: {clash}", file=sys.stderr)
        return report.FAILED
    show = "diff" if arguments.diff else "text" if printing and not arguments.check else ""
    reports = [found for found in (_one(path, target, write, show) for path, target in jobs) if found]
    print(report.render(reports, write or printing), file=sys.stderr if show else sys.stdout)
    would_change = arguments.check and any(found.changed for found in reports)
    return max([report.BY_HAND if would_change else report.DONE, *(found.code for found in reports)])


def _jobs(paths: Sequence[Path], output: Path | None) -> Iterator[tuple[Path, Path]]:
    """(file, where its new text goes) for all files that are meant."""
    into_folder = output is not None and (len(paths) > 1 or paths[0].is_dir() or output.is_dir())
    for path in paths:
        if not path.is_dir():
            yield path, path if output is None else output / path.name if into_folder else output
            continue
        for file in _python_files(path):
            yield file, file if output is None else output / file.relative_to(path)


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        yield from (Path(place, name) for name in sorted(files) if name.endswith(".py"))


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
    from paddle_ftstrat.tools.migrate import source

    try:
        old = path.read_bytes()
        if path.suffix == ".ipynb":
            return FileReport(path, error="a notebook; export it as a script first: jupyter nbconvert --to script")
        migrated = source.migrate(old)
        changed = migrated.code != old
        if write and (changed or target != path):
            with _files.replacing(target) as file:
                file.write(migrated.code)
    except (OSError, ValueError, RuntimeError) as error:
        return FileReport(path, error=str(error))
    if show == "diff" and changed:
        sys.stdout.writelines(_diff(path, target, old, migrated.code))
    elif show == "text":
        sys.stdout.write(migrated.code.decode("utf-8", "replace"))
    if not (changed or migrated.left):
        return None
    return FileReport(path, changed, migrated.rewritten, migrated.left, target)


def _diff(path: Path, target: Path, old: bytes, new: bytes) -> Iterator[str]:
    lines = [text.decode("utf-8", "replace").splitlines(keepends=True) for text in (old, new)]
    for line in difflib.unified_diff(*lines, str(path), str(target)):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
