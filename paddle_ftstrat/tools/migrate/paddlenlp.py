"""PaddleHub's text models and data sets as PaddleNLP has them: a row each, and the code of a script with one of them.

PaddleHub's names are those of its `demo/` and `paddlehub/dataset/` of 1.8; the rows were checked against PaddleNLP
2.8.1. PaddleFormers 1.2 has none of the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider

from paddle_ftstrat.tools.migrate import arguments, names
from paddle_ftstrat.tools.migrate.facts import Facts

_BOTH: Mapping[str, str] = MappingProxyType({"train": "train", "dev": "dev"})
_ALL: Mapping[str, str] = MappingProxyType({"train": "train", "dev": "dev", "test": "test"})


@dataclass(frozen=True)
class TextModel:
    """What `paddlenlp.transformers` calls a model: its weights, and the encoder inside a model with a head."""

    weights: str
    encoder: str


@dataclass(frozen=True)
class TextData:
    """What `paddlenlp.datasets.load_dataset` is given, and the rows that it returns.

    Attributes:
        given: the arguments of `load_dataset`.
        columns: the columns of the text; none where a row is no text with one label.
        classes: how many labels there are; 1 for a number.
        label: the column of the label, which holds its index.
        splits: phase of the training → split. Test splits whose rows have no label are left out.
    """

    given: tuple[str, ...]
    columns: tuple[str, ...] = ()
    classes: int = 2
    label: str = "label"
    splits: Mapping[str, str] = field(default_factory=lambda: _BOTH)


MODELS = {
    "ernie": TextModel("ernie-1.0-base-zh", "ernie"),
    "ernie_tiny": TextModel("ernie-tiny", "ernie"),
    "ernie_v2_eng_base": TextModel("ernie-2.0-base-en", "ernie"),
    "ernie_v2_eng_large": TextModel("ernie-2.0-large-en", "ernie"),
    "bert_uncased_L-12_H-768_A-12": TextModel("bert-base-uncased", "bert"),
    "bert_uncased_L-24_H-1024_A-16": TextModel("bert-large-uncased", "bert"),
    "bert_cased_L-12_H-768_A-12": TextModel("bert-base-cased", "bert"),
    "bert_cased_L-24_H-1024_A-16": TextModel("bert-large-cased", "bert"),
    "bert_multi_cased_L-12_H-768_A-12": TextModel("bert-base-multilingual-cased", "bert"),
    "bert_chinese_L-12_H-768_A-12": TextModel("bert-base-chinese", "bert"),
    "bert_wwm_chinese_L-12_H-768_A-12": TextModel("bert-wwm-chinese", "bert"),
    "bert_wwm_ext_chinese_L-12_H-768_A-12": TextModel("bert-wwm-ext-chinese", "bert"),
    "chinese-bert-wwm": TextModel("bert-wwm-chinese", "bert"),
    "chinese-bert-wwm-ext": TextModel("bert-wwm-ext-chinese", "bert"),
    "roberta_wwm_ext_chinese_L-12_H-768_A-12": TextModel("hfl/roberta-wwm-ext", "roberta"),
    "roberta_wwm_ext_chinese_L-24_H-1024_A-16": TextModel("hfl/roberta-wwm-ext-large", "roberta"),
    "chinese-roberta-wwm-ext": TextModel("hfl/roberta-wwm-ext", "roberta"),
    "chinese-roberta-wwm-ext-large": TextModel("hfl/roberta-wwm-ext-large", "roberta"),
    "rbt3": TextModel("hfl/rbt3", "roberta"),
    "rbtl3": TextModel("hfl/rbtl3", "roberta"),
    "chinese-electra-base": TextModel("chinese-electra-base", "electra"),
    "chinese-electra-small": TextModel("chinese-electra-small", "electra"),
}
_PAIR, _ONE = ("sentence1", "sentence2"), ("sentence",)
_MNLI = {name: {"train": "train", "dev": f"dev_{name}"} for name in ("matched", "mismatched")}
# By PaddleHub's `sub_dataset`, its first, in lower case.
GLUE = {
    "cola": TextData(("glue", "cola"), _ONE, label="labels"),
    "sst-2": TextData(("glue", "sst-2"), _ONE, label="labels"),
    "mrpc": TextData(("glue", "mrpc"), _PAIR, label="labels"),
    "qqp": TextData(("glue", "qqp"), _PAIR, label="labels"),
    "qnli": TextData(("glue", "qnli"), _PAIR, label="labels"),
    "rte": TextData(("glue", "rte"), _PAIR, label="labels"),
    "sts-b": TextData(("glue", "sts-b"), _PAIR, 1, "labels"),
    "mnli": TextData(("glue", "mnli"), _PAIR, 3, "labels", _MNLI["matched"]),
    "mnli_m": TextData(("glue", "mnli"), _PAIR, 3, "labels", _MNLI["matched"]),
    "mnli_mm": TextData(("glue", "mnli"), _PAIR, 3, "labels", _MNLI["mismatched"]),
}
DATA = {
    "ChnSentiCorp": TextData(("chnsenticorp",), ("text",)),
    "LCQMC": TextData(("lcqmc",), ("query", "title")),
    "NLPCC_DBQA": TextData(("nlpcc_dbqa",), ("text_a", "text_b"), splits=_ALL),
    "BQ": TextData(("bq_corpus",), _PAIR),
    "THUCNEWS": TextData(("thucnews",), ("text",), 14, splits=_ALL),
    "TNews": TextData(("clue", "tnews"), _ONE, 15),
    "IFLYTEK": TextData(("clue", "iflytek"), _ONE, 119),
    "MSRA_NER": TextData(("msra_ner",), ("tokens",), 7, "labels", {"train": "train", "test": "test"}),
    "SQUAD": TextData(("squad",), splits={"train": "train_v1", "dev": "dev_v1"}),
    "DRCD": TextData(("drcd",), splits=_ALL),
    "CMRC2018": TextData(("cmrc2018",)),
}


def data_of(name: str, given: str | None) -> TextData | None:
    """PaddleNLP's data set for one of PaddleHub's, None where there is none.

    Args:
        name: the class under `paddlehub.dataset`.
        given: its first argument, the task of GLUE or the language of XNLI; "" for none, None where it is unknown.

    Example:
        >>> data_of("GLUE", "STS-B").given, data_of("XNLI", "").given, data_of("INews", "")
        (('glue', 'sts-b'), ('xnli', 'zh'), None)
    """
    if name == "GLUE":
        return GLUE.get((given or "sst-2").lower()) if given is not None else None
    if name == "XNLI":
        return (
            TextData(("xnli", given or "zh"), ("premise", "hypothesis"), 3, splits=_ALL) if given is not None else None
        )
    return DATA.get(name)


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
    """A call: its (shortened) name, the functions around it, and the variable that it is assigned to, "" for none."""

    name: str
    call: cst.Call
    scope: tuple[str, ...] | None
    target: str


@dataclass(frozen=True)
class Samples:
    """A script's data set: what it is today, the calls of it and of its reader, and the names that its code uses.

    `encode` names the function that turns a row into a sample; `last` is the call that needs it.
    """

    row: TextData
    dataset: Found
    reader: Found | None
    tokenizer: str
    encode: str

    @property
    def last(self) -> Found:
        """What the task trains on."""
        return self.reader or self.dataset

    def is_in(self, node: cst.BaseExpression) -> bool:
        """Whether a node is the variable of the data set or of its reader."""
        return isinstance(node, cst.Name) and node.value in (self.dataset.target, self.last.target)

    def of(self, call: cst.Call) -> tuple[str, str] | None:
        """The code for the call of the data set or of its reader, and PaddleNLP's name in it; else None."""
        if self.reader is not None and self.reader.call is call:
            given = arguments.find(call, "dataset", 0)
            if given is not None and given.value is not self.dataset.call:
                code = arguments.code_of(given.value)
                return f"{{phase: split.map({self.encode}) for phase, split in {code}.items()}}", ""
        elif self.dataset.call is not call:
            return None
        return self._loaded(f".map({self.encode})" if self.last.call is call else ""), "paddlenlp.datasets.load_dataset"

    def _loaded(self, mapped: str) -> str:
        given = ", ".join(f'"{argument}"' for argument in self.row.given)
        if all(phase == split for phase, split in self.row.splits.items()):
            phases = ", ".join(f'"{phase}"' for phase in self.row.splits)
            return f"{{phase: load_dataset({given}, splits=phase){mapped} for phase in ({phases})}}"
        splits = ", ".join(f'"{phase}": "{split}"' for phase, split in self.row.splits.items())
        return f"{{phase: load_dataset({given}, splits=split){mapped} for phase, split in {{{splits}}}.items()}}"

    def encode_code(self) -> str:
        """The code of the function that turns a row of the data set into a sample."""
        length = arguments.find(self.last.call, "max_seq_len")
        label = f'row["{self.row.label}"]'
        return (_OF_TOKENS if self.row.columns == ("tokens",) else _OF_TEXT).format(
            encode=self.encode,
            tokenizer=self.tokenizer,
            text=", ".join(f'row["{column}"]' for column in self.row.columns),
            length=_DEFAULT_LENGTH if length is None else arguments.code_of(length.value),
            label=f"np.float32({label})" if self.row.classes == 1 else label,
        )


