"""Adam, AdamW and LAMB with OneFlow's and torch's signatures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import paddle

from paddle_ftstrat._compat import kernels
from paddle_ftstrat.optim.custom import State, dense, plus
from paddle_ftstrat.optim.grouped import Optimizer, Update, with_l2


class Adam(Optimizer):
    """Adam: the running mean of the gradient over the root of that of its square.

    m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; p ← p − lr·m̂/(√v̂ + ε), where g includes λp,
    m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) with bias correction, else m and v; t counts the optimizer's updates.
    AMSGrad: the largest v so far in place of v.

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε ≥ 0.
        weight_decay: λ ≥ 0 (L2; decoupled in `AdamW`).
        amsgrad: whether to use AMSGrad.
        do_bias_correction: whether to divide by 1 − βᵗ.

    Raises:
        ValueError: an option out of range or unknown, no parameters, a parameter twice.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> import paddle
        >>> layer = paddle.nn.Linear(4, 2)
        >>> optimizer = Adam([{"params": layer.parameters(), "clip_grad_max_norm": 0.5}], lr=1e-3)
        >>> layer(paddle.ones([8, 4])).square().mean().backward()
        >>> optimizer.clip_grad()
        >>> optimizer.step()
        >>> optimizer.zero_grad()

    Source: Kingma & Ba (arXiv:1412.6980); https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.Adam.html,
    whose printed formula leaves the bias correction out.
    """

    sparse_kernel = True

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        do_bias_correction: bool = True,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "do_bias_correction": do_bias_correction})

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """M, v, and the largest v."""
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if options["amsgrad"] else ("exp_avg", "exp_avg_sq")
        return dict.fromkeys(names, 0.0)

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's adam kernel; AMSGrad, which Paddle 2 does not have, in single operations."""
        betas, eps, powers = options["betas"], options["eps"], _powers(options, self.coming)
        if options["amsgrad"]:
            return _amsgrad(betas, eps, powers, decoupled=False)

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            moments = (state["exp_avg"], state["exp_avg_sq"])
            scalars = (self.scalar(powers[0], state), self.scalar(powers[1], state))
            if decay:
                grad = with_l2(grad, param, decay)
            kernels.adam(param, grad, self.scalar(lr, state), moments, scalars, betas, eps)

        return update


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p·(1 − lr·λ) before Adam's update, which does not see λ.

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε ≥ 0.
        weight_decay: λ ≥ 0; a parameter with a ParamAttr regulariser of its own has that instead.
        amsgrad: whether to use AMSGrad.
        do_bias_correction: whether to divide by 1 − βᵗ.

    Raises:
        ValueError: an option out of range or unknown, no parameters, a parameter twice.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> import paddle
        >>> layer = paddle.nn.Linear(4, 2)
        >>> no_decay = {"params": [layer.bias], "weight_decay": 0.0}
        >>> optimizer = AdamW([{"params": [layer.weight]}, no_decay], lr=1e-3, weight_decay=0.01)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.01, 0.0]

    Source: Loshchilov & Hutter (arXiv:1711.05101);
    https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.AdamW.html.
    """

    # Paddle's adamw kernel ends the process on a sparse gradient.
    sparse_kernel = False

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's adamw kernel; AMSGrad in single operations."""
        betas, eps, powers = options["betas"], options["eps"], _powers(options, self.coming)
        if options["amsgrad"]:
            return _amsgrad(betas, eps, powers, decoupled=True)

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            moments = (state["exp_avg"], state["exp_avg_sq"])
            scalars = (self.scalar(powers[0], state), self.scalar(powers[1], state))
            kernels.adamw(param, grad, self.scalar(lr, state), moments, scalars, betas, eps, decay)

        return update


