"""RunConfig and tasks: PaddleHub's vocabulary on top of the loop."""

import ast
import inspect
import logging
import sys
import textwrap
from pathlib import Path

import numpy as np
import paddle
import processes
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub


def pairs(samples=40):
    x = paddle.randn([samples, 4])
    return TensorDataset([x, (x.sum(-1) > 0).astype("int64")])


def dataset():
    return {"train": pairs(), "dev": pairs(20), "test": pairs(20)}


def config(folder, **given):
    given = {"num_epoch": 3, "batch_size": 10, "eval_interval": 5, "strategy": hub.ULMFiTStrategy(0.05), **given}
    return hub.RunConfig(checkpoint_dir=str(folder), **given)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class TestRunConfig:
    def test_defaults_are_paddlehubs(self):
        given = hub.RunConfig()
        assert (given.log_interval, given.eval_interval, given.save_ckpt_interval) == (10, 100, None)
        assert (given.use_pyreader, given.use_data_parallel, given.enable_memory_optim) == (True, True, False)
        assert (given.num_epoch, given.batch_size, given.use_cuda) == (1, 32, None)
        assert type(given.strategy) is hub.DefaultStrategy
        assert given.checkpoint_dir.startswith("ckpt_")

    def test_properties_are_read_only(self):
        with pytest.raises(AttributeError):
            hub.RunConfig().batch_size = 3

    @pytest.mark.parametrize("given", [{"use_pyreader": False}, {"enable_memory_optim": True}])
    def test_what_has_no_effect_is_said(self, given):
        with pytest.warns(UserWarning, match="has no effect in dygraph"):
            hub.RunConfig(**given)

    def test_gpu_that_is_not_there(self):
        if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
            pytest.skip("there is a GPU")
        with pytest.warns(UserWarning, match="there is no GPU"):
            hub.RunConfig(use_cuda=True).choose_device()
        assert paddle.get_device() == "cpu"

    @pytest.mark.parametrize(
        ("given", "kind", "message"),
        [
            ({"batch_size": 0}, ValueError, "batch_size = 0 .* ≥ 1"),
            ({"num_epoch": 1.5}, TypeError, "num_epoch must be a whole number"),
            ({"log_interval": 0}, ValueError, "log_interval = 0"),
            ({"eval_interval": -1}, ValueError, "eval_interval = -1"),
            ({"save_ckpt_interval": 0}, ValueError, "save_ckpt_interval = 0"),
            ({"use_cuda": "yes"}, TypeError, "use_cuda must be True or False"),
            ({"strategy": "adam"}, TypeError, "must be a strategy"),
        ],
    )
    def test_errors(self, given, kind, message):
        with pytest.raises(kind, match=message):
            hub.RunConfig(**given)


