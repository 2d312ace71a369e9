"""The schedule itself: pieces, joints, places on the axis, layer groups, names of stretches."""

import math

import numpy as np
import pytest

from paddle_ftstrat.schedules import ParamScheduler, SchedLin, SchedNo, Schedule, join
from paddle_ftstrat.schedules.schedule import EachOne, check_steps, flat, lay


def line(slope=1.0, name="", end=None):
    return Schedule([(0, lambda t: slope * t, name)], end=end)


def stairs(end=10):
    """1 from 0, 2 from 3, t from 6 on."""
    return Schedule([(0, lambda t: flat(1.0, t), "one"), (3, lambda t: flat(2.0, t), "two"), (6, lambda t: t)], end=end)


@pytest.mark.parametrize("end", [None, 8, 8.5])
def test_each_piece_answers_from_its_start_and_the_ends_hold(end):
    schedule = stairs(end)
    last = 20 if end is None else end
    asked = [-3, 0, 2, 2.9, 3, 5, 5.9, 6, 7, 8, 8.2, 8.5, 9, 20]
    expected = [1 if t < 3 else 2 if t < 6 else min(t, last) for t in asked]
    assert [schedule(t) for t in asked] == expected
    np.testing.assert_array_equal(schedule(np.array(asked)), expected)
    np.testing.assert_array_equal(schedule(np.array(asked).reshape(2, 7)), np.array(expected, float).reshape(2, 7))
    assert schedule.values(8).dtype == np.float64
    np.testing.assert_array_equal(schedule.values(8), [1, 1, 1, 2, 2, 2, 6, 7])


def test_what_lies_before_0_is_held_at_0():
    assert [line(end=9)(t) for t in (-2, 0, 0.5)] == [0, 0, 0.5]
    np.testing.assert_array_equal(line(end=9)(np.array([-2, 0, 0.5])), [0, 0, 0.5])
    np.testing.assert_array_equal(line(end=9)([-2, 0, 12]), [0, 0, 9])


@pytest.mark.parametrize("pieces", [[], [(1, float)], [(-1, float)], [(0, float), (5, float), (4, float)]])
def test_starts_must_ascend_from_0(pieces):
    with pytest.raises(ValueError, match="must start at 0 and ascend"):
        Schedule(pieces)


def test_pieces_may_have_no_length_and_an_end_may_be_0():
    assert Schedule([(0, lambda t: 1.0), (0, lambda t: 2.0)])(0) == 2
    assert line(end=0)(5) == 0


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [("one", 0, 3), ("two", 3, 6), ("schedule", 6, 10)]),
        (5, [("one", 0, 3), ("two", 3, 5)]),
        (3, [("one", 0, 3)]),
        (0, []),
    ],
)
def test_stretches_are_the_pieces_within_the_training(steps, expected):
    assert stairs().stretches(steps) == expected


def test_a_stretch_begins_with_the_first_whole_update_of_its_piece():
    schedule = Schedule([(0, float, "a"), (2.5, float, "b"), (2.75, float, "c")])
    assert schedule.stretches(4) == [("a", 0, 3), ("c", 3, 4)]


@pytest.mark.parametrize("start", [-2, 0, 1, 3, 4, 6, 9])
def test_then_is_the_one_before_and_the_other_from_there_on(start):
    joined = line(10.0, "ten").then(start, stairs())
    for t in np.arange(0, 14, 0.5):
        assert joined(t) == (10 * t if t < start else stairs()(t))
    assert joined.end == 10
    assert [piece.name for piece in joined.pieces[: 1 if start > 0 else 0]] == ["ten"] * (start > 0)
    assert joined.pieces[0].start == 0


def test_then_leaves_out_what_begins_after_the_joint():
    joined = stairs().then(3, line())
    assert [(piece.start, piece.name) for piece in joined.pieces] == [(0, "one"), (3, "")]


def test_at_begins_later_and_holds_the_first_value_until_then():
    later = stairs().at(4)
    assert (later.end, stairs(None).at(4).end) == (14, None)
    assert [piece.start for piece in later.pieces] == [0, 7, 10]
    assert [piece.name for piece in later.pieces] == ["one", "two", ""]
    for t in np.arange(4, 20, 0.5):
        assert later(t) == stairs()(t - 4)


def test_over_lays_a_schedule_over_a_length():
    wide = stairs().over(20)
    assert (wide.end, [piece.start for piece in wide.pieces]) == (20, [0, 6, 12])
    for t in np.arange(0, 21, 0.5):
        assert wide(t) == stairs()(t / 2)
    assert line(end=None).over(4)(3) == 0.75  # without an end: from 0 to 1
    assert line(end=0).over(4)(3) == 0.75  # and with one at 0, too


