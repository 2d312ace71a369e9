"""The batches of an evaluation while it runs."""

from __future__ import annotations

import time
from typing import Any

from paddle_ftstrat.tasks.hooks import RunState


class RunningEvaluation:
    """Counts the batches of an evaluation for the hooks.

    Args:
        keep: keep labels and outputs, since a hook wants to see them.

    Attributes:
        states: the batches so far.
    """

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._began = self._since = time.perf_counter()
        self.states: list[RunState] = []

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.perf_counter() - self._began

    def add(self, output: Any, label: Any, loss: Any) -> RunState:
        """Count one batch."""
        now = time.perf_counter()
        results = (label, output) if self._keep else ()
        state = RunState(results, loss, int(label.shape[0]), now - self._since)
        self._since = now
        self.states.append(state)
        return state
