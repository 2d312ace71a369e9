"""`# TODO(ftstrat): …` lines above statements."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import libcst as cst

WIDTH = 96


def comment(text: str) -> list[str]:
    """The comment lines of one TODO, wrapped.

    Example:
        >>> comment("write it")
        ['# TODO(ftstrat): write it']
    """
    lines = textwrap.wrap(f"TODO(ftstrat): {text}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {lines[0]}", *(f"#     {line}" for line in lines[1:])]


def with_todos(statement: Any, texts: Iterable[str], comments: Sequence[str] = ()) -> Any:
    """The statement with comments and TODO lines above it, TODOs that stand there already left out."""
    there = [line.comment.value for line in statement.leading_lines if line.comment is not None]
    added = [cst.EmptyLine(comment=cst.Comment(line)) for line in comments]
    for text in dict.fromkeys(texts):
        lines = comment(text)
        if not _contains(there, lines):
            added += [cst.EmptyLine(comment=cst.Comment(line)) for line in lines]
    return statement.with_changes(leading_lines=[*statement.leading_lines, *added]) if added else statement


def _contains(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(list(lines[i : i + len(wanted)]) == list(wanted) for i in range(len(lines) - len(wanted) + 1))
