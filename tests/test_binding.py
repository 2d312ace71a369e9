"""What a binding does to a model, an optimizer and their state: freezing, idempotence, release, resume."""

import copy
import dataclasses
import sys
import warnings

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat import binding
from paddle_ftstrat.optim import regularizer
from paddle_ftstrat.param_attr import settings
from paddle_ftstrat.schedules import SchedLin


def mlp(depth=6, width=4, norm=False):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), *([nn.BatchNorm1D(width)] if norm else []), nn.Tanh()]
    return nn.Sequential(*layers)


def train(run, steps=1, width=4):
    for _ in range(steps):
        run.model(paddle.randn([8, width])).square().mean().backward()
        run.step()


def fields(model):
    return {name: settings.in_force(param) for name, param in model.named_parameters()}


def values(model):
    return {name: value.numpy().copy() for name, value in model.named_parameters()}


ULMFIT = hub.ULMFiTStrategy(0.1, "adam", frz_blocks=3)


class TestFreezing:
    def test_frozen_parameters_keep_bits_gradient_and_state(self):
        model = mlp()
        strategy = hub.ULMFiTStrategy(0.1).add_regularization("weight_decay", 0.1).add_clip("GlobalNorm", 1.0)
        run = strategy.bind(model, num_epoch=4, steps_per_epoch=3)
        frozen_in = {1: 4, 2: 2, 3: 0, 4: 0}
        for epoch in range(1, 5):
            run.begin_epoch()
            before = values(model)
            train(run, 3)
            model(paddle.randn([8, 4])).square().mean().backward()
            moved = {name for name, value in values(model).items() if (value != before[name]).any()}
            frozen = {f"{2 * i}.{part}" for i in range(frozen_in[epoch]) for part in ("weight", "bias")}
            assert moved == set(before) - frozen
            for name, param in model.named_parameters():
                assert (param.grad is None) == (name in frozen), name
            assert set(run.state_dict()["optimizer"]) == set(before) - frozen
            run.optimizer.clear_grad()

    def test_frozen_gradients_are_not_in_the_clip_norm(self):
        model = mlp(3)
        run = ULMFIT.add_clip("GlobalNorm", 1.0).bind(model, num_epoch=3, steps_per_epoch=1)
        model(paddle.randn([8, 4])).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ["4.weight", "4.bias"]
        run.step()

    def test_a_gradient_left_from_before_is_dropped(self):
        model = mlp(3)
        model(paddle.randn([8, 4])).sum().backward()
        ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        assert model[0].weight.grad is None

    def test_thawed_layers_continue_their_own_adam(self):
        model, twin = mlp(2), mlp(2)
        twin.set_state_dict(model.state_dict())
        run = hub.ULMFiTStrategy(0.1, cut_fraction=0, dis_blocks=0, frz_blocks=2).bind(
            model, num_epoch=2, steps_per_epoch=2
        )
        adam = paddle.optimizer.Adam(0.1, parameters=twin.parameters())
        for epoch in range(2):
            run.begin_epoch()
            for param in twin[0].parameters():
                param.stop_gradient = epoch == 0
            for _ in range(2):
                x = paddle.randn([8, 4])
                for net in (model, twin):
                    net(x).square().mean().backward()
                run.step()
                adam.step()
                adam.clear_grad(set_to_zero=False)
        assert all((value == values(twin)[name]).all() for name, value in values(model).items())

    def test_params_layer_counts_epochs_from_the_top(self):
        model = mlp(3)
        layers = {"0.weight": 0, "2.weight": 1, "4.weight": 2}
        run = hub.ULMFiTStrategy(0.1, frz_params_layer=layers).bind(model, num_epoch=3, steps_per_epoch=1)
        for trained in ({"4.weight"}, {"4.weight", "2.weight"}, {"4.weight", "2.weight", "0.weight"}):
            run.begin_epoch()
            now = {name for name, param in model.named_parameters() if not param.stop_gradient}
            assert now == trained | {"0.bias", "2.bias", "4.bias"}

    def test_what_the_user_froze_is_never_thawed(self):
        model = mlp(3)
        model[0].weight.stop_gradient = True
        run = ULMFIT.bind(model, num_epoch=5, steps_per_epoch=1)
        run.begin_epoch()
        model[4].bias.stop_gradient = True
        for _ in range(4):
            run.begin_epoch()
        assert [n for n, p in model.named_parameters() if p.stop_gradient] == ["0.weight", "4.bias"]

    def test_statistics_are_left_alone(self):
        model = mlp(3, norm=True)
        run = ULMFIT.bind(model, num_epoch=1, steps_per_epoch=1)
        run.begin_epoch(3)
        assert model[1]._mean.stop_gradient
        assert model[1]._variance.stop_gradient
        assert not any("_mean" in name for block in run.blocks for name in block)

    @pytest.mark.parametrize("loop", ["run.step", "own", "GradScaler"])
    def test_reminder_of_epochs_whose_length_is_not_known(self, loop):
        run = ULMFIT.bind(mlp(3), max_train_steps=6)
        scaler = paddle.amp.GradScaler(init_loss_scaling=2.0)

        def train(updates):
            for _ in range(updates):
                loss = run.model(paddle.ones([2, 4])).square().mean()
                if loop == "GradScaler":
                    scaler.scale(loss).backward()
                    scaler.step(run.optimizer)
                    scaler.update()
                else:
                    loss.backward()
                if loop == "own":
                    run.optimizer.step()
                if loop == "run.step":
                    run.step()
                    continue
                run.optimizer.clear_grad()
                run.lr_scheduler.step()

        train(2)
        with pytest.warns(UserWarning, match=r"begin_epoch\(\) was not called"):
            train(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(3)

    def test_epochs_that_nobody_begins_are_counted_in_updates(self):
        paddle.seed(0)
        run = ULMFIT.bind(mlp(3), num_epoch=3, steps_per_epoch=2)
        paddle.seed(0)
        by_hand = ULMFIT.bind(mlp(3), num_epoch=3, steps_per_epoch=2)
        for update in range(6):
            if update % 2 == 0:
                by_hand.begin_epoch()
            for one in (run, by_hand):
                one.model(paddle.ones([2, 4])).square().mean().backward()
                one.step()
        assert run.progress.phase == 2
        for (name, p), (_, q) in zip(run.model.named_parameters(), by_hand.model.named_parameters()):
            np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=name)

    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_a_loop_may_begin_to_tell_epochs_late(self, epoch):
        run = ULMFIT.bind(mlp(3), num_epoch=3, steps_per_epoch=2)
        run.lr_scheduler.step(4)
        assert run.progress.phase == 2
        run.begin_epoch(epoch)
        assert run.progress.phase == epoch - 1

    @pytest.mark.parametrize("lengths", [{"num_epoch": 3, "steps_per_epoch": 2}, {"max_train_steps": 6}], ids=str)
    def test_no_reminder_in_a_loop_that_begins_its_epochs_or_resumes(self, lengths):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = ULMFIT.bind(mlp(3), **lengths)
            for _ in range(3):
                run.begin_epoch()
                train(run, 2)
            resumed = ULMFIT.bind(mlp(3), **lengths)
            resumed.set_state_dict(run.state_dict())
            train(resumed, 1)
            skipped = ULMFIT.bind(mlp(3), **lengths)
            skipped.lr_scheduler.step(4)
            skipped.begin_epoch(3)
            train(skipped, 2)


