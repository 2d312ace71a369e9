"""fastai's training policies as schedules over a whole fit.

A policy is a dict hyper-parameter → schedule of the position in [0, 1]; "lr" always, "mom" where the policy has one.
`FitCurve` turns a schedule and the number of updates into a curve.
Learning rates are numbers or lists with one value per layer group (`spread` makes such a list).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.annealer import Schedule
from paddle_ftstrat.schedules.annealing import SchedCos, combine_scheds, combined_cos

Policy = dict[str, Schedule]

MOMS = (0.95, 0.85, 0.95)


def spread(lr: Any, groups: int) -> list[float]:
    """One learning rate per layer group, bottom group first.

    Args:
        lr: a number (the same for all); `slice(hi)`: hi for the top group and hi/10 below; `slice(lo, hi)`:
            lo·(hi/lo)^(i/(groups−1)) for group i; or a list with one number per group.
        groups: how many layer groups there are.

    Raises:
        ValueError: a learning rate below 0 (in a slice: not above 0), a slice with a step or without an end, or a
            list of another length.
        TypeError: anything else.

    Example:
        >>> spread(slice(1e-5, 1e-3), 3)
        [1e-05, 0.0001, 0.001]
        >>> spread(slice(0.5), 3)
        [0.05, 0.05, 0.5]

    Source: fastai `Optimizer.set_hyper` and `even_mults`.
    """
    groups = _errors.check_whole("groups", groups, minimum=1)
    if isinstance(lr, slice):
        return _spread_slice(lr, groups)
    if np.ndim(lr) == 0:
        return [_errors.check_number("lr", lr, minimum=0)] * groups
    if len(lr) != groups:
        raise ValueError(f"lr = {lr!r} has {len(lr)} values, but there are {groups} layer groups")
    return [_errors.check_number(f"lr[{index}]", value, minimum=0) for index, value in enumerate(lr)]


def _spread_slice(lr: slice, groups: int) -> list[float]:
    if lr.stop is None or lr.step is not None:
        raise ValueError(f"lr = {lr!r} must be slice(hi) or slice(lo, hi)")
    high = _errors.check_number("lr.stop", lr.stop, above=0)
    if lr.start is None:
        return [high / 10] * (groups - 1) + [high]
    low = _errors.check_number("lr.start", lr.start, above=0)
    return [low * (high / low) ** (index / (groups - 1)) for index in range(groups - 1)] + [high]


def one_cycle(
    lr_max: Any,
    div: float = 25.0,
    div_final: float = 1e5,
    pct_start: float = 0.25,
    moms: Sequence[Any] | None = MOMS,
) -> Policy:
    """The 1cycle policy: cosine from lr_max/div up to lr_max, then down to lr_max/div_final; momentum the other way.

    Args:
        lr_max: the highest LR, a number or one per layer group.
        div: lr_max / first LR.
        div_final: lr_max / last LR.
        pct_start: in [0, 1], the share of the fit that rises.
        moms: momentum at the start, at the peak of the LR, and at the end; None leaves momentum alone.

    Returns:
        {"lr": schedule, "mom": schedule}.

    Raises:
        ValueError: a negative LR, div or div_final not above 0, pct_start outside [0, 1], or not three moms.
        TypeError: something that is not a number.

    Example:
        >>> policy = one_cycle(0.01)
        >>> [round(policy["lr"](pos), 6) for pos in (0, 0.125, 0.25, 1)]
        [0.0004, 0.0052, 0.01, 0.0]
        >>> [round(policy["mom"](pos), 6) for pos in (0, 0.25, 1)]
        [0.95, 0.85, 0.95]

    Source: Smith & Topin, "Super-convergence" (arXiv:1708.07120); fastai `fit_one_cycle`.
    """
    lr_max = _rate("lr_max", lr_max)
    div = _errors.check_number("div", div, above=0)
    div_final = _errors.check_number("div_final", div_final, above=0)
    pct_start = _errors.check_number("pct_start", pct_start, minimum=0, maximum=1)
    policy: Policy = {"lr": combined_cos(pct_start, lr_max / div, lr_max, lr_max / div_final)}
    if moms is not None:
        if np.ndim(moms) == 0 or len(moms) != 3:
            raise ValueError(f"moms = {moms!r} must be three values: at the start, at the peak of the LR, at the end")
        policy["mom"] = combined_cos(pct_start, *moms)
    return policy


def flat_cos(lr: Any, div_final: float = 1e5, pct_start: float = 0.75) -> Policy:
    """A constant LR, then a cosine down to lr/div_final.

    Args:
        lr: the flat LR, a number or one per layer group.
        div_final: lr / last LR.
        pct_start: in [0, 1], the share of the fit that is flat.

    Returns:
        {"lr": schedule}.

    Raises:
        ValueError: a negative LR, div_final not above 0, or pct_start outside [0, 1].
        TypeError: something that is not a number.

    Example:
        >>> [round(flat_cos(0.01)["lr"](pos), 6) for pos in (0, 0.75, 0.875, 1)]
        [0.01, 0.01, 0.005, 0.0]

    Source: fastai `fit_flat_cos`.
    """
    lr = _rate("lr", lr)
    div_final = _errors.check_number("div_final", div_final, above=0)
    pct_start = _errors.check_number("pct_start", pct_start, minimum=0, maximum=1)
    return {"lr": combined_cos(pct_start, lr, lr, lr / div_final)}


def sgdr_cycles(n_cycles: int, cycle_len: int, cycle_mult: int = 2) -> list[int]:
    """The lengths of SGDR's cycles in epochs: cycle_len·cycle_mult^i for i < n_cycles; their sum is the fit's epochs.

    Args:
        n_cycles: how many cycles.
        cycle_len: epochs of the first one.
        cycle_mult: how many times longer each next one is; 1 for equal cycles.

    Raises:
        ValueError: an argument below 1.
        TypeError: an argument that is not a whole number.

    Example:
        >>> sgdr_cycles(3, 1), sgdr_cycles(3, 2, cycle_mult=1)
        ([1, 2, 4], [2, 2, 2])

    Source: fastai `fit_sgdr`, whose closed form divides by zero for cycle_mult=1.
    """
    n_cycles = _errors.check_whole("n_cycles", n_cycles, minimum=1)
    cycle_len = _errors.check_whole("cycle_len", cycle_len, minimum=1)
    cycle_mult = _errors.check_whole("cycle_mult", cycle_mult, minimum=1)
    return [cycle_len * cycle_mult**index for index in range(n_cycles)]


def sgdr(lr_max: Any, cycles: Sequence[int]) -> Policy:
    """Warm restarts: in every cycle, a cosine from lr_max to 0.

    Args:
        lr_max: the LR at each restart, a number or one per layer group.
        cycles: length of each cycle, in epochs or updates, as `sgdr_cycles` gives them.

    Returns:
        {"lr": schedule}.

    Raises:
        ValueError: a negative LR, no cycle, or a cycle of length < 1.
        TypeError: something that is not a number.

    Example:
        >>> [round(sgdr(0.1, [1, 3])["lr"](pos), 6) for pos in (0, 0.125, 0.25, 0.625, 1)]
        [0.1, 0.05, 0.1, 0.05, 0.0]

    Source: Loshchilov & Hutter, SGDR (arXiv:1608.03983); fastai `fit_sgdr`. Where a joint is not a float32, the update
    on it can still belong to the cycle before (LR 0), as in fastai.
    """
    lr_max = _rate("lr_max", lr_max)
    cycles = [_errors.check_whole(f"cycles[{index}]", length, minimum=1) for index, length in enumerate(cycles)]
    if not cycles:
        raise ValueError("cycles = [] is empty: sgdr needs the length of at least one cycle")
    return {"lr": combine_scheds([length / sum(cycles) for length in cycles], [SchedCos(lr_max, 0)] * len(cycles))}


@dataclass(frozen=True)
class Phase:
    """One fit of `fine_tune`: its epochs, whether all but the top group is frozen, and its schedules."""

    epochs: int
    frozen: bool
    policy: Policy


def fine_tune(
    epochs: int,
    base_lr: float = 2e-3,
    freeze_epochs: int = 1,
    lr_mult: float = 100.0,
    pct_start: float = 0.3,
    div: float = 5.0,
    div_final: float = 1e5,
    moms: Sequence[Any] | None = MOMS,
    groups: int = 1,
) -> tuple[Phase, Phase]:
    """1cycle on the frozen model at base_lr, then on the whole model from base_lr/2/lr_mult (bottom) to base_lr/2.

    Args:
        epochs: of the second phase.
        base_lr: the top group's highest LR in the first phase; in the second, half of it.
        freeze_epochs: of the first phase, whose LR rises during 99 % of it, from 1/25 of its peak.
        lr_mult: top LR / bottom LR in the second phase.
        pct_start: the rising share of the second phase.
        div: peak / first LR of the second phase.
        div_final: peak / last LR of both phases.
        moms: as in `one_cycle`.
        groups: number of layer groups.

    Returns:
        The two phases; one with 0 epochs has nothing to do.

    Raises:
        ValueError: negative epochs, base_lr or lr_mult not above 0, or what `one_cycle` refuses.
        TypeError: something that is not a number.

    Example:
        >>> frozen, whole = fine_tune(3, groups=3)
        >>> [(phase.epochs, phase.frozen) for phase in (frozen, whole)]
        [(1, True), (3, False)]
        >>> whole.policy["lr"](0.3).round(8)
        array([1.e-05, 1.e-04, 1.e-03])

    Source: fastai `fine_tune`.
    """
    base_lr = _errors.check_number("base_lr", base_lr, above=0)
    lr_mult = _errors.check_number("lr_mult", lr_mult, above=0)
    shared = {"div_final": div_final, "moms": moms}
    first = one_cycle(_for_groups(slice(base_lr), groups), pct_start=0.99, **shared)
    peak = base_lr / 2
    second = one_cycle(_for_groups(slice(peak / lr_mult, peak), groups), div=div, pct_start=pct_start, **shared)
    return (
        Phase(_errors.check_whole("freeze_epochs", freeze_epochs), True, first),
        Phase(_errors.check_whole("epochs", epochs), False, second),
    )


def _for_groups(lr: slice, groups: int) -> Any:
    """The groups' LRs, or with a single group its LR as a number, so that the schedule has plain values."""
    lrs = spread(lr, groups)
    return lrs if len(lrs) > 1 else lrs[0]


def _rate(name: str, value: Any) -> Any:
    """A learning rate ≥ 0 as a float, or one per layer group as an array."""
    if np.ndim(value) == 0:
        return _errors.check_number(name, value, minimum=0)
    return np.array([_errors.check_number(f"{name}[{index}]", item, minimum=0) for index, item in enumerate(value)])
