"""A training that is interrupted and goes on as if nothing had happened, or says why it cannot."""

import time
import warnings
from typing import ClassVar

import numpy as np
import paddle
import pytest
import resumable
from killing import different, killed_and_resumed, unbroken
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat import acceleration
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.optim.fused import step
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.checkpoint import folder


class Interrupted(Exception):
    pass


class Interrupt(Callback):
    """Ends the training by an exception after so many updates."""

    def __init__(self, at):
        self._at = at

    def on_batch_end(self, learner):
        if len(learner.recorder.losses) == self._at:
            raise Interrupted


def interrupted(at, folder, tmp_path, **options):
    """A training that ends by an exception after update `at`; True if it did."""
    learner = resumable.build(folder, str(tmp_path / "r"), **options)
    learner.cbs.append(Interrupt(at))
    with pytest.raises(Interrupted):
        resumable.run(learner)


def outcome(folder, tmp_path, **options):
    learner = resumable.build(folder, str(tmp_path / "r"), **options)
    return resumable.outcome(learner, resumable.run(learner))


def test_killed_twenty_times_it_comes_out_bit_identical(tmp_path):
    found, inside = killed_and_resumed(tmp_path, kills=20)
    assert different(unbroken(tmp_path), found) == []
    assert inside, "no kill came while a checkpoint was being written"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Outcomes of unbroken trainings, by their options."""
    known = {}

    def of(**options):
        key = tuple(sorted(options.items()))
        if key not in known:
            known[key] = outcome(None, tmp_path_factory.mktemp("whole"), **options)
        return known[key]

    return of


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("at", [1, 4, 10, 25, 40, 41, 59])
def test_interrupted_anywhere_it_comes_out_bit_identical(whole, tmp_path, at, noisy, optimizer):
    options = {"optimizer": optimizer, "noisy": noisy}
    interrupted(at, tmp_path / "ckpt", tmp_path, **options)
    assert different(whole(**options), outcome(tmp_path / "ckpt", tmp_path, **options)) == []


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"workers": 2}, {"background": False, "keep": 1}])
def test_other_ways_to_train_resume_as_well(whole, tmp_path, options):
    interrupted(23, tmp_path / "ckpt", tmp_path, **options)
    assert different(whole(**options), outcome(tmp_path / "ckpt", tmp_path, **options)) == []


def test_saving_does_not_change_the_training(whole, tmp_path):
    assert different(whole(), outcome(tmp_path / "ckpt", tmp_path, every=1)) == []


def test_what_is_finished_is_not_trained_again(tmp_path):
    first = resumable.build(tmp_path / "ckpt", str(tmp_path / "r"))
    results = resumable.run(first)
    again = resumable.build(tmp_path / "ckpt", str(tmp_path / "r"))
    again.cbs.append(Interrupt(1))
    assert resumable.run(again) == results
    assert again.recorder.losses == first.recorder.losses
    for (name, a), (_, b) in zip(first.model.state_dict().items(), again.model.state_dict().items()):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


def test_early_stopping_and_the_best_model_survive(tmp_path):
    def build():
        paddle.seed(3)
        np.random.seed(3)
        x = np.random.normal(size=[40, 4]).astype("float32")
        pairs = [(row, np.int64(row.sum() > 0)) for row in x]
        cbs = [hub.EarlyStoppingCallback(patience=1), hub.SaveModelCallback(fname="top")]
        return hub.Learner(
            nn.Linear(4, 2), pairs, pairs, batch_size=10, cbs=cbs, progress=False, path=tmp_path,
            checkpoints=hub.Checkpoints(tmp_path / "ckpt", every=1),
        )  # fmt: skip

    class Worse(Callback):
        """Makes the validation loss rise from the third epoch on."""

        def on_validate_end(self, learner):
            learner.state.values["loss"] = abs(learner.state.epoch - 2.0)

    def fit(learner, *cbs):
        learner.cbs.insert(0, Worse())
        return learner.fit(9, 0.1, cbs=cbs)

    with pytest.raises(Interrupted):
        fit(build(), Interrupt(13))
    results = fit(build())
    assert [row["epoch"] for row in results] == [1, 2, 3, 4]
    assert results[-1]["valid_loss"] == 2.0


def small(folder, *cbs, data=None, **options):
    """A Learner for two updates per epoch."""
    paddle.seed(0)
    np.random.seed(0)
    pairs = [(np.full(4, i, "float32"), np.int64(i % 2)) for i in range(8)] if data is None else data
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    checkpoints = None if folder is None else hub.Checkpoints(folder, **options)
    return hub.Learner(model, pairs, pairs, batch_size=4, progress=False, cbs=cbs, checkpoints=checkpoints)


def ending(event):
    """A callback that ends the training by an exception at an event."""

    def end(learner):
        raise Interrupted

    callback = Callback()
    setattr(callback, f"on_{event}", end)
    return callback


@pytest.mark.parametrize("event", ["validate_end", "epoch_end", "fit_end"])
@pytest.mark.parametrize("every", [None, 1])
def test_what_a_fit_resumed_from_ends_with_it(tmp_path, event, every):
    def fit(learner):
        learner.fit(1, strategy=hub.L2SPFinetuneStrategy(1e-2))
        learner.lr_find(num_it=20, end_lr=0.1)
        learner.fit(2, strategy=hub.DefaultStrategy(1e-2))
        learner.fit_one_cycle(1, 1e-2)
        return learner.recorder.losses

    with pytest.raises(Interrupted):
        fit(small(tmp_path, ending(event), every=every))
    assert fit(small(tmp_path, every=every)) == fit(small(None))


def test_the_reader_of_an_interrupted_fit_reads_no_more(tmp_path):
    class Slow(paddle.io.Dataset):
        drawn = 0

        def __len__(self):
            return 40

        def __getitem__(self, index):
            Slow.drawn += 1
            time.sleep(0.005)
            return np.random.normal(size=4).astype("float32"), np.int64(index % 2)

    learner = small(tmp_path, ending("batch_end"), data=Slow())
    with pytest.raises(Interrupted) as kept:  # its traceback keeps the loader's iterator
        learner.fit(1, strategy=hub.DefaultStrategy(1e-2))
    drawn = Slow.drawn
    time.sleep(0.1)
    assert Slow.drawn == drawn < 40, kept


def test_an_interrupted_fit_waits_for_the_checkpoint_that_is_being_written(tmp_path, monkeypatch):
    write = folder.write

    def slowly(*args):
        time.sleep(0.3)
        write(*args)

    expected = small(None)
    expected.fit(1, 0.1)
    monkeypatch.setattr(folder, "write", slowly)
    with pytest.raises(Interrupted):
        small(tmp_path, ending("validate_begin"), every=1).fit(1, 0.1)
    again = small(tmp_path, ending("batch_end"), every=1)  # both updates are on the disk
    assert again.fit(1, 0.1) == expected.recorder.values


def test_a_finished_script_is_as_it_was_at_its_end(tmp_path):
    def script():
        ema = hub.EMA(decay=0.5)
        learner = small(tmp_path, ema)
        learner.fit(1, strategy=hub.DefaultStrategy(1e-2))
        learner.fit_one_cycle(2, 1e-2)
        with ema.averaged():
            averaged = learner.validate()
        ema.apply()
        return learner, averaged

    (first, averaged), (again, averaged_again) = script(), script()
    assert averaged_again == averaged
    assert again.recorder.hps == first.recorder.hps != {}
    assert again.run.optimizer.get_lr() == first.run.optimizer.get_lr()
    assert repr(again.run.state_dict()) == repr(first.run.state_dict())
    assert (again.state.epoch, again.state.step) == (first.state.epoch, first.state.step) == (2, 4)


def test_an_extended_fit_has_the_mean_loss_of_each_epoch(tmp_path):
    small(tmp_path).fit(1, 0.1)
    learner = small(tmp_path, on_length_change="keep")
    results, losses = learner.fit(2, 0.1), learner.recorder.losses
    assert [row["train_loss"] for row in results] == [sum(losses[:2]) / 2, sum(losses[2:]) / 2]


class TestDifferences:
    def again(self, tmp_path, **changes):
        interrupted(4, tmp_path / "ckpt", tmp_path)
        return lambda: outcome(tmp_path / "ckpt", tmp_path, **changes)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"optimizer": "momentum"}, r"strategy\.optimizer_name: 'adam' in the checkpoint, 'momentum' now"),
            ({"lr": 0.5}, r"strategy\.learning_rate: 0\.02 in the checkpoint, 0\.5 now"),
            ({"batch": 10}, r"data\.batch: 5 in the checkpoint, 10 now"),
            ({"accumulate": 2}, r"data\.batch: 5 in the checkpoint, 10 now"),
            ({"samples": 45}, r"data\.samples: 50 in the checkpoint, 45 now"),
            ({"width": 8}, r"model\.0\.weight: 'float32\[6, 16\]' in the checkpoint, 'float32\[6, 8\]' now"),
            ({"multiplier": 0.5}, r"parameter settings\.6\.weight: absent in the checkpoint, \[0\.5"),
        ],
        ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
    )
    def test_a_changed_training_is_told_and_nothing_is_changed(self, tmp_path, changes, told):
        again = self.again(tmp_path, **changes)
        with pytest.raises(ValueError, match=told):
            again()
        assert different(outcome(tmp_path / "ckpt", tmp_path), outcome(None, tmp_path)) == []

    def test_a_callback_that_is_missing_is_told(self, tmp_path):
        again = self.again(tmp_path, ema=False)
        with pytest.raises(ValueError, match=r"callbacks: \['1:EMA'\] in the checkpoint, \[\] now"):
            again()

    def test_a_changed_length_needs_a_choice(self, tmp_path):
        with pytest.raises(ValueError, match=r'4 epochs, this one has 6: .*"extend" \| "restart" \| "keep"'):
            self.again(tmp_path, epochs=6)()

    @pytest.mark.parametrize(
        ("module", "attribute", "other", "told"),
        [
            (paddle, "__version__", "0.0.0", "paddle: '.*' in the checkpoint, '0.0.0' now"),
            (threads, "wanted", lambda n: 3, "threads: .* in the checkpoint, 3 now"),
            (threads, "code_in_force", lambda: 4, "MKL code: .* in the checkpoint, 4 now"),
            (step, "maker", lambda optimizer: "abacus", "updates by: '.*' in the checkpoint, 'abacus' now"),
            (acceleration, "maker", lambda model: "abacus", "layers by: '.*' in the checkpoint, 'abacus' now"),
        ],
    )
    def test_what_rounds_otherwise_is_a_warning(self, tmp_path, monkeypatch, module, attribute, other, told):
        again = self.again(tmp_path)
        monkeypatch.setattr(module, attribute, other)
        with pytest.warns(UserWarning, match=told):
            again()


class TestLength:
    """A fit of 2 epochs of 5 updates on a line from 1 to 0 goes on as one of 4.

    It was finished, or interrupted after 7 updates, of which the last was not saved yet.
    """

    def lrs(self, tmp_path, choice, first, second=4, at=None):
        def build(**options):
            paddle.seed(0)
            np.random.seed(0)
            pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(10)]
            checkpoints = hub.Checkpoints(tmp_path, every=1, **options)
            return hub.Learner(nn.Linear(2, 1), pairs, batch_size=2, progress=False, checkpoints=checkpoints)

        strategy = hub.CombinedStrategy("sgd", 1.0, scheduler={"linear_decay": {"start_point": 0.0}})
        learner = build()
        if at is None:
            learner.fit(first, strategy=strategy)
        else:
            with pytest.raises(Interrupted):
                learner.fit(first, strategy=strategy, cbs=[Interrupt(at)])
        learner = build(on_length_change=choice)
        learner.fit(second, strategy=strategy)
        return learner.recorder.lrs

    def line(self, updates, length):
        return [max(0.0, 1 - t / length) for t in updates]

    @pytest.mark.parametrize("at", [None, 7])
    def test_extend_goes_on_at_the_same_update_of_the_longer_curve(self, tmp_path, at):
        lrs, done = self.lrs(tmp_path, "extend", 2, at=at), 10 if at is None else at - 1
        np.testing.assert_allclose(lrs, self.line(range(done), 10) + self.line(range(done, 20), 20), atol=1e-12)

    @pytest.mark.parametrize("at", [None, 7])
    def test_restart_begins_a_curve_over_what_is_left(self, tmp_path, at):
        lrs, done = self.lrs(tmp_path, "restart", 2, at=at), 10 if at is None else at - 1
        np.testing.assert_allclose(lrs, self.line(range(done), 10) + self.line(range(20 - done), 20 - done), atol=1e-12)

    @pytest.mark.parametrize("at", [None, 7])
    def test_keep_stays_on_the_old_curve(self, tmp_path, at):
        np.testing.assert_allclose(self.lrs(tmp_path, "keep", 2, at=at), self.line(range(20), 10), atol=1e-12)

    def test_a_choice_made_once_holds_at_the_next_interruption(self, tmp_path):
        lrs = self.lrs(tmp_path, "restart", 2)
        learner = hub.Learner(
            nn.Linear(2, 1), [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(10)], batch_size=2,
            progress=False, checkpoints=tmp_path,
        )  # fmt: skip
        strategy = hub.CombinedStrategy("sgd", 1.0, scheduler={"linear_decay": {"start_point": 0.0}})
        learner.fit(4, strategy=strategy)
        assert learner.recorder.lrs == lrs

    def test_fewer_epochs_than_are_done_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="has 3 epochs behind it, this fit only 2"):
            self.lrs(tmp_path, "extend", 4, second=2, at=17)

    def test_after_the_error_the_checkpoint_is_still_there(self, tmp_path):
        pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(10)]

        def build():
            return hub.Learner(nn.Linear(2, 1), pairs, batch_size=2, progress=False, checkpoints=tmp_path)

        build().fit(2, 0.1)
        again = build()
        for _ in range(2):
            with pytest.raises(ValueError, match="2 epochs, this one has 4"):
                again.fit(4, 0.1)
        assert [row["epoch"] for row in again.fit(2, 0.1)] == [1, 2]
        assert len(again.recorder.losses) == 10

    def test_an_unknown_choice_is_refused(self):
        with pytest.raises(ValueError, match="extend"):
            hub.Checkpoints("x", on_length_change="extent")


def test_the_best_and_the_newest_can_be_loaded(tmp_path):
    learner = resumable.build(tmp_path / "ckpt", str(tmp_path / "r"))
    resumable.run(learner)
    losses = [row["valid_loss"] for row in learner.recorder.values]
    assert learner.load_checkpoint() == len(learner.recorder.losses)
    best = learner.load_checkpoint(best=True)
    assert learner.recorder.ends.index(best) == int(np.argmin(losses))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert learner.validate()["loss"] == pytest.approx(min(losses), abs=1e-6) or hasattr(hub, "EMA")


def test_every_update_that_is_due_is_saved_in_later_fits_too(tmp_path):
    pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(30)]
    learner = hub.Learner(
        nn.Linear(2, 1), pairs, batch_size=2, progress=False, checkpoints=hub.Checkpoints(tmp_path, every=5, keep=9)
    )
    learner.fit(1, 0.1)
    learner.fit(1, 0.1)
    found = sorted(int(path.name.removeprefix("step_")) for path in tmp_path.glob("step_*"))
    assert found == [5, 10, 15, 20, 25, 30]


def test_an_unknown_value_to_monitor_is_refused_before_the_first_update(tmp_path):
    pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(4)]
    checkpoints = hub.Checkpoints(tmp_path, monitor="valid_los")
    learner = hub.Learner(nn.Linear(2, 1), pairs, pairs, progress=False, checkpoints=checkpoints)
    with pytest.raises(ValueError, match="valid_loss"):
        learner.fit(1, 0.1)
    assert learner.recorder.losses == []


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(tmp_path):
    class Poison(Callback):
        def on_batch_begin(self, learner):
            if learner.state.step == 7:
                learner.loss = lambda output, label: output.sum() * np.nan

    learner = resumable.build(tmp_path / "ckpt", str(tmp_path / "r"))
    learner.cbs.append(Poison())
    with pytest.raises(FloatingPointError, match="update 8"):
        resumable.run(learner)
    assert learner.load_checkpoint() == 6


def test_a_learner_without_checkpoints_says_so():
    learner = hub.Learner(nn.Linear(2, 1), [(np.ones(2, "float32"), np.float32(1.0))], progress=False)
    with pytest.raises(ValueError, match="saves no checkpoints"):
        learner.load_checkpoint()
    with pytest.raises(TypeError, match="checkpoints must be a folder or Checkpoints, not 3"):
        hub.Learner(nn.Linear(2, 1), [(np.ones(2, "float32"), np.float32(1.0))], checkpoints=3)


class TestRate:
    """A fit of 4 epochs of 5 updates on a line down to 0, interrupted after 7 updates, goes on with another LR."""

    LINE: ClassVar = {"linear_decay": {"start_point": 0.0}}

    def learner(self, tmp_path, **options):
        paddle.seed(0)
        np.random.seed(0)
        pairs = [(np.ones(2, "float32"), np.float32(1.0)) for _ in range(10)]
        checkpoints = hub.Checkpoints(tmp_path, every=1, **options)
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        return hub.Learner(model, pairs, batch_size=2, progress=False, checkpoints=checkpoints)

    def interrupted(self, tmp_path, strategy, **options):
        learner = self.learner(tmp_path, **options)
        with pytest.raises(Interrupted):
            learner.fit(4, strategy=strategy, cbs=[Interrupt(7)])
        return learner

    def strategy(self, lr=0.2, scheduler=None, **options):
        return hub.CombinedStrategy("momentum", lr, scheduler=self.LINE if scheduler is None else scheduler, **options)

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("keep", [0.2 * (1 - t / 20) for t in range(20)]),
            ("new", [0.2 * (1 - t / 20) for t in range(6)] + [0.1 * (1 - t / 20) for t in range(6, 20)]),
            ("restart", [0.2 * (1 - t / 20) for t in range(6)] + [0.1 * (1 - t / 14) for t in range(14)]),
        ],
    )
    def test_the_choices(self, tmp_path, choice, expected):
        before = self.interrupted(tmp_path, self.strategy())
        velocity = before.run.state_dict()["optimizer"]["0.weight"]["velocity"]
        learner = self.learner(tmp_path, on_lr_change=choice)
        learner.fit(4, strategy=self.strategy(0.1))
        np.testing.assert_allclose(learner.recorder.lrs, expected, atol=1e-12)
        assert velocity is not None

    @pytest.mark.parametrize("choice", ["keep", "new", "restart"])
    def test_interrupted_again_it_goes_on_the_same_way(self, tmp_path, choice):
        found = []
        for stops in ((), (9, 12)):
            folder = tmp_path / str(len(stops))
            self.interrupted(folder, self.strategy())
            for stop in stops:
                with pytest.raises(Interrupted):
                    again = self.learner(folder, on_lr_change=choice)
                    again.fit(4, strategy=self.strategy(0.1), cbs=[Interrupt(stop)])
            learner = self.learner(folder, on_lr_change=choice)
            learner.fit(4, strategy=self.strategy(0.1))
            found.append((learner.recorder.lrs, [param.numpy().tolist() for param in learner.model.parameters()]))
        assert found[0] == found[1]

    def test_weights_and_optimizer_state_go_on(self, tmp_path):
        """`keep` is the unbroken training; with the others the update after the checkpoint has the old momentum."""
        whole = self.learner(tmp_path / "whole")
        whole.fit(4, strategy=self.strategy())
        self.interrupted(tmp_path / "parts", self.strategy())
        learner = self.learner(tmp_path / "parts", on_lr_change="keep")
        learner.fit(4, strategy=self.strategy(0.5))
        for a, b in zip(whole.model.parameters(), learner.model.parameters()):
            np.testing.assert_array_equal(a.numpy(), b.numpy())

    @pytest.mark.parametrize(
        "other",
        [
            {"scheduler": {"cosine_decay": {}}},
            {"scheduler": {"linear_decay": {"start_point": 0.0}, "layer_decay": 0.5}},
            {"lr": 0.3, "scheduler": {"layer_factors": [0.25, 1.0]}},
        ],
    )
    def test_schedules_and_the_lr_by_depth_are_the_lr_too(self, tmp_path, other):
        self.interrupted(tmp_path, self.strategy())
        learner = self.learner(tmp_path, on_lr_change="new")
        learner.fit(4, strategy=self.strategy(**other))
        plan = self.strategy(**other).plan(20)
        np.testing.assert_allclose(learner.recorder.lrs[6:], [plan.lr(t) for t in range(6, 20)])
        fresh = self.strategy(**other).bind(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), max_train_steps=20)
        assert learner.run.block_factors == fresh.block_factors

    def test_of_policies_and_phases(self, tmp_path):
        def phased(lr):
            return hub.PhasedStrategy([hub.Phase(train="head", epochs=1, learning_rate=lr), hub.Phase()], "sgd", lr)

        self.interrupted(tmp_path / "phases", phased(0.2))
        learner = self.learner(tmp_path / "phases", on_lr_change="new")
        learner.fit(4, strategy=phased(0.1))
        assert learner.recorder.lrs == [0.2] * 6 + [0.1] * 14
        self.interrupted(tmp_path / "again", phased(0.2))
        with pytest.raises(ValueError, match='on_lr_change="restart"'):
            self.learner(tmp_path / "again", on_lr_change="restart").fit(4, strategy=phased(0.1))
        first = self.learner(tmp_path / "policy")
        with pytest.raises(Interrupted):
            first.fit_one_cycle(4, 0.1, cbs=[Interrupt(7)])
        learner = self.learner(tmp_path / "policy", on_lr_change="new")
        learner.fit_one_cycle(4, slice(0.01, 0.2))
        assert max(learner.recorder.lrs[6:]) > max(first.recorder.lrs[:6])
        assert learner.run.block_factors == pytest.approx([0.05, 1.0])

    @pytest.mark.parametrize(
        ("strategy", "told"),
        [
            (
                {"lr": 0.1},
                r'learning_rate: 0\.2 in the checkpoint, 0\.1 now.*on_lr_change="keep" \| "restart" \| "new"',
            ),
            ({"lr": 0.1, "clip": {"Norm": 1.0}}, r"strategy\.clip\.Norm: absent in the checkpoint"),
        ],
    )
    def test_without_the_choice_or_with_other_changes_it_is_refused(self, tmp_path, strategy, told):
        self.interrupted(tmp_path, self.strategy())
        options = {"on_lr_change": "new"} if "clip" in strategy else {}
        with pytest.raises(ValueError, match=f"(?s){told}"):
            self.learner(tmp_path, **options).fit(4, strategy=self.strategy(**strategy))
        with pytest.raises(ValueError, match="on_lr_change: unknown choice 'news'. Did you mean 'new'"):
            hub.Checkpoints("x", on_lr_change="news")

    def test_another_schedule_does_not_keep_the_old_ones_momentum(self, tmp_path):
        self.interrupted(tmp_path, hub.OneCycleStrategy(0.1))
        learner = self.learner(tmp_path, on_lr_change="new")
        learner.fit(4, strategy=hub.CombinedStrategy("adam", 0.1))
        assert learner.run.hyper("mom") == 0.9

    def test_with_another_length(self, tmp_path):
        self.interrupted(tmp_path, self.strategy())
        learner = self.learner(tmp_path, on_lr_change="new", on_length_change="extend")
        learner.fit(6, strategy=self.strategy(0.1))
        np.testing.assert_allclose(learner.recorder.lrs[6:], [0.1 * (1 - t / 30) for t in range(6, 30)], atol=1e-12)
