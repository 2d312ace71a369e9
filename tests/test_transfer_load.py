"""Partial loading: what is chosen, what it is called, what fits, what is reported; nothing changes on an error."""

import copy
import json
import re

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.transfer import LoadError, load_pretrained, loaded_names, matching, save_pretrained, targets
from paddle_ftstrat.transfer.targets import convertible, values_in


class Net(nn.Layer):
    """A backbone with BatchNorm and a head."""

    def __init__(self, classes=2):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2D(1, 3, 3), nn.BatchNorm2D(3), nn.ReLU())
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(self.backbone(x).mean([2, 3]))


def values(model):
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def new_state(model, prefix=""):
    """Other values for everything in a model."""
    return {prefix + key: np.random.rand(*array.shape).astype(array.dtype) for key, array in values(model).items()}


def assert_loaded(model, state, names):
    now = values(model)
    for name in names:
        np.testing.assert_array_equal(now[name], state[name])


def assert_same(before, model):
    for name, array in values(model).items():
        np.testing.assert_array_equal(array, before[name])


class TestFormats:
    @pytest.mark.parametrize("kind", ["dict", "paddle dict", "pdparams", "npz", "npz compressed", "safetensors"])
    def test_all_of_it(self, tmp_path, kind):
        model, state = Net(), new_state(Net())
        path = tmp_path / "weights"
        if kind == "dict":
            path = state
        elif kind == "paddle dict":
            path = {key: paddle.to_tensor(array) for key, array in state.items()}
        elif kind == "pdparams":
            paddle.save({key: paddle.to_tensor(array) for key, array in state.items()}, str(path))
        elif kind == "safetensors":
            safetensors.numpy.save_file(state, path)
        else:
            with path.open("wb") as file:
                (np.savez if kind == "npz" else np.savez_compressed)(file, **state)
        report = load_pretrained(model, path, strict=True)
        assert report.layout == "paddle"
        assert sorted(report.loaded) == sorted(state)
        assert report.missing == report.unexpected == []
        assert report.mismatched == {}
        assert_loaded(model, state, state)

    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_paddle_save_of_every_protocol(self, tmp_path, protocol):
        source, model = Net(), Net()
        paddle.save(source.state_dict(), str(tmp_path / "x.pdparams"), protocol=protocol)
        load_pretrained(model, tmp_path / "x.pdparams", strict=True)
        assert_same(values(source), model)

    def test_big_arrays_that_paddle_save_cuts_in_slices(self, tmp_path):
        """The slicing begins at 1 GB; what it writes is made by hand here."""
        model = nn.Linear(2, 3)
        cut = {
            "weight@@.0": np.float32([1, 2, 3, 4]),
            "weight@@.1": np.float32([5, 6]),
            "UnpackBigParamInfor@@": {"weight": {"OriginShape": (2, 3), "slices": ["weight@@.0", "weight@@.1"]}},
        }
        paddle.save(cut, str(tmp_path / "x.pdparams"), protocol=3)
        load_pretrained(model, tmp_path / "x.pdparams")
        np.testing.assert_array_equal(model.weight.numpy(), [[1, 2, 3], [4, 5, 6]])

    def test_a_checkpoint_with_the_weights_inside(self, tmp_path):
        source, model = Net(), Net()
        optimizer = paddle.optimizer.Adam(parameters=source.parameters())
        source(paddle.ones([1, 1, 4, 4])).sum().backward()
        optimizer.step()
        paddle.save(
            {"epoch": 3, "model": source.state_dict(), "opt": optimizer.state_dict()}, str(tmp_path / "x.pdparams")
        )
        report = load_pretrained(model, tmp_path / "x.pdparams", strict=True)
        assert "entry 'model'" in report.notes[0]
        assert_same(values(source), model)
        with pytest.raises(ValueError, match=r"unknown entry 'modle'.*Did you mean 'model'"):
            load_pretrained(model, tmp_path / "x.pdparams", entry="modle")

    def test_several_state_dicts_need_a_word(self):
        model, state = Net(), new_state(Net())
        both = {"student": state, "teacher": new_state(model)}
        with pytest.raises(ValueError, match=r"entry=… with one of student, teacher"):
            load_pretrained(model, both)
        load_pretrained(model, both, entry="student", strict=True)
        assert_loaded(model, state, state)

    def test_shards(self, tmp_path):
        model, state = Net(), new_state(Net())
        keys = list(state)
        for number, part in enumerate((keys[:3], keys[3:])):
            safetensors.numpy.save_file({key: state[key] for key in part}, tmp_path / f"{number}.safetensors")
        weight_map = {key: f"{int(key not in keys[:3])}.safetensors" for key in keys}
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}, indent=2))
        report = load_pretrained(model, index, strict=True)
        assert "2 shards" in report.source
        assert_loaded(model, state, state)

    def test_bfloat16_both_ways(self, tmp_path):
        exact = np.float32([[1.5, -2.0], [0.25, 3.0]])
        model = nn.Linear(2, 2)
        model.weight.set_value(exact)
        half = copy.deepcopy(model).to(dtype="bfloat16")
        save_pretrained(half, tmp_path / "x.safetensors")
        other = nn.Linear(2, 2)
        report = load_pretrained(other, tmp_path / "x.safetensors", strict=True)
        np.testing.assert_array_equal(other.weight.numpy(), exact)
        assert report.converted == dict.fromkeys(("weight", "bias"), ("bfloat16", "float32"))
        assert "2 converted from bfloat16 to float32" in str(report)
        blank = nn.Linear(2, 2).to(dtype="bfloat16")
        load_pretrained(blank, {"weight": exact, "bias": np.zeros(2, "float32")})
        np.testing.assert_array_equal(blank.weight.astype("float32").numpy(), exact)
        paddle.save(half.state_dict(), str(tmp_path / "x.pdparams"))
        load_pretrained(other, tmp_path / "x.pdparams", strict=True)
        np.testing.assert_array_equal(other.weight.numpy(), exact)

    def test_rounding_to_bfloat16_is_to_nearest_even(self):
        """Against the two neighbours of each value; paddlepaddle 2.6 itself cuts off, 3.3 rounds like this."""
        array = np.concatenate([np.random.randn(1000), [0.0, -0.0, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8, -1e30]])
        array = array.astype("float32")
        below = (array.view(np.uint32) >> 16).astype(np.uint16)
        error = [np.abs(array - values_in(below + np.uint16(i), "bfloat16", "float32")) for i in (0, 1)]
        up = (error[1] < error[0]) | ((error[1] == error[0]) & (below % 2 == 1))
        np.testing.assert_array_equal(values_in(array, "float32", "bfloat16"), below + up)
        infinite = np.float32([np.inf, -np.inf])
        np.testing.assert_array_equal(
            values_in(values_in(infinite, "float32", "bfloat16"), "bfloat16", "float32"), infinite
        )
        assert np.isnan(values_in(values_in(np.float32([np.nan]), "float32", "bfloat16"), "bfloat16", "float32")).all()

    @pytest.mark.parametrize("in_place", [True, False], ids=["CPU", "as on a GPU"])
    def test_large_and_strided_and_scalar_arrays(self, monkeypatch, in_place):
        """More than one block of the copy, Fortran order, no axes, no elements."""
        if not in_place:
            monkeypatch.setattr(targets, "memory", lambda *_: None)
        model = nn.Layer()
        model.large = model.create_parameter([3000, 1000])
        model.scalar = model.create_parameter([])
        model.register_buffer("empty", paddle.zeros([0, 3]))
        state = {"large": np.asfortranarray(np.random.rand(3000, 1000).astype("float64")), "scalar": np.float32(7)}
        state["scalar"] = np.asarray(state["scalar"])
        state["empty"] = np.zeros([0, 3], "float32")
        load_pretrained(model, state, strict=True)
        np.testing.assert_array_equal(model.large.numpy(), state["large"].astype("float32"))
        assert float(model.scalar) == 7


