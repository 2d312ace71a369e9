"""Search spaces of strategies, and Optuna's pruners over a fit: with Optuna where it is installed, else a stand-in."""

import importlib.util
import sys
from types import ModuleType

import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub

RATE = {"learning_rate": (1e-4, 1e-2, True)}
ONE_CYCLE = {"lr_max": (1e-4, 1e-2, True), "div": (6.25, 100, True), "pct_start": (0.05, 0.9, False)}
DICTS = {
    "scheduler": {"warmup": 0.1, "linear_decay": {"start_point": 0.2}, "layer_decay": {"decay": 0.8}},
    "regularization": {"L2": 0.01, "L2SP": 0.0},
    "clip": {"Norm": 1.0},
}
PHASES = [
    hub.Phase("head", epochs=1, learning_rate=1e-3),
    hub.Phase(scheduler={"slanted_triangle": {"cut_fraction": 0.1}}),
]
SPACES = [
    (hub.DefaultStrategy(1e-3), RATE),
    (hub.DefaultStrategy(1e-3, "adamw", weight_decay=0.1), {**RATE, "weight_decay": (0.01, 1, True)}),
    (
        hub.CombinedStrategy(learning_rate=1e-3, **DICTS),
        {
            **RATE,
            "scheduler.warmup": (0, 0.3, False),
            "scheduler.linear_decay.start_point": (0, 0.9, False),
            "scheduler.layer_decay.decay": (0.5, 1, False),
            "regularization.L2": (1e-3, 0.1, True),
            "clip.Norm": (0.1, 10, True),
        },
    ),
    (
        hub.AdamWeightDecayStrategy(1e-3, warmup_proportion=0.4),
        {**RATE, "warmup_proportion": (0, 0.4, False), "weight_decay": (1e-3, 0.1, True)},
    ),
    (hub.CombinedStrategy(learning_rate=1e-3, averaging={"EMA": {"decay": 0.999}}), RATE),
    (hub.DefaultFinetuneStrategy(1e-3), {**RATE, "regularization_coeff": (1e-4, 1e-2, True)}),
    (hub.L2SPFinetuneStrategy(1e-3), {**RATE, "regularization_coeff": (1e-4, 1e-2, True)}),
    (
        hub.ULMFiTStrategy(1e-3),
        {**RATE, "cut_fraction": (0.02, 0.4, False), "ratio": (8, 128, True), "factor": (1, 5, False)},
    ),
    (hub.ULMFiTStrategy(1e-3, cut_fraction=0, dis_blocks=0), RATE),
    (hub.OneCycleStrategy(1e-3), ONE_CYCLE),
    (hub.OneCycleStrategy(slice(1e-4, 1e-3)), {"div": ONE_CYCLE["div"], "pct_start": ONE_CYCLE["pct_start"]}),
    (hub.FlatCosStrategy(1e-3), {**RATE, "pct_start": (0.05, 0.9, False)}),
    (hub.SGDRStrategy(1e-3, 2, 1), {"lr_max": (1e-4, 1e-2, True)}),
    (
        hub.FineTuneStrategy(1e-3),
        {
            "base_lr": (1e-4, 1e-2, True),
            "lr_mult": (10, 1000, True),
            "pct_start": (0.05, 0.9, False),
            "div": (1.25, 20, True),
        },
    ),
    (hub.LPFTStrategy(0.01, 1e-3), {"head_learning_rate": (1e-3, 0.1, True), **RATE}),
    (
        hub.PhasedStrategy(PHASES, learning_rate=1e-3),
        {
            "phases.0.learning_rate": (1e-4, 1e-2, True),
            "phases.1.scheduler.slanted_triangle.cut_fraction": (0.02, 0.4, False),
            **RATE,
        },
    ),
]


@pytest.mark.parametrize(("strategy", "expected"), SPACES, ids=lambda one: getattr(type(one), "__name__", ""))
def test_what_each_strategy_has_to_look_for(strategy, expected):
    space = strategy.suggest_space()
    found = {path: (one.low, one.high, one.log) for path, one in space.items()}
    assert found.keys() == expected.keys()
    for path, wanted in expected.items():
        assert found[path] == pytest.approx(wanted)
    for end in ("low", "high"):
        made = space.at({path: getattr(one, end) for path, one in space.items()})
        assert type(made) is type(strategy)
        again = made.suggest_space()
        assert set(again) <= set(space)


