"""The benchmark that compares strategies: its rows, its statistics, and that a break changes nothing."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn
from paddle.io import TensorDataset
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import effectiveness
import effectiveness_docs
from effectiveness_images import SmallResNet, image_task
from effectiveness_report import markdown
from effectiveness_rows import BASELINE, rows

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.tools.runs import (
    CHOOSE,
    FINAL,
    Budget,
    Line,
    Outcome,
    Records,
    best_rate,
    lines_of,
    paired,
    run_rows,
)

BUDGET = Budget(epochs=4, grid=(0.1, 0.2), choosing=(100,), seeds=(0, 1, 2))


class FiveLayers(nn.Layer):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))

    def forward(self, x):
        return self.layers(x)


def trained(row, lr=0.01, epochs=4):
    """A Learner after a row's training, and which of the five layers moved in each epoch."""
    x = paddle.randn([40, 4])
    learner = hub.Learner(FiveLayers(), TensorDataset([x, paddle.randint(0, 4, [40])]), batch_size=4, progress=False)
    moved, before = [], []

    class Watch(hub.Callback):
        def on_epoch_begin(self, learner):
            before[:] = [layer.weight.numpy() for layer in learner.model.layers]

        def on_epoch_end(self, learner):
            after = [layer.weight.numpy() for layer in learner.model.layers]
            moved.append([not np.array_equal(a, b) for a, b in zip(before, after)])

    learner.cbs = [Watch()]
    row.train(learner, lr, epochs)
    return learner, moved


TOP, TOP3, ALL = [False] * 4 + [True], [False] * 2 + [True] * 3, [True] * 5


class TestRows:
    @pytest.mark.parametrize("name", list(rows()))
    def test_every_row_takes_the_same_epochs(self, name):
        learner, _ = trained(rows()[name])
        assert len(learner.recorder.values) == 4
        assert len(learner.recorder.losses) == 40
        assert max(learner.recorder.lrs) <= 0.01 * (1 + 1e-9)

    @pytest.mark.parametrize(
        ("name", "first", "last"),
        [
            (BASELINE, 0.01, 0.01),
            ("warmup + linear to 0", 0.0, 0.01 / 40),
            ("warmup + linear to lr/32", 0.0, 0.01 * (1 / 32 + 31 / 32 / 40)),
            ("slanted triangle", 0.01 / 32, 0.01 * (1 + 31 / 36) / 32),
            ("ULMFiT", 0.01 / 32, 0.01 * (1 + 31 / 36) / 32),
            ("one-cycle", 0.01 / 25, None),
            ("from scratch", 0.01, 0.01),
        ],
    )
    def test_curves(self, name, first, last):
        lrs = trained(rows()[name])[0].recorder.lrs
        assert lrs[0] == pytest.approx(first)
        assert last is None or lrs[-1] == pytest.approx(last)

    @pytest.mark.parametrize(
        ("name", "moved"),
        [
            (BASELINE, [ALL] * 4),
            ("gradual unfreezing, 3 blocks", [TOP, TOP3, ALL, ALL]),
            ("ULMFiT", [TOP, TOP3, ALL, ALL]),
            ("triangle + unfreezing", [TOP, TOP3, ALL, ALL]),
            ("triangle + discriminative", [ALL] * 4),
            ("fine_tune", [TOP, ALL, ALL, ALL]),
        ],
    )
    def test_what_is_frozen(self, name, moved):
        assert trained(rows()[name])[1] == moved

    @pytest.mark.parametrize(
        ("name", "factors"),
        [
            (BASELINE, [1] * 5),
            ("discriminative, 3 blocks", [2.6**-2, 1 / 2.6, 1]),
            ("discriminative, 5 blocks", [2.6**-4, 2.6**-3, 2.6**-2, 1 / 2.6, 1]),
            ("ULMFiT", [2.6**-2, 1 / 2.6, 1]),
        ],
    )
    def test_factors(self, name, factors):
        assert trained(rows()[name])[0].run.block_factors == pytest.approx(factors)

    def test_the_issue_s_rows_are_there(self):
        wanted = ["constant", "warmup", "slanted", "discriminative", "gradual", "L2SP", "ULMFiT", "one-cycle", "fine_t"]
        assert all(any(name.startswith(start) for name in rows()) for start in [*wanted, "from scratch"])
        assert [name for name, row in rows().items() if not row.pretrained] == [
            "from scratch",
            "from scratch, one-cycle",
        ]


