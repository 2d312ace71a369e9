"""No update from gradients that are not finite: it would spoil the weights and the optimizer's state for good."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle


class FiniteGradients:
    """Refuses an update whose gradients hold a NaN or an infinity, before anything is changed.

    Args:
        names: parameter `.name` → structured name, for the message.
        lr_scheduler: what tells the update and its LR.
    """

    def __init__(self, names: Mapping[str, str], lr_scheduler: Any) -> None:
        self._names = names
        self._lr = lr_scheduler

    def __call__(self, params_grads: Iterable[tuple[Any, Any]]) -> None:
        """Check the gradients of an update.

        Raises:
            FloatingPointError: one is not finite.
        """
        with paddle.no_grad():
            given = [(param, _paddle.values_of(grad)) for param, grad in params_grads if grad is not None]
            # One number to wait for. Finite gradients may overflow in it, so that it only says where to look closer.
            sums = [paddle.sum(grad).astype("float32") for _, grad in given]
            if not sums or math.isfinite(paddle.add_n(sums).item()):
                return
            bad = [param.name for param, grad in given if not paddle.isfinite(grad).all().item()]
        self.refuse([self._names.get(name, name) for name in bad])

    def refuse(self, bad: Sequence[str]) -> None:
        """Raise for parameters, if there are any, whose gradients are not finite.

        Raises:
            FloatingPointError: there is one.
        """
        if bad:
            others = f" (nor are those of {_errors.listing(bad[1:], 4)})" if bad[1:] else ""
            raise FloatingPointError(
                f"the gradient of {bad[0]!r} is not finite{others} at update {self._lr.last_epoch + 1} with learning "
                f"rate {self._lr():g}; the weights and the optimizer's state are as before the update"
            )
