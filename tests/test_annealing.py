"""Annealers and joined schedules: fastai's own numbers, and what holds for any schedule."""

import math
import pickle

import numpy as np
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ftstrat.schedules import annealing
from paddle_ftstrat.schedules.annealing import (
    SchedCos,
    SchedExp,
    SchedLin,
    SchedNo,
    SchedPoly,
    annealer,
    combine_scheds,
    combined_cos,
)

FASTAI = golden("fastai.json")
MAKERS = {"no": SchedNo, "lin": SchedLin, "cos": SchedCos, "exp": SchedExp, "poly": SchedPoly}
TWO_GROUPS = ([1.0, 0.1], [0.5, 0.2])

positions = st.floats(0, 1)
values = st.floats(1e-6, 1e3)
quick = settings(deadline=None, max_examples=60)


@annealer
def sched_of_a_user(start, end, pos):
    return start + (end - start) * math.sqrt(pos)


def make(case):
    power = (case["power"],) if "power" in case else ()
    return MAKERS[case["kind"]](case["start"], case["end"], *power)


def every_schedule():
    power = {SchedPoly: (1.5,)}
    one = [maker(0.1, 2.0, *power.get(maker, ())) for maker in MAKERS.values()]
    grouped = [maker(*TWO_GROUPS, *power.get(maker, ())) for maker in MAKERS.values()]
    users = [sched_of_a_user(0.1, 2.0), sched_of_a_user(*TWO_GROUPS)]
    joined = [combine_scheds([0.3, 0.7], [a, b]) for a, b in ((one[1], one[2]), (grouped[3], users[1]))]
    nested = combine_scheds([0.5, 0.5], [joined[0], one[0]])
    return [*one, *grouped, *users, *joined, nested, combined_cos(0.3, 0.0, [1, 2], 0.5)]


@pytest.mark.parametrize("case", FASTAI["annealers"], ids=lambda c: f"{c['kind']}-{c['start']}-{c.get('power', '')}")
def test_annealers_of_fastai(case):
    schedule = make(case)
    np.testing.assert_allclose([schedule(pos) for pos in case["pos"]], case["value"], rtol=1e-6, atol=0)
    np.testing.assert_allclose(schedule(np.array(case["pos"])), case["value"], rtol=1e-6, atol=0)
    if case["kind"] != "poly":
        formula = getattr(annealing, f"sched_{case['kind']}")
        np.testing.assert_allclose(formula(case["start"], case["end"], np.array(case["pos"])), case["value"], rtol=1e-6)


