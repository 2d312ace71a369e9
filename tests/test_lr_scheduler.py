"""OneFlow's LR schedulers: its own numbers, saved state, errors, and the curves behind them."""

import inspect
import json
import math
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ftstrat.optim import lr_scheduler
from paddle_ftstrat.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineDecayLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)
from paddle_ftstrat.schedules import torch_curves

ONEFLOW = golden("oneflow_lr.json")
TOLERANCE = ONEFLOW["tolerance"]
LAMBDAS = {
    "step//30": lambda step: step // 30,
    "0.95*step": lambda step: 0.95 * step,
    "0.9**step": lambda step: 0.9**step,
    "min(1,(step+1)/5)": lambda step: min(1, (step + 1) / 5),
}
STATELESS = {
    CosineAnnealingLR: {"T_max": 7, "eta_min": 0.01},
    CosineDecayLR: {"decay_steps": 9, "alpha": 0.1},
    ExponentialLR: {"gamma": 0.9},
    LambdaLR: {"lr_lambda": LAMBDAS["min(1,(step+1)/5)"]},
    MultiStepLR: {"milestones": [0, 3, 8], "gamma": 0.5},
    PolynomialLR: {"steps": 4, "power": 2.0, "cycle": True},
    StepLR: {"step_size": 3},
}
CURVE_SETTINGS = {
    "cosine_annealing": {"T_max": 70, "eta_min": 0.01},
    "cosine_decay": {"decay_steps": 90, "alpha": 0.1},
    "exponential": {"gamma": 0.99},
    "multi_step": {"milestones": [10, 30, 80], "gamma": 0.5},
    "polynomial": {"steps": 40, "power": 2.0},
    "step": {"step_size": 30},
}
quick = settings(deadline=None, max_examples=60)
schedulers = pytest.mark.parametrize("cls", STATELESS, ids=lambda cls: cls.__name__)


def optimizer(*lrs, **extra):
    return SimpleNamespace(param_groups=[{"lr": lr, **extra} for lr in lrs])


def lrs_of(opt):
    return [group["lr"] for group in opt.param_groups]


def arguments(case):
    kwargs = dict(case["kwargs"])
    if "lr_lambda" in kwargs:
        kwargs["lr_lambda"] = [LAMBDAS[text] for text in kwargs["lr_lambda"]]
    return kwargs


@pytest.mark.parametrize("case", ONEFLOW["cases"], ids=lambda c: f"{c['scheduler']}-{c['name']}")
def test_oneflow(case):
    opt, kwargs = optimizer(*case["base_lrs"]), arguments(case)
    if case.get("last_step", -1) >= 0:
        opt = optimizer(*[9.0] * len(case["base_lrs"]))
        for group, lr in zip(opt.param_groups, case["base_lrs"]):
            group["initial_lr"] = lr
    if "last_step" in case:
        kwargs["last_step"] = case["last_step"]
    scheduler = getattr(lr_scheduler, case["scheduler"])(opt, **kwargs)
    trace = [lrs_of(opt)]
    for k in range(1, len(case["lrs"])):
        scheduler.step(*([case["metrics"][k - 1]] if "metrics" in case else []))
        trace.append(lrs_of(opt))
        assert scheduler.get_last_lr() == lrs_of(opt)
    np.testing.assert_allclose(trace, case["lrs"], **TOLERANCE)
    assert all(type(lr) is float for lrs in trace for lr in lrs)


def test_one_lambda_for_all_groups():
    case = next(case for case in ONEFLOW["cases"] if case["name"] == "one_lambda_for_all_groups")
    scheduler = LambdaLR(optimizer(*case["base_lrs"]), LAMBDAS["0.9**step"])
    for expected in case["lrs"]:
        np.testing.assert_allclose(scheduler.get_last_lr(), expected, **TOLERANCE)
        scheduler.step()


def test_both_names_of_the_length_of_a_polynomial():
    assert PolynomialLR(optimizer(1.0), decay_batch=5, last_step=-1).state_dict()["settings"]["steps"] == 5
    with pytest.raises(TypeError, match="give either steps or decay_batch"):
        PolynomialLR(optimizer(1.0))
    with pytest.raises(TypeError, match="give either steps or decay_batch"):
        PolynomialLR(optimizer(1.0), 5, decay_batch=5)


