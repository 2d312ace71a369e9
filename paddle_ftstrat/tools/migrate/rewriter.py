"""One script or notebook, from its old bytes to its new ones: the walk that asks the rules."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from paddle_ftstrat.tools.migrate import advice, arguments, imports, ipython, names, paddlenlp, strategies, tasks
from paddle_ftstrat.tools.migrate.facts import CONTEXT, DERIVED, MODULE, Facts
from paddle_ftstrat.tools.migrate.site import (
    Frame,
    Note,
    Site,
    between,
    cleaned,
    is_todo,
    own_comments,
    todos,
    with_todos,
)

_STATEMENTS = (cst.SimpleStatementLine, cst.BaseCompoundStatement)


@dataclass(frozen=True)
class Migrated:
    """The outcome for one text: the new bytes; what was rewritten, by lines of the old, what is left, by the new."""

    code: bytes
    rewritten: tuple[Note, ...] = ()
    left: tuple[Note, ...] = ()


def migrate(source: bytes) -> Migrated:
    """Rewrite a script that uses PaddleHub 1.x or paddle.fluid; one that uses neither comes back as it is.

    Migrating twice changes nothing more: what was rewritten is ours, and a TODO that stands there is not repeated.
    Lines of IPython (`!ls`, `%time x`), which an exported notebook has, stay.

    Args:
        source: the script, in the encoding that it declares.

    Returns:
        The new bytes, notes of what was rewritten and of what is left to do by hand.

    Raises:
        ValueError: the source is not Python 3, with the place of the error.

    Example:
        >>> migrated = migrate(b"import paddlehub as hub\\ns = hub.DefaultStrategy(optimizer_name='sgd')\\n")
        >>> print(migrated.code.decode(), end="")
        import paddle_ftstrat as hub
        s = hub.DefaultStrategy(optimizer_name='sgd')
        >>> migrated.rewritten, migrated.left
        ((Note(line=1, text='import paddlehub as hub → import paddle_ftstrat as hub'),), ())
    """
    hidden: list[bytes] = []
    module, notes = _rewritten(_parsed(ipython.hide(source, hidden)))
    text = ipython.show(module.code, hidden, module.encoding)
    return Migrated(text.encode(module.encoding), notes, todos(text))


def migrate_notebook(source: bytes) -> Migrated:
    """Rewrite the code cells of a Jupyter notebook, as one script; its outputs and metadata stay.

    Args:
        source: the file's bytes.

    Returns:
        As `migrate`; the notes hold the code cell, counted from 1, in the place of the line.

    Raises:
        ValueError: it is no notebook of Jupyter's format 4, or a cell is not Python 3.
    """
    notebook = ipython.Notebook(source)
    old = notebook.joined()
    module, notes = _rewritten(_parsed(old))
    code, cells = notebook.with_code(module.code)
    left = tuple(Note(number, note.text) for number, cell in enumerate(cells, 1) for note in todos(cell))
    notes = tuple(Note(notebook.cell_at(old.decode(), note.line), note.text) for note in notes)
    return Migrated(source if module.code.encode() == old else code, notes, left)


def _rewritten(module: cst.Module) -> tuple[cst.Module, tuple[Note, ...]]:
    wrapper = MetadataWrapper(module)
    facts = Facts(wrapper)
    wrapper.module.visit(facts)
    if not facts.relevant:
        return module, ()
    unused = tasks.Unused(facts)
    wrapper.module.visit(unused)
    text = paddlenlp.find(wrapper, facts)
    rewriter = Rewriter(wrapper, facts, unused, text)
    module = wrapper.module.visit(rewriter)
    module, notes = imports.rewrite(module, facts.finetunes, rewriter.required, rewriter.line)
    try:
        ast.parse(module.code)
    except SyntaxError as error:
        raise RuntimeError(f"the rewritten text would not be Python (line {error.lineno}: {error.msg})") from error
    return module, tuple(sorted(dict.fromkeys([*rewriter.notes, *notes]), key=lambda note: note.line))


def _parsed(source: bytes) -> cst.Module:
    """The syntax tree, with TODOs that stand above all code at the first statement, where others stand."""
    try:
        module = cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        raise ValueError(f"LibCST cannot read it: line {error.raw_line}: {error.message}") from error
    marked = [index for index, line in enumerate(module.header) if line.comment and is_todo(line.comment.value)]
    if not (marked and module.body):
        return module
    first = module.body[0]
    first = first.with_changes(leading_lines=[*module.header[marked[0] :], *first.leading_lines])
    return module.with_changes(header=module.header[: marked[0]], body=[first, *module.body[1:]])


class Rewriter(cst.CSTTransformer):
    """Rewrites all but the import statements.

    Args:
        wrapper: the script's tree with its metadata.
        facts: what is known of the script.
        unused: what of it goes.
        text: its text model and data in PaddleNLP, None where there are none.

    Attributes:
        notes: what was rewritten.
        required: what the new code needs to import: module, name from it, alias.
    """

    def __init__(
        self, wrapper: MetadataWrapper, facts: Facts, unused: tasks.Unused, text: paddlenlp.Counterpart | None
    ) -> None:
        super().__init__()
        self._positions = wrapper.resolve(PositionProvider)
        self._parents = wrapper.resolve(ParentNodeProvider)
        self.notes: list[Note] = []
        self.required: set[tuple[str, str, str]] = set()
        self._facts = facts
        self._text = text
        self._samples = text.samples if text is not None else None
        self._unused = set(unused.statements())
        self._skipped = {id(item) for guard in unused.guards for item in guard.items}
        self._gone: set[cst.CSTNode] = set()
        self._frames: list[Frame] = []
        self._head = advice.head_for(facts.used)

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _STATEMENTS):
            self._frames.append(Frame())
        is_made = self._text is not None and isinstance(node, cst.Call) and self._text.of(node) is not None
        if node in self._unused or id(node) in self._skipped or is_made:
            return False
        return not isinstance(node, (cst.Import, cst.ImportFrom)) and super().on_visit(node)

    def on_leave(self, original: Any, updated: Any) -> Any:
        updated = super().on_leave(original, updated)
        if not isinstance(original, _STATEMENTS):
            return updated
        frame = self._frames.pop()
        if original in self._unused:
            self._note(original, f"{arguments.code_of(original).partition(' = ')[0]} dropped: nothing reads it")
            updated = updated.with_changes(leading_lines=[*updated.leading_lines, *own_comments(original)])
            self._gone.add(updated)
            return updated
        first, *more = updated.nodes if isinstance(updated, cst.FlattenSentinel) else [updated]
        first = with_todos(first, frame.todos or frame.weak, frame.comments)
        around = between(frame.before, first, frame.after)
        return cst.FlattenSentinel([*around, *more]) if len(around) + len(more) > 1 else first

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        return updated.with_changes(body=cleaned(updated.body, self._gone) or [cst.parse_statement("pass")])

    def leave_Module(self, original: cst.Module, updated: cst.Module) -> cst.Module:
        return updated.with_changes(body=cleaned(updated.body, self._gone))

    def leave_With(self, original: cst.With, updated: Any) -> Any:
        """A `with` over a program alone is its body."""
        if id(original.items[0]) not in self._skipped:
            return updated
        self._note(original, "fluid.program_guard dropped: dygraph has no programs")
        first, *more = updated.body.body
        above = [*updated.leading_lines, *own_comments(updated.body.header), *first.leading_lines]
        return cst.FlattenSentinel([first.with_changes(leading_lines=above), *more])

    def visit_Comment(self, node: cst.Comment) -> None:
        if node.value.startswith(ipython.INSTALL):
            self._frames[-1].todos.append(advice.INSTALL)

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        if self._samples is not None and self._samples.is_in(original.value) and not self._is_called(original):
            return self._of_data(self._samples, original, updated)
        return self._named(original, updated)

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.BaseExpression:
        if original.value == "paddlehub" and self._facts.finetunes and self._facts.name_of(original) == "paddlehub":
            return cst.Name("paddle_ftstrat")
        return self._named(original, updated)

    def leave_Assign(self, original: cst.Assign, updated: cst.Assign) -> cst.Assign:
        if self._facts.kind_of(original.value) == DERIVED and not isinstance(original.value, (cst.Name, cst.Call)):
            self._frames[-1].todos.append(advice.DERIVED)
        return updated

    def leave_DictElement(self, original: cst.DictElement, updated: cst.DictElement) -> cst.DictElement:
        if not self._facts.finetunes:
            return updated
        return strategies.scheduler_entry(updated, functools.partial(self._note, original.value))

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        new = self._call(original, updated)
        if new is not updated:
            kept = arguments.comments(new)
            self._frames[-1].comments += [text for text in arguments.comments(updated) if text not in kept]
        return new

    def _call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        name = self._facts.name_of(original.func)
        if name is None:
            return self._method(original, updated)
        site, inner = self._site(name, original), names.short(name)
        if self._text is not None and self._text.of(original) is not None:
            return self._of_text(self._text, site)
        if inner in names.STRATEGIES:
            return strategies.rewrite(updated, site)
        if inner == names.CONFIG:
            return tasks.rewrite_config(updated, site)
        if inner in names.TASKS:
            return tasks.rewrite(updated, site)
        if name.startswith("paddlehub"):
            site.todo(advice.of_hub(inner, original, self._head))
        elif advice.today_of(name):
            return advice.rename(updated, site)
        elif not name.endswith(".minimize"):  # the optimizer's own TODO tells what to write
            site.todo(advice.of_fluid(name))
        return updated

    def _of_text(self, text: paddlenlp.Counterpart, site: Site) -> cst.BaseExpression:
        """The text model, its tokenizer, data or reader."""
        code, uses = text.of(site.original) or ("", "")
        if text.samples is not None and text.samples.last.call is site.original:
            site.frame.before.append(text.samples.encode_code())
            site.require("numpy", alias="np")
        if text.module.call is site.original and text.made is None:
            site.frame.after.append(f"{text.tokenizer} = {text.tokenizer_code()}")
            site.require("paddlenlp.transformers", "AutoTokenizer")
        if uses:
            module, _, name = uses.rpartition(".")
            site.require(module, name)
        site.note(f"{names.short(site.name)} → {code}")
        return cst.parse_expression(code)

    def _of_data(
        self, samples: paddlenlp.Samples, original: cst.Attribute, updated: cst.BaseExpression
    ) -> cst.BaseExpression:
        """An attribute or a method of the data set or its reader."""
        data, name = arguments.code_of(original.value), original.attr.value
        code = {"num_labels": f'len({data}["train"].label_list)', "get_labels": f'{data}["train"].label_list'}.get(name)
        if code is None:
            phases = ", ".join(f'{data}["{phase}"]' for phase in samples.row.splits)
            self._frames[-1].todos.append(f"{name}: {data} is a dict of PaddleNLP's data sets now: {phases}")
            return updated
        self._note(original, f"{data}.{name} → {code}")
        return cst.parse_expression(code)

    def _method(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        if not isinstance(original.func, cst.Attribute):
            return updated
        if self._samples is not None and self._samples.is_in(original.func.value):
            return self._of_data(self._samples, original.func, updated)
        kind, name = self._facts.kind_of(original.func.value), original.func.attr.value
        if kind == "strategy" and name == "add_scheduler":
            return strategies.add_scheduler(updated, functools.partial(self._note, original))
        if kind == "task":
            site = self._site(name, original)
            return tasks.method(updated, name, site, is_read=not isinstance(self._parents[original], cst.Expr))
        if kind == MODULE and name in (CONTEXT, "get_params_layer"):
            self._frames[-1].todos.append(advice.CONTEXT if name == CONTEXT else strategies.LAYERS_TODO)
        elif kind == MODULE:
            text = f"{name}() went with the PaddleHub module: write its value, or ask the new model"
            self._frames[-1].weak.append(text)
        return updated

    def _named(self, original: cst.CSTNode, updated: Any) -> Any:
        """A name on its own: `S = hub.X`, `class S(hub.X)`, `isinstance(o, fluid.X)`."""
        if self._is_inner(original) or self._is_called(original):
            return updated
        name = self._facts.name_of(original)
        if name is None:
            return updated
        inner, frame = names.short(name), self._frames[-1]
        if inner == "AdamWeightDecayStrategy" and self._is_passed_on(original):
            frame.weak.append(strategies.WARMUP_TODO)
        if self._facts.through_alias(original) or name in names.ROOTS:
            return updated
        if name.startswith("paddlehub"):
            frame.todos += [] if names.is_ours(inner) else [advice.of_hub(inner)]
            return updated
        today = advice.today_of(name)
        if not today or "uniform" in today:
            frame.todos.append(advice.of_fluid(name))
            return updated
        self._note(original, f"{name[len('paddle.') :]} → {today[0]}")
        self._require("paddle")
        return cst.parse_expression(today[0])

    def _is_called(self, node: cst.CSTNode) -> bool:
        parent = self._parents[node]
        return isinstance(parent, cst.Call) and parent.func is node

    def _is_inner(self, node: cst.CSTNode) -> bool:
        """Whether a name is given a value, or is a part of one that counts as a whole."""
        parent = self._parents[node]
        if isinstance(parent, cst.Attribute):
            return self._facts.name_of(parent) is not None or self._is_inner(parent)
        return isinstance(parent, cst.AssignTarget) or (isinstance(parent, cst.AnnAssign) and parent.target is node)

    def _is_passed_on(self, node: cst.CSTNode) -> bool:
        """Whether a name goes elsewhere than into an annotation, or a variable that stands for it."""
        parent = self._parents[node]
        if isinstance(parent, (cst.Assign, cst.AnnAssign)):
            target = parent.target if isinstance(parent, cst.AnnAssign) else parent.targets[0].target
            return not self._facts.is_alias(target)
        while not isinstance(parent, (cst.Module, cst.Annotation)):
            parent = self._parents[parent]
        return isinstance(parent, cst.Module)

    def _site(self, name: str, call: cst.Call) -> Site:
        note = functools.partial(self._note, call)
        return Site(name, call, self._facts, self._text, self._frames[-1], note, self._require)

    def _require(self, module: str, name: str = "", alias: str = "") -> None:
        self.required.add((module, name, alias))

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.notes.append(Note(self.line(node), text))

    def line(self, node: cst.CSTNode) -> int:
        """The old line of a statement or an expression."""
        return self._positions[node].start.line
