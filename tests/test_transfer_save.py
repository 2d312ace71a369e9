"""Saving: other readers understand it, a crash leaves no half file, an exported program is the model."""

import json
import os

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import export_parameters
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.checkpoint.folder import as_entries
from paddle_ftstrat.transfer import export_inference, load_pretrained, safe_tensors, save_pretrained


def net():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1D(3), nn.Dropout(0.5), nn.Linear(3, 2))


def test_the_formats_own_library_reads_it(tmp_path):
    model = net()
    model.register_buffer("steps", paddle.to_tensor([3], "int64"))
    model.register_buffer("flag", paddle.to_tensor([True]))
    path = save_pretrained(model, tmp_path / "deep" / "folder")
    assert path == tmp_path / "deep" / "folder" / "model.safetensors"
    read = safetensors.numpy.load_file(path)
    assert set(read) == set(model.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(read[name], value.numpy())
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pd"}


def test_round_trip_of_what_torch_made(tmp_path):
    model, other = nn.LSTM(4, 4, 2, direction="bidirect"), nn.LSTM(4, 4, 2, direction="bidirect")
    path = save_pretrained(model, tmp_path / "lstm.safetensors")
    load_pretrained(other, path, strict=True)
    x = paddle.randn([2, 3, 4])
    np.testing.assert_array_equal(other(x)[0].numpy(), model(x)[0].numpy())


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    model = net()
    path = save_pretrained(model, tmp_path)
    old = path.read_bytes()
    model[0].weight.set_value(model[0].weight + 1)

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, tmp_path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_not_a_model(tmp_path):
    with pytest.raises(TypeError, match="Layer"):
        save_pretrained({}, tmp_path)
    with pytest.raises(TypeError, match="Layer"):
        export_inference({}, tmp_path / "x", paddle.ones([1, 4]))
    with pytest.raises(TypeError, match="sample_input"):
        export_inference(net(), tmp_path / "x", 3)


def test_export_gives_the_models_output_for_any_batch(tmp_path):
    model = net()
    model.train()
    for _ in range(3):
        model(paddle.randn([8, 4]))
    path = export_inference(model, tmp_path / "out" / "net", paddle.randn([5, 4]))
    assert model.training
    assert all(layer.training for layer in model.sublayers())
    program, x = paddle.jit.load(str(path)), paddle.randn([3, 4])
    program.eval()
    model.eval()
    np.testing.assert_allclose(program(x).numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert all(name.startswith("net.") for name in os.listdir(tmp_path / "out"))


def test_the_model_still_trains_after_export(tmp_path):
    model = net()
    export_inference(model, tmp_path / "net", paddle.randn([5, 4]))
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    before = model[0].weight.numpy().copy()
    model(paddle.randn([8, 4])).square().mean().backward()
    optimizer.step()
    assert np.abs(model[0].weight.numpy() - before).max() > 0
    assert "forward" not in vars(model)


def test_export_of_several_inputs_and_outputs(tmp_path):
    class Two(nn.Layer):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, a, b):
            return self.fc(a) + b, {"sum": a.sum()}

    path = export_inference(Two(), tmp_path / "two", (paddle.ones([2, 4]), paddle.ones([2, 2])))
    assert len(paddle.jit.load(str(path))(paddle.ones([1, 4]), paddle.ones([1, 2]))) == 2


class Moody(nn.Layer):
    """Another output at each call, which a program cannot know."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(x) + float(self.calls)


def test_a_program_that_differs_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="differs from the model's"):
        export_inference(Moody(), tmp_path / "moody", paddle.ones([1, 4]))
    assert os.listdir(tmp_path) == []


class TestOwnFiles:
    """Whatever this library writes, `load_pretrained` reads, without a rename."""

    X, Y = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.arange(8) % 4

    def net(self):
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1D(4), nn.Linear(4, 4))

    def learner(self, folder, **given):
        data = paddle.io.TensorDataset([paddle.to_tensor(self.X), paddle.to_tensor(self.Y)])
        return hub.Learner(self.net(), data, loss=nn.CrossEntropyLoss(), batch_size=4, path=folder, **given)

    def save(self, folder, with_opt=True):
        it = self.learner(folder)
        it.fit(1, strategy=hub.L2SPFinetuneStrategy())
        return it.model, it.save("tuned", with_opt)

    def best_of_a_task(self, folder):
        rows = [(x, int(y)) for x, y in zip(self.X, self.Y)]
        config = hub.RunConfig(checkpoint_dir=folder, batch_size=4, eval_interval=1, use_cuda=False)
        task = hub.ClassifierTask(self.net(), {"train": rows, "dev": rows}, config, num_classes=4)
        task.finetune_and_eval()
        task.load_best_model()
        return task.model, task.best_model_path

    def checkpoint(self, folder):
        it = self.learner(folder, checkpoints=hub.Checkpoints(folder / "c", every=1))
        it.fit(1, strategy=hub.DefaultStrategy())
        return it.model, max((folder / "c").glob("step_*"))

    def average(self, folder):
        ema = hub.EMA(0.5)
        it = self.learner(folder, cbs=[ema])
        it.fit(1, strategy=hub.DefaultStrategy())
        path = ema.save(it, "average")
        ema.apply()
        return it.model, path

    def exported(self, folder, suffix):
        model = self.net()
        export_parameters(model, "*", folder / f"x.{suffix}")
        return model, folder / f"x.{suffix}"

    def before_version_0_2(self, folder):
        it = self.learner(folder)
        it.fit(1, strategy=hub.DefaultStrategy())
        state = it.run.state_dict()
        state.pop("anchors")
        tensors = {f"model::{name}": value for name, value in it.model.state_dict().items()}
        tensors.update(contents.separated({"optimizer": state.pop("optimizer")})[1])
        (folder / "models").mkdir()
        with (folder / "models" / "old.safetensors").open("wb") as file:
            safe_tensors.write(file, as_entries(tensors), {"facts": json.dumps({"run": state})})
        return it.model, folder / "models" / "old.safetensors"

    @pytest.mark.parametrize(
        ("write", "aside"),
        [
            pytest.param(save, "anchors, optimizer", id="Learner.save"),
            pytest.param(lambda self, folder: self.save(folder, with_opt=False), None, id="Learner.save, weights"),
            pytest.param(best_of_a_task, None, id="a task's best model"),
            pytest.param(checkpoint, None, id="a checkpoint"),
            pytest.param(average, None, id="EMA.save"),
            pytest.param(lambda self, folder: self.exported(folder, "npz"), None, id="export, npz"),
            pytest.param(lambda self, folder: self.exported(folder, "safetensors"), None, id="export, safetensors"),
            pytest.param(before_version_0_2, "optimizer", id="before 0.2"),
        ],
    )
    def test_load_as_they_are(self, write, aside, tmp_path):
        model, path = write(self, tmp_path)
        for place in (path, path / "model.safetensors") if path.is_dir() else (path,):
            fresh = self.net()
            report = load_pretrained(fresh, place)
            assert len(report.weights) == 6
            assert (report.renamed, report.unexpected, report.layout) == ({}, [], "paddle")
            assert report.notes == ((f"state besides the weights, left aside: {aside}",) if aside else ())
            for name in report.loaded:
                np.testing.assert_array_equal(fresh.state_dict()[name].numpy(), model.state_dict()[name].numpy())

    def test_older_files_load_into_a_learner(self, tmp_path):
        model, _ = self.before_version_0_2(tmp_path)
        it = self.learner(tmp_path)
        it.fit(1, strategy=hub.DefaultStrategy())
        it.load("old")
        for name, value in it.model.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), model.state_dict()[name].numpy())

    def test_names_that_state_would_be_taken_for(self, tmp_path):
        it = self.learner(tmp_path)
        it.model.add_sublayer("a::b", nn.Linear(1, 1))
        with pytest.raises(ValueError, match=r"cannot have '::' in them: a::b\.weight"):
            it.save("x")

    def test_a_folder_of_checkpoints_names_them(self, tmp_path):
        _, path = self.checkpoint(tmp_path)
        with pytest.raises(ValueError, match=f"is a folder; name a file or a folder of weights in it: .*{path.name}"):
            load_pretrained(self.net(), tmp_path / "c")
