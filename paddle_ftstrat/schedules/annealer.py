"""The annealer: a formula of (start, end, position) with fixed ends, evaluated at one position or at many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors

Formula = Callable[[Any, Any, Any], Any]
Schedule = Callable[[Any], Any]


class Annealer:
    """A schedule pos → function(start, end, pos) with fixed ends.

    Args:
        function: f(start, end, pos) → value, for a float `pos`.
        start: value at pos = 0, a number or one per layer group.
        end: value at pos = 1, likewise.
        vectorized: `function` also takes an array of positions (that broadcasts with the ends); if not, an array is
            evaluated position by position.
        name: how `repr` calls it; the function's name by default.
        make: function (start, end) → this annealer, for pickling a function that its decorator hides.

    Raises:
        TypeError: an end that is not a number or a flat list of numbers.
        ValueError: ends of different lengths, empty, or not finite.

    Example:
        >>> halfway = Annealer(lambda start, end, pos: start + (end - start) * pos, 0, [1, 2])
        >>> halfway(0.5)
        array([0.5, 1. ])
        >>> halfway(np.array([0.25, 0.5])).tolist()
        [[0.25, 0.5], [0.5, 1.0]]
    """

    def __init__(
        self,
        function: Formula,
        start: Any,
        end: Any,
        *,
        vectorized: bool = False,
        name: str | None = None,
        make: Callable[[Any, Any], Annealer] | None = None,
    ) -> None:
        self.start, self.end = _ends(start, end)
        self.vectorized = vectorized
        self._function = function
        self._name = name or getattr(function, "__name__", type(function).__name__)
        self._make = make

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value: () for numbers, (groups,) for lists."""
        return np.shape(self.start)

    def __call__(self, pos: Any) -> Any:
        """The value at `pos`, which is not clamped to [0, 1]."""
        if type(pos) is not float:
            pos = to_position(pos)
            if type(pos) is not float:
                return self._at_array(pos)
        return self._function(self.start, self.end, pos)

    def _at_array(self, pos: np.ndarray) -> np.ndarray:
        if not self.vectorized:
            return _one_by_one(self, pos)
        # A trailing axis per axis of the groups makes positions and groups broadcast.
        return self._function(self.start, self.end, pos.reshape(pos.shape + (1,) * len(self.shape)))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._make is not None:
            return self._make, (self.start, self.end)
        rebuild = partial(Annealer, vectorized=self.vectorized, name=self._name)
        return rebuild, (self._function, self.start, self.end)

    def __repr__(self) -> str:
        return f"{self._name}({_shown(self.start)}, {_shown(self.end)})"


def evaluate(schedule: Schedule, pos: np.ndarray) -> np.ndarray:
    """The values of any schedule at an array of positions, also of one that takes only single positions.

    Example:
        >>> evaluate(lambda pos: 1.0 if pos < 0.5 else 0.1, np.array([0.2, 0.7]))
        array([1. , 0.1])
    """
    return schedule(pos) if hasattr(schedule, "vectorized") else _one_by_one(schedule, pos)


def to_position(pos: Any) -> Any:
    """A Python float for a number, a float64 array for a sequence."""
    return float(pos) if np.ndim(pos) == 0 else np.asarray(pos, dtype=np.float64)


def _one_by_one(schedule: Schedule, pos: np.ndarray) -> np.ndarray:
    if not pos.size:
        return np.empty(pos.shape + getattr(schedule, "shape", ()))
    values = np.array([schedule(p) for p in pos.ravel().tolist()], dtype=np.float64)
    return values.reshape(pos.shape + values.shape[1:])


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


def _shown(value: Any) -> str:
    return f"{value:g}" if type(value) is float else f"{value.tolist()}"
