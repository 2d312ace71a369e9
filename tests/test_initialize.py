"""Embeddings from pretrained vectors; values of a layer in and out."""

import copy
import itertools
import os
import stat

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from safetensors.numpy import load_file

from paddle_ftstrat.param_attr import initialize, vectors
from paddle_ftstrat.param_attr.initialize import embedding_attr, export_parameters, set_parameters

WORDS = ["the", "of", "and", "to", "in"]
TABLE = np.random.RandomState(0).randn(len(WORDS), 4).astype("float32")
MAPPING = dict(zip(WORDS, TABLE))


class KeyedVectors:
    """What gensim 4's KeyedVectors has."""

    def __init__(self, words, table):
        self.key_to_index = {word: row for row, word in enumerate(words)}
        self.vectors = table


class OldKeyedVectors:
    """What gensim 3's KeyedVectors has: no length, no keys, but `in` and `[]`."""

    def __contains__(self, word):
        return word in MAPPING

    def __getitem__(self, word):
        return MAPPING[word]


@pytest.fixture
def npy(tmp_path):
    np.save(tmp_path / "vectors.npy", TABLE)
    return tmp_path / "vectors.npy"


def build(attr, rows, dim=4, **kw):
    return nn.Embedding(rows, dim, weight_attr=attr, **kw).weight


def sources(npy):
    return {
        "array": (TABLE, {"words": WORDS}),
        "fortran": (np.asfortranarray(TABLE), {"words": WORDS}),
        "big endian": (TABLE.astype(">f4"), {"words": WORDS}),
        "tensor": (paddle.to_tensor(TABLE), {"words": WORDS}),
        "list": (TABLE.tolist(), {"words": WORDS}),
        "path": (npy, {"words": {word: row for row, word in enumerate(WORDS)}}),
        "str path": (str(npy), {"words": np.array(WORDS)}),
        "mapping": (MAPPING, {}),
        "mapping of lists": ({word: row.tolist() for word, row in MAPPING.items()}, {}),
        "mapping of tensors": ({word: paddle.to_tensor(row) for word, row in MAPPING.items()}, {}),
        "KeyedVectors": (KeyedVectors(WORDS, TABLE), {}),
        "old KeyedVectors": (OldKeyedVectors(), {}),
    }


@pytest.mark.parametrize("vocab", [["[PAD]", "in", "zyzzyva", "the"], {"the": 3, "[PAD]": 0, "zyzzyva": 2, "in": 1}])
@pytest.mark.parametrize("kind", sources(None))
def test_every_source_with_every_vocab(kind, vocab, npy):
    source, kw = sources(npy)[kind]
    attr = embedding_attr(source, vocab, padding_idx=0, oov="zeros", **kw)
    expected = np.stack([np.zeros(4), TABLE[4], np.zeros(4), TABLE[0]]).astype("float32")
    np.testing.assert_array_equal(build(attr, 4).numpy(), expected)
    assert attr.initializer.coverage.found == 2
    assert attr.initializer.coverage.missing == ("zyzzyva",)


@pytest.mark.parametrize("kind", ["array", "fortran", "big endian", "tensor", "list", "path", "KeyedVectors"])
def test_without_a_vocab_the_rows_are_the_tables_own(kind, npy):
    weight = build(embedding_attr(sources(npy)[kind][0]), len(WORDS))
    np.testing.assert_array_equal(weight.numpy(), TABLE)


