"""A task's events: which there are, whose functions hear them, and what of the run these are told."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.training.metrics import array

# Event → number of its arguments, the task included.
EVENTS = {
    "build_env_start": 1,
    "build_env_end": 1,
    "finetune_start": 1,
    "finetune_end": 2,
    "predict_start": 1,
    "predict_end": 2,
    "eval_start": 1,
    "eval_end": 2,
    "log_interval": 2,
    "save_ckpt_interval": 1,
    "eval_interval": 1,
    "run_step": 2,
}
WITH_STATES = tuple(event for event, arguments in EVENTS.items() if arguments == 2)
DEFAULT = "default"
_SIGNATURES = {1: "(task)", 2: "(task, run_states)"}


class RunState:
    """One batch of a run, as the hooks see it.

    Attributes:
        run_step: 1, the number of batches it stands for.
        run_examples: samples of the batch.
        run_time_begin: when it began, in seconds since the epoch.
        run_time_used: how long it took, in seconds.

    Source: PaddleHub 1.8 `RunState`.
    """

    __slots__ = ("_loss", "_tensors", "run_examples", "run_step", "run_time_begin", "run_time_used")

    def __init__(self, tensors: Sequence[Any], loss: Any, examples: int, seconds: float) -> None:
        self._tensors = tuple(tensors)
        self._loss = loss
        self.run_step = 1
        self.run_examples = examples
        self.run_time_used = seconds
        self.run_time_begin = time.time() - seconds

    @property
    def run_loss(self) -> float:
        """The batch's loss; NaN in a prediction."""
        return float("nan") if self._loss is None else float(self._loss)

    @property
    def run_results(self) -> list[Any]:
        """Arrays: the labels, the outputs and, last, the loss; in a prediction only the outputs."""
        results = [array(tensor) for tensor in self._tensors]
        return results if self._loss is None else [*results, np.asarray(self.run_loss)]

    @property
    def run_length(self) -> int:
        """How many results there are."""
        return len(self._tensors) + (self._loss is not None)

    @property
    def run_speed(self) -> float:
        """Batches per second."""
        return self.run_step / max(self.run_time_used, 1e-9)

    def forget(self) -> None:
        """Let the labels and outputs go; the numbers stay."""
        self._tensors = ()


class TaskHooks:
    """The functions that hear a task's events, by event and name; `default` is the task's own.

    Source: PaddleHub 1.8 `TaskHooks`.
    """

    def __init__(self, defaults: dict[str, Callable[..., Any]]) -> None:
        self._defaults = defaults
        self._hooks: dict[str, dict[str, Callable[..., Any]]] = {
            event: {DEFAULT: defaults[event]} if event in defaults else {} for event in EVENTS
        }

    def add(self, hook_type: str, name: str | None = None, func: Callable[..., Any] | None = None) -> None:
        """Have `func` hear an event, after those that do already.

        Args:
            hook_type: the event, one of `EVENTS`.
            name: by which to modify or delete it; None: one is made.
            func: function (task) or (task, run_states) as the event has it; a bound method does without the task.

        Raises:
            ValueError: an unknown event, a name that is taken, or another number of arguments.
            TypeError: no function, or a name that is no string.
        """
        self._check(hook_type, func)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a hook must be a string, not {name!r}")
        name = name or f"hook_{id(func)}"
        if name in self._hooks[hook_type]:
            raise ValueError(f"{hook_type} already has a hook {name!r}: change it with modify_hook, or delete it first")
        self._hooks[hook_type][name] = func

    def modify(self, hook_type: str, name: str, func: Callable[..., Any]) -> None:
        """Put another function in the place of one that is there, `default` included.

        Raises:
            ValueError, TypeError: as for `add`, and where there is no hook of that name.
        """
        self._check(hook_type, func)
        self._known(hook_type, name)
        self._hooks[hook_type][name] = func

    def delete(self, hook_type: str, name: str) -> None:
        """Take a function away; without `default`, what the task does at this event is off.

        Raises:
            ValueError: an unknown event or name.
        """
        _errors.check_keys("hook_type", [hook_type], EVENTS)
        self._known(hook_type, name)
        del self._hooks[hook_type][name]

    def exist(self, hook_type: str, name: str) -> bool:
        """Whether an event has a hook of that name."""
        return name in self._hooks.get(hook_type, ())

    def info(self, show_default: bool = False) -> str:
        """The hooks, a line each: event, name, function and where it is written.

        Args:
            show_default: list the task's own, too.
        """
        lines = [
            f"{event}: {name} = {_where(func)}"
            for event, hooks in self._hooks.items()
            for name, func in hooks.items()
            if show_default or not self._is_own(event, func)
        ]
        return "\n".join(lines) or "no hooks beside the default ones"

    def customised(self, events: Sequence[str]) -> bool:
        """Whether anything but the task's own functions hears one of these events."""
        return any(not self._is_own(event, func) for event in events for func in self._hooks[event].values())

    def call(self, task: Any, hook_type: str, *args: Any) -> None:
        """Have all hooks of an event hear it, in the order in which they came."""
        for func in list(self._hooks[hook_type].values()):
            if inspect.ismethod(func):
                func(*args)
            else:
                func(task, *args)

    def __getitem__(self, hook_type: str) -> dict[str, Callable[..., Any]]:
        """The hooks of an event by name."""
        return dict(self._hooks[hook_type])

    def __repr__(self) -> str:
        return self.info(show_default=True)

    def _is_own(self, event: str, func: Callable[..., Any]) -> bool:
        return self._defaults.get(event) == func

    def _known(self, hook_type: str, name: str) -> None:
        if name not in self._hooks[hook_type]:
            raise ValueError(f"{hook_type}: " + _errors.unknown("hook", name, self._hooks[hook_type]))

    @staticmethod
    def _check(hook_type: str, func: Any) -> None:
        _errors.check_keys("hook_type", [hook_type], EVENTS)
        if not callable(func):
            raise TypeError(f"a hook of {hook_type} must be a function, not {func!r}")
        wanted = EVENTS[hook_type]
        given = wanted - 1 if inspect.ismethod(func) else wanted
        try:
            inspect.signature(func).bind(*range(given))
        except ValueError:
            return  # A function written in C that does not tell its arguments.
        except TypeError:
            raise ValueError(
                f"a hook of {hook_type} takes {_SIGNATURES[wanted]}, but {_where(func)} takes {inspect.signature(func)}"
            ) from None


def _where(func: Any) -> str:
    inner = inspect.unwrap(getattr(func, "__func__", func))
    code = getattr(inner, "__code__", None)
    name = f"{getattr(inner, '__module__', None)}.{getattr(inner, '__qualname__', repr(inner))}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
