"""The schedule: a pure function t → value, joined from named pieces, and the names under which schedules are known.

A `Schedule` answers for any t, in any order, as often as asked, and holds its last value past its end. It takes a
Python number (and then costs about a microsecond) or a numpy array. A new schedule is one function decorated with
`register`.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from paddle_ftstrat import _errors

Function = Callable[[Any], Any]
# What can be scheduled: the LR; momentum or β₁; β₂ or ρ; decoupled decay; ε.
HYPERS = ("lr", "mom", "sqr_mom", "wd", "eps")


class Piece(NamedTuple):
    """A stretch of a schedule: from `start` on, `function` answers; `name` is what it is called in tables."""

    start: float
    function: Function
    name: str = ""


class Stretch(NamedTuple):
    """A named part of a schedule, start ≤ t < end."""

    name: str
    start: int
    end: int


def flat(value: float, t: Any) -> Any:
    """The same value at every t, in the shape of t."""
    return value + 0.0 * t


class Schedule:
    """A function t → value, or → one value per layer group: piece i answers for starts[i] ≤ t < starts[i+1].

    Args:
        pieces: (start, function) or (start, function, name); the first start is 0, starts ascend. A function takes t, a
            number or an array of n of them, and returns a number or n; or, with layer groups, an array of groups or
            n × groups.
        end: the last t that is told apart; later ones give the value at `end` (None: no end).

    Raises:
        ValueError: the starts do not ascend from 0, or `end` is negative.

    Example:
        >>> schedule = Schedule([(0, lambda t: 0.1 * t), (5, lambda t: 0.5 + 0 * t)], end=10)
        >>> schedule(2), schedule(7), schedule(10**6)
        (0.2, 0.5, 0.5)

    Source: the piecewise joining of optax's `join_schedules`.
    """

    def __init__(self, pieces: Sequence[Any], end: float | None = None) -> None:
        self.pieces = tuple(Piece(*piece) for piece in pieces)
        self.end = end
        self._starts = [piece.start for piece in self.pieces]
        if not self._starts or self._starts[0] != 0 or any(a > b for a, b in zip(self._starts, self._starts[1:])):
            raise ValueError(f"a schedule's pieces must start at 0 and ascend, not at {self._starts}")
        if end is not None and end < 0:
            raise ValueError(f"a schedule's end must be ≥ 0, not {end!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value: () for numbers, (groups,) where layer groups have their own."""
        return max((getattr(piece.function, "shape", ()) for piece in self.pieces), key=len)

    def __call__(self, t: Any) -> Any:
        """The value at t: a float (or an array of groups) for a number, an array for an array."""
        if type(t) is not int and type(t) is not float:
            if np.ndim(t):
                return self._at_array(np.asarray(t, dtype=np.float64))
            t = float(t)
        if t < 0:
            t = 0
        elif self.end is not None and t > self.end:
            t = self.end
        if len(self.pieces) == 1:
            return self.pieces[0].function(t)
        return self.pieces[bisect_right(self._starts, t) - 1].function(t)

    def _at_array(self, t: np.ndarray) -> np.ndarray:
        flat = np.clip(t.ravel(), 0, self.end)
        which = np.searchsorted(self._starts, flat, side="right") - 1
        parts = []
        for index, piece in enumerate(self.pieces):
            inside = which == index
            if inside.any():
                parts.append((inside, np.asarray(piece.function(flat[inside]))))
        groups = max([self.shape, *(values.shape[1:] for _, values in parts)], key=len)
        result = np.empty((flat.size, *groups))
        for inside, values in parts:
            # A piece with a single number per t holds for every group.
            result[inside] = values.reshape(values.shape + (1,) * (result.ndim - values.ndim))
        return result.reshape(t.shape + groups)

    def then(self, start: float, following: Schedule) -> Schedule:
        """This schedule before `start`, the other one from `start` on (both count t from 0)."""
        kept = [piece for piece in self.pieces if piece.start < start] if start > 0 else []
        index = bisect_right([piece.start for piece in following.pieces], start) - 1
        first = following.pieces[index]._replace(start=max(start, 0))
        return Schedule([*kept, first, *following.pieces[index + 1 :]], end=following.end)

    def over(self, length: float) -> Schedule:
        """This schedule, laid over t = 0 … length instead of over 0 … its end.

        Example:
            >>> Schedule([(0, lambda t: 2 * t)], end=1).over(10)(5)
            1.0
        """
        return join([(length, self)])

    def at(self, offset: float) -> Schedule:
        """This schedule, begun at t = offset."""
        pieces = [Piece(p.start + offset, _placed(p.function, offset, 1), p.name) for p in self.pieces]
        pieces[0] = pieces[0]._replace(start=0)
        return Schedule(pieces, None if self.end is None else self.end + offset)

    def group(self, index: int) -> Schedule:
        """The values of one layer group alone; the schedule itself where all groups share a value."""
        if not self.shape:
            return self
        return Schedule([p._replace(function=partial(_of_group, p.function, index)) for p in self.pieces], self.end)

    def values(self, steps: int) -> np.ndarray:
        """The values at t = 0 … steps−1, as a float64 array of that length."""
        return self(np.arange(steps, dtype=np.float64))

    def stretches(self, steps: int) -> list[Stretch]:
        """The pieces by name over `steps` updates, those of no length left out."""
        starts = [min(steps, math.ceil(piece.start)) for piece in self.pieces]
        stretches = zip(self.pieces, starts, [*starts[1:], steps])
        return [Stretch(piece.name or "schedule", start, end) for piece, start, end in stretches if start < end]

    def __repr__(self) -> str:
        if len(self.pieces) == 1:
            return repr(self.pieces[0].function)
        parts = [f"{piece.start:g}: {piece.name or piece.function!r}" for piece in self.pieces]
        return f"Schedule({', '.join(parts)}; end {self.end})"


