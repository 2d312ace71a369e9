"""PaddleHub's module path of the strategies: `hub.finetune.strategy.ULMFiTStrategy` and the others."""

from paddle_ftstrat.strategies import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    DefaultStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)

__all__ = [
    "AdamWeightDecayStrategy",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "ULMFiTStrategy",
]
