"""Curves: formulas, statelessness, arrays, joining; and their bridge to Paddle."""

import math
import pickle

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_ftstrat import schedules
from paddle_ftstrat.optim.build import ScheduleLR
from paddle_ftstrat.schedules import SCHEDULES as CURVES
from paddle_ftstrat.schedules import Schedule as Curve
from paddle_ftstrat.schedules import curves

OPTIONS = {
    "constant": {},
    "warmup": {"proportion": 0.3},
    "linear_decay": {"start_point": 0.4, "end_learning_rate": 0.01, "warmup_proportion": 0.2},
    "noam_decay": {"warmup_proportion": 0.2},
    "slanted_triangle": {"cut_fraction": 0.25, "ratio": 16},
}


def by_the_table(name, t, rate, total, options):
    """The formulas of the documentation, written down once more."""
    if name == "constant":
        return rate
    warm = int(total * options.get("proportion", options.get("warmup_proportion", 0)))
    if name == "warmup":
        return rate * t / warm if t < warm else rate
    if name == "linear_decay":
        end = options["end_learning_rate"]
        if t < warm:
            return rate * t / warm
        if t < max(int(total * options["start_point"]), warm):
            return rate
        return (rate - end) * (1 - t / total) + end
    if name == "noam_decay":
        return rate * math.sqrt(warm) * min((t + 1) ** -0.5, (t + 1) * warm**-1.5)
    cut, ratio = int(total * options["cut_fraction"]), options["ratio"]
    height = (t / cut) if t <= cut and cut else 1 - (t - cut) / (total - cut)
    return rate * (1 + height * (ratio - 1)) / ratio


ELSEWHERE = {"one_cycle", "flat_cos", "sgdr"}  # test_policies.py
WITHOUT_LENGTH = set(vars(schedules.torch_curves))  # test_lr_scheduler.py


def test_every_registered_curve_is_in_a_table():
    assert {name for name, build in CURVES.items() if build.__name__ not in WITHOUT_LENGTH} == set(OPTIONS) | ELSEWHERE


@pytest.mark.parametrize("name", OPTIONS)
@given(total=st.integers(10, 500), rate=st.floats(1e-6, 10), data=st.data())
def test_formula_statelessness_and_clamping(name, total, rate, data):
    curve = CURVES[name](rate, total, **OPTIONS[name])
    asked = data.draw(st.lists(st.integers(0, total), min_size=1))
    for t in [*asked, *asked[::-1]]:
        assert curve(t) == pytest.approx(by_the_table(name, t, rate, total, OPTIONS[name]), rel=1e-9, abs=1e-15)
        assert type(curve(t)) is float
    assert curve(total + 1) == curve(10**9) == curve(total)
    assert curve(-5) == curve(0)


@pytest.mark.parametrize("name", OPTIONS)
def test_array_equals_scalars_and_pickles(name):
    curve = CURVES[name](0.1, 97, **OPTIONS[name])
    t = np.arange(-3, 120)
    np.testing.assert_allclose(curve(t), [curve(int(i)) for i in t], rtol=1e-14)
    assert curve(t.reshape(3, 41)).shape == (3, 41)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(curve)).values(97), curve.values(97))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("warmup", {"proportion": 0.1}),
        ("linear_decay", {"start_point": 0.0, "end_learning_rate": 0.0, "warmup_proportion": 0.1}),
        ("linear_decay", {"start_point": 1.0, "end_learning_rate": 0.2, "warmup_proportion": 0.0}),
        ("noam_decay", {"warmup_proportion": 0.1}),
        ("slanted_triangle", {"cut_fraction": 0.1, "ratio": 1}),
        ("slanted_triangle", {"cut_fraction": 0.1, "ratio": 16}),
    ],
)
def test_one_update_that_rises_and_the_ends_of_what_is_allowed(name, options):
    expected = [by_the_table(name, t, 0.5, 10, options) for t in range(11)]
    np.testing.assert_allclose(CURVES[name](0.5, 10, **options).values(11), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "options", "values"),
    [
        ("one_cycle", {"div": 0.5, "div_final": 0.25, "pct_start": 0.0}, (1, 2.5, 4)),
        ("one_cycle", {"div": 0.5, "div_final": 0.25, "pct_start": 1.0}, (2, 1.5, 1)),
        ("flat_cos", {"div_final": 0.5, "pct_start": 0.0}, (1, 1.5, 2)),
        ("flat_cos", {"div_final": 0.5, "pct_start": 1.0}, (1, 1, 1)),
        ("sgdr", {"n_cycles": 1}, (1, 0.5, 0)),
        ("sgdr", {"n_cycles": 2, "cycle_mult": 1}, (1, 1, 0)),
    ],
)
def test_cosines_at_the_ends_of_what_is_allowed(name, options, values):
    np.testing.assert_allclose([CURVES[name](1.0, 8, **options)(t) for t in (0, 4, 8)], values, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "given", "defaults"),
    [
        ("warmup", {}, {"proportion": 0}),
        ("linear_decay", {}, {"start_point": 0, "end_learning_rate": 0, "warmup_proportion": 0}),
        ("slanted_triangle", {}, {"cut_fraction": 0.1, "ratio": 32}),
        ("one_cycle", {}, {"div": 25, "div_final": 100_000, "pct_start": 0.25}),
        ("flat_cos", {}, {"div_final": 100_000, "pct_start": 0.75}),
        ("sgdr", {}, {"n_cycles": 1}),
        ("sgdr", {"n_cycles": 2}, {"cycle_mult": 2}),
    ],
)
def test_defaults(name, given, defaults):
    short, full = CURVES[name](0.1, 40, **given), CURVES[name](0.1, 40, **given, **defaults)
    np.testing.assert_array_equal(short.values(41), full.values(41))


