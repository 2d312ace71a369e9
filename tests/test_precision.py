"""Mixed precision: half-precision parameters under a strategy, loss scaling, and the precision of the loop."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from paddle import nn
from paddle.base import core
from paddle.regularizer import L1Decay, L2Decay
from reference_optimizers import Adam, AdamW, Momentum

import paddle_ftstrat as hub
from paddle_ftstrat._paddle.updates import cast_layers
from paddle_ftstrat.optim import masters, table
from paddle_ftstrat.training import lr_find, precision

STILL = 1e-30  # an LR that moves nothing
HALVES = ("bfloat16", "float16")
RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(8, 4)).astype("float32")
MULTIPLIERS = {"0.weight": 0.5, "0.bias": 0.5, "1.weight": 1.0, "1.bias": 1.0}


class Stored(nn.Linear):
    """A linear layer that computes in float32 whatever its weights are stored in, as a CPU has to."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.astype("float32"), self.bias.astype("float32"))


def model_of(dtype=None, seed=5, scale=1.0):
    """Two layers with the same values each time, cast if there is a dtype."""
    model = nn.Sequential(Stored(4, 5), Stored(5, 3))
    rng = np.random.default_rng(seed)
    for param in model.parameters():
        param.set_value((rng.normal(size=param.shape) * scale).astype("float32"))
    return model if dtype is None else model.to(dtype=dtype)


def prepared(dtype, monkeypatch, **how):
    """A model cast by O2, on a device that is made out to have mixed precision."""
    model = model_of(**how)
    o2(dtype, monkeypatch).prepare(model)
    return model


def o2(dtype, monkeypatch, level="O2"):
    monkeypatch.setattr(precision, "autocasts", lambda dtype: True)
    return precision.mixed_precision(level, dtype, scaler=None if dtype == "bfloat16" else Scaler())


def values(model):
    return {name: param.astype("float32").numpy() for name, param in model.named_parameters()}


def rounded(dtype, value):
    return paddle.to_tensor(np.asarray(value, "float32")).astype(dtype).astype("float32").numpy()


def master_values(run):
    return {name: kinds["master_weight"].numpy() for name, kinds in run.state_dict()["optimizer"].items()}


def backward(model, factor=1.0):
    (model(paddle.to_tensor(DATA)).square().mean() * factor).backward()
    return {name: p.grad.astype("float32").numpy() for name, p in model.named_parameters() if p.grad is not None}


def set_grads(model, grads):
    for name, param in model.named_parameters():
        param.clear_gradient(False)
        (param.astype("float32") * paddle.to_tensor(np.asarray(grads[name], "float32"))).sum().backward()


class Scaler:
    """A loss scaler as `paddle.amp.GradScaler`, which Paddle switches off on a CPU."""

    def __init__(self, scale=1024.0):
        self.factor, self.skipped = scale, 0

    def is_enable(self):
        return True

    def scale(self, loss):
        return loss * self.factor

    def step(self, optimizer):
        grads = [p.grad for p in optimizer._parameter_list if p.grad is not None]
        assert {grad.dtype for grad in grads} <= {paddle.float32}
        self.found = not all(np.isfinite(grad.numpy()).all() for grad in grads)
        with paddle.no_grad():
            for grad in grads:
                grad.scale_(1 / self.factor)
        optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([self.found]))
        optimizer.step()

    def update(self):
        self.skipped += self.found
        self.factor *= 0.5 if self.found else 1.0

    def state_dict(self):
        return {"scale": np.array([self.factor], "float32"), "incr_count": self.skipped}

    def load_state_dict(self, state):
        self.factor, self.skipped = float(state["scale"][0]), state["incr_count"]


