"""A task's part in the training loop: its events at their intervals, and what their hooks are told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from paddle_ftstrat.tasks.hooks import WITH_STATES, RunState
from paddle_ftstrat.training import data
from paddle_ftstrat.training.callbacks import Callback

if TYPE_CHECKING:
    from paddle_ftstrat.training.state import Training as Learner


class TaskEvents(Callback):
    """Raises a task's events while it trains, and carries its best score through a resumed fit.

    Args:
        task: the task.

    Attributes:
        period: the batches since the last log line.
        epoch: the batches of this epoch before them.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._config = task.config
        self._keep, self._keep_epoch = False, False
        self._since = self._log_since = time.perf_counter()
        self._seen: list[tuple[Any, Any]] = []
        self._examples = 0
        self._evaluated_at = -1
        self._by_learner = False
        self.period: list[RunState] = []
        self.epoch: list[RunState] = []

    @property
    def states(self) -> list[RunState]:
        """The batches of this epoch."""
        return [*self.epoch, *self.period]

    @property
    def log_seconds(self) -> float:
        """Training time since the last log line."""
        return time.perf_counter() - self._log_since

    def on_fit_begin(self, learner: Learner) -> None:
        task = self._task
        self._keep = task.hears(WITH_STATES)
        self._keep_epoch = task.hears(["finetune_end"])
        task._build_env_end_event()
        task._finetune_start_event()
        self._since = self._log_since = time.perf_counter()

    def on_epoch_begin(self, learner: Learner) -> None:
        self.epoch = []

    def saw(self, output: Any, label: Any) -> None:
        """Count a batch; remember what the loss was taken of, where a hook wants to know it."""
        self._examples += int(label.shape[0])
        if self._keep:
            self._seen.append((label.detach(), output.detach()))

    def on_after_update(self, learner: Learner) -> None:
        step = learner.state.step
        task, config = self._task, self._config
        state = self._state(learner)
        self.period.append(state)
        if step % config.log_interval == 0:
            task._log_interval_event(self.period)
            self._close_period()
        if config.save_ckpt_interval is not None and step % config.save_ckpt_interval == 0:
            task._save_ckpt_interval_event()
        if step % config.eval_interval == 0 and not self._epoch_validates(learner):
            self._evaluate(learner)
        task._run_step_event(state)
        self._since = time.perf_counter()

    def on_validate_begin(self, learner: Learner) -> None:
        # task.eval() raises its events itself; this is the Learner's own validation, at the end of an epoch.
        self._by_learner = not self._task.is_evaluating
        if self._by_learner:
            self._task.phase = "dev"
            self._task.begin_evaluation()

    def on_validate_end(self, learner: Learner) -> None:
        if self._by_learner:
            self._evaluated_at = learner.state.step
            self._task.end_evaluation(learner.state.values)
            self._task.phase = "train"
            self._rest()

    def on_epoch_end(self, learner: Learner) -> None:
        if learner.state.epoch == learner.state.num_epoch:
            self._evaluate(learner)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and at which update the last evaluation was."""
        return {"best_score": self._task.best_score, "evaluated_at": self._evaluated_at}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken."""
        self._task.restore_best(state["best_score"])
        self._evaluated_at = int(state["evaluated_at"])

    def _state(self, learner: Learner) -> RunState:
        seen, self._seen = self._seen, []
        examples, self._examples = self._examples, 0
        # A model that returns its loss gets no label, and nothing is seen of it.
        examples = examples or data.batch_size_of(learner.state.batch)
        # Of an update of several accumulated batches, the hooks see the last one.
        results = seen[-1] if seen else ()
        return RunState(results, learner.state.loss, examples, time.perf_counter() - self._since)

    def _close_period(self) -> None:
        if not self._keep_epoch:
            for state in self.period:
                state.forget()
        self.epoch += self.period
        self.period = []
        self._log_since = time.perf_counter()

    def _evaluate(self, learner: Learner) -> None:
        if "dev" in self._task.phases and learner.state.step != self._evaluated_at:
            self._evaluated_at = learner.state.step
            self._task._eval_interval_event()
            self._rest()

    def _rest(self) -> None:
        """What was not training does not count in the speed."""
        self._log_since = time.perf_counter() - sum(state.run_time_used for state in self.period)

    @staticmethod
    def _epoch_validates(learner: Learner) -> bool:
        """Whether the Learner evaluates after this update anyway, at the end of the epoch."""
        return learner.valid is not None and learner.state.batch_number == learner.state.batches