@pytest.mark.parametrize(("trainable", "lazy"), itertools.product([True, False], repeat=2))
def test_the_parameter_is_a_normal_one(trainable, lazy):
    attr = embedding_attr(
        TABLE,
        name=paddle.utils.unique_name.generate("emb"),
        trainable=trainable,
        learning_rate=0.5,
        regularizer=paddle.regularizer.L2Decay(0.1),
        need_clip=False,
    )
    if lazy:
        with paddle.LazyGuard():
            weight = build(attr, 5)
        weight.initialize()
    else:
        weight = build(attr, 5)
    assert weight.is_leaf
    assert weight.stop_gradient is not trainable
    assert (weight.optimize_attr["learning_rate"], weight.need_clip) == (0.5, False)
    assert isinstance(weight.regularizer, paddle.regularizer.L2Decay)
    if trainable:
        nn.functional.embedding(paddle.to_tensor([1, 1]), weight).sum().backward()
        np.testing.assert_array_equal(weight.grad.numpy()[:, 0], [0, 2, 0, 0, 0])
        paddle.optimizer.SGD(1.0, parameters=[weight]).step()
        # lr · multiplier · (gradient + 0.1·w)
        np.testing.assert_allclose(weight.numpy(), 0.95 * TABLE - [[0], [1], [0], [0], [0]], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(build(attr_without_name(attr), 5).numpy(), TABLE)


def test_lazy_initialization_while_the_guard_is_open():
    with paddle.LazyGuard():
        weight = build(embedding_attr(TABLE), 5)
        weight.initialize()
    np.testing.assert_array_equal(weight.numpy(), TABLE)


def attr_without_name(attr):
    attr.name = None
    return attr


@pytest.mark.parametrize("oov", ["normal", "zeros", nn.initializer.Constant(7.0)], ids=["normal", "zeros", "constant"])
def test_rows_without_a_vector_get_the_stated_values(oov):
    rows = 4000
    weight = build(embedding_attr(TABLE, oov=oov, num_embeddings=rows, padding_idx=-1), rows).numpy()
    np.testing.assert_array_equal(weight[:5], TABLE)
    np.testing.assert_array_equal(weight[-1], np.zeros(4))
    rest = weight[5:-1]
    if oov == "normal":
        scale = np.sqrt(np.mean(TABLE**2))
        # 16,000 draws: the mean is within 4σ/√n of 0, the deviation within 4σ/√(2n) of σ.
        assert abs(rest.mean()) < 4 * scale / np.sqrt(rest.size)
        assert abs(rest.std() - scale) < 4 * scale / np.sqrt(2 * rest.size)
    else:
        np.testing.assert_array_equal(rest, np.full_like(rest, 0.0 if oov == "zeros" else 7.0))


def test_drawn_rows_follow_the_seed_and_are_not_cut_to_the_tables_integers():
    drawn = []
    for _ in range(2):
        paddle.seed(3)
        attr = embedding_attr(np.ones((2, 4), "int16"), num_embeddings=6)
        drawn.append(build(attr, 6).numpy()[2:])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len(np.unique(drawn[0])) == 16


def test_nothing_is_drawn_where_only_the_padding_has_no_vector():
    drawn = []
    for oov in (None, "normal", nn.initializer.Normal()):
        paddle.seed(5)
        if oov is not None:
            weight = build(embedding_attr(MAPPING, ["[PAD]", "of"], padding_idx=0, oov=oov), 2)
            np.testing.assert_array_equal(weight.numpy(), np.stack([np.zeros(4, "float32"), TABLE[1]]))
        drawn.append(paddle.rand([3]).tolist())
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_whole_initializer_sees_the_whole_weight():
    rows, dim = 3000, 4
    weight = build(embedding_attr(TABLE, num_embeddings=rows, oov=nn.initializer.XavierUniform()), rows).numpy()[5:]
    limit = np.sqrt(6 / (rows + dim))
    assert 0.99 * limit < np.abs(weight).max() <= limit


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_vocabulary_and_any_chunk(data):
    rows = data.draw(st.permutations(range(12)))[:7]
    words = data.draw(st.lists(st.sampled_from([*WORDS, "x", "y"]), min_size=7, max_size=7, unique=True))
    chunk = data.draw(st.sampled_from([1, 64, 96, 4096]))
    vocab = dict(zip(words, rows))
    size = max(rows) + 1 + data.draw(st.integers(0, 2))
    expected = np.zeros((size, 4), "float32")
    for word, row in vocab.items():
        expected[row] = MAPPING.get(word, expected[row])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ftstrat.param_attr.initialize._CHUNK_BYTES", chunk)
        weight = build(embedding_attr(MAPPING, vocab, num_embeddings=size, oov="zeros"), size)
    np.testing.assert_array_equal(weight.numpy(), expected)


SAFE = {
    ("float16", "float32"),
    ("float16", "float64"),
    ("float32", "float64"),
    ("int16", "float32"),
    ("int16", "float64"),
    ("int64", "float64"),
}


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("given_as", ["float16", "float32", "float64", "int16", "int64"])
def test_dtypes(given_as, wanted, cast, npy):
    table = (TABLE * 8).astype(given_as)
    allowed = cast or given_as == wanted or (given_as, wanted) in SAFE
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(wanted)
    try:
        if not allowed:
            with pytest.raises(ValueError, match=rf"dtype {given_as}.*dtype {wanted}.*cast=True"):
                build(embedding_attr(table), 5)
            return
        weight = build(embedding_attr(table, cast=cast, padding_idx=1), 5)
    finally:
        paddle.set_default_dtype(before)
    expected = paddle.to_tensor(table).astype(wanted).astype("float64").numpy()
    expected[1] = 0.0
    np.testing.assert_array_equal(weight.astype("float64").numpy(), expected)


def test_half_precision_with_missing_words():
    paddle.set_default_dtype("bfloat16")
    try:
        weight = build(embedding_attr(MAPPING, ["x", "of", "y", "to"], oov=nn.initializer.Constant(3.0), cast=True), 4)
    finally:
        paddle.set_default_dtype("float32")
    expected = np.stack([np.full(4, 3.0), TABLE[1], np.full(4, 3.0), TABLE[3]]).astype("float32")
    np.testing.assert_array_equal(
        weight.astype("float32").numpy(), paddle.to_tensor(expected).astype("bfloat16").astype("float32").numpy()
    )


def test_plain_assign_takes_a_wrong_shape_silently():
    weight = build(paddle.ParamAttr(initializer=nn.initializer.Assign(TABLE)), 9, 2)
    assert list(weight.shape) == [5, 4]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("rows", "dim"), [(6, 4), (4, 4), (5, 3), (4, 5)])
