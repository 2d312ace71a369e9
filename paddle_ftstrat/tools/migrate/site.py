"""What a rule gets to know about the call that it rewrites, and how it says what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import libcst as cst

from paddle_ftstrat.tools.migrate.facts import Facts
from paddle_ftstrat.tools.migrate.report import Note


@dataclass(frozen=True)
class Site:
    """One call.

    Attributes:
        name: the dotted name that is called, under PaddleHub or fluid.
        original: the call as it was; its arguments resolve to facts, those of the rewritten one do not.
        through_alias: it is called through a variable (`S = hub.X; S()`), which keeps its name.
        facts: what is known of the script.
        note, todo: say what was rewritten, and what is left to do at this statement.
        require: have a module imported.
    """

    name: str
    original: cst.Call
    through_alias: bool
    facts: Facts
    note: Callable[[str], None]
    todo: Callable[[str], None]
    require: Callable[[str], None]

    def call_of(self, call: cst.Call, target: str) -> cst.Call:
        """The call, of `target` instead; a variable that is called keeps its name."""
        if self.through_alias:
            return call
        self.require(target.partition(".")[0])
        return call.with_changes(func=cst.parse_expression(target))


@dataclass
class Frame:
    """What was said about one statement; `weak` TODOs only count where there is no other.

    `comments` are those of arguments that are gone.
    """

    todos: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """What the rules said: notes with their lines, what belongs above statements, modules to import."""

    notes: list[Note] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    required: set[str] = field(default_factory=set)
    import_lines: list[int] = field(default_factory=list)
