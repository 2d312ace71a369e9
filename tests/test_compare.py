"""`compare`: the same seeds for all, an LR for each, and a break that changes nothing."""

import contextlib
import json

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset
from scipy import stats

import paddle_ftstrat as hub
from paddle_ftstrat.tools import cli
from paddle_ftstrat.tools.compare import CHOOSING_FROM
from paddle_ftstrat.tools.runs import student

STRATEGIES = {"constant": hub.DefaultStrategy(), "one-cycle": hub.OneCycleStrategy(0.1)}
SCRIPT = """
import paddle, paddle_ftstrat as hub
from paddle.io import TensorDataset

one_cycle = hub.OneCycleStrategy(0.1)

def make_learner(seed):
    x = paddle.randn([48, 4])
    pairs = TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
    return hub.Learner(paddle.nn.Linear(4, 2), pairs, pairs, metrics="acc", batch_size=16), pairs
"""


class Watch(hub.Callback):
    """What each run was given: its first weights, its batches, a draw of Paddle's generator in the fit."""

    def __init__(self):
        self.seen = []

    def on_fit_begin(self, learner):
        self.seen.append((learner.model[0].weight.numpy().tolist(), [], learner.run.plan.lr(0)))

    def on_after_loss(self, learner, batch, output, loss):
        if learner.model.training:
            self.seen[-1][1].append(batch[0].numpy().tolist())


def maker(watch=None, test=False, **options):
    """A `make_learner` for a tiny task whose data depend on the seed; `made` lists its seeds."""

    def make_learner(seed):
        make_learner.made.append(seed)
        x = paddle.randn([48, 4])
        pairs = TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        cbs = [watch] if watch else []
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        learner = hub.Learner(model, pairs, pairs, **{"metrics": "acc", "batch_size": 16, "cbs": cbs, **options})
        return (learner, pairs) if test else learner

    make_learner.made = []
    return make_learner


def test_runs_of_a_seed_differ_in_the_strategy_alone():
    watch = Watch()
    make = maker(watch)
    found = hub.compare(STRATEGIES, make, 2, seeds=2, lrs=[0.01, 0.1], choosing=2, progress=False)
    choosing = [CHOOSING_FROM, CHOOSING_FROM + 1] * 2
    assert make.made == [0, *[*choosing, 0, 1] * 2]
    one, other = watch.seen[:6], watch.seen[6:]
    for mine, theirs in zip(one[-2:], other[-2:]):
        assert mine[:2] == theirs[:2]
        assert len(mine[1]) == 6
    assert one[-1][0] != one[-2][0]
    assert {lr for _, _, lr in one} == {0.01, 0.1}
    for line in found.lines:
        assert line.lr in (0.01, 0.1)
        assert line.edge
        assert set(line.dev) == {"0.01", "0.1"}
        assert line.dev[f"{line.lr:g}"] == max(line.dev.values())
    assert (found.metric, found.mode, found.scored) == ("acc", "max", "valid")
    differences = np.subtract(found.lines[1].scores, found.lines[0].scores)
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found.lines[1].difference == pytest.approx(differences.mean())
    if np.ptp(differences):
        assert found.lines[1].margin == pytest.approx((interval.high - interval.low) / 2)


def test_a_strategys_own_rate_and_test_data():
    watch = Watch()
    lower = hub.DefaultStrategy(0.02)
    found = hub.compare([lower, hub.DefaultStrategy(0.3)], maker(watch, test=True), 1, seeds=2, metric="loss")
    assert [lr for *_, lr in watch.seen] == [0.02, 0.02, 0.3, 0.3]
    assert [line.name for line in found.lines] == ["DefaultStrategy", "DefaultStrategy 2"]
    assert [line.lr for line in found.lines] == [None, None]
    assert (found.mode, found.scored) == ("min", "test")
    assert found.verdict(found.lines[0]) == ""
    assert found.verdict(found.lines[1]) in ("", "better", "worse")
    assert "seconds" in str(found)


def test_functions_and_phases():
    phases = [hub.Phase("all", epochs=1, learning_rate=0.1), hub.Phase("all", learning_rate=0.1)]
    phased = hub.PhasedStrategy(phases, "sgd")
    with pytest.raises(ValueError, match=r"'PhasedStrategy'.*give a function"):
        hub.compare([phased], maker(), 2, lrs=[0.1])
    watch = Watch()
    ours = {"a": lambda lr: hub.PhasedStrategy([hub.Phase(epochs=1, learning_rate=lr), hub.Phase()], "sgd")}
    hub.compare({**ours, "b": hub.LPFTStrategy(0.3, 0.1)}, maker(watch), 2, seeds=1, lrs=[0.05], progress=False)
    assert [lr for *_, lr in watch.seen] == [0.05, 0.05, 0.3, 0.3]
    with pytest.raises(ValueError, match=r"'a' is a function of the learning rate: give lrs="):
        hub.compare(ours, maker(), 1)


def test_averages_are_scored(monkeypatch):
    inside = []

    @contextlib.contextmanager
    def averaged(run):
        kept = run.model[1].bias.numpy()
        run.model[1].bias.set_value(np.float32([1e3, -1e3]))
        yield
        run.model[1].bias.set_value(kept)
        inside.append(type(run.optimizer).__name__)

    monkeypatch.setattr(hub.Binding, "averaged", averaged, raising=False)
    free = hub.DefaultStrategy(0.1, "schedule_free_sgd")
    found = hub.compare({"free": free}, maker(test=True), 1, seeds=1, metric="loss", progress=False)
    assert found.lines[0].scores[0] > 10
    assert inside[-1] == "ScheduleFreeSGD"


