"""What to write in place of the parts of PaddleHub that no rule can rewrite."""

from __future__ import annotations

from collections.abc import Iterable

import libcst as cst

from paddle_ftstrat.tools.migrate import arguments

CONTEXT = "delete: a Paddle 2/3 model is called directly, it has no context(), programs or input and output variables"
DERIVED = "delete: the task takes model and data set, not variables of a static graph"
_IMAGE_MODELS = {
    "resnet_v2_18_imagenet": "resnet18",
    "resnet_v2_34_imagenet": "resnet34",
    "resnet_v2_50_imagenet": "resnet50",
    "resnet_v2_101_imagenet": "resnet101",
    "resnet_v2_152_imagenet": "resnet152",
    "resnet50_vd_imagenet_ssld": "resnet50",
    "mobilenet_v2_imagenet": "mobilenet_v2",
    "mobilenet_v2_imagenet_ssld": "mobilenet_v2",
    "mobilenet_v3_large_imagenet_ssld": "mobilenet_v3_large",
    "mobilenet_v3_small_imagenet_ssld": "mobilenet_v3_small",
    "vgg11_imagenet": "vgg11",
    "vgg13_imagenet": "vgg13",
    "vgg16_imagenet": "vgg16",
    "vgg19_imagenet": "vgg19",
    "densenet121_imagenet": "densenet121",
    "densenet161_imagenet": "densenet161",
    "densenet169_imagenet": "densenet169",
    "googlenet_imagenet": "googlenet",
    "alexnet_imagenet": "alexnet",
    "shufflenet_v2_imagenet": "shufflenet_v2_x1_0",
}
_TEXT_MODELS = {
    "ernie": ("Ernie", "ernie-1.0-base-zh"),
    "ernie_tiny": ("Ernie", "ernie-tiny"),
    "ernie_v2_eng_base": ("Ernie", "ernie-2.0-base-en"),
    "ernie_v2_eng_large": ("Ernie", "ernie-2.0-large-en"),
    "bert_chinese_L-12_H-768_A-12": ("Bert", "bert-base-chinese"),
    "bert_uncased_L-12_H-768_A-12": ("Bert", "bert-base-uncased"),
    "bert_cased_L-12_H-768_A-12": ("Bert", "bert-base-cased"),
    "bert_uncased_L-24_H-1024_A-16": ("Bert", "bert-large-uncased"),
    "chinese-roberta-wwm-ext": ("Roberta", "hfl/roberta-wwm-ext"),
    "chinese-roberta-wwm-ext-large": ("Roberta", "hfl/roberta-wwm-ext-large"),
    "rbt3": ("Roberta", "hfl/rbt3"),
    "rbtl3": ("Roberta", "hfl/rbtl3"),
}
_DATASETS = {
    "Flowers": "paddle.vision.datasets.Flowers(mode='train' | 'valid' | 'test')",
    "ChnSentiCorp": "paddlenlp.datasets.load_dataset('chnsenticorp', splits=['train', 'dev', 'test'])",
    "LCQMC": "paddlenlp.datasets.load_dataset('lcqmc', splits=['train', 'dev', 'test'])",
    "MSRA_NER": "paddlenlp.datasets.load_dataset('msra_ner', splits=['train', 'test'])",
    "GLUE": "paddlenlp.datasets.load_dataset('glue', 'sst-2', splits=['train', 'dev', 'test'])",
    "XNLI": "paddlenlp.datasets.load_dataset('xnli', 'zh', splits=['train', 'dev', 'test'])",
    "SQUAD": "paddlenlp.datasets.load_dataset('squad', splits=['train_v1', 'dev_v1'])",
    "DRCD": "paddlenlp.datasets.load_dataset('drcd', splits=['train', 'dev', 'test'])",
    "CMRC2018": "paddlenlp.datasets.load_dataset('cmrc2018', splits=['train', 'dev'])",
}
_BY_PREFIX = {
    "Module.context": CONTEXT,
    "reader": (
        "delete: the paddle.io.Dataset returns what the model takes; text through a tokenizer "
        "(paddlenlp.transformers.AutoTokenizer.from_pretrained), images through paddle.vision.transforms"
    ),
    "BertTokenizer": "tokenizer = paddlenlp.transformers.AutoTokenizer.from_pretrained(the model's name)",
    "CustomTokenizer": "tokenizer = paddlenlp.data.JiebaTokenizer(paddlenlp.data.Vocab.load_vocabulary(path))",
    "common.logger": "import logging; logger = logging.getLogger('paddle_ftstrat')",
    "logger": "logging.getLogger('paddle_ftstrat'), after `import logging`",
    "finetune_and_eval": "task.finetune_and_eval(), with the RunConfig given to the task",
    "report_final_result": "delete: the hyper-parameter search of PaddleHub is gone; return or print the score",
    "create_": "build a task: hub.ClassifierTask(model, dataset, config)",
    "connect_program": "delete: there are no programs to connect; call one model on the other's output",
    "io": "delete: there are no data types of variables to declare",
}


def head_for(used: Iterable[str]) -> str:
    """What paddlenlp calls the head that a script's task put on a text model.

    Args:
        used: the (shortened) PaddleHub names in the script.

    Example:
        >>> head_for(["SequenceLabelTask", "Module"]), head_for(["TextClassifierTask"])
        ('ForTokenClassification', 'ForSequenceClassification')
    """
    heads = {"SequenceLabelTask": "ForTokenClassification", "ReadingComprehensionTask": "ForQuestionAnswering"}
    return next((heads[name] for name in used if name in heads), "ForSequenceClassification")


def advice(name: str, call: cst.Call | None = None, head: str = "ForSequenceClassification") -> str:
    """The replacement to write for a (shortened) PaddleHub name that has no rule.

    Args:
        name: the name without `paddlehub.`.
        call: the call of it, if it is one.
        head: the head of a text model (see `head_for`).
    """
    if name == "Module":
        return _module(call, head)
    if name.startswith("dataset."):
        return _dataset(name.partition(".")[2])
    for prefix, text in _BY_PREFIX.items():
        if name == prefix or name.startswith(prefix + ".") or (prefix.endswith("_") and name.startswith(prefix)):
            return text
    what = f"hub.{name}" if name else "paddlehub"
    return f"{what} has no counterpart here: replace it, or run this part with PaddleHub on its own"


def of_import(name: str) -> str:
    """What to do about the import of a PaddleHub name (in full) that has no counterpart here."""
    return f"delete this import when the uses of {name} below are replaced"


def _module(call: cst.Call | None, head: str) -> str:
    name = arguments.text_of(arguments.find(call, "name", 0)) if call is not None else None
    if name in _IMAGE_MODELS:
        built = f"paddle.vision.models.{_IMAGE_MODELS[name]}(pretrained=True, num_classes=…)"
    elif name in _TEXT_MODELS:
        family, weights = _TEXT_MODELS[name]
        built = f"paddlenlp.transformers.{family}{head}.from_pretrained({weights!r}, num_classes=…)"
    else:
        whose = f" of {name!r}" if name else ""
        built = f"a paddle.nn.Layer with a head; hub.load_pretrained(model, path) fills it with the weights{whose}"
    return f"build the model itself: model = {built}"


def _dataset(name: str) -> str:
    base = (
        "dataset = {'train': …, 'dev': …, 'test': …}, each a paddle.io.Dataset of (input, label) samples, "
        "inputs as numpy arrays"
    )
    return f"{base}; {name} is {_DATASETS[name]}" if name in _DATASETS else base
