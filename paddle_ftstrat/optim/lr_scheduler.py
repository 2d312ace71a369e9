"""OneFlow's LR schedulers, over any optimizer that has `param_groups`, a list of dicts with an "lr" each.

All but `ReduceLROnPlateau` evaluate a curve per group, lr = curve(last_step), and `last_step` is their only state.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.scheduling import GroupCurve, GroupScheduler, Scheduler, check_groups
from paddle_ftstrat.schedules import torch_curves

__all__ = [
    "CosineAnnealingLR",
    "CosineDecayLR",
    "ExponentialLR",
    "LambdaLR",
    "MultiStepLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "StepLR",
]


def _documented_by(curve: Callable[..., Any], more: str = "") -> Callable[[type], type]:
    """Have a scheduler tell the formula, the arguments and the source of its curve; its example is its own."""

    def document(cls: type) -> type:
        optimizer = "    optimizer: has `param_groups`; η is a group's initial LR."
        text = re.sub(r"    learning_rate: .*", optimizer, inspect.getdoc(curve) or "")
        arguments = f"{more}    last_step: index of the last update done; −1 begins.\n    verbose: print each LR set."
        text = text.replace("\n\nRaises:", f"\n{arguments}\n\nRaises:")
        example = (inspect.getdoc(cls) or "").partition("\n\n")[2]
        cls.__doc__ = re.sub(r"Example:\n.*?(?=\n\nSource)", lambda _: example, text, flags=re.DOTALL)
        return cls

    return document


@_documented_by(torch_curves.cosine_annealing)
class CosineAnnealingLR(GroupScheduler):
    """`schedules.torch_curves.cosine_annealing` for each parameter group.

    Example:
        >>> from types import SimpleNamespace
        >>> sgd = SimpleNamespace(param_groups=[{"lr": 1.0}])
        >>> scheduler = CosineAnnealingLR(sgd, T_max=2)
        >>> lrs = []
        >>> for _ in range(5):
        ...     lrs.append(round(sgd.param_groups[0]["lr"], 6))
        ...     scheduler.step()
        >>> lrs
        [1.0, 0.5, 0.0, 0.5, 1.0]
    """

    def __init__(
        self, optimizer: Any, T_max: int, eta_min: float = 0.0, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"T_max": T_max, "eta_min": eta_min}
        super().__init__(optimizer, torch_curves.cosine_annealing, settings, last_step, verbose)


@_documented_by(torch_curves.cosine_decay)
class CosineDecayLR(GroupScheduler):
    """`schedules.torch_curves.cosine_decay` for each parameter group.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = CosineDecayLR(SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 0.1}]), decay_steps=1)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.0, 0.0]
    """

    def __init__(
        self, optimizer: Any, decay_steps: int, alpha: float = 0.0, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"decay_steps": decay_steps, "alpha": alpha}
        super().__init__(optimizer, torch_curves.cosine_decay, settings, last_step, verbose)


@_documented_by(torch_curves.exponential)
class ExponentialLR(GroupScheduler):
    """`schedules.torch_curves.exponential` for each parameter group.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = ExponentialLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: Any, gamma: float, last_step: int = -1, verbose: bool = False) -> None:
        super().__init__(optimizer, torch_curves.exponential, {"gamma": gamma}, last_step, verbose)


@_documented_by(torch_curves.step)
class StepLR(GroupScheduler):
    """`schedules.torch_curves.step` for each parameter group.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = StepLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), step_size=1, gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def __init__(
        self, optimizer: Any, step_size: int, gamma: float = 0.1, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"step_size": step_size, "gamma": gamma}
        super().__init__(optimizer, torch_curves.step, settings, last_step, verbose)


@_documented_by(torch_curves.multi_step)
class MultiStepLR(GroupScheduler):
    """`schedules.torch_curves.multi_step` for each parameter group.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = MultiStepLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), milestones=[1, 8], gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def __init__(
        self, optimizer: Any, milestones: Sequence[int], gamma: float = 0.1, last_step: int = -1, verbose: bool = False
    ) -> None:
        # Saved settings are plain data; what is no sequence is left for the curve to refuse.
        settings = {"milestones": list(milestones) if np.ndim(milestones) else milestones, "gamma": gamma}
        super().__init__(optimizer, torch_curves.multi_step, settings, last_step, verbose)


@_documented_by(
    torch_curves.polynomial, "    decay_batch: another name of `steps`, in newer documents; give one of them.\n"
)
class PolynomialLR(GroupScheduler):
    """`schedules.torch_curves.polynomial` for each parameter group; `decay_batch` is another name of `steps`.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = PolynomialLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), steps=4, end_learning_rate=0.0)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.75]
    """

    def __init__(
        self,
        optimizer: Any,
        steps: int | None = None,
        end_learning_rate: float = 1e-4,
        power: float = 1.0,
        cycle: bool = False,
        last_step: int = -1,
        verbose: bool = False,
        *,
        decay_batch: int | None = None,
    ) -> None:
        if (steps is None) == (decay_batch is None):
            raise TypeError(f"give either steps or decay_batch: got steps = {steps!r}, decay_batch = {decay_batch!r}")
        settings = {"steps": decay_batch if steps is None else steps, "end_learning_rate": end_learning_rate}
        settings.update(power=power, cycle=cycle)
        super().__init__(optimizer, torch_curves.polynomial, settings, last_step, verbose)