def join(parts: Sequence[tuple[float, Schedule]]) -> Schedule:
    """Schedules one after the other, each laid over its own length; a length of 0 leaves a schedule out.

    Args:
        parts: (length, schedule); a schedule without an end is laid out from its 0 to its 1.

    Raises:
        ValueError: no length above 0.

    Example:
        >>> line = Schedule([(0, lambda t: t)], end=1)
        >>> both = join([(10, line), (5, line)])
        >>> both(5), both(10), both(12.5), both(15)
        (0.5, 0.0, 0.5, 1.0)
    """
    bounds = itertools.accumulate((max(length, 0) for length, _ in parts), initial=0)
    return lay([schedule for _, schedule in parts], list(bounds))


def lay(schedules: Sequence[Schedule], bounds: Sequence[float]) -> Schedule:
    """Each schedule laid over its stretch between two of the ascending bounds; one without width is left out.

    Raises:
        ValueError: no stretch has a width.
    """
    pieces: list[Piece] = []
    for schedule, start, end in zip(schedules, bounds, bounds[1:]):
        if start < end:
            scale = (end - start) / (1 if schedule.end is None else schedule.end or 1)
            pieces += [
                Piece(start + p.start * scale, _placed(p.function, start, scale), p.name) for p in schedule.pieces
            ]
    if not pieces:
        raise ValueError("there is nothing to join: give at least one schedule a length above 0")
    return Schedule(pieces, end=bounds[-1])


@dataclass(frozen=True)
class _Placed:
    """A function elsewhere on the axis: t → function((t − offset)/scale)."""

    function: Function
    offset: float
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return getattr(self.function, "shape", ())

    def __call__(self, t: Any) -> Any:
        return self.function((t - self.offset) / self.scale)


