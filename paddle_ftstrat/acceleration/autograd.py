"""What the autograd functions here share; Linear and LayerNorm by Paddle's operations, where no kernel can be made.

There the sums are what is slow: over the rows for a bias, of several kinds in LayerNorm. A product takes their place.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn import functional

from paddle_ftstrat._paddle import forwards

KEEP = None  # dropouts have kernels
LINEAR, RELU, GELU, RELU6 = range(4)


def first_order() -> None:
    """Refuse a backward that is to have a gradient itself."""
    if paddle.is_grad_enabled():
        raise RuntimeError(
            "gradients of gradients do not go through accelerated layers: give bind() or the Learner's fit "
            "accelerate=False, or call hub.accelerate(model, undo=True)"
        )


def save(ctx: Any, *tensors: Any) -> None:
    """Keep tensors for the backward."""
    ctx.versions = [tensor.inplace_version for tensor in tensors]
    ctx.save_for_backward(*tensors)


def saved(ctx: Any) -> Any:
    """The tensors that were kept for the backward.

    Raises:
        RuntimeError: one of them was changed in place since; Paddle asks that of its own operations only.
    """
    tensors = ctx.saved_tensor()
    if [tensor.inplace_version for tensor in tensors] != ctx.versions:
        raise RuntimeError("a tensor that the backward of an accelerated layer needs was changed in place before it")
    return tensors


def asked(ctx: Any, grads: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradients, with None where none may be returned."""
    return tuple(grad if wanted else None for grad, wanted in zip(grads, forwards.wanted(ctx.edges)))


def whole(x: Any) -> Any:
    """A tensor without gaps: x itself, or a copy of a view."""
    return x if x.is_contiguous() else x.contiguous()


class _Once:
    """A hook on an operation's output: refuses the second backward, in which Paddle ends the process (2.6.2, 3.3.1)."""

    def __init__(self) -> None:
        self._passed = False

    def __call__(self, grad: Any) -> None:
        if self._passed:
            raise RuntimeError(
                "a second backward through the same graph does not go through accelerated layers: add the losses up, "
                "or give bind() or the Learner's fit accelerate=False"
            )
        self._passed = not forwards.within_grad()


def applied(operation: Any, *arguments: Any) -> Tensor:
    """An operation's output, after one of Paddle's that changes nothing; every operation here is applied by it.

    What a hook on a PyLayer's own output returns is ignored (2.6.2 and 3.3.1).
    """
    output = operation.apply(*arguments)
    squeezable = output.shape[-1:] in ([], [1])
    output = output.unsqueeze(0).squeeze(0) if squeezable else output.squeeze(-1)
    if not output.stop_gradient:
        output.register_hook(_Once())
    return output


def over_rows(rows: Any) -> Any:
    """The sum over the rows: as a product it takes a fortieth of the time."""
    return paddle.matmul(paddle.ones([1, rows.shape[0]]), rows).reshape([-1])


def linear_grads(ctx: Any, dy: Any, x: Any, weight: Any) -> tuple[Any, ...]:
    """The gradients of x·W + b that are wanted."""
    rows = dy.reshape([-1, dy.shape[-1]])
    makers = (
        lambda: paddle.matmul(dy, weight, transpose_y=True),
        lambda: paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True),
        lambda: over_rows(rows),
    )
    return tuple(make() if wanted else None for make, wanted in zip(makers, forwards.wanted(ctx.edges)))


class Dense(PyLayer):
    """y = x·W + b; called as the one with kernels is."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, f: int, dropped: Any) -> Any:
        ctx.edges = forwards.edges(x, weight, bias)
        save(ctx, x, weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return linear_grads(ctx, dy, *saved(ctx))


class Norm(PyLayer):
    """y = LayerNorm(x) over the last axis; called as the one with kernels is."""

    @staticmethod
    def forward(ctx: Any, x: Any, residual: None, weight: Any, bias: Any, epsilon: float, dropped: Any) -> Any:
        ctx.edges, ctx.epsilon = forwards.edges(x, weight, bias), epsilon
        save(ctx, x, weight)
        return functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        x, weight = saved(ctx)
        columns = x.shape[-1]
        rows, dy = x.reshape([-1, columns]), dy.reshape([-1, columns])
        share = paddle.full([columns, 1], 1 / columns)
        centred = rows - paddle.matmul(rows, share)
        scale = paddle.rsqrt(paddle.matmul(centred.square(), share) + ctx.epsilon)
        normed, inner = centred * scale, dy * weight
        dx = inner - paddle.matmul(inner, share) - normed * paddle.matmul(inner * normed, share)
        return asked(ctx, ((dx * scale).reshape(x.shape), over_rows(dy * normed), over_rows(dy)))
