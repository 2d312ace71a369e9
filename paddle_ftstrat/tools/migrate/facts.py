"""What the names of a script mean: which come from PaddleHub and fluid, and what kind of thing variables hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, QualifiedNameProvider, QualifiedNameSource

from paddle_ftstrat.tools.migrate import hub_names

ROOTS = ("paddlehub", "paddle.fluid")
CONTEXT, DERIVED, MODULE = "context", "derived", "module"


class Names:
    """Resolves nodes to the dotted names that they were imported under, through assignments like `S = hub.X` too."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.stars: list[str] = []

    def imported(self, node: cst.CSTNode, qualified: Iterable[Any]) -> str | None:
        """The name under PaddleHub or fluid that a node stands for, None for anything else."""
        qualified = list(qualified)
        for entry in sorted(qualified, key=lambda entry: entry.name):
            if entry.source is QualifiedNameSource.IMPORT and _under_root(entry.name):
                return entry.name
        for entry in qualified:
            alias = self._alias(entry.name)
            if alias is not None:
                return alias
        if not qualified and isinstance(node, cst.Name) and node.value in hub_names.PUBLIC:
            return next((f"{star}.{node.value}" for star in self.stars), None)
        return None

    def _alias(self, local: str) -> str | None:
        parts = local.split(".")
        for cut in range(len(parts), 0, -1):
            target = self.aliases.get(".".join(parts[:cut]))
            if target:
                return ".".join([target, *parts[cut:]])
        return None


class Facts(cst.CSTVisitor):
    """One walk over a script, before anything is rewritten; afterwards it answers for the same tree.

    Args:
        wrapper: the script's tree with its metadata.

    Attributes:
        names: the resolver of imported names.
        kinds: local qualified name → what it holds: module, context, derived, task, strategy, optimizer, schedule.
        schedulers: local qualified names of dicts that are given as `scheduler=`.
        readers: local qualified name of a PaddleHub reader → the variable that was its `dataset=`.
        uses: every PaddleHub or fluid name in use, as a dotted name.
    """

    def __init__(self, wrapper: MetadataWrapper) -> None:
        super().__init__()
        self._qualified = wrapper.resolve(QualifiedNameProvider)
        self.names = Names()
        self.kinds: dict[str, str] = {}
        self.schedulers: set[str] = set()
        self.readers: dict[str, str] = {}
        self.uses: set[str] = set()
        self._imported = False

    @property
    def relevant(self) -> bool:
        """Whether the script has to do with PaddleHub or fluid at all."""
        return self._imported or bool(self.uses)

    @property
    def finetunes(self) -> bool:
        """Whether the script uses a part of PaddleHub that this library has."""
        return bool(self.names.stars) or any(hub_names.is_ours(hub_names.short(name)) for name in self.uses)

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        """Note star imports, which give names that no metadata resolves."""
        module = dotted(node.module) if node.module is not None and not node.relative else ""
        items = [] if isinstance(node.names, cst.ImportStar) else [item.evaluated_name for item in node.names]
        self._imported |= _under_root(module) or (module == "paddle" and "fluid" in items)
        if isinstance(node.names, cst.ImportStar) and module.startswith("paddlehub"):
            self.names.stars.append(module)
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        """Note imports of PaddleHub and fluid."""
        self._imported |= any(_under_root(item.evaluated_name) for item in node.names)
        return False

    def visit_Assign(self, node: cst.Assign) -> None:
        """Note aliases and what kind of thing is assigned."""
        self._assigned([target.target for target in node.targets], node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        """Note the same where a type stands between."""
        if node.value is not None:
            self._assigned([node.target], node.value)

    def _assigned(self, targets: Sequence[cst.BaseExpression], value: cst.BaseExpression) -> None:
        name = self.name_of(value)
        if name is not None and len(targets) == 1:
            for local in self.locals_of(targets[0]):
                # A name that stands for two things stands for neither.
                known = self.names.aliases.get(local, name)
                self.names.aliases[local] = name if known == name else ""
        kind = self.kind_of(value)
        read = self._data_of(value)
        for target in targets:
            if kind is not None:
                self._mark(target, kind)
            if read:
                self.readers.update(dict.fromkeys(self.locals_of(target), read))

    def visit_Call(self, node: cst.Call) -> None:
        """Note the variables that hold a scheduler dict."""
        for arg in node.args:
            if arg.keyword is not None and arg.keyword.value == "scheduler":
                self.schedulers.update(self.locals_of(arg.value))

    def visit_Attribute(self, node: cst.Attribute) -> None:
        """Note the names in use."""
        self._use(node)

    def visit_Name(self, node: cst.Name) -> None:
        """Note the names in use."""
        self._use(node)

    def name_of(self, node: cst.CSTNode) -> str | None:
        """The PaddleHub or fluid name that a node stands for."""
        if not isinstance(node, (cst.Name, cst.Attribute)):
            return None
        return self.names.imported(node, self.qualified(node))

    def is_alias(self, node: cst.CSTNode) -> bool:
        """Whether a variable stands for one PaddleHub or fluid name."""
        return any(self.names.aliases.get(local) for local in self.locals_of(node))

    def qualified(self, node: cst.CSTNode) -> Collection[Any]:
        """LibCST's qualified names of a node, which it finds when they are asked for."""
        found = self._qualified.get(node, ())
        return (found() if callable(found) else found) or ()

    def locals_of(self, node: cst.CSTNode) -> list[str]:
        """The qualified names of a variable (or attribute of one)."""
        if not isinstance(node, (cst.Name, cst.Attribute)):
            return []
        found = self.qualified(node)
        return [_of_instance(entry.name) for entry in found if entry.source is QualifiedNameSource.LOCAL]

    def kind_of(self, node: cst.BaseExpression) -> str | None:
        """What kind of thing an expression gives, as far as it matters here."""
        if isinstance(node, cst.Call):
            return self._kind_of_call(node)
        if isinstance(node, (cst.Name, cst.Attribute)):
            known = [self.kinds[local] for local in self.locals_of(node) if local in self.kinds]
            if known:
                return known[0]
        if isinstance(node, (cst.Attribute, cst.Subscript)):
            inner = self.kind_of(node.value)
            return DERIVED if inner in (CONTEXT, DERIVED) else None
        if isinstance(node, (cst.List, cst.Tuple)) and node.elements:
            kinds = {self.kind_of(element.value) for element in node.elements}
            return DERIVED if kinds & {CONTEXT, DERIVED} else None
        return None

    def _kind_of_call(self, node: cst.Call) -> str | None:
        name = self.name_of(node.func)
        if name is not None:
            return hub_names.kind(name)
        if isinstance(node.func, cst.Attribute) and self.kind_of(node.func.value) == MODULE:
            return CONTEXT if node.func.attr.value == "context" else None
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
        for local in self.locals_of(target):
            self.kinds[local] = kind

    def _use(self, node: cst.CSTNode) -> None:
        name = self.name_of(node)
        if name is not None:
            self.uses.add(name)


def dotted(node: cst.CSTNode | None) -> str:
    """`a.b.c` for a chain of attributes, "" for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr.value}" if before else ""
    return ""


def _under_root(name: str) -> bool:
    return any(name == root or name.startswith(root + ".") for root in ROOTS)


def _of_instance(local: str) -> str:
    """`A.m.<locals>.self.task` as `A.self.task`, which all methods of a class share."""
    before, found, attribute = local.rpartition(".<locals>.self.")
    return f"{before.rpartition('.')[0]}.self.{attribute}" if found else local
