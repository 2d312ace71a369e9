"""PaddleHub 1.8.3's own numbers, through the public surface."""

import numpy as np
import paddle
import pytest
from conftest import golden
from paddle import nn

import paddle_ftstrat as hub

HUB = golden("hub18.json")


class TinyNet(nn.Layer):
    """tanh(x·backbone.w_0 + backbone.b_0)·head.w_0 + head.b_0, with PaddleHub's parameter names."""

    def __init__(self, init):
        super().__init__()
        assign = nn.initializer.Assign
        self.backbone, self.head = (
            nn.Linear(
                *np.shape(init[f"{layer}.w_0"]),
                weight_attr=paddle.ParamAttr(initializer=assign(np.float32(init[f"{layer}.w_0"]))),
                bias_attr=paddle.ParamAttr(initializer=assign(np.float32(init[f"{layer}.b_0"]))),
            )
            for layer in ("backbone", "head")
        )
        self.hub_names = {
            "backbone.w_0": self.backbone.weight,
            "backbone.b_0": self.backbone.bias,
            "head.w_0": self.head.weight,
            "head.b_0": self.head.bias,
        }
        for name, param in self.hub_names.items():
            param.name = name + paddle.utils.unique_name.generate("_tiny")

    def forward(self, x):
        return self.head(paddle.tanh(self.backbone(x)))


def with_own_names(kw, model):
    """The call's arguments with PaddleHub's parameter names replaced by this model's Parameter names."""
    kw = {key: dict(value) if isinstance(value, dict) else value for key, value in kw.items()}
    layers = kw.get("scheduler", {}).get("discriminative", {}).get("params_layer")
    if layers:
        named = {model.hub_names[name].name: number for name, number in layers.items()}
        kw["scheduler"]["discriminative"] = {**kw["scheduler"]["discriminative"], "params_layer": named}
    return kw


@pytest.mark.parametrize("case", HUB["lr_curves"], ids=lambda c: f"{c['cls']}-{c['T']}")
def test_lr_curves(case):
    run = getattr(hub, case["cls"])(**case["kw"]).bind(nn.Linear(2, 2), max_train_steps=case["T"])
    lrs = []
    for _ in range(case["T"]):
        lrs.append(run.optimizer.get_lr())
        run.model(paddle.ones([1, 2])).sum().backward()
        run.step()
    np.testing.assert_allclose(lrs, case.get("expected", case["lr"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("as_static", [False, True], ids=["dygraph", "to_static"])
@pytest.mark.parametrize("case", HUB["updates"], ids=lambda c: f"{c['cls']}-{c['seed']}")
def test_updates(case, as_static):
    model = TinyNet(case["init"])
    strategy = getattr(hub, case["cls"])(**with_own_names(case["kw"], model))
    pretrained = "backbone.*" if strategy.regularization["L2SP"] else None
    run = strategy.bind(model, max_train_steps=case["T"], pretrained=pretrained)
    forward = paddle.jit.to_static(model) if as_static else model
    for step, (x, y) in enumerate(zip(case["x"], case["y"])):
        assert run.optimizer.get_lr() == pytest.approx(case["trace"]["lr"][step], rel=1e-5)
        loss = nn.functional.cross_entropy(forward(paddle.to_tensor(x, "float32")), paddle.to_tensor(y))
        assert float(loss) == pytest.approx(case["trace"]["loss"][step], abs=1e-5)
        loss.backward()
        run.step()
        for name, param in model.hub_names.items():
            np.testing.assert_allclose(param.numpy(), case["trace"][name][step], atol=1e-5, rtol=0)
