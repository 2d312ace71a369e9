"""Losses of more than one pass over a batch: R-Drop's two, and those of an update whose weights are moved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import paddle
from paddle.nn import functional

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.perturbation import Perturbing
from paddle_ftstrat.training import distributed, rng
from paddle_ftstrat.training.evaluation import IGNORED, loss_of, main_output
from paddle_ftstrat.training.state import Training


class RDrop:
    """R-Drop: a loss over two forward passes of a batch, whose dropout differs, and how far their outputs are apart.

    ½(L(output) + L(output')) + α·½(KL(p‖p') + KL(p'‖p)), with p = softmax of the logits, the mean over all samples
    whose label is not −100. A Learner or task that has it as its loss makes the second pass by itself; evaluations take
    L alone.

    Args:
        loss: L, as for a Learner; None: cross entropy.
        alpha: α ≥ 0. The paper sums L where this takes the mean, so that its α is twice this one.

    Raises:
        ValueError: α < 0; outputs that are no logits of classes.
        TypeError: α is no number.

    Example:
        >>> loss, logits = RDrop(alpha=0.5), paddle.to_tensor([[1.0, 2.0]])
        >>> label = paddle.to_tensor([1])
        >>> (loss(logits, label, logits) == loss(logits, label)).item()  # in a loop of one's own: the model twice
        True

    Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks" (arXiv:2106.14448, eq. 2 and 3).
    """

    def __init__(self, loss: Any = None, alpha: float = 1.0) -> None:
        self.loss, self.alpha = loss, _errors.check_number("alpha", alpha, minimum=0)

    def __call__(self, output: Any, label: Any, again: Any = None) -> Any:
        """The loss of an output, with that of a second pass that of both."""
        if again is None:
            return loss_of(self.loss, output, label)
        loss = (loss_of(self.loss, output, label) + loss_of(self.loss, again, label)) / 2
        return loss + self.alpha * _apart(main_output(output), main_output(again), label)


class Part(NamedTuple):
    """What one batch gives to its update: its loss, summed over its samples, and the weight of its mean loss.

    With its number in the epoch, from 1, and the batch, where the update goes over it again.
    """

    loss: float
    samples: int
    weight: float
    number: int
    batch: Any = None


def further(learner: Training, perturbing: Perturbing, parts: Sequence[Part]) -> None:
    """Go over the batches of an update again, where its strategy moves the weights; gradients are the update's then.

    Each pass is over all batches and processes before the next move, so that neither how a batch is divided among
    processes nor how it is accumulated changes the update. The gradients of the plain pass have been averaged.
    """
    state, rule = learner.state, perturbing.rule
    with closing(perturbing.passes()) as passes:
        for number, _ in enumerate(passes, 1):
            draws = () if rule is not None and rule.same_draws else (number,)
            for part in parts:
                paddle.seed(rng.fold(state.seed, state.epoch, part.number, learner.ranks.rank, *draws))
                loss = learner.forward(part.batch, part.number)[1]
                learner.precision.backward(loss if part.weight == 1 else loss * part.weight)
            distributed.reduce_gradients(learner.weights.values(), learner.ranks)


def _apart(logits: Any, others: Any, label: Any) -> Any:
    """½(KL(p‖q) + KL(q‖p)) of two outputs, the mean over the samples that count: ½ Σ (p − q)(log p − log q)."""
    if list(logits.shape) in (list(label.shape), [*label.shape, 1]) or logits.ndim < 2:
        raise ValueError(f"RDrop compares logits of classes, not outputs of shape {list(logits.shape)}")
    p, q = (functional.log_softmax(one.astype("float32"), axis=-1) for one in (logits, others))
    apart = ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2
    counts = (label.reshape(apart.shape) != IGNORED).astype(apart.dtype)
    return (apart * counts).sum() / counts.sum().clip(min=1.0)
