"""Freezing: nothing frozen moves by a single bit, BatchNorm included, and all of it can be undone."""

import collections
import copy
import dataclasses
import re
import warnings

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.vision.models import resnet18

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import describe, settings
from paddle_ftstrat.param_attr.freezing import freeze, freeze_stage, unfreeze, verify_frozen
from paddle_ftstrat.param_attr.select import named_weights, statistics

BELOW = ["conv1", "bn1", "layer1", "layer2", "layer3"]


def small(norm=nn.BatchNorm2D, **kw):
    return nn.Sequential(nn.Conv2D(3, 4, 3), norm(4, **kw), nn.ReLU(), nn.Conv2D(4, 2, 3), norm(2, **kw))


def images(batch=4, size=32):
    return paddle.randn([batch, 3, size, size])


def contents(model):
    """The bytes of all weights and statistics."""
    return {name: t.numpy().tobytes() for name, t in {**named_weights(model), **statistics(model)}.items()}


def train(model, optimizer, steps=1, size=8):
    for _ in range(steps):
        model(images(size=size)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()


def adamw(model):
    return paddle.optimizer.AdamW(0.01, parameters=model.parameters(), weight_decay=0.1)


class TestResNet18:
    def test_nothing_below_the_boundary_moves_in_20_steps(self):
        model = resnet18(num_classes=3)
        model.train()
        with paddle.no_grad():
            model(images())  # statistics that are not zeros and ones any more
        frozen = freeze(model, BELOW)
        before = contents(model)
        clip = nn.ClipGradByGlobalNorm(1.0)
        optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters(), weight_decay=0.1, grad_clip=clip)
        with verify_frozen(model) as watched:
            train(model, optimizer, steps=20, size=32)
        after = contents(model)
        below = [name for name in before if name.split(".")[0] in BELOW]
        assert set(watched) == set(below)
        assert len(frozen) == 45
        assert len(below) == 45 + 2 * 15
        assert [name for name in below if after[name] != before[name]] == []
        assert [name for name in before if name not in below and after[name] == before[name]] == []

    def test_output_below_the_boundary_is_that_of_eval(self):
        model = resnet18(num_classes=3)
        x = images()
        with paddle.no_grad():
            model(x)
            freeze(model)
            model.eval()
            in_eval = model(x).numpy()
            model.train()
            np.testing.assert_array_equal(model(x).numpy(), in_eval)

    def test_a_strategy_leaves_it_frozen(self):
        model = resnet18(num_classes=3)
        freeze(model, BELOW)
        run = hub.ULMFiTStrategy(0.01, "momentum").bind(model, max_train_steps=6, sample_input=images(2))
        with verify_frozen(model):
            for _ in range(3):
                run.begin_epoch()
                for _ in range(2):
                    model(images(2)).square().mean().backward()
                    run.step()
        run.release()
        assert not settings.own(model.conv1.weight).trainable
        assert settings.own(model.fc.weight).trainable