def test_every_strategy_is_there():
    assert {type(strategy).__name__ for strategy, _ in SPACES} == {n for n in hub.__all__ if n.endswith("Strategy")}


class Trial:
    """What `suggest` and `OptunaPruning` ask of a trial."""

    def __init__(self, prune_after=None):
        self.asked, self.values, self.prune_after = {}, [], prune_after

    def suggest_float(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return (low * high) ** 0.5 if log else (low + high) / 2

    def report(self, value, step):
        self.values.append((step, value))

    def should_prune(self):
        return len(self.values) == self.prune_after


def test_a_space_is_the_users_to_change():
    space = hub.CombinedStrategy(learning_rate=1e-3, **DICTS).suggest_space()
    del space["clip.Norm"]
    space["regularization.L2"] = hub.Range(0.0, 0.5)
    space["beta1"] = hub.Range(0.8, 0.99)
    trial = Trial()
    strategy = space.suggest(trial)
    assert set(trial.asked) == set(space)
    assert trial.asked["regularization.L2"] == (0.0, 0.5, False)
    assert strategy.learning_rate == pytest.approx(1e-3)
    assert strategy.regularization["L2"] == 0.25
    assert strategy.scheduler["warmup"] == 0.15
    assert strategy.clip["Norm"] == 1.0
    assert strategy.optimizer_options == {"beta1": pytest.approx(0.895)}
    for wrong, message in {"scheduler.cosine.x": "unknown path", "betta1": "beta1"}.items():
        with pytest.raises(ValueError, match=message):
            space.at({wrong: 0.5})
    for low, high, log in [(1, 0, False), (0, 1, True)]:
        with pytest.raises(ValueError, match=r"Range\.low"):
            hub.Range(low, high, log)


def learner_of(**options):
    x = paddle.randn([32, 4])
    pairs = TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
    return hub.Learner(nn.Linear(4, 2), pairs, pairs, metrics="acc", batch_size=16, progress=False, **options)


class TestStandIn:
    @pytest.fixture(autouse=True)
    def optuna(self, monkeypatch):
        module = ModuleType("optuna")
        module.TrialPruned = type("TrialPruned", (Exception,), {})
        monkeypatch.setitem(sys.modules, "optuna", module)
        return module

    def test_values_are_reported_each_epoch(self):
        trial, learner = Trial(), learner_of()
        results = learner.fit(3, 0.1, cbs=hub.OptunaPruning(trial, "acc"))
        assert trial.values == [(epoch, result["acc"]) for epoch, result in enumerate(results, 1)]

    def test_a_pruned_fit_ends_after_its_epoch(self, optuna):
        trial, learner = Trial(prune_after=2), learner_of()
        with pytest.raises(optuna.TrialPruned, match="pruned after epoch 2 with valid_loss"):
            learner.fit(5, 0.1, cbs=hub.OptunaPruning(trial))
        assert len(learner.recorder.values) == 2
        assert len(learner.fit(1, 0.1)) == 1

    def test_a_value_that_never_comes(self):
        with pytest.raises(ValueError, match="'accc'. Did you mean 'acc'"):
            learner_of().fit(1, 0.1, cbs=hub.OptunaPruning(Trial(), "accc"))


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "optuna.distributions", None)
    for needed in (lambda: hub.OptunaPruning(Trial()), hub.DefaultStrategy().suggest_space().distributions):
        with pytest.raises(ImportError, match=r"pip install 'paddle_ftstrat\[optuna\]'"):
            needed()


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
def test_a_study():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = hub.OneCycleStrategy(0.05).suggest_space()

    def objective(trial):
        paddle.seed(trial.number)
        learner = learner_of()
        return learner.fit(2, strategy=space.suggest(trial), cbs=hub.OptunaPruning(trial, "acc"))[-1]["acc"]

    pruner = optuna.pruners.ThresholdPruner(lower=0.7)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=8)
    states = {trial.state for trial in study.trials}
    assert states <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    assert set(study.best_params) == set(space)
    assert isinstance(space.at(study.best_params), hub.OneCycleStrategy)
    assert study.ask(space.distributions()).params.keys() == space.keys()
