"""What freezing and ParamAttr need of Paddle's layers: fixed statistics, the names and the creation of parameters.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.base import unique_name
from paddle.base.layer_helper_base import LayerHelperBase
from paddle.nn import functional, initializer
from paddle.nn.layer.rnn import RNNBase

from paddle_ftstrat import _paddle

Create = Callable[[Callable[[], Any], str, Any, Any, Any], Any]


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


def trained_changed(model: nn.Layer) -> None:
    """Have Paddle notice that other parameters of a model train than before.

    What it has compiled is forgotten, and BatchNorm gives a gradient to whichever of weight and bias trains: its kernel
    gives the one none while the other is frozen (CPU), or raises (GPU).
    """
    _paddle.forget_traces(model)
    for layer in model.sublayers(include_self=True):
        if _paddle.is_batch_norm(layer) and _lone(layer) and _stand_in not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_stand_in)
            layer.register_forward_post_hook(_step_aside)


def _lone(layer: nn.Layer) -> str:
    """Which of a BatchNorm layer's weight and bias is frozen while the other trains; else ""."""
    frozen = {name: layer._parameters[name] for name in ("weight", "bias") if layer._parameters.get(name) is not None}
    names = [name for name, param in frozen.items() if param.stop_gradient]
    return names[0] if len(frozen) == 2 and len(names) == 1 else ""


def _stand_in(layer: nn.Layer, inputs: Any) -> None:
    """For this forward, put before the frozen one a tensor of its values that takes a gradient, and is forgotten."""
    # A program that `to_static` makes of the layer has parameters, and no use for other tensors.
    if paddle.in_dynamic_mode() and (name := _lone(layer)):
        layer.__dict__[name] = paddle.to_tensor(layer._parameters[name].detach(), stop_gradient=False)


def _step_aside(layer: nn.Layer, inputs: Any, output: Any) -> None:
    for name in ("weight", "bias"):
        layer.__dict__.pop(name, None)


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


def estimate_statistics(model: nn.Layer, forward: Callable[[Any], Any], batches: Iterable[Any]) -> None:
    """Make the running statistics of BatchNorm layers the plain means over batches, of all processes together.

    Fixed ones stay. All other layers run in eval mode.
    """
    layers = model.sublayers(include_self=True)
    gathering = [layer for layer in layers if _paddle.is_batch_norm(layer) and not layer._use_global_stats]
    momenta = [layer._momentum for layer in gathering]
    if not gathering:
        return
    with _paddle.evaluating(model), paddle.no_grad():
        for layer in gathering:
            layer.training = True
        try:
            for index, batch in enumerate(batches):
                for layer in gathering:
                    layer._momentum = index / (index + 1)
                forward(batch)
        finally:
            for layer, momentum in zip(gathering, momenta):
                layer._momentum = momentum
        if paddle.distributed.is_initialized() and paddle.distributed.get_world_size() > 1:
            for statistic in moving_statistics(model):
                paddle.distributed.all_reduce(statistic)
                statistic.scale_(1 / paddle.distributed.get_world_size())


def has_values(tensor: Any) -> bool:
    """False for a tensor that never got memory, such as the dropout state of an LSTM, made for cuDNN only."""
    return bool(tensor._is_initialized())


class _Route:
    """Counts who needs parameter creation routed, so that overlapping users in several threads share one patch."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.original: Any = None
        self.routed: Any = None


_ROUTE = _Route()


@contextmanager
def parameter_creation_through(create: Create) -> Iterator[None]:
    """Inside it, every parameter is made by `create(make, layer, attr, shape, dtype)`, `make()` being Paddle's own way.

    Every layer and `paddle.create_parameter` end in `LayerHelperBase.create_parameter`, which has no hook. All users
    have to pass the same `create`, which sees the calls of every thread and has to tell its own from others'.
    """
    with _ROUTE.lock:
        _ROUTE.users += 1
        if _ROUTE.users == 1:
            _ROUTE.original = LayerHelperBase.create_parameter
            _ROUTE.routed = LayerHelperBase.create_parameter = _routed(_ROUTE.original, create)
    try:
        yield
    finally:
        with _ROUTE.lock:
            _ROUTE.users -= 1
            # Someone who patched over ours keeps what they did; ours then only passes calls on.
            if _ROUTE.users == 0 and LayerHelperBase.create_parameter is _ROUTE.routed:
                LayerHelperBase.create_parameter = _ROUTE.original


def _routed(original: Callable[..., Any], create: Create) -> Callable[..., Any]:
    def create_parameter(self: Any, attr: Any, shape: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        def make() -> Any:
            return original(self, attr, shape, dtype, *args, **kwargs)

        return create(make, self.name, attr, shape, dtype)

    return create_parameter


def name_is_used(name: str) -> bool:
    """Whether Paddle would refuse a new parameter of this name: it remembers names for ever."""
    return name in unique_name.dygraph_parameter_name_checker._name_set


def forget_name(name: str) -> None:
    """Free the name of a parameter whose creation failed; Paddle takes it before it runs the initializer.

    Without this, correcting the mistake and building the layer again fails with "name have be been used".
    """
    unique_name.dygraph_parameter_name_checker._name_set.discard(name)


@contextmanager
def differentiable(model: nn.Layer) -> Iterator[None]:
    """The model in eval mode inside, but with recurrent layers whose backward works.

    Paddle's keeps what that needs in train mode only. Their dropout is off meanwhile.
    """
    recurrent = {layer: layer.dropout for layer in model.sublayers(include_self=True) if isinstance(layer, RNNBase)}
    with _paddle.evaluating(model):
        try:
            for layer in recurrent:
                layer.training, layer.dropout = True, 0.0
            yield
        finally:
            for layer, dropout in recurrent.items():
                layer.dropout = dropout


_PLAIN = (nn.Linear, nn.Embedding, nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose)


def first_value(layer: nn.Layer, name: str) -> Any | None:
    """What the parameter `name` of one of Paddle's layers begins with, drawn anew; None where that cannot be told."""
    param, default = getattr(layer, name), None
    if isinstance(layer, (RNNBase, nn.RNNCellBase)):
        default = initializer.Uniform(-(layer.hidden_size**-0.5), layer.hidden_size**-0.5)
    elif _paddle.is_norm(layer):
        default = initializer.Constant(0.0 if name == "bias" else 1.0)
    elif isinstance(layer, (nn.Conv1D, nn.Conv2D, nn.Conv3D)):
        if name == "weight":
            default = initializer.Normal(0.0, (2.0 / (np.prod(layer._kernel_size) * layer._in_channels)) ** 0.5)
    elif not isinstance(layer, _PLAIN):
        return None
    given = ("_bias_attr",) if name == "bias" else ("_weight_attr", "_param_attr")
    attr = next((getattr(layer, one) for one in given if hasattr(layer, one)), None)
    own = attr if isinstance(attr, initializer.Initializer) else getattr(attr, "initializer", None)
    with unique_name.guard():  # layers that are built later keep the names that they would have had
        made = layer.create_parameter(
            param.shape, paddle.ParamAttr(initializer=own), "float32", name == "bias", None if own else default
        )
    if isinstance(layer, nn.Embedding) and layer._padding_idx not in (None, -1):
        with paddle.no_grad():
            made[layer._padding_idx] = 0.0
    return made
