"""What updates need of Paddle's inside: its kernels as functions; half precision with float32 stand-ins and scalers.

A kernel changes the parameter and its state in place; `lr` and the powers of the betas are tensors of shape [1] in the
parameter's dtype, everything else is a number. Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

import paddle
from paddle import _C_ops, nn
from paddle.base import core
from paddle.base.framework import EagerParamBase

from paddle_ftstrat import _paddle

Pair = tuple[Any, Any]
Betas = tuple[float, float]
# Since Paddle 3 the Adam kernels take AMSGrad's running maximum too.
_HAS_AMSGRAD = "amsgrad" in inspect.signature(paddle.optimizer.Adam.__init__).parameters
_NO_MAXIMUM = (None,) if _HAS_AMSGRAD else ()
_NO_AMSGRAD = (False,) if _HAS_AMSGRAD else ()
_ROWS_PER_THREAD = 1000


def sgd(param: Any, grad: Any, lr: Any) -> None:
    """p ← p − lr·g; the gradient may be sparse."""
    _C_ops.sgd_(param, lr, grad, None, False)


def momentum(param: Any, grad: Any, velocity: Any, lr: Any, mu: float, nesterov: bool, l2: float) -> None:
    """v ← μv + g + l2·p; p ← p − lr·v, or with Nesterov p − lr·(g + l2·p + μv)."""
    # The kernel's rescale_grad does nothing on CPU, so it is not offered.
    _C_ops.momentum_(param, grad, velocity, lr, None, mu, nesterov, "l2_decay" if l2 else "", l2, False, 1.0)


def adagrad(param: Any, grad: Any, total: Any, lr: Any, eps: float) -> None:
    """s ← s + g²; p ← p − lr·g/(√s + eps)."""
    _C_ops.adagrad_(param, grad, total, lr, None, eps, False)


def rmsprop(
    param: Any, grad: Any, state: tuple[Any, Any, Any], lr: Any, eps: float, rho: float, mu: float, centered: bool
) -> None:
    """r ← ρr + (1−ρ)g²; v ← μv + lr·g/√(r + eps), centered: √(r − m² + eps); p ← p − v; the state is (r, m, v)."""
    square, mean, velocity = state
    _C_ops.rmsprop_(param, square, grad, velocity, lr, mean, None, eps, rho, mu, centered, False)


def adam(param: Any, grad: Any, lr: Any, moments: Pair, powers: Pair, betas: Betas, eps: float) -> None:
    """p ← p − lr·m̂/(√v̂ + eps), with 1 − `powers` as the bias corrections; the powers are left alone."""
    _C_ops.adam_(
        param, grad, lr, *moments, *_NO_MAXIMUM, *powers, None, None, *betas, eps, False, _ROWS_PER_THREAD, False, True,
        *_NO_AMSGRAD,
    )  # fmt: skip


def adamw(param: Any, grad: Any, lr: Any, moments: Pair, powers: Pair, betas: Betas, eps: float, decay: float) -> None:
    """p ← p·(1 − lr·decay), then as `adam`."""
    _C_ops.adamw_(
        param, grad, lr, *moments, *_NO_MAXIMUM, *powers, None, None, *betas, eps, 1.0, decay, decay != 0.0, False,
        _ROWS_PER_THREAD, False, True, *_NO_AMSGRAD,
    )  # fmt: skip


def lamb(param: Any, grad: Any, lr: Any, moments: Pair, powers: Pair, betas: Betas, eps: float) -> None:
    """p ← p − lr·(‖p‖/‖u‖)·u with u = m̂/(√v̂ + eps); multiplies the powers by the betas."""
    _C_ops.lamb_(param, grad, lr, *moments, *powers, None, None, 0.0, *betas, eps, True, False)


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
    done = not _paddle.mixed_precision_skips(optimizer)
    # A step without the scaler must not be skipped for what this one found.
    optimizer._set_auxiliary_var("found_inf", None)
    scale = getattr(scaler, "_scale", None)
    if scale is None:
        scaler.update()
    else:
        # With numpy ≥ 2.4 update() fails on lowering a scale of shape [1]: it prints float(scale).
        scaler._scale = scale.reshape([])
        scaler.update()
        scaler._scale = scaler._scale.reshape([1])
    return done
