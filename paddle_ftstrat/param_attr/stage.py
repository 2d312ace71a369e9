"""Freezing by a boundary: what reaches the loss only through one layer gets no gradient."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _compat

_PLAIN = (type(None), bool, int, float, complex, str, np.ndarray, np.generic)


class FrozenStage:
    """A boundary made by `freeze_stage`: `remove()` takes it away, and so does leaving its `with` block."""

    def __init__(self, layer: nn.Layer, model: nn.Layer) -> None:
        self._model = model
        self._hook = layer.register_forward_post_hook(_cut)
        _compat.forget_traces(model)

    def remove(self) -> None:
        """Let gradients through again; a second call does nothing."""
        self._hook.remove()
        _compat.forget_traces(self._model)

    def __enter__(self) -> FrozenStage:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def freeze_stage(layer: nn.Layer, model: nn.Layer | None = None) -> FrozenStage:
    """Freeze everything up to and including a layer: no gradient passes its output, and none is kept below it.

    The output is cut off from what made it (its `stop_gradient` is True), so nothing that reaches the loss only through
    this layer gets a gradient, without a list of what that is. The activations below the boundary are freed at once.
    Tensors in tuples, lists, dicts and dataclasses are cut, too.

    Parameters that are cut off stay `stop_gradient=False`, and optimizers skip them for want of a gradient. Two things
    are left to you. A gradient of zeros is a gradient, which momentum and decay act on: clear gradients below the layer
    with `optimizer.clear_grad(set_to_zero=False)`, as `Binding.step` does. And BatchNorm statistics below go on moving
    unless `freeze` fixes them.

    Args:
        layer: the topmost frozen layer. A skip connection around it is not cut.
        model: the model it is part of; only needed where `paddle.jit.to_static` has compiled that already.

    Returns:
        A handle with `remove()`, which is a context manager, too.

    Raises:
        TypeError: not a layer; or, in the forward, an output with something else than tensors and plain values in it.

    Example:
        >>> import paddle
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> with freeze_stage(model[1]):
        ...     model(paddle.ones([1, 2])).backward()
        >>> [param.grad is None for param in model.parameters()]
        [True, True, True, True, False, False]
    """
    for given in (layer, layer if model is None else model):
        if not isinstance(given, nn.Layer):
            raise TypeError(f"freeze_stage takes a paddle.nn.Layer, not {given!r} of type {type(given).__name__}")
    for param in layer.parameters():
        param.clear_gradient(False)
    return FrozenStage(layer, layer if model is None else _compat.unwrap(model))


def _cut(layer: nn.Layer, _: Any, output: Any) -> Any:
    try:
        return _detached(output)
    except TypeError as error:
        raise TypeError(
            f"freeze_stage cannot cut the output of {type(layer).__name__}, which holds a {error}: return tensors, or "
            "tuples, lists, dicts or dataclasses of them"
        ) from None


def _detached(output: Any) -> Any:
    if hasattr(output, "stop_gradient"):
        # Setting stop_gradient would keep the graph alive below, and mark the input of a layer that returns its input.
        return output.detach()
    if isinstance(output, _PLAIN):
        return output
    if isinstance(output, Mapping):
        result = copy.copy(output)
        for key, value in output.items():
            result[key] = _detached(value)
        return result
    if isinstance(output, (tuple, list)):
        values = [_detached(value) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    if dataclasses.is_dataclass(output):
        fields = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(output, **{name: _detached(getattr(output, name)) for name in fields})
    raise TypeError(type(output).__name__)