class TestClassifierTask:
    def test_evaluates_logs_keeps_the_best_and_tests_it(self, tmp_path, caplog):
        logger = logging.getLogger("paddle_ftstrat")
        logger.setLevel(logging.INFO)
        logger.propagate = True
        logger.handlers.clear()
        with caplog.at_level(logging.INFO, "paddle_ftstrat"):
            task = hub.ClassifierTask(net(), dataset(), config(tmp_path, log_interval=4))
            score = task.finetune_and_eval()
        lines = [record.getMessage() for record in caplog.records]
        assert sum(line.startswith("[TRAIN] step") for line in lines) == 3
        evaluations = [line for line in lines if line.startswith("[dev dataset evaluation result] step")]
        assert [line.split(":")[0].split()[-1] for line in evaluations] == ["5", "10", "12"]
        assert lines[-1].startswith("[test dataset evaluation result] loss=")
        best = max(float(line.split("acc=")[1].split()[0]) for line in evaluations)
        assert task.best_score == pytest.approx(best, abs=1e-4)
        assert task.eval("dev")["acc"] == pytest.approx(task.best_score)
        assert score == pytest.approx(task.eval("test"))
        assert task.best_model_path.is_file()

    def test_train_only_and_dev_only(self, tmp_path):
        results = hub.ClassifierTask(net(), {"train": pairs()}, config(tmp_path), verbose=False).finetune_and_eval()
        assert set(results) == {"epoch", "train_loss"}
        task = hub.ClassifierTask(net(), {"train": pairs(), "val": pairs()}, config(tmp_path), verbose=False)
        assert set(task.finetune_and_eval()) == {"loss", "acc"}

    def test_dataset_as_an_object(self, tmp_path):
        class Reviews:
            train, valid, test = pairs(), pairs(10), None

        task = hub.ClassifierTask(net(), Reviews(), config(tmp_path), verbose=False)
        assert list(task.phases) == ["train", "dev"]

    def test_checkpoints_at_intervals(self, tmp_path):
        hub.ClassifierTask(net(), {"train": pairs()}, config(tmp_path, save_ckpt_interval=5), verbose=False).finetune()
        found = sorted(folder.name for folder in (tmp_path / "checkpoints").glob("step_*"))
        assert found == ["step_000000010", "step_000000012"]

    def test_predict_and_bind_options(self, tmp_path):
        strategy = hub.L2SPFinetuneStrategy(0.05)
        task = hub.ClassifierTask(
            net(), dataset(), config(tmp_path, strategy=strategy), pretrained="0.*", verbose=False
        )
        task.finetune()
        assert set(task.learner.run.state_dict()["anchors"]) == {"0.weight", "0.bias"}
        assert task.predict(TensorDataset([paddle.ones([7, 4])])).shape == [7, 2]

    def test_main_metric_chooses(self, tmp_path):
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), metrics_choices=["f1", "acc"], verbose=False)
        assert task.main_metric == "f1"
        assert set(task.finetune_and_eval()) == {"loss", "f1", "acc"}

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: hub.ClassifierTask(net(), {"dev": pairs()}), "no training data"),
            (lambda: hub.ClassifierTask(net(), {"train": pairs(), "tets": pairs()}), "'tets'. Did you mean 'test'"),
            (lambda: hub.ClassifierTask(net(), {"train": []}), "dataset 'train' is empty"),
            (lambda: hub.ClassifierTask(net(), dataset(), metrics_choices=["f2"]), "unknown metric 'f2'"),
            (lambda: hub.ClassifierTask(net(), {"train": pairs()}, verbose=False).eval("dev"), "unknown phase 'dev'"),
        ],
    )
    def test_errors(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_labels_with_a_trailing_axis(self, tmp_path):
        x = np.random.randn(20, 4).astype("float32")
        column = TensorDataset([x, (x.sum(-1, keepdims=True) > 0).astype("int64")])
        task = hub.ClassifierTask(net(), {"train": column, "dev": column}, config(tmp_path), verbose=False)
        assert 0 <= task.finetune_and_eval()["acc"] <= 1


class TestOptions:
    @pytest.mark.parametrize("cls", [hub.ClassifierTask, hub.ImageClassifierTask, hub.TextClassifierTask])
    def test_number_of_classes_is_checked_before_the_first_update(self, cls, tmp_path):
        model = net()
        before = [param.numpy().copy() for param in model.parameters()]
        task = cls(model, dataset(), config(tmp_path), num_classes=3, verbose=False)
        with pytest.raises(ValueError, match=r"num_classes = 3, but the model returns an output of shape \[10, 2\]"):
            task.finetune()
        assert all(np.array_equal(param.numpy(), old) for param, old in zip(model.parameters(), before))
        assert task.learner.recorder.losses == []
        task = cls(model, dataset(), config(tmp_path), num_classes=2, verbose=False)
        assert len(task.finetune()) == 3

    def test_names_of_classes_come_from_the_argument_the_data_or_its_training_part(self, tmp_path):
        class Reviews:
            train, dev, label_list = pairs(), pairs(10), ["bad", "good"]

        assert hub.ClassifierTask(net(), Reviews(), config(tmp_path), verbose=False).label_list == ["bad", "good"]
        data = dataset()
        data["train"].classes = ["0", "1"]
        assert hub.ClassifierTask(net(), data, config(tmp_path), verbose=False).label_list == ["0", "1"]
        loaders = {"train": paddle.io.DataLoader(data["train"], batch_size=5)}
        assert hub.ClassifierTask(net(), loaders, config(tmp_path), verbose=False).label_list == ["0", "1"]
        given = hub.ClassifierTask(net(), data, config(tmp_path), verbose=False, label_list=("no", "yes"))
        assert given.label_list == ["no", "yes"]
        assert hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False).label_list is None

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"num_classes": 0}, ValueError, "num_classes = 0"),
            ({"num_classes": 2, "label_list": ["a", "b", "c"]}, ValueError, "num_classes = 2, but label_list has 3"),
            ({"label_list": "abc"}, TypeError, "label_list must be a list of names, not 'abc'"),
            ({"pretraind": "0.*"}, ValueError, "'pretraind'. Did you mean 'pretrained'"),
            ({"feature": None}, ValueError, "unknown argument 'feature'"),
        ],
    )
    def test_errors(self, options, kind, message, tmp_path):
        with pytest.raises(kind, match=message):
            hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False, **options)

    def test_names_and_outputs_must_agree(self, tmp_path):
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False, label_list=["a", "b", "c"])
        with pytest.raises(ValueError, match="label_list has 3 names, but the model returns"):
            task.finetune()

    def test_early_stopping_watches_the_dev_data(self, tmp_path):
        stop = hub.EarlyStoppingCallback("valid_loss", patience=1, min_delta=10.0)
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path, num_epoch=9), verbose=False, cbs=stop)
        results = task.finetune()
        # The first epoch is better than nothing, two more are not better by 10.
        assert len(results) == 3
        assert set(results[0]) == {"epoch", "train_loss", "valid_loss", "acc"}
        assert task.eval("dev")["acc"] == task.best_score

    def test_nan_is_not_the_best(self, tmp_path):
        values = iter([0.5, float("nan"), 0.25, float("nan")])
        task = hub.ClassifierTask(
            net(), dataset(), config(tmp_path, eval_interval=3), [lambda outputs, labels: next(values)], verbose=False
        )
        task.finetune()
        assert task.best_score == 0.5


