"""Learning rates read off an LR sweep: pure functions of the LRs and losses of a run with a growing LR.

Each suggestion has the signature (lrs, losses, num_it, …) → (LR, (LR, loss)): the suggested LR, and the point of the
curve to mark. `num_it`, the number of updates the sweep was planned for, is there for functions of the user.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from paddle_ftstrat import _errors

Point = tuple[float, float]
Suggestion = Callable[..., tuple[float, Point]]


def valley(lrs: Any, losses: Any, num_it: int) -> tuple[float, Point]:
    """The LR in the middle of the longest valley, the longest subsequence of falling losses.

    With that subsequence L long and ending at index e, s = e − L and d = e − s: the index is s + ⌊d/3⌋ + ⌊d/6⌋.

    Args:
        lrs: the LR of each update, ascending.
        losses: the smoothed loss of each update.
        num_it: not used.

    Raises:
        ValueError: arrays of different lengths, fewer than 2 points, losses that are not finite, or LRs not above 0.

    Example:
        >>> valley([1, 2, 3, 4, 5, 6, 7, 8], [2.0, 1.9, 1.7, 1.2, 1.0, 0.9, 0.8, 3.0], 8)
        (3.0, (3.0, 1.7))

    Source: fastai `valley`.
    """
    lrs, losses = _sweep("valley", lrs, losses)
    lengths = np.ones(len(losses), dtype=np.int64)
    start, end = 0, 0
    for index in range(1, len(losses)):
        higher = lengths[:index][losses[:index] > losses[index]]
        lengths[index] = 1 + (higher.max() if higher.size else 0)
        if lengths[index] > lengths[end]:
            end, start = index, index - int(lengths[index])
    third = (end - start) / 3
    # Two points that fall put the start at −1, where Python would count from the end.
    index = max(start + int(third) + int(third / 2), 0)
    return _at(lrs, losses, index)


def slide(
    lrs: Any, losses: Any, num_it: int, lr_diff: int = 15, thresh: float = 0.005, adjust_value: float = 1.0
) -> tuple[float, Point]:
    """The last LR before the loss turns, found with a window that slides from the right end to the left.

    The window spans `lr_diff` points; it stops where the loss's slopes at its two ends differ by no more than `thresh`.

    Args:
        lrs, losses, num_it: as for `valley`.
        lr_diff: width of the window in updates.
        thresh: how far the slopes (loss per update) may differ.
        adjust_value: factor on the LR that was found.

    Raises:
        ValueError: as for `valley`, or no more than `lr_diff` points.

    Example:
        >>> lrs = np.logspace(-4, 0, 41)
        >>> losses = np.r_[np.linspace(2, 1, 31), np.linspace(1.3, 4, 10)]
        >>> slide(lrs, losses, 41, lr_diff=10)
        (0.01, (0.01, 1.3333...))

    Source: fastai `slide`.
    """
    lr_diff = _errors.check_whole("slide lr_diff", lr_diff, minimum=1)
    adjust_value = _errors.check_number("slide adjust_value", adjust_value, above=0)
    lrs, losses = _sweep("slide", lrs, losses, more_than=lr_diff)
    slope = np.gradient(losses)
    right = len(losses) - 1
    left = right - lr_diff
    found = lrs[left]
    while left >= 0 and abs(slope[right] - slope[left]) > thresh:
        found = lrs[left]
        right, left = right - 1, left - 1
    lr = float(found) * adjust_value
    return lr, (lr, float(np.interp(np.log10(lr), np.log10(lrs), losses)))


def minimum(lrs: Any, losses: Any, num_it: int) -> tuple[float, Point]:
    """A tenth of the LR with the lowest loss; the point is that of the lowest loss.

    Args:
        lrs, losses, num_it: as for `valley`.

    Raises:
        ValueError: as for `valley`.

    Example:
        >>> minimum([0.001, 0.01, 0.1, 1.0], [2.0, 1.5, 1.0, 4.0], 4)
        (0.01, (0.1, 1.0))

    Source: fastai `minimum`.
    """
    lrs, losses = _sweep("minimum", lrs, losses)
    lr, point = _at(lrs, losses, int(losses.argmin()))
    return lr / 10, point


def steep(lrs: Any, losses: Any, num_it: int) -> tuple[float, Point]:
    """The LR where the loss falls fastest: the lowest Δloss/Δlog(LR) between neighbours, at the left one.

    Args:
        lrs, losses, num_it: as for `valley`.

    Raises:
        ValueError: as for `valley`.

    Example:
        >>> steep([0.001, 0.01, 0.1, 1.0], [2.0, 1.75, 1.0, 4.0], 4)
        (0.01, (0.01, 1.75))

    Source: fastai `steep`; the idea is Smith's LR range test (arXiv:1506.01186, section 3.3).
    """
    lrs, losses = _sweep("steep", lrs, losses)
    return _at(lrs, losses, int((np.diff(losses) / np.diff(np.log(lrs))).argmin()))


def usable(lrs: Any, losses: Any, num_it: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a sweep that suggestions look at: without the first ⌊num_it/10⌋ and the last 5 updates.

    It ends before the first loss that is not finite.

    Raises:
        ValueError, TypeError: arrays of different lengths, fewer than 2 points left, or num_it is no whole number.

    Example:
        >>> usable(np.arange(1, 12), np.ones(11), 20)[0]
        array([3., 4., 5., 6.])

    Source: fastai `lr_find`.
    """
    num_it = _errors.check_whole("num_it", num_it)
    lrs, losses = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    _check_lengths("usable", lrs, losses)
    part = slice(num_it // 10, max(len(lrs) - 5, 0))
    lrs, losses = lrs[part], losses[part]
    broken = np.flatnonzero(~np.isfinite(losses))
    if broken.size:
        lrs, losses = lrs[: broken[0]], losses[: broken[0]]
    if len(lrs) < 2:
        raise ValueError(
            f"the LR sweep left {len(lrs)} usable updates, which is too few for a suggestion: "
            "raise num_it, or lower end_lr if the loss diverged at once"
        )
    return lrs, losses


def suggest(lrs: Any, losses: Any, num_it: int, functions: Sequence[Suggestion]) -> tuple[Any, dict[str, Point]]:
    """The suggestions of several functions on a whole sweep.

    Args:
        lrs, losses, num_it: the sweep; `num_it` updates were planned.
        functions: `valley`, `slide`, `minimum`, `steep`, partials of them, or functions with the same signature; they
            get what `usable` leaves.

    Returns:
        A named tuple `SuggestedLRs` with one LR per function, and a dict of the points to mark under the same names.

    Raises:
        ValueError, TypeError: what `usable` or the functions refuse, or something that is no function.

    Example:
        >>> lrs, losses = np.logspace(-4, 0, 46), np.r_[np.linspace(2, 1, 31), np.linspace(1.3, 4, 15)]
        >>> suggest(lrs, losses, 40, [minimum, partial(slide, lr_diff=10)])[0]
        SuggestedLRs(minimum=0.004641..., slide=0.005994...)
    """
    lrs, losses = usable(lrs, losses, num_it)
    found: dict[str, tuple[float, Point]] = {}
    for function in functions:
        if not callable(function):
            raise TypeError(f"a suggestion must be a function of (lrs, losses, num_it), not {function!r}")
        found[_free_name(function, found)] = function(lrs, losses, num_it)
    made = namedtuple("SuggestedLRs", found)  # type: ignore[misc] # the names are those of the functions
    return made(*(lr for lr, _ in found.values())), {name: point for name, (_, point) in found.items()}


def _free_name(function: Suggestion, taken: Any) -> str:
    """The function's own name as a field name, numbered when it comes a second time."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__).lstrip("_")
    name = name if name.isidentifier() else "custom"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _at(lrs: np.ndarray, losses: np.ndarray, index: int) -> tuple[float, Point]:
    lr = float(lrs[index])
    return lr, (lr, float(losses[index]))


def _sweep(who: str, lrs: Any, losses: Any, more_than: int = 1) -> tuple[np.ndarray, np.ndarray]:
    lrs, losses = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    _check_lengths(who, lrs, losses)
    if len(lrs) <= more_than:
        raise ValueError(f"{who} needs more than {more_than} points of the LR sweep, got {len(lrs)}: raise num_it")
    if not np.all(np.isfinite(losses)):
        raise ValueError(f"{who} got a loss that is not finite at point {int(np.argmin(np.isfinite(losses)))}")
    if not np.all(lrs > 0):
        raise ValueError(f"{who} got lrs[{int(np.argmin(lrs > 0))}] = {lrs[np.argmin(lrs > 0)]:g}: allowed are LRs > 0")
    return lrs, losses


def _check_lengths(who: str, lrs: np.ndarray, losses: np.ndarray) -> None:
    if lrs.ndim != 1 or lrs.shape != losses.shape:
        raise ValueError(f"{who} needs one loss per LR, in flat arrays: got shapes {lrs.shape} and {losses.shape}")
