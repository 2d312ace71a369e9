"""Strategies as plain data: exact round trips, and every bad key with its message."""

import json
import os
import sys
import time

import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paddle_ftstrat as hub
from paddle_ftstrat.strategies import plain_data, strategy_from_dict, strategy_from_yaml
from paddle_ftstrat.tools import cli


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
        *(getattr(strategy, section, None) for section in plain_data.SECTIONS),
        plan.weight_decay,
        [plan.lr(t) for t in (0, 1, 9, 10, 50, 99, 100)],
        plan.clip,
        plan.depth,
        plan.phases,
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
        rebuilt = strategy_from_dict(json.loads(json.dumps(written)), trust="own" in name)
        assert settings(rebuilt) == settings(strategy)
        assert rebuilt.to_dict() == written

    def test_through_yaml_text_and_file(self, name, tmp_path):
        strategy, path = STRATEGIES[name](), tmp_path / "strategy.yaml"
        text = strategy.to_yaml(path)
        assert path.read_text("utf-8") == text
        for source in (text, path, str(path)):
            assert settings(strategy_from_yaml(source, trust="own" in name)) == settings(strategy)

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
        monkeypatch.setattr(plain_data, "yaml", lambda: pytest.fail("PyYAML was asked for"))
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


def from_dict(trust=False, **given):
    return lambda: strategy_from_dict(given, trust=trust)


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
    (from_dict(True, strategy="os:system"), TypeError, "'os:system' is not a strategy class"),
    (from_dict(True, strategy="no.such.module:X"), ValueError, "'no.such.module:X' cannot be found as module:Class"),
    (from_dict(True, strategy="DefaultStrategy", optimizer_name="os:system"), TypeError, "a name or a paddle.optimiz"),
    (from_dict(strategy={"a": "b"}), TypeError, "strategy must be the name of a class, not {'a': 'b'} of type dict"),
    (from_dict(strategy="DefaultStrategy", optimizer_name={"a": 1}), TypeError, "a name or a paddle.optimizer"),
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


@pytest.mark.parametrize("key", ["strategy", "optimizer_name"])
class TestTrust:
    def test_nothing_is_imported_unless_the_caller_says_so(self, key, tmp_path, monkeypatch):
        (tmp_path / "stranger.py").write_text("import pathlib; pathlib.Path('executed').touch()")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)
        given = {"strategy": "DefaultStrategy", key: "stranger:Class"}
        text = "".join(f"{name}: {value}\n" for name, value in given.items())
        for call in (lambda **how: strategy_from_dict(given, **how), lambda **how: strategy_from_yaml(text, **how)):
            with pytest.raises(ValueError, match=f"{key} 'stranger:Class' is code outside .*trust=True .*--trust"):
                call()
            assert not (tmp_path / "executed").exists()
            with pytest.raises(ValueError, match="cannot be found as module:Class"):
                call(trust=True)
            assert (tmp_path / "executed").exists()
            (tmp_path / "executed").unlink()
            sys.modules.pop("stranger")

    def test_the_command_line_names_its_flag(self, key, tmp_path, monkeypatch, capsys):
        own = {"strategy": "test_serialize:Mine", "optimizer_name": "test_serialize:Lion2"}[key]
        monkeypatch.setitem(sys.modules, "test_serialize", sys.modules[__name__])
        rest = {"strategy": "warm: 0.1", "optimizer_name": "strategy: DefaultStrategy"}[key]
        (tmp_path / "s.yaml").write_text(f"{rest}\n{key}: {own}")
        command = ["explain", str(tmp_path / "s.yaml"), "--steps", "9"]
        assert cli.main(command) == 2
        assert "--trust" in capsys.readouterr().err
        assert cli.main([*command, "--trust"]) == 0


HEAD = "strategy: CombinedStrategy\n"
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 30))
HOSTILE = {
    "billion laughs": (HEAD + LAUGHS, "more than 10,000 entries, aliases written out"),
    "a list of them": (
        "[" + ",\n".join(f"&a{i} [{f'*a{i - 1},' * 9 if i else 'x'}]" for i in range(30)) + "]",
        "10,000 entries",
    ),
    "itself": (HEAD + "scheduler: &a {warmup: *a}", "the alias 'a' stands in what it names"),
    "many aliases": (HEAD + "a: &a x\nb: [" + "*a," * 60_000 + "]", "10,000 entries"),
    "digits": (HEAD + "learning_rate: " + "1" * 60_000 + "x", "a value of more than 1,000 characters"),
    "number": (HEAD + "learning_rate: " + "9" * 400, "a whole number of more than 20 digits"),
    "sexagesimal": (HEAD + "learning_rate: 1" + ":59" * 300, "a whole number of more than 20 digits"),
    "infinity": (HEAD + "learning_rate: " + "9" * 400 + ".0", "learning_rate = inf"),
    "keys": (HEAD + "".join(f"k{i}: 1\n" for i in range(15_000)), "10,000 entries"),
    "long key": (HEAD + "k" * 900 + ": 1", "unknown key of CombinedStrategy 'kkk"),
    "long text": (HEAD + "#" * 200_000, "200,027 bytes, and 200,000 are allowed"),
    "flow lists": (HEAD + "a: " + "[" * 100_000, "nested too deeply"),
    "block lists": (HEAD + "a:\n" + "- " * 50_000, "nested too deeply"),
    "flow mappings": (HEAD + "a: " + "{b: " * 30_000, "nested too deeply"),
    "date": (HEAD + "learning_rate: 2001-01-01", "timestamp"),
    "tag": (HEAD + "x: !!bool maybe", "the tag 'tag:yaml.org,2002:bool'"),
    "tag of a list": (HEAD + "x: !!set {a}", "the tag 'tag:yaml.org,2002:set'"),
    "key that is a list": (HEAD + "? [a]\n: b", "a key is text or a number"),
    "merge key": (HEAD + "<<: {learning_rate: 1}", "merge key '<<' is not known"),
    "key twice, below": (HEAD + "scheduler: {warmup: 1, warmup: 0}", "the key 'warmup' occurs twice"),
    "twice.json": ('{"strategy": "DefaultStrategy", "clip": {"Norm": 1, "Norm": 2}}', "the key 'Norm' occurs twice"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "number.json": ('{"learning_rate": ' + "9" * 4_000 + "}", "has 4000 digits"),
    "nan.json": ('{"strategy": "DefaultStrategy", "learning_rate": NaN}', "learning_rate = nan"),
    "empty.json": ("", "is empty"),
    "empty.yaml": ("", "is empty"),
    "long.json": (" " * 300_000, "300,000 bytes, and 200,000 are allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_may_write(name, tmp_path):
    text, message = HOSTILE[name]
    if name.endswith((".json", ".yaml")):
        (tmp_path / name).write_text(text)
        text = tmp_path / name
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        strategy_from_yaml(text)
    assert time.process_time() - start < 2
    assert len(str(caught.value)) <= 1_000


def test_pipes_and_folders_are_no_strategies(tmp_path):
    os.mkfifo(tmp_path / "strategy.yaml")
    for path in (tmp_path / "strategy.yaml", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            strategy_from_yaml(path)


def test_an_alias_is_what_it_names():
    text = HEAD + "regularization: &a {L2: 0.01}\nscheduler: {discriminative: &b {blocks: 3}, gradual_unfreeze: *b}"
    assert strategy_from_yaml(text).scheduler["gradual_unfreeze"]["blocks"] == 3


def test_a_call_that_does_not_fit_is_refused_as_before():
    with pytest.raises(TypeError, match="__init__"):
        hub.DefaultStrategy(1, "sgd", 3)
