"""From the plan's clip to Paddle's grad_clip classes."""

from __future__ import annotations

from paddle.nn import ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue

from paddle_ftstrat.plan import Clip

_CLASSES = {"GlobalNorm": ClipGradByGlobalNorm, "Norm": ClipGradByNorm, "Value": ClipGradByValue}


def grad_clip(clip: Clip | None) -> ClipGradByGlobalNorm | ClipGradByNorm | ClipGradByValue | None:
    """Paddle's clip object for a plan's clip.

    GlobalNorm: g·v/max(‖all g‖, v); Norm: the same for each parameter by itself; Value: g limited to [−v, v].

    Example:
        >>> grad_clip(Clip("GlobalNorm", 1.0)).clip_norm
        1.0
    """
    return None if clip is None else _CLASSES[clip.kind](clip.value)
