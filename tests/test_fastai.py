"""The Learner's policies, schedules and LR finder: fastai's numbers, and the asserts of its documentation."""

import functools

import numpy as np
import paddle
import pytest
from conftest import golden
from paddle import nn
from paddle.io import DataLoader, TensorDataset

import paddle_ftstrat as hub
from paddle_ftstrat.training.callbacks import Callback, StopTraining

FASTAI = golden("fastai.json")


def net():
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1D(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def learner(iterations=10, model=None, **options):
    samples = 8 * iterations
    x = paddle.randn([samples, 4])
    train = TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
    options = {"lr": 0.01, "batch_size": 8, "progress": False, "valid": train, **options}
    return hub.Learner(net() if model is None else model, train, **options)


def weights(it):
    return {name: value.numpy().copy() for name, value in it.model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("case", FASTAI["fits"], ids=lambda c: c["call"])
def test_traces_of_the_policies(case):
    it = learner(case["iters_per_epoch"], model=nn.Linear(4, 2))
    getattr(it, case["call"])(**case["kwargs"])
    lrs = np.array(it.recorder.lrs[-len(case["lr"]) :])
    restarts = np.array(case["lr"]) < 1e-15
    # Where fastai's float32 positions leave a restart to the cycle before, its LR is 0; ours is that of the restart.
    assert (lrs[restarts] == 0.01).all()
    assert restarts.sum() == (case["call"] == "fit_sgdr")
    np.testing.assert_allclose(lrs[~restarts], np.array(case["lr"])[~restarts], rtol=1e-5, atol=1e-8)
    for name, trace in case.get("hps", {}).items():
        ours = np.array(it.recorder.hps[name][-len(trace) :])
        keep = ~restarts if name == "lr" else np.full(len(trace), True)
        np.testing.assert_allclose(ours[keep], np.array(trace)[keep], rtol=1e-5, atol=1e-8)


class TestPolicies:
    def test_one_cycle_records_the_lrs_of_its_annealer(self):
        it = learner()
        it.fit_one_cycle(2)
        schedule = hub.combined_cos(0.25, 0.01 / 25, 0.01, 0.01 / 1e5)
        np.testing.assert_allclose(it.recorder.lrs, [schedule(t / 20) for t in range(20)], rtol=1e-6)
        assert set(it.recorder.hps) == {"lr", "mom"}

    def test_momentum_reaches_the_optimizer(self):
        seen = []

        class Spy(Callback):
            def on_before_update(self, learner):
                seen.append(learner.run.optimizer._beta1)

        it = learner()
        it.fit_one_cycle(1, cbs=Spy())
        assert seen == it.recorder.hps["mom"]

    def test_sgdr_epochs_and_restarts(self):
        it = learner()
        it.fit_sgdr(3, 1)
        assert len(it.recorder.values) == 1 + 2 + 4
        it = learner()
        it.fit_sgdr(2, 2, cycle_mult=1)
        restart = [0.01 * (1 + np.cos(np.pi * t / 20)) / 2 for t in range(20)]
        # As in fastai, positions within a cycle are float32.
        np.testing.assert_allclose(it.recorder.lrs, restart * 2, rtol=1e-5)

    def test_flat_cos(self):
        it = learner()
        it.fit_flat_cos(2, pct_start=0.5)
        assert it.recorder.lrs[:10] == [0.01] * 10
        assert it.recorder.lrs[-1] < 0.001

    @pytest.mark.parametrize("name", ["fit_one_cycle", "fit_flat_cos", "fit"])
    def test_start_epoch_follows_the_same_curve(self, name):
        whole, part = learner(), learner()
        getattr(whole, name)(4, cbs=[hub.ParamScheduler({"lr": hub.SchedLin(0.1, 0.01)})] if name == "fit" else [])
        getattr(part, name)(
            4, start_epoch=2, cbs=[hub.ParamScheduler({"lr": hub.SchedLin(0.1, 0.01)})] if name == "fit" else []
        )
        assert part.recorder.lrs == whole.recorder.lrs[20:]
        assert [row["epoch"] for row in part.recorder.values] == [3, 4]

    def test_start_epoch_of_the_others(self):
        whole, part = learner(), learner()
        whole.fit_sgdr(2, 1)
        part.fit_sgdr(2, 1, start_epoch=1)
        assert part.recorder.lrs == whole.recorder.lrs[10:]
        whole, part = learner(), learner()
        whole.fine_tune(2)
        part.fine_tune(2, start_epoch=2)
        assert part.recorder.lrs == whole.recorder.lrs[20:]
        strategy = hub.ULMFiTStrategy(0.1)
        whole, part = learner(), learner()
        whole.fit(3, strategy=strategy)
        part.fit(3, strategy=strategy, start_epoch=2)
        assert part.recorder.lrs == whole.recorder.lrs[20:]
        assert part.run.epoch == 3

    def test_fine_tune_freezes_all_but_the_top_group_first(self):
        it, moved = learner(), []

        class Spy(Callback):
            def on_epoch_begin(self, learner):
                self.before = weights(learner)

            def on_epoch_end(self, learner):
                now = weights(learner)
                names = [n for n, _ in learner.model.named_parameters() if "_mean" not in n and "_variance" not in n]
                moved.append([name for name in names if (now[name] != self.before[name]).any()])

        it.fine_tune(1, cbs=Spy())
        assert moved[0] == ["6.weight", "6.bias"]
        assert len(moved[1]) == 8
        assert not any(p.stop_gradient for n, p in it.model.named_parameters() if not n.startswith("1._"))
        factors = it.run.block_factors
        assert factors[-1] == 1.0
        assert factors[0] == pytest.approx(1 / 100)

    def test_optimizer_state_lives_on_from_fit_to_fit(self):
        it = learner(model=nn.Linear(4, 2))
        it.fit_one_cycle(1)
        first = it.run.optimizer
        before = it.run.state_dict()["optimizer"]["weight"]["moment2"].numpy().copy()
        it.fit_flat_cos(1)
        assert it.run.optimizer is first
        assert (it.run.state_dict()["optimizer"]["weight"]["moment2"].numpy() != before).any()
        it.fit(1, reset_opt=True)
        assert it.run.optimizer is not first

    def test_an_optimizer_without_momentum(self):
        it = learner(opt="sgd")
        it.fit_one_cycle(1)
        assert set(it.recorder.hps) == {"lr"}
        with pytest.raises(ValueError, match="SGD has no hyper-parameter 'mom'; it has lr, wd"):
            it.fit_one_cycle(1, moms=(0.9, 0.8, 0.9))

    def test_wd_is_decoupled(self):
        decayed, plain = learner(model=nn.Linear(4, 2), opt="sgd"), learner(model=nn.Linear(4, 2), opt="sgd")
        plain.model.set_state_dict(decayed.model.state_dict())
        for it, wd in ((decayed, 0.5), (plain, None)):
            it.train = DataLoader(decayed.train.dataset, batch_size=80)
            it.fit(1, wd=wd)
        np.testing.assert_allclose(
            decayed.model.weight.numpy(), plain.model.weight.numpy() * (1 - 0.01 * 0.5), rtol=1e-5
        )
        np.testing.assert_array_equal(decayed.model.bias.numpy(), plain.model.bias.numpy())


class TestGroups:
    def test_slice_spreads_geometrically(self):
        it = learner()
        it.fit_one_cycle(2, slice(1e-4, 1e-2))
        groups = it.run.blocks
        assert [block[0].split(".")[0] for block in groups] == ["0", "1", "4", "6"]
        expected = [1e-2 * 10 ** (-2 * (3 - i) / 3) / 1e-2 for i in range(4)]
        np.testing.assert_allclose(it.run.block_factors, expected)
        assert max(it.recorder.lrs) == pytest.approx(1e-2)
        it.fit(1, slice(1e-2))
        np.testing.assert_allclose(it.run.block_factors, [0.1, 0.1, 0.1, 1.0])
        it.fit(1, 1e-2)
        np.testing.assert_allclose(it.run.block_factors, [1.0] * 4)

    @pytest.mark.parametrize(
        "groups",
        [
            lambda m: [[m[0], m[1]], [m[4], m[6]]],
            lambda m: lambda model: [[*model[0].parameters(), *model[1].parameters()[:2]], [model[4], "6"]],
            lambda m: [["0", "1"], ["4.*", "6.*"]],
        ],
        ids=["layers", "splitter", "names"],
    )
    def test_layer_groups_in_every_form(self, groups):
        model = net()
        it = learner(model=model, layer_groups=groups(model))
        it.fit(1, slice(1e-3, 1e-2))
        assert [len(block) for block in it.run.blocks] == [4, 4]
        np.testing.assert_allclose(it.run.block_factors, [0.1, 1.0])

    def test_freeze_to(self):
        it = learner()
        it.freeze_to(2)
        before = weights(it)
        it.fit(1)
        moved = {name.split(".")[0] for name, value in weights(it).items() if (value != before[name]).any()}
        assert moved == {"1", "4", "6"}, "statistics of group 1 move, its weights must not"
        np.testing.assert_array_equal(it.model[1].weight.numpy(), before["1.weight"])
        it.freeze()
        assert [n for n, p in it.model.named_parameters() if not p.stop_gradient] == ["6.weight", "6.bias"]
        it.unfreeze()
        assert not it.model[0].weight.stop_gradient
        with pytest.raises(ValueError, match=r"freeze_to\(9\): there are 4 layer groups"):
            it.freeze_to(9)

    def test_what_the_user_froze_stays_frozen(self):
        it = learner()
        it.model[4].weight.stop_gradient = True
        it.fine_tune(1)
        assert it.model[4].weight.stop_gradient

    def test_a_list_per_group_of_any_hyper_parameter(self):
        seen = {}

        class Spy(Callback):
            def on_before_update(self, learner):
                seen.setdefault("mom", learner.run.hyper("mom"))

        it = learner()
        low, high = np.array([0.6, 0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3, 0.4])
        schedules = {
            "lr": hub.SchedLin(low * 0.01, high * 0.01),
            "mom": hub.SchedCos(low, high),
            "wd": hub.SchedNo(0.1, 0.1),
        }
        it.fit(1, cbs=[hub.ParamScheduler(schedules), Spy()])
        np.testing.assert_allclose(seen["mom"], low)
        assert it.recorder.lrs[0] == pytest.approx(0.009)
        assert it.recorder.hps["mom"][0] == pytest.approx(0.9)
        # As `get_lr()`, those of the update that would come.
        np.testing.assert_allclose(it.run.block_factors, high / high[-1])

    @pytest.mark.parametrize(
        ("opt", "name", "attribute"),
        [
            ("adam", "mom", "_beta1"),
            ("adam", "sqr_mom", "_beta2"),
            ("adam", "eps", "_epsilon"),
            ("rmsprop", "mom", "_momentum"),
            ("rmsprop", "sqr_mom", "_rho"),
            ("momentum", "mom", "_momentum"),
            ("adamw", "wd", "_weight_decay"),
        ],
    )
    @pytest.mark.parametrize("per_group", [False, True])
    def test_hyper_parameters_reach_each_update_of_paddles_optimizer(self, opt, name, attribute, per_group):
        values, seen = ([0.1, 0.2, 0.3, 0.4] if per_group else 0.3), {}
        it = learner(opt=opt)
        run = it.bind_own()
        update = run.optimizer._append_optimize_op

        def watched(block, param_and_grad):
            seen[param_and_grad[0].name] = getattr(run.optimizer, attribute)
            return update(block, param_and_grad)

        run.optimizer._append_optimize_op = watched
        it.fit(1, cbs=hub.ParamScheduler({name: hub.SchedNo(values, values)}))
        for number, block in enumerate(run.blocks):
            for parameter in block:
                expected = values[number] if per_group else values
                assert seen[dict(it.model.named_parameters())[parameter].name] == expected
        assert run.hyper(name) == values

    def test_decoupled_decay_per_group(self):
        it = learner(opt="sgd")
        it.train = DataLoader(it.train.dataset, batch_size=80)
        twin = learner(model=net(), opt="sgd")
        twin.model.set_state_dict(it.model.state_dict())
        twin.train = it.train
        paddle.seed(3)
        it.fit(1, cbs=hub.ParamScheduler({"wd": hub.SchedNo([0.5, 0.5, 0.0, 1.0], [0.5, 0.5, 0.0, 1.0])}))
        paddle.seed(3)
        twin.fit(1)
        for name, wd in (("0.weight", 0.5), ("4.weight", 0.0), ("6.weight", 1.0), ("1.weight", 0.0), ("6.bias", 0.0)):
            decayed, plain = (dict(model.named_parameters())[name].numpy() for model in (it.model, twin.model))
            np.testing.assert_allclose(decayed, plain * (1 - 0.01 * wd), rtol=1e-5, atol=1e-7, err_msg=name)

    def test_per_group_momentum_equals_two_optimizers(self):
        model, twin = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        twin.set_state_dict(model.state_dict())
        it = learner(model=model, opt="momentum")
        it.train = DataLoader(it.train.dataset, batch_size=8)
        it.fit(2, cbs=hub.ParamScheduler({"mom": hub.SchedNo([0.5, 0.9], [0.5, 0.9])}))
        plain = [
            paddle.optimizer.Momentum(0.01, m, parameters=layer.parameters()) for m, layer in zip((0.5, 0.9), twin)
        ]
        for _ in range(2):
            for x, y in it.train:
                nn.functional.cross_entropy(twin(x), y).backward()
                for optimizer in plain:
                    optimizer.step()
                    optimizer.clear_grad()
        for (name, a), (_, b) in zip(model.named_parameters(), twin.named_parameters()):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7, err_msg=name)


class TestLRFind:
    def everything(self, it):
        found = weights(it)
        found["rng"] = np.random.get_state()[1]
        found["modes"] = np.array([layer.training for layer in it.model.sublayers(include_self=True)])
        found["frozen"] = np.array([p.stop_gradient for p in it.model.parameters()])
        found["multipliers"] = np.array([p.optimize_attr["learning_rate"] for p in it.model.parameters()])
        if it.run is not None:
            state = it.run.state_dict()
            for name, kinds in state["optimizer"].items():
                found.update({f"{name}/{kind}": value.numpy().copy() for kind, value in kinds.items()})
            found["position"] = np.array([state["lr_scheduler"]["last_epoch"], state["epoch"]])
            found["lr"] = np.array([it.run.optimizer.get_lr()])
            found["hypers"] = np.array([it.run.hyper(name) for name in ("mom", "sqr_mom", "eps")])
        return found

    def check_untouched(self, it, act):
        it.model[3].eval()
        before = self.everything(it)
        recorder = list(it.recorder.lrs)
        drawn_before = paddle.get_rng_state()
        act()
        after = self.everything(it)
        same(before, after)
        assert recorder == it.recorder.lrs
        a = paddle.randn([4]).numpy()
        paddle.set_rng_state(drawn_before)
        np.testing.assert_array_equal(a, paddle.randn([4]).numpy())

    @pytest.mark.parametrize("prepared", ["fresh", "fitted", "frozen", "strategy"])
    def test_leaves_everything_as_it_was(self, prepared):
        it = learner()
        if prepared != "fresh":
            it.fit_one_cycle(1)
        if prepared == "frozen":
            it.freeze_to(3)
        if prepared == "strategy":
            it.fit(2, strategy=hub.ULMFiTStrategy(0.1))
        self.check_untouched(it, lambda: it.lr_find(num_it=30))

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_also_after_an_error_or_ctrl_c(self, error):
        class Breaks(Callback):
            def on_before_update(self, learner):
                if learner.state.step == 7:
                    raise error

        it = learner()
        it.fit(1)
        it.cbs.append(Breaks())

        def act():
            with pytest.raises(error):
                it.lr_find()

        self.check_untouched(it, act)

    def test_the_data_order_of_the_next_fit_is_the_same(self):
        seen = []

        class Spy(Callback):
            def on_batch_begin(self, learner):
                seen.append(learner.state.batch[0].numpy().copy())

        it = learner()
        traces = []
        for find in (False, True):
            np.random.seed(1)
            paddle.seed(1)
            if find:
                it.lr_find(num_it=20)
            it.cbs = [Spy()]
            it.fit(1)
            it.cbs = []
            traces.append(list(seen))
            seen.clear()
        np.testing.assert_array_equal(*traces)

    def test_suggestions_are_a_named_tuple(self):
        it = learner()

        def mine(lrs, losses, num_it):
            return lrs[3], (lrs[3], losses[3])

        found = it.lr_find(
            suggest_funcs=[hub.valley, hub.minimum, functools.partial(hub.slide, lr_diff=10), hub.steep, mine]
        )
        assert found._fields == ("valley", "minimum", "slide", "steep", "mine")
        assert all(1e-7 <= lr <= 10 for lr in found)
        assert it.lr_find()._fields == ("valley",)
        assert it.lr_find() == it.lr_find()

    def test_sweeps_exponentially_and_stops_when_the_loss_diverges(self):
        it = learner(lr=0.1)
        it.lr_find(num_it=50, stop_div=False)
        sweep = it.recorder.sweep
        np.testing.assert_allclose(sweep.lrs, [1e-7 * 1e8 ** (i / 50) for i in range(50)], rtol=1e-5)
        it.lr_find(start_lr=1e-3, end_lr=1e9, num_it=100)
        sweep = it.recorder.sweep
        assert len(sweep.lrs) < 100
        assert sweep.losses[-1] > 4 * min(sweep.losses[10:-1])
        assert all(a <= 4 * min(sweep.losses[10 : i + 1]) for i, a in enumerate(sweep.losses[:-1]) if i >= 10)

    def test_validation_is_skipped(self):
        class NoValidation(Callback):
            def on_validate_begin(self, learner):
                raise AssertionError("validated")

        learner(cbs=NoValidation()).lr_find(num_it=25)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_it": 5}, "num_it = 5 .* ≥ 6"),
            ({"start_lr": 0}, "start_lr = 0 .* > 0"),
            ({"start_lr": 1, "end_lr": 0.1}, "end_lr = 0.1 .* > 1"),
        ],
    )
    def test_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            learner().lr_find(**options)


