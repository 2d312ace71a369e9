"""PaddleHub's module path of the run configuration."""

from paddle_ftstrat.tasks.config import RunConfig

__all__ = ["RunConfig"]