class TestParameters:
    @pytest.mark.parametrize(
        "patterns", ["0", ["0.*"], re.compile(r"0\..*"), lambda name, param: name.startswith("0."), "layer"]
    )
    def test_patterns(self, patterns):
        model = small()
        assert freeze(model, model[0] if patterns == "layer" else patterns) == ["0.weight", "0.bias"]
        assert [name for name, param in named_weights(model).items() if param.stop_gradient] == ["0.weight", "0.bias"]

    def test_decay_momentum_and_clip_norm_leave_it_alone(self):
        model, plain = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4)
        plain.set_state_dict(model[1].state_dict())
        gradient = paddle.randn([4, 4])
        results = []
        for owner, layer in ((model, model[1]), (plain, plain)):
            clip = nn.ClipGradByGlobalNorm(0.5)
            optimizer = paddle.optimizer.Momentum(0.1, parameters=owner.parameters(), weight_decay=0.1, grad_clip=clip)
            for _ in range(3):
                if owner is model:
                    (model[0].weight * 1e3).sum().backward()  # a gradient from before freezing must not count
                    freeze(model, "0")
                (layer.weight * gradient).sum().backward()
                optimizer.step()
                optimizer.clear_grad()
                if owner is model:
                    unfreeze(model)
            results.append(layer.weight.numpy())
        np.testing.assert_array_equal(*results)

    def test_statistics_stay_out_of_it(self):
        model = small()
        freeze(model)
        unfreeze(model)
        assert unfreeze(model, "*") == []
        assert all(stat.stop_gradient for stat in statistics(model).values())

    def test_errors_name_what_is_allowed(self):
        model = small()
        before = {name: settings.in_force(param) for name, param in named_weights(model).items()}
        with pytest.raises(ValueError, match="patterns matches no parameter.*Did you mean"):
            freeze(model, ["0", "3.wieght"])
        with pytest.raises(ValueError, match="policy 'freze'.*Did you mean 'freeze'.*track"):
            freeze(model, batch_norm="freze")
        with pytest.raises(TypeError, match="must be a paddle.nn.Layer"):
            freeze(model.parameters())
        assert {name: settings.in_force(param) for name, param in named_weights(model).items()} == before
        assert model[1]._use_global_stats is None

    def test_wrapped_model(self, monkeypatch):
        model = small()
        wrapped = paddle.DataParallel(model)
        assert freeze(wrapped, "0") == ["0.weight", "0.bias"]
        assert unfreeze(wrapped) == ["0.weight", "0.bias"]
        monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
        with pytest.raises(RuntimeError, match="freeze first, then wrap"):
            freeze(wrapped, "0")

    def test_compiled_model(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        compiled = paddle.jit.to_static(model)
        x = paddle.ones([1, 2])
        for change, trains in ((freeze, False), (unfreeze, True), (freeze, False)):
            change(model, "0")
            compiled(x).sum().backward()
            assert (model[0].weight.grad is not None) is trains
            model.clear_gradients()


class TestUnfreeze:
    def test_undoes_exactly(self):
        model = small()
        model[0].bias.stop_gradient = True
        model[4]._use_global_stats = False
        before = {name: settings.in_force(param) for name, param in named_weights(model).items()}
        freeze(model, "0")
        freeze(model)
        freeze(model)
        assert len(unfreeze(model)) == 7
        assert {name: settings.in_force(param) for name, param in named_weights(model).items()} == before
        assert (model[1]._use_global_stats, model[4]._use_global_stats) == (None, False)

    def test_after_it_the_model_trains_as_if_never_frozen(self):
        paddle.seed(3)
        models = [small(), small()]
        models[1].set_state_dict(models[0].state_dict())
        freeze(models[1])
        unfreeze(models[1])
        for model in models:
            paddle.seed(4)
            train(model, adamw(model), steps=3)
        assert contents(models[0]) == contents(models[1])

    def test_part_by_part(self):
        model = small()
        freeze(model)
        assert unfreeze(model, "1.bias") == ["1.bias"]
        assert model[1]._use_global_stats is None
        assert model[4]._use_global_stats is True
        assert unfreeze(model[3]) == ["weight", "bias"]
        assert unfreeze(model) == ["0.weight", "0.bias", "1.weight", "4.weight", "4.bias"]

    def test_patterns_thaw_what_others_froze(self):
        model = small()
        model[0].weight.stop_gradient = True
        with pytest.raises(ValueError, match=r"froze nothing here.*0\.weight"):
            unfreeze(model)
        assert unfreeze(model, "*") == ["0.weight"]
        assert not model[0].weight.stop_gradient

    def test_nothing_to_undo(self):
        assert unfreeze(small()) == []

    def test_constants_of_a_layer_are_not_thawed(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.SpectralNorm([2, 2]))
        freeze(model)
        assert unfreeze(model) == ["0.weight", "0.bias"]
        assert model[1].weight_u.stop_gradient

    def test_shared_parameter(self):
        model = nn.Sequential(nn.Linear(3, 3, bias_attr=False), nn.Linear(3, 3, bias_attr=False))
        model[1].weight = model[0].weight
        assert freeze(model[0]) == ["weight"]
        assert freeze(model, "1") == ["0.weight"]
        assert unfreeze(model) == ["0.weight"]
        assert unfreeze(model) == []

    def test_of_a_copy(self):
        model = small()
        freeze(model, batch_norm="freeze")
        twin = copy.deepcopy(model)
        with verify_frozen(twin):
            train(nn.Sequential(twin, nn.Conv2D(2, 1, 1)), adamw(twin))
        assert len(unfreeze(twin)) == 8
        assert twin[1]._use_global_stats is None
        assert model[1]._use_global_stats is True
        assert model[0].weight.stop_gradient


class TestBatchNorm:
    def test_track_moves_the_statistics(self):
        model = small()
        freeze(model, batch_norm="track")
        before = contents(model)
        x = images(size=8)
        model(x)
        moved = [name for name, data in contents(model).items() if data != before[name]]
        assert moved == list(statistics(model))
        freeze(model, batch_norm="freeze")
        before = contents(model)
        model(x)
        assert contents(model) == before

    def test_survives_train_and_eval(self):
        model = small()
        freeze(model)
        before = contents(model)
        for mode in (model.eval, model.train):
            mode()
            model(images(size=8))
        assert contents(model) == before

    def test_half_frozen_layer_goes_on(self):
        model = small()
        freeze(model, "*.weight")
        assert model[1]._use_global_stats is None
        freeze(model, "1.bias")
        assert model[1]._use_global_stats is True
        assert model[4]._use_global_stats is None

    @pytest.mark.parametrize(
        "patterns", [None, "body", "body.*", re.compile("body.*"), lambda name, param: "body" in name, "layer"]
    )
    def test_layers_without_weights(self, patterns):
        model = nn.Sequential(
            ("body", nn.Sequential(nn.Conv2D(3, 2, 3), nn.BatchNorm2D(2, weight_attr=False, bias_attr=False))),
            ("head", nn.Sequential(nn.Conv2D(2, 2, 3), nn.BatchNorm2D(2, weight_attr=False, bias_attr=False))),
        )
        freeze(model, model["body"] if patterns == "layer" else patterns)
        before = contents(model)
        model(images(size=8))
        moved = {name.split(".")[0] for name, data in contents(model).items() if data != before[name]}
        assert moved == ({"head"} if patterns else set())
        unfreeze(model)
        before = contents(model)
        model(images(size=8))
        assert [contents(model)[name] != data for name, data in before.items()] == [
            name.endswith(("_mean", "_variance")) for name in before
        ]

    def test_old_batch_norm(self):
        model = nn.Sequential(nn.Conv2D(3, 2, 3), nn.BatchNorm(2))
        freeze(model)
        before = contents(model)
        model(images(size=8))
        assert contents(model) == before
        unfreeze(model)
        assert model[1]._use_global_stats is False

    def test_sync_batch_norm(self):
        model, plain = small(nn.SyncBatchNorm), small()
        plain.set_state_dict(model.state_dict())
        freeze(model)
        plain.eval()
        x = images(size=8)
        np.testing.assert_array_equal(model(x).numpy(), plain(x).numpy())
        twin = copy.deepcopy(model)
        unfreeze(twin)
        assert type(twin[1]) is nn.SyncBatchNorm
        assert isinstance(model[1], nn.SyncBatchNorm)

    def test_own_sync_batch_norm_is_refused(self):
        class Own(nn.SyncBatchNorm):
            pass

        model = small(Own)
        with pytest.raises(ValueError, match="subclasses of SyncBatchNorm.*1, 4"):
            freeze(model)
        assert not model[0].weight.stop_gradient
        assert len(freeze(model, batch_norm="track")) == 8

    def test_gradient_through_fixed_statistics(self):
        layer = nn.BatchNorm2D(2)
        layer(images(size=4)[:, :2])
        freeze(layer)
        x = images(size=4)[:, :2].detach()
        x.stop_gradient = False
        (layer(x) * 3).sum().backward()
        slope = 3 * layer.weight.numpy() / np.sqrt(layer._variance.numpy() + 1e-5)
        np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(slope[:, None, None], x.shape), rtol=1e-5)


