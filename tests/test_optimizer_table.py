"""Every optimizer of the table with everything that a strategy does to a parameter."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L2Decay

import paddle_ftstrat as hub
from paddle_ftstrat.optim import state, table

# Optimizers with options that change which rule is at work: NAME:VARIANT.
VARIANTS = {
    "adafactor:plain": {"factored": False},
    "adafactor:scaled": {"scale_parameter": True, "relative_step": True, "beta1": 0.9},
    "muon:hidden": {"hidden": "weight"},
}
NAMES = [name for name in table.names() if not table.ROWS[name].registered]
NAMES += VARIANTS


def row_of(name):
    return table.find(name.partition(":")[0])


MULTIPLIED = [name for name in NAMES if row_of(name).multiplier]
OURS = [name for name in NAMES if row_of(name).cls.__module__.startswith("paddle_ftstrat")]
RNG = np.random.default_rng(0)
START = {"weight": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
GRADS = [{name: RNG.normal(size=np.shape(value)) for name, value in START.items()} for _ in range(6)]
LR = 0.05
# What each optimizer needs to be told so that the strategy's decay, or none, is all the decay there is.
NO_DECAY = {"adamw": {"weight_decay": 0.0}, "lamb": {"lamb_weight_decay": 0.0}}
NO_DECAY["larsmomentum"] = {"lars_weight_decay": 0.0}


def model_of(dtype="float32", **attributes):
    """A linear layer with START's values; `attributes` go into its weight's ParamAttr."""
    paddle.set_default_dtype(dtype)
    try:
        layer = nn.Linear(3, 2, weight_attr=paddle.ParamAttr(**attributes))
    finally:
        paddle.set_default_dtype("float32")
    for name, param in layer.named_parameters():
        param.set_value(paddle.to_tensor(START[name], "float32").astype(dtype))
    return layer


def rounded_to(dtype, value):
    return paddle.to_tensor(value, "float32").astype(dtype).astype("float32").numpy()


def strategy_of(name, lr=LR, **keys):
    options = NO_DECAY.get(name, {}) if "weight_decay" not in keys.get("regularization", {}) else {}
    options = {**VARIANTS.get(name, {}), **options, **keys}
    return hub.CombinedStrategy(optimizer_name=row_of(name).name, learning_rate=lr, **options)


def set_grad(param, value):
    param.clear_gradient(False)
    if not param.stop_gradient:
        (param.astype("float32") * paddle.to_tensor(value, "float32")).sum().backward()


def train(run, grads=GRADS, more=None):
    """Update with these gradients; `more(name, param)` is added to them."""
    for values in grads:
        for name, param in run.model.named_parameters():
            set_grad(param, values[name] + (0.0 if more is None else more(name, param)))
        run.step()
    return {name: param.astype("float32").numpy() for name, param in run.model.named_parameters()}


def state_of_weight(run):
    kinds = state.get_state(run.optimizer, {"weight": run.model.weight}).get("weight", {})
    return {kind: value.numpy() for kind, value in kinds.items()}


def assert_same(left, right, **tolerance):
    for name in START:
        np.testing.assert_allclose(left[name], right[name], **(tolerance or {"rtol": 2e-5, "atol": 2e-6}), err_msg=name)


@pytest.mark.parametrize("name", MULTIPLIED)
def test_a_multiplier_is_the_same_as_another_lr(name):
    scaled = train(strategy_of(name).bind(model_of(learning_rate=0.25)))
    plain = train(strategy_of(name, lr=LR * 0.25).bind(model_of()))
    np.testing.assert_allclose(scaled["weight"], plain["weight"], rtol=2e-5, atol=2e-6)
    assert not np.allclose(scaled["bias"], plain["bias"])


@pytest.mark.parametrize("name", MULTIPLIED)
def test_a_multiplier_of_zero_holds_a_parameter_fast_decay_included(name):
    model = model_of(learning_rate=0.0)
    after = train(strategy_of(name, regularization={"weight_decay": 0.1}).bind(model, no_decay=[]))
    np.testing.assert_array_equal(after["weight"], np.float32(START["weight"]))
    assert not np.allclose(after["bias"], START["bias"])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MULTIPLIED])
def test_an_optimizer_that_ignores_multipliers_refuses_them(name):
    with pytest.raises(ValueError, match=r"ignores LR multipliers.*weight"):
        strategy_of(name).bind(model_of(learning_rate=0.25))


@pytest.mark.parametrize("name", NAMES)
def test_a_parameters_own_regularizer_beats_every_decay(name):
    keys = {"regularization": {"L2": 0.7, "weight_decay": 0.2}}
    model = model_of(regularizer=L2Decay(0.3))
    own = train(strategy_of(name, **keys).bind(model, no_decay=[]))
    by_hand = train(strategy_of(name).bind(model_of()), more=lambda key, p: 0.3 * p.numpy() if key == "weight" else 0.0)
    np.testing.assert_allclose(own["weight"], by_hand["weight"], rtol=2e-5, atol=5e-6)
    assert not np.allclose(own["bias"], by_hand["bias"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_decoupled_decay_follows_the_update(name):
    decayed = train(strategy_of(name, regularization={"weight_decay": 0.2}).bind(model_of()), GRADS[:1])
    # Paddle's Lamb has a trust ratio only where it decays, and keeps it under a strategy's decay.
    own = {"lamb_weight_decay": 1e-30} if name == "lamb" else {}
    plain = train(strategy_of(name, **own).bind(model_of()), GRADS[:1])
    if row_of(name).replaces_decay:
        # AdamW's own decay acts before the update.
        np.testing.assert_allclose(decayed["weight"], plain["weight"] - START["weight"] * LR * 0.2, rtol=1e-5)
    else:
        np.testing.assert_allclose(decayed["weight"], plain["weight"] * (1 - LR * 0.2), rtol=1e-5)
    np.testing.assert_allclose(decayed["bias"], plain["bias"], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_clip_by_global_norm(name):
    norm = [np.sqrt(sum((value**2).sum() for value in values.values())) for values in GRADS]
    scaled = [{key: value * min(1.0, 0.5 / size) for key, value in values.items()} for values, size in zip(GRADS, norm)]
    clipped = train(strategy_of(name, clip={"GlobalNorm": 0.5}).bind(model_of()))
    assert_same(clipped, train(strategy_of(name).bind(model_of()), scaled))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_and_their_state_stay_until_thawed(name):
    model = model_of()
    run = strategy_of(name, regularization={"L2": 0.1}).bind(model)
    train(run, GRADS[:2])
    before = model.weight.numpy()
    kept = state_of_weight(run)
    model.weight.stop_gradient = True
    train(run, GRADS[2:4])
    np.testing.assert_array_equal(model.weight.numpy(), before)
    np.testing.assert_equal(state_of_weight(run), kept)
    model.weight.stop_gradient = False
    assert not np.allclose(train(run, GRADS[4:])["weight"], before)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_goes_on_bit_equal_on_a_rebuilt_model(name):
    unbroken = strategy_of(name).bind(model_of())
    train(unbroken, GRADS[:3])
    weights = {key: param.numpy() for key, param in unbroken.model.named_parameters()}
    saved = {
        key: {kind: value.numpy() for kind, value in kinds.items()}
        for key, kinds in unbroken.state_dict()["optimizer"].items()
    }
    rebuilt = strategy_of(name).bind(model_of())
    for key, param in rebuilt.model.named_parameters():
        param.set_value(weights[key])
    rebuilt.set_state_dict({**unbroken.state_dict(), "optimizer": saved})
    assert_same(train(rebuilt, GRADS[3:]), train(unbroken, GRADS[3:]), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_parameters_follow_a_float32_copy(name, dtype):
    keys = {"regularization": {"weight_decay": 0.1}}
    half = strategy_of(name, **keys).bind(model_of(dtype), no_decay=[])
    grads = [{key: rounded_to(dtype, value) for key, value in values.items()} for values in GRADS]
    rounded = train(half, grads)
    full = strategy_of(name, **keys).bind(model_of(), no_decay=[])
    for key, param in full.model.named_parameters():
        param.set_value(rounded_to(dtype, START[key]))
    exact = train(full, grads)
    for key, kinds in half.state_dict()["optimizer"].items():
        np.testing.assert_allclose(kinds["master_weight"].numpy(), exact[key], rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(rounded[key], rounded_to(dtype, kinds["master_weight"]))


@pytest.mark.parametrize("name", OURS)
def test_our_own_are_right_on_sparse_gradients(name):
    values = []
    for sparse in (False, True):
        layer = nn.Embedding(5, 2, sparse=sparse)
        layer.weight.set_value(np.linspace(-1, 1, 10, dtype="float32").reshape(5, 2))
        run = strategy_of(name).bind(layer)
        for rows in ([1, 3, 1], [0, 3], [4]):
            (layer(paddle.to_tensor(rows)) * 0.5).sum().backward()
            run.step()
        values.append(layer.weight.numpy())
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_rows_defaults_are_what_its_constructor_takes(name):
    row = row_of(name)
    assert not {"learning_rate", "parameters", "self"} & set(row.defaults)
    table.check_options(row, row.defaults)


def test_paddlehubs_names_are_all_there():
    for name in ("sgd", "momentum", "adagrad", "adamax", "decayedadagrad", "ftrl", "larsmomentum", "rmsprop", "adam"):
        assert table.find(name.upper()).name == name
