"""What the names of a script mean: which come from PaddleHub and fluid, and what kind of thing variables hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, QualifiedNameProvider, QualifiedNameSource

from paddle_ftstrat.tools.migrate import names

CONTEXT, DERIVED, MODULE = "context", "derived", "module"


class Facts(cst.CSTVisitor):
    """One walk over a script, before anything is rewritten; afterwards it answers for the same tree.

    Args:
        wrapper: the script's tree with its metadata.

    Attributes:
        aliases: local qualified name → the imported name that it stands for (`S = hub.X`), "" for several.
        stars: the modules of PaddleHub that all names are imported from.
        kinds: local qualified name → what it holds: module, context, derived, task, strategy.
        readers: local qualified name of a PaddleHub reader → the variable that was its `dataset=`.
        uses: every PaddleHub or fluid name in use: (identifier in the script, dotted name).
    """

    def __init__(self, wrapper: MetadataWrapper) -> None:
        super().__init__()
        self._qualified = wrapper.resolve(QualifiedNameProvider)
        self.aliases: dict[str, str] = {}
        self.stars: list[str] = []
        self.kinds: dict[str, str] = {}
        self.readers: dict[str, str] = {}
        self.uses: set[tuple[str, str]] = set()
        self._imported = False

    @property
    def relevant(self) -> bool:
        """Whether the script has to do with PaddleHub or fluid at all."""
        return self._imported or bool(self.uses)

    @property
    def used(self) -> set[str]:
        """The (shortened) PaddleHub names in use."""
        return {names.short(name) for _, name in self.uses}

    @property
    def finetunes(self) -> bool:
        """Whether the script uses a part of PaddleHub that this library has."""
        return bool(self.stars) or any(map(names.is_ours, self.used))

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        module = dotted(node.module) if node.module is not None and not node.relative else ""
        items = [] if isinstance(node.names, cst.ImportStar) else node.names
        self._imported |= any(map(names.under, [module, *(f"{module}.{item.evaluated_name}" for item in items)]))
        if isinstance(node.names, cst.ImportStar) and module.startswith("paddlehub"):
            self.stars.append(module)
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        self._imported |= any(names.under(item.evaluated_name) for item in node.names)
        return False

    def visit_Assign(self, node: cst.Assign | cst.AnnAssign) -> None:
        targets = [node.target] if isinstance(node, cst.AnnAssign) else [target.target for target in node.targets]
        value = node.value
        if value is None:
            return
        name = self.name_of(value)
        if name is not None and len(targets) == 1:
            for local in self.locals_of(targets[0]):
                # A name that stands for two things stands for neither.
                self.aliases[local] = name if self.aliases.get(local, name) == name else ""
        kind = self.kind_of(value)
        read = self._data_of(value)
        for target in targets:
            if kind is not None:
                self._mark(target, kind)
            if read:
                self.readers.update(dict.fromkeys(self.locals_of(target), read))

    visit_AnnAssign = visit_Assign

    def visit_Attribute(self, node: cst.Attribute | cst.Name) -> None:
        name = self.name_of(node)
        if name is not None:
            self.uses.add((dotted(node).partition(".")[0], name))

    visit_Name = visit_Attribute

    def name_of(self, node: cst.CSTNode) -> str | None:
        """The PaddleHub or fluid name that a node stands for, by its import or through an assignment."""
        return self._by_import(node) or self._by_alias(node)

    def through_alias(self, node: cst.CSTNode) -> bool:
        """Whether a node stands for such a name without being one: a variable keeps its name."""
        return self._by_import(node) is None and self._by_alias(node) is not None

    def is_alias(self, node: cst.CSTNode) -> bool:
        """Whether a variable stands for one PaddleHub or fluid name."""
        return any(self.aliases.get(local) for local in self.locals_of(node))

    def _by_import(self, node: cst.CSTNode) -> str | None:
        found = [entry.name for entry in self.qualified(node) if entry.source is QualifiedNameSource.IMPORT]
        return min(filter(names.under, found), default=None)

    def _by_alias(self, node: cst.CSTNode) -> str | None:
        found = self.qualified(node)
        if not found and isinstance(node, cst.Name) and node.value in names.PUBLIC:
            return next((f"{star}.{node.value}" for star in self.stars), None)
        for entry in found:
            parts = entry.name.split(".")
            for cut in range(len(parts), 0, -1):
                target = self.aliases.get(".".join(parts[:cut]))
                if target:
                    return ".".join([target, *parts[cut:]])
        return None

    def qualified(self, node: cst.CSTNode) -> Collection[Any]:
        """LibCST's qualified names of a name or a chain of attributes, which it finds when they are asked for."""
        found = self._qualified.get(node, ()) if isinstance(node, (cst.Name, cst.Attribute)) else ()
        return (found() if callable(found) else found) or ()

    def locals_of(self, node: cst.CSTNode) -> list[str]:
        """The qualified names of a variable (or attribute of one)."""
        found = (entry for entry in self.qualified(node) if entry.source is QualifiedNameSource.LOCAL)
        return [_of_instance(entry.name) for entry in found]

    def kind_of(self, node: cst.BaseExpression) -> str | None:
        """What kind of thing an expression gives, as far as it matters here."""
        if isinstance(node, cst.Call):
            return self._kind_of_call(node)
        known = [self.kinds[local] for local in self.locals_of(node) if local in self.kinds]
        if known:
            return known[0]
        inner: set[str | None] = set()
        if isinstance(node, (cst.Attribute, cst.Subscript)):
            inner = {self.kind_of(node.value)}
        elif isinstance(node, (cst.List, cst.Tuple)):
            inner = {self.kind_of(element.value) for element in node.elements}
        return DERIVED if inner & {CONTEXT, DERIVED} else None

    def _kind_of_call(self, node: cst.Call) -> str | None:
        name = self.name_of(node.func)
        if name is not None:
            return names.kind(name)
        if isinstance(node.func, cst.Attribute) and node.func.attr.value == CONTEXT:
            return CONTEXT if self.kind_of(node.func.value) == MODULE else None
        return None

    def _data_of(self, node: cst.BaseExpression) -> str:
        """The variable that a call of a PaddleHub reader has as its data set, "" for none."""
        if not isinstance(node, cst.Call) or not (self.name_of(node.func) or "").startswith("paddlehub.reader."):
            return ""
        given = [arg.value for arg in node.args if arg.keyword is not None and arg.keyword.value == "dataset"]
        return dotted(given[0]) if given else ""

    def _mark(self, target: cst.BaseExpression, kind: str) -> None:
        if isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self._mark(element.value, kind)
        self.kinds.update(dict.fromkeys(self.locals_of(target), kind))


def dotted(node: cst.CSTNode | None) -> str:
    """`a.b.c` for a chain of attributes, "" for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr.value}" if before else ""
    return ""


def _of_instance(local: str) -> str:
    """`A.m.<locals>.self.task` as `A.self.task`, which all methods of a class share."""
    before, found, attribute = local.rpartition(".<locals>.self.")
    return f"{before.rpartition('.')[0]}.self.{attribute}" if found else local
