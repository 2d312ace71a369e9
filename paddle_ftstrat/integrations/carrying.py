"""What every host needs: a binding from a block of its configuration, and the binding's state in its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim.regularizer import L2SPDecay, anchor_of
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.strategies import plain_data, strategy_from_dict

# The key of a block of configuration that holds the strategy, and those that say how it is bound.
STRATEGY = "strategy"
BIND = ("pretrained", "layers", "no_decay", "fused")


def carry(run: Any) -> None:
    """Let the state of a binding travel in that of its LR scheduler, and take up what a host has loaded.

    Args:
        run: the binding; once is enough.
    """
    if run.lr_scheduler.carries:
        return

    weights = list(select.named_weights(run.model).values())

    def give() -> dict[str, Any]:
        for regularizer, param in _l2sp(weights):
            if regularizer.anchor is None:
                # No update has used it, so the parameter has not moved.
                regularizer.anchor = anchor_of(param)
        # As arrays: Paddle saves a dict with tensors deeper inside in another form, which not every host reads.
        state = run.state_dict().items()
        return {key: _each(_array, value) for key, value in state if key not in ("optimizer", "lr_scheduler")}

    def take(carried: Mapping[str, Any], position: Mapping[str, Any]) -> None:
        # The optimizer's state comes from the host, under Paddle's names.
        run.set_state_dict({**_each(_tensor, carried), "optimizer": {}, "lr_scheduler": position})

    run.lr_scheduler.carry(give, take)
    # What a host loads may be of a time when other layers were frozen.
    _paddle.settle_when_loaded(run.optimizer, weights)


def _l2sp(weights: Iterable[Any]) -> list[tuple[L2SPDecay, Any]]:
    return [(param.regularizer, param) for param in weights if isinstance(param.regularizer, L2SPDecay)]


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """What stands in dicts, however deep, changed."""
    return {key: _each(change, inner) for key, inner in value.items()} if isinstance(value, Mapping) else change(value)


def _array(value: Any) -> Any:
    # numpy has no bfloat16.
    return value.numpy() if isinstance(value, paddle.Tensor) and value.dtype != paddle.bfloat16 else value


def _tensor(value: Any) -> Any:
    return paddle.to_tensor(value) if isinstance(value, np.ndarray) else value


def anchor_at_first_update(run: Any) -> None:
    """Let L2SP pull towards the weights that the first update finds: this host loads pretrained ones after binding.

    Args:
        run: the binding, carried.
    """
    for regularizer, _ in _l2sp(select.named_weights(run.model).values()):
        regularizer.anchor = None


def check_host(run: Any, host: str, wraps: bool = True) -> None:
    """Refuse a plan that a host cannot follow: its `paddle.DataParallel` misses thawing, it makes one pass per batch.

    Args:
        run: the binding.
        host: what the message calls the host.
        wraps: whether the host wraps the model in `paddle.DataParallel` where there are several processes.

    Raises:
        ValueError: there are several processes, and the plan thaws; the plan perturbs.
    """
    if run.plan.perturbation is not None:
        raise ValueError(
            f"perturbation {run.plan.perturbation.name} needs further passes over each batch, which {host} does not "
            "make: use a Learner, a task, or a loop over run.losses(...)"
        )
    if wraps and paddle.distributed.get_world_size() > 1 and run.plan.thaws:
        raise ValueError(
            f"gradual_unfreeze in several processes: {host} wraps the model in paddle.DataParallel, which does not "
            "notice layers that thaw later; use a task or a Learner there, or a strategy without gradual_unfreeze"
        )


def bind_block(block: Mapping[str, Any], model: Any, host: str, base_lr: Any = None, **length: int) -> Any:
    """A binding from a block of a host's configuration, carried in the host's checkpoints.

    Args:
        block: `strategy`, a dict as of `strategy.to_dict()` or the path of a YAML file, and beside it `pretrained`,
            `layers`, `no_decay` and `fused` of `bind`.
        model: the model.
        host: what messages call the host.
        base_lr: η where the strategy gives none.
        length: `num_epoch`, `steps_per_epoch`, `max_train_steps` of `bind`.

    Raises:
        ValueError: keys that would have no effect, two learning rates, several processes with thawing layers.
    """
    idle = [key for key in block if key not in (STRATEGY, *BIND)]
    if idle:
        raise ValueError(
            f"{host}: {_errors.listing(idle)} beside `strategy` would have no effect: the strategy brings optimizer, "
            f"schedule, regularization and clip; beside it stand only {_errors.listing(BIND)}"
        )
    given = block[STRATEGY]
    given = dict(given if isinstance(given, Mapping) else plain_data.read(given))
    if base_lr is not None and given.setdefault("learning_rate", base_lr) != base_lr:
        raise ValueError(
            f"{host}: two learning rates, {given['learning_rate']} of the strategy and {base_lr} of the configuration: "
            "leave the strategy's out, or give the same"
        )
    run = strategy_from_dict(given).bind(
        model,
        **length,
        **{key: value for key, value in block.items() if key != STRATEGY},
    )
    check_host(run, host)
    carry(run)
    return run
