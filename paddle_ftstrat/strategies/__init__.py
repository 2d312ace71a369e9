"""Strategies: named, validated, serialisable options that compile to a plan."""

from paddle_ftstrat.strategies.base import DefaultStrategy, strategy_from_dict, strategy_from_yaml
from paddle_ftstrat.strategies.combined import (
    AdamWeightDecayStrategy,
    CombinedStrategy,
    DefaultFinetuneStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)
from paddle_ftstrat.strategies.phases import LPFTStrategy, PhasedStrategy, default_phases
from paddle_ftstrat.strategies.policies import FineTuneStrategy, FlatCosStrategy, OneCycleStrategy, SGDRStrategy

__all__ = [
    "AdamWeightDecayStrategy",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "FineTuneStrategy",
    "FlatCosStrategy",
    "L2SPFinetuneStrategy",
    "LPFTStrategy",
    "OneCycleStrategy",
    "PhasedStrategy",
    "SGDRStrategy",
    "ULMFiTStrategy",
    "default_phases",
    "strategy_from_dict",
    "strategy_from_yaml",
]
