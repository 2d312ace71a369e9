"""The import statements of a rewritten script: PaddleHub's become ours, fluid's go where nothing needs them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, QualifiedNameProvider, QualifiedNameSource

from paddle_ftstrat.tools.migrate import hub_advice, hub_names, todo
from paddle_ftstrat.tools.migrate.facts import dotted
from paddle_ftstrat.tools.migrate.report import Note

FLUID_TODO = "delete this import when the lines marked below are done: Paddle ≥ 2.5 has no paddle.fluid"
_STAR_TODO = "import what is used by name: a star import brings in other names than PaddleHub's"


def rewrite(
    module: cst.Module, finetunes: bool, required: Collection[str], lines: Sequence[int]
) -> tuple[cst.Module, list[Note]]:
    """The module with its imports put right, and notes of what was changed.

    Args:
        module: the module, everything else rewritten.
        finetunes: whether the script uses a part of PaddleHub that this library has.
        required: modules that the rewritten code needs.
        lines: the old line of each import statement, in order.
    """
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    uses = _Uses()
    wrapper.visit(uses)
    rewriter = _Imports(uses, finetunes, lines)
    module = wrapper.module.visit(rewriter)
    missing = sorted(set(required) - _bound_at_the_top(module))
    return _with_imports(module, missing), rewriter.notes


class _Uses(cst.CSTVisitor):
    """(root identifier, dotted name) of every imported name in use."""

    METADATA_DEPENDENCIES = (QualifiedNameProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self._add(node, dotted(node).partition(".")[0])

    def visit_Name(self, node: cst.Name) -> None:
        self._add(node, node.value)

    def of(self, root: str, name: str) -> bool:
        """Whether anything under a name is used through an identifier."""
        return any(r == root and (n == name or n.startswith(name + ".")) for r, n in self.found)

    def _add(self, node: cst.CSTNode, root: str) -> None:
        for entry in self.get_metadata(QualifiedNameProvider, node, ()) or ():
            if entry.source is QualifiedNameSource.IMPORT:
                self.found.add((root, entry.name))


class _Imports(cst.CSTTransformer):
    def __init__(self, uses: _Uses, finetunes: bool, lines: Sequence[int]) -> None:
        super().__init__()
        self.notes: list[Note] = []
        self._uses = uses
        self._finetunes = finetunes
        self._lines = iter(lines)
        self._gone: set[int] = set()

    def leave_SimpleStatementLine(self, original: Any, updated: Any) -> Any:
        if not any(isinstance(part, (cst.Import, cst.ImportFrom)) for part in original.body):
            return updated
        parts, todos = [], []
        for part in updated.body:
            if isinstance(part, (cst.Import, cst.ImportFrom)):
                new, texts = self._import(part, next(self._lines))
                parts += new
                todos += texts
            else:
                parts.append(part)
        if not parts:
            marker = updated.with_changes(body=[cst.Pass()])
            self._gone.add(id(marker))
            return marker
        if [id(part) for part in parts] == [id(part) for part in updated.body]:
            return todo.with_todos(updated, todos)
        return self._in_lines(updated, parts, todos)

    def leave_SimpleStatementSuite(self, original: Any, updated: Any) -> Any:
        parts = []
        for part in updated.body:
            parts += (
                self._import(part, next(self._lines))[0] if isinstance(part, (cst.Import, cst.ImportFrom)) else [part]
            )
        return updated.with_changes(body=parts or [cst.Pass()])

    def leave_IndentedBlock(self, original: Any, updated: Any) -> Any:
        return updated.with_changes(body=self._cleaned(updated.body) or [cst.SimpleStatementLine([cst.Pass()])])

    def leave_Module(self, original: Any, updated: Any) -> Any:
        return updated.with_changes(body=self._cleaned(updated.body))

    def _in_lines(self, line: Any, parts: Sequence[Any], todos: Sequence[str]) -> Any:
        """An import that had a line of its own becomes one line each; comments above stay above, one behind behind."""
        if len(line.body) > 1:
            return todo.with_todos(line.with_changes(body=parts), todos)
        new = [cst.SimpleStatementLine([part]) for part in parts]
        new[-1] = new[-1].with_changes(trailing_whitespace=line.trailing_whitespace)
        new[0] = new[0].with_changes(leading_lines=line.leading_lines)
        new[-1] = todo.with_todos(new[-1], todos)
        return cst.FlattenSentinel(new)

    def _cleaned(self, body: Sequence[Any]) -> list[Any]:
        """The statements that stay; comments and blank lines above one that goes stay with the next."""
        kept: list[Any] = []
        waiting: list[Any] = []
        for statement in body:
            if id(statement) in self._gone:
                waiting += statement.leading_lines
                continue
            if any(line.comment for line in waiting) or not statement.leading_lines:
                statement = statement.with_changes(leading_lines=[*waiting, *statement.leading_lines])
            waiting = []
            kept.append(statement)
        return kept

    def _import(self, node: Any, line: int) -> tuple[list[Any], list[str]]:
        """What stands in the place of an import statement, and TODOs."""
        if isinstance(node, cst.Import):
            return self._plain(node, line)
        module = "" if node.relative or node.module is None else dotted(node.module)
        if module == "paddlehub" or module.startswith("paddlehub."):
            return self._from_hub(node, module, line)
        if module == "paddle.fluid" or module.startswith("paddle.fluid.") or module == "paddle":
            return self._from_fluid(node, module, line)
        return [node], []

    def _plain(self, node: cst.Import, line: int) -> tuple[list[Any], list[str]]:
        kept, todos, changed = [], [], False
        for item in node.names:
            name, local = item.evaluated_name, item.evaluated_alias
            if name.split(".")[0] == "paddlehub":
                new = self._our_module(name[len("paddlehub") :].lstrip("."))
                if new is None:
                    todos.append(hub_advice.of_import(name))
                    kept.append(item)
                    continue
                changed = True
                alias = f" as {local}" if local else ""
                self.notes.append(Note(line, f"import {name}{alias} → import {new}{alias}"))
                kept.append(item.with_changes(name=cst.parse_expression(new)))
            elif name == "paddle.fluid" or name.startswith("paddle.fluid."):
                root = local or "paddle"
                if self._uses.of(root, name):
                    todos.append(FLUID_TODO)
                    kept.append(item)
                else:
                    changed = True
                    self.notes.append(Note(line, f"import {name} dropped: nothing uses it any more"))
            else:
                kept.append(item)
        if not changed:
            return [node], todos
        if kept:
            kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return ([node.with_changes(names=kept)] if kept else []), todos

    def _our_module(self, inner: str) -> str | None:
        """Our module for one of PaddleHub's, None where there is none or nothing of ours is used."""
        if inner.startswith("finetune.task"):
            inner = "finetune.task"
        if inner not in hub_names.MODULES or not (self._finetunes or inner):
            return None
        return "paddle_ftstrat" + (f".{inner}" if inner else "")

    def _from_hub(self, node: cst.ImportFrom, module: str, line: int) -> tuple[list[Any], list[str]]:
        inner = module.partition(".")[2]
        new = self._our_module(inner) or ("paddle_ftstrat" if not inner else None)
        if isinstance(node.names, cst.ImportStar):
            if new is None:
                return [node], [hub_advice.of_import(module)]
            self.notes.append(Note(line, f"from {module} import * → from {new} import *"))
            return [node.with_changes(module=cst.parse_expression(new))], ([] if inner else [_STAR_TODO])
        ours = [item for item in node.names if new and _is_ours(inner, item.evaluated_name)]
        rest = [item for item in node.names if item not in ours]
        todos = [hub_advice.of_import(f"{module}.{item.evaluated_name}") for item in rest]
        if not ours:
            return [node], todos
        names = ", ".join(item.evaluated_name for item in ours)
        self.notes.append(Note(line, f"from {module} import {names} → from {new} import {names}"))
        moved = [_our_item(item) for item in ours]
        if not rest:
            return [node.with_changes(module=cst.parse_expression(new), names=_like(moved, node.names))], todos
        return [
            cst.ImportFrom(cst.parse_expression(new), _listed(moved)),
            node.with_changes(names=_listed(rest), lpar=None, rpar=None),
        ], todos

    def _from_fluid(self, node: cst.ImportFrom, module: str, line: int) -> tuple[list[Any], list[str]]:
        if isinstance(node.names, cst.ImportStar):
            return [node], ([FLUID_TODO] if module != "paddle" else [])
        kept, dropped = [], []
        for item in node.names:
            name = f"{module}.{item.evaluated_name}"
            is_fluid = name == "paddle.fluid" or name.startswith("paddle.fluid.")
            unused = is_fluid and not self._uses.of(item.evaluated_alias or item.evaluated_name, name)
            (dropped if unused else kept).append(item)
        todos = [FLUID_TODO] if any(f"{module}.{i.evaluated_name}".startswith("paddle.fluid") for i in kept) else []
        if not dropped:
            return [node], todos
        names = ", ".join(item.evaluated_name for item in dropped)
        self.notes.append(Note(line, f"from {module} import {names} dropped: nothing uses it any more"))
        return ([node.with_changes(names=_listed(kept), lpar=None, rpar=None)] if kept else []), todos


