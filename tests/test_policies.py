"""fastai's policies as strategies: its recorded LRs and momenta, schedules of update indices, errors."""

import math
import pickle

import numpy as np
import paddle
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim.build import ScheduleLR
from paddle_ftstrat.plan import spread
from paddle_ftstrat.schedules.annealing import SchedCos, SchedLin, annealer, combined_cos
from paddle_ftstrat.schedules.curves import flat_cos, one_cycle, sgdr
from paddle_ftstrat.schedules.schedule import as_schedule
from paddle_ftstrat.strategies.policies import MOMS

LR = 0.01  # of the recorded fits
FITS = {fit["call"]: fit for fit in golden("fastai.json")["fits"]}
POLICIES = {
    "fit_one_cycle": lambda n_epoch: hub.OneCycleStrategy(LR),
    "fit_flat_cos": lambda n_epoch: hub.FlatCosStrategy(LR),
    "fit_sgdr": lambda n_cycles, cycle_len: hub.SGDRStrategy(LR, n_cycles, cycle_len),
    "fine_tune": lambda epochs: hub.FineTuneStrategy(freeze_epochs=0),
}
quick = settings(deadline=None, max_examples=60)


@annealer
def sched_of_a_user(start, end, pos):
    return start + (end - start) * math.sqrt(pos)


@pytest.mark.parametrize("call", FITS)
def test_traces_of_fastai(call):
    fit = FITS[call]
    recorded = fit.get("hps") or {"lr": fit["lr"]}
    steps = len(next(iter(recorded.values())))
    plan = POLICIES[call](**fit["kwargs"]).plan(steps)
    for name, trace in recorded.items():
        schedule, trace = plan.schedules[name], np.array(trace)
        values = np.array([schedule(t) for t in range(steps)])
        if call == "fit_sgdr":
            # On one joint of its cycles, whose position is no float32, fastai's update still belongs to the cycle
            # before and has an LR of 8e-16; here it is the restart.
            joint = int(trace.argmin())
            assert (joint, trace[joint] < 1e-15, values[joint]) == (30, True, LR)
            values[joint] = trace[joint]
        # fastai's positions are float32.
        np.testing.assert_allclose(values, trace, rtol=1e-6, atol=1e-6 * trace.max())
        np.testing.assert_allclose(schedule.values(steps), [schedule(t) for t in range(steps)], rtol=1e-12, atol=1e-18)


def test_sgdr_restarts_as_in_fastais_documentation():
    schedule, start = hub.SGDRStrategy(LR, 2, 1).plan(3 * 32).lr, 0
    for length in (32, 64):
        expected = [SchedCos(LR, 0)(k / length) for k in range(length)]
        np.testing.assert_allclose([schedule(t) for t in range(start, start + length)], expected, rtol=1e-12)
        start += length
    assert schedule(start) == 0


def test_equal_cycles():
    schedule = sgdr(1.0, 40, 4, 1)
    np.testing.assert_allclose(schedule(np.arange(4) * 10.0), 1.0)
    np.testing.assert_allclose(schedule(np.arange(4) * 10.0 + 5), 0.5)


def test_fine_tune_phases():
    strategy = hub.FineTuneStrategy(0.02, freeze_epochs=2, lr_mult=10, moms=None)
    plan = strategy.plan(70, 10)
    assert [(phase.epochs, phase.train) for phase in plan.phases] == [(2, 1), (None, "all")]
    assert plan.starts == (0, 20)
    assert plan.schedules.keys() == {"lr"}
    assert plan.lr(0) == pytest.approx(0.02 / 25)
    assert plan.lr(19.8) == pytest.approx(0.02)
    assert plan.lr(20) == pytest.approx(0.01 / 5)
    assert plan.lr(20 + 0.3 * 50) == pytest.approx(0.01)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    run = strategy.bind(model, max_train_steps=70, steps_per_epoch=10)
    np.testing.assert_allclose(run.block_factors, [0.1, 10**-0.5, 1.0])
    moved = []
    for _ in range(7):
        run.begin_epoch()
        moved.append([not param.stop_gradient for param in model.parameters()])
        for _ in range(10):
            model(paddle.ones([1, 2])).sum().backward()
            run.step()
    assert moved == [[False] * 4 + [True] * 2] * 2 + [[True] * 6] * 5


POLICIES_OF_AN_LR = {
    "1cycle": hub.OneCycleStrategy,
    "flat": hub.FlatCosStrategy,
    "sgdr": lambda lr: hub.SGDRStrategy(lr, 3, 1),
}


