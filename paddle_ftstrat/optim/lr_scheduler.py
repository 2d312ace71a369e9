"""OneFlow's LR schedulers, over any optimizer that has `param_groups`.

All but `ReduceLROnPlateau` evaluate a curve per group, lr = curve(last_step), and `last_step` is their only state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from paddle_ftstrat.optim.plateau import ReduceLROnPlateau
from paddle_ftstrat.optim.scheduling import GroupCurve, GroupScheduler, check_groups
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


class CosineAnnealingLR(GroupScheduler):
    """A cosine wave between the initial LR and `eta_min`, without end: e + (η − e)·(1 + cos(π·t/T_max))/2.

    Args:
        optimizer: has `param_groups`.
        T_max: ≥ 1, updates from the top to the bottom; after them the LR rises again.
        eta_min: e, the lowest LR.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError, TypeError: T_max is not a whole number ≥ 1, or eta_min is negative.

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

    Source: OneFlow `CosineAnnealingLR`; SGDR (arXiv:1608.03983).
    """

    def __init__(
        self, optimizer: Any, T_max: int, eta_min: float = 0.0, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"T_max": T_max, "eta_min": eta_min}
        super().__init__(optimizer, torch_curves.cosine_annealing, settings, last_step, verbose)


class CosineDecayLR(GroupScheduler):
    """Half a cosine from the initial LR η to α·η, where it stays: η·((1 − α)·(1 + cos(π·t/D))/2 + α) for t ≤ D.

    Args:
        optimizer: has `param_groups`.
        decay_steps: D ≥ 1, in updates.
        alpha: α, last LR / initial LR.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError, TypeError: decay_steps is not a whole number ≥ 1, or alpha is negative.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = CosineDecayLR(SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 0.1}]), decay_steps=1)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.0, 0.0]

    Source: OneFlow `CosineDecayLR`.
    """

    def __init__(
        self, optimizer: Any, decay_steps: int, alpha: float = 0.0, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"decay_steps": decay_steps, "alpha": alpha}
        super().__init__(optimizer, torch_curves.cosine_decay, settings, last_step, verbose)


class ExponentialLR(GroupScheduler):
    """The initial LR η times γ^t.

    Args:
        optimizer: has `param_groups`.
        gamma: γ > 0.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError, TypeError: gamma is not a number above 0.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = ExponentialLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Source: OneFlow `ExponentialLR`.
    """

    def __init__(self, optimizer: Any, gamma: float, last_step: int = -1, verbose: bool = False) -> None:
        settings = {"gamma": gamma}
        super().__init__(optimizer, torch_curves.exponential, settings, last_step, verbose)


class StepLR(GroupScheduler):
    """The initial LR η times γ^⌊t/step_size⌋.

    Args:
        optimizer: has `param_groups`.
        step_size: ≥ 1, in updates.
        gamma: γ > 0.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError, TypeError: step_size is not a whole number ≥ 1, or gamma not a number above 0.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = StepLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), step_size=1, gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Source: OneFlow `StepLR`.
    """

    def __init__(
        self, optimizer: Any, step_size: int, gamma: float = 0.1, last_step: int = -1, verbose: bool = False
    ) -> None:
        settings = {"step_size": step_size, "gamma": gamma}
        super().__init__(optimizer, torch_curves.step, settings, last_step, verbose)


class MultiStepLR(GroupScheduler):
    """The initial LR η times γ^(number of milestones ≤ t).

    Args:
        optimizer: has `param_groups`.
        milestones: update indices, ascending.
        gamma: γ > 0.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.

    Raises:
        ValueError, TypeError: milestones are not ascending whole numbers ≥ 0, or gamma is not a number above 0.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = MultiStepLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), milestones=[1, 8], gamma=0.5)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Source: OneFlow `MultiStepLR`.
    """

    def __init__(
        self,
        optimizer: Any,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        settings = {"milestones": _plain(milestones), "gamma": gamma}
        super().__init__(optimizer, torch_curves.multi_step, settings, last_step, verbose)


class PolynomialLR(GroupScheduler):
    """A power of the rest of the way from the initial LR η to e: (η − e)·(1 − t/D)^p + e for t ≤ D, then e.

    With `cycle` it starts again after each `steps` updates, with D = steps·⌈t/steps⌉.

    Args:
        optimizer: has `param_groups`.
        steps: ≥ 1, in updates; D without `cycle`.
        end_learning_rate: e.
        power: p > 0.
        cycle: start again instead of staying at e.
        last_step: index of the last update done; −1 begins.
        verbose: print each LR that is set.
        decay_batch: another name of `steps`, which newer OneFlow documents use.

    Raises:
        ValueError, TypeError: steps is not a whole number ≥ 1 (or given twice, or not at all), end_learning_rate is
            negative, or power not above 0.

    Example:
        >>> from types import SimpleNamespace
        >>> scheduler = PolynomialLR(SimpleNamespace(param_groups=[{"lr": 1.0}]), steps=4, end_learning_rate=0.0)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.75]

    Source: OneFlow `PolynomialLR`.
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
        settings = {
            "steps": decay_batch if steps is None else steps,
            "end_learning_rate": end_learning_rate,
            "power": power,
            "cycle": cycle,
        }
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
        groups = check_groups(optimizer)
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * len(groups)
        if len(self.lr_lambdas) != len(groups):
            raise ValueError(
                f"lr_lambda has {len(self.lr_lambdas)} functions, but the optimizer has {len(groups)} groups"
            )
        for index, function in enumerate(self.lr_lambdas):
            if not callable(function):
                raise TypeError(f"lr_lambda[{index}] must be a function of the update index, not {function!r}")
        super().__init__(optimizer, _scaled, {}, last_step, verbose)

    def _curve(self, index: int, base_lr: float) -> GroupCurve:
        return partial(_scaled, base_lr, self.lr_lambdas[index])


def _scaled(base_lr: float, function: Callable[[int], float], t: int) -> float:
    return base_lr * function(t)


def _plain(values: Any) -> Any:
    """A sequence as a list, so that saved settings are plain data; anything else is left for the curve to refuse."""
    return list(values) if hasattr(values, "__iter__") else values
