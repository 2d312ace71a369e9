"""Statements that only served PaddleHub's static graph, and so go: programs, their variables, lists of their names."""

from __future__ import annotations

from collections.abc import Collection

import libcst as cst

from paddle_ftstrat.tools.migrate import arguments, names, tasks
from paddle_ftstrat.tools.migrate.facts import CONTEXT, DERIVED, Facts

_GUARD = "paddle.fluid.program_guard"


class Unused(cst.CSTVisitor):
    """One walk that finds what nothing needs once the tasks take a model and a data set.

    Args:
        facts: what is known of the script.

    Attributes:
        guards: the `with fluid.program_guard(…):`, of which the body stays.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.guards: set[cst.With] = set()
        self._facts = facts
        self._dropped: set[int] = set()
        self._used: set[str] = set()
        # Statement → the names that it gives values to, and those that it reads.
        self._derived: dict[cst.SimpleStatementLine, tuple[set[str], set[str]]] = {}

    def statements(self) -> Collection[cst.SimpleStatementLine]:
        """The statements whose values nobody reads, but for others of them."""
        gone = dict(self._derived)
        while True:
            used = self._used.union(*(reads for line, (_, reads) in self._derived.items() if line not in gone))
            stays = [line for line, (targets, _) in gone.items() if targets & used]
            if not stays:
                return gone
            for line in stays:
                del gone[line]

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Whether to look into a node: not where it goes as a whole."""
        return id(node) not in self._dropped and super().on_visit(node)

    def visit_Name(self, node: cst.Name) -> None:  # noqa: D102
        self._used.add(node.value)

    def visit_With(self, node: cst.With) -> None:  # noqa: D102
        calls = [item.item for item in node.items]
        if all(isinstance(call, cst.Call) and self._facts.name_of(call.func) == _GUARD for call in calls):
            self.guards.add(node)
            self._dropped.update(map(id, node.items))

    def visit_Call(self, node: cst.Call) -> None:  # noqa: D102
        task = names.short(self._facts.name_of(node.func) or "")
        if task in names.OUR_TASKS and not (arguments.has_star(node) or arguments.has_star(node, "**")):
            named = arguments.by_name(node, names.TASKS[task])
            self._dropped.update(
                id(old) for old, new in zip(node.args, named.args) if new.keyword and new.keyword.value in tasks.GRAPH
            )

    def visit_SimpleStatementLine(self, node: cst.SimpleStatementLine) -> bool:  # noqa: D102
        assign = node.body[0]
        if len(node.body) > 1 or not isinstance(assign, cst.Assign):
            return True
        if self._facts.kind_of(assign.value) not in (CONTEXT, DERIVED):
            return True
        targets = arguments.identifiers(*(target.target for target in assign.targets))
        self._derived[node] = (targets, arguments.identifiers(assign.value))
        return False
