"""The uses of something private in Paddle that freezing needs. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

from typing import Any

from paddle import nn
from paddle.nn import functional

from paddle_ftstrat import _paddle


class FixedSyncBatchNorm(nn.SyncBatchNorm):
    """A SyncBatchNorm that normalises with its running statistics in train mode, too.

    Paddle's kernel for it has no such mode; with fixed statistics there is nothing to synchronise.
    """

    def forward(self, x: Any) -> Any:
        """(x − running mean)/√(running variance + ε)·weight + bias."""
        self._check_data_format()
        return functional.batch_norm(
            x,
            self._mean,
            self._variance,
            weight=self.weight,
            bias=self.bias,
            training=self.training,
            momentum=self._momentum,
            epsilon=self._epsilon,
            data_format=self._data_format,
            use_global_stats=True,
        )


def fix_statistics(layer: nn.Layer) -> Any:
    """Have a BatchNorm layer use and keep its running statistics in train mode, too; returns what undoes that.

    `_use_global_stats` is what the `use_global_stats` argument of the BatchNorm layers is stored in and read from at
    each forward.
    """
    before = layer._use_global_stats
    layer._use_global_stats = True
    if type(layer) is nn.SyncBatchNorm:
        layer.__class__ = FixedSyncBatchNorm
    return before


def release_statistics(layer: nn.Layer, before: Any) -> None:
    """Undo `fix_statistics`, which returned `before`."""
    layer._use_global_stats = before
    if type(layer) is FixedSyncBatchNorm:
        layer.__class__ = nn.SyncBatchNorm


def can_fix_statistics(layer: nn.Layer) -> bool:
    """False for a subclass of SyncBatchNorm: its forward is its own and takes no use_global_stats."""
    return not isinstance(layer, nn.SyncBatchNorm) or type(layer) in (nn.SyncBatchNorm, FixedSyncBatchNorm)


def ignores_requires_grad(param: Any) -> bool:
    """Whether somebody set `requires_grad = False` on a parameter and Paddle trains it nevertheless.

    On 2.6 a parameter has no such property, so the assignment makes an attribute that nothing reads.
    """
    return getattr(param, "__dict__", {}).get("requires_grad") is False and not param.stop_gradient


def forget_requires_grad(param: Any) -> None:
    """Drop an attribute `requires_grad` that Paddle does not read, so that it cannot contradict `stop_gradient`."""
    getattr(param, "__dict__", {}).pop("requires_grad", None)


def moving_statistics(model: nn.Layer) -> list[Any]:
    """The running statistics that a forward now would move: those of BatchNorm layers in train mode, unless fixed."""
    return [
        getattr(layer, name)
        for layer in model.sublayers(include_self=True)
        if _paddle.is_batch_norm(layer) and layer.training and not layer._use_global_stats
        for name in _paddle.statistic_names(layer)
    ]
