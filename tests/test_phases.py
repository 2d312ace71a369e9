"""Phases: what trains when, at which LR, how they end, in every loop; registered schedules and layer_decay by name."""

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat import schedules
from paddle_ftstrat.strategies import default_phases

STEPS = 4  # updates of an epoch


def net(layers=3):
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(layers)))


def trained(model):
    """Which of the layers train."""
    return [not layer.weight.stop_gradient for layer in model]


def update(run):
    run.model(paddle.ones([2, 3])).square().mean().backward()
    run.step()


def epochs(run, count, values=None):
    """Train so many epochs in a loop of one's own; per epoch the layers that train and the LRs of its updates."""
    seen = []
    for epoch in range(count):
        run.begin_epoch()
        lrs = []
        for _ in range(STEPS):
            lrs.append(run.optimizer.get_lr())
            update(run)
        seen.append((trained(run.model), lrs))
        if values is not None:
            run.evaluated({"valid_loss": values[epoch]})
        if run.progress.finished:
            break
    return seen


HEAD, ALL = [False, False, True], [True, True, True]


class TestOwnLoop:
    def test_head_first_then_all_each_with_its_own_schedule(self):
        strategy = hub.PhasedStrategy(
            [
                hub.Phase("head", epochs=1, learning_rate=0.1),
                hub.Phase("all", learning_rate=0.01, scheduler={"linear_decay": {"start_point": 0.0}}),
            ]
        )
        run = strategy.bind(net(), num_epoch=3, steps_per_epoch=STEPS)
        first, second, third = epochs(run, 3)
        assert first == (HEAD, [0.1] * 4)
        assert (second[0], third[0]) == (ALL, ALL)
        # Counted from the phase's first update, over the phase's eight.
        np.testing.assert_allclose(second[1] + third[1], 0.01 * (1 - np.arange(8) / 8))

    @pytest.mark.parametrize(
        ("train", "expected"),
        [
            ("all", ALL),
            ("head", HEAD),
            (2, [False, True, True]),
            ("0.*", [True, False, False]),
            (["0.*", "2.*"], [True, False, True]),
        ],
        ids=str,
    )
    def test_what_trains(self, train, expected):
        model = net()
        run = hub.PhasedStrategy([hub.Phase(train)], "sgd", 0.1).bind(model)
        before = [layer.weight.numpy() for layer in model]
        epochs(run, 1)
        assert trained(model) == expected
        assert [bool((layer.weight.numpy() != w).any()) for layer, w in zip(model, before)] == expected

    @pytest.mark.parametrize(
        "phases",
        [
            [hub.Phase("head", updates=3), hub.Phase("all")],
            [hub.Phase("head", share=0.25), hub.Phase("all")],
            [hub.Phase("head"), hub.Phase("all", updates=9)],
        ],
        ids=["updates", "share", "the rest"],
    )
    def test_phases_within_an_epoch(self, phases):
        run = hub.PhasedStrategy(phases).bind(net(), max_train_steps=12)
        assert run.plan.starts == (0, 3)
        seen = []
        for _ in range(12):
            seen.append(trained(run.model))
            update(run)
        assert seen == [HEAD] * 3 + [ALL] * 9

    def test_the_strategys_schedule_goes_on_across_phases(self):
        phases = [hub.Phase("head", epochs=1), hub.Phase(2, epochs=1, learning_rate=0.5), hub.Phase()]
        strategy = hub.PhasedStrategy(phases, learning_rate=0.1, scheduler={"cosine_decay": {}})
        run = strategy.bind(net(), num_epoch=3, steps_per_epoch=STEPS)
        lrs = [lr for _, epoch in epochs(run, 3) for lr in epoch]
        whole = schedules.SCHEDULES["cosine_decay"](0.1, 12).values(12)
        np.testing.assert_allclose(lrs, [*whole[:4], *[0.5] * 4, *whole[8:]])

    def test_a_phase_ends_when_a_value_does_not_improve_and_what_is_left_of_it_is_dropped(self):
        until = hub.Plateau("valid_loss", patience=2, max_epochs=5)
        phases = [hub.Phase("head", until=until, learning_rate=0.1), hub.Phase(epochs=2, learning_rate=0.2)]
        run = hub.PhasedStrategy(phases).bind(net(), num_epoch=7, steps_per_epoch=STEPS)
        seen = epochs(run, 5, [1.0, 0.5, 0.6, 0.7, 0.1])
        assert [layers for layers, _ in seen] == [HEAD] * 4 + [ALL]
        assert seen[-1][1] == [0.2] * 4
        assert run.dropped_epochs == 1

    def test_improvements_keep_a_phase_up_to_its_longest_length(self):
        phases = [hub.Phase("head", until=hub.Plateau(max_epochs=2)), hub.Phase()]
        run = hub.PhasedStrategy(phases).bind(net(), num_epoch=4, steps_per_epoch=STEPS)
        assert [layers for layers, _ in epochs(run, 4, [4, 3, 2, 1])] == [HEAD, HEAD, ALL, ALL]

    @pytest.mark.parametrize(("monitor", "values", "ends"), [("acc", [1, 2, 1], 3), ("mae", [2, 1, 2], 3)])
    def test_higher_or_lower_is_better_by_the_name(self, monitor, values, ends):
        run = hub.PhasedStrategy([hub.Phase(until=hub.Plateau(monitor))]).bind(net())
        assert [run.evaluated({monitor: value}) for value in values] == [False, False, True]
        assert run.progress.finished

    def test_the_best_weights_are_put_back(self):
        phases = [hub.Phase(epochs=3, until=hub.Plateau(patience=2), restore="best"), hub.Phase("head", epochs=1)]
        run = hub.PhasedStrategy(phases, "sgd", 0.1).bind(net(), num_epoch=4, steps_per_epoch=STEPS)
        kept = {}
        for value in (1.0, 2.0, 3.0):
            epochs(run, 1)
            if value == 1.0:
                kept = {name: tensor.numpy() for name, tensor in run.model.state_dict().items()}
            assert run.evaluated({"valid_loss": value}) == (value == 3.0)
        for name, tensor in run.model.state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), kept[name])

    @pytest.mark.parametrize("reset", [False, True])
    def test_the_state_of_what_goes_on_is_kept_unless_a_phase_resets_it(self, reset):
        phases = [hub.Phase(epochs=1), hub.Phase(reset_optimizer=reset)]
        run = hub.PhasedStrategy(phases, learning_rate=0.1).bind(net(1), num_epoch=2, steps_per_epoch=STEPS)
        epochs(run, 1)
        run.begin_epoch()
        state = run.state_dict()["optimizer"].get("0.weight", {})
        assert (not state) == reset
        update(run)
        moments = run.state_dict()["optimizer"]["0.weight"]
        power = next(value for name, value in moments.items() if name.startswith("beta1_pow"))
        assert float(power.numpy().reshape(-1)[0]) == pytest.approx(0.9 ** (2 if reset else 6))

    def test_frozen_by_the_user_stays_frozen(self):
        model = net()
        model[2].weight.stop_gradient = True
        run = hub.LPFTStrategy(0.1, 0.01).bind(model, num_epoch=2, steps_per_epoch=STEPS)
        assert [layers for layers, _ in epochs(run, 2)] == [[False] * 3, [True, True, False]]

    def test_state_goes_on_in_the_middle_of_a_phase(self):
        phases = [hub.Phase("head", until=hub.Plateau(patience=1, max_epochs=4), restore="best"), hub.Phase(epochs=2)]
        strategy = hub.PhasedStrategy(phases, learning_rate=0.1)

        def bound():
            paddle.seed(1)
            return strategy.bind(net(), num_epoch=6, steps_per_epoch=STEPS)

        whole = bound()
        epochs(whole, 4, [2.0, 1.0, 3.0, 0.5])
        part, resumed = bound(), bound()
        epochs(part, 2, [2.0, 1.0])
        resumed.model.set_state_dict(part.model.state_dict())
        resumed.set_state_dict(part.state_dict())
        epochs(resumed, 2, [3.0, 0.5])
        assert resumed.progress.state_dict() == whole.progress.state_dict()
        assert resumed.lr_scheduler.last_epoch == whole.lr_scheduler.last_epoch
        for (name, a), (_, b) in zip(whole.model.named_parameters(), resumed.model.named_parameters()):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


