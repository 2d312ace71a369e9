"""The passes over memory in machine code, made by numba. Imported at the first update only: numba takes a while.

Each function works on the chunks [first, last) of the tables in `layout` and holds no lock of Python meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from paddle_ftstrat.optim.fused import pool
from paddle_ftstrat.optim.fused.layout import (
    ADDRESSES,
    AFTER,
    ANCHOR,
    BEFORE,
    EPS,
    FIRST,
    GRAD,
    HIGH,
    L1,
    L2,
    LOW,
    LR,
    NUMBERS,
    PARAM,
    SCALE,
    SECOND,
    A,
    B,
)
from paddle_ftstrat.optim.fused.members import Members

# Worth it for parameters of any size (in `blocked` it is not).
SMALLEST = 0
TILE = 1024
ONE = np.float32(1)
ZERO = np.float32(0)


def _pass(*freedoms: str) -> Callable[[Any], Any]:
    """Compile a function; `freedoms` are liberties with rounding, in this function only."""

    def compiled(function: Any) -> Any:
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms)}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written to
            return njit(**options)(function)

    return compiled


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer to float32."""
    pointer = types.CPointer(types.float32)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64), codegen


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once where the processor can: where Paddle's kernels do so, for the very same bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        kind = ir.FunctionType(number, [number] * 3)
        return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [number], kind), args)

    return types.float32(types.float32, types.float32, types.float32), codegen


def update(rule: str, members: Members, threads: int) -> None:
    """Carry a rule ("sgd", "momentum" or "adam") out on all parameters."""
    chunks = members.chunks
    table = chunks.index, chunks.start, chunks.length
    kernel = globals()[rule]

    def work(first: int, last: int) -> None:
        kernel(members.at, table, members.numbers, first, last)

    pool.run(work, members.shares(threads))


