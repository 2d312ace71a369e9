"""Weights of several models in one: against numpy, from every kind of file, one tensor in memory at a time."""

import tracemalloc

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.transfer import save_pretrained
from paddle_ftstrat.transfer.merge import Interpolation


def net(seed=0):
    paddle.seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1D(8), nn.Linear(8, 3))
    model(paddle.randn([16, 4]))  # statistics of its own
    return model


def arrays(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def as_learner(model, folder):
    pairs = paddle.io.TensorDataset([paddle.ones([4, 4]), paddle.zeros([4], "int64")])
    return hub.Learner(model, pairs, path=folder, progress=False).save("model")


def as_checkpoint(model, folder):
    pairs = paddle.io.TensorDataset([paddle.ones([4, 4]), paddle.zeros([4], "int64")])
    learner = hub.Learner(model, pairs, progress=False, checkpoints=hub.Checkpoints(folder, every=1))
    learner.fit(1, 1e-9)
    return max(folder.glob("step_*"))


def as_pdparams(model, folder):
    paddle.save(model.state_dict(), str(folder / "model.pdparams"))
    return folder / "model.pdparams"


SAVED = {
    "a dict": lambda model, folder: model.state_dict(),
    "a dict of arrays": lambda model, folder: arrays(model),
    "safetensors": lambda model, folder: save_pretrained(model, folder),
    "pdparams": as_pdparams,
    "Learner.save": as_learner,
    "a checkpoint": as_checkpoint,
}


class TestInterpolate:
    @pytest.mark.parametrize("alpha", [0, 0.0, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("kind", SAVED)
    def test_is_the_formula(self, kind, alpha, tmp_path):
        pretrained, model = net(1), net(2)
        source = SAVED[kind](pretrained, tmp_path)
        before, own = arrays(pretrained), arrays(model)
        assert hub.interpolate(model, source, alpha) == Interpolation(alpha)
        for name, value in arrays(model).items():
            wanted = (1 - alpha) * before[name].astype("float64") + alpha * own[name]
            np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7, err_msg=name)
            if alpha in (0, 1):
                np.testing.assert_array_equal(value, own[name] if alpha else before[name])

    def test_a_curve_leaves_the_best_in_the_model(self):
        pretrained, model = net(1), net(2)
        before, own = arrays(pretrained), arrays(model)
        target = 0.7 * before["0.weight"] + 0.3 * own["0.weight"]

        def score(subject):
            return -np.abs(subject[0].weight.numpy() - target).max()

        found = hub.interpolate(model, pretrained.state_dict(), alphas=np.linspace(0, 1, 11).tolist(), score=score)
        assert found.alpha == pytest.approx(0.3)
        assert list(found.scores) == pytest.approx([i / 10 for i in range(11)])
        assert max(found.scores.values()) == found.scores[found.alpha]
        np.testing.assert_allclose(model[0].weight.numpy(), target, atol=1e-6)
        np.testing.assert_allclose(
            model[1]._mean.numpy(), 0.7 * before["1._mean"] + 0.3 * own["1._mean"], atol=1e-6
        )  # fmt: skip

    @pytest.mark.parametrize("how", ["error", "nan"])
    def test_a_score_that_fails(self, how):
        pretrained, model = net(1), net(2)
        own = arrays(model)

        def score(subject):
            if how == "error":
                raise KeyError("score")
            return float("nan") if subject[0].weight.numpy()[0, 0] != own["0.weight"][0, 0] else 0.0

        if how == "error":
            with pytest.raises(KeyError):
                hub.interpolate(model, pretrained.state_dict(), alphas=[0.5, 1.0], score=score)
        else:
            assert hub.interpolate(model, pretrained.state_dict(), alphas=[0.5, 1.0], score=score).alpha == 1.0
        for name, value in arrays(model).items():
            np.testing.assert_array_equal(value, own[name])

    def test_what_is_kept_and_half_precision(self):
        pretrained, model = net(1), net(2)
        model.to(dtype="bfloat16")
        own = model[2].weight.astype("float32").numpy()
        hub.interpolate(model, {name: v for name, v in arrays(pretrained).items() if name < "2"}, 0.25, keep="2.*")
        np.testing.assert_array_equal(model[2].weight.astype("float32").numpy(), own)
        assert model[0].weight.dtype == paddle.bfloat16
        wanted = 0.75 * pretrained[0].weight.numpy() + 0.25 * net(2)[0].weight.numpy()
        np.testing.assert_allclose(model[0].weight.astype("float32").numpy(), wanted, atol=0.01)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "wants alpha, or alphas together with score"),
            ({"alpha": 0.5, "alphas": [0.5]}, "wants alpha, or alphas"),
            ({"alphas": [0.5]}, "wants alpha, or alphas together with score"),
            ({"alpha": 1.5}, "alpha = 1.5"),
            ({"alphas": [], "score": len}, "alphas is empty"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            hub.interpolate(net(), net().state_dict(), **options)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"2.weight": None}, "a dict has no '2.weight'.*keep="),
            ({"2.weight": np.zeros([8, 4], "float32")}, r"'2.weight' has shape \(8, 4\) in a dict, not \(8, 3\)"),
        ],
    )
    def test_another_models_weights_are_refused_and_nothing_is_changed(self, change, message):
        model = net()
        state = {name: value for name, value in {**arrays(net(1)), **change}.items() if value is not None}
        before = arrays(model)
        with pytest.raises(ValueError, match=message):
            hub.interpolate(model, state, 0.5)
        for name, value in arrays(model).items():
            np.testing.assert_array_equal(value, before[name])