class TestIdempotence:
    def model(self):
        attr = paddle.ParamAttr(learning_rate=0.5, regularizer=paddle.regularizer.L1Decay(0.1), need_clip=False)
        model = nn.Sequential(nn.Linear(4, 4, weight_attr=attr), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        model[2].bias.stop_gradient = True
        return model

    def test_binding_twice_equals_binding_once(self):
        model = self.model()
        run = ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        once = fields(model)
        run.begin_epoch(3)
        ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        assert fields(model) == once
        assert once["0.weight"].learning_rate == pytest.approx(0.5 / 2.6**2)

    def test_another_strategy_starts_from_the_users_settings(self):
        model = self.model()
        ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        hub.DefaultStrategy(0.1).bind(model)
        assert fields(model) == fields(self.model_like(model))

    @staticmethod
    def model_like(model):
        twin = TestIdempotence().model()
        twin[0].weight.regularizer = model[0].weight.regularizer
        return twin

    def test_release_gives_everything_back(self):
        model = self.model()
        before, attrs = fields(model), {n: dict(p.optimize_attr) for n, p in model.named_parameters()}
        strategy = hub.L2SPFinetuneStrategy(0.1).add_scheduler("gradual_unfreeze", 3)
        run = strategy.bind(model, num_epoch=3, steps_per_epoch=1, pretrained="*")
        assert fields(model) != before
        run.release()
        assert fields(model) == before
        assert {n: dict(p.optimize_attr) for n, p in model.named_parameters()} == attrs
        with pytest.raises(RuntimeError, match="not in force"):
            run.begin_epoch()
        with pytest.raises(RuntimeError, match="not in force"):
            run.step()

    def test_release_of_an_old_binding_does_not_disturb_the_new_one(self):
        model = mlp(3)
        old = ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        hub.DefaultFinetuneStrategy(0.1).bind(model)
        now = fields(model)
        old.release()
        assert fields(model) == now
        with pytest.raises(RuntimeError, match="bound again"):
            old.step()

    def test_settings_changed_by_hand_between_bindings_count(self):
        model = mlp(3)
        ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        model[0].weight.optimize_attr["learning_rate"] = 0.25
        model[4].bias.stop_gradient = True
        hub.DefaultStrategy(0.1).bind(model)
        assert model[0].weight.optimize_attr["learning_rate"] == 0.25
        assert model[4].bias.stop_gradient

    def test_a_copy_of_a_bound_model_starts_from_the_users_settings(self):
        model = self.model()
        hub.L2SPFinetuneStrategy(0.1).add_scheduler("discriminative", 3).bind(model, pretrained="*")
        twin = copy.deepcopy(model)
        run = hub.DefaultStrategy(0.1).bind(twin)
        assert twin[0].weight.optimize_attr["learning_rate"] == 0.5
        assert twin[4].weight.regularizer is None
        run.release()
        assert twin[0].weight.optimize_attr["learning_rate"] == 0.5

    def test_failed_bind_changes_nothing(self):
        model = self.model()
        before = fields(model)
        with pytest.raises(ValueError, match="params_layer"):
            hub.ULMFiTStrategy(0.1, frz_params_layer={"nope": 1}).bind(model, max_train_steps=9)
        assert fields(model) == before


class TestDecayAndAnchors:
    @pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamax", "rmsprop", "lamb"])
    def test_decoupled_decay_of_every_optimizer_acts_on_the_updated_value(self, optimizer):
        model, twin = mlp(1), mlp(1)
        twin.set_state_dict(model.state_dict())
        decayed = hub.CombinedStrategy(optimizer, 0.1, regularization={"weight_decay": 0.5}).bind(model)
        native = {"lamb_weight_decay": 1e-30} if optimizer == "lamb" else {}
        plain = hub.DefaultStrategy(0.1, optimizer, **native).bind(twin)
        x = paddle.randn([8, 4])
        for run in (decayed, plain):
            run.model(x).square().mean().backward()
            run.step()
        np.testing.assert_allclose(model[0].weight.numpy(), twin[0].weight.numpy() * (1 - 0.1 * 0.5), rtol=1e-6)
        np.testing.assert_array_equal(model[0].bias.numpy(), twin[0].bias.numpy())

    def test_adamw_alone_uses_its_own_decay_before_the_update(self):
        model = mlp(1)
        start = model[0].weight.numpy().copy()
        run = hub.CombinedStrategy("adamw", 0.1, regularization={"weight_decay": 0.5}).bind(model)
        twin = mlp(1)
        twin.set_state_dict(model.state_dict())
        adam = paddle.optimizer.Adam(0.1, parameters=twin.parameters())
        x = paddle.randn([8, 4])
        for net in (model, twin):
            net(x).square().mean().backward()
        run.step()
        adam.step()
        step = start - twin[0].weight.numpy()
        np.testing.assert_allclose(model[0].weight.numpy(), start * (1 - 0.05) - step, rtol=1e-5, atol=1e-6)

    def test_adamw_default_decay_stays_unless_a_strategy_says_otherwise(self):
        rows = hub.DefaultStrategy(0.1, "adamw").bind(mlp(1)).describe()
        assert [(row.decay, row.decay_from) for row in rows] == [(0.01, "optimizer"), (0.0, "")]
        rows = hub.CombinedStrategy("adamw", 0.1, regularization={"weight_decay": 0.0}).bind(mlp(1)).describe()
        assert [row.decay for row in rows] == [0.0, 0.0]

    def test_no_decay_by_default_and_by_hand(self):
        strategy = hub.AdamWeightDecayStrategy()
        model = mlp(1, norm=True)

        def decayed(**options):
            rows = strategy.bind(model, max_train_steps=9, **options).describe()
            return [row.name for row in rows if row.decay]

        assert decayed() == ["0.weight"]
        assert decayed(no_decay=[]) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert decayed(no_decay=["*.weight"]) == ["0.bias", "1.bias"]
        with pytest.raises(ValueError, match=r"no_decay\b.*2\.weight"):
            decayed(no_decay=["2.weight"])

    def test_l2sp_keeps_one_copy_and_anchors_only_the_pretrained(self):
        model = mlp(2)
        run = hub.L2SPFinetuneStrategy(0.1, regularization_coeff=0.5).bind(model, pretrained="0.*")
        anchors = run.state_dict()["anchors"]
        assert set(anchors) == {"0.weight", "0.bias"}
        assert model[0].weight.regularizer.anchor is anchors["0.weight"]
        start = model[0].weight.numpy().copy()
        train(run, 3)
        np.testing.assert_array_equal(anchors["0.weight"].numpy(), start)
        assert copy.deepcopy(model)[0].weight.regularizer.anchor is anchors["0.weight"]

    def test_regularizers_keep_the_parameters_dtype_and_may_be_of_no_strength(self):
        assert all(hasattr(regularizer, name) for name in regularizer.__all__)
        half = paddle.to_tensor([2.0, 3.0], dtype="bfloat16")
        anchor, fisher = paddle.to_tensor([1.0, 1.0]), paddle.to_tensor([4.0, 0.0])
        for decay, wanted in (
            (regularizer.L2SPDecay(0.5, anchor), [0.5, 1.0]),
            (regularizer.EWCDecay(0.5, fisher, anchor), [2.0, 0.0]),
            (regularizer.L2SPDecay(0, anchor), [0.0, 0.0]),
        ):
            added = decay(half, None, None)
            assert (added.dtype, added.astype("float32").tolist()) == (paddle.bfloat16, wanted)
        assert [str(regularizer.L2SPDecay(0.5)), str(regularizer.EWCDecay(0.5, fisher))] == ["L2SP(0.5)", "EWC(0.5)"]
        with pytest.raises(ValueError, match="L2SP coefficient must be ≥ 0, not -1"):
            regularizer.L2SPDecay(-1)

    def test_l2sp_beats_l2_for_pretrained_parameters(self):
        strategy = hub.CombinedStrategy("sgd", 0.1, regularization={"L2": 0.1, "L2SP": 0.2})
        rows = strategy.bind(mlp(2), pretrained="0.*").describe()
        assert [row.regularizer for row in rows] == ["L2SP(0.2)"] * 2 + ["L2(0.1)"] * 2

    def test_pretrained_as_state_dict_and_warning_without_it(self):
        model = mlp(2, norm=True)
        state = {name: value for name, value in model.state_dict().items() if name.startswith(("0.", "1."))}
        run = hub.L2SPFinetuneStrategy(0.1).bind(model, pretrained=state)
        assert set(run.state_dict()["anchors"]) == {"0.weight", "0.bias", "1.weight", "1.bias"}
        assert set(hub.L2SPFinetuneStrategy(0.1).bind(model, pretrained=list(state)).state_dict()["anchors"]) == {
            "0.weight",
            "0.bias",
            "1.weight",
            "1.bias",
        }
        with pytest.warns(UserWarning, match="every parameter"):
            hub.L2SPFinetuneStrategy(0.1).bind(model)


class TestState:
    strategy = hub.CombinedStrategy(
        "adam",
        0.1,
        scheduler={"slanted_triangle": {"cut_fraction": 0.1}, "gradual_unfreeze": 3, "discriminative": 3},
        regularization={"L2SP": 0.1, "weight_decay": 0.1},
    )

    def run(self, model):
        return self.strategy.bind(model, num_epoch=4, steps_per_epoch=3, pretrained="*")

    def go(self, run, epochs):
        for epoch in epochs:
            run.begin_epoch(epoch)
            paddle.seed(epoch)
            train(run, 3)

    @pytest.mark.parametrize("through", ["memory", "file"])
    def test_resume_is_bit_equal_across_a_thaw(self, through, tmp_path):
        unbroken = self.run(mlp(3))
        start = copy.deepcopy(unbroken.model.state_dict())
        self.go(unbroken, [1, 2, 3, 4])
        first = self.run(mlp(3))
        first.model.set_state_dict(start)
        first = self.run(first.model)
        self.go(first, [1, 2])
        state, weights = first.state_dict(), copy.deepcopy(first.model.state_dict())
        if through == "file":
            paddle.save(state, str(tmp_path / "state"))
            state = paddle.load(str(tmp_path / "state"))
        second = self.run(mlp(3))
        second.model.set_state_dict(weights)
        second.set_state_dict(state)
        assert second.epoch == 2
        self.go(second, [3, 4])
        for name, value in values(unbroken.model).items():
            np.testing.assert_array_equal(value, values(second.model)[name])

    @staticmethod
    def two_layers(order):
        """Layers `a` and `b`, made in this order; Paddle's generated names start anew, as in a new process."""
        with paddle.utils.unique_name.guard():
            made = {name: nn.Linear(4, 4) for name in order}
        return nn.LayerDict({"a": made["a"], "b": made["b"]})

    @staticmethod
    def backward(model):
        (model["a"](paddle.ones([1, 4])).sum() + 10 * model["b"](paddle.ones([1, 4])).sum()).backward()

    def test_paddles_own_state_is_loaded_into_the_wrong_layers_silently_and_ours_is_not(self):
        saved, rebuilt = self.two_layers("ab"), self.two_layers("ba")
        plain = []
        for model in (saved, rebuilt):
            with paddle.utils.unique_name.guard():
                plain.append(paddle.optimizer.Adam(0.1, parameters=model.parameters()))
                self.backward(model)
                plain[-1].step()
        plain[1].set_state_dict(plain[0].state_dict())
        of_a = [
            optimizer._accumulators["moment1"][model["a"].weight.name]
            for optimizer, model in zip(plain, (saved, rebuilt))
        ]
        assert float((of_a[0] - of_a[1]).abs().max()) > 0.1

        runs = [hub.DefaultStrategy(0.1).bind(self.two_layers(order)) for order in ("ab", "ba")]
        self.backward(runs[0].model)
        runs[0].step()
        runs[1].set_state_dict(runs[0].state_dict())
        states = [run.state_dict()["optimizer"] for run in runs]
        for name, kinds in states[0].items():
            for kind, value in kinds.items():
                np.testing.assert_array_equal(value.numpy(), states[1][name][kind].numpy())

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda s: s.pop("anchors"), "not the state of a binding"),
            (lambda s: s.update(max_train_steps=99), "max_train_steps=99, this binding has 12"),
            (lambda s: s["optimizer"].update(stranger={}), "unknown parameter 'stranger'"),
            (lambda s: s["optimizer"]["4.weight"].pop("moment1"), "saved with another optimizer"),
            (lambda s: s["optimizer"]["4.weight"].update(moment1=paddle.ones([1])), r"shape \[1\] .* \[4, 4\]"),
            (lambda s: s["anchors"].pop("4.weight"), "anchors .* differ: 4.weight"),
            (lambda s: s["anchors"].update({"4.weight": paddle.ones([2])}), r"shape \[2\], not \[4, 4\]"),
        ],
    )
    def test_a_foreign_state_is_refused_and_nothing_changes(self, spoil, message):
        run = self.run(mlp(3))
        self.go(run, [1])
        state = copy.copy(run.state_dict())
        state["optimizer"] = {name: dict(kinds) for name, kinds in state["optimizer"].items()}
        state["anchors"] = dict(state["anchors"])
        spoil(state)
        fresh = self.run(mlp(3))
        with pytest.raises(ValueError, match=message):
            fresh.set_state_dict(state)
        assert fresh.lr_scheduler.last_epoch == 0
        assert fresh.epoch == 0


