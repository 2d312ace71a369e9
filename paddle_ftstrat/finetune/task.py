"""PaddleHub 1.x's tasks: model, data and RunConfig in, the best model and its scores out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.finetune import logs, metrics
from paddle_ftstrat.finetune.callbacks import Callback
from paddle_ftstrat.finetune.config import RunConfig
from paddle_ftstrat.finetune.data import as_loader
from paddle_ftstrat.finetune.learner import Learner
from paddle_ftstrat.transfer.tune import FACTOR

PHASES = ("train", "dev", "test")
_ALIASES = {"val": "dev", "valid": "dev", "validate": "dev", "predict": "test"}
BEST = "best_model"


class BaseTask:
    """Trains a model on a data set under a RunConfig, keeping the model that was best on the dev data.

    Args:
        model: a `paddle.nn.Layer`.
        dataset: the phases: a dict with `train` and, as wanted, `dev` and `test`, or an object with these attributes;
            each a `paddle.io.Dataset` of (input, …, label) samples, or a DataLoader.
        config: the RunConfig; None: its defaults.
        metrics_choices: metrics by name (`acc`, `f1`, `precision`, `recall`, `matthews`), function or
            `paddle.metric.Metric`; the first chooses the best model.
        loss: function (output, label) → scalar tensor; None: the task's own.
        verbose: log lines and progress bars; False trains in silence.
        tune: "head", "all" or "differential", with `head`, `head_factor` and `batch_norm` as for the Learner.
        **bind_options: `pretrained`, `layers`, `no_decay`, `sample_input` as for `strategy.bind`.

    Raises:
        ValueError, TypeError: no training data, an unknown phase or metric, and all that RunConfig and strategy refuse.
    """

    default_metrics: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Layer,
        dataset: Any,
        config: RunConfig | None = None,
        metrics_choices: Any = None,
        loss: Any = None,
        verbose: bool = True,
        tune: str | None = None,
        head: Any = None,
        head_factor: float = FACTOR,
        batch_norm: str = "freeze",
        **bind_options: Any,
    ) -> None:
        self.config = config or RunConfig()
        self.config.choose_device()
        if paddle.distributed.get_world_size() > 1:
            raise RuntimeError("tasks train in one process; this one was started as one of several")
        self.model = model
        self.phases = {
            phase: as_loader(data, self.config.batch_size, shuffle=phase == "train", what=f"dataset {phase!r}")
            for phase, data in _phases(dataset).items()
        }
        self.bind_options = bind_options
        self.learner = Learner(
            model,
            self.phases["train"],
            loss=loss or self._loss,
            metrics=self.default_metrics if metrics_choices is None else metrics_choices,
            path=self.config.checkpoint_dir,
            progress=None if verbose else False,
            tune=tune,
            head=head,
            head_factor=head_factor,
            batch_norm=batch_norm,
        )
        self.best_score: float | None = None
        self._log = logs.logger() if verbose else logs.silent()

    @property
    def max_train_steps(self) -> int:
        """Updates of the whole training."""
        return self.config.num_epoch * len(self.learner.train)

    @property
    def best_model_path(self) -> Path:
        """Where the best model is kept."""
        return Path(self.config.checkpoint_dir) / "models" / f"{BEST}.safetensors"

    def finetune(self) -> list[dict[str, float]]:
        """Train; on the dev data's best score, keep the model. Afterwards the model is the best one.

        Returns:
            The results of each epoch.
        """
        self._log.info("strategy: %s", self.config.strategy)
        watch = _Watch(self)
        results = self.learner.fit(
            self.config.num_epoch, strategy=self.config.strategy, cbs=[watch], **self.bind_options
        )
        if "dev" in self.phases:
            self._log.info("best model loaded from %s: %s=%.4f", self.best_model_path, self.main_metric, watch.best)
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

    def eval(self, phase: str = "dev") -> dict[str, float]:
        """Loss and metrics of the model as it is on one phase's data.

        Args:
            phase: "train", "dev" (or "val") or "test".

        Raises:
            ValueError: an unknown phase, or one without data.
        """
        phase = _ALIASES.get(phase, phase)
        if phase not in self.phases:
            raise ValueError("phase: " + _errors.unknown("phase", phase, self.phases))
        started = time.perf_counter()
        values = self.learner.validate(self.phases[phase])
        seconds = time.perf_counter() - started
        self._log.info("[%s dataset evaluation result] %s [%.1f s]", phase, metrics.summary(values), seconds)
        return values

    def predict(self, data: Any) -> Any:
        """The model's outputs over a Dataset or DataLoader, joined along the first axis."""
        return self.learner.predict(data)

    @property
    def main_metric(self) -> str:
        """What chooses the best model: the first metric, else the loss."""
        return next(iter(self.learner.metrics), "loss")

    def _loss(self, output: Any, label: Any) -> Any:
        raise NotImplementedError


