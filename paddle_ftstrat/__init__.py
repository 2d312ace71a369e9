"""Fine-tuning strategies for PaddlePaddle: `import paddle_ftstrat as hub`."""

from paddle_ftstrat import finetune
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.finetune.config import RunConfig
from paddle_ftstrat.finetune.learner import Learner
from paddle_ftstrat.finetune.strategy import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    DefaultStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)
from paddle_ftstrat.finetune.task import ClassifierTask

__version__ = "0.1.0"

__all__ = [
    "AdamWeightDecayStrategy",
    "Binding",
    "ClassifierTask",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "Learner",
    "RunConfig",
    "ULMFiTStrategy",
    "finetune",
]
