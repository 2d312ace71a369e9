"""The training loop: what it does is what a hand-written loop does; data, metrics, callbacks, saving."""

import math
import re

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import DataLoader, TensorDataset

import paddle_ftstrat as hub
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.training import data, rng
from paddle_ftstrat.training.callbacks import (
    Callback,
    EarlyStoppingCallback,
    SaveModelCallback,
    StopTraining,
    better,
)
from paddle_ftstrat.training.distributed import Ranks


def pairs(samples=40, features=4):
    x = paddle.randn([samples, features])
    return TensorDataset([x, (x.sum(-1) > 0).astype("int64")])


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1D(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def learner(model=None, train=None, **options):
    valid = options.pop("valid") if "valid" in options else pairs(20)
    options = {"metrics": "acc", "batch_size": 10, "progress": False, **options}
    return hub.Learner(net() if model is None else model, pairs() if train is None else train, valid, **options)


class Spy(Callback):
    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda learner, *given: self.seen.append(name[3:])
        return super().__getattribute__(name)


class TestLoop:
    def test_equals_a_loop_by_hand_to_the_bit(self):
        ours, twin, train = net(), net(), pairs()
        twin.set_state_dict(ours.state_dict())
        strategy = hub.ULMFiTStrategy(0.05).add_regularization("weight_decay", 0.1).add_clip("GlobalNorm", 1.0)
        it = learner(ours, train, valid=None)
        paddle.seed(5)
        it.fit(4, strategy=strategy)

        sampler = it.train.batch_sampler
        loader = DataLoader(train, batch_sampler=sampler)
        run = strategy.bind(twin, num_epoch=4, steps_per_epoch=len(loader), sample_input=paddle.ones([1, 4]))
        for epoch in range(1, 5):
            run.begin_epoch()
            sampler.begin(epoch)
            twin.train()
            for number, (x, y) in enumerate(loader, 1):
                paddle.seed(rng.fold(it.state.seed, epoch, number, 0))
                nn.functional.cross_entropy(twin(x), y).backward()
                run.step()
        for (name, a), (_, b) in zip(ours.state_dict().items(), twin.state_dict().items()):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)

    def test_records_lrs_losses_and_results(self):
        it = learner()
        results = it.fit(3, strategy=hub.AdamWeightDecayStrategy(0.1))
        np.testing.assert_allclose(it.recorder.lrs, [0.1 * (1 - t / 12) for t in range(12)])
        assert len(it.recorder.losses) == len(it.recorder.smooth_losses) == 12
        assert it.recorder.smooth_losses[0] == pytest.approx(it.recorder.losses[0])
        assert [row["epoch"] for row in results] == [1, 2, 3]
        assert set(results[-1]) == set(it.value_names())
        assert results[0]["train_loss"] == pytest.approx(np.mean(it.recorder.losses[:4]))
        it.fit(1)
        assert len(it.recorder.values) == 4

    def test_learns(self):
        it = learner(nn.Linear(4, 2), lr=0.1)
        assert it.fit(15)[-1]["acc"] > 0.85

    def test_events_in_order(self):
        spy = Spy()
        learner(train=pairs(20), cbs=[spy]).fit(1)
        batch = ["batch_begin", "after_loss", "before_update", "after_update", "batch_end"]
        assert spy.seen == [
            "fit_begin",
            "epoch_begin",
            *batch,
            *batch,
            "validate_begin",
            *["after_loss"] * 2,
            "validate_end",
            "epoch_end",
            "fit_end",
        ]

    def test_stop_training_ends_in_good_order(self):
        class Stop(Callback):
            def on_batch_end(self, learner):
                if learner.state.step == 3:
                    raise StopTraining

        spy = Spy()
        it = learner()
        it.fit(9, cbs=[Stop(), spy])
        assert len(it.recorder.losses) == 3
        assert spy.seen[-1] == "fit_end"

    def test_loss_that_is_not_finite_stops_before_the_update(self):
        x = np.random.randn(30, 4).astype("float32")
        x[25:] = np.nan
        it = learner(nn.Linear(4, 2), TensorDataset([x, np.zeros(30, "int64")]), valid=None)
        it.train = DataLoader(it.train.dataset, batch_size=10)
        with pytest.raises(FloatingPointError, match=r"update 3 \(epoch 1, batch 3\) with learning rate 0.001"):
            it.fit(2)
        assert len(it.recorder.losses) == 2
        assert all(math.isfinite(float(p.sum())) for p in it.model.parameters())

    def test_evaluation_leaves_modes_weights_and_statistics(self):
        it = learner()
        it.model[3].eval()
        before = {name: value.numpy().copy() for name, value in it.model.state_dict().items()}
        it.validate()
        it.predict(pairs(7))
        assert [layer.training for layer in it.model] == [True, True, True, False, True]
        assert all((value.numpy() == before[name]).all() for name, value in it.model.state_dict().items())

    def test_predict_joins_batches(self):
        it = learner()
        samples = pairs(23)
        output = it.predict(samples)
        it.model.eval()
        np.testing.assert_allclose(output.numpy(), it.model(samples.tensors[0]).numpy(), rtol=1e-5, atol=1e-6)
        assert it.predict(TensorDataset([samples.tensors[0]])).shape == [23, 2]

    def test_progress_bar_shows_loss_lr_and_speed(self, capsys):
        learner(progress=True).fit(1)
        shown = capsys.readouterr().err
        assert "epoch 1/1" in shown
        assert "batch/s" in shown
        assert "loss=" in shown
        assert "lr=" in shown

    @pytest.mark.parametrize(("progress", "lines"), [(None, 2), (True, 2), (False, 0)])
    def test_a_line_per_epoch_where_there_is_no_terminal(self, progress, lines, capsys):
        learner(progress=progress).fit(2)
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == lines
        assert ("it/s" in shown.err or "batch/s" in shown.err) == (progress is True)
        if lines:
            assert shown.out.startswith("epoch 1/2: train_loss=")
            assert "valid_loss=" in shown.out
            assert "acc=" in shown.out

    def test_lines_of_several_processes_come_from_the_first(self, capsys):
        it = learner(progress=None)
        it.ranks = Ranks(1, 2)
        assert it.quiet

    @pytest.mark.parametrize("progress", [None, True, False])
    def test_lr_find_looks_like_no_training(self, progress, capsys):
        learner(progress=progress).lr_find(num_it=12)
        shown = capsys.readouterr()
        assert "epoch" not in shown.out + shown.err
        assert ("lr_find" in shown.err) == (progress is True)
        assert shown.out.startswith("lr_find, 12 updates: valley=") == (progress is not False)
        assert len(shown.out.splitlines()) == (progress is not False)

    def test_what_it_is_is_readable(self):
        it = learner(tune="head")
        assert repr(it) == "Learner(Sequential, 18 of 74 train; batches: 4 train, 2 valid; Recorder(0 updates))"
        it.fit(1)
        assert re.search(r"Recorder\(4 updates, last epoch: epoch=1 train_loss=\d.* acc=\d.*\)\)$", repr(it))
        it.lr_find(num_it=12)
        assert len(repr(it.recorder.sweep)) < 300

    @pytest.mark.parametrize("given", [None, ["0", "1", "4"], lambda model: [model[:2].parameters(), model[4]]])
    def test_layer_groups_are_known_before_the_first_fit(self, given):
        it = learner(layer_groups=given)
        groups = it.layer_groups
        assert groups[-1] == ["4.weight", "4.bias"]
        assert it.run is None
        it.fit(1)
        assert it.layer_groups == groups


