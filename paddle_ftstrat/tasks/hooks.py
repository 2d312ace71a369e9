"""PaddleHub's events of a task: which there are, whose functions hear them, and the callback that raises them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr.depth import split_batch
from paddle_ftstrat.training import data
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.evaluation import array, main_output
from paddle_ftstrat.training.state import Training

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
T = TypeVar("T")
_SIGNATURES = {1: "(task)", 2: "(task, run_states)"}
# What a task logs by itself, where it does nothing else.
_LINES = {
    "finetune_end": "fine-tuning is finished",
    "predict_start": "prediction starts",
    "predict_end": "prediction is finished",
    "eval_start": "evaluation on the {0.phase} data starts",
}


@dataclass
class RunState:
    """One batch of a run, as the hooks see it.

    Attributes:
        run_examples: samples of the batch.
        run_time_used: how long it took, in seconds.
        run_step: 1, the number of batches it stands for.
        run_time_begin: when it began, in seconds since the epoch.

    Source: PaddleHub 1.8 `RunState`.
    """

    _tensors: Sequence[Any]
    _loss: float | None
    run_examples: int
    run_time_used: float
    run_step: int = 1

    def __post_init__(self) -> None:
        self.run_time_begin = time.time() - self.run_time_used

    @property
    def run_loss(self) -> float:
        """The batch's loss; NaN in a prediction."""
        return float("nan") if self._loss is None else self._loss

    @property
    def run_results(self) -> list[Any]:
        """Arrays: the labels, the outputs and, last, the loss; in a prediction only the outputs."""
        results = [array(tensor) for tensor in self._tensors]
        return results if self._loss is None else [*results, np.asarray(self._loss)]

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
        self._hooks = {event: {DEFAULT: func} for event, func in defaults.items()}

    def add(self, hook_type: str, name: str | None = None, func: Callable[..., Any] | None = None) -> None:
        """Have a function hear an event, after those that do already (see `BaseTask.add_hook`)."""
        hooks, func = self._hooks_of(hook_type), _checked(hook_type, func)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a hook must be a string, not {name!r}")
        name = name or f"hook_{id(func)}"
        if name in hooks:
            raise ValueError(f"{hook_type} already has a hook {name!r}: change it with modify_hook, or delete it first")
        hooks[name] = func

    def modify(self, hook_type: str, name: str, func: Callable[..., Any]) -> None:
        """Put another function in the place of one that is there (see `BaseTask.modify_hook`)."""
        hooks = self._hooks_of(hook_type, name)
        hooks[name] = _checked(hook_type, func)

    def delete(self, hook_type: str, name: str) -> None:
        """Take a function away (see `BaseTask.delete_hook`)."""
        del self._hooks_of(hook_type, name)[name]

    def exist(self, hook_type: str, name: str) -> bool:
        """Whether an event has a hook of that name."""
        return name in self._hooks.get(hook_type, ())

    def info(self, show_default: bool = False) -> str:
        """The hooks, a line each: event, name, function and where it is written (see `BaseTask.hooks_info`)."""
        lines = [
            f"{event}: {name} = {_where(func)}"
            for event, hooks in self._hooks.items()
            for name, func in hooks.items()
            if show_default or func != self._defaults[event]
        ]
        return "\n".join(lines) or "no hooks beside the default ones"

    def customised(self, events: Sequence[str]) -> bool:
        """Whether anything but the task's own functions hears one of these events."""
        return any(func != self._defaults[event] for event in events for func in self._hooks[event].values())

    def __getitem__(self, hook_type: str) -> dict[str, Callable[..., Any]]:
        """The hooks of an event by name."""
        return dict(self._hooks[hook_type])

    def __repr__(self) -> str:
        return self.info(show_default=True)

    def _hooks_of(self, hook_type: str, *names: str) -> dict[str, Callable[..., Any]]:
        """The hooks of an event, among which these names have to be."""
        _errors.check_keys("hook_type", [hook_type], EVENTS)
        hooks = self._hooks[hook_type]
        for name in names:
            if name not in hooks:
                raise ValueError(f"{hook_type}: " + _errors.unknown("hook", name, hooks))
        return hooks


def _checked(hook_type: str, func: Any) -> Callable[..., Any]:
    """A function that can be called with the arguments of an event."""
    if not callable(func):
        raise TypeError(f"a hook of {hook_type} must be a function, not {func!r}")
    wanted = EVENTS[hook_type]
    try:
        inspect.signature(func).bind(*range(wanted - inspect.ismethod(func)))
    except ValueError:
        pass  # a function written in C that does not tell its arguments
    except TypeError:
        raise ValueError(
            f"a hook of {hook_type} takes {_SIGNATURES[wanted]}, but {_where(func)} takes {inspect.signature(func)}"
        ) from None
    return func


def _where(func: Any) -> str:
    inner = inspect.unwrap(getattr(func, "__func__", func))
    code = getattr(inner, "__code__", None)
    name = f"{getattr(inner, '__module__', None)}.{getattr(inner, '__qualname__', repr(inner))}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def with_events(cls: type[T]) -> type[T]:
    """Give a task PaddleHub's methods: `_<event>_event` raises one, `_default_<event>_event` is what it does then.

    Both are there for each of `EVENTS`, and may be overridden, as in PaddleHub; what the class has already is kept.
    """
    for event in EVENTS:
        for name, make in ((f"_{event}_event", _raising), (f"_default_{event}_event", _logging)):
            if name not in vars(cls):
                method = make(event)
                method.__name__, method.__qualname__ = name, f"{cls.__name__}.{name}"
                setattr(cls, name, method)
    return cls