@schedulers
def test_resuming(cls):
    opt, whole = optimizer(0.1, 0.2), []
    scheduler = cls(opt, **STATELESS[cls])
    for _ in range(12):
        whole.append(lrs_of(opt))
        scheduler.step()
    for done in (1, 5, 11):
        first = cls(optimizer(0.1, 0.2), **STATELESS[cls])
        for _ in range(done):
            first.step()
        state = pickle.loads(pickle.dumps(json.loads(json.dumps(first.state_dict()))))
        loaded = optimizer(5.0, 5.0)
        cls(loaded, **STATELESS[cls]).load_state_dict(state)
        assert lrs_of(loaded) == whole[done]
        assert [group["initial_lr"] for group in loaded.param_groups] == [0.1, 0.2]
        resumed = SimpleNamespace(param_groups=[dict(group) for group in first.optimizer.param_groups])
        assert cls(resumed, **STATELESS[cls], last_step=done - 1).get_last_lr() == whole[done]


@schedulers
def test_the_lr_is_a_function_of_the_step_alone(cls):
    opt = optimizer(0.1, 0.2)
    scheduler = cls(opt, **STATELESS[cls])
    opt.param_groups[0]["lr"] = 77.0
    expected = []
    for _ in range(12):
        scheduler.step()
        expected.append(scheduler.get_last_lr())
    for step in (3, 11, 0, 3, 7):
        scheduler.last_step = step
        scheduler.step()
        assert lrs_of(opt) == expected[step] == scheduler.get_lr()


@schedulers
def test_groups_added_later_are_refused(cls):
    opt = optimizer(0.1)
    scheduler = cls(opt, **STATELESS[cls])
    opt.param_groups.append({"lr": 0.5})
    with pytest.raises(ValueError, match="the optimizer has 2 parameter groups, but had 1 when this"):
        scheduler.step()


def test_a_changed_length_has_to_be_confirmed():
    saved = CosineAnnealingLR(optimizer(0.1), T_max=10).state_dict()
    other = CosineAnnealingLR(optimizer(0.1), T_max=20)
    with pytest.raises(ValueError, match=r"'T_max': 10.*'T_max': 20.*strict=False"):
        other.load_state_dict(saved)
    other.load_state_dict(saved, strict=False)
    other.step()
    assert other.get_last_lr() == CosineAnnealingLR(optimizer(0.1, initial_lr=0.1), T_max=20, last_step=0).get_last_lr()


def test_verbose(capsys):
    StepLR(optimizer(0.1, 0.2), step_size=3, verbose=True)
    assert capsys.readouterr().out.splitlines()[1] == "StepLR: step 0, param_groups[1]: lr = 0.2"
    ReduceLROnPlateau(optimizer(0.1), patience=0, verbose=True).step(math.nan)
    assert capsys.readouterr().out == "ReduceLROnPlateau: step 1, param_groups[0]: lr = 0.01\n"


@quick
@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=40),
    st.sampled_from(["min", "max"]),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.data(),
)
def test_plateau_goes_on_from_its_state(metrics, mode, threshold_mode, patience, cooldown, data):
    make = partial(
        ReduceLROnPlateau,
        mode=mode,
        threshold_mode=threshold_mode,
        patience=patience,
        cooldown=cooldown,
        threshold=0.01,
        min_lr=[1e-3, 0],
    )
    cut = data.draw(st.integers(0, len(metrics)))
    whole, first = make(optimizer(1.0, 0.5)), make(optimizer(1.0, 0.5))
    for metric in metrics[:cut]:
        first.step(metric)
    rest = make(optimizer(3.0, 3.0))
    rest.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    lrs = []
    for index, metric in enumerate(metrics):
        whole.step(metric)
        if index >= cut:
            rest.step(metric)
            assert rest.get_last_lr() == whole.get_last_lr()
        lrs.append(whole.get_last_lr())
    assert np.all(np.diff(np.array(lrs), axis=0) <= 0)
    assert rest.state_dict() == whole.state_dict()
    best = min if mode == "min" else max
    assert best(metrics) == pytest.approx(whole.best, abs=0.02 + 1e-9)


