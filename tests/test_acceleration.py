"""Accelerated layers against Paddle's own: outputs, gradients, dropout, where they step in and where not."""

import copy
import importlib
import pickle

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional
from paddle.vision import models

import paddle_ftstrat as hub
from paddle_ftstrat import _paddle, acceleration
from paddle_ftstrat.acceleration import forwards, stands

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """Small tensors, too, take the faster way here."""
    monkeypatch.setattr(stands, "LEAST", 0)
    paddle.seed(0)


def close(here, there, tolerance=TOLERANCE, floor=1e-3):
    here, there = np.asarray(here), np.asarray(there)
    assert here.shape == there.shape
    assert np.abs(here - there).max() <= tolerance * max(np.abs(there).max(), floor)


def run(layer, inputs, weights, *more):
    """The output and the gradients by inputs and parameters, of Σ output·weights."""
    inputs = [paddle.to_tensor(x) if x.dtype.kind == "i" else paddle.to_tensor(x, stop_gradient=False) for x in inputs]
    output = layer(*inputs, *more)
    (output * paddle.to_tensor(weights)).sum().backward()
    params = {name: param.grad for name, param in layer.named_parameters() if not param.stop_gradient}
    grads = {**params, **{f"input {i}": x.grad for i, x in enumerate(inputs) if not x.stop_gradient}}
    layer.clear_gradients()
    return output.numpy(), {name: None if grad is None else grad.numpy() for name, grad in grads.items()}


class Spy:
    """The module of the operations, and which of them were used."""

    def __init__(self):
        self.module, self.used = stands.operations(), set()

    def __getattr__(self, name):
        self.used.add(name)
        return getattr(self.module, name)


@pytest.fixture
def refused(monkeypatch):
    """Fails when an operation of this library's runs."""
    monkeypatch.setattr(forwards, "operations", lambda: pytest.fail("not the layer's own forward"))


def both(layer, inputs, *more, through="Dense"):
    """What Paddle gives and what the accelerated layer gives, which has to go through an operation."""
    shape = layer(*map(paddle.to_tensor, inputs), *more).shape
    weights = np.random.default_rng(1).standard_normal(shape).astype("float32")
    plain = run(layer, inputs, weights, *more)
    assert hub.accelerate(layer).replaced
    spy = Spy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwards, "operations", lambda: spy)
        fast = run(layer, inputs, weights, *more)
    assert through in spy.used
    return plain, fast


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def encoder(activation, before, dropout=0.0):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, activation, normalize_before=before)
    for param in layer.parameters():
        param.set_value(param + 0.1 * paddle.randn(param.shape))
    return layer


def mask(kind):
    masks = {
        "none": None,
        "bool": np.random.default_rng(0).random((3, 1, 5, 5)) > 0.2,
        "padding": np.where(np.arange(5) < np.array([5, 3, 1])[:, None], 0, -1e9)[:, None, None].astype("float32"),
        "causal": np.triu(np.full((5, 5), -np.inf), 1).astype("float32"),
        "heads": normal(1, 2, 5, 5),
    }
    return None if masks[kind] is None else paddle.to_tensor(masks[kind])


def batch_norm(cls, channels, **options):
    layer = cls(channels, **options)
    for param in layer.parameters():
        param.set_value(paddle.to_tensor(1 + normal(channels)))
    for statistic in (layer._mean, layer._variance):
        statistic.set_value(paddle.to_tensor(1 + normal(channels) ** 2))
    return layer


# Channels of 64 positions or more are summed otherwise than shorter ones.
NORMS = {
    "long": (lambda: batch_norm(nn.BatchNorm2D, 3), [3 + normal(4, 3, 8, 9)]),
    "short": (lambda: batch_norm(nn.BatchNorm2D, 70), [3 + normal(4, 70, 2, 3)]),
    "1D": (lambda: batch_norm(nn.BatchNorm1D, 300), [normal(5, 300)]),
    "1D of sequences": (lambda: batch_norm(nn.BatchNorm1D, 3, momentum=0.5), [normal(5, 3, 100)]),
    "3D": (lambda: batch_norm(nn.BatchNorm3D, 3, epsilon=0.1), [normal(2, 3, 4, 5, 6)]),
    "without weight and bias": (
        lambda: batch_norm(nn.BatchNorm2D, 3, weight_attr=False, bias_attr=False),
        [normal(4, 3, 8, 9)],
    ),
    "fixed": (lambda: batch_norm(nn.BatchNorm2D, 3, use_global_stats=True), [normal(4, 3, 8, 9)]),
    "fixed short": (lambda: batch_norm(nn.BatchNorm2D, 70, use_global_stats=True), [normal(4, 70, 2, 3)]),
}
# Paddle's own loses there what float32 can still tell apart.
FAR = {
    "long, far from zero": (lambda: batch_norm(nn.BatchNorm2D, 3), [1000 + normal(4, 3, 8, 9)]),
    "short, far from zero": (lambda: batch_norm(nn.BatchNorm2D, 3), [1000 + normal(4, 3, 2, 3)]),
}


LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), [normal(4, 3, 7)], "Dense"),
    "linear of a vector": (lambda: nn.Linear(7, 5), [normal(7)], "Dense"),
    "linear without bias": (lambda: nn.Linear(7, 5, bias_attr=False), [normal(9, 7)], "Dense"),
    "relu": (nn.ReLU, [normal(5, 1001)], "Activation"),
    "relu6": (nn.ReLU6, [8 * normal(5, 1001)], "Activation"),
    "gelu": (nn.GELU, [4 * normal(5, 1001)], "Activation"),
    "layer norm": (lambda: nn.LayerNorm(33), [3 + normal(4, 5, 33)], "Norm"),
    "layer norm of many rows": (lambda: nn.LayerNorm(16), [normal(5000, 16)], "Norm"),
    "embedding": (lambda: nn.Embedding(10, 70), [np.random.default_rng(0).integers(0, 10, (6, 4))], "Lookup"),
    "embedding with padding": (lambda: nn.Embedding(10, 3, padding_idx=2), [np.array([[2, 3], [3, 2]])], "Lookup"),
    "attention": (lambda: nn.MultiHeadAttention(8, 2), [normal(3, 5, 8)], "Attention"),
    "attention across": (lambda: nn.MultiHeadAttention(8, 4), [normal(3, n, 8) for n in (5, 6, 6)], "Attention"),
    "convolution": (lambda: nn.Conv2D(3, 5, 3, padding=1), [normal(4, 3, 9, 7)], "Convolution"),
    "convolution with strides": (
        lambda: nn.Conv2D(3, 5, (5, 2), stride=(2, 3), padding=(0, 2), bias_attr=False),
        [normal(4, 3, 9, 7)],
        "Convolution",
    ),
    "convolution of the same size": (
        lambda: nn.Conv2D(3, 5, (3, 5), padding="same"),
        [normal(4, 3, 9, 7)],
        "Convolution",
    ),
    "convolution of what is there": (lambda: nn.Conv2D(3, 5, 3, padding="valid"), [normal(4, 3, 9, 7)], "Convolution"),
    "depthwise of the same size": (
        lambda: nn.Conv2D(6, 6, 3, padding="SAME", groups=6),
        [normal(3, 6, 9, 7)],
        "Depthwise",
    ),
    "convolution of points": (lambda: nn.Conv2D(6, 5, 1, stride=2), [normal(4, 6, 9, 7)], "Convolution"),
    "convolution of few points": (lambda: nn.Conv2D(6, 5, 1), [normal(4, 6, 2, 3)], "Convolution"),
    "depthwise": (lambda: nn.Conv2D(6, 6, 3, padding=1, groups=6), [normal(3, 6, 9, 7)], "Depthwise"),
    "depthwise in stretches": (lambda: nn.Conv2D(2, 2, 3, padding=1, groups=2), [normal(5, 2, 20, 30)], "Depthwise"),
    "depthwise with strides": (
        lambda: nn.Conv2D(6, 6, (5, 3), stride=(3, 2), padding=(2, 0), groups=6),
        [normal(3, 6, 9, 8)],
        "Depthwise",
    ),
    **{f"batch norm {kind}": (make, inputs, "BatchNorm") for kind, (make, inputs) in NORMS.items()},
    **{
        f"encoder {a} {before}": (lambda a=a, before=before: encoder(a, before), [normal(3, 5, 8)], "Norm")
        for a in ("relu", "gelu", "tanh")
        for before in (False, True)
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_paddle(name):
    make, inputs, operation = LAYERS[name]
    (output, grads), (fast_output, fast_grads) = both(make(), inputs, through=operation)
    close(fast_output, output)
    assert grads.keys() == fast_grads.keys()
    for key, grad in grads.items():
        close(fast_grads[key], grad)


def test_convolutions_of_many_samples_go_in_parts(monkeypatch):
    monkeypatch.setattr(importlib.import_module("paddle_ftstrat.acceleration.convolution"), "BUDGET", 4000)
    layer = nn.Conv2D(3, 5, 3, padding=1)
    (output, grads), (fast_output, fast_grads) = both(layer, [normal(7, 3, 9, 7)], through="Convolution")
    close(fast_output, output)
    for key, grad in grads.items():
        close(fast_grads[key], grad)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dilation": 2}, "dilation=[2, 2]"),
        ({"groups": 2}, "groups=2"),
        ({"padding_mode": "reflect", "padding": 1}, "padding_mode='reflect'"),
        ({"data_format": "NHWC"}, "data_format='NHWC'"),
        ({"padding": [1, 0, 1, 2]}, "padding=[1, 0, 1, 2]"),
        ({"padding": "same", "stride": 2}, "padding='same' with strides or a kernel of even size"),
        ({"padding": "same", "kernel_size": 2}, "padding='same' with strides or a kernel of even size"),
    ],
)
def test_other_convolutions_stay_as_they_are(options, why):
    assert hub.accelerate(nn.Conv2D(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})).kept == {
        "": why
    }


def test_a_convolution_of_many_points_is_paddles_product(refused):
    layer = nn.Conv2D(6, 5, 1)
    hub.accelerate(layer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwards, "fits", lambda layer, x, share: True)
        layer(paddle.to_tensor(normal(4, 6, 3, 3)))


@pytest.mark.parametrize("labels", [[1, 0, 3, 2], [[1], [0], [3], [3]]])
def test_cross_entropy(labels):
    labels = paddle.to_tensor(labels)
    (output, grads), (fast_output, fast_grads) = both(
        nn.CrossEntropyLoss(), [30 * normal(4, 5)], labels, through="CrossEntropy"
    )
    close(fast_output, output)
    close(fast_grads["input 0"], grads["input 0"])


def test_cross_entropy_with_ignored_labels_is_paddles(refused):
    loss = nn.CrossEntropyLoss()
    hub.accelerate(loss)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwards, "fits", lambda layer, x: True)
        loss(paddle.to_tensor(normal(4, 5)), paddle.to_tensor([1, -100, 3, -100]))