@pytest.fixture
def grad_scaler(monkeypatch):
    """Paddle's own GradScaler, told that it is on a GPU."""
    place = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
    module = sys.modules["paddle.amp.grad_scaler"]
    monkeypatch.setattr(module, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    if hasattr(module, "amp_global_state"):
        monkeypatch.setattr(module, "amp_global_state", lambda: SimpleNamespace(amp_dtype="float16"))
    return paddle.amp.GradScaler(init_loss_scaling=1024.0, incr_every_n_steps=3, decr_every_n_nan_or_inf=1)


class Reference:
    """The whole update in numpy, on float32 weights: clip, L2SP, rule, decoupled decay."""

    def __init__(self, weights, rule, decay, steps, lr=0.02, clip=0.5, l2sp=0.3):
        self.weights = {name: np.float64(value) for name, value in weights.items()}
        self.anchors = dict(self.weights)
        self.rules = {name: rule() for name in weights}
        self.decay, self.steps, self.lr, self.clip, self.l2sp = decay, steps, lr, clip, l2sp
        self.t = 0

    def update(self, grads):
        lr = self.lr * (1 - self.t / self.steps)
        norm = np.sqrt(sum((np.float64(grad) ** 2).sum() for grad in grads.values()))
        for name, weight in self.weights.items():
            grad = np.float64(grads[name]) * min(1.0, self.clip / norm) + self.l2sp * (weight - self.anchors[name])
            weight = self.rules[name].update(weight, grad, lr * MULTIPLIERS[name])
            self.weights[name] = weight * (1 - lr * MULTIPLIERS[name] * self.decay * name.endswith("weight"))
        self.t += 1


def full_strategy(name):
    return hub.CombinedStrategy(
        optimizer_name=name,
        learning_rate=0.02,
        scheduler={"linear_decay": {"start_point": 0.0, "end_learning_rate": 0.0}, "discriminative": {"blocks": 2}},
        regularization={"L2SP": 0.3, "weight_decay": 0.1},
        clip={"GlobalNorm": 0.5},
    ).add_scheduler("discriminative", blocks=2, factor=2.0)


class NoBiasDecay(AdamW):
    def __init__(self):
        super().__init__(0.1)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("name", "rule"), [("adam", Adam), ("momentum", Momentum), ("adamw", NoBiasDecay)])
def test_fifty_updates_are_those_of_float32_on_the_same_gradients(name, rule, dtype, monkeypatch):
    model, steps = prepared(dtype, monkeypatch), 50
    run = full_strategy(name).bind(model, max_train_steps=steps, pretrained="*")
    start = values(model_of())
    reference = Reference(start, rule, 0.0 if name == "adamw" else 0.1, steps)
    if name == "adamw":
        for key in ("0.bias", "1.bias"):
            reference.rules[key].decay = 0.0
    for _ in range(steps):
        grads = backward(model)
        reference.update(grads)
        assert run.step() is True
        for key, master in master_values(run).items():
            np.testing.assert_array_equal(values(model)[key], rounded(dtype, master))
    for key, master in master_values(run).items():
        np.testing.assert_allclose(master, reference.weights[key], rtol=2e-5, atol=2e-6)
        assert np.abs(master - start[key]).max() > 0.05


def test_masters_and_anchors_start_from_before_the_cast(monkeypatch):
    start = values(model_of())
    for when in ("before", "after"):
        model = model_of()
        cast = o2("bfloat16", monkeypatch)
        if when == "before":
            cast.prepare(model)
        run = hub.L2SPFinetuneStrategy(STILL, "sgd").bind(model, pretrained="*")
        if when == "after":
            cast.prepare(model)
        backward(model)
        run.step()
        for name, value in start.items():
            assert not np.array_equal(rounded("bfloat16", value), value)
            np.testing.assert_array_equal(run.state_dict()["anchors"][name].numpy(), value)
            np.testing.assert_array_equal(master_values(run)[name], value)
            np.testing.assert_array_equal(values(model)[name], rounded("bfloat16", value))


@pytest.mark.parametrize("master_grad", [False, True])
@pytest.mark.parametrize("name", ["adam", "momentum", "sgd", "lamb", "lion"])
@pytest.mark.parametrize("regularizer", [L2Decay(0.7), L1Decay(0.2), "L2", "L2SP"])
def test_no_regularizer_is_lost_and_each_acts_on_the_float32_value(regularizer, name, master_grad, monkeypatch):
    """Also where Paddle makes gradients float32 before the optimizer sees them."""
    keys = {"optimizer_name": name, "learning_rate": 0.1}
    if isinstance(regularizer, str):
        keys["regularization"] = {regularizer: 0.5}
    results = []
    for dtype in (None, "bfloat16"):
        model = model_of() if dtype is None else prepared(dtype, monkeypatch)
        if not isinstance(regularizer, str):
            model[0].weight.regularizer = regularizer
        run = hub.CombinedStrategy(**keys).bind(model, pretrained="*" if regularizer == "L2SP" else None)
        if dtype and master_grad:
            run.optimizer._multi_precision = True
        for t in range(4):
            set_grads(model, {key: rounded("bfloat16", np.full(p.shape, 0.01 * t)) for key, p in named(model)})
            if dtype and master_grad:
                core.eager.set_master_grads(model.parameters())
                assert model[0].weight.grad.dtype == paddle.float32
            run.step()
        results.append(values(model) if dtype is None else master_values(run))
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, rtol=2e-5, atol=2e-6)


