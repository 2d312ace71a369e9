"""The experiments on pictures: what their rows train, on which data, and that a seed decides everything."""

import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import paddle_ftstrat as hub
from benchmarks.evidence import characters, cost, docs, stability, surgical
from benchmarks.evidence.core import Job, Options
from benchmarks.evidence.digits import SmallResNet, splits
from paddle_ftstrat.param_attr.select import named_weights

EXPERIMENTS = {module.__name__.rpartition(".")[2]: module for module in (surgical, characters, stability, cost)}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: module.make(Options(quick=True, folder=folder)) for name, module in EXPERIMENTS.items()}


class TestData:
    def test_no_picture_is_in_two_splits(self):
        rows = np.concatenate([part.pictures.reshape(len(part.labels), 64) for part in splits().values()])
        assert len(rows) == 1797
        assert len({row.tobytes() for row in rows}) > 1790  # a few pictures of the set are equal

    @pytest.mark.parametrize("change", surgical.CHANGES)
    def test_changes_are_those_of_the_seed(self, change):
        data = splits()["dev"]
        one, again, other = (surgical.changed(data, change, seed) for seed in (1, 1, 2))
        assert one.pictures.dtype == np.float32
        assert np.array_equal(one.pictures, again.pictures)
        assert np.array_equal(one.pictures, other.pictures) == (change != "noise")
        assert np.array_equal(one.labels, data.labels) == (change != "other names")
        assert np.array_equal(one.pictures, data.pictures) == (change == "other names")

    def test_blur_is_the_mean_of_nine(self):
        pictures = np.zeros((1, 1, 8, 8), "float32")
        pictures[0, 0, 4, 4] = 81
        expected = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
        assert surgical.blurred(pictures, 0)[0, 0, 2:7, 2:7] == pytest.approx(expected)

    def test_lines_hold_their_digits_in_order(self):
        digits = splits()["dev"].of((3, 8))
        lines = characters.lines_of(digits, 5, 0)
        assert lines.pictures.shape == (5, 1, 8, 36)
        for picture, labels in zip(lines.pictures[:, 0], lines.labels):
            assert set(labels) <= {3, 8}
            ink = sorted(p.sum() for p in digits.pictures)
            assert 4 * ink[0] <= picture.sum() <= 4 * ink[-1]

    def test_few_are_balanced(self):
        assert np.bincount(splits()["train"].few(5, 3).labels).tolist() == [5] * 10


class TestRows:
    @pytest.mark.parametrize("way", surgical.WAYS)
    def test_what_trains(self, way):
        model, data = SmallResNet(10), splits()["train"].few(1, 0)
        before = {name: value.numpy() for name, value in named_weights(model).items()}
        learner = hub.Learner(model, data.dataset(), batch_size=10, progress=False)
        learner.fit(1, strategy=surgical.strategy_of(way, 0.01))
        moved = {
            name for name, value in named_weights(model).items() if not np.array_equal(value.numpy(), before[name])
        }
        head = {"head.weight", "head.bias"}
        expected = {
            "all layers": set(before),
            "head": head,
            "BitFit": head | {name for name in before if name.endswith("bias")},
            "first block": {name for name in before if name.startswith(("stem", "blocks.0"))},
            "middle block": {name for name in before if name.startswith("blocks.1")},
            "last block": {name for name in before if name.startswith("blocks.2")},
        }
        assert moved == expected[way]

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_same_seed_same_scores(self, quick, name):
        part, rows = next(iter(quick[name].parts.items()))
        row = rows[1]
        setting = {key: values[-1] for key, values in row.grid.items()}
        job = Job(part, row.name, setting, 3, "test")
        timed = ("seconds", "until", "megabytes")
        one, again = ({k: v for k, v in quick[name].run(job).items() if k not in timed} for _ in range(2))
        assert one == again

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_row_has_a_chinese_name_and_every_column_a_score(self, quick, name):
        shown = EXPERIMENTS[name].SHOWN
        for part, rows in quick[name].parts.items():
            latin = ("auto-RGN", "BitFit", "LP-FT")
            assert [row.name for row in rows if row.name not in shown.chinese and row.name not in latin] == []
            assert quick[name].choose in {score.key for score in shown.scores}, part

    def test_frozen_rows_and_body(self, quick):
        case = quick["characters"].parts["classifier, the new ones alone"]
        rows = {row.name: row for row in case}
        found = rows["the same, body frozen"].run({"lr": 1e-3}, 0, "test")
        assert set(found) == {"all", "old", "new", "updates"}
        assert found["updates"] == 20

    def test_parts_of_a_search(self, quick):
        rows = {row.name: row for row in quick["cost"].parts["instead of a search"]}
        found = rows["greedy soup"].run({}, 0, "dev")
        assert 0 <= found["accuracy"] <= 1
        assert found["seconds"] > 0


class TestReading:
    @pytest.mark.parametrize(
        ("one", "other", "apart"), [("", "012", 3), ("012", "012", 0), ("0123", "024", 2), ("31", "13", 2)]
    )
    def test_distance(self, one, other, apart):
        assert characters.distance(one, other) == characters.distance(other, one) == apart

    def test_repeats_and_blanks_are_dropped(self):
        class Fixed(paddle.nn.Layer):
            def forward(self, x):
                return paddle.nn.functional.one_hot(paddle.to_tensor([[0, 2, 2, 0, 2, 4, 4, 0]]), 5)

        lines = characters.Digits(np.zeros([1, 1, 8, 36], "float32"), np.array([[1, 1, 3, 0]]))
        assert characters.read(Fixed(), lines) == 0.75

    def test_ctc_is_the_sum_over_paths(self):
        logits = paddle.randn([1, 2, 3])
        p = paddle.nn.functional.softmax(logits).numpy()[0]
        # The one character 1 (class 2) in two places: "2 2", "2 blank", "blank 2".
        expected = -np.log(p[0, 2] * p[1, 2] + p[0, 2] * p[1, 0] + p[0, 0] * p[1, 2])
        assert characters.ctc(logits, paddle.to_tensor([[1]])).item() == pytest.approx(expected, rel=1e-5)


class TestDocuments:
    def test_one_score_of_every_part_and_a_ratio(self):
        def line(name, mean, difference, values):
            return {"name": name, "mean": {"accuracy": mean}, "difference": {"accuracy": difference}, "scores": values}

        first = line("all layers", 0.8, [0.0, 0.0], {"accuracy": [0.8, 0.8, 0.8]})
        other = line("head", 0.9, [0.1, 0.02], {"accuracy": [0.4, 0.8, 0.88]})
        results = {"parts": {"noise": [first, other], "blur": [first, line("head", 0.79, [-0.01, 0.02], {})]}}
        page = (
            "<!-- table: surgical | every part | accuracy -->\n<!-- end of table -->\n"
            "<!-- surgical | noise | head | accuracy | ratio -->?<!-- . -->"
        )
        made = docs.filled(page, "surgical", results, surgical.SHOWN, "zh")
        assert (
            "|  | 噪声 | 模糊 |\n|---|---|---|\n| 全部层 | 80.0 | 80.0 |\n| 输出层 | **+10.0 ± 2.0** | −1.0 ± 2.0 |\n"
            in made
        )
        assert made.endswith("ratio -->1.00<!-- . -->")
        assert docs.filled(made, "surgical", results, surgical.SHOWN, "zh") == made