@pytest.mark.parametrize(
    ("name", "options", "stretches"),
    [
        ("constant", {}, [("constant", 0, 20)]),
        ("warmup", OPTIONS["warmup"], [("warmup", 0, 6), ("constant", 6, 20)]),
        ("linear_decay", OPTIONS["linear_decay"], [("warmup", 0, 4), ("constant", 4, 8), ("linear decay", 8, 20)]),
        ("noam_decay", OPTIONS["noam_decay"], [("warmup", 0, 4), ("noam decay", 4, 20)]),
        ("slanted_triangle", OPTIONS["slanted_triangle"], [("rise", 0, 5), ("fall", 5, 20)]),
        ("slanted_triangle", {"cut_fraction": 1}, [("rise", 0, 20)]),
        ("one_cycle", {}, [("rise", 0, 5), ("fall", 5, 20)]),
        ("one_cycle", {"pct_start": 0}, [("fall", 0, 20)]),
        ("flat_cos", {}, [("constant", 0, 15), ("cosine", 15, 20)]),
        ("sgdr", {"n_cycles": 2}, [("cycle 1", 0, 6), ("cycle 2", 6, 20)]),
    ],
)
def test_the_names_of_the_parts(name, options, stretches):
    assert CURVES[name](0.1, 20, **options).stretches(20) == stretches


@pytest.mark.parametrize("cut", [0.0, 0.001, 1.0])
def test_triangle_at_its_borders(cut):
    curve = curves.slanted_triangle(0.32, 50, cut, 32)
    assert max(curve.values(51)) == pytest.approx(0.32)
    assert curve(0) == pytest.approx(0.01 if cut == 1.0 else 0.32)


def test_linear_decay_jumps_where_it_starts_as_paddlehub_does():
    curve = curves.linear_decay(1.0, 10, start_point=0.5)
    assert (curve(4), curve(5)) == (1.0, 0.5)


