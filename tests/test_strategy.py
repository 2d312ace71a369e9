"""PaddleHub's strategies as objects: dicts, defaults, conflicts; and every bad input with its message."""

import dataclasses
import math
import warnings
from functools import partial

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import table
from paddle_ftstrat.param_attr import freeze_rows
from paddle_ftstrat.schedules import Schedule
from paddle_ftstrat.schedules.schedule import flat


def lrs(strategy, steps, **options):
    run = strategy.bind(nn.Linear(2, 2), max_train_steps=steps, **options)
    return [run.plan.lr(t) for t in range(steps)]


class TestSurface:
    def test_paddlehubs_module_paths_resolve(self):
        for name in ("CombinedStrategy", "DefaultFinetuneStrategy", "AdamWeightDecayStrategy", "ULMFiTStrategy"):
            assert getattr(hub.finetune.strategy, name) is getattr(hub, name)
        assert hub.finetune.config.RunConfig is hub.RunConfig
        assert hub.finetune.task.ClassifierTask is hub.ClassifierTask

    def test_dicts_are_paddlehubs_and_copies(self):
        strategy = hub.ULMFiTStrategy()
        assert strategy.scheduler == {
            "warmup": 0.0,
            "linear_decay": {"start_point": 1.0, "end_learning_rate": 0.0},
            "noam_decay": False,
            "discriminative": {"blocks": 3, "factor": 2.6, "params_layer": None},
            "gradual_unfreeze": {"blocks": 3, "params_layer": None},
            "slanted_triangle": {"cut_fraction": 0.1, "ratio": 32},
        }
        assert strategy.regularization == {"L2": 0.0, "L2SP": 0.0, "weight_decay": 0.0}
        assert strategy.clip == {"GlobalNorm": 0.0, "Norm": 0.0, "Value": 0.0}
        strategy.scheduler["discriminative"]["blocks"] = 9
        assert strategy.scheduler["discriminative"]["blocks"] == 3

    def test_presets(self):
        strategy = hub.AdamWeightDecayStrategy(1e-3, "noam_decay", 0.1, 0.02)
        assert strategy.clip["GlobalNorm"] == 1.0
        assert strategy.regularization["weight_decay"] == 0.02
        assert (strategy.scheduler["noam_decay"], strategy.scheduler["warmup"]) == (True, 0.1)
        assert hub.L2SPFinetuneStrategy().regularization["L2SP"] == 1e-3
        assert hub.DefaultFinetuneStrategy().regularization["L2"] == 1e-3

    def test_printing_changes_nothing_and_tells_all(self):
        strategy = hub.AdamWeightDecayStrategy(warmup_proportion=0.1)
        text = str(strategy)
        assert strategy.clip["GlobalNorm"] == 1.0
        for part in ("adam", "warmup 0.1", "linear_decay from 0.1 to 0", "weight_decay 0.01", "clip GlobalNorm 1"):
            assert part in text

    def test_the_ways_to_say_it_agree(self):
        by_dict = hub.CombinedStrategy(
            scheduler={"gradual_unfreeze": {"blocks": 3}, "discriminative": {"blocks": 2, "factor": 2}},
            clip={"Norm": 1},
        )
        by_adding = hub.CombinedStrategy().add_scheduler("gradual_unfreeze", 3).add_clip("Norm", 1)
        by_adding.add_scheduler("discriminative", blocks=2, factor=2.0)
        by_number = hub.CombinedStrategy(scheduler={"gradual_unfreeze": 3}, clip={"Norm": 1.0})
        by_number.add_scheduler("discriminative", {"blocks": 2, "factor": 2})
        assert by_dict.scheduler == by_adding.scheduler == by_number.scheduler
        assert by_dict.clip == by_adding.clip

    @pytest.mark.parametrize(
        ("key", "entries", "switch"),
        [
            ("linear_decay", {}, "start_point"),
            ("linear_decay", {"end_learning_rate": 1e-5}, "start_point"),
            ("slanted_triangle", {}, "cut_fraction"),
            ("slanted_triangle", {"ratio": 16}, "cut_fraction"),
        ],
    )
    def test_what_is_left_out_of_an_entry_has_paddlehubs_default_and_that_is_told(self, key, entries, switch):
        with pytest.warns(UserWarning, match=f"scheduler.{key} is off as long as {switch} is not given"):
            strategy = hub.CombinedStrategy(learning_rate=1.0, scheduler={key: entries})
        assert lrs(strategy, 4) == [1, 1, 1, 1]
        with pytest.warns(UserWarning, match=switch):
            hub.CombinedStrategy().add_scheduler(key, **entries)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            strategy.add_scheduler(key, **{switch: 0.5}).add_scheduler(key, **entries)
        assert lrs(strategy, 4) != [1, 1, 1, 1]

    def test_discriminative_without_blocks_is_for_every_layer(self):
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
        for strategy in (
            hub.CombinedStrategy(scheduler={"discriminative": {"factor": 2}}),
            hub.CombinedStrategy().add_scheduler("discriminative", factor=2),
            hub.ULMFiTStrategy(cut_fraction=0, frz_blocks=0, dis_blocks=None, factor=2),
        ):
            again = hub.strategy_from_dict(strategy.to_dict())
            for each in (strategy, again):
                run = each.bind(model)
                assert run.block_factors == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
            assert "discriminative layer by layer, factor 2" in repr(strategy)

    def test_discriminative_with_0_blocks_or_a_params_layer_is_not(self):
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
        assert set(hub.CombinedStrategy(scheduler={"discriminative": 0}).bind(model).block_factors) == {1.0}
        assert set(hub.ULMFiTStrategy(dis_blocks=0, frz_blocks=0, cut_fraction=0).bind(model).block_factors) == {1.0}
        layers = {"factor": 2, "params_layer": {"0.weight": 0, "1.weight": 1}}
        assert hub.CombinedStrategy(scheduler={"discriminative": layers}).bind(model).block_factors == [0.5, 1.0]

    def test_options_reach_the_optimizer(self):
        run = hub.DefaultStrategy(0.1, "Momentum", momentum=0.5, use_nesterov=True).bind(nn.Linear(1, 1))
        assert type(run.optimizer) is paddle.optimizer.Momentum
        assert (run.optimizer._momentum, run.optimizer._use_nesterov) == (0.5, True)

    def test_an_optimizer_class_of_ones_own(self):
        class Mine(paddle.optimizer.SGD):
            pass

        run = hub.AdamWeightDecayStrategy(0.1, optimizer_name=Mine).bind(nn.Linear(2, 2), max_train_steps=3)
        assert type(run.optimizer) is Mine
        run.model(paddle.ones([1, 2])).sum().backward()
        run.step()

    @pytest.mark.parametrize("name", table.names())
    def test_every_optimizer_of_the_table_trains(self, name):
        model = nn.Linear(2, 2)
        run = hub.DefaultStrategy(0.1, name).bind(model)
        before = model.weight.numpy().copy()
        for _ in range(2):
            model(paddle.ones([1, 2])).square().sum().backward()
            run.step()
        assert (model.weight.numpy() != before).any()

    @given(steps=st.integers(1, 50), epochs=st.integers(1, 5))
    def test_length_from_epochs(self, steps, epochs):
        run = hub.AdamWeightDecayStrategy(0.1).bind(nn.Linear(1, 1), num_epoch=epochs, steps_per_epoch=steps)
        assert run.plan.max_train_steps == steps * epochs
        assert run.plan.lr(steps * epochs) == 0


