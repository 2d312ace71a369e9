"""The LR finder and its suggestions."""

from paddle_ftstrat.training.lr_find import LRFinder, minimum, slide, steep, valley

__all__ = ["LRFinder", "minimum", "slide", "steep", "valley"]
