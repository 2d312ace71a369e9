"""Compiled kernels against their own lines run by Python; coverage sees these only so."""

import itertools

import numpy as np
import paddle
import pytest
from interpreted import interpreted, run
from paddle import nn
from test_acceleration import LAYERS, any_size, close, mask, normal  # noqa: F401 - the fixture too

import paddle_ftstrat as hub
from paddle_ftstrat.acceleration import machine
from paddle_ftstrat.optim.fused import kernels, members


def in_both_ways(layer, inputs, *more):
    """Output and gradients with compiled kernels, then with interpreted ones, from the same seed."""
    hub.accelerate(layer)
    found, used = [], []

    def noted(*call):
        used.append(call)
        run(*call)

    for way in (machine.run, noted):
        paddle.seed(3)
        given = [paddle.to_tensor(x, stop_gradient=x.dtype.kind == "i") for x in inputs]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine, "run", way)
            output = layer(*given, *more)
            (output * paddle.cos(paddle.arange(output.size, dtype="float32")).reshape(output.shape)).sum().backward()
        grads = {name: param.grad for name, param in layer.named_parameters()}
        grads.update({str(i): x.grad for i, x in enumerate(given)})
        found.append({"output": output.numpy(), **{name: g.numpy() for name, g in grads.items() if g is not None}})
        layer.clear_gradients()
    assert used
    assert found[0].keys() == found[1].keys()
    # A gradient that is 0 in exact numbers (that of attention's key bias) is noise of the others' size.
    largest = max(np.abs(value).max() for value in found[0].values())
    for name, value in found[0].items():
        close(found[1][name], value, floor=largest)


@pytest.mark.parametrize("name", [name for name in LAYERS if "linear" not in name and "many rows" not in name])
def test_layers(name):
    make, inputs, _ = LAYERS[name]
    in_both_ways(make(), [x[..., :50] if name in ("relu", "relu6", "gelu") else x for x in inputs])


@pytest.mark.parametrize("kind", ["padding", "heads"])
def test_attention_with_dropout(kind):
    in_both_ways(nn.MultiHeadAttention(8, 2, dropout=0.3), [normal(3, 5, 8)], None, None, mask(kind))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("before", [False, True])
def test_encoder_layers_with_dropout(activation, before):
    in_both_ways(nn.TransformerEncoderLayer(8, 2, 16, 0.3, activation, normalize_before=before), [normal(3, 5, 8)])


def test_dropout_alone_and_cross_entropy():
    in_both_ways(nn.Dropout(0.3), [normal(7, 9)])
    in_both_ways(nn.CrossEntropyLoss(), [30 * normal(4, 5)], paddle.to_tensor([1, 0, 3, 2]))


SIZE = kernels.TILE + 5
CASES = list(itertools.product(["", "anchor", "fisher"], [False, True], [False, True], [False, True]))


@pytest.mark.parametrize("rule", kernels.UPDATES)
@pytest.mark.parametrize(("pull", "masked", "clamped", "averaged"), CASES)
def test_updates(rule, pull, masked, clamped, averaged):
    draw = np.random.default_rng(0)
    size = SIZE if (pull, masked, clamped, averaged) == ("fisher", True, True, True) else 9
    start = {kind: draw.standard_normal(size).astype("float32") for kind in ("p", "g", "w", "m", "e")}
    start |= {kind: draw.random(size).astype("float32") for kind in ("f", "v")}
    start["t"] = (draw.random(size) < 0.5).astype("float32")
    start["p"][0] = 0
    numbers = np.zeros((1, members.NUMBERS), np.float32)
    numbers[0, [members.SCALE, members.LR, members.AFTER]] = 0.7, 0.1, 0.99
    numbers[0, [members.BEFORE, members.A, members.B, members.EPS, members.KEEP]] = -0.01, 0.9, 0.8, 1e-3, 0.75
    numbers[0, members.L2] = 0.3 if pull else 0.05
    if clamped:
        numbers[0, [members.LOW, members.HIGH, members.L1]] = -0.5, 0.4, 0.02
    places = {
        members.PARAM: "p", members.GRAD: "g", members.FIRST: "m", members.SECOND: "v",
        **({members.ANCHOR: "w"} if pull else {}), **({members.FISHER: "f"} if pull == "fisher" else {}),
        **({members.TRAINS: "t"} if masked else {}), **({members.AVERAGE: "e"} if averaged else {}),
    }  # fmt: skip
    found = []
    for function in (kernels.UPDATES[rule], interpreted(kernels.UPDATES[rule])):
        arrays = {kind: value.copy() for kind, value in start.items()}
        at = np.zeros((1, members.ADDRESSES), np.int64)
        for column, kind in places.items():
            at[0, column] = arrays[kind].ctypes.data
        function(at, members.chunks_of(np.array([size])).table, 0, 1, numbers)
        found.append(arrays)
    compiled, by_python = found
    for kind, value in compiled.items():
        np.testing.assert_allclose(by_python[kind], value, rtol=2e-6, atol=1e-7, err_msg=kind)
    assert not np.array_equal(compiled["p"], start["p"])
    if masked:
        still = start["t"] == 0
        np.testing.assert_array_equal(compiled["p"][still], start["p"][still])


@pytest.mark.parametrize("masked", [False, True])
def test_squares(masked):
    draw = np.random.default_rng(1)
    g, trains = draw.standard_normal(50).astype("float32"), (draw.random(50) < 0.5).astype("float32")
    at = np.zeros((1, members.ADDRESSES), np.int64)
    at[0, members.GRAD], at[0, members.TRAINS] = g.ctypes.data, trains.ctypes.data if masked else 0
    for function in (kernels.squares, interpreted(kernels.squares)):
        out = np.zeros(1)
        function(at, members.chunks_of(np.array([50])).table, 0, 1, out)
        np.testing.assert_allclose(out[0], ((g * trains if masked else g).astype("float64") ** 2).sum(), rtol=1e-12)


def test_powers_and_shares():
    for function in (kernels.powers, interpreted(kernels.powers)):
        power, out = np.array([0.5, 0.25], "float32"), np.zeros(2, "float32")
        function(np.array([power[i:].ctypes.data for i in range(2)]), np.array([0.9, 0.99], "float32"), out)
        assert out.tolist() == [0.5, 0.25]
        np.testing.assert_allclose(power, [0.45, 0.2475], rtol=1e-6)
    for function in (kernels.shares, interpreted(kernels.shares)):
        count, largest, total = (np.array([value], "float32") for value in (3, 0.2, 5))
        out = np.zeros((2, 1), "float32")
        at = np.array([[one.ctypes.data] for one in (count, largest, total)])
        function(at, np.array([0.5], "float32"), 1.0, 2.0, out)
        np.testing.assert_allclose([count[0], largest[0], total[0]], [4, 0.5, 6], rtol=1e-6)
        np.testing.assert_allclose(out[:, 0], [1 / 6, 4], rtol=1e-6)
