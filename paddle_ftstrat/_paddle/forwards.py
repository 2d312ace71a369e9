"""What a forward that stands in for Paddle's has to read of a layer, and whether this is the place for one.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

import paddle
from paddle import nn
from paddle.base import core
from paddle.base.dygraph import base as dygraph
from paddle.base.dygraph import tensor_patch_methods
from paddle.base.framework import _dygraph_tracer
from paddle.nn.layer.transformer import _convert_attention_mask

_GRAD_FILE = inspect.getsourcefile(dygraph)
_BACKWARD_FILES = {inspect.getsourcefile(tensor_patch_methods)}
_O0 = core.AmpLevel.O0
# They replace the forward of nn.TransformerEncoderLayer when they are imported, by one that can return the attention's
# weights and is the same else (PaddleNLP 2.8.1 and 3.0.0b4, PaddleFormers 1.2.0).
_HOSTS = ("paddlenlp.transformers.model_outputs", "paddleformers.transformers.model_outputs")
_FLOAT32 = paddle.float32


def plain_here(x: Any) -> bool:
    """Whether an operation on x is one of dygraph, in float32, on the CPU, and not one that `auto_cast` casts."""
    return (
        paddle.in_dynamic_mode()
        and x.dtype == _FLOAT32
        and x.place.is_cpu_place()
        and x.is_dense()
        and _dygraph_tracer()._amp_level == _O0
    )


def is_paddles_forward(cls: type[nn.Layer]) -> bool:
    """Whether a class has a forward of Paddle's, or one that does the same; libraries replace them for all layers."""
    module = getattr(cls.forward, "__module__", "")
    return module.startswith("paddle.nn.layer.") or module in _HOSTS


# Kernel, strides and paddings, over height and width, of a convolution that multiplies each position by one matrix.
POINTS = (1, 1, 1, 1, 0, 0)

Edge = tuple[bool, str]


def edges(*tensors: Any) -> list[Edge]:
    """Of each tensor that an operation in Python gets: whether it needs a gradient, and its name if it is a leaf."""
    return [
        (not tensor.stop_gradient, tensor.name if tensor.is_leaf else "") for tensor in tensors if tensor is not None
    ]


def wanted(edges: list[Edge]) -> list[bool]:
    """Which gradients the backward of such an operation has to return; to return another one is an error.

    `paddle.grad(outputs, inputs)` takes away what does not lead to its inputs, and tells the operation nothing of it. A
    leaf that is none of them is not wanted; of the others all are, which is wrong where only tensors behind the
    operation are asked for: Paddle raises then.
    """
    asked = _asked()
    return [needs and (asked is None or not leaf or leaf in asked) for needs, leaf in edges]


def within_grad() -> bool:
    """Whether this backward is part of a `paddle.grad`, which goes through copies of the graph's nodes."""
    return _asked() is not None


def _asked() -> set[str] | None:
    """The names of the inputs of the `paddle.grad` that this backward is part of; None within `Tensor.backward`."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "grad":
        if frame.f_code.co_name == "backward" and frame.f_code.co_filename in _BACKWARD_FILES:
            return None
        frame = frame.f_back
    inputs = frame.f_locals.get("inputs") if frame is not None and frame.f_code.co_filename == _GRAD_FILE else None
    return {tensor.name for tensor in inputs} if isinstance(inputs, (list, tuple)) else None


def has_hooks(layer: nn.Layer) -> bool:
    """Whether something is called before or after the layer's forward."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks)


def norm_shape(layer: nn.LayerNorm) -> tuple[list[int], float]:
    """The shape over which a LayerNorm normalises, and its ε."""
    return list(layer._normalized_shape), layer._epsilon


def special_batch_norm(layer: nn.Layer) -> str:
    """What a BatchNorm layer has that the plain one has not; "" for nothing."""
    return "" if layer._data_format[1] == "C" else f"data_format={layer._data_format!r}"


def batch_norm_statistics(layer: nn.Layer, x: Any) -> tuple[Any, bool, float, float] | None:
    """A BatchNorm layer's running statistics, whether the batch's are used and move them, the momentum, and ε.

    Paddle's convention on the CPU: running = momentum·running + (1 − momentum)·batch, with the biased variance. None
    where an input is not for this layer, where Paddle normalises nothing (a value per channel), and where it uses the
    batch's in eval mode.
    """
    ranks = {nn.BatchNorm1D: (2, 3), nn.BatchNorm2D: (4,), nn.BatchNorm3D: (5,)}
    rank = next(rank for cls, rank in ranks.items() if isinstance(layer, cls))
    running, fixed = (layer._mean, layer._variance), layer._use_global_stats
    if len(x.shape) not in rank or [x.shape[1]] != running[0].shape or x.shape[1] == x.size:
        return None
    if not layer.training and fixed is False:
        return None
    return running, layer.training and not fixed, layer._momentum, layer._epsilon


def is_exact_gelu(layer: nn.GELU) -> bool:
    """Whether a GELU is the one of the error function, not the one of tanh."""
    return layer._approximate in (False, "none")


def embedding_options(layer: nn.Embedding) -> tuple[int, bool]:
    """The id whose row gets no gradient (−1 for none), and whether the gradient is dense and the plain sum."""
    padding = layer._padding_idx
    scaled = getattr(layer, "_max_norm", None) or getattr(layer, "_scale_grad_by_freq", None)
    return -1 if padding is None else padding, not layer._sparse and not scaled


def convolution_options(layer: nn.Conv2D) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and paddings of a Conv2D that is not special, over height and width."""
    same = layer._padding_algorithm == "SAME"
    padding = [size // 2 for size in layer._kernel_size] if same else layer._updated_padding
    return tuple(layer._stride), tuple(padding)


def is_pointwise(layer: nn.Conv2D) -> bool:
    """Whether a Conv2D multiplies each position by one matrix, and no more."""
    return layer._groups == 1 and (*layer._kernel_size, *sum(convolution_options(layer), ())) == POINTS


def is_depthwise(layer: nn.Conv2D) -> bool:
    """Whether a Conv2D has one group, and one output, for each channel."""
    return 1 < layer._groups == layer._in_channels == layer._out_channels


def special_convolution(layer: nn.Conv2D) -> str:
    """What a Conv2D has that the plain one has not; "" for nothing."""
    plain = {"_data_format": "NCHW", "_padding_mode": "zeros"}
    for name, value in plain.items():
        if getattr(layer, name) != value:
            return f"{name[1:]}={getattr(layer, name)!r}"
    if layer._groups != 1 and not is_depthwise(layer):
        return f"groups={layer._groups!r}"
    if set(layer._dilation) != {1}:
        return f"dilation={layer._dilation!r}"
    # As much on either side only then.
    even = all(size % 2 for size in layer._kernel_size) and set(layer._stride) == {1}
    if layer._padding_algorithm == "SAME" and not even:
        return "padding='same' with strides or a kernel of even size"
    return "" if len(layer._updated_padding) == 2 else f"padding={layer._updated_padding!r}"


def float_mask(mask: Any) -> Any:
    """An attention mask as what is added to the scores: of bool or int, 0 where it is true and −1e9 elsewhere."""
    return _convert_attention_mask(mask, _FLOAT32)
