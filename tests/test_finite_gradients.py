"""A gradient that is not finite, under a loss that is, never reaches a weight, an optimizer's state or a checkpoint."""

import copy
import math

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim import table

CLIPS = [{}, {"Value": 0.5}, {"Norm": 0.5}, {"GlobalNorm": 0.5}]
PATHS = ["numba", "paddle"]


class Net(nn.Layer):
    """Two layers; the third training forward has a finite loss and gradients that are not."""

    def __init__(self, bad=math.nan):
        super().__init__()
        self.low, self.high = nn.Linear(4, 6), nn.Linear(6, 2)
        self.bad, self.forwards = bad, 0

    def forward(self, x):
        hidden = self.low(x)
        if self.training:
            self.forwards += 1
            if self.forwards == 3 and not hidden.stop_gradient:
                hidden.register_hook(lambda grad: grad * self.bad)
        return self.high(hidden)


def bound(optimizer="adam", clip=None, path="paddle", net=None, **options):
    strategy = hub.CombinedStrategy(optimizer, 0.01, clip=clip, **options)
    return strategy.bind(net or Net(), fused=False if path == "paddle" else None)


def state_of(run):
    found = {f"weight {name}": value for name, value in run.model.state_dict().items()}
    kept = run.state_dict()["optimizer"]
    return {key: value.numpy().copy() for key, value in {**found, **flat(kept)}.items() if hasattr(value, "numpy")}


def flat(tree, path="state"):
    if not isinstance(tree, dict):
        return {path: tree}
    return {key: leaf for name, entry in tree.items() for key, leaf in flat(entry, f"{path} {name}").items()}


def train(run, step=None):
    run.model(paddle.ones([3, 4])).square().mean().backward()
    (step or run.step)()


def refused(run, step=None):
    """Two updates, and a third that is refused: what held before and after it."""
    train(run)
    train(run)
    before = state_of(run)
    with pytest.raises(FloatingPointError) as caught:
        train(run, step)
    after = state_of(run)
    assert len(before) > 4 or type(run.optimizer) is paddle.optimizer.SGD
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    return str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_nothing_moves_on_any_path(optimizer, path, clip, bad):
    run = bound(optimizer, clip, path, Net(bad))
    text = refused(run)
    for part in ("'low.weight'", "update 3 ", "learning rate 0.01;"):
        assert part in text
    train(run)
    assert all(np.isfinite(value).all() for value in state_of(run).values())


@pytest.mark.parametrize("optimizer", sorted({*table.names()} - {"sgd", "momentum", "adam", "adamw"}))
def test_every_other_optimizer_of_the_table(optimizer):
    assert "low.weight" in refused(bound(optimizer))


def test_a_parameter_that_is_not_clipped_is_looked_at_too():
    net = Net()
    for param in net.low.parameters():
        param.need_clip = False
    assert "low.weight" in refused(bound("adam", {"GlobalNorm": 1.0}, "numba", net))


@pytest.mark.parametrize("path", PATHS)
def test_the_optimizers_own_step_refuses(path):
    run = bound(path=path, net=Net())
    assert "low.weight" in refused(run, run.optimizer.step)


@pytest.mark.parametrize("path", PATHS)
def test_finite_gradients_whose_sum_is_not_are_no_error(path):
    layer = nn.Linear(2, 2)
    run = bound("sgd", path=path, net=layer)
    layer.weight.grad = paddle.full([2, 2], 3e38)
    before = layer.weight.numpy()
    run.step()
    np.testing.assert_allclose(layer.weight.numpy(), before - np.float32(3e36), rtol=1e-6)


def test_sparse_gradients():
    class Words(nn.Layer):
        def __init__(self):
            super().__init__()
            self.table, self.scale = nn.Embedding(9, 4, sparse=True), 1.0

        def forward(self, ids):
            return self.table(ids) * self.scale

    words = Words()
    run = bound("sgd", net=words)
    words(paddle.to_tensor([1, 2, 2])).sum().backward()
    run.step()
    before = words.table.weight.numpy()
    words.scale = math.nan
    words(paddle.to_tensor([1, 2])).sum().backward()
    with pytest.raises(FloatingPointError, match=r"table\.weight"):
        run.step()
    assert (words.table.weight.numpy() == before).all()


def test_half_precision():
    layer = nn.Linear(4, 2)
    layer.to(dtype="bfloat16")
    run = bound(net=layer)
    # The CPU has no bfloat16 kernels for a backward, so the gradients come by hand.
    layer.weight.grad = paddle.ones([4, 2]).astype("bfloat16")
    run.step()
    before = layer.weight.astype("float32").numpy()
    layer.weight.grad = paddle.full([4, 2], math.inf).astype("bfloat16")
    with pytest.raises(FloatingPointError, match="'weight'"):
        run.step()
    assert (layer.weight.astype("float32").numpy() == before).all()


@pytest.mark.parametrize("path", PATHS)
def test_what_a_loss_scaler_found_is_skipped_and_no_error(path):
    run = bound(path=path, net=Net())
    train(run)
    train(run)
    before = state_of(run)
    run.optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([True]))
    train(run, run.optimizer.step)
    run.optimizer._set_auxiliary_var("found_inf", None)
    assert all((before[name] == value).all() for name, value in state_of(run).items())


@pytest.mark.parametrize("optimizer", ["momentum", "adamw", "rmsprop"])
def test_no_checkpoint_holds_it_and_a_restart_goes_on(tmp_path, optimizer):
    pairs = [(np.full(4, i, "float32") / 9, np.int64(i % 2)) for i in range(12)]

    def learner(net):
        checkpoints = hub.Checkpoints(tmp_path, every=1, keep=2)
        return hub.Learner(net, pairs, batch_size=4, progress=False, checkpoints=checkpoints)

    net, strategy = Net(), hub.CombinedStrategy(optimizer, 1e-2)
    first = learner(net)
    with pytest.raises(FloatingPointError, match=r"low\.weight.* at update 3 "):
        first.fit(2, strategy=strategy)
    kept = copy.deepcopy({name: value.numpy() for name, value in net.state_dict().items()})
    assert all(np.isfinite(value).all() for value in kept.values())
    assert first.load_checkpoint() == 2
    assert all((value.numpy() == kept[name]).all() for name, value in net.state_dict().items())
    again = learner(Net(bad=1.0))
    again.fit(2, strategy=strategy)
    assert again.state.step == 6


def test_the_learner_that_was_stopped_fits_again():
    net = Net()
    learner = hub.Learner(net, [(np.ones(4, "float32"), np.int64(0))] * 4, batch_size=1, progress=False)
    with pytest.raises(FloatingPointError, match="update 3 "):
        learner.fit(1, strategy=hub.DefaultStrategy(1e-3))
    learner.fit(1, strategy=hub.DefaultStrategy(1e-3))
    assert len(learner.recorder.losses) == 2 + 4