class TestResuming:
    def test_best_score_goes_into_the_state_and_comes_back(self, tmp_path):
        from paddle_ftstrat.tasks.hooks import TaskEvents

        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        kept = {}

        class Keep(hub.Callback):
            def on_fit_end(self, learner):
                kept.update(task._events.state_dict())

        task.cbs.append(Keep())
        task.finetune()
        assert kept == {"best_score": task.best_score, "evaluated_at": 12}
        fresh = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        TaskEvents(fresh).set_state_dict(kept)
        assert fresh.best_score == task.best_score

    def run(self, folder, stop=None):
        """A task's training; interrupted at an update, it says so."""
        paddle.seed(4)
        np.random.seed(4)
        task = hub.ClassifierTask(
            net(), dataset(), config(folder, save_ckpt_interval=2, eval_interval=3), verbose=False
        )
        if stop is not None:
            task.add_hook("run_step", "stop", lambda task, state: 1 / 0 if task.current_step == stop else None)
            with pytest.raises(ZeroDivisionError):
                task.finetune()
            return task, None
        return task, task.finetune()

    @pytest.mark.parametrize("stop", [1, 5, 9])
    def test_a_killed_training_goes_on(self, tmp_path, stop):
        whole, expected = self.run(tmp_path / "whole")
        self.run(tmp_path / "killed", stop)
        task, results = self.run(tmp_path / "killed")
        assert results == expected
        assert task.best_score == whole.best_score
        for a, b in zip(task.model.parameters(), whole.model.parameters()):
            np.testing.assert_array_equal(a.numpy(), b.numpy())

    def test_it_goes_on_with_another_lr_where_that_is_confirmed(self, tmp_path):
        def task(lr, **given):
            keys = {"save_ckpt_interval": 1, "strategy": hub.DefaultStrategy(lr), **given}
            return hub.ClassifierTask(net(), dataset(), config(tmp_path, **keys), verbose=False)

        first = task(0.01)
        first.add_hook("run_step", "stop", lambda task, state: 1 / 0 if task.current_step == 5 else None)
        with pytest.raises(ZeroDivisionError):
            first.finetune()
        with pytest.raises(ValueError, match="on_lr_change"):
            task(0.001).finetune()
        again = task(0.001, on_lr_change="new")
        again.finetune()
        done = again.learner.recorder.lrs.index(0.001)
        assert again.learner.recorder.lrs == [0.01] * done + [0.001] * (12 - done)
        assert done in (4, 5)
        with pytest.raises(ValueError, match="on_lr_change: unknown choice 'old'"):
            task(0.001, on_lr_change="old")

    def test_a_finished_training_is_not_repeated(self, tmp_path):
        whole, expected = self.run(tmp_path)
        task = hub.ClassifierTask(
            net(), dataset(), config(tmp_path, save_ckpt_interval=2, eval_interval=3), verbose=False
        )
        task.add_hook("run_step", "never", lambda task, state: pytest.fail("trained again"))
        assert task.finetune() == expected
        assert task.best_score == whole.best_score
        for a, b in zip(task.model.parameters(), whole.model.parameters()):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