class TestModels:
    @pytest.mark.parametrize("full_graph", [False, True])
    def test_to_static_trains_with_the_same_numbers_through_unfreezing(self, full_graph):
        results = []
        start = mlp(3).state_dict()
        for static in (False, True):
            model = mlp(3)
            model.set_state_dict(start)
            if static:
                model = paddle.jit.to_static(model, full_graph=full_graph)
            run = ULMFIT.bind(model, num_epoch=4, steps_per_epoch=3)
            for epoch in range(4):
                run.begin_epoch()
                paddle.seed(epoch)
                train(run, 3)
            results.append(values(model))
        for name, value in results[0].items():
            np.testing.assert_allclose(value, results[1][name], rtol=1e-6, atol=1e-7)

    def test_data_parallel_wrapper_is_looked_through(self):
        model = mlp(3)
        run = ULMFIT.bind(paddle.DataParallel(model), num_epoch=3, steps_per_epoch=1)
        assert run.blocks[0] == ["0.weight", "0.bias"]

    def test_data_parallel_in_several_processes_refuses_what_changes_who_trains(self, monkeypatch):
        model = mlp(3)
        wrapped = paddle.DataParallel(model)
        monkeypatch.setattr(paddle.distributed, "get_world_size", lambda group=None: 2)
        for held in (wrapped, nn.Sequential(wrapped, nn.Linear(4, 2))):
            with pytest.raises(ValueError, match="fused_allreduce_gradients"):
                ULMFIT.bind(held, num_epoch=3, steps_per_epoch=1)
        # Nothing was changed, and what leaves the trainable set alone goes on as ever.
        assert not any(
            param.stop_gradient or param.optimize_attr != {"learning_rate": 1.0} for param in model.parameters()
        )
        run = hub.DefaultFinetuneStrategy().bind(wrapped)
        train(run, 1)
        run.begin_epoch()
        with pytest.raises(ValueError, match="DataParallel"):
            run.follow(dataclasses.replace(run.plan, phases=(hub.Phase(["0.bias", "2.*", "4.*"]),)))
        run.release()
        # Already frozen when it was wrapped, what thaws later would still go unnoticed.
        bare = ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        with pytest.raises(ValueError, match="DataParallel"):
            ULMFIT.bind(paddle.DataParallel(model), num_epoch=3, steps_per_epoch=1)
        assert bare.in_force

    def test_static_mode_is_refused(self):
        model = mlp(3)
        paddle.enable_static()
        try:
            with pytest.raises(RuntimeError, match=r"static mode: call paddle\.disable_static\(\)"):
                ULMFIT.bind(model, num_epoch=3, steps_per_epoch=1)
        finally:
            paddle.disable_static()

    def test_repr_tells_how_far_it_is(self):
        run = ULMFIT.bind(mlp(3), num_epoch=3, steps_per_epoch=1)
        run.begin_epoch()
        train(run, 1)
        expected = (
            "Binding(Adam on Sequential, 6 parameters in 3 blocks, 1 of 3 updates done, in epoch 1, learning rate "
        )
        assert repr(run).startswith(expected)
        run.release()
        assert "not in force any more" in repr(run)
        assert "of ∞ updates" in repr(hub.DefaultStrategy().bind(mlp(1)))

    def test_paddle_model_fit(self):
        net = mlp(3)
        run = ULMFIT.bind(net, num_epoch=4, steps_per_epoch=2)
        model = paddle.Model(net)
        model.prepare(run.optimizer, nn.MSELoss())
        pairs = paddle.io.TensorDataset([paddle.randn([16, 4]), paddle.randn([16, 4])])
        model.fit(pairs, batch_size=8, epochs=4, verbose=0, callbacks=[run.callback()])
        assert (run.epoch, run.lr_scheduler.last_epoch) == (4, 8)
        model.prepare(paddle.optimizer.SGD(parameters=net.parameters()), nn.MSELoss())
        with pytest.raises(ValueError, match="binding's optimizer"):
            model.fit(pairs, verbose=0, callbacks=[run.callback()])


