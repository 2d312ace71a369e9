"""Head only, all, or a faster head: what trains, at which LR, and that the next call starts from the user's own."""

import copy

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import settings
from paddle_ftstrat.param_attr.freezing import verify_frozen
from paddle_ftstrat.transfer import find_head, load_pretrained, tune, tune_all, tune_differential, tune_head


def net():
    return nn.Sequential(nn.Conv2D(1, 3, 3), nn.BatchNorm2D(3), nn.Flatten(), nn.Linear(12, 2))


def trainable(model):
    return [name for name, param in model.named_parameters() if not param.stop_gradient]


def multipliers(model):
    return [settings.own(param).learning_rate for param in model.parameters() if not param.stop_gradient]


def one_step(model, strategy=None):
    run = (strategy or hub.DefaultStrategy(0.1, "sgd")).bind(model)
    model.train()
    model(paddle.randn([4, 1, 4, 4])).square().mean().backward()
    run.step()
    run.release()


def test_resnet18_has_exactly_two_trainable_tensors():
    model = paddle.vision.models.resnet18(num_classes=3)
    assert tune_head(model) == ["fc.weight", "fc.bias"]
    assert trainable(model) == ["fc.weight", "fc.bias"]


VISION = {
    "alexnet": 224,
    "densenet121": 32,
    "googlenet": 224,
    "inception_v3": 96,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_25": 32,
    "squeezenet1_1": 64,
    "vgg11": 32,
}


@pytest.mark.parametrize(("name", "size"), VISION.items())
def test_the_head_of_vision_models_is_what_predictions_come_from(name, size):
    model = getattr(paddle.vision.models, name)(num_classes=3)
    names = tune_head(model)
    model.eval()
    output = model(paddle.ones([1, 3, size, size]))
    (output[0] if isinstance(output, (list, tuple)) else output).sum().backward()
    assert trainable(model) == names
    assert len(names) == 2
    weights = dict(model.named_parameters())
    assert 3 in weights[names[0]].shape
    assert all(weights[each].grad is not None for each in names)


def test_auxiliary_classifiers_are_no_head():
    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.aux_head = nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, x):
            x = self.body(x)
            return self.head(x), self.aux_head(x)

    assert tune_head(Net()) == ["head.weight", "head.bias"]
    it = hub.Learner(Net(), [(np.ones(2, "float32"), 0)] * 8, batch_size=4, progress=False)
    assert it.layer_groups[-1] == ["head.weight", "head.bias"]
    before = it.model.head.weight.numpy()
    it.freeze()
    it.fit(1, 0.1)
    assert np.abs(it.model.head.weight.numpy() - before).max() > 0


@pytest.mark.parametrize("head", ["3", "3.*", lambda name, _: name.startswith("3."), None])
def test_head_trains_and_nothing_else_moves(head):
    model = net()
    tune_head(model, head)
    before = model[3].weight.numpy().copy()
    with verify_frozen(model) as watched:
        one_step(model)
    assert "1._mean" in watched
    assert np.abs(model[3].weight.numpy() - before).max() > 0


def test_tracked_statistics_move():
    model = net()
    tune_head(model, batch_norm="track")
    before = model[1]._mean.numpy().copy()
    one_step(model)
    assert np.abs(model[1]._mean.numpy() - before).max() > 0


def test_two_learning_rates():
    """The updates of plain SGD: η·gradient in the backbone, 10·η·gradient in the head."""
    model, plain = net(), net()
    plain.set_state_dict(model.state_dict())
    tune_differential(model)
    x = paddle.randn([4, 1, 4, 4])
    run = hub.DefaultStrategy(0.01, "sgd").bind(model)
    groups = [{"params": plain[:3].parameters()}, {"params": plain[3].parameters(), "learning_rate": 10.0}]
    reference = paddle.optimizer.SGD(0.01, parameters=groups)
    for each, step in ((model, run.step), (plain, reference.step)):
        each.train()
        each(x).square().mean().backward()
        step()
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-7)