class TestChoiceAndNames:
    def test_backbone_only_by_substring(self):
        model, state = Net(), new_state(Net())
        before = values(model)
        for include in (
            "*backbone*",
            re.compile(".*backbone.*"),
            lambda key: "backbone" in key,
            "backbone",
            ["backbone.*"],
        ):
            model.set_state_dict(before)
            report = load_pretrained(model, state, include=include)
            assert report.missing == ["head.weight", "head.bias"]
            assert report.excluded == ["head.weight", "head.bias"]
            assert_loaded(model, state, report.loaded)
            np.testing.assert_array_equal(model.head.weight.numpy(), before["head.weight"])

    def test_strict_does_not_mind_what_is_left_out(self):
        model, state = Net(), new_state(Net())
        load_pretrained(model, state, exclude="head", strict=True)
        load_pretrained(
            model,
            {f"net.{key}": value for key, value in state.items()},
            exclude="net.head",
            rename={"net": ""},
            strict=True,
        )
        del state["head.bias"]
        with pytest.raises(LoadError, match="1 missing"):
            load_pretrained(model, state, exclude="head.weight", strict=True)

    def test_classifier_prefix_stripped(self):
        model, state = nn.Linear(3, 2), new_state(nn.Linear(3, 2))
        renamed = {f"classifier.{key}": value for key, value in state.items()}
        for rename in (
            {"classifier.": ""},
            {"classifier": ""},
            {re.compile(r"^classifier\."): ""},
            lambda key: key[len("classifier.") :],
            [{"classifier": "x"}, {"x": ""}],
        ):
            report = load_pretrained(model, renamed, rename=rename, strict=True)
            assert report.renamed == {"weight": "classifier.weight", "bias": "classifier.bias"}
        assert_loaded(model, state, state)

    def test_a_prefix_ends_at_a_dot_and_the_longest_wins(self):
        keys = ["a.x", "ab.x", "a.b.x", "a"]
        renamed = matching.renamed(keys, {"a": "z", "a.b": "y"})
        assert renamed == {"a.x": "z.x", "ab.x": "ab.x", "a.b.x": "y.x", "a": "z"}
        assert matching.renamed(["x"], {"": "model"}) == {"x": "model.x"}

    def test_none_from_a_function_leaves_a_key_out(self):
        model, state = Net(), new_state(Net())
        report = load_pretrained(model, state, rename=lambda key: None if "head" in key else key, strict=True)
        assert report.excluded == report.missing == ["head.weight", "head.bias"]

    @pytest.mark.parametrize("wrapper", ["module.", "_layers.", "model.", "net.encoder."])
    def test_a_wrapper_is_proposed_when_nothing_matches(self, wrapper):
        model, before = Net(), values(Net())
        model.set_state_dict(before)
        state = new_state(model, wrapper)
        with pytest.raises(
            ValueError, match=re.escape(f"With rename={{{wrapper!r}: ''}} {len(state)} of {len(state)}")
        ):
            load_pretrained(model, state)
        assert_same(before, model)
        load_pretrained(model, state, rename={wrapper: ""}, strict=True)

    def test_a_missing_prefix_is_proposed(self):
        model = Net()
        state = {key[len("backbone.") :]: array for key, array in new_state(model).items() if "backbone" in key}
        with pytest.raises(ValueError, match=re.escape("rename={'': 'backbone.'}")):
            load_pretrained(model, state)

    def test_a_rename_for_the_rest_is_hinted_at(self):
        model, state = Net(), new_state(Net())
        state["fc.weight"], state["fc.bias"] = state.pop("head.weight"), state.pop("head.bias")
        report = load_pretrained(model, state)
        assert "rename={'fc.': 'head.'} would match 2 more keys" in report.notes

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"include": "bakbone"}, ValueError, r"include matches no key.*'bakbone'.*Did you mean 'backbone'"),
            ({"exclude": re.compile("x")}, ValueError, "exclude.*matches no key"),
            ({"include": 3}, TypeError, "include must be"),
            ({"include": [3]}, TypeError, "include must be"),
            ({"rename": {"hed": "x"}}, ValueError, r"rename fits no key.*'hed'.*Did you mean 'head'"),
            ({"rename": {re.compile("hed"): "x"}}, ValueError, "fits no key"),
            ({"rename": "head"}, TypeError, "rename must be"),
            ({"rename": {3: "x"}}, TypeError, "rename must be|key of rename"),
            ({"rename": lambda key: 3}, TypeError, "a name or None"),
            ({"rename": lambda key: "same"}, ValueError, "the same name 'same'"),
            ({"source": "troch"}, ValueError, r"unknown source 'troch'.*Did you mean 'torch'"),
            ({"layout": {"head": "same"}}, ValueError, "layout= is about torch's"),
            ({"source": "torch", "layout": {"head": "flipped"}}, ValueError, "unknown layout 'flipped'"),
            ({"source": "torch", "layout": {"tail": "same"}}, ValueError, "layout matches no parameter"),
            ({"exclude": "*"}, ValueError, "no key .* is left after include, exclude"),
        ],
    )
    def test_bad_options(self, options, error, message):
        model, state = Net(), new_state(Net())
        before = values(model)
        with pytest.raises(error, match=message):
            load_pretrained(model, state, **options)
        assert_same(before, model)

    @pytest.mark.parametrize("given", [3, None, [1]])
    def test_what_is_no_file(self, given):
        with pytest.raises(TypeError, match="a path or a dict"):
            load_pretrained(Net(), given)

    def test_what_is_not_there(self, tmp_path):
        save_pretrained(Net(), tmp_path / "weights.safetensors")
        with pytest.raises(FileNotFoundError, match=r"Did you mean 'weights\.safetensors'"):
            load_pretrained(Net(), tmp_path / "weigths.safetensors")
        with pytest.raises(TypeError, match="Layer"):
            load_pretrained({}, {})
        with pytest.raises(ValueError, match="holds no arrays"):
            load_pretrained(Net(), {"a": 3})


