"""Optimizers with parameter groups, optimizers written in Python, and what strategies build on."""

from paddle_ftstrat.optim import lr_scheduler
from paddle_ftstrat.optim.adafactor import Adafactor
from paddle_ftstrat.optim.custom import Accumulator, CustomOptimizer, from_function
from paddle_ftstrat.optim.grouped import Optimizer
from paddle_ftstrat.optim.groups import ParamGroup
from paddle_ftstrat.optim.muon import Muon, hidden_weights
from paddle_ftstrat.optim.optimizers import LAMB, SGD, Adagrad, Adam, AdamW, RMSprop
from paddle_ftstrat.optim.rules import DecayedAdagrad, Ftrl, LarsMomentum, Lion
from paddle_ftstrat.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from paddle_ftstrat.optim.table import register

__all__ = [
    "LAMB",
    "SGD",
    "Accumulator",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "CustomOptimizer",
    "DecayedAdagrad",
    "Ftrl",
    "LarsMomentum",
    "Lion",
    "Muon",
    "Optimizer",
    "ParamGroup",
    "RMSprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "from_function",
    "hidden_weights",
    "lr_scheduler",
    "register",
]
