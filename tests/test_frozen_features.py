"""Frozen features: the same numbers as without them, nothing frozen run again, whatever is not safe refused."""

import gc
import shutil

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from paddle.nn import functional

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import freeze
from paddle_ftstrat.param_attr.depth import call, find_units
from paddle_ftstrat.param_attr.select import named_weights
from paddle_ftstrat.training.frozen_features import FrozenFeatures
from paddle_ftstrat.training.frozen_features.rows import FeatureStore, find_layout, sample_keys

SAMPLES, LENGTH, WIDTH = 11, 5, 8


class Text(nn.Layer):
    """Embedding, positions added in between, encoder layers, a head on the mean over the words that are there."""

    def __init__(self, dropout=0.0, layers=3):
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.positions = self.create_parameter([LENGTH, WIDTH])
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=dropout), layers)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids, mask=None):
        there = paddle.ones_like(ids) if mask is None else mask
        bias = (there.astype("float32").unsqueeze([1, 2]) - 1) * 1e4
        hidden = self.drop(self.body(self.embedding(ids) + self.positions, bias))
        weight = there.astype("float32").unsqueeze(-1)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


class Recurrent(nn.Layer):
    """An LSTM whose output and states both go on."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.lower = nn.LSTM(WIDTH, WIDTH, num_layers=2)
        self.upper = nn.LSTM(WIDTH, WIDTH, num_layers=2)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids):
        out, state = self.lower(self.embedding(ids))
        return self.head(self.upper(out, state)[0][:, -1])


class Flat(nn.Layer):
    """Layers that see the words of all samples in one long row, and return a dict."""

    class Lower(nn.Layer):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, WIDTH)

        def forward(self, x):
            return {"hidden": self.inner(x), "words": LENGTH, "order": (x > 0).astype("int32")}

    def __init__(self):
        super().__init__()
        self.lower, self.upper = Flat.Lower(), nn.Linear(WIDTH, 3)

    def forward(self, x):
        got = self.lower(x.reshape([-1, 4]))
        hidden = self.upper(got["hidden"]) * got["order"].sum(1, keepdim=True).astype("float32")
        return hidden.reshape([-1, got["words"], 3]).mean(1)


class Convolution(nn.Layer):
    """BatchNorm below and above, pooling in between."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2D(2, 4, 3, padding=1), nn.BatchNorm2D(4)
        self.pool = nn.MaxPool2D(2, 2)
        self.conv2, self.bn2, self.head = nn.Conv2D(4, 4, 3), nn.BatchNorm2D(4), nn.Linear(16, 3)

    def forward(self, x):
        x = self.pool(functional.relu_(self.bn1(self.conv1(x))))
        return self.head(functional.relu(self.bn2(self.conv2(x))).flatten(1))


def perceptron(depth=3):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(4, 4), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def ids():
    return np.random.RandomState(0).randint(0, 20, [SAMPLES, LENGTH])


def words():
    mask = np.ones([SAMPLES, LENGTH], "int64")
    mask[::2, 3:] = 0
    return {"ids": ids(), "mask": mask}


def numbers(*shape):
    return np.random.RandomState(0).randn(SAMPLES, *shape).astype("float32")


# model, what is frozen, inputs of all samples, the boundary
MODELS = {
    "transformer": (Text, ["embedding", "positions", "body.layers.0", "body.layers.1"], ids, "body.layers.1"),
    "dict of inputs": (Text, ["embedding", "positions", "body.layers.0"], words, "body.layers.0"),
    "one embedding": (Recurrent, ["embedding"], ids, "embedding"),
    "states of an LSTM": (Recurrent, ["embedding", "lower"], ids, "lower"),
    "words in a row": (Flat, ["lower"], lambda: numbers(LENGTH, 4), "lower"),
    "convolution": (Convolution, ["conv1", "bn1"], lambda: numbers(2, 8, 8), "bn1"),
    "all but the head": (perceptron, ["0", "2", "4"], lambda: numbers(4), "4"),
}


