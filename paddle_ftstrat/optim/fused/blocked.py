"""The passes over memory without numba: numpy, block by block so that a block stays in the processor's cache.

The same as `compiled` for the step; numpy lets other threads run while it computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat._paddle import kernels
from paddle_ftstrat.optim.fused import pool
from paddle_ftstrat.optim.fused.layout import (
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
    PARAM,
    SCALE,
    A,
    B,
)
from paddle_ftstrat.optim.fused.members import Members

# A block costs some twenty calls of numpy: below this many values per parameter Paddle's own step is as fast.
SMALLEST = 4096
BLOCK = 1 << 16


def update(rule: str, members: Members, threads: int) -> None:
    """Carry a rule ("sgd", "momentum" or "adam") out on all parameters."""
    if rule == "adam":
        with paddle.no_grad():
            _adam(members)
        return
    chunks = members.chunks
    table = chunks.index, chunks.start, chunks.length
    work = partial({"sgd": sgd, "momentum": momentum}[rule], members.at, table, members.numbers)
    pool.run(work, members.shares(threads))


def squares(at: Any, chunks: Any, first: int, last: int, out: Any) -> None:
    """out[c] = Σ g² of each chunk, in float64."""
    index, start, length = chunks
    for c in range(first, last):
        i = index[c]
        out[c] = 0.0
        grads = _values(at[i, GRAD] + 4 * start[c], length[c])
        for block in range(0, length[c], BLOCK):
            g = grads[block : block + BLOCK]
            total = float(np.dot(g, g))
            # Past float32's range, or below it, once more in float64.
            if not 1e-20 < total < 1e30:
                wide = g.astype(np.float64)
                total = float(np.dot(wide, wide))
            out[c] += total


def powers(at: Any, factors: Any, out: Any) -> None:
    """out[i] = the number at address i, which is then multiplied by factors[i]."""
    for i, address in enumerate(at):
        power = _values(address, 1)
        out[i] = power[0]
        power *= factors[i]


def sgd(at: Any, chunks: Any, numbers: Any, first: int, last: int) -> None:
    """p ← (p + before·p − lr·x)·after."""
    for p, x, _, i in _effective(at, chunks, numbers, first, last):
        _move(p, x, numbers, i)


def momentum(at: Any, chunks: Any, numbers: Any, first: int, last: int) -> None:
    """v ← μv + x; p ← (p + before·p − lr·v)·after, with Nesterov x + μv in v's place."""
    scratch = np.empty(BLOCK, np.float32)
    for p, x, (begin, n), i in _effective(at, chunks, numbers, first, last):
        v, part = _values(at[i, FIRST] + 4 * begin, n), scratch[:n]
        v *= numbers[i, A]
        v += x
        if numbers[i, B]:
            np.multiply(v, numbers[i, A], out=part)
            part += x
        else:
            part[:] = v
        _move(p, part, numbers, i)


def _adam(members: Members) -> None:
    """Adam by Paddle's operation, from an effective gradient that goes no further than the processor's cache.

    The bias corrections are in LR and EPS already, so the operation gets powers of 0.
    """
    at, numbers, chunks = members.at, members.numbers, members.chunks
    table = chunks.index, chunks.start, chunks.length
    lasts = [*chunks.first[1:].tolist(), len(chunks)]
    nothing, rate = paddle.zeros([1]), paddle.zeros([1])
    rates = _values(rate.data_ptr(), 1)
    grads: dict[tuple[int, ...], Any] = {}
    for i, (param, mean, square) in enumerate(zip(members.params, *members.moments)):
        grad = grads.setdefault(tuple(param.shape), None)
        if grad is None:
            grad = grads[tuple(param.shape)] = paddle.empty(param.shape, "float32")
        into = _values(grad.data_ptr(), members.sizes[i])
        for p, _, _, _ in _effective(at, table, numbers, int(chunks.first[i]), lasts[i], into):
            if numbers[i, BEFORE]:
                p *= 1 + numbers[i, BEFORE]
        rates[0] = numbers[i, LR]
        betas = float(numbers[i, A]), float(numbers[i, B])
        kernels.adam(param, grad, rate, (mean, square), (nothing, nothing), betas, float(numbers[i, EPS]))
        if numbers[i, AFTER] != 1:
            values = _values(at[i, PARAM], members.sizes[i])
            values *= numbers[i, AFTER]


def _move(p: Any, direction: Any, numbers: Any, i: int) -> None:
    """p ← (p + before·p − lr·direction)·after; spoils `direction`."""
    direction *= numbers[i, LR]
    if numbers[i, BEFORE]:
        p *= 1 + numbers[i, BEFORE]
    p -= direction
    if numbers[i, AFTER] != 1:
        p *= numbers[i, AFTER]


def _effective(
    at: Any, chunks: Any, numbers: Any, first: int, last: int, into: np.ndarray | None = None
) -> Iterator[tuple[Any, Any, tuple[int, int], int]]:
    """Per block: the parameter's values, the effective gradient x, (first value, number of values), the parameter.

    x lies in a buffer, or with `into` where it belongs in an array as long as the parameter.
    """
    index, start, length = chunks
    buffer, scratch = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for c in range(first, last):
        i, skip = index[c], 4 * start[c]
        params, grads = _values(at[i, PARAM] + skip, length[c]), _values(at[i, GRAD] + skip, length[c])
        anchors = _values(at[i, ANCHOR] + skip, length[c]) if at[i, ANCHOR] else None
        for block in range(0, length[c], BLOCK):
            p, g = params[block : block + BLOCK], grads[block : block + BLOCK]
            begin, n = int(start[c]) + block, len(p)
            x, part = buffer[:n] if into is None else into[begin : begin + n], scratch[:n]
            np.multiply(g, numbers[i, SCALE], out=x)
            if numbers[i, LOW] < numbers[i, HIGH]:
                np.clip(x, numbers[i, LOW], numbers[i, HIGH], out=x)
            if numbers[i, L2]:
                away = p if anchors is None else np.subtract(p, anchors[block : block + BLOCK], out=part)
                x += np.multiply(away, numbers[i, L2], out=part)
            if numbers[i, L1]:
                x += np.multiply(np.sign(p, out=part), numbers[i, L1], out=part)
            yield p, x, (begin, n), i


def _values(address: int, count: int) -> np.ndarray:
    """The float32 values that lie at an address, as an array over that memory."""
    return np.frombuffer((ctypes.c_float * int(count)).from_address(int(address)), np.float32)
