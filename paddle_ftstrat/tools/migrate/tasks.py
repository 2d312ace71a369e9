"""PaddleHub's tasks and their RunConfig: called with `model` and `dataset`; what only the static graph needed goes."""

from __future__ import annotations

from collections.abc import Collection

import libcst as cst

from paddle_ftstrat import _errors
from paddle_ftstrat.tools.migrate import arguments, names
from paddle_ftstrat.tools.migrate.facts import CONTEXT, DERIVED, Facts
from paddle_ftstrat.tools.migrate.site import Site

CONFIG_DROPPED = {
    "use_pyreader": "fed the static graph; a paddle.io.DataLoader does that now (num_workers=)",
    "enable_memory_optim": "rewrote the static graph; dygraph frees memory by itself",
}
_FEATURES = ("feature", "token_feature")
_DATA = ("dataset", "data_reader")
# Arguments of a task that are nothing but the static graph's.
_DROPPED = ("feed_list", "num_classes", "hidden_units", "network", "startup_program", "max_seq_len", "add_crf")
_GRAPH = (*_FEATURES, *_DROPPED)
_GUARD = "paddle.fluid.program_guard"
_CRF_TODO = (
    "there is no CRF here: the loss is the cross entropy of each token; give loss=function(logits, labels) for another"
)
_DATA_TODO = "`dataset` is {'train': …, 'dev': …, 'test': …}, each a paddle.io.Dataset of (input, label)"
_LABELS_TODO = (
    "give the names of the tags in order, label_list=['O', 'B-PER', 'I-PER', …] here or as an attribute of the data "
    "set: PaddleHub took them from its data set; without them there is no precision, recall and f1 of chunks"
)
_PREDICT_DROPPED = ("accelerate_mode",)
_PREDICT_TODO = (
    "predict(data) takes a paddle.io.Dataset or DataLoader with samples as for training (several inputs need "
    "something, 0 say, in the label's place); it returns the model's outputs, or with return_result=True the labels"
)
# Where a script reads what these return, it reads something else now.
RESULTS = {
    "finetune": "a list with one dict of results per epoch",
    "finetune_and_eval": "a dict of the loss and the metrics by name, {'loss': …, 'acc': …}",
    "eval": "a dict of the loss and the metrics by name, {'loss': …, 'acc': …}",
}
METHODS = {
    "phase_guard": "there are no phases to enter; drop this `with` and dedent its body",
    "init_if_necessary": "delete: a task is ready when it is built",
    "load_parameters": "load weights into the model: hub.load_pretrained(model, path)",
    "load_checkpoint": "load what was saved: task.learner.load(name)",
    "save_inference_model": "export the model: paddle.jit.save(model, path, input_spec=[...])",
    "_calculate_metrics": "eval() returns the metrics themselves, by name",
}


