"""RunConfig and tasks: PaddleHub's vocabulary on top of the loop."""

import logging

import numpy as np
import paddle
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
        evaluations = [line for line in lines if line.startswith("[EVAL] step")]
        assert [line.split(":")[0] for line in evaluations] == ["[EVAL] step 5", "[EVAL] step 10", "[EVAL] step 12"]
        assert lines[-1].startswith("[test dataset evaluation result] loss=")
        best = max(float(line.split("acc=")[1]) for line in evaluations)
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
        found = sorted(file.name for file in (tmp_path / "models").iterdir())
        assert found == ["step_10.safetensors", "step_5.safetensors"]

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
