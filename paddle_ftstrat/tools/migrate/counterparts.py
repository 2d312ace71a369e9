"""PaddleHub's text models and data sets as PaddleNLP has them: a row each, checked against PaddleNLP 2.8.1.

PaddleHub's names are those of its `demo/` and `paddlehub/dataset/` of 1.8. PaddleFormers 1.2 has none of the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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
