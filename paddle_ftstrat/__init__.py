"""Fine-tuning strategies for PaddlePaddle: `import paddle_ftstrat as hub`."""

from paddle_ftstrat import finetune
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.finetune.strategy import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    DefaultStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)

__version__ = "0.1.0"

__all__ = [
    "AdamWeightDecayStrategy",
    "Binding",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "ULMFiTStrategy",
    "finetune",
]
