"""Configurations at random: each trains, or is refused with the key that is wrong; none ends the process.

`FTSTRAT_FUZZ=10000 pytest -s tests/test_fuzz_config.py` tries so many of them, by default it is 1500.
"""

import math
import os
import re
import warnings

import numpy as np
import paddle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim import table
from paddle_ftstrat.strategies.keys import CLIP, REGULARIZATION, SCHEDULER

EXAMPLES = int(os.environ.get("FTSTRAT_FUZZ", "1500"))

# fmt: off
ODD = st.sampled_from([
    math.nan, math.inf, -math.inf, -1, -0.5, 0, 1, 2, 1e300, 1e-300, 10**400, True, None, "", "adam", "0.1", 1j, b"1",
    np.True_, np.float32(0.5), np.int64(2), np.array(0.9), np.array([0.9]), np.array(True), object(), int,
    paddle.ones([]), paddle.ones([2]), [], [1], {}, (), {"blocks": 2}, {1: 2},
])
# fmt: on


@st.composite
def mostly(draw, good):
    """Most values are good ones: a configuration of many keys must have a chance to train."""
    return draw(ODD if draw(st.sampled_from(range(10))) == 9 else good)


SHARE = mostly(st.floats(0, 1))
SMALL = mostly(st.sampled_from([0.0, 1e-4, 0.01, 0.5, 1]))
BLOCKS = mostly(st.sampled_from([0, 1, 2, 3, 7]))
LAYERS = mostly(
    st.none()
    | st.dictionaries(st.sampled_from(["0.weight", "2.weight", "2.bias", "9.weight"]), mostly(st.integers(0, 3)))
)
VALUES = {
    "warmup": SHARE,
    "noam_decay": mostly(st.booleans()),
    "start_point": SHARE,
    "end_learning_rate": SMALL,
    "cut_fraction": SHARE,
    "ratio": mostly(st.floats(1, 50)),
    "blocks": BLOCKS,
    "factor": mostly(st.floats(0.5, 4)),
    "params_layer": LAYERS,
}


@st.composite
def some(draw, entries, typo):
    """Any of the entries, and now and then a key that there is not."""
    known = draw(st.fixed_dictionaries({}, optional=entries))
    return {**known, typo: 1} if draw(st.sampled_from(range(20))) == 19 else known


def section(key):
    if not isinstance(SCHEDULER[key], dict):
        return VALUES[key]
    entries = mostly(some({name: VALUES[name] for name in SCHEDULER[key]}, "typo_entry"))
    return entries | BLOCKS if "blocks" in SCHEDULER[key] else entries


OPTION = {
    **dict.fromkeys(("beta1", "beta2", "momentum", "rho", "decay"), SHARE),
    **dict.fromkeys(
        ("use_nesterov", "centered", "lazy_mode", "amsgrad", "multi_precision", "always_adapt"), mostly(st.booleans())
    ),
}


@st.composite
def configurations(draw):
    """Arguments of a strategy and of bind(), by name."""
    # Not those that other tests have registered.
    own = [row.name for row in table.ROWS.values() if not row.registered]
    name = draw(st.sampled_from([*own, *own, "Adam", "adma", "lbfgs"]))
    known = table.find(name).defaults if name.lower() in table.names() else {}
    options = {
        key: OPTION.get(key, SMALL)
        for key in known
        if key not in ("learning_rate_range", "etas", "lr_ratio", "grad_clip")
    }
    odd = {key: ODD for key in known if key not in options}
    given = {
        "optimizer_name": draw(mostly(st.just(name))),
        "learning_rate": draw(mostly(st.sampled_from([1e-6, 1e-3, 0.01]))),
        "scheduler": draw(mostly(some({key: section(key) for key in SCHEDULER}, "typo_schedule"))),
        "regularization": draw(mostly(some(dict.fromkeys(REGULARIZATION, SMALL), "typo_regularizer"))),
        "clip": draw(mostly(some(dict.fromkeys(CLIP, SMALL), "typo_clip"))),
    }
    given = {key: value for key, value in given.items() if draw(st.booleans())}
    extra = draw(st.sampled_from([{}, {}, options, {**options, **odd}]))
    given.update(
        draw(some(dict(sorted(extra.items())[: draw(st.integers(0, 3))]), "typo_option") if extra else st.just({}))
    )
    bound = {
        "max_train_steps": draw(mostly(st.sampled_from([1, 10]))),
        "num_epoch": draw(mostly(st.integers(1, 3))),
        "steps_per_epoch": draw(mostly(st.integers(1, 5))),
        "fused": draw(st.sampled_from([None, None, None, True, False, False, 1])),
        "no_decay": draw(st.sampled_from([None, None, [], "0.*", ["0.*", "2.*"], ["nothing"]])),
        "pretrained": draw(st.sampled_from([None, "*", "*", "0.*", [], {"0.weight": 1}, 4.5])),
        "layers": draw(st.sampled_from([None, None, ["0", "2"], ["0", "2"], ["0", "*"], 3])),
        "sample_input": draw(st.sampled_from([None, *[paddle.ones([1, 3])] * 4, paddle.ones([1, 4])])),
    }
    return given, {key: value for key, value in bound.items() if draw(st.integers(0, 5)) == 0}


def keys_of(tree):
    """Every name in the arguments that an error could mean."""
    found = set()
    for key, value in tree.items():
        found |= {str(key)} | (keys_of(value) if isinstance(value, dict) else set())
    return found


def is_named(message, given, bound):
    """Whether a message has one of the keys; an optimizer and L2SP are called by what they are."""
    words = set(re.findall(r"\w+", message))
    return bool(words & {*keys_of(given), *bound, "optimizer", "L2SP"})


def refusal(given, bound, model):
    """What is said where the configuration is refused; else "", after an update of the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = hub.CombinedStrategy(**given).bind(model, **bound)
        except (ValueError, TypeError) as error:
            return str(error) or repr(error)
        run.begin_epoch()
        model(paddle.ones([2, 3])).square().mean().backward()
        run.step()
        return ""


def test_a_configuration_trains_or_is_refused_by_its_key():
    counts = {"trained": 0, "refused": 0}

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(configurations())
    def check(configuration):
        given, bound = configuration
        model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
        message = refusal(given, bound, model)
        assert all(np.isfinite(param.numpy()).all() for param in model.parameters())
        if message:
            assert is_named(message, given, bound), message
            assert len(message) <= 1000
            assert not any(param.stop_gradient for param in model.parameters())
        counts["refused" if message else "trained"] += 1

    check()
    print(counts)
    assert min(counts.values()) > 0.1 * EXAMPLES