@dataclass(frozen=True)
class Counterpart:
    """What a script's text model is today, with its data set where that is known.

    Attributes:
        model, head, classes: the model; classes is 1 for regression.
        module: the call of `hub.Module`.
        tokenizer: the variable of the tokenizer.
        made: the call that made a tokenizer; None: there is none, so one is made after the model.
        samples: the data set; None where it is the script's own.
        anchored: whether L2SP needs to know what is pretrained.
        lists: the variables that hold lists.
    """

    model: TextModel
    head: str
    classes: int
    module: Found
    tokenizer: str
    made: Found | None
    samples: Samples | None
    anchored: bool
    lists: frozenset[str]

    @property
    def encoder(self) -> str:
        """The pattern of the pretrained parameters' names."""
        return f"{self.model.encoder}.*"

    def texts_code(self, node: cst.BaseExpression) -> str:
        """The code of samples to predict for a list of PaddleHub's rows of texts; "" for anything else."""
        is_list = isinstance(node, cst.List) or (isinstance(node, cst.Name) and node.value in self.lists)
        if self.samples is None or self.head == TOKENS or not is_list:
            return ""
        row = "".join(f'"{column}": row[{index}], ' for index, column in enumerate(self.samples.row.columns))
        sample = f'{self.samples.encode}({{{row}"{self.samples.row.label}": 0}})'
        return f"[{sample} for row in {arguments.code_of(node)}]"

    def of(self, call: cst.Call) -> tuple[str, str] | None:
        """The code for a call that made the model, tokenizer, data or reader, and PaddleNLP's name in it; else None."""
        if self.module.call is call:
            code = f'AutoModel{self.head}.from_pretrained("{self.model.weights}", num_classes={self.classes})'
            return code, f"paddlenlp.transformers.AutoModel{self.head}"
        if self.made is not None and self.made.call is call:
            return self.tokenizer_code(), "paddlenlp.transformers.AutoTokenizer"
        return self.samples.of(call) if self.samples is not None else None

    def tokenizer_code(self) -> str:
        """The code that builds the tokenizer."""
        return f'AutoTokenizer.from_pretrained("{self.model.weights}")'