class TestErrors:
    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda it: it.fit(1, cbs=hub.ParamScheduler({"momentum": hub.SchedNo(1, 1)})), "'momentum'. Did you mean"),
            (lambda it: it.fit(1, cbs=hub.ParamScheduler({"mom": hub.SchedNo([1, 1], [1, 1])})), "2 values.* 4 blocks"),
            (lambda it: it.fit(1, [0.1, 0.2]), "2 values, but there are 4 layer groups"),
            (lambda it: it.fit_one_cycle(2, start_epoch=2), "start_epoch = 2 is beyond the end: the fit has 2 epochs"),
            (lambda it: it.fit_sgdr(1, 1, start_epoch=5), "start_epoch = 5 is beyond the end: the fit has 1 epochs"),
            (lambda it: it.fine_tune(2, start_epoch=3), "start_epoch = 3 is beyond the end: the fit has 3 epochs"),
            (lambda it: it.fit(-1), "n_epoch = -1"),
            (lambda it: it.fit_one_cycle(1, moms=(0.9, 0.8)), "three values"),
            (lambda it: it.fit_sgdr(0, 1), "n_cycles = 0"),
            (lambda it: it.fit(1, slice(0.1, 0.2, 3)), "slice"),
            (lambda it: hub.combine_scheds([0.5, 0.6], [hub.SchedNo(1, 1)] * 2), "sum"),
        ],
    )
    def test_clear_messages(self, act, message):
        with pytest.raises(ValueError, match=message):
            act(learner())

    def test_foreign_parameter_in_a_group(self):
        with pytest.raises(ValueError, match="no parameter of the model"):
            learner(layer_groups=[[nn.Linear(1, 1).weight], "*"]).fit(1)

    def test_bind_options_need_a_strategy(self):
        with pytest.raises(TypeError, match="only go with a strategy"):
            learner().fit(1, pretrained="*")