def _placed(function: Function, offset: float, scale: float) -> Function:
    if offset == 0 and scale == 1:
        return function
    if isinstance(function, _Placed):
        return _Placed(function.function, offset + function.offset * scale, function.scale * scale)
    return _Placed(function, offset, scale)


def _of_group(function: Function, index: int, t: Any) -> Any:
    """One layer group's value of a function that gives one per group, or gives one for all."""
    value = function(t)
    if np.ndim(value) == np.ndim(t):
        return value
    return value[..., index] if np.ndim(t) else float(value[index])


@dataclass(frozen=True)
class EachOne:
    """A function that takes only single numbers, which an array of them is asked for one by one."""

    function: Function

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value."""
        return np.shape(self.function(0.0))

    def __call__(self, t: Any) -> Any:
        """The value at t, or the values at an array of them."""
        if isinstance(t, np.ndarray):
            return np.array([self.function(one) for one in t.tolist()], dtype=np.float64)
        return self.function(t)


def as_schedule(function: Function) -> Schedule:
    """A function of the position, which may take only single numbers, as a schedule over [0, 1]."""
    return function if isinstance(function, Schedule) else Schedule([(0, EachOne(function))], end=1)


class ParamScheduler:
    """Schedules of hyper-parameters over a fit, given to it as a callback: value = schedule(updates done / all).

    They take the place of what the fit's strategy or policy says of the same hyper-parameters.

    Args:
        scheds: hyper-parameter → schedule on [0, 1]. `lr`; `mom`, the momentum or Adam's β₁; `sqr_mom`, Adam's β₂ or
            RMSProp's ρ; `wd`, decoupled decay; `eps`. A schedule gives a number, or one per layer group (an array,
            bottom group first).

    Raises:
        ValueError: an unknown hyper-parameter, or (when the fit begins) one that the optimizer lacks, or values for
            another number of groups.
        TypeError: a schedule that is no function.

    Example:
        >>> from paddle_ftstrat.schedules import SchedCos, SchedLin
        >>> sorted(ParamScheduler({"lr": SchedLin(1e-3, 1e-2), "mom": SchedCos(0.95, 0.85)}).scheds)
        ['lr', 'mom']

    Source: fastai's `ParamScheduler`.
    """

    def __init__(self, scheds: Mapping[str, Any]) -> None:
        _errors.check_keys("hyper-parameter", scheds, HYPERS)
        for name, schedule in scheds.items():
            if not callable(schedule):
                raise TypeError(f"the schedule of {name!r} must be a function of the position, not {schedule!r}")
        self.scheds = dict(scheds)

    def over(self, steps: int) -> dict[str, Schedule]:
        """The schedules as functions of the update index, over a fit of so many."""
        return {name: as_schedule(schedule).over(steps) for name, schedule in self.scheds.items()}


SCHEDULES: dict[str, Callable[..., Schedule]] = {}


def register(name: str) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """Enter a function that builds a schedule in `SCHEDULES`: strategies, YAML, `explain` and `plot` know its name.

    The function takes `learning_rate` (η), `max_train_steps` (T) and its own keyword arguments, all with a default, and
    returns a Schedule.

    Args:
        name: as in `CombinedStrategy(scheduler={name: {...}})`.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> @register("half_for_doctest")
        ... def half(learning_rate, max_train_steps, share=0.5):
        ...     return Schedule([(0, lambda t: learning_rate * share + 0 * t)], end=max_train_steps)
        >>> SCHEDULES.pop("half_for_doctest")(0.1, 10)(3)
        0.05
    """

    def enter(build: Callable[..., Schedule]) -> Callable[..., Schedule]:
        if name in SCHEDULES:
            raise ValueError(f"a schedule named {name!r} is already registered")
        SCHEDULES[name] = build
        return build

    return enter


def check_steps(max_train_steps: Any) -> int:
    """T as an int ≥ 1; ValueError or TypeError otherwise."""
    return _errors.check_whole("max_train_steps", max_train_steps, minimum=1)
