"""Policies over a whole fit: fastai's recorded LRs and momenta, curves of update indices, errors."""

import math
import pickle

import numpy as np
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle_ftstrat.schedules.fit_curve import FitCurve
from paddle_ftstrat.schedules.policies import fine_tune, flat_cos, one_cycle, sgdr, sgdr_cycles, spread

from paddle_ftstrat.schedules import policies
from paddle_ftstrat.schedules.adapter import CurveLR
from paddle_ftstrat.schedules.annealing import SchedCos, SchedLin, annealer

LR = 0.01  # of the recorded fits
FITS = {fit["call"]: fit for fit in golden("fastai.json")["fits"]}
POLICIES = {
    "fit_one_cycle": lambda n_epoch: one_cycle(LR),
    "fit_flat_cos": lambda n_epoch: flat_cos(LR),
    "fit_sgdr": lambda n_cycles, cycle_len: sgdr(LR, sgdr_cycles(n_cycles, cycle_len)),
    "fine_tune": lambda epochs: fine_tune(epochs)[1].policy,
}
quick = settings(deadline=None, max_examples=60)


@annealer
def sched_of_a_user(start, end, pos):
    return start + (end - start) * math.sqrt(pos)


@pytest.mark.parametrize("call", FITS)
def test_traces_of_fastai(call):
    fit = FITS[call]
    policy = POLICIES[call](**fit["kwargs"])
    recorded = fit.get("hps") or {"lr": fit["lr"]}
    for name, trace in recorded.items():
        curve = FitCurve(policy[name], len(trace))
        # One LR of fit_sgdr is the rounding error of a cosine that has reached 0: 8e-16.
        np.testing.assert_allclose([curve(t) for t in range(len(trace))], trace, rtol=1e-6, atol=1e-17)
        np.testing.assert_allclose(curve.values(len(trace)), trace, rtol=1e-6, atol=1e-17)
        np.testing.assert_allclose([policy[name](t / len(trace)) for t in range(len(trace))], trace, rtol=1e-6)


def test_sgdr_restarts_as_in_fastais_documentation():
    curve, start = FitCurve(sgdr(LR, sgdr_cycles(2, 1))["lr"], 3 * 32), 0
    for length in (32, 64):
        np.testing.assert_allclose(
            [curve(t) for t in range(start + 1, start + length)],
            [SchedCos(LR, 0)(k / length) for k in range(1, length)],
            rtol=1e-5,
            atol=1e-9,
        )
        start += length
    assert curve(start) == 0


def test_equal_cycles():
    schedule = sgdr(1.0, sgdr_cycles(4, 3, cycle_mult=1))["lr"]
    np.testing.assert_allclose(schedule(np.arange(4) / 4), 1.0)
    np.testing.assert_allclose(schedule(np.arange(4) / 4 + 0.125), 0.5)


def test_fine_tune_phases():
    frozen, whole = fine_tune(5, base_lr=0.02, freeze_epochs=2, lr_mult=10, groups=3, moms=None)
    assert (frozen.epochs, frozen.frozen, whole.epochs, whole.frozen) == (2, True, 5, False)
    assert frozen.policy.keys() == whole.policy.keys() == {"lr"}
    np.testing.assert_allclose(frozen.policy["lr"](0.99), [0.002, 0.002, 0.02], rtol=1e-6)
    np.testing.assert_allclose(frozen.policy["lr"](0.0), [0.002 / 25, 0.002 / 25, 0.02 / 25])
    np.testing.assert_allclose(whole.policy["lr"](0.3), [0.001, 0.001 * 10**0.5, 0.01], rtol=1e-6)
    np.testing.assert_allclose(whole.policy["lr"](0.0), np.array([0.001, 0.001 * 10**0.5, 0.01]) / 5)
    assert fine_tune(0)[1].epochs == 0


