"""Schedules: learning-rate curves, annealers and fastai's policies, as pure functions."""

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
from paddle_ftstrat.schedules.schedule import SCHEDULES, Schedule, join, register
from paddle_ftstrat.schedules.param_scheduler import ParamScheduler

__all__ = [
    "SCHEDULES",
    "Schedule",
    "ParamScheduler",
    "SchedCos",
    "SchedExp",
    "SchedLin",
    "SchedNo",
    "SchedPoly",
    "annealer",
    "combine_scheds",
    "combined_cos",
    "register",
    "sched_cos",
    "sched_exp",
    "sched_lin",
    "sched_no",
]