@pytest.mark.parametrize("labels", [[1, 0, 5, 2], [-1, 0, 3, 2]])
def test_a_label_out_of_range_is_refused_as_ever(labels):
    loss = nn.CrossEntropyLoss()
    hub.accelerate(loss)
    with pytest.raises((ValueError, IndexError)):
        loss(paddle.to_tensor(normal(4, 5)), paddle.to_tensor(labels))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [*NORMS, *FAR])
def test_a_batch_norm_and_its_running_statistics_are_those_of_float64(kind, training):
    make, (x,) = {**NORMS, **FAR}[kind]
    here, there = make(), make().to(dtype="float64")
    hub.accelerate(here)
    outputs = []
    for layer, dtype in ((here, "float32"), (there, "float64")):
        layer.train() if training else layer.eval()
        outputs.append([layer(paddle.to_tensor(shift + x, dtype)).numpy() for shift in (0, 1)])
    for fast, exact in zip(*outputs):
        close(fast, exact)
    close(here._mean.numpy(), there._mean.numpy(), 1e-6)
    close(here._variance.numpy(), there._variance.numpy())


@pytest.mark.parametrize("frozen", [{"weight"}, {"bias"}, {"weight", "bias"}, {"input"}, {"input", "weight"}])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_batch_norm_gives_whatever_trains_its_gradient(frozen, fixed):
    # Paddle's gives weight and bias none while one of them is frozen, so the reference has all to train.
    layer, found = batch_norm(nn.BatchNorm2D, 3, use_global_stats=fixed or None), []
    for each in (copy.deepcopy(layer), layer):
        left = frozen if each is layer else set()
        if each is layer:
            hub.accelerate(each)
        x = paddle.to_tensor(normal(4, 3, 8, 9), stop_gradient="input" in left)
        named = {"input": x, "weight": each.weight, "bias": each.bias}
        for name in {"weight", "bias"} & left:
            named[name].stop_gradient = True
        (each(x) * paddle.to_tensor(np.sin(normal(4, 3, 9, 8)).reshape(x.shape))).sum().backward()
        found.append({name: tensor.grad.numpy() for name, tensor in named.items() if tensor.grad is not None})
    assert found[1].keys() == found[0].keys() - frozen
    for name, grad in found[1].items():
        close(grad, found[0][name])


def test_a_batch_norm_without_bias_gives_its_weight_the_gradient():
    # Paddle's gives it none.
    grads = []
    for options in ({}, {"bias_attr": False}):
        layer = batch_norm(nn.BatchNorm2D, 3, **options)
        hub.accelerate(layer)
        grads.append(run(layer, [normal(4, 3, 8, 9)], np.sin(normal(4, 3, 9, 8)).reshape(4, 3, 8, 9))[1]["weight"])
    close(*grads)


@pytest.mark.parametrize("layer", [nn.BatchNorm2D(3, data_format="NHWC"), nn.SyncBatchNorm(3), nn.BatchNorm(3)])
def test_other_batch_norms_stay_as_they_are(layer):
    assert not hub.accelerate(layer).replaced


def test_a_batch_norm_that_uses_the_batch_in_eval_mode_is_paddles(refused):
    layer = nn.BatchNorm2D(3, use_global_stats=False)
    layer.eval()
    hub.accelerate(layer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwards, "fits", lambda layer, x, share: True)
        layer(paddle.to_tensor(normal(4, 3, 3, 3)))


@pytest.mark.parametrize("shape", [(4, 5, 8, 9), (4, 3)])
def test_a_batch_norm_refuses_what_paddles_refuses(shape):
    layer = nn.BatchNorm2D(3)
    hub.accelerate(layer)
    with pytest.raises(ValueError):
        layer(paddle.to_tensor(normal(*shape)))


