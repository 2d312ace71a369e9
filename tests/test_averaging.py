"""Averages that a plan keeps: numpy's numbers in every loop, in place for evaluation, through checkpoints."""

import copy
import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.averaging import AVERAGES, EMA, SWA
from paddle_ftstrat.tools import lint
from paddle_ftstrat.tools.outline import outline

UPDATES = 24
AVERAGED = {
    "EMA": {"EMA": 0.8},
    "EMA corrected": {"EMA": {"decay": 0.9, "bias_correction": True}},
    "SWA": {"SWA": 0.5},
    "SWA every third": {"SWA": {"start": 0.25, "every": 3}},
}


def expected(name, trail):
    """The average in float64 of the weights before the first update and after each."""
    weights = np.stack([one.astype("float64") for one in trail])
    if name == "EMA":
        average = weights[0]
        for w in weights[1:]:
            average = 0.8 * average + 0.2 * w
        return average
    if name == "EMA corrected":
        shares = 0.9 ** np.arange(len(trail) - 2, -1, -1.0)
        return np.tensordot(shares / shares.sum(), weights[1:], 1)
    return weights[13:].mean(0) if name == "SWA" else weights[9::3].mean(0)


def net(norm=False):
    paddle.seed(1)
    layers = [nn.Linear(4, 8), nn.BatchNorm1D(8)] if norm else [nn.Linear(4, 8)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(8, 2))


def pairs(samples=24):
    x = np.random.RandomState(0).randn(samples, 4).astype("float32")
    return TensorDataset([paddle.to_tensor(x), paddle.to_tensor((x.sum(-1) > 0).astype("int64"))])


X = np.random.RandomState(1).randn(UPDATES, 8, 4).astype("float32")


def weights(model):
    return {name: param.numpy().copy() for name, param in model.named_parameters()}


def train(run, first=0, last=UPDATES, trail=None):
    for x in X[first:last]:
        run.model(paddle.to_tensor(x)).square().mean().backward()
        run.step()
        if trail is not None:
            trail.append(weights(run.model))


def check(name, run, trail, tolerance=1e-6):
    with run.averaged():
        for key, value in weights(run.model).items():
            wanted = expected(name, [one[key] for one in trail])
            np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance, err_msg=key)
            assert np.abs(wanted - trail[-1][key]).max() > 1e-4
    for key, value in weights(run.model).items():
        np.testing.assert_array_equal(value, trail[-1][key])


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "lamb"])
@pytest.mark.parametrize("name", AVERAGED)
def test_is_the_formula(name, optimizer, fused):
    strategy = hub.CombinedStrategy(optimizer, 0.05, scheduler={"cosine_decay": {}}, averaging=AVERAGED[name])
    run = strategy.bind(net(), max_train_steps=UPDATES, fused=fused)
    trail = [weights(run.model)]
    train(run, trail=trail)
    check(name, run, trail)


@pytest.mark.parametrize("member", [{"EMA": 0.9}, {"SWA": {"start": 0.5, "every": 3}}], ids=["ema", "swa"])
def test_is_what_torch_has(member):
    """`torch_averages.json` by `make_swa_utils.py`: torch's AveragedModel and update_bn beside the same training."""
    golden = json.loads((Path(__file__).parent / "golden" / "torch_averages.json").read_text())
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1D(4), nn.Linear(4, 2))
    model.to(dtype="float64")
    model.set_state_dict({name: np.array(value) for name, value in golden["start"].items()})
    run = hub.DefaultStrategy(golden["lr"], "sgd", averaging=member).bind(model, max_train_steps=UPDATES)
    batches = [paddle.to_tensor(np.array(x)) for x in golden["x"]]
    for x in batches:
        model(x).square().mean().backward()
        run.step()

    def check(kind, names, times=1.0, tolerance=1e-9):
        for name in names:
            found = model.state_dict()[name].numpy() * times
            np.testing.assert_allclose(found, golden[kind][name], rtol=0, atol=tolerance, err_msg=name)

    check("end", run.average.values)
    with run.averaged():
        check(next(iter(member)).lower(), run.average.values)
        if "SWA" in member:
            run.update_statistics(batches)
            # Paddle's momentum is a float32.
            check("swa with update_bn", ["1._mean"], tolerance=1e-6)
            # Torch's running variance is the unbiased one of each batch, Paddle's the biased one.
            check("swa with update_bn", ["1._variance"], times=6 / 5, tolerance=1e-6)


