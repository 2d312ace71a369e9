"""Learning-rate curves: pure functions of the update index t, joined from pieces.

A `Curve` answers for any t, in any order, as often as asked, and holds its last value past the end. It takes a
Python number (and then costs about a microsecond) or a numpy array. A new curve is one function in this file,
decorated with `register`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors

Piece = Callable[[Any], Any]


class Curve:
    """A schedule t → value, joined from pieces: piece i answers for starts[i] ≤ t < starts[i+1].

    Args:
        pieces: (start, function) pairs; the first start is 0, starts ascend. Functions take a number or an array.
        end: the last t that is told apart; later ones give the value at `end` (None: no end).

    Raises:
        ValueError: the starts do not ascend from 0, or `end` is negative.

    Example:
        >>> curve = Curve([(0, lambda t: 0.1 * t), (5, lambda t: 0.5 + 0 * t)], end=10)
        >>> curve(2), curve(7), curve(10**6)
        (0.2, 0.5, 0.5)

    Source: the piecewise joining of optax's `join_schedules`.
    """

    def __init__(self, pieces: Sequence[tuple[int, Piece]], end: int | None = None) -> None:
        starts = [start for start, _ in pieces]
        if not starts or starts[0] != 0 or any(a > b for a, b in zip(starts, starts[1:])):
            raise ValueError(f"a curve's pieces must start at 0 and ascend, not at {starts}")
        if end is not None and end < 0:
            raise ValueError(f"a curve's end must be ≥ 0, not {end!r}")
        self._starts = starts
        self._functions = [function for _, function in pieces]
        self.end = end

    def __call__(self, t: Any) -> Any:
        """The value at update t: a float for a number, an array for an array."""
        if isinstance(t, np.ndarray):
            return self._at_array(t)
        if t < 0:
            t = 0
        elif self.end is not None and t > self.end:
            t = self.end
        if len(self._functions) == 1:
            return self._functions[0](t)
        return self._functions[bisect_right(self._starts, t) - 1](t)

    def _at_array(self, t: np.ndarray) -> np.ndarray:
        t = np.clip(np.asarray(t, dtype=np.float64), 0, self.end)
        which = np.searchsorted(self._starts, t, side="right") - 1
        values = np.empty(t.shape)
        for index, function in enumerate(self._functions):
            inside = which == index
            if inside.any():
                values[inside] = function(t[inside])
        return values

    def then(self, start: int, following: Curve) -> Curve:
        """This curve before `start`, the other one from `start` on (both count t from 0)."""
        kept = [(a, f) for a, f in zip(self._starts, self._functions) if a < start]
        index = bisect_right(following._starts, start) - 1
        added = [(start, following._functions[index])]
        added += list(zip(following._starts, following._functions))[index + 1 :]
        if start <= 0:
            kept, added = [], [(0, added[0][1]), *added[1:]]
        return Curve(kept + added, end=following.end)

    def values(self, steps: int) -> np.ndarray:
        """The values at t = 0 … steps−1, as a float64 array of that length."""
        return self(np.arange(steps, dtype=np.float64))


CURVES: dict[str, Callable[..., Curve]] = {}


def register(name: str) -> Callable[[Callable[..., Curve]], Callable[..., Curve]]:
    """Enter a curve-building function in `CURVES` under `name`.

    The function takes `learning_rate` (η), `max_train_steps` (T) and its own keyword arguments and returns a Curve.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> @register("half_for_doctest")
        ... def half(learning_rate, max_train_steps):
        ...     return Curve([(0, partial(_constant, learning_rate / 2))])
        >>> CURVES.pop("half_for_doctest")(0.1, 10)(3)
        0.05
    """

    def enter(build: Callable[..., Curve]) -> Callable[..., Curve]:
        if name in CURVES:
            raise ValueError(f"a curve named {name!r} is already registered")
        CURVES[name] = build
        return build

    return enter


def _constant(value: float, t: Any) -> Any:
    return value + 0.0 * t


def _line(t0: float, y0: float, t1: float, y1: float, t: Any) -> Any:
    """The line through (t0, y0) and (t1, y1); exact at t0, and at t1 when y1 = 0, so that no LR falls below 0."""
    return y0 + (y1 - y0) * ((t - t0) / (t1 - t0))


def _inverse_sqrt(scale: float, t: Any) -> Any:
    return scale * (t + 1.0) ** -0.5


@register("constant")
def constant(learning_rate: float, max_train_steps: int | None = None) -> Curve:
    """The same value at every update: η.

    Args:
        learning_rate: η.
        max_train_steps: taken for uniformity with the other curves; a constant has no length.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    return Curve([(0, partial(_constant, float(learning_rate)))])


@register("warmup")
def warmup(learning_rate: float, max_train_steps: int, proportion: float = 0.0) -> Curve:
    """Linear rise from 0, then η: with W = int(T·w), η·t/W for t < W.

    Args:
        learning_rate: η, reached at t = W.
        max_train_steps: T, in updates.
        proportion: w in [0, 1], the share of training that warms up.

    Raises:
        ValueError: w outside [0, 1], or T ≤ 0.

    Example:
        >>> [round(warmup(0.1, 20, 0.2)(t), 3) for t in (0, 1, 2, 3, 4, 19)]
        [0.0, 0.025, 0.05, 0.075, 0.1, 0.1]

    Source: PaddleHub 1.8 `finetune/strategy.py`; its LR stayed at η(W−1)/W after the warmup, which is not kept.
    """
    steps = warmup_steps(max_train_steps, proportion)
    flat = partial(_constant, float(learning_rate))
    if steps == 0:
        return Curve([(0, flat)], end=max_train_steps)
    return Curve([(0, partial(_line, 0, 0.0, steps, float(learning_rate))), (steps, flat)], end=max_train_steps)