def find(wrapper: MetadataWrapper, facts: Facts) -> Counterpart | None:
    """The counterpart of a script's model and data, None where it has not one known model, or not one task for it."""
    script = _Script(wrapper, facts)
    models = [found for found in script.calls if found.name == "Module" and _first(found) in MODELS]
    tasks = [found for found in script.calls if found.name in names.TASKS]
    tokenizers = [found for found in script.calls if found.name in _TOKENIZERS]
    if len(models) != 1 or len(tasks) != 1 or len(tokenizers) > 1 or tasks[0].name not in _HEADS:
        return None
    (model,), (task,), made = models, tasks, next(iter(tokenizers), None)
    tokenizer = script.fresh("tokenizer") if made is None else made.target
    head = _HEADS[task.name]
    samples = _samples(script, head, tokenizer)
    places = [model, *tokenizers, *([samples.dataset, samples.last] if samples else [])]
    classes = _classes(task, samples)
    if classes is None or not (model.target and tokenizer) or not all(_sees(one.scope, model.scope) for one in places):
        return None
    row = MODELS[_first(model) or ""]
    return Counterpart(row, head, classes, model, tokenizer, made, samples, script.anchored, script.lists)


def _samples(script: _Script, head: str, tokenizer: str) -> Samples | None:
    """The one data set of a script and the one reader of it, None where what it is today is not known."""
    datasets = [found for found in script.calls if found.name.startswith("dataset.")]
    readers = [found for found in script.calls if found.name.startswith("reader.")]
    if len(datasets) != 1 or len(readers) > 1 or (readers and arguments.find(readers[0].call, "dataset", 0) is None):
        return None
    row = data_of(datasets[0].name.partition(".")[2], _first(datasets[0]))
    if row is None or not row.columns or (row.columns == ("tokens",)) != (head == TOKENS):
        return None
    return Samples(row, datasets[0], next(iter(readers), None), tokenizer, script.fresh("encode"))