class TestLossesAndMetrics:
    def test_default_losses_by_label_type(self):
        it = learner(
            nn.Linear(4, 1), TensorDataset([paddle.ones([8, 4]), paddle.ones([8, 1])]), valid=None, metrics=None
        )
        it.fit(1)
        assert it.recorder.losses[0] == pytest.approx(it.recorder.losses[0])
        with paddle.no_grad():
            expected = float(nn.functional.mse_loss(it.model(paddle.ones([8, 4])), paddle.ones([8, 1])))
        assert it.validate(it.train)["loss"] == pytest.approx(expected, rel=1e-5)

    def test_a_model_that_returns_its_loss(self):
        class WithLoss(nn.Layer):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 2)

            def forward(self, x):
                return self.fc(x).square().mean()

        it = learner(WithLoss(), TensorDataset([paddle.ones([8, 4])]), valid=None, metrics=None)
        it.fit(2)
        assert it.recorder.losses[1] < it.recorder.losses[0]
        bad = learner(nn.Linear(4, 2), TensorDataset([paddle.ones([8, 4])]), valid=None, metrics=None)
        with pytest.raises(ValueError, match="batch without label needs a model that returns its loss"):
            bad.fit(1)

    def test_metrics_of_scikit_learn_paddle_and_the_user(self):
        from sklearn import metrics as reference

        def share_of_ones(output, label):
            return float(output.argmax(-1).astype("float32").mean())

        samples = pairs(31)
        names = ["acc", "f1", "precision", "recall", "matthews"]
        it = learner(valid=samples, metrics=[*names, share_of_ones])
        found = it.validate()
        y, p = samples.tensors[1].numpy(), it.predict(samples).numpy().argmax(-1)
        assert found["acc"] == pytest.approx(reference.accuracy_score(y, p))
        assert found["f1"] == pytest.approx(reference.f1_score(y, p, average="macro"))
        assert found["precision"] == pytest.approx(reference.precision_score(y, p, average="macro", zero_division=0))
        assert found["recall"] == pytest.approx(reference.recall_score(y, p, average="macro"))
        assert found["matthews"] == pytest.approx(reference.matthews_corrcoef(y, p))
        assert found["share_of_ones"] == pytest.approx(p.mean())

    def test_metrics_of_regression(self):
        x = paddle.randn([40, 4])
        samples = TensorDataset([x, x.sum(-1)])
        it = learner(nn.Linear(4, 1), samples, valid=samples, metrics=["mse", "mae", "r2", "pearson", "spearman"])
        y, p = x.sum(-1).numpy(), it.predict(samples).numpy()[:, 0]
        found = it.validate()
        assert found["mse"] == pytest.approx(np.mean((y - p) ** 2), rel=1e-5)
        assert found["mae"] == pytest.approx(np.mean(abs(y - p)), rel=1e-5)
        assert found["pearson"] == pytest.approx(np.corrcoef(y, p)[0, 1], rel=1e-5)
        assert found["loss"] == pytest.approx(found["mse"], rel=1e-5)

    @pytest.mark.parametrize("name", ["mse", "mae", "my_error", "rmse", "valid_loss"])
    def test_what_is_better_when_lower_is_so_everywhere(self, name, tmp_path):
        def score(outputs, labels):
            return next(scores)

        score.__name__ = name
        scores = iter([3.0, 1.0, 2.0])
        options = {} if name == "valid_loss" else {"metrics": score}
        watch = SaveModelCallback(name, fname="best")
        it = learner(path=tmp_path, checkpoints=hub.Checkpoints(tmp_path / "ckpt", monitor=name), **options)
        it.fit(3, cbs=[watch])
        values = [row[name] for row in it.recorder.values]
        assert watch.best == min(values)
        assert it.load_checkpoint(best=True) == 4 * (values.index(min(values)) + 1)
        assert better(1.0, 2.0, mode_of(name))
        assert EarlyStoppingCallback(name).mode == "min"
        assert EarlyStoppingCallback("r2").mode == EarlyStoppingCallback("acc").mode == "max"

    def test_an_epoch_whose_score_is_no_number_is_not_the_best(self, tmp_path):
        def score(outputs, labels):
            return next(scores)

        scores = iter([float("nan"), 0.5, 0.25])
        it = learner(path=tmp_path, checkpoints=hub.Checkpoints(tmp_path / "ckpt", monitor="score"), metrics=score)
        it.fit(3)
        assert it.load_checkpoint(best=True) == 4 * 2

    def test_loss_is_weighted_by_batch_size(self):
        samples = pairs(11)
        it = learner(valid=samples)
        whole = learner(it.model, valid=samples, batch_size=11).validate()
        assert it.validate()["loss"] == pytest.approx(whole["loss"], rel=1e-5)


