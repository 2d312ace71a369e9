"""SGD, Adagrad, RMSprop, Adam, AdamW and LAMB with OneFlow's and torch's signatures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import paddle

from paddle_ftstrat._paddle import updates as kernels
from paddle_ftstrat.optim.custom import State, dense, plus
from paddle_ftstrat.optim.grouped import Optimizer, Update, with_l2
from paddle_ftstrat.optim.groups import ParamGroup


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum that has the LR inside.

    Without momentum: p ← p − lr·(g + λp).
    With it: V ← μV + (1 − d)·lr·(g + λp); p ← p − V; with Nesterov p ← p − lr·(g + λp) − μV.
    The LR being inside V, a change of lr acts on the coming gradients only; `torch.optim.SGD` and
    `paddle.optimizer.Momentum` give the same numbers as long as lr is constant.

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        momentum: μ ≥ 0.
        dampening: d ≥ 0, from the first update on.
        weight_decay: λ ≥ 0 (L2).
        nesterov: Nesterov's momentum; needs momentum and no dampening.
        maximize: g ← −g.

    Raises:
        ValueError: an option out of range or unknown, no parameters, a parameter twice, Nesterov without momentum.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = SGD([{"params": [layer.weight], "lr": 0.5}, {"params": [layer.bias]}], lr=0.25)
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item(), layer.bias.item()
        (0.5, -0.25)

    Source: https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.SGD.html.
    """

    sparse_kernel = True
    state_numbers = ("momentum_unit",)

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def check_groups(self, added: Iterable[ParamGroup]) -> None:
        """Refuse Nesterov without momentum or with dampening.

        Raises:
            ValueError: a group has such options.
        """
        for group in added:
            if group["nesterov"] and (not group["momentum"] or group["dampening"]):
                raise ValueError(
                    f"nesterov=True needs momentum > 0 and dampening = 0, not {group['momentum']} and "
                    f"{group['dampening']}"
                )

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """V, where there is momentum."""
        return {"momentum_buf": 0.0} if options["momentum"] else {}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's sgd kernel, or its momentum kernel with V kept as a multiple of the LR."""
        sign = -1.0 if options["maximize"] else 1.0
        mu, nesterov = options["momentum"], options["nesterov"]
        share = sign * (1.0 - options["dampening"])

        def plain(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            kernels.sgd(param, with_l2(grad, param, sign * decay), self.scalar(sign * lr, state))

        def with_momentum(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            unit, velocity = share * lr, state["momentum_buf"]
            if unit == 0.0:
                # V ← μV; p ← p − V, with Nesterov p − μV.
                velocity.scale_(mu)
                param.subtract_(velocity.scale(state.numbers.get("momentum_unit", 0.0) * (mu if nesterov else 1.0)))
                return
            # V = unit·velocity. When the LR changes, V does not: the velocity, which counts in units, does.
            carried, known = mu, state.numbers.setdefault("momentum_unit", unit)
            if known != unit:
                state.numbers["momentum_unit"] = unit
                if nesterov:
                    velocity.scale_(known / unit)
                else:
                    carried = mu * (known / unit)
            kernels.momentum(param, grad, velocity, self.scalar(unit, state), carried, nesterov, sign * decay)

        return with_momentum if mu else plain


class Adagrad(Optimizer):
    """Adagrad: each weight's LR falls with the sum of its squared gradients.

    S ← S + (g + λp)²; p ← p − lr/(1 + (t − 1)·lr_decay)·(g + λp)/(√S + ε), t the number of the update from 1.

    Args:
        params, lr, weight_decay: as for `SGD`.
        lr_decay: how the LR falls with t, ≥ 0.
        initial_accumulator_value: S before the first update, ≥ 0.
        eps: ε ≥ 0.

    Raises:
        ValueError, TypeError: as for `SGD`.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, bias_attr=False)
        >>> optimizer = Adagrad(layer.parameters(), lr=0.1, lr_decay=0.5)
        >>> optimizer.param_groups[0]["eps"]
        1e-10

    Source: https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.Adagrad.html, whose printed formula has ε
    inside the root; OneFlow's own update has it outside, as here.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, {**options, "initial_accumulator_value": initial_accumulator_value})

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """S."""
        return {"sum": options["initial_accumulator_value"]}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's adagrad kernel at the decayed LR."""
        fallen = 1.0 + (self.coming - 1) * options["lr_decay"]

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            rate = self.scalar(lr / fallen, state)
            kernels.adagrad(param, with_l2(grad, param, decay), state["sum"], rate, options["eps"])

        return update


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of a running mean of its square.

    r ← αr + (1 − α)g²; v ← μv + lr·g/√(r + ε); p ← p − v, where g includes λp.
    Centered: m ← αm + (1 − α)g, and √(r − m² + ε) in place of √(r + ε).

    Args:
        params, lr, weight_decay, momentum: as for `SGD`.
        alpha: α ≥ 0.
        eps: ε ≥ 0, inside the root.
        centered: whether to divide by an estimate of the standard deviation.

    Raises:
        ValueError, TypeError: as for `SGD`.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, bias_attr=False)
        >>> RMSprop([{"params": layer.parameters(), "alpha": 0.9}]).param_groups
        [ParamGroup(1 parameters, lr: 0.001, alpha: 0.9, eps: 1e-08, weight_decay: 0.0, momentum: 0.0, centered: False)]

    Source: https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.RMSprop.html, with its momentum.
    """

    # r, m and v; Paddle's kernel wants all three.
    accumulators = ("square_avg", "grad_avg", "momentum_buf")

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "momentum": momentum, "centered": centered})

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's rmsprop kernel."""
        settings = (options["eps"], options["alpha"], options["momentum"], options["centered"])

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            kinds = (state["square_avg"], state["grad_avg"], state["momentum_buf"])
            kernels.rmsprop(param, with_l2(grad, param, decay), kinds, self.scalar(lr, state), *settings)

        return update


class Adam(Optimizer):
    """Adam: the running mean of the gradient over the root of that of its square.

    m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; p ← p − lr·m̂/(√v̂ + ε), where g includes λp,
    m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) with bias correction, else m and v; t counts the optimizer's updates.
    AMSGrad: the largest v so far in place of v.

    Args:
        params, lr: as for `SGD`.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε ≥ 0.
        weight_decay: λ ≥ 0 (L2; decoupled in `AdamW`).
        amsgrad: whether to use AMSGrad.
        do_bias_correction: whether to divide by 1 − βᵗ.

    Raises:
        ValueError, TypeError: as for `SGD`.

    Example:
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
        """Paddle's adam or adamw kernel; AMSGrad, which Paddle 2 does not have, in single operations."""
        betas, eps, powers = options["betas"], options["eps"], _powers(options, self.coming)

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            moments = (state["exp_avg"], state["exp_avg_sq"])
            scalars = (self.scalar(powers[0], state), self.scalar(powers[1], state))
            rate = self.scalar(lr, state)
            if self.decoupled:
                kernels.adamw(param, grad, rate, moments, scalars, betas, eps, decay)
            else:
                kernels.adam(param, with_l2(grad, param, decay), rate, moments, scalars, betas, eps)

        def amsgrad(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            grad = dense(grad, param)
            if self.decoupled:
                param.scale_(1.0 - lr * decay)
            else:
                grad = with_l2(grad, param, decay)
            mean, square, largest = state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"]
            _move((mean, square), grad, betas)
            paddle.assign(paddle.maximum(largest, square), output=largest)
            param.subtract_(_step(mean, largest, powers, eps).scale(lr))

        return amsgrad if options["amsgrad"] else update


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p·(1 − lr·λ) before Adam's update, which does not see λ.

    Args:
        params, lr, betas, eps, amsgrad, do_bias_correction: as for `Adam`.
        weight_decay: λ ≥ 0; a parameter with a ParamAttr regulariser of its own has that instead.

    Raises:
        ValueError, TypeError: as for `SGD`.

    Example:
        >>> layer = paddle.nn.Linear(4, 2)
        >>> no_decay = {"params": [layer.bias], "weight_decay": 0.0}
        >>> optimizer = AdamW([{"params": [layer.weight]}, no_decay], lr=1e-3, weight_decay=0.01)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.01, 0.0]

    Source: Loshchilov & Hutter (arXiv:1711.05101);
    https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.AdamW.html.
    """

    decoupled = True
    # Paddle's adamw kernel ends the process on a sparse gradient.
    sparse_kernel = False


class LAMB(Optimizer):
    """LAMB: Adam's step at the scale of each parameter's norm, for large batches.

    u = m̂/(√v̂ + ε) as in Adam, r = ‖p‖/‖u‖ (1 where either norm is 0); p ← p − lr·r·(u + λp).
    With `adam_w_mode=False` λp is added to the gradient instead. The ratio r leaves λ out, unlike that of
    `paddle.optimizer.Lamb`.

    Args:
        params, lr, betas, eps, do_bias_correction: as for `Adam`.
        weight_decay: λ ≥ 0.
        adam_w_mode: decoupled decay (True) or L2 (False).
        amsgrad: must be False; LAMB has no such variant.

    Raises:
        ValueError: amsgrad; else ValueError and TypeError as for `SGD`.

    Example:
        >>> layer = paddle.nn.Linear(4, 2)
        >>> LAMB(layer.parameters(), lr=1e-3, weight_decay=0.01).param_groups[0]["adam_w_mode"]
        True

    Source: You et al. (arXiv:1904.00962); https://oneflow.readthedocs.io/en/master/generated/oneflow.optim.LAMB.html.
    """

    accumulators = ("exp_avg", "exp_avg_sq")

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
                size, moved = paddle.norm(param), paddle.norm(step)
                # A tensor, so that nothing waits for the device.
                ratio = paddle.where(paddle.logical_and(size > 0, moved > 0), size / moved, paddle.ones_like(size))
                param.subtract_((step + param.scale(decay)) * ratio.scale(lr))
                return
            exact = (self.scalar(powers[0], state), self.scalar(powers[1], state))
            if state.dtype not in scratch:
                scratch[state.dtype] = (exact[0].clone(), exact[1].clone())
            # The kernel multiplies the powers that it is given by the betas.
            scalars = scratch[state.dtype]
            scalars[0].copy_(exact[0], False)
            scalars[1].copy_(exact[1], False)
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
