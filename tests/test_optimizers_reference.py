"""Adafactor, Muon and the schedule-free optimizers, against the numbers of other libraries over 24 updates."""

import numpy as np
import paddle
import pytest
from conftest import golden
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim import Adafactor, Muon, table
from paddle_ftstrat.optim.adafactor import longest_axes
from paddle_ftstrat.optim.muon import hidden_weights, orthogonalized

CASES = golden("optimizers.json")


def arrays(shapes):
    """The start of each parameter, and the gradients of each update, as golden/make_optimizers.py has them."""
    rng = np.random.default_rng(7)
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return start, [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(24)]


def parameters(start, dtype="float64"):
    made = {}
    for name, value in start.items():
        made[name] = paddle.create_parameter(value.shape, dtype)
        made[name].set_value(paddle.to_tensor(value, dtype))
    return made


def updated(optimizer, params, grads, lrs):
    for lr, values in zip(lrs, grads):
        optimizer.set_lr(lr)
        for name, param in params.items():
            (param * paddle.to_tensor(values[name], param.dtype)).sum().backward()
        optimizer.step()
        optimizer.clear_grad()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_numbers_of_a_reference(case):
    start, grads = arrays({name: tuple(shape) for name, shape in case["shapes"].items()})
    params = parameters(start)
    cls = table.find(case["case"].partition(",")[0]).cls
    optimizer = cls(case["lrs"][0], parameters=list(params.values()), **case["options"])
    updated(optimizer, params, grads, case["lrs"])
    assert len(case["lrs"]) >= 20
    averaged = getattr(optimizer, "averaged_weights", dict)()
    for name, param in params.items():
        assert not np.allclose(param.numpy(), start[name], atol=1e-7)
        np.testing.assert_allclose(param.numpy().ravel(), case["values"][name], rtol=1e-6, atol=1e-8, err_msg=name)
        if averaged:
            x = averaged[param.name].numpy().ravel()
            np.testing.assert_allclose(x, case["averaged"][name], rtol=1e-6, atol=1e-8, err_msg=name)
    assert bool(averaged) == ("averaged" in case)


def bound(strategy, model, **options):
    """A binding that has made three updates, the same for each call."""
    run = strategy.bind(model, max_train_steps=8, **options)
    rng = np.random.default_rng(1)
    for _ in range(3):
        for param in model.parameters():
            (param.astype("float32") * paddle.to_tensor(rng.normal(size=param.shape), "float32")).sum().backward()
        run.step()
    return run


def transformer():
    class Classifier(nn.Layer):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(9, 4)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 1)
            self.lstm = nn.LSTM(4, 4)
            self.conv = nn.Conv1D(4, 4, 3)
            self.norm = nn.BatchNorm1D(4)
            self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))

    return Classifier()


HIDDEN = {
    *(f"encoder.layers.0.self_attn.{kind}_proj.weight" for kind in ("q", "k", "v", "out")),
    "encoder.layers.0.linear1.weight",
    "encoder.layers.0.linear2.weight",
    "conv.weight",
}


class TestMuon:
    def test_which_weights_are_hidden(self):
        # The head is the last layer; a Sequential is several.
        assert hidden_weights(transformer()) == HIDDEN | {"head.0.weight"}
        assert hidden_weights(nn.Linear(3, 2)) == set()

    @pytest.mark.parametrize(
        ("hidden", "expected"),
        [
            (None, HIDDEN | {"head.0.weight"}),
            (["encoder.*linear1.weight", "conv.weight"], {"encoder.layers.0.linear1.weight", "conv.weight"}),
            ("lstm.weight_ih*", {"lstm.weight_ih_l0"}),
            ([], set()),
        ],
    )
    def test_the_user_chooses(self, hidden, expected):
        strategy = hub.strategy_from_yaml(hub.DefaultStrategy(1e-3, "muon", hidden=hidden).to_yaml())
        run = bound(strategy, transformer())
        state = run.state_dict()["optimizer"]
        assert {name for name, kinds in state.items() if set(kinds) == {"momentum"}} == expected
        told = f"Muon updates {len(expected)} weights, AdamW the other {len(state) - len(expected)}"
        assert told in str(run.describe())
        others = [set(kinds) for name, kinds in state.items() if name not in expected]
        assert all(kinds == {"count", "moment1", "moment2"} for kinds in others)

    def test_what_cannot_be(self):
        with pytest.raises(ValueError, match=r"hidden: .* has shape \[2\].*leave it to AdamW"):
            hub.DefaultStrategy(1e-3, "muon", hidden="*").bind(nn.Linear(3, 2))
        with pytest.raises(ValueError, match=r"hidden matches no parameter.*weigth"):
            hub.DefaultStrategy(1e-3, "muon", hidden="weigth").bind(nn.Linear(3, 2))
        with pytest.raises(ValueError, match="'originally'. Did you mean 'original'"):
            hub.DefaultStrategy(1e-3, "muon", adjust="originally").bind(nn.Linear(3, 2))
        with pytest.raises(TypeError, match="hidden must be a function"):
            Muon(1e-3, hidden="*.weight", parameters=nn.Linear(3, 2).parameters())

    @pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5)])
    def test_singular_values_go_to_one_and_vectors_stay(self, shape):
        matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
        u, values, v = np.linalg.svd(matrix, full_matrices=False)
        found = u.T @ orthogonalized(paddle.to_tensor(matrix)).numpy() @ v.T
        np.testing.assert_allclose(found - np.diag(np.diag(found)), 0, atol=1e-4)
        assert (np.abs(np.diag(found) - 0.95) < 0.28).all()
        assert values.max() / values.min() > 1.5
        np.testing.assert_array_equal(orthogonalized(paddle.zeros(shape)).numpy(), np.zeros(shape))

    def test_a_momentum_schedule_is_muons(self):
        run = hub.OneCycleStrategy(1e-2, optimizer_name="muon").bind(transformer(), max_train_steps=8)
        assert run.hyper("mom") == pytest.approx(0.95)
        run.set_hyper("mom", 0.5)
        assert run.hyper("mom") == 0.5