def named(model):
    return list(model.named_parameters())


def test_what_paddle_itself_does_to_regularizers():
    """It drops them where gradients are float32 (master_grad); when this fails, Paddle has been mended."""
    weight = model_of("bfloat16")[0].weight
    weight.regularizer = L2Decay(0.5)
    for decay, term in ((None, None), (0.25, 0.25)):
        adam = paddle.optimizer.Adam(parameters=[weight], multi_precision=True, weight_decay=decay)
        adam._create_master_weight(weight)
        arguments = weight, paddle.zeros(weight.shape), adam.regularization
        if term is None:
            with pytest.raises(AssertionError):
                adam._create_regularization_of_grad(*arguments)
        else:
            found = adam._create_regularization_of_grad(*arguments).numpy()
            np.testing.assert_allclose(found, term * weight.astype("float32").numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["GlobalNorm", "Norm", "Value"])
@pytest.mark.parametrize("dtype", HALVES)
def test_clipping_large_gradients_does_not_overflow(kind, dtype):
    grads = {name: RNG.normal(size=p.shape) * 2e4 for name, p in named(model_of())}
    after = []
    for model in (model_of(dtype), model_of(dtype).to(dtype="float32")):
        run = hub.CombinedStrategy("sgd", 0.5, clip={kind: 1.0}).bind(model)
        set_grads(model, {name: rounded(dtype, value) for name, value in grads.items()})
        run.step()
        after.append(master_values(run) if len(after) == 0 else values(model))
    for name, value in after[1].items():
        np.testing.assert_allclose(after[0][name], value, rtol=1e-6, atol=1e-7)