STRATEGIES = {
    "one-cycle": hub.OneCycleStrategy(0.05),
    "flat-cos": hub.FlatCosStrategy(0.05),
    "sgdr": hub.SGDRStrategy(0.05, n_cycles=2, cycle_len=1),
    "fine-tune": hub.FineTuneStrategy(0.05),
    "lp-ft": hub.LPFTStrategy(0.1, 0.01),
    # No value is better than one that does not move: the first phase ends after two of its six epochs.
    "plateau": hub.PhasedStrategy(
        [
            hub.Phase("head", until=hub.Plateau("train_loss", max_epochs=6, min_delta=9.0), learning_rate=0.05),
            hub.Phase(until=hub.Plateau("valid_loss", patience=9), restore="best", learning_rate=0.01),
        ]
    ),
}


class TestStrategiesWithPhasesAndPolicies:
    def run(self, strategy, folder, stop=None):
        """The task, the results of its epochs and of the test data; stopped after so many updates, the task alone."""
        paddle.seed(4)
        np.random.seed(4)
        epochs = 8 if any(phase.until for phase in getattr(strategy, "phases", ())) else 3
        given = config(folder, strategy=strategy, num_epoch=epochs, save_ckpt_interval=3)
        task = hub.ClassifierTask(net(), dataset(), given, verbose=False)
        if stop is not None:
            task.add_hook("run_step", "stop", lambda task, state: 1 / 0 if task.current_step == stop else None)
            with pytest.raises(ZeroDivisionError):
                task.finetune()
            return task
        return task, task.finetune(), task.eval("test")

    @pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
    def test_trains_evaluates_and_goes_on(self, strategy, tmp_path):
        whole, results, scores = self.run(strategy, tmp_path / "whole")
        recorder, run = whole.learner.recorder, whole.learner.run
        until = run.plan.phases[0].until is not None
        assert len(results) == (8 - run.dropped_epochs if until else 3)
        assert run.dropped_epochs == (4 if until else 0)
        assert run.progress.phase == len(run.plan.phases) - 1
        # The first phase of the plateau's plan ends earlier than its LRs were planned.
        steps = len(recorder.losses)
        assert until or recorder.lrs == [run.plan.lr(t) for t in range(steps)]
        assert whole.eval("dev")["acc"] == whole.best_score
        for stop in (2, 7, steps):
            folder = tmp_path / str(stop)
            self.run(strategy, folder, stop)
            task, again, tested = self.run(strategy, folder)
            assert (again, tested, task.best_score) == (results, scores, whole.best_score)
            assert task.learner.recorder.lrs == recorder.lrs
            for a, b in zip(task.model.parameters(), whole.model.parameters()):
                np.testing.assert_array_equal(a.numpy(), b.numpy())

    def test_a_plateau_has_the_dev_data_evaluated_and_is_refused_without(self, tmp_path):
        given = config(tmp_path, strategy=STRATEGIES["plateau"], num_epoch=8)
        task = hub.ClassifierTask(net(), {"train": pairs()}, given, verbose=False)
        with pytest.raises(ValueError, match="unknown value to monitor 'valid_loss'"):
            task.finetune()
        assert task.learner.recorder.losses == []


