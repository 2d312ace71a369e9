"""The one bridge from a schedule to Paddle's `LRScheduler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from paddle.optimizer.lr import LRScheduler

from paddle_ftstrat.schedules.schedule import Schedule

BLOCK = 1024


class ScheduleLR(LRScheduler):
    """A Paddle LR scheduler that evaluates a schedule: lr = schedule(last_epoch).

    `last_epoch` (the index of the coming update) is its only state, so setting it, in any order, gives the value of
    that update; a `Schedule` holds its last value past its end.

    Args:
        schedule: function update index → LR, a `Schedule` or any callable.
        last_epoch: the index before the first update to come; -1 starts at update 0.
        verbose: print the LR whenever it is stepped, as Paddle's schedulers do.

    Attributes:
        heard: called after each step by one update, which every loop makes; None: nothing is.

    Raises:
        TypeError: `schedule` is not callable.

    Example:
        >>> from paddle_ftstrat.schedules.curves import linear_decay
        >>> scheduler = ScheduleLR(linear_decay(1.0, 4))
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs.append(scheduler())
        ...     scheduler.step()
        >>> lrs
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(self, schedule: Callable[[Any], Any], last_epoch: int = -1, verbose: bool = False) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the update index, not {schedule!r}")
        self.schedule = schedule
        self._ahead: tuple[int, list[float]] = (0, [])
        self.heard: Callable[[bool], None] | None = None
        # The base class keeps base_lr only for schedulers that scale it; a curve already has its own scale.
        super().__init__(learning_rate=float(schedule(0)), last_epoch=last_epoch, verbose=verbose)

    def step(self, epoch: int | None = None) -> None:
        """Move on by one update, or to update `epoch`."""
        t = self.last_epoch + 1 if epoch is None else int(epoch)
        self.last_epoch = t
        first, values = self._ahead
        self.last_lr = values[t - first] if 0 <= t - first < len(values) else self._look_ahead(t)
        if self.verbose:
            print(f"update {t}: {type(self).__name__} sets the learning rate to {self.last_lr}")
        if self.heard is not None:
            self.heard(epoch is None)

    def _look_ahead(self, t: int) -> float:
        # As one array, a thousand values cost about as much as fifty single ones, and training asks for them in order.
        # Blocks begin at multiples of their length, so that the order of questions cannot change an answer.
        if not isinstance(self.schedule, Schedule):
            return float(self.schedule(t))
        first = t - t % BLOCK
        values = self.schedule(np.arange(first, first + BLOCK)).tolist()
        self._ahead = (first, values)
        return values[t - first]

    def get_lr(self) -> float:
        """The LR of the coming update, as a Python float."""
        return float(self.schedule(self.last_epoch))

    def follow(self, schedule: Callable[[Any], Any]) -> None:
        """Follow another schedule from its update 0 on."""
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the update index, not {schedule!r}")
        self.schedule, self._ahead, self.last_epoch = schedule, (0, []), 0
        self.last_lr = self._look_ahead(0)
