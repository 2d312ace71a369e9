"""A script's text model, tokenizer and data set in PaddleNLP's words, where it has one model, one task and known data."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from paddle_ftstrat.tools.migrate import arguments, names
from paddle_ftstrat.tools.migrate.counterparts import MODELS, TextData, TextModel, data_of
from paddle_ftstrat.tools.migrate.facts import Facts

SEQUENCE, TOKENS = "ForSequenceClassification", "ForTokenClassification"
_HEADS = {
    **dict.fromkeys(("ClassifierTask", "TextClassifierTask", "RegressionTask"), SEQUENCE),
    "SequenceLabelTask": TOKENS,
}
_TOKENIZERS = ("BertTokenizer", "ErnieTinyTokenizer")
_DEFAULT_LENGTH = "512"
_OF_TEXT = '''
def {encode}(row):
    """The inputs of the model, and the label."""
    inputs = {tokenizer}({text}, max_length={length}, padding="max_length", truncation=True)
    return np.array(inputs["input_ids"]), np.array(inputs["token_type_ids"]), {label}
'''
_OF_TOKENS = '''
def {encode}(row):
    """The inputs of the model, and a label per piece of a word: -100, which does not count, but for the first."""
    inputs = {tokenizer}({text}, is_split_into_words=True, max_length={length}, padding="max_length", truncation=True)
    labels = [-100]
    for word, label in zip({text}, {label}):
        pieces = len({tokenizer}.tokenize(word))
        labels += ([label] + [-100] * pieces)[:pieces]
    length = len(inputs["input_ids"])
    labels = (labels[: length - 1] + [-100] * length)[:length]
    return np.array(inputs["input_ids"]), np.array(inputs["token_type_ids"]), np.array(labels)
'''


@dataclass(frozen=True)
class Found:
    """A call: its (shortened) name, the functions around it, and the variable that it is assigned to, if it is one."""

    name: str
    call: cst.Call
    scope: tuple[str, ...] | None
    target: cst.Name | None


@dataclass(frozen=True)
class Counterpart:
    """What a script's text model is today, and, with `data`, its data set.

    Attributes:
        model, head, classes: the model; classes is 1 for regression.
        module: the call of `hub.Module`.
        tokenizer: the variable of the tokenizer.
        made: the call that made a tokenizer; None: there is none, so one is made after the model.
        encode: the function that turns a row into a sample.
        data, dataset: the data set, None where it is the script's own, and the call that made it.
        reader: the call of a reader of it.
        anchored: whether L2SP needs to know what is pretrained.
        lists: the variables that hold lists.
    """

    model: TextModel
    head: str
    classes: int
    module: Found
    tokenizer: str
    made: Found | None
    encode: str
    data: TextData | None
    dataset: Found | None
    reader: Found | None
    anchored: bool
    lists: frozenset[str]

    @property
    def variable(self) -> str:
        """The variable of the model."""
        return self.module.target.value

    @property
    def encoder(self) -> str:
        """The pattern of the pretrained parameters' names."""
        return f"{self.model.encoder}.*"

    @property
    def variable_of_data(self) -> str:
        """The variable of what the task trains on, "" where there is none."""
        last = self.reader or self.dataset
        return last.target.value if last is not None and last.target is not None else ""

    def is_texts(self, node: cst.BaseExpression) -> bool:
        """Whether a node is a list of texts as PaddleHub predicts them, for a known kind of data."""
        is_list = isinstance(node, cst.List) or (isinstance(node, cst.Name) and node.value in self.lists)
        return is_list and self.data is not None and self.head == SEQUENCE

    def is_data(self, node: cst.BaseExpression) -> bool:
        """Whether a node is the variable of the data set or of its reader."""
        holders = (found.target.value for found in (self.dataset, self.reader) if found and found.target)
        return self.data is not None and isinstance(node, cst.Name) and node.value in tuple(holders)

    def of(self, call: cst.Call) -> tuple[str, str] | None:
        """The code for a call that made the model, tokenizer, data or reader, and the name in it that is PaddleNLP's."""
        is_made = [found is not None and found.call is call for found in (self.module, self.made, self.dataset)]
        if is_made[0]:
            code = f'AutoModel{self.head}.from_pretrained("{self.model.weights}", num_classes={self.classes})'
            return code, f"paddlenlp.transformers.AutoModel{self.head}"
        if is_made[1]:
            return self.tokenizer_code(), "paddlenlp.transformers.AutoTokenizer"
        if self.reader is not None and self.reader.call is call:
            given = arguments.find(call, "dataset", 0).value
            if given is not self.dataset.call:
                return self._reader_code(given), ""
        elif not is_made[2]:
            return None
        return self._data_code(is_encoded=self.is_encoded_at(call)), "paddlenlp.datasets.load_dataset"

    def is_encoded_at(self, call: cst.Call) -> bool:
        """Whether a call is the one that needs the function `encode`."""
        last = self.reader or self.dataset
        return last is not None and last.call is call

    def tokenizer_code(self) -> str:
        """The code that builds the tokenizer."""
        return f'AutoTokenizer.from_pretrained("{self.model.weights}")'

    def _data_code(self, is_encoded: bool) -> str:
        split = "phase" if all(phase == split for phase, split in self.data.splits.items()) else "split"
        given = ", ".join(f'"{argument}"' for argument in self.data.given)
        loaded = f"load_dataset({given}, splits={split})"
        loaded += f".map({self.encode})" if is_encoded else ""
        if split == "phase":
            phases = ", ".join(f'"{phase}"' for phase in self.data.splits)
            return f"{{phase: {loaded} for phase in ({phases})}}"
        splits = ", ".join(f'"{phase}": "{split}"' for phase, split in self.data.splits.items())
        return f"{{phase: {loaded} for phase, split in {{{splits}}}.items()}}"

    def _reader_code(self, dataset: cst.BaseExpression) -> str:
        return f"{{phase: split.map({self.encode}) for phase, split in {arguments.code_of(dataset)}.items()}}"

    def encode_code(self) -> str:
        """The code of the function that turns a row of the data set into a sample."""
        length = arguments.find((self.reader or self.dataset).call, "max_seq_len")
        label = f'row["{self.data.label}"]'
        return (_OF_TOKENS if self.head == TOKENS else _OF_TEXT).format(
            encode=self.encode,
            tokenizer=self.tokenizer,
            text=", ".join(f'row["{column}"]' for column in self.data.columns),
            length=_DEFAULT_LENGTH if length is None else arguments.code_of(length.value),
            label=f"np.float32({label})" if self.classes == 1 else label,
        )

    def rows_code(self, given: str) -> str:
        """The code of samples to predict, for PaddleHub's lists of texts."""
        row = "".join(f'"{column}": row[{index}], ' for index, column in enumerate(self.data.columns))
        return f'[{self.encode}({{{row}"{self.data.label}": 0}}) for row in {given}]'


