"""Convolutions: one matrix product over many samples where Paddle's kernel does one for each; depthwise directly.

For the product, what each weight is multiplied by is a row, [channels·kernel, samples·positions]: `unfold` writes the
rows and `fold` adds them up again. So many samples are taken at a time that the rows stay within BUDGET values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from numba import carray
from paddle.autograd import PyLayer

from paddle_ftstrat._paddle import forwards
from paddle_ftstrat.acceleration import machine
from paddle_ftstrat.acceleration.autograd import asked, first_order, save, saved, whole
from paddle_ftstrat.acceleration.kernels import ZERO, swap
from paddle_ftstrat.acceleration.machine import Arguments, Kernel, at, fast, floats

BUDGET = 1 << 20
# So many values of the padded images of a channel are taken together; three such stretches fit the nearest cache.
STRETCH = 1 << 11


def unfold(a: Arguments, first: int, last: int) -> None:
    """rows[(c, i, j), n, y, x] = image[n, c, y·stride + i − padding, x·stride + j − padding]; a unit is a row."""
    count, channels, height, width, below, beside = a[5], a[6], a[7], a[8], a[9], a[10]
    tall, wide, stride, other, padding, margin = a[11], a[12], a[13], a[14], a[15], a[16]
    for unit in range(first, last):
        channel, i, j = unit // (tall * wide), unit // wide % tall, unit % wide
        shift = j - margin
        begin = max(0, (-shift + other - 1) // other)
        end = max(begin, min(beside, (width - 1 - shift) // other + 1))
        for n in range(count):
            image = a[3] + 4 * (n * channels + channel) * height * width
            rows = a[4] + 4 * (unit * count + n) * below * beside
            for y in range(below):
                line, row = y * stride + i - padding, carray(floats(rows + 4 * y * beside), (beside,))
                if line < 0 or line >= height:
                    for x in range(beside):
                        row[x] = ZERO
                    continue
                for x in range(begin):
                    row[x] = ZERO
                # An index like `start + x` might be negative for all that the compiler knows: one value at a time.
                source = carray(floats(image + 4 * (line * width + shift + begin * other)), (width,))
                target = carray(floats(rows + 4 * (y * beside + begin)), (beside,))
                if other == 1:
                    for x in range(end - begin):
                        target[x] = source[x]
                else:
                    for x in range(end - begin):
                        target[x] = source[x * other]
                for x in range(end, beside):
                    row[x] = ZERO


def fold(a: Arguments, first: int, last: int) -> None:
    """image[n, c] = the sum of what `unfold` has taken from it; a unit is a channel."""
    count, channels, height, width, below, beside = a[5], a[6], a[7], a[8], a[9], a[10]
    tall, wide, stride, other, padding, margin = a[11], a[12], a[13], a[14], a[15], a[16]
    for channel in range(first, last):
        for n in range(count):
            place = a[3] + 4 * (n * channels + channel) * height * width
            image = carray(floats(place), (height * width,))
            for k in range(height * width):
                image[k] = ZERO
            for i in range(tall):
                for j in range(wide):
                    unit, shift = (channel * tall + i) * wide + j, j - margin
                    begin = max(0, (-shift + other - 1) // other)
                    end = max(begin, min(beside, (width - 1 - shift) // other + 1))
                    rows = a[4] + 4 * (unit * count + n) * below * beside
                    for y in range(below):
                        line = y * stride + i - padding
                        if line < 0 or line >= height:
                            continue
                        row = carray(floats(rows + 4 * (y * beside + begin)), (beside,))
                        target = carray(floats(place + 4 * (line * width + shift + begin * other)), (width,))
                        if other == 1:
                            for x in range(end - begin):
                                target[x] += row[x]
                        else:
                            for x in range(end - begin):
                                target[x * other] += row[x]


@fast
def _padded(image: Any, height: int, width: int, padding: int, margin: int, across: int, target: Any) -> None:
    """An image with zeros around it, in rows of `across` values."""
    for k in range(len(target)):
        target[k] = ZERO
    for y in range(height):
        line, start = image[y * width : (y + 1) * width], (y + padding) * across + margin
        place = target[start : start + width]
        for x in range(width):
            place[x] = line[x]


def depthwise(a: Arguments, first: int, last: int) -> None:
    """Each plane [n, c] of the output from that of the image and the weight of its channel; a unit is a channel.

    In rows as long as the padded image's, and the images of several samples one after the other, each weight is one
    long loop; what is between the strides and the images is left out later. The loops go over slices: an index like
    `source[shift + k]` might be negative for all that the compiler knows, and is then taken one at a time.
    """
    count, channels, height, width, below, beside = a[5], a[6], a[7], a[8], a[9], a[10]
    tall, wide, stride, other, padding, margin = a[11], a[12], a[13], a[14], a[15], a[16]
    across = width + 2 * margin
    plane = (height + 2 * padding) * across
    together = max(1, min(count, STRETCH // plane))
    source, sums = np.empty(together * plane + tall * across, np.float32), np.empty(together * plane, np.float32)
    for k in range(len(source)):
        source[k] = ZERO
    for channel in range(first, last):
        weight = carray(floats(a[17] + 4 * channel * tall * wide), (tall * wide,))
        for begin in range(0, count, together):
            several = min(together, count - begin)
            n = several * plane
            for i in range(several):
                image = carray(
                    floats(a[3] + 4 * ((begin + i) * channels + channel) * height * width), (height * width,)
                )
                _padded(image, height, width, padding, margin, across, source[i * plane : (i + 1) * plane])
            for k in range(n):
                sums[k] = ZERO
            for i in range(tall):
                for j in range(wide):
                    factor, shift = weight[i * wide + j], i * across + j
                    shifted = source[shift : shift + n]
                    for k in range(n):
                        sums[k] += factor * shifted[k]
            for i in range(several):
                out = carray(floats(a[4] + 4 * ((begin + i) * channels + channel) * below * beside), (below * beside,))
                for y in range(below):
                    line, start = out[y * beside : (y + 1) * beside], i * plane + y * stride * across
                    place = sums[start : start + across]
                    for x in range(beside):
                        line[x] = place[x * other]


def depthwise_grad(a: Arguments, first: int, last: int) -> None:
    """The gradients of `depthwise` by image and weight; a unit is a channel."""
    count, channels, height, width, below, beside = a[5], a[6], a[7], a[8], a[9], a[10]
    tall, wide, stride, other, padding, margin = a[11], a[12], a[13], a[14], a[15], a[16]
    across = width + 2 * margin
    plane = (height + 2 * padding) * across
    together = max(1, min(count, STRETCH // plane))
    longest = together * plane + tall * across
    source, sums, spread = np.empty(longest, np.float32), np.empty(longest, np.float32), np.empty(longest, np.float32)
    for k in range(longest):
        source[k] = spread[k] = ZERO
    for channel in range(first, last):
        weight = carray(floats(a[17] + 4 * channel * tall * wide), (tall * wide,))
        dw = carray(floats(a[19] + 4 * channel * tall * wide), (tall * wide,))
        for k in range(tall * wide):
            dw[k] = ZERO
        for begin in range(0, count, together):
            several = min(together, count - begin)
            n = several * plane
            for i in range(several):
                at = (begin + i) * channels + channel
                image = carray(floats(a[3] + 4 * at * height * width), (height * width,))
                dy = carray(floats(a[4] + 4 * at * below * beside), (below * beside,))
                _padded(image, height, width, padding, margin, across, source[i * plane : (i + 1) * plane])
                for y in range(below):
                    line, start = dy[y * beside : (y + 1) * beside], i * plane + y * stride * across
                    place = spread[start : start + across]
                    for x in range(beside):
                        place[x * other] = line[x]
            for k in range(longest):
                sums[k] = ZERO
            for i in range(tall):
                for j in range(wide):
                    factor, shift, total = weight[i * wide + j], i * across + j, ZERO
                    shifted, shifted_sums = source[shift : shift + n], sums[shift : shift + n]
                    for k in range(n):
                        total += spread[k] * shifted[k]
                        shifted_sums[k] += factor * spread[k]
                    dw[i * wide + j] += total
            for i in range(several):
                dx = carray(floats(a[18] + 4 * ((begin + i) * channels + channel) * height * width), (height * width,))
                for y in range(height):
                    line, start = dx[y * width : (y + 1) * width], i * plane + (y + padding) * across + margin
                    place = sums[start : start + width]
                    for x in range(width):
                        line[x] = place[x]


class Depthwise(PyLayer):
    """conv2d(x, weight) + bias with one group for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any) -> Any:
        x = whole(x)
        shape = _Shape(x, weight, stride, padding)
        y = paddle.empty([*x.shape[:2], *shape.out])
        shape.run(depthwise, x.shape[1], x, y, 0, x.shape[0], *at(weight))
        ctx.shape, ctx.edges = shape, forwards.edges(x, weight, bias)
        save(ctx, x, weight)
        return y if bias is None else y + bias.reshape([-1, 1, 1])

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        (x, weight), shape, dy = saved(ctx), ctx.shape, whole(dy)
        dx, dw = paddle.empty(x.shape), paddle.empty(weight.shape)
        shape.run(depthwise_grad, x.shape[1], x, dy, 0, x.shape[0], *at(weight, dx, dw))
        return asked(ctx, (dx, dw, *([dy.sum([0, 2, 3])] if len(ctx.edges) > 2 else [])))


