"""fastai's annealers: functions of the position in [0, 1], from a start value to an end value, joined by fractions.

Values are floats, or lists / arrays with one value per layer group. Each is a `Schedule` with end 1, so positions are
clamped to [0, 1], an array of positions of shape S gives values of shape S + the shape of the start value, and
`over(steps)` lays it over a fit. Everything here is stateless and pickles, joined schedules too (a user's annealer as
long as its function is at module level).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.schedule import Function, Schedule, as_schedule, lay

Formula = Callable[[Any, Any, Any], Any]
SUM_TOLERANCE = 1e-9


class _Between:
    """pos → formula(start, end, pos), with fixed ends.

    `vectorized` says that the formula also takes arrays of positions; `make` is the function (start, end) → schedule
    whose decorator hides the formula, for pickling.
    """

    def __init__(self, formula: Formula, start: Any, end: Any, name: str, vectorized: bool = True, make: Any = None):
        self.start, self.end = _ends(start, end)
        self._formula, self._name, self._vectorized, self._make = formula, name, vectorized, make

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.start)

    def __call__(self, pos: Any) -> Any:
        if not isinstance(pos, np.ndarray):
            return self._formula(self.start, self.end, float(pos))
        if self._vectorized:
            # A trailing axis makes positions and groups broadcast.
            return self._formula(self.start, self.end, pos[:, None] if self.shape else pos)
        values = [self._formula(self.start, self.end, one) for one in pos.tolist()]
        return np.array(values, dtype=np.float64).reshape(pos.shape + self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._make is not None:
            return _function_of, (self._make, self.start, self.end)
        return _Between, (self._formula, self.start, self.end, self._name, self._vectorized)

    def __repr__(self) -> str:
        start, end = (f"{value:g}" if type(value) is float else f"{value.tolist()}" for value in (self.start, self.end))
        return f"{self._name}({start}, {end})"


def _function_of(make: Callable[[Any, Any], Schedule], start: Any, end: Any) -> Function:
    return make(start, end).pieces[0].function


def _annealing(formula: Formula, start: Any, end: Any, name: str, stretch: str, **options: Any) -> Schedule:
    return Schedule([(0, _Between(formula, start, end, name, **options), stretch)], end=1)


def annealer(function: Formula) -> Callable[[Any, Any], Schedule]:
    """Decorator: f(start, end, pos) becomes a function (start, end) → schedule of pos.

    Args:
        function: takes the two ends (floats, or arrays with one value per layer group) and one position.

    Example:
        >>> @annealer
        ... def sched_square(start, end, pos):
        ...     return start + (end - start) * pos**2
        >>> sched_square(0, 8)(0.5)
        2.0

    Source: fastai `callback.schedule.annealer`.
    """

    @functools.wraps(function)
    def make(start: Any, end: Any) -> Schedule:
        name = getattr(function, "__name__", type(function).__name__)
        return _annealing(function, start, end, name, name, vectorized=False, make=make)

    return make


def sched_no(start: Any, end: Any, pos: Any) -> Any:
    """The start value at every position; `end` only takes part in the shape.

    Args:
        start, end, pos: the ends as in `SchedNo`, which says what it refuses; one position or an array of them.

    Example:
        >>> sched_no(2, 0.01, 0.7)
        2.0
    """
    return SchedNo(start, end)(pos)


def sched_lin(start: Any, end: Any, pos: Any) -> Any:
    """Straight line: start + pos·(end − start).

    Args:
        start, end, pos: the ends as in `SchedLin`, which says what it refuses; one position or an array of them.

    Example:
        >>> sched_lin(1, 3, 0.25)
        1.5
    """
    return SchedLin(start, end)(pos)


def sched_cos(start: Any, end: Any, pos: Any) -> Any:
    """Half a cosine wave: start + (1 + cos(π·(1 − pos)))·(end − start)/2.

    Args:
        start, end, pos: the ends as in `SchedCos`, which says what it refuses; one position or an array of them.

    Example:
        >>> round(sched_cos(0, 1, 0.25), 4)
        0.1464
    """
    return SchedCos(start, end)(pos)


def sched_exp(start: Any, end: Any, pos: Any) -> Any:
    """Geometric: start·(end/start)^pos.

    Args:
        start, end, pos: the ends as in `SchedExp`, which says what it refuses; one position or an array of them.

    Example:
        >>> round(sched_exp(1e-4, 1, 0.5), 12)
        0.01
    """
    return SchedExp(start, end)(pos)


def SchedNo(start: Any, end: Any) -> Schedule:
    """The schedule pos → start.

    Args:
        start, end: the value, a number or one per layer group; the end only takes part in the shape.

    Raises:
        TypeError, ValueError: ends that are not finite numbers, or of different lengths.

    Example:
        >>> SchedNo(0.1, 0.0)(0.9)
        0.1

    Source: fastai `SchedNo`.
    """
    return _annealing(_no, start, end, "SchedNo", "constant")


def SchedLin(start: Any, end: Any) -> Schedule:
    """The schedule pos → start + pos·(end − start).

    Args:
        start, end: the values at pos = 0 and at pos = 1, numbers or one per layer group.

    Raises:
        TypeError, ValueError: ends that are not finite numbers, or of different lengths.

    Example:
        >>> SchedLin([0, 1], [1, 3])(0.5)
        array([0.5, 2. ])

    Source: fastai `SchedLin`.
    """
    return _annealing(_lin, start, end, "SchedLin", "line")


def SchedCos(start: Any, end: Any) -> Schedule:
    """The schedule pos → start + (1 + cos(π·(1 − pos)))·(end − start)/2.

    Args:
        start, end: the values at pos = 0 and at pos = 1, numbers or one per layer group.

    Raises:
        TypeError, ValueError: ends that are not finite numbers, or of different lengths.

    Example:
        >>> SchedCos(1, 0)(np.array([0, 0.5, 1])).round(6)
        array([1. , 0.5, 0. ])

    Source: fastai `SchedCos`, after SGDR (arXiv:1608.03983, eq. 5).
    """
    return _annealing(_cos, start, end, "SchedCos", "cosine")


def SchedExp(start: Any, end: Any) -> Schedule:
    """The schedule pos → start·(end/start)^pos.

    Args:
        start, end: the values at pos = 0 and at pos = 1, numbers or one per layer group, of one sign and not 0.

    Raises:
        TypeError, ValueError: ends that are not finite numbers, of different lengths, of different signs, or 0.

    Example:
        >>> SchedExp(1e-6, 1e-2)(np.array([0, 0.5, 1])).round(12)
        array([1.e-06, 1.e-04, 1.e-02])

    Source: fastai `SchedExp`.
    """
    first, last = _ends(start, end)
    if not np.all(np.sign(first) * np.sign(last) > 0):
        raise ValueError(
            f"SchedExp start = {start!r} and end = {end!r} must have the same sign and not be 0: "
            "the curve is start·(end/start)^pos"
        )
    return _annealing(_exp, first, last, "SchedExp", "exponential")


def SchedPoly(start: Any, end: Any, power: float) -> Schedule:
    """The schedule pos → start + (end − start)·pos^power.

    Args:
        start, end: the values at pos = 0 and at pos = 1, numbers or one per layer group.
        power: > 0; below 1 it moves early, above 1 late.

    Raises:
        TypeError, ValueError: ends that are not finite numbers or of different lengths; a power that is not > 0.

    Example:
        >>> SchedPoly(0, 1, 2)(0.5)
        0.25

    Source: fastai `SchedPoly`.
    """
    power = _errors.check_number("SchedPoly power", power, above=0)
    return _annealing(partial(_poly, power), start, end, f"SchedPoly[{power:g}]", "polynomial")


def combine_scheds(pcts: Sequence[float], scheds: Sequence[Schedule]) -> Schedule:
    """One schedule from several: schedule i runs from its 0 to its 1 over the share pcts[i] of [0, 1].

    At a joint the later schedule answers, at 1 the last one. Positions outside [0, 1] are clamped.

    Args:
        pcts: the shares, ≥ 0, with sum 1 (within 1e-9); a schedule with share 0 is left out.
        scheds: as many functions of the position.

    Raises:
        ValueError: different lengths, none at all, a negative share, or a sum other than 1.
        TypeError: a share that is not a number, or a schedule that is not callable.

    Example:
        >>> schedule = combine_scheds([0.7, 0.2, 0.1], [SchedLin(0, 1), SchedNo(1, 1), SchedCos(1, 0)])
        >>> [round(schedule(pos), 6) for pos in (0, 0.35, 0.7, 0.8, 0.95, 1)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]

    Source: fastai `combine_scheds`, which refuses the fractions of this example because their float sum is not 1.0.
    """
    pcts, scheds = tuple(pcts), tuple(scheds)
    if len(pcts) != len(scheds) or not pcts:
        raise ValueError(
            f"combine_scheds got {len(pcts)} fractions and {len(scheds)} schedules: "
            "give as many of one as of the other, and at least one"
        )
    pcts = tuple(_errors.check_number(f"combine_scheds pcts[{i}]", pct, minimum=0) for i, pct in enumerate(pcts))
    total = math.fsum(pcts)
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"combine_scheds pcts = {list(pcts)} sum to {total:.12g}; they must sum to 1")
    for index, schedule in enumerate(scheds):
        if not callable(schedule):
            raise TypeError(f"combine_scheds scheds[{index}] must be a function of the position, not {schedule!r}")
    shapes: set[tuple[int, ...]] = {getattr(schedule, "shape", ()) for schedule in scheds} - {()}
    if len(shapes) > 1:
        raise ValueError(
            f"combine_scheds got schedules with {_errors.listing(sorted(shape[0] for shape in shapes))} values per "
            "position: give each one value per layer group, or a single number"
        )
    bounds = [*(math.fsum(pcts[:index]) for index in range(len(pcts))), 1]
    return lay([as_schedule(schedule) for schedule in scheds], bounds)


def combined_cos(pct: float, start: Any, middle: Any, end: Any) -> Schedule:
    """Cosine from `start` to `middle` over the share `pct`, then cosine from `middle` to `end`.

    Args:
        pct: in [0, 1].
        start, middle, end: the values at 0, at `pct` and at 1, numbers or one per layer group.

    Raises:
        ValueError, TypeError: pct outside [0, 1], values of different lengths, or of other things than numbers.

    Example:
        >>> [round(combined_cos(0.25, 0.1, 1, 0)(pos), 6) for pos in (0, 0.125, 0.25, 0.625, 1)]
        [0.1, 0.55, 1.0, 0.5, 0.0]

    Source: fastai `combined_cos`, the shape of the 1cycle policy (arXiv:1708.07120).
    """
    pct = _errors.check_number("combined_cos pct", pct, minimum=0, maximum=1)
    return combine_scheds([pct, 1 - pct], [SchedCos(start, middle), SchedCos(middle, end)])


def _no(start: Any, end: Any, pos: Any) -> Any:
    return start if type(pos) is float else start + 0.0 * pos


def _lin(start: Any, end: Any, pos: Any) -> Any:
    return start + pos * (end - start)


def _cos(start: Any, end: Any, pos: Any) -> Any:
    cos = math.cos if type(pos) is float else np.cos
    return start + (1 + cos(math.pi * (1 - pos))) * (end - start) / 2


def _exp(start: Any, end: Any, pos: Any) -> Any:
    return start * (end / start) ** pos


def _poly(power: float, start: Any, end: Any, pos: Any) -> Any:
    return start + (end - start) * pos**power


def _ends(start: Any, end: Any) -> tuple[Any, Any]:
    """Both ends as floats, or as arrays of one length that nobody else can write to."""
    start, end = _value("start", start), _value("end", end)
    if type(start) is float and type(end) is float:
        return start, end
    if np.shape(start) != np.shape(end) and () not in (np.shape(start), np.shape(end)):
        raise ValueError(
            f"start has {len(start)} values and end has {len(end)}: "
            "give each one value per layer group, or a single number"
        )
    start, end = (array.copy() for array in np.broadcast_arrays(start, end))
    start.flags.writeable = end.flags.writeable = False
    return start, end


def _value(name: str, value: Any) -> Any:
    if np.ndim(value) == 0:
        return _errors.check_number(name, value)
    if np.ndim(value) > 1 or not len(value):
        raise ValueError(f"{name} must be a number or a flat list with one number per layer group, not {value!r}")
    return np.array([_errors.check_number(f"{name}[{index}]", item) for index, item in enumerate(value)])