def records_of(path, digest="x"):
    return Records(path, dict.fromkeys(["a", "b", BASELINE], digest))


def pretended(row, lr, seed, final):
    """An outcome that depends on the arguments alone."""
    value = (hash((row, lr, seed)) % 1000) / 1000
    return Outcome(value, 1 - value, value if final else None, 0.5, 1.0)


class TestRuns:
    def test_the_best_rate_on_dev_is_run_with_other_seeds(self, tmp_path):
        asked = []

        def run(row, lr, seed, final):
            asked.append((row, lr, seed, final))
            return Outcome(lr if row == "a" else -lr, 1.0, 0.5 if final else None, 0.5, 1.0)

        chosen = run_rows(["a", "b"], BUDGET, records_of(tmp_path / "runs.jsonl"), run)
        assert chosen == {"a": 0.2, "b": 0.1}
        for row, lr in chosen.items():
            mine = [entry[1:] for entry in asked if entry[0] == row]
            assert mine == [(0.1, 100, False), (0.2, 100, False), *((lr, seed, True) for seed in (0, 1, 2))]

    @pytest.mark.parametrize("after", range(0, 11, 3))
    @pytest.mark.parametrize("torn", [b"", b'{"digest": "x", "row": "a", "lr": 0.'])
    def test_killed_and_begun_again(self, tmp_path, after, torn):
        names, path = [BASELINE, "b"], tmp_path / "runs.jsonl"
        whole = records_of(tmp_path / "whole.jsonl")
        chosen = run_rows(names, BUDGET, whole, pretended)
        expected = markdown(lines_of(whole.all(), chosen, BUDGET.grid))
        count = []

        def dying(*given):
            count.append(None)
            if len(count) > after:
                raise KeyboardInterrupt
            return pretended(*given)

        if after < 10:
            with pytest.raises(KeyboardInterrupt):
                run_rows(names, BUDGET, records_of(path), dying)
        with path.open("ab") as file:
            file.write(torn)
        count.clear()

        def counting(*given):
            count.append(None)
            return pretended(*given)

        records = records_of(path)
        chosen = run_rows(names, BUDGET, records, counting)
        assert markdown(lines_of(records.all(), chosen, BUDGET.grid)) == expected
        assert len(count) == (10 - after if after < 10 else 10)
        assert len(records_of(path).all()) == 10

    def test_other_settings_are_run_anew(self, tmp_path):
        path = tmp_path / "runs.jsonl"
        records_of(path).get("a", 0.1, 0, FINAL, lambda: pretended("a", 0.1, 0, True))
        assert records_of(path, "y").all() == []
        assert records_of(path).get("a", 0.1, 0, FINAL, pytest.fail)["peak_mb"] > 10
        records_of(path).get("a", 0.1, 0, CHOOSE, lambda: pretended("a", 0.1, 0, False))
        assert len(path.read_text("utf-8").splitlines()) == 2

    def test_of_equal_rates_the_lower_loss(self):
        entries = [
            {"lr": lr, "dev": dev, "dev_loss": loss} for lr, dev, loss in [(1, 0.9, 3), (1, 0.7, 1), (2, 0.8, 1.9)]
        ]
        assert best_rate(entries) == 2
        assert best_rate(entries[::-1]) == 2
        assert best_rate(entries[:2]) == 1


class TestReport:
    @given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=2, max_size=9))
    def test_the_interval_is_scipys(self, pairs):
        mine, theirs = np.array(pairs, float).T
        difference, margin = paired(mine, theirs)
        assert difference == pytest.approx(float((mine - theirs).mean()))
        if np.ptp(mine - theirs) == 0:
            assert margin == 0
            return
        interval = stats.ttest_rel(mine, theirs).confidence_interval()
        assert (difference - margin, difference + margin) == pytest.approx((interval.low, interval.high))

    def test_table(self):
        def entry(row, seed, test):
            return {"row": row, "lr": 0.2, "seed": seed, "stage": FINAL, "test": test, "seconds": 1.5}

        found = [entry(BASELINE, seed, test) for seed, test in enumerate((0.8, 0.7))]
        found += [entry("better", seed, test) for seed, test in enumerate((0.9, 0.8))]
        found += [entry("unclear", seed, test) for seed, test in enumerate((0.9, 0.7))]
        found += [{**entry(BASELINE, 0, 0.1), "lr": 0.1}, {**entry("better", 9, None), "stage": CHOOSE, "dev": 0.5}]
        lines = lines_of(found, {BASELINE: 0.2, "better": 0.2, "unclear": 0.2}, [0.1, 0.2])
        assert [line.dev for line in lines] == [{}, {"0.2": 0.5}, {}]
        assert [line.scores for line in lines] == [[0.8, 0.7], [0.9, 0.8], [0.9, 0.7]]
        assert markdown(lines).splitlines()[2:] == [
            "| constant LR | 0.2* | 75.00 ± 7.07 |  | 1.5 |",
            "| better | 0.2* | 85.00 ± 7.07 | **+10.00 ± 0.00** | 1.5 |",
            "| unclear | 0.2* | 80.00 ± 14.14 | +5.00 ± 63.53 | 1.5 |",
        ]


