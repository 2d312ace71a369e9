"""The experiments behind docs/effectiveness.md: their core on a made-up one, and documents that follow from results."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.evidence import core, docs, domains, retention
from benchmarks.evidence.__main__ import NAMES

SCORES = (
    core.Score("new", "new task", "新任务"),
    core.Score("updates", "updates", "更新次数", percent=False, digits=0),
)
SHOWN = docs.Shown(SCORES, {"better": "更好", "constant LR": "恒定学习率"})


def made_up(asked=None, **changes):
    """An experiment whose score on dev peaks at lr = 0.4 and λ = 1; the score on test is drawn after the seeding."""

    def run(gain):
        def scores(setting, seed, split):
            if asked is not None:
                asked.append((setting, seed, split))
            if setting.get("lr", 0) > 5:
                raise FloatingPointError("nan")
            peak = -abs(np.log(setting.get("lr", 0.4) / 0.4)) - abs(setting.get("λ", 1) - 1)
            drawn = np.random.rand() + paddle.rand([1]).item()
            return {"new": peak if split == "dev" else gain + drawn, "updates": 10 * gain}

        return scores

    rows = [
        core.Row("constant LR", run(0), {"lr": [0.1, 0.2]}),
        core.Row("better", run(1), {"lr": [0.2, 0.4, 0.8], "λ": [0.1, 1]}),
        core.Row("nothing to choose", run(0.5), {}, note="as it is"),
    ]
    facts = {"size": 3, **changes}
    return core.Experiment({"part": rows, "other": rows[:2]}, "new", choosing=2, seeds=4, facts=facts)


def results_of(experiment, path):
    return core.results(experiment, core.Done(path, experiment.digest), lambda jobs: map(experiment.run, jobs), False)


def lines_of(results, part="part"):
    return {line["name"]: line for line in results["parts"][part]}


class TestChoosing:
    def test_on_dev_with_seeds_of_their_own(self, tmp_path):
        asked = []
        results_of(made_up(asked), tmp_path / "done")
        dev = {seed for _, seed, split in asked if split == "dev"}
        assert dev == {core.CHOOSING_FROM, core.CHOOSING_FROM + 1}
        assert {seed for _, seed, split in asked if split == "test"} == set(range(4))
        assert len([1 for *_, split in asked if split == "test"]) == 5 * 4  # test is looked at once per seed and row

    def test_grid_grows_where_the_best_rate_stands_at_its_end(self, tmp_path):
        found = lines_of(results_of(made_up(), tmp_path / "done"))
        assert found["constant LR"]["setting"] == {"lr": 0.4}
        assert [one["setting"]["lr"] for one in found["constant LR"]["dev"]] == [0.1, 0.2, 0.4, 0.8]
        assert found["constant LR"]["at the end of its grid"] == []

    def test_other_keys_get_a_star_instead(self, tmp_path):
        found = lines_of(results_of(made_up(), tmp_path / "done"))
        assert found["better"]["setting"] == {"lr": 0.4, "λ": 1}
        assert found["better"]["at the end of its grid"] == ["λ"]
        assert len(found["better"]["dev"]) == 6

    def test_a_setting_that_does_not_train_is_never_chosen(self):
        tried = [({"lr": 1}, [{"new": 0.9}, {"seconds": 1}]), ({"lr": 2}, [{"new": 0.1}, {"new": 0.2}])]
        assert core.best_of(tried, "new") == {"lr": 2}
        with pytest.raises(ValueError, match="no setting .* 'new'"):
            core.best_of(tried[:1], "new")

    def test_the_grid_stops_growing(self):
        grid = {"lr": [1, 2]}
        for _ in range(3):
            grid = core.widened(grid, {"lr": grid["lr"][0]})
        assert grid == {"lr": [0.12, 0.25, 0.5, 1, 2]}
        assert core.widened({"lr": [1]}, {"lr": 1}) == {"lr": [1]}
        assert core.widened({"λ": [1, 2]}, {"λ": 1}) == {"λ": [1, 2]}


class TestRuns:
    def test_two_runs_are_equal_but_for_seconds(self, tmp_path):
        one, other = (results_of(made_up(), tmp_path / name) for name in "ab")
        for results in (one, other):
            for line in (line for lines in results["parts"].values() for line in lines):
                for key in ("scores", "mean", "difference"):
                    assert line[key].pop("seconds") is not None
        assert one == other
        assert len(set(lines_of(one)["better"]["scores"]["new"])) == 4

    @pytest.mark.parametrize("after", [0, 3, 30, 50])
    def test_killed_and_begun_again(self, tmp_path, after):
        whole, count, experiment = results_of(made_up(), tmp_path / "whole"), [], made_up()

        def dying(jobs):
            for job in jobs:
                if len(count) == after:
                    raise KeyboardInterrupt
                count.append(job)
                yield experiment.run(job)

        path = tmp_path / "done"
        with pytest.raises(KeyboardInterrupt):
            core.results(experiment, core.Done(path, experiment.digest), dying, False)
        with path.open("a") as file:
            file.write('{"digest": "half a li')
        rest = []
        again = results_of(made_up(rest), path)
        assert [line["scores"]["new"] for line in again["parts"]["part"]] == [
            line["scores"]["new"] for line in whole["parts"]["part"]
        ]
        assert len(rest) == 2 * (4 + 6) * 2 + 5 * 4 - after
        assert results_of(made_up(rest), path) == again  # nothing is left to do
        assert len(rest) == 60 - after

    def test_other_facts_are_run_anew(self, tmp_path):
        rest = []
        results_of(made_up(), tmp_path / "done")
        results_of(made_up(rest, size=4), tmp_path / "done")
        assert len(rest) == 60


class TestDocuments:
    def test_the_interval_is_scipys(self, tmp_path):
        found = lines_of(results_of(made_up(), tmp_path / "done"))
        mine, theirs = (found[name]["scores"]["new"] for name in ("better", "constant LR"))
        interval = stats.ttest_rel(mine, theirs).confidence_interval()
        difference, margin = found["better"]["difference"]["new"]
        assert (difference - margin, difference + margin) == pytest.approx((interval.low, interval.high))
        assert found["constant LR"]["difference"]["new"] == [0, 0]

    def test_tables_and_figures_follow_from_the_results(self):
        def line(name, mean, difference, end=()):
            scores = {"new": mean, "updates": 7.0}
            differences = {"new": difference, "updates": [0.0, 0.0]}
            return {
                **{"name": name, "setting": {"lr": 0.1}, "at the end of its grid": list(end)},
                **{"mean": scores, "difference": differences},
            }

        lines = [line("constant LR", 0.5, [0.0, 0.0]), line("better", 0.55, [0.05, 0.01], ["lr"])]
        results = {"parts": {"100 labels": [*lines, line("worse", 0.49, [-0.01, 0.02])]}}
        page = (
            "<!-- table: e | 100 labels -->\nold\n<!-- end of table -->\nIt is\n  "
            "<!-- e | 100 labels | better | new | difference -->?<!-- . -->, "
            "<!-- e | 100 labels | better | lr | setting -->?<!-- . -->, "
            "| <!-- e \\| 100 labels \\| better \\| new \\| mean -->?<!-- . --> |"
            "<!-- f | 100 labels | better | new | mean -->other's<!-- . -->.\n"
        )
        once = docs.filled(page, "e", results, SHOWN, "en")
        assert "| better | LR 0.1\\* | 55.0 | **+5.0 ± 1.0** | 7 | +0 ± 0 |" in once
        assert "| worse | LR 0.1 | 49.0 | −1.0 ± 2.0 | 7 | +0 ± 0 |" in once
        assert "| constant LR | LR 0.1 | 50.0 |  | 7 |  |" in once
        assert "\nIt is <!-- e | 100 labels | better | new | difference -->+5.0 ± 1.0<!-- . -->" in once
        assert "setting -->0.1<!-- . -->" in once
        assert "mean -->55.0<!-- . --> |" in once
        assert "-->other's<!-- . -->" in once
        assert "old" not in once
        assert docs.filled(once, "e", results, SHOWN, "en") == once
        assert "| 更好 | LR 0.1\\* | 55.0 |" in docs.filled(page, "e", results, SHOWN, "zh")
        with pytest.raises(KeyError, match="no row 'gone'"):
            docs.filled("<!-- e | 100 labels | gone | new | mean --><!-- . -->", "e", results, SHOWN, "en")

    @pytest.mark.parametrize("name", [name for name in NAMES if docs.path_of(name).exists()])
    def test_documents_are_up_to_date(self, name):
        """What the pages show is what the JSON says, and no name is translated that is not there."""
        results, shown = json.loads(docs.path_of(name).read_text("utf-8")), core.module_of(name).SHOWN
        for language, pages in docs.PAGES.items():
            for page in pages:
                text = page.read_text("utf-8")
                assert docs.filled(text, name, results, shown, language) == text, page
        lines = [line for lines in results["parts"].values() for line in lines]
        known = {
            *results["parts"],
            *(line["name"] for line in lines),
            *(key for line in lines for key in line["setting"]),
        }
        known |= {value for line in lines for value in line["setting"].values() if isinstance(value, str)}
        assert set(shown.chinese) - known == set()
        assert (docs.DOCS / "img" / f"evidence_{name}.png").exists() == (shown.draw is not None)


def test_json_of_results_can_be_read_back(tmp_path):
    results = results_of(made_up(), tmp_path / "done")
    assert json.loads(json.dumps(results)) == results


class TestOwnTexts:
    """The experiments on texts, with a user's own CSV file."""

    @pytest.fixture
    def options(self, tmp_path):
        drawn, lines = np.random.RandomState(0), ["text,label,group"]
        for group in "abcd":
            for number in range(120):
                word = drawn.choice(["good", "bad"])
                lines.append(f"{group} {word} {number} {group},{word},{group}")
        (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", "utf-8")
        return core.Options(quick=True, folder=tmp_path, csv=tmp_path / "own.csv", target="a")

    def test_every_row_of_retention(self, options, monkeypatch):
        monkeypatch.setattr(retention, "EPOCHS", {20: 2, 500: 2})
        monkeypatch.setattr(retention, "FULL", 20)
        experiment = retention.make(dataclasses.replace(options, quick=False))
        assert list(experiment.parts) == ["20 labels", "20 labels, frontier"]
        self.check(experiment, {"new", "old", "both"}, 13 + 9)

    def test_every_row_of_domains(self, options, monkeypatch):
        monkeypatch.setattr(domains, "EPOCHS", 2)
        experiment = domains.make(options)
        assert list(experiment.parts) == ["b + c"]
        self.check(experiment, {"inside", "outside"}, 10)

    def check(self, experiment, keys, number):
        rows = [(part, row) for part, rows in experiment.parts.items() for row in rows]
        assert len({row.name for _, row in rows}) == len(rows) == number
        for part, row in rows:
            job = core.Job(part, row.name, core.settings(row.grid)[0], 3, "test")
            found = experiment.run(job)
            assert found.keys() == {*keys, "seconds"}
            assert all(0 <= found[key] <= 1 for key in keys)
            if row.name in ("EWC", "soup of three LRs", "head carried over, WiSE-FT"):
                # Something was made at the first time and kept: that must not matter.
                again = experiment.run(job)
                assert {key: found[key] for key in keys} == {key: again[key] for key in keys}
        assert experiment.choose in experiment.run(dataclasses.replace(job, split="dev"))

    def test_what_is_refused(self, options, tmp_path):
        with pytest.raises(ValueError, match="--data, the folder of the reviews, or --csv"):
            retention.make(core.Options())
        with pytest.raises(ValueError, match="'z' is none of the groups"):
            retention.make(dataclasses.replace(options, target="z"))
        with pytest.raises(ValueError, match="it takes 100"):
            retention.make(options)
