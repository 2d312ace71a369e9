"""Layers with equal ParamAttr names that share one Parameter."""

import copy
import re
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import paddle
import processes
import pytest
from paddle import nn
from paddle.base.layer_helper_base import LayerHelperBase

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import describe
from paddle_ftstrat.param_attr.initialize import embedding_attr
from paddle_ftstrat.param_attr.sharing import shared_parameters

PLAIN = LayerHelperBase.create_parameter
Attr = paddle.ParamAttr


@pytest.fixture(autouse=True)
def _own_names():
    """Names of one test do not count in another; afterwards Paddle is as it was."""
    with paddle.utils.unique_name.guard():
        yield
    assert LayerHelperBase.create_parameter is PLAIN


class Twin(nn.Layer):
    """Two branches over the same weight."""

    def __init__(self, **attributes):
        super().__init__()
        with shared_parameters():
            self.left = nn.Linear(3, 3, weight_attr=Attr(name="w", **attributes))
            self.right = nn.Linear(3, 3, weight_attr=Attr(name="w", **attributes), bias_attr=False)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.right(paddle.tanh(self.left(x))))


def x(rows=4):
    return paddle.to_tensor(np.random.RandomState(0).rand(rows, 3).astype("float32"))


def test_plain_paddle_refuses_the_second_layer():
    nn.Linear(2, 2, weight_attr=Attr(name="w"))
    with pytest.raises(ValueError, match="have be been used"):
        nn.Linear(2, 2, weight_attr=Attr(name="w"))


LAYERS = {
    "Linear": lambda attr: nn.Linear(4, 4, weight_attr=attr).weight,
    "Linear bias": lambda attr: nn.Linear(4, 4, bias_attr=attr).bias,
    "Embedding": lambda attr: nn.Embedding(4, 4, weight_attr=attr).weight,
    "Conv2D": lambda attr: nn.Conv2D(4, 4, 1, weight_attr=attr).weight,
    "LayerNorm": lambda attr: nn.LayerNorm(4, weight_attr=attr).weight,
    "BatchNorm": lambda attr: nn.BatchNorm1D(4, weight_attr=attr).weight,
    "LSTMCell": lambda attr: nn.LSTMCell(4, 4, weight_ih_attr=attr).weight_ih,
    # Plain Paddle gives all four projections the one name, and so refuses even a single such layer.
    "MultiHeadAttention": lambda attr: nn.MultiHeadAttention(4, 2, weight_attr=attr).out_proj.weight,
    "own layer": lambda attr: nn.Layer().create_parameter([4, 4], attr=attr),
    "paddle.create_parameter": lambda attr: paddle.create_parameter([4, 4], "float32", attr=attr),
}


