"""The record of a parameter's settings: the user's own beside those in force, whoever put them there."""

import copy

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L1Decay, L2Decay

from paddle_ftstrat.param_attr import settings
from paddle_ftstrat.param_attr.settings import ParamSettings

L1 = L1Decay(0.1)
OWN = ParamSettings(0.5, L1, True, False)
PUT = ParamSettings(0.05, None, True, True)


@pytest.fixture
def param():
    param = nn.Linear(2, 2, weight_attr=paddle.ParamAttr(learning_rate=0.5, need_clip=False)).weight
    param.regularizer = L1  # of ParamAttr's, Paddle makes a copy
    return param


def frozen(fields):
    return ParamSettings(fields.learning_rate, fields.regularizer, False, fields.need_clip)


def test_in_force_of_what_has_no_fields_are_paddles_defaults():
    assert settings.in_force(paddle.ones([1])) == ParamSettings(1.0, None, False, True)


def test_apply_keeps_the_users_own_and_restore_gives_it_back(param):
    owner = object()
    assert (settings.own(param), settings.owner_of(param)) == (OWN, None)
    settings.apply(param, PUT, owner)
    assert (settings.in_force(param), settings.own(param)) == (PUT, OWN)
    assert settings.owner_of(param) is owner
    settings.restore(param, object())  # somebody else's
    assert settings.in_force(param) == PUT
    settings.restore(param, owner)
    assert (settings.in_force(param), settings.own(param), settings.owner_of(param)) == (OWN, OWN, None)
    assert "ftstrat" not in param.optimize_attr
    settings.restore(param, owner)
    assert settings.in_force(param) == OWN


def test_who_takes_over_starts_from_the_users_own(param):
    first, second = object(), object()
    settings.apply(param, PUT, first)
    settings.apply(param, ParamSettings(7.0, L2Decay(0.2), True, False), second)
    assert settings.own(param) == OWN
    settings.restore(param, first)
    assert settings.in_force(param).learning_rate == 7
    settings.restore(param, second)
    assert settings.in_force(param) == OWN


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_what_the_user_froze_stays_frozen(param, own, wanted):
    param.stop_gradient = not own
    settings.apply(param, PUT if wanted else frozen(PUT), "owner")
    assert settings.in_force(param).trainable == (own and wanted)
    assert settings.own(param).trainable == own


def test_what_is_changed_by_hand_under_an_owner_is_the_users(param):
    settings.apply(param, PUT, "owner")
    param.need_clip = False
    param.stop_gradient = True
    assert settings.own(param) == frozen(OWN)
    param.regularizer = L2Decay(0.3)
    assert settings.own(param).regularizer._coeff == 0.3
    settings.restore(param, "owner")
    assert settings.in_force(param).regularizer._coeff == 0.3


@pytest.mark.parametrize("allowed", [True, False])
def test_set_own_under_an_owner_changes_both_and_thaws_no_further_than_allowed(param, allowed):
    param.stop_gradient = True
    settings.apply(param, PUT if allowed else frozen(PUT), "owner")
    settings.set_own(param, trainable=True)
    assert settings.own(param).trainable
    assert settings.in_force(param).trainable == allowed
    assert settings.owner_of(param) == "owner"
    settings.set_own(param, learning_rate=3.0)
    assert (settings.own(param).learning_rate, settings.in_force(param).learning_rate) == (3, 3)
    assert settings.in_force(param).trainable == allowed
    settings.apply(param, PUT, "owner")
    settings.set_own(param, trainable=False)
    assert not settings.in_force(param).trainable
    settings.restore(param, "owner")
    assert settings.in_force(param) == ParamSettings(3.0, L1, False, False)


def test_set_own_without_an_owner(param):
    settings.set_own(param, need_clip=True, trainable=False)
    assert settings.in_force(param) == ParamSettings(0.5, L1, False, True)
    assert settings.owner_of(param) is None


