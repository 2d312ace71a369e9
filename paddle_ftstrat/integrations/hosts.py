"""`run.attach(host)`: a binding in somebody else's loop, whichever it is, with its state in that loop's checkpoints."""

from __future__ import annotations

from typing import Any

import paddle

from paddle_ftstrat._paddle.sharding import is_wrapper
from paddle_ftstrat.integrations import paddle_model, paddledet, sharding, trainers
from paddle_ftstrat.integrations.carrying import carry


def attach(run: Any, host: Any = None) -> tuple[Any, Any]:
    """Put a binding into somebody else's training loop.

    From then on the state of the binding travels in what every loop saves, `lr_scheduler.state_dict()` (and with it
    `optimizer.state_dict()`): phase, epoch, L2SP anchors, hyper-parameters. A loop that loads these in its own way goes
    on where it was.

    Args:
        run: the binding.
        host: a `Trainer` of PaddleNLP or PaddleFormers, made without `optimizers=`, sharded or not; PaddleDetection's
            `Trainer`; what `fleet.distributed_optimizer(run.optimizer)` gave; a `paddle.Model` that is prepared with
            `run.optimizer`, whose `fit` then needs no callback; None: a loop that is given optimizer and LR scheduler,
            `paddleseg.core.train` or one's own.

    Returns:
        `run.optimizer` and `run.lr_scheduler`, of which the loop calls `step()` after each backward pass.

    Raises:
        TypeError: an object of another class; the message lists those that are known.
        ValueError: the host trains another model, or in a way in which this strategy would be wrong.

    Example:
        >>> import paddle_ftstrat as hub
        >>> model = paddle.nn.Sequential(*(paddle.nn.Linear(2, 2) for _ in range(3)))
        >>> run = hub.ULMFiTStrategy(0.1, "sgd").bind(model, num_epoch=3, steps_per_epoch=1)
        >>> optimizer, lr_scheduler = run.attach()
        >>> for _ in range(3):
        ...     model(paddle.ones([1, 2])).sum().backward()
        ...     optimizer.step()
        ...     optimizer.clear_grad()
        ...     print(sum(not param.stop_gradient for param in model.parameters()))
        ...     lr_scheduler.step()
        2
        4
        6
    """
    # By name, so that no host is imported that is not there.
    trainer_of = {cls.__module__.partition(".")[0] for cls in type(host).__mro__ if cls.__name__ == "Trainer"}
    if isinstance(host, paddle.Model):
        paddle_model.attach(run, host)
    elif is_wrapper(host):
        sharding.attach(run, host)
    elif not trainer_of.isdisjoint(trainers.PACKAGES):
        trainers.attach(run, host)
    elif "ppdet" in trainer_of:
        paddledet.attach(run, host)
    elif host is not None:
        raise TypeError(
            f"attach() does not know {type(host).__name__}; it knows paddle.Model, the Trainers of PaddleNLP, "
            "PaddleFormers and PaddleDetection, fleet's distributed optimizer, and, without an argument, any loop that "
            "is given an optimizer and an LR scheduler. PaddleOCR and PaddleSeg take a strategy in their configuration "
            "(docs/integrations.md); in a loop of your own, with a GradScaler or paddle.DataParallel too, call "
            "run.step(scaler)"
        )
    carry(run)
    return run.optimizer, run.lr_scheduler
