"""PaddleHub's and fastai's schedules of the LR: functions of η, T and their own options that build a `Schedule`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.annealing import SchedCos, SchedNo, combined_cos
from paddle_ftstrat.schedules.schedule import Piece, Schedule, check_steps, flat, join, lay, register


def _line(t0: float, y0: float, t1: float, y1: float, t: Any) -> Any:
    """The line through (t0, y0) and (t1, y1); exact at t0, and at t1 when y1 = 0, so that no LR falls below 0."""
    return y0 + (y1 - y0) * ((t - t0) / (t1 - t0))


def _inverse_sqrt(scale: float, t: Any) -> Any:
    return scale * (t + 1.0) ** -0.5


@register("constant")
def constant(learning_rate: float, max_train_steps: int | None = None) -> Schedule:
    """The same value at every update: η.

    Args:
        learning_rate: η.
        max_train_steps: taken for uniformity with the other curves; a constant has no length.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    return Schedule([(0, partial(flat, float(learning_rate)), "constant")], end=max_train_steps)


@register("warmup")
def warmup(learning_rate: float, max_train_steps: int, proportion: float = 0.0) -> Schedule:
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
    if steps == 0:
        return constant(learning_rate, max_train_steps)
    rise = partial(_line, 0, 0.0, steps, float(learning_rate))
    return Schedule([(0, rise, "warmup")], end=steps).then(steps, constant(learning_rate, max_train_steps))


@register("linear_decay")
def linear_decay(
    learning_rate: float,
    max_train_steps: int,
    start_point: float = 0.0,
    end_learning_rate: float = 0.0,
    warmup_proportion: float = 0.0,
) -> Schedule:
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
    return rise.then(start, Schedule([(0, line, "linear decay")], end=max_train_steps))


@register("noam_decay")
def noam_decay(learning_rate: float, max_train_steps: int, warmup_proportion: float) -> Schedule:
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
    return Schedule([(0, rise, "warmup"), (steps, fall, "noam decay")], end=max_train_steps)


@register("slanted_triangle")
def slanted_triangle(
    learning_rate: float, max_train_steps: int, cut_fraction: float = 0.1, ratio: float = 32.0
) -> Schedule:
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
    pieces = []
    if cut > 0:
        pieces.append(Piece(0, partial(_line, 0, low, cut, float(learning_rate)), "rise"))
    if cut < max_train_steps:
        pieces.append(Piece(cut, partial(_line, cut, float(learning_rate), max_train_steps, low), "fall"))
    return Schedule(pieces, end=max_train_steps)


@register("one_cycle")
def one_cycle(
    learning_rate: float, max_train_steps: int, div: float = 25.0, div_final: float = 1e5, pct_start: float = 0.25
) -> Schedule:
    """The 1cycle policy's LR: cosine from η/div up to η over the share pct_start of T, then down to η/div_final.

    Args:
        learning_rate: η, the highest value.
        max_train_steps: T, in updates.
        div: η / first value.
        div_final: η / value at t = T.
        pct_start: in [0, 1], the share of updates that rise.

    Raises:
        ValueError, TypeError: div or div_final not above 0, pct_start outside [0, 1], T ≤ 0, or no numbers.

    Example:
        >>> [round(one_cycle(0.01, 8)(t), 6) for t in (0, 1, 2, 8)]
        [0.0004, 0.0052, 0.01, 0.0]

    Source: Smith & Topin, "Super-convergence" (arXiv:1708.07120); fastai `fit_one_cycle`.
    """
    check_steps(max_train_steps)
    div = _errors.check_number("div", div, above=0)
    div_final = _errors.check_number("div_final", div_final, above=0)
    pct_start = _errors.check_number("pct_start", pct_start, minimum=0, maximum=1)
    cycle = combined_cos(pct_start, learning_rate / div, learning_rate, learning_rate / div_final).over(max_train_steps)
    peak = pct_start * max_train_steps
    return Schedule([p._replace(name="rise" if p.start < peak else "fall") for p in cycle.pieces], cycle.end)


@register("flat_cos")
def flat_cos(learning_rate: float, max_train_steps: int, div_final: float = 1e5, pct_start: float = 0.75) -> Schedule:
    """η over the share pct_start of T, then a cosine down to η/div_final.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates.
        div_final: η / value at t = T.
        pct_start: in [0, 1], the share of updates that are flat.

    Raises:
        ValueError, TypeError: div_final not above 0, pct_start outside [0, 1], T ≤ 0, or no numbers.

    Example:
        >>> [round(flat_cos(0.01, 8)(t), 6) for t in (0, 6, 7, 8)]
        [0.01, 0.01, 0.005, 0.0]

    Source: fastai `fit_flat_cos`.
    """
    steps = check_steps(max_train_steps)
    div_final = _errors.check_number("div_final", div_final, above=0)
    level = _errors.check_number("pct_start", pct_start, minimum=0, maximum=1) * steps
    fall = SchedCos(learning_rate, learning_rate / div_final)
    return join([(level, SchedNo(learning_rate, learning_rate)), (steps - level, fall)])


@register("sgdr")
def sgdr(learning_rate: float, max_train_steps: int, n_cycles: int = 1, cycle_mult: int = 2) -> Schedule:
    """Warm restarts: cosines from η to 0, each `cycle_mult` times as long as the one before, over T together.

    Args:
        learning_rate: η, at each restart.
        max_train_steps: T, in updates; a cycle begins with a whole one.
        n_cycles: how many cycles.
        cycle_mult: how many times longer each next one is; 1 for equal cycles.

    Raises:
        ValueError, TypeError: an argument that is no whole number ≥ 1.

    Example:
        >>> [round(sgdr(0.1, 16, n_cycles=2, cycle_mult=3)(t), 6) for t in (0, 2, 4, 10, 16)]
        [0.1, 0.05, 0.1, 0.05, 0.0]

    Source: Loshchilov & Hutter, SGDR (arXiv:1608.03983); fastai `fit_sgdr`.
    """
    steps = check_steps(max_train_steps)
    lengths = [cycle_mult**index for index in range(_errors.check_whole("n_cycles", n_cycles, minimum=1))]
    _errors.check_whole("cycle_mult", cycle_mult, minimum=1)
    bounds = [steps * sum(lengths[:index]) // sum(lengths) for index in range(n_cycles + 1)]
    fall = SchedCos(learning_rate, 0).pieces[0]
    cycles = [Schedule([fall._replace(name=f"cycle {index}")], 1) for index in range(1, n_cycles + 1)]
    return lay(cycles, bounds)


def warmup_steps(max_train_steps: int, proportion: float) -> int:
    """W = int(T·w), the number of updates that warm up; both arguments are checked."""
    check_steps(max_train_steps)
    return int(max_train_steps * _errors.check_number("warmup", proportion, minimum=0, maximum=1))