class TestVerifyFrozen:
    def test_names_what_changed(self):
        model = small()
        freeze(model, "0")
        with pytest.raises(RuntimeError, match="frozen, but changed: 0.weight$"), verify_frozen(model):
            model[0].weight.set_value(model[0].weight + 1e-6)

    def test_statistics_below_parameters_frozen_by_hand(self):
        model = small()
        for param in model.parameters():
            param.stop_gradient = True
        told = r"1\._mean, 1\._variance, 4\._mean.*batch_norm=.freeze"
        with pytest.raises(RuntimeError, match=told), verify_frozen(model):
            model(images(size=8))

    def test_track_is_as_asked(self):
        model = small()
        freeze(model, batch_norm="track")
        with verify_frozen(model) as watched:
            model(images(size=8))
        assert watched == list(named_weights(model))

    def test_a_replaced_parameter_is_a_change(self):
        model = small()
        freeze(model, "0")
        with pytest.raises(RuntimeError, match=r"0\.bias"), verify_frozen(model):
            model[0].bias = model.create_parameter([4], default_initializer=nn.initializer.Constant(1.0))

    def test_an_error_inside_comes_through(self):
        model = small()
        freeze(model)
        with pytest.raises(KeyError), verify_frozen(model):
            model[0].weight.set_value(model[0].weight + 1)
            raise KeyError

    def test_thawed_inside(self):
        model = small()
        freeze(model, "0")
        with pytest.raises(RuntimeError, match="0.weight, 0.bias"), verify_frozen(model):
            unfreeze(model)
            train(model, adamw(model))