class TestWay:
    def test_a_task_is_short(self):
        [task] = ast.parse(textwrap.dedent(inspect.getsource(hub.RegressionTask))).body
        lines = [line for node in task.body[1:] for line in ast.unparse(node).splitlines()]
        assert ast.get_docstring(task)
        assert len(lines) <= 25

    def test_training_and_evaluating_enters_few_files_of_the_tasks(self, tmp_path):
        tasks, entered = Path(hub.ClassifierTask.__init__.__code__.co_filename).parent, set()
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        before = sys.getprofile()
        sys.setprofile(lambda frame, event, arg: entered.add(frame.f_code.co_filename))
        try:
            task.finetune_and_eval()
        finally:
            sys.setprofile(before)
        assert {Path(file).name for file in entered if Path(file).parent == tasks} == {
            *("base.py", "classifier.py", "hooks.py")
        }


class TestPredict:
    def test_best_model_of_an_earlier_process(self, tmp_path):
        data = dataset()
        trained = hub.ClassifierTask(net(), data, config(tmp_path), verbose=False)
        trained.finetune()
        x = TensorDataset([paddle.randn([7, 4])])
        wanted = trained.predict(x).numpy()
        fresh = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        untouched = fresh.predict(x, load_best_model=False).numpy()
        assert not np.array_equal(untouched, wanted)
        np.testing.assert_array_equal(fresh.predict(x).numpy(), wanted)
        other = hub.ClassifierTask(net(), data, config(tmp_path), verbose=False)
        assert other.eval("test", load_best_model=True)["acc"] == trained.eval("test")["acc"]

    def test_without_a_best_model_the_model_is_taken_as_it_is(self, tmp_path):
        model = net()
        task = hub.ClassifierTask(model, dataset(), config(tmp_path), verbose=False)
        x = paddle.randn([7, 4])
        np.testing.assert_array_equal(task.predict(TensorDataset([x])).numpy(), model(x).numpy())
        with pytest.raises(FileNotFoundError, match="best_model"):
            task.eval("dev", load_best_model=True)

    def test_not_in_the_middle_of_training(self, tmp_path):
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        task.add_hook("log_interval", "a", lambda task, states: task.eval("dev", load_best_model=True))
        with pytest.raises(RuntimeError, match="cannot be loaded while the task trains"):
            task.finetune()

    def test_names_numbers_and_too_few_names(self, tmp_path):
        task = hub.ClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        x = TensorDataset([paddle.randn([27, 4])])
        numbers = task.predict(x, return_result=True)
        assert numbers == task.predict(x).numpy().argmax(-1).tolist()
        assert task.predict(x, ["no", "yes"], return_result=True) == [["no", "yes"][i] for i in numbers]
        assert set(numbers) == {0, 1}
        with pytest.raises(ValueError, match="found class 1, but label_list has only 1"):
            task.predict(x, ["no"], return_result=True)


class TestMultiLabel:
    def data(self, samples=40):
        x = paddle.randn([samples, 4])
        return TensorDataset([x, (x[:, :3] > 0).astype("int64")])

    def task(self, folder, **options):
        phases = {"train": self.data(), "dev": self.data(20)}
        return hub.MultiLabelClassifierTask(
            nn.Linear(4, 3),
            phases,
            config(folder, num_epoch=8, strategy=hub.DefaultStrategy(0.1)),
            verbose=False,
            **options,
        )

    def test_learns_and_names(self, tmp_path):
        task = self.task(tmp_path, metrics_choices=["auc", "f1", "acc"], label_list=["a", "b", "c"])
        scores = task.finetune_and_eval()
        assert scores["auc"] > 0.95
        assert task.best_score == scores["auc"]
        x = paddle.randn([9, 4])
        outputs = task.predict(TensorDataset([x])).numpy()
        wanted = [[name for name, value in zip("abc", row) if value > 0] for row in outputs]
        assert task.predict(TensorDataset([x]), return_result=True) == wanted

    def test_loss_is_sigmoid_cross_entropy(self, tmp_path):
        task = self.task(tmp_path)
        assert task.main_metric == "auc"
        logits, labels = np.random.randn(5, 3).astype("float32"), np.random.randint(0, 2, (5, 3))
        p = 1 / (1 + np.exp(-logits.astype("float64")))
        wanted = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
        assert task._loss(paddle.to_tensor(logits), paddle.to_tensor(labels)).item() == pytest.approx(wanted, rel=1e-6)

    def test_class_numbers_as_labels_are_refused(self, tmp_path):
        task = hub.MultiLabelClassifierTask(net(), dataset(), config(tmp_path), verbose=False)
        with pytest.raises(ValueError, match=r"logits of shape \[10, 2\], but the labels have shape \[10\]"):
            task.finetune()


