"""Muon: orthogonalised momentum for hidden matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.custom import (
    Accumulator,
    Accumulators,
    CustomOptimizer,
    adam_denominator,
    bias_correction,
    plus,
    times,
)
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import find_head

ADJUSTMENTS = ("match_rms_adamw", "original")
# The quintic whose iteration drives singular values towards 1; Keller Jordan's coefficients.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(CustomOptimizer):
    """Muon: each hidden weight moves by the orthogonal matrix that is nearest to its momentum; all else by AdamW.

    m ← μm + (1 − μ)g; u = (1 − μ)g + μm with `nesterov`, else m; p ← p·(1 − lr·λ) − lr·s·NS(u), NS(u) by
    `steps` iterations X ← aX + bXXᵀX + c(XXᵀ)²X from u/‖u‖. A weight of more than two axes is a matrix [first axis,
    all others]. s = 0.2·√max(rows, columns) with "match_rms_adamw", √max(1, outputs/inputs) with "original".

    Args:
        learning_rate: lr, a number ≥ 0 or a scheduler.
        momentum: μ in [0, 1].
        nesterov: look ahead by one step of the momentum.
        steps: iterations of Newton and Schulz, ≥ 1; 5 are usual.
        adjust: the factor s. "match_rms_adamw" makes steps as large as AdamW's, so that one LR fits both;
            "original" wants a hundred times as much as AdamW and a small `adamw_ratio`.
        hidden: which weights Muon updates. In a strategy selectors of them (globs, layers, regexes); None: the rule of
            `hidden_weights`. For this class by itself a function parameter `.name` → bool; None: all of two axes
            and more.
        adamw_ratio: LR of AdamW over lr, ≥ 0.
        beta1, beta2, epsilon: AdamW's β₁, β₂ in [0, 1) and ε ≥ 0.
        weight_decay: λ ≥ 0, decoupled, of both.
        parameters, **common: as for `CustomOptimizer`, with grad_clip, multi_precision, apply_decay_param_fun and name.

    Raises:
        ValueError: an argument out of range, or a hidden weight of one axis.
        TypeError: an argument of a wrong type.

    Example:
        >>> layer = paddle.nn.Linear(3, 2)
        >>> optimizer = Muon(0.02, adjust="original", parameters=layer.parameters())
        >>> layer(paddle.randn([4, 3])).square().sum().backward()
        >>> optimizer.step()
        >>> list(optimizer.state_of(layer.weight)), list(optimizer.state_of(layer.bias))
        (['momentum'], ['count', 'moment1', 'moment2'])

    Source: Jordan et al. (https://kellerjordan.github.io/posts/muon/), there in bfloat16, here in float32;
    "match_rms_adamw": Liu et al. (arXiv:2502.16982).
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        adjust: str = "match_rms_adamw",
        hidden: Any = None,
        adamw_ratio: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameters: Iterable[Any] | None = None,
        weight_decay: float = 0.0,
        **common: Any,
    ) -> None:
        self._momentum = _errors.check_number("momentum", momentum, minimum=0, maximum=1)
        self._nesterov = _errors.check_flag("nesterov", nesterov)
        self._steps = _errors.check_whole("steps", steps, minimum=1)
        if adjust not in ADJUSTMENTS:
            raise ValueError(_errors.unknown("adjust", adjust, ADJUSTMENTS))
        self._adjust = adjust
        if hidden is not None and not callable(hidden):
            raise TypeError(f"hidden must be a function parameter .name → bool, not {_errors.shown(hidden)}")
        self._ratio = _errors.check_number("adamw_ratio", adamw_ratio, minimum=0)
        # Names of their own: what a schedule of momentum moves is Muon's.
        self._adamw_betas = tuple(
            _errors.check_number(key, beta, minimum=0, below=1) for key, beta in (("beta1", beta1), ("beta2", beta2))
        )
        self._epsilon = _errors.check_number("epsilon", epsilon, minimum=0)
        parameters = None if parameters is None else list(parameters)
        self._hidden = {p.name for p in parameters or () if (len(p.shape) > 1 if hidden is None else hidden(p.name))}
        flat = [p for p in parameters or () if p.name in self._hidden and len(p.shape) < 2]
        if flat:
            raise ValueError(
                f"hidden: {flat[0].name!r} has shape {list(flat[0].shape)}, and Muon needs a matrix: leave it to AdamW"
            )
        super().__init__(learning_rate, parameters, weight_decay, **common)

    def describe(self) -> str:
        """How many weights go which way."""
        hidden = len(self._hidden)
        return f"Muon updates {hidden} weights, AdamW the other {len(self._parameter_list) - hidden}"

    def lr_of(self, param: Any) -> float:
        """The LR of the coming update of one parameter: the scheduler's, times ParamAttr's multiplier and AdamW's."""
        return super().lr_of(param) * (1.0 if param.name in self._hidden else self._ratio)

    def accumulators_of(self, param: Any) -> Accumulators:
        """One momentum, or AdamW's two moments and the count of updates."""
        if param.name in self._hidden:
            return ("momentum",)
        return {"count": Accumulator(scalar=True), "moment1": 0.0, "moment2": 0.0}

    def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        """The formulas above, decay excepted, which the base class does."""
        if "momentum" not in state:
            self._adamw(param, grad, lr, state)
            return
        momentum = state["momentum"].scale_(self._momentum).add_(grad.scale(1.0 - self._momentum))
        if self._nesterov:
            momentum = grad.scale(1.0 - self._momentum) + momentum.scale(self._momentum)
        matrix = momentum.reshape([momentum.shape[0], -1])
        # A linear layer's weight is [inputs, outputs], one of more axes [outputs, …].
        outputs, inputs = matrix.shape if len(param.shape) > 2 else matrix.shape[::-1]
        larger = {"original": max(1.0, outputs / inputs), "match_rms_adamw": 0.04 * max(outputs, inputs)}
        orthogonal = orthogonalized(matrix, self._steps).scale_(lr * math.sqrt(larger[self._adjust]))
        param.subtract_(orthogonal.reshape(param.shape))

    def _adamw(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        beta1, beta2 = self._adamw_betas
        count = paddle.assign(plus(state["count"], 1.0), output=state["count"])
        step = state["moment1"].scale_(beta1).add_(grad.scale(1.0 - beta1)).scale(lr)
        times(step, 1.0 / bias_correction(beta1, count))
        param.subtract_(step.divide_(adam_denominator(state["moment2"], grad, beta2, count, self._epsilon)))


def hidden_weights(model: nn.Layer) -> set[str]:
    """The structured names of the weights that Muon is meant for: matrices between a model's input and its head.

    These have two axes or more and belong neither to an Embedding, nor to a normalisation or recurrent layer (whose
    gates are several matrices in one), nor to the head: what `load_pretrained` left new, else the last layer.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> hidden_weights(model)
        {'1.weight'}
    """
    ids = {
        id(param)
        for _, layer in select.every_layer(model)
        if isinstance(layer, (nn.Embedding, nn.layer.rnn.RNNCellBase, nn.layer.rnn.RNNBase))
        for _, param in select.every_name(layer)
    }
    try:
        outside = {*find_head(model), *select.norm_or_bias(model)}
    except ValueError:  # a single layer is all head
        return set()
    return {
        name
        for name, param in select.named_weights(model).items()
        if len(param.shape) > 1 and id(param) not in ids and name not in outside
    }


def orthogonalized(matrix: Any, steps: int = 5) -> Any:
    """A matrix with singular values near 1 and the singular vectors of the given one [m, n].

    Example:
        >>> values = paddle.linalg.svd(orthogonalized(paddle.to_tensor([[3.0, 0.0], [0.0, 1.0]])))[1]
        >>> bool((values > 0.6).all()), bool((values < 1.3).all())
        (True, True)
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.t()
    x = x / plus(paddle.sqrt(paddle.square(x).sum()), 1e-7)
    for _ in range(steps):
        gram = paddle.matmul(x, x, transpose_y=True)
        polynomial = paddle.matmul(gram, gram).scale_(_C).add_(gram.scale_(_B))
        x = paddle.matmul(polynomial, x).add_(x.scale_(_A))
    return x if wide else x.t()
