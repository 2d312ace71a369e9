"""The kernels of layers: activations, dropout, normalisation, attention, embeddings (see `machine`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray

from paddle_ftstrat.acceleration.autograd import GELU, RELU, RELU6
from paddle_ftstrat.acceleration.machine import ROUND, Arguments, fast, floats, ints, mixed, number, ranked, two_to_the

TILE = 4096
ZERO, HALF, ONE, SIX = np.float32(0), np.float32(0.5), np.float32(1), np.float32(6)
LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first of few bits, so that n·ln 2 is exact enough.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST = np.float32(-64.0)  # Paddle's softmax cuts differences off there
ROOT_HALF = np.float32(math.sqrt(0.5))
DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


@fast
def _exp(x: np.float32) -> np.float32:
    """exp(x) for −87 < x < 88, within 2 units of the last place."""
    rounded = x * LOG2_E + ROUND
    n = rounded - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = np.float32(1 / 720) + r * np.float32(1 / 5040)
    p = np.float32(1 / 120) + r * p
    p = np.float32(1 / 24) + r * p
    p = np.float32(1 / 6) + r * p
    p = HALF + r * p
    return ((r * r) * p + r + ONE) * two_to_the(rounded)


@fast
def _gelu(x: np.float32) -> tuple[np.float32, np.float32]:
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


@fast
def _top(x: Any, n: int) -> np.float32:
    """The greatest value; a float comparison would be made one at a time, for what is not a number."""
    top = ranked(x[0])
    for k in range(n):
        rank = ranked(x[k])
        top = rank if rank > top else top
    return ranked(top)


@fast
def _keeps(index: int, first: int, second: int, limit: int, scale: np.float32) -> np.float32:
    return scale if np.int64(mixed(index, first, second)) >= limit else ZERO


def activate(a: Arguments, first: int, last: int) -> None:
    """y = dropout(f(h + bias)) and, for GELU, its derivative by h; h and y may be the same."""
    size, columns, f, seed, other, limit, scale = a[7], a[8], a[9], a[10], a[11], a[12], number(a[13])
    for row in range(first, last):
        start = row * columns
        n = min(columns, size - start)
        y = carray(floats(a[4] + 4 * start), (n,))
        # All that follows is in place: of two arrays that may be one, only one value at a time could be read.
        if a[3] != a[4]:
            h = carray(floats(a[3] + 4 * start), (n,))
            for k in range(n):
                y[k] = h[k]
        if a[6] != 0:
            bias = carray(floats(a[6]), (n,))
            for k in range(n):
                y[k] += bias[k]
        if f == RELU:
            for k in range(n):
                y[k] = ZERO if y[k] < ZERO else y[k]
        elif f == RELU6:
            for k in range(n):
                y[k] = ZERO if y[k] < ZERO else SIX if y[k] > SIX else y[k]
        elif f == GELU:
            slope = carray(floats(a[5] + 4 * start), (n,))
            for k in range(n):
                y[k], slope[k] = _gelu(y[k])
            if limit > 0:
                for k in range(n):
                    slope[k] *= _keeps(start + k, seed, other, limit, scale)
        if limit > 0:
            for k in range(n):
                y[k] *= _keeps(start + k, seed, other, limit, scale)


def gate(a: Arguments, first: int, last: int) -> None:
    """z = x·y, or x·scale where y > 0 and y ≠ top and else 0; without a scale the first. x and z may be the same."""
    scale, top = number(a[7]), number(a[8])
    for row in range(first, last):
        start = row * TILE
        n = min(TILE, a[6] - start)
        y, z = carray(floats(a[4] + 4 * start), (n,)), carray(floats(a[5] + 4 * start), (n,))
        if a[3] != a[5]:  # then in place, as in `activate`
            x = carray(floats(a[3] + 4 * start), (n,))
            for k in range(n):
                z[k] = x[k]
        if a[7] == 0:
            for k in range(n):
                z[k] *= y[k]
        else:
            for k in range(n):
                z[k] = z[k] * scale if y[k] > ZERO and y[k] != top else ZERO


def norm(a: Arguments, first: int, last: int) -> None:
    """z = residual + dropout(x); y = (z − mean)/√(variance + ε)·γ + β of each row; mean and 1/√… are kept."""
    columns, epsilon = a[10], number(a[11])
    seed, other, limit, scale = a[12], a[13], a[14], number(a[15])
    gamma, beta = carray(floats(a[5]), (columns,)), carray(floats(a[6]), (columns,))
    for row in range(first, last):
        start = row * columns
        x, y = carray(floats(a[3] + 4 * start), (columns,)), carray(floats(a[7] + 4 * start), (columns,))
        z, stats = x, carray(floats(a[9] + 8 * row), (2,))
        if a[4] != 0:
            z, residual = carray(floats(a[8] + 4 * start), (columns,)), carray(floats(a[4] + 4 * start), (columns,))
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


def norm_grad(a: Arguments, first: int, last: int) -> None:
    """The gradient by z, by x where it has one of its own, and this range's part of those by γ and β."""
    columns = a[11]
    seed, other, limit, scale = a[12], a[13], a[14], number(a[15])
    gamma, part = carray(floats(a[5]), (columns,)), a[9] + 8 * columns * (first // a[1])
    dgamma, dbeta = carray(floats(part), (columns,)), carray(floats(part + 4 * columns), (columns,))
    for k in range(columns):
        dgamma[k] = dbeta[k] = ZERO
    for row in range(first, last):
        start = row * columns
        dy, z = carray(floats(a[3] + 4 * start), (columns,)), carray(floats(a[4] + 4 * start), (columns,))
        stats, dz = carray(floats(a[6] + 8 * row), (2,)), carray(floats(a[7] + 4 * start), (columns,))
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
        if a[8] != 0:
            dx = carray(floats(a[8] + 4 * start), (columns,))
            if limit > 0:
                for k in range(columns):
                    dx[k] = dz[k] * _keeps(start + k, seed, other, limit, scale)
            else:
                for k in range(columns):
                    dx[k] = dz[k]


def softmax(a: Arguments, first: int, last: int) -> None:
    """Each row becomes softmax(scale·row + mask); q = dropout of it."""
    n, factor, heads, queries = a[6], number(a[7]), a[8], a[9]
    seed, other, limit, scale = a[13], a[14], a[15], number(a[16])
    for row in range(first, last):
        start = row * n
        p = carray(floats(a[3] + 4 * start), (n,))
        for k in range(n):
            p[k] *= factor
        if a[5] != 0:
            block = row // queries
            at = (block // heads) * a[10] + (block % heads) * a[11] + (row % queries) * a[12]
            mask = carray(floats(a[5] + 4 * at), (n,))
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
            q = carray(floats(a[4] + 4 * start), (n,))
            for k in range(n):
                q[k] = p[k] * _keeps(start + k, seed, other, limit, scale)


def softmax_grad(a: Arguments, first: int, last: int) -> None:
    """The gradient by the scores in place of that by `q` of `softmax`."""
    n, factor = a[5], number(a[6])
    seed, other, limit, scale = a[7], a[8], a[9], number(a[10])
    for row in range(first, last):
        start = row * n
        g, p = carray(floats(a[3] + 4 * start), (n,)), carray(floats(a[4] + 4 * start), (n,))
        if limit > 0:
            for k in range(n):
                g[k] *= _keeps(start + k, seed, other, limit, scale)
        total = ZERO
        for k in range(n):
            total += g[k] * p[k]
        for k in range(n):
            g[k] = p[k] * (g[k] - total) * factor


def swap(a: Arguments, first: int, last: int) -> None:
    """[n, rows, columns, inner] → [n, columns, rows, inner]; a unit is one of `n·rows`."""
    rows, columns, inner = a[5], a[6], a[7]
    for unit in range(first, last):
        outer, row = unit // rows, unit % rows
        for column in range(columns):
            x = carray(floats(a[3] + 4 * inner * (unit * columns + column)), (inner,))
            y = carray(floats(a[4] + 4 * inner * ((outer * columns + column) * rows + row)), (inner,))
            for k in range(inner):
                y[k] = x[k]


def scatter(a: Arguments, first: int, last: int) -> None:
    """rows[ids[i]] += x[i] for every i but those of the id `skipped`; a unit is a stretch of TILE // 64 columns."""
    count, columns, skipped, width = a[6], a[7], a[8], TILE // 64
    ids = carray(ints(a[4]), (count,))
    for unit in range(first, last):
        start = unit * width
        n = min(width, columns - start)
        for i in range(count):
            if ids[i] != skipped:
                x = carray(floats(a[3] + 4 * (i * columns + start)), (n,))
                y = carray(floats(a[5] + 4 * (ids[i] * columns + start)), (n,))
                for k in range(n):
                    y[k] += x[k]


def entropy(a: Arguments, first: int, last: int) -> None:
    """log Σ exp(x) − x[label] of each row; the logarithm is kept."""
    columns = a[7]
    losses, logs, labels = carray(floats(a[5]), (a[2],)), carray(floats(a[6]), (a[2],)), carray(ints(a[4]), (a[2],))
    for row in range(first, last):
        x = carray(floats(a[3] + 4 * row * columns), (columns,))
        top, total = _top(x, columns), ZERO
        for k in range(columns):
            difference = x[k] - top
            total += _exp(LOWEST if difference < LOWEST else difference)
        logs[row] = top + np.float32(math.log(total))
        losses[row] = logs[row] - x[labels[row]]


def entropy_grad(a: Arguments, first: int, last: int) -> None:
    """(softmax(x) − onehot(label))·scale of each row."""
    columns, scale = a[7], number(a[8])
    logs, labels = carray(floats(a[6]), (a[2],)), carray(ints(a[4]), (a[2],))
    for row in range(first, last):
        x = carray(floats(a[3] + 4 * row * columns), (columns,))
        dx = carray(floats(a[5] + 4 * row * columns), (columns,))
        log = logs[row]
        for k in range(columns):
            difference = x[k] - log
            dx[k] = scale * _exp(LOWEST if difference < LOWEST else difference)
        dx[labels[row]] -= scale
