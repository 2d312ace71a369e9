"""What CONTRIBUTING promises to somebody who adds a thing: one function, row or class, and it works everywhere."""

import contextlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat import schedules
from paddle_ftstrat.acceleration import autograd, stands
from paddle_ftstrat.optim import averaging, perturbation, table
from paddle_ftstrat.tools import cli, lint

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def registries():
    """What a test enters is gone after it."""
    known = schedules.SCHEDULES, table.ROWS, lint.RULES, averaging.AVERAGES, perturbation.PERTURBATIONS, stands.STANDS
    with contextlib.ExitStack() as stack:
        for registry in known:
            stack.enter_context(mock.patch.dict(registry))
        yield


def data(n=16):
    x = paddle.randn([n, 3])
    return paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])


class TestASchedule:
    """One function; 8 updates of η·(1 − t/T)², or of a share of η to begin with."""

    EXPECTED = 0.5 * 0.1 * (1 - np.arange(8) / 8) ** 2

    @pytest.fixture
    def strategy(self):
        @schedules.register("parabola")
        def parabola(learning_rate, max_train_steps, share=1.0):
            """A parabola down to 0."""
            return schedules.Schedule(
                [(0, lambda t: share * learning_rate * (1 - t / max_train_steps) ** 2, "parabola")], end=max_train_steps
            )

        return hub.CombinedStrategy("sgd", 0.1, scheduler={"parabola": {"share": 0.5}})

    @pytest.fixture
    def file(self, strategy, tmp_path):
        strategy.to_yaml(tmp_path / "strategy.yaml")
        return tmp_path / "strategy.yaml"

    def test_in_a_loop_of_ones_own_from_yaml(self, file):
        run = hub.strategy_from_yaml(file).bind(nn.Linear(3, 2), max_train_steps=8)
        lrs = []
        for _ in range(8):
            lrs.append(run.optimizer.get_lr())
            run.model(paddle.ones([2, 3])).mean().backward()
            run.step()
        np.testing.assert_allclose(lrs, self.EXPECTED)

    def test_in_a_learner_and_in_a_phase(self, strategy):
        learner = hub.Learner(nn.Linear(3, 2), data(), batch_size=4, progress=False)
        learner.fit(2, strategy=strategy)
        np.testing.assert_allclose(learner.recorder.lrs, self.EXPECTED)
        phases = [hub.Phase(epochs=1, learning_rate=0.3), hub.Phase(learning_rate=0.1, scheduler={"parabola": {}})]
        learner.fit(3, strategy=hub.PhasedStrategy(phases, "sgd"))
        np.testing.assert_allclose(learner.recorder.lrs[-12:], [*[0.3] * 4, *self.EXPECTED * 2])

    def test_in_explain_plot_and_list(self, file, tmp_path, capsys):
        assert cli.main(["explain", str(file), "--steps", "8"]) == 0
        assert "parabola 0.05 →" in capsys.readouterr().out
        assert cli.main(["plot", str(file), "--steps", "8", "-o", str(tmp_path / "plan.png")]) == 0
        assert (tmp_path / "plan.png").stat().st_size > 5000
        cli.main(["list"])
        assert "A parabola down to 0." in capsys.readouterr().out

    def test_its_options_are_checked(self, strategy):
        with pytest.raises(ValueError, match="'shares'. Did you mean 'share'"):
            strategy.add_scheduler("parabola", shares=2)


class SignSGD(hub.optim.CustomOptimizer):
    """p ← p − lr·sign(g)."""

    def _append_optimize_op(self, block, param_and_grad):
        param, grad = param_and_grad
        param.subtract_(paddle.sign(grad) * self._create_param_lr(param_and_grad))