class TestAdafactor:
    def test_memory_is_rows_and_columns(self):
        model = nn.Sequential(nn.Conv2D(16, 32, 3), nn.Linear(300, 200))
        run = bound(hub.DefaultStrategy(1e-3, "adafactor"), model)
        sizes = {name: sum(v.size for v in kinds.values()) for name, kinds in run.state_dict()["optimizer"].items()}
        assert sizes == {"0.weight": 1 + (16 + 32) * 9, "0.bias": 1 + 32, "1.weight": 1 + 500, "1.bias": 1 + 200}
        assert longest_axes((2, 3)) == longest_axes((3, 3)) == (0, 1)

    def test_its_momentum_is_scheduled_where_there_is_one(self):
        for beta1 in (None, 0.9):
            strategy = hub.OneCycleStrategy(1e-2, optimizer_name="adafactor", beta1=beta1)
            run = strategy.bind(nn.Linear(3, 2), max_train_steps=8)
            assert run.has_hyper("mom") == (beta1 is not None)

    @pytest.mark.parametrize(
        ("option", "value"), [("decay_rate", 0.8), ("clip_threshold", 0.0), ("epsilon1", -1.0), ("epsilon2", -1e-3)]
    )
    def test_options_out_of_range(self, option, value):
        with pytest.raises(ValueError, match=option):
            hub.DefaultStrategy(1e-3, "adafactor", **{option: value}).bind(nn.Linear(3, 2))
        with pytest.raises(TypeError, match="factored"):
            Adafactor(factored=1, parameters=nn.Linear(3, 2).parameters())


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
class TestScheduleFree:
    def strategy(self, name):
        regularization = {"weight_decay": 0.1}
        return hub.CombinedStrategy(name, 0.05, scheduler={"warmup": 0.25}, regularization=regularization)

    def test_averages_go_on_in_a_rebuilt_model(self, name):
        run = bound(self.strategy(name), nn.Linear(3, 2))
        model = nn.Linear(3, 2)
        model.set_state_dict(run.model.state_dict())
        again = self.strategy(name).bind(model, max_train_steps=8)
        assert again.optimizer.averaged_weights() == {}
        again.set_state_dict(run.state_dict())
        for key, param in run.model.named_parameters():
            x = run.optimizer.averaged_weights()[param.name].numpy()
            mine = again.optimizer.averaged_weights()[dict(model.named_parameters())[key].name]
            np.testing.assert_array_equal(mine.numpy(), x)
            assert not np.allclose(x, param.numpy(), atol=1e-4)

    def test_half_precision_averages_float32(self, name):
        model = nn.Linear(3, 2)
        wide = bound(self.strategy(name), nn.Linear(3, 2))
        wide.model.set_state_dict(model.state_dict())
        full = bound(self.strategy(name), wide.model)
        half = bound(self.strategy(name), model.to(dtype="bfloat16"))
        for key, param in half.model.named_parameters():
            x = half.optimizer.averaged_weights()[param.name]
            assert x.dtype == paddle.bfloat16
            wanted = full.optimizer.averaged_weights()[dict(full.model.named_parameters())[key].name]
            np.testing.assert_allclose(x.astype("float32").numpy(), wanted.numpy(), rtol=0.02, atol=0.02)

    def test_a_first_lr_of_zero(self, name):
        # The warmup begins with 0: nothing moves, and nothing is divided by 0.
        model = nn.Linear(3, 2)
        run = self.strategy(name).bind(model, max_train_steps=8)
        before = model.weight.numpy()
        model(paddle.ones([1, 3])).sum().backward()
        run.step()
        np.testing.assert_array_equal(model.weight.numpy(), before)
        np.testing.assert_array_equal(run.optimizer.averaged_weights()[model.weight.name].numpy(), before)

    def test_its_momentum_cannot_be_scheduled(self, name):
        run = hub.DefaultStrategy(0.1, name).bind(nn.Linear(3, 2))
        assert not run.has_hyper("mom")
        hub.OneCycleStrategy(0.1, optimizer_name=name).bind(nn.Linear(3, 2), max_train_steps=8)
        with pytest.raises(ValueError, match="has no hyper-parameter 'mom'"):
            asked = hub.OneCycleStrategy(0.1, moms=(0.9, 0.8, 0.9), optimizer_name=name)
            asked.bind(nn.Linear(3, 2), max_train_steps=8)


