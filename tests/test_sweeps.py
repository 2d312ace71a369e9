"""EWC, Fisher information, relative gradient norms and new upper layers, against numpy and against fresh layers."""

import copy
from typing import ClassVar

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim.regularizer import EWCDecay
from paddle_ftstrat.tools.explain import explain
from paddle_ftstrat.tools.outline import outline
from paddle_ftstrat.transfer import loaded_names

RNG = np.random.RandomState(7)
X, Y = RNG.randn(12, 3).astype("float32"), RNG.randint(0, 2, 12)


def net():
    paddle.seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def pairs():
    return paddle.io.TensorDataset([paddle.to_tensor(X), paddle.to_tensor(Y)])


def weights(model):
    return {name: param.numpy().copy() for name, param in model.named_parameters()}


def gradients(model, x, y):
    """Those of the mean cross entropy, by hand in numpy."""
    w1, b1, w2, b2 = (value.astype("float64") for value in weights(model).values())
    hidden = np.tanh(x @ w1 + b1)
    logits = hidden @ w2 + b2
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    share[np.arange(len(y)), y] -= 1
    share /= len(y)
    below = (share @ w2.T) * (1 - hidden**2)
    return dict(zip(weights(model), (x.T @ below, below.sum(0), hidden.T @ share, share.sum(0))))


class TestFisher:
    @pytest.mark.parametrize("batch_size", [5, 12])
    def test_it_is_the_mean_of_squared_gradients_of_samples(self, batch_size):
        model = net()
        each = [gradients(model, X[i : i + 1], Y[i : i + 1]) for i in range(12)]
        found = hub.fisher(model, pairs(), batch_size=batch_size)
        for name, value in found.items():
            np.testing.assert_allclose(value, np.mean([one[name] ** 2 for one in each], 0), rtol=1e-5, atol=1e-9)
        first = hub.fisher(model, pairs(), batches=1, batch_size=4)
        np.testing.assert_allclose(first["0.bias"], np.mean([one["0.bias"] ** 2 for one in each[:4]], 0), rtol=1e-5)

    def test_of_dicts_frozen_and_unused_weights(self):
        class Model(nn.Layer):
            def __init__(self):
                super().__init__()
                self.used, self.unused, self.frozen = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)
                hub.param_attr.freeze(self.frozen)

            def forward(self, ids, mask=None):
                return self.frozen(self.used(ids))

        data = [{"ids": x, "mask": None, "labels": y} for x, y in zip(X, Y)]
        loader = paddle.io.DataLoader(data, batch_size=4, collate_fn=collate)
        found = hub.fisher(Model(), loader)
        assert list(found) == ["used.weight", "used.bias", "unused.weight", "unused.bias"]
        assert not found["unused.weight"].numpy().any()
        assert (found["used.weight"].numpy() > 0).any()


def collate(samples):
    return {
        "ids": paddle.to_tensor(np.stack([one["ids"] for one in samples])),
        "labels": paddle.to_tensor(np.stack([one["labels"] for one in samples])),
    }


def fisher_of(model):
    rng = np.random.RandomState(3)
    return {name: rng.uniform(0, 2, value.shape).astype("float32") for name, value in weights(model).items()}


EWC_CASES = [
    ("sgd", {}, None),
    ("momentum", {"use_nesterov": True}, {"GlobalNorm": 0.1}),
    ("adam", {}, {"Value": 0.05}),
    ("adamw", {"weight_decay": 0.1}, {"Norm": 0.1}),
    ("rmsprop", {}, None),
]


