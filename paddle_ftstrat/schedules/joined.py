"""Schedules on [0, 1] joined by fractions into one."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.annealer import Schedule, evaluate, to_position

SUM_TOLERANCE = 1e-9

# Veltkamp's splitting constant: c = K·x; c − (c − x) is x rounded to the 24 significant bits of a float32. It is three
# float64 operations, which for a Python float is several times cheaper than a conversion to numpy.float32 and back.
_SPLIT = 2.0**29 + 1.0


class Combined:
    """Schedules one after the other, each over its own share of [0, 1]; `combine_scheds` makes and describes it."""

    def __init__(self, pcts: Sequence[float], scheds: Sequence[Schedule]) -> None:
        self.pcts, self.scheds = _checked(tuple(pcts), tuple(scheds))
        # float32 as in fastai, whose fractions are torch tensors: its recorded schedules come out bit for bit, which
        # includes on which side of a joint an update falls. It moves a position by at most 6e-8.
        shares = np.asarray(self.pcts, dtype=np.float32)
        bounds = np.concatenate([[0.0], np.cumsum(shares, dtype=np.float64)]).astype(np.float32)
        bounds = np.minimum(bounds, np.float32(1.0))
        bounds[-1] = 1.0
        kept = np.flatnonzero(np.diff(bounds) > 0)  # a share of 0 has no position of its own
        self._scheds = [self.scheds[index] for index in kept]
        self._lows = [float(bounds[index]) for index in kept]
        self._widths = [float(bounds[index + 1] - bounds[index]) for index in kept]
        self.vectorized = all(getattr(schedule, "vectorized", False) for schedule in self._scheds)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value: () for numbers, (groups,) for lists."""
        return max((getattr(schedule, "shape", ()) for schedule in self.scheds), key=len)

    def __call__(self, pos: Any) -> Any:
        """The value at `pos`, clamped to [0, 1]."""
        if type(pos) is not float:
            pos = to_position(pos)
            if type(pos) is not float:
                return self._at_array(pos)
        pos = 0.0 if pos < 0.0 else 1.0 if pos > 1.0 else pos
        scaled = _SPLIT * pos
        pos = scaled - (scaled - pos)
        piece = bisect_right(self._lows, pos) - 1
        return self._scheds[piece](_within(pos, self._lows[piece], self._widths[piece]))

    def _at_array(self, pos: np.ndarray) -> np.ndarray:
        pos = np.clip(pos, 0.0, 1.0)
        scaled = _SPLIT * pos
        pos = scaled - (scaled - pos)
        which = np.searchsorted(self._lows, pos, side="right") - 1
        parts = []
        for piece, schedule in enumerate(self._scheds):
            inside = which == piece
            if inside.any():
                parts.append((inside, evaluate(schedule, _within(pos[inside], self._lows[piece], self._widths[piece]))))
        groups = max([self.shape, *(values.shape[1:] for _, values in parts)], key=len)
        result = np.empty(pos.shape + groups)
        for inside, values in parts:
            # A schedule with a single number per position holds for every group.
            result[inside] = values.reshape(values.shape + (1,) * (1 + len(groups) - values.ndim))
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Combined, (self.pcts, self.scheds)

    def __repr__(self) -> str:
        return f"combine_scheds({list(self.pcts)}, {list(self.scheds)})"


def _within(pos: Any, low: float, width: float) -> Any:
    """Where `pos` stands in its piece: (pos − low)/width, rounded to float32 after each operation."""
    offset = pos - low
    scaled = _SPLIT * offset
    share = (scaled - (scaled - offset)) / width
    scaled = _SPLIT * share
    return scaled - (scaled - share)


def _checked(pcts: tuple[Any, ...], scheds: tuple[Any, ...]) -> tuple[tuple[float, ...], tuple[Schedule, ...]]:
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
    shapes = {getattr(schedule, "shape", ()) for schedule in scheds} - {()}
    if len(shapes) > 1:
        raise ValueError(
            f"combine_scheds got schedules with {_errors.listing(sorted(shape[0] for shape in shapes))} values per "
            "position: give each one value per layer group, or a single number"
        )
    return pcts, scheds