class TestJumps:
    """Where a loop does not simply go on: back, ahead, out of step with the epochs."""

    PHASES = (hub.Phase("head", epochs=1), hub.Phase(2, epochs=2), hub.Phase(epochs=2, reset_optimizer=True))
    THAWED = (HEAD, [False, True, True], [False, True, True], ALL, ALL)

    @pytest.mark.parametrize("jump", [[5, 1], [2, 3, 2, 1], [4, 5, 4, 5], [1, 5, 3, 2]], ids=str)
    def test_any_order_of_epochs(self, jump):
        run = hub.PhasedStrategy(self.PHASES).bind(net(), num_epoch=5, steps_per_epoch=STEPS)
        for epoch in jump:
            run.begin_epoch(epoch)
            assert trained(run.model) == self.THAWED[epoch - 1]

    def test_an_epoch_back_in_the_same_phase_keeps_the_optimizers_state(self):
        run = hub.PhasedStrategy(self.PHASES).bind(net(), num_epoch=5, steps_per_epoch=STEPS)
        epochs(run, 5)
        run.begin_epoch(4)
        assert run.state_dict()["optimizer"]["2.weight"]

    def test_an_epoch_back_stays_in_the_phase_that_began_early(self):
        phases = [hub.Phase("head", until=hub.Plateau(max_epochs=4)), hub.Phase(epochs=3)]
        run = hub.PhasedStrategy(phases).bind(net(), num_epoch=7, steps_per_epoch=STEPS)
        epochs(run, 4, [1, 2, 3, 4])
        assert run.epoch == 4
        run.begin_epoch(3)
        assert trained(run.model) == ALL

    def test_phases_in_updates_follow_the_scheduler_to_any_update(self):
        phases = [hub.Phase("head", updates=3), hub.Phase(2, share=0.25), hub.Phase()]
        run = hub.PhasedStrategy(phases).bind(net(), max_train_steps=12)
        for t in (11, 0, 5, 6, 2, 3):
            run.lr_scheduler.step(t)
            run.begin_epoch(1)
            assert trained(run.model) == (HEAD if t < 3 else [False, True, True] if t < 6 else ALL)

    def test_a_phase_that_ends_inside_an_epoch(self):
        until = hub.Plateau(patience=1, max_epochs=3)
        phases = [
            hub.Phase("head", until=until, learning_rate=0.1),
            hub.Phase(2, epochs=1, learning_rate=0.2),
            hub.Phase(epochs=1, learning_rate=0.3),
        ]
        run = hub.PhasedStrategy(phases).bind(net(), num_epoch=5, steps_per_epoch=STEPS)
        seen = []
        for t in range(2 + 2 * STEPS):
            if t % STEPS == 0:
                run.begin_epoch()
            if t in (1, 2):
                run.evaluated({"valid_loss": t})
            seen.append((trained(run.model), run.optimizer.get_lr()))
            update(run)
        # Each of the others lasts for its updates, counted from its beginning.
        assert seen == [(HEAD, 0.1)] * 2 + [([False, True, True], 0.2)] * STEPS + [(ALL, 0.3)] * STEPS

    def test_a_value_that_is_no_number_is_no_improvement(self):
        run = hub.PhasedStrategy([hub.Phase(until=hub.Plateau(patience=2))]).bind(net())
        assert [run.evaluated({"valid_loss": v}) for v in (np.nan, 3.0, 2.0, np.nan, 2.0)] == [False] * 4 + [True]

    def test_state_of_a_finished_training_and_of_another(self):
        phases = [hub.Phase("head", epochs=1), hub.Phase(until=hub.Plateau(max_epochs=3))]
        run = hub.PhasedStrategy(phases).bind(net(), num_epoch=4, steps_per_epoch=STEPS)
        epochs(run, 4, [1, 1, 2, 3])
        assert run.progress.finished
        assert run.epoch == 3
        state = run.state_dict()
        again = hub.PhasedStrategy(phases).bind(net(), num_epoch=4, steps_per_epoch=STEPS)
        again.set_state_dict(state)
        assert again.progress.finished
        assert not again.evaluated({"valid_loss": 9.0})
        other = hub.DefaultStrategy().bind(net(), num_epoch=4, steps_per_epoch=STEPS)
        with pytest.raises(ValueError, match="saved in phase 2, but this binding has 1"):
            other.set_state_dict({**state, "max_train_steps": other.plan.max_train_steps})
        assert other.epoch == 0

    @pytest.mark.parametrize("how", ["released", "bound anew"])
    def test_a_binding_that_is_over_changes_nothing_any_more(self, how):
        model = net()
        run = hub.PhasedStrategy([hub.Phase("head", updates=1), hub.Phase()]).bind(model, max_train_steps=4)
        run.release() if how == "released" else hub.PhasedStrategy([hub.Phase(2)]).bind(model)
        before = trained(model)
        assert before == (ALL if how == "released" else [False, True, True])
        run.lr_scheduler.step()
        run.lr_scheduler.step(3)
        assert trained(model) == before
        with pytest.raises(RuntimeError, match="not in force"):
            run.evaluated({"valid_loss": 1.0})

    def test_best_weights_of_half_precision_stay(self):
        phases = [hub.Phase(until=hub.Plateau(max_epochs=3), restore="best"), hub.Phase(epochs=1)]
        model = net().to(dtype="bfloat16")
        run = hub.PhasedStrategy(phases, "sgd", 0.1).bind(model, max_train_steps=16, steps_per_epoch=STEPS)
        kept = []
        for value in (1.0, 2.0):
            sum(p.astype("float32").square().sum() for p in model.parameters()).backward()
            run.step()
            kept.append([p.astype("float32").numpy() for p in model.parameters()])
            run.evaluated({"valid_loss": value})
        # An update without a gradient: neither the restoring nor the float32 values leave the weights elsewhere.
        sum((p.astype("float32") * 0).sum() for p in model.parameters()).backward()
        run.step()
        for param, best, later in zip(model.parameters(), *kept):
            assert (best != later).any() or not best.any()
            np.testing.assert_array_equal(param.astype("float32").numpy(), best)