class TestEWC:
    @pytest.mark.parametrize("fused", [None, False])
    def test_against_numpy(self, fused):
        """Momentum 0.9, the norm of all gradients clipped to 0.2, then λ·F·(w − w⁰), over 20 updates."""
        model, start = net(), weights(net())
        fisher, velocity = fisher_of(model), dict.fromkeys(start, 0.0)
        strategy = hub.CombinedStrategy("momentum", 0.1, regularization={"EWC": 0.5}, clip={"GlobalNorm": 0.2})
        run = strategy.bind(model, fisher=fisher, fused=fused)
        expected = {name: value.astype("float64") for name, value in start.items()}
        for t in range(20):
            batch = slice(t % 3 * 4, t % 3 * 4 + 4)
            other = net()
            other.set_state_dict({name: paddle.to_tensor(value.astype("float32")) for name, value in expected.items()})
            grads = gradients(other, X[batch], Y[batch])
            norm = np.sqrt(sum((grad**2).sum() for grad in grads.values()))
            for name, grad in grads.items():
                grad = grad * 0.2 / max(norm, 0.2) + 0.5 * fisher[name] * (expected[name] - start[name])
                velocity[name] = 0.9 * velocity[name] + grad
                expected[name] -= 0.1 * velocity[name]
            nn.functional.cross_entropy(model(paddle.to_tensor(X[batch])), paddle.to_tensor(Y[batch])).backward()
            run.step()
        assert (fused is False) or run.optimizer.step.path().startswith("fused updates")
        for name, value in weights(model).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(("optimizer", "options", "clip"), EWC_CASES)
    def test_the_fused_update_is_paddles(self, optimizer, options, clip):
        found = []
        for fused in (None, False):
            model = net()
            strategy = hub.CombinedStrategy(
                optimizer,
                0.05,
                scheduler={"discriminative": {"blocks": 2, "factor": 2.0}, "gradual_unfreeze": 2},
                regularization={"EWC": 0.5},
                clip=clip,
                **options,
            )
            run = strategy.bind(model, num_epoch=2, steps_per_epoch=10, fisher=fisher_of(model), fused=fused)
            for t in range(20):
                if t % 10 == 0:
                    run.begin_epoch()
                for part in (slice(0, 6), slice(6, 12)):  # two batches are gathered for one update
                    loss = nn.functional.cross_entropy(model(paddle.to_tensor(X[part])), paddle.to_tensor(Y[part]))
                    (loss / 2).backward()
                run.step()
            found.append(weights(model))
        for name, value in found[0].items():
            np.testing.assert_allclose(value, found[1][name], rtol=1e-6, atol=1e-6)

    def test_the_fisher_information_is_in_the_state(self):
        def bound(model, fisher):
            strategy = hub.CombinedStrategy("adam", 0.05, regularization={"EWC": 0.5})
            return strategy.bind(model, fisher=fisher)

        def trained(run, first, last):
            for t in range(first, last):
                paddle.seed(t)
                run.model(paddle.randn([4, 3])).square().mean().backward()
                run.step()
            return run

        whole = trained(bound(net(), fisher_of(net())), 0, 10)
        half = trained(bound(net(), fisher_of(net())), 0, 5)
        state, values = copy.deepcopy(half.state_dict()), copy.deepcopy(half.model.state_dict())
        other = bound(net(), {name: 0 * value for name, value in fisher_of(net()).items()})
        other.model.set_state_dict(values)
        other.set_state_dict(state)
        for name, value in weights(trained(other, 5, 10).model).items():
            np.testing.assert_array_equal(value, weights(whole.model)[name])
        some = bound(net(), {"0.weight": fisher_of(net())["0.weight"]})
        with pytest.raises(ValueError, match=r"differ: 0\.bias, 2\.bias, 2\.weight"):
            some.set_state_dict(state)

    def test_in_a_learner_that_resumes(self, tmp_path):
        def fitted(epochs, folder):
            np.random.seed(0)
            learner = hub.Learner(
                net(),
                pairs(),
                batch_size=4,
                progress=False,
                checkpoints=hub.Checkpoints(folder, on_length_change="extend"),
            )
            strategy = hub.CombinedStrategy("momentum", 0.1, regularization={"EWC": 0.5})
            learner.fit(epochs, strategy=strategy, fisher=hub.fisher(learner.model, pairs()))
            return weights(learner.model)

        whole = fitted(3, tmp_path / "whole")
        fitted(1, tmp_path / "parts")
        for name, value in fitted(3, tmp_path / "parts").items():
            np.testing.assert_array_equal(value, whole[name])

    def test_it_is_told(self):
        strategy = hub.CombinedStrategy(regularization={"EWC": 0.5, "L2SP": 0.1, "L2": 0.01})
        assert "EWC 0.5" in str(strategy)
        assert hub.strategy_from_yaml(strategy.to_yaml()).regularization["EWC"] == 0.5
        model = net()
        run = strategy.bind(model, pretrained="0", fisher={"0.weight": np.eye(3, 4)})
        assert [row.regularizer for row in run.describe()] == ["EWC(0.5)", "L2SP(0.1)", "L2(0.01)", "L2(0.01)"]
        assert type(model[0].weight.regularizer) is EWCDecay

    @pytest.mark.parametrize(
        ("fisher", "error", "match"),
        [
            (None, ValueError, "EWC needs bind"),
            ([1.0], TypeError, "EWC needs bind"),
            ({"0.weights": np.ones([3, 4])}, ValueError, "Did you mean '0.weight'"),
            ({"0.weight": np.ones([4, 3])}, ValueError, r"fisher\['0.weight'\] has to be of shape \[3, 4\]"),
            ({"0.bias": -np.ones(4)}, ValueError, "values ≥ 0"),
            ({"0.bias": np.full(4, np.nan)}, ValueError, "values ≥ 0"),
        ],
    )
    def test_what_is_no_fisher_information_is_refused(self, fisher, error, match):
        with pytest.raises(error, match=match):
            hub.CombinedStrategy(regularization={"EWC": 0.5}).bind(net(), fisher=fisher)
        with pytest.warns(UserWarning, match="fisher= only matters to EWC"):
            hub.DefaultStrategy().bind(net(), fisher={})