def _is_ours(inner: str, name: str) -> bool:
    return hub_names.is_ours(hub_names.short(f"paddlehub.{inner}.{name}" if inner else f"paddlehub.{name}"))


def _our_item(item: cst.ImportAlias) -> cst.ImportAlias:
    """The item under our class's name; the script goes on calling it as it did."""
    name = item.evaluated_name
    target = hub_names.task_class(name) if name in hub_names.TASKS else name
    if target == name:
        return item
    return item.with_changes(name=cst.Name(target))


def _listed(items: Sequence[cst.ImportAlias]) -> list[cst.ImportAlias]:
    return [item.with_changes(comma=cst.MaybeSentinel.DEFAULT) for item in items]


def _like(items: Sequence[cst.ImportAlias], old: Sequence[cst.ImportAlias]) -> list[cst.ImportAlias]:
    return [item.with_changes(comma=was.comma) for item, was in zip(items, old)]


def _bound_at_the_top(module: cst.Module) -> set[str]:
    """The packages that `import x` or `import x.y` binds at the top level of a module."""
    found = set()
    for statement in module.body:
        for part in getattr(statement, "body", ()) if isinstance(statement, cst.SimpleStatementLine) else ():
            if isinstance(part, cst.Import):
                found |= {item.evaluated_name.split(".")[0] for item in part.names if item.asname is None}
    return found


def _with_imports(module: cst.Module, names: Sequence[str]) -> cst.Module:
    """The module with `import name` for each name, before its first other import."""
    if not names:
        return module
    new = [cst.SimpleStatementLine([cst.Import([cst.ImportAlias(cst.Name(name))])]) for name in names]
    place = _place(module.body)
    body = list(module.body)
    if place < len(body) and place > 0:
        first = body[place]
        new[0] = new[0].with_changes(leading_lines=first.leading_lines)
        body[place] = first.with_changes(leading_lines=[])
    return module.with_changes(body=[*body[:place], *new, *body[place:]])


def _place(body: Sequence[Any]) -> int:
    """Before the first import that is not from __future__, else after docstring and __future__ imports."""
    after = 0
    for index, statement in enumerate(body):
        parts = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
        for part in parts:
            if isinstance(part, cst.ImportFrom) and part.module is not None and dotted(part.module) == "__future__":
                after = index + 1
            elif isinstance(part, (cst.Import, cst.ImportFrom)):
                return index
            elif index == 0 and isinstance(part, cst.Expr) and isinstance(part.value, cst.SimpleString):
                after = 1
    return after
