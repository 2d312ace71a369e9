"""What frozen layers give each sample, computed once and then reused."""

from paddle_ftstrat.training.frozen_features.checks import Refusal
from paddle_ftstrat.training.frozen_features.features import DEFAULT_MEMORY, FrozenFeatures

__all__ = ["DEFAULT_MEMORY", "FrozenFeatures", "Refusal"]