@pytest.mark.parametrize(
    "policy", [one_cycle, flat_cos, lambda lr: sgdr(lr, [1, 2, 4])], ids=["1cycle", "flat", "sgdr"]
)
def test_groups_follow_the_policy_of_their_own_lr(policy):
    lrs, t = [1e-4, 1e-3, 1e-2], np.arange(60)
    together = FitCurve(policy(lrs)["lr"], 50)(t)
    assert together.shape == (60, 3)
    for group, lr in enumerate(lrs):
        np.testing.assert_allclose(together[:, group], FitCurve(policy(lr)["lr"], 50)(t), rtol=1e-12, atol=1e-18)
    np.testing.assert_array_equal([FitCurve(policy(np.array(lrs))["lr"], 50)(int(i)) for i in t], together)


def curves():
    return {
        "1cycle": FitCurve(one_cycle(0.1)["lr"], 1000),
        "mom": FitCurve(one_cycle(0.1)["mom"], 7),
        "sgdr": FitCurve(sgdr([0.1, 0.2], [1, 2, 4])["lr"], 700, start_step=13),
        "user's": FitCurve(sched_of_a_user(1, 2), 300),
        "function": FitCurve(lambda pos: 1.0 if pos < 0.5 else 0.5, 300),
        "ends where it starts": FitCurve(SchedLin(0, 1), 5, start_step=5),
    }


@pytest.mark.parametrize("name", curves())
@quick
@given(asked=st.lists(st.integers(-5, 1500), min_size=1, max_size=30))
def test_any_order_any_type_and_arrays(name, asked):
    curve, again = curves()[name], curves()[name]
    expected = [again(t) for t in sorted(asked)]
    np.testing.assert_array_equal([curve(t) for t in asked], [expected[sorted(asked).index(t)] for t in asked])
    np.testing.assert_array_equal([curve(np.int64(t)) for t in asked], [curve(float(t)) for t in asked])
    np.testing.assert_allclose(curve(np.array(asked)), [curve(t) for t in asked], rtol=1e-13, atol=1e-17)
    direct = [curve.schedule(min(max(t, 0) + curve.start_step, curve.total_steps) / curve.total_steps) for t in asked]
    np.testing.assert_allclose([curve(t) for t in asked], direct, rtol=1e-12, atol=1e-15)


@quick
@given(st.integers(1, 400), st.data())
def test_start_step_is_an_offset_into_the_same_curve(total, data):
    start = data.draw(st.integers(0, total))
    whole, rest = (FitCurve(one_cycle(0.1)["lr"], total, start_step=s) for s in (0, start))
    assert rest.end == total - start
    np.testing.assert_array_equal(rest.values(total - start + 5), whole(start + np.arange(total - start + 5)))
    assert rest(10**9) == whole(total) == pytest.approx(0.1 / 1e5)


def test_halves_of_an_update():
    curve = FitCurve(SchedLin(0, 1), 10)
    assert curve(2.5) == 0.25
    assert curve(math.inf) == 1.0
    np.testing.assert_allclose(curve(np.array([[0.5], [2.5]])), [[0.05], [0.25]])


def test_pickle():
    for curve in (FitCurve(one_cycle([0.1, 0.2])["lr"], 20, 3), FitCurve(sched_of_a_user(1, 2), 20)):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(curve)).values(25), curve.values(25))


def test_as_a_paddle_scheduler():
    curve = FitCurve(one_cycle(0.1)["lr"], 300)
    scheduler, lrs = CurveLR(curve), []
    for _ in range(305):
        lrs.append(scheduler())
        scheduler.step()
    np.testing.assert_allclose(lrs, curve.values(305), rtol=1e-12, atol=1e-17)
    assert all(type(lr) is float for lr in lrs)
    scheduler.step(7)
    assert scheduler() == lrs[7]


@quick
@given(st.floats(1e-6, 1), st.floats(1, 1e4), st.integers(1, 9))
def test_spread_is_geometric(low, ratio, groups):
    lrs = spread(slice(low, low * ratio), groups)
    assert len(lrs) == groups
    assert lrs[-1] == low * ratio
    assert all(type(lr) is float for lr in lrs)
    if groups > 1:
        assert lrs[0] == pytest.approx(low)
        np.testing.assert_allclose(np.diff(np.log(lrs)), math.log(ratio) / (groups - 1), atol=1e-9)


