"""The import statements of a rewritten script: PaddleHub's become ours, fluid's go where nothing needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.metadata import MetadataWrapper

from paddle_ftstrat.tools.migrate import advice, names, site
from paddle_ftstrat.tools.migrate.facts import Facts, dotted
from paddle_ftstrat.tools.migrate.site import Note

FLUID_TODO = "delete this import when the lines marked below are done: Paddle ≥ 2.5 has no paddle.fluid"
_STAR_TODO = "import what is used by name: a star import brings in other names than PaddleHub's"


def rewrite(
    module: cst.Module, finetunes: bool, required: Iterable[tuple[str, str, str]], line_of: Callable[[cst.CSTNode], int]
) -> tuple[cst.Module, list[Note]]:
    """The module with its imports put right, and notes of what was changed.

    Args:
        module: the module, everything else rewritten.
        finetunes: whether the script uses a part of PaddleHub that this library has.
        required: what the rewritten code needs: a module, a name from it or "", another name for the module or "".
        line_of: the old line of an import statement.
    """
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    facts = Facts(wrapper)
    module.visit(facts)
    rewriter = _Imports(facts.uses, finetunes, line_of)
    module = module.visit(rewriter)
    context = CodemodContext()
    for name, item, alias in sorted(required):
        AddImportsVisitor.add_needed_import(context, name, item or None, alias or None)
    return AddImportsVisitor(context).transform_module(module), rewriter.notes


class _Imports(cst.CSTTransformer):
    def __init__(self, uses: set[tuple[str, str]], finetunes: bool, line_of: Callable[[cst.CSTNode], int]) -> None:
        super().__init__()
        self.notes: list[Note] = []
        self._uses = uses
        self._finetunes = finetunes
        self._line_of = line_of
        self._gone: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        # A node that is not walked stays the one that has a line.
        return not isinstance(node, (cst.Import, cst.ImportFrom))

    def leave_SimpleStatementLine(self, original: Any, updated: Any) -> Any:
        """An import that had a line of its own becomes one line each; comments above stay above, one behind behind."""
        parts, todos = self._parts(updated)
        if not parts:
            self._gone.add(updated)
            return updated
        if len(updated.body) > 1 or len(parts) == 1:
            return site.with_todos(updated.with_changes(body=parts), todos)
        first, last = (cst.SimpleStatementLine([part]) for part in parts)
        last = site.with_todos(last.with_changes(trailing_whitespace=updated.trailing_whitespace), todos)
        return cst.FlattenSentinel([first.with_changes(leading_lines=updated.leading_lines), last])

    def leave_SimpleStatementSuite(self, original: Any, updated: Any) -> Any:
        return updated.with_changes(body=self._parts(updated)[0] or [cst.Pass()])

    def leave_IndentedBlock(self, original: Any, updated: Any) -> Any:
        return updated.with_changes(
            body=site.cleaned(updated.body, self._gone) or [cst.SimpleStatementLine([cst.Pass()])]
        )

    def leave_Module(self, original: Any, updated: Any) -> Any:
        return updated.with_changes(body=site.cleaned(updated.body, self._gone))

    def _parts(self, statement: Any) -> tuple[list[Any], list[str]]:
        """The small statements of a line, their imports put right, and TODOs."""
        parts: list[Any] = []
        todos: list[str] = []
        for part in statement.body:
            is_import = isinstance(part, (cst.Import, cst.ImportFrom)) and not getattr(part, "relative", ())
            new, texts = self._put_right(part) if is_import else ([part], [])
            parts += new
            todos += texts
        return parts, todos

    def _put_right(self, node: Any) -> tuple[list[Any], list[str]]:
        """What is ours moves; what the script still uses of the rest stays with a TODO, what it does not use goes."""
        module = dotted(node.module) if isinstance(node, cst.ImportFrom) else ""
        new = self._our_module(module) or ("paddle_ftstrat" if module == "paddlehub" else "")
        if isinstance(node.names, cst.ImportStar):
            return self._star(node, module, new)
        ours, kept, dropped, todos = [], [], [], []
        for item in node.names:
            name = f"{module}.{item.evaluated_name}" if module else item.evaluated_name
            local, moved = item.evaluated_alias, None if module else self._our_module(name)
            is_hub = names.under(name, ("paddlehub",))
            if moved:
                alias = f" as {local}" if local else ""
                self._note(node, f"import {name}{alias} → import {moved}{alias}")
                kept.append(item.with_changes(name=cst.parse_expression(moved)))
            elif new and names.is_ours(names.short(name)):
                ours.append(item)
            elif not names.under(name):
                kept.append(item)
            elif (is_hub and not module) or self._is_used(local or (item.evaluated_name if module else "paddle"), name):
                kept.append(item)
                todos.append(advice.of_import(name) if is_hub else FLUID_TODO)
            elif module:
                dropped.append(item)
            else:
                self._note(node, f"import {name} dropped: nothing uses it any more")
        if dropped:
            self._note(node, f"from {module} import {_listed(dropped)} dropped: nothing uses it any more")
        parts: list[Any] = []
        if ours:
            self._note(node, f"from {module} import {_listed(ours)} → from {new} import {_listed(ours)}")
            parts = _with_names(node.with_changes(module=cst.parse_expression(new)), ours)
        return [*parts, *(_with_names(node, kept) if kept else [])], todos

    def _star(self, node: cst.ImportFrom, module: str, new: str) -> tuple[list[Any], list[str]]:
        if new:
            self._note(node, f"from {module} import * → from {new} import *")
            return [node.with_changes(module=cst.parse_expression(new))], [_STAR_TODO] if module == "paddlehub" else []
        if names.under(module):
            return [node], [FLUID_TODO if names.under(module, ("paddle.fluid",)) else advice.of_import(module)]
        return [node], []

    def _our_module(self, name: str) -> str | None:
        """Our module for one of PaddleHub's, None where there is none or nothing of ours is used."""
        package, _, inner = name.partition(".")
        inner = "finetune.task" if names.under(inner, ("finetune.task",)) else inner
        if package != "paddlehub" or inner not in names.MODULES or not (self._finetunes or inner):
            return None
        return f"paddle_ftstrat.{inner}".rstrip(".")

    def _is_used(self, root: str, name: str) -> bool:
        """Whether anything under a name is used through an identifier."""
        return any(identifier == root and names.under(used, (name,)) for identifier, used in self._uses)

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.notes.append(Note(self._line_of(node), text))


def _listed(items: Iterable[cst.ImportAlias]) -> str:
    return ", ".join(item.evaluated_name for item in items)


def _with_names(node: Any, items: Sequence[cst.ImportAlias]) -> list[Any]:
    """The import with these names; in a list, which is empty where none is left."""
    if len(items) == len(node.names):
        return [node.with_changes(names=items)]
    items = [item.with_changes(comma=cst.MaybeSentinel.DEFAULT) for item in items]
    layout = {} if isinstance(node, cst.Import) else {"lpar": None, "rpar": None}
    return [node.with_changes(names=items, **layout)] if items else []
