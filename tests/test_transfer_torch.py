"""torch's files into Paddle's models: the outputs are torch's. The fixtures are real files of torch.save."""

import importlib.util
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_ftstrat.transfer import LoadError, load_pretrained, loaded_names
from paddle_ftstrat.transfer.files import open_contents

FIXTURES = Path(__file__).parent / "fixtures"


class Mixed(nn.Layer):
    """The Paddle twin of the fixture's module."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 6)
        self.linear = nn.Linear(6, 6)
        self.norm = nn.LayerNorm((5, 6))
        self.act = nn.PReLU(5)
        self.conv = nn.Conv1D(5, 5, 3)
        self.group = nn.GroupNorm(5, 5)
        self.up = nn.Conv1DTranspose(5, 4, 3)
        self.instance = nn.InstanceNorm1D(4)
        self.bn = nn.BatchNorm1D(4)
        self.bilinear = nn.Bilinear(6, 6, 6)

    def forward(self, ids):
        x = self.act(self.norm(self.linear(self.embedding(ids))))
        x = self.bn(self.instance(self.up(self.group(self.conv(x)))))
        # Paddle's Bilinear takes matrices only.
        rows, turned = x.reshape([-1, 6]), x.flip(-1).reshape([-1, 6])
        return self.bilinear(rows, turned).reshape(x.shape)


def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, 0.0), 2, nn.LayerNorm(8))


def decoder():
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 8, 0.0), 1)


CASES = {
    "encoder": encoder,
    "encoder_legacy": encoder,
    "decoder": decoder,
    "lstm": lambda: nn.LSTM(8, 8, 2, direction="bidirect"),
    "gru": lambda: nn.GRU(8, 8, 2),
    "rnn": lambda: nn.SimpleRNN(8, 8),
    "attention": lambda: nn.MultiHeadAttention(8, 2, kdim=4, vdim=6),
    "mixed": Mixed,
}


def output(model, arrays):
    model.eval()
    inputs = [paddle.to_tensor(arrays[key].astype(arrays[key].dtype)) for key in arrays if key.startswith("in")]
    out = model(*inputs)
    return (out[0] if isinstance(out, tuple) else out).numpy()


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_torchs(name):
    model, arrays = CASES[name](), np.load(FIXTURES / f"{name}.npz")
    report = load_pretrained(model, FIXTURES / f"{name}.pt", strict=True)
    assert report.layout == "torch"
    assert report.missing == report.unexpected == []
    np.testing.assert_allclose(output(model, arrays), arrays["out"], atol=1e-5, rtol=1e-4)


def test_resnet18_of_torchvision():
    arrays = {key: array.astype("float32") for key, array in np.load(FIXTURES / "resnet18.npz").items()}
    model = paddle.vision.models.resnet18()
    report = load_pretrained(model, FIXTURES / "resnet18.pth", strict=True)
    np.testing.assert_allclose(output(model, arrays), arrays["out"], atol=1e-4, rtol=0)
    assert len(report.weights) == 62
    assert len(report.loaded) == 102
    assert len(report.dropped) == 20
    assert all(key.endswith("num_batches_tracked") for key in report.dropped)
    assert "20 dropped" in str(report)
    assert "num_batches_tracked" in report.table()
    assert report.renamed["bn1._mean"] == "bn1.running_mean"
    assert loaded_names(model) == report.weights


def test_resnet18_full_size_against_torch():
    """Random weights without the fixture's short storages, float16 on the way."""
    torch = pytest.importorskip("torch", reason="torch is not installed: the fixture covers the same shapes")
    spec = importlib.util.spec_from_file_location("make", FIXTURES / "make_torch_fixtures.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    theirs, ours = make.ResNet18().eval(), paddle.vision.models.resnet18()
    load_pretrained(ours, theirs.state_dict(), strict=True)
    images = np.random.rand(2, 3, 64, 64).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
    ours.eval()
    np.testing.assert_allclose(ours(paddle.to_tensor(images)).numpy(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_legacy"])
def test_every_dtype_stride_and_shared_storage(name):
    contents = open_contents(FIXTURES / f"{name}.pt")
    arrays = {key: entry.read() for key, entry in contents.entries.items()}
    six = np.arange(6.0).reshape(2, 3)
    expected = {
        "weight": six,
        "transposed": six.T,
        "part": [2.0, 5.0],
        "shared_a": six,
        "shared_b": six[1],
        "half": np.float16([1.5, -2]),
        "bfloat16": np.uint16([0x3FC0, 0xC040]),
        "double": [1.5, -2.0],
        "long": [1, 2**40],
        "bool": [True, False],
        "scalar": 7.0,
        "empty": np.zeros([0, 4]),
    }
    assert list(arrays) == list(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array)
        assert arrays[key].shape == np.shape(array)
    dtypes = [contents.entries[key].dtype for key in ("half", "bfloat16", "double", "long", "bool")]
    assert dtypes == ["float16", "bfloat16", "float64", "int64", "bool"]
    assert "state_dict" in contents.notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [("whole_module", r"contains torch\.nn\.modules\.linear\.Linear.*refused"), ("scripted", "TorchScript")],
)
def test_what_is_no_state_dict_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(nn.Linear(3, 2), FIXTURES / f"{name}.pt")


def test_square_linear_is_transposed_by_type_and_not_by_shape():
    weight = np.arange(9, dtype="float32").reshape(3, 3)
    model = nn.Linear(3, 3)
    load_pretrained(model, {"weight": weight, "bias": np.zeros(3, "float32")}, source="torch")
    np.testing.assert_array_equal(model.weight.numpy(), weight.T)
    load_pretrained(model, {"weight": weight, "bias": np.zeros(3, "float32")}, source="paddle")
    np.testing.assert_array_equal(model.weight.numpy(), weight)


class Own(nn.Layer):
    """A layer whose own matrix is nobody's but the user's."""

    def __init__(self, rows=2, columns=2):
        super().__init__()
        self.matrix = self.create_parameter([rows, columns])

    def forward(self, x):
        return x @ self.matrix


def test_a_square_matrix_of_an_unknown_layer_needs_a_word():
    model, weight = Own(), np.float32([[1, 2], [3, 4]])
    before = model.matrix.numpy()
    with pytest.raises(LoadError, match=r"square matrices.*matrix.*layout="):
        load_pretrained(model, {"matrix": weight}, source="torch")
    np.testing.assert_array_equal(model.matrix.numpy(), before)
    load_pretrained(model, {"matrix": weight}, source="torch", layout={"matrix": "transposed"})
    np.testing.assert_array_equal(model.matrix.numpy(), weight.T)
    load_pretrained(model, {"matrix": weight}, source="torch", layout={"*": "same"})
    np.testing.assert_array_equal(model.matrix.numpy(), weight)
    load_pretrained(model, {"matrix": weight}, source="paddle")


def test_an_oblong_matrix_of_an_unknown_layer_fits_one_way():
    model, weight = Own(2, 3), np.arange(6, dtype="float32").reshape(2, 3)
    load_pretrained(model, {"matrix": weight}, source="torch")
    np.testing.assert_array_equal(model.matrix.numpy(), weight)
    with pytest.raises(LoadError, match="axes exchanged"):
        load_pretrained(model, {"matrix": weight.T.copy()}, source="torch", ignore_mismatched=True)


def test_linears_that_torch_stores_untransposed_are_an_error_and_not_a_mismatch():
    """GPT-2's Conv1D: [in, out]; the square one beside it would be transposed without a word."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 6))
    state = {
        "0.weight": np.float32([[1, 2], [3, 4]]),
        "0.bias": np.zeros(2, "float32"),
        "1.weight": np.ones([2, 6], "float32"),
        "1.bias": np.zeros(6, "float32"),
    }
    with pytest.raises(LoadError, match=r"axes exchanged: 1\.weight.*Conv1D"):
        load_pretrained(model, state, source="torch", ignore_mismatched=True)
    load_pretrained(model, state, source="torch", layout={"*.weight": "same"})
    np.testing.assert_array_equal(model[0].weight.numpy(), state["0.weight"])


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        (lambda: nn.LSTM(4, 4), "weight_hr_l0", "proj_size"),
        (lambda: nn.MultiHeadAttention(4, 2), "bias_k", "add_bias_kv"),
        (lambda: nn.InstanceNorm1D(4), "running_mean", "running statistic"),
        (lambda: nn.Linear(4, 4), "weight_g", "weight_norm"),
        (lambda: nn.Linear(4, 4), "parametrizations.weight.original1", "weight_norm"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(model, key, message):
    state = {key: np.zeros([4, 4], "float32"), "bias": np.zeros(4, "float32")}
    with pytest.raises(ValueError, match=rf"{key}.*{message}"):
        load_pretrained(model(), state, source="torch")


def test_layer_norm_by_its_old_names():
    model = nn.LayerNorm(3)
    state = {"gamma": np.float32([1, 2, 3]), "beta": np.float32([4, 5, 6])}
    report = load_pretrained(model, state, source="torch", strict=True)
    np.testing.assert_array_equal(model.weight.numpy(), state["gamma"])
    assert report.renamed == {"weight": "gamma", "bias": "beta"}


def test_attention_with_separate_projections_as_hugging_face_names_them():
    model, eye = nn.MultiHeadAttention(4, 2), np.triu(np.ones([4, 4], "float32"))
    state = {f"{name}.weight": eye for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    state.update({f"{name}.bias": np.zeros(4, "float32") for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
    load_pretrained(model, state, source="torch", strict=True)
    np.testing.assert_array_equal(model.k_proj.weight.numpy(), eye.T)


class TestAutomaticLayout:
    """Who wrote the file, when source="auto"."""

    OBLONG = np.arange(6, dtype="float32").reshape(2, 3)

    def test_by_names(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1D(2))
        square = np.float32([[1, 2], [3, 4]])
        report = load_pretrained(model, {"0.weight": square, "1.running_mean": np.zeros(2, "float32")})
        assert (report.layout, report.decided_by) == ("torch", "by its names")
        np.testing.assert_array_equal(model[0].weight.numpy(), square.T)
        report = load_pretrained(model, {"0.weight": square, "1._mean": np.zeros(2, "float32")})
        assert (report.layout, report.decided_by) == ("paddle", "by its names")

    def test_by_oblong_linears(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        square = np.float32([[1, 2], [3, 4]])
        report = load_pretrained(model, {"0.weight": self.OBLONG, "1.weight": square})
        assert report.layout == "torch"
        np.testing.assert_array_equal(model[1].weight.numpy(), square.T)
        assert load_pretrained(model, {"0.weight": self.OBLONG.T.copy(), "1.weight": square}).layout == "paddle"

    def test_contradiction(self):
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
        with pytest.raises(ValueError, match=r"both torch's and Paddle's.*source="):
            load_pretrained(model, {"0.weight": self.OBLONG, "1.weight": self.OBLONG.T.copy()})

    def test_square_safetensors_without_metadata(self, tmp_path):
        from safetensors.numpy import save_file

        state = {"weight": np.float32([[1, 2], [3, 4]]), "bias": np.zeros(2, "float32")}
        save_file(state, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="say source="):
            load_pretrained(nn.Linear(2, 2), tmp_path / "x.safetensors")
        save_file(state, tmp_path / "pt.safetensors", {"format": "pt"})
        model = nn.Linear(2, 2)
        load_pretrained(model, tmp_path / "pt.safetensors")
        np.testing.assert_array_equal(model.weight.numpy(), state["weight"].T)
