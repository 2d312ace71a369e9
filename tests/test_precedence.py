"""Whose regularizer, decay and LR multiplier hold: every combination against numpy, over three updates."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L1Decay, L2Decay
from reference_optimizers import RULES, AdamW, Lamb

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr.configure import configure

LR, STEPS = 0.05, 3
OWN = {"none": None, "L1": L1Decay(0.2), "L2": L2Decay(0.3), "L2(0)": L2Decay(0.0)}
STRATEGY = {"none": {}, "L2": {"L2": 0.4}, "L2SP": {"L2SP": 0.5}, "weight_decay": {"weight_decay": 0.6}}
NATIVE = (AdamW, Lamb)
NATIVE_DEFAULT = 0.01

START = {
    "weight": np.random.RandomState(1).uniform(0.5, 1.5, (4, 3)) * np.random.RandomState(2).choice([-1, 1], (4, 3)),
    "bias": np.random.RandomState(3).uniform(0.5, 1.5, 3),
}
GRADIENTS = [
    {"weight": rng.uniform(-1, 1, (4, 3)).astype("float32"), "bias": rng.uniform(-1, 1, 3).astype("float32")}
    for rng in map(np.random.RandomState, range(10, 10 + STEPS))
]


def layer(**attr):
    """A Linear(4, 3) whose weight has these ParamAttr fields and that starts from START."""
    made = nn.Linear(4, 3, weight_attr=paddle.ParamAttr(**attr))
    for name, value in START.items():
        getattr(made, name).set_value(value.astype("float32"))
    return made


def backward(model, gradients):
    """Give each parameter exactly the gradient of that name, through a loss that is linear in it."""
    sum((getattr(model, name) * paddle.to_tensor(value)).sum() for name, value in gradients.items()).backward()


def trained(strategy, model, gradients=GRADIENTS):
    run = strategy.bind(model, pretrained="*" if strategy.regularization["L2SP"] else None)
    for gradient in gradients:
        backward(model, gradient)
        run.step()
    return {name: param.numpy() for name, param in model.named_parameters()}


def strategy_of(optimizer, regularization):
    return hub.CombinedStrategy(optimizer, LR, regularization=regularization)


def added_to_gradient(own, regularization, p, start):
    """The regularization term: the parameter's own, else L2SP, else L2."""
    if own != "none":
        return {"L1": 0.2 * np.sign(p), "L2": 0.3 * p, "L2(0)": 0.0 * p}[own]
    return regularization.get("L2SP", 0.0) * (p - start) + regularization.get("L2", 0.0) * p


def expected(rule, own, regularization, multiplier=1.0, is_bias=False):
    """One parameter after three updates."""
    name = "bias" if is_bias else "weight"
    decays = own == "none" and not is_bias
    asked = regularization.get("weight_decay")
    native = decays * (NATIVE_DEFAULT if asked is None else asked if rule is AdamW else 1e-30)
    decoupled = decays * (0.0 if asked is None or rule is AdamW else asked)
    optimizer = rule(native) if rule in NATIVE else rule()
    p = start = START[name].astype("float32").astype("float64")
    lr = LR * multiplier
    for gradient in GRADIENTS:
        g = gradient[name].astype("float64") + added_to_gradient(own, regularization, p, start)
        p = optimizer.update(p, g, lr) * (1 - lr * decoupled)
    return p


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("regularization", STRATEGY)
@pytest.mark.parametrize("own", OWN)
def test_truth_table(own, regularization, optimizer):
    strategy = strategy_of(optimizer, STRATEGY[regularization])
    result = trained(strategy, layer(regularizer=OWN[own]))
    weight = expected(RULES[optimizer], own, STRATEGY[regularization])
    bias = expected(RULES[optimizer], "none", STRATEGY[regularization], is_bias=True)
    np.testing.assert_allclose(result["weight"], weight, rtol=1e-5, atol=0)
    np.testing.assert_allclose(result["bias"], bias, rtol=1e-5, atol=0)


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("own", OWN)
def test_configured_later_is_as_built_so(own, optimizer):
    configured = layer()
    configure(configured, [("weight", {"regularizer": OWN[own], "learning_rate": 0.5})])
    strategy = strategy_of(optimizer, STRATEGY["weight_decay"])
    built = trained(strategy, layer(regularizer=OWN[own], learning_rate=0.5))
    for name, value in trained(strategy, configured).items():
        np.testing.assert_array_equal(value, built[name])


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("regularization", STRATEGY)
@pytest.mark.parametrize("multiplier", [0.1, 2.0])
def test_lr_multiplier_is_a_factor_of_the_lr(multiplier, regularization, optimizer):
    result = trained(strategy_of(optimizer, STRATEGY[regularization]), layer(learning_rate=multiplier))
    weight = expected(RULES[optimizer], "none", STRATEGY[regularization], multiplier)
    np.testing.assert_allclose(result["weight"], weight, rtol=1e-5, atol=0)


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("regularization", STRATEGY)
@pytest.mark.parametrize("own", OWN)
def test_lr_multiplier_zero_leaves_the_bytes(own, regularization, optimizer):
    result = trained(strategy_of(optimizer, STRATEGY[regularization]), layer(regularizer=OWN[own], learning_rate=0.0))
    assert result["weight"].tobytes() == START["weight"].astype("float32").tobytes()
    assert not np.array_equal(result["bias"], START["bias"].astype("float32"))