@pytest.mark.parametrize("optimizer", [row.name for row in table.ROWS.values() if row.cls and not row.refused])
def test_with_every_optimizer(optimizer):
    strategy = hub.DefaultStrategy(0.01, optimizer, averaging={"EMA": 0.8})
    if hasattr(table.find(optimizer).cls, "averaged_weights"):
        with pytest.raises(ValueError, match="has averaged weights of its own"):
            strategy.bind(net())
        return
    run = strategy.bind(net())
    trail = [weights(run.model)]
    train(run, 0, 3, trail)
    for name, value in run.average.values.items():
        np.testing.assert_allclose(value.numpy(), expected("EMA", [w[name] for w in trail]), atol=1e-6)


@pytest.mark.parametrize("name", AVERAGED)
def test_training_does_not_notice(name):
    a = hub.DefaultStrategy(0.05, averaging=AVERAGED[name]).bind(net(), max_train_steps=UPDATES)
    b = hub.DefaultStrategy(0.05).bind(net(), max_train_steps=UPDATES)
    train(a)
    train(b)
    for key, value in weights(a.model).items():
        np.testing.assert_array_equal(value, weights(b.model)[key])


@pytest.mark.parametrize("at", [0, 5, 13, 20])
@pytest.mark.parametrize("name", AVERAGED)
@pytest.mark.parametrize("order", ["weights first", "state first"])
def test_resumes_bit_for_bit(name, at, order):
    strategy = hub.CombinedStrategy("momentum", 0.05, averaging=AVERAGED[name])
    whole, begun = (strategy.bind(net(), max_train_steps=UPDATES) for _ in range(2))
    train(whole)
    train(begun, 0, at)
    state = copy.deepcopy(begun.state_dict())
    model = net()
    model[0].weight.set_value(paddle.zeros([4, 8]))
    resumed = strategy.bind(model, max_train_steps=UPDATES)
    loads = [lambda: model.set_state_dict(begun.model.state_dict()), lambda: resumed.set_state_dict(state)]
    for load in loads if order == "weights first" else loads[::-1]:
        load()
    train(resumed, at)
    assert resumed.average.count == whole.average.count
    for key, value in whole.average.values.items():
        np.testing.assert_array_equal(resumed.average.values[key].numpy(), value.numpy())


def test_a_refused_update_leaves_nothing_behind_for_the_next():
    run = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8}).bind(net(), fused=True)
    trail = [weights(run.model)]
    train(run, 0, 2, trail)
    (run.model(paddle.to_tensor(X[0])).sum() * float("nan")).backward()
    with pytest.raises(FloatingPointError):
        run.step()
    # A stage that is replaced sends the next update through Paddle's operations.
    stage = run.optimizer._append_optimize_op
    run.optimizer._append_optimize_op = lambda *given: stage(*given)
    train(run, 2, trail=trail)
    check("EMA", run, trail)


def test_what_thaws_later_joins_then():
    strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"gradual_unfreeze": 2}, averaging={"EMA": 0.8})
    run = strategy.bind(net(), max_train_steps=UPDATES, steps_per_epoch=UPDATES // 2, num_epoch=2)
    trail = [weights(run.model)]
    run.begin_epoch()
    train(run, 0, 12, trail)
    assert sorted(run.average.values) == ["2.bias", "2.weight"]
    run.begin_epoch()
    train(run, 12, trail=trail)
    check("EMA", run, trail)


def test_weights_that_are_loaded_after_binding_are_the_first():
    run = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8}).bind(net())
    run.model[0].weight.set_value(paddle.ones([4, 8]))
    run.begin_epoch()
    trail = [weights(run.model)]
    train(run, trail=trail)
    check("EMA", run, trail)