class TestPictures:
    def fitted(self):
        it = learner()
        it.fit_one_cycle(2)
        it.lr_find(suggest_funcs=[hub.valley, hub.minimum])
        return it.recorder

    def test_axes_are_named(self, tmp_path):
        recorder = self.fitted()
        panels = recorder.plot_sched().axes
        assert [axes.get_ylabel() for axes in panels] == ["learning rate", "momentum (β₁)"]
        assert {axes.get_xlabel() for axes in panels} == {"update"}
        axes = recorder.plot_lr_find().axes[0]
        assert axes.get_xscale() == "log"
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert [label.split(":")[0] for label in labels] == ["valley", "minimum"]
        axes = recorder.plot_loss().axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("update", "loss")
        assert "validation" in [text.get_text() for text in axes.get_legend().get_texts()]
        for name in ("sched", "lr_find", "loss"):
            getattr(recorder, f"plot_{name}")(path=tmp_path / f"{name}.png")
            assert (tmp_path / f"{name}.png").stat().st_size > 5_000

    def test_before_there_is_anything_to_see(self):
        recorder = learner().recorder
        for name in ("sched", "lr_find", "loss"):
            with pytest.raises(ValueError, match=f"plot_{name} needs .* first"):
                getattr(recorder, f"plot_{name}")()
        with pytest.raises(ValueError, match="was not scheduled"):
            self.fitted().plot_sched("eps")

    def test_without_matplotlib_the_error_says_what_to_install(self, monkeypatch):
        import builtins

        load = builtins.__import__

        def missing(name, *args, **kwargs):
            if name.startswith("matplotlib"):
                raise ImportError(name)
            return load(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(ImportError, match=r"pip install 'paddle_ftstrat\[plot\]'"):
            hub.DefaultStrategy(0.1).bind(nn.Linear(1, 1)).plot(steps=3)


def test_stop_training_is_exported_for_callbacks():
    class Stop(hub.Callback):
        def on_batch_end(self, learner):
            raise StopTraining

    it = learner()
    it.fit_one_cycle(2, cbs=Stop())
    assert len(it.recorder.lrs) == 1
    assert hub.StopTraining is StopTraining
