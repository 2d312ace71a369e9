"""What Paddle's optimizers keep to themselves and an update depends on. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import paddle
from paddle.regularizer import L2Decay

# Attribute → the value with which an update is the plain one. An optimizer may lack any of them.
_PLAIN = {
    "_amsgrad": False,
    "_lazy_mode": False,
    "_lr_ratio": None,
    "_use_multi_tensor": False,
    "_rescale_grad": 1.0,
    "_master_grad": False,
    "enable_tensor_fusion": False,
}
# What an update runs through; `_paddle` marks what it puts in their place with `act` and `inner`.
_STAGES = ("_apply_optimize", "_create_optimization_pass", "_append_optimize_op", "_finish_update")  # the last listens


def special_setting(optimizer: Any) -> str:
    """The first setting that makes the update another than the plain one, "" without any."""
    if not isinstance(optimizer._param_groups, list) or isinstance(optimizer._param_groups[0], dict):
        return "has parameter groups"
    for attribute, plain in _PLAIN.items():
        value = getattr(optimizer, attribute, plain)
        if value != plain and not (plain is False and value is None):
            return f"has {attribute.lstrip('_')}={value!r}"
    return ""


def listeners(optimizer: Any) -> list[Any] | None:
    """What `after_update` has to call, in order; None where a stage of the update is not Paddle's or this package's."""
    acts = []
    for name in _STAGES:
        stage, acts = vars(optimizer).get(name), []
        while hasattr(stage, "inner"):
            acts.append(stage.act)
            stage = stage.inner
        if stage is not None and getattr(stage, "__func__", None) is not getattr(type(optimizer), name):
            return None
    return acts[::-1]


def before_update(optimizer: Any, act: Callable[[list[tuple[Any, Any]]], None]) -> None:
    """Have `act([(parameter, gradient), …])` called before an update by Paddle's operations changes anything.

    It is not called for an update that mixed precision skips, nor for one that becomes part of a static graph.
    """
    apply = optimizer._apply_optimize

    def watched(loss: Any, startup_program: Any, params_grads: Any, param_group_idx: int = 0) -> Any:
        if paddle.in_dynamic_mode() and not mixed_precision_skips(optimizer):
            act(params_grads)
        return apply(loss, startup_program, params_grads, param_group_idx)

    watched.act, watched.inner = act, apply
    optimizer._apply_optimize = watched


def mixed_precision_skips(optimizer: Any) -> bool:
    """Whether a GradScaler has found an infinite gradient, so that this update is not to be; noted as in Paddle."""
    found = optimizer._get_auxiliary_var("found_inf")
    if isinstance(found, paddle.Tensor):
        found = bool(found)
        optimizer._set_auxiliary_var("found_inf", found)
    return bool(found)


def numbers(optimizer: Any) -> tuple[Any, Any, Any]:
    """β₁ or the momentum, β₂ (or whether the momentum is Nesterov's), ε; 0.0 for what the optimizer lacks."""
    if hasattr(optimizer, "_momentum"):
        return optimizer._momentum, float(optimizer._use_nesterov), 0.0
    return getattr(optimizer, "_beta1", 0.0), getattr(optimizer, "_beta2", 0.0), getattr(optimizer, "_epsilon", 0.0)


def number_attributes(optimizer: Any) -> tuple[str, str, str]:
    """The attributes that `numbers` reads."""
    if hasattr(optimizer, "_momentum"):
        return "_momentum", "_use_nesterov", ""
    return "_beta1", "_beta2", "_epsilon"


def coupled_regularizer(optimizer: Any) -> Any | None:
    """What is added to the gradient of a parameter without a regularizer of its own."""
    if getattr(optimizer, "_regularization_method", "") == "l2_decay":
        return L2Decay(optimizer._regularization_coeff)
    return optimizer.regularization


def own_decay(optimizer: Any) -> tuple[float, Any | None]:
    """AdamW's decay and its function parameter `.name` → whether it decays; (0.0, None) for the others."""
    decay = getattr(optimizer, "_weight_decay", 0.0) if type(optimizer) is paddle.optimizer.AdamW else 0.0
    return decay, getattr(optimizer, "_apply_decay_param_fun", None)


def gradient_clip(optimizer: Any) -> Any | None:
    """The optimizer's gradient clip."""
    return optimizer._grad_clip


def coefficient(regularizer: Any) -> float:
    """The coefficient of an L1Decay or L2Decay."""
    return regularizer._coeff


def coefficients(regularizers: Iterable[Any]) -> list[float]:
    """The coefficient of each of them."""
    return [regularizer._coeff for regularizer in regularizers]


def clips_across_processes(clip: Any) -> bool:
    """Whether the norm of a ClipGradByGlobalNorm is a sum over processes."""
    return bool(getattr(clip, "should_comm_on_shard_dim", False))


def parameters(optimizer: Any) -> list[Any]:
    """The parameters of an optimizer without groups."""
    return optimizer._parameter_list


def stored_state(optimizer: Any, kind: str) -> Mapping[str, Any]:
    """The accumulators of one kind, parameter `.name` → tensor, live."""
    return optimizer._accumulators.get(kind, {})


def learning_rate(optimizer: Any) -> np.float32:
    """The LR of the coming update as Paddle's kernels get it."""
    return np.float32(optimizer.get_lr())