@pytest.mark.parametrize("fused", [None, False])
def test_half_precision_is_averaged_in_float32(fused):
    model = nn.Linear(3, 2)
    model.to(dtype="bfloat16")
    run = hub.DefaultStrategy(1e-3, "sgd", averaging={"EMA": 0.9}).bind(model, fused=fused)
    master, average = model.weight.astype("float32").numpy(), model.weight.astype("float32").numpy()
    for _ in range(10):
        for param in model.parameters():
            param.grad = paddle.ones_like(param)
        run.step()
        master = master - np.float32(1e-3)
        average = 0.9 * average + 0.1 * master
    kept = run.average.values["weight"]
    assert kept.dtype == paddle.float32
    np.testing.assert_allclose(kept.numpy(), average, atol=1e-6)
    with run.averaged():
        assert model.weight.dtype == paddle.bfloat16
        np.testing.assert_array_equal(model.weight.numpy(), kept.astype("bfloat16").numpy())


class Stub(paddle.optimizer.SGD):
    """An optimizer that averages by itself."""

    def averaged_weights(self):
        return {param.name: paddle.full_like(param, 7.0) for param in self._parameter_list}


def test_an_optimizer_that_averages_by_itself(tmp_path):
    model = net()
    run = hub.DefaultStrategy(0.1, Stub).bind(model)
    before = weights(model)
    with run.averaged():
        assert all((value == 7).all() for value in weights(model).values())
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="averaged weights of its own"):
        hub.DefaultStrategy(0.1, Stub, averaging={"EMA": 0.9}).bind(net())
    seen = {}

    class Look(hub.Callback):
        def on_validate_begin(self, learner):
            seen.update(weights(learner.model))

    hub.Learner(model, pairs(), pairs(), progress=False, path=tmp_path).fit(
        1, strategy=hub.DefaultStrategy(0.1, Stub), cbs=Look()
    )
    assert all((value == 7).all() for value in seen.values())


def test_without_an_average_there_is_an_error():
    with pytest.raises(RuntimeError, match="there is no average.*EMA"):
        hub.DefaultStrategy(0.1).bind(net()).averaged().__enter__()


def test_before_an_average_begins_the_weights_are_the_models_own():
    run = hub.DefaultStrategy(0.1, averaging={"SWA": 0.75}).bind(net(), max_train_steps=100)
    train(run)
    before = weights(run.model)
    with run.averaged():
        for name, value in weights(run.model).items():
            np.testing.assert_array_equal(value, before[name])