NEW = {
    "adafactor": {"scale_parameter": True, "relative_step": True, "beta1": 0.9},
    "muon": {"hidden": ["1.weight", "2.weight"]},
    "schedule_free_sgd": {},
    "schedule_free_adamw": {},
}


class Stop(hub.Callback):
    """Breaks off a fit as a kill would, after so many updates."""

    def __init__(self, after):
        self.after = after

    def on_batch_end(self, learner):
        if learner.state.step == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [3, 8])
@pytest.mark.parametrize("name", NEW)
@pytest.mark.filterwarnings("ignore:discriminative")
def test_with_the_rest_of_a_plan_and_broken_off(name, after, tmp_path):
    def learner(**options):
        paddle.seed(3)
        np.random.seed(3)
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2))
        pairs = paddle.io.TensorDataset([paddle.randn([48, 4]), paddle.randint(0, 2, [48])])
        return hub.Learner(model, pairs, batch_size=6, accumulate=2, progress=False, **options)

    strategy = hub.CombinedStrategy(
        name,
        0.05,
        scheduler={"slanted_triangle": {"cut_fraction": 0.3}, "discriminative": 2, "gradual_unfreeze": 2},
        regularization={"L2SP": 0.1, "weight_decay": 0.1},
        clip={"GlobalNorm": 0.5},
        **NEW[name],
    )
    unbroken = learner()
    unbroken.fit(3, strategy=strategy, pretrained="*")
    with pytest.raises(KeyboardInterrupt):
        checkpoints = hub.Checkpoints(tmp_path, every=1)
        learner(checkpoints=checkpoints, cbs=Stop(after)).fit(3, strategy=strategy, pretrained="*")
    again = learner(checkpoints=hub.Checkpoints(tmp_path, every=1))
    again.fit(3, strategy=strategy, pretrained="*")
    assert again.state.step == unbroken.state.step == 12
    for key, value in unbroken.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[key].numpy(), value.numpy(), err_msg=key)
    averages = [getattr(one.run.optimizer, "averaged_weights", dict)() for one in (unbroken, again)]
    for mine, theirs in zip(*map(dict.values, averages)):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", NEW)
def test_an_update_that_a_scaler_skips_changes_nothing(name):
    run = hub.DefaultStrategy(0.05, name, **{**NEW[name], **({"hidden": "weight"} if name == "muon" else {})}).bind(
        nn.Linear(3, 2)
    )

    class Scaler:
        """Finds an infinite gradient where it is told to, and divides by a scale of 8."""

        found = False

        def step(self, optimizer):
            with paddle.no_grad():
                for param in optimizer._parameter_list:
                    param.grad.scale_(1 / 8)
            optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([self.found]))
            optimizer.step()

        def update(self):
            pass

    def everything():
        kinds = run.state_dict()["optimizer"].items()
        state = {f"{key}/{kind}": value.numpy() for key, found in kinds for kind, value in found.items()}
        return {**state, **{key: param.numpy() for key, param in run.model.named_parameters()}}

    scaler, x = Scaler(), paddle.ones([1, 3])
    for found in (False, True, False):
        before, scaler.found = everything(), found
        (8 * run.model(x).square().sum()).backward()
        assert run.step(scaler) is not found
        after = everything()
        if found:
            np.testing.assert_equal(after, before)
        else:
            assert not np.array_equal(after["weight"], before["weight"])
