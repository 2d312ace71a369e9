"""Regularisers that Paddle lacks, as Paddle regularisers, which every Paddle optimizer honours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paddle
from paddle.regularizer import L2Decay, WeightDecayRegularizer

from paddle_ftstrat import _errors
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

    def __deepcopy__(self, memo: dict) -> L2SPDecay:
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


def anchored(rows: Sequence[Any]) -> dict[str, Any]:
    """Those of the resolved parameters that have an L2SP anchor, by name."""
    return {row.name: row for row in rows if isinstance(row.settings.regularizer, L2SPDecay)}


def anchors(rows: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """What the regularizers of resolved parameters hold, by its kind and their names."""
    here = {name: row.settings.regularizer for name, row in anchored(rows).items()}
    return {
        "anchors": {name: one.anchor for name, one in here.items() if one.anchor is not None},
        "fisher": {name: one.fisher for name, one in here.items() if isinstance(one, EWCDecay)},
    }


def checked_anchors(rows: Sequence[Any], state: Mapping[str, Mapping[str, Any]]) -> Callable[[], None]:
    """What puts a saved state's anchors, and Fisher information, into the regularizers of resolved parameters.

    Raises:
        ValueError: those of other parameters, or of another shape.
    """
    here, given = anchored(rows), state["anchors"]
    # What was frozen when it was bound has an anchor only since it was thawed, here or there.
    differ = [name for name in given if name not in here]
    differ += [name for name, row in here.items() if row.own.trainable and name not in given]
    if differ:
        raise ValueError(f"L2SP anchors of the state and of this binding differ: {_errors.listing(sorted(differ))}")
    fisher, weighted = state.get("fisher", {}), {n for n, row in here.items() if _is_weighted(row)}
    if set(fisher) != weighted:
        differ = sorted(set(fisher) ^ weighted)
        raise ValueError(f"the Fisher information of the state and of this binding differ: {_errors.listing(differ)}")
    values = [
        (row.settings.regularizer, kind, _checked(f"the {what} of {name!r}", part.get(name), row.param.shape))
        for kind, what, part in (("anchor", "L2SP anchor", given), ("fisher", "Fisher information", fisher))
        for name, row in here.items()
        if kind == "anchor" or name in fisher
    ]

    def put() -> None:
        for regularizer, kind, value in values:
            setattr(regularizer, kind, value)

    return put


def _is_weighted(row: Any) -> bool:
    return isinstance(row.settings.regularizer, EWCDecay)


def _checked(what: str, value: Any, shape: Sequence[int]) -> Any:
    """A saved value as a float32 tensor, or None.

    Raises:
        ValueError: it has another shape.
    """
    if value is None:
        return None
    value = (value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)).astype("float32")
    if list(value.shape) != list(shape):
        raise ValueError(f"{what} has shape {list(value.shape)}, not {list(shape)}")
    return value