class TestInALearner:
    def learner(self, **options):
        loader = paddle.io.DataLoader(pairs(), batch_size=8)
        return hub.Learner(net(), loader, pairs(), progress=False, **options)

    @pytest.mark.parametrize("accumulate", [1, 2])
    @pytest.mark.parametrize("averaging", [{"EMA": 0.8}, {"SWA": {"start": 0.0}}], ids=str)
    def test_validation_and_the_best_model_are_of_the_average(self, averaging, accumulate, tmp_path):
        seen, trail = {}, []

        class Look(hub.Callback):
            def on_fit_begin(self, learner):
                trail.append(weights(learner.model))

            def on_after_update(self, learner):
                trail.append(weights(learner.model))

            def on_validate_begin(self, learner):
                seen["average"] = weights(learner.model)

            def on_epoch_end(self, learner):
                seen["own"] = weights(learner.model)

        subject = self.learner(accumulate=accumulate, path=tmp_path)
        strategy = hub.DefaultStrategy(0.1, "sgd", averaging=averaging)
        subject.fit(3, strategy=strategy, cbs=[Look(), hub.SaveModelCallback("valid_loss")])
        for key, value in seen["average"].items():
            wanted = trail[0][key] if "EMA" in averaging else 0
            for count, w in enumerate(trail[1:], 1):
                wanted = 0.8 * wanted + 0.2 * w[key] if "EMA" in averaging else wanted + (w[key] - wanted) / count
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(seen["own"][key], trail[-1][key])
        # The best model was loaded at the end; an evaluation after the fit is of the model as it is.
        assert subject.validate()["loss"] == min(row["valid_loss"] for row in subject.recorder.values)

    def test_a_task_keeps_the_average_as_its_best_model(self, tmp_path):
        config = hub.RunConfig(
            num_epoch=3, batch_size=8, eval_interval=2, checkpoint_dir=str(tmp_path),
            strategy=hub.CombinedStrategy("sgd", 0.1, averaging={"EMA": 0.8}),
        )  # fmt: skip
        task = hub.ClassifierTask(net(), {"train": pairs(), "dev": pairs()}, config, verbose=False)
        task.finetune()
        assert task.eval("dev")["acc"] == task.best_score

    @pytest.mark.parametrize("broken_at", [1, 4, 6])
    def test_goes_on_from_a_checkpoint_bit_for_bit(self, broken_at, tmp_path):
        class Break(hub.Callback):
            def on_after_update(self, learner):
                if learner.state.step == broken_at:
                    raise KeyboardInterrupt

        def fit(folder, cbs=()):
            paddle.seed(4)
            subject = self.learner(checkpoints=hub.Checkpoints(tmp_path / folder, every=1))
            subject.fit(3, strategy=strategy, cbs=cbs)
            return subject

        strategy = hub.CombinedStrategy(
            "momentum", 0.1, scheduler={"gradual_unfreeze": {"blocks": 2}}, averaging={"EMA": 0.9}
        )
        whole = fit("whole")
        with pytest.raises(KeyboardInterrupt):
            fit("broken", Break())
        resumed = fit("broken")
        assert resumed.recorder.values == whole.recorder.values
        assert sorted(resumed.run.average.values) == sorted(whole.run.average.values)
        for name, value in whole.run.average.values.items():
            np.testing.assert_array_equal(resumed.run.average.values[name].numpy(), value.numpy())

    def test_is_saved_with_the_optimizer(self, tmp_path):
        subject = self.learner(path=tmp_path)
        strategy = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8})
        subject.fit(1, strategy=strategy)
        kept = {name: value.numpy() for name, value in subject.run.average.values.items()}
        subject.save("here")
        train(subject.run)
        subject.load("here")
        for name, value in subject.run.average.values.items():
            np.testing.assert_array_equal(value.numpy(), kept[name])


def test_paddle_model_evaluates_the_average():
    network, seen, trail = net(), [], []

    class Look(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            trail.append(weights(network))

        def on_eval_batch_end(self, step, logs=None):
            seen.append(weights(network))

    run = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8}).bind(network, steps_per_epoch=3, num_epoch=2)
    trail.append(weights(network))
    model = paddle.Model(network)
    model.prepare(run.optimizer, nn.CrossEntropyLoss())
    model.fit(
        pairs(), pairs(), batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=[run.callback(), Look()]
    )  # fmt: skip
    for key, value in seen[-1].items():
        np.testing.assert_allclose(value, expected("EMA", [one[key] for one in trail]), rtol=1e-5, atol=1e-6)
    for key, value in weights(network).items():
        np.testing.assert_array_equal(value, trail[-1][key])


def test_paddle_model_refuses_a_perturbation():
    run = hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 0.1}).bind(net())
    model = paddle.Model(run.model)
    model.prepare(run.optimizer, nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="perturbation SAM.*paddle.Model"):
        model.fit(pairs(), batch_size=8, verbose=0, callbacks=[run.callback()])


class TestStatistics:
    def test_are_the_mean_over_batches_and_undone_with_the_average(self):
        run = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8}).bind(net(norm=True))
        train(run)
        norm, own = run.model[1], run.model[1]._mean.numpy().copy()
        with run.averaged():
            batches = [(paddle.to_tensor(x), paddle.zeros([8])) for x in X[:5]]
            hidden = [run.model[0](x).numpy() for x, _ in batches]
            run.update_statistics(batches)
            np.testing.assert_allclose(norm._mean.numpy(), np.mean([h.mean(0) for h in hidden], 0), atol=1e-6)
            np.testing.assert_allclose(norm._variance.numpy(), np.mean([h.var(0) for h in hidden], 0), atol=1e-5)
        np.testing.assert_array_equal(norm._mean.numpy(), own)
        assert run.model.training

    def test_frozen_ones_stay_and_nothing_else_is_read(self):
        model = net(norm=True)
        hub.param_attr.freeze(model[1])
        before = model[1]._mean.numpy()
        hub.update_statistics(model, iter(()))
        hub.update_statistics(net(), None)
        hub.update_statistics(model, [paddle.ones([2, 4])])
        np.testing.assert_array_equal(model[1]._mean.numpy(), before)

    def test_momentum_is_as_before_after_an_error(self):
        model = net(norm=True)
        with pytest.raises(KeyError):
            hub.update_statistics(model, ({}[x] for x in "ab"))
        model.train()
        x = paddle.to_tensor(X[0])
        hidden = model[0](x).numpy()
        model(x)
        np.testing.assert_allclose(model[1]._mean.numpy(), 0.1 * hidden.mean(0), atol=1e-6)