@pytest.mark.parametrize("case", FASTAI["combined"], ids=["two", "three"])
def test_combined_of_fastai(case):
    # fastai's positions are float32, ours float64: with values up to 1, they agree to 1e-6.
    schedule = combine_scheds(case["pcts"], [MAKERS[kind](start, end) for kind, start, end in case["scheds"]])
    np.testing.assert_allclose([schedule(pos) for pos in case["pos"]], case["value"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(schedule(np.array(case["pos"])), case["value"], rtol=1e-6, atol=1e-6)


def test_combined_cos_of_fastai():
    case = FASTAI["combined"][0]
    np.testing.assert_allclose(combined_cos(0.3, 0.3, 0.6, 0.2)(np.array(case["pos"])), case["value"], rtol=1e-6)


@pytest.mark.parametrize("schedule", every_schedule(), ids=repr)
def test_an_array_is_its_positions(schedule):
    pos = np.linspace(0, 1, 13).reshape(1, 13)
    got = schedule(pos)
    for index in np.ndindex(pos.shape):
        np.testing.assert_allclose(got[index], schedule(pos[index]), rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(schedule(pos[0].tolist()), got[0])
    assert schedule(np.empty(0)).shape == (0, *schedule.shape)


@pytest.mark.parametrize("schedule", every_schedule(), ids=repr)
def test_pickle_and_order(schedule):
    pos = [0.9, 0.0, 0.31, 1.0, 0.31, 0.5]
    first = [schedule(p) for p in pos]
    again = pickle.loads(pickle.dumps(schedule))
    np.testing.assert_array_equal([again(p) for p in reversed(pos)], first[::-1])
    np.testing.assert_array_equal(again(np.array(pos)), schedule(np.array(pos)))
    assert repr(again) == repr(schedule)


NAMES = {
    "constant": SchedNo(1, 2), "line": SchedLin(1, 2), "cosine": SchedCos(1, 2), "exponential": SchedExp(1, 2),
    "polynomial": SchedPoly(1, 2, 1.5), "sched_of_a_user": sched_of_a_user(1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_tables_call_them_by_name(name):
    schedule = NAMES[name]
    assert schedule.over(8).stretches(8) == [(name, 0, 8)]
    maker = {"constant": "SchedNo", "line": "SchedLin", "cosine": "SchedCos", "exponential": "SchedExp"}.get(name, name)
    assert repr(schedule) == ("SchedPoly[1.5]" if name == "polynomial" else maker) + "(1, 2)"
    assert schedule.end == 1


@pytest.mark.parametrize("number", [1, np.int64(1), np.float32(1), np.float64(1), np.array(1.0)], ids=type)
def test_positions_of_any_number_type(number):
    for schedule in (SchedLin(0, 2), combined_cos(0.5, 0, 1, 2)):
        assert schedule(number) == 2.0
        assert type(schedule(number)) is float


@quick
@given(st.sampled_from(sorted(MAKERS)), values, values)
def test_ends_are_reached_and_the_way_is_monotone(kind, start, end):
    schedule = MAKERS[kind](start, end, *((2.5,) if kind == "poly" else ()))
    assert schedule(0) == pytest.approx(start, rel=1e-12)
    assert schedule(1) == pytest.approx(start if kind == "no" else end, rel=1e-9, abs=1e-12)
    steps = np.diff(schedule(np.linspace(0, 1, 101))) * np.sign(end - start)
    assert np.all(steps >= -1e-12 * max(start, end))


@quick
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any), st.data())
def test_joints(weights, data):
    shares = [weight / sum(weights) for weight in weights]
    schedule = combine_scheds(shares, [SchedLin(i, i + 1) for i in range(len(shares))])
    last = max(i for i, weight in enumerate(weights) if weight)
    assert schedule(1) == last + 1
    assert schedule(0) == min(i for i, weight in enumerate(weights) if weight)
    assert (schedule(-0.5), schedule(1.5)) == (schedule(0), schedule(1))
    pos = data.draw(positions)
    piece = math.floor(schedule(pos))
    low, high = sum(shares[:piece]), sum(shares[: piece + 1])
    assert low - 1e-6 <= pos <= high + 1e-6
    assert np.all(np.diff(schedule(np.linspace(0, 1, 200))) >= 0)


@quick
@given(positions)
def test_groups_are_independent(pos):
    starts, ends = TWO_GROUPS
    both = combined_cos(0.4, starts, ends, 0)(pos)
    np.testing.assert_array_equal(both, [combined_cos(0.4, s, e, 0)(pos) for s, e in zip(starts, ends)])


def test_functions_that_know_only_numbers_can_be_joined():
    schedule = combine_scheds([0.5, 0.5], [lambda pos: 1.0 if pos < 0.5 else 2.0, lambda pos: [3.0, 4.0]])
    np.testing.assert_array_equal(schedule(np.array([0.0, 0.4, 0.9])), [[1, 1], [2, 2], [3, 4]])


def test_fractions_of_a_tenth_sum_to_one():
    assert 0.7 + 0.2 + 0.1 != 1
    assert combine_scheds([0.7, 0.2, 0.1], [SchedNo(i, i) for i in range(3)])(0.8) == 1
    combine_scheds([0.5, 0.5 + 9e-10], [SchedNo(0, 0)] * 2)


def test_the_ends_cannot_be_changed_from_outside():
    start = np.array([1.0, 2.0])
    schedule = SchedLin(start, 0)
    start[:] = 5
    np.testing.assert_array_equal(schedule(0.0), [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        SchedNo([1, 2], 0)(0.5)[0] = 9


LIN = SchedLin(0, 1)
BAD = [
    (lambda: combine_scheds([0.5, 0.6], [LIN, LIN]), ValueError, r"pcts = \[0.5, 0.6\] sum to 1.1; they must sum to 1"),
    (lambda: combine_scheds([0.5, 0.5 + 2e-9], [LIN, LIN]), ValueError, "must sum to 1"),
    (lambda: combine_scheds([-0.5, 1.5], [LIN, LIN]), ValueError, r"pcts\[0\] = -0.5 .* ≥ 0"),
    (lambda: combine_scheds([math.nan, 1], [LIN, LIN]), ValueError, r"pcts\[0\] = nan"),
    (lambda: combine_scheds([0.5, "0.5"], [LIN, LIN]), TypeError, r"pcts\[1\] must be a number, not '0.5'"),
    (lambda: combine_scheds([0.5, 0.5], [LIN]), ValueError, "got 2 fractions and 1 schedules"),
    (lambda: combine_scheds([], []), ValueError, "at least one"),
    (lambda: combine_scheds([1], [0.1]), TypeError, r"scheds\[0\] must be a function of the position, not 0.1"),
    (lambda: combine_scheds([0.5, 0.5], [SchedLin([1, 2], 0), SchedLin([1, 2, 3], 0)]), ValueError, "2, 3 values"),
    (lambda: combined_cos(1.5, 0, 1, 0), ValueError, "combined_cos pct = 1.5 .* ≤ 1"),
    (lambda: combined_cos(0.5, [1, 2], [1, 2, 3], 0), ValueError, "start has 2 values and end has 3"),
    (lambda: SchedLin([1, 2], [1, 2, 3]), ValueError, "start has 2 values and end has 3"),
    (lambda: SchedLin("1", 2), TypeError, "start must be a number, not '1'"),
    (lambda: SchedLin(1, [2, None]), TypeError, r"end\[1\] must be a number, not None"),
    (lambda: SchedLin(1, math.inf), ValueError, "end = inf"),
    (lambda: SchedLin([], 1), ValueError, "start must be a number or a flat list"),
    (lambda: SchedLin([[1, 2]], 1), ValueError, "start must be a number or a flat list"),
    (lambda: SchedExp(0, 1), ValueError, "SchedExp start = 0 and end = 1 must have the same sign"),
    (lambda: SchedExp([1, 1], [1, -1]), ValueError, "same sign"),
    (lambda: annealing.sched_exp(1, 0, 0.5), ValueError, "same sign"),
    (lambda: SchedPoly(0, 1, 0), ValueError, "SchedPoly power = 0 .* > 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
