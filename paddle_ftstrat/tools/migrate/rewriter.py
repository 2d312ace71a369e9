"""The walk over the tree: finds what comes from PaddleHub and fluid, and asks the rules."""

from __future__ import annotations

from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from paddle_ftstrat.tools.migrate import (
    arguments,
    config,
    fluid,
    fluid_advice,
    fluid_decays,
    hub_advice,
    hub_names,
    strategies,
    tasks,
    todo,
)
from paddle_ftstrat.tools.migrate.facts import CONTEXT, DERIVED, MODULE, Facts, Names
from paddle_ftstrat.tools.migrate.report import Note
from paddle_ftstrat.tools.migrate.site import Findings, Frame, Site

_STATEMENTS = (cst.SimpleStatementLine, cst.BaseCompoundStatement)


class Rewriter(cst.CSTTransformer):
    """Rewrites all but the import statements.

    Args:
        wrapper: the script's tree with its metadata.
        facts: what is known of the script.
    """

    def __init__(self, wrapper: MetadataWrapper, facts: Facts) -> None:
        super().__init__()
        self._positions = wrapper.resolve(PositionProvider)
        self.findings = Findings()
        self._facts = facts
        self._inner: set[int] = set()
        self._called: set[int] = set()
        self._aliased: set[int] = set()
        self._unread: set[int] = set()
        self._annotations = 0
        self._head = hub_advice.head_for(hub_names.short(name) for name in facts.uses)

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Open a frame for each statement; leave import statements alone."""
        if isinstance(node, _STATEMENTS):
            self.findings.frames.append(Frame())
        if isinstance(node, (cst.Import, cst.ImportFrom)):
            self.findings.import_lines.append(self._line(node))
            return False
        return super().on_visit(node)

    def on_leave(self, original: Any, updated: Any) -> Any:
        """Put what was said about a statement above it."""
        updated = super().on_leave(original, updated)
        if isinstance(original, _STATEMENTS):
            frame = self.findings.frames.pop()
            updated = todo.with_todos(updated, frame.todos or frame.weak, frame.comments)
        return updated

    def visit_Call(self, node: cst.Call) -> None:
        """Remember that a name is called, and not just named."""
        self._called.add(id(node.func))

    def visit_Expr(self, node: cst.Expr) -> None:
        """Remember that nothing is done with the value of a statement."""
        self._unread.add(id(node.value))

    def visit_Assign(self, node: cst.Assign) -> None:
        """Remember `S = hub.X`, whose calls are rewritten where they are."""
        self._inner.update(id(target.target) for target in node.targets)
        if self._facts.is_alias(node.targets[0].target):
            self._aliased.add(id(node.value))

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        """Remember `S: type = hub.X`."""
        self._inner.add(id(node.target))
        if self._facts.is_alias(node.target):
            self._aliased.add(id(node.value))

    def visit_Attribute(self, node: cst.Attribute) -> None:
        """Treat a dotted name as a whole."""
        if id(node) in self._inner or self._name(node) is not None:
            self._inner.add(id(node.value))

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        """A dotted name that is not called."""
        return self._named(original, updated)

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.BaseExpression:
        """A name that is not called."""
        if original.value == "paddlehub" and self._facts.finetunes and self._name(original) == "paddlehub":
            return cst.Name("paddle_ftstrat")
        return self._named(original, updated)

    def leave_Assign(self, original: cst.Assign, updated: cst.Assign) -> cst.Assign:
        """A variable that holds a scheduler dict, or something that only the static graph needs."""
        targets = [local for target in original.targets for local in self._facts.locals_of(target.target)]
        if isinstance(updated.value, cst.Dict) and self._facts.schedulers.intersection(targets):
            site = self._site("scheduler", original, cst.Call(cst.Name("dict")))
            return updated.with_changes(value=strategies.rewrite_dict(updated.value, site))
        if self._facts.kind_of(original.value) == DERIVED and not isinstance(original.value, (cst.Name, cst.Call)):
            self._frame.todos.append(hub_advice.DERIVED)
        return updated

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        """A call of something from PaddleHub or fluid; comments of arguments that are gone stay above it."""
        new = self._call(original, updated)
        if new is not updated:
            kept = arguments.comments(new)
            self._frame.comments += [text for text in arguments.comments(updated) if text not in kept]
        return new

    def visit_Annotation(self, node: cst.Annotation) -> None:
        """Nothing is called in an annotation."""
        self._annotations += 1

    def leave_Annotation(self, original: cst.Annotation, updated: cst.Annotation) -> cst.Annotation:
        """Names in it count again."""
        self._annotations -= 1
        return updated

    def _call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        name = self._name(original.func)
        if name is None:
            return self._method(original, updated)
        site = self._site(name, original, original)
        if name.startswith("paddlehub"):
            return self._hub_call(hub_names.short(name), updated, site)
        if name == "paddle.fluid.clip.set_gradient_clip":
            return fluid.set_gradient_clip(updated, site)
        if fluid_decays.key_of(name):
            return fluid_decays.rewrite(updated, site)
        if fluid.knows(name):
            return fluid.rewrite(updated, site)
        if name.startswith("paddle.fluid.optimizer.") and name.endswith(".minimize"):
            self._frame.todos.append(fluid.minimize_advice("optimizer"))
        else:
            self._frame.todos.append(fluid_advice.advice(name))
        return updated

    def _hub_call(self, name: str, updated: cst.Call, site: Site) -> cst.BaseExpression:
        if name in hub_names.STRATEGIES:
            return strategies.rewrite(updated, site)
        if name == hub_names.CONFIG:
            return config.rewrite(updated, site)
        if name in hub_names.TASKS:
            return tasks.rewrite(updated, site)
        self._frame.todos.append(hub_advice.advice(name, site.original, self._head))
        return updated

    def _method(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        if not isinstance(original.func, cst.Attribute):
            return updated
        kind, name = self._facts.kind_of(original.func.value), original.func.attr.value
        site = self._site(name, original, original)
        if kind == "strategy" and name == "add_scheduler":
            return strategies.add_scheduler(updated, site)
        if kind == "task":
            return tasks.method(updated, name, site, is_read=id(original) not in self._unread)
        if kind == "optimizer" and name == "minimize":
            self._frame.todos.append(fluid.minimize_advice(_code(original.func.value)))
        if kind == MODULE:
            self._module_method(name)
        return updated

    def _module_method(self, name: str) -> None:
        if name == CONTEXT:
            self._frame.todos.append(hub_advice.CONTEXT)
        elif name == "get_params_layer":
            self._frame.todos.append(strategies.LAYERS_TODO)
        else:
            self._frame.weak.append(f"{name}() went with the PaddleHub module: write its value, or ask the new model")

    def _named(self, original: cst.CSTNode, updated: Any) -> Any:
        """A name on its own: `S = hub.X`, `class S(hub.X)`, `isinstance(o, fluid.X)`."""
        if id(original) in self._inner or id(original) in self._called:
            return updated
        name = self._name(original)
        if name is None:
            return updated
        is_passed_on = id(original) not in self._aliased and not self._annotations
        if is_passed_on and hub_names.short(name) == "AdamWeightDecayStrategy":
            self._frame.weak.append(strategies.WARMUP_TODO)
        if self._through_alias(original):
            return updated
        if name.startswith("paddlehub"):
            inner = hub_names.short(name)
            if inner and not hub_names.is_ours(inner):
                self._frame.todos.append(hub_advice.advice(inner))
            return tasks.renamed(updated, inner) if inner in hub_names.TASKS else updated
        target = fluid.target_of(name)
        if target is not None:
            self._note(original, f"{name[len('paddle.') :]} → {target}")
            self.findings.required.add(target.partition(".")[0])
            return cst.parse_expression(target)
        if name != "paddle.fluid":
            self._frame.todos.append(fluid_advice.advice(name))
        return updated

    @property
    def _frame(self) -> Frame:
        return self.findings.frames[-1]

    def _site(self, name: str, original: cst.CSTNode, call: cst.Call) -> Site:
        return Site(
            name=name,
            original=call,
            through_alias=self._through_alias(call.func),
            facts=self._facts,
            note=lambda text: self._note(original, text),
            todo=self._frame.todos.append,
            require=self.findings.required.add,
        )

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.findings.notes.append(Note(self._line(node), text))

    def _line(self, node: cst.CSTNode) -> int:
        return self._positions[node].start.line

    def _name(self, node: cst.CSTNode) -> str | None:
        return self._facts.name_of(node)

    def _through_alias(self, node: cst.CSTNode) -> bool:
        if not isinstance(node, (cst.Name, cst.Attribute)):
            return False
        found = self._facts.qualified(node)
        return Names().imported(node, found) is None and self._facts.names.imported(node, found) is not None


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)