class TestSoup:
    @pytest.mark.parametrize("weights", [None, [1, 2, 5], [0, 0, 0.1]])
    @pytest.mark.parametrize("kind", SAVED)
    def test_is_the_mean(self, kind, weights, tmp_path):
        models = [net(seed) for seed in range(3)]
        folders = [tmp_path / str(seed) for seed in range(3)]
        for folder in folders:
            folder.mkdir()
        states = [SAVED[kind](model, folder) for model, folder in zip(models, folders)]
        given = [arrays(model) for model in models]
        shares = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
        made = hub.soup(states, weights)
        assert set(made) == set(given[0])
        for name, value in made.items():
            wanted = sum(share * state[name].astype("float64") for share, state in zip(shares, given))
            np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7, err_msg=name)
        model = net(9)
        assert not hub.load_pretrained(model, made, strict=True).missing
        model.set_state_dict(made)

    def test_greedy_is_the_recipe(self):
        rng = np.random.default_rng(0)
        target = rng.normal(size=5)
        states = [{"w": (target + rng.normal(size=5)).astype("float32")} for _ in range(7)]

        def score(state):
            return -float(np.linalg.norm(state["w"] - target))

        scores = [score(state) for state in states]
        order = np.argsort(scores)[::-1]
        chosen, best = [order[0]], max(scores)
        for number in order[1:]:
            tried = score({"w": np.mean([states[i]["w"] for i in [*chosen, number]], 0)})
            if tried >= best:
                chosen, best = [*chosen, number], tried
        made = hub.soup(states, score=score)
        assert made.taken == list(chosen)
        assert 1 < len(chosen) < 7
        assert made.scores == pytest.approx(scores)
        assert made.score == pytest.approx(best, abs=1e-6)
        np.testing.assert_allclose(made["w"], np.mean([states[i]["w"] for i in chosen], 0), atol=1e-6)

    @pytest.mark.parametrize("score", [None, lambda state: -abs(state["w"].item() - 5)])
    def test_whole_numbers_are_the_firsts(self, score):
        states = [{"w": np.float32([i]), "steps": np.array([i])} for i in (4, 6)]
        made = hub.soup(states, score=score)
        assert (made["w"].item(), made["steps"].item(), made["steps"].dtype.kind) == (5.0, 4, "i")

    @pytest.mark.parametrize(
        ("states", "options", "message"),
        [
            ([], {}, "at least one state"),
            ([{"a": np.ones(1)}, {"b": np.ones(1)}], {}, r"states\[1\] and states\[0\] differ in a, b"),
            ([{"a": np.ones(1)}, {"a": np.ones(2)}], {}, r"'a' has shape \(2,\) in states\[1\]"),
            ([{"a": np.ones(1)}], {"weights": [1, 2]}, "one for each of the 1 states"),
            ([{"a": np.ones(1)}], {"weights": [0]}, "not all of them 0"),
            ([{"a": np.ones(1)}], {"weights": [-1]}, r"weights\[0\] = -1"),
            ([{"a": np.ones(1)}], {"weights": [1], "score": len}, "not both"),
        ],
    )
    def test_wrong_states_and_options(self, states, options, message):
        with pytest.raises(ValueError, match=message):
            hub.soup(states, **options)

    @pytest.mark.parametrize("greedy", [False, True])
    def test_memory_is_that_of_two_models_and_a_tensor(self, greedy, tmp_path):
        size, files = 20 * 100_000 * 4, []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            state = {f"w{i}": rng.normal(size=100_000).astype("float32") for i in range(20)}
            path = tmp_path / f"{seed}.npz"
            np.savez(path, **state)
            files.append(path)
        tracemalloc.start()
        hub.soup(files, score=(lambda state: float(state["w0"][0])) if greedy else None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (2 if greedy else 1) * size + 4 * 400_000