ZOO = ["resnet18", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_25", "squeezenet1_1"]


@pytest.mark.parametrize("name", ZOO)
def test_models_of_paddles_zoo(name):
    # Outputs and statistics only: in deep networks rounding puts values on the other side of a ReLU's corner, and one
    # in the last layers changes all gradients by a thousandth, with Paddle's own layers too.
    plain = getattr(models, name)(num_classes=7)
    for layer in plain.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    fast, x = copy.deepcopy(plain), paddle.to_tensor(normal(4, 3, 64, 64))
    hub.accelerate(fast)
    for training in (True, False):
        for model in (plain, fast):
            model.train() if training else model.eval()
        here, there = fast(x), plain(x)
        close(here.numpy(), there.numpy(), 1e-4)
        for output in (here, there):
            output.square().sum().backward()
    assert [param.grad is None for param in fast.parameters()] == [param.grad is None for param in plain.parameters()]
    for here, there in zip(fast.buffers(), plain.buffers()):
        close(here.numpy(), there.numpy(), 1e-4)


@pytest.mark.parametrize("kind", ["none", "bool", "padding", "causal", "heads"])
def test_attention_masks(kind):
    (output, grads), (fast_output, fast_grads) = both(
        nn.MultiHeadAttention(8, 2), [normal(3, 5, 8)], None, None, mask(kind), through="Attention"
    )
    close(fast_output, output)
    for key, grad in grads.items():
        close(fast_grads[key], grad)


@pytest.mark.parametrize(
    "name", ["linear", "gelu", "layer norm", "batch norm long", "batch norm short", "attention", "encoder gelu False"]
)
def test_gradients_are_the_finite_differences_in_float64(name):
    make, (x,), _ = LAYERS[name]
    layer = make()
    exact = copy.deepcopy(layer).to(dtype="float64")
    hub.accelerate(layer)
    weights = np.random.default_rng(1).standard_normal(layer(paddle.to_tensor(x)).shape)
    _, grads = run(layer, [x], weights.astype("float32"))
    direction = np.random.default_rng(2).standard_normal(x.shape)
    h = 1e-5 / max(1, np.abs(direction).max())
    ends = [float((exact(paddle.to_tensor(x + s * h * direction)) * paddle.to_tensor(weights)).sum()) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert abs((grads["input 0"] * direction).sum() - slope) <= 1e-4 * np.sqrt(x.size) * np.abs(grads["input 0"]).max()


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.LayerNorm(4)])
@pytest.mark.parametrize("frozen", [{"input"}, {"weight"}, {"bias"}, {"weight", "bias"}, {"input", "bias"}])
def test_what_needs_no_gradient_gets_none(frozen, make):
    layer, weights = make(), normal(5, 3)

    def grads(layer, frozen):
        x = paddle.to_tensor(normal(5, 4), stop_gradient="input" in frozen)
        for name, param in layer.named_parameters():
            param.stop_gradient = name in frozen
        (layer(x)[:, :3] * paddle.to_tensor(weights)).sum().backward()
        found = {name: tensor.grad for name, tensor in {**dict(layer.named_parameters()), "input": x}.items()}
        return {name: grad.numpy() for name, grad in found.items() if grad is not None}

    # With everything to train: with a frozen weight, Paddle's LayerNorm gives the input a wrong gradient.
    plain = grads(copy.deepcopy(layer), set())
    hub.accelerate(layer)
    fast = grads(layer, frozen)
    assert fast.keys() == plain.keys() - frozen
    for name, grad in fast.items():
        close(grad, plain[name])


def test_a_model_without_anything_to_train_gives_no_gradient():
    layer = nn.Linear(4, 3)
    for param in layer.parameters():
        param.stop_gradient = True
    hub.accelerate(layer)
    assert layer(paddle.to_tensor(normal(5, 4))).stop_gradient
    layer.weight.stop_gradient = False
    with paddle.no_grad():
        assert layer(paddle.to_tensor(normal(5, 4))).stop_gradient


def test_an_output_used_twice_and_a_residual_add_up():
    class Twice(nn.Layer):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = encoder("relu", False), nn.LayerNorm(8)

        def forward(self, x):
            y = self.layer(x)
            return self.norm(y) + y * 2 + x

    (output, grads), (fast_output, fast_grads) = both(Twice(), [normal(3, 5, 8)])
    close(fast_output, output)
    for key, grad in grads.items():
        close(fast_grads[key], grad)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_evenly_and_scales_it(p):
    layer = nn.Dropout(p)
    hub.accelerate(layer)
    x = paddle.to_tensor(1 + np.abs(normal(400, 500)), stop_gradient=False)
    y = layer(x)
    y.sum().backward()
    kept = y.numpy() != 0
    bound = 5 * np.sqrt(p * (1 - p))
    assert abs(kept.mean() - (1 - p)) < bound / np.sqrt(kept.size)
    assert np.abs(kept.mean(0) - (1 - p)).max() < bound / np.sqrt(len(kept))
    assert np.abs(kept.mean(1) - (1 - p)).max() < bound / np.sqrt(kept.shape[1])
    for lag in (1, 2, 499, 500, 501):
        flat = (kept - kept.mean()).ravel()
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 * p * (1 - p) / np.sqrt(flat.size)
    close(y.numpy()[kept], (x.numpy() / (1 - p))[kept])
    close(x.grad.numpy(), kept / np.float32(1 - p))


def test_dropout_follows_the_seed_and_differs_between_calls():
    layer, x = nn.Dropout(0.5), paddle.ones([100, 100])
    hub.accelerate(layer)
    paddle.seed(3)
    first, second = layer(x).numpy(), layer(x).numpy()
    state = paddle.get_rng_state()
    third = layer(x).numpy()
    paddle.set_rng_state(state)
    assert np.array_equal(layer(x).numpy(), third)
    paddle.seed(3)
    assert np.array_equal(layer(x).numpy(), first)
    assert abs(np.corrcoef((first != 0).ravel(), (second != 0).ravel())[0, 1]) < 0.05
    layer.eval()
    assert np.array_equal(layer(x).numpy(), x.numpy())