class TestConflicts:
    @pytest.mark.parametrize(
        ("scheduler", "message", "first"),
        [
            (
                {"slanted_triangle": {"cut_fraction": 0.1}, "warmup": 0.1},
                "'slanted_triangle' takes over: warmup ignored",
                1 / 32,
            ),
            (
                {
                    "slanted_triangle": {"cut_fraction": 0.1},
                    "noam_decay": True,
                    "linear_decay": {"start_point": 0.0},
                    "warmup": 0.5,
                },
                "'slanted_triangle' takes over: noam_decay, linear_decay, warmup ignored",
                1 / 32,
            ),
            (
                {"noam_decay": True, "linear_decay": {"start_point": 0.0}, "warmup": 0.5},
                "'noam_decay' takes over: linear_decay",
                0.2,
            ),
        ],
    )
    def test_the_stronger_curve_warns_of_what_it_ignores(self, scheduler, message, first):
        with pytest.warns(UserWarning, match=message):
            assert lrs(hub.CombinedStrategy(learning_rate=1.0, scheduler=scheduler), 10)[0] == pytest.approx(first)

    def test_noam_without_warmup_is_constant_with_a_warning(self):
        with pytest.warns(UserWarning, match="noam_decay needs a warmup"):
            assert set(lrs(hub.CombinedStrategy(learning_rate=1.0, scheduler={"noam_decay": True}), 9)) == {1.0}

    @pytest.mark.parametrize("key", ["discriminative", "gradual_unfreeze"])
    def test_params_layer_beats_blocks(self, key):
        strategy = hub.CombinedStrategy(scheduler={key: {"blocks": 2, "params_layer": {"weight": 0, "bias": 1}}})
        with pytest.warns(UserWarning, match=f"{key}: params_layer takes over: blocks=2 ignored"):
            run = strategy.bind(nn.Linear(2, 2), max_train_steps=3)
        assert run.blocks == [["weight"], ["bias"]]

    def test_two_clips(self):
        strategy = hub.CombinedStrategy(clip={"GlobalNorm": 1.0, "Norm": 2.0, "Value": 3.0})
        with pytest.warns(UserWarning, match="'GlobalNorm' takes over: Norm, Value ignored"):
            run = strategy.bind(nn.Linear(2, 2))
        assert isinstance(run.optimizer._grad_clip, paddle.nn.ClipGradByGlobalNorm)

    def test_more_blocks_than_layers(self):
        with pytest.warns(UserWarning, match="discriminative: 3 blocks, but the model has 1 layers"):
            hub.ULMFiTStrategy(frz_blocks=0).bind(nn.Linear(2, 2), max_train_steps=3)

    def test_no_warning_where_nothing_is_wrong(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
            hub.ULMFiTStrategy().bind(model, max_train_steps=9)
            hub.ULMFiTStrategy(dis_params_layer={"0.weight": 0}, frz_params_layer={"0.weight": 0}).bind(
                model, max_train_steps=9
            )
            hub.AdamWeightDecayStrategy(warmup_proportion=0.1).bind(model, max_train_steps=9)

    @pytest.mark.parametrize(
        ("clip", "cls"),
        [("GlobalNorm", "ClipGradByGlobalNorm"), ("Norm", "ClipGradByNorm"), ("Value", "ClipGradByValue")],
    )
    def test_clips_are_paddles(self, clip, cls):
        run = hub.CombinedStrategy("sgd", 1.0, clip={clip: 0.5}).bind(nn.Linear(1, 1))
        assert type(run.optimizer._grad_clip) is getattr(nn, cls)
        start = run.model.weight.numpy().copy()
        (run.model(paddle.ones([1, 1])) * 10).sum().backward()
        run.step()
        moved = float(np.abs(run.model.weight.numpy() - start).item())
        assert moved == pytest.approx(0.5 / np.sqrt(2) if clip == "GlobalNorm" else 0.5, rel=1e-5)


def bind(strategy, model=None, **options):
    return strategy.bind(nn.Linear(2, 2) if model is None else model, **options)


def combined(**given):
    return lambda: hub.CombinedStrategy(**given)


BAD = [
    # unknown keys at any depth, with the nearest known one
    (combined(scheduler={"warm_up": 0.1}), ValueError, "unknown scheduler 'warm_up'. Did you mean 'warmup'?"),
    (combined(scheduler={"discriminative": {"block": 3}}), ValueError, "'block'. Did you mean 'blocks'?"),
    (combined(scheduler={"linear_decay": {"end_lr": 0}}), ValueError, "unknown key of scheduler.linear_decay 'end_lr'"),
    (combined(regularization={"l2sp": 1}), ValueError, "unknown regularization 'l2sp'. Did you mean 'L2SP'?"),
    (combined(clip={"GlobalNrm": 1}), ValueError, "'GlobalNrm'. Did you mean 'GlobalNorm'?"),
    (lambda: hub.AdamWeightDecayStrategy(lr_scheduler="linear"), ValueError, "'linear'. Did you mean 'linear_decay'?"),
    # optimizers
    (lambda: hub.DefaultStrategy(optimizer_name="adma"), ValueError, "unknown optimizer 'adma'. Did you mean 'adam'?"),
    (lambda: hub.DefaultStrategy(beta3=1), ValueError, "option of optimizer 'adam' 'beta3'. Did you mean 'beta"),
    (lambda: hub.DefaultStrategy(parameters=[]), ValueError, "unknown option of optimizer 'adam' 'parameters'"),
    (lambda: hub.DefaultStrategy(optimizer_name="lbfgs"), ValueError, "takes a closure"),
    (
        lambda: hub.DefaultStrategy(optimizer_name=paddle.optimizer.SGD(parameters=nn.Linear(1, 1).parameters())),
        TypeError,
        "not an instance",
    ),
    (lambda: hub.DefaultStrategy(optimizer_name=nn.Linear), TypeError, "a name or a paddle.optimizer.Optimizer class"),
    # numbers
    (lambda: hub.DefaultStrategy(learning_rate=0), ValueError, "learning_rate = 0 is outside .* > 0"),
    (lambda: hub.DefaultStrategy(learning_rate=float("nan")), ValueError, "learning_rate = nan"),
    (
        lambda: hub.DefaultStrategy(learning_rate="0.1"),
        TypeError,
        "learning_rate must be a number, not '0.1' of type str",
    ),
    (lambda: hub.DefaultStrategy(learning_rate=True), TypeError, "learning_rate must be a number"),
    (combined(scheduler={"warmup": 1.5}), ValueError, "scheduler.warmup = 1.5 .* ≥ 0 and ≤ 1"),
    (combined(scheduler={"warmup": -0.1}), ValueError, "scheduler.warmup = -0.1"),
    (combined(scheduler={"linear_decay": {"start_point": 2}}), ValueError, "linear_decay.start_point = 2"),
    (combined(scheduler={"slanted_triangle": {"ratio": 0}}), ValueError, "slanted_triangle.ratio = 0 .* ≥ 1"),
    (combined(scheduler={"discriminative": {"factor": 0}}), ValueError, "discriminative.factor = 0 .* > 0"),
    (combined(scheduler={"discriminative": {"blocks": -1}}), ValueError, "discriminative.blocks = -1 .* ≥ 0"),
    (combined(scheduler={"gradual_unfreeze": -3}), ValueError, "gradual_unfreeze.blocks = -3"),
    (combined(scheduler={"gradual_unfreeze": 1.5}), TypeError, "must be a dict .* or a number of blocks, not 1.5"),
    (combined(scheduler={"noam_decay": 1}), TypeError, "noam_decay must be True or False, not 1"),
    (combined(scheduler={"discriminative": {"params_layer": ["a"]}}), TypeError, "dict parameter name → layer number"),
    (combined(scheduler={"discriminative": {"params_layer": {"a": -1}}}), ValueError, r"params_layer\['a'\] = -1"),
    (combined(scheduler=["warmup"]), TypeError, r"scheduler must be a dict, not \['warmup'\]"),
    (combined(regularization={"L2": -1}), ValueError, "regularization.L2 = -1"),
    (combined(clip={"Norm": -1}), ValueError, "clip.Norm = -1"),
    (lambda: hub.CombinedStrategy().add_scheduler("warmup", blocks=3), TypeError, "takes one value"),
    # binding
    (lambda: bind(hub.AdamWeightDecayStrategy()), ValueError, r"\['linear_decay'\] needs the length of the training"),
    (lambda: bind(hub.DefaultStrategy(), max_train_steps=0), ValueError, "max_train_steps = 0 .* ≥ 1"),
    (lambda: bind(hub.DefaultStrategy(), max_train_steps=1.5), TypeError, "max_train_steps must be a whole number"),
    (lambda: bind(hub.DefaultStrategy(), num_epoch=0, steps_per_epoch=1), ValueError, "num_epoch = 0"),
    (lambda: bind(hub.DefaultStrategy(), num_epoch=1, steps_per_epoch=0), ValueError, "steps_per_epoch = 0"),
    (lambda: bind(hub.DefaultStrategy(), nn.ReLU()), ValueError, "no parameters to train"),
    (lambda: bind(hub.DefaultStrategy(), lambda x: x), TypeError, "must be a paddle.nn.Layer, not function"),
    (lambda: bind(hub.DefaultStrategy(), no_decay="haed.*"), ValueError, "no_decay matches no parameter.*'haed"),
    (lambda: bind(hub.L2SPFinetuneStrategy(), pretrained="wieght"), ValueError, "Did you mean 'weight'"),
    (lambda: bind(hub.L2SPFinetuneStrategy(), pretrained={"a": 1}), ValueError, "none of its keys is a parameter"),
    (
        lambda: bind(hub.ULMFiTStrategy(dis_params_layer={"wieght": 1}), max_train_steps=9),
        ValueError,
        "discriminative.params_layer: unknown parameter 'wieght'. Did you mean 'weight'?",
    ),
    (
        lambda: bind(hub.CombinedStrategy("adamw", regularization={"weight_decay": 0.1}, weight_decay=0.2)),
        ValueError,
        "two decays for optimizer 'adamw'",
    ),
    (
        lambda: bind(hub.CombinedStrategy(clip={"Norm": 1}, grad_clip=nn.ClipGradByNorm(1.0))),
        ValueError,
        "two gradient clips",
    ),
]
if table.ROWS["rprop"].cls is not None:
    BAD += [
        (
            lambda: bind(
                hub.ULMFiTStrategy(optimizer_name="rprop"),
                nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)),
                max_train_steps=9,
            ),
            ValueError,
            "ignores LR multipliers",
        ),
        (
            lambda: bind(hub.CombinedStrategy("rprop", scheduler={"warmup": 0.5}), max_train_steps=9),
            ValueError,
            "cannot follow a schedule",
        ),
    ]
