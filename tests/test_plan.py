"""Properties of plans: lengths and starts of phases, schedules joined, the LR of each update and who trains in it."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.plan import Plan, Progress, starts_of
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.schedules.schedule import Schedule, join

judged = settings(deadline=None, derandomize=True, max_examples=60)
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)
kinds = st.sampled_from(["epochs", "updates", "max_epochs"])


def phase(kind, length, **options):
    """A phase of a length that is told in one of the ways."""
    if kind == "max_epochs":
        return hub.Phase(until=hub.Plateau(max_epochs=length), **options)
    return hub.Phase(**{kind: length}, **options)


@judged
@given(st.lists(st.tuples(kinds, st.integers(1, 6)), min_size=1, max_size=5), st.integers(0, 4), st.integers(1, 7))
def test_starts_are_sums_of_lengths_wherever_the_open_phase_stands(told, place, per_epoch):
    updates = [length if kind == "updates" else length * per_epoch for kind, length in told]
    phases = [phase(*one) for one in told]
    place = min(place, len(phases))
    phases.insert(place, hub.Phase())
    updates.insert(place, 5)
    expected = tuple(np.cumsum([0, *updates])[:-1].tolist())
    assert starts_of(tuple(phases), sum(updates), per_epoch) == expected
    assert hub.PhasedStrategy(phases).plan(sum(updates), per_epoch).starts == expected
    plan = Plan({"lr": curves.constant(1.0)}, phases=tuple(phases))
    if place == len(told) and all(kind != "updates" for kind, _ in told):
        assert plan.first_epochs == tuple(1 + start // per_epoch for start in expected)
    elif place < len(told):
        assert plan.first_epochs is None
        with pytest.raises(ValueError, match="but the training has"):
            starts_of(tuple(phases), sum(updates) - 5, per_epoch)


@judged
@given(lengths, st.integers(-3, 40))
def test_join_answers_from_the_part_that_a_position_falls_into(parts, t):
    joined = join([(n, Schedule([(0, lambda x, i=i: i + x / 2)], end=1)) for i, n in enumerate(parts)])
    bounds = np.cumsum([0, *parts])
    where = min(max(t, 0), bounds[-1])
    index = int(min(np.searchsorted(bounds, where, side="right") - 1, len(parts) - 1))
    expected = index + (where - bounds[index]) / parts[index] / 2
    assert joined(t) == pytest.approx(expected)
    assert joined(np.array([t, t]))[1] == pytest.approx(expected)


@judged
@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 20), st.integers(-3, 60))
def test_at_over_then_and_group(end, offset, length, t):
    line = Schedule([(0, lambda x: 3.0 * x)], end=end)
    inside = min(max(t, 0), length)
    assert line.over(length)(t) == pytest.approx(3.0 * end * inside / length)
    placed = line.at(offset)
    assert placed(t) == pytest.approx(3.0 * (min(max(t, 0), end + offset) - offset))
    after = curves.constant(7.0).then(offset, placed)
    assert after(t) == (7.0 if max(t, 0) < offset else pytest.approx(placed(t)))

    class Groups:
        shape = (2,)

        def __call__(self, x):
            return np.stack([np.asarray(x) * 1.0, np.asarray(x) * 2.0], axis=-1)

    both = Schedule([(0, Groups())], end=end)
    assert [both.group(i)(t) for i in (0, 1)] == pytest.approx(both(t).tolist())
    np.testing.assert_allclose(both.group(1)(np.arange(4)), both(np.arange(4))[:, 1])


def net():
    return nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))


def trained(model):
    return sum(not layer.weight.stop_gradient for layer in model)


@judged
@given(
    st.lists(st.tuples(kinds, st.integers(1, 3), st.sampled_from([None, 0.1, 0.3]), st.booleans()), max_size=4),
    st.integers(1, 4),
)
def test_the_lr_of_each_update_is_that_of_its_phase(told, per_epoch):
    expected, phases = [], []
    for kind, length, lr, falls in told:
        n = length if kind == "updates" else length * per_epoch
        falls = falls and lr is not None
        scheduler = {"linear_decay": {"start_point": 0.0}} if falls else None
        phases.append(phase(kind, length, learning_rate=lr, scheduler=scheduler))
        expected += [(lr * (1 - k / n) if falls else lr) for k in range(n)]
    phases.append(hub.Phase(learning_rate=0.7))
    expected += [0.7] * 5
    total = len(expected)
    expected = [0.5 * (1 - t / total) if lr is None else lr for t, lr in enumerate(expected)]
    strategy = hub.PhasedStrategy(phases, learning_rate=0.5, scheduler={"linear_decay": {"start_point": 0.0}})
    plan = strategy.plan(total, per_epoch)
    np.testing.assert_allclose([plan.lr(t) for t in range(total)], expected, atol=1e-12)
    np.testing.assert_allclose(plan.lr.values(total), expected, atol=1e-12)


def reference(phases, per_epoch, values):
    """For each update what trains and the LR, by hand: phases (train, longest, patience, lr), values by epoch."""
    seen, number, left, best, waited = [], 0, phases[0][1], None, 0
    for value in values:
        train, _, patience, lr = phases[number]
        seen += [(train, lr)] * per_epoch
        left -= 1
        waited = 0 if best is None or value < best else waited + 1
        best = value if best is None else min(best, value)
        if left == 0 or (patience and waited >= patience):
            number += 1
            if number == len(phases):
                return seen
            left, best, waited = phases[number][1], None, 0
    return seen


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0, 1, 2])), min_size=1, max_size=4),
    st.integers(1, 3),
    st.lists(st.integers(0, 4), min_size=16, max_size=16),
)
def test_phases_that_end_at_any_evaluation(told, per_epoch, values):
    told = [(*one, 1e-5 * (1 + i)) for i, one in enumerate(told)]
    phases = [
        hub.Phase(
            train,
            epochs=None if patience else longest,
            until=hub.Plateau(patience=patience, max_epochs=longest) if patience else None,
            learning_rate=lr,
        )
        for train, longest, patience, lr in told
    ]
    total = sum(longest for _, longest, _, _ in told)
    run = hub.PhasedStrategy(phases, "sgd").bind(net(), num_epoch=total, steps_per_epoch=per_epoch)
    seen = []
    for epoch in range(1, total + 1):
        if run.progress.finished or epoch > total - run.dropped_epochs:
            break
        run.begin_epoch()
        for _ in range(per_epoch):
            seen.append((trained(run.model), pytest.approx(run.optimizer.get_lr())))
            run.model(paddle.ones([1, 1])).sum().backward()
            run.step()
        run.evaluated({"valid_loss": values[epoch - 1]})
    assert seen == reference(told, per_epoch, values)


@judged
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(1, 4), st.floats(0, 2), st.booleans())
def test_progress_ends_when_the_best_is_so_many_evaluations_old(values, patience, delta, higher):
    until = hub.Plateau("x", patience=patience, min_delta=delta, mode="max" if higher else "min")
    progress, best, at, ended = Progress(), None, 0, False
    for number, value in enumerate(values):
        score = -value if higher else value
        if best is None or score < best - delta:
            best, at = score, number
        ended = progress.judge(until, {"x": value}, None)
        assert ended == (number - at >= patience)
        if ended:
            break
    again = Progress(**progress.state_dict())
    assert again == progress
    assert again.at(3, 7) == Progress(3, 7, progress.skipped)