@pytest.mark.parametrize("decay", [None, 0.5])
def test_an_optimizer_is_a_row(decay, capsys):
    table.ROWS["signsgd"] = table.OptimizerRow("signsgd", SignSGD, aliases=("sign",))
    model = nn.Linear(2, 1)
    before = model.weight.numpy()
    strategy = hub.CombinedStrategy(
        "signsgd",
        0.1,
        scheduler={"layer_decay": 0.5},
        regularization=None if decay is None else {"weight_decay": decay},
    )
    run = hub.strategy_from_yaml(strategy.to_yaml()).bind(model)
    (3 * model.weight).sum().backward()
    run.step()
    np.testing.assert_allclose(model.weight.numpy(), (before - 0.1) * (1 - 0.1 * (decay or 0)), rtol=1e-6)
    cli.main(["list"])
    assert "SignSGD" in capsys.readouterr().out


class TestAnAverageAndAPerturbation:
    """One class each: the mean of the last two weights; gradients at weights that are moved by 1."""

    @pytest.fixture
    def strategy(self):
        @averaging.register("last_two")
        @dataclass(frozen=True)
        class LastTwo(averaging.Average):
            """The mean of the latest weights and of what was kept."""

            latest: float = 0.5

            def share(self, count, update, steps):
                return self.latest if count else 1.0

            def begins(self, steps):
                return 2

        @perturbation.register("ahead")
        @dataclass(frozen=True)
        class Ahead(perturbation.Perturbation):
            """The gradient where every weight is 1 larger."""

            def passes(self, moved, params):
                with perturbation.kept(moved):
                    perturbation.taken(params)
                    for weight in moved:
                        perturbation.shift(weight, 1.0, paddle.ones_like(weight))
                    yield

        return hub.CombinedStrategy("sgd", 0.1, averaging={"last_two": 0.25}, perturbation={"ahead": None})

    def test_in_a_loop_of_ones_own_from_yaml(self, strategy):
        run = hub.strategy_from_yaml(strategy.to_yaml()).bind(nn.Linear(3, 1))
        w, kept = run.model.weight.numpy(), None
        for _ in range(5):
            for loss in run.losses(lambda: (run.model.weight**2).sum() / 2):
                loss.backward()
            run.step()
            w = w - 0.1 * (w + 1)
            kept = w if kept is None else 0.75 * kept + 0.25 * w
            np.testing.assert_allclose(run.model.weight.numpy(), w, rtol=1e-6)
        with run.averaged():
            np.testing.assert_allclose(run.model.weight.numpy(), kept, rtol=1e-5)

    def test_in_a_learner(self, strategy):
        learner = hub.Learner(nn.Linear(3, 2), data(), data(), batch_size=4, progress=False)
        learner.fit(2, strategy=strategy)
        assert learner.run.average.count == 8

    def test_in_describe_explain_plot_and_list(self, strategy, tmp_path, capsys):
        assert "averaging last_two latest 0.25" in str(strategy.bind(nn.Linear(3, 2)).describe())
        strategy.to_yaml(tmp_path / "strategy.yaml")
        arguments = [str(tmp_path / "strategy.yaml"), "--steps", "8"]
        assert cli.main(["explain", *arguments]) == 0
        told = capsys.readouterr().out
        assert "last_two latest 0.25: The mean of the latest weights" in told
        assert "ahead: The gradient where every weight is 1 larger." in told
        assert cli.main(["plot", *arguments, "-o", str(tmp_path / "plan.png")]) == 0
        cli.main(["list"])
        told = capsys.readouterr().out
        assert "The mean of the latest weights" in told
        assert "The gradient where every weight is 1 larger." in told