@pytest.mark.parametrize("part", ["activation", "residual", "attention"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_dropout_inside_an_encoder_layer_has_the_gradient_of_its_mask(part, activation):
    layer = encoder(activation, False)
    {"activation": layer.dropout, "residual": layer.dropout1}.get(part, nn.Dropout()).p = 0.5
    layer.self_attn.dropout = 0.5 if part == "attention" else 0.0
    hub.accelerate(layer)
    x, direction = normal(4, 5, 8), np.random.default_rng(5).standard_normal((4, 5, 8)).astype("float32")

    def value(x):
        paddle.seed(7)  # the same mask each time
        x = paddle.to_tensor(x, stop_gradient=False)
        output = (layer(x) * paddle.to_tensor(direction)).sum()
        return output, x

    output, inputs = value(x)
    output.backward()
    h = 1e-2
    slope = (float(value(x + h * direction)[0]) - float(value(x - h * direction)[0])) / (2 * h)
    assert abs((inputs.grad.numpy() * direction).sum() - slope) < 2e-2 * np.linalg.norm(
        inputs.grad.numpy()
    ) * np.linalg.norm(direction)


def test_results_do_not_depend_on_the_number_of_threads():
    layer = encoder("gelu", False, 0.3)
    hub.accelerate(layer)
    results = []
    for threads in (1, 2, 3):
        paddle.seed(1)
        with hub.cpu_threads(threads):
            results.append(run(layer, [normal(64, 5, 8)], normal(64, 5, 8)))
    for output, grads in results[1:]:
        close(output, results[0][0], 1e-6)
        for key, grad in grads.items():
            close(grad, results[0][1][key], 1e-6)


def test_views_are_read_as_they_are():
    layer = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU())
    x = paddle.to_tensor(normal(4, 6))
    plain = layer(x.t()).numpy()
    hub.accelerate(layer)
    close(layer(x.t()).numpy(), plain)


# What a backward in Python raises comes out as one or the other, by Paddle's version.
RAISED = (RuntimeError, OSError)


def penalty(layer):
    """The gradients of a penalty on the gradient by the input."""
    x = paddle.to_tensor(normal(5, 4), stop_gradient=False)
    (grad,) = paddle.grad(layer(x).tanh().sum(), x, create_graph=True)
    grad.square().sum().backward()
    return {name: param.grad.numpy() for name, param in layer.named_parameters() if param.grad is not None}


def test_second_order_is_right_for_linear_and_refused_elsewhere():
    layer = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    plain = penalty(layer)
    layer.clear_gradients()
    hub.accelerate(layer)
    fast = penalty(layer)
    assert plain.keys() == fast.keys()
    for name, grad in plain.items():
        close(fast[name], grad)
    for refused in (nn.LayerNorm(4), nn.GELU(), nn.Dropout(), nn.ReLU(), nn.ReLU6(), nn.BatchNorm1D(4)):
        hub.accelerate(refused)
        with pytest.raises(RAISED, match="accelerate=False"):
            penalty(refused)


def test_gradients_may_be_asked_for_by_some_inputs_only():
    model = Model()

    def pass_through():
        rows = model.embedding(paddle.to_tensor(IDS))
        return rows, model.head(model.encoder(rows).mean(1)).square().sum()

    rows, output = pass_through()
    rows.retain_grads()
    output.backward()
    plain = [tensor.grad.numpy() for tensor in (rows, *model.parameters())]
    hub.accelerate(model)
    rows, output = pass_through()
    close(paddle.grad(output, rows)[0].numpy(), plain[0])
    for grad, expected in zip(paddle.grad(pass_through()[1], model.parameters()), plain[1:]):
        close(grad.numpy(), expected, floor=0.1)  # that of the keys' bias is 0 but for rounding


@pytest.mark.parametrize("least", [0, 1 << 15])
def test_a_frozen_layer_norm_hands_on_the_right_gradient(least, monkeypatch):
    # Paddle's, 2.6.2 and 3.3.1, leaves the weight out of the input's gradient then, so ours steps in at any size.
    monkeypatch.setattr(stands, "LEAST", least)
    layer = nn.LayerNorm(4)
    layer.weight.set_value(paddle.to_tensor([1.0, 2.0, 3.0, 4.0]))
    hub.accelerate(layer)
    grads = []
    for frozen in (False, True):
        layer.weight.stop_gradient = frozen
        x = paddle.to_tensor(normal(5, 4), stop_gradient=False)
        (layer(x) * paddle.to_tensor(normal(5, 4))).sum().backward()
        grads.append(x.grad.numpy())
    close(*grads)


def test_what_paddles_pylayer_does_to_hooks():
    """It ignores what they return; when this fails, Paddle has been mended, and `applied` need not squeeze."""

    class Doubled(PyLayer):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy

    x = paddle.to_tensor([1.0], stop_gradient=False)
    y = Doubled.apply(x)
    y.register_hook(lambda grad: 3 * grad)
    y.backward()
    assert x.grad.numpy() == [2.0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_hook_on_an_output_changes_the_gradient(name):
    make, inputs, _ = LAYERS[name]
    plain, grads = make(), []
    fast = copy.deepcopy(plain)
    hub.accelerate(fast)
    for layer in (plain, fast):
        xs = [paddle.to_tensor(x, stop_gradient=x.dtype.kind == "i") for x in inputs]
        output = layer(*xs)
        output.register_hook(lambda grad: 3 * grad)
        (output * paddle.arange(output.size, dtype="float32").cos().reshape(output.shape)).sum().backward()
        grads.append([tensor.grad for tensor in (*xs, *layer.parameters())])
    largest = max(np.abs(grad.numpy()).max() for grad in grads[0] if grad is not None)
    for expected, found in zip(*grads):
        if expected is not None:
            close(found.numpy(), expected.numpy(), floor=largest)


def test_a_hook_on_a_loss_changes_the_gradient():
    loss, x = nn.CrossEntropyLoss(), paddle.to_tensor(normal(4, 5), stop_gradient=False)
    hub.accelerate(loss)
    output = loss(x, paddle.to_tensor([1, 0, 3, 2]))
    output.register_hook(lambda grad: grad * 0)
    output.backward()
    assert not output.shape
    assert not x.grad.numpy().any()


@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, 1, 1)])
def test_outputs_keep_axes_of_one(shape):
    layer = nn.Linear(shape[-1], 1)
    (output, grads), (fast_output, fast_grads) = both(layer, [normal(*shape)])
    close(fast_output, output)
    for key, grad in grads.items():
        close(fast_grads[key], grad)


