"""The default losses against numpy; shapes, types and outputs that they cannot take are told, not broadcast."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.training.evaluation import loss_of

ELEMENTWISE = [None, nn.MSELoss(), nn.L1Loss(), nn.functional.mse_loss, nn.functional.smooth_l1_loss]


def pairs(labels, inputs=None):
    inputs = np.random.randn(len(labels), 4).astype("float32") if inputs is None else inputs
    return list(zip(inputs, labels))


def fit(data, model=None, **options):
    learner = hub.Learner(model or nn.Linear(4, 2), data, data, batch_size=4, progress=False, **options)
    return learner.fit(1)[-1]


class Returns(nn.Layer):
    """A linear layer whose output goes through a function."""

    def __init__(self, wrap, outputs=2):
        super().__init__()
        self.fc, self.wrap = nn.Linear(4, outputs), wrap

    def forward(self, x):
        return self.wrap(self.fc(x))


@settings(max_examples=30, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 3), st.data())
def test_axes_of_length_one_do_not_broadcast(batch, width, draw):
    shapes = [[batch, width], [batch, 1, width], [batch, width, 1], *([[batch], [batch, 1]] if width == 1 else [])]
    output, label = (draw.draw(st.sampled_from(shapes)) for _ in range(2))
    values, wanted = np.random.randn(*output).astype("float32"), np.random.randn(*label)
    loss = loss_of(None, paddle.to_tensor(values), paddle.to_tensor(wanted))
    assert float(loss) == pytest.approx(np.mean((values.ravel() - wanted.ravel()) ** 2), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=str)
@pytest.mark.parametrize(("output", "label"), [([4, 2], [4]), ([4, 1], [3]), ([2, 3], [3, 2]), ([4], [4, 4])])
def test_other_shapes_are_refused_with_both(loss, output, label):
    with pytest.raises(ValueError, match=rf"shape \[{output[0]}.*labels have shape \[{label[0]}"):
        loss_of(loss, paddle.ones(output), paddle.ones(label))


@pytest.mark.parametrize(("columns", "keepdim"), [(1, False), (1, True), (0, True)])
@pytest.mark.parametrize("loss", [None, nn.MSELoss()], ids=["default", "MSELoss"])
def test_a_sum_is_learned_in_every_shape(columns, keepdim, loss):
    x = paddle.randn([256, 8])
    model = nn.Sequential(nn.Linear(8, 1), *([] if columns else [nn.Flatten(0)]))
    data = paddle.io.TensorDataset([x, x.sum(-1, keepdim=keepdim)])
    learner = hub.Learner(model, data, batch_size=32, loss=loss, progress=False)
    assert learner.fit(20, 5e-2)[-1]["train_loss"] < 1e-3


def test_a_loss_of_the_users_own_is_called_as_it_is():
    seen = []

    def loss(output, label):
        seen.append((tuple(output.shape), tuple(label.shape)))
        return output.mean()

    fit(pairs(np.zeros(8, "float32")), nn.Linear(4, 1), loss=loss)
    assert set(seen) == {((4, 1), (4,))}


@pytest.mark.parametrize(
    "wrap",
    [lambda y: (y, None), lambda y: [y, y], lambda y: {"logits": y, "hidden": 3}, lambda y: {"out": y}],
    ids=["tuple", "list", "logits", "single"],
)
@pytest.mark.parametrize("label", ["int64", "float32"])
def test_outputs_of_several_parts(wrap, label):
    labels = np.arange(8) % 2 if label == "int64" else np.random.randn(8, 2).astype("float32")
    plain, wrapped = Returns(lambda y: y), Returns(wrap)
    wrapped.set_state_dict(plain.state_dict())
    data, metrics = pairs(labels), "acc" if label == "int64" else "mse"
    results = []
    for model in (plain, wrapped):
        np.random.seed(0)
        results.append(fit(data, model, metrics=metrics))
    assert results[0] == results[1]


def test_a_dict_without_logits_is_not_guessed_at():
    with pytest.raises(ValueError, match="dict of first, second.*call it 'logits'"):
        fit(pairs(np.zeros(8, "int64")), Returns(lambda y: {"first": y, "second": y}))


X = np.random.RandomState(0).randn(8, 4)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (pairs(np.arange(8)), ValueError, r"label \d is none of the model's classes.*0 … 1"),
        (pairs(np.arange(8) % 2 - 1), ValueError, "label -1 is none of the model's classes"),
        (pairs(np.zeros([8, 2], "int64")), ValueError, r"logits of shape \[4, 2\], but the labels have shape \[4, 2\]"),
        (pairs(np.arange(8) > 3), TypeError, r"numpy bool.*np.int64"),
        (pairs([True] * 8), TypeError, "the labels are bool.*int64 for classes, float32 for numbers"),
        (pairs(np.zeros(8, "int64"), X), TypeError, r"inputs are float64.*astype\('float32'\)"),
        ([(row, {"a": np.float32(1)}) for row in X.astype("float32")], TypeError, "label of type dict needs a loss"),
    ],
    ids=["too large", "negative", "one-hot", "numpy bool", "bool", "float64", "structured"],
)
@pytest.mark.parametrize("strategy", [None, hub.DefaultStrategy()], ids=["own", "strategy"])
def test_data_that_paddle_refuses_in_its_own_words(data, kind, message, strategy):
    learner = hub.Learner(nn.Linear(4, 2), data, batch_size=4, progress=False)
    with pytest.raises(kind, match=message):
        learner.fit(1, strategy=strategy)
    assert learner.recorder.losses == []


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_whole_numbers_of_any_size_are_classes(dtype):
    logits, labels = paddle.randn([6, 3]), np.array([0, 1, 2, 2, 1, 0])
    wanted = nn.functional.cross_entropy(logits, paddle.to_tensor(labels))
    for shape in ([6], [6, 1]):
        assert float(loss_of(None, logits, paddle.to_tensor(labels.reshape(shape).astype(dtype)))) == float(wanted)


def test_ignored_labels_stay_ignored():
    logits, labels = paddle.randn([4, 3]), paddle.to_tensor([0, -100, 2, 1])
    assert float(loss_of(None, logits, labels)) == float(nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("task", [hub.ClassifierTask, hub.RegressionTask])
def test_tasks_say_the_same(task, tmp_path):
    config = hub.RunConfig(batch_size=4, checkpoint_dir=str(tmp_path), strategy=hub.DefaultStrategy())
    labels = np.arange(8) if task is hub.ClassifierTask else np.zeros([8, 3], "float32")
    with pytest.raises(ValueError, match="none of the model's classes|labels have shape"):
        task(nn.Linear(4, 2), {"train": pairs(labels)}, config, verbose=False).finetune()