def rewrite_config(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of RunConfig without the arguments that mean nothing in dygraph."""
    # Beyond use_pyreader positions shift when it is dropped.
    call = arguments.by_name(call, names.CONFIG_PARAMETERS, beyond=2)
    for name, why in CONFIG_DROPPED.items():
        if arguments.find(call, name) is not None:
            site.note(f"RunConfig: {name} dropped: it {why}")
    call = arguments.without(call, tuple(CONFIG_DROPPED))
    parallel = arguments.find(call, "use_data_parallel")
    if parallel is not None and getattr(parallel.value, "value", "") != "False":
        site.note("RunConfig: use_data_parallel now means several processes, started by paddle.distributed.launch")
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value not in names.CONFIG_PARAMETERS:
            site.todo("RunConfig: " + _errors.unknown("argument", arg.keyword.value, names.CONFIG_PARAMETERS))
    return call


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of a task class."""
    name = names.short(site.name)
    if name not in names.OUR_TASKS:
        site.todo(
            f"there is no {name} here; train the model with a Learner: hub.Learner(model, train, valid, "
            "loss=your_loss, metrics=...).fit(config.num_epoch, strategy=config.strategy)"
        )
        return call
    if arguments.has_star(call) or arguments.has_star(call, "**"):
        site.todo(
            f"{name}(model=model, dataset=dataset, config=config) is what it takes: no feature, feed_list, reader"
        )
        return call
    call = arguments.by_name(call, names.TASKS[name])
    given = {arg.keyword.value: arg for arg in call.args if arg.keyword}
    site.note(f"{name}: feature, feed_list and data_reader replaced by model and dataset")
    text = site.text
    if text is None:
        site.todo(_model_todo(name, given))
    elif text.samples is None:
        site.todo(_DATA_TODO)
    head = [f"{key}={arguments.code_of(given[key].value)}" for key in ("hidden_units", "network") if key in given]
    if head:
        site.todo(f"{' and '.join(head)} described a part of the head that is now the model's")
    if name == "SequenceLabelTask" and (text is None or text.samples is None):
        site.todo(_LABELS_TODO)
    if "add_crf" in given and arguments.code_of(given["add_crf"].value) != "False":
        site.todo(_CRF_TODO)
    if text is None:
        return _with_model(call, "model", _dataset(site, name))
    if text.anchored:
        call = arguments.added(call, "pretrained", f'"{text.encoder}"')
    return _with_model(call, text.module.target, text.samples.last.target if text.samples else _dataset(site, name))


def method(call: cst.Call, name: str, site: Site, is_read: bool) -> cst.Call:
    """A call of a task's method; `is_read`: the script does something with what it returns."""
    if name in RESULTS and is_read:
        site.todo(f"{name}() returns {RESULTS[name]}, and no run states: read the values from there")
    if name in METHODS:
        site.todo(f"{name}: {METHODS[name]}")
    elif name == "predict":
        call = arguments.without(call, _PREDICT_DROPPED)
        rows = arguments.find(call, "data", 0)
        code = site.text.texts_code(rows.value) if site.text is not None and rows is not None else ""
        if rows is None or not code:
            site.todo(_PREDICT_TODO)
            return call
        site.note("predict: the texts encoded, with 0 in the place of a label")
        return arguments.replaced(call, rows, cst.parse_expression(code))
    return call


def _dataset(site: Site, name: str) -> str:
    """The variable that holds the data: what the reader read, where that is known."""
    reader = arguments.find(site.original, "data_reader", names.TASKS[name].index("data_reader"))
    read = [site.facts.readers.get(local, "") for local in site.facts.locals_of(reader.value)] if reader else []
    return next((variable for variable in read if variable), "dataset")


def _with_model(call: cst.Call, model: str, dataset: str) -> cst.Call:
    """The call with model in the place of the features, dataset in that of the reader, and the rest of both gone."""
    args, has = [], set()
    values = {"model": model, "dataset": dataset}
    for arg in call.args:
        name = arg.keyword.value if arg.keyword is not None else ""
        if name in _FEATURES and "model" not in has:
            has.add("model")
            arg = arguments.named(arg, "model").with_changes(value=cst.Name(model))
        elif name in _DATA and "dataset" not in has:
            has.add("dataset")
            value = arg.value if name == "dataset" or not dataset else cst.parse_expression(dataset)
            arg = arguments.named(arg, "dataset").with_changes(value=value)
        elif name in (*_FEATURES, *_DATA):
            arg = arguments.named(arg, _DROPPED[0])
        args.append(arg)
    call = arguments.without(call.with_changes(args=args), _DROPPED)
    for name in [name for name in values if name not in has]:
        call = arguments.added(call, name, values[name])
    return call


def _model_todo(name: str, given: dict[str, cst.Arg]) -> str:
    if name == "RegressionTask":
        output = "outputs of shape [batch, 1]"
    else:
        classes = arguments.code_of(given["num_classes"].value) if "num_classes" in given else "number of classes"
        tokens = "length, " if name == "SequenceLabelTask" else ""
        last = "sigmoid" if name == "MultiLabelClassifierTask" else "softmax"
        output = f"logits of shape [batch, {tokens}{classes}], without a {last}"
    return f"`model` is the paddle.nn.Layer to train, pretrained part and head, that returns {output}; {_DATA_TODO}"


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
                id(old) for old, new in zip(node.args, named.args) if new.keyword and new.keyword.value in _GRAPH
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