def test_a_second_backward_through_the_same_graph_is_refused():
    # Paddle's PyLayer ends the process in it.
    model, x = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4)), paddle.to_tensor(normal(5, 4))
    hub.accelerate(model)
    shared = model(x)
    shared.sum().backward(retain_graph=True)
    with pytest.raises(RAISED, match="second backward .* accelerate=False"):
        (shared * 2).sum().backward()
    model.clear_gradients()
    shared = model(x)
    first = paddle.grad(shared.square().sum(), model[0].weight, retain_graph=True)[0]
    shared.square().sum().backward()
    close(model[0].weight.grad.numpy(), first.numpy())


def test_what_attention_gives_a_layer_of_the_users_is_as_an_output():
    class Wrapped(nn.Layer):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            x.register_hook(lambda grad: 3 * grad)
            return paddle.matmul(x, self.inner.weight) + self.inner.bias

    layer = nn.MultiHeadAttention(8, 2)
    layer.out_proj = Wrapped(layer.out_proj)
    x = normal(3, 5, 8)
    _, grads = run(layer, [x], np.cos(x))
    hub.accelerate(layer)
    _, fast_grads = run(layer, [x], np.cos(x))
    close(fast_grads["v_proj.weight"], grads["v_proj.weight"])
    output = layer(paddle.to_tensor(x)).sum()
    output.backward(retain_graph=True)
    with pytest.raises(RAISED, match="second backward"):
        output.backward()


CHANGED = {
    "Linear": (lambda: nn.Linear(4, 3), [5, 4]),
    "ReLU": (nn.ReLU, [5, 4]),
    "ReLU6": (nn.ReLU6, [5, 4]),
    "GELU": (nn.GELU, [5, 4]),
    "LayerNorm": (lambda: nn.LayerNorm(4), [5, 4]),
    "Conv2D": (lambda: nn.Conv2D(4, 3, 3), [2, 4, 5, 5]),
    "depthwise": (lambda: nn.Conv2D(4, 4, 3, groups=4), [2, 4, 5, 5]),
    "BatchNorm2D": (lambda: nn.BatchNorm2D(4), [2, 4, 5, 5]),
    "BatchNorm2D, fixed": (lambda: nn.BatchNorm2D(4, use_global_stats=True), [2, 4, 5, 5]),
    "MultiHeadAttention": (lambda: nn.MultiHeadAttention(4, 2), [2, 3, 4]),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), [2, 3, 4]),
}


@pytest.mark.parametrize("what", ["input", "output", "weight"])
@pytest.mark.parametrize("kind", CHANGED)
def test_what_is_changed_in_place_between_forward_and_backward_is_refused_or_not_needed(kind, what):
    make, shape = CHANGED[kind]
    paddle.seed(0)
    layer, grads, refusal = make(), [], ""
    hub.accelerate(layer)
    for changed in (False, True):
        x = paddle.to_tensor(normal(*shape), stop_gradient=False)
        within = x * 1.0
        loss = (y := layer(within)).sum() * 1.0
        tensor = {"input": within, "output": y, "weight": next(iter(layer.parameters()), within)}[what]
        if changed:
            with paddle.no_grad():
                tensor.add_(paddle.ones([1]))
        try:
            loss.backward()
            grads.append(x.grad.numpy())
        except RAISED as error:
            refusal = str(error)
    assert len(grads) == 2 or "in place" in refusal
    close(grads[0], grads[-1])


@pytest.mark.parametrize("activation", [functional.relu, nn.ReLU()])
def test_values_that_are_no_numbers_stay_so(activation):
    x = normal(3, 5, 8)
    x[0, 0, 0] = np.nan
    layer = encoder("gelu", False)
    hub.accelerate(layer)
    assert np.isnan(layer(paddle.to_tensor(x)).numpy()[0]).all()
    for relu in (nn.ReLU(), nn.ReLU6()):
        hub.accelerate(relu)
        assert np.isnan(relu(paddle.to_tensor(x)).numpy()[0, 0, 0])


class Model(nn.Layer):
    def __init__(self):
        super().__init__()
        self.embedding, self.encoder = nn.Embedding(20, 8), encoder("gelu", False)
        self.dropout, self.head = nn.Dropout(0.0), nn.Linear(8, 2)

    def forward(self, ids):
        return self.head(self.dropout(self.encoder(self.embedding(ids)).mean(1)))


IDS = np.random.default_rng(0).integers(0, 20, (4, 5))


def test_class_parameters_names_and_state_stay():
    model = Model()
    before = {name: id(param) for name, param in model.named_parameters()}
    kinds, keys = [type(layer) for layer in model.sublayers()], list(model.state_dict())
    hub.accelerate(model)
    assert {name: id(param) for name, param in model.named_parameters()} == before
    assert [type(layer) for layer in model.sublayers()] == kinds
    assert list(model.state_dict()) == keys
    assert repr(model) == repr(Model())


def test_hooks_are_called_and_may_change_what_passes():
    seen, plain, fast = [], Model(), None
    plain.eval()
    fast = copy.deepcopy(plain)
    hub.accelerate(fast)
    for model in (plain, fast):
        model.encoder.linear1.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))
        model.encoder.norm1.register_forward_post_hook(lambda layer, inputs, output: output + 1)
        model.encoder.self_attn.q_proj.register_forward_post_hook(lambda *args: seen.append(1))
    ids = paddle.to_tensor(IDS)
    close(fast(ids).numpy(), plain(ids).numpy())
    assert len(seen) == 2