class TestRequiresGrad:
    """`p.requires_grad = False` does nothing on paddlepaddle 2.6 and freezes on 3.x."""

    def ignored(self, model):
        model[0].weight.requires_grad = False
        return not model[0].weight.stop_gradient

    def test_describe_shows_what_is(self):
        model = small()
        ignored = self.ignored(model)
        train(model, adamw(model))
        moved = model[0].weight.grad is not None
        assert describe(model)[0].trainable is ignored is moved

    def test_freeze_and_unfreeze_warn(self):
        model = small()
        ignored = self.ignored(model)
        for change in (freeze, unfreeze):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                change(model, "3")
            told = [str(w.message) for w in caught if "requires_grad" in str(w.message)]
            assert len(told) == ignored
            assert all(text.startswith("0.weight train: paddlepaddle") for text in told)

    def test_freezing_it_makes_it_true(self):
        model = small()
        self.ignored(model)
        freeze(model, "0")
        assert model[0].weight.stop_gradient
        unfreeze(model, "0")
        assert not model[0].weight.stop_gradient
        assert getattr(model[0].weight, "requires_grad", True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            freeze(model, "3")

    def test_verify_frozen_is_not_fooled(self):
        model = small()
        ignored = self.ignored(model)
        if ignored:
            with pytest.raises(RuntimeError, match=r"changed: 0\.weight.*ignores .requires_grad"), verify_frozen(model):
                train(model, adamw(model))
        else:
            with verify_frozen(model) as watched:
                train(model, adamw(model))
            assert watched == ["0.weight"]


class TestUnderABinding:
    def gradual(self, model, **kw):
        strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"gradual_unfreeze": 3}, **kw)
        return strategy.bind(model, max_train_steps=30, pretrained="*" if kw else None)

    def trainable(self, model):
        return [not layer.weight.stop_gradient for layer in model]

    def net(self):
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))

    def test_freeze_takes_effect_at_once_and_stays(self):
        model = self.net()
        run = self.gradual(model)
        seen = []
        for epoch in range(1, 5):
            run.begin_epoch()
            if epoch == 2:
                freeze(model, "2")
            seen.append(self.trainable(model))
        assert seen == [[False, False, True], [False, True, False], [True, True, False], [True, True, False]]
        assert "frozen" in str(run.describe()).splitlines()[5]

    def test_a_layer_frozen_before_its_turn_is_not_thawed(self):
        model = self.net()
        run = self.gradual(model)
        freeze(model, "0")
        for _ in range(4):
            run.begin_epoch()
            assert model[0].weight.stop_gradient
        with verify_frozen(model):
            model(paddle.ones([1, 2])).sum().backward()
            run.step()

    def test_unfreeze_gives_back_to_the_plan(self):
        model = self.net()
        freeze(model)
        run = self.gradual(model)
        assert run.describe()[0].first_epoch == 0
        run.begin_epoch()
        assert self.trainable(model) == [False, False, False]
        unfreeze(model)
        assert self.trainable(model) == [False, False, True]
        assert run.describe()[0].first_epoch == 3
        run.begin_epoch()
        assert self.trainable(model) == [False, True, True]
        run.begin_epoch()
        assert self.trainable(model) == [True, True, True]

    def test_freeze_and_unfreeze_leave_no_trace(self):
        model = self.net()
        run = self.gradual(model)
        run.begin_epoch(2)
        before = run.describe().to_dict()
        freeze(model)
        unfreeze(model)
        assert run.describe().to_dict() == before
        run.release()
        assert all(settings.in_force(param).trainable for param in model.parameters())

    def test_l2sp_anchors_what_is_thawed_under_the_binding(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        freeze(model, "0")
        strategy = hub.L2SPFinetuneStrategy(0.1, "sgd", regularization_coeff=0.5)
        run = strategy.bind(model, pretrained="*")
        start = model[0].weight.numpy().astype("float64")
        assert set(run.state_dict()["anchors"]) == {"1.weight", "1.bias"}
        unfreeze(model)
        expected = start
        for _ in range(3):
            (model[0].weight * 2).sum().backward()
            run.step()
            expected = expected - 0.1 * (2 + 0.5 * (expected - start))
        np.testing.assert_allclose(model[0].weight.numpy(), expected, rtol=1e-5)
        np.testing.assert_array_equal(run.state_dict()["anchors"]["0.weight"].numpy(), start.astype("float32"))

    def test_l2sp_state_goes_over_with_its_anchors(self):
        model, twin = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
        twin.set_state_dict(model.state_dict())
        strategy = hub.L2SPFinetuneStrategy(0.1, "sgd", regularization_coeff=0.5)
        runs = []
        for layers in (model, twin):
            freeze(layers, "0")
            runs.append(strategy.bind(layers, pretrained="*"))
        unfreeze(model)
        (model[0].weight * 2).sum().backward()
        runs[0].step()
        unfreeze(twin)
        twin.set_state_dict(model.state_dict())
        runs[1].set_state_dict(runs[0].state_dict())
        for layers, run in zip((model, twin), runs):
            (layers[0].weight * 2).sum().backward()
            run.step()
        np.testing.assert_array_equal(model[0].weight.numpy(), twin[0].weight.numpy())

    def test_it_reaches_a_compiled_model(self):
        model = self.net()
        run = hub.DefaultStrategy(0.1, "sgd").bind(model)
        compiled = paddle.jit.to_static(model)
        compiled(paddle.ones([1, 2])).sum().backward()
        run.step()
        freeze(model, "0")
        with verify_frozen(model):
            compiled(paddle.ones([1, 2])).sum().backward()
            run.step()
        before = model[0].weight.numpy()
        unfreeze(model)
        compiled(paddle.ones([1, 2])).sum().backward()
        run.step()
        assert np.abs(model[0].weight.numpy() - before).max() > 0


@dataclasses.dataclass
class Output:
    hidden: paddle.Tensor
    mask: object = None


Pair = collections.namedtuple("Pair", "hidden extra")

SHAPES = {
    "tensor": (lambda x: x, lambda y: y),
    "tuple": (lambda x: (1, x), lambda y: y[1]),
    "list": (lambda x: [x, None], lambda y: y[0]),
    "dict": (lambda x: {"hidden": x, "name": "a"}, lambda y: y["hidden"]),
    "ordered": (lambda x: collections.OrderedDict(hidden=x), lambda y: y["hidden"]),
    "namedtuple": (lambda x: Pair(x, None), lambda y: y.hidden),
    "dataclass": (lambda x: Output(x), lambda y: y.hidden),
    "nested": (lambda x: {"layers": [(x, 2.0)]}, lambda y: y["layers"][0][0]),
}


class Staged(nn.Layer):
    """Two stages; the first gives its result in one of SHAPES."""

    def __init__(self, shape="tensor"):
        super().__init__()
        pack, self.unpack = SHAPES[shape] if isinstance(shape, str) else shape

        class Stage(nn.Linear):
            def forward(self, x):
                return pack(super().forward(x))

        self.stem, self.stage1, self.stage2 = nn.Linear(2, 2), Stage(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        self.seen = self.stage1(self.stem(x))
        return self.stage2(self.unpack(self.seen))


def with_gradient(model):
    model.clear_gradients()
    for param in model.parameters():
        param.clear_gradient(False)
    model(paddle.ones([3, 2])).sum().backward()
    return [name for name, param in model.named_parameters() if param.grad is not None]


TOP = ["stage2.weight", "stage2.bias"]
ALL = ["stem.weight", "stem.bias", "stage1.weight", "stage1.bias", *TOP]


class TestFreezeStage:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_cuts_the_output(self, shape):
        model = Staged(shape)
        expected = model(paddle.ones([1, 2])).numpy()
        kind = type(model.seen)
        with freeze_stage(model.stage1):
            assert with_gradient(model) == TOP
            np.testing.assert_array_equal(model(paddle.ones([1, 2])).numpy(), expected)
            assert type(model.seen) is kind
            assert model.unpack(model.seen).stop_gradient
        assert with_gradient(model) == ALL

    def test_remove(self):
        model = Staged()
        stage = freeze_stage(model.stage1)
        assert with_gradient(model) == TOP
        stage.remove()
        stage.remove()
        assert with_gradient(model) == ALL

    def test_removed_when_an_exception_leaves_the_block(self):
        model = Staged()
        with pytest.raises(KeyError), freeze_stage(model.stage1):
            raise KeyError
        assert with_gradient(model) == ALL

    def test_no_graph_is_kept_below(self):
        model = Staged()
        freeze_stage(model.stage1)
        model(paddle.ones([1, 2]))
        assert model.seen.grad_fn is None

    def test_input_of_a_layer_that_returns_it_stays_as_it_is(self):
        layer = nn.Identity()
        x = paddle.ones([2])
        x.stop_gradient = False
        with freeze_stage(layer):
            assert layer(x).stop_gradient
        assert not x.stop_gradient

    def test_unknown_output_is_refused(self):
        model = Staged((lambda x: {"hidden": x, "cache": object()}, lambda y: y["hidden"]))
        with freeze_stage(model.stage1), pytest.raises(TypeError, match="output of Stage, which holds a object"):
            model(paddle.ones([1, 2]))
        with pytest.raises(TypeError, match="must be a paddle.nn.Layer"):
            freeze_stage(model.stage1.weight)

    def test_an_optimizer_leaves_it_alone(self):
        model = Staged()
        optimizer = adamw(model)
        with_gradient(model)
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        before = contents(model)
        with freeze_stage(model.stage1):
            for _ in range(3):
                model(paddle.ones([1, 2])).sum().backward()
                optimizer.step()
                optimizer.clear_grad()
        assert [name for name, data in contents(model).items() if data != before[name]] == TOP

    def test_under_a_strategy(self):
        model = Staged()
        run = hub.AdamWeightDecayStrategy(0.1).bind(model, max_train_steps=10)
        before = contents(model)
        with freeze_stage(model.stage1):
            for _ in range(3):
                model(paddle.ones([1, 2])).sum().backward()
                run.step()
        assert [name for name, data in contents(model).items() if data != before[name]] == TOP

    def test_of_a_copy(self):
        model = Staged()
        freeze_stage(model.stage1)
        assert with_gradient(copy.deepcopy(model)) == TOP

    def test_compiled(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
        compiled = paddle.jit.to_static(model, full_graph=True)
        everything = with_gradient(compiled)
        with freeze_stage(model[1], model=model):
            assert with_gradient(compiled) == ["2.weight", "2.bias"]
        assert with_gradient(compiled) == everything
        assert len(everything) == 6


class TestHalfFrozenBatchNorm:
    """Paddle's kernel gives the bias no gradient while the weight is frozen, and the other way round."""

    @pytest.mark.parametrize("frozen", ["weight", "bias"])
    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize(
        ("make", "shape"),
        [
            (lambda: nn.BatchNorm1D(3), [6, 3]),
            (lambda: nn.BatchNorm1D(3, data_format="NLC"), [4, 5, 3]),
            (lambda: nn.BatchNorm2D(3), [4, 3, 2, 2]),
            (lambda: nn.BatchNorm2D(3, use_global_stats=True), [4, 3, 2, 2]),
            (lambda: nn.BatchNorm(3, act="relu"), [4, 3, 2, 2]),
        ],
    )
    def test_what_trains_has_the_gradient_it_has_beside_the_other(self, make, shape, frozen, mode):
        paddle.seed(0)
        plain, half, x = make(), make(), paddle.randn(shape)
        half.set_state_dict(plain.state_dict())
        freeze(nn.Sequential(half), f"0.{frozen}")
        weights = paddle.randn(shape)
        inputs = []
        for layer in (plain, half):
            getattr(layer, mode)()
            inputs.append(x.clone().detach())
            inputs[-1].stop_gradient = False
            (layer(inputs[-1]) * weights).sum().backward()
        other = "bias" if frozen == "weight" else "weight"
        assert np.array_equal(getattr(half, other).grad.numpy(), getattr(plain, other).grad.numpy())
        assert np.array_equal(inputs[0].grad.numpy(), inputs[1].grad.numpy())
        assert np.array_equal(half._mean.numpy(), plain._mean.numpy())
        assert getattr(half, frozen) is dict(half.named_parameters())[frozen]
        assert getattr(half, frozen).stop_gradient
        assert getattr(half, frozen).grad is None

    def test_bitfit(self):
        """And after a thaw the weight begins without a gradient of the frozen time."""
        model = nn.Sequential(nn.Conv2D(1, 3, 3), nn.BatchNorm2D(3), nn.Flatten(), nn.Linear(12, 2))
        phases = [hub.Phase(["bias", "head"], updates=1), hub.Phase("all")]
        run = hub.PhasedStrategy(phases, "sgd", 0.1).bind(model, max_train_steps=2)
        before = {name: param.numpy() for name, param in model.named_parameters()}
        for moving in ({"0.bias", "1.bias", "3.weight", "3.bias"}, set(before) - {"1._mean", "1._variance"}):
            (model(paddle.randn([4, 1, 4, 4])) ** 2).sum().backward()
            grads = {name: param.grad for name, param in model.named_parameters()}
            run.step()
            after = {name: param.numpy() for name, param in model.named_parameters()}
            moved = {name for name in before if not np.array_equal(before[name], after[name])} - {
                "1._mean",
                "1._variance",
            }
            assert moved == moving
            assert (grads["1.weight"] is None) == (len(moving) == 4)
            before = after
        copied = copy.deepcopy(model)
        assert len(copied[1]._forward_pre_hooks) == 1

    def test_export(self, tmp_path):
        model = nn.Sequential(nn.Conv2D(1, 3, 3), nn.BatchNorm2D(3), nn.Flatten(), nn.Linear(12, 2))
        freeze(model, "1.weight")
        x = paddle.randn([4, 1, 4, 4])
        hub.export_inference(model, tmp_path / "net", x)
        model.eval()
        assert np.abs(paddle.jit.load(str(tmp_path / "net"))(x).numpy() - model(x).numpy()).max() < 1e-6