class TestRegression:
    @pytest.mark.parametrize("column", [True, False])
    @pytest.mark.parametrize("wide", [True, False])
    def test_shapes_with_and_without_a_last_axis_mean_the_same(self, column, wide, tmp_path):
        x = paddle.randn([40, 4])
        y = x.sum(-1, keepdim=True)
        data = TensorDataset([x, y if column else y.reshape([-1])])
        model = nn.Linear(4, 1)
        task = hub.RegressionTask(
            model if wide else nn.Sequential(model, nn.Flatten(0)),
            {"train": data, "dev": data},
            config(tmp_path, num_epoch=15, strategy=hub.DefaultStrategy(0.2)),
            verbose=False,
        )
        assert task.finetune_and_eval()["spearman"] > 0.99
        predicted = task.predict(data, return_result=True)
        assert predicted == task.predict(data).numpy().reshape(-1).tolist()
        wanted = np.mean((np.array(predicted) - y.numpy().reshape(-1)) ** 2)
        assert task.eval("dev")["loss"] == pytest.approx(wanted, rel=1e-4)

    def test_lowest_error_is_the_best(self, tmp_path):
        x = paddle.randn([40, 4])
        data = TensorDataset([x, x.sum(-1)])
        scores = []
        task = hub.RegressionTask(
            nn.Linear(4, 1), {"train": data, "dev": data}, config(tmp_path), ["mse"], verbose=False
        )
        task.add_hook("eval_end", "a", lambda task, states: scores.append(task.current_scores["mse"]))
        task.finetune()
        assert task.best_score == min(scores)

    def test_several_outputs(self, tmp_path):
        x = paddle.randn([12, 4])
        data = TensorDataset([x, x[:, :2]])
        task = hub.RegressionTask(nn.Linear(4, 2), {"train": data}, config(tmp_path), ["mae"], verbose=False)
        task.finetune()
        predicted = task.predict(data, return_result=True)
        assert np.shape(predicted) == (12, 2)

    def test_other_sizes_are_refused(self, tmp_path):
        task = hub.RegressionTask(nn.Linear(4, 2), dataset(), config(tmp_path), ["mse"], verbose=False)
        with pytest.raises(ValueError, match=r"outputs of shape \[10, 2\], but the labels have shape \[10\]"):
            task.finetune()