class TestEveryLoop:
    def data(self, n=16):
        x = paddle.randn([n, 3])
        return paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])

    def learner(self, cbs=(), **options):
        return hub.Learner(net(), self.data(), self.data(8), batch_size=4, progress=False, cbs=cbs, **options)

    def test_learner(self):
        seen = []

        class Spy(hub.Callback):
            def on_epoch_begin(self, learner):
                seen.append((trained(learner.model), learner.run.optimizer.get_lr()))

        it = self.learner([Spy()])
        it.fit(3, strategy=hub.LPFTStrategy(0.1, 0.01))
        assert seen == [(HEAD, 0.1), (ALL, 0.01), (ALL, 0.01)]
        assert it.recorder.hps["lr"] == it.recorder.lrs

    def test_learner_ends_phases_early(self):
        values = iter([1.0, 2.0, 3.0, 1.0, 1.0])

        def score_error(outputs, labels):
            return next(values)

        seen = []

        class Spy(hub.Callback):
            def on_epoch_begin(self, learner):
                seen.append(trained(learner.model))

        strategy = hub.PhasedStrategy(
            [hub.Phase("head", until=hub.Plateau("score_error", patience=2, max_epochs=6)), hub.Phase(epochs=2)]
        )
        it = self.learner([Spy()], metrics=score_error)
        results = it.fit(8, strategy=strategy)
        # Three epochs of the six, then the second phase.
        assert seen == [HEAD] * 3 + [ALL] * 2
        assert len(results) == 5

    @pytest.mark.parametrize(("valid", "monitor"), [(True, "valid_los"), (False, "valid_loss")])
    def test_learner_checks_what_is_monitored_before_the_first_update(self, valid, monitor):
        it = hub.Learner(net(), self.data(), self.data(8) if valid else None, batch_size=4, progress=False)
        strategy = hub.PhasedStrategy([hub.Phase("head", until=hub.Plateau(monitor, max_epochs=2)), hub.Phase()])
        with pytest.raises(ValueError, match=f"unknown value to monitor '{monitor}'"):
            it.fit(3, strategy=strategy)
        assert it.recorder.losses == []

    @pytest.mark.parametrize(
        "phases", [[hub.Phase("head", epochs=2), hub.Phase()], [hub.Phase("head", updates=8), hub.Phase()]]
    )
    def test_learner_that_had_epochs_before_begins_in_their_phase(self, phases):
        seen = []

        class Spy(hub.Callback):
            def on_before_update(self, learner):
                seen.append(trained(learner.model))

        self.learner([Spy()]).fit(3, strategy=hub.PhasedStrategy(phases), start_epoch=2)
        assert seen == [ALL] * STEPS

    def test_lr_find_after_a_fit_in_phases_trains_what_is_not_frozen_now(self):
        seen = []
        it = self.learner()
        it.fine_tune(1, 0.01)
        plan, weight = it.run.plan, it.model[0].weight

        class Watched(nn.CrossEntropyLoss):
            def forward(self, *given):
                seen.append(weight.stop_gradient)
                return super().forward(*given)

        it.loss = Watched()
        it.lr_find(num_it=12, stop_div=False)
        assert not any(seen)
        assert it.run.plan == plan

    def test_cached_features_follow_a_thaw_inside_an_epoch(self):
        ends = []
        for cached in (False, True):
            paddle.seed(3)
            np.random.seed(3)
            it = self.learner(cache_frozen=cached)
            strategy = hub.PhasedStrategy([hub.Phase("head", updates=10), hub.Phase()], "sgd", 0.1)
            it.fit(4, strategy=strategy)
            ends.append(it.model[0].weight.numpy())
        np.testing.assert_allclose(*ends, rtol=1e-5)

    @pytest.mark.parametrize("strategy", [hub.LPFTStrategy(0.1, 0.01), hub.FineTuneStrategy(0.01)], ids=repr)
    def test_a_new_curve_over_what_is_left_does_not_begin_with_the_phases_that_are_over(self, strategy, tmp_path):
        def learner(choice=None):
            return self.learner(checkpoints=hub.Checkpoints(tmp_path, on_length_change=choice))

        learner().fit(2, strategy=strategy)
        with pytest.raises(ValueError, match="phases that are over"):
            learner("restart").fit(4, strategy=strategy)
        it = learner("extend")
        it.fit(4, strategy=strategy)
        assert trained(it.model) == ALL
        assert len(it.recorder.losses) == 4 * STEPS

    def test_paddle_model(self):
        seen = []

        class Spy(paddle.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(trained(self.model.network))

        network = net()
        run = hub.LPFTStrategy(0.1, 0.01).bind(network, num_epoch=3, steps_per_epoch=4)
        model = paddle.Model(network)
        model.prepare(run.optimizer, nn.CrossEntropyLoss())
        model.fit(self.data(), batch_size=4, epochs=3, verbose=0, callbacks=[run.callback(), Spy()])
        assert seen == [HEAD, ALL, ALL]

    def test_paddle_model_ends_phases_early(self):
        network = net()
        phases = [hub.Phase("head", until=hub.Plateau("never_error", max_epochs=5))]
        run = hub.PhasedStrategy(phases).bind(network, num_epoch=5, steps_per_epoch=4)
        model = paddle.Model(network)
        model.prepare(run.optimizer, nn.CrossEntropyLoss())
        data = self.data()
        with pytest.raises(ValueError, match="never_error"):
            model.fit(data, data, batch_size=4, epochs=1, verbose=0, callbacks=[run.callback()])
        run = hub.PhasedStrategy([hub.Phase("head", until=hub.Plateau("valid_loss", max_epochs=9))], "sgd", 1e-30)
        run = run.bind(network, num_epoch=9, steps_per_epoch=4)
        model = paddle.Model(network)
        model.prepare(run.optimizer, nn.CrossEntropyLoss())
        model.fit(data, data, batch_size=4, epochs=9, verbose=0, callbacks=[run.callback()])
        # Nothing moves at that LR: the second evaluation is no improvement.
        assert run.epoch == 2
        assert run.progress.finished

    def test_task(self, tmp_path):
        config = hub.RunConfig(num_epoch=2, batch_size=4, strategy=hub.LPFTStrategy(0.1, 0.01), checkpoint_dir=tmp_path)
        task = hub.ClassifierTask(net(), {"train": self.data(), "dev": self.data(8)}, config)
        task.finetune_and_eval()
        assert task.learner.run.progress.phase == 1


class TestSaid:
    def test_yaml_by_hand_and_back(self):
        text = """
        strategy: PhasedStrategy
        phases:
          - {train: head, epochs: 2, learning_rate: 1e-3}
          - train: ["1.*", "2.*"]
            until: {monitor: valid_loss, patience: 2, max_epochs: 10}
            restore: best
        regularization: {L2SP: 0.1}
        """
        strategy = hub.strategy_from_yaml(text)
        assert strategy.phases == (
            hub.Phase("head", epochs=2, learning_rate=1e-3),
            hub.Phase(["1.*", "2.*"], until=hub.Plateau("valid_loss", 2, 10), restore="best"),
        )
        assert hub.strategy_from_yaml(strategy.to_yaml()).phases == strategy.phases
        built = hub.PhasedStrategy(strategy.phases, regularization={"L2SP": 0.1})
        assert hub.strategy_from_yaml(built.to_yaml()).phases == strategy.phases

    def test_default_phases_can_be_written_edited_and_bound(self):
        model = net()
        strategy = hub.strategy_from_yaml(default_phases(model, epochs=1).to_yaml())
        run = strategy.bind(model, num_epoch=3, steps_per_epoch=STEPS)
        assert [layers for layers, _ in epochs(run, 3)] == [HEAD, [False, True, True], ALL]

    def test_explain_and_plot_know_phases(self, tmp_path, capsys):
        from paddle_ftstrat.tools import cli

        path = tmp_path / "s.yaml"
        hub.LPFTStrategy(0.1, 0.01).to_yaml(path)
        assert cli.main(["explain", str(path), "--steps", "12", "--epochs", "3"]) == 0
        text = capsys.readouterr().out
        assert "constant 0.1 in updates 0–3, then constant 0.01 in updates 4–11" in text
        assert cli.main(["plot", str(path), "--steps", "12", "--epochs", "3", "-o", str(tmp_path / "p.png")]) == 0
        assert (tmp_path / "p.png").stat().st_size > 5000
        run = hub.LPFTStrategy(0.1, 0.01).bind(net(), num_epoch=3, steps_per_epoch=STEPS)
        assert [row.first_epoch for row in run.describe()] == [2, 2, 2, 2, 1, 1]
        run.plot(tmp_path / "q.png")

    BAD = (
        (lambda: hub.PhasedStrategy([]), "at least one Phase"),
        (lambda: hub.PhasedStrategy("head"), "at least one Phase"),
        (lambda: hub.PhasedStrategy([hub.Phase(), hub.Phase()]), r"phases \[1, 2\] have no length"),
        (
            lambda: hub.PhasedStrategy([{"train": "all", "epoch": 1}]),
            r"key of phases\[0\] 'epoch'. Did you mean 'epochs'",
        ),
        (lambda: hub.PhasedStrategy([{"until": {"patients": 1}}]), r"until 'patients'. Did you mean 'patience'"),
        (lambda: hub.PhasedStrategy([hub.Phase([])]), "trains nothing"),
        (lambda: hub.PhasedStrategy([hub.Phase(scheduler={"warmup": 2})]), "warmup = 2"),
        (lambda: hub.PhasedStrategy([hub.Phase(scheduler={"layer_decay": 0.5})]), "give it to the strategy"),
        (lambda: hub.PhasedStrategy([hub.Phase()], scheduler={"gradual_unfreeze": 3}), "write it as phases"),
        (lambda: hub.Phase(epochs=1, updates=2), "one length, but epochs and updates are given"),
        (lambda: hub.Phase(epochs=1, until=hub.Plateau(max_epochs=2)), "epochs and until.max_epochs"),
        (lambda: hub.Phase(epochs=0), "phase.epochs = 0"),
        (lambda: hub.Phase(share=1.5), "phase.share = 1.5"),
        (lambda: hub.Phase(restore="best"), "needs until"),
        (lambda: hub.Phase(until=hub.Plateau(), restore="last"), "unknown restore 'last'"),
        (lambda: hub.Plateau(patience=0), "Plateau.patience = 0"),
        (lambda: hub.Plateau(mode="low"), "Plateau.unknown mode 'low'"),
        (lambda: hub.PhasedStrategy([hub.Phase("nothing.*")]).bind(net()), "phase 1: train.* 'nothing"),
        (lambda: hub.PhasedStrategy([hub.Phase(7)]).bind(net()), "train=7, but the model has 3 layers"),
        (
            lambda: hub.LPFTStrategy(0.1, 0.01, head_epochs=3).bind(net(), num_epoch=3, steps_per_epoch=4),
            "take 12 updates",
        ),
        (lambda: hub.LPFTStrategy(0.1, 0.01).bind(net(), num_epoch=3), "need the length of the training"),
        (
            lambda: hub.PhasedStrategy([hub.Phase("head", updates=9), hub.Phase()]).bind(net(), max_train_steps=9),
            "before the last take 9 updates, but the training has 9",
        ),
        (
            lambda: hub.PhasedStrategy([hub.Phase("head"), hub.Phase(updates=9)]).bind(net(), max_train_steps=9),
            "other phases take 9 updates, but the training has 9",
        ),
        (
            lambda: hub.PhasedStrategy([hub.Phase(2, epochs=1), hub.Phase(epochs=1)]).bind(
                net(), num_epoch=3, steps_per_epoch=4
            ),
            "the phases take 8 updates, but the training has 12",
        ),
        (
            lambda: hub.PhasedStrategy([hub.Phase("head"), hub.Phase(epochs=2)]).bind(net()),
            r"ends of phases \[1\] are unknown",
        ),
        (
            lambda: hub.PhasedStrategy([hub.Phase(2, epochs=1), hub.Phase(3, share=0.5), hub.Phase()]).bind(net()),
            r"ends of phases \[1, 2\] are unknown",
        ),
    )

    @pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
    def test_everything_wrong_is_said_before_the_first_step(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


# The options that a schedule needs; None: PaddleHub's keys, which have their own tests.
OPTIONS = {
    "multi_step_decay": {"milestones": [3, 7]},
    **dict.fromkeys(("noam_decay", "warmup", "linear_decay", "slanted_triangle")),
}


class TestRegisteredSchedules:
    @pytest.mark.parametrize("name", [name for name in schedules.SCHEDULES if OPTIONS.get(name, {}) is not None])
    def test_every_one_is_a_key_of_the_scheduler_dict(self, name):
        options = OPTIONS.get(name, {})
        strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={name: options})
        again = hub.strategy_from_yaml(strategy.to_yaml())
        expected = schedules.SCHEDULES[name](0.1, 20, **options).values(20)
        run = again.bind(net(), max_train_steps=20)
        lrs = []
        for _ in range(20):
            lrs.append(run.optimizer.get_lr())
            update(run)
        np.testing.assert_allclose(lrs, expected)

    def test_a_new_one_is_a_function(self, capsys):
        @schedules.register("sawtooth_for_test")
        def sawtooth(learning_rate, max_train_steps, teeth=2):
            """A sawtooth."""
            width = max_train_steps / teeth
            return schedules.Schedule([(0, lambda t: learning_rate * (1 - t % width / width))], end=max_train_steps)

        try:
            strategy = hub.CombinedStrategy("sgd", 1.0, scheduler={"sawtooth_for_test": {"teeth": 4}, "warmup": 0.2})
            lr = strategy.plan(20).lr
            np.testing.assert_allclose([lr(t) for t in (0, 2, 4, 6, 8)], [0, 0.5, 1, 0.5, 1])
            assert hub.CombinedStrategy(scheduler={"sawtooth_for_test": True}).plan(8).lr(0) == 1e-4
            with pytest.raises(ValueError, match="'teath'. Did you mean 'teeth'"):
                hub.CombinedStrategy(scheduler={"sawtooth_for_test": {"teath": 4}})
            from paddle_ftstrat.tools import cli

            cli.main(["list"])
            assert "sawtooth_for_test" in capsys.readouterr().out
        finally:
            schedules.SCHEDULES.pop("sawtooth_for_test")

    @pytest.mark.parametrize(
        ("scheduler", "message"),
        [
            ({"cosine_decay": {}, "one_cycle": {}}, "give one of them"),
            ({"cosine_decay": {}, "linear_decay": {"start_point": 0.0}}, "give one of them"),
            ({"cosine_decay": {"alpha": -1}}, "alpha = -1"),
            ({"cosin_decay": {}}, "Did you mean 'cosine_decay'"),
            ({"layer_decay": 2}, "layer_decay.decay = 2"),
            ({"layer_decay": 0.5, "discriminative": 3}, "discriminative and layer_decay"),
        ],
    )
    def test_wrong_combinations(self, scheduler, message):
        with pytest.raises(ValueError, match=message):
            hub.CombinedStrategy(scheduler=scheduler).plan(20)

    @pytest.mark.parametrize(
        ("given", "factors"),
        [(0.5, [0.25, 0.5, 1.0]), ({"decay": 0.5, "minimum": 0.4}, [0.4, 0.5, 1.0])],
    )
    def test_layer_decay(self, given, factors):
        run = hub.CombinedStrategy(scheduler={"layer_decay": given}).bind(net())
        assert run.block_factors == factors
