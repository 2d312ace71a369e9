"""What OneFlow's LR schedulers share: a curve per parameter group, and their saved state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from paddle_ftstrat import _errors

GroupCurve = Callable[[int], float]


class GroupScheduler:
    """Base of the stateless schedulers: group["lr"] = curve(last_step), a curve per group from its initial LR.

    Making one enters the LR of the coming update in the groups; `step()` moves on by one.

    Args:
        optimizer: has `param_groups`, a list of dicts with "lr" (and "initial_lr" where `last_step` ≥ 0).
        build: function (initial LR, **settings) → curve of the update index.
        settings: the curve's arguments, as plain data; they are saved, and compared when a state is loaded.
        last_step: index of the last update done; −1 begins, and takes the groups' LRs as their initial ones.
        verbose: print each LR that is set.

    Attributes:
        last_step: index of the coming update, the only state.
        base_lrs: the initial LR of each group.

    Raises:
        TypeError: the optimizer has no `param_groups`, or what the curve refuses.
        ValueError: a group without "lr", or without "initial_lr" when resuming; `last_step` < −1; or what the curve
            refuses.

    Example:
        >>> from types import SimpleNamespace
        >>> sgd = SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 0.5}])
        >>> scheduler = GroupScheduler(sgd, lambda lr, divisor: lambda t: lr / divisor**t, {"divisor": 2})
        >>> scheduler.step()
        >>> [group["lr"] for group in sgd.param_groups]
        [0.5, 0.25]

    Source: OneFlow `oneflow.optim.lr_scheduler`.
    """

    def __init__(
        self,
        optimizer: Any,
        build: Callable[..., GroupCurve],
        settings: Mapping[str, Any],
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.verbose = verbose
        self.last_step = _errors.check_whole("last_step", last_step, minimum=-1)
        self.base_lrs = _initial_lrs(check_groups(optimizer), begin=self.last_step == -1)
        self._build = build
        self._settings = dict(settings)
        self._curves = [self._curve(index, lr) for index, lr in enumerate(self.base_lrs)]
        self.step()

    def get_lr(self) -> list[float]:
        """The LR of each group for the coming update, computed from `last_step` alone."""
        return [float(curve(self.last_step)) for curve in self._curves]

    def get_last_lr(self) -> list[float]:
        """The LR of each group that was set last."""
        return list(self._last_lr)

    def step(self) -> None:
        """Move on by one update and set the groups' LRs."""
        self.last_step += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """`last_step`, the groups' initial and last LRs, and the settings; plain data."""
        return {
            "last_step": self.last_step,
            "base_lrs": list(self.base_lrs),
            "last_lr": self.get_last_lr(),
            "settings": dict(self._settings),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Go on from a saved state, and set the groups' LRs.

        Args:
            state_dict: from `state_dict()`.
            strict: refuse a state that was saved with other settings, which would mix two curves; False takes the
                position and the initial LRs from the state and keeps the settings of this scheduler.

        Raises:
            ValueError: a missing key, other settings, or another number of groups.
        """
        check_state(state_dict, self.state_dict(), strict)
        self.last_step = int(state_dict["last_step"])
        self.base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        self._curves = [self._curve(index, lr) for index, lr in enumerate(self.base_lrs)]
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["initial_lr"] = lr
        self._apply()

    def _curve(self, index: int, base_lr: float) -> GroupCurve:
        return self._build(base_lr, **self._settings)

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self._curves):
            raise ValueError(
                f"the optimizer has {len(groups)} parameter groups, but had {len(self._curves)} when this "
                f"{type(self).__name__} was made: make the scheduler after the last add_param_group"
            )
        self._last_lr = self.get_lr()
        for index, (group, lr) in enumerate(zip(groups, self._last_lr)):
            group["lr"] = lr
            if self.verbose:
                print(f"{type(self).__name__}: step {self.last_step}, param_groups[{index}]: lr = {lr:.6g}")


def check_groups(optimizer: Any) -> Sequence[MutableMapping[str, Any]]:
    """The optimizer's `param_groups`, each with an "lr" ≥ 0; ValueError or TypeError otherwise."""
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, Sequence):
        raise TypeError(
            f"an LR scheduler needs an optimizer with param_groups, a list of dicts, not {type(optimizer).__name__}; "
            "the optimizers of paddle_ftstrat.optim have them"
        )
    if not groups:
        raise ValueError("optimizer.param_groups is empty: there is no LR to schedule")
    for index, group in enumerate(groups):
        if "lr" not in group:
            raise ValueError(f"optimizer.param_groups[{index}] has no 'lr'; it has {_errors.listing(group)}")
        _errors.check_number(f"param_groups[{index}]['lr']", group["lr"], minimum=0)
    return groups


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], strict: bool) -> None:
    """Refuse a state with missing keys, another number of groups, or (if strict) other settings than our own."""
    missing = [key for key in own if key not in state]
    if missing:
        raise ValueError(f"the scheduler state has no {_errors.listing(missing)}; it has {_errors.listing(state)}")
    if len(state["last_lr"]) != len(own["last_lr"]):
        raise ValueError(
            f"the scheduler state is of {len(state['last_lr'])} parameter groups, the optimizer has "
            f"{len(own['last_lr'])}"
        )
    if strict and state["settings"] != own["settings"]:
        raise ValueError(
            f"the scheduler state was saved with {state['settings']}, this scheduler has {own['settings']}: "
            "make it with the same, or pass strict=False to go on with its own"
        )


def _initial_lrs(groups: Sequence[MutableMapping[str, Any]], begin: bool) -> list[float]:
    """The groups' initial LRs, which are the present ones where the schedule begins."""
    for index, group in enumerate(groups):
        if begin:
            group["initial_lr"] = float(group["lr"])
        elif "initial_lr" not in group:
            raise ValueError(
                f"param_groups[{index}] has no 'initial_lr', which last_step ≥ 0 needs; last_step = -1 begins anew"
            )
    return [float(group["initial_lr"]) for group in groups]
