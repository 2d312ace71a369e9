"""`tune=` of Learner and tasks, and what load_pretrained tells L2SP."""

import warnings

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub


def pairs():
    x = paddle.randn([24, 4])
    return TensorDataset([x, (x.sum(-1) > 0).astype("int64")])


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1D(8), nn.ReLU(), nn.Linear(8, 2))


def moved(model, act):
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    act()
    return {name for name, value in model.state_dict().items() if (value.numpy() != before[name]).any()}


HEAD = {"3.weight", "3.bias"}
STATISTICS = {"1._mean", "1._variance"}


def fitted(kind, folder, **options):
    model = net()
    if kind == "learner":
        it = hub.Learner(model, pairs(), lr=0.1, batch_size=8, progress=False, **options)
        return model, lambda: it.fit(2)
    config = hub.RunConfig(num_epoch=2, batch_size=8, checkpoint_dir=str(folder), strategy=hub.DefaultStrategy(0.1))
    task = hub.ClassifierTask(model, {"train": pairs()}, config, verbose=False, **options)
    return model, task.finetune


@pytest.mark.parametrize("kind", ["learner", "task"])
class TestTune:
    def test_head_moves_two_tensors(self, kind, tmp_path):
        model, act = fitted(kind, tmp_path, tune="head")
        assert moved(model, act) == HEAD

    def test_head_with_tracked_statistics(self, kind, tmp_path):
        model, act = fitted(kind, tmp_path, tune="head", batch_norm="track")
        assert moved(model, act) == HEAD | STATISTICS

    def test_differential(self, kind, tmp_path):
        model, act = fitted(kind, tmp_path, tune="differential", head_factor=5.0)
        assert moved(model, act) == set(model.state_dict())
        multipliers = {name: param.optimize_attr["learning_rate"] for name, param in model.named_parameters()}
        assert multipliers["3.weight"] == pytest.approx(5 * multipliers["0.weight"])

    def test_unknown_way(self, kind, tmp_path):
        with pytest.raises(ValueError, match="unknown way to tune 'heads'. Did you mean 'head'"):
            fitted(kind, tmp_path, tune="heads")


class TestPretrained:
    def test_what_was_loaded_is_anchored(self):
        model = net()
        state = {name: value for name, value in net().state_dict().items() if not name.startswith("3.")}
        report = hub.load_pretrained(model, state)
        strategy = hub.L2SPFinetuneStrategy(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            by_default = strategy.bind(model).state_dict()["anchors"]
            by_report = strategy.bind(model, pretrained=report).state_dict()["anchors"]
        assert set(by_default) == set(by_report) == {"0.weight", "0.bias", "1.weight", "1.bias"}
        np.testing.assert_array_equal(by_default["0.weight"].numpy(), state["0.weight"].numpy())