class TestSparse:
    def model(self):
        return nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 4))

    @pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "adadelta"])
    def test_refused_where_paddle_aborts_or_miscalculates(self, name):
        with pytest.raises(ValueError, match=r"sparse=False.*sgd"):
            hub.DefaultStrategy(0.1, name).bind(self.model())

    def test_paddles_adam_is_wrong_on_sparse_gradients(self):
        results = []
        for sparse in (True, False):
            layer = nn.Embedding(6, 1, sparse=sparse)
            layer.weight.set_value(np.ones([6, 1], "float32"))
            adam = paddle.optimizer.Adam(0.1, parameters=layer.parameters())
            for ids in ([0, 1], [1, 2]):
                layer(paddle.to_tensor(ids)).square().sum().backward()
                adam.step()
                adam.clear_grad(set_to_zero=False)
            results.append(layer.weight.numpy())
        assert abs(results[0] - results[1]).max() > 0.01

    @pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "rmsprop", "lamb"])
    def test_allowed_where_equal_to_dense(self, name):
        results = []
        for sparse in (True, False):
            model = nn.Sequential(nn.Embedding(6, 4, sparse=sparse), nn.Linear(4, 4))
            for param in model.parameters():
                param.set_value(np.linspace(-1, 1, param.size, dtype="float32").reshape(param.shape))
            run = hub.CombinedStrategy(name, 0.1, regularization={"weight_decay": 0.1}, clip={"GlobalNorm": 0.5}).bind(
                model
            )
            for ids in ([0, 1, 1], [1, 2, 5]):
                model(paddle.to_tensor(ids)).square().mean().backward()
                run.step()
            results.append(model[0].weight.numpy())
        np.testing.assert_allclose(*results, atol=1e-6)

    def test_value_clip_aborts_on_sparse_gradients_and_is_refused(self):
        with pytest.raises(ValueError, match="clip Value"):
            hub.CombinedStrategy("sgd", 0.1, clip={"Value": 1.0}).bind(self.model())

    def test_a_frozen_sparse_embedding_is_no_matter(self):
        model = self.model()
        model[0].weight.stop_gradient = True
        hub.DefaultStrategy(0.1, "adam").bind(model)


