"""Words that select parameters by what they are, through the one matcher, and models that use these words as names."""

import subprocess
import sys
import warnings

import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import configure, describe, freeze, kinds, select
from paddle_ftstrat.param_attr.depth import stack_of


class Net(nn.Layer):
    """An encoder of three like layers with norms, between an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.layers = nn.LayerList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Tanh()) for _ in range(3)])
        self.classifier = nn.Linear(4, 2)

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x)


MEANT = {
    "bias": {*(f"layers.{i}.{j}.bias" for i in range(3) for j in range(2)), "classifier.bias"},
    "norm": {f"layers.{i}.1.{part}" for i in range(3) for part in ("weight", "bias")},
    "head": {"classifier.weight", "classifier.bias"},
    "first_block": {f"layers.0.{j}.{part}" for j in range(2) for part in ("weight", "bias")},
    "last_block": {f"layers.2.{j}.{part}" for j in range(2) for part in ("weight", "bias")},
}


@pytest.mark.parametrize("word", MEANT)
class TestWhereverSelectorsAreTaken:
    def test_select_and_kinds(self, word):
        model = Net()
        assert set(select.select(model, word)) == MEANT[word] == set(kinds(model)[word])

    def test_a_phase(self, word):
        model = Net()
        start = {name: param.numpy() for name, param in model.named_parameters()}
        phases = [hub.Phase(train=[word] if word == "head" else word, updates=3), hub.Phase()]
        run = hub.PhasedStrategy(phases, "sgd", 0.1).bind(model, max_train_steps=6)
        for t in range(3):
            paddle.seed(t)
            model(paddle.randint(0, 5, [8])).square().sum().backward()
            run.step()
        moved = {name for name, param in model.named_parameters() if (param.numpy() != start[name]).any()}
        assert moved == MEANT[word]

    def test_configure_freeze_and_bind(self, word):
        model = Net()
        configure(model, [(word, {"learning_rate": 0.5})])
        assert {row.name for row in describe(model) if row.learning_rate == 0.5} == MEANT[word]
        assert set(freeze(Net(), word)) == MEANT[word]
        strategy = hub.CombinedStrategy(regularization={"L2SP": 0.1, "weight_decay": 0.1})
        rows = strategy.bind(Net(), pretrained=word, no_decay=word).describe()
        assert {row.name for row in rows if row.regularizer.startswith("L2SP")} == MEANT[word]
        assert {row.name for row in rows if not row.decay} == MEANT[word]

    def test_from_plain_data(self, word):
        text = f"strategy: PhasedStrategy\nphases:\n- train: [{word}]\n"
        run = hub.strategy_from_yaml(text).bind(Net(), max_train_steps=4)
        assert {name for name, trains in run.trains.items() if trains[0]} == MEANT[word]


def test_bitfit_is_bias_and_head():
    model = Net()
    run = hub.PhasedStrategy([hub.Phase(train=["bias", "head"])], "adam", 1e-2).bind(model, max_train_steps=2)
    assert {row.name for row in run.describe() if row.trainable} == MEANT["bias"] | MEANT["head"]


class Named(nn.Layer):
    """Names a layer `norm` and a parameter of its own `bias`, beside others of the kind."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.norm = nn.LayerNorm(2)
        self.bias = self.create_parameter([2], is_bias=True)


def test_a_name_in_the_model_keeps_its_meaning_and_says_so():
    model = Named()
    with pytest.warns(UserWarning, match=r"'norm' is the name of norm.weight, norm.bias .* leaves out 2 others"):
        assert select.select(model, "norm") == ["norm.weight", "norm.bias"]
    with pytest.warns(UserWarning, match=r"kinds\(model\)\['bias'\] for all"):
        assert freeze(model, "bias") == ["bias"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select.select(model, "norm.*") == ["norm.weight", "norm.bias"]
        assert set(select.select_all(model, kinds(model)["norm"])) == {
            "inner.1.weight",
            "inner.1.bias",
            "norm.weight",
            "norm.bias",
        }
        assert select.select(nn.Linear(2, 2), "bias") == ["bias"]


def test_the_blocks_of_models():
    names = [unit.name for unit in stack_of(paddle.vision.models.mobilenet_v2())]
    assert (names[0], names[-1]) == ("features.1", "features.17")
    unlike = nn.Sequential(nn.Embedding(3, 2), nn.LSTM(2, 2), nn.Linear(2, 2))
    assert [unit.name for unit in stack_of(unlike)] == ["0", "1"]
    assert [unit.name for unit in stack_of(nn.Linear(2, 2))] == ["(model)"]


def test_what_a_model_has_none_of():
    model = nn.Linear(2, 2)
    assert kinds(model) == {
        "bias": ["bias"],
        "norm": [],
        "first_block": ["weight", "bias"],
        "last_block": ["weight", "bias"],
        "head": [],
    }
    with pytest.raises(ValueError, match="'norm'"):
        select.select(model, "norm")
    with pytest.raises(ValueError, match="Did you mean 'first_block'"):
        select.select(Net(), "first_blok")
    assert set(select.select(Net(), "layers.0")) == MEANT["first_block"]


def test_every_word_is_known_whatever_was_imported_before():
    code = "from paddle_ftstrat.param_attr import select; print(*sorted(select.KINDS))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(select.KINDS)
