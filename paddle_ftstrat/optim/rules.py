"""Lion, and the optimizers of Paddle 1.x that Paddle 2 and 3 lost: Ftrl, DecayedAdagrad, LarsMomentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.custom import CustomOptimizer, plus


class Lion(CustomOptimizer):
    """Lion: steps of equal size, in the direction of the sign of an interpolated momentum.

    p ← p·(1 − lr·λ); p ← p − lr·sign(β₁m + (1 − β₁)g); m ← β₂m + (1 − β₂)g.

    Args:
        learning_rate: lr, a number ≥ 0 or a scheduler; the paper uses 3–10 times less than for AdamW.
        beta1: β₁ in [0, 1].
        beta2: β₂ in [0, 1].
        weight_decay: λ ≥ 0, decoupled; the paper uses 3–10 times more than for AdamW.
        **common: parameters, grad_clip, multi_precision, apply_decay_param_fun, name, as for `CustomOptimizer`.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = Lion(0.25, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.75

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675, program 1).
    """

    accumulators = ("moment",)
    decoupled = True

    def __init__(
        self,
        learning_rate: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        *,
        weight_decay: float = 0.0,
        **common: Any,
    ) -> None:
        self._beta1 = _errors.check_number("beta1", beta1, minimum=0, maximum=1)
        self._beta2 = _errors.check_number("beta2", beta2, minimum=0, maximum=1)
        super().__init__(learning_rate, weight_decay=weight_decay, **common)

    def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        """The formula above, decay excepted, which the base class does."""
        moment = state["moment"]
        direction = paddle.sign(moment.scale(self._beta1) + grad.scale(1.0 - self._beta1))
        param.subtract_(direction.scale(lr))
        moment.scale_(self._beta2).add_(grad.scale(1.0 - self._beta2))


class DecayedAdagrad(CustomOptimizer):
    """Adagrad with a running mean of the squared gradient in place of their sum.

    s ← ρs + (1 − ρ)g²; p ← p − lr·g/(√s + ε).

    Args:
        decay: ρ in [0, 1].
        epsilon: ε ≥ 0.
        learning_rate, **common: as for `CustomOptimizer`, with parameters, weight_decay (λ of L2, or a Paddle
            regulariser), grad_clip, multi_precision and name.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = DecayedAdagrad(0.5, decay=0.75, epsilon=0.0, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.0

    Source: Paddle's operator `decayed_adagrad`; `fluid.optimizer.DecayedAdagrad` of Paddle 1.8, with its defaults.
    """

    accumulators = ("moment",)

    def __init__(self, learning_rate: Any = 0.001, decay: float = 0.95, epsilon: float = 1e-6, **common: Any) -> None:
        self._rho = _errors.check_number("decay", decay, minimum=0, maximum=1)
        self._epsilon = _errors.check_number("epsilon", epsilon, minimum=0)
        super().__init__(learning_rate, **common)

    def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        """The formula above."""
        moment = state["moment"]
        moment.scale_(self._rho).add_(paddle.square(grad).scale(1.0 - self._rho))
        param.subtract_((grad / plus(paddle.sqrt(moment), self._epsilon)).scale(lr))


class Ftrl(CustomOptimizer):
    """Follow the regularised leader: sparse weights through an L1 term in closed form.

    n ← s + g²; z ← z + g − (n^−k − s^−k)/lr·p; p ← (l1·sign(z) − z)/(n^−k/lr + 2·l2) where |z| > l1, else 0; s ← n,
    k = lr_power; s and z begin at 0. An update at an LR of 0 changes nothing.

    Args:
        l1: l1 ≥ 0.
        l2: l2 ≥ 0.
        lr_power: k ≤ 0.
        learning_rate, **common: as for `CustomOptimizer`, with parameters, weight_decay (λ of a further L2 in the
            gradient, or a Paddle regulariser), grad_clip, multi_precision and name.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = Ftrl(0.25, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.75

    Source: McMahan et al., "Ad Click Prediction: a View from the Trenches" (KDD 2013); Paddle's operator `ftrl`, whose
    printed formula for k = −½ misplaces p; `fluid.optimizer.Ftrl` of Paddle 1.8, with its defaults.
    """

    accumulators = ("squared", "linear")

    def __init__(
        self, learning_rate: Any = 0.001, l1: float = 0.0, l2: float = 0.0, lr_power: float = -0.5, **common: Any
    ) -> None:
        self._l1 = _errors.check_number("l1", l1, minimum=0)
        self._l2 = _errors.check_number("l2", l2, minimum=0)
        self._power = -_errors.check_number("lr_power", lr_power, maximum=0)
        super().__init__(learning_rate, **common)

    def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        """The formula above."""
        if lr == 0.0:
            return
        squared, linear = state["squared"], state["linear"]
        before = self._root(squared)
        squared.add_(paddle.square(grad))
        after = self._root(squared)
        linear.add_(grad - (after - before).scale(1.0 / lr) * param)
        shrunk = paddle.sign(linear).scale(self._l1) - linear
        # A weight that never had a gradient has s = z = 0: it keeps its value instead of becoming 0/0.
        touched = squared > 0
        curvature = paddle.where(touched, plus(after.scale(1.0 / lr), 2.0 * self._l2), paddle.ones_like(after))
        moved = paddle.where(paddle.abs(linear) > self._l1, shrunk / curvature, paddle.zeros_like(shrunk))
        paddle.assign(paddle.where(touched, moved, param), output=param)

    def _root(self, squared: Any) -> Any:
        return paddle.sqrt(squared) if self._power == 0.5 else paddle.pow(squared, self._power)


class LarsMomentum(CustomOptimizer):
    """Momentum with an LR per layer, proportional to the layer's weights over its gradient.

    l = lr·c·‖p‖/(‖g‖ + λ‖p‖ + ε), or lr where ‖p‖ or ‖g‖ is 0; v ← μv + l·(g + λp); p ← p − v.
    For a parameter that does not decay, λ = 0 in all of it.

    Args:
        momentum: μ ≥ 0.
        lars_coeff: c > 0.
        lars_weight_decay: λ ≥ 0; a parameter's own regulariser beats it.
        exclude_from_weight_decay_fn: parameter → whether `lars_weight_decay` skips it.
        epsilon: ε ≥ 0.
        learning_rate, **common: as for `CustomOptimizer`, with parameters, weight_decay (λ of a further L2 in the
            gradient, or a Paddle regulariser), grad_clip, multi_precision and name.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0), bias_attr=False)
        >>> optimizer = LarsMomentum(0.5, lars_coeff=0.5, lars_weight_decay=0.0, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.75

    Source: You, Gitman & Ginsburg (arXiv:1708.03888); Paddle's operator `lars_momentum` as documented (its kernel drops
    the layer's LR where λ = 0); `fluid.optimizer.LarsMomentum` of Paddle 1.8, with its defaults.
    """

    accumulators = ("velocity",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        momentum: float = 0.9,
        lars_coeff: float = 0.001,
        lars_weight_decay: float = 0.0005,
        *,
        exclude_from_weight_decay_fn: Callable[[Any], bool] | None = None,
        epsilon: float = 0.0,
        **common: Any,
    ) -> None:
        self._momentum = _errors.check_number("momentum", momentum, minimum=0)
        self._lars_coeff = _errors.check_number("lars_coeff", lars_coeff, above=0)
        self._lars_decay = _errors.check_number("lars_weight_decay", lars_weight_decay, minimum=0)
        self._epsilon = _errors.check_number("epsilon", epsilon, minimum=0)
        self._excluded = exclude_from_weight_decay_fn
        super().__init__(learning_rate, **common)

    def _move(self, param: Any, weight: Any, grad: Any) -> None:
        if self._excluded is not None:
            decays = not self._excluded(param)
        else:
            decays = getattr(param, "regularizer", None) is None
        decay = self._lars_decay if decays else 0.0
        velocity, size, slope = self.state_of(param)["velocity"], paddle.norm(weight), paddle.norm(grad)
        adapted = size.scale(self._lars_coeff) / plus(slope + size.scale(decay), self._epsilon)
        rate = paddle.where(paddle.logical_and(size > 0, slope > 0), adapted, paddle.ones_like(size))
        step = (grad + weight.scale(decay)) * rate.scale(self.lr_of(param))
        velocity.scale_(self._momentum).add_(step)
        weight.subtract_(velocity)
