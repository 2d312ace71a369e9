"""The one LR scheduler that keeps state: it looks at a metric, which nobody knows in advance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.scheduling import check_groups, check_state


class ReduceLROnPlateau:
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
        groups = check_groups(optimizer)
        for name, value, allowed in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in allowed:
                raise ValueError(_errors.unknown(name, value, allowed))
        factor = _errors.check_number("factor", factor, minimum=0)
        if factor >= 1:
            raise ValueError(f"factor = {factor!r} is outside what is allowed: a number ≥ 0 and < 1")
        self.optimizer = optimizer
        self.verbose = verbose
        self._settings = {
            "mode": mode,
            "factor": factor,
            "patience": _errors.check_whole("patience", patience),
            "threshold": _errors.check_number("threshold", threshold, minimum=0),
            "threshold_mode": threshold_mode,
            "cooldown": _errors.check_whole("cooldown", cooldown),
            "min_lr": _min_lrs(min_lr, len(groups)),
            "eps": _errors.check_number("eps", eps, minimum=0),
        }
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_steps = 0
        self.cooldown_counter = 0
        self.last_step = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether the cooldown after a reduction is still going on."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any) -> None:
        """Look at the metric of this step (a number or a one-element tensor) and reduce the LRs if it is time."""
        # float() of a Paddle tensor of shape [1] fails with numpy ≥ 2.4.
        metric = float(metrics.item() if hasattr(metrics, "item") else metrics)
        self.last_step += 1
        if self._is_better(metric):
            self.best = metric
            self.num_bad_steps = 0
        else:
            self.num_bad_steps += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_steps = 0
        if self.num_bad_steps > self._settings["patience"]:
            self._reduce()
            self.cooldown_counter = self._settings["cooldown"]
            self.num_bad_steps = 0

    def get_last_lr(self) -> list[float]:
        """The present LR of each group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The best metric, the counters, the groups' LRs and the settings; plain data."""
        return {
            "last_step": self.last_step,
            "best": self.best,
            "num_bad_steps": self.num_bad_steps,
            "cooldown_counter": self.cooldown_counter,
            "last_lr": self.get_last_lr(),
            "settings": {**self._settings, "min_lr": list(self._settings["min_lr"])},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Go on from a saved state, and set the groups' LRs.

        Args:
            state_dict: from `state_dict()`.
            strict: refuse a state that was saved with other settings; False keeps the settings of this scheduler.

        Raises:
            ValueError: a missing key, other settings, or another number of groups.
        """
        check_state(state_dict, self.state_dict(), strict)
        for key in ("last_step", "best", "num_bad_steps", "cooldown_counter"):
            setattr(self, key, state_dict[key])
        for group, lr in zip(self.optimizer.param_groups, state_dict["last_lr"]):
            group["lr"] = lr

    def _is_better(self, metric: float) -> bool:
        threshold, relative = self._settings["threshold"], self._settings["threshold_mode"] == "rel"
        if self._settings["mode"] == "min":
            return metric < (self.best * (1.0 - threshold) if relative else self.best - threshold)
        return metric > (self.best * (1.0 + threshold) if relative else self.best + threshold)

    def _reduce(self) -> None:
        groups, lowest = self.optimizer.param_groups, self._settings["min_lr"]
        if len(groups) != len(lowest):
            raise ValueError(
                f"the optimizer has {len(groups)} parameter groups, but had {len(lowest)} when this ReduceLROnPlateau "
                "was made: make the scheduler after the last add_param_group"
            )
        for index, (group, low) in enumerate(zip(groups, lowest)):
            old = float(group["lr"])
            new = max(old * self._settings["factor"], low)
            if old - new > self._settings["eps"]:
                group["lr"] = new
                if self.verbose:
                    print(f"ReduceLROnPlateau: step {self.last_step}, param_groups[{index}]: lr = {new:.6g}")


def _min_lrs(min_lr: float | Sequence[float], groups: int) -> list[float]:
    if np.ndim(min_lr) == 0:
        return [_errors.check_number("min_lr", min_lr, minimum=0)] * groups
    if len(min_lr) != groups:
        raise ValueError(f"min_lr = {min_lr!r} has {len(min_lr)} values, but the optimizer has {groups} groups")
    return [_errors.check_number(f"min_lr[{index}]", low, minimum=0) for index, low in enumerate(min_lr)]
