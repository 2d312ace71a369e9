"""Rows of a head or an embedding by their labels: which come from the file, which are new, what is refused."""

import json

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.transfer import LoadError, find_head, load_pretrained, loaded_names

OLD, NEW = ["blank", "a", "b", "c"], ["blank", "c", "d", "a", "e"]
SOURCES, ADDED = {0: 0, 1: 3, 3: 1}, (2, 4)  # what of NEW is where in OLD, and what is not


class Net(nn.Layer):
    """An embedding and a head over the same labels, and a body."""

    def __init__(self, labels):
        super().__init__()
        self.embedding = nn.Embedding(labels, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, labels)

    def forward(self, ids):
        return self.head(self.body(self.embedding(ids)).tanh())


ROWS = {"embedding": (OLD, NEW), "head.*": (OLD, NEW)}


@pytest.fixture
def pair():
    return Net(len(OLD)), Net(len(NEW))


def values(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def as_torch(state):
    """The state dict as torch would have it."""
    return {name: value.T if name in ("body.weight", "head.weight") else value for name, value in state.items()}


def assert_carried(model, old, before, sources=None, axis=-1):
    sources = SOURCES if sources is None else sources
    now = values(model)
    for name, along in (("embedding.weight", 0), ("head.weight", -1), ("head.bias", 0)):
        for row in range(len(NEW)):
            kept = np.take(before[name], row, along)
            expected = np.take(old[name], sources[row], along) if row in sources else kept
            np.testing.assert_array_equal(np.take(now[name], row, along), expected)


@pytest.mark.parametrize("kind", ["dict", "pdparams", "safetensors", "npz", "torch dict"])
@pytest.mark.parametrize("by", ["labels", "index"])
def test_rows_of_common_labels_are_carried(pair, tmp_path, kind, by):
    source, model = pair
    old, before = values(source), values(model)
    path, options = tmp_path / "old.safetensors", {}
    if kind == "pdparams":
        path = str(tmp_path / "old.pdparams")
        paddle.save(source.state_dict(), path)
    elif kind == "safetensors":
        hub.save_pretrained(source, path)
    elif kind == "npz":
        path = tmp_path / "old.npz"
        np.savez(path, **old)
    else:
        path, options = (as_torch(old), {"source": "torch"}) if kind == "torch dict" else (old, {})
    rows = ROWS if by == "labels" else {"embedding": SOURCES, "head.*": SOURCES}
    report = load_pretrained(model, path, rows=rows, strict=True, **options)
    assert_carried(model, old, before)
    assert report.loaded == ["body.weight", "body.bias"]
    assert not report.mismatched
    assert list(report.carried) == ["embedding.weight", "head.weight", "head.bias"]
    carried = report.carried["head.weight"]
    assert (carried.axis, carried.sources) == (1, SOURCES)
    assert carried.new == (("d", "e") if by == "labels" else ADDED)


def test_the_report_tells_it(pair):
    source, model = pair
    report = load_pretrained(model, values(source), rows=ROWS)
    text = str(report)
    assert text.startswith("2 of 5 weights, rows of 3 more loaded from a dict")
    assert "partly  head.weight       head.weight       6×5    3 of 5 rows (axis 1) carried, new: d, e" in text
    assert json.loads(json.dumps(report.to_dict()))["rows"][0]["carried"] == {
        "axis": 0,
        "sources": {"0": 0, "1": 3, "3": 1},
        "new": ["d", "e"],
    }


def test_what_is_new_in_part_is_no_pretrained_weight(pair):
    source, model = pair
    load_pretrained(model, values(source), rows=ROWS)
    assert loaded_names(model) == ["body.weight", "body.bias"]
    assert find_head(model) == ["embedding.weight", "head.weight", "head.bias"]


def test_all_rows_from_the_file_are_a_loaded_weight(pair):
    source, _ = pair
    model, order = Net(3), ["c", "a", "b"]
    report = load_pretrained(model, values(source), rows={"embedding": (OLD, order), "head": (OLD, order)})
    assert set(report.loaded) == set(values(model))
    np.testing.assert_array_equal(model.embedding.weight.numpy(), source.embedding.weight.numpy()[[3, 1, 2]])


def test_another_order_of_as_many_labels_is_carried_too(pair):
    source, _ = pair
    model, order = Net(4), ["c", "b", "a", "blank"]
    load_pretrained(model, values(source), rows={"embedding": (OLD, order), "head": (OLD, order)})
    np.testing.assert_array_equal(model.head.weight.numpy(), source.head.weight.numpy()[:, ::-1])


def test_one_row_may_go_to_two(pair):
    source, model = pair
    load_pretrained(model, values(source), rows={"embedding": {0: 1, 4: 1}, "head": {2: 0}})
    np.testing.assert_array_equal(model.embedding.weight.numpy()[[0, 4]], source.embedding.weight.numpy()[[1, 1]])


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (lambda n: nn.Conv2D(2, n, 3), 0),
        (lambda n: nn.Conv1DTranspose(2, n, 3), 1),
        (lambda n: nn.Linear(n, n), 1),
        (lambda n: nn.Embedding(n, n), 0),
        (lambda n: nn.LayerNorm(n), 0),
    ],
)
def test_the_axis_is_that_of_the_layers_labels(layer, axis):
    """Also in a square one, where two axes have as many entries, between equally long lists of labels."""
    source, model = layer(3), layer(3)
    old, new = ["x", "y", "z"], ["z", "y", "w"]
    source.weight.set_value(paddle.randn(source.weight.shape))
    before = model.weight.numpy()
    load_pretrained(model, {"weight": source.weight.numpy()}, rows={"weight": (old, new)})
    now = np.moveaxis(model.weight.numpy(), axis, 0)
    np.testing.assert_array_equal(now[:2], np.moveaxis(source.weight.numpy(), axis, 0)[[2, 1]])
    np.testing.assert_array_equal(now[2], np.moveaxis(before, axis, 0)[2])