def some(inputs, rows):
    if isinstance(inputs, dict):
        return {name: paddle.to_tensor(values[rows]) for name, values in inputs.items()}
    return paddle.to_tensor(inputs[rows])


def frozen_names(model):
    return {name for name, param in named_weights(model).items() if param.stop_gradient}


def built(make, frozen, units_of=find_units):
    """The model from the same seed each time, frozen, with its units."""
    paddle.seed(3)
    model = make()
    if frozen:
        hub.param_attr.freeze(model, frozen)
    model.train()
    return model, units_of(model)


def train(model, features, inputs, epochs=3, batch=4, thaw=None):
    """Outputs of all updates; each epoch in another order, each update from a seed of its own."""
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=model.parameters())
    labels = np.random.RandomState(1).randint(0, 3, SAMPLES)
    outputs = []
    for epoch in range(epochs):
        if thaw is not None and epoch in thaw:
            hub.param_attr.unfreeze(model, thaw[epoch])
        if features is not None:
            features.begin_phase(frozen_names(model))
        order = np.random.RandomState(epoch).permutation(SAMPLES)
        for first in range(0, SAMPLES, batch):
            rows = order[first : first + batch]
            paddle.seed(100 * epoch + first)
            given_inputs = some(inputs, rows)
            output = call(model, given_inputs) if features is None else features.call(given_inputs, rows)
            outputs.append(output.numpy())
            functional.cross_entropy(output, paddle.to_tensor(labels[rows])).backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
    return outputs


def counted(model, name):
    """How many samples have gone through a layer's real forward."""
    layer = dict(model.named_sublayers())[name]
    seen, forward = [], layer.forward

    def counting(x, *args, **kwargs):
        seen.append(len(x))
        return forward(x, *args, **kwargs)

    layer.forward = counting
    return seen


def features_of(model, units, **options):
    features = FrozenFeatures(model, units, range(SAMPLES), **options)
    features.begin_phase(frozen_names(model))
    return features