else:
    BAD += [(lambda: hub.DefaultStrategy(optimizer_name="rprop"), ValueError, "has no optimizer 'rprop'")]


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_input_is_refused_with_a_clear_message(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.skipif(table.ROWS["rprop"].cls is None, reason="this Paddle has no Rprop")
def test_paddles_rprop_ignores_the_multiplier():
    moved = []
    for multiplier in (1.0, 0.001):
        layer = nn.Linear(1, 1, weight_attr=paddle.ParamAttr(learning_rate=multiplier))
        start = layer.weight.item()
        optimizer = paddle.optimizer.Rprop(0.1, parameters=layer.parameters())
        layer(paddle.ones([1, 1])).backward()
        optimizer.step()
        moved.append(abs(layer.weight.item() - start))
    assert moved[0] == pytest.approx(moved[1], rel=1e-5)


def restless(update):
    """An LR that is another at one update of 9."""
    lrs = [(t, partial(flat, 0.2 if t == update else 0.1), "") for t in range(9)]
    return Schedule(lrs, 9)


@pytest.mark.skipif(table.ROWS["rprop"].cls is None, reason="this Paddle has no Rprop")
@pytest.mark.parametrize("update", [0, 1, 4, 8])
def test_an_lr_that_is_another_at_one_update_is_a_schedule(update):
    plan = hub.DefaultStrategy(0.1, "rprop").plan(9)
    Binding(plan, nn.Linear(2, 2))
    Binding(dataclasses.replace(plan, max_train_steps=None), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="cannot follow a schedule"):
        Binding(dataclasses.replace(plan, schedules={"lr": restless(update)}), nn.Linear(2, 2))


class TestPlansByHand:
    """What a strategy would refuse or fill in when it is made."""

    def test_an_option_that_there_is_not(self):
        plan = hub.DefaultStrategy(0.1, "adam").plan(9)
        with pytest.raises(ValueError, match=r"'beta'.*beta1"):
            Binding(dataclasses.replace(plan, optimizer_options={"beta": 0.5}), nn.Linear(2, 2))

    def test_a_schedule_of_what_the_optimizer_has_not(self):
        run = hub.DefaultStrategy(0.1, "sgd").bind(nn.Linear(2, 2))
        plan = hub.OneCycleStrategy(0.1, optimizer_name="adam").plan(9)
        with pytest.raises(ValueError, match="mom"):
            Binding(dataclasses.replace(plan, optimizer="sgd", optimizer_options={}), run.model)
        assert run.in_force

    def test_a_fused_update_that_there_is_not(self):
        with pytest.raises(ValueError, match="fused=True, but there is no fused update"):
            hub.DefaultStrategy(0.1, "rmsprop").bind(nn.Linear(2, 2), fused=True)

    def test_a_clip_of_the_users_own(self):
        clip = nn.ClipGradByGlobalNorm(0.5)
        run = hub.DefaultStrategy(1.0, "sgd", grad_clip=clip).bind(nn.Linear(1, 1))
        start = [param.item() for param in run.model.parameters()]
        (3 * run.model(paddle.ones([1, 1]))).sum().backward()
        run.step()
        moves = [before - param.item() for before, param in zip(start, run.model.parameters())]
        np.testing.assert_allclose(moves, [0.5 / math.sqrt(2)] * 2, rtol=1e-5)

    def test_the_weights_that_muon_is_for(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        for hidden, wanted in ((None, {"0.weight"}), (["1.weight"], {"1.weight"}), ([], set())):
            options = {} if hidden is None else {"hidden": hidden}
            run = hub.DefaultStrategy(0.1, "muon", **options).bind(model)
            run.model(paddle.ones([1, 2])).sum().backward()
            run.step()
            state = run.state_dict()["optimizer"]
            assert {name for name, kinds in state.items() if set(kinds) == {"momentum"}} == wanted

    def test_whose_decay_it_is(self):
        rows = hub.CombinedStrategy("sgd", 0.1, regularization={"weight_decay": 0.1}).bind(nn.Linear(2, 2)).describe()
        assert [(row.decay, row.decay_from) for row in rows] == [(0.1, "strategy"), (0.0, "")]
        rows = hub.DefaultStrategy(0.1, "momentum", weight_decay=0.3).bind(nn.Linear(2, 2)).describe()
        assert {(row.regularizer, row.regularizer_from, row.decay) for row in rows} == {("L2(0.3)", "optimizer", 0.0)}
        rows = hub.DefaultStrategy(0.1, "muon", weight_decay=0.3).bind(nn.Linear(2, 2)).describe()
        assert [(row.regularizer, row.decay, row.decay_from) for row in rows] == [("", 0.3, "optimizer"), ("", 0.0, "")]

    def test_a_decay_of_0_is_none(self):
        run = hub.CombinedStrategy("adamw", 0.1, regularization={"weight_decay": 0.0}).bind(nn.Linear(2, 2))
        start = run.model.weight.numpy().copy()
        (0 * run.model(paddle.ones([1, 2]))).sum().backward()
        run.step()
        np.testing.assert_array_equal(run.model.weight.numpy(), start)

    def test_lambs_own_decay_leaves_biases_out(self):
        model = nn.Linear(2, 2)
        model.bias.set_value(paddle.ones([2]))
        run = hub.DefaultStrategy(0.1, "lamb", lamb_weight_decay=0.5).bind(model)
        start = model.weight.numpy().copy()
        (0 * model(paddle.ones([1, 2]))).sum().backward()
        run.step()
        assert (model.weight.numpy() != start).all()
        assert model.bias.tolist() == [1.0, 1.0]

    def test_float32_values_are_kept_unless_multi_precision_is_off(self):
        for options, kept in (({}, 2), ({"multi_precision": False}, 1)):
            model = nn.Linear(2, 2)
            model.bfloat16()
            run = hub.DefaultStrategy(0.1, "momentum", **options).bind(model)
            model.weight.astype("float32").sum().backward()
            run.step()
            assert len(run.state_dict()["optimizer"]["weight"]) == kept

    def test_sparse_gradients(self):
        def build():
            return nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 4))

        model = build()
        freeze_rows(model[1].weight, [0], axis=1)
        hub.CombinedStrategy("sgd", 0.1, clip={"GlobalNorm": 1.0}).bind(model)
        freeze_rows(model[0].weight, [0])
        with pytest.raises(ValueError, match="freeze_rows needs dense gradients"):
            hub.DefaultStrategy(0.1, "sgd").bind(model)
        half = build()
        half.bfloat16()
        with pytest.raises(ValueError, match="half precision"):
            hub.DefaultStrategy(0.1, "sgd").bind(half)