def after_one_update(optimizer, model, gradients=GRADIENTS[0]):
    backward(model, gradients)
    optimizer.step()
    return model.weight.numpy()


class TestPlainPaddle:
    """What Paddle itself does with ParamAttr. Where one of these fails, a workaround here may have become needless."""

    @pytest.mark.parametrize("cls", [paddle.optimizer.AdamW, paddle.optimizer.Lamb])
    def test_decays_over_a_regularizer_of_zero(self, cls):
        decay = "weight_decay" if cls is paddle.optimizer.AdamW else "lamb_weight_decay"
        results = []
        for coefficient in (0.0, 0.5):
            model = layer(regularizer=L2Decay(0.0))
            optimizer = cls(LR, parameters=model.parameters(), **{decay: coefficient})
            results.append(after_one_update(optimizer, model))
        assert np.abs(results[0] - results[1]).max() > 1e-3
        strategy = hub.CombinedStrategy(cls, LR, **{decay: 0.5})
        ours = trained(strategy, layer(regularizer=L2Decay(0.0)), GRADIENTS[:1])["weight"]
        np.testing.assert_array_equal(ours, results[0])

    def test_dict_groups_overwrite_param_attr(self):
        model = layer(learning_rate=0.1, regularizer=L2Decay(0.3))
        moved = after_one_update(paddle.optimizer.SGD(LR, parameters=[{"params": model.parameters()}]), model)
        plain = START["weight"] - LR * GRADIENTS[0]["weight"]
        np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=0)
        right = START["weight"] - 0.1 * LR * (GRADIENTS[0]["weight"] + 0.3 * START["weight"])
        ours = trained(strategy_of("sgd", {}), layer(learning_rate=0.1, regularizer=L2Decay(0.3)), GRADIENTS[:1])
        np.testing.assert_allclose(ours["weight"], right, rtol=1e-5, atol=0)

    def test_dict_groups_are_clipped_one_by_one(self):
        model = layer()
        groups = [{"params": [model.weight]}, {"params": [model.bias]}]
        clip = nn.ClipGradByGlobalNorm(0.1)
        moved = after_one_update(paddle.optimizer.SGD(1.0, parameters=groups, grad_clip=clip), model)
        gradient = GRADIENTS[0]["weight"]
        alone = 0.1 / np.linalg.norm(gradient)
        together = 0.1 / np.sqrt(sum(np.sum(g**2) for g in GRADIENTS[0].values()))
        np.testing.assert_allclose(moved, START["weight"] - alone * gradient, rtol=1e-5, atol=0)
        strategy = hub.CombinedStrategy("sgd", 1.0, clip={"GlobalNorm": 0.1})
        ours = trained(strategy, layer(), GRADIENTS[:1])["weight"]
        np.testing.assert_allclose(ours, START["weight"] - together * gradient, rtol=1e-5, atol=0)