class TestRelativeGradientNorms:
    def expected(self, model, size, batches):
        ratios = []
        for start in range(0, size * batches, size):
            grads = gradients(model, X[start : start + size], Y[start : start + size])
            now = weights(model)
            ratios.append(
                [
                    np.sqrt(sum((part[f"{layer}.{one}"] ** 2).sum() for one in ("weight", "bias")))
                    for part in (grads, now)
                    for layer in (0, 2)
                ]
            )
        ratios = np.mean([[g0 / w0, g2 / w2] for g0, g2, w0, w2 in ratios], 0)
        return ratios / ratios.max()

    def test_they_are_means_of_norms_over_batches(self):
        found = hub.auto_rgn(net(), pairs(), batches=2, batch_size=4)
        assert list(found) == ["0", "2"]
        np.testing.assert_allclose(list(found.values()), self.expected(net(), 4, 2), rtol=1e-5)

    def test_as_a_strategys_entry(self):
        model = net()
        factors = hub.auto_rgn(model, pairs(), batch_size=4)
        strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"layer_factors": factors, "warmup": 0.5})
        again = hub.strategy_from_yaml(strategy.to_yaml())
        assert again.scheduler["layer_factors"] == factors
        assert "layer_factors " in str(again)
        run, before = again.bind(model, max_train_steps=4), weights(model)
        assert run.block_factors == list(factors.values())
        for _ in range(4):
            paddle.add_n([param.sum() for param in model.parameters()]).backward()
            run.step()
        moved = {name: before[name] - value for name, value in weights(model).items()}
        for index, layer in enumerate((0, 2)):
            np.testing.assert_allclose(moved[f"{layer}.weight"], 0.25 * run.block_factors[index], rtol=1e-4)

    @pytest.mark.parametrize(
        ("scheduler", "error", "match"),
        [
            ({"layer_factors": [1.0]}, ValueError, "has 1 factors, but the model has 2 layers: 0, 2"),
            ({"layer_factors": {"0": 1.0}}, ValueError, "has 1 factors, but the model has 2 layers: 0, 2"),
            ({"layer_factors": {"0": 1.0, "3": 0.5}}, ValueError, "unknown layer of layer_factors '3'"),
            ({"layer_factors": {}}, TypeError, "must be factors by the names"),
            ({"layer_factors": [1.0, -1.0]}, ValueError, r"layer_factors\[1\]"),
            ({"layer_factors": 0.5}, TypeError, "must be factors by the names"),
            ({"layer_factors": [1.0, 1.0], "layer_decay": 0.5}, ValueError, "layer_decay and layer_factors both"),
        ],
    )
    def test_factors_that_do_not_fit(self, scheduler, error, match):
        with pytest.raises(error, match=match):
            hub.CombinedStrategy(scheduler=scheduler).bind(net())

    def test_the_order_of_execution_does_not_matter(self):
        """Registered the other way round than they run."""

        class Model(nn.Layer):
            def __init__(self):
                super().__init__()
                self.head, self.body = nn.Linear(4, 2), nn.Linear(3, 4)

            def forward(self, x):
                return self.head(self.body(x).tanh())

        model = Model()
        factors = hub.auto_rgn(model, pairs(), batch_size=4)
        learner = hub.Learner(model, pairs(), batch_size=4, progress=False)
        learner.fit(1, strategy=hub.CombinedStrategy(scheduler={"layer_factors": factors}))
        assert list(factors) == ["head", "body"]
        assert learner.run.block_factors == [factors["body"], factors["head"]]

    @pytest.mark.parametrize("model", [None, net])
    @pytest.mark.parametrize("factors", [[0.25, 1.0], {"0": 0.25, "2": 1.0}])
    def test_it_is_explained(self, model, factors):
        strategy = hub.CombinedStrategy(scheduler={"layer_factors": factors}, regularization={"L2": 0.1})
        laid_out = outline(strategy, 100, 1, model and model())
        told = explain(laid_out)
        assert "each at its own share of the learning rate, bottom first: 0.25, 1" in told
        assert [block.factor for block in laid_out.blocks] == [1.0, 0.25]
        assert "EWC: gradient += 0.5·F·(w − w⁰)" in explain(
            outline(hub.CombinedStrategy(regularization={"EWC": 0.5}), 100, 1)
        )

    def test_nothing_changes_by_measuring(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1D(4), nn.Dropout(0.5), nn.Linear(4, 2))
        model(paddle.to_tensor(X)).sum().backward()
        before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        grads = [param.grad.numpy().copy() for param in model.parameters() if not param.stop_gradient]
        loader = paddle.io.DataLoader(pairs(), batch_size=4, shuffle=True)
        state = np.random.get_state()[1].tolist()
        hub.auto_rgn(model, loader)
        hub.fisher(model, loader)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), before[name])
        for was, now in zip(grads, (p.grad for p in model.parameters() if not p.stop_gradient)):
            np.testing.assert_array_equal(now.numpy(), was)
        assert np.random.get_state()[1].tolist() == state
        assert model.training

    def test_layers_that_cannot_be_measured_have_the_full_rate(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        hub.param_attr.freeze(model, "0")
        model[2].weight.set_value(paddle.zeros([4, 2]))
        model[2].bias.set_value(paddle.zeros([2]))
        assert set(hub.auto_rgn(model, pairs()).values()) == {1.0}
        hub.param_attr.freeze(model)
        with pytest.raises(ValueError, match="all parameters are frozen"):
            hub.auto_rgn(model, pairs())

    def test_recurrent_layers(self):
        class Text(nn.Layer):
            def __init__(self):
                super().__init__()
                self.words, self.lstm, self.head = nn.Embedding(9, 4), nn.LSTM(4, 4, 2, dropout=0.5), nn.Linear(4, 2)

            def forward(self, ids):
                return self.head(self.lstm(self.words(ids))[0][:, -1])

        model = Text()
        data = paddle.io.TensorDataset([paddle.randint(0, 9, [8, 5]), paddle.randint(0, 2, [8])])
        assert hub.auto_rgn(model, data) == hub.auto_rgn(model, data)
        assert model.lstm.dropout == 0.5

    @pytest.mark.parametrize("interrupted_after", [1, 4])
    def test_while_training_it_resumes_bit_for_bit(self, tmp_path, interrupted_after):
        class Stop(hub.Callback):
            def on_after_update(self, learner):
                if learner.state.step == interrupted_after + 1:
                    raise KeyboardInterrupt

        def learner(folder):
            np.random.seed(0)
            return hub.Learner(
                net(), pairs(), batch_size=4, progress=False, checkpoints=hub.Checkpoints(folder, every=1)
            )

        strategy = hub.CombinedStrategy("momentum", 0.1)
        whole = learner(tmp_path / "whole")
        whole.fit(3, strategy=strategy, cbs=[hub.AutoRGN(2)])
        with pytest.raises(KeyboardInterrupt):
            learner(tmp_path / "parts").fit(3, strategy=strategy, cbs=[hub.AutoRGN(2), Stop()])
        again = learner(tmp_path / "parts")
        again.fit(3, strategy=strategy, cbs=[hub.AutoRGN(2)])
        assert again.run.block_factors == whole.run.block_factors
        assert min(again.run.block_factors) < 1 == max(again.run.block_factors)
        for name, value in weights(again.model).items():
            np.testing.assert_array_equal(value, weights(whole.model)[name])

    def test_two_sources_of_rates_are_refused(self):
        learner = hub.Learner(net(), pairs(), batch_size=4, progress=False)
        with pytest.raises(ValueError, match="AutoRGN gives the LR by depth"):
            rates = hub.ParamScheduler({"lr": hub.SchedLin(np.array([0.1, 0.2]), np.array([0.2, 0.1]))})
            learner.fit(1, cbs=[rates, hub.AutoRGN()])


class TestReinitialize:
    LAYERS: ClassVar = {
        "linear": lambda: nn.Linear(4, 5),
        "with attributes": lambda: nn.Linear(
            4,
            5,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Normal(1.0, 0.1)),
            bias_attr=nn.initializer.Constant(0.3),
        ),
        "conv": lambda: nn.Conv2D(2, 4, 3, groups=2),
        "transposed": lambda: nn.Conv2DTranspose(2, 3, 3),
        "embedding": lambda: nn.Embedding(6, 3, padding_idx=1),
        "layer norm": lambda: nn.LayerNorm(4),
        "instance norm": lambda: nn.InstanceNorm2D(4),
        "lstm": lambda: nn.LSTM(2, 3),
        "gru cell": lambda: nn.GRUCell(2, 3),
        "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8),
        "batch norm": lambda: nn.BatchNorm1D(4),
    }

    @pytest.mark.parametrize("kind", LAYERS)
    def test_values_are_those_of_a_new_layer(self, kind):
        paddle.seed(5)
        fresh = {name: value.numpy() for name, value in self.LAYERS[kind]().state_dict().items()}
        model = nn.LayerList([nn.Linear(2, 2), self.LAYERS[kind]()])
        for tensor in model[1].state_dict().values():
            tensor.set_value(tensor + 3.0)
        below = model[0].weight.numpy()
        paddle.seed(5)
        names = hub.reinitialize(model, layers=1)
        assert names == [name for name in names if name.startswith("1.")]
        for name, value in model[1].state_dict().items():
            np.testing.assert_array_equal(value.numpy(), fresh[name], err_msg=name)
        np.testing.assert_array_equal(model[0].weight.numpy(), below)

    def test_it_counts_from_the_top_and_is_not_pretrained_any_more(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        hub.load_pretrained(model, {name: value.numpy() for name, value in model.state_dict().items()})
        assert hub.reinitialize(model, layers=2) == ["1.weight", "1.bias", "2.weight", "2.bias"]
        assert loaded_names(model) == ["0.weight", "0.bias"]

    def test_layers_of_ones_own(self):
        class Scale(nn.Layer):
            def __init__(self):
                super().__init__()
                self.factor = self.create_parameter([2])

            def forward(self, x):
                return x * self.factor

        class Resetting(Scale):
            def reset_parameters(self):
                self.factor.set_value(paddle.full([2], 7.0))

        model = nn.Sequential(nn.Linear(2, 2), Scale())
        with pytest.raises(ValueError, match=r"nothing tells how 1\.factor begin"):
            hub.reinitialize(model)
        model = nn.Sequential(nn.Linear(2, 2), Resetting())
        hub.reinitialize(model)
        assert model[1].factor.tolist() == [7.0, 7.0]

    def test_what_is_refused(self):
        model = net()
        with pytest.raises(ValueError, match="layers = 3, but the model has 2"):
            hub.reinitialize(model, 3)
        with pytest.raises(ValueError, match="layers"):
            hub.reinitialize(model, 0)
        with pytest.raises(TypeError, match="Layer"):
            hub.reinitialize("model")
        hub.DefaultStrategy().bind(model)
        with pytest.raises(RuntimeError, match="bound"):
            hub.reinitialize(model)
