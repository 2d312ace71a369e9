"""A schedule of the position in [0, 1] as a curve of update indices."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.annealer import Schedule, evaluate
from paddle_ftstrat.schedules.curves import Curve


class FitCurve(Curve):
    """A schedule over a fit of N updates, as a curve: t → schedule((s + t)/N), which holds its value at N.

    Args:
        schedule: function of the position in [0, 1] (an annealer, a joined schedule, or any function of a float).
        total_steps: N, the updates of the whole fit.
        start_step: s, the updates of it that were done before; t counts from there.

    Raises:
        ValueError: N < 1, s < 0, or s beyond N.
        TypeError: N or s is not a whole number, or the schedule is not callable.

    Example:
        >>> from paddle_ftstrat.schedules.annealing import combined_cos
        >>> curve = FitCurve(combined_cos(0.25, 0.04, 1.0, 0.0), total_steps=20)
        >>> [round(curve(t), 4) for t in (0, 1, 5, 12, 20, 21)]
        [0.04, 0.1317, 1.0, 0.5523, 0.0, 0.0]
        >>> FitCurve(curve.schedule, total_steps=20, start_step=12)(0) == curve(12)
        True

    Source: fastai's `ParamScheduler`, which asks its schedules for pos = updates done / all updates.
    """

    def __init__(self, schedule: Schedule, total_steps: int, start_step: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the position in [0, 1], not {schedule!r}")
        total_steps = _errors.check_whole("total_steps", total_steps, minimum=1)
        start_step = _errors.check_whole("start_step", start_step)
        if start_step > total_steps:
            raise ValueError(f"start_step = {start_step} is beyond the end of the fit: it has {total_steps} updates")
        self.schedule, self.total_steps, self.start_step = schedule, total_steps, start_step
        super().__init__([(0, partial(_in_fit, schedule, start_step, total_steps))], end=total_steps - start_step)

    def _at_array(self, t: np.ndarray) -> np.ndarray:
        # Not the base class's joining of pieces: a schedule of layer groups has several values per update.
        return self._functions[0](np.clip(np.asarray(t, dtype=np.float64), 0, self.end))

    def __reduce__(self) -> tuple[Any, ...]:
        return FitCurve, (self.schedule, self.total_steps, self.start_step)


def _in_fit(schedule: Schedule, start_step: int, total_steps: int, t: Any) -> Any:
    pos = (start_step + t) / total_steps
    return evaluate(schedule, pos) if isinstance(pos, np.ndarray) else schedule(pos)