class Convolution(PyLayer):
    """conv2d(x, weight) + bias, one group, no dilation; strides and paddings are (height, width)."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any) -> Any:
        x = whole(x)
        shape = _Shape(x, weight, stride, padding)
        y, matrix = paddle.empty([x.shape[0], weight.shape[0], *shape.out]), weight.reshape([weight.shape[0], -1])
        for first, count in shape.parts():
            part = paddle.matmul(matrix, shape.unfolded(x, first, count))
            if bias is not None:
                part = part + bias.reshape([-1, 1])
            shape.turn(part, y, first, count, back=True)
        ctx.shape, ctx.edges = shape, forwards.edges(x, weight, bias)
        save(ctx, x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        first_order()
        (x, weight), shape, dy = saved(ctx), ctx.shape, whole(dy)
        wanted = forwards.wanted(ctx.edges)
        matrix, dw = weight.reshape([weight.shape[0], -1]), None
        dx = paddle.empty(x.shape) if wanted[0] else None
        for first, count in shape.parts():
            turned = paddle.empty([weight.shape[0], count * shape.positions])
            shape.turn(dy, turned, first, count)
            if wanted[1]:
                part = paddle.matmul(turned, shape.unfolded(x, first, count), transpose_y=True)
                dw = part if dw is None else dw.add_(part)
            if wanted[0]:
                rows = paddle.matmul(matrix, turned, transpose_x=True)
                if shape.points:
                    shape.turn(rows, dx, first, count, back=True)
                else:
                    shape.run(fold, x.shape[1], dx, rows, first, count)
        grads = [dx, None if dw is None else dw.reshape(weight.shape)]
        if len(wanted) > 2:
            grads.append(dy.sum([0, 2, 3]) if wanted[2] else None)
        return tuple(grads)


class _Shape:
    """The sizes of one convolution, as its kernels want them."""

    def __init__(self, x: Any, weight: Any, stride: Any, padding: Any) -> None:
        self.samples, self.image = x.shape[0], x.shape[1:]
        kernel = weight.shape[2:]
        self.out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(self.image[1:], kernel, stride, padding)]
        self.positions = self.out[0] * self.out[1]
        self.rows, self.numbers = self.image[0] * kernel[0] * kernel[1], (*kernel, *stride, *padding)
        self.points = self.numbers == forwards.POINTS

    def parts(self) -> Iterator[tuple[int, int]]:
        """The samples in stretches (first, how many)."""
        step = max(1, BUDGET // (self.rows * self.positions))
        return ((first, min(step, self.samples - first)) for first in range(0, self.samples, step))

    def run(self, kernel: Kernel, units: int, image: Any, rows: Any, first: int, count: int, *more: int) -> None:
        """One of the kernels on a stretch of samples."""
        channels, height, width = self.image
        start = image.data_ptr() + 4 * first * channels * height * width
        grain = max(1, units // 64)
        sizes = (count, channels, height, width, *self.out, *self.numbers)
        machine.run(kernel, units, grain, start, *at(rows), *sizes, *more)

    def unfolded(self, x: Any, first: int, count: int) -> Any:
        """The rows of a stretch of samples."""
        rows = paddle.empty([self.rows, count * self.positions])
        if self.points:
            self.turn(x, rows, first, count)
        else:
            self.run(unfold, self.rows, x, rows, first, count)
        return rows

    def turn(self, source: Any, target: Any, first: int, count: int, back: bool = False) -> None:
        """[samples, channels, positions] → [channels, samples, positions], or back; of the former a stretch."""
        channels = (target if back else source).shape[1]
        outer, inner = (channels, count) if back else (count, channels)
        places = at(source, target)
        places[1 if back else 0] += 4 * first * channels * self.positions
        machine.run(swap, outer, max(1, outer // 16), *places, outer, inner, self.positions)
