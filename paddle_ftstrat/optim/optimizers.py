"""SGD, Adagrad and RMSprop with OneFlow's and torch's signatures; Adam's family is in `adam.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from paddle_ftstrat._compat import kernels
from paddle_ftstrat.optim.custom import State
from paddle_ftstrat.optim.grouped import Optimizer, ParamGroup, Update, with_l2


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
        >>> import paddle
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
            if decay:
                grad = with_l2(grad, param, sign * decay)
            kernels.sgd(param, grad, self.scalar(sign * lr, state))

        def with_momentum(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            unit, velocity = share * lr, state["momentum_buf"]
            if unit == 0.0:
                _coast(param, velocity, mu, nesterov, state)
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


def _coast(param: Any, velocity: Any, mu: float, nesterov: bool, state: State) -> None:
    """The update of SGD at an LR of 0: V ← μV; p ← p − V, with Nesterov p − μV."""
    velocity.scale_(mu)
    param.subtract_(velocity.scale(state.numbers.get("momentum_unit", 0.0) * (mu if nesterov else 1.0)))


class Adagrad(Optimizer):
    """Adagrad: each weight's LR falls with the sum of its squared gradients.

    S ← S + (g + λp)²; p ← p − lr/(1 + (t − 1)·lr_decay)·(g + λp)/(√S + ε), t the number of the update from 1.

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        lr_decay: how the LR falls with t, ≥ 0.
        weight_decay: λ ≥ 0 (L2).
        initial_accumulator_value: S before the first update, ≥ 0.
        eps: ε ≥ 0.

    Raises:
        ValueError: an option out of range or unknown, no parameters, a parameter twice.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> import paddle
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
        eps = options["eps"]
        fallen = 1.0 + (self.coming - 1) * options["lr_decay"]

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            if decay:
                grad = with_l2(grad, param, decay)
            kernels.adagrad(param, grad, state["sum"], self.scalar(lr / fallen, state), eps)

        return update


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of a running mean of its square.

    r ← αr + (1 − α)g²; v ← μv + lr·g/√(r + ε); p ← p − v, where g includes λp.
    Centered: m ← αm + (1 − α)g, and √(r − m² + ε) in place of √(r + ε).

    Args:
        params: parameters, or dicts with "params" and any of the options below.
        lr: the LR, ≥ 0.
        alpha: α ≥ 0.
        eps: ε ≥ 0, inside the root.
        weight_decay: λ ≥ 0 (L2).
        momentum: μ ≥ 0.
        centered: whether to divide by an estimate of the standard deviation.

    Raises:
        ValueError: an option out of range or unknown, no parameters, a parameter twice.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Example:
        >>> import paddle
        >>> layer = paddle.nn.Linear(1, 1, bias_attr=False)
        >>> RMSprop([{"params": layer.parameters(), "alpha": 0.9}]).param_groups
        [ParamGroup(1 parameters, lr: 0.001, alpha: 0.9, eps: 1e-08, weight_decay: 0.0, momentum: 0.0, centered: False)]

    Source: https://oneflow.readthedocs.io/en/v0.8.1/generated/oneflow.optim.RMSprop.html, with its momentum.
    """

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

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """R, m and v; Paddle's kernel wants all three."""
        return {"square_avg": 0.0, "grad_avg": 0.0, "momentum_buf": 0.0}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """Paddle's rmsprop kernel."""
        settings = (options["eps"], options["alpha"], options["momentum"], options["centered"])

        def update(param: Any, grad: Any, lr: float, decay: float, state: State) -> None:
            kinds = (state["square_avg"], state["grad_avg"], state["momentum_buf"])
            if decay:
                grad = with_l2(grad, param, decay)
            kernels.rmsprop(param, grad, *kinds, self.scalar(lr, state), *settings)

        return update