class TestSequenceLabel:
    tags = ("O", "B-X", "I-X")

    def sentences(self, samples=30, length=6):
        rng = np.random.RandomState(0)
        words = rng.randint(0, 9, [samples, length])
        labels = words % 3
        for row, end in zip(labels, rng.randint(2, length + 1, samples)):
            row[end:] = -100
        return TensorDataset([words, labels])

    def task(self, folder, **options):
        model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3))
        phases = {"train": self.sentences(), "dev": self.sentences(10)}
        given = config(folder, num_epoch=10, strategy=hub.DefaultStrategy(0.1))
        return hub.SequenceLabelTask(model, phases, given, verbose=False, **options)

    def test_learns_chunks_and_names_them(self, tmp_path):
        task = self.task(tmp_path, label_list=self.tags)
        assert list(task.learner.metrics) == ["f1", "precision", "recall"]
        assert task.finetune_and_eval()["f1"] == 1.0
        words = np.random.randint(0, 9, [4, 5])
        named = task.predict(TensorDataset([words]), return_result=True)
        assert named == [[self.tags[word % 3] for word in row] for row in words]

    def test_without_names_tokens_are_counted(self, tmp_path):
        task = self.task(tmp_path)
        assert task.main_metric == "token_f1"
        assert task.finetune_and_eval()["token_f1"] == 1.0

    def test_padding_has_no_part_in_the_loss(self, tmp_path):
        task = self.task(tmp_path)
        logits, labels = np.random.randn(2, 4, 3).astype("float32"), np.array([[0, 1, -100, -100], [2, -100, 1, 0]])
        nothing = task._loss(paddle.to_tensor(logits), paddle.full([2, 4], -100, "int64"))
        assert nothing.item() == 0.0
        wanted = []
        for row, label in zip(logits.reshape(-1, 3).astype("float64"), labels.reshape(-1)):
            if label != -100:
                wanted.append(np.log(np.exp(row).sum()) - row[label])
        loss = task._loss(paddle.to_tensor(logits), paddle.to_tensor(labels)).item()
        assert loss == pytest.approx(np.mean(wanted), rel=1e-5)

    def test_batches_of_different_lengths(self, tmp_path):
        samples = [(np.full(n, 2), np.full(n, 2)) for n in (2, 2, 5, 5, 3, 3)]
        data = paddle.io.DataLoader(samples, batch_size=2)
        model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3))
        given = config(tmp_path, strategy=hub.DefaultStrategy(0.1))
        task = hub.SequenceLabelTask(model, {"train": data, "dev": data}, given, verbose=False)
        assert set(task.finetune_and_eval()) == {"loss", "token_f1"}
        assert [len(row) for row in task.predict(data, return_result=True)] == [2, 2, 5, 5, 3, 3]

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"ignore_index": "pad"}, TypeError, "ignore_index must be a whole number, not 'pad'"),
            ({"metrics_choices": ["f1"]}, ValueError, "there is no label_list"),
            ({"label_list": ["O", "X"]}, ValueError, "'X' is none"),
            ({"label_list": ["O", "B-X"], "num_classes": 3}, ValueError, "label_list has 2 names"),
        ],
    )
    def test_errors(self, options, kind, message, tmp_path):
        with pytest.raises(kind, match=message):
            self.task(tmp_path, **options)

    def test_a_classifiers_output_is_refused(self, tmp_path):
        task = hub.SequenceLabelTask(net(), dataset(), config(tmp_path), verbose=False)
        with pytest.raises(ValueError, match=r"needs \[batch, length, classes\] and \[batch, length\]"):
            task.finetune()


class TestOutputForms:
    """What PaddleNLP's models return and take: tuples, dicts, keyword arguments."""

    @pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
    def test_logits_are_found(self, form, tmp_path):
        class Model(nn.Layer):
            def __init__(self):
                super().__init__()
                self.words, self.head = nn.Embedding(9, 8), nn.Linear(8, 2)

            def forward(self, input_ids, token_type_ids=None):
                logits = self.head(self.words(input_ids).mean(1))
                return {"tensor": logits, "tuple": (logits, input_ids), "dict": {"ids": input_ids, "logits": logits}}[
                    form
                ]

        words = np.random.randint(0, 9, [20, 5])
        samples = [{"input_ids": row, "token_type_ids": row * 0, "labels": int(row.sum() % 2)} for row in words]
        task = hub.TextClassifierTask(
            Model(),
            {"train": samples, "dev": samples},
            config(tmp_path),
            ["acc", "f1"],
            verbose=False,
            label_list=["a", "b"],
        )
        assert set(task.finetune_and_eval()) == {"loss", "acc", "f1"}
        assert set(task.predict(samples, return_result=True)) <= {"a", "b"}


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        ("", "[TRAIN] step 1 / 1"),
        ("logging.basicConfig(level=logging.INFO, format='mine %(message)s', force=True)", "mine [TRAIN] step 1 / 1"),
        ("logging.getLogger('paddle_ftstrat').setLevel(logging.ERROR)", None),
    ],
    ids=["by itself", "through the user's handlers", "silenced"],
)
def test_log_lines_are_seen(setup, told, tmp_path):
    script = f"""
import logging
import subprocess
import sys
import paddle_ftstrat as hub, numpy as np, paddle
{setup}
pairs = [(np.ones(4, "float32"), np.int64(0)), (np.zeros(4, "float32"), np.int64(1))]
config = hub.RunConfig(log_interval=1, checkpoint_dir={str(tmp_path)!r})
hub.ClassifierTask(paddle.nn.Linear(4, 2), {{"train": pairs}}, config).finetune()
"""
    output = processes.run_code(tmp_path, script)
    assert output.count("[TRAIN] step 1 / 1") == (told is not None)
    assert told is None or told in output
