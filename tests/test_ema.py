"""The average of the weights, against numpy; what it leaves alone."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub


def net():
    paddle.seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def pairs(samples=24):
    rng = np.random.RandomState(0)
    x = rng.randn(samples, 4).astype("float32")
    return TensorDataset([paddle.to_tensor(x), paddle.to_tensor((x.sum(-1) > 0).astype("int64"))])


def weights(model):
    return {name: param.numpy().copy() for name, param in model.named_parameters()}


def averages(ema):
    return {name: value.numpy() for name, value in ema.state_dict()["average"].items()}


class Trace(hub.Callback):
    """All weights before the first update and after each."""

    def on_fit_begin(self, learner):
        self.of = [weights(learner.model)]

    def on_batch_end(self, learner):
        self.of.append(weights(learner.model))


def learner(model=None, valid=True, **options):
    loader = paddle.io.DataLoader(pairs(), batch_size=8)
    return hub.Learner(model or net(), loader, pairs() if valid else None, progress=False, **options)


@settings(max_examples=12)
@given(st.floats(0.0, 0.999), st.booleans(), st.integers(1, 3))
def test_is_the_formula(decay, bias_correction, epochs):
    ema, trace = hub.EMA(decay, bias_correction), Trace()
    learner().fit(epochs, 0.1, cbs=[ema, trace])
    for name, value in averages(ema).items():
        trail = [step[name].astype("float64") for step in trace.of]
        if bias_correction:
            shares = [(1 - decay) * decay ** (len(trail) - 2 - i) for i in range(len(trail) - 1)]
            wanted = sum(share * w for share, w in zip(shares, trail[1:])) / sum(shares)
        else:
            wanted = trail[0]
            for w in trail[1:]:
                wanted = decay * wanted + (1 - decay) * w
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    assert ema.updates == 3 * epochs


def test_training_does_not_notice():
    alone, watched = learner(), learner()
    alone.fit(3, 0.1)
    watched.fit(3, 0.1, cbs=hub.EMA(0.9))
    for name, value in weights(alone.model).items():
        np.testing.assert_array_equal(value, weights(watched.model)[name])
    assert alone.recorder.losses == watched.recorder.losses
    assert alone.recorder.values[-1]["valid_loss"] != watched.recorder.values[-1]["valid_loss"]


def test_validation_runs_on_the_average_and_only_validation():
    ema, seen = hub.EMA(0.8), {}

    class Look(hub.Callback):
        def on_validate_begin(self, learner):
            seen["in"] = weights(learner.model)

        def on_epoch_end(self, learner):
            seen["after"] = weights(learner.model)

    subject = learner()
    subject.fit(2, 0.1, cbs=[ema, Look()])
    for name, value in averages(ema).items():
        np.testing.assert_array_equal(seen["in"][name], value)
        assert not np.array_equal(seen["after"][name], value)
        np.testing.assert_array_equal(seen["after"][name], weights(subject.model)[name])
    with ema.averaged():
        assert subject.validate()["loss"] == subject.recorder.values[-1]["valid_loss"]


@pytest.mark.parametrize("by", ["error", "stop"])
def test_the_weights_are_back_after_an_error(by):
    class Break(hub.Callback):
        def on_validate_begin(self, learner):
            if learner.state.epoch == 2:
                raise hub.StopTraining if by == "stop" else RuntimeError("broken")

    ema, trace, subject = hub.EMA(0.5), Trace(), learner()
    if by == "stop":
        subject.fit(3, 0.1, cbs=[ema, trace, Break()])
    else:
        with pytest.raises(RuntimeError, match="broken"):
            subject.fit(3, 0.1, cbs=[ema, trace, Break()])
    for name, value in weights(subject.model).items():
        np.testing.assert_array_equal(value, trace.of[-1][name])
    with pytest.raises(RuntimeError, match="inside"), ema.averaged():
        raise RuntimeError("inside")
    for name, value in weights(subject.model).items():
        np.testing.assert_array_equal(value, trace.of[-1][name])


def test_frozen_weights_have_no_copy_and_thawed_ones_are_averaged_as_if_they_always_had_been():
    strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"gradual_unfreeze": {"blocks": 3}})
    ema, trace, sizes = hub.EMA(0.7), Trace(), []

    class Count(hub.Callback):
        def on_batch_end(self, learner):
            sizes.append(len(ema.state_dict()["average"]))

    model = net()
    hub.param_attr.freeze(model[0])
    learner(model).fit(3, strategy=strategy, cbs=[ema, trace, Count()])
    assert sizes == [2] * 3 + [4] * 6
    assert not any(name.startswith("0.") for name in averages(ema))
    for name, value in averages(ema).items():
        wanted = trace.of[0][name].astype("float64")
        for step in trace.of[1:]:
            wanted = 0.7 * wanted + 0.3 * step[name]
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_batch_norm_statistics_are_the_models_own():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1D(8), nn.Linear(8, 2))
    ema, statistics = hub.EMA(0.5), {}

    class Look(hub.Callback):
        def on_batch_end(self, learner):
            statistics["own"] = model[1]._mean.numpy().copy()

        def on_validate_begin(self, learner):
            statistics["in"] = model[1]._mean.numpy().copy()

    learner(model).fit(1, 0.1, cbs=[ema, Look()])
    assert sorted(averages(ema)) == ["0.bias", "0.weight", "1.bias", "1.weight", "2.bias", "2.weight"]
    np.testing.assert_array_equal(statistics["in"], statistics["own"])


@pytest.mark.parametrize("when", ["before the fit", "in the fit"])
def test_resumes_bit_for_bit(when):
    class At(hub.Callback):
        def __init__(self, epoch, act):
            self.epoch, self.act = epoch, act

        def on_epoch_begin(self, learner):
            if learner.state.epoch == self.epoch:
                self.act(learner)

    def copied(state):
        return {**state, "average": {name: value.clone() for name, value in state["average"].items()}}

    whole, kept = hub.EMA(0.9, bias_correction=True), {}

    def keep(learner):
        kept.update(ema=copied(whole.state_dict()), model=weights(learner.model))

    subject = learner(opt="sgd")
    subject.fit(4, 0.1, cbs=[whole, At(3, keep)])
    resumed, second = hub.EMA(0.9, bias_correction=True), learner(opt="sgd")
    second.model.set_state_dict({name: paddle.to_tensor(value) for name, value in kept["model"].items()})
    cbs = [resumed]
    if when == "before the fit":
        resumed.set_state_dict(kept["ema"])
    else:
        cbs.append(At(3, lambda learner: resumed.set_state_dict(kept["ema"])))
    second.fit(4, 0.1, cbs=cbs, start_epoch=2)
    assert resumed.updates == whole.updates == 12
    for name, value in averages(whole).items():
        np.testing.assert_array_equal(averages(resumed)[name], value)


def test_a_second_fit_begins_anew():
    ema, subject = hub.EMA(0.9), learner()
    ema.set_state_dict({"updates": 7, "average": {}})
    subject.fit(1, 0.1, cbs=ema)
    assert ema.updates == 10
    subject.fit(1, 0.1, cbs=ema)
    assert ema.updates == 3


def test_saves_the_average_separately(tmp_path):
    ema, subject = hub.EMA(0.6, fname="ema"), learner(path=tmp_path)
    subject.fit(2, 0.1, cbs=ema)
    own = weights(subject.model)
    assert (tmp_path / "models" / "ema.safetensors").is_file()
    subject.load("ema")
    for name, value in weights(subject.model).items():
        np.testing.assert_array_equal(value, averages(ema)[name])
        assert not np.array_equal(value, own[name])


def test_apply_leaves_the_average_in_the_model():
    ema, subject = hub.EMA(0.6), learner()
    subject.fit(1, 0.1, cbs=ema)
    ema.apply()
    for name, value in weights(subject.model).items():
        np.testing.assert_array_equal(value, averages(ema)[name])


def test_the_best_model_is_the_one_that_was_evaluated(tmp_path):
    ema = hub.EMA(0.8)
    subject = learner(path=tmp_path)
    subject.fit(3, 0.1, cbs=[ema, hub.SaveModelCallback("valid_loss")])
    best = min(row["valid_loss"] for row in subject.recorder.values)
    assert subject.validate()["loss"] == best
    task = hub.ClassifierTask(
        net(),
        {"train": pairs(), "dev": pairs()},
        hub.RunConfig(num_epoch=3, batch_size=8, eval_interval=2, checkpoint_dir=str(tmp_path / "task")),
        verbose=False,
        cbs=[hub.EMA(0.8)],
    )
    task.finetune()
    assert task.eval("dev")["acc"] == task.best_score


def begun(ema, model):
    """What a callback gets, of a fit whose updates the test does by itself."""
    subject = SimpleNamespace(model=model, run=SimpleNamespace(optimizer=None))
    ema.on_fit_begin(subject)
    ema.on_epoch_begin(subject)
    return subject


@pytest.mark.parametrize("decay", [0.5, 0.999, 0.99999])
def test_weights_that_rest_are_their_own_average_exactly(decay):
    ema, model = hub.EMA(decay), net()
    subject = begun(ema, model)
    for _ in range(200):
        ema.on_after_update(subject)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(averages(ema)[name], value)


def test_half_precision_is_averaged_in_float32():
    model = net()
    model.to(dtype="bfloat16")
    ema = hub.EMA(0.999)
    subject = begun(ema, model)
    before = averages(ema)
    assert all(value.dtype == np.float32 for value in before.values())
    with paddle.no_grad():
        for param in model.parameters():
            param.set_value(param + 1.0)
    for _ in range(10):
        ema.on_after_update(subject)
    for name, value in averages(ema).items():
        new = model.state_dict()[name].astype("float32").numpy()
        np.testing.assert_allclose(value, before[name] * 0.999**10 + new * (1 - 0.999**10), rtol=1e-5, atol=1e-6)
    with ema.averaged():
        assert all(param.dtype == paddle.bfloat16 for param in model.parameters())


@pytest.mark.parametrize(
    ("decay", "kind", "message"),
    [
        (1.0, ValueError, "decay = 1.0 .* < 1"),
        (-0.1, ValueError, "decay = -0.1"),
        ("0.9", TypeError, "must be a number"),
    ],
)
def test_errors(decay, kind, message):
    with pytest.raises(kind, match=message):
        hub.EMA(decay)


@pytest.mark.parametrize(
    ("average", "message"),
    [
        ({"2.wieght": paddle.ones([8, 8])}, "'2.wieght'. Did you mean '2.weight'"),
        ({"2.weight": paddle.ones([8, 2])}, r"has shape \[8, 2\], not \[8, 8\]"),
    ],
)
def test_a_foreign_state_is_refused(average, message):
    ema = hub.EMA()
    ema.set_state_dict({"updates": 1, "average": average})
    with pytest.raises(ValueError, match=message):
        learner().fit(1, 0.1, cbs=ema)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_counts_updates_and_not_batches(accumulate):
    ema, subject = hub.EMA(0.9), learner(accumulate=accumulate)
    subject.fit(2, 0.1, cbs=ema)
    assert ema.updates == subject.state.step == 2 * -(-3 // accumulate)


@pytest.mark.parametrize("broken_at", [1, 3, 4, 5])
def test_goes_on_from_a_checkpoint_bit_for_bit(broken_at, tmp_path):
    class Break(hub.Callback):
        def on_after_update(self, learner):
            if learner.state.step == broken_at:
                raise KeyboardInterrupt

    def subject(folder):
        paddle.seed(4)
        return learner(checkpoints=hub.Checkpoints(tmp_path / folder, every=1))

    strategy = hub.CombinedStrategy("momentum", 0.1, scheduler={"gradual_unfreeze": {"blocks": 2}})
    whole, unbroken = hub.EMA(0.9, bias_correction=True), subject("whole")
    unbroken.fit(3, strategy=strategy, cbs=whole)
    with pytest.raises(KeyboardInterrupt):
        subject("broken").fit(3, strategy=strategy, cbs=[hub.EMA(0.9, bias_correction=True), Break()])
    resumed, second = hub.EMA(0.9, bias_correction=True), subject("broken")
    second.fit(3, strategy=strategy, cbs=resumed)
    assert resumed.updates == whole.updates == 9
    for name, value in averages(whole).items():
        np.testing.assert_array_equal(averages(resumed)[name], value, err_msg=name)
    assert second.recorder.values[-1] == unbroken.recorder.values[-1]
    again, third = hub.EMA(0.9, bias_correction=True), subject("broken")
    third.fit(3, strategy=strategy, cbs=again)
    assert again.updates == 9
    own = weights(third.model)
    with again.averaged():
        assert third.validate()["loss"] == unbroken.recorder.values[-1]["valid_loss"]
    for name, value in weights(third.model).items():
        np.testing.assert_array_equal(value, own[name])


def test_there_is_no_average_before_a_fit():
    for act in (lambda: hub.EMA().averaged().__enter__(), lambda: hub.EMA().apply()):
        with pytest.raises(RuntimeError, match="no average yet"):
            act()
