"""Schedule-free SGD and AdamW: an average of the weights in place of a decaying learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.custom import Accumulator, CustomOptimizer, State, adam_denominator, plus, times

_STATE = {
    "z": Accumulator(),
    "count": Accumulator(scalar=True),
    "largest_lr": Accumulator(scalar=True),
    "weight_sum": Accumulator(scalar=True),
}


class ScheduleFree(CustomOptimizer):
    """What both have: z, the average x, and the weights y between them, at which gradients are taken.

    w = t^r·(largest lr so far)^p; c = w/Σw; y ← y + c(z − y) − lr·(1 − β(1 − c))·u; z ← z − lr·u. u = step + λy.
    The model holds y = βx + (1 − β)z; x are the weights to evaluate and to keep.

    Args: as for `ScheduleFreeSGD`.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta: float = 0.9,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        weight_decay: float = 0.0,
        **common: Any,
    ) -> None:
        # Under no name of a momentum: what a schedule has moved would leave no average in y and z.
        self.averaging = (
            _errors.check_number("beta", beta, above=0, maximum=1),
            _errors.check_number("r", r, minimum=0),
            _errors.check_number("weight_lr_power", weight_lr_power, minimum=0),
        )
        super().__init__(learning_rate, weight_decay=weight_decay, **common)

    def averaged_weights(self) -> dict[str, Any]:
        """The averages x by parameter `.name`, of the parameters that have been updated; new tensors."""
        with paddle.no_grad():
            found = {}
            for param in self._parameter_list:
                if param.name not in self._states:
                    continue
                z = self.state_of(param)["z"]
                y = self._master_weights.get(param.name, param).astype(z.dtype)
                found[param.name] = (y + (z - y).scale(1.0 - 1.0 / self.averaging[0])).astype(param.dtype)
            return found

    def _add_state(self, param: Any, kinds: Mapping[str, Accumulator]) -> State:
        state = super()._add_state(param, kinds)
        paddle.assign(self.weight_of(param).astype(state.dtype), output=state["z"])
        return state

    def _move(self, param: Any, weight: Any, grad: Any) -> None:
        state, lr, decay = self.state_of(param), self.lr_of(param), self.decay_of(param)
        paddle.assign(plus(state["count"], 1.0), output=state["count"])
        step = self._step(grad, lr, state)
        if decay:
            step.add_(weight.scale(lr * decay))
        share = self._share(lr, state)
        weight.lerp_(state["z"], share)
        state["z"].subtract_(step)
        weight.subtract_(times(step, 1.0 - (1.0 - share).scale(self.averaging[0])))

    def _step(self, grad: Any, lr: float, state: State) -> Any:
        """lr·u without decay, a new tensor."""
        return grad.scale(lr)

    def _share(self, lr: float, state: State) -> Any:
        """c, [1]; 0 as long as every LR was 0."""
        _, r, power = self.averaging
        largest, total = state["largest_lr"], state["weight_sum"]
        paddle.assign(paddle.maximum(largest, paddle.full([1], lr, largest.dtype)), output=largest)
        weight = paddle.pow(largest, power) * paddle.pow(state["count"], r)
        total.add_(weight)
        return paddle.where(total > 0, weight / total, paddle.zeros_like(total))


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD: SGD at a constant LR whose weighted average of weights takes the place of a schedule.

    w = t^r·(largest lr so far)^p; c = w/Σw; u = g + λy; y ← y + c(z − y) − lr·(1 − β(1 − c))·u; z ← z − lr·u.
    The model holds y = βx + (1 − β)z, where gradients are taken; x = `averaged_weights()` are to be evaluated and kept.

    Args:
        learning_rate: lr, a number ≥ 0 or a scheduler; a warmup helps, a decay is what the average replaces.
        beta: β in (0, 1], their momentum.
        r: r ≥ 0, more weight for later updates.
        weight_lr_power: p ≥ 0, more weight for updates after the warmup.
        weight_decay: λ ≥ 0, decoupled, taken at y.
        **common: parameters, grad_clip, multi_precision, apply_decay_param_fun, name, as for `CustomOptimizer`.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = ScheduleFreeSGD(0.25, beta=0.5, parameters=layer.parameters())
        >>> for _ in range(2):
        ...     layer(paddle.ones([1, 1])).sum().backward()
        ...     optimizer.step()
        ...     optimizer.clear_grad()
        >>> layer.weight.item(), optimizer.averaged_weights()[layer.weight.name].item()
        (0.5625, 0.625)

    Source: Defazio et al., "The Road Less Scheduled" (arXiv:2405.15682), and their package `schedulefree`.
    """

    accumulators: ClassVar[dict[str, Accumulator]] = _STATE


class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-free AdamW: AdamW's steps at a constant LR; an average of the weights takes the place of a schedule.

    v ← β₂v + (1 − β₂)g²; u = g/(√(v/(1 − β₂^t)) + ε) + λy; w = t^r·(largest lr so far)^p; c = w/Σw;
    y ← y + c(z − y) − lr·(1 − β(1 − c))·u; z ← z − lr·u.
    The model holds y = βx + (1 − β)z, where gradients are taken; x = `averaged_weights()` are to be evaluated and
    kept.

    Args:
        learning_rate: lr, a number ≥ 0 or a scheduler; a warmup helps, a decay is what the average replaces.
        beta: β in (0, 1], their β₁.
        beta2: β₂ in [0, 1).
        epsilon: ε ≥ 0.
        **common: r, weight_lr_power and weight_decay, as for `ScheduleFreeSGD`; parameters, grad_clip, multi_precision,
            apply_decay_param_fun and name, as for `CustomOptimizer`.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = ScheduleFreeAdamW(0.25, epsilon=0.0, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.75

    Source: Defazio et al., "The Road Less Scheduled" (arXiv:2405.15682), and their package `schedulefree`.
    """

    accumulators: ClassVar[dict[str, Accumulator]] = {**_STATE, "moment2": Accumulator()}

    def __init__(
        self, learning_rate: Any = 0.0025, beta: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, **common: Any
    ) -> None:
        self._beta2 = _errors.check_number("beta2", beta2, minimum=0, below=1)
        self._epsilon = _errors.check_number("epsilon", epsilon, minimum=0)
        super().__init__(learning_rate, beta, **common)

    def _step(self, grad: Any, lr: float, state: State) -> Any:
        return grad.scale(lr).divide_(
            adam_denominator(state["moment2"], grad, self._beta2, state["count"], self._epsilon)
        )
