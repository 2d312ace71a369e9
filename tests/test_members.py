"""Averages and perturbations with everything else of a plan: a Learner against the same update done by hand."""

import itertools

import numpy as np
import paddle
import parallel_training
import pytest
from paddle import nn
from paddle.nn import functional
from test_parallel import launched

import paddle_ftstrat as hub
from paddle_ftstrat import strategies
from paddle_ftstrat.training.evaluation import RDrop, cross_entropy

UPDATES = 20
MEMBERS = {
    "EMA": {"averaging": {"EMA": 0.8}},
    "SWA": {"averaging": {"SWA": 0.5}},
    "FGM": {"perturbation": {"FGM": 0.3}},
    "PGD": {"perturbation": {"PGD": {"epsilon": 0.25, "alpha": 0.1, "steps": 3}}},
    "SAM": {"perturbation": {"SAM": 0.1}},
}
WITH = {
    "clip": {"clip": {"GlobalNorm": 0.1}},
    "L2SP": {"regularization": {"L2SP": 0.2, "weight_decay": 0.1}},
    "discriminative": {"scheduler": {"discriminative": {"blocks": 3}, "slanted_triangle": {"cut_fraction": 0.3}}},
    "unfreezing": {"scheduler": {"gradual_unfreeze": 2}},
    "accumulation": {"clip": {"Norm": 0.2}},
}
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 7, [UPDATES // 2 * 4, 4])
LABELS = RNG.integers(0, 2, len(TOKENS))


class Net(nn.Layer):
    """An embedding and two layers, in float32."""

    def __init__(self, dropout=0.0):
        super().__init__()
        paddle.seed(1)
        self.embedding, self.hidden, self.head = nn.Embedding(7, 3), nn.Linear(3, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens):
        return self.head(self.drop(paddle.tanh(self.hidden(self.embedding(tokens).mean(1)))))


def loader(batch):
    data = paddle.io.TensorDataset([paddle.to_tensor(TOKENS), paddle.to_tensor(LABELS)])
    return paddle.io.DataLoader(data, batch_size=batch)


class Trace(hub.Callback):
    def on_fit_begin(self, learner):
        self.of = [weights(learner.model)]

    def on_after_update(self, learner):
        self.of.append(weights(learner.model))


def weights(model):
    return {name: param.numpy().copy() for name, param in model.named_parameters()}


def learned(options, accumulate=1, epochs=2, cbs=(), **learner_options):
    trace, batches = Trace(), loader(4 // accumulate)
    learner = hub.Learner(Net(), batches, progress=False, accumulate=accumulate, **learner_options)
    with np.errstate(all="ignore"):
        learner.fit(epochs, strategy=hub.CombinedStrategy("momentum", 0.1, **options), cbs=[trace, *cbs], **BOUND)
    return learner, trace


BOUND = {"pretrained": "*", "layers": ["embedding", "hidden", "head"]}


def gradients(model, batch):
    """By structured name, of the weights that train."""
    params = {name: param for name, param in model.named_parameters() if not param.stop_gradient}
    loss = functional.cross_entropy(model(paddle.to_tensor(TOKENS[batch])), paddle.to_tensor(LABELS[batch]))
    return dict(zip(params, [g.numpy() for g in paddle.grad(loss, list(params.values()))]))


def moved_gradients(member, model, batch):
    """The update's gradients by a method, with numpy doing the moves."""
    plain, own, name = gradients(model, batch), weights(model), "embedding.weight"

    def at(values):
        for key, param in model.named_parameters():
            param.set_value(values[key].astype("float32"))
        found = gradients(model, batch)
        for key, param in model.named_parameters():
            param.set_value(own[key])
        return found

    if member == "SAM":
        length = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in plain.values()))
        return at({**own, **{key: own[key] + 0.1 * g / length for key, g in plain.items()}})
    if name not in plain:
        return plain
    g, moved = plain, own
    for _ in range(3 if member == "PGD" else 1):
        epsilon, alpha = (0.25, 0.1) if member == "PGD" else (0.3, 0.3)
        away = moved[name] - own[name] + alpha * g[name] / np.linalg.norm(g[name])
        moved = {**own, name: own[name] + away * min(1, epsilon / np.linalg.norm(away))}
        g = at(moved)
    return {key: plain[key] + g[key] for key in plain}


