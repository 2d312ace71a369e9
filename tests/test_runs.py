"""Runs that are compared: an LR chosen on dev, other seeds that count, breaks that change nothing, paired intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paddle_ftstrat.tools.runs import (
    CHOOSE,
    FINAL,
    Budget,
    Outcome,
    Records,
    best_rate,
    lines_of,
    paired,
    run_rows,
)

BASELINE = "constant LR"
BUDGET = Budget(epochs=4, grid=(0.1, 0.2), choosing=(100,), seeds=(0, 1, 2))


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
        expected = lines_of(whole.all(), chosen, BUDGET.grid)
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
        assert lines_of(records.all(), chosen, BUDGET.grid) == expected
        assert len(count) == (10 - after if after < 10 else 10)
        assert len(records_of(path).all()) == 10

    def test_other_settings_are_run_anew(self, tmp_path):
        path = tmp_path / "runs.jsonl"
        records_of(path).get("a", 0.1, 0, FINAL, lambda: pretended("a", 0.1, 0, True))
        assert records_of(path, "y").all() == []
        assert records_of(path).get("a", 0.1, 0, FINAL, pytest.fail)["train_loss"] == 0.5
        records_of(path).get("a", 0.1, 0, CHOOSE, lambda: pretended("a", 0.1, 0, False))
        assert len(path.read_text("utf-8").splitlines()) == 2

    def test_of_equal_rates_the_lower_loss(self):
        entries = [
            {"lr": lr, "dev": dev, "dev_loss": loss} for lr, dev, loss in [(1, 0.9, 3), (1, 0.7, 1), (2, 0.8, 1.9)]
        ]
        assert best_rate(entries) == 2
        assert best_rate(entries[::-1]) == 2
        assert best_rate(entries[:2]) == 1


class TestLines:
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

    def test_lines(self):
        def entry(row, seed, test):
            return {"row": row, "lr": 0.2, "seed": seed, "stage": FINAL, "test": test, "seconds": 1.5}

        found = [entry(BASELINE, seed, test) for seed, test in enumerate((0.8, 0.7))]
        found += [entry("better", seed, test) for seed, test in enumerate((0.9, 0.8))]
        found += [entry("unclear", seed, test) for seed, test in enumerate((0.9, 0.7))]
        found += [{**entry(BASELINE, 0, 0.1), "lr": 0.1}, {**entry("better", 9, None), "stage": CHOOSE, "dev": 0.5}]
        lines = lines_of(found, {BASELINE: 0.2, "better": 0.2, "unclear": 0.2}, [0.1, 0.2])
        assert [line.dev for line in lines] == [{}, {"0.2": 0.5}, {}]
        assert [line.scores for line in lines] == [[0.8, 0.7], [0.9, 0.8], [0.9, 0.7]]
        assert [line.edge for line in lines] == [True] * 3
        assert [(line.mean, line.difference) for line in lines] == [
            pytest.approx(pair) for pair in ((0.75, 0), (0.85, 0.1), (0.8, 0.05))
        ]
        assert [line.margin for line in lines] == pytest.approx([0, 0, 12.7062 * 0.05], abs=1e-4)
        assert {line.seconds for line in lines} == {1.5}
