"""Saving: other readers understand it, a crash leaves no half file, an exported program is the model."""

import os

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddle import nn

from paddle_ftstrat.transfer import export_inference, load_pretrained, save_pretrained


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