def test_freezing_drops_the_gradient(param):
    (param * 2).sum().backward()
    settings.apply(param, PUT, "owner")
    assert param.grad is not None
    settings.apply(param, frozen(PUT), "owner")
    assert param.grad is None


def test_capture_and_put_back(param):
    settings.note(param, settings.ROWS, "rows")
    captured = settings.capture(param)
    settings.apply(param, frozen(PUT), "owner")
    settings.put_back(param, captured)
    assert (settings.in_force(param), settings.owner_of(param)) == (OWN, None)
    assert settings.frozen_rows(param) == "rows"
    settings.apply(param, PUT, "owner")
    captured = settings.capture(param)
    settings.restore(param, "owner")
    settings.put_back(param, captured)
    assert (settings.in_force(param), settings.owner_of(param)) == (PUT, "owner")


def test_a_copy_has_the_record(param):
    settings.apply(param, PUT, "owner")
    assert settings.owner_of(copy.deepcopy(param)) == "owner"
    assert settings.own(copy.deepcopy(param)).learning_rate == 0.5


def test_refuse_bound(param):
    other = nn.Linear(1, 1).weight
    settings.refuse_bound({"a": param, "b": other}, "load")
    settings.apply(param, PUT, "owner")
    with pytest.raises(RuntimeError, match=r"a strategy is bound to a: release it, load, bind again \(run.release"):
        settings.refuse_bound({"a": param, "b": other}, "load")


class Rows:
    axis, rows = 1, (0, 2)


def test_frozen_rows_are_the_users_and_survive_owners(param):
    other = nn.Linear(1, 1).weight
    assert settings.frozen_rows(param) is None
    assert not settings.any_frozen_rows([param, other])
    rows = Rows()
    settings.note(param, settings.ROWS, rows)
    settings.apply(param, PUT, "owner")
    assert settings.frozen_rows(param) is rows
    assert settings.any_frozen_rows([other, param])
    assert settings.saved_rows([("a", param), ("b", other)]) == {"a": [1, [0, 2]]}
    settings.restore(param, "owner")
    assert settings.frozen_rows(param) is rows
    settings.note(param, settings.ROWS, None)
    assert settings.frozen_rows(param) is None
    assert settings.in_force(param) == OWN


def test_frozen_rows_of_a_parameter_without_settings_leave_it_paddles_default(param):
    param.optimize_attr = None
    settings.note(param, settings.ROWS, Rows())
    assert param.optimize_attr["learning_rate"] == 1.0


@pytest.mark.parametrize(
    ("regularizer", "text"),
    [(None, ""), (L2Decay(0.01), "L2(0.01)"), (L1Decay(2.0), "L1(2)"), (type("MineDecay", (), {})(), "Mine")],
)
def test_text_of(regularizer, text):
    assert settings.text_of(regularizer) == text


EQUAL = [
    (1, 1), (1, 1.0), (True, np.bool_(True)), ("a", "a"), (None, None), (np.array([1, 2]), np.array([1, 2])),
    ({"a": np.ones(2)}, {"a": np.ones(2)}), (L2Decay(0.1), L2Decay(0.1)), ((1, 2), (1, 2)),
    (nn.initializer.Constant(1.0), nn.initializer.Constant(1.0)),
]  # fmt: skip
DIFFERENT = [
    (1, 2), (1, "1"), (None, 0), (np.array([1, 2]), np.array([1, 3])), (np.ones(2), [1.0, 1.0]), ({"a": 1}, {"b": 1}),
    ({"a": 1}, {"a": 2}), (L2Decay(0.1), L2Decay(0.2)), (L2Decay(0.1), L1Decay(0.1)), ({"a": 1}, {"a": 1, "b": 2}),
    (nn.initializer.Constant(1.0), nn.initializer.Constant(2.0)), ({"a": 1, "b": 2}, {"a": 1, "b": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "equal"), [(*p, True) for p in EQUAL] + [(*p, False) for p in DIFFERENT])
def test_same(one, other, equal):
    assert settings.same(one, other) is equal
    assert settings.same(other, one) is equal
    assert settings.same(one, one)