class Own(nn.Layer):
    """A layer that is not Paddle's own."""

    def __init__(self, *shape):
        super().__init__()
        self.table = self.create_parameter(list(shape))


def test_in_a_layer_of_ones_own_the_axis_that_fits():
    model, old = Own(2, 5, 3), np.random.rand(2, 4, 3).astype("float32")
    report = load_pretrained(model, {"table": old}, rows={"table": (OLD, NEW)})
    assert report.carried["table"].axis == 1
    np.testing.assert_array_equal(model.table.numpy()[:, 1], old[:, 3])
    with pytest.raises(ValueError, match=r"axes \[0, 1\] could be that of the labels"):
        load_pretrained(Own(4, 4), {"table": np.zeros([4, 4], "float32")}, rows={"table": (OLD, OLD)})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("into", ["float32", "half"])
def test_types_are_converted(pair, dtype, into):
    source, model = pair
    source.to(dtype=dtype)
    if into == "half":
        model.to(dtype=dtype)
    old = {name: value.astype("float32").numpy() for name, value in source.state_dict().items()}
    before = {name: value.astype("float32").numpy() for name, value in model.state_dict().items()}
    load_pretrained(model, source.state_dict(), rows=ROWS)
    model.to(dtype="float32")
    assert_carried(model, old, before)


def test_into_the_training_and_its_optimizer_state_stays(pair):
    source, model = pair
    run = hub.DefaultStrategy(0.1, "momentum").bind(model)
    model(paddle.to_tensor([0, 1])).sum().backward()
    run.step()
    state = run.state_dict()["optimizer"]["head.weight"]["velocity"].numpy().copy()
    with pytest.warns(UserWarning, match="bound to a strategy"):
        load_pretrained(model, values(source), rows=ROWS)
    np.testing.assert_array_equal(run.state_dict()["optimizer"]["head.weight"]["velocity"].numpy(), state)


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ({"heads.*": (OLD, NEW)}, ValueError, "heads"),
        ({"head": (OLD, [*NEW, "c"])}, ValueError, "labels of the model are not unique: 'c'"),
        ({"head": ([*OLD, "a"], NEW)}, ValueError, "labels of the file are not unique: 'a'"),
        ({"head": (OLD[:-1], NEW)}, ValueError, "no axis is that of the labels.*3 and 5 labels"),
        ({"head": (OLD, NEW[:-1])}, ValueError, "head.weight.*no axis is that of the labels.*4 and 4 labels"),
        ({"body": (OLD, NEW)}, ValueError, "'body.weight' has shape"),
        ({"head": (OLD, [1, 2, 3, 4, 5])}, ValueError, "no label of the model"),
        ({"head": OLD}, TypeError, "must be"),
        ({"head": ("abcd", "abcde")}, TypeError, "must be"),
        ({"head": {}}, ValueError, "maps no rows"),
        ({"head": {5: 0}}, ValueError, "the model has no row 5, only 0 to 4"),
        ({"head": {0: 4}}, ValueError, "the file has no row 4, only 0 to 3"),
        ({"head": {-1: 0}}, ValueError, "-1"),
        ({"head": {0: 0}, "head.bias": {0: 0}}, ValueError, "both mean 'head.bias'"),
        ([("head", (OLD, NEW))], TypeError, "rows must be a dict"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(pair, rows, error, match):
    source, model = pair
    before = values(model)
    with pytest.raises(error, match=match):
        load_pretrained(model, values(source), rows={**ROWS, **rows} if rows == {"body": (OLD, NEW)} else rows)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_rows_that_the_file_does_not_have(pair):
    source, model = pair
    with pytest.raises(LoadError, match="rows= speaks of head.weight, head.bias, for which the file has nothing"):
        load_pretrained(model, values(source), exclude="head", rows=ROWS)
