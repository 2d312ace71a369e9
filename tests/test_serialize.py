"""Strategies as plain data: exact round trips, and every bad key with its message."""

import json
import sys

import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paddle_ftstrat as hub
from paddle_ftstrat.finetune import plain_text, serialize
from paddle_ftstrat.finetune.serialize import strategy_from_dict, strategy_from_yaml


class Lion2(paddle.optimizer.SGD):
    """An optimizer class at module level."""


class Mine(hub.CombinedStrategy):
    """A strategy of a user's own."""

    def __init__(self, warm, **kwargs):
        super().__init__(scheduler={"warmup": warm}, **kwargs)


def settings(strategy):
    """All that decides what a strategy does, by public means."""
    plan = strategy.plan(100)
    return (
        type(strategy),
        strategy.learning_rate,
        strategy.optimizer_name,
        strategy.optimizer_options,
        *(getattr(strategy, section, None) for section in serialize.SECTIONS),
        plan.weight_decay,
        [plan.curve(t) for t in (0, 1, 9, 10, 50, 99, 100)],
        plan.clip,
        plan.discriminative,
        plan.gradual_unfreeze,
    )


STRATEGIES = {
    "defaults": lambda: hub.DefaultStrategy(),
    "options": lambda: hub.DefaultStrategy(0.1, "momentum", momentum=0.5, use_nesterov=True),
    "class": lambda: hub.DefaultStrategy(0.1, paddle.optimizer.Momentum),
    "own class": lambda: hub.AdamWeightDecayStrategy(optimizer_name=Lion2),
    "adamw preset": lambda: hub.AdamWeightDecayStrategy(5e-5, "noam_decay", 0.1, weight_decay=0.02),
    "finetune": lambda: hub.DefaultFinetuneStrategy(regularization_coeff=0.01),
    "l2sp": lambda: hub.L2SPFinetuneStrategy(1e-3, "sgd"),
    "ulmfit": lambda: hub.ULMFiTStrategy(dis_params_layer={"0.weight": 0, "0.bias": 1}, frz_blocks=2),
    "combined": lambda: hub.CombinedStrategy(
        "rmsprop",
        2e-5,
        scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.0}, "discriminative": {"blocks": 3, "factor": 2}},
        regularization={"L2": 1e-4, "weight_decay": 0.01},
        clip={"GlobalNorm": 1.0},
        rho=0.9,
    ),
    "number of blocks": lambda: hub.CombinedStrategy(scheduler={"gradual_unfreeze": 3}),
    "decay of 0": lambda: hub.CombinedStrategy("adamw", regularization={"weight_decay": 0.0}),
    "decay of 0 added": lambda: hub.CombinedStrategy("adamw").add_regularization("weight_decay", 0.0),
    "added to a preset": lambda: (
        hub.ULMFiTStrategy().add_clip("Norm", 2.0).add_scheduler("discriminative", factor=3).add_regularization("L2SP")
    ),
    "added and taken back": lambda: (
        hub.CombinedStrategy(scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.0}}, clip={"Norm": 1.0})
        .add_scheduler("linear_decay", start_point=1.0)
        .add_scheduler("warmup", 0)
        .add_clip("Norm", 0)
    ),
    "of a user's own": lambda: Mine(0.2, learning_rate=3e-4, beta1=0.8),
}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.filterwarnings("ignore::UserWarning")
class TestRoundTrip:
    def test_through_a_dict_and_json(self, name):
        strategy = STRATEGIES[name]()
        written = strategy.to_dict()
        rebuilt = strategy_from_dict(json.loads(json.dumps(written)))
        assert settings(rebuilt) == settings(strategy)
        assert rebuilt.to_dict() == written

    def test_through_yaml_text_and_file(self, name, tmp_path):
        strategy, path = STRATEGIES[name](), tmp_path / "strategy.yaml"
        text = strategy.to_yaml(path)
        assert path.read_text("utf-8") == text
        for source in (text, path, str(path)):
            assert settings(strategy_from_yaml(source)) == settings(strategy)

    def test_a_dict_is_the_strategys_no_longer(self, name):
        strategy = STRATEGIES[name]()
        before, written = settings(strategy), strategy.to_dict()
        for value in written.values():
            if isinstance(value, dict):
                value.clear()
        assert settings(strategy) == before