def test_a_wrong_shape_is_an_error_that_shows_both(rows, dim, lazy):
    guard = paddle.LazyGuard() if lazy else paddle.no_grad()
    with guard, pytest.raises(ValueError, match=rf"\[5, 4\] and dtype float32.*\[{rows}, {dim}\] and dtype float32"):
        build(embedding_attr(TABLE), rows, dim)


def test_the_name_is_free_after_an_error():
    attr = embedding_attr(TABLE, name=paddle.utils.unique_name.generate("retried"))
    with pytest.raises(ValueError, match="retried"):
        build(attr, 6)
    assert build(attr, 5).name == attr.name


def test_static_graph_is_refused():
    paddle.enable_static()
    try:
        with pytest.raises(RuntimeError, match="dygraph"):
            build(embedding_attr(TABLE), 5)
    finally:
        paddle.disable_static()


def test_copies_of_attribute_and_model_hold_no_second_table():
    attr = embedding_attr(TABLE)
    model = nn.Embedding(5, 4, weight_attr=attr)
    assert copy.deepcopy(attr).initializer is attr.initializer
    copied = copy.deepcopy(model)
    np.testing.assert_array_equal(copied.weight.numpy(), TABLE)
    assert copied._weight_attr.initializer is attr.initializer


def test_the_file_is_read_a_few_rows_at_a_time(npy, monkeypatch):
    taken = []
    monkeypatch.setattr(vectors, "_take_from_file", lambda path, rows: taken.append(len(rows)) or np.load(path)[rows])
    monkeypatch.setattr("paddle_ftstrat.param_attr.initialize._CHUNK_BYTES", 2 * 8 * 4)
    np.testing.assert_array_equal(build(embedding_attr(npy), 5).numpy(), TABLE)
    assert taken == [2, 2, 1]


def test_rows_of_a_file_in_any_order(npy, monkeypatch):
    monkeypatch.setattr(vectors, "_ROWS_PER_MAPPING", 2)
    vocab = ["in", "x", "the", "to", "of", "and"]
    weight = build(embedding_attr(npy, vocab, words=WORDS, oov="zeros"), 6)
    np.testing.assert_array_equal(weight.numpy(), np.stack([MAPPING.get(word, 0 * TABLE[0]) for word in vocab]))


class NotRead(dict):
    def __iter__(self):
        raise AssertionError("the vectors were read through")

    keys = items = values = __iter__


def test_only_the_vocabs_words_of_a_mapping_are_read():
    np.testing.assert_array_equal(build(embedding_attr(NotRead(MAPPING), ["of"]), 1).numpy(), TABLE[1:2])


