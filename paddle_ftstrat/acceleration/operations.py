"""The operations: forward and backward of what is put in place of Paddle's, as autograd functions.

Imported at the first use only, since numba takes a while.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer
from paddle.nn import functional

from paddle_ftstrat._paddle import forwards
from paddle_ftstrat.acceleration import kernels, machine
from paddle_ftstrat.acceleration.autograd import (
    GELU,
    LINEAR,
    RELU,
    RELU6,
    asked,
    first_order,
    linear_grads,
    save,
    saved,
    whole,
)
from paddle_ftstrat.acceleration.batch_norm import BatchNorm
from paddle_ftstrat.acceleration.convolution import Convolution, Depthwise
from paddle_ftstrat.acceleration.kernels import TILE
from paddle_ftstrat.acceleration.machine import GRAIN, at, bits

__all__ = [
    "KEEP",
    "Activation",
    "Attention",
    "BatchNorm",
    "Convolution",
    "CrossEntropy",
    "Dense",
    "Depthwise",
    "Lookup",
    "Norm",
    "drop",
]


class Drop(NamedTuple):
    """What decides which values a dropout keeps: 62 random bits, p in units of 2⁻³¹, the bits of 1/(1 − p)."""

    seed: int
    other: int
    limit: int
    scale: int


KEEP = Drop(0, 0, 0, bits(1.0))


def drop(p: float) -> Drop:
    """A dropout of probability p, seeded by Paddle's generator."""
    seed, other = paddle.randint(0, 2**31 - 1, [2], dtype="int64").tolist()
    return Drop(seed, other, round(p * 2**31), bits(1 / (1 - p)))