def test_plateau_takes_tensors_and_nan():
    scheduler = ReduceLROnPlateau(optimizer(1.0), patience=1)
    for metric in (paddle.to_tensor(0.5), paddle.to_tensor([0.4]), math.nan, math.nan):
        scheduler.step(metric)
    assert scheduler.best == pytest.approx(0.4)
    assert scheduler.get_last_lr() == [0.1]


@pytest.mark.parametrize("name", CURVE_SETTINGS)
@quick
@given(asked=st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_curves_have_no_state(name, asked):
    curve = getattr(torch_curves, name)(0.1, **CURVE_SETTINGS[name])
    again = pickle.loads(pickle.dumps(curve))
    singles = [curve(t) for t in asked]
    assert singles == [again(t) for t in reversed(asked)][::-1]
    np.testing.assert_allclose(curve(np.array(asked)), singles, rtol=1e-12, atol=1e-16)
    assert all(type(value) is float for value in singles)
    assert curve(0) == pytest.approx(0.1)
    if name != "cosine_annealing":
        assert np.all(np.diff(curve.values(300)) <= 0)


CURVE_OF = {
    CosineAnnealingLR: "cosine_annealing",
    CosineDecayLR: "cosine_decay",
    ExponentialLR: "exponential",
    MultiStepLR: "multi_step",
    PolynomialLR: "polynomial",
    StepLR: "step",
}


@pytest.mark.parametrize("cls", CURVE_OF, ids=lambda cls: cls.__name__)
def test_a_scheduler_tells_the_formula_options_and_source_of_its_curve(cls):
    text, curve = cls.__doc__, getattr(torch_curves, CURVE_OF[cls]).__doc__
    head, _, options = inspect.cleandoc(curve).partition("\n\nRaises:")[0].partition("    learning_rate: ")
    assert text.startswith(head)
    assert options.partition("\n")[2] in text
    assert curve.partition("Source:")[2].strip() in text
    assert "learning_rate:" not in text.replace("end_learning_rate:", "")
    example = text.partition("Example:")[2].partition("Source:")[0]
    assert f"{cls.__name__}(" in example
    assert f"{CURVE_OF[cls]}(1.0" not in example


@quick
@given(st.integers(1, 50), st.integers(1, 200))
def test_a_cycling_polynomial_is_a_polynomial_on_a_longer_way(steps, t):
    way = steps * math.ceil(t / steps)
    cycling = torch_curves.polynomial(1.0, steps=steps, power=1.5, cycle=True)
    assert cycling(t) == pytest.approx(torch_curves.polynomial(1.0, steps=way, power=1.5)(t), abs=1e-15)
    assert cycling(0) == cycling(1)


DEFAULTS = {  # function → options, names of its pieces, its values over 10 updates with the other options left out
    "cosine_annealing": ({}, ["cosine"], lambda t: (1 + math.cos(math.pi * t / 10)) / 2),
    "cosine_decay": ({}, ["cosine"], lambda t: (1 + math.cos(math.pi * t / 10)) / 2),
    "exponential": ({}, ["exponential"], lambda t: 0.999**t),
    "multi_step": ({"milestones": [3, 7]}, ["constant"] * 3, lambda t: 0.1 ** ((t >= 3) + (t >= 7))),
    "polynomial": ({}, ["polynomial"], lambda t: (1 - 1e-4) * (1 - t / 10) + 1e-4),
    "step": ({}, ["steps"], lambda t: 0.1 ** (t // 4)),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_left_out_follows_from_the_length_of_the_training(name):
    options, pieces, formula = DEFAULTS[name]
    schedule = getattr(torch_curves, name)(1.0, 10, **options)
    assert [piece.name for piece in schedule.pieces] == pieces
    np.testing.assert_allclose(schedule.values(11), [formula(t) for t in range(11)], rtol=1e-12)


def test_a_width_of_steps_that_is_given_is_kept():
    assert torch_curves.step(1.0, 10, step_size=5).values(6).tolist() == [1.0] * 5 + [0.1]


def test_a_cycling_polynomial_is_named_in_both_of_its_pieces():
    assert {piece.name for piece in torch_curves.polynomial(1.0, 10, cycle=True).pieces} == {"polynomial"}


ONE = optimizer(0.1)
BAD = [
    (lambda: StepLR(paddle.nn.Linear(1, 1), 3), TypeError, "optimizer with param_groups, a list of dicts, not Linear"),
    (lambda: StepLR(optimizer(), 3), ValueError, "param_groups is empty"),
    (
        lambda: StepLR(SimpleNamespace(param_groups=[{"params": []}]), 3),
        ValueError,
        r"\[0\] has no 'lr'; it has params",
    ),
    (lambda: StepLR(optimizer("0.1"), 3), TypeError, r"param_groups\[0\]\['lr'\] must be a number"),
    (lambda: StepLR(optimizer(0.1), 3, last_step=2), ValueError, r"param_groups\[0\] has no 'initial_lr'"),
    (lambda: StepLR(ONE, 3, last_step=-2), ValueError, "last_step = -2 .* ≥ -1"),
    (lambda: StepLR(ONE, 0), ValueError, "step_size = 0 .* ≥ 1"),
    (lambda: StepLR(ONE, 2.5), TypeError, "step_size must be a whole number, not 2.5"),
    (lambda: StepLR(ONE, 3, gamma=0), ValueError, "gamma = 0 .* > 0"),
    (lambda: ExponentialLR(ONE, -1.0), ValueError, "gamma = -1.0 .* > 0"),
    (lambda: MultiStepLR(ONE, [5, 3]), ValueError, r"milestones = \[5, 3\] must ascend"),
    (lambda: MultiStepLR(ONE, [3, 3]), ValueError, "must ascend"),
    (lambda: MultiStepLR(ONE, [-1, 3]), ValueError, r"milestones\[0\] = -1 .* ≥ 0"),
    (lambda: MultiStepLR(ONE, 3), TypeError, "milestones must be a list of update indices, not 3"),
    (lambda: MultiStepLR(ONE, [3], gamma=0), ValueError, r"^gamma = 0 "),
    (lambda: CosineAnnealingLR(ONE, 0), ValueError, "T_max = 0 .* ≥ 1"),
    (lambda: CosineAnnealingLR(ONE, 5, eta_min=-1), ValueError, "eta_min = -1 .* ≥ 0"),
    (lambda: CosineDecayLR(ONE, 0), ValueError, "decay_steps = 0 .* ≥ 1"),
    (lambda: CosineDecayLR(ONE, 5, alpha=-0.1), ValueError, "alpha = -0.1 .* ≥ 0"),
    (lambda: PolynomialLR(ONE, 0), ValueError, "steps = 0 .* ≥ 1"),
    (lambda: PolynomialLR(ONE, 5, power=0), ValueError, "power = 0 .* > 0"),
    (lambda: PolynomialLR(ONE, 5, end_learning_rate=-1), ValueError, "end_learning_rate = -1 .* ≥ 0"),
    (lambda: LambdaLR(ONE, [abs, abs]), ValueError, "lr_lambda has 2 functions, but the optimizer has 1 groups"),
    (lambda: LambdaLR(ONE, 0.5), TypeError, r"lr_lambda\[0\] must be a function of the update index, not 0.5"),
    (lambda: ReduceLROnPlateau(ONE, mode="mim"), ValueError, "unknown mode 'mim'. Did you mean 'min'"),
    (lambda: ReduceLROnPlateau(ONE, threshold_mode="ratio"), ValueError, "unknown threshold_mode .* rel, abs"),
    (lambda: ReduceLROnPlateau(ONE, factor=1.0), ValueError, "factor = 1.0 .* < 1"),
    (lambda: ReduceLROnPlateau(ONE, patience=-1), ValueError, "patience = -1 .* ≥ 0"),
    (
        lambda: ReduceLROnPlateau(ONE, min_lr=[0, 0]),
        ValueError,
        r"min_lr = \[0, 0\] has 2 values, but the optimizer has 1 groups",
    ),
    (lambda: StepLR(ONE, 3).load_state_dict({"last_step": 3}), ValueError, "has no base_lrs, last_lr, settings"),
    (
        lambda: StepLR(ONE, 3).load_state_dict(StepLR(optimizer(1, 2), 3).state_dict()),
        ValueError,
        "is of 2 parameter groups, the optimizer has 1",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