class NoNumber:
    """Something whose repr fails."""

    def __repr__(self):
        raise RuntimeError("no text")


NO_NUMBERS = [
    np.True_,
    True,
    None,
    "0.9",
    np.array(0.9),
    np.array([0.9]),
    paddle.to_tensor(0.9),
    1j,
    NoNumber(),
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    10**400,
    10**5000,
]


class TestNumbers:
    @pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize(
        ("key", "build"),
        [
            ("learning_rate", lambda value: hub.DefaultStrategy(value)),
            ("scheduler.warmup", lambda value: combined(scheduler={"warmup": value})()),
            ("start_point", lambda value: combined(scheduler={"linear_decay": {"start_point": value}})()),
            ("regularization.L2", lambda value: combined(regularization={"L2": value})()),
            ("clip.Norm", lambda value: combined(clip={"Norm": value})()),
            ("'beta1' of optimizer 'adam'", lambda value: hub.DefaultStrategy(beta1=value)),
            ("'epsilon' of optimizer 'adamw'", lambda value: hub.DefaultStrategy(0.1, "adamw", epsilon=value)),
            ("'momentum'", lambda value: hub.DefaultStrategy(0.1, "momentum", momentum=value)),
            ("num_epoch", lambda value: hub.RunConfig(num_epoch=value)),
        ],
    )
    def test_what_is_no_finite_number_is_refused_with_its_key(self, key, build, value):
        with pytest.raises((TypeError, ValueError)) as caught:
            build(value)
        assert key in str(caught.value)
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("value", [math.nan, None, 1, 1.0, np.True_, np.array(True), "yes"], ids=str)
    def test_a_switch_is_true_or_false(self, value):
        with pytest.raises(TypeError, match="'use_nesterov' of optimizer 'momentum' must be True or False"):
            hub.DefaultStrategy(0.1, "momentum", use_nesterov=value)

    @pytest.mark.parametrize(
        "value", [np.array(0.1), np.array([0.1]), paddle.ones([]), math.nan, -1.0, "L2", np.True_], ids=str
    )
    def test_weight_decay_of_an_optimizer(self, value):
        with pytest.raises((TypeError, ValueError), match="'weight_decay' of optimizer 'adam'"):
            hub.DefaultStrategy(weight_decay=value)

    @pytest.mark.skipif(table.ROWS["asgd"].cls is None, reason="this Paddle has no ASGD")
    @pytest.mark.parametrize("value", [0.5, 0, None])
    def test_the_number_of_batches_of_asgd_is_whole(self, value):
        with pytest.raises((TypeError, ValueError), match="'batch_num' of optimizer 'asgd'"):
            hub.DefaultStrategy(0.1, "asgd", batch_num=value)

    @pytest.mark.parametrize("kind", ["GlobalNorm", "Norm", "Value"])
    def test_a_bound_that_float32_takes_for_0(self, kind):
        with pytest.raises(ValueError, match=f"clip.{kind} = 1e-300 .* ≥ 1.17549e-38"):
            hub.CombinedStrategy(clip={kind: 1e-300})

    @pytest.mark.parametrize("key", ["beta1", "beta2"])
    def test_a_beta_that_float32_takes_for_1(self, key):
        with pytest.raises(ValueError, match=f"'{key}' .* ≤ 0.99999994"):
            hub.DefaultStrategy(**{key: 1 - 1e-16})

    def test_numbers_of_numpy_and_whole_ones_reach_paddle_as_its_own(self):
        layer = nn.Linear(2, 2)
        run = hub.DefaultStrategy(np.float32(0.5), beta1=np.float32(0.5), epsilon=1).bind(layer)
        assert [type(value) for value in (run.optimizer._beta1, run.optimizer._epsilon)] == [float, float]
        layer(paddle.ones([1, 2])).sum().backward()
        run.step()
        assert np.isfinite(layer.weight.numpy()).all()

    @pytest.mark.parametrize("value", [3.5, [], ["a"], {"a"}, paddle.ones([1]), np.ones(2), str, True], ids=str)
    def test_a_checkpoint_folder_is_a_path(self, value):
        with pytest.raises(TypeError, match="checkpoint_dir must be a path"):
            hub.RunConfig(checkpoint_dir=value)

    @pytest.mark.parametrize("key", ["max_train_steps", "num_epoch", "steps_per_epoch"])
    @pytest.mark.parametrize(
        "value", [10**30, 10**5000, 0, 2.0, np.array(3), math.nan], ids=lambda value: str(type(value))
    )
    def test_lengths(self, key, value):
        lengths = {"num_epoch": 2, "steps_per_epoch": 2} if key != "max_train_steps" else {}
        with pytest.raises((TypeError, ValueError), match=key):
            combined(scheduler={"warmup": 0.1})().bind(nn.Linear(1, 1), **{**lengths, key: value})

    @pytest.mark.parametrize(
        "sample", [paddle.ones([3, 9]), "text", {"y": 1}, (1, 2, 3), 5], ids=lambda value: str(type(value))
    )
    def test_a_sample_input_that_the_model_does_not_take(self, sample):
        with pytest.raises(ValueError, match="sample_input"):
            hub.DefaultStrategy().bind(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), sample_input=sample)