class TestData:
    def test_dict_batches(self):
        class Words(paddle.io.Dataset):
            def __getitem__(self, i):
                return {"x": np.full(4, i, "float32"), "labels": np.int64(i % 2)}

            def __len__(self):
                return 12

        class Keyword(nn.Layer):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 2)

            def forward(self, x):
                return self.fc(x)

        it = learner(Keyword(), Words(), valid=Words())
        assert set(it.fit(1, strategy=hub.ULMFiTStrategy(frz_blocks=0, dis_blocks=0))[0]) >= {"valid_loss", "acc"}

    def test_first_batch_is_taken_without_disturbing_the_order(self):
        loader = DataLoader(pairs(), batch_size=10, shuffle=True)
        np.random.seed(3)
        data.first_inputs(loader)
        once = [x.numpy() for x, _ in loader]
        np.random.seed(3)
        np.testing.assert_array_equal(once, [x.numpy() for x, _ in loader])

    @pytest.mark.parametrize(
        ("make", "kind", "message"),
        [
            (
                lambda: learner(train=TensorDataset([paddle.ones([0, 4]), paddle.ones([0])])),
                ValueError,
                "train is empty",
            ),
            (lambda: learner(valid=[]), ValueError, "valid is empty"),
            (lambda: learner(train=3), TypeError, "train must be a paddle.io.DataLoader or Dataset, not int"),
            (lambda: learner(train={"x": 1}), TypeError, "not dict"),
            (lambda: learner(metrics="acuracy"), ValueError, "unknown metric 'acuracy'"),
            (lambda: learner(metrics=[3]), TypeError, "a metric must be"),
            (lambda: learner(lr=-1), ValueError, "lr = -1"),
            (lambda: learner(batch_size=0), ValueError, "batch_size = 0"),
            (lambda: hub.Learner("model", pairs()), TypeError, "must be a paddle.nn.Layer"),
            (lambda: learner().fit(0), ValueError, "n_epoch = 0"),
            (lambda: learner().fit(1, strategy="ulmfit"), TypeError, "must be a strategy"),
            (lambda: learner().fit(1, lr=0.1, strategy=hub.ULMFiTStrategy()), ValueError, "leave lr and wd out"),
            (lambda: learner(valid=None).validate(), ValueError, "no validation data"),
            (lambda: learner(opt="adma").fit(1), ValueError, "Did you mean 'adam'"),
        ],
    )
    def test_errors(self, make, kind, message):
        with pytest.raises(kind, match=message):
            make()

    def test_iterable_dataset_is_refused_with_a_reason(self):
        class Stream(paddle.io.IterableDataset):
            def __iter__(self):
                yield np.ones(4, "float32"), np.int64(0)

        with pytest.raises(TypeError, match="no length"):
            learner(train=Stream())
        with pytest.raises(TypeError, match="no length"):
            learner(train=DataLoader(Stream(), batch_size=2))


