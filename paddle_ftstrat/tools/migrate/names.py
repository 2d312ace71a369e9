"""The public names of PaddleHub 1.8: which of them this library has, and what their values are."""

from __future__ import annotations

from paddle_ftstrat import tasks as _ours

STRATEGIES = (
    "AdamWeightDecayStrategy",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "ULMFiTStrategy",
)
_COMMON = "dataset feed_list data_reader startup_program config hidden_units metrics_choices"
_MATCHING = "dataset query_feature title_feature left_feature right_feature tokenizer config"
_TASKS = {
    "ClassifierTask": f"feature num_classes {_COMMON}",
    "ImageClassifierTask": f"feature num_classes {_COMMON}",
    "TextClassifierTask": (
        "num_classes dataset feed_list data_reader feature token_feature network startup_program config hidden_units "
        "metrics_choices"
    ),
    "MultiLabelClassifierTask": f"feature num_classes {_COMMON}",
    "RegressionTask": f"feature {_COMMON}",
    "SequenceLabelTask": (
        "feature max_seq_len num_classes dataset feed_list data_reader startup_program config metrics_choices add_crf"
    ),
    "ReadingComprehensionTask": f"feature {_COMMON}",
    "TextGenerationTask": f"feature token_feature {_COMMON}",
    "PointwiseTextMatchingTask": _MATCHING,
    "PairwiseTextMatchingTask": _MATCHING,
    "DetectionTask": "data_reader num_classes feed_list feature config",
}
# Task → its parameters in PaddleHub 1.8, in order.
TASKS = {name: tuple(parameters.split()) for name, parameters in _TASKS.items()}
OUR_TASKS = frozenset(name for name in TASKS if hasattr(_ours, name))
CONFIG = "RunConfig"
_CONFIG = (
    "log_interval eval_interval use_pyreader use_data_parallel save_ckpt_interval use_cuda checkpoint_dir num_epoch "
    "batch_size enable_memory_optim strategy"
)
CONFIG_PARAMETERS = tuple(_CONFIG.split())
PUBLIC = frozenset((*STRATEGIES, *TASKS, CONFIG, "Module"))
MODULES = ("", "finetune", "finetune.strategy", "finetune.config", "finetune.task")
ROOTS = ("paddlehub", "paddle.fluid")


def under(name: str, roots: tuple[str, ...] = ROOTS) -> bool:
    """Whether a dotted name is one of these packages or inside one: PaddleHub and fluid, unless told otherwise."""
    return name.startswith(tuple(f"{root}." for root in roots)) or name in roots


def short(name: str) -> str:
    """A PaddleHub name without its package, and without the module where that is a detail.

    Example:
        >>> short("paddlehub.finetune.strategy.ULMFiTStrategy"), short("paddlehub.dataset.Flowers")
        ('ULMFiTStrategy', 'dataset.Flowers')
    """
    inner = name.partition(".")[2] if name.split(".")[0] == "paddlehub" else name
    last = inner.rpartition(".")[2]
    return last if last in PUBLIC and inner.startswith("finetune.") else inner


def is_ours(inner: str) -> bool:
    """Whether this library has what a (shortened) PaddleHub name stands for."""
    return inner in OUR_TASKS or inner in STRATEGIES or inner == CONFIG or (inner in MODULES and inner != "")


def kind(name: str) -> str | None:
    """What a call of an imported name returns, as far as the rules ask for it.

    Example:
        >>> kind("paddlehub.Module"), kind("paddlehub.finetune.task.ClassifierTask"), kind("paddlehub.RunConfig")
        ('module', 'task', None)
    """
    inner = short(name)
    if inner in STRATEGIES:
        return "strategy"
    return "task" if inner in TASKS else {"Module": "module", "Module.context": "context"}.get(inner)
