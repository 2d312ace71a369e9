"""Fine-tuning strategies for PaddlePaddle: `import paddle_ftstrat as hub`."""

from paddle_ftstrat import finetune, schedules
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.finetune.callbacks import Callback, EarlyStoppingCallback, SaveModelCallback, StopTraining
from paddle_ftstrat.finetune.config import RunConfig
from paddle_ftstrat.finetune.learner import Learner
from paddle_ftstrat.finetune.lr_find import LRFinder, minimum, slide, steep, valley
from paddle_ftstrat.finetune.strategy import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    DefaultStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)
from paddle_ftstrat.finetune.task import ClassifierTask
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

__version__ = "0.1.0"

__all__ = [
    "AdamWeightDecayStrategy",
    "Binding",
    "Callback",
    "ClassifierTask",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "EarlyStoppingCallback",
    "L2SPFinetuneStrategy",
    "LRFinder",
    "Learner",
    "ParamScheduler",
    "RunConfig",
    "SaveModelCallback",
    "SchedCos",
    "SchedExp",
    "SchedLin",
    "SchedNo",
    "SchedPoly",
    "StopTraining",
    "ULMFiTStrategy",
    "annealer",
    "combine_scheds",
    "combined_cos",
    "finetune",
    "minimum",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
    "schedules",
    "slide",
    "steep",
    "valley",
]