class TowardsOne(paddle.regularizer.WeightDecayRegularizer):
    """gradient += λ·(w − 1)."""

    def __call__(self, param, grad, block):
        return 0.5 * (param - 1)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_regularizer_is_a_class(optimizer, fused):
    model = nn.Linear(2, 1, weight_attr=paddle.ParamAttr(regularizer=TowardsOne()))
    start, bias = model.weight.numpy(), model.bias.numpy()
    # Its own regularizer beats the strategy's L2 and the decay, which the bias has.
    strategy = hub.CombinedStrategy(optimizer, 0.1, regularization={"L2": 0.2, "weight_decay": 0.3})
    run = strategy.bind(model, fused=fused, no_decay=[])
    (3 * model.weight + 3 * model.bias).sum().backward()
    run.step()
    np.testing.assert_allclose(model.weight.numpy(), start - 0.1 * (3 + 0.5 * (start - 1)), rtol=1e-6)
    np.testing.assert_allclose(model.bias.numpy(), (bias - 0.1 * (6 + 0.2 * bias)) * 0.97, rtol=1e-6)
    assert "TowardsOne" in str(run.describe())


class Silu(paddle.autograd.PyLayer):
    """y = x·σ(x)."""

    @staticmethod
    def forward(ctx, x):
        autograd.save(ctx, x)
        return x * nn.functional.sigmoid(x)

    @staticmethod
    def backward(ctx, dy):
        autograd.first_order()
        (x,) = autograd.saved(ctx)
        s = nn.functional.sigmoid(x)
        return dy * (s + x * s * (1 - s))


def test_a_faster_forward_is_a_function(monkeypatch):
    @stands.stands_for(nn.Silu)
    def silu(self, x):
        return autograd.applied(Silu, x) if stands.fits(self, x) else type(self).forward(self, x)

    monkeypatch.setattr(stands, "LEAST", 0)
    x, found = paddle.randn([4, 3]), []
    for accelerate in (False, True):
        model, x.stop_gradient = nn.Sequential(nn.Silu(), nn.Linear(3, 2)), False
        run = hub.DefaultFinetuneStrategy(learning_rate=0.1).bind(model, accelerate=accelerate)
        assert ("1 Silu" in str(run.describe())) == accelerate
        output = model[0](x)
        output.square().sum().backward()
        found.append((output.numpy(), x.grad.numpy()))
        x.clear_gradient()
        run.release()
        assert "forward" not in vars(model[0])
    for plain, fast in zip(*found):
        np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-6)


def test_a_lint_rule_is_a_function(tmp_path, capsys):
    @lint.rule("odd-length")
    def odd_length(outline):
        if outline.steps % 2:
            yield f"{outline.steps} updates are an odd number"

    path = tmp_path / "strategy.yaml"
    hub.DefaultStrategy().to_yaml(path)
    assert cli.main(["explain", str(path), "--steps", "7", "--strict"]) == 1
    assert "7 updates are an odd number" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["explain", str(path), "--steps", "8", "--strict"]) == 0


class CountTask(hub.finetune.task.BaseTask):
    """Predicts counts: Poisson likelihood of the exponential of the model's output."""

    default_metrics = ("spearman",)
    kind = "values"

    def _loss(self, output, label):
        return (paddle.exp(output) - label.reshape(output.shape) * output).mean()

    def _results(self, output, names):
        return np.exp(output.numpy()).reshape(-1).tolist()


def test_a_task_is_a_short_class(tmp_path):
    assert len(inspect.getsource(CountTask).splitlines()) <= 25
    paddle.seed(0)
    x = paddle.randn([64, 3])
    pairs = paddle.io.TensorDataset([x, (20 * paddle.exp(x.sum(-1))).round()])
    config = hub.RunConfig(num_epoch=20, batch_size=16, checkpoint_dir=tmp_path, strategy=hub.OneCycleStrategy(0.3))
    task = CountTask(nn.Linear(3, 1), {"train": pairs, "dev": pairs}, config, verbose=False)
    scores = task.finetune_and_eval()
    assert scores["spearman"] > 0.9
    assert task.best_score > 0.9
    counts = task.predict(pairs, return_result=True)
    assert len(counts) == 64
    assert min(counts) > 0


def test_what_contributing_points_to_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:paddle_ftstrat|tests|benchmarks|docs|\.ci)/[\w./]*)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
