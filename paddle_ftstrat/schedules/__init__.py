"""Schedules: pure functions of the update index or of the position in a training, by name or joined."""

from typing import TYPE_CHECKING

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules import curves, torch_curves  # their schedules enter the registry
from paddle_ftstrat.schedules.annealing import (
    SchedCos,
    SchedExp,
    SchedLin,
    SchedNo,
    SchedPoly,
    annealer,
    combine_scheds,
    combined_cos,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
)
from paddle_ftstrat.schedules.schedule import SCHEDULES, ParamScheduler, Schedule, join, register

__all__ = [
    "SCHEDULES",
    "ParamScheduler",
    "SchedCos",
    "SchedExp",
    "SchedLin",
    "SchedNo",
    "SchedPoly",
    "Schedule",
    "annealer",
    "combine_scheds",
    "combined_cos",
    "curves",
    "join",
    "register",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
    "torch_curves",
]

if not TYPE_CHECKING:  # to type checkers the old names are unknown
    __getattr__ = _errors.renamed(__name__, "0.2", {"CURVES": "SCHEDULES", "Curve": "Schedule"})