class TestReport:
    def test_mismatch_is_an_error_that_shows_both_shapes(self):
        model, state = Net(5), new_state(Net(2))
        before = values(model)
        with pytest.raises(LoadError, match=r"do not fit: head\.weight, head\.bias") as caught:
            load_pretrained(model, state)
        assert_same(before, model)
        assert caught.value.report.mismatched["head.weight"] == ((3, 2), (3, 5))
        assert "file [3, 2], model [3, 5]" in str(caught.value)

    def test_ignored_mismatch_leaves_the_head_as_initialised(self):
        model, state = Net(5), new_state(Net(2))
        before = values(model)
        report = load_pretrained(model, state, ignore_mismatched=True)
        assert list(report.mismatched) == ["head.weight", "head.bias"]
        assert_loaded(model, state, report.loaded)
        np.testing.assert_array_equal(model.head.weight.numpy(), before["head.weight"])
        assert "head.weight" not in loaded_names(model)

    def test_strict(self):
        model, state = Net(), new_state(Net())
        before = values(model)
        state["extra"] = np.zeros(3, "float32")
        del state["head.bias"]
        with pytest.raises(LoadError, match="1 missing, 1 unexpected, 0 mismatched") as caught:
            load_pretrained(model, state, strict=True)
        assert caught.value.report.missing == ["head.bias"]
        assert caught.value.report.unexpected == ["extra"]
        assert_same(before, model)
        assert loaded_names(model) == []

    def test_types_that_are_not_converted(self):
        model = nn.Linear(2, 2)
        state = {"weight": np.ones([2, 2], "int8"), "bias": np.ones(2, "float64")}
        with pytest.raises(LoadError, match="int8, model float32: not converted"):
            load_pretrained(model, state)
        report = load_pretrained(model, state, ignore_mismatched=True)
        assert report.loaded == ["bias"]
        assert report.converted == {"bias": ("float64", "float32")}

    def test_values_beyond_float16(self):
        model = nn.Linear(2, 2).to(dtype="float16")
        before = values(model)
        state = {"bias": np.float32([1, 2]), "weight": np.float32([[1, 2], [3, 1e5]])}
        with pytest.raises(LoadError, match=r"'weight' has values beyond float16"):
            load_pretrained(model, state)
        assert_same(before, model)
        state["weight"][1, 1] = np.inf
        load_pretrained(model, state)

    def test_convertible(self):
        allowed = [("float32", "bfloat16"), ("int32", "int64"), ("uint8", "uint16"), ("bool", "bool")]
        refused = [("int64", "int32"), ("float32", "int32"), ("uint16", "bfloat16"), ("F8_E4M3", "float32")]
        assert all(convertible(*pair) for pair in allowed)
        assert not any(convertible(*pair) for pair in refused)

    def test_shared_weights_count_once(self, tmp_path):
        def tied():
            model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
            model.add_sublayer("decoder", nn.Layer())
            model.decoder.weight = model[0].weight
            return model

        model, source = tied(), tied()
        path = save_pretrained(source, tmp_path)
        assert set(safetensors.numpy.load_file(path)) == {"0.weight", "1.weight", "1.bias"}
        report = load_pretrained(model, path, strict=True)
        assert report.loaded == ["0.weight", "1.weight", "1.bias"]
        assert report.shared == {"0.weight": ("0.weight", "decoder.weight")}
        assert "3 of 3 weights" in str(report)

        state = new_state(source)
        state["decoder.weight"] = state["0.weight"]
        load_pretrained(model, state, strict=True)
        only_second = {key: array for key, array in state.items() if key != "0.weight"}
        load_pretrained(model, only_second, strict=True)
        before = values(model)
        state["decoder.weight"] = state["0.weight"] + 1
        with pytest.raises(LoadError, match=r"'0\.weight' is one tensor.*'0\.weight' and decoder\.weight"):
            load_pretrained(model, state)
        assert_same(before, model)
        load_pretrained(model, state, exclude="decoder.weight")

    def test_lstm_counts_its_cells_weights_once(self, tmp_path):
        source, model = nn.LSTM(3, 4), nn.LSTM(3, 4)
        paddle.save(source.state_dict(), str(tmp_path / "x.pdparams"))
        report = load_pretrained(model, tmp_path / "x.pdparams", strict=True)
        assert len(report.loaded) == 4
        x = paddle.randn([2, 5, 3])
        np.testing.assert_array_equal(model(x)[0].numpy(), source(x)[0].numpy())

    def test_table_and_data(self):
        model, state = Net(5), new_state(Net(2), "net.")
        state["pooler.weight"] = np.zeros([3, 3], "float32")
        del state["net.backbone.0.bias"]
        report = load_pretrained(model, state, rename={"net": ""}, ignore_mismatched=True)
        lines = str(report).splitlines()
        assert lines[0].startswith("3 of 6 weights, 2 of 2 statistics loaded from a dict")
        statuses = [line.split()[0] for line in lines[3:] if line]
        assert statuses == ["mismatched"] * 2 + ["missing", "unexpected"] + ["loaded"] * 5
        assert report.to_dict()["rows"][0]["name"] == "backbone.0.weight"
        assert json.dumps(report.to_dict())

    def test_long_tables_are_cut_and_whole_on_request(self):
        model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
        report = load_pretrained(model, new_state(model))
        assert "… and 28 more loaded" in str(report)
        assert "19.bias" in report.table()


