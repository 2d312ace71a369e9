"""Rows of labels: frozen ones stay as they are on every path of an update."""

import copy

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import describe, freeze_rows, unfreeze_rows, verify_frozen
from paddle_ftstrat.param_attr.rows import frozen_rows, label_axes
from paddle_ftstrat.tools.explain import explain
from paddle_ftstrat.tools.outline import outline

WORDS, LABELS = [0, 2, 5], [1, 3]


class Net(nn.Layer):
    """An embedding and a head, between them something without rows of labels."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, ids):
        return self.head(self.body(self.embedding(ids)).tanh())


def net(freeze=True):
    paddle.seed(3)
    model = Net()
    if freeze:
        freeze_rows(model.embedding, WORDS)
        freeze_rows(model.head, LABELS)
    return model


def frozen_values(model):
    head = model.head
    return [
        model.embedding.weight.numpy()[WORDS],
        head.weight.numpy()[:, LABELS],
        head.bias.numpy()[LABELS],
    ]


def assert_held(before, model):
    for was, now in zip(before, frozen_values(model)):
        np.testing.assert_array_equal(now, was)


def backward(model, t):
    paddle.seed(t)
    (model(paddle.randint(0, 7, [16])).square().mean() * 3).backward()


def trained(run, first=0, last=20, unfreezing=None):
    for t in range(first, last):
        if unfreezing and t % unfreezing == 0:
            run.begin_epoch()
        backward(run.model, t)
        run.step()
    return run


OPTIMIZERS = {
    "sgd": {},
    "momentum": {"use_nesterov": True},
    "adam": {"weight_decay": 0.1},
    "adamw": {"weight_decay": 0.3},
    "lamb": {},
    "lion": {"weight_decay": 0.1},
    "rmsprop": {},
    "larsmomentum": {},
}
REGULARIZATION = [{}, {"L2": 0.1, "weight_decay": 0.2}, {"L2SP": 0.2}]
CLIPS = [{}, {"GlobalNorm": 0.1}, {"Norm": 0.05}, {"Value": 0.01}]


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", range(4))
def test_frozen_rows_stay_bit_for_bit(optimizer, fused, case):
    model = net()
    before, start = frozen_values(model), [p.numpy() for p in model.parameters()]
    strategy = hub.CombinedStrategy(
        optimizer,
        0.05,
        scheduler={"discriminative": {"blocks": 3, "factor": 2.0}, "gradual_unfreeze": 2},
        regularization=REGULARIZATION[case % 3] if "weight_decay" not in OPTIMIZERS[optimizer] else {},
        clip=CLIPS[case],
        **OPTIMIZERS[optimizer],
    )
    run = strategy.bind(model, num_epoch=2, steps_per_epoch=10, pretrained="*", fused=fused)
    trained(run, unfreezing=10)
    assert_held(before, model)
    if fused is None and optimizer in ("sgd", "momentum", "adam", "adamw"):
        assert run.optimizer.step.path().startswith("fused updates")
    for param, was in zip(model.parameters(), start):
        free = np.setdiff1d(np.arange(was.size), np.flatnonzero(param.numpy() == was))
        assert free.size, f"{param.name}: the other rows train"


@pytest.mark.parametrize("fused", [None, False])
def test_frozen_rows_have_no_part_in_the_norm(fused):
    """Against numpy, over 20 updates: momentum, global norm and L2SP of the other rows alone."""
    weight = np.random.RandomState(0).randn(4, 3).astype("float32")
    layer = nn.Linear(4, 3, weight_attr=nn.initializer.Assign(weight), bias_attr=False)
    freeze_rows(layer.weight, [0, 2], axis=1)
    keys = {"regularization": {"L2SP": 0.3}, "clip": {"GlobalNorm": 0.5}}
    strategy = hub.CombinedStrategy("momentum", 0.1, momentum=0.8, **keys)
    run = strategy.bind(layer, pretrained="*", fused=fused)
    w, velocity, free = weight.astype("float64"), np.zeros(4), 1
    for t in range(20):
        x = np.random.RandomState(t).randn(8, 4)
        layer(paddle.to_tensor(x.astype("float32"))).square().sum().backward()
        grad = 2 * x.T @ (x @ w[:, free])
        grad = grad * 0.5 / max(np.linalg.norm(grad), 0.5) + 0.3 * (w[:, free] - weight[:, free])
        velocity = 0.8 * velocity + grad
        w[:, free] -= 0.1 * velocity
        run.step()
    np.testing.assert_allclose(layer.weight.numpy(), w, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["momentum", "lion"])
def test_in_half_precision(dtype, optimizer):
    model = net().to(dtype=dtype)
    before = frozen_values(model)
    run = hub.CombinedStrategy(optimizer, 0.05, regularization={"L2": 0.1, "weight_decay": 0.2}).bind(model)
    for t in range(5):
        for param in model.parameters():
            paddle.sum(param.astype("float32") * (t + 1)).backward()
        run.step()
    assert_held(before, model)
    assert (model.head.bias.astype("float32").numpy()[[0, 2, 4]] != 0).all()


def test_with_a_scaler():
    model = net()
    before, scaler = frozen_values(model), paddle.amp.GradScaler(init_loss_scaling=64.0)
    run = hub.AdamWeightDecayStrategy(0.05, weight_decay=0.3).bind(model, max_train_steps=20)
    for _ in range(5):
        scaler.scale(model(paddle.randint(0, 7, [16])).square().mean()).backward()
        run.step(scaler)
    assert_held(before, model)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW", "LAMB", "RMSprop"])
def test_in_groups_of_ones_own_without_a_binding(name):
    model = net()
    before = frozen_values(model)
    options = {"weight_decay": 0.1} if name not in ("Adagrad",) else {}
    params = [{"params": list(model.parameters()), "lr": 0.05, "clip_grad_max_norm": 0.1, **options}]
    optimizer = getattr(hub.optim, name)(params)
    for t in range(5):
        backward(model, t)
        optimizer.clip_grad()
        assert not model.head.weight.grad.numpy()[:, LABELS].any()
        optimizer.step()
        optimizer.zero_grad()
    assert_held(before, model)
    assert (model.head.bias.numpy()[[0, 2, 4]] != 0).all()


def signs(param, grad, lr, state):
    param.subtract_(paddle.sign(grad) * lr)


@pytest.mark.parametrize("bound", [True, False])
def test_with_an_optimizer_written_by_hand(bound):
    model, cls = net(), hub.optim.custom.from_function(signs)
    before = frozen_values(model)
    if bound:
        run = hub.CombinedStrategy(cls, 0.05, regularization={"weight_decay": 0.1}).bind(model)
    for t in range(3):
        backward(model, t)
        if bound:
            run.step()
        else:
            optimizer = cls(0.05, list(model.parameters()))
            optimizer.step()
            optimizer.clear_grad()
    assert_held(before, model)


def test_an_optimizer_of_paddles_kind():
    """`_append_optimize_op` in a plain `paddle.optimizer.Optimizer`."""

    class Plain(paddle.optimizer.Optimizer):
        def _append_optimize_op(self, block, param_and_grad):
            param, grad = param_and_grad
            param.subtract_(paddle.sign(grad) * 0.1 + 0.01)

    model = net()
    before = frozen_values(model)
    trained(hub.DefaultStrategy(0.05, Plain).bind(model), 0, 3)
    assert_held(before, model)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("again", [True, False], ids=["frozen again by the script", "by the state alone"])
def test_resuming_is_bit_for_bit(fused, again):
    def bound(model):
        strategy = hub.CombinedStrategy(
            "momentum", 0.05, regularization={"L2SP": 0.2, "weight_decay": 0.1}, clip={"Norm": 1}
        )
        return strategy.bind(model, pretrained="*", fused=fused)

    whole = trained(bound(net()), 0, 20)
    half = trained(bound(net()), 0, 10)
    state, weights = copy.deepcopy(half.state_dict()), copy.deepcopy(half.model.state_dict())
    other = bound(net(freeze=again))
    other.model.set_state_dict(weights)
    other.set_state_dict(state)
    trained(other, 10, 20)
    for a, b in zip(whole.model.parameters(), other.model.parameters()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert frozen_rows(other.model.head.bias).rows == tuple(LABELS)


@pytest.mark.parametrize(
    "noted",
    [
        {"heads.bias": [0, [1]]},
        {"head.bias": [0, [5]]},
        {"head.bias": [1, [0]]},
        {"head.bias": 3},
        [],
        {"head.bias": [0, "a"]},
    ],
)
def test_a_state_with_other_rows_is_refused(noted):
    run = hub.DefaultStrategy().bind(net())
    with pytest.raises(ValueError, match="the frozen rows of the state are none of this model's"):
        run.set_state_dict({**run.state_dict(), "frozen_rows": noted})
    assert frozen_rows(run.model.head.bias).rows == tuple(LABELS)


def test_in_a_learner_with_an_average_and_checkpoints(tmp_path):
    ids = paddle.randint(0, 7, [24])
    data = paddle.io.TensorDataset([ids, ids % 5])

    def learner(freeze=True):
        return hub.Learner(net(freeze), data, batch_size=8, progress=False, checkpoints=tmp_path)

    one, average = learner(), hub.EMA(0.5)
    before = frozen_values(one.model)
    with verify_frozen(one.model) as watched:
        one.fit(2, strategy=hub.AdamWeightDecayStrategy(0.1, weight_decay=0.3), cbs=[average])
    assert len(watched) == 3
    assert_held(before, one.model)
    with average.averaged():
        assert_held(before, one.model)
    with pytest.raises(ValueError, match=r"frozen rows: \[0, \[0, 2, 5\]\] in the checkpoint, absent now"):
        learner(freeze=False).fit(3, strategy=hub.AdamWeightDecayStrategy(0.1, weight_decay=0.3), cbs=[hub.EMA(0.5)])


@pytest.mark.parametrize("averaging", [{"EMA": 0.5}, {"SWA": {"start": 0.25}}], ids=["EMA", "SWA"])
@pytest.mark.parametrize(("optimizer", "fused"), [("momentum", True), ("momentum", False), ("lion", None)])
def test_an_average_sees_frozen_rows_as_they_are_kept(optimizer, fused, averaging):
    paddle.seed(0)
    model = nn.Linear(4, 3)
    freeze_rows(model, [1])
    before = model.weight.numpy()
    strategy = hub.CombinedStrategy(optimizer, 0.1, regularization={"weight_decay": 0.1}, averaging=averaging)
    run = strategy.bind(model, max_train_steps=8, fused=fused)
    for x in paddle.randn([8, 5, 4]):
        model(x).square().mean().backward()
        run.step()
    with run.averaged():
        assert (model.weight.numpy() == before).all(0).tolist() == [False, True, False]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("fused", [None, False])
def test_an_update_of_several_batches(optimizer, fused):
    paddle.seed(0)
    model = nn.Linear(4, 3)
    freeze_rows(model, [1])
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    strategy = hub.CombinedStrategy(optimizer, 0.05, regularization={"L2SP": 0.1}, clip={"GlobalNorm": 0.5})
    run = strategy.bind(model, pretrained="*", fused=fused)
    for batches in paddle.randn([6, 2, 5, 4]):
        for x in batches:
            (model(x).square().mean() / 2).backward()
        run.step()
    for name, value in model.state_dict().items():
        assert (value.numpy() == before[name])[..., 1].all()
        assert (value.numpy() != before[name])[..., [0, 2]].any()


@pytest.mark.parametrize(("optimizer", "fused"), [("momentum", True), ("momentum", False), ("lion", None)])
def test_a_refused_update_leaves_no_rows_behind(optimizer, fused):
    model = nn.Linear(4, 3)
    freeze_rows(model, [1])
    run = hub.DefaultStrategy(0.1, optimizer).bind(model, fused=fused)
    (model(paddle.ones([2, 4])) * float("nan")).sum().backward()
    with pytest.raises(FloatingPointError):
        run.step()
    unfreeze_rows(model)
    before = model.weight.numpy()
    model(paddle.ones([2, 4])).sum().backward()
    run.step()
    assert (model.weight.numpy() != before).all()


def test_under_a_binding_it_takes_effect_at_once_and_is_undone():
    model = net(freeze=False)
    run = trained(hub.DefaultStrategy(0.1, "momentum").bind(model), 0, 2)
    freeze_rows(model.embedding, WORDS)
    freeze_rows(model.head, LABELS)
    before = frozen_values(model)
    trained(run, 2, 4)
    assert_held(before, model)
    unfreeze_rows(model.head)
    unfreeze_rows(model.embedding.weight, WORDS[:1])
    trained(run, 4, 6)
    now = frozen_values(model)
    assert (now[1] != before[1]).any()
    assert (now[0] != before[0]).any(axis=1).tolist() == [True, False, False]
    run.release()
    assert frozen_rows(model.embedding.weight).rows == (2, 5)


def test_it_is_described_and_copied():
    model = copy.deepcopy(net())
    rows = {row.name: row for row in describe(model)}
    assert rows["head.weight"].frozen_rows.rows == (1, 3)
    assert rows["body.weight"].frozen_rows is None
    run = hub.DefaultStrategy().bind(model)
    text = str(run.describe())
    assert "yes; 2 of 5 rows (axis 1) frozen" in text
    assert "yes; 3 of 7 rows frozen" in text
    assert "51 of 73 values train now" in text
    np.testing.assert_equal(run.state_dict()["frozen_rows"]["head.weight"], [1, [1, 3]])
    assert "head.bias with 2 of 5 rows frozen" in explain(outline(hub.DefaultStrategy(), 10, 1, model))


def test_the_axes_of_labels():
    model = nn.Sequential(
        nn.Conv2D(1, 2, 3), nn.Conv2DTranspose(2, 3, 3), nn.LayerNorm(4), nn.Embedding(3, 2), nn.LSTM(2, 2)
    )
    found = {name: axis for name, axis in label_axes(model).items() if "weight" in name and name[0] in "013"}
    assert found == {"0.weight": 0, "1.weight": 1, "3.weight": 0}
    layer = nn.Conv2DTranspose(2, 3, 3)
    freeze_rows(layer, [True, False, True])
    before = layer.weight.numpy()
    run = hub.DefaultStrategy(0.1, "sgd").bind(layer)
    layer(paddle.ones([1, 2, 4, 4])).sum().backward()
    run.step()
    np.testing.assert_array_equal((layer.weight.numpy() == before).all((0, 2, 3)), [True, False, True])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: freeze_rows(m.embedding.weight, [7]), ValueError, "index 7, but there are 7 rows: 0 to 6"),
        (lambda m: freeze_rows(m.embedding.weight, [-1]), ValueError, "index -1"),
        (lambda m: freeze_rows(m.embedding.weight, []), TypeError, "rows must be a list"),
        (lambda m: freeze_rows(m.embedding.weight, ["a"]), TypeError, "rows must be a list"),
        (lambda m: freeze_rows(m.embedding.weight, [0.5]), TypeError, "rows must be a list"),
        (lambda m: freeze_rows(m.embedding.weight, [True] * 6), ValueError, "6 booleans"),
        (lambda m: freeze_rows(m.embedding.weight, [0], axis=2), ValueError, "axis = 2"),
        (lambda m: freeze_rows(m.head.weight, [0]), ValueError, r"columns: say axis=1"),
        (lambda m: freeze_rows(m.head, [0], axis=1), ValueError, "give a parameter"),
        (lambda m: freeze_rows(m, [0]), ValueError, "Net: rows of a whole layer"),
        (lambda m: freeze_rows(nn.LSTM(2, 2), [0]), ValueError, "LSTM"),
        (lambda m: freeze_rows("head", [0]), TypeError, "not str"),
        (lambda m: (freeze_rows(m.embedding, [0]), freeze_rows(m.embedding.weight, [0], axis=1)), ValueError, "axis 1"),
        (lambda m: (freeze_rows(m.embedding, [0]), unfreeze_rows(m.embedding.weight, axis=1)), ValueError, "axis 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call(net(freeze=False))


def test_sparse_gradients_are_refused():
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Linear(2, 2))
    freeze_rows(model[0], [1])
    with pytest.raises(ValueError, match=r"freeze_rows needs dense gradients: build \['0'\]"):
        hub.DefaultStrategy(0.1, "sgd").bind(model)