def _raising(event: str) -> Callable[..., None]:
    def method(self: Any, *run_states: Any) -> None:
        for func in self.hooks[event].values():
            func(*run_states) if inspect.ismethod(func) else func(self, *run_states)

    method.__doc__ = f"Raise `{event}`: its hooks hear it, `{DEFAULT}` among them. Override it to take the event over."
    return method


def _logging(event: str) -> Callable[..., None]:
    line = _LINES.get(event)

    def method(self: Any, *run_states: Any) -> None:
        if line:
            self._log.info(line.format(self))

    method.__doc__ = f"What the task itself does at `{event}`: {'log a line' if line else 'nothing'}."
    return method


class TaskEvents(Callback):
    """Raises a task's events in the Learner's loop, and carries its best score through a resumed fit.

    Attributes:
        period: the batches since the last log line.
        epoch: the batches of this epoch before them.
        evaluated: the batches of the last evaluation.
        log_since: when the time of the coming log line began, on the clock of `time.perf_counter`.
    """

    def __init__(self, task: Any) -> None:
        self._task, self._by_learner = task, False
        self._since = self.log_since = time.perf_counter()
        self._results: tuple[Any, ...] = ()
        self._examples, self._evaluated_at = 0, -1
        self.period: list[RunState] = []
        self.epoch: list[RunState] = []
        self.evaluated: list[RunState] = []

    def on_fit_begin(self, learner: Training) -> None:
        self._task.raise_event("build_env_end")
        self._task.raise_event("finetune_start")
        self._since = self.log_since = time.perf_counter()

    def on_epoch_begin(self, learner: Training) -> None:
        self.epoch = []

    def on_after_loss(self, learner: Training, batch: Any, output: Any, loss: float) -> None:
        task, label = self._task, split_batch(batch)[1]
        # A model that returns its loss gets no label, and nothing is seen of it.
        keep = label is not None and task.hears(["eval_end", "run_step"] if task.is_evaluating else WITH_STATES)
        results = (label.detach(), main_output(output).detach()) if keep else ()
        if task.is_evaluating:
            self.evaluated.append(self._state(results, loss, data.batch_size_of(batch)))
            task.raise_event("run_step", self.evaluated[-1])
        else:
            # Of an update of several accumulated batches, the hooks see the last one.
            self._results = results
            self._examples += data.batch_size_of(batch)

    def on_after_update(self, learner: Training) -> None:
        step = learner.state.step
        task, config = self._task, self._task.config
        state = self._state(self._results, learner.state.loss, self._examples)
        self._results, self._examples = (), 0
        self.period.append(state)
        if step % config.log_interval == 0:
            task.raise_event("log_interval", self.period)
            if not task.hears(["finetune_end"]):
                for logged in self.period:
                    logged.forget()
            self.epoch, self.period = self.epoch + self.period, []
            self.log_since = time.perf_counter()
        if config.save_ckpt_interval is not None and step % config.save_ckpt_interval == 0:
            task.raise_event("save_ckpt_interval")
        # Where the Learner evaluates at the end of the epoch anyway, that is the evaluation.
        validates = learner.valid is not None and learner.state.batch_number == learner.state.batches
        if step % config.eval_interval == 0 and not validates:
            self._evaluate(learner)
        task.raise_event("run_step", state)
        self._since = time.perf_counter()

    def on_validate_begin(self, learner: Training) -> None:
        task = self._task
        # Unless it is task.eval(), this is the Learner's own validation, at the end of an epoch.
        self._by_learner = not task.is_evaluating
        if self._by_learner:
            task.phase, task.is_evaluating = "dev", True
        self.evaluated, self._since = [], time.perf_counter()
        task.enter_environment()
        task.raise_event("eval_start")

    def on_validate_end(self, learner: Training) -> None:
        task, task.current_scores = self._task, learner.state.values
        if self._by_learner:
            self._evaluated_at = learner.state.step
        task.raise_event("eval_end", self.evaluated)
        if self._by_learner:
            task.phase, task.is_evaluating = "train", False
            self._rest()

    def on_epoch_end(self, learner: Training) -> None:
        if learner.state.epoch == learner.state.num_epoch:
            self._evaluate(learner)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and at which update the last evaluation was."""
        return {"best_score": self._task.best_score, "evaluated_at": self._evaluated_at}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken."""
        self._task.restore_best(state["best_score"])
        self._evaluated_at = int(state["evaluated_at"])

    def _state(self, results: tuple[Any, ...], loss: float, examples: int) -> RunState:
        since, self._since = self._since, time.perf_counter()
        return RunState(results, loss, examples, self._since - since)

    def _evaluate(self, learner: Training) -> None:
        if "dev" in self._task.phases and learner.state.step != self._evaluated_at:
            self._evaluated_at = learner.state.step
            self._task.raise_event("eval_interval")
            self._rest()

    def _rest(self) -> None:
        """What was not training does not count in the speed."""
        self.log_since = time.perf_counter() - sum(state.run_time_used for state in self.period)
