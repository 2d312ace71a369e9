"""What mixed precision needs of Paddle's inside: the cast of a model, float32 stand-ins, a scaler's verdict.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from paddle import nn
from paddle.base import core
from paddle.base.framework import EagerParamBase


def cast_layers(model: nn.Layer, dtype: str) -> None:
    """Cast a model as `paddle.amp.decorate(level="O2")` does, which keeps BatchNorm in float32, on any device.

    `decorate` itself does nothing on a CPU, and refuses `paddle.DataParallel`.
    """
    # `paddle.amp.auto_cast` is a function too, which hides the module.
    sys.modules["paddle.amp.auto_cast"].amp_initialize(models=[model], dtype=dtype, excluded_layers=None)


def parameter_like(value: Any, name: str) -> Any:
    """A parameter with a tensor's value, under a name that another one may have. It may share the tensor's memory."""
    return EagerParamBase.from_tensor(value, name=name, trainable=True)


def put_master_weight(optimizer: Any, param: Any, master: Any) -> None:
    """Enter the float32 copy of a parameter where Paddle keeps its own and saves them."""
    optimizer._master_weights[param.name] = master


def found_inf(optimizer: Any) -> bool:
    """Whether a loss scaler told the optimizer to skip the update."""
    return bool(optimizer._get_auxiliary_var("found_inf"))


def scaled_step(scaler: Any, optimizer: Any, half: Iterable[Any]) -> bool:
    """`scaler.step(optimizer)` and `scaler.update()`; whether the update was done.

    Args:
        scaler: a `paddle.amp.GradScaler`, or what has its `step` and `update`.
        optimizer: the optimizer.
        half: its half-precision parameters, whose gradients become float32 first: divided by the scale in float16,
            the small ones would vanish after all.
    """
    core.eager.set_master_grads(list(half))
    scaler.step(optimizer)
    done = not found_inf(optimizer)
    # A step without the scaler must not be skipped for what this one found.
    optimizer._set_auxiliary_var("found_inf", None)
    _update_scale(scaler)
    return done


def _update_scale(scaler: Any) -> None:
    """`scaler.update()`, which with numpy ≥ 2.4 fails on lowering a scale of shape [1]: it prints `float(scale)`."""
    scale = getattr(scaler, "_scale", None)
    if scale is None:
        scaler.update()
        return
    scaler._scale = scale.reshape([])
    scaler.update()
    scaler._scale = scaler._scale.reshape([1])