def test_undoing_leaves_no_trace():
    model = Model()
    before = [dict(layer.__dict__) for layer in model.sublayers(include_self=True)]
    hub.accelerate(model)
    hub.accelerate(model)
    assert any("forward" in layer.__dict__ for layer in model.sublayers())
    hub.accelerate(model, undo=True)
    assert [list(layer.__dict__) for layer in model.sublayers(include_self=True)] == list(map(list, before))


def test_a_copy_is_accelerated_and_of_its_own_and_a_pickled_one_plain():
    model = Model()
    hub.accelerate(model)
    other = copy.deepcopy(model)
    assert other.head.forward.__self__ is other.head
    other.head.weight.set_value(paddle.zeros([8, 2]))
    other.head.bias.set_value(paddle.zeros([2]))
    assert not other(paddle.to_tensor(IDS)).numpy().any()
    assert model(paddle.to_tensor(IDS)).numpy().any()
    gelu = nn.GELU()
    hub.accelerate(gelu)
    loaded = pickle.loads(pickle.dumps(gelu))
    close(loaded(paddle.ones([3])).numpy(), gelu(paddle.ones([3])).numpy())


def test_a_layer_of_the_users_own_stays_as_it_is():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class Same(nn.Linear):
        pass

    model = nn.Sequential(Doubled(4, 4), Same(4, 4), nn.Linear(4, 4), nn.Dropout(0.5, axis=0))
    model[2].forward = lambda x: x
    done = hub.accelerate(model)
    assert done.replaced == {"1": "Linear"}
    assert done.kept == {"2": "has a forward of its own", "3": "axis=0"}
    assert str(done).startswith("accelerated: 1 Linear; ")
    assert "3 (axis=0)" in str(done)
    hub.accelerate(model, undo=True)
    assert "forward" in model[2].__dict__


def host_forward(self, src, src_mask=None, cache=None, output_attentions=False):
    """What PaddleNLP and PaddleFormers put in place of TransformerEncoderLayer's, for norms that come after."""
    self.self_attn.need_weights = output_attentions
    attended = self.self_attn(src, src, src, src_mask)
    attended, *weights = attended if isinstance(attended, tuple) else [attended]
    src = self.norm1(src + self.dropout1(attended))
    src = self.norm2(src + self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(src))))))
    return (src, *weights) if weights else src


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_may_replace_the_forward_of_encoder_layers(when, monkeypatch):
    monkeypatch.setattr(host_forward, "__module__", "paddlenlp.transformers.model_outputs", raising=False)
    plain, x, spy = encoder("gelu", False), paddle.to_tensor(normal(3, 5, 8)), Spy()
    fast = copy.deepcopy(plain)
    if when == "before":
        monkeypatch.setattr(nn.TransformerEncoderLayer, "forward", host_forward)
    assert hub.accelerate(fast).replaced[""] == "TransformerEncoderLayer"
    monkeypatch.setattr(nn.TransformerEncoderLayer, "forward", host_forward)
    monkeypatch.setattr(forwards, "operations", lambda: spy)
    for asked in (False, True, False, False):
        here, there = (model(x, None, output_attentions=asked) for model in (fast, plain))
        for one, other in zip(here, there) if asked else [(here, there)]:
            close(one.numpy(), other.numpy())
    spy.used.clear()
    fast(x, None, None, False)
    assert {"Norm", "Attention", "Dense"} <= spy.used


def test_a_forward_replaced_for_all_layers_by_somebody_else_runs(monkeypatch, refused):
    before, after = nn.Linear(4, 4), nn.Linear(4, 4)
    hub.accelerate(after)
    monkeypatch.setattr(nn.Linear, "forward", lambda self, input: input + 1)
    assert not hub.accelerate(before).replaced
    for layer in (before, after):
        assert layer(paddle.ones([2, 4])).tolist() == [4 * [2.0], 4 * [2.0]]


def test_small_inputs_run_as_they_are(monkeypatch, refused):
    monkeypatch.setattr(stands, "LEAST", 1 << 15)
    model = Model()
    hub.accelerate(model)
    model(paddle.to_tensor(IDS)).sum().backward()


def test_float64_runs_as_it_is(refused):
    layer = nn.Linear(4, 4).to(dtype="float64")
    hub.accelerate(layer)
    assert layer(paddle.ones([2, 4], "float64")).dtype == paddle.float64


def test_another_device_changes_nothing(monkeypatch):
    monkeypatch.setattr(_paddle, "on_cpu", lambda tensors: False)
    model = Model()
    assert str(hub.accelerate(model)) == "layers run by Paddle's own operations: the model is not on the CPU"
    run = hub.DefaultStrategy(0.1).bind(model)
    assert "the model is not on the CPU" in str(run.describe())
    assert all("forward" not in layer.__dict__ for layer in model.sublayers())


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(stands, "why_none", lambda: stands.NO_NUMBA)
    monkeypatch.setattr(stands, "LEAST", 0)
    stands.operations.cache_clear()
    yield
    stands.operations.cache_clear()


def test_without_numba_linear_and_layer_norm_are_of_paddles_operations(no_kernels):
    done = hub.accelerate(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()))
    assert done.replaced == {"0": "Linear", "1": "LayerNorm"}
    assert "as they are: other layers (numba is not installed)" in str(done)
    assert str(hub.accelerate(nn.GELU())) == "layers run by Paddle's own operations: numba is not installed"
    model = nn.Linear(4, 4)
    hub.accelerate(model)
    assert acceleration.maker(model) == "Paddle, sums as products"


