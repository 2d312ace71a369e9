"""FGM, PGD and SAM: numpy's numbers, in loops of one's own, accumulated, with BatchNorm, dropout and scalers."""

import functools

import numpy as np
import paddle
import pytest
from paddle import nn
from test_precision import Scaler

import paddle_ftstrat as hub
from paddle_ftstrat.optim.masters import keep
from paddle_ftstrat.optim.perturbation import PERTURBATIONS

METHODS = {
    "FGM": {"FGM": 0.3},
    "PGD": {"PGD": {"epsilon": 0.25, "alpha": 0.1, "steps": 4}},
    "SAM": {"SAM": 0.1},
}
RNG = np.random.default_rng(0)
TOKENS, TARGETS = RNG.integers(0, 7, [24, 6, 4]), RNG.normal(size=[24, 6, 2])


class Net(nn.Layer):
    """The mean of embedded tokens times a matrix, in float64."""

    def __init__(self):
        super().__init__()
        paddle.seed(1)
        self.embedding, self.head = nn.Embedding(7, 3), nn.Linear(3, 2)
        self.to(dtype="float64")

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(1))


def loss_of(model, index, rows=slice(None)):
    tokens = paddle.to_tensor(TOKENS[index][rows])
    return (model(tokens) - paddle.to_tensor(TARGETS[index][rows])).square().mean()


def numpy_gradients(w, index):
    tokens, batch = TOKENS[index], len(TOKENS[index])
    mean = w["embedding.weight"][tokens].mean(1)
    out = 2 * (mean @ w["head.weight"] + w["head.bias"] - TARGETS[index]) / (batch * 2)
    inner = np.repeat((out @ w["head.weight"].T / tokens.shape[1])[:, None], tokens.shape[1], 1)
    embedded = np.zeros_like(w["embedding.weight"])
    np.add.at(embedded, tokens, inner)
    return {"embedding.weight": embedded, "head.weight": mean.T @ out, "head.bias": out.sum(0)}


def numpy_update(method, w, gradients):
    """The gradients of an update by a method, from `gradients(weights)`."""
    plain, name = gradients(w), "embedding.weight"
    if method == "SAM":
        length = np.sqrt(sum((g**2).sum() for g in plain.values()))
        return gradients({key: w[key] + 0.1 * plain[key] / length for key in w})
    at, g = w[name], plain
    moved = {**w, name: at + 0.3 * g[name] / np.linalg.norm(g[name])}
    if method == "PGD":
        moved = dict(w)
        for _ in range(4):
            away = moved[name] + 0.1 * g[name] / np.linalg.norm(g[name]) - at
            moved = {**moved, name: at + away * min(1, 0.25 / np.linalg.norm(away))}
            g = gradients(moved)
        return {key: plain[key] + g[key] for key in w}
    g = gradients(moved)
    return {key: plain[key] + g[key] for key in w}