def _classes(task: Found, samples: Samples | None) -> int | None:
    """How many outputs the model has, None where that is unknown or does not go with the task."""
    regresses = task.name == "RegressionTask"
    if samples is not None:
        return samples.row.classes if (samples.row.classes == 1) == regresses else None
    given = (
        arguments.find(task.call, "num_classes", names.TASKS[task.name].index("num_classes")) if not regresses else None
    )
    literal = given.value.evaluated_value if given is not None and isinstance(given.value, cst.Integer) else None
    return 1 if regresses else literal


def _first(found: Found) -> str | None:
    """The first argument of a call: "" where it has none, None where it is not written out."""
    keyword = {"Module": "name", "dataset.GLUE": "sub_dataset", "dataset.XNLI": "language"}.get(found.name, "")
    given = arguments.find(found.call, keyword, 0)
    return "" if given is None else arguments.text_of(given)


def _sees(scope: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    """Whether code in the first scope sees the variables of the second."""
    return scope is not None and other is not None and scope[: len(other)] == other


class _Script:
    """The calls of PaddleHub's names in a script, the variables that hold lists, and the identifiers that it uses."""

    def __init__(self, wrapper: MetadataWrapper, facts: Facts) -> None:
        module, self._parents = wrapper.module, wrapper.resolve(ParentNodeProvider)
        calls: Any = m.findall(module, m.Call())
        called = ((facts.name_of(call.func) or "", call) for call in calls)
        self.calls = [self._found(name, call) for name, call in called if name.startswith("paddlehub.")]
        self.lists = frozenset(map(self._target, m.findall(module, m.List()))) - {""}
        strings = map(arguments.string_of, m.findall(module, m.SimpleString()))
        self.anchored = "L2SPFinetuneStrategy" in facts.used or "L2SP" in strings
        self._names = arguments.identifiers(module)

    def fresh(self, name: str) -> str:
        """The name, or one like it that the script does not use."""
        while name in self._names:
            name += "_"
        return name

    def _found(self, name: str, call: cst.Call) -> Found:
        scope: tuple[str, ...] | None = ()
        around: Any = call
        while not isinstance(around, cst.Module):
            around = self._parents[around]
            # A statement cannot stand before or after one in a class, and behind the colon of one line.
            if scope is None or isinstance(around, (cst.ClassDef, cst.SimpleStatementSuite, cst.Lambda)):
                scope = None
            elif isinstance(around, cst.FunctionDef):
                scope = (around.name.value, *scope)
        return Found(names.short(name), call, scope, self._target(call))

    def _target(self, value: cst.CSTNode) -> str:
        """The variable that a value is assigned to, "" for none."""
        assign: Any = self._parents[value]
        return assign.targets[0].target.value if m.matches(assign, m.Assign([m.AssignTarget(m.Name())])) else ""