def test_an_lr_whose_loss_is_not_finite_is_not_chosen():
    class Explodes(nn.Layer):
        def __init__(self):
            super().__init__()
            self.weight = self.create_parameter([4, 1])

        def forward(self, x):
            return paddle.matmul(x, self.weight) ** 5

    def make_learner(seed):
        pairs = TensorDataset([paddle.randn([16, 4]), paddle.zeros([16, 1])])
        return hub.Learner(Explodes(), pairs, pairs, batch_size=8)

    strategy = hub.DefaultStrategy(optimizer_name="sgd")
    found = hub.compare([strategy], make_learner, 3, seeds=1, lrs=[1e-4, 1e6], progress=False)
    assert found.lines[0].lr == 1e-4
    assert found.metric == "loss"
    with pytest.raises(ValueError, match=r"not finite with any of the learning rates \[1000000.0\]"):
        hub.compare([strategy], make_learner, 3, lrs=[1e6], progress=False)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_killed_and_begun_again(tmp_path, after):
    whole = hub.compare(STRATEGIES, maker(), 1, seeds=2, lrs=[0.01, 0.1], progress=False)
    path, calls = tmp_path / "runs.jsonl", []

    def make_learner(seed):
        calls.append(seed)
        if len(calls) == after + 2:
            raise KeyboardInterrupt
        return maker()(seed)

    with pytest.raises(KeyboardInterrupt):
        hub.compare(STRATEGIES, make_learner, 1, seeds=2, lrs=[0.01, 0.1], path=path, progress=False)
    path.write_text(path.read_text() + '{"row": "const') if after else None
    again = hub.compare(STRATEGIES, make_learner, 1, seeds=2, lrs=[0.01, 0.1], path=path, progress=False)
    assert len(calls) == 8 + 3
    for mine, theirs in zip(again.to_dict()["rows"], whole.to_dict()["rows"]):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    # More seeds, and one strategy more: what was run stays.
    more = {**STRATEGIES, "lower": hub.DefaultStrategy(optimizer_name="sgd")}
    hub.compare(more, make_learner, 1, seeds=3, lrs=[0.01, 0.1], path=path, progress=False)
    assert len(calls) == 11 + 1 + 2 + 5
    hub.compare(STRATEGIES, make_learner, 2, seeds=2, lrs=[0.01, 0.1], path=path, progress=False)
    assert len(calls) == 19 + 9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"strategies": []}, ValueError, "no strategy"),
        ({"strategies": ["adam"]}, TypeError, "'str' is neither a strategy nor a function"),
        ({"strategies": {"a": lambda lr: lr}}, TypeError, "'a' must return a strategy"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"seeds": 0}, ValueError, "seeds"),
        ({"choosing": 0}, ValueError, "choosing"),
        ({"lrs": [0.1, -1]}, ValueError, r"lrs\[1\]"),
        ({"metric": "accc"}, ValueError, "'accc'. Did you mean 'acc'"),
        ({"make_learner": lambda seed: 3}, TypeError, "must return a Learner"),
    ],
)
def test_refused_before_the_first_run(change, error, message):
    given = {"strategies": STRATEGIES, "make_learner": maker(), "epochs": 1, "lrs": [0.1], **change}
    with pytest.raises(error, match=message):
        hub.compare(**given)


def test_without_validation_data_and_with_checkpoints(tmp_path):
    pairs = TensorDataset([paddle.randn([8, 4]), paddle.zeros([8], "int64")])
    with pytest.raises(ValueError, match="without validation data"):
        hub.compare(STRATEGIES, lambda seed: hub.Learner(nn.Linear(4, 2), pairs), 1)
    with pytest.raises(ValueError, match="checkpoints"):
        hub.compare(STRATEGIES, maker(checkpoints=tmp_path), 1)


@pytest.mark.parametrize("freedom", [*range(1, 12), 29, 30, 99])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_students_quantile(freedom, level):
    assert student(level, freedom) == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=1e-9)


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "study.py").write_text(SCRIPT)
        hub.DefaultStrategy().to_yaml(tmp_path / "constant.yaml")
        return tmp_path

    def arguments(self, *more):
        targets = ["study.py:make_learner", "constant.yaml", "study.py:one_cycle"]
        return ["compare", *targets, "--epochs", "1", "--seeds", "2", "--lr", "0.01", "--lr", "0.1", *more]

    def test_table_picture_and_data(self, folder, capsys):
        assert cli.main(self.arguments("-o", "out")) == 0
        shown = capsys.readouterr().out
        assert "against 'constant'" in shown
        assert "one_cycle" in shown
        written = json.loads((folder / "out" / "comparison.json").read_text())
        assert [row["name"] for row in written["rows"]] == ["constant", "one_cycle"]
        assert written["scored"] == "test"
        assert (folder / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
        runs = (folder / "out" / "runs.jsonl").read_text()
        assert len(runs.splitlines()) == 8
        assert cli.main(self.arguments("-o", "out")) == 0
        assert (folder / "out" / "runs.jsonl").read_text() == runs
        assert capsys.readouterr().out == shown

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("study.py:make_learner", "study.py:make_lerner"), "Did you mean 'make_learner'"),
            (("study.py:make_learner", "study.py:hub"), "is no function"),
            (("constant.yaml", "study.py:one_cycle"), "go by the same name"),
            (("constant.yaml", "constnt.yaml"), "constnt.yaml"),
        ],
    )
    def test_refused(self, folder, capsys, change, message):
        given = [change[1] if one == change[0] else one for one in self.arguments()]
        assert cli.main(given) == 2
        assert message in capsys.readouterr().err