def values(model):
    return {name: param.numpy().copy() for name, param in model.named_parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_is_the_formula_over_24_updates(method):
    model = Net()
    expected = values(model)
    run = hub.DefaultStrategy(0.5, "sgd", perturbation=METHODS[method]).bind(model)
    plain = values(model)
    for index in range(24):
        gradients = numpy_update(method, expected, lambda w, index=index: numpy_gradients(w, index))
        expected = {name: expected[name] - 0.5 * gradients[name] for name in expected}
        g = numpy_gradients(plain, index)
        plain = {name: plain[name] - 0.5 * g[name] for name in plain}
        for loss in run.losses(lambda index=index: loss_of(model, index)):
            loss.backward()
        run.step()
    for name, value in values(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-12, err_msg=name)
        assert np.abs(value - plain[name]).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_an_update_are_as_one(method):
    whole, parts = Net(), Net()
    one, two = (hub.DefaultStrategy(0.5, "sgd", perturbation=METHODS[method]).bind(model) for model in (whole, parts))
    for index in range(6):
        for loss in one.losses(lambda index=index: loss_of(whole, index)):
            loss.backward()
        one.step()
        halves = [slice(0, 3), slice(3, 6)]
        for loss in two.losses(lambda rows, index=index: loss_of(parts, index, rows) / 2, halves):
            loss.backward()
        two.step()
    for name, value in values(whole).items():
        np.testing.assert_allclose(values(parts)[name], value, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_earlier_batches_stay(method):
    model = Net()
    run = hub.DefaultStrategy(0.5, "sgd", perturbation=METHODS[method]).bind(model)
    w, expected = values(model), []
    for index in range(3):
        expected.append(numpy_update(method, w, lambda at, index=index: numpy_gradients(at, index)))
        for loss in run.losses(lambda index=index: loss_of(model, index)):
            loss.backward()
    for name, param in model.named_parameters():
        np.testing.assert_allclose(param.grad.numpy(), sum(g[name] for g in expected), atol=1e-12)
        np.testing.assert_array_equal(param.numpy(), w[name])


def test_a_loop_over_losses_is_plain_without_a_perturbation():
    a, b = Net(), Net()
    one, two = (hub.DefaultStrategy(0.1, "momentum").bind(model) for model in (a, b))
    for index in range(4):
        seen = 0
        for loss in one.losses(lambda index=index: loss_of(a, index)):
            loss.backward()
            seen += 1
        assert seen == 1
        one.step()
        loss_of(b, index).backward()
        two.step()
    for name, value in values(a).items():
        np.testing.assert_array_equal(value, values(b)[name])


def test_a_loop_over_losses_with_sparse_gradients_is_plain():
    model = nn.Embedding(5, 2, sparse=True)
    before = model.weight.numpy()
    run = hub.DefaultStrategy(0.5, "sgd").bind(model)
    for _ in range(2):
        for loss in run.losses(lambda: model(paddle.to_tensor([1, 3])).sum()):
            loss.backward()
    run.step()
    np.testing.assert_allclose(before - model.weight.numpy(), [[0] * 2, [1] * 2, [0] * 2, [1] * 2, [0] * 2], atol=1e-6)


class Noisy(nn.Layer):
    """BatchNorm and dropout behind an embedding; notes what dropout left."""

    def __init__(self):
        super().__init__()
        paddle.seed(2)
        self.embedding, self.norm = nn.Embedding(7, 4), nn.BatchNorm1D(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)
        self.masks = []

    def forward(self, tokens):
        hidden = self.drop(self.norm(self.embedding(tokens).mean(1)))
        self.masks.append((hidden.numpy() == 0).tolist())
        return self.head(hidden)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_move_once_and_masks_are_equal_where_the_paper_wants_it(method):
    models = Noisy(), Noisy()
    strategies = hub.DefaultStrategy(0.1, "sgd", perturbation=METHODS[method]), hub.DefaultStrategy(0.1, "sgd")
    for model, strategy in zip(models, strategies):
        run = strategy.bind(model)
        paddle.seed(3)
        for loss in run.losses(lambda model=model: model(paddle.to_tensor(TOKENS[0])).square().mean()):
            loss.backward()
        run.step()
    np.testing.assert_array_equal(models[0].norm._mean.numpy(), models[1].norm._mean.numpy())
    np.testing.assert_array_equal(models[0].norm._variance.numpy(), models[1].norm._variance.numpy())
    first, *others = models[0].masks
    assert len(others) == {"FGM": 1, "PGD": 4, "SAM": 1}[method]
    assert all((mask == first) == (method == "SAM") for mask in others)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["break", "error", "error in the loss"])
def test_weights_are_back_however_the_loop_ends(method, how):
    model = Noisy()
    run = hub.DefaultStrategy(0.1, "sgd", perturbation=METHODS[method]).bind(model)
    before, seen = {name: value.numpy().copy() for name, value in model.state_dict().items()}, []

    def loss():
        seen.append({name: value.numpy().copy() for name, value in values_of(model).items()})
        if how == "error in the loss" and len(seen) == 2:
            raise KeyError("in the loss")
        return model(paddle.to_tensor(TOKENS[0])).square().mean()

    def values_of(model):
        return dict(model.named_parameters())

    try:
        for number, one in enumerate(run.losses(loss)):
            one.backward()
            if number == 1 and how == "break":
                break
            if number == 1 and how == "error":
                raise KeyError("in the loop")
    except KeyError:
        assert how != "break"
    assert not np.array_equal(seen[1]["embedding.weight"], before["embedding.weight"])
    for name, param in model.named_parameters():
        if not name.startswith("norm._"):
            np.testing.assert_array_equal(param.numpy(), before[name], err_msg=name)
    with pytest.raises(RuntimeError, match="of a plain pass"):
        run.step()


def test_frozen_weights_are_not_moved_and_cost_no_pass():
    model = Net()
    hub.param_attr.freeze(model.embedding)
    run = hub.DefaultStrategy(0.1, "sgd", perturbation={"FGM": 1.0}).bind(model)
    assert sum(1 for loss in run.losses(lambda: loss_of(model, 0)) if loss.backward() is None) == 1
    assert run.step()
    model = Net()
    hub.param_attr.freeze(model.head)
    before = values(model)
    run = hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 1.0}).bind(model)
    for loss in run.losses(lambda: loss_of(model, 0)):
        np.testing.assert_array_equal(model.head.weight.numpy(), before["head.weight"])
        loss.backward()
    run.step()
    np.testing.assert_array_equal(model.head.weight.numpy(), before["head.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_of_zero_moves_nothing(method):
    model = Net()
    run = hub.DefaultStrategy(0.1, "sgd", perturbation=METHODS[method]).bind(model)
    before = values(model)
    for loss in run.losses(lambda: (0.0 * model(paddle.to_tensor(TOKENS[0]))).sum()):
        loss.backward()
    run.step()
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_finite_leaves_weights_as_they_were(method):
    model = Net()
    run = hub.DefaultStrategy(0.1, "sgd", perturbation=METHODS[method]).bind(model)
    before = values(model)
    for loss in run.losses(lambda: loss_of(model, 0) * float("nan")):
        loss.backward()
    with pytest.raises(FloatingPointError):
        run.step()
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])