def find(module: cst.Module, facts: Facts) -> Counterpart | None:
    """The counterpart of a script's model and data, None where it has not one known model, or not one task for it."""
    walk = _Walk(facts)
    module.visit(walk)
    models = [found for found in walk.calls if found.name == "Module" and _first(found) in MODELS]
    tasks = [found for found in walk.calls if found.name in names.TASKS]
    if len(models) != 1 or len(tasks) != 1 or tasks[0].name not in _HEADS:
        return None
    (model,), (task,), head = models, tasks, _HEADS[tasks[0].name]
    tokenizers = [found for found in walk.calls if found.name in _TOKENIZERS]
    dataset, reader, data = _data(walk, head)
    places = [found for found in (model, *tokenizers, dataset, reader) if found is not None]
    seen = all(_sees(place.scope, model.scope) for place in places)
    if model.target is None or not seen or len(tokenizers) > 1 or any(made.target is None for made in tokenizers):
        return None
    classes = _classes(task, data)
    if classes is None:
        return None
    tokenizer = tokenizers[0].target.value if tokenizers else walk.fresh("tokenizer")
    return Counterpart(
        MODELS[_first(model)], head, classes, model, tokenizer, next(iter(tokenizers), None), walk.fresh("encode"),
        data, dataset, reader, walk.anchored, frozenset(walk.lists),
    )  # fmt: skip