class TestPictureAndTable:
    def test_describe_is_a_table_and_rows(self):
        model = mlp(3)
        model[0].bias.stop_gradient = True
        run = hub.ULMFiTStrategy(0.1).add_regularization("L2", 0.01).bind(model, num_epoch=3, steps_per_epoch=2)
        text = str(run.describe())
        lines = text.splitlines()
        assert lines[0].split() == ["parameter", "shape", "block", "trains", "LR", "×", "regularizer", "decay", "clip"]
        assert "from epoch 3 (frozen now)" in lines[1]
        assert "L2(0.01) (strategy)" in lines[1]
        assert "frozen" in lines[2]
        assert "20 of 60 values train now, in 3 blocks" in lines[-1]
        assert run.describe().to_dict()[0]["factor"] == pytest.approx(2.6**-2)

    @pytest.mark.parametrize("members", [{}, {"averaging": {"EMA": 0.9}}, {"perturbation": {"SAM": 0.05}}], ids=str)
    def test_totals_leave_frozen_rows_out_and_tell_what_a_plan_has(self, members):
        model = nn.Linear(4, 3)
        hub.param_attr.freeze_rows(model, [0])
        lines = str(hub.CombinedStrategy(**members).bind(model, max_train_steps=9).describe()).splitlines()
        assert lines[-1] == "10 of 15 values train now, in 1 block"
        assert {line.partition(" ")[0] for line in lines} & {"averaging", "perturbation"} == set(members)

    def test_plot_has_a_line_per_block_and_marks_what_is_frozen(self, tmp_path):
        run = hub.ULMFiTStrategy(0.1).bind(mlp(3), num_epoch=5, steps_per_epoch=20)
        figure = run.plot()
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert labels == ["block 2 (×1)", "block 1 (×0.385)", "block 0 (×0.148)", "frozen (● thaws)"]
        assert figure.axes[0].get_xlabel().startswith("update")
        run.plot(tmp_path / "plan.png")
        assert (tmp_path / "plan.png").stat().st_size > 10_000
        with pytest.raises(ValueError, match="no length"):
            hub.DefaultStrategy(0.1).bind(mlp(1)).plot()
        assert len(hub.DefaultStrategy(0.1).bind(mlp(3)).plot(steps=5).axes[0].get_lines()) == 1