@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("input",)])
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(6, 5), lambda: nn.Linear(6, 5, bias_attr=False), lambda: nn.LayerNorm(6)]
)
@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6)])
def test_without_numba_outputs_and_gradients_are_those_of_float64(no_kernels, make, frozen, shape):
    paddle.seed(0)
    layer, found = make(), []
    for name, param in layer.named_parameters():
        param.set_value(paddle.to_tensor(normal(*param.shape)))
        param.stop_gradient = name in frozen
    wide = copy.deepcopy(layer).to(dtype="float64")
    hub.accelerate(layer)
    for each, dtype in ((layer, "float32"), (wide, "float64")):
        if isinstance(layer, nn.LayerNorm) and dtype == "float64":
            # Paddle's own leaves a frozen weight out of the input's gradient.
            each.weight.stop_gradient = False
        x = paddle.to_tensor(3 + normal(*shape), dtype, stop_gradient="input" in frozen)
        y = each(x)
        if not y.stop_gradient:
            (y * paddle.to_tensor(normal(*y.shape), dtype)).sum().backward()
        named = {"x": x, **{n: p for n, p in each.named_parameters() if n not in frozen}}
        found.append({"y": y.numpy(), **{n: t.grad.numpy() for n, t in named.items() if not t.stop_gradient}})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        close(value, found[1][name])


def test_without_numba_an_encoder_trains_as_plain_paddle_does(no_kernels):
    weights = []
    for accelerate in (False, None):
        paddle.seed(0)
        layer = encoder("gelu", False)
        run = hub.DefaultStrategy(0.01, "sgd").bind(layer, accelerate=accelerate)
        for _ in range(3):
            layer(paddle.to_tensor(normal(3, 5, 8))).square().mean().backward()
            run.step()
        weights.append({name: param.numpy() for name, param in layer.named_parameters()})
    for name, value in weights[0].items():
        close(weights[1][name], value)


def test_without_numba_what_is_changed_in_place_and_second_order_are_refused(no_kernels):
    for layer in (nn.Linear(4, 4), nn.LayerNorm(4)):
        hub.accelerate(layer)
        x = paddle.to_tensor(normal(5, 4), stop_gradient=False)
        loss = layer(x).sum()
        with paddle.no_grad():
            layer.weight.add_(paddle.ones([1]))
        with pytest.raises(RAISED, match="changed in place"):
            loss.backward()
    with pytest.raises(RAISED, match="gradients of gradients"):
        paddle.grad(layer(x).square().sum(), x, create_graph=True)


def test_a_compiled_model_stays_as_it_is():
    model = paddle.jit.to_static(Model())
    assert hub.accelerate(model).reason == "compiled by paddle.jit.to_static"


@pytest.mark.parametrize("full_graph", [True, False])
def test_a_model_that_is_compiled_later_traces_its_own_layers(full_graph, monkeypatch):
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU())
    model.eval()
    plain = model(paddle.ones([3, 4])).numpy()
    hub.accelerate(model)
    compiled = paddle.jit.to_static(model, full_graph=full_graph)
    close(compiled(paddle.ones([3, 4])).numpy(), plain)


class Within(nn.Layer):
    """A layer inside another, of which the tracer takes it as a whole."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("name", [name for name, (_, inputs, _) in LAYERS.items() if len(inputs) == 1])
def test_a_layer_inside_a_model_that_is_compiled_later(name):
    make, (x,), _ = LAYERS[name]
    model = Within(make())
    model.eval()
    plain = model(paddle.to_tensor(x)).numpy()
    hub.accelerate(model)
    close(paddle.jit.to_static(model, full_graph=False)(paddle.to_tensor(x)).numpy(), plain)


def test_bind_accelerates_and_release_undoes_it():
    model = Model()
    run = hub.DefaultStrategy(0.1).bind(model)
    assert "accelerated: 1 Embedding" in str(run.describe())
    assert "forward" in model.head.__dict__
    run.release()
    assert "forward" not in model.head.__dict__
    first = hub.DefaultStrategy(0.1).bind(model)
    hub.DefaultStrategy(0.1).bind(model)
    first.release()
    assert "forward" in model.head.__dict__


def test_what_bind_is_asked_for():
    model = Model()
    run = hub.DefaultStrategy(0.1).bind(model, accelerate=False)
    assert "accelerate=False" in str(run.describe())
    assert "forward" not in model.head.__dict__
    hub.DefaultStrategy(0.1).bind(model, accelerate=True)
    with pytest.raises(ValueError, match="accelerate=True, but no layer has a faster forward"):
        hub.DefaultStrategy(0.1).bind(nn.Conv1D(1, 1, 1), accelerate=True)
    with pytest.raises(TypeError, match="accelerate must be None, True or False, not 1"):
        hub.DefaultStrategy(0.1).bind(model, accelerate=1)


def test_a_training_of_200_steps_ends_where_the_plain_one_does():
    ends = []
    start = Model().state_dict()
    start = {name: value.numpy() for name, value in start.items()}
    for accelerate in (False, True):
        model = Model()
        model.set_state_dict(start)
        run = hub.AdamWeightDecayStrategy(1e-3).bind(model, 200, accelerate=accelerate)
        generator = np.random.default_rng(0)
        for _ in range(200):
            ids = generator.integers(0, 20, (4, 5))
            loss = functional.cross_entropy(model(paddle.to_tensor(ids)), paddle.to_tensor(ids.sum(1) % 2))
            loss.backward()
            run.step()
        ends.append(float(loss))
    assert abs(ends[1] - ends[0]) <= 1e-3 * abs(ends[0])
