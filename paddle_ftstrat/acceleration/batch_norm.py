"""BatchNorm over [samples, channels, …]: each channel is read from memory once in either direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
from numba import carray
from paddle.autograd import PyLayer

from paddle_ftstrat._paddle import forwards
from paddle_ftstrat.acceleration import machine
from paddle_ftstrat.acceleration.autograd import asked, first_order, save, saved, whole
from paddle_ftstrat.acceleration.kernels import ZERO
from paddle_ftstrat.acceleration.machine import GRAIN, Arguments, at, bits, floats, number

# Channels of at least so many positions are taken one at a time, of shorter ones as many as make four times that.
LONG = 64


def batch_norm(a: Arguments, first: int, last: int) -> None:
    """y = (x − mean)·rate·γ + β of each channel; a unit is `together` channels.

    In training mean and variance are the batch's, and the running ones go after them. A long channel is summed as its
    distance from the mean of its first plane, in float32 within a plane and in float64 over them; of short ones, each
    position in float64. Kept are the mean, in two parts so that a large one loses nothing, the rate, and rate·γ.
    """
    count, channels, inner, together = a[10], a[11], a[12], a[13]
    train, momentum, epsilon = a[14], np.float64(number(a[15])), np.float64(number(a[16]))
    long, lanes = together == 1, 1 if together == 1 else inner
    totals, squares = np.empty(together * lanes), np.empty(together * lanes)
    centers, factors, shifts = np.empty((3, together * lanes), np.float32)
    means, variances = carray(floats(a[7]), (channels,)), carray(floats(a[8]), (channels,))
    kept = carray(floats(a[9]), (4, channels))
    for unit in range(first, last):
        channel = unit * together
        several = min(together, channels - channel)
        start, n, base = 4 * channel * inner, several * inner, ZERO
        for k in range(several * lanes):
            totals[k] = squares[k] = 0.0
        if train and long:
            x = carray(floats(a[3] + start), (n,))
            for k in range(n):
                base += x[k]
            base /= np.float32(n)
        for sample in range(count if train else 0):
            x = carray(floats(a[3] + start + 4 * sample * channels * inner), (n,))
            if long:
                total, square = ZERO, ZERO
                for k in range(n):
                    total += x[k] - base
                    square += (x[k] - base) * (x[k] - base)
                totals[0] += total
                squares[0] += square
            else:
                for k in range(n):
                    value = np.float64(x[k])
                    totals[k] += value
                    squares[k] += value * value
        for i in range(several):
            c = channel + i
            mean, variance = np.float64(means[c]), np.float64(variances[c])
            if train:
                center, spread = 0.0, 0.0
                for k in range(i * lanes, (i + 1) * lanes):
                    center += totals[k] / (count * inner)
                    spread += squares[k] / (count * inner)
                spread -= center * center
                if spread < 0.0:  # what is not a number stays so
                    spread = 0.0
                center += np.float64(base)
                means[c] = momentum * mean + (1.0 - momentum) * center
                variances[c] = momentum * variance + (1.0 - momentum) * spread
                mean, variance = np.float64(center), np.float64(spread)
            rate = 1.0 / math.sqrt(variance + epsilon)
            scale = rate * carray(floats(a[4]), (channels,))[c] if a[4] != 0 else rate
            high = np.float32(mean)
            low = mean - np.float64(high)
            kept[0, c], kept[1, c], kept[2, c], kept[3, c] = high, low, rate, scale
            shift = (carray(floats(a[5]), (channels,))[c] if a[5] != 0 else 0.0) - low * scale
            for k in range(i * lanes, (i + 1) * lanes):
                centers[k], factors[k], shifts[k] = high, scale, shift
        for sample in range(count):
            place = start + 4 * sample * channels * inner
            x, y = carray(floats(a[3] + place), (n,)), carray(floats(a[6] + place), (n,))
            if long:
                first_mean, factor, offset = centers[0], factors[0], shifts[0]
                for k in range(n):
                    y[k] = (x[k] - first_mean) * factor + offset
            else:
                for k in range(n):
                    y[k] = (x[k] - centers[k]) * factors[k] + shifts[k]


def batch_norm_grad(a: Arguments, first: int, last: int) -> None:
    """The gradients by x, γ and β; where the statistics are the running ones, x is needed for that by γ only."""
    count, channels, inner, together, train = a[9], a[10], a[11], a[12], a[13]
    long, lanes = together == 1, 1 if together == 1 else inner
    totals, slopes = np.empty(together * lanes), np.empty(together * lanes)
    centers, factors, pulls, shifts = np.empty((4, together * lanes), np.float32)
    kept = carray(floats(a[5]), (4, channels))
    dgamma, dbeta = carray(floats(a[7]), (channels,)), carray(floats(a[8]), (channels,))
    for unit in range(first, last):
        channel = unit * together
        several = min(together, channels - channel)
        start, n = 4 * channel * inner, several * inner
        for k in range(several * lanes):
            totals[k] = slopes[k] = 0.0
            centers[k] = kept[0, channel + k // lanes]
        center = centers[0]
        for sample in range(count):
            place = start + 4 * sample * channels * inner
            # Without an x this reads dy instead, and nobody asks for the slope.
            dy, x = carray(floats(a[3] + place), (n,)), carray(floats((a[4] if a[4] != 0 else a[3]) + place), (n,))
            if long:
                total, slope = ZERO, ZERO
                for k in range(n):
                    total += dy[k]
                    slope += dy[k] * (x[k] - center)
                totals[0] += total
                slopes[0] += slope
            else:
                for k in range(n):
                    totals[k] += np.float64(dy[k])
                    slopes[k] += np.float64(dy[k] * (x[k] - centers[k]))
        for i in range(several):
            c = channel + i
            low, rate, scale = np.float64(kept[1, c]), np.float64(kept[2, c]), np.float64(kept[3, c])
            of_dy, sloped = 0.0, 0.0
            for k in range(i * lanes, (i + 1) * lanes):
                of_dy += totals[k]
                sloped += slopes[k]
            sloped -= low * of_dy
            dgamma[c], dbeta[c] = sloped * rate, of_dy
            pull = -scale * rate * rate * sloped / (count * inner)
            shift = -scale * of_dy / (count * inner) - pull * low
            for k in range(i * lanes, (i + 1) * lanes):
                factors[k], pulls[k], shifts[k] = scale, pull, shift
        factor, bend, offset = factors[0], pulls[0], shifts[0]
        for sample in range(count if a[6] != 0 else 0):
            place = start + 4 * sample * channels * inner
            dy, dx = carray(floats(a[3] + place), (n,)), carray(floats(a[6] + place), (n,))
            if not train:
                for k in range(n):
                    dx[k] = dy[k] * (factor if long else factors[k])
                continue
            x = carray(floats(a[4] + place), (n,))
            if long:
                for k in range(n):
                    dx[k] = dy[k] * factor + (x[k] - center) * bend + offset
            else:
                for k in range(n):
                    dx[k] = dy[k] * factors[k] + (x[k] - centers[k]) * pulls[k] + shifts[k]


class BatchNorm(PyLayer):
    """(x − mean)/√(variance + ε)·γ + β over all axes but the second, by the batch's statistics or the running ones."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, running: Any, train: bool, options: Any) -> Any:
        ctx.edges, ctx.train, ctx.two = forwards.edges(x, weight, bias), train, (weight is not None, bias is not None)
        x = whole(x)
        y, kept = paddle.empty(x.shape), paddle.empty([4, x.shape[1]])
        sizes = _sizes(x)
        _run(batch_norm, sizes, *at(x, weight, bias, y), *running, *at(kept), *sizes, train, *map(bits, options))
        # Fixed statistics need the input for the gradient by γ alone.
        needed = train or not (weight is None or weight.stop_gradient)
        save(ctx, kept, *([x] if needed else []))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        dy, (kept, *inputs) = whole(dy), saved(ctx)
        x = inputs[0] if inputs else None
        dx = paddle.empty(dy.shape) if forwards.wanted(ctx.edges)[0] else None
        both = [paddle.empty(dy.shape[1:2]) for _ in range(2)]
        sizes = _sizes(dy)
        _run(batch_norm_grad, sizes, *at(dy, x, kept, dx, *both), *sizes, ctx.train)
        return asked(ctx, (dx, *(grad for grad, there in zip(both, ctx.two) if there)))


def _sizes(x: Any) -> tuple[int, int, int, int]:
    """Samples, channels, positions, and how many channels are taken together."""
    inner = x.size // (x.shape[0] * x.shape[1])
    return x.shape[0], x.shape[1], inner, 1 if inner >= LONG else 4 * LONG // inner


def _run(kernel: machine.Kernel, sizes: tuple[int, int, int, int], *arguments: int) -> None:
    count, channels, inner, together = sizes
    units = -(-channels // together)
    machine.run(kernel, units, max(1, GRAIN * units // (count * channels * inner)), *arguments)
