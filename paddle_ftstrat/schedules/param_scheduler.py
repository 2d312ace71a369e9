"""Schedules for any hyper-parameter during a fit, as a callback of the Learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.curves import Curve
from paddle_ftstrat.schedules.fit_curve import FitCurve

HYPERS = ("lr", "mom", "sqr_mom", "wd", "eps")


class ParamScheduler:
    """Sets hyper-parameters before every update: value = schedule((updates done) / (all updates of the fit)).

    Args:
        scheds: hyper-parameter → schedule on [0, 1]. `lr`; `mom`, the momentum or Adam's β₁; `sqr_mom`, Adam's β₂ or
            RMSProp's ρ; `wd`, decoupled decay; `eps`. A schedule gives a number, or one per layer group (an array,
            bottom group first).

    Raises:
        ValueError: an unknown hyper-parameter, or (when the fit begins) one that the optimizer lacks, or values for
            another number of groups.
        TypeError: a schedule that is no function.

    Example:
        >>> from paddle_ftstrat.schedules.annealing import SchedCos, SchedLin
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
        self._curves: dict[str, FitCurve] = {}
        self._factors: np.ndarray | None = None
        self._values: dict[str, Any] = {}

    def on_fit_begin(self, learner: Any) -> None:
        """Turn the schedules into curves of this fit's length, and let the optimizer follow the one of the LR."""
        total = learner.state.span.length
        self._curves = {name: FitCurve(schedule, total) for name, schedule in self.scheds.items()}
        self._factors = None
        for name in self.scheds:
            if name != "lr":
                learner.run.hyper(name)
        if "lr" in self._curves:
            learner.run.reschedule(TopGroup(self._curves["lr"]), total, learner.state.updates)
            learner.run.lr_scheduler.step(learner.state.curve_step)
        learner.recorder.hps.update((name, []) for name in self.scheds)

    def on_before_update(self, learner: Any) -> None:
        """Put the values of the coming update in force."""
        self._values = {name: curve(learner.state.curve_step) for name, curve in self._curves.items()}
        for name, value in self._values.items():
            if name == "lr":
                self._spread(learner.run, value)
            else:
                learner.run.set_hyper(name, value)

    def on_after_update(self, learner: Any) -> None:
        """Note the values of the update."""
        for name, value in self._values.items():
            learner.recorder.hps[name].append(value if np.ndim(value) == 0 else float(value[-1]))

    def _spread(self, run: Any, lrs: Any) -> None:
        """Groups whose LR is another share of the top group's than before get a new factor."""
        top = lrs if np.ndim(lrs) == 0 else lrs[-1]
        if top == 0:
            return
        factors = np.full(len(run.blocks), 1.0) if np.ndim(lrs) == 0 else np.asarray(lrs) / top
        if self._factors is None:
            # Those that a checkpoint has brought back, to the last digit.
            self._factors = np.asarray(run.block_factors)
        if not np.allclose(factors, self._factors, rtol=1e-12, atol=0):
            run.set_block_factors(factors.tolist())
            self._factors = factors


class TopGroup(Curve):
    """The top group's value of a curve that gives one per layer group, or the curve's only value.

    Args:
        curve: function of the update index.

    Example:
        >>> TopGroup(lambda t: np.array([t / 10, t]))(3)
        3.0
    """

    def __init__(self, curve: Any) -> None:
        super().__init__([(0, curve)], end=getattr(curve, "end", None))
        self.curve = curve

    def __call__(self, t: Any) -> Any:
        """A float for a number; for an array of update indices, an array of that shape."""
        value = self.curve(t)
        if isinstance(t, np.ndarray):
            return value if np.shape(value) == t.shape else np.asarray(value)[..., -1]
        return value if np.ndim(value) == 0 else float(value[-1])