@given(
    st.sampled_from(HALVES),
    st.sampled_from(["sgd", "adam", "rmsprop", "ftrl", "adamax"]),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
def test_masters_go_where_float32_weights_go(dtype, name, l2, wd):
    keys = {"optimizer_name": name, "learning_rate": 0.05, "clip": {"GlobalNorm": 1.0}}
    strategy = hub.CombinedStrategy(**keys, regularization={"L2": l2, "weight_decay": wd})
    half, full = model_of(dtype), model_of(dtype).to(dtype="float32")
    runs = strategy.bind(half), strategy.bind(full)
    for t in range(3):
        grads = {key: rounded(dtype, np.sin(np.arange(p.size) + t).reshape(p.shape)) for key, p in named(full)}
        # Where decay cancels a gradient, an adaptive optimizer divides what rounding has left of it by itself.
        norm = max(1.0, np.sqrt(sum(np.square(grad).sum() for grad in grads.values())))
        assume(all(np.abs(grads[key] / norm + l2 * value).min() > 1e-5 for key, value in values(full).items()))
        for run in runs:
            set_grads(run.model, grads)
            run.step()
    for key, value in values(full).items():
        np.testing.assert_allclose(master_values(runs[0])[key], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(values(half)[key], rounded(dtype, master_values(runs[0])[key]))


@pytest.mark.parametrize("dtype", HALVES)
def test_without_lasting_copies_each_update_is_rounded(dtype):
    model = model_of(dtype)
    keys = {"regularization": {"L2": 0.5}, "multi_precision": False}
    run = hub.CombinedStrategy("momentum", 0.01, momentum=0.0, **keys).bind(model)
    for _ in range(3):
        start, grads = values(model), backward(model)
        run.step()
        for key, value in values(model).items():
            np.testing.assert_array_equal(
                value, rounded(dtype, start[key] - np.float32(0.01) * (grads[key] + start[key] / 2))
            )
    assert list(run.state_dict()["optimizer"]["0.weight"]) == ["velocity"]


@pytest.mark.parametrize("name", [name for name in table.names() if not table.ROWS[name].registered])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_saved_state_goes_on_in_a_fresh_model(name, dtype, monkeypatch):
    strategy = hub.CombinedStrategy(name, 0.05, regularization={"L2SP": 0.1})
    unbroken = strategy.bind(prepared(dtype, monkeypatch), pretrained="*")
    for _ in range(3):
        backward(unbroken.model)
        unbroken.step()
    weights = {key: value.numpy() for key, value in unbroken.model.state_dict().items()}
    saved = {**unbroken.state_dict(), "optimizer": numpied(unbroken.state_dict()["optimizer"])}
    saved["anchors"] = {key: value.numpy() for key, value in saved["anchors"].items()}
    fresh = strategy.bind(prepared(dtype, monkeypatch, seed=9), pretrained="*")
    for key, param in fresh.model.state_dict().items():
        param.set_value(weights[key])
    fresh.set_state_dict(saved)
    for run in (unbroken, fresh):
        run.begin_epoch(2)
        for _ in range(3):
            backward(run.model)
            run.step()
    for key, value in master_values(unbroken).items():
        np.testing.assert_array_equal(master_values(fresh)[key], value)
        np.testing.assert_array_equal(values(fresh.model)[key], values(unbroken.model)[key])


def numpied(state):
    return {key: {kind: value.numpy() for kind, value in kinds.items()} for key, kinds in state.items()}


def test_state_of_another_precision_is_refused():
    runs = [hub.DefaultStrategy(0.1, "adam").bind(model_of(dtype)) for dtype in (None, "bfloat16")]
    for run in runs:
        backward(run.model)
        run.step()
    states = [run.state_dict() for run in runs]
    with pytest.raises(ValueError, match=r"saved with half-precision weights"):
        runs[0].set_state_dict(states[1])
    with pytest.raises(ValueError, match=r"saved with float32 weights"):
        runs[1].set_state_dict(states[0])


def test_a_second_binding_goes_on_from_the_float32_values(monkeypatch):
    model = prepared("bfloat16", monkeypatch)
    first = hub.DefaultStrategy(1e-4, "sgd").bind(model)
    backward(model)
    first.step()
    before = {key: value.copy() for key, value in master_values(first).items()}
    second = hub.L2SPFinetuneStrategy(STILL, "adam").bind(model, pretrained="*")
    backward(model)
    second.step()
    for key, value in before.items():
        np.testing.assert_array_equal(master_values(second)[key], value)
        np.testing.assert_array_equal(second.state_dict()["anchors"][key].numpy(), value)


@pytest.mark.parametrize("how", ["bind", "begin_epoch"])
def test_weights_changed_by_hand_count(how, monkeypatch):
    model = prepared("bfloat16", monkeypatch)
    run = hub.DefaultStrategy(STILL, "sgd").bind(model)
    backward(model)
    run.step()
    kept = master_values(run)["0.bias"]
    value = values(model)["0.weight"]
    value[0, 0] = 7.0
    model[0].weight.set_value(paddle.to_tensor(value).astype("bfloat16"))
    if how == "bind":
        run = hub.DefaultStrategy(STILL, "sgd").bind(model)
    else:
        run.begin_epoch()
    backward(model)
    run.step()
    after = master_values(run)["0.weight"]
    assert after[0, 0] == 7.0
    start = values(model_of())["0.weight"]
    np.testing.assert_array_equal(after.ravel()[1:], start.ravel()[1:])
    np.testing.assert_array_equal(master_values(run)["0.bias"], kept)


def test_a_trial_leaves_the_float32_values_as_they_were(monkeypatch):
    model = prepared("bfloat16", monkeypatch)
    run = hub.DefaultStrategy(0.5, "adam").bind(model)
    before = masters.float32_of(model[0].weight).numpy()
    with lr_find.preserved(model, run):
        for _ in range(3):
            backward(model)
            run.step()
        assert np.abs(masters.float32_of(model[0].weight).numpy() - before).max() > 0.1
    np.testing.assert_array_equal(masters.float32_of(model[0].weight).numpy(), before)
    run.optimizer.set_lr_scheduler(run.lr_scheduler)
    backward(model)
    run.step()
    assert np.abs(master_values(run)["0.weight"] - before).max() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("name", "value"), [("wd", [0.3, 0.1]), ("mom", [0.5, 0.8]), ("mom", 0.7)])
def test_hyper_parameters_reach_the_float32_values(name, value):
    results = []
    for model in (model_of("bfloat16"), model_of("bfloat16").to(dtype="float32")):
        run = full_strategy("adam").bind(model, max_train_steps=50, pretrained="*")
        run.set_hyper(name, value)
        for t in range(3):
            set_grads(model, {key: np.full(p.shape, 0.5 + t) for key, p in named(model)})
            run.step()
        results.append(values(model) if len(results) else master_values(run))
    for key, expected in results[1].items():
        np.testing.assert_allclose(results[0][key], expected, rtol=1e-6, atol=1e-7)


def test_frozen_parameters_stay_and_start_from_float32_when_thawed(monkeypatch):
    model = prepared("bfloat16", monkeypatch)
    strategy = hub.CombinedStrategy("sgd", STILL, scheduler={"gradual_unfreeze": 2}, regularization={"L2SP": 0.1})
    run = strategy.bind(model, num_epoch=2, steps_per_epoch=1, pretrained="*")
    for epoch in (1, 2):
        run.begin_epoch()
        backward(model)
        run.step()
        assert set(master_values(run)) == ({"1.weight", "1.bias"} if epoch == 1 else set(MULTIPLIERS))
    for key, value in values(model_of()).items():
        np.testing.assert_array_equal(master_values(run)[key], value)


class TestScaler:
    def run(self, model, **keys):
        strategy = hub.CombinedStrategy("adam", 0.01, scheduler={"warmup": 0.5}, **keys)
        return strategy.bind(model, max_train_steps=20)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize("kind", ["paddle", "double"])
    @pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
    def test_an_infinite_gradient_skips_everything_but_the_scaler(self, bad, kind, dtype, grad_scaler):
        scaler = grad_scaler if kind == "paddle" else Scaler()
        model = model_of(None if dtype == "float32" else dtype)
        run = self.run(model, regularization={"weight_decay": 0.5})
        zeros = {key: np.zeros(p.shape) for key, p in named(model)}
        for _ in range(3):
            set_grads(model, {key: value + 1024 for key, value in zeros.items()})
            assert run.step(scaler) is True
        before, state = values(model), numpied(run.state_dict()["optimizer"])
        set_grads(model, {**zeros, "1.bias": np.full(3, bad)})
        assert run.step(scaler) is False
        assert run.lr_scheduler.last_epoch == 3
        assert all(param.grad is None for param in model.parameters())
        np.testing.assert_equal(values(model), before)
        np.testing.assert_equal(numpied(run.state_dict()["optimizer"]), state)
        scale = scaler.factor if kind == "double" else scaler.state_dict()["scale"].item()
        assert scale == (512.0 if kind == "double" else 1024.0)
        backward(model)
        assert run.step() is True
        assert run.lr_scheduler.last_epoch == 4
        assert not np.array_equal(values(model)["0.weight"], before["0.weight"])

    @pytest.mark.parametrize("clip", [None, {"GlobalNorm": 0.1}])
    def test_scaled_updates_are_the_unscaled_ones(self, clip, grad_scaler):
        keys = {"regularization": {"L2": 0.1, "weight_decay": 0.1}, **({} if clip is None else {"clip": clip})}
        plain, scaled = self.run(model_of("float16"), **keys), self.run(model_of("float16"), **keys)
        for _ in range(5):
            grads = {key: rounded("float16", RNG.normal(size=p.shape)) for key, p in named(plain.model)}
            set_grads(plain.model, grads)
            plain.step()
            set_grads(scaled.model, {key: value * grad_scaler.state_dict()["scale"] for key, value in grads.items()})
            assert scaled.step(grad_scaler) is True
        for key, value in master_values(plain).items():
            np.testing.assert_allclose(master_values(scaled)[key], value, rtol=1e-6)
        assert grad_scaler.state_dict()["scale"].item() == 2048.0

    def test_small_gradients_survive_the_unscaling(self, grad_scaler):
        """2^-30 is no float16, but 2^-20 is, and 2^-30 is what the update has to see."""
        model = model_of("float16")
        run = hub.CombinedStrategy("sgd", 2.0**25).bind(model)
        start = values(model)
        set_grads(model, {key: np.full(p.shape, 2.0**-20) for key, p in named(model)})
        run.step(grad_scaler)
        for key, value in start.items():
            np.testing.assert_allclose(master_values(run)[key], value - 2.0**-5, rtol=1e-6)

    def test_a_disabled_scaler_is_none(self):
        with pytest.warns(UserWarning, match="no effect"):
            scaler = paddle.amp.GradScaler()
        model = model_of()
        run = self.run(model)
        scaler.scale(model(paddle.to_tensor(DATA)).mean()).backward()
        assert run.step(scaler) is True
        assert run.lr_scheduler.last_epoch == 1


class TestMake:
    def test_float32_is_a_plain_update(self):
        plain = precision.mixed_precision()
        twins = [model_of(), model_of()]
        runs = [hub.DefaultStrategy(0.1, "adam").bind(model) for model in twins]
        plain.prepare(twins[0])
        for _ in range(3):
            with plain.forward():
                loss = twins[0](paddle.to_tensor(DATA)).square().mean()
            plain.backward(loss)
            assert plain.update(runs[0]) is True
            backward(twins[1])
            runs[1].step()
        np.testing.assert_equal(values(twins[0]), values(twins[1]))
        assert plain.state_dict() == {}
        plain.set_state_dict({})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"level": "O3"}, r"unknown level of mixed precision 'O3'.*O1, O2"),
            ({"level": "o2"}, r"Did you mean 'O2'"),
            ({"level": "O1", "dtype": "bf16"}, r"unknown dtype of mixed precision 'bf16'"),
            ({"level": "O1", "dtype": "float32"}, r"Allowed: bfloat16, float16"),
            ({"dtype": "float16"}, r"level='O1' or 'O2'"),
            ({"scaler": Scaler()}, r"level='O1' or 'O2'"),
            ({"level": "O1", "scaler": Scaler()}, r"needs no scaling"),
            ({"level": "O1"}, r"does nothing on cpu: train in float32"),
            ({"level": "O2", "dtype": "float16"}, r"float16 does nothing on cpu"),
        ],
    )
    def test_what_would_do_nothing_is_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            precision.mixed_precision(**arguments)

    def test_a_scaler_that_is_off_is_refused(self, monkeypatch):
        monkeypatch.setattr(precision, "autocasts", lambda dtype: True)
        with pytest.raises(ValueError, match="switched off"):
            precision.mixed_precision("O1", "float16", paddle.amp.GradScaler(enable=False))

    @pytest.mark.parametrize("level", precision.LEVELS)
    @pytest.mark.parametrize("dtype", HALVES)
    def test_it_trains(self, level, dtype, monkeypatch):
        model = model_of()
        amp = o2(dtype, monkeypatch, level)
        run = hub.CombinedStrategy("adam", 0.02, regularization={"L2SP": 1e-3}).bind(model, pretrained="*")
        amp.prepare(model)
        stored = "float32" if level == "O1" else dtype
        assert {param.dtype for param in model.parameters()} == {getattr(paddle, stored)}
        losses = []
        for _ in range(30):
            with amp.forward():
                loss = model(paddle.to_tensor(DATA)).square().mean()
            amp.backward(loss)
            assert amp.update(run) is True
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 4

    @pytest.mark.parametrize("dtype", HALVES)
    def test_the_cast_leaves_norms_as_paddle_does(self, dtype, monkeypatch):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1D(2), nn.LayerNorm(2), nn.Embedding(3, 2))
        model[3].weight.stop_gradient = True
        amp = o2(dtype, monkeypatch)
        amp.prepare(model)
        amp.prepare(model)
        layer_norm = "float32" if dtype == "float16" else dtype
        expected = [dtype] * 2 + ["float32"] * 4 + [layer_norm] * 2 + [dtype]
        assert [str(p.dtype).split(".")[1] for p in model.parameters()] == expected
        kept = [hasattr(p, "ftstrat_float32") for p in model.parameters()]
        assert kept == [d != "float32" for d in expected[:-1]] + [False]

    def test_sparse_embeddings_are_refused(self, monkeypatch):
        model = nn.Sequential(nn.Embedding(3, 2, sparse=True), nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"\['0'\] with sparse=False"):
            o2("bfloat16", monkeypatch).prepare(model)
        cast_layers(model, "bfloat16")
        with pytest.raises(ValueError, match=r"half precision.*\['0'\] with sparse=False"):
            hub.DefaultStrategy(0.1, "sgd").bind(model)

    def test_the_scalers_state_goes_through_json(self, monkeypatch):
        amp = o2("float16", monkeypatch)
        amp.scaler.factor, amp.scaler.skipped = 256.0, 3
        state = json.loads(json.dumps(amp.state_dict()))
        other = o2("float16", monkeypatch)
        other.set_state_dict(state)
        assert (other.scaler.factor, other.scaler.skipped) == (256.0, 3)
        with pytest.raises(ValueError, match=r"\['incr_count'\] missing"):
            other.set_state_dict({"scale": 1.0})
        with pytest.raises(ValueError, match="resume in the precision that was saved"):
            precision.mixed_precision().set_state_dict(state)

    def test_paddles_scaler_goes_through_json(self, grad_scaler, monkeypatch):
        monkeypatch.setattr(precision, "autocasts", lambda dtype: True)
        amp = precision.mixed_precision("O2", "float16", grad_scaler)
        state = json.loads(json.dumps(amp.state_dict()))
        assert state["scale"] == 1024.0
        state["scale"] = 64.0
        amp.set_state_dict(state)
        assert amp.scaler.state_dict()["scale"].item() == 64.0