class LAMB(Optimizer):
    """LAMB: Adam's step at the scale of each parameter's norm, for large batches.

    u = m̂/(√v̂ + ε) as in Adam, r = ‖p‖/‖u‖ (1 where either norm is 0); p ← p − lr·r·(u + λp).
    With `adam_w_mode=False` λp is added to the gradient instead. The ratio r leaves λ out, unlike that of
    `paddle.optimizer.Lamb`.

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε ≥ 0.
        weight_decay: λ ≥ 0.
        adam_w_mode: decoupled decay (True) or L2 (False).
        do_bias_correction: whether to divide by 1 − βᵗ.
        amsgrad: must be False; LAMB has no such variant.

    Raises:
        ValueError: amsgrad, an option out of range or unknown, no parameters, a parameter twice.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> import paddle
        >>> layer = paddle.nn.Linear(4, 2)
        >>> LAMB(layer.parameters(), lr=1e-3, weight_decay=0.01).param_groups[0]["adam_w_mode"]
        True

    Source: You et al. (arXiv:1904.00962); https://oneflow.readthedocs.io/en/master/generated/oneflow.optim.LAMB.html.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
        do_bias_correction: bool = True,
        amsgrad: bool = False,
    ) -> None:
        if amsgrad:
            raise ValueError("amsgrad=True: LAMB has no AMSGrad variant; Adam and AdamW have one")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "adam_w_mode": adam_w_mode, "do_bias_correction": do_bias_correction})

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """M and v."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's lamb kernel; with decoupled decay single operations."""
        betas, eps, powers = options["betas"], options["eps"], _powers(options, self.coming)
        decoupled = options["adam_w_mode"]
        scratch: dict[str, tuple[Any, Any]] = {}

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            moments = (state["exp_avg"], state["exp_avg_sq"])
            if decoupled and decay:
                _move(moments, grad, betas)
                step = _step(*moments, powers, eps)
                ratio = _trust_ratio(param, step)
                param.subtract_((step + param.scale(decay)) * ratio.scale(lr))
                return
            exact = (self.scalar(powers[0], state), self.scalar(powers[1], state))
            if state.dtype not in scratch:
                scratch[state.dtype] = (exact[0].clone(), exact[1].clone())
            # The kernel multiplies the powers that it is given by the betas.
            scalars = scratch[state.dtype]
            scalars[0].copy_(exact[0], False)
            scalars[1].copy_(exact[1], False)
            if decay:
                grad = with_l2(grad, param, decay)
            kernels.lamb(param, grad, self.scalar(lr, state), moments, scalars, betas, eps)

        return update


def _powers(options: Mapping[str, Any], number: int) -> tuple[float, float]:
    """β₁ᵗ and β₂ᵗ, or zeros, which make Paddle's kernels correct nothing."""
    return tuple(beta**number for beta in options["betas"]) if options["do_bias_correction"] else (0.0, 0.0)


def _move(moments: tuple[Any, Any], grad: Any, betas: tuple[float, float]) -> None:
    for moment, term, beta in ((moments[0], grad, betas[0]), (moments[1], paddle.square(grad), betas[1])):
        moment.scale_(beta).add_(term.scale(1.0 - beta))


def _step(mean: Any, square: Any, powers: tuple[float, float], eps: float) -> Any:
    """m̂/(√v̂ + ε)."""
    root = plus(paddle.sqrt(square).scale(1.0 / math.sqrt(1.0 - powers[1])), eps)
    return (mean / root).scale(1.0 / (1.0 - powers[0]))


def _trust_ratio(param: Any, step: Any) -> Any:
    """‖p‖/‖u‖, 1 where either is 0; a tensor, so that nothing waits for the device."""
    size, moved = paddle.norm(param), paddle.norm(step)
    return paddle.where(paddle.logical_and(size > 0, moved > 0), size / moved, paddle.ones_like(size))


def _amsgrad(betas: tuple[float, float], eps: float, powers: tuple[float, float], decoupled: bool) -> Update:
    def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
        grad = dense(grad, param)
        if decoupled:
            param.scale_(1.0 - lr * decay)
        elif decay:
            grad = with_l2(grad, param, decay)
        mean, square, largest = state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"]
        _move((mean, square), grad, betas)
        paddle.assign(paddle.maximum(largest, square), output=largest)
        param.subtract_(_step(mean, largest, powers, eps).scale(lr))

    return update