def all_equal(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return all(np.array_equal(mine[name].numpy(), theirs[name].numpy()) for name in mine)


class TestSameAsWithout:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("memory", [2**20, 0], ids=["memory", "disk"])
    def test_training_is_the_same_bit_for_bit(self, name, memory, tmp_path):
        make, frozen, data, boundary = MODELS[name]
        plain, _ = built(make, frozen)
        expected = train(plain, None, data())
        model, units = built(make, frozen)
        features = FrozenFeatures(model, units, range(SAMPLES), memory=memory, folder=tmp_path)
        got = train(model, features, data())
        assert features.boundary == boundary
        assert features.on_disk == (memory == 0)
        assert features.cached == SAMPLES
        assert all(map(np.array_equal, got, expected))
        assert all_equal(model, plain)

    @pytest.mark.parametrize("name", ["transformer", "states of an LSTM", "convolution"])
    def test_gradients_are_the_same_and_reach_nothing_frozen(self, name):
        make, frozen, data, _ = MODELS[name]
        model, units = built(make, frozen)
        features, everyone = features_of(model, units), np.arange(SAMPLES)
        seen = []
        for _ in range(2):
            paddle.seed(1)
            features.call(some(data(), everyone), everyone).square().sum().backward()
            seen.append({n: None if p.grad is None else p.grad.numpy() for n, p in named_weights(model).items()})
            for param in model.parameters():
                param.clear_gradient(False)
        assert {n for n, grad in seen[0].items() if grad is None} == frozen_names(model)
        assert seen[0].keys() == seen[1].keys()
        assert all(np.array_equal(seen[0][n], seen[1][n]) for n in seen[0] if seen[0][n] is not None)

    def test_frozen_layers_run_once_per_sample_but_for_the_checks(self):
        model, units = built(*MODELS["transformer"][:2])
        seen = counted(model, "body.layers.1")
        first_batch = [4, 4, 2, 4]  # where the layers end, on chance, on a part, and the forward that counts
        train(model, FrozenFeatures(model, units, range(SAMPLES)), ids(), epochs=1)
        assert seen == [*first_batch, 4, 3]
        seen.clear()
        train(model, FrozenFeatures(model, units, range(SAMPLES)), ids(), epochs=4)
        assert seen == [*first_batch, 4, 3, 2, 2, 2]

    def test_thawing_a_layer_begins_a_new_cache_below_it(self):
        thaw = {2: ["body.layers.1"], 4: ["body.layers.0"]}
        plain, _ = built(*MODELS["transformer"][:2])
        expected = train(plain, None, ids(), epochs=6, thaw=thaw)
        model, units = built(*MODELS["transformer"][:2])
        features = FrozenFeatures(model, units, range(SAMPLES))
        got = train(model, features, ids(), epochs=6, thaw=thaw)
        assert features.boundary == "embedding"
        assert all(map(np.array_equal, got, expected))
        assert all_equal(model, plain)

    def test_nothing_frozen_at_the_bottom_is_a_plain_call(self):
        model, units = built(perceptron, ["2"])
        features, everyone = features_of(model, units), np.arange(SAMPLES)
        assert features.boundary is None
        x = paddle.to_tensor(numbers(4))
        assert np.array_equal(features.call(x, everyone).numpy(), model(x).numpy())
        assert features.cached == 0

    def test_without_gradients_nothing_is_stored(self):
        model, units = built(perceptron, ["0"])
        features = features_of(model, units)
        with paddle.no_grad():
            features.call(paddle.to_tensor(numbers(4)), np.arange(SAMPLES))
        assert features.cached == 0

    def test_a_frozen_weight_that_a_layer_above_shares_is_no_obstacle(self):
        class Tied(nn.Layer):
            def __init__(self):
                super().__init__()
                self.embedding, self.inner = nn.Embedding(20, WIDTH), nn.Linear(WIDTH, WIDTH)

            def forward(self, ids):
                return self.inner(self.embedding(ids)).mean(1).matmul(self.embedding.weight.t())[:, :3]

        plain, _ = built(Tied, ["embedding"])
        expected = train(plain, None, ids())
        model, units = built(Tied, ["embedding"])
        assert all(map(np.array_equal, train(model, FrozenFeatures(model, units, range(SAMPLES)), ids()), expected))

    def test_hooks_on_the_boundary_act_each_time(self):
        model, units = built(perceptron, ["0"])
        model[0].register_forward_post_hook(lambda layer, given, output: output * 2)
        features, everyone, x = features_of(model, units), np.arange(SAMPLES), paddle.to_tensor(numbers(4))
        expected = model(x).numpy()
        assert all(np.array_equal(features.call(x, everyone).numpy(), expected) for _ in range(3))

    @settings(max_examples=25)
    @given(
        frozen=st.integers(0, 3),
        batches=st.lists(st.lists(st.integers(0, SAMPLES - 1), min_size=2, max_size=6), min_size=2, max_size=12),
        small=st.booleans(),
    )
    def test_any_order_repetition_and_batch_size(self, frozen, batches, small):
        model, units = built(perceptron, [str(2 * i) for i in range(frozen)])
        data = numbers(4)
        features = features_of(model, units, memory=16 if small else 2**20)
        visited = set()
        for rows in map(np.array, batches):
            x = paddle.to_tensor(data[rows])
            assert np.array_equal(features.call(x, rows).numpy(), model(x).numpy())
            visited.update(rows.tolist())
            assert features.cached == (len(visited) if frozen else 0)
        features.close()


class Wrong(nn.Layer):
    """A frozen lower and a free upper layer, with something in between or around."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.lower, self.middle, self.upper = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.free = self.create_parameter([4])

    def forward(self, x):
        low = self.lower(x)
        out = self.how(self, low, x)
        return out if isinstance(out, tuple) else self.upper(out)


WRONG = {
    "skip over the boundary": (lambda m, low, x: m.middle(low) + low, "skip connection"),
    "hidden states": (lambda m, low, x: (m.upper(m.middle(low)), low), "hidden states"),
    "dropout in between": (lambda m, low, x: m.middle(functional.dropout(low, 0.5)), "draw random numbers"),
    "noise by numpy": (lambda m, low, x: m.middle(low + float(np.random.rand())), "draw random numbers"),
    "other samples": (lambda m, low, x: m.middle(low - low.mean(0)), "depends on the other samples"),
    "something free below": (lambda m, low, x: m.middle(low + m.free), "something that trains"),
    "called again": (lambda m, low, x: m.lower(m.upper(m.middle(low))), "lower is called above"),
    "called twice": (lambda m, low, x: m.middle(m.middle(low)), "middle is called above"),
    "route by the batch": (lambda m, low, x: m.middle(low if len(x) > 6 else m.lower(low)), "depends on the batch"),
    "value of a frozen layer": (lambda m, low, x: m.middle(low) * low.max().item(), "depends on more"),
    "nothing by sample": (lambda m, low, x: m.middle(paddle.ones([1, 4])) + low * 0, "nothing that has a row"),
    "fails on parts": (lambda m, low, x: m.middle(low.reshape([SAMPLES, 4])), "fail on 6 samples"),
    "fails on NaN": (lambda m, low, x: m.middle(low) * (1 // int(low.max().item() > -9)), "fails where only middle"),
}


def wrong(name):
    model, _ = built(lambda: Wrong(WRONG[name][0]), ["lower", "middle"])
    units = [unit for unit in find_units(model) if unit.name != "(model)"]
    return model, units


class TestRefusals:
    @pytest.mark.parametrize("name", WRONG)
    def test_of_what_does_not_follow_from_the_boundary(self, name):
        model, units = wrong(name)
        features, x = features_of(model, units), paddle.to_tensor(numbers(4))
        np.random.seed(5)
        paddle.seed(5)
        expected = call(model, x)
        np.random.seed(5)
        paddle.seed(5)
        with pytest.raises(ValueError, match=f"cache_frozen=True cannot be used: .*{WRONG[name][1]}"):
            features.call(x, np.arange(SAMPLES))
        assert features.cached == 0
        assert not any("forward" in layer.__dict__ for layer in model.sublayers())
        np.random.seed(5)
        paddle.seed(5)
        again = call(model, x)
        assert all(map(np.array_equal, paddle.utils.flatten(expected), paddle.utils.flatten(again)))

    @pytest.mark.parametrize(
        ("make", "frozen", "data", "culprit"),
        [
            (lambda: Text(dropout=0.1), ["embedding", "positions", "body.layers.0"], ids,
             "body.layers.0.dropout1: p = 0.1"),
            (lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2)), nn.Linear(4, 3)), ["0"],
             lambda: numbers(4), "0.1: p = 0.2"),
        ],
    )  # fmt: skip
    def test_of_dropout_names_the_layers(self, make, frozen, data, culprit):
        model, units = built(make, frozen)
        with pytest.raises(ValueError, match="draw random numbers") as caught:
            features_of(model, units).call(some(data(), np.arange(SAMPLES)), np.arange(SAMPLES))
        assert culprit in str(caught.value)

    def test_not_of_dropout_in_eval_mode(self):
        model, units = built(lambda: Text(dropout=0.1), ["embedding", "positions", "body.layers.0"])
        model.body.layers[0].eval()
        features, rows = features_of(model, units), np.arange(SAMPLES)
        seen = []
        for _ in range(2):
            paddle.seed(1)
            seen.append(features.call(some(ids(), rows), rows).numpy())
        assert np.array_equal(*seen)

    def test_of_batch_norm_that_tracks_leaves_its_statistics_alone(self):
        model, _ = built(Convolution, [])
        hub.param_attr.freeze(model, ["conv1", "bn1"], batch_norm="track")
        before = {name: value.numpy() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"move bn1\._mean, bn1\._variance in train mode"):
            features_of(model, find_units(model)).call(some(numbers(2, 8, 8), np.arange(6)), np.arange(6))
        assert all(np.array_equal(before[name], value.numpy()) for name, value in model.state_dict().items())

    def test_of_samples_of_varying_length(self):
        model, units = built(Recurrent, ["embedding", "lower"])
        features = features_of(model, units)
        features.call(paddle.to_tensor(ids()[:4]), np.arange(4))
        with pytest.raises(ValueError, match="padding to one length"):
            features.call(paddle.to_tensor(ids()[4:8, :3]), np.arange(4, 8))

    def test_of_a_sample_that_changed(self):
        model, units = built(perceptron, ["0"])
        features, data = features_of(model, units), numbers(4)
        features.call(paddle.to_tensor(data[:4]), np.arange(4))
        data[2, 1] += 1e-6
        with pytest.raises(ValueError, match="sample 2 is not what it was"):
            features.call(paddle.to_tensor(data[[5, 2]]), np.array([5, 2]))

    def test_of_random_samples_before_anything_runs(self):
        class Augmented(paddle.io.Dataset):
            def __getitem__(self, index):
                return numbers(4)[index] + np.random.rand(), 0

            def __len__(self):
                return SAMPLES

        model, units = built(perceptron, ["0"])
        state = np.random.get_state()[1].copy()
        with pytest.raises(ValueError, match="sample 0 of the data is another each time"):
            FrozenFeatures(model, units, Augmented())
        assert np.array_equal(state, np.random.get_state()[1])
        FrozenFeatures(model, units, [(row, 0) for row in numbers(4)])

    def test_of_a_compiled_model(self):
        model, units = built(perceptron, ["0"])
        with pytest.raises(ValueError, match="to_static compiled the model"):
            FrozenFeatures(paddle.jit.to_static(model), units, range(SAMPLES))

    def test_of_a_frozen_layer_that_gives_something_else_in_a_later_epoch(self):
        class Scaled(nn.Linear):
            scale = 1.0

            def forward(self, x):
                return super().forward(x) * self.scale

        model, units = built(lambda: nn.Sequential(Scaled(4, 4), nn.Linear(4, 3)), ["0"])
        features, rows, x = features_of(model, units), np.arange(SAMPLES), paddle.to_tensor(numbers(4))
        features.call(x, rows)
        model[0].scale = 1.01
        with pytest.raises(ValueError, match="returns something else for a sample than in an earlier epoch"):
            features.call(x, rows)

    def test_of_a_route_that_changes_later(self):
        model, units = wrong("skip over the boundary")
        model.how = lambda m, low, x: m.middle(low)
        features, rows, x = features_of(model, units), np.arange(SAMPLES), paddle.to_tensor(numbers(4))
        features.call(x, rows)
        model.how = lambda m, low, x: low
        with pytest.raises(ValueError, match="which frozen layers are called"):
            features.call(x, rows)
        model.how = lambda m, low, x: m.middle(low)
        features.call(x, rows)
        model.how = lambda m, low, x: low
        with pytest.raises(ValueError, match="middle was called in the first batch, but not in this one"):
            features.call(x, rows)

    def test_a_way_around_that_opens_later_gives_nan_and_no_wrong_number(self):
        model, units = wrong("skip over the boundary")
        model.how = lambda m, low, x: m.middle(low)
        features, rows, x = features_of(model, units), np.arange(SAMPLES), paddle.to_tensor(numbers(4))
        features.call(x, rows)
        model.how = WRONG["skip over the boundary"][0]
        assert np.isnan(features.call(x, rows).numpy()).all()

    def test_of_arguments(self):
        model, units = built(perceptron, ["0"])
        x = paddle.to_tensor(numbers(4))
        with pytest.raises(ValueError, match="memory = -1"):
            FrozenFeatures(model, units, range(SAMPLES), memory=-1)
        features = FrozenFeatures(model, units, list(numbers(4)))
        with pytest.raises(RuntimeError, match="begin_phase"):
            features.call(x, np.arange(SAMPLES))
        with pytest.raises(ValueError, match=r"'0\.wieght'. Did you mean '0\.weight'"):
            features.begin_phase({"0.wieght"})
        features.begin_phase(frozen_names(model))
        for indices, message in [
            ([0.0] * SAMPLES, "whole numbers"),
            (np.arange(4), "names 4 samples"),
            (np.arange(SAMPLES) - 1, "must lie in 0 … 10"),
            (np.arange(SAMPLES) + 1, "must lie in 0 … 10"),
        ]:
            with pytest.raises(ValueError, match=message):
                features.call(x, indices)


class TestPhases:
    def make(self):
        model, units = built(perceptron, ["0", "2"])
        return model, features_of(model, units), np.arange(SAMPLES), paddle.to_tensor(numbers(4))

    def test_the_same_frozen_set_keeps_what_is_stored(self):
        model, features, rows, x = self.make()
        features.call(x, rows)
        features.begin_phase(frozen_names(model))
        assert features.cached == SAMPLES

    @pytest.mark.parametrize("change", ["value", "load", "thawed", "frozen"])
    def test_a_change_drops_it(self, change):
        model, features, rows, x = self.make()
        features.call(x, rows)
        if change == "value":
            model[0].bias.set_value(model[0].bias + 1)
        elif change == "load":
            model.set_state_dict({name: value * 2 for name, value in model.state_dict().items()})
        elif change == "thawed":
            hub.param_attr.unfreeze(model, "2.bias")
        else:
            hub.param_attr.freeze(model, "4")
        features.begin_phase(frozen_names(model))
        assert features.cached == 0
        assert features.boundary == {"thawed": "0", "frozen": "4"}.get(change, "2")
        assert np.array_equal(features.call(x, rows).numpy(), model(x).numpy())
        assert np.array_equal(features.call(x, rows).numpy(), model(x).numpy())

    def test_a_change_of_what_trains_does_not(self):
        model, features, rows, x = self.make()
        features.call(x, rows)
        model[6].bias.set_value(model[6].bias + 1)
        features.begin_phase(frozen_names(model))
        assert features.cached == SAMPLES
        assert np.array_equal(features.call(x, rows).numpy(), model(x).numpy())

    def test_closing_forgets(self):
        _, features, rows, x = self.make()
        features.call(x, rows)
        features.close()
        assert features.cached == 0
        with pytest.raises(RuntimeError, match="no phase"):
            features.call(x, rows)


class TestStore:
    def filled(self, memory, folder):
        store = FeatureStore([(3, np.dtype("float32")), (1, np.dtype("int64"))], 4, memory, folder)
        store.put(
            np.array([2, 0]), np.array([9, 8], "uint64"), [np.array([[1, 2, 3], [4, 5, 6]]), np.array([[7], [8]])]
        )
        return store

    @pytest.mark.parametrize(("memory", "on_disk"), [(80, False), (79, True)])
    def test_the_budget_is_what_all_rows_take(self, memory, on_disk, tmp_path):
        store = self.filled(memory, tmp_path)
        assert store.on_disk == on_disk == bool(list(tmp_path.glob("*/*")))
        first, second = store.get(np.array([0, 2, 0]))
        assert first.tolist() == [[4, 5, 6], [1, 2, 3], [4, 5, 6]]
        assert second.tolist() == [[8], [7], [8]]
        assert store.keys[[0, 2]].tolist() == [8, 9]
        assert store.present.tolist() == [True, False, True, False]

    @pytest.mark.parametrize("end", ["close", "drop"])
    def test_files_vanish(self, end, tmp_path):
        store = self.filled(0, tmp_path)
        assert list(tmp_path.iterdir())
        if end == "close":
            store.close()
        else:
            del store
            gc.collect()
        assert not list(tmp_path.iterdir())

    def test_a_disk_without_room_is_refused_at_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 21, 79))
        with pytest.raises(ValueError, match="more than the memory allowed"):
            self.filled(0, tmp_path)
        assert not list(tmp_path.iterdir())


class TestLayout:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
    @pytest.mark.parametrize(("shape", "axis"), [((4, 3), 0), ((2, 4, 3), 1), ((8, 5), 0), ((2, 12), 1), ((4,), 0)])
    def test_rows_and_back_keep_every_bit_and_the_dtype(self, dtype, shape, axis):
        whole = (paddle.randn(shape) * 3).astype(dtype)
        part = paddle.zeros([size // 2 if i == axis else size for i, size in enumerate(shape)]).astype(dtype)
        layout = find_layout([whole, None], [part, None], 4, 2)
        rows = layout.rows([whole, None], 4)
        assert rows[0].shape == (4, whole.size // 4)
        back, nothing = layout.output(rows)
        assert nothing is None
        assert back.dtype == whole.dtype
        assert back.stop_gradient
        assert np.array_equal(back.numpy(), whole.numpy())

    @pytest.mark.parametrize(
        ("whole", "part", "message"),
        [
            (paddle.zeros([4, 3]), paddle.zeros([2, 2]), "no rows per sample"),
            (paddle.zeros([9, 3]), paddle.zeros([7, 3]), "no rows per sample"),
            (paddle.zeros([4, 3]), paddle.zeros([2, 3, 1]), "returns .4, 3. for 4 samples"),
            ((paddle.zeros([4]),), (paddle.zeros([2]), 1), "returns 1 values"),
            (object(), object(), "returns a object"),
        ],
    )
    def test_what_has_no_rows_is_refused(self, whole, part, message):
        with pytest.raises(ValueError, match=message):
            find_layout(whole, part, 4, 2)

    def test_a_constant_that_changes_is_refused(self):
        bias = paddle.ones([3, 3])
        layout = find_layout((paddle.ones([4]), bias), (paddle.ones([2]), bias), 4, 2)
        assert len(layout.rows((paddle.ones([4]), paddle.ones([3, 3])), 4)) == 1
        with pytest.raises(ValueError, match="without a batch axis"):
            layout.rows((paddle.ones([4]), bias + 1), 4)

    def test_keys_tell_samples_apart_by_every_input(self):
        x, flags = paddle.to_tensor([[1, 2], [1, 2], [1, 3]]), paddle.to_tensor([True, False, True])
        keys = sample_keys((x, flags, None, 2), 3)
        assert len(set(keys.tolist())) == 3
        assert sample_keys((x, flags, None, 2), 3).tolist() == keys.tolist()
        assert not set(sample_keys((x, flags, None, 3), 3).tolist()) & set(keys.tolist())


class TestLearner:
    def fit(self, cache, **options):
        paddle.seed(1)
        np.random.seed(1)
        layers = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)]
        model = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(16, 2))
        x = np.random.normal(size=[50, 16]).astype("float32")
        pairs = [(row, np.int64(row.sum() > 0)) for row in x]
        data = options.pop("data", lambda pairs: pairs)(pairs)
        freeze(model[:2])
        learner = hub.Learner(model, data, pairs, batch_size=16, progress=False, cache_frozen=cache, **options)
        results = learner.fit(4, strategy=hub.ULMFiTStrategy(0.01), pretrained="*")
        return results, [value.numpy() for value in model.state_dict().values()]

    @pytest.mark.filterwarnings("error:cache_frozen")
    @pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)
    @pytest.mark.parametrize("cache", [True, 1], ids=["in memory", "on disk"])
    def test_a_fit_comes_out_the_same(self, cache, options):
        (results, weights), (whole, expected) = self.fit(cache, **options), self.fit(False, **options)
        assert results == whole
        for a, b in zip(weights, expected):
            np.testing.assert_array_equal(a, b)

    def test_a_loader_is_refused(self):
        with pytest.raises(ValueError, match="hand over a Dataset, not a DataLoader"):
            self.fit(True, data=lambda pairs: paddle.io.DataLoader(pairs, batch_size=16))

    def test_nothing_frozen_is_told(self):
        pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(4)]
        learner = hub.Learner(nn.Linear(2, 1), pairs, progress=False, cache_frozen=True)
        with pytest.warns(UserWarning, match="nothing was reused"):
            learner.fit(1, 0.1)
