"""Regularisers that Paddle lacks, as Paddle regularisers, which every Paddle optimizer honours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle.regularizer import L2Decay, WeightDecayRegularizer

from paddle_ftstrat import _errors
from paddle_ftstrat.optim import masters

__all__ = ["L2Decay", "L2SPDecay"]


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

    def __deepcopy__(self, memo: dict) -> L2SPDecay:
        # The anchor is never written, so a copied model can share it instead of doubling the pretrained weights.
        return self

    def __str__(self) -> str:
        return f"L2SP({self._coeff:g})"


def anchor_of(param: Any) -> Any:
    """A float32 copy of a parameter's value, from before its cast to half precision where that is kept."""
    return masters.float32_of(param)


def anchored(rows: Sequence[Any]) -> dict[str, Any]:
    """Those of the resolved parameters that have an L2SP anchor, by name."""
    return {row.name: row for row in rows if isinstance(row.settings.regularizer, L2SPDecay)}


def checked_anchors(rows: Sequence[Any], given: Mapping[str, Any]) -> list[tuple[L2SPDecay, Any]]:
    """The saved anchors of resolved parameters, as (regularizer, float32 tensor or None).

    Raises:
        ValueError: anchors of other parameters, or of another shape.
    """
    here = anchored(rows)
    # What was frozen when it was bound has an anchor only since it was thawed, here or there.
    differ = [name for name in given if name not in here]
    differ += [name for name, row in here.items() if row.own.trainable and name not in given]
    if differ:
        raise ValueError(f"L2SP anchors of the state and of this binding differ: {_errors.listing(sorted(differ))}")
    pairs = []
    for name, row in here.items():
        value = given.get(name)
        if value is not None:
            value = (value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)).astype("float32")
        if value is not None and list(value.shape) != list(row.param.shape):
            raise ValueError(f"the L2SP anchor of {name!r} has shape {list(value.shape)}, not {list(row.param.shape)}")
        pairs.append((row.settings.regularizer, value))
    return pairs
