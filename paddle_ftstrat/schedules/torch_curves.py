"""The schedules behind OneFlow's and torch's LR schedulers, with η = learning_rate and t = the index of the update.

As schedules of a strategy they know the length T of the training, which is the default of their own lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.schedule import Schedule, flat, register


@register("cosine_annealing")
def cosine_annealing(
    learning_rate: float, max_train_steps: int | None = None, T_max: int | None = None, eta_min: float = 0.0
) -> Schedule:
    """A cosine wave between η and e, without end: e + (η − e)·(1 + cos(π·t/h))/2.

    Args:
        learning_rate: η, the value at t = 0.
        max_train_steps: T, in updates; None where no training is known.
        T_max: h ≥ 1, updates from the top to the bottom, after which the value rises again; None: T.
        eta_min: e ≥ 0, the lowest value.

    Raises:
        ValueError, TypeError: h is no whole number ≥ 1, or e < 0.

    Example:
        >>> [round(cosine_annealing(1.0, T_max=4)(t), 3) for t in (0, 1, 2, 4, 6, 8)]
        [1.0, 0.854, 0.5, 0.0, 0.5, 1.0]

    Source: OneFlow `CosineAnnealingLR`; SGDR (arXiv:1608.03983), without restarts.
    """
    T_max = _errors.check_whole("T_max", max_train_steps if T_max is None else T_max, minimum=1)
    eta_min = _errors.check_number("eta_min", eta_min, minimum=0)
    return Schedule([(0, partial(_cosine, eta_min, float(learning_rate) - eta_min, T_max), "cosine")], max_train_steps)


@register("cosine_decay")
def cosine_decay(
    learning_rate: float, max_train_steps: int | None = None, decay_steps: int | None = None, alpha: float = 0.0
) -> Schedule:
    """Half a cosine from η to α·η, where it stays: η·((1 − α)·(1 + cos(π·t/D))/2 + α) for t ≤ D.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates; None where no training is known.
        decay_steps: D ≥ 1, in updates; None: T.
        alpha: α ≥ 0, last value / first value.

    Raises:
        ValueError, TypeError: D is no whole number ≥ 1, or α < 0.

    Example:
        >>> [round(cosine_decay(1.0, decay_steps=4, alpha=0.2)(t), 3) for t in (0, 1, 2, 4, 100)]
        [1.0, 0.883, 0.6, 0.2, 0.2]

    Source: OneFlow `CosineDecayLR`.
    """
    decay_steps = _errors.check_whole("decay_steps", max_train_steps if decay_steps is None else decay_steps, minimum=1)
    low = learning_rate * _errors.check_number("alpha", alpha, minimum=0)
    return Schedule([(0, partial(_cosine, low, learning_rate - low, decay_steps), "cosine")], end=decay_steps)


@register("exponential_decay")
def exponential(learning_rate: float, max_train_steps: int | None = None, gamma: float = 0.999) -> Schedule:
    """The same factor at every update: η·γ^t.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates; None where no training is known.
        gamma: γ > 0, per update; above 1 the value grows.

    Raises:
        ValueError: γ ≤ 0.

    Example:
        >>> [exponential(1.0, gamma=0.5)(t) for t in (0, 1, 3)]
        [1.0, 0.5, 0.125]

    Source: OneFlow `ExponentialLR`.
    """
    gamma = _errors.check_number("gamma", gamma, above=0)
    return Schedule([(0, partial(_stairs, float(learning_rate), gamma, None), "exponential")], max_train_steps)


@register("step_decay")
def step(
    learning_rate: float, max_train_steps: int | None = None, step_size: int | None = None, gamma: float = 0.1
) -> Schedule:
    """The factor γ every s updates: η·γ^⌊t/s⌋.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates; None where no training is known.
        step_size: s ≥ 1, in updates; None: a third of T, rounded up.
        gamma: γ > 0.

    Raises:
        ValueError, TypeError: s is no whole number ≥ 1, or γ ≤ 0.

    Example:
        >>> [step(1.0, step_size=3, gamma=0.5)(t) for t in (0, 2, 3, 5, 6)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Source: OneFlow `StepLR`.
    """
    if step_size is None and max_train_steps is not None:
        step_size = -(-max_train_steps // 3)
    step_size = _errors.check_whole("step_size", step_size, minimum=1)
    gamma = _errors.check_number("gamma", gamma, above=0)
    return Schedule([(0, partial(_stairs, float(learning_rate), gamma, step_size), "steps")], max_train_steps)


@register("multi_step_decay")
def multi_step(
    learning_rate: float, max_train_steps: int | None = None, milestones: Sequence[int] = (), gamma: float = 0.1
) -> Schedule:
    """The factor γ at each milestone: η·γ^(number of milestones ≤ t).

    Args:
        learning_rate: η.
        max_train_steps: T, in updates; None where no training is known.
        milestones: update indices, ascending.
        gamma: γ > 0.

    Raises:
        ValueError, TypeError: milestones that do not ascend or are no whole numbers ≥ 0, or γ ≤ 0.

    Example:
        >>> [multi_step(1.0, milestones=[2, 5], gamma=0.5)(t) for t in (0, 1, 2, 4, 5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Source: OneFlow `MultiStepLR`.
    """
    if np.ndim(milestones) != 1:
        raise TypeError(f"milestones must be a list of update indices, not {milestones!r}")
    starts = [_errors.check_whole(f"milestones[{index}]", start) for index, start in enumerate(milestones)]
    if any(a >= b for a, b in zip(starts, starts[1:])):
        raise ValueError(f"milestones = {starts} must ascend")
    gamma = _errors.check_number("gamma", gamma, above=0)
    values = [float(learning_rate * gamma**index) for index in range(len(starts) + 1)]
    pieces = [(start, partial(flat, value), "constant") for start, value in zip([0, *starts], values)]
    return Schedule(pieces, max_train_steps)


@register("polynomial_decay")
def polynomial(
    learning_rate: float,
    max_train_steps: int | None = None,
    steps: int | None = None,
    end_learning_rate: float = 1e-4,
    power: float = 1.0,
    cycle: bool = False,
) -> Schedule:
    """A power of the rest of the way: (η − e)·(1 − t/D)^p + e for t ≤ D, then e.

    With `cycle` it starts again after each s updates, on a longer way: D = s·⌈t/s⌉, and t = 0 has the value of t = 1.

    Args:
        learning_rate: η.
        max_train_steps: T, in updates; None where no training is known.
        steps: s ≥ 1, in updates; D = s without `cycle`; None: T.
        end_learning_rate: e ≥ 0.
        power: p > 0.
        cycle: start again instead of staying at e.

    Raises:
        ValueError, TypeError: s is no whole number ≥ 1, e < 0 or p ≤ 0.

    Example:
        >>> [round(polynomial(1.0, steps=4, end_learning_rate=0.2)(t), 3) for t in (0, 1, 2, 4, 9)]
        [1.0, 0.8, 0.6, 0.2, 0.2]
        >>> [round(polynomial(1.0, steps=4, end_learning_rate=0.0, cycle=True)(t), 3) for t in (0, 1, 4, 5, 8)]
        [0.75, 0.75, 0.0, 0.375, 0.0]

    Source: OneFlow `PolynomialLR`.
    """
    steps = _errors.check_whole("steps", max_train_steps if steps is None else steps, minimum=1)
    end = _errors.check_number("end_learning_rate", end_learning_rate, minimum=0)
    power = _errors.check_number("power", power, above=0)
    rest = float(learning_rate) - end
    if not cycle:
        return Schedule([(0, partial(_power, end, rest, steps, power), "polynomial")], end=steps)
    restarting = partial(_restarting_power, end, rest, steps, power)
    pieces = [(0, partial(flat, restarting(1)), "polynomial"), (1, restarting, "polynomial")]
    return Schedule(pieces, max_train_steps)


def _cosine(low: float, height: float, half_period: int, t: Any) -> Any:
    cos = np.cos if isinstance(t, np.ndarray) else math.cos
    return low + height * (1.0 + cos(math.pi * t / half_period)) / 2


def _stairs(first: float, factor: float, width: int | None, t: Any) -> Any:
    return first * factor ** (t if width is None else t // width)


def _power(end: float, rest: float, steps: Any, power: float, t: Any) -> Any:
    return rest * (1.0 - t / steps) ** power + end


def _restarting_power(end: float, rest: float, steps: int, power: float, t: Any) -> Any:
    # −(−t // s) is ⌈t/s⌉ for numbers and arrays alike.
    return _power(end, rest, -(-t // steps) * steps, power, t)
