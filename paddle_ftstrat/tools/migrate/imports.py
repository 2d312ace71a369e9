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
            module = "" if getattr(part, "relative", ()) else dotted(getattr(part, "module", None))
            if isinstance(part, cst.Import):
                new, texts = self._import(part)
            elif names.under(module, ("paddlehub",)):
                new, texts = self._from_hub(part, module)
            elif names.under(module, ("paddle.fluid",)) or module == "paddle":
                new, texts = self._from_fluid(part, module)
            else:
                new, texts = [part], []
            parts += new
            todos += texts
        return parts, todos

    def _import(self, node: cst.Import) -> tuple[list[Any], list[str]]:
        kept, todos = [], []
        for item in node.names:
            name, local = item.evaluated_name, item.evaluated_alias
            if names.under(name, ("paddlehub",)):
                new = self._our_module(name)
                if new is None:
                    todos.append(advice.of_import(name))
                else:
                    alias = f" as {local}" if local else ""
                    self._note(node, f"import {name}{alias} → import {new}{alias}")
                    item = item.with_changes(name=cst.parse_expression(new))
            elif names.under(name) and self._is_used(local or "paddle", name):
                todos.append(FLUID_TODO)
            elif names.under(name):
                self._note(node, f"import {name} dropped: nothing uses it any more")
                continue
            kept.append(item)
        return _with_names(node, kept), todos

    def _from_hub(self, node: cst.ImportFrom, module: str) -> tuple[list[Any], list[str]]:
        """Ours move, what the script still uses of the rest stays with a TODO."""
        new = self._our_module(module) or ("paddle_ftstrat" if module == "paddlehub" else "")
        if isinstance(node.names, cst.ImportStar):
            if not new:
                return [node], [advice.of_import(module)]
            self._note(node, f"from {module} import * → from {new} import *")
            return [node.with_changes(module=cst.parse_expression(new))], [_STAR_TODO] if module == "paddlehub" else []
        prefix = module.partition(".")[2] + "."
        ours, theirs, gone = [], [], []
        for item in node.names:
            name = item.evaluated_name
            if new and names.is_ours(names.short((prefix + name).lstrip("."))):
                ours.append(item)
            elif self._is_used(item.evaluated_alias or name, f"{module}.{name}"):
                theirs.append(item)
            else:
                gone.append(item)
        if gone:
            self._note(node, f"from {module} import {_listed(gone)} dropped: nothing uses it any more")
        parts: list[Any] = []
        if ours:
            self._note(node, f"from {module} import {_listed(ours)} → from {new} import {_listed(ours)}")
            parts = _with_names(node.with_changes(module=cst.parse_expression(new)), ours)
        todos = [advice.of_import(f"{module}.{item.evaluated_name}") for item in theirs]
        return [*parts, *(_with_names(node, theirs) if theirs else [])], todos

    def _our_module(self, name: str) -> str | None:
        """Our module for one of PaddleHub's, None where there is none or nothing of ours is used."""
        inner = name.partition(".")[2]
        inner = "finetune.task" if names.under(inner, ("finetune.task",)) else inner
        if inner not in names.MODULES or not (self._finetunes or inner):
            return None
        return f"paddle_ftstrat.{inner}".rstrip(".")

    def _from_fluid(self, node: cst.ImportFrom, module: str) -> tuple[list[Any], list[str]]:
        if isinstance(node.names, cst.ImportStar):
            return [node], [FLUID_TODO] if module != "paddle" else []
        kept, dropped, todos = [], [], []
        for item in node.names:
            name = f"{module}.{item.evaluated_name}"
            if not names.under(name):
                kept.append(item)
            elif self._is_used(item.evaluated_alias or item.evaluated_name, name):
                kept.append(item)
                todos = [FLUID_TODO]
            else:
                dropped.append(item.evaluated_name)
        if dropped:
            self._note(node, f"from {module} import {', '.join(dropped)} dropped: nothing uses it any more")
        return _with_names(node, kept), todos

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
