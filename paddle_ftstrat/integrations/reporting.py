"""Values of a fit told to other packages while it runs: curves for VisualDL, results for a trial of Optuna."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.training.callbacks import Callback

if TYPE_CHECKING:
    from paddle_ftstrat.training.state import Training


class VisualDLCallback(Callback):
    """Writes what happens to a folder that `visualdl --logdir` shows.

    Every `interval` updates: `train/loss`, `train/gradient_norm` (the 2-norm over all gradients, before clipping; with
    float16 it holds the loss scale), `train/frozen` (share of the model's weights that do not train) and `lr/block_i`
    of each block, bottom block 0, with the block's factor. At each evaluation: `valid/loss` and `valid/<metric>`.
    The x axis counts updates. Of several processes the first one writes.

    Args:
        logdir: the folder; it is made.
        interval: updates between points, ≥ 1.

    Raises:
        ImportError: visualdl is not installed.
        ValueError: an interval below 1.

    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("visualdl"):
        ...     callback = VisualDLCallback("log", interval=50)
    """

    def __init__(self, logdir: str | Path, interval: int = 10) -> None:
        with _errors.needed("VisualDLCallback needs visualdl", "visualdl"):
            from visualdl import LogWriter
        self.logdir = str(logdir)
        self.interval = _errors.check_whole("interval", interval, minimum=1)
        self._make = LogWriter
        self._writer: Any = None
        self._weights: list[Any] = []
        self._due: dict[str, float] = {}

    def on_fit_begin(self, learner: Training) -> None:
        if paddle.distributed.get_rank() == 0:
            self._writer = self._make(logdir=self.logdir)
        self._weights = list(select.named_weights(learner.model).values())

    def on_before_update(self, learner: Training) -> None:
        # After the update the gradients are gone, and the LR is the next one's.
        if self._writer is None or (learner.state.step + 1) % self.interval:
            return
        lr = learner.run.optimizer.get_lr()
        self._due = {f"lr/block_{i}": lr * factor for i, factor in enumerate(learner.run.block_factors)}
        self._due["train/gradient_norm"] = gradient_norm(self._weights)
        frozen = sum(weight.size for weight in self._weights if weight.stop_gradient)
        self._due["train/frozen"] = frozen / (sum(weight.size for weight in self._weights) or 1)

    def on_after_update(self, learner: Training) -> None:
        if not self._due:
            return
        self._write({"train/loss": learner.state.loss, **self._due}, learner.state.step)
        self._due = {}

    def on_validate_end(self, learner: Training) -> None:
        if self._writer is not None:
            values = {f"valid/{name}": value for name, value in (learner.state.values or {}).items()}
            self._write(values, learner.state.step)

    def on_fit_end(self, learner: Training) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: dict[str, float], step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag=tag, value=value, step=step)


class OptunaPruning(Callback):
    """Reports a value of each epoch to an Optuna trial, and ends the fit where the study's pruner says so.

    Args:
        trial: the `optuna.trial.Trial` that the objective was given.
        monitor: `valid_loss`, `train_loss` or a metric's name; the study's direction must be its own.

    Raises:
        ImportError: Optuna is not installed.

    Example:
        >>> import importlib.util
        >>> if importlib.util.find_spec("optuna"):
        ...     def objective(trial):
        ...         learner = make_learner()
        ...         results = learner.fit(3, strategy=space.suggest(trial), cbs=OptunaPruning(trial))
        ...         return results[-1]["valid_loss"]
    """

    def __init__(self, trial: Any, monitor: str = "valid_loss") -> None:
        with _errors.needed("OptunaPruning needs Optuna", "optuna"):
            import optuna  # noqa: F401
        self.trial, self.monitor = trial, monitor

    def on_fit_begin(self, learner: Training) -> None:
        """Refuse what cannot be reported.

        Raises:
            ValueError: a value that will never come, or several processes, of which a pruner would end one.
        """
        _errors.check_keys("monitor", [self.monitor], learner.value_names())
        if learner.ranks.is_distributed:
            raise ValueError("OptunaPruning works in one process: its pruner would end this one and leave the others")

    def on_epoch_end(self, learner: Training) -> None:
        """Report the epoch's value.

        Raises:
            optuna.TrialPruned: the study's pruner says so.
        """
        from optuna import TrialPruned

        epoch, value = learner.state.epoch, learner.recorder.values[-1][self.monitor]
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise TrialPruned(f"pruned after epoch {epoch} with {self.monitor} {value:g}")


def gradient_norm(weights: list[Any]) -> float:
    """The 2-norm over the gradients of all weights that have one.

    Args:
        weights: parameters.

    Example:
        >>> w = paddle.create_parameter([2], "float32")
        >>> (w * paddle.to_tensor([3.0, 4.0])).sum().backward()
        >>> gradient_norm([w])
        5.0
    """
    squares = [weight.grad.astype("float32").square().sum() for weight in weights if weight.grad is not None]
    return math.sqrt(paddle.add_n([square.reshape([1]) for square in squares]).item()) if squares else 0.0
