"""The kernels in machine code, made by numba; Paddle's own threads share each.

Imported at the first use only: numba takes a while. A kernel is a function (a, first, last) of its int64 arguments
(sizes, addresses of float32 values, numbers as the bits of a float64) and a range of units, rows mostly. Each thread
takes ranges from a counter in memory, always the same ranges, so that no result depends on the number of threads.
"""

from __future__ import annotations

import functools
import math
import struct
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from paddle_ftstrat._paddle import openmp, threads

# What stands before a kernel's own arguments: the counter, units per range, units in all.
OWN = 3
SLOTS = 24
TILE = 4096
LINEAR, RELU, GELU = range(3)

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first of few bits, so that n·ln 2 is exact enough.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding it rounds to a whole number, which then stands in the last bits.
ROUND = np.float32(12582912.0)
LOWEST = np.float32(-64.0)  # Paddle's softmax cuts differences off there
ROOT_HALF = np.float32(math.sqrt(0.5))
DENSITY = np.float32(1 / math.sqrt(2 * math.pi))

_POINTERS = {"f": types.CPointer(types.float32), "i": types.CPointer(types.int64)}


def _fast(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy", fastmath={"contract"})(function)


def _reordered(function: Any) -> Any:
    """As `_fast`, with sums in any order, for which one value at a time would do otherwise."""
    return njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})(function)


@intrinsic
def _floats(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(_POINTERS["f"]))

    return _POINTERS["f"](types.int64), codegen


@intrinsic
def _ints(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(_POINTERS["i"]))

    return _POINTERS["i"](types.int64), codegen


@intrinsic
def _number(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fptrunc(builder.bitcast(args[0], ir.DoubleType()), ir.FloatType())

    return types.float32(types.int64), codegen


@intrinsic
def _two_to_the(typingctx: Any, rounded: Any) -> Any:
    """2ⁿ, where `rounded` is n + ROUND."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        n = builder.sub(builder.bitcast(args[0], word), ir.Constant(word, 0x4B400000))
        exponent = builder.shl(builder.add(n, ir.Constant(word, 127)), ir.Constant(word, 23))
        return builder.bitcast(exponent, ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def _mixed(typingctx: Any, index: Any, seed: Any, other: Any) -> Any:
    """32 random bits of an index: two rounds of multiplying and shifting, with a seed before each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        x, first, second = (builder.trunc(arg, word) for arg in args)
        x = builder.add(builder.mul(x, ir.Constant(word, 0x9E3779B9)), first)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None), (15, 0x2C1B3C6D), (12, 0x297A2D39)):
            x = builder.xor(x, builder.lshr(x, ir.Constant(word, shift)))
            x = builder.xor(x, second) if factor is None else builder.mul(x, ir.Constant(word, factor))
        x = builder.xor(x, builder.lshr(x, ir.Constant(word, 15)))
        return builder.lshr(x, ir.Constant(word, 1))

    return types.int32(types.int64, types.int64, types.int64), codegen