def test_is_told(tmp_path):
    strategy = hub.ULMFiTStrategy(frz_blocks=0, averaging={"SWA": 0.5}, perturbation={"FGM": {"where": "*"}})
    assert "SWA start 0.5, every 1, FGM epsilon 1.0, where *" in str(strategy)
    run = strategy.bind(net(), max_train_steps=10)
    assert "averaging SWA start 0.5, every 1" in str(run.describe())
    assert "perturbation FGM epsilon 1.0" in str(run.describe())
    figure = run.plot(steps=10)
    assert "SWA begins" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    again = hub.strategy_from_yaml(strategy.to_yaml())
    assert again.plan(10) == strategy.plan(10) or again.plan(10).averaging == SWA(0.5)
    assert again.plan(10).perturbation == strategy.perturbation


@pytest.mark.parametrize(
    ("averaging", "steps", "found"),
    [
        ({"EMA": 0.999}, 100, "after 100 updates 90% of the average are still the weights at the beginning"),
        ({"EMA": 0.999}, 5000, ""),
        ({"EMA": {"decay": 0.999, "bias_correction": True}}, 100, ""),
        ({"SWA": {"start": 0.9, "every": 11}}, 100, "no weights go into the average in 100 updates"),
        ({"SWA": 0.75}, 100, ""),
    ],
)
def test_an_average_of_little_is_told(averaging, steps, found):
    findings = lint.check(outline(hub.DefaultStrategy(averaging=averaging), steps, 1))
    texts = [finding.text for finding in findings if finding.rule == "average-of-little"]
    assert (found in texts[0]) if found else not texts


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"EMAA": 0.9}, ValueError, "unknown averaging 'EMAA'. Did you mean 'EMA'"),
        ({"EMA": 1.0}, ValueError, "decay = 1.0 is outside"),
        ({"EMA": {"deacy": 0.9}}, ValueError, "key of averaging.EMA 'deacy'. Did you mean 'decay'"),
        ({"EMA": {"bias_correction": 1}}, TypeError, "bias_correction must be True or False"),
        ({"SWA": 1.0}, ValueError, "start = 1.0"),
        ({"SWA": {"every": 0}}, ValueError, "every = 0"),
        ({}, ValueError, "must have one name"),
        ({"EMA": 0.9, "SWA": 0.5}, ValueError, "must have one name"),
        (0.999, TypeError, "averaging must be a dict.*EMA, SWA"),
    ],
)
def test_wrong_options(given, kind, message):
    with pytest.raises(kind, match=message):
        hub.CombinedStrategy(averaging=given)


def test_swa_needs_the_length_of_the_training():
    with pytest.raises(ValueError, match="SWA from 0.75 of the training on needs its length"):
        hub.DefaultStrategy(0.1, averaging={"SWA": 0.75}).bind(net())
    assert EMA(0.9).begins(None) == SWA(0.0).begins(None) == 0


def test_a_foreign_state_is_refused():
    run = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.8}).bind(net())
    train(run, 0, 2)
    state = run.state_dict()
    with pytest.raises(ValueError, match="the strategy of this binding keeps none"):
        hub.DefaultStrategy(0.1, "sgd").bind(net()).set_state_dict(state)
    with pytest.raises(ValueError, match="average of '0.weight' has shape"):
        run.set_state_dict({**state, "average": {"0.weight": paddle.ones([2])}})


def test_every_average_is_tested():
    assert {next(iter(given)) for given in AVERAGED.values()} == {name for name in AVERAGES if "doctest" not in name}
