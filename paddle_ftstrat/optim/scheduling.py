"""What OneFlow's LR schedulers share: the groups whose LRs they set, and their saved state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from paddle_ftstrat import _errors

GroupCurve = Callable[[int], float]


class Scheduler:
    """What all of them have: the groups, and a state of the attributes in `_kept`, the LRs and the settings."""

    _kept: tuple[str, ...] = ("last_step",)
    last_step = 0

    def __init__(self, optimizer: Any, settings: Mapping[str, Any], verbose: bool) -> None:
        self.optimizer = optimizer
        self.verbose = verbose
        self._settings = dict(settings)
        self._count = len(check_groups(optimizer))

    def get_last_lr(self) -> list[float]:
        """The LR of each group that was set last."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The position, the groups' LRs and the settings; plain data."""
        kept = {name: getattr(self, name) for name in self._kept}
        return copy.deepcopy({**kept, "last_lr": self.get_last_lr(), "settings": self._settings})

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Go on from a saved state, and set the groups' LRs.

        Args:
            state_dict: from `state_dict()`.
            strict: refuse a state that was saved with other settings, which would mix two curves; False takes the
                position and the LRs from the state and keeps the settings of this scheduler.

        Raises:
            ValueError: a missing key, other settings, or another number of groups.
        """
        missing = [key for key in (*self._kept, "last_lr", "settings") if key not in state_dict]
        if missing:
            have = _errors.listing(state_dict)
            raise ValueError(f"the scheduler state has no {_errors.listing(missing)}; it has {have}")
        groups = self._groups()
        if len(state_dict["last_lr"]) != len(groups):
            raise ValueError(
                f"the scheduler state is of {len(state_dict['last_lr'])} parameter groups, the optimizer has "
                f"{len(groups)}"
            )
        if strict and state_dict["settings"] != self._settings:
            raise ValueError(
                f"the scheduler state was saved with {state_dict['settings']}, this scheduler has {self._settings}: "
                "make it with the same, or pass strict=False to go on with its own"
            )
        for name in self._kept:
            setattr(self, name, copy.copy(state_dict[name]))
        for group, lr in zip(groups, state_dict["last_lr"]):
            group["lr"] = lr
        self._resume()

    def _resume(self) -> None:
        """What else a loaded state changes."""

    def _groups(self) -> Sequence[MutableMapping[str, Any]]:
        groups = self.optimizer.param_groups
        if len(groups) != self._count:
            raise ValueError(
                f"the optimizer has {len(groups)} parameter groups, but had {self._count} when this "
                f"{type(self).__name__} was made: make the scheduler after the last add_param_group"
            )
        return groups

    def _set(self, index: int, lr: float) -> None:
        self.optimizer.param_groups[index]["lr"] = lr
        if self.verbose:
            print(f"{type(self).__name__}: step {self.last_step}, param_groups[{index}]: lr = {lr:.6g}")


class GroupScheduler(Scheduler):
    """Base of the stateless schedulers: group["lr"] = curve(last_step), a curve per group from its initial LR.

    Making one enters the LR of the coming update in the groups; `step()` moves on by one.

    Args:
        optimizer: has `param_groups`, a list of dicts with "lr" (and "initial_lr" where `last_step` ≥ 0).
        build: function (initial LR, **settings) → curve of the update index, or one per group.
        settings: the curve's arguments, as plain data; they are saved, and compared when a state is loaded.
        last_step: index of the last update done; −1 begins, and takes the groups' LRs as their initial ones.
        verbose: print each LR that is set.

    Example:
        >>> from types import SimpleNamespace
        >>> sgd = SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 0.5}])
        >>> scheduler = GroupScheduler(sgd, lambda lr, divisor: lambda t: lr / divisor**t, {"divisor": 2})
        >>> scheduler.step()
        >>> [group["lr"] for group in sgd.param_groups]
        [0.5, 0.25]
    """

    _kept = ("last_step", "base_lrs")

    def __init__(
        self,
        optimizer: Any,
        build: Callable[..., GroupCurve] | Sequence[Callable[..., GroupCurve]],
        settings: Mapping[str, Any],
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        super().__init__(optimizer, settings, verbose)
        self.last_step = _errors.check_whole("last_step", last_step, minimum=-1)
        for index, group in enumerate(self._groups()):
            if last_step == -1:
                group["initial_lr"] = float(group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"param_groups[{index}] has no 'initial_lr', which last_step ≥ 0 needs; last_step = -1 begins anew"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in self._groups()]
        self._builds = [build] * self._count if callable(build) else build
        self._build_curves()
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

    def _build_curves(self) -> None:
        self._curves = [build(lr, **self._settings) for build, lr in zip(self._builds, self.base_lrs)]

    def _apply(self) -> None:
        self._groups()
        self._last_lr = self.get_lr()
        for index, lr in enumerate(self._last_lr):
            self._set(index, lr)

    def _resume(self) -> None:
        for group, lr in zip(self._groups(), self.base_lrs):
            group["initial_lr"] = lr
        self._build_curves()
        self._apply()


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