@intrinsic
def _take(typingctx: Any, counter: Any, amount: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return types.int64(_POINTERS["i"], types.int64), codegen


_work: Any = None  # each copy of the loop below has its own


def _shared(arguments):
    a = carray(arguments, (SLOTS,))
    while True:
        first = _take(arguments, a[1])
        if first >= a[2]:
            return
        _work(a, first, min(first + a[1], a[2]))


_SOURCES: dict[str, Any] = {}


def kernel(work: Any) -> Any:
    """Enter a kernel under its name. It is compiled, or read from the disk, when it is needed first."""
    _SOURCES[work.__name__] = work
    return work


@functools.cache
def _compiled(name: str) -> Any:
    work = _SOURCES[name]
    # What numba keeps on disk goes by a function's name and does not tell closures apart.
    loop = FunctionType(_shared.__code__, {**globals(), "_work": _reordered(work)}, f"_shared_{name}")
    loop.__qualname__ = f"_shared_{name}"
    signature, options = types.void(_POINTERS["i"]), {"nopython": True, "error_model": "numpy"}
    try:
        return cfunc(signature, cache=True, **options)(loop)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return cfunc(signature, **options)(loop)


def bits(number: float) -> int:
    """A float64 as the int64 of the same bits.

    Example:
        >>> bits(1.0) == 0x3FF0000000000000
        True
    """
    return struct.unpack("<q", struct.pack("<d", number))[0]


def run(name: str, units: int, grain: int, *arguments: int) -> None:
    """Run a kernel over `units` units, `grain` of them at a time, on as many threads as Paddle's kernels have now."""
    a = np.zeros(SLOTS, np.int64)
    a[1], a[2] = grain, units
    a[OWN : OWN + len(arguments)] = arguments
    openmp.share(_compiled(name).address, a.ctypes.data, min(threads.current(), -(-units // grain)))


@_fast
def _exp(x):
    """exp(x) for −87 < x < 88, within 2 units of the last place."""
    rounded = x * LOG2_E + ROUND
    n = rounded - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = np.float32(1 / 720) + r * np.float32(1 / 5040)
    p = np.float32(1 / 120) + r * p
    p = np.float32(1 / 24) + r * p
    p = np.float32(1 / 6) + r * p
    p = HALF + r * p
    return ((r * r) * p + r + ONE) * _two_to_the(rounded)


@_fast
def _gelu(x):
    """x·Φ(x) and its derivative Φ(x) + x·φ(x).

    With z = |x|/√2 and t = 1/(1 + 0.45·z), erfc(z) = t·P(t)·exp(−z²), the form of Abramowitz and Stegun 7.1.26; P is a
    fit of degree 9 to z ≤ 9.5, within 3e-7 relative.
    """
    z = min(abs(x) * ROOT_HALF, np.float32(9.3))
    t = ONE / (ONE + np.float32(0.45) * z)
    p = np.float32(0.14663517475128174) + t * np.float32(-0.03314164653420448)
    p = np.float32(-0.19936694204807281) + t * p
    p = np.float32(0.011496533639729023) + t * p
    p = np.float32(0.08230424672365189) + t * p
    p = np.float32(0.06649631261825562) + t * p
    p = np.float32(0.19262948632240295) + t * p
    p = np.float32(0.22481520473957062) + t * p
    p = np.float32(0.2542639970779419) + t * p
    p = np.float32(0.25386762619018555) + t * p
    e = _exp(-z * z)
    tail = HALF * t * p * e
    below = tail if x < ZERO else ONE - tail
    return x * below, below + x * DENSITY * e


@njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def _top(x, n):
    top = x[0]
    for k in range(n):
        top = x[k] if x[k] > top else top
    return top


@_fast
def _keeps(index, first, second, limit, scale):
    return scale if np.int64(_mixed(index, first, second)) >= limit else ZERO


@kernel
def activate(a, first, last):
    """y = dropout(f(h + bias)) and, for GELU, its derivative by h; h and y may be the same."""
    size, columns, f, seed, other, limit, scale = a[7], a[8], a[9], a[10], a[11], a[12], _number(a[13])
    for row in range(first, last):
        start = row * columns
        n = min(columns, size - start)
        y = carray(_floats(a[4] + 4 * start), (n,))
        # All that follows is in place: of two arrays that may be one, only one value at a time could be read.
        if a[3] != a[4]:
            h = carray(_floats(a[3] + 4 * start), (n,))
            for k in range(n):
                y[k] = h[k]
        if a[6] != 0:
            bias = carray(_floats(a[6]), (n,))
            for k in range(n):
                y[k] += bias[k]
        if f == RELU:
            for k in range(n):
                y[k] = ZERO if y[k] < ZERO else y[k]
        elif f == GELU:
            slope = carray(_floats(a[5] + 4 * start), (n,))
            for k in range(n):
                y[k], slope[k] = _gelu(y[k])
            if limit > 0:
                for k in range(n):
                    slope[k] *= _keeps(start + k, seed, other, limit, scale)
        if limit > 0:
            for k in range(n):
                y[k] *= _keeps(start + k, seed, other, limit, scale)


@kernel
def gate(a, first, last):
    """z = x·y, or x·scale where y > 0 and else 0; without a scale the first."""
    scale = _number(a[7])
    for row in range(first, last):
        start = row * TILE
        n = min(TILE, a[6] - start)
        x, y = carray(_floats(a[3] + 4 * start), (n,)), carray(_floats(a[4] + 4 * start), (n,))
        z = carray(_floats(a[5] + 4 * start), (n,))
        if a[7] == 0:
            for k in range(n):
                z[k] = x[k] * y[k]
        else:
            for k in range(n):
                z[k] = x[k] * scale if y[k] > ZERO else ZERO


@kernel
def norm(a, first, last):
    """z = residual + dropout(x); y = (z − mean)/√(variance + ε)·γ + β of each row; mean and 1/√… are kept."""
    columns, epsilon = a[10], _number(a[11])
    seed, other, limit, scale = a[12], a[13], a[14], _number(a[15])
    gamma, beta = carray(_floats(a[5]), (columns,)), carray(_floats(a[6]), (columns,))
    for row in range(first, last):
        start = row * columns
        x, y = carray(_floats(a[3] + 4 * start), (columns,)), carray(_floats(a[7] + 4 * start), (columns,))
        z, stats = x, carray(_floats(a[9] + 8 * row), (2,))
        if a[4] != 0:
            z, residual = carray(_floats(a[8] + 4 * start), (columns,)), carray(_floats(a[4] + 4 * start), (columns,))
            if limit > 0:
                for k in range(columns):
                    z[k] = residual[k] + x[k] * _keeps(start + k, seed, other, limit, scale)
            else:
                for k in range(columns):
                    z[k] = residual[k] + x[k]
        total = ZERO
        for k in range(columns):
            total += z[k]
        mean = total / np.float32(columns)
        total = ZERO
        for k in range(columns):
            total += (z[k] - mean) * (z[k] - mean)
        rate = ONE / np.float32(math.sqrt(total / np.float32(columns) + epsilon))
        stats[0], stats[1] = mean, rate
        for k in range(columns):
            y[k] = (z[k] - mean) * rate * gamma[k] + beta[k]


@kernel
def norm_grad(a, first, last):
    """The gradient by z, by x where there was dropout, and this range's part of those by γ and β."""
    columns = a[11]
    seed, other, limit, scale = a[12], a[13], a[14], _number(a[15])
    gamma, part = carray(_floats(a[5]), (columns,)), a[9] + 8 * columns * (first // a[1])
    dgamma, dbeta = carray(_floats(part), (columns,)), carray(_floats(part + 4 * columns), (columns,))
    for k in range(columns):
        dgamma[k] = dbeta[k] = ZERO
    for row in range(first, last):
        start = row * columns
        dy, z = carray(_floats(a[3] + 4 * start), (columns,)), carray(_floats(a[4] + 4 * start), (columns,))
        stats, dz = carray(_floats(a[6] + 8 * row), (2,)), carray(_floats(a[7] + 4 * start), (columns,))
        mean, rate = stats[0], stats[1]
        plain, sloped = ZERO, ZERO
        for k in range(columns):
            g, slope = dy[k] * gamma[k], (z[k] - mean) * rate
            plain += g
            sloped += g * slope
            dgamma[k] += dy[k] * slope
            dbeta[k] += dy[k]
        plain, sloped = plain / np.float32(columns), sloped / np.float32(columns)
        for k in range(columns):
            dz[k] = rate * (dy[k] * gamma[k] - plain - (z[k] - mean) * rate * sloped)
        if limit > 0:
            dx = carray(_floats(a[8] + 4 * start), (columns,))
            for k in range(columns):
                dx[k] = dz[k] * _keeps(start + k, seed, other, limit, scale)


@kernel
def softmax(a, first, last):
    """Each row becomes softmax(scale·row + mask); q = dropout of it."""
    n, factor, heads, queries = a[6], _number(a[7]), a[8], a[9]
    seed, other, limit, scale = a[13], a[14], a[15], _number(a[16])
    for row in range(first, last):
        start = row * n
        p = carray(_floats(a[3] + 4 * start), (n,))
        for k in range(n):
            p[k] *= factor
        if a[5] != 0:
            block = row // queries
            at = (block // heads) * a[10] + (block % heads) * a[11] + (row % queries) * a[12]
            mask = carray(_floats(a[5] + 4 * at), (n,))
            for k in range(n):
                p[k] += mask[k]
        top, total = _top(p, n), ZERO
        for k in range(n):
            x = p[k] - top
            p[k] = _exp(LOWEST if x < LOWEST else x)  # what is not a number stays so
            total += p[k]
        total = ONE / total
        for k in range(n):
            p[k] *= total
        if limit > 0:
            q = carray(_floats(a[4] + 4 * start), (n,))
            for k in range(n):
                q[k] = p[k] * _keeps(start + k, seed, other, limit, scale)


@kernel
def softmax_grad(a, first, last):
    """The gradient by the scores in place of that by `q` of `softmax`."""
    n, factor = a[5], _number(a[6])
    seed, other, limit, scale = a[7], a[8], a[9], _number(a[10])
    for row in range(first, last):
        start = row * n
        g, p = carray(_floats(a[3] + 4 * start), (n,)), carray(_floats(a[4] + 4 * start), (n,))
        if limit > 0:
            for k in range(n):
                g[k] *= _keeps(start + k, seed, other, limit, scale)
        total = ZERO
        for k in range(n):
            total += g[k] * p[k]
        for k in range(n):
            g[k] = p[k] * (g[k] - total) * factor


@kernel
def swap(a, first, last):
    """[n, rows, columns, inner] → [n, columns, rows, inner]; a unit is one of `n·rows`."""
    rows, columns, inner = a[5], a[6], a[7]
    for unit in range(first, last):
        outer, row = unit // rows, unit % rows
        for column in range(columns):
            x = carray(_floats(a[3] + 4 * inner * (unit * columns + column)), (inner,))
            y = carray(_floats(a[4] + 4 * inner * ((outer * columns + column) * rows + row)), (inner,))
            for k in range(inner):
                y[k] = x[k]


@kernel
def scatter(a, first, last):
    """rows[ids[i]] += x[i] for every i but those of the id `skipped`; a unit is a stretch of TILE // 64 columns."""
    count, columns, skipped, width = a[6], a[7], a[8], TILE // 64
    ids = carray(_ints(a[4]), (count,))
    for unit in range(first, last):
        start = unit * width
        n = min(width, columns - start)
        for i in range(count):
            if ids[i] != skipped:
                x = carray(_floats(a[3] + 4 * (i * columns + start)), (n,))
                y = carray(_floats(a[5] + 4 * (ids[i] * columns + start)), (n,))
                for k in range(n):
                    y[k] += x[k]