BAD_EMBEDDINGS = [
    (TypeError, "array, the path", 3.5, {}),
    (ValueError, "glove.txt is no .npy file.*numpy.save", "glove.txt", {}),
    (FileNotFoundError, "missing.npy", "missing.npy", {}),
    (ValueError, "header.npy is damaged or no .npy file", "header.npy", {}),
    (ValueError, "data.npy is damaged or no .npy file", "data.npy", {}),
    (ValueError, r"shape \[5\]", TABLE[:, 0], {}),
    (ValueError, "dtype <U1", np.array([["a"]]), {}),
    (ValueError, "vectors by word need vocab=", MAPPING, {}),
    (ValueError, "vocab needs words=", TABLE, {"vocab": ["the", "of"]}),
    (ValueError, "words= is for an array", MAPPING, {"vocab": ["the", "of"], "words": WORDS}),
    (ValueError, "words= is for an array", KeyedVectors(WORDS, TABLE), {"words": WORDS}),
    (ValueError, "5 rows.*row 5", TABLE, {"words": [*WORDS, "x"]}),
    (ValueError, r"\[4\] for 'the', \[3\] for 'of'", {**MAPPING, "of": TABLE[1, :3]}, {"vocab": ["the", "of"]}),
    (ValueError, "no word of the vocab.*The, Of.*the, of", KeyedVectors(WORDS, TABLE), {"vocab": ["The", "Of"]}),
    (ValueError, "no word of the vocab", MAPPING, {"vocab": ["The", "Of"]}),
    (ValueError, "no word of the vocab", MAPPING, {"vocab": []}),
    (ValueError, "same word more than once: of", MAPPING, {"vocab": ["of", "the", "of"]}),
    (ValueError, "same row more than once: 1", MAPPING, {"vocab": {"of": 1, "the": 1}}),
    (ValueError, r"vocab\['of'\] = -1", MAPPING, {"vocab": {"of": -1}}),
    (TypeError, r"vocab\['of'\].*whole", MAPPING, {"vocab": {"of": 0.5}}),
    (TypeError, "vocab must be a mapping.*str", MAPPING, {"vocab": "the of"}),
    (ValueError, "num_embeddings = 4.*≥ 5", TABLE, {"num_embeddings": 4}),
    (ValueError, "padding_idx = 5", TABLE, {"padding_idx": 5}),
    (ValueError, "padding_idx = -6", TABLE, {"padding_idx": -6}),
    (TypeError, "padding_idx", TABLE, {"padding_idx": True}),
    (ValueError, "unknown oov 'norm'. Did you mean 'normal'", TABLE, {"oov": "norm"}),
    (TypeError, "oov must be", TABLE, {"oov": 0.0}),
]


@pytest.mark.parametrize(("error", "message", "source", "kw"), BAD_EMBEDDINGS)
def test_mistakes_are_named(error, message, source, kw, npy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glove.txt").write_text("the 1 2 3 4")
    (tmp_path / "header.npy").write_bytes(npy.read_bytes()[:100])
    (tmp_path / "data.npy").write_bytes(npy.read_bytes()[:-1])
    with pytest.raises(error, match=message):
        embedding_attr(source, **kw)


@pytest.mark.parametrize("kind", ["array", "list", "tensor"])
def test_set_parameters(kind):
    make = {"array": np.array, "list": np.ndarray.tolist, "tensor": paddle.to_tensor}[kind]
    weight, bias = np.random.randn(3, 2).astype("float32"), np.random.randn(2).astype("float32")
    layer = nn.Linear(3, 2)
    params, x = (layer.weight, layer.bias), np.random.randn(5, 3).astype("float32")
    set_parameters(layer, weight=make(weight), bias=make(bias))
    assert (layer.weight, layer.bias)[0] is params[0]
    np.testing.assert_array_equal(layer.weight.numpy(), weight)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), x @ weight + bias, rtol=1e-5, atol=1e-6)
    layer(paddle.to_tensor(x)).sum().backward()
    np.testing.assert_array_equal(layer.bias.grad.numpy(), [5, 5])


def test_set_parameters_reaches_every_parameter_of_the_layer():
    lstm = nn.LSTM(3, 2)
    cell = lstm[0].cell
    values = np.random.randn(8, 3).astype("float32")
    set_parameters(cell, weight_ih=values)
    np.testing.assert_array_equal(lstm.state_dict()["0.cell.weight_ih"].numpy(), values)