def make_ready(rule: str) -> None:
    """Compile what an optimizer's rule needs, or load it from the cache: no chunk is worked on yet."""
    at, numbers = np.zeros((1, ADDRESSES), np.int64), np.zeros((1, NUMBERS), np.float32)
    chunks = (np.zeros(1, np.int64),) * 3
    squares(at, chunks, 0, 0, np.zeros(1))
    powers(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    globals()[rule](at, chunks, numbers, 0, 0)


# Any order of the sum is right, and without that freedom it would take one value at a time.
@_pass("reassoc", "contract")
def squares(at, chunks, first, last, out):  # noqa: D103
    index, start, length = chunks
    for c in range(first, last):
        i = index[c]
        total = 0.0
        g = carray(_pointer(at[i, GRAD] + 4 * start[c]), (length[c],))
        for k in range(length[c]):
            x = np.float64(g[k])
            total += x * x
        out[c] = total


@_pass()
def powers(at, factors, out):  # noqa: D103
    for i in range(len(at)):
        power = carray(_pointer(at[i]), (1,))
        out[i] = power[0]
        power[0] *= factors[i]


@_pass()
def _effective(p, g, w, anchored, n, numbers, i, out):
    scale, l2, l1 = numbers[i, SCALE], numbers[i, L2], numbers[i, L1]
    low, high = numbers[i, LOW], numbers[i, HIGH]
    for k in range(n):
        out[k] = g[k] * scale
    if low < high:
        for k in range(n):
            x = out[k]
            x = low if x < low else x
            out[k] = high if x > high else x
    if anchored:
        for k in range(n):
            out[k] += (p[k] - w[k]) * l2
    else:
        for k in range(n):
            out[k] += p[k] * l2
    if l1 != ZERO:
        for k in range(n):
            x = p[k]
            sign = ONE if x > ZERO else ZERO
            out[k] += l1 * (-ONE if x < ZERO else sign)


@_pass()
def sgd(at, chunks, numbers, first, last):  # noqa: D103
    index, start, length = chunks
    x = np.empty(TILE, np.float32)
    for c in range(first, last):
        i = index[c]
        lr, before, after = numbers[i, LR], numbers[i, BEFORE], numbers[i, AFTER]
        for begin in range(start[c], start[c] + length[c], TILE):
            n = min(TILE, start[c] + length[c] - begin)
            p = carray(_pointer(at[i, PARAM] + 4 * begin), (n,))
            g = carray(_pointer(at[i, GRAD] + 4 * begin), (n,))
            w = carray(_pointer(at[i, ANCHOR] + 4 * begin), (n,))
            _effective(p, g, w, at[i, ANCHOR] != 0, n, numbers, i, x)
            for k in range(n):
                p[k] = (_fma(p[k], before, p[k]) - lr * x[k]) * after


@_pass()
def momentum(at, chunks, numbers, first, last):  # noqa: D103
    index, start, length = chunks
    x = np.empty(TILE, np.float32)
    for c in range(first, last):
        i = index[c]
        lr, before, after = numbers[i, LR], numbers[i, BEFORE], numbers[i, AFTER]
        mu, nesterov = numbers[i, A], numbers[i, B] != ZERO
        for begin in range(start[c], start[c] + length[c], TILE):
            n = min(TILE, start[c] + length[c] - begin)
            p = carray(_pointer(at[i, PARAM] + 4 * begin), (n,))
            g = carray(_pointer(at[i, GRAD] + 4 * begin), (n,))
            w = carray(_pointer(at[i, ANCHOR] + 4 * begin), (n,))
            v = carray(_pointer(at[i, FIRST] + 4 * begin), (n,))
            _effective(p, g, w, at[i, ANCHOR] != 0, n, numbers, i, x)
            if nesterov:
                for k in range(n):
                    v[k] = v[k] * mu + x[k]
                    p[k] = (_fma(p[k], before, p[k]) - lr * (x[k] + v[k] * mu)) * after
            else:
                for k in range(n):
                    v[k] = v[k] * mu + x[k]
                    p[k] = (_fma(p[k], before, p[k]) - lr * v[k]) * after


@_pass()
def adam(at, chunks, numbers, first, last):  # noqa: D103
    index, start, length = chunks
    x = np.empty(TILE, np.float32)
    for c in range(first, last):
        i = index[c]
        n = length[c]
        anchor = at[i, ANCHOR] != 0
        p = carray(_pointer(at[i, PARAM] + 4 * start[c]), (n,))
        g = carray(_pointer(at[i, GRAD] + 4 * start[c]), (n,))
        w = carray(_pointer(at[i, ANCHOR] + 4 * start[c]), (n,))
        m = carray(_pointer(at[i, FIRST] + 4 * start[c]), (n,))
        v = carray(_pointer(at[i, SECOND] + 4 * start[c]), (n,))
        if numbers[i, LOW] < numbers[i, HIGH] or numbers[i, L1] != ZERO:
            for begin in range(0, n, TILE):
                end = min(begin + TILE, n)
                _effective(p[begin:end], g[begin:end], w[begin:end], anchor, end - begin, numbers, i, x)
                _adam_free(p[begin:end], x, m[begin:end], v[begin:end], end - begin, numbers, i, ONE, ZERO)
        elif anchor:
            _adam_anchored(p, g, w, m, v, n, numbers, i, numbers[i, SCALE], numbers[i, L2])
        else:
            _adam_free(p, g, m, v, n, numbers, i, numbers[i, SCALE], numbers[i, L2])


# The two commonest cases each read and write every value once.
@_pass()
def _adam_free(p, g, m, v, n, numbers, i, scale, l2):
    lr, before, after = numbers[i, LR], numbers[i, BEFORE], numbers[i, AFTER]
    beta1, beta2, eps = numbers[i, A], numbers[i, B], numbers[i, EPS]
    for k in range(n):
        x = g[k] * scale + p[k] * l2
        mean = _fma(m[k], beta1, (ONE - beta1) * x)
        square = _fma(v[k], beta2, (ONE - beta2) * (x * x))
        m[k] = mean
        v[k] = square
        p[k] = _fma(mean / (math.sqrt(square) + eps), -lr, _fma(p[k], before, p[k])) * after


@_pass()
def _adam_anchored(p, g, w, m, v, n, numbers, i, scale, l2):
    lr, before, after = numbers[i, LR], numbers[i, BEFORE], numbers[i, AFTER]
    beta1, beta2, eps = numbers[i, A], numbers[i, B], numbers[i, EPS]
    for k in range(n):
        x = g[k] * scale + (p[k] - w[k]) * l2
        mean = _fma(m[k], beta1, (ONE - beta1) * x)
        square = _fma(v[k], beta2, (ONE - beta2) * (x * x))
        m[k] = mean
        v[k] = square
        p[k] = _fma(mean / (math.sqrt(square) + eps), -lr, _fma(p[k], before, p[k])) * after
