"""The fused update: clip, regulariser, rule and decay in one or two passes over memory, in all threads."""

from paddle_ftstrat.optim.fused.step import attach, describe, maker

__all__ = ["attach", "describe", "maker"]