class Dense(PyLayer):
    """y = dropout(f(x·W + b)); f is LINEAR, or where y goes into another product and nowhere else, RELU or GELU."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, f: int, dropped: Drop) -> Any:
        y = paddle.matmul(whole(x), weight)
        slope = paddle.empty_like(y) if f == GELU else None
        _activate(y, y, slope, bias, f, dropped)
        ctx.f, ctx.dropped, ctx.edges = f, dropped, forwards.edges(x, weight, bias)
        save(ctx, x, weight, *({RELU: [y], GELU: [slope]}.get(f, [])))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, weight, *kept = saved(ctx)
        if ctx.f != LINEAR or ctx.dropped.limit:
            first_order()
            dy = whole(dy)
            dy = _activation_grad(dy, kept, ctx.f, ctx.dropped, dy)  # that other product has made it for this one
        elif not paddle.is_grad_enabled():
            dy = whole(dy)
        return linear_grads(ctx, dy, x, weight)


class Activation(PyLayer):
    """y = dropout(f(x))."""

    @staticmethod
    def forward(ctx: Any, x: Any, f: int, dropped: Drop) -> Any:
        x, y = whole(x), paddle.empty(x.shape)
        slope = paddle.empty_like(y) if f == GELU else None
        _activate(x, y, slope, None, f, dropped)
        ctx.f, ctx.dropped = f, dropped
        save(ctx, *{RELU: [y], RELU6: [y], GELU: [slope]}.get(f, []))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        return _activation_grad(whole(dy), saved(ctx), ctx.f, ctx.dropped, paddle.empty(dy.shape))


class Norm(PyLayer):
    """y = LayerNorm(residual + dropout(x)) over the last axis; without a residual, LayerNorm(x)."""

    @staticmethod
    def forward(ctx: Any, x: Any, residual: Any, weight: Any, bias: Any, epsilon: float, dropped: Drop) -> Any:
        ctx.two, ctx.dropped, ctx.edges = residual is not None, dropped, forwards.edges(x, residual, weight, bias)
        x, columns = whole(x), x.shape[-1]
        rows, y = x.size // columns, paddle.empty(x.shape)
        z, stats = (x if residual is None else paddle.empty(x.shape)), paddle.empty([rows, 2])
        residual = residual if residual is None else whole(residual)
        machine.run(
            kernels.norm,
            rows,
            _rows(columns),
            *at(x, residual, weight, bias, y, z, stats),
            columns,
            bits(epsilon),
            *dropped,
        )
        save(ctx, z, weight, stats)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        z, weight, stats = saved(ctx)
        columns, dz = z.shape[-1], paddle.empty(z.shape)
        rows, grain = z.size // columns, _rows(columns)
        # Two gradients in one memory would be added up twice.
        dx = paddle.empty(z.shape) if ctx.two else None
        parts = paddle.empty([-(-rows // grain), 2 * columns])
        machine.run(
            kernels.norm_grad, rows, grain, *at(whole(dy), z, weight, stats, dz, dx, parts), 0, columns, *ctx.dropped
        )
        both = parts.sum(0)
        return asked(ctx, (*([dx] if ctx.two else []), dz, both[:columns], both[columns:]))


class Attention(PyLayer):
    """dropout(softmax(q·kᵀ/√d + mask))·v of each head; q, k, v are [batch, length, heads·d]."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, mask: Any, heads: int, dropped: Drop) -> Any:
        ctx.heads, ctx.dropped, ctx.edges = heads, dropped, forwards.edges(q, k, v)
        ctx.factor, ctx.masked = bits((q.shape[-1] // heads) ** -0.5), mask is not None
        q, k, v = (_split(x, heads) for x in (q, k, v))
        weights = paddle.matmul(q, k, transpose_y=True)
        kept = paddle.empty(weights.shape) if dropped.limit else weights
        strides = (0, 0, 0) if mask is None else _strides(mask)
        columns, queries = weights.shape[-1], weights.shape[2]
        sizes = (columns, ctx.factor, heads, queries, *strides, *dropped)
        rows = weights.size // columns
        machine.run(kernels.softmax, rows, _rows(columns), *at(weights, kept, mask), *sizes)
        save(ctx, q, k, v, weights, kept)
        return _joined(paddle.matmul(kept, v))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        q, k, v, weights, kept = saved(ctx)
        dy = _split(dy, ctx.heads)
        dv = paddle.matmul(kept, dy, transpose_x=True)
        scores = paddle.matmul(dy, v, transpose_y=True)
        columns = weights.shape[-1]
        rows, sizes = weights.size // columns, (columns, ctx.factor, *ctx.dropped)
        machine.run(kernels.softmax_grad, rows, _rows(columns), *at(scores, weights), *sizes)
        dq, dk = paddle.matmul(scores, k), paddle.matmul(scores, q, transpose_x=True)
        return asked(ctx, (_joined(dq), _joined(dk), _joined(dv))) + ((None,) if ctx.masked else ())


class Lookup(PyLayer):
    """The rows of an embedding; the row `padding` gives zeros and gets no gradient, −1 for none."""

    @staticmethod
    def forward(ctx: Any, weight: Any, ids: Any, padding: int) -> Any:
        ctx.shape, ctx.padding, ctx.edges = weight.shape, padding, forwards.edges(weight)
        save(ctx, whole(ids))
        return functional.embedding(ids, weight, None if padding < 0 else padding)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        (ids,), columns = saved(ctx), ctx.shape[-1]
        grad, width = paddle.zeros(ctx.shape), TILE // 64
        machine.run(kernels.scatter, -(-columns // width), 1, *at(whole(dy), ids, grad), ids.size, columns, ctx.padding)
        return (*asked(ctx, (grad,)), None)


class CrossEntropy(PyLayer):
    """The mean over the rows of −log softmax(x)[label]."""

    @staticmethod
    def forward(ctx: Any, x: Any, labels: Any) -> Any:
        x, labels, columns = whole(x), whole(labels), x.shape[-1]
        losses, logs = paddle.empty([labels.size]), paddle.empty([labels.size])
        machine.run(kernels.entropy, labels.size, _rows(columns), *at(x, labels, losses, logs), columns)
        save(ctx, x, labels, logs)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        x, labels, logs = saved(ctx)
        columns, dx = x.shape[-1], paddle.empty(x.shape)
        scale = bits(float(dy) / labels.size)
        machine.run(kernels.entropy_grad, labels.size, _rows(columns), *at(x, labels, dx, logs), columns, scale)
        return dx, None


def _rows(columns: int) -> int:
    return max(1, GRAIN // columns)


def _activate(h: Any, y: Any, slope: Any, bias: Any, f: int, dropped: Drop) -> None:
    columns = TILE if bias is None else y.shape[-1]
    if bias is None and f == LINEAR and not dropped.limit:
        return
    rows = -(-y.size // columns)
    machine.run(kernels.activate, rows, _rows(columns), *at(h, y, slope, bias), y.size, columns, f, *dropped)


def _activation_grad(dy: Any, kept: Any, f: int, dropped: Drop, dx: Any) -> Any:
    if f == LINEAR:
        _activate(dy, dx, None, None, LINEAR, dropped)
    else:
        scale, top = (0 if f == GELU else dropped.scale), bits(6.0 if f == RELU6 else -1.0)
        machine.run(kernels.gate, -(-dy.size // TILE), GRAIN // TILE, *at(dy, kept[0], dx), dy.size, scale, top)
    return dx


def _split(x: Any, heads: int) -> Any:
    """[batch, length, heads·d] → [batch, heads, length, d]."""
    batch, length, width = x.shape
    y = paddle.empty([batch, heads, length, width // heads])
    machine.run(kernels.swap, batch * length, _rows(width), *at(whole(x), y), length, heads, width // heads)
    return y


def _joined(x: Any) -> Any:
    """[batch, heads, length, d] → [batch, length, heads·d]."""
    batch, heads, length, inner = x.shape
    y = paddle.empty([batch, length, heads * inner])
    machine.run(kernels.swap, batch * heads, _rows(length * inner), *at(x, y), heads, length, inner)
    return y


def _strides(mask: Any) -> tuple[int, ...]:
    """How far apart the rows of a mask lie, over batch, heads and queries; 0 along an axis of 1."""
    steps, distance = [], 1
    for size in reversed(mask.shape):
        steps.append(distance if size > 1 else 0)
        distance *= size
    return tuple(reversed([*steps, 0, 0, 0][1:4]))
