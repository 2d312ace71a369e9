"""Something that runs in phases and has PaddleHub's events, each with hooks and a default behaviour."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paddle_ftstrat.tasks.hooks import EVENTS, RunState, TaskHooks

_OURS = __name__.partition(".")[0]
_ENVIRONMENTS = {"test": "dev"}


class HookedTask:
    """Events by PaddleHub's names: `_<event>_event` raises one, `_default_<event>_event` is what the task does then.

    Both may be overridden, as in PaddleHub; hooks are added beside or in the place of the default one.

    Args:
        log: where the default behaviour writes its lines.

    Attributes:
        hooks: the functions that hear the events.
        phase: "train", "dev", "test" or "predict" while that runs, else "".
    """

    def __init__(self, log: logging.Logger) -> None:
        self.hooks = TaskHooks({event: getattr(self, f"_default_{event}_event") for event in EVENTS})
        self.phase = ""
        self._log = log
        self._environments: set[str] = set()

    def add_hook(self, hook_type: str, name: str | None = None, func: Callable[..., Any] | None = None) -> None:
        """Have a function hear an event, after those that do already.

        Args:
            hook_type: the event, one of `finetune.hooks.EVENTS`.
            name: by which to modify or delete it; None: one is made.
            func: function (task), or (task, run_states) of `finetune_end`, `predict_end`, `eval_end`, `log_interval`
                and (task, run_state) of `run_step`; a bound method does without the task.

        Raises:
            ValueError: an unknown event, a name that is taken, or another number of arguments.
            TypeError: no function.
        """
        self.hooks.add(hook_type, name, func)

    def delete_hook(self, hook_type: str, name: str) -> None:
        """Take a hook away; `default` is what the task itself does at the event."""
        self.hooks.delete(hook_type, name)

    def modify_hook(self, hook_type: str, name: str, func: Callable[..., Any]) -> None:
        """Put another function in the place of a hook; `default` is what the task itself does at the event."""
        self.hooks.modify(hook_type, name, func)

    def hooks_info(self, show_default: bool = False) -> str:
        """The hooks as text, a line each.

        Args:
            show_default: list what the task itself does, too.
        """
        return self.hooks.info(show_default)

    def hears(self, events: Sequence[str]) -> bool:
        """Whether a hook or a user's subclass takes part in one of these events."""
        methods = [f"{prefix}{event}_event" for event in events for prefix in ("_", "_default_")]
        theirs = any(getattr(type(self), name).__module__.partition(".")[0] != _OURS for name in methods)
        return theirs or self.hooks.customised(events)

    @property
    def is_train_phase(self) -> bool:
        """Whether the task trains at this moment."""
        return self.phase == "train"

    @property
    def is_test_phase(self) -> bool:
        """Whether the task evaluates at this moment."""
        return self.phase in ("dev", "test")

    @property
    def is_predict_phase(self) -> bool:
        """Whether the task predicts at this moment."""
        return self.phase == "predict"

    @contextmanager
    def _in_phase(self, phase: str) -> Iterator[None]:
        outer, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = outer

    def _enter_environment(self) -> None:
        """PaddleHub built a program for each kind of phase, once; the events of that are all that is left of it."""
        environment = _ENVIRONMENTS.get(self.phase, self.phase)
        if environment not in self._environments:
            self._build_env_start_event()
            self._environments.add(environment)
            self._build_env_end_event()

    def _build_env_start_event(self) -> None:
        self.hooks.call(self, "build_env_start")

    def _build_env_end_event(self) -> None:
        self.hooks.call(self, "build_env_end")

    def _finetune_start_event(self) -> None:
        self.hooks.call(self, "finetune_start")

    def _finetune_end_event(self, run_states: list[RunState]) -> None:
        self.hooks.call(self, "finetune_end", run_states)

    def _predict_start_event(self) -> None:
        self.hooks.call(self, "predict_start")

    def _predict_end_event(self, run_states: list[RunState]) -> None:
        self.hooks.call(self, "predict_end", run_states)

    def _eval_start_event(self) -> None:
        self.hooks.call(self, "eval_start")

    def _eval_end_event(self, run_states: list[RunState]) -> None:
        self.hooks.call(self, "eval_end", run_states)

    def _log_interval_event(self, run_states: list[RunState]) -> None:
        self.hooks.call(self, "log_interval", run_states)

    def _save_ckpt_interval_event(self) -> None:
        self.hooks.call(self, "save_ckpt_interval")

    def _eval_interval_event(self) -> None:
        self.hooks.call(self, "eval_interval")

    def _run_step_event(self, run_state: RunState) -> None:
        self.hooks.call(self, "run_step", run_state)

    def _default_build_env_start_event(self) -> None:
        pass

    def _default_build_env_end_event(self) -> None:
        pass

    def _default_finetune_start_event(self) -> None:
        self._log.info("fine-tuning starts")

    def _default_finetune_end_event(self, run_states: list[RunState]) -> None:
        self._log.info("fine-tuning is finished")

    def _default_predict_start_event(self) -> None:
        self._log.info("prediction starts")

    def _default_predict_end_event(self, run_states: list[RunState]) -> None:
        self._log.info("prediction is finished")

    def _default_eval_start_event(self) -> None:
        self._log.info("evaluation on the %s data starts", self.phase)

    def _default_eval_end_event(self, run_states: list[RunState]) -> None:
        pass

    def _default_log_interval_event(self, run_states: list[RunState]) -> None:
        pass

    def _default_save_ckpt_interval_event(self) -> None:
        pass

    def _default_eval_interval_event(self) -> None:
        pass

    def _default_run_step_event(self, run_state: RunState) -> None:
        pass
