"""The callback that carries a binding's unfreezing plan into PaddleNLP's `Trainer`."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

from paddle_ftstrat import _paddle
from paddle_ftstrat.optim import averaging
from paddle_ftstrat.param_attr import select


def trainer_callback(run: Any) -> Any:
    """A `TrainerCallback` that thaws a binding's layers at each epoch of PaddleNLP's `Trainer`.

    The rest of the binding goes in as `Trainer(optimizers=(run.optimizer, run.lr_scheduler), callbacks=[…])`; the
    Trainer steps both. Its own arguments for learning rate, schedule, decay and `max_grad_norm` have no effect then.
    A resumed training begins with the epoch that its checkpoint was in.

    Args:
        run: the binding, of the model that the Trainer gets.

    Raises:
        ImportError: PaddleNLP is not installed.
        ValueError: when training begins: the Trainer has another optimizer or LR scheduler, or layers are to be thawed
            while Paddle's DataParallel holds the model, which does not notice.

    Source: checked with PaddleNLP 2.8.1.
    """
    return _callback_class()(run)


@functools.cache
def _callback_class() -> type:
    try:
        from paddlenlp.trainer import TrainerCallback
    except ImportError as error:
        raise ImportError("trainer_callback needs PaddleNLP: pip install paddlenlp") from error

    # A class in here, because its base exists only where PaddleNLP is installed.
    class StrategyTrainerCallback(TrainerCallback):
        """Thaws the layers of a binding epoch by epoch."""

        def __init__(self, run: Any) -> None:
            self.run = run
            self._epochs = 0
            self._averaged = ExitStack()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Refuse a Trainer that does not use the binding; find the epoch to begin with."""
            _check(self.run, args, kwargs)
            # A checkpoint's optimizer state may be of a time when other layers were frozen.
            _paddle.settle(self.run.optimizer, select.named_weights(self.run.model).values())
            batches = len(kwargs["train_dataloader"])
            self._epochs = state.global_step // max(batches // args.gradient_accumulation_steps, 1)

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Apply the unfreezing plan of the epoch."""
            self._epochs += 1
            self.run.begin_epoch(self._epochs)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Put averaged weights in place where the Trainer, as it has decided by now, evaluates next."""
            if control.should_evaluate and averaging.values_of(self.run) is not None:
                self._averaged.enter_context(self.run.averaged())

        on_epoch_end = on_step_end

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Go on training with the weights as they were."""
            self._averaged.close()

    return StrategyTrainerCallback


def _check(run: Any, args: Any, given: dict[str, Any]) -> None:
    if given["optimizer"] is not run.optimizer or given["lr_scheduler"] is not run.lr_scheduler:
        raise ValueError("give the Trainer the binding's: Trainer(optimizers=(run.optimizer, run.lr_scheduler), ...)")
    if run.plan.perturbation is not None:
        raise ValueError(
            f"perturbation {run.plan.perturbation.name} needs further passes over each batch, which the Trainer does "
            "not make: use a Learner, a task, or a loop over run.losses(...)"
        )
    if args.world_size > 1 and run.plan.thaws:
        raise ValueError(
            "gradual_unfreeze in several processes: the Trainer wraps the model in paddle.DataParallel, which does not "
            "notice layers that thaw later; use a task or a Learner there, or a strategy without gradual_unfreeze"
        )