class ClassifierTask(BaseTask):
    """Classification: cross entropy over logits of shape [batch, classes], labels int64 [batch] or [batch, 1].

    Args:
        model: returns logits of shape [batch, classes].
        dataset: dict with `train`, `dev`, `test` (see `BaseTask`).
        config: the RunConfig.
        metrics_choices: metrics; accuracy by default.
        loss: another loss (output, label) → scalar tensor.
        verbose: log lines and progress bars; False trains in silence.
        tune: "head", "all" or "differential", with `head`, `head_factor` and `batch_norm` as for the Learner.
        **bind_options: `pretrained`, `layers`, `no_decay`, `sample_input` as for `strategy.bind`.

    Raises:
        ValueError, TypeError: see `BaseTask`.

    Example:
        >>> import tempfile, paddle_ftstrat as hub
        >>> x = paddle.randn([64, 4])
        >>> pairs = paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = hub.RunConfig(
        ...         num_epoch=2, checkpoint_dir=folder, strategy=hub.DefaultFinetuneStrategy(0.1)
        ...     )
        ...     task = ClassifierTask(nn.Linear(4, 2), {"train": pairs, "dev": pairs, "test": pairs}, config)
        ...     sorted(task.finetune_and_eval())
        ['acc', 'loss']

    Source: PaddleHub 1.8 `finetune/task/classifier_task.py`.
    """

    default_metrics = ("acc",)

    def _loss(self, output: Any, label: Any) -> Any:
        return nn.functional.cross_entropy(output, label)


class _Watch(Callback):
    """The task's part in the loop: log lines, evaluations every so many updates, the best model, checkpoints."""

    def __init__(self, task: BaseTask) -> None:
        self._task = task
        self._config = task.config
        self._since, self._steps, self._losses = time.perf_counter(), 0, 0.0
        # Of the scores that the library knows by name only the loss is better when it is lower.
        self._sign = -1.0 if task.main_metric == "loss" else 1.0
        self.best = float("nan")
        self._evaluated_at = -1

    def on_batch_end(self, learner: Learner) -> None:
        step = learner.state.step
        self._steps += 1
        self._losses += learner.state.loss
        if step % self._config.log_interval == 0:
            self._log_train(learner)
        if step % self._config.eval_interval == 0:
            self._evaluate(learner)
        interval = self._config.save_ckpt_interval
        if interval is not None and step % interval == 0:
            learner.save(f"step_{step}")

    def on_fit_begin(self, learner: Learner) -> None:
        self._since = time.perf_counter()

    def on_epoch_end(self, learner: Learner) -> None:
        if learner.state.epoch == learner.state.num_epoch:
            self._evaluate(learner)

    def _log_train(self, learner: Learner) -> None:
        seconds = time.perf_counter() - self._since
        self._task._log.info(
            "[TRAIN] step %d / %d: loss=%.4f lr=%.2e [step/sec: %.2f]",
            learner.state.step,
            self._task.max_train_steps,
            self._losses / self._steps,
            learner.recorder.lrs[-1],
            self._steps / max(seconds, 1e-9),
        )
        self._since, self._steps, self._losses = time.perf_counter(), 0, 0.0

    def _evaluate(self, learner: Learner) -> None:
        if "dev" not in self._task.phases or learner.state.step == self._evaluated_at:
            return
        self._evaluated_at = learner.state.step
        values = learner.validate(self._task.phases["dev"])
        self._task._log.info("[EVAL] step %d: %s", learner.state.step, metrics.summary(values))
        self._keep_if_best(learner, values)
        self._since = time.perf_counter()

    def _keep_if_best(self, learner: Learner, values: Mapping[str, float]) -> None:
        score = values[self._task.main_metric]
        if not self._sign * score <= self._sign * self.best:
            self.best = self._task.best_score = score
            learner.save(BEST, with_opt=False)


def _phases(dataset: Any) -> dict[str, Any]:
    if isinstance(dataset, Mapping):
        given = {_ALIASES.get(name, name): value for name, value in dataset.items()}
        _errors.check_keys("phase of dataset", given, PHASES)
    else:
        names = {alias: _ALIASES.get(alias, alias) for alias in (*PHASES, "val", "valid")}
        given = {name: getattr(dataset, alias) for alias, name in names.items() if getattr(dataset, alias, None)}
    found = {phase: given[phase] for phase in PHASES if given.get(phase) is not None}
    if "train" not in found:
        raise ValueError("dataset has no training data: give a dict with 'train' (and 'dev', 'test')")
    return found
