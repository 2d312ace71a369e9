"""What the rules get to know of a call, how they say what they did, and the TODO lines that tell what is left."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import libcst as cst

from paddle_ftstrat.tools.migrate import arguments
from paddle_ftstrat.tools.migrate.facts import Facts
from paddle_ftstrat.tools.migrate.paddlenlp import Counterpart

WIDTH = 96
_TODO = re.compile(r"\s*# TODO\(ftstrat\): (.*)")
_CONTINUED = re.compile(r"\s*#     (\S.*)")


@dataclass(frozen=True)
class Note:
    """Something at a line (in a notebook: in a code cell), counted from 1."""

    line: int
    text: str


@dataclass
class Frame:
    """What was said about one statement; `weak` TODOs only count where there is no other.

    `comments` are those of arguments that are gone, `before` and `after` statements to put there.
    """

    todos: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """One call.

    Attributes:
        name: the dotted name that is called, under PaddleHub or fluid.
        original: the call as it was; its arguments resolve to facts, those of the rewritten one do not.
        facts: what is known of the script.
        text: the script's text model and data in PaddleNLP, None where there are none.
        frame: what is said about the statement that the call is in.
        note: say what was rewritten.
        require: have a module, or a name from it, imported.
    """

    name: str
    original: cst.Call
    facts: Facts
    text: Counterpart | None
    frame: Frame
    note: Callable[[str], None]
    require: Callable[..., None]

    def todo(self, text: str) -> None:
        """Say what is left to do at this statement."""
        self.frame.todos.append(text)


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
    there = "\n".join(line.comment.value for line in statement.leading_lines if line.comment is not None) + "\n"
    added = list(comments)
    for text in dict.fromkeys(texts):
        lines = comment(text)
        added += lines if "\n".join(lines) + "\n" not in there else []
    new = [cst.EmptyLine(comment=cst.Comment(line)) for line in added]
    return statement.with_changes(leading_lines=[*statement.leading_lines, *new]) if new else statement


def between(before: Iterable[str], statement: Any, after: Iterable[str]) -> list[Any]:
    """The statement with others before and after it, functions among blank lines."""
    blank = cst.EmptyLine(indent=False)
    above = [cst.parse_statement(code.strip("\n")).with_changes(leading_lines=[blank]) for code in before]
    if above and not (statement.leading_lines and statement.leading_lines[0].comment is None):
        statement = statement.with_changes(leading_lines=[blank, *statement.leading_lines])
    return [*above, statement, *map(cst.parse_statement, after)]


def own_comments(node: cst.CSTNode) -> list[cst.EmptyLine]:
    """The comments inside and behind a node, not those above it, as lines."""
    above = [line.comment.value for line in getattr(node, "leading_lines", ()) if line.comment is not None]
    return [cst.EmptyLine(comment=cst.Comment(text)) for text in arguments.comments(node)[len(above) :]]


def cleaned(body: Sequence[Any], gone: Collection[cst.CSTNode]) -> list[Any]:
    """The statements that stay; comments of one that goes stay with the next."""
    kept: list[Any] = []
    waiting: list[Any] = []
    for statement in body:
        if statement in gone:
            waiting += statement.leading_lines
            continue
        if any(line.comment for line in waiting) or not statement.leading_lines:
            statement = statement.with_changes(leading_lines=[*waiting, *statement.leading_lines])
        waiting = []
        kept.append(statement)
    return kept


def is_todo(comment: str) -> bool:
    """Whether a comment is the first line of a TODO."""
    return _TODO.match(comment) is not None


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