class TestHosts:
    """What Learners, tasks and hosts ask a binding for."""

    def test_its_processor_code_is_chosen_first(self, monkeypatch):
        begun = []
        monkeypatch.setattr(binding.threads, "take_widest_code", lambda: begun.append(True))
        hub.DefaultStrategy(0.1, "sgd").bind(mlp(1))
        assert begun == [True]

    def test_who_has_an_average(self):
        plain = hub.DefaultStrategy(0.1, "sgd").bind(mlp(1))
        kept = hub.DefaultStrategy(0.1, "sgd", averaging={"EMA": 0.9}).bind(mlp(1))
        own = hub.DefaultStrategy(0.1, "schedule_free_sgd").bind(mlp(1))
        assert [run.has_average for run in (plain, kept, own)] == [False, True, True]
        assert plain.dropped_epochs == 0

    def test_an_update_needs_the_passes_of_its_perturbation(self):
        run = hub.DefaultStrategy(0.1, "sgd", perturbation={"SAM": 0.05}).bind(mlp(1))
        with pytest.raises(RuntimeError, match="the gradients are of a plain pass"):
            train(run)

    def test_another_plan_is_followed_by_as_many_updates_per_epoch(self):
        run = hub.DefaultStrategy(0.1, "sgd").bind(mlp(1), num_epoch=2, steps_per_epoch=5)
        for given, wanted in ((None, 5), (7, 7), (None, 7)):
            run.follow(hub.DefaultStrategy(0.2, "sgd").plan(10), given)
            assert run.steps_per_epoch == wanted
        assert run.optimizer.get_lr() == 0.2
        with pytest.raises(ValueError, match="mom"):
            run.follow(hub.OneCycleStrategy(0.3).plan(10), 9)
        assert (run.steps_per_epoch, run.optimizer.get_lr()) == (7, 0.2)

    def test_blocks_may_each_have_a_schedule(self):
        def curve(*ends):
            return {"lr": SchedLin(*map(np.array, ends))}

        strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"discriminative": {"blocks": 3, "factor": 2.0}})
        run = strategy.bind(mlp(3))
        assert run.block_factors == [0.25, 0.5, 1.0]
        run.follow(dataclasses.replace(run.plan, schedules=curve([0, 0, 0.2], [0.2, 0.1, 0.1])))
        assert (run.block_factors, run.optimizer.get_lr()) == ([0.0, 0.0, 1.0], 0.2)
        train(run)
        assert (run.block_factors, run.optimizer.get_lr()) == ([2.0, 1.0, 1.0], 0.1)
        # Where the top block rests, nothing is a share of its LR.
        run.follow(dataclasses.replace(run.plan, schedules=curve([0.1, 0.1, 0], [0.1, 0.1, 0])))
        assert (run.block_factors, run.optimizer.get_lr()) == ([0.25, 0.5, 1.0], 0.0)
        with pytest.raises(ValueError, match="lr has 2 values, but there are 3 blocks"):
            run.follow(dataclasses.replace(run.plan, schedules=curve([0, 0], [1, 1])))

    @pytest.mark.parametrize(
        "act",
        [
            lambda run: run.set_hyper("mom", 0.5),
            lambda run: run.follow(run.plan),
            lambda run: run.set_state_dict(run.state_dict()),
            lambda run: run.evaluated({}),
        ],
    )
    def test_nothing_is_set_after_release(self, act):
        run = hub.DefaultStrategy(0.1, "momentum").bind(mlp(1))
        act(run)
        run.release()
        with pytest.raises(RuntimeError, match="not in force"):
            act(run)

    def test_only_what_is_in_force_gives_layers_their_own_forwards_back(self):
        model = mlp(1)
        first, second = (hub.DefaultStrategy(0.1, "sgd").bind(model) for _ in range(2))
        for run, own in ((first, False), (second, True)):
            run.release()
            assert ("forward" not in vars(model[0])) is own

    def test_a_trainer_that_is_missing_is_named(self, monkeypatch):
        run = hub.DefaultStrategy(0.1, "sgd").bind(mlp(1))
        monkeypatch.setitem(sys.modules, "paddlenlp.trainer", None)
        with pytest.raises(ImportError, match=r"paddle_ftstrat\[paddlenlp\]"):
            run.trainer_callback()

    def test_epochs_do_not_count_where_phases_are_told_in_updates(self):
        strategy = hub.PhasedStrategy([hub.Phase("head", updates=2), hub.Phase()], "sgd", 0.1)
        run = strategy.bind(mlp(2), max_train_steps=8, steps_per_epoch=1)
        train(run, 3)
        assert (run.progress.phase, run.progress.began) == (1, 0)
        run.progress = dataclasses.replace(run.progress, began=3)
        run.begin_epoch(2)
        assert run.progress.phase == 1