def _data(walk: _Walk, head: str) -> tuple[Found | None, Found | None, TextData | None]:
    """The one data set of a script, the one reader of it, and what it is today; nothing where it is not known."""
    datasets = [found for found in walk.calls if found.name.startswith("dataset.")]
    readers = [found for found in walk.calls if found.name.startswith("reader.")]
    if len(datasets) != 1 or len(readers) > 1 or (readers and arguments.find(readers[0].call, "dataset", 0) is None):
        return None, None, None
    data = data_of(datasets[0].name.partition(".")[2], _first(datasets[0]))
    if data is None or not data.columns or (data.columns == ("tokens",)) != (head == TOKENS):
        return None, None, None
    return datasets[0], next(iter(readers), None), data


def _classes(task: Found, data: TextData | None) -> int | None:
    if task.name == "RegressionTask" or data is not None:
        fits = data is None or (data.classes == 1) == (task.name == "RegressionTask")
        return (1 if data is None else data.classes) if fits else None
    given = arguments.find(task.call, "num_classes", names.TASKS[task.name].index("num_classes"))
    return given.value.evaluated_value if given is not None and isinstance(given.value, cst.Integer) else None


def _first(found: Found) -> str | None:
    """The first argument of a call: "" where it has none, None where it is not written out."""
    if not found.call.args:
        return ""
    keyword = {"Module": "name", "dataset.GLUE": "sub_dataset", "dataset.XNLI": "language"}.get(found.name, "")
    given = arguments.find(found.call, keyword, 0)
    return "" if given is None else arguments.text_of(given)


def _sees(scope: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    """Whether code in the first scope sees the variables of the second."""
    return scope is not None and other is not None and scope[: len(other)] == other


class _Walk(cst.CSTVisitor):
    """The calls of PaddleHub's names in a script, and the identifiers that it uses."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.calls: list[Found] = []
        self.lists: set[str] = set()
        self.anchored = "L2SPFinetuneStrategy" in facts.used
        self._facts = facts
        self._names: set[str] = set()
        # None where a statement cannot stand before or after: in a class, and behind the colon of one line.
        self._scopes: list[tuple[str, ...] | None] = [()]
        self._targets: dict[int, cst.Name] = {}

    def fresh(self, name: str) -> str:
        """The name, or one like it that the script does not use."""
        while name in self._names:
            name += "_"
        return name

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Note what a node says."""
        scope = self._scopes[-1]
        if isinstance(node, cst.FunctionDef):
            self._scopes.append(None if scope is None else (*scope, node.name.value))
        elif isinstance(node, (cst.ClassDef, cst.SimpleStatementSuite, cst.Lambda)):
            self._scopes.append(None)
        elif isinstance(node, cst.Name):
            self._names.add(node.value)
        elif isinstance(node, cst.SimpleString):
            self.anchored |= node.evaluated_value == "L2SP"
        elif isinstance(node, cst.Assign) and len(node.targets) == 1 and isinstance(node.targets[0].target, cst.Name):
            self._targets[id(node.value)] = node.targets[0].target
            if isinstance(node.value, cst.List):
                self.lists.add(node.targets[0].target.value)
        elif isinstance(node, cst.Call):
            name = self._facts.name_of(node.func)
            if name is not None and name.startswith("paddlehub."):
                self.calls.append(Found(names.short(name), node, scope, self._targets.get(id(node))))
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        """Leave the scope of a node."""
        if isinstance(node, (cst.FunctionDef, cst.ClassDef, cst.SimpleStatementSuite, cst.Lambda)):
            self._scopes.pop()
