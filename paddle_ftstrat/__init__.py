"""Fine-tuning strategies for PaddlePaddle: `import paddle_ftstrat as hub`."""

# Before Paddle: libpaddle of 2.6.2 breaks a zlib that is loaded after it, and with it every PNG file and gzip.
import zlib as _zlib  # noqa: F401

from paddle_ftstrat import finetune, optim, param_attr, schedules, transfer
from paddle_ftstrat._paddle.threads import cpu_threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.integrations.optuna import OptunaPruning
from paddle_ftstrat.integrations.visualdl import VisualDLCallback
from paddle_ftstrat.plan import Phase, Plateau
from paddle_ftstrat.schedules import (
    ParamScheduler,
    SchedCos,
    SchedExp,
    SchedLin,
    SchedNo,
    SchedPoly,
    annealer,
    combine_scheds,
    combined_cos,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
)
from paddle_ftstrat.strategies import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    DefaultStrategy,
    FineTuneStrategy,
    FlatCosStrategy,
    L2SPFinetuneStrategy,
    LPFTStrategy,
    OneCycleStrategy,
    PhasedStrategy,
    SGDRStrategy,
    ULMFiTStrategy,
    strategy_from_dict,
    strategy_from_yaml,
)
from paddle_ftstrat.strategies.search import Range, SearchSpace
from paddle_ftstrat.tasks import (
    ClassifierTask,
    ImageClassifierTask,
    MultiLabelClassifierTask,
    RegressionTask,
    SequenceLabelTask,
    TextClassifierTask,
)
from paddle_ftstrat.tasks.config import RunConfig
from paddle_ftstrat.tools.compare import Comparison, compare
from paddle_ftstrat.training.averaging import EMA
from paddle_ftstrat.training.callbacks import Callback, EarlyStoppingCallback, SaveModelCallback, StopTraining
from paddle_ftstrat.training.checkpoint.manager import Checkpoints
from paddle_ftstrat.training.learner import Learner
from paddle_ftstrat.training.lr_find import LRFinder, minimum, slide, steep, valley
from paddle_ftstrat.training.passes import RDrop
from paddle_ftstrat.training.precision import make as mixed_precision
from paddle_ftstrat.training.sweeps import AutoRGN, auto_rgn, fisher
from paddle_ftstrat.transfer import (
    LoadReport,
    export_inference,
    interpolate,
    load_pretrained,
    reinitialize,
    save_pretrained,
    soup,
    tune,
    update_statistics,
)

__version__ = "0.2.0"

__all__ = [
    "EMA",
    "AdamWeightDecayStrategy",
    "AutoRGN",
    "Binding",
    "Callback",
    "Checkpoints",
    "ClassifierTask",
    "CombinedStrategy",
    "Comparison",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "EarlyStoppingCallback",
    "FineTuneStrategy",
    "FlatCosStrategy",
    "ImageClassifierTask",
    "L2SPFinetuneStrategy",
    "LPFTStrategy",
    "LRFinder",
    "Learner",
    "LoadReport",
    "MultiLabelClassifierTask",
    "OneCycleStrategy",
    "OptunaPruning",
    "ParamScheduler",
    "Phase",
    "PhasedStrategy",
    "Plateau",
    "RDrop",
    "Range",
    "RegressionTask",
    "RunConfig",
    "SGDRStrategy",
    "SaveModelCallback",
    "SchedCos",
    "SchedExp",
    "SchedLin",
    "SchedNo",
    "SchedPoly",
    "SearchSpace",
    "SequenceLabelTask",
    "StopTraining",
    "TextClassifierTask",
    "ULMFiTStrategy",
    "VisualDLCallback",
    "annealer",
    "auto_rgn",
    "combine_scheds",
    "combined_cos",
    "compare",
    "cpu_threads",
    "export_inference",
    "finetune",
    "fisher",
    "interpolate",
    "load_pretrained",
    "minimum",
    "mixed_precision",
    "optim",
    "param_attr",
    "reinitialize",
    "save_pretrained",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
    "schedules",
    "slide",
    "soup",
    "steep",
    "strategy_from_dict",
    "strategy_from_yaml",
    "transfer",
    "tune",
    "update_statistics",
    "valley",
]
