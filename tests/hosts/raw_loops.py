"""What the tests of all hosts share: the strategy, the loop by hand, and what is read from weights."""

import contextlib
import warnings

import numpy as np
from paddle.utils import unique_name

from paddle_ftstrat.strategies import strategy_from_dict

EPOCHS = 4
# Discriminative learning rates, gradual unfreezing, L2SP, warmup and linear decay.
STRATEGY = {
    "strategy": "CombinedStrategy",
    "optimizer_name": "momentum",
    "learning_rate": 0.05,
    "scheduler": {
        "warmup": 0.2,
        "linear_decay": {"start_point": 0.2},
        "discriminative": {"blocks": 3, "factor": 2.0},
        "gradual_unfreeze": {"blocks": 3},
    },
    "regularization": {"L2SP": 0.01},
    "clip": {"GlobalNorm": 1.0},
}


@contextlib.contextmanager
def new_process():
    """Paddle's generated names begin anew, as in a process that is started again; no warnings."""
    with unique_name.guard(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def bind(model, steps_per_epoch, strategy=STRATEGY, **options):
    return strategy_from_dict(strategy).bind(model, num_epoch=EPOCHS, steps_per_epoch=steps_per_epoch, **options)


def by_hand(model, batches_of, loss_of, steps_per_epoch, strategy=STRATEGY, **options):
    """The loop that somebody writes with the library alone; the weights after each epoch."""
    run, weights = bind(model, steps_per_epoch, strategy, **options), [values(model)]
    for epoch in range(1, EPOCHS + 1):
        run.begin_epoch()
        for batch in batches_of(epoch):
            loss_of(model, batch).backward()
            run.step()
        weights.append(values(model))
    return weights


def values(model):
    state = model if isinstance(model, dict) else model.state_dict()
    return {name: np.array(value.numpy()) for name, value in state.items() if hasattr(value, "numpy")}


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def moved(before, after):
    """The names of the weights that an epoch has changed."""
    return {name for name, value in before.items() if not (value == after[name]).all()}