class TestDocuments:
    def test_every_row_has_a_chinese_name(self):
        assert set(effectiveness_docs.CHINESE.rows) == set(rows())

    def test_tables_go_between_their_marks(self):
        page = "a\n<!-- table: text -->\nold\n<!-- end of table -->\nb\n<!-- table: images -->\n<!-- end of table -->\n"
        line = Line(BASELINE, 0.1, {}, True, [0.5, 0.7], 0.6, 0.1, 0.0, 0.0, 2.0)
        results = {"environment": {}, "text": {"rows": [asdict(line)]}}
        once = effectiveness_docs.filled(page, results, effectiveness_docs.CHINESE)
        assert once.startswith("a\n<!-- table: text -->\n\n|  | 学习率 |")
        assert "\n| 恒定学习率 | 0.1* | 60.00 ± 10.00 |  | 2.0 |\n\n<!-- end of table -->\nb\n" in once
        assert "old" not in once
        assert effectiveness_docs.filled(once, results, effectiveness_docs.CHINESE) == once
        with pytest.raises(ValueError, match="no <!-- table: more -->"):
            effectiveness_docs.filled(page, {"more": {"rows": []}}, effectiveness_docs.CHINESE)


class TestImages:
    def test_five_layers(self):
        names = [unit.name for unit in find_units(SmallResNet(5), paddle.ones([1, 1, 8, 8]))]
        assert names == ["stem", "blocks.0", "blocks.1", "blocks.2", "head"]

    def test_same_seed_same_outcome(self, tmp_path):
        task = image_task(tmp_path, Budget(1, (3e-3,), (100,), (0,)), per_class=2, pretraining=1)
        row = rows()["ULMFiT"]
        one, other = (task.run(row, 3e-3, 0, True) for _ in range(2))
        assert (one.dev, one.dev_loss, one.test, one.train_loss) == (
            other.dev,
            other.dev_loss,
            other.test,
            other.train_loss,
        )
        assert task.run(row, 3e-3, 0, False).test is None
        positions = [set(part.texts) for part in (task.splits.train, task.splits.dev, task.splits.test)]
        assert sum(map(len, positions)) == len(set.union(*positions)) == 896

    def test_text_needs_its_folder(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["effectiveness.py"])
        with pytest.raises(SystemExit):
            effectiveness.main()
        assert "the text part needs --data-dir" in capsys.readouterr().err

    def test_report_files(self, tmp_path, monkeypatch, capsys):
        few = {name: row for name, row in rows().items() if name in (BASELINE, "ULMFiT")}
        monkeypatch.setattr(effectiveness, "rows", lambda: few)
        monkeypatch.setattr(effectiveness, "QUICK_IMAGES", Budget(1, (3e-3,), (100,), (0, 1)))
        monkeypatch.setattr(sys, "argv", ["e", "--parts", "images", "--quick", "--output", str(tmp_path)])
        effectiveness.main()
        report = json.loads((tmp_path / "effectiveness-quick.json").read_text("utf-8"))["images"]
        assert [row["name"] for row in report["rows"]] == list(few)
        assert [row["dev"].keys() for row in report["rows"]] == [{"0.003"}] * 2
        assert len((tmp_path / "runs.jsonl").read_text("utf-8").splitlines()) == 6
        assert 0 < report["peak memory, MB"] < 2048
        table = (tmp_path / "effectiveness-quick.md").read_text("utf-8")
        assert table.startswith("## images\n\n|  | LR |")
        assert (tmp_path / "effectiveness-quick.png").read_bytes()[:4] == b"\x89PNG"