class TestWhatWasLoadedIsPretrained:
    def test_names(self):
        model, state = Net(), new_state(Net())
        report = load_pretrained(model, state, include="backbone")
        assert report.weights == ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"]
        assert loaded_names(model) == report.weights
        assert loaded_names(copy.deepcopy(model)) == report.weights
        load_pretrained(model, state, include="head.bias")
        assert loaded_names(model) == [*report.weights, "head.bias"]

    def test_l2sp_anchors_them(self):
        model = Net()
        report = load_pretrained(model, new_state(model), include="backbone")
        for pretrained in (report.loaded, report.weights, loaded_names(model)):
            run = hub.L2SPFinetuneStrategy(0.1, "sgd").bind(model, pretrained=pretrained)
            anchored = [row.name for row in run.describe() if row.regularizer.startswith("L2SP")]
            assert anchored == report.weights

    def test_loading_under_a_binding_warns(self):
        model = Net()
        run = hub.DefaultStrategy(0.1, "sgd").bind(model)
        with pytest.warns(UserWarning, match="load first, then bind"):
            load_pretrained(model, new_state(model))
        run.release()

    def test_parameters_stay_the_same_objects_with_their_settings(self):
        model = Net()
        before, model.head.weight.stop_gradient = list(model.parameters()), True
        load_pretrained(model, new_state(model))
        assert all(a is b for a, b in zip(before, model.parameters()))
        assert model.head.weight.stop_gradient


def test_a_model_in_data_parallel_is_looked_into():
    model, state = Net(), new_state(Net())
    load_pretrained(paddle.DataParallel(model), state, strict=True)
    assert_loaded(model, state, state)
    assert len(loaded_names(paddle.DataParallel(model))) == 6


def test_buffers():
    model = nn.Linear(2, 2)
    model.register_buffer("steps", paddle.to_tensor([3], "int64"))
    model.register_buffer("scratch", paddle.zeros([2]), persistable=False)
    state = {**new_state(nn.Linear(2, 2)), "steps": np.array([9], "int32")}
    report = load_pretrained(model, state, strict=True)
    assert model.steps.tolist() == [9]
    assert "scratch" not in report.missing
    assert "1 of 1 buffers" in str(report)
