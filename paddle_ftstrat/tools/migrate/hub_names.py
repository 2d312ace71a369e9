"""The public names of PaddleHub 1.8: which of them this library has, and what their values are."""

from __future__ import annotations

import functools

STRATEGIES = (
    "AdamWeightDecayStrategy",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "ULMFiTStrategy",
)
# Task → its parameters in PaddleHub 1.8, in order.
_COMMON = ("dataset", "feed_list", "data_reader", "startup_program", "config", "hidden_units", "metrics_choices")
_MATCHING = ("dataset", "query_feature", "title_feature", "left_feature", "right_feature", "tokenizer", "config")
TASKS: dict[str, tuple[str, ...]] = {
    "ClassifierTask": ("feature", "num_classes", *_COMMON),
    "ImageClassifierTask": ("feature", "num_classes", *_COMMON),
    "TextClassifierTask": (
        "num_classes",
        "dataset",
        "feed_list",
        "data_reader",
        "feature",
        "token_feature",
        "network",
        "startup_program",
        "config",
        "hidden_units",
        "metrics_choices",
    ),
    "MultiLabelClassifierTask": ("feature", "num_classes", *_COMMON),
    "RegressionTask": ("feature", *_COMMON),
    "SequenceLabelTask": (
        "feature",
        "max_seq_len",
        "num_classes",
        "dataset",
        "feed_list",
        "data_reader",
        "startup_program",
        "config",
        "metrics_choices",
        "add_crf",
    ),
    "ReadingComprehensionTask": ("feature", *_COMMON),
    "TextGenerationTask": ("feature", "token_feature", *_COMMON),
    "PointwiseTextMatchingTask": _MATCHING,
    "PairwiseTextMatchingTask": _MATCHING,
    "DetectionTask": ("data_reader", "num_classes", "feed_list", "feature", "config"),
}
CONFIG = "RunConfig"
PUBLIC = frozenset((*STRATEGIES, *TASKS, CONFIG, "Module"))
MODULES = ("", "finetune", "finetune.strategy", "finetune.config", "finetune.task")


def short(name: str) -> str:
    """A PaddleHub name without its package, and without the module where that is a detail.

    Example:
        >>> short("paddlehub.finetune.strategy.ULMFiTStrategy"), short("paddlehub.dataset.Flowers")
        ('ULMFiTStrategy', 'dataset.Flowers')
    """
    inner = name.partition(".")[2] if name.split(".")[0] == "paddlehub" else name
    last = inner.rpartition(".")[2]
    if last in PUBLIC and inner.startswith("finetune."):
        return last
    return inner


def is_ours(inner: str) -> bool:
    """Whether this library has what a (shortened) PaddleHub name stands for."""
    if inner in TASKS:
        return task_class(inner) is not None
    return inner in STRATEGIES or inner == CONFIG or (inner in MODULES and inner != "")


@functools.cache
def task_class(name: str) -> str | None:
    """The name of this library's class for a PaddleHub task, None where there is none.

    Example:
        >>> task_class("ClassifierTask"), task_class("DetectionTask")
        ('ClassifierTask', None)
    """
    from paddle_ftstrat.finetune import task

    return name if hasattr(task, name) else None


def kind(name: str) -> str | None:
    """What a call of an imported name returns, as far as the rules ask for it.

    Example:
        >>> kind("paddlehub.Module"), kind("paddle.fluid.optimizer.Adam"), kind("paddlehub.RunConfig")
        ('module', 'optimizer', None)
    """
    if name.startswith("paddle.fluid.optimizer."):
        return "optimizer"
    if name.startswith("paddle.fluid.layers.") and name.endswith(("_decay", "_lr_warmup")):
        return "schedule"
    inner = short(name)
    if inner in STRATEGIES:
        return "strategy"
    if inner in TASKS:
        return "task"
    return {"Module": "module", "Module.context": "context"}.get(inner)