class LambdaLR(GroupScheduler):
    """The initial LR η times f(t).

    Args:
        optimizer: has `param_groups`.
        lr_lambda: f, or a list with one function per group; they are not part of the saved state.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError: another number of functions than of groups.
        TypeError: something that is not a function.

    Example:
        >>> from types import SimpleNamespace
        >>> sgd = SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 10.0}])
        >>> scheduler = LambdaLR(sgd, [lambda t: 0.5**t, lambda t: 1 / (t + 1)])
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5, 5.0]

    Source: OneFlow `LambdaLR`.
    """

    def __init__(
        self,
        optimizer: Any,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        count = len(check_groups(optimizer))
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, Sequence) else [lr_lambda] * count
        if len(self.lr_lambdas) != count:
            raise ValueError(f"lr_lambda has {len(self.lr_lambdas)} functions, but the optimizer has {count} groups")
        for index, function in enumerate(self.lr_lambdas):
            if not callable(function):
                raise TypeError(f"lr_lambda[{index}] must be a function of the update index, not {function!r}")
        super().__init__(
            optimizer, [partial(_scaled, function) for function in self.lr_lambdas], {}, last_step, verbose
        )


class ReduceLROnPlateau(Scheduler):
    """Multiply the LR by `factor` after more than `patience` steps without a better metric.

    A metric m is better than the best b so far if m < b·(1 − threshold) (mode "min", threshold_mode "rel"),
    m < b − threshold ("min", "abs"), m > b·(1 + threshold) ("max", "rel"), or m > b + threshold ("max", "abs").
    A metric that is not a number is not better.

    Args:
        optimizer: has `param_groups`, a list of dicts with "lr".
        mode: "min" for a metric that should fall, "max" for one that should rise.
        factor: in [0, 1), new LR / old LR.
        patience: ≥ 0, steps without a better metric that are put up with.
        threshold: ≥ 0, how much better counts.
        threshold_mode: "rel" or "abs".
        cooldown: ≥ 0, steps after a reduction during which bad metrics are not counted.
        min_lr: lowest LR, a number or one per group.
        eps: a reduction by no more than this is left out.
        verbose: print each reduction.

    Attributes:
        best: the best metric so far.
        last_step: steps so far.
        in_cooldown: whether bad metrics are not counted at present.

    Raises:
        ValueError: an unknown mode, a number outside its range, or another number of min_lr than of groups.
        TypeError: the optimizer has no `param_groups`, or something is not a number.

    Example:
        >>> from types import SimpleNamespace
        >>> sgd = SimpleNamespace(param_groups=[{"lr": 1.0}])
        >>> scheduler = ReduceLROnPlateau(sgd, factor=0.5, patience=1)
        >>> for metric in (0.9, 0.8, 0.8, 0.8):
        ...     scheduler.step(metric)
        >>> scheduler.get_last_lr()
        [0.5]

    Source: OneFlow `ReduceLROnPlateau`.
    """

    _kept = ("last_step", "best", "num_bad_steps", "cooldown_counter")

    def __init__(
        self,
        optimizer: Any,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
        verbose: bool = False,
    ) -> None:
        super().__init__(optimizer, {}, verbose)
        _errors.check_keys("mode", [mode], ("min", "max"))
        _errors.check_keys("threshold_mode", [threshold_mode], ("rel", "abs"))
        self._settings = {
            "mode": mode,
            "factor": _errors.check_number("factor", factor, minimum=0, below=1),
            "patience": _errors.check_whole("patience", patience),
            "threshold": _errors.check_number("threshold", threshold, minimum=0),
            "threshold_mode": threshold_mode,
            "cooldown": _errors.check_whole("cooldown", cooldown),
            "min_lr": self._min_lrs(min_lr),
            "eps": _errors.check_number("eps", eps, minimum=0),
        }
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_steps = self.cooldown_counter = 0

    def _min_lrs(self, given: Any) -> list[float]:
        if np.ndim(given) == 0:
            return [_errors.check_number("min_lr", given, minimum=0)] * self._count
        if len(given) != self._count:
            raise ValueError(f"min_lr = {given!r} has {len(given)} values, but the optimizer has {self._count} groups")
        return [_errors.check_number(f"min_lr[{index}]", low, minimum=0) for index, low in enumerate(given)]

    @property
    def in_cooldown(self) -> bool:
        """Whether the cooldown after a reduction is still going on."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any) -> None:
        """Look at the metric of this step (a number or a one-element tensor) and reduce the LRs if it is time."""
        # float() of a Paddle tensor of shape [1] fails with numpy ≥ 2.4.
        metric = float(metrics.item() if hasattr(metrics, "item") else metrics)
        self.last_step += 1
        better = self._is_better(metric)
        self.best = metric if better else self.best
        self.num_bad_steps = 0 if better or self.in_cooldown else self.num_bad_steps + 1
        self.cooldown_counter = max(0, self.cooldown_counter - 1)
        if self.num_bad_steps > self._settings["patience"]:
            for index, (group, lowest) in enumerate(zip(self._groups(), self._settings["min_lr"])):
                old = float(group["lr"])
                new = max(old * self._settings["factor"], lowest)
                if old - new > self._settings["eps"]:
                    self._set(index, new)
            self.cooldown_counter = self._settings["cooldown"]
            self.num_bad_steps = 0

    def _is_better(self, metric: float) -> bool:
        threshold, relative = self._settings["threshold"], self._settings["threshold_mode"] == "rel"
        if self._settings["mode"] == "min":
            return metric < (self.best * (1.0 - threshold) if relative else self.best - threshold)
        return metric > (self.best * (1.0 + threshold) if relative else self.best + threshold)


def _scaled(function: Callable[[int], float], base_lr: float) -> GroupCurve:
    return lambda t: base_lr * function(t)