class TestSaving:
    def test_round_trip_and_going_on(self, tmp_path):
        it = learner(path=tmp_path, lr=0.05)
        it.fit(2)
        file = it.save("half")
        assert file == tmp_path / "models" / "half.safetensors"
        saved = {name: value.numpy().copy() for name, value in it.model.state_dict().items()}
        moments = it.run.state_dict()["optimizer"]["0.weight"]["moment1"].numpy().copy()
        it.fit(1)
        it.fit(2)
        it.load("half")
        assert all((value.numpy() == saved[name]).all() for name, value in it.model.state_dict().items())
        np.testing.assert_array_equal(it.run.state_dict()["optimizer"]["0.weight"]["moment1"].numpy(), moments)

    def test_bfloat16(self, tmp_path):
        it = learner(nn.Linear(2, 2).to(dtype="bfloat16"), path=tmp_path, metrics=None)
        before = it.model.weight.astype("float32").numpy()
        it.save("half")
        with paddle.no_grad():
            it.model.weight.set_value(paddle.zeros([2, 2], "bfloat16"))
        it.load("half")
        np.testing.assert_array_equal(it.model.weight.astype("float32").numpy(), before)

    def test_foreign_and_damaged_files(self, tmp_path):
        it = learner(path=tmp_path)
        it.fit(1)
        file = it.save("m")
        before = {name: value.numpy().copy() for name, value in it.model.state_dict().items()}
        with pytest.raises(FileNotFoundError, match="no such file"):
            it.load("n")
        with pytest.raises(ValueError, match="differ in"):
            learner(nn.Linear(4, 2), path=tmp_path).load("m")
        wide = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1D(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 2))
        with pytest.raises(ValueError, match=r"shape \[4, 8\], the model \[4, 9\]"):
            learner(wide, path=tmp_path).load("m")
        for spoiled in (file.read_bytes()[:100], b"", b"not a safetensors file at all"):
            file.write_bytes(spoiled)
            with pytest.raises(ValueError, match=r"damaged"):
                it.load("m")
        assert all((value.numpy() == before[name]).all() for name, value in it.model.state_dict().items())

    def test_a_failing_write_keeps_the_old_file(self, tmp_path, monkeypatch):
        it = learner(path=tmp_path)
        file = it.save("m")
        old = file.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            it.save("m")
        assert file.read_bytes() == old
        assert list(file.parent.iterdir()) == [file]


