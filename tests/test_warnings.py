"""A warning names the user's line, from wherever in the package it comes."""

import warnings

import numpy as np
import pytest
from paddle import nn

import paddle_ftstrat as hub

PAIRS = [(np.zeros(3, "float32"), np.int64(number % 2)) for number in range(8)]


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: hub.CombinedStrategy(scheduler={"slanted_triangle": {"ratio": 8}}),
        lambda: hub.ULMFiTStrategy().bind(net(), num_epoch=3, steps_per_epoch=2),
        lambda: hub.Learner(net(), PAIRS, progress=False).fit(3, strategy=hub.ULMFiTStrategy()),
        lambda: hub.RunConfig(use_pyreader=False),
        lambda: hub.load_pretrained(bound(), net().state_dict()),
    ],
    ids=["strategy", "bind", "fit", "RunConfig", "load_pretrained"],
)
def test_the_line_of_the_call_is_named(call):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        call()
    ours = [warning for warning in heard if issubclass(warning.category, UserWarning)]
    assert ours
    assert {warning.filename for warning in ours} == {__file__}


def bound():
    model = net()
    hub.L2SPFinetuneStrategy(1e-3).bind(model, pretrained="*", max_train_steps=4)
    return model