def half_loss(model, tokens, target):
    """In float32: the CPU has hardly an operation of bfloat16."""
    embedding, weight, bias = (param.astype("float32") for param in model.parameters())
    hidden = nn.functional.embedding(tokens, embedding).mean(1)
    return (hidden @ weight + bias - target).square().mean()


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_a_scaler(method):
    """Directions are scaled away, float32 copies are not touched, an overflow skips the update and restores."""
    model, reference = Net(), Net()
    for one in (model, reference):
        one.to(dtype="float32")
    for param in model.parameters():
        keep(param)
    model.to(dtype="bfloat16")
    runs = [hub.DefaultStrategy(0.5, "sgd", perturbation=METHODS[method]).bind(one) for one in (model, reference)]
    scaler = Scaler(128.0)
    for index in range(10):
        tokens, target = paddle.to_tensor(TOKENS[index]), paddle.to_tensor(TARGETS[index].astype("float32"))
        for one, run, scale in zip((model, reference), runs, (128.0, 1.0)):
            loss_of_one = functools.partial(half_loss, one, tokens, target)
            for loss in run.losses(loss_of_one):
                (loss * scale).backward()
        assert runs[0].step(scaler)
        assert runs[1].step()
    for name, param in reference.named_parameters():
        half = dict(model.named_parameters())[name].astype("float32").numpy()
        np.testing.assert_allclose(half, param.numpy(), atol=0.03, err_msg=name)
    before = {name: param.astype("float32").numpy() for name, param in model.named_parameters()}
    for loss in runs[0].losses(lambda: half_loss(model, tokens, target) * float("inf")):
        loss.backward()
    assert not runs[0].step(scaler)
    for name, param in model.named_parameters():
        np.testing.assert_array_equal(param.astype("float32").numpy(), before[name])


def test_only_what_is_selected_is_moved():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    run = hub.DefaultStrategy(0.1, "sgd", perturbation={"FGM": {"epsilon": 0.5, "where": ["1.*"]}}).bind(model)
    before = values(model)
    for number, loss in enumerate(run.losses(lambda: model(paddle.ones([2, 4])).square().mean())):
        away = {name: np.linalg.norm(value - before[name]) for name, value in values(model).items()}
        lengths = {"0.weight": 0, "0.bias": 0, "1.weight": 0.5 * number, "1.bias": 0.5 * number}
        assert away == pytest.approx(lengths, abs=1e-6)
        loss.backward()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"FGN": 1.0}, ValueError, "unknown perturbation 'FGN'. Did you mean 'FGM'"),
        ({"FGM": 1.0, "SAM": 0.1}, ValueError, "must have one name"),
        ({"FGM": -1}, ValueError, "epsilon = -1"),
        ({"SAM": {"roh": 0.1}}, ValueError, r"key of perturbation.SAM 'roh'. Did you mean 'rho'"),
        ({"PGD": {"steps": 0}}, ValueError, "steps = 0"),
        ({"SAM": "much"}, TypeError, "rho must be a number"),
        ("SAM", TypeError, "perturbation must be a dict"),
    ],
)
def test_wrong_options(given, kind, message):
    with pytest.raises(kind, match=message):
        hub.CombinedStrategy(perturbation=given)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (lambda: nn.Linear(2, 2), {"FGM": 1.0}, "has no paddle.nn.Embedding"),
        (
            lambda: nn.Linear(2, 2),
            {"FGM": {"where": "wieght"}},
            "perturbation.FGM.where matches no parameter",
        ),
        (lambda: nn.Embedding(4, 2, sparse=True), {"FGM": 1.0}, "needs dense gradients"),
    ],
)
def test_what_does_not_fit_the_model(model, given, message):
    model = model()
    with pytest.raises(ValueError, match=message):
        hub.DefaultStrategy(0.1, "sgd", perturbation=given).bind(model)
    assert not model.weight.optimize_attr.get("ftstrat")


def test_an_update_that_was_no_loop_over_losses_is_refused():
    model = Net()
    run = hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 0.1}).bind(model)
    loss_of(model, 0).backward()
    with pytest.raises(RuntimeError, match=r"perturbation SAM.*for loss in run.losses"):
        run.step()
    with pytest.raises(RuntimeError, match="belongs after the loop"):
        for loss in run.losses(lambda: loss_of(model, 0)):
            loss.backward()
            run.step()


def test_every_method_is_tested():
    assert set(METHODS) == {name for name in PERTURBATIONS if "doctest" not in name}
