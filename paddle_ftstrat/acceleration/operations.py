"""All operations that stand in for Paddle's; imported at the first use only, since numba takes a while."""

from paddle_ftstrat.acceleration.convolution import Convolution, Depthwise
from paddle_ftstrat.acceleration.functions import KEEP, Activation, Attention, CrossEntropy, Dense, Lookup, Norm, drop

__all__ = [
    "KEEP",
    "Activation",
    "Attention",
    "Convolution",
    "CrossEntropy",
    "Dense",
    "Depthwise",
    "Lookup",
    "Norm",
    "drop",
]
