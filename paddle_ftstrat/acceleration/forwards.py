"""The forwards that stand in for those of Paddle's layers, and which layers each fits.

Every forward looks at its input first and hands what it is not made for to the layer's own class: other devices and
dtypes, `auto_cast`, `to_static`, and inputs so small that starting costs more than is gained.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional

from paddle_ftstrat._paddle import forwards
from paddle_ftstrat.acceleration.autograd import GELU, LINEAR, RELU, RELU6, applied
from paddle_ftstrat.acceleration.stands import STANDS, fits, float32, only, operations, stands_for

MANY = 9


def _objection_to_norm(layer: nn.LayerNorm) -> str:
    if layer.weight is None or layer.bias is None:
        return "no weight or no bias"
    return "" if len(forwards.norm_shape(layer)[0]) == 1 else "over several axes"


def _dropped(p: float, training: bool) -> Any:
    return operations().drop(p) if training and p else operations().KEEP


@stands_for(nn.Linear)
def linear(self: nn.Linear, input: Tensor) -> Tensor:
    if not (fits(self, input, self.weight.shape[-1]) and float32(self.weight, self.bias)):
        return type(self).forward(self, input)
    return applied(operations().Dense, input, self.weight, self.bias, LINEAR, operations().KEEP)


@stands_for(nn.ReLU)
def relu(self: nn.ReLU, x: Tensor) -> Tensor:
    if not fits(self, x):
        return type(self).forward(self, x)
    return applied(operations().Activation, x, RELU, operations().KEEP)


@stands_for(nn.ReLU6)
def relu6(self: nn.ReLU6, x: Tensor) -> Tensor:
    if not fits(self, x):
        return type(self).forward(self, x)
    return applied(operations().Activation, x, RELU6, operations().KEEP)


@stands_for(nn.GELU, lambda layer: "" if forwards.is_exact_gelu(layer) else "approximate='tanh'")
def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    if not fits(self, x):
        return type(self).forward(self, x)
    return applied(operations().Activation, x, GELU, operations().KEEP)


@stands_for(nn.Dropout, only(mode="upscale_in_train", axis=None, inplace=False))
def dropout(self: nn.Dropout, input: Tensor) -> Tensor:
    if not (self.training and 0 < self.p < 1 and fits(self, input)):
        return type(self).forward(self, input)
    return applied(operations().Activation, input, LINEAR, operations().drop(self.p))


@stands_for(nn.LayerNorm, _objection_to_norm)
def layer_norm(self: nn.LayerNorm, input: Tensor) -> Tensor:
    shape, epsilon = forwards.norm_shape(self)
    # Paddle's own gives its input a wrong gradient where its weight is frozen (2.6.2 and 3.3.1).
    large = fits(self, input, share=0 if self.weight.stop_gradient else 1)
    if not (large and list(input.shape[-1:]) == shape and float32(self.weight, self.bias)):
        return type(self).forward(self, input)
    return applied(operations().Norm, input, None, self.weight, self.bias, epsilon, operations().KEEP)


@stands_for(nn.BatchNorm1D, forwards.special_batch_norm)
@stands_for(nn.BatchNorm2D, forwards.special_batch_norm)
@stands_for(nn.BatchNorm3D, forwards.special_batch_norm)
def batch_norm(self: Any, input: Tensor) -> Tensor:
    # Where only one of weight and bias trains, Paddle's own gives it no gradient (2.6.2 and 3.3.1).
    lone = len({param is None or param.stop_gradient for param in (self.weight, self.bias)}) == 2
    statistics = forwards.batch_norm_statistics(self, input) if fits(self, input, share=0 if lone else 1) else None
    if statistics is None or not float32(self.weight, self.bias, *statistics[0]):
        return type(self).forward(self, input)
    running, train, *options = statistics
    places = [tensor.data_ptr() for tensor in running]
    return applied(operations().BatchNorm, input, self.weight, self.bias, places, train, options)


@stands_for(nn.Embedding, lambda layer: "" if forwards.embedding_options(layer)[1] else "sparse or scaled gradient")
def embedding(self: nn.Embedding, x: Tensor) -> Tensor:
    if self.weight.stop_gradient or not (fits(self, self.weight) and x.dtype == paddle.int64 and x.size):
        return type(self).forward(self, x)
    return applied(operations().Lookup, self.weight, x, forwards.embedding_options(self)[0])


@stands_for(
    nn.CrossEntropyLoss,
    only(weight=None, reduction="mean", soft_label=False, axis=-1, use_softmax=True, label_smoothing=0.0),
)
def cross_entropy(self: nn.CrossEntropyLoss, input: Tensor, label: Tensor) -> Tensor:
    if not (fits(self, input) and label.dtype == paddle.int64 and label.size * input.shape[-1] == input.size):
        return type(self).forward(self, input, label)
    labels = label.numpy()
    # What is out of range, and what the mean is of where some are ignored, which differs by version, is Paddle's.
    if labels.min() < 0 or labels.max() >= input.shape[-1] or (labels == self.ignore_index).any():
        return type(self).forward(self, input, label)
    return applied(operations().CrossEntropy, input, label)


@stands_for(nn.Conv2D, forwards.special_convolution)
def convolution(self: nn.Conv2D, x: Tensor) -> Tensor:
    points = forwards.is_pointwise(self)
    # A product of few values may still be large: of many channels by many.
    large = fits(self, x, share=0.25 if points else 1) and len(x.shape) == 4 and float32(self.weight, self.bias)
    # From so many positions on, Paddle's product for each sample is as fast, and needs no turned copies.
    if not large or (points and x.shape[2] * x.shape[3] >= MANY):
        return type(self).forward(self, x)
    operation = operations().Depthwise if forwards.is_depthwise(self) else operations().Convolution
    return applied(operation, x, self.weight, self.bias, *forwards.convolution_options(self))


@stands_for(nn.MultiHeadAttention, only(need_weights=False))
def attention(
    self: nn.MultiHeadAttention,
    query: Any,
    key: Any = None,
    value: Any = None,
    attn_mask: Any = None,
    cache: Any = None,
) -> Tensor:
    key = query if key is None else key
    value = query if value is None else value
    plain = cache is None and not self.need_weights
    if not (plain and fits(self, query) and _fits_attention(query, key, value, attn_mask)):
        return type(self).forward(self, query, key, value, attn_mask, cache)
    q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
    mask = None if attn_mask is None else forwards.float_mask(attn_mask)
    dropped = _dropped(self.dropout, self.training)
    return self.out_proj(applied(operations().Attention, q, k, v, mask, self.num_heads, dropped))


def _fits_attention(query: Any, key: Any, value: Any, mask: Any) -> bool:
    """Whether all are [batch, length, width], and a mask one that is spread over the scores and needs no gradient."""
    if not len(query.shape) == len(key.shape) == len(value.shape) == 3:
        return False
    return mask is None or (mask.stop_gradient and mask.shape[-1] == key.shape[1] and len(mask.shape) in (2, 3, 4))


@stands_for(nn.TransformerEncoderLayer)
def encoder_layer(
    self: nn.TransformerEncoderLayer,
    src: Tensor,
    src_mask: Any = None,
    cache: Any = None,
    output_attentions: bool = False,
) -> Any:
    f = {functional.relu: RELU, functional.gelu: GELU}.get(self.activation)
    inner = (self.linear1, self.linear2, self.norm1, self.norm2, self.dropout, self.dropout1, self.dropout2)
    # PaddleNLP's and PaddleFormers' forward leaves what it is asked for in the attention, until it runs again.
    weights = output_attentions or getattr(self.self_attn, "need_weights", False)
    if f is None or cache is not None or weights or not (fits(self, src) and all(map(_as_it_was, inner))):
        more = {"output_attentions": True} if output_attentions else {}
        return type(self).forward(self, src, src_mask, cache, **more)
    mask = None if src_mask is None else forwards.float_mask(src_mask)
    attended = self.self_attn(*3 * [self.norm1(src) if self.normalize_before else src], mask)
    src = _added(self.norm1, self.dropout1, attended, src, self.normalize_before)
    x = self.norm2(src) if self.normalize_before else src
    dropped = _dropped(self.dropout.p, self.dropout.training)
    x = applied(operations().Dense, x, self.linear1.weight, self.linear1.bias, f, dropped)
    return _added(self.norm2, self.dropout2, self.linear2(x), src, self.normalize_before)


def _added(norm: Any, dropout: Any, x: Any, residual: Any, before: bool) -> Any:
    """residual + dropout(x), normalised unless that was done before."""
    if before:
        return residual + dropout(x)
    dropped = _dropped(dropout.p, dropout.training)
    epsilon = forwards.norm_shape(norm)[1]
    return applied(operations().Norm, x, residual, norm.weight, norm.bias, epsilon, dropped)


def _as_it_was(layer: nn.Layer) -> bool:
    """Whether a layer does what the forward of its class does and no more, so a larger one may do it."""
    stand, own = STANDS.get(type(layer)), layer.__dict__.get("forward")
    return (
        stand is not None
        and forwards.is_paddles_forward(type(layer))
        and not stand.objection(layer)
        and not forwards.has_hooks(layer)
        and (own is None or getattr(own, "__func__", None) is stand.forward)
        and float32(*layer.parameters(include_sublayers=False))
        and 0 <= getattr(layer, "p", 0) < 1
    )
