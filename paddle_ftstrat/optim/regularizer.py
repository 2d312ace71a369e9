"""Regularisers that Paddle lacks, as Paddle regularisers, which every Paddle optimizer honours."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.regularizer import L2Decay, WeightDecayRegularizer

from paddle_ftstrat.optim import masters

__all__ = ["EWCDecay", "L2Decay", "L2SPDecay"]


class L2SPDecay(WeightDecayRegularizer):
    """L2 towards the pretrained value: gradient += λ(w − w⁰).

    Args:
        coeff: λ ≥ 0.
        anchor: w⁰, a float32 tensor of the parameter's shape; kept, not copied. None takes the parameter's value at
            the first use, for one that is frozen until then.

    Raises:
        ValueError: λ < 0.

    Example:
        >>> w = paddle.to_tensor([2.0, 3.0])
        >>> decay = L2SPDecay(0.5, paddle.to_tensor([1.0, 1.0]))
        >>> decay(w, None, None).tolist()
        [0.5, 1.0]

    Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning" (arXiv:1802.01483, eq. 2, whose
    α is λ); PaddleHub 1.8 `finetune/regularizer.py`.
    """

    def __init__(self, coeff: float, anchor: Any = None) -> None:
        super().__init__()
        if coeff < 0:
            raise ValueError(f"the L2SP coefficient must be ≥ 0, not {coeff!r}")
        self._coeff = float(coeff)
        self.anchor = anchor

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        """The term that Paddle's optimizers add to the gradient: λ(w − w⁰), in the parameter's dtype."""
        if self.anchor is None:
            self.anchor = anchor_of(param)
        anchor = self.anchor if self.anchor.dtype == param.dtype else self.anchor.astype(param.dtype)
        return paddle.scale(paddle.subtract(param, anchor), self._coeff)

    def __deepcopy__(self, memo: dict[int, Any]) -> L2SPDecay:
        # The anchor is never written, so a copied model can share it instead of doubling the pretrained weights.
        return self

    def __str__(self) -> str:
        return f"L2SP({self._coeff:g})"


class EWCDecay(L2SPDecay):
    """L2SP weighted by what each value mattered to an earlier task: gradient += λ·F·(w − w⁰).

    Args:
        coeff: λ ≥ 0.
        fisher: F ≥ 0, the diagonal of the Fisher information, a float32 tensor of the parameter's shape.
        anchor: w⁰, as for `L2SPDecay`.

    Raises:
        ValueError: λ < 0.

    Example:
        >>> w = paddle.to_tensor([2.0, 3.0])
        >>> decay = EWCDecay(0.5, paddle.to_tensor([4.0, 0.0]), paddle.to_tensor([1.0, 1.0]))
        >>> decay(w, None, None).tolist()
        [2.0, 0.0]

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (arXiv:1612.00796, eq. 3).
    """

    def __init__(self, coeff: float, fisher: Any, anchor: Any = None) -> None:
        super().__init__(coeff, anchor)
        self.fisher = fisher

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        """The term that Paddle's optimizers add to the gradient: λ·F·(w − w⁰), in the parameter's dtype."""
        return paddle.multiply(super().__call__(param, grad, block), self.fisher.astype(param.dtype))

    def __str__(self) -> str:
        return f"EWC({self._coeff:g})"


def anchor_of(param: Any) -> Any:
    """A float32 copy of a parameter's value, from before its cast to half precision where that is kept."""
    return masters.float32_of(param)