def by_hand(member, options):
    """The weights before the first update and after each."""
    model = Net()
    strategy = hub.CombinedStrategy("momentum", 0.1, **options)
    run = strategy.bind(model, max_train_steps=UPDATES, steps_per_epoch=UPDATES // 2, **BOUND)
    trail = [weights(model)]
    for _, batches in itertools.product(range(2), [range(0, len(TOKENS), 4)]):
        run.begin_epoch()
        for first in batches:
            batch = slice(first, first + 4)
            perturbed = "perturbation" in MEMBERS[member]
            found = moved_gradients(member, model, batch) if perturbed else gradients(model, batch)
            for name, param in model.named_parameters():
                if name in found:
                    param.grad = paddle.to_tensor(found[name])
            run.step()
            trail.append(weights(model))
    return trail


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("other", WITH)
@pytest.mark.parametrize("member", MEMBERS)
def test_with_the_rest_of_a_plan(member, other):
    learner, trace = learned({**WITH[other], **MEMBERS[member]}, accumulate=2 if other == "accumulation" else 1)
    trail = by_hand(member, WITH[other])
    assert len(trail) == len(trace.of) == UPDATES + 1
    for step, (mine, wanted) in enumerate(zip(trace.of, trail)):
        for name in wanted:
            np.testing.assert_allclose(mine[name], wanted[name], rtol=0, atol=1e-6, err_msg=f"{name} at {step}")
    if "averaging" in MEMBERS[member]:
        for name, value in learner.run.average.values.items():
            wanted = np.mean([w[name] for w in trace.of[11:]], 0, dtype="float64")
            if member == "EMA":
                wanted = trace.of[0][name].astype("float64")
                for w in trace.of[1:]:
                    wanted = 0.8 * wanted + 0.2 * w[name]
            np.testing.assert_allclose(value.numpy(), wanted, rtol=0, atol=1e-6, err_msg=name)
    else:
        plain = by_hand("EMA", WITH[other])
        assert max(np.abs(plain[-1][name] - trail[-1][name]).max() for name in plain[-1]) > 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("broken_at", [3, 10, 13])
@pytest.mark.parametrize("member", MEMBERS)
def test_resumes_bit_for_bit(member, broken_at, tmp_path):
    class Break(hub.Callback):
        def on_after_update(self, learner):
            if learner.state.step == broken_at:
                raise KeyboardInterrupt

    options = {"scheduler": {"gradual_unfreeze": 2}, **MEMBERS[member]}
    whole, _ = learned(options)
    with pytest.raises(KeyboardInterrupt):
        learned(options, cbs=[Break()], checkpoints=hub.Checkpoints(tmp_path, every=2))
    resumed, _ = learned(options, checkpoints=hub.Checkpoints(tmp_path, every=2))
    assert resumed.recorder.losses == whole.recorder.losses
    for name, value in weights(whole.model).items():
        np.testing.assert_array_equal(weights(resumed.model)[name], value)
    for name, value in (whole.run.average.values if whole.run.average else {}).items():
        np.testing.assert_array_equal(resumed.run.average.values[name].numpy(), value.numpy())


STRATEGIES = {
    "AdamWeightDecayStrategy": {},
    "CombinedStrategy": {},
    "DefaultFinetuneStrategy": {},
    "DefaultStrategy": {},
    "FineTuneStrategy": {},
    "FlatCosStrategy": {"learning_rate": 0.01},
    "L2SPFinetuneStrategy": {},
    "LPFTStrategy": {"head_learning_rate": 0.01, "learning_rate": 0.01},
    "OneCycleStrategy": {"lr_max": 0.01},
    "PhasedStrategy": {"phases": [{"train": "all"}]},
    "SGDRStrategy": {"lr_max": 0.01, "n_cycles": 1, "cycle_len": 2},
    "ULMFiTStrategy": {},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in strategies.__all__ if name.endswith("Strategy")])
