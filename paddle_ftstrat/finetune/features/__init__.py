"""What frozen layers give each sample, computed once and then reused."""

from paddle_ftstrat.finetune.features.calls import Refusal
from paddle_ftstrat.finetune.features.frozen_features import DEFAULT_MEMORY, FrozenFeatures

__all__ = ["DEFAULT_MEMORY", "FrozenFeatures", "Refusal"]