class TestWritten:
    def test_only_what_was_given_is_written(self):
        assert hub.ULMFiTStrategy(1e-3, ratio=16).to_dict() == {
            "strategy": "ULMFiTStrategy",
            "learning_rate": 1e-3,
            "ratio": 16,
        }
        assert hub.DefaultStrategy(optimizer_name=paddle.optimizer.SGD).to_dict()["optimizer_name"].endswith("sgd:SGD")

    def test_attributes_that_were_set_later_are_written(self):
        strategy = hub.DefaultStrategy(0.1)
        strategy.learning_rate = 0.2
        assert strategy.to_dict() == {"strategy": "DefaultStrategy", "learning_rate": 0.2}

    def test_copies_and_pickles_can_be_written(self):
        import copy
        import pickle

        strategy = hub.AdamWeightDecayStrategy(warmup_proportion=0.1)
        for same in (copy.deepcopy(strategy), pickle.loads(pickle.dumps(strategy))):
            assert same.to_dict() == strategy.to_dict()

    @given(rate=st.floats(1e-12, 1e3), warm=st.floats(0, 1), decay=st.floats(0, 10))
    def test_numbers_survive_to_the_last_bit(self, rate, warm, decay):
        strategy = hub.AdamWeightDecayStrategy(rate, warmup_proportion=warm, weight_decay=decay)
        rebuilt = strategy_from_yaml(strategy.to_yaml())
        assert (rebuilt.learning_rate, rebuilt.scheduler, rebuilt.regularization) == (
            strategy.learning_rate,
            strategy.scheduler,
            strategy.regularization,
        )

    @pytest.mark.parametrize(("text", "rate"), [("1e-3", 1e-3), ("5E-5", 5e-5), ("1.e-2", 1e-2), (".5e-1", 0.05)])
    def test_numbers_as_people_write_them(self, text, rate):
        assert strategy_from_yaml(f"strategy: DefaultStrategy\nlearning_rate: {text}").learning_rate == rate

    def test_json_needs_no_yaml(self, tmp_path, monkeypatch):
        monkeypatch.setattr(plain_text, "yaml", lambda: pytest.fail("PyYAML was asked for"))
        path = tmp_path / "s.json"
        path.write_text(json.dumps(hub.ULMFiTStrategy().to_dict()))
        assert type(strategy_from_yaml(path)) is hub.ULMFiTStrategy

    def test_yaml_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "yaml", None)
        for call in (hub.DefaultStrategy().to_yaml, lambda: strategy_from_yaml("strategy: DefaultStrategy")):
            with pytest.raises(ImportError, match=r"pip install 'paddle_ftstrat\[yaml\]'"):
                call()

    def test_a_file_is_replaced_whole_or_not_at_all(self, tmp_path):
        path = tmp_path / "strategy.yaml"
        path.write_text("kept")
        with pytest.raises(ValueError, match="grad_clip"):
            hub.DefaultStrategy(grad_clip=paddle.nn.ClipGradByNorm(1.0)).to_yaml(path)
        assert path.read_text() == "kept"
        assert [p.name for p in tmp_path.iterdir()] == ["strategy.yaml"]

    def test_classes_that_no_file_could_find_are_refused(self):
        class Local(paddle.optimizer.SGD):
            pass

        with pytest.raises(ValueError, match="optimizer_name: .*Local is defined inside a function"):
            hub.DefaultStrategy(optimizer_name=Local).to_dict()


def from_dict(**given):
    return lambda: strategy_from_dict(given)


BAD = [
    (from_dict(strategy="ULMFitStrategy"), ValueError, "unknown strategy 'ULMFitStrategy'. Did you mean 'ULMFiTStrat"),
    (from_dict(startegy="ULMFiTStrategy"), ValueError, "key 'strategy' is missing .is 'startegy' meant to be it"),
    (
        from_dict(strategy="ULMFiTStrategy", ration=3),
        ValueError,
        "key of ULMFiTStrategy 'ration'. Did you mean 'ratio'",
    ),
    (from_dict(strategy="DefaultStrategy", learnig_rate=1), ValueError, "'learnig_rate'. Did you mean 'learning_rate'"),
    (from_dict(strategy="DefaultStrategy", beta3=1), ValueError, "'beta3'. Did you mean 'beta"),
    (from_dict(strategy="DefaultStrategy", clip={"Norm": 1}), ValueError, "unknown key of DefaultStrategy 'clip'"),
    (from_dict(strategy="DefaultStrategy", optimizer_name="adma"), ValueError, "unknown optimizer 'adma'"),
    (from_dict(strategy="CombinedStrategy", scheduler={"warm": 1}), ValueError, "unknown scheduler 'warm'"),
    (from_dict(strategy="ULMFiTStrategy", scheduler={"warm": 1}), ValueError, "unknown scheduler 'warm'"),
    (from_dict(strategy="ULMFiTStrategy", clip=3), TypeError, "clip must be a dict, not 3"),
    (from_dict(strategy="DefaultStrategy", learning_rate=-1), ValueError, "learning_rate = -1"),
    (from_dict(strategy="DefaultStrategy", learning_rate="fast"), TypeError, "learning_rate must be a number"),
    (from_dict(strategy="os:system"), TypeError, "'os:system' is not a strategy class"),
    (from_dict(strategy="no.such.module:X"), ValueError, "'no.such.module:X' cannot be found as module:Class"),
    (from_dict(strategy="DefaultStrategy", optimizer_name="os:system"), TypeError, "a name or a paddle.optimizer"),
    (lambda: strategy_from_dict(["DefaultStrategy"]), TypeError, "a strategy is a dict"),
    (lambda: hub.ULMFiTStrategy.from_dict({"strategy": "DefaultStrategy"}), ValueError, "not a ULMFiTStrategy"),
    (lambda: strategy_from_yaml("strategy: A\nstrategy: B"), ValueError, "the key 'strategy' occurs twice"),
    (lambda: strategy_from_yaml("strategy: [A"), ValueError, "the text is not YAML"),
    (lambda: strategy_from_yaml("missing.yaml"), FileNotFoundError, "missing.yaml"),
    (lambda: strategy_from_yaml("!!python/object/apply:os.system ['true']"), ValueError, "is not YAML"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_bad_input_is_refused_with_a_clear_message(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_a_call_that_does_not_fit_is_refused_as_before():
    with pytest.raises(TypeError, match="__init__"):
        hub.DefaultStrategy(1, "sgd", 3)
