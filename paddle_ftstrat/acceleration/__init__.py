"""A training step on the CPU with other kernels than Paddle's where these are slow."""

from paddle_ftstrat.acceleration import forwards  # noqa: F401  they enter themselves in `stands`
from paddle_ftstrat.acceleration.stands import Acceleration, accelerate, maker, survey

__all__ = ["Acceleration", "accelerate", "maker", "survey"]
