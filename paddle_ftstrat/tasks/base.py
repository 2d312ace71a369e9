"""What all tasks share: training under a RunConfig, evaluation, prediction, events and their default behaviour."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddle import nn
from paddle.metric import Metric

from paddle_ftstrat import _errors
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.tasks.config import ALIASES, RunConfig, label_names, split
from paddle_ftstrat.tasks.hooks import EVENTS, RunState, TaskEvents, TaskHooks, with_events
from paddle_ftstrat.training import data as batches
from paddle_ftstrat.training import distributed, evaluation, recorder
from paddle_ftstrat.training.callbacks import TrackerCallback, as_list, better, evaluated_weights
from paddle_ftstrat.training.learner import Learner

BEST = "best_model"
_BIND_OPTIONS = ["pretrained", "layers", "no_decay", "sample_input", "fused", "fisher", "accelerate"]
_LEARNER_OPTIONS = ["tune", "head", "head_factor", "batch_norm", "accumulate", "amp", "num_threads", "cache_frozen"]


@with_events
class BaseTask:
    """Trains a model on a data set under a RunConfig, keeping the model that was best on the dev data.

    What happens on the way are events by PaddleHub's names, for hooks and subclasses (see `add_hook`, `with_events`).

    Args:
        model: a `paddle.nn.Layer`.
        dataset: the phases: a dict with `train` and, as wanted, `dev` and `test`, or an object with these attributes;
            each a `paddle.io.Dataset` of (input, …, label) samples, or a DataLoader.
        config: the RunConfig; None: its defaults.
        metrics_choices: metrics by name, function or `paddle.metric.Metric`; the first chooses the best model.
        loss: function (output, label) → scalar tensor; None: the task's own.
        verbose: log lines and progress bars; False trains in silence.
        label_list: names of the classes; None: the data's `label_list` or `classes`, where it has one.
        cbs: callbacks of the training. Where one watches an epoch's results (early stopping), or a phase of the
            strategy ends by a `Plateau`, the dev data is evaluated at the end of each epoch, too.
        **options: `pretrained`, `layers`, `no_decay`, `sample_input`, `fused`, `accelerate` as for `strategy.bind`;
            `tune`, `head`, `head_factor`, `batch_norm`, `accumulate`, `amp`, `num_threads`, `cache_frozen` as for the
            Learner.

    Attributes:
        learner: the Learner that does the work.
        hooks: the functions that hear the task's events.
        best_score: the best score on the dev data, None before there is one.
        current_scores: the last evaluation's results.
        phase: "train", "dev", "test" or "predict" while that runs, else "".
        is_evaluating: whether an evaluation runs, on whatever data.

    Raises:
        ValueError, TypeError: no training data, an unknown phase or metric, and all that RunConfig and strategy refuse.
    """

    default_metrics: tuple[str, ...] = ()
    kind = "classes"

    def __init__(
        self,
        model: nn.Layer,
        dataset: Any,
        config: RunConfig | None = None,
        metrics_choices: Any = None,
        loss: Any = None,
        verbose: bool = True,
        label_list: Sequence[str] | None = None,
        cbs: Any = (),
        **options: Any,
    ) -> None:
        self.config = config or RunConfig()
        self.config.choose_device()
        who = distributed.ranks(self.config.use_data_parallel)
        # The default folder has the time in its name, which may be another in each process.
        self._folder = Path(distributed.gather_facts(str(self.config.checkpoint_dir), who)[0])
        self._log = recorder.logger() if verbose and who.is_main_process else recorder.silent()
        _errors.check_keys("argument", options, (*_BIND_OPTIONS, *_LEARNER_OPTIONS))
        self.model = model
        self.label_list = label_names(label_list, dataset)
        self.phases = {
            phase: batches.as_loader(part, self.config.batch_size, phase == "train", f"dataset {phase!r}", who)
            for phase, part in split(dataset).items()
        }
        self.bind_options = {name: value for name, value in options.items() if name in _BIND_OPTIONS}
        self.cbs = as_list(cbs)
        watched = any(isinstance(callback, TrackerCallback) for callback in self.cbs)
        watched = watched or any(phase.until for phase in getattr(self.config.strategy, "phases", ()))
        self.learner = Learner(
            model,
            self.phases["train"],
            valid=self.phases.get("dev") if watched else None,
            loss=self._checked_loss,
            metrics=list(self._find_metrics(metrics_choices).values()),
            path=self._folder,
            # Without a terminal the log says it all.
            progress=None if verbose and sys.stderr.isatty() else False,
            checkpoints=self.config.checkpoints(self._folder / "checkpoints"),
            data_parallel=self.config.use_data_parallel,
            **{name: value for name, value in options.items() if name in _LEARNER_OPTIONS},
        )
        self.learner.notes["config"] = repr(self.config)
        self.best_score: float | None = None
        self.current_scores: dict[str, float] = {}
        self.hooks = TaskHooks({event: getattr(self, f"_default_{event}_event") for event in EVENTS})
        self.phase, self.is_evaluating = "", False
        self._loss_function = loss or self._loss
        self._events: TaskEvents | None = None
        self._environments: set[str] = set()
        self._touched = self._kept_best = False

    @property
    def max_train_steps(self) -> int:
        """Updates of the whole training."""
        return self.config.num_epoch * self.learner.updates

    @property
    def current_step(self) -> int:
        """Updates that are done."""
        return self.learner.state.step

    @property
    def current_epoch(self) -> int:
        """The epoch that runs, counted from 1; 0 before the first."""
        return self.learner.state.epoch

    @property
    def main_metric(self) -> str:
        """What chooses the best model: the first metric, else the loss."""
        return next(iter(self.learner.metrics), "loss")

    @property
    def best_model_path(self) -> Path:
        """Where the best model is kept."""
        return self._folder / "models" / f"{BEST}.safetensors"

    def finetune(self) -> list[dict[str, float]]:
        """Train; on the dev data's best score, keep the model. Afterwards the model is the best one.

        Returns:
            The results of each epoch.
        """
        self._touched, self._kept_best, self.best_score = True, False, None
        self._events = events = TaskEvents(self)
        with self._in_phase("train"):
            self.raise_event("build_env_start")
            try:
                results = self.learner.fit(
                    self.config.num_epoch, strategy=self.config.strategy, cbs=[events, *self.cbs], **self.bind_options
                )
            finally:
                self._events = None
            self.raise_event("finetune_end", [*events.epoch, *events.period])
        if self._kept_best:
            self._log.info(f"best model loaded from {self.best_model_path}: {self.main_metric}={self.best_score:.4f}")
            self.learner.load(BEST, with_opt=False)
        return results

    def finetune_and_eval(self) -> dict[str, float]:
        """Train, then evaluate the best model on the test data, or on the dev data where there is no test data.

        Returns:
            `loss` and the metrics. Without either of the two, the results of the last epoch.
        """
        results = self.finetune()
        phase = next((phase for phase in ("test", "dev") if phase in self.phases), None)
        return self.eval(phase) if phase else results[-1]

    def eval(self, phase: str = "dev", load_best_model: bool = False) -> dict[str, float]:
        """Loss and metrics of the model as it is, or of the best one, on one phase's data.

        Args:
            phase: "train", "dev" (or "val") or "test".
            load_best_model: load the best model first; not while the task trains.

        Raises:
            ValueError: an unknown phase, or one without data.
            RuntimeError: the best model was asked for in the middle of training, which would go on from it.
        """
        phase = ALIASES.get(phase, phase)
        if phase not in self.phases:
            raise ValueError("phase: " + _errors.unknown("phase", phase, self.phases))
        if load_best_model:
            self.load_best_model()
        learner, outer = self.learner, self.learner.callbacks
        if self._events is None:
            learner.callbacks = [*(outer or learner.cbs), TaskEvents(self)]
        try:
            with self._in_phase(phase, evaluating=True):
                return learner.validate(self.phases[phase])
        finally:
            learner.callbacks = outer

    def predict(
        self,
        data: Any,
        label_list: Sequence[str] | None = None,
        load_best_model: bool = True,
        return_result: bool = False,
    ) -> Any:
        """The model's outputs over a Dataset or DataLoader, joined along the first axis, or what they mean.

        Args:
            data: samples without or with a label at their end, which is left out.
            label_list: names of the classes, for `return_result`; None: the task's.
            load_best_model: where this task has neither trained nor loaded anything yet, load the best model in
                `checkpoint_dir`, if there is one.
            return_result: give a list with an entry per sample instead: the name of the class, where there are names,
                else its number (see each task).

        Raises:
            ValueError: fewer names than classes.
        """
        if load_best_model and not self._touched and self.best_model_path.is_file():
            self.load_best_model()
        names = label_names(label_list, None) or self.label_list
        loader = batches.as_loader(data, self.config.batch_size, shuffle=False, what="data")
        outputs, states = [], []
        with self._in_phase("predict"):
            self.enter_environment()
            self.raise_event("predict_start")
            started = time.perf_counter()
            for batch, output in evaluation.outputs(self.learner, loader):
                outputs.append(output)
                tensors, examples = [evaluation.main_output(output)], batches.batch_size_of(batch)
                states.append(RunState(tensors, None, examples, time.perf_counter() - started))
                self.raise_event("run_step", states[-1])
                started = time.perf_counter()
            self.raise_event("predict_end", states)
        if return_result:
            return [result for output in outputs for result in self._results(evaluation.main_output(output), names)]
        return batches.concatenated(outputs)

    def load_best_model(self) -> None:
        """Load the best model from `checkpoint_dir`.

        Raises:
            RuntimeError: the task is training.
            FileNotFoundError: there is none.
        """
        if self._events is not None:
            raise RuntimeError("the best model cannot be loaded while the task trains: training would go on from it")
        self.learner.load(BEST, with_opt=False)
        self._touched = True
        self._log.info(f"best model loaded from {self.best_model_path}")

    def restore_best(self, score: float | None) -> None:
        """Take over the best score of a training that is resumed, whose best model lies in `checkpoint_dir`."""
        self.best_score, self._kept_best = score, score is not None and self.best_model_path.is_file()

    def save_checkpoint(self) -> None:
        """Have a checkpoint written to `checkpoint_dir` at the end of the update that runs."""
        self.learner.save_checkpoint()

    def add_hook(self, hook_type: str, name: str | None = None, func: Callable[..., Any] | None = None) -> None:
        """Have a function hear an event, after those that do already.

        Args:
            hook_type: the event, one of `tasks.hooks.EVENTS`.
            name: by which to modify or delete it; None: one is made.
            func: function (task), or (task, run_states) of `finetune_end`, `predict_end`, `eval_end`, `log_interval`
                and (task, run_state) of `run_step`; a bound method does without the task.

        Raises:
            ValueError: an unknown event, a name that is taken, or another number of arguments.
            TypeError: no function, or a name that is no string.
        """
        self.hooks.add(hook_type, name, func)

    def delete_hook(self, hook_type: str, name: str) -> None:
        """Take a hook away; `default` is what the task itself does at the event.

        Raises:
            ValueError: an unknown event or name.
        """
        self.hooks.delete(hook_type, name)

    def modify_hook(self, hook_type: str, name: str, func: Callable[..., Any]) -> None:
        """Put another function in the place of a hook; `default` is what the task itself does at the event.

        Raises:
            ValueError, TypeError: as for `add_hook`, and where there is no hook of that name.
        """
        self.hooks.modify(hook_type, name, func)

    def hooks_info(self, show_default: bool = False) -> str:
        """The hooks as text, a line each.

        Args:
            show_default: list what the task itself does, too.
        """
        return self.hooks.info(show_default)

    def hears(self, events: Sequence[str]) -> bool:
        """Whether a hook or a user's subclass takes part in one of these events."""
        methods = [getattr(type(self), f"{prefix}{event}_event") for event in events for prefix in ("_", "_default_")]
        return self.hooks.customised(events) or any(not one.__module__.startswith("paddle_ftstrat.") for one in methods)

    def raise_event(self, event: str, *states: Any) -> None:
        """Raise an event, with the states that go with it."""
        getattr(self, f"_{event}_event")(*states)

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
    def _in_phase(self, phase: str, evaluating: bool = False) -> Iterator[None]:
        """Inside it the task is in a phase."""
        outer = self.phase, self.is_evaluating
        self.phase, self.is_evaluating = phase, evaluating
        try:
            yield
        finally:
            self.phase, self.is_evaluating = outer

    def enter_environment(self) -> None:
        """PaddleHub built a program for each kind of phase, once; the events of that are all that is left of it."""
        environment = "dev" if self.phase == "test" else self.phase
        if environment not in self._environments:
            self.raise_event("build_env_start")
            self._environments.add(environment)
            self.raise_event("build_env_end")

    def _default_finetune_start_event(self) -> None:
        """Log the strategy."""
        self._log.info(f"fine-tuning starts, strategy: {self.config.strategy}")

    def _default_log_interval_event(self, run_states: list[RunState]) -> None:
        """Log the mean loss of these updates, the LR and the speed."""
        loss = sum(state.run_loss for state in run_states) / len(run_states)
        since = self._events.log_since if self._events else 0.0
        speed, lr = len(run_states) / max(time.perf_counter() - since, 1e-9), self.learner.recorder.lrs[-1]
        place = f"step {self.current_step} / {self.max_train_steps}"
        self._log.info(f"[TRAIN] {place}: loss={loss:.4f} lr={lr:.2e} [step/sec: {speed:.2f}]")

    def _default_save_ckpt_interval_event(self) -> None:
        """Write a checkpoint."""
        self.save_checkpoint()

    def _default_eval_interval_event(self) -> None:
        """Evaluate on the dev data."""
        self.eval("dev")

    def _default_eval_end_event(self, run_states: list[RunState]) -> None:
        """Log the results; in training, keep the model if it is the best on the dev data."""
        scores, seconds = evaluation.summary(self.current_scores), time.time() - run_states[0].run_time_begin
        place = f" step {self.current_step}:" if self._events else ""
        self._log.info(f"[{self.phase} dataset evaluation result]{place} {scores} [{seconds:.1f} s]")
        if self._events is None or self.phase != "dev":
            return
        score = self.current_scores[self.main_metric]
        if better(score, self.best_score, mode_of(self.main_metric)):
            self.best_score, self._kept_best = score, True
            with evaluated_weights(self.learner):
                self.learner.save(BEST, with_opt=False)

    def _checked_loss(self, output: Any, label: Any) -> Any:
        self._check_output(evaluation.main_output(output), label)
        return self._loss_function(output, label)

    def _find_metrics(self, choices: Any) -> dict[str, Metric]:
        return evaluation.find(self.default_metrics if choices is None else choices, self.kind, self.label_list)

    def _check_output(self, output: Any, label: Any) -> None:
        """Refuse outputs that the task cannot mean, before the loss is taken of them."""

    def _loss(self, output: Any, label: Any) -> Any:
        raise NotImplementedError

    def _results(self, output: Any, names: list[str] | None) -> list[Any]:
        """What the outputs of a batch mean, an entry per sample."""
        return evaluation.array(output).tolist()