@pytest.mark.parametrize("name", POLICIES_OF_AN_LR)
@pytest.mark.parametrize("lrs", [[1e-4, 1e-3, 1e-2], slice(1e-4, 1e-2), slice(1e-2)], ids=str)
def test_groups_follow_the_policy_of_their_own_lr(name, lrs):
    make = POLICIES_OF_AN_LR[name]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    run = make(lrs).bind(model, max_train_steps=49, num_epoch=7, steps_per_epoch=7)
    for t in (0, 5, 20, 48):
        run.lr_scheduler.step(t)
        mine = [run.optimizer.get_lr() * factor for factor in run.block_factors]
        np.testing.assert_allclose(mine, [make(lr).plan(49).lr(t) for lr in spread(lrs, 3)], rtol=1e-12, atol=1e-18)


def test_in_an_own_loop_momentum_follows():
    model, seen = nn.Linear(2, 2), []
    run = hub.OneCycleStrategy(0.01).bind(model, max_train_steps=8)
    for _ in range(8):
        model(paddle.ones([1, 2])).sum().backward()
        seen.append((run.optimizer.get_lr(), run.hyper("mom")))
        run.step()
    schedule = combined_cos(0.25, *MOMS).over(8)
    np.testing.assert_allclose([mom for _, mom in seen], [schedule(t) for t in range(8)], rtol=1e-12)
    np.testing.assert_allclose([lr for lr, _ in seen], one_cycle(0.01, 8).values(8), rtol=1e-12)


def test_momentum_is_left_out_where_there_is_none_unless_it_was_asked_for():
    assert "mom" not in hub.OneCycleStrategy(0.01, optimizer_name="sgd").plan(9).schedules
    with pytest.raises(ValueError, match="no hyper-parameter 'mom'"):
        hub.OneCycleStrategy(0.01, moms=(0.9, 0.8, 0.9), optimizer_name="sgd").bind(nn.Linear(1, 1), max_train_steps=9)


def test_what_other_strategies_have_can_be_added():
    strategy = hub.OneCycleStrategy(0.01).add_clip("GlobalNorm", 1.0).add_regularization("L2SP", 0.1)
    strategy.add_scheduler("layer_decay", 0.5).add_scheduler("gradual_unfreeze", 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    run = strategy.bind(model, max_train_steps=20, steps_per_epoch=10, pretrained="*")
    assert run.block_factors == [0.5, 1.0]
    assert [row.first_epoch for row in run.describe()] == [2, 2, 1, 1]
    assert {row.regularizer for row in run.describe()} == {"L2SP(0.1)"}
    with pytest.raises(ValueError, match="unknown scheduler of OneCycleStrategy 'warmup'"):
        strategy.add_scheduler("warmup", 0.1)


def test_a_slice_in_a_file():
    strategy = hub.OneCycleStrategy(slice(1e-4, 1e-2))
    again = hub.strategy_from_yaml(strategy.to_yaml())
    assert again.plan(9).depth == strategy.plan(9).depth
    assert (
        hub.strategy_from_yaml("{strategy: FlatCosStrategy, learning_rate: {slice: [null, 0.1]}}").learning_rate == 0.1
    )
    with pytest.raises(ValueError, match="unknown key of lr_max 'slices'"):
        hub.strategy_from_dict({"strategy": "OneCycleStrategy", "lr_max": {"slices": [1, 2]}})


def test_the_top_layers_need_a_learning_rate_if_others_have_one():
    model = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"lr = \[0.01, 0.0\]: the top layers' LR must be > 0"):
        hub.OneCycleStrategy([0.01, 0.0]).bind(model, max_train_steps=4)
    run = hub.OneCycleStrategy([0.0, 0.01]).bind(model, max_train_steps=4)
    assert [row.learning_rate for row in run.describe()] == [0, 0, 1, 1]


@pytest.mark.parametrize("make", [*POLICIES_OF_AN_LR.values(), hub.FineTuneStrategy], ids=[*POLICIES_OF_AN_LR, "ft"])
def test_round_trip(make):
    strategy = make(0.01)
    again = hub.strategy_from_yaml(strategy.to_yaml())
    assert type(again) is type(strategy)
    steps = 7 * 5
    for name, schedule in strategy.plan(steps, 5).schedules.items():
        np.testing.assert_array_equal(again.plan(steps, 5).schedules[name].values(steps), schedule.values(steps))


def curves():
    return {
        "1cycle": one_cycle(0.1, 1000),
        "mom": combined_cos(0.25, *MOMS).over(7),
        "sgdr": sgdr(0.1, 700, 3),
        "flat": flat_cos(0.1, 70),
        "groups": combined_cos(0.3, [0.1, 0.2], [1, 2], 0).over(40),
        "user's": sched_of_a_user(1, 2).over(300),
        "function": as_schedule(lambda pos: 1.0 if pos < 0.5 else 0.5).over(300),
    }