@register("linear_decay")
def linear_decay(
    learning_rate: float,
    max_train_steps: int,
    start_point: float = 0.0,
    end_learning_rate: float = 0.0,
    warmup_proportion: float = 0.0,
) -> Curve:
    """Linear fall to e, counted from t = 0: from S = max(int(T·s), W) on, (η−e)·(1−t/T)+e.

    Because the line is counted from 0 and not from S, the value drops at S when S > 0, as BERT's and PaddleHub's do.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates.
        start_point: s in [0, 1]; before S the value is η (or the warmup's).
        end_learning_rate: e, the value at t = T.
        warmup_proportion: w in [0, 1]; W = int(T·w) updates of `warmup` come first.

    Raises:
        ValueError: a fraction outside [0, 1], a negative e, or T ≤ 0.

    Example:
        >>> [round(linear_decay(1.0, 10, start_point=0.5)(t), 2) for t in (0, 4, 5, 9, 10)]
        [1.0, 1.0, 0.5, 0.1, 0.0]

    Source: PaddleHub 1.8 `finetune/strategy.py`, after BERT's `optimization.py`.
    """
    start_point = _errors.check_number("linear_decay.start_point", start_point, minimum=0, maximum=1)
    end = _errors.check_number("linear_decay.end_learning_rate", end_learning_rate, minimum=0)
    rise = warmup(learning_rate, max_train_steps, warmup_proportion)
    start = max(int(max_train_steps * start_point), warmup_steps(max_train_steps, warmup_proportion))
    line = partial(_line, 0, float(learning_rate), max_train_steps, end)
    fall = Curve([(0, line)], end=max_train_steps)
    return rise.then(start, fall)


@register("noam_decay")
def noam_decay(learning_rate: float, max_train_steps: int, warmup_proportion: float) -> Curve:
    """Inverse square root after a linear rise: η·√W·min((t+1)^−½, (t+1)·W^−3⁄2) with W = int(T·w).

    Args:
        learning_rate: η, reached at t = W−1.
        max_train_steps: T, in updates.
        warmup_proportion: w in (0, 1] with W ≥ 1.

    Raises:
        ValueError: W = 0 (the formula has no value there), w outside [0, 1], or T ≤ 0.

    Example:
        >>> [round(noam_decay(1.0, 100, 0.04)(t), 3) for t in (0, 3, 15, 99)]
        [0.25, 1.0, 0.5, 0.2]

    Source: "Attention Is All You Need" (arXiv:1706.03762, section 5.3); PaddleHub 1.8 scales it so that η is its peak.
    """
    steps = warmup_steps(max_train_steps, warmup_proportion)
    if steps == 0:
        raise ValueError(
            f"noam_decay needs at least one warmup update: int(max_train_steps {max_train_steps} · "
            f"warmup {warmup_proportion}) = 0"
        )
    rise = partial(_line, -1, 0.0, steps - 1, float(learning_rate))
    fall = partial(_inverse_sqrt, learning_rate * math.sqrt(steps))
    return Curve([(0, rise), (steps, fall)], end=max_train_steps)


@register("slanted_triangle")
def slanted_triangle(
    learning_rate: float, max_train_steps: int, cut_fraction: float = 0.1, ratio: float = 32.0
) -> Curve:
    """Short linear rise and long linear fall between η/r and η, with the peak at C = int(T·c).

    t ≤ C: η(1+(t/C)(r−1))/r; later η(1+(1−(t−C)/(T−C))(r−1))/r. C = 0 starts at the peak.

    Args:
        learning_rate: η, the peak.
        max_train_steps: T, in updates.
        cut_fraction: c in [0, 1], the share of updates that rise.
        ratio: r ≥ 1; the lowest value is η/r.

    Raises:
        ValueError: c outside [0, 1], r < 1, or T ≤ 0.

    Example:
        >>> [round(slanted_triangle(0.32, 100, 0.1, 32)(t), 4) for t in (0, 5, 10, 55, 100)]
        [0.01, 0.165, 0.32, 0.165, 0.01]

    Source: Howard & Ruder, ULMFiT (arXiv:1801.06146, eq. 3).
    """
    check_steps(max_train_steps)
    cut_fraction = _errors.check_number("slanted_triangle.cut_fraction", cut_fraction, minimum=0, maximum=1)
    ratio = _errors.check_number("slanted_triangle.ratio", ratio, minimum=1)
    cut = int(max_train_steps * cut_fraction)
    low = learning_rate / ratio
    pieces: list[tuple[int, Piece]] = []
    if cut > 0:
        pieces.append((0, partial(_line, 0, low, cut, float(learning_rate))))
    if cut < max_train_steps:
        pieces.append((cut, partial(_line, cut, float(learning_rate), max_train_steps, low)))
    return Curve(pieces, end=max_train_steps)


def warmup_steps(max_train_steps: int, proportion: float) -> int:
    """W = int(T·w), the number of updates that warm up; both arguments are checked."""
    check_steps(max_train_steps)
    return int(max_train_steps * _errors.check_number("warmup", proportion, minimum=0, maximum=1))


def check_steps(max_train_steps: Any) -> int:
    """T as an int ≥ 1; ValueError or TypeError otherwise."""
    return _errors.check_whole("max_train_steps", max_train_steps, minimum=1)
