"""Optuna's pruners over a fit: validation values for a trial, and the end of those that are not worth going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle_ftstrat import _errors
from paddle_ftstrat.training.callbacks import Callback

if TYPE_CHECKING:
    from paddle_ftstrat.training.state import Training


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