@pytest.mark.parametrize("as_string", [False, True], ids=["ParamAttr", "string"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_way_to_make_a_parameter(layer, as_string):
    with shared_parameters():
        params = [LAYERS[layer]("w" if as_string else Attr(name="w")) for _ in range(3)]
    assert params[0] is params[1] is params[2]


def test_layers_of_different_kinds_share():
    with shared_parameters() as shared:
        table = nn.Embedding(3, 3, weight_attr=Attr(name="w"))
        dense = nn.Linear(3, 3, weight_attr=Attr(name="w"))
        other = nn.Linear(3, 3, weight_attr=Attr(name="v"))
        unnamed = [nn.Linear(3, 3, weight_attr=attr) for attr in (None, Attr(), nn.initializer.Constant(1.0))]
    assert table.weight is dense.weight is shared["w"]
    assert dict(shared) == {"w": table.weight, "v": other.weight}
    assert len({id(layer.weight) for layer in [*unnamed, other, dense]}) == 5


def test_counted_once_and_gradients_add_up():
    model = Twin(learning_rate=0.5)
    assert len(model.parameters()) == 4
    assert [row.name for row in describe(model)] == ["left.weight", "left.bias", "head.weight", "head.bias"]
    untied = Untied(model)
    for net in (model, untied):
        net(x()).sum().backward()
    expected = untied.left.weight.grad.numpy() + untied.right.weight.grad.numpy()
    np.testing.assert_allclose(model.left.weight.grad.numpy(), expected, rtol=1e-6)


class Untied(Twin):
    """The same numbers in parameters of their own."""

    def __init__(self, twin):
        nn.Layer.__init__(self)
        self.left, self.right, self.head = nn.Linear(3, 3), nn.Linear(3, 3, bias_attr=False), nn.Linear(3, 1)
        self.set_state_dict({name: value.clone() for name, value in twin.state_dict().items()})


@pytest.mark.parametrize("clip", [None, 0.01])
def test_one_update_against_numpy(clip):
    model = Twin(learning_rate=0.5)
    model(x()).sum().backward()
    grads = {name: param.grad.numpy() for name, param in model.named_parameters()}
    before = {name: param.numpy() for name, param in model.named_parameters()}
    norm = np.sqrt(sum(np.sum(grad.astype("float64") ** 2) for grad in grads.values()))
    model.clear_gradients()
    clips = {"GlobalNorm": clip} if clip else None
    run = hub.CombinedStrategy("sgd", 0.1, clip=clips).bind(model, max_train_steps=3)
    model(x()).sum().backward()
    run.step()
    for name, param in model.named_parameters():
        scale = 0.1 * (0.5 if name == "left.weight" else 1.0) * min(1.0, (clip or np.inf) / norm)
        np.testing.assert_allclose(param.numpy(), before[name] - scale * grads[name], rtol=1e-5, atol=1e-7)


def test_the_state_dict_has_every_name(tmp_path):
    model = Twin()
    state = model.state_dict()
    assert set(state) == {"left.weight", "left.bias", "right.weight", "head.weight", "head.bias"}
    paddle.save(state, str(tmp_path / "twin.pdparams"))
    with paddle.utils.unique_name.guard():
        fresh = Twin()
    weight = fresh.left.weight
    missing, unexpected = fresh.set_state_dict(paddle.load(str(tmp_path / "twin.pdparams")))
    assert not missing
    assert not unexpected
    assert fresh.left.weight is fresh.right.weight is weight
    np.testing.assert_array_equal(fresh(x()).numpy(), model(x()).numpy())


@pytest.mark.parametrize("times", [1, 2])
def test_deepcopy_keeps_the_sharing_and_leaves_the_original(times):
    model = copied = Twin(learning_rate=0.5)
    for _ in range(times):
        copied = copy.deepcopy(copied)
    assert copied.left.weight is copied.right.weight
    assert copied.left.weight is not model.left.weight
    assert copied.left.weight.optimize_attr["learning_rate"] == 0.5
    before = model.left.weight.numpy()
    copied(x()).sum().backward()
    paddle.optimizer.SGD(0.1, parameters=copied.parameters()).step()
    np.testing.assert_array_equal(model.left.weight.numpy(), before)
    assert not np.array_equal(copied.right.weight.numpy(), before)


def test_conversion_keeps_the_sharing():
    model = Twin()
    model.to(dtype="float64")
    assert model.left.weight is model.right.weight
    assert model.right.weight.dtype == paddle.float64


def linear(*shape, **attributes):
    return lambda: nn.Linear(*shape, weight_attr=Attr(name="w", **attributes))


def half(*shape):
    def make():
        paddle.set_default_dtype("float16")
        try:
            return nn.Linear(*shape, weight_attr=Attr(name="w"))
        finally:
            paddle.set_default_dtype("float32")

    return make


L1, L2 = paddle.regularizer.L1Decay, paddle.regularizer.L2Decay
Normal, Assign = nn.initializer.Normal, nn.initializer.Assign
ONES = np.ones((2, 3), "float32")
CONFLICTS = [
    (linear(2, 3), linear(2, 4), r"shape is \[2, 3\].*\[2, 4\]"),
    (linear(2, 3), linear(3, 2), r"shape is \[2, 3\].*\[3, 2\].*transpose_y=True"),
    (linear(2, 3), half(2, 3), "dtype is paddle.float32.*paddle.float16"),
    (linear(2, 3, learning_rate=0.1), linear(2, 3), "learning_rate is 0.1.*1.0"),
    (linear(2, 3), linear(2, 3, learning_rate=0.1), "learning_rate is 1.0.*0.1"),
    (linear(2, 3), linear(2, 3, trainable=False), "trainable is True.*False"),
    (linear(2, 3), linear(2, 3, need_clip=False), "need_clip is True.*False"),
    (linear(2, 3), linear(2, 3, do_model_average=False), "do_model_average is True.*False"),
    (linear(2, 3, regularizer=L2(0.1)), linear(2, 3, regularizer=L2(0.2)), "regularizer is L2.*0.1.*L2.*0.2"),
    (linear(2, 3, regularizer=L2(0.1)), linear(2, 3, regularizer=L1(0.1)), "regularizer is L2.*L1"),
    (linear(2, 3, regularizer=L2(0.1)), linear(2, 3), "regularizer is L2.*None"),
    (linear(2, 3), linear(2, 3, initializer=Normal()), "initializer is None.*Normal"),
    (linear(2, 3, initializer=Normal(0.0, 1.0)), linear(2, 3, initializer=Normal(0.0, 2.0)), "initializer is Normal"),
    (linear(2, 3, initializer=Assign(ONES)), linear(2, 3, initializer=Assign(2 * ONES)), "initializer is Assign"),
]


@pytest.mark.parametrize(("first", "second", "message"), CONFLICTS)
def test_conflicts_name_both_layers(first, second, message):
    with shared_parameters():
        one = first()
        before = one.weight.numpy()
        with pytest.raises(ValueError, match=message) as caught:
            second()
    text = str(caught.value)
    assert "parameter 'w'" in text
    assert re.findall(r"layer '(\w+)' \([^)]*test_sharing\.py:\d+\)", text) == ["linear_0", "linear_1"]
    np.testing.assert_array_equal(one.weight.numpy(), before)


AGREEING = [
    (linear(2, 3), linear(2, 3)),
    (linear(2, 3, learning_rate=1), linear(2, 3, learning_rate=1.0)),
    (linear(2, 3, learning_rate=0.5, trainable=False), lambda: nn.Linear(2, 3, weight_attr="w")),
    (linear(2, 3, regularizer=L2(0.1)), linear(2, 3, regularizer=L2(0.1))),
    (linear(2, 3, initializer=Normal(0.0, 2.0)), linear(2, 3, initializer=Normal(0.0, 2.0))),
    (linear(2, 3, initializer=Assign(ONES)), linear(2, 3, initializer=Assign(ONES.copy()))),
    (linear(2, 3, initializer=Normal()), linear(2, 3)),
]


@pytest.mark.parametrize(("first", "second"), AGREEING)
def test_agreeing_attributes(first, second):
    with shared_parameters():
        one, two = first(), second()
    assert one.weight is two.weight


@pytest.mark.parametrize("source", ["array", "file"])
def test_pretrained_embeddings(source, tmp_path):
    tables = [np.ones((3, 2), "float32"), np.zeros((3, 2), "float32")]
    if source == "file":
        for number, table in enumerate(tables):
            np.save(tmp_path / f"{number}.npy", table)
        tables = [tmp_path / f"{number}.npy" for number in range(2)]
    attr = embedding_attr(tables[0], name="w")
    with shared_parameters():
        layers = [nn.Embedding(3, 2, weight_attr=stated) for stated in (attr, attr, "w", Attr(name="w"))]
        with pytest.raises(ValueError, match="initializer is TableInitializer"):
            nn.Embedding(3, 2, weight_attr=embedding_attr(tables[1], name="w"))
    assert all(layer.weight is layers[0].weight for layer in layers)
    np.testing.assert_array_equal(layers[0].weight.numpy(), np.ones((3, 2)))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_paddle_as_it_was(error):
    with pytest.raises(error), shared_parameters():
        nn.Linear(2, 2, weight_attr=Attr(name="w"))
        raise error
    assert LayerHelperBase.create_parameter is PLAIN
    with pytest.raises(ValueError, match="have be been used"):
        nn.Linear(2, 2, weight_attr=Attr(name="w"))


def test_nothing_is_shared_outside():
    with shared_parameters():
        nn.Linear(2, 2, weight_attr=Attr(name="w"))
    assert LayerHelperBase.create_parameter is PLAIN
    with pytest.raises(ValueError, match="have be been used"):
        nn.Linear(2, 2, weight_attr=Attr(name="w"))


def test_a_name_from_before_is_an_error_that_says_what_to_do():
    before = nn.Linear(2, 2, weight_attr=Attr(name="w"))
    advice = r"'w'.*before or outside.*layer\.weight.*unique_name\.guard"
    with shared_parameters(), pytest.raises(ValueError, match=advice):
        nn.Linear(2, 2, weight_attr=Attr(name="w"))
    with shared_parameters({"w": before.weight}):
        after = nn.Linear(2, 2, weight_attr=Attr(name="w"))
    assert after.weight is before.weight
    with shared_parameters(), paddle.utils.unique_name.guard():
        apart = nn.Linear(2, 2, weight_attr=Attr(name="w"))
    assert apart.weight is not before.weight


def test_a_given_parameter_brings_its_attributes():
    trained = nn.Linear(2, 2, weight_attr=Attr(learning_rate=0.1))
    with shared_parameters({"tied": trained.weight}):
        by_name = nn.Linear(2, 2, weight_attr="tied")
        equal = nn.Linear(2, 2, weight_attr=Attr(name="tied", learning_rate=0.1))
        with pytest.raises(ValueError, match="learning_rate is 0.1 in the parameter 'linear_0.w_0' given to.* 1.0 in"):
            nn.Linear(2, 2, weight_attr=Attr(name="tied"))
    assert by_name.weight is equal.weight is trained.weight


@pytest.mark.parametrize("known", [3, {"w": np.ones(2)}])
def test_known_must_be_parameters(known):
    with pytest.raises(TypeError, match="known"), shared_parameters(known):
        pass


def test_continuing_an_earlier_block():
    with shared_parameters() as shared:
        one = nn.Linear(2, 2, weight_attr=Attr(name="w", learning_rate=0.1))
    with shared_parameters(shared):
        two = nn.Linear(2, 2, weight_attr=Attr(name="w", learning_rate=0.1))
        with pytest.raises(ValueError, match="'linear_0'.*'linear_2'"):
            nn.Linear(2, 2, weight_attr=Attr(name="w"))
    assert one.weight is two.weight
    with pytest.raises(KeyError, match="Did you mean 'w'"):
        shared["W "]


def test_nested_blocks():
    with shared_parameters() as outer:
        one = nn.Linear(2, 2, weight_attr="w")
        with shared_parameters() as inner:
            two, three = nn.Linear(2, 2, weight_attr="w"), nn.Linear(2, 2, weight_attr="v")
        four = nn.Linear(2, 2, weight_attr="v")
    assert one.weight is two.weight
    assert three.weight is four.weight
    assert set(inner) == set(outer) == {"w", "v"}


def test_a_parameter_that_failed_is_not_shared():
    with shared_parameters() as shared:
        with pytest.raises(AssertionError):
            nn.Linear(2, -1, weight_attr="w")
        assert "w" not in shared
        assert list(nn.Linear(2, 2, weight_attr="w").weight.shape) == [2, 2]


def in_thread(act):
    """What `act` returned or raised in a thread of its own."""
    outcome = []

    def body():
        try:
            outcome.append(act())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return outcome[0]


def test_other_threads_are_not_affected():
    with shared_parameters():
        one = nn.Linear(2, 2, weight_attr="w")
        other = in_thread(lambda: nn.Linear(2, 2, weight_attr="w"))
        plain = in_thread(lambda: nn.Linear(2, 2, weight_attr="v").weight.name)
        two = nn.Linear(2, 2, weight_attr="w")
    assert isinstance(other, ValueError)
    assert "have be been used" in str(other)
    assert plain == "v"
    assert one.weight is two.weight


def test_two_threads_that_share_at_once_do_not_mix():
    gate = threading.Barrier(2, timeout=60)
    built, errors = {}, []

    def body(key):
        try:
            with shared_parameters():
                gate.wait()
                layers = [nn.Linear(2, 2, weight_attr=f"{key}{turn % 5}") for turn in range(50)]
                built[key] = {id(layer.weight) for layer in layers}, layers
                if key == "a":
                    gate.wait()
            if key == "b":
                # The other one's block is still open.
                assert LayerHelperBase.create_parameter is not PLAIN
                gate.wait()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(key,)) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(built["a"][0]) == len(built["b"][0]) == 5
    assert not built["a"][0] & built["b"][0]
    assert LayerHelperBase.create_parameter is PLAIN


def test_a_patch_that_someone_put_over_it_stays():
    calls = []
    with ExitStack() as stack:
        stack.enter_context(shared_parameters())
        ours = LayerHelperBase.create_parameter

        def theirs(self, *args, **kwargs):
            calls.append(self.name)
            return ours(self, *args, **kwargs)

        LayerHelperBase.create_parameter = theirs
    try:
        assert LayerHelperBase.create_parameter is theirs
        nn.Linear(2, 2)
        assert calls == ["linear_0", "linear_0"]
    finally:
        LayerHelperBase.create_parameter = PLAIN


def test_the_static_graph_shares_by_itself():
    paddle.enable_static()
    try:
        programs = paddle.static.Program(), paddle.static.Program()
        with shared_parameters() as shared, paddle.static.program_guard(*programs):
            nn.Linear(2, 2, weight_attr="w")
            nn.Linear(2, 2, weight_attr="w")
        assert not shared
    finally:
        paddle.disable_static()


def train(model, wrapped, inputs):
    optimizer = paddle.optimizer.SGD(0.1, parameters=wrapped.parameters())
    for _ in range(3):
        wrapped(inputs).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
    return {name: param.numpy() for name, param in model.named_parameters()}


def train_in_parallel(out):
    paddle.distributed.init_parallel_env()
    rank = paddle.distributed.get_rank()
    # Each process starts from values of its own; DataParallel has to give all of them the first one's.
    paddle.seed(rank)
    model = Twin()
    result = train(model, paddle.DataParallel(model), x()[2 * rank : 2 * rank + 2])
    assert model.left.weight is model.right.weight
    np.savez(Path(out) / f"{rank}.npz", **result)


def test_data_parallel(tmp_path):
    assert processes.run_ranks(2, tmp_path / "logs", __file__, tmp_path) == [0, 0]
    paddle.seed(0)
    model = Twin()
    expected = train(model, model, x())
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as result:
            assert set(result.files) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    train_in_parallel(sys.argv[1])