def test_spread_of_everything_else():
    assert spread(0.1, 2) == [0.1, 0.1]
    assert spread((0.1, 0.2), 2) == [0.1, 0.2]
    assert spread(slice(0.1), 1) == [0.1]
    assert spread(slice(None, 1.0), 3) == [0.1, 0.1, 1.0]


BAD = [
    (lambda: one_cycle(-0.1), ValueError, "lr_max = -0.1 .* ≥ 0"),
    (lambda: one_cycle(slice(1, 2)), TypeError, "lr_max must be a number, not slice"),
    (lambda: one_cycle([0.1, "a"]), TypeError, r"lr_max\[1\] must be a number, not 'a'"),
    (lambda: one_cycle(0.1, div=0), ValueError, "div = 0 .* > 0"),
    (lambda: one_cycle(0.1, div_final=-1), ValueError, "div_final = -1 .* > 0"),
    (lambda: one_cycle(0.1, pct_start=1.2), ValueError, "pct_start = 1.2 .* ≤ 1"),
    (lambda: one_cycle(0.1, moms=(0.9, 0.8)), ValueError, r"moms = \(0.9, 0.8\) must be three values"),
    (lambda: one_cycle(0.1, moms=0.9), ValueError, "moms = 0.9 must be three values"),
    (lambda: flat_cos(math.nan), ValueError, "lr = nan"),
    (lambda: flat_cos(0.1, pct_start=-0.1), ValueError, "pct_start = -0.1 .* ≥ 0"),
    (lambda: sgdr_cycles(0, 1), ValueError, "n_cycles = 0 .* ≥ 1"),
    (lambda: sgdr_cycles(1, 0), ValueError, "cycle_len = 0 .* ≥ 1"),
    (lambda: sgdr_cycles(2, 1, cycle_mult=1.5), TypeError, "cycle_mult must be a whole number, not 1.5"),
    (lambda: sgdr(0.1, []), ValueError, "at least one cycle"),
    (lambda: sgdr(0.1, [1, -2]), ValueError, r"cycles\[1\] = -2 .* ≥ 1"),
    (lambda: fine_tune(-1), ValueError, "epochs = -1 .* ≥ 0"),
    (lambda: fine_tune(1, freeze_epochs=-1), ValueError, "freeze_epochs = -1 .* ≥ 0"),
    (lambda: fine_tune(1, base_lr=0), ValueError, "base_lr = 0 .* > 0"),
    (lambda: fine_tune(1, lr_mult=0), ValueError, "lr_mult = 0 .* > 0"),
    (lambda: spread([0.1], 2), ValueError, r"lr = \[0.1\] has 1 values, but there are 2 layer groups"),
    (lambda: spread(slice(0.1, 0.2, 3), 2), ValueError, r"must be slice\(hi\) or slice\(lo, hi\)"),
    (lambda: spread(slice(0, 0.2), 2), ValueError, "lr.start = 0 .* > 0"),
    (lambda: spread("0.1", 2), TypeError, "lr must be a number, not '0.1'"),
    (lambda: spread(0.1, 0), ValueError, "groups = 0 .* ≥ 1"),
    (lambda: FitCurve(SchedLin(0, 1), 0), ValueError, "total_steps = 0 .* ≥ 1"),
    (lambda: FitCurve(SchedLin(0, 1), 9, -1), ValueError, "start_step = -1 .* ≥ 0"),
    (
        lambda: FitCurve(SchedLin(0, 1), 9, 10),
        ValueError,
        "start_step = 10 is beyond the end of the fit: it has 9 updates",
    ),
    (lambda: FitCurve(0.1, 9), TypeError, "schedule must be a function"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_defaults_are_those_of_fastai():
    assert policies.MOMS == (0.95, 0.85, 0.95)
    assert one_cycle(1.0)["lr"].pcts[0] == 0.25
    assert flat_cos(1.0)["lr"].pcts[0] == 0.75