class TestCallbacks:
    class Scripted(Callback):
        """Puts given values in place of the epochs' results, before the callbacks behind it look."""

        def __init__(self, values):
            self.values = values

        def on_epoch_end(self, learner):
            learner.recorder.values[-1]["acc"] = self.values[learner.state.epoch - 1]

    @pytest.mark.parametrize(("patience", "epochs"), [(0, 3), (1, 4), (2, 6)])
    def test_early_stopping(self, patience, epochs):
        it = learner()
        scripted = self.Scripted([0.1, 0.2, 0.2, 0.15, 0.3, 0.1, 0.1, 0.1][:8])
        it.fit(6, cbs=[scripted, EarlyStoppingCallback("acc", patience=patience)])
        assert len(it.recorder.values) == epochs

    def test_save_model_keeps_the_best(self, tmp_path):
        seen = []

        class Snapshot(Callback):
            def on_epoch_end(self, learner):
                seen.append(learner.model[0].weight.numpy().copy())

        it = learner(path=tmp_path)
        callbacks = [self.Scripted([0.1, 0.5, 0.3]), Snapshot(), SaveModelCallback("acc", fname="best", with_opt=True)]
        it.fit(3, cbs=callbacks)
        np.testing.assert_array_equal(it.model[0].weight.numpy(), seen[1])

    def test_every_epoch(self, tmp_path):
        learner(path=tmp_path).fit(2, cbs=[SaveModelCallback(every_epoch=True, fname="m")])
        assert sorted(file.name for file in (tmp_path / "models").iterdir()) == ["m_1.safetensors", "m_2.safetensors"]

    def test_unknown_monitor(self):
        with pytest.raises(ValueError, match="unknown value 'accuracy'"):
            learner().fit(1, cbs=[EarlyStoppingCallback("accuracy")])
        with pytest.raises(ValueError, match="unknown mode 'up'"):
            EarlyStoppingCallback(mode="up")