@pytest.mark.parametrize("moved", [lambda s: s.at(3).over(26), lambda s: s.over(20).at(6)], ids=["at-over", "over-at"])
def test_places_on_the_axis_add_up(moved):
    schedule = moved(stairs(end=10))
    assert schedule.end == 26
    for t in np.arange(6, 30, 0.25):
        assert schedule(t) == pytest.approx(stairs()((t - 6) / 2), rel=1e-15)
    assert len({type(piece.function.function) for piece in schedule.pieces}) == 1  # one step each, none on another


def test_what_stays_where_it_is_keeps_its_functions():
    schedule = stairs()
    for same in (schedule.at(0), schedule.over(10), schedule.then(0, schedule)):
        assert [piece.function for piece in same.pieces] == [piece.function for piece in schedule.pieces]


def test_join_and_lay():
    both = join([(4, line(end=1)), (0, line(100.0)), (-3, line(100.0)), (2, line(3.0, "steep", end=1))])
    assert both.end == 6
    assert [(piece.start, piece.name) for piece in both.pieces] == [(0, ""), (4, "steep")]
    assert [both(t) for t in (0, 2, 3.99, 4, 5, 6, 9)] == pytest.approx([0, 0.5, 0.9975, 0, 1.5, 3, 3])
    again = lay([line(end=1), line(end=1)], [0, 4, 6])
    assert [again(t) for t in (2, 5)] == [0.5, 0.5]
    for nothing in ([], [(0, line())], [(-1, line())]):
        with pytest.raises(ValueError, match="at least one schedule a length above 0"):
            join(nothing)


def test_layer_groups():
    grouped = join([(2, SchedNo(5, 5)), (2, SchedLin([0, 1], [2, 3]))])
    assert (grouped.shape, SchedNo(5, 5).shape) == ((2,), ())
    np.testing.assert_array_equal(grouped(3), [1, 2])
    np.testing.assert_array_equal(grouped(np.array([[0.0, 2.0], [3.0, 9.0]])), [[[5, 5], [0, 1]], [[1, 2], [2, 3]]])
    assert grouped(np.empty(0)).shape == (0, 2)
    for index in (0, 1):
        alone = grouped.group(index)
        assert alone.shape == ()
        assert [alone(t) for t in (1, 2, 3)] == [5, index, 1 + index]
        assert type(alone(3)) is float
        np.testing.assert_array_equal(alone(np.array([1.0, 2.0, 3.0])), [5, index, 1 + index])
        assert alone.stretches(4) == grouped.stretches(4)
        assert alone.end == 4
    plain = stairs()
    assert plain.group(1) is plain


def test_functions_of_single_numbers():
    one = EachOne(lambda t: 1.0 if t < 2 else 3.0)
    np.testing.assert_array_equal(one(np.array([1.0, 2.0])), [1, 3])
    assert (one(2), one.shape, EachOne(lambda t: [t, t]).shape) == (3, (), (2,))


def test_repr():
    assert repr(SchedLin(0, 1)) == "SchedLin(0, 1)"
    assert repr(SchedLin([0, 1], 2)) == "SchedLin([0.0, 1.0], [2.0, 2.0])"
    assert repr(Schedule([(0, math.sin, "a"), (2.5, math.cos)], end=4)) == f"Schedule(0: 'a', 2.5: {math.cos!r}; end 4)"


def test_param_scheduler():
    scheduler = ParamScheduler({"lr": SchedLin(0, 1), "mom": lambda pos: 0.9 if pos < 0.5 else 0.8})
    over = scheduler.over(10)
    assert list(over) == ["lr", "mom"]
    assert [over["lr"](t) for t in (0, 5, 10)] == [0, 0.5, 1]
    assert [over["mom"](t) for t in (0, 4, 5, 10)] == [0.9, 0.9, 0.8, 0.8]
    with pytest.raises(ValueError, match="unknown hyper-parameter 'moms'. Did you mean 'mom'"):
        ParamScheduler({"moms": SchedLin(0, 1)})
    with pytest.raises(TypeError, match="the schedule of 'lr' must be a function of the position, not 0.1"):
        ParamScheduler({"lr": 0.1})


def test_check_steps():
    assert check_steps(np.int64(1)) == 1
    with pytest.raises(ValueError, match="max_train_steps = 0 .* ≥ 1"):
        check_steps(0)