@pytest.mark.parametrize("name", curves())
@quick
@given(asked=st.lists(st.integers(-5, 1500), min_size=1, max_size=30))
def test_any_order_any_type_and_arrays(name, asked):
    curve, again = curves()[name], curves()[name]
    expected = [again(t) for t in sorted(asked)]
    np.testing.assert_array_equal([curve(t) for t in asked], [expected[sorted(asked).index(t)] for t in asked])
    np.testing.assert_array_equal([curve(np.int64(t)) for t in asked], [curve(float(t)) for t in asked])
    np.testing.assert_allclose(curve(np.array(asked)), [curve(t) for t in asked], rtol=1e-12, atol=1e-17)


def test_halves_of_an_update():
    curve = SchedLin(0, 1).over(10)
    assert curve(2.5) == 0.25
    assert curve(math.inf) == 1.0
    np.testing.assert_allclose(curve(np.array([[0.5], [2.5]])), [[0.05], [0.25]])


def test_pickle():
    for name in ("1cycle", "sgdr", "groups", "user's"):
        curve = curves()[name]
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(curve)).values(25), curve.values(25))


def test_as_a_paddle_scheduler():
    curve = one_cycle(0.1, 300)
    scheduler, lrs = ScheduleLR(curve), []
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


ONE = nn.Linear(1, 1)
BAD = [
    (lambda: hub.OneCycleStrategy(-0.1), ValueError, "lr = -0.1 .* ≥ 0"),
    (lambda: hub.OneCycleStrategy([0.1, "a"]), TypeError, r"lr\[1\] must be a number, not 'a'"),
    (lambda: hub.OneCycleStrategy(0.1, div=0), ValueError, "div = 0 .* > 0"),
    (lambda: hub.OneCycleStrategy(0.1, div_final=-1), ValueError, "div_final = -1 .* > 0"),
    (lambda: hub.OneCycleStrategy(0.1, pct_start=1.2), ValueError, "pct_start = 1.2 .* ≤ 1"),
    (lambda: hub.OneCycleStrategy(0.1, moms=(0.9, 0.8)), ValueError, r"moms = \(0.9, 0.8\) must be three values"),
    (lambda: hub.OneCycleStrategy(0.1, moms=0.9), ValueError, "moms = 0.9 must be three values"),
    (lambda: hub.OneCycleStrategy(0.1).bind(ONE), ValueError, "needs the length of the training"),
    (lambda: hub.FlatCosStrategy(math.nan), ValueError, "lr = nan"),
    (lambda: hub.FlatCosStrategy(0.1, pct_start=-0.1), ValueError, "pct_start = -0.1 .* ≥ 0"),
    (lambda: hub.SGDRStrategy(0.1, 0, 1), ValueError, "n_cycles = 0 .* ≥ 1"),
    (lambda: hub.SGDRStrategy(0.1, 1, 0), ValueError, "cycle_len = 0 .* ≥ 1"),
    (lambda: hub.SGDRStrategy(0.1, 2, 1, cycle_mult=1.5), TypeError, "cycle_mult must be a whole number, not 1.5"),
    (lambda: hub.SGDRStrategy(0.1, 2, 1).plan(20, 5), ValueError, "3 epochs, 15 updates, but the training has 20"),
    (lambda: hub.FineTuneStrategy(freeze_epochs=-1), ValueError, "freeze_epochs = -1 .* ≥ 0"),
    (lambda: hub.FineTuneStrategy(base_lr=0), ValueError, "base_lr = 0 .* > 0"),
    (lambda: hub.FineTuneStrategy(lr_mult=0), ValueError, "lr_mult = 0 .* > 0"),
    (lambda: hub.FineTuneStrategy().plan(20), ValueError, r"give bind\(\) steps_per_epoch"),
    (lambda: hub.FineTuneStrategy(freeze_epochs=3).plan(20, 10), ValueError, "take 30 updates, but .* 20"),
    (lambda: spread([0.1], 2), ValueError, r"lr = \[0.1\] has 1 values, but there are 2 layer groups"),
    (lambda: spread(slice(0.1, 0.2, 3), 2), ValueError, r"must be slice\(hi\) or slice\(lo, hi\)"),
    (lambda: spread(slice(0, 0.2), 2), ValueError, "lr.start = 0 .* > 0"),
    (lambda: spread("0.1", 2), TypeError, "lr must be a number, not '0.1'"),
    (lambda: spread(0.1, 0), ValueError, "groups = 0 .* ≥ 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_defaults_are_those_of_fastai():
    assert MOMS == (0.95, 0.85, 0.95)
    assert hub.OneCycleStrategy(1.0).plan(100).lr(25) == 1.0
    flat = hub.FlatCosStrategy(1.0).plan(100).lr
    assert (flat(75), flat(76) < 1) == (1.0, True)
