"""A binding in the `Trainer` of PaddleNLP and of PaddleFormers, and its option `--strategy file.yaml`."""

from __future__ import annotations

import functools
import importlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.sharding import is_wrapper, wraps
from paddle_ftstrat.integrations import sharding
from paddle_ftstrat.integrations.carrying import check_host
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.strategies import strategy_from_yaml

PACKAGES = ("paddlenlp", "paddleformers")
# What a Trainer may do to the model, and the arguments that say so, whose names differ between the two.
_SPLITS = {
    "tensor parallelism": ("tensor_parallel_degree", "tensor_model_parallel_size"),
    "pipeline parallelism": ("pipeline_parallel_degree", "pipeline_model_parallel_size"),
}


def trainer_callback(run: Any, package: str = "paddlenlp") -> Any:
    """A `TrainerCallback` that thaws a binding's layers at each epoch of a `Trainer`.

    `run.attach(trainer)` adds it. Where the Trainer is made with `optimizers=(run.optimizer, run.lr_scheduler)`, it is
    one of its `callbacks`. The Trainer's own arguments for learning rate, schedule, decay and `max_grad_norm` have no
    effect then. A resumed training begins with the epoch that its checkpoint was in.

    Args:
        run: the binding, of the model that the Trainer gets.
        package: whose Trainer, "paddlenlp" or "paddleformers".

    Raises:
        ImportError: the package is not installed.
        ValueError: another package; when training begins: the Trainer has another optimizer or LR scheduler, or layers
            are to be thawed while Paddle's DataParallel holds the model, which does not notice.

    Source: checked with PaddleNLP 2.8.1 and PaddleFormers 1.2.0.
    """
    _errors.check_keys("package", [package], PACKAGES)
    return _callback_class(package)(run)


def attach(run: Any, trainer: Any) -> None:
    """Let a Trainer train with a binding, whatever its arguments say of optimizer and schedule.

    Args:
        run: the binding, of the Trainer's model.
        trainer: the Trainer, made without `optimizers=`, which it refuses where it shards.

    Raises:
        ValueError: it trains another model, has an optimizer already, or splits what the strategy needs whole.
    """
    if trainer.model is not run.model:
        raise ValueError("the Trainer trains another model than the binding: bind trainer.model")
    if trainer.optimizer not in (None, run.optimizer):
        raise ValueError("the Trainer has another optimizer: make it without optimizers=, or attach before it trains")
    _refuse_split(run, trainer.args)
    trainer.optimizer, trainer.lr_scheduler = run.optimizer, run.lr_scheduler
    package = next(c.__module__ for c in type(trainer).__mro__ if c.__module__.startswith(PACKAGES)).partition(".")[0]
    trainer.add_callback(trainer_callback(run, package))


@dataclass
class StrategyArguments:
    """Arguments of a script with a Trainer, beside its `TrainingArguments`.

    `PdArgumentParser((TrainingArguments, StrategyArguments))` gives the script the option `--strategy file.yaml`.
    """

    strategy: str = field(metadata={"help": "YAML or JSON file with the fine-tuning strategy"})

    def attach(self, trainer: Any, **options: Any) -> Any:
        """Bind the strategy to a Trainer's model for the length of its training, and put it into the Trainer.

        Args:
            trainer: the Trainer, made without `optimizers=`.
            options: of `bind`: `sample_input`, `pretrained`, `layers`, `no_decay`, `fused`.

        Returns:
            The binding.

        Raises:
            ValueError: what the file, `bind` or `attach` refuse; a training set without a length.
        """
        args = trainer.args
        per_epoch = _updates_per_epoch(trainer.get_train_dataloader(), args)
        length = (
            {"max_train_steps": args.max_steps} if args.max_steps > 0 else {"num_epoch": int(args.num_train_epochs)}
        )
        run = strategy_from_yaml(self.strategy).bind(trainer.model, steps_per_epoch=per_epoch, **length, **options)
        run.attach(trainer)
        return run


@functools.cache
def _callback_class(package: str) -> type:
    with _errors.needed(f"this callback needs {package}", package):
        base = importlib.import_module(f"{package}.trainer").TrainerCallback

    # A class in here, because its base exists only where the package is installed.
    class StrategyTrainerCallback(base):  # type: ignore[valid-type, misc]
        """Thaws the layers of a binding epoch by epoch."""

        def __init__(self, run: Any) -> None:
            self.run = run
            self._epochs = 0
            self._averaged = ExitStack()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Refuse a Trainer that does not use the binding; find the epoch to begin with."""
            _check(self.run, kwargs)
            _refuse_split(self.run, args)
            if is_wrapper(kwargs["optimizer"]) and args.sharding:
                sharding.attach(self.run, kwargs["optimizer"])
            # A checkpoint's optimizer state may be of a time when other layers were frozen.
            _paddle.settle(self.run.optimizer, select.named_weights(self.run.model).values())
            self._epochs = state.global_step // _updates_per_epoch(kwargs["train_dataloader"], args)

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Apply the unfreezing plan of the epoch."""
            self._epochs += 1
            self.run.begin_epoch(self._epochs)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Put averaged weights in place where the Trainer, as it has decided by now, evaluates next."""
            if control.should_evaluate and self.run.has_average:
                self._averaged.enter_context(self.run.averaged())

        on_epoch_end = on_step_end

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Go on training with the weights as they were."""
            self._averaged.close()

    return StrategyTrainerCallback


def _updates_per_epoch(loader: Any, args: Any) -> int:
    return max(len(loader) // args.gradient_accumulation_steps, 1)


def _check(run: Any, given: dict[str, Any]) -> None:
    if not wraps(given["optimizer"], run.optimizer) or given["lr_scheduler"] is not run.lr_scheduler:
        raise ValueError(
            "give the Trainer the binding's: run.attach(trainer), or "
            "Trainer(optimizers=(run.optimizer, run.lr_scheduler), callbacks=[run.trainer_callback()])"
        )


def _refuse_split(run: Any, args: Any) -> None:
    """Refuse what would train otherwise than the plan says.

    Raises:
        ValueError: a way of parallel training, with the reason.
    """
    for what, names in _SPLITS.items():
        if any(getattr(args, name, 1) > 1 for name in names):
            raise ValueError(f"{what}: layers and weights are split over processes, and a strategy needs them whole")
    stages = {str(getattr(stage, "value", stage)) for stage in args.sharding or ()}
    if stages - {"stage1"}:
        raise ValueError(
            f"sharding {' '.join(sorted(stages))}: it replaces parameters or gradients by slices that do not carry "
            "their settings; use stage1, a task or a Learner"
        )
    check_host(run, "the Trainer", wraps=not stages)
    splits = getattr(args, "split_param", False) or "split_param" in str(getattr(args, "sharding_parallel_config", ""))
    if stages and splits:
        sharding.refuse_splitting(run)
