"""Strategies: named, validated, serialisable options that compile to a plan."""

from paddle_ftstrat.strategies.combined import CombinedStrategy, DefaultStrategy
from paddle_ftstrat.strategies.hub import (
    AdamWeightDecayStrategy,
    DefaultFinetuneStrategy,
    L2SPFinetuneStrategy,
    ULMFiTStrategy,
)
from paddle_ftstrat.strategies.phases import LPFTStrategy, PhasedStrategy, default_phases
from paddle_ftstrat.strategies.policies import FineTuneStrategy, FlatCosStrategy, OneCycleStrategy, SGDRStrategy
from paddle_ftstrat.strategies.serialize import strategy_from_dict, strategy_from_yaml

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
