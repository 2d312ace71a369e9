"""Adafactor: second moments in the memory of a row and a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.custom import Accumulator, Accumulators, CustomOptimizer, plus, times


class Adafactor(CustomOptimizer):
    """Adafactor: Adam's second moment kept as one row and one column of each weight, updates bounded in size.

    R ← β₂R + (1 − β₂)·mean(g² + ε₁) over one axis, C over the other, β₂ = 1 − t^decay_rate; u = g/√(R·C/mean(R));
    u ← u/max(1, RMS(u)/clip_threshold); p ← p·(1 − lr·λ) − ρ·u. The axes are the two longest ones; a parameter with
    fewer than two, and every parameter with `factored=False`, has V ← β₂V + (1 − β₂)(g² + ε₁) whole.

    Args:
        learning_rate: lr, a number ≥ 0 or a scheduler.
        beta1: β₁ in [0, 1] of a running mean of the updates, lr included; None: none, and no memory for it.
        decay_rate: how fast β₂ goes to 1 with the parameter's t-th update, ≤ 0.
        clip_threshold: the largest root mean square of u, > 0.
        epsilon1: ε₁ ≥ 0.
        epsilon2: ε₂ ≥ 0, the least size of a weight for `scale_parameter`.
        scale_parameter: ρ times max(ε₂, RMS(p)): steps relative to the weight.
        relative_step: ρ = min(lr, 1/√t) instead of lr; with `scale_parameter` and lr = 0.01 the paper's own schedule.
        factored: False keeps V whole, as Adam does.
        weight_decay: λ ≥ 0, decoupled.
        **common: parameters, grad_clip, multi_precision, apply_decay_param_fun, name, as for `CustomOptimizer`.

    Raises:
        ValueError, TypeError: an argument out of range or of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(300, 200, bias_attr=False)
        >>> optimizer = Adafactor(0.01, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 300])).sum().backward()
        >>> optimizer.step()
        >>> {name: list(value.shape) for name, value in optimizer.state_of(layer.weight).items()}
        {'count': [1], 'row': [200], 'column': [300]}

    Source: Shazeer & Stern (arXiv:1804.04235, algorithms 4 and 5); the choice of the axes is optax's; the defaults are
    those that are used for fine-tuning: lr as given, neither relative nor scaled.
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta1: float | None = None,
        decay_rate: float = -0.8,
        clip_threshold: float = 1.0,
        epsilon1: float = 1e-30,
        epsilon2: float = 1e-3,
        scale_parameter: bool = False,
        relative_step: bool = False,
        factored: bool = True,
        *,
        weight_decay: float = 0.0,
        **common: Any,
    ) -> None:
        self._beta1 = None if beta1 is None else _errors.check_number("beta1", beta1, minimum=0, maximum=1)
        self._rate = _errors.check_number("decay_rate", decay_rate, maximum=0)
        self._threshold = _errors.check_number("clip_threshold", clip_threshold, above=0)
        self._epsilon1 = _errors.check_number("epsilon1", epsilon1, minimum=0)
        self._epsilon2 = _errors.check_number("epsilon2", epsilon2, minimum=0)
        self._scaled = _errors.check_flag("scale_parameter", scale_parameter)
        self._relative = _errors.check_flag("relative_step", relative_step)
        self._factored = _errors.check_flag("factored", factored)
        super().__init__(learning_rate, weight_decay=weight_decay, **common)

    def accumulators_of(self, param: Any) -> Accumulators:
        """The count of updates; R and C, or V; the mean of the updates where there is a β₁."""
        shape, kinds = tuple(param.shape), {"count": Accumulator(scalar=True)}
        if self._factored and len(shape) > 1:
            short, long = longest_axes(shape)
            kinds["row"] = Accumulator(shape=shape[:long] + shape[long + 1 :])
            kinds["column"] = Accumulator(shape=shape[:short] + shape[short + 1 :])
        else:
            kinds["square"] = Accumulator()
        return kinds if self._beta1 is None else {**kinds, "mean": Accumulator()}

    def _move(self, param: Any, weight: Any, grad: Any) -> None:
        state, lr, decay = self.state_of(param), self.lr_of(param), self.decay_of(param)
        paddle.assign(plus(state["count"], 1.0), output=state["count"])
        step = self._step(weight, lr, state["count"])
        update = self._inverse_root(paddle.square(grad), state).multiply_(grad)
        times(update, step / paddle.clip(_size(update).scale(1.0 / self._threshold), min=1.0))
        if self._beta1 is not None:
            update = state["mean"].scale_(self._beta1).add_(update.scale_(1.0 - self._beta1))
        if decay:
            weight.scale_(1.0 - lr * decay)
        weight.subtract_(update)

    def _step(self, weight: Any, lr: float, count: Any) -> Any:
        """ρ, [1]."""
        step = paddle.full([1], lr, weight.dtype)
        if self._relative:
            step = paddle.minimum(step, paddle.rsqrt(count))
        return step * paddle.clip(_size(weight), min=self._epsilon2) if self._scaled else step

    def _inverse_root(self, square: Any, state: Any) -> Any:
        """1/√V after this update, a new tensor."""
        new = paddle.pow(state["count"], self._rate)  # 1 − β₂
        if "square" in state:
            return paddle.rsqrt(state["square"].lerp_(plus(square, self._epsilon1), new))
        short, long = longest_axes(square.shape)
        row = state["row"].lerp_(plus(_mean(square, long), self._epsilon1), new)
        column = state["column"].lerp_(plus(_mean(square, short), self._epsilon1), new)
        row = row / row.mean(axis=short - (long < short), keepdim=True)
        row, column = paddle.rsqrt(row).unsqueeze(long), paddle.rsqrt(column).unsqueeze(short)
        if len(square.shape) > 2:
            return row * column
        return paddle.matmul(row, column) if long else paddle.matmul(column, row)


def longest_axes(shape: Sequence[int]) -> tuple[int, int]:
    """The second longest axis and the longest; of equal ones the later is the longer."""
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return order[-2], order[-1]


def _size(tensor: Any) -> Any:
    """Root mean square, [1]."""
    return paddle.sqrt(paddle.square(tensor).mean()).reshape([1])


def _mean(tensor: Any, axis: int) -> Any:
    """The mean over an axis; of a matrix as a product, which a CPU does in a tenth of the time."""
    if len(tensor.shape) > 2:
        return tensor.mean(axis=axis)
    shares = paddle.full([tensor.shape[axis]], 1.0 / tensor.shape[axis], tensor.dtype)
    return paddle.matmul(tensor, shares) if axis else paddle.matmul(shares, tensor)