BAD_VALUES = [
    ({}, "no values; Linear has weight, bias"),
    ({"weight": np.zeros((2, 3), "float32")}, r"'weight'.*\[2, 3\].*\[3, 2\].*transposed"),
    ({"weight": np.zeros((3, 3), "float32")}, r"\[3, 3\].*\[3, 2\]"),
    ({"bias": np.zeros(2)}, "float64.*float32.*cast=True"),
    ({"biass": [0.0, 0.0]}, "unknown parameter of Linear 'biass'. Did you mean 'bias'"),
]


@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_nothing_is_set_if_one_value_is_wrong(values, message):
    layer = nn.Linear(3, 2)
    before = export_parameters(layer, "*")
    good = {"weight": np.ones((3, 2), "float32")} if values and "weight" not in values else {}
    with pytest.raises(ValueError, match=message):
        set_parameters(layer, **good, **values)
    for name, value in export_parameters(layer, "*").items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "Sequential holds no parameters itself"),
        (nn.Linear(2, 2, bias_attr=False), "unknown parameter of Linear 'bias'. .*Allowed: weight"),
    ],
)
def test_set_parameters_on_a_layer_without_them(layer, message):
    with pytest.raises(ValueError, match=message):
        set_parameters(layer, bias=[0.0, 0.0])


def read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


READERS = {".npz": read_npz, ".safetensors": load_file}


class Model(nn.Layer):
    """A model with the names that writers of archives trip over."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2D(1, 2, 3), nn.BatchNorm2D(2))
        self.fc = nn.Linear(2, 3)
        self.file = self.create_parameter([2])
        self.scalar = self.create_parameter([])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("suffix", READERS)
def test_exported_values_come_back_bit_identical(suffix, dtype, tmp_path):
    model = Model()
    model.to(dtype=dtype)
    path = tmp_path / "new folder" / f"weights{suffix}"
    arrays = export_parameters(model, "*", path)
    stored = READERS[suffix](path)
    weights = dict(model.named_parameters())
    body = ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]
    assert list(arrays) == ["file", "scalar", *body, "fc.weight", "fc.bias"]
    assert set(stored) == set(arrays)
    for name, array in arrays.items():
        assert array.dtype == stored[name].dtype == ("float32" if dtype == "bfloat16" else dtype)
        assert array.shape == stored[name].shape == tuple(weights[name].shape)
        assert array.tobytes() == stored[name].tobytes()
        np.testing.assert_array_equal(array, weights[name].astype(array.dtype.name).numpy())
    restored = nn.Linear(2, 3)
    restored.to(dtype=dtype)
    set_parameters(restored, weight=stored["fc.weight"], bias=stored["fc.bias"], cast=dtype == "bfloat16")
    assert restored.weight.numpy().tobytes() == model.fc.weight.numpy().tobytes()


@pytest.mark.parametrize("patterns", ["fc.*", "fc", ["fc.weight", "fc.bias"], lambda name, p: name.startswith("fc")])
def test_the_last_layer_in_one_line(patterns):
    model = Model()
    exported = export_parameters(paddle.DataParallel(model), patterns)
    assert list(exported) == ["fc.weight", "fc.bias"]
    before = exported["fc.weight"].copy()
    set_parameters(model.fc, weight=np.zeros((2, 3), "float32"))
    np.testing.assert_array_equal(exported["fc.weight"], before)


@pytest.mark.parametrize(
    ("patterns", "path", "message"),
    [
        ("fd.*", None, "fd"),
        ("fc.*", "weights.npy", r"unknown file ending '.npy'.*Allowed: .npz, .safetensors"),
        ("fc.*", "weights", "Allowed: .npz, .safetensors"),
    ],
)
def test_mistakes_in_exporting(patterns, path, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_parameters(Model(), patterns, path and tmp_path / path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", READERS)
def test_a_failed_write_leaves_the_old_file(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    export_parameters(Model(), "fc.*", path)
    before = path.read_bytes()

    def full_disk(file, arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setitem(initialize._WRITERS, suffix, full_disk)
    with pytest.raises(OSError, match="no space"):
        export_parameters(Model(), "fc.*", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", READERS)
def test_the_file_has_the_usual_permissions(suffix, tmp_path):
    (tmp_path / "other").write_text("")
    export_parameters(Model(), "fc.*", tmp_path / f"weights{suffix}")
    modes = {stat.S_IMODE(os.stat(path).st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1