def test_every_strategy_has_them_also_from_a_file(name):
    strategy = getattr(hub, name)(**STRATEGIES[name], averaging={"SWA": 0.0}, perturbation={"SAM": 0.1})
    strategy = hub.strategy_from_yaml(strategy.to_yaml())
    learner = hub.Learner(Net(), loader(8), progress=False)
    learner.fit(2, strategy=strategy)
    assert learner.run.average.count == UPDATES // 2
    assert learner.run.perturbing.rule.rho == 0.1
    assert strategy.to_dict()["averaging"] == {"SWA": 0.0}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cached_features_stay_right_under_a_perturbation():
    found = []
    for cached in (False, True):
        model = Net()
        hub.param_attr.freeze(model.embedding)
        data = paddle.io.TensorDataset([paddle.to_tensor(TOKENS), paddle.to_tensor(LABELS)])
        np.random.seed(0)
        learner = hub.Learner(model, data, batch_size=4, progress=False, cache_frozen=cached)
        learner.fit(2, strategy=hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 0.1}), layers=BOUND["layers"])
        found.append(weights(model))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-6, err_msg=name)


def test_two_processes_are_one_with_the_doubled_batch(tmp_path):
    alone = parallel_training.members(8)
    first, second = launched(tmp_path, 2, "members", members=4)
    assert set(first) == set(alone)
    for key, value in alone.items():
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        np.testing.assert_allclose(first[key], value, atol=1e-5, rtol=0, err_msg=key)


class TestRDrop:
    def reference(self, a, b, labels, alpha):
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (a, b))
        counted = labels != -100
        ce = [cross_entropy(paddle.to_tensor(x), paddle.to_tensor(labels)).item() for x in (a, b)]
        kl = [(one * np.log(one / other)).sum(-1)[counted].mean() for one, other in ((p, q), (q, p))]
        return sum(ce) / 2 + alpha * sum(kl) / 2

    @pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
    def test_is_the_formula(self, alpha):
        a, b = RNG.normal(size=[2, 6, 3]).astype("float32")
        labels = np.array([0, 2, -100, 1, 1, 0])
        loss = hub.RDrop(alpha=alpha)
        found = loss(paddle.to_tensor(a), paddle.to_tensor(labels), paddle.to_tensor(b))
        assert found.item() == pytest.approx(self.reference(a, b, labels, alpha), abs=1e-6)

    def test_a_learner_makes_the_second_pass(self):
        calls = []

        class Counting(Net):
            def forward(self, tokens):
                calls.append(self.training)
                return super().forward(tokens)

        model = Counting(dropout=0.5)
        calls.clear()
        learner = hub.Learner(model, loader(8), loader(8), loss=RDrop(alpha=1.0), progress=False)
        plain = hub.Learner(model, loader(8), loader(8), progress=False)
        results = learner.fit(1, 0.01)
        assert calls.count(True) == 2 * len(learner.train)
        assert results[0]["valid_loss"] == plain.validate()["loss"]

    def test_a_loss_of_ones_own(self):
        loss = hub.RDrop(lambda output, label: output.square().sum(), alpha=0.0)
        assert loss(paddle.ones([1, 2]), paddle.zeros([1], "int64"), 3 * paddle.ones([1, 2])).item() == 10.0

    @pytest.mark.parametrize(("output", "label"), [([[1.0], [2.0]], [1.0, 2.0]), ([1.0, 2.0], [1.0, 2.0])])
    def test_numbers_are_refused(self, output, label):
        output, label = paddle.to_tensor(output), paddle.to_tensor(label)
        with pytest.raises(ValueError, match="RDrop compares logits of classes"):
            hub.RDrop()(output, label, output)

    def test_alpha_is_checked(self):
        with pytest.raises(ValueError, match="alpha = -1"):
            hub.RDrop(alpha=-1)