def test_the_factor_multiplies_what_the_user_set():
    model = net()
    settings.set_own(model[3].bias, learning_rate=2.0)
    tune_differential(model, factor=5)
    assert multipliers(model) == [1, 1, 1, 1, 5, 10]
    tune_differential(model, factor=3)
    assert multipliers(model) == [1, 1, 1, 1, 3, 6]
    tune_all(model)
    assert multipliers(model) == [1, 1, 1, 1, 1, 2]


def test_every_way_starts_from_the_users_own():
    model = net()
    model[0].bias.stop_gradient = True
    own = trainable(model)
    for how in ("head", "differential", "all", "differential", "head", "all"):
        tune(model, how)
    assert trainable(model) == own
    assert multipliers(model) == [1] * 5
    before = model[1]._mean.numpy().copy()
    one_step(model)
    assert np.abs(model[1]._mean.numpy() - before).max() > 0


def test_what_the_user_changed_in_between_stays():
    model = net()
    tune_differential(model)
    settings.set_own(model[3].weight, learning_rate=7.0)
    tune_all(model)
    assert multipliers(model) == [1, 1, 1, 1, 7, 1]


def test_a_copy_can_be_tuned_in_another_way():
    model = net()
    tune_head(model)
    other = copy.deepcopy(model)
    tune_all(other)
    assert len(trainable(other)) == 6
    assert len(trainable(model)) == 2


def test_the_head_is_what_was_not_loaded():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(3, 2))
    state = {key: np.ones(value.shape, "float32") for key, value in model.state_dict().items()}
    load_pretrained(model, state, include="0")
    assert find_head(model) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    load_pretrained(model, state)
    assert find_head(model) == ["2.weight", "2.bias"]


def test_statistics_without_weights():
    """A BatchNorm with neither weight nor bias: in the head it follows the data, in the backbone it is fixed."""

    def plain_norm():
        return nn.BatchNorm1D(2, weight_attr=False, bias_attr=False)

    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), plain_norm()), nn.Sequential(plain_norm(), nn.Linear(2, 2)))
    tune_head(model, "1")
    run = hub.DefaultStrategy(0.1, "sgd").bind(model)
    model.train()
    before = [model[0][1]._mean.numpy().copy(), model[1][0]._mean.numpy().copy()]
    model(paddle.randn([8, 2]) + 5).sum().backward()
    run.step()
    np.testing.assert_array_equal(model[0][1]._mean.numpy(), before[0])
    assert np.abs(model[1][0]._mean.numpy() - before[1]).max() > 0


def test_a_bound_model_is_refused():
    model = net()
    run = hub.DefaultStrategy(0.1, "sgd").bind(model)
    with pytest.raises(RuntimeError, match="release it, tune, bind again"):
        tune_differential(model)
    run.release()
    tune_differential(model)
    run = hub.DefaultStrategy(0.1, "sgd").bind(model)
    with pytest.raises(RuntimeError, match="release it"):
        tune_all(model)
    run.release()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"how": "haed"}, ValueError, r"unknown way to tune 'haed'.*Did you mean 'head'"),
        ({"how": "head", "head": "9"}, ValueError, "head matches no parameter"),
        ({"how": "head", "head": "*"}, ValueError, "whole model"),
        ({"how": "head", "batch_norm": "frezee"}, ValueError, r"BatchNorm policy.*'freeze'"),
        ({"how": "differential", "factor": 0}, ValueError, "factor = 0"),
        ({"how": "differential", "factor": "10"}, TypeError, "factor must be a number"),
        ({"how": "differential", "head": 3}, TypeError, "head must be"),
    ],
)
def test_bad_options_change_nothing(options, error, message):
    model = net()
    tune_head(model)
    before = trainable(model)
    with pytest.raises(error, match=message):
        tune(model, **options)
    assert trainable(model) == before


@pytest.mark.parametrize("act", [tune_head, tune_all, tune_differential])
def test_not_a_model(act):
    with pytest.raises(TypeError, match="Layer"):
        act([1])


def test_a_single_layer_has_no_clear_head():
    with pytest.raises(ValueError, match="head=… of weight, bias"):
        tune_head(nn.Linear(2, 2))
    assert tune_head(model := nn.Linear(2, 2), "bias") == ["bias"]
    assert trainable(model) == ["bias"]