@given(start=st.integers(0, 20))
def test_then_joins_at_the_start(start):
    first, second = Curve([(0, lambda t: 0 * t + 1.0)]), Curve([(0, lambda t: 0 * t + 2.0), (5, lambda t: t)], end=20)
    joined = first.then(start, second)
    for t in range(21):
        assert joined(t) == (first(t) if t < start else second(t))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: curves.warmup(0.1, 0, 0.1), "max_train_steps = 0 .* ≥ 1"),
        (lambda: curves.warmup(0.1, 10, 1.5), "warmup = 1.5 .* ≤ 1"),
        (lambda: curves.noam_decay(0.1, 5, 0.1), "at least one warmup update"),
        (lambda: curves.linear_decay(0.1, 10, start_point=-0.1), "start_point = -0.1"),
        (lambda: curves.linear_decay(0.1, 10, start_point=1.5), "start_point = 1.5 .* ≤ 1"),
        (lambda: curves.linear_decay(0.1, 10, end_learning_rate=-0.1), "end_learning_rate = -0.1 .* ≥ 0"),
        (lambda: curves.slanted_triangle(0.1, 0), "max_train_steps = 0 .* ≥ 1"),
        (lambda: curves.slanted_triangle(0.1, 10, 1.5), "cut_fraction = 1.5 .* ≤ 1"),
        (lambda: curves.slanted_triangle(0.1, 10, -0.5), "cut_fraction = -0.5 .* ≥ 0"),
        (lambda: curves.slanted_triangle(0.1, 10, ratio=0.5), "ratio = 0.5 .* ≥ 1"),
        (lambda: curves.one_cycle(0.1, 0), "max_train_steps = 0 .* ≥ 1"),
        (lambda: curves.one_cycle(0.1, 10, 0), "^div = 0 .* > 0"),
        (lambda: curves.one_cycle(0.1, 10, div_final=0), "^div_final = 0 .* > 0"),
        (lambda: curves.one_cycle(0.1, 10, pct_start=1.5), "^pct_start = 1.5 .* ≤ 1"),
        (lambda: curves.one_cycle(0.1, 10, pct_start=-0.5), "^pct_start = -0.5 .* ≥ 0"),
        (lambda: curves.flat_cos(0.1, 0), "max_train_steps = 0 .* ≥ 1"),
        (lambda: curves.flat_cos(0.1, 10, 0), "div_final = 0 .* > 0"),
        (lambda: curves.flat_cos(0.1, 10, pct_start=1.5), "pct_start = 1.5 .* ≤ 1"),
        (lambda: curves.flat_cos(0.1, 10, pct_start=-0.5), "pct_start = -0.5 .* ≥ 0"),
        (lambda: curves.sgdr(0.1, 0), "max_train_steps = 0 .* ≥ 1"),
        (lambda: curves.sgdr(0.1, 10, 0), "n_cycles = 0 .* ≥ 1"),
        (lambda: curves.sgdr(0.1, 10, 2, 0), "cycle_mult = 0 .* ≥ 1"),
        (lambda: Curve([(1, float)]), "start at 0"),
        (lambda: Curve([(0, float)], end=-1), "end must be ≥ 0"),
        (lambda: schedules.register("warmup")(float), "already registered"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestScheduleLR:
    def test_is_a_paddle_scheduler_and_has_one_piece_of_state(self):
        scheduler = ScheduleLR(curves.linear_decay(1.0, 10))
        for _ in range(3):
            scheduler.step()
        assert isinstance(scheduler, paddle.optimizer.lr.LRScheduler)
        assert scheduler.state_dict() == {"last_epoch": 3, "last_lr": scheduler()}
        other = ScheduleLR(curves.linear_decay(1.0, 10))
        other.set_state_dict(scheduler.state_dict())
        other.step()
        assert other() == pytest.approx(0.6)

    def test_asked_out_of_order(self):
        scheduler = ScheduleLR(curves.linear_decay(1.0, 10))
        for t in (7, 2, 99, 0):
            scheduler.step(t)
            assert scheduler() == pytest.approx(max(0.0, 1 - t / 10))

    def test_past_the_end_where_onecycle_of_paddle_raises(self):
        plain = paddle.optimizer.lr.OneCycleLR(0.1, total_steps=5)
        with pytest.raises(ValueError, match="step"):
            for _ in range(10):
                plain.step()
        ours = ScheduleLR(curves.linear_decay(0.1, 5))
        for _ in range(10):
            ours.step()
        assert ours() == 0.0

    def test_numpy_and_int_values_become_floats_where_paddle_refuses_them(self):
        for value in (1, np.float32(0.5)):
            with pytest.raises(TypeError):
                paddle.optimizer.SGD(value, parameters=paddle.nn.Linear(1, 1).parameters())
            scheduler = ScheduleLR(lambda t, value=value: value)
            assert type(scheduler()) is float
            paddle.optimizer.SGD(scheduler, parameters=paddle.nn.Linear(1, 1).parameters())

    def test_refuses_what_is_no_function(self):
        with pytest.raises(TypeError, match="function of the update index"):
            ScheduleLR(0.1)
        with pytest.raises(TypeError, match="function of the update index"):
            ScheduleLR(curves.constant(0.1)).follow(None)
