"""What a strategy will do: the words and the table against the binding, every lint rule, the two commands."""

import re
import sys

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.tools import cli, lint
from paddle_ftstrat.tools.explain import draw, explain
from paddle_ftstrat.tools.outline import outline


def stack(layers=6, **attributes):
    return nn.Sequential(*(nn.Linear(3, 3, **attributes) for _ in range(layers)))


def combined(**given):
    return hub.CombinedStrategy(learning_rate=1e-3, **given)


def phased(*phases):
    return hub.PhasedStrategy(phases, learning_rate=1e-3)


def told(strategy, steps=100, epochs=1, model=None, **options):
    laid_out = outline(strategy, steps, epochs, model, **options)
    return explain(laid_out, lint.check(laid_out))


STRATEGIES = [
    hub.DefaultStrategy(),
    hub.ULMFiTStrategy(1e-3),
    hub.AdamWeightDecayStrategy(warmup_proportion=0.1),
    hub.AdamWeightDecayStrategy(lr_scheduler="noam_decay", warmup_proportion=0.2),
    combined(scheduler={"warmup": 0.2, "linear_decay": {"start_point": 0.5}}),
    combined(scheduler={"warmup": 0.1}),
    combined(scheduler={"linear_decay": {"start_point": 0.0}}),
    combined(scheduler={"slanted_triangle": {"cut_fraction": 1.0}}),
    combined(scheduler={"noam_decay": True}),
    combined(scheduler={"gradual_unfreeze": 2, "discriminative": {"blocks": 3, "factor": 2.0}}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestOutline:
    @pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
    @pytest.mark.parametrize(("steps", "epochs"), [(90, 3), (7, 2), (1, 1)])
    def test_phases_cover_the_training_without_a_gap(self, strategy, steps, epochs):
        phases = outline(strategy, steps, epochs).phases
        assert [phase.start for phase in phases] == [0, *(phase.end for phase in phases[:-1])]
        assert phases[-1].end == steps
        assert phases[0].first_epoch == 1
        assert phases[-1].last_epoch == epochs

    @pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
    def test_the_curve_bends_only_between_stretches(self, strategy):
        laid_out = outline(strategy, 200, 1)
        for stretch in laid_out.stretches:
            lrs = laid_out.plan.lr(np.arange(stretch.start, stretch.end, dtype=np.float64))
            if stretch.name == "noam decay":
                np.testing.assert_allclose(
                    lrs * np.sqrt(np.arange(stretch.start, stretch.end) + 1), lrs[0] * np.sqrt(stretch.start + 1)
                )
            elif stretch.name == "constant":
                assert set(lrs) == {lrs[0]}
            else:
                np.testing.assert_allclose(np.diff(lrs, 2), 0, atol=1e-12)
                assert len(lrs) < 2 or (lrs[1] > lrs[0]) == (stretch.name in ("warmup", "rise"))

    @pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
    def test_blocks_are_those_of_the_binding(self, strategy):
        model = stack()
        laid_out = outline(strategy, 90, 3, model)
        run = strategy.bind(stack(), max_train_steps=90)
        rows = {row.name: row for row in run.describe()}
        for block in laid_out.blocks:
            assert {(rows[name].factor, run.trains[name]) for name in block.names} == {(block.factor, block.trains)}
        assert sorted(name for block in laid_out.blocks for name in block.names) == sorted(rows)

    @pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
    def test_without_a_model_they_are_those_of_one_that_divides_evenly(self, strategy):
        def looks(blocks):
            return [(block.factor, block.trains) for block in blocks]

        assert looks(outline(strategy, 90, 3).blocks) == looks(outline(strategy, 90, 3, stack()).blocks)


class TestWords:
    def test_the_whole_plan(self):
        strategy = combined(
            scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.0}, "gradual_unfreeze": 2},
            regularization={"L2": 1e-4, "weight_decay": 0.01},
            clip={"Value": 0.5},
            beta1=0.8,
        )
        text = told(strategy, 100, 2)
        for part in (
            "CombinedStrategy: 100 updates, 2 epochs of 50",
            "Adam, beta1=0.8",
            "warmup 0 → 0.0009 in updates 0–9, then linear decay 0.0009 → 1e-05 in updates 10–99",
            "top 50% from epoch 1; bottom 50% from epoch 2",
            "L2: gradient += 0.0001·w",
            "w ← w·(1 − lr·0.01) after each update, except for biases and normalisation layers",
            "each entry of a gradient is in ±0.5",
        ):
            assert part in text

    def test_discriminative_layer_by_layer(self):
        strategy = combined(scheduler={"discriminative": {"factor": 2}})
        for model in (None, stack()):
            text = told(strategy, 100, 2, model)
            assert "layer by layer: the top at the full rate, each below at 1/2 of the one above" in text
        assert "×1/2 of the one above" in told(strategy, 100, 2)

    def test_the_table_has_a_row_per_phase_and_block(self):
        text = told(hub.ULMFiTStrategy(1e-3, cut_fraction=0.1, dis_blocks=2, frz_blocks=2), 100, 2, stack(4))
        rows = [
            re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if " from epoch" in line or "yes" in line
        ]
        assert rows[1:] == [
            ["rise", "1", "0–9", "1 (top)", "3.13e-05 → 0.000903", "none", "none", "yes"],
            ["0 (bottom)", "-", "-", "-", "no, from epoch 2"],
            ["fall", "1", "10–49", "1 (top)", "0.001 → 0.00058", "none", "none", "yes"],
            ["0 (bottom)", "-", "-", "-", "no, from epoch 2"],
            ["fall", "2", "50–99", "1 (top)", "0.000569 → 4.2e-05", "none", "none", "yes"],
            ["0 (bottom)", "0.000219 → 1.62e-05", "none", "none", "yes"],
        ]

    def test_what_single_parameters_have_of_their_own(self):
        model = stack(2)
        model[0].weight.optimize_attr["learning_rate"] = 0.5
        model[1].bias.stop_gradient = True
        model[1].weight.regularizer = paddle.regularizer.L1Decay(0.1)
        text = told(hub.AdamWeightDecayStrategy(), 10, 1, model)
        for part in (
            "1 with their own ×0.5",
            "1 frozen beforehand",
            "L1(0.1) (ParamAttr) on 1",
            "0.01 on 1, none on 1",
        ):
            assert part in text

    def test_a_frozen_block(self):
        model = stack(2)
        for param in model[0].parameters():
            param.stop_gradient = True
        assert "never: frozen beforehand" in told(hub.DefaultStrategy(), 10, 1, model)

    def test_an_optimizers_own_decay(self):
        assert "AdamW's own" in told(hub.DefaultStrategy(optimizer_name="adamw"))
        assert "weight decay   none" in told(hub.DefaultStrategy())

    def test_nothing_to_say(self):
        assert told(hub.DefaultStrategy()).endswith("Nothing stands out.")

    @pytest.mark.parametrize("frozen", [False, True])
    def test_a_picture(self, tmp_path, frozen):
        model = stack(3)
        model[0].weight.stop_gradient = model[0].bias.stop_gradient = frozen
        figure = draw(outline(hub.ULMFiTStrategy(1e-3), 50, 5, model), tmp_path / "plan.svg")
        assert (tmp_path / "plan.svg").read_text().startswith("<?xml")
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert labels[:3] == ["block 2 (top) (×1)", "block 1 (×0.385)", "block 0 (bottom) (×0.148)"]


class TestPhases:
    def strategy(self):
        return phased(
            {"train": "head", "epochs": 1, "name": "probing"},
            {"train": ["0.*"], "until": hub.Plateau("acc", 2, max_epochs=2), "restore": "best"},
            {"scheduler": {"linear_decay": {"start_point": 0.0}}, "learning_rate": 1e-4},
        )

    @pytest.mark.parametrize("model", [None, stack])
    def test_in_words_and_rows(self, model):
        text = told(self.strategy(), 100, 5, model and model(3))
        assert "phase 2, when acc has not improved for 2 evaluations; its best weights are restored then" in text
        stages = [re.split(r"\s{2,}", line.strip())[:3] for line in text.splitlines() if ": " in line and "–" in line]
        assert stages[-3:] == [
            ["probing: constant", "1", "0–19"],
            ["phase 2: constant", "2–3", "20–59"],
            ["phase 3: linear decay", "4–5", "60–99"],
        ]

    def test_what_is_frozen_again(self):
        text = told(self.strategy(), 100, 5, stack(3))
        assert "block 2 (top) from epoch 1, frozen again from epoch 2; block 1 from epoch 2; " in text
        assert "no, frozen again" in text
        # What selectors mean is known with a model only.
        text = told(self.strategy(), 100, 5)
        assert "head from epoch 1; 0.* from epoch 2; the others from epoch 4" in text
        assert "as far as 0.* includes it" in text

    @pytest.mark.parametrize("model", [None, stack])
    def test_a_phase_may_begin_in_the_middle_of_an_epoch(self, model):
        text = told(phased({"train": "head", "updates": 15}, {}), 100, 10, model and model())
        assert "from update 15" in text
        assert "no, from update 15" in text

    @pytest.mark.parametrize(
        ("strategy", "pieces"),
        [
            (hub.OneCycleStrategy(0.1), ["rise", "fall"]),
            (hub.OneCycleStrategy(0.1, pct_start=0.0), ["fall"]),
            (hub.OneCycleStrategy(0.1, pct_start=1.0), ["rise"]),
            (hub.FlatCosStrategy(0.1), ["constant", "cosine"]),
            (hub.SGDRStrategy(0.1, 2, 2, 1), ["cycle 1", "cycle 2"]),
            (hub.FineTuneStrategy(), ["frozen: rise", "frozen: fall", "whole: rise", "whole: fall"]),
            (hub.LPFTStrategy(0.1, 0.01), ["linear probing: constant", "fine-tuning: constant"]),
        ],
        ids=str,
    )
    def test_the_names_of_stages(self, strategy, pieces):
        assert [stage.name for stage in outline(strategy, 400, 4).phases] == pieces

    @pytest.mark.parametrize(
        ("lr", "text"),
        [
            (slice(1e-4, 1e-2), "×0.01 at the bottom, in equal ratios"),
            (slice(1e-2), "×0.1 at the bottom, all below the top"),
            ([1e-3, 1e-2], "each at its own learning rate, bottom first: 0.001, 0.01"),
            (1e-2, "all at the same learning rate"),
        ],
    )
    def test_spread_learning_rates(self, lr, text):
        assert text in told(hub.OneCycleStrategy(lr))

    @pytest.mark.parametrize("by_binding", [False, True])
    def test_the_picture_dots_what_is_frozen_again(self, by_binding):
        if by_binding:
            figure = self.strategy().bind(stack(3), num_epoch=5, steps_per_epoch=20).plot()
        else:
            figure = draw(outline(self.strategy(), 100, 5, stack(3)))
        lines = {line.get_label(): np.isfinite(line.get_ydata()) for line in figure.axes[0].get_lines()}
        top, middle, bottom = (next(live for label, live in lines.items() if f"block {i}" in label) for i in (2, 1, 0))
        spans = [(live.nonzero()[0].min(), live.sum()) for live in (top, middle, bottom)]
        assert sorted(spans) == [(0, 60), (20, 80), (60, 40)]


def with_batch_norm():
    return nn.Sequential(nn.Conv2D(1, 2, 1), nn.BatchNorm2D(2), nn.Conv2D(2, 2, 1), nn.BatchNorm2D(2))


def frozen_batch_norm():
    model = with_batch_norm()
    hub.param_attr.freeze(model, ["0", "1"])
    return model


def small_multiplier():
    return stack(2, weight_attr=paddle.ParamAttr(learning_rate=1e-4))


FALLING_FREE = hub.CombinedStrategy("schedule_free_sgd", 0.1, scheduler={"linear_decay": {"start_point": 0.1}})
FOUND = [
    ("absolute-multiplier", hub.DefaultStrategy(0.1), {"model": small_multiplier}, "for an LR of 0.0001 give 0.001"),
    ("vanishing-rate", combined(scheduler={"discriminative": 24}), {}, r"the lowest block ×2.9e-10"),
    ("average-and-decay", FALLING_FREE, {}, "schedule_free_sgd averages the weights .* falls from 0.1 to 0.001"),
    ("average-of-little", combined(averaging={"EMA": 0.999}), {}, "after 100 updates 90% of the average are still"),
    ("warmup-length", combined(scheduler={"warmup": 1.0}), {}, "warmup=1 is as long as the training"),
    ("warmup-length", combined(scheduler={"warmup": 0.6}), {}, "takes 60 of 100 updates"),
    ("warmup-length", combined(scheduler={"warmup": 0.005}), {}, "less than one update"),
    ("unfreezing-incomplete", hub.ULMFiTStrategy(), {"epochs": 2}, "in epoch 3, but the training ends with epoch 2"),
    ("unfreezing-incomplete", hub.ULMFiTStrategy(), {"epochs": 1, "model": stack}, "ends with epoch 1"),
    (
        "unfreezing-incomplete",
        hub.ULMFiTStrategy(frz_params_layer={"0.weight": 0, "1.weight": 5}),
        {"epochs": 5, "model": stack},
        "in epoch 6",
    ),
    ("unfreezing-incomplete", hub.FineTuneStrategy(freeze_epochs=2), {"epochs": 2}, "in epoch 3, .* or shorter phases"),
    (
        "early-end",
        phased({"until": {"monitor": "valid_los"}}),
        {},
        "the training ends by 'valid_los'.*'valid_loss' meant",
    ),
    (
        "early-end",
        phased({"train": "head", "until": {"patience": 3, "max_epochs": 3}}, {}),
        {"epochs": 4},
        "phase 1 waits for 3 evaluations, but lasts 3 epochs",
    ),
    (
        "vanishing-rate",
        hub.OneCycleStrategy(slice(1e-7, 1e-2)),
        {"model": stack},
        "the slice .* the lowest block ×1.0e-05",
    ),
    (
        "pattern-without-match",
        hub.ULMFiTStrategy(dis_params_layer={"0.wieght": 1}),
        {"epochs": 3, "model": stack},
        "unknown parameter '0.wieght'. Did you mean '0.weight'?",
    ),
    (
        "pattern-without-match",
        hub.L2SPFinetuneStrategy(),
        {"model": stack, "pretrained": ["encoder.*"]},
        "pretrained matches no parameter",
    ),
    ("pattern-without-match", hub.DefaultStrategy(), {"model": stack, "no_decay": ["nrom.*"]}, "no_decay matches no"),
    ("decay-on-biases", hub.DefaultFinetuneStrategy(), {}, "L2 0.001 reaches biases"),
    ("decay-on-biases", hub.DefaultFinetuneStrategy(), {"model": stack}, r"L2 0.001 reaches 6 biases .*0.bias, 1.bias"),
    (
        "decay-on-biases",
        hub.AdamWeightDecayStrategy(),
        {"model": stack, "no_decay": ["0.weight"]},
        "weight decay 0.01 reaches 6 biases",
    ),
    (
        "batch-norm-moving",
        combined(scheduler={"gradual_unfreeze": 2}),
        {"epochs": 2, "model": with_batch_norm},
        "BatchNorm 1: frozen before epoch 2",
    ),
    (
        "cancelled-keys",
        combined(scheduler={"slanted_triangle": {"cut_fraction": 0.1}, "warmup": 0.1}),
        {},
        "takes over: warmup ignored",
    ),
    ("cancelled-keys", combined(clip={"Norm": 1, "Value": 1}), {}, "'Norm' takes over: Value ignored"),
    ("cancelled-keys", combined(scheduler={"discriminative": 9}), {"model": stack}, "9 blocks, but the model has 6"),
    ("without-effect", combined(scheduler={"discriminative": {"blocks": 3, "factor": 1}}), {}, "same LR"),
    ("without-effect", combined(scheduler={"discriminative": {"blocks": 2, "factor": 0.5}}), {}, "larger LRs"),
    ("without-effect", combined(scheduler={"gradual_unfreeze": 1}), {}, "gradual_unfreeze with 1 block does nothing"),
    (
        "without-effect",
        combined(scheduler={"slanted_triangle": {"cut_fraction": 0.1, "ratio": 1}}),
        {},
        "a constant LR",
    ),
    (
        "without-effect",
        combined(scheduler={"linear_decay": {"start_point": 0.0, "end_learning_rate": 1}}),
        {},
        "it does not decay",
    ),
]
NOT_FOUND = [
    ("absolute-multiplier", hub.DefaultStrategy(), {"model": stack}),
    ("vanishing-rate", hub.ULMFiTStrategy(), {"epochs": 3}),
    ("warmup-length", hub.AdamWeightDecayStrategy(warmup_proportion=0.1), {}),
    ("warmup-length", hub.DefaultStrategy(), {}),
    ("average-and-decay", hub.CombinedStrategy("schedule_free_adamw", 0.1, scheduler={"warmup": 0.1}), {}),
    ("average-and-decay", combined(scheduler={"linear_decay": {"start_point": 0.1}}), {}),
    ("average-of-little", combined(averaging={"EMA": 0.9}), {}),
    ("average-of-little", combined(averaging={"EMA": {"decay": 0.999, "bias_correction": True}}), {}),
    ("unfreezing-incomplete", hub.ULMFiTStrategy(), {"epochs": 3}),
    ("unfreezing-incomplete", hub.ULMFiTStrategy(), {"epochs": 2, "model": lambda: stack(2)}),
    ("early-end", phased({"until": {"monitor": "valid_f1", "patience": 2, "max_epochs": 4}}), {"epochs": 4}),
    ("pattern-without-match", hub.L2SPFinetuneStrategy(), {"model": stack, "pretrained": ["0.*", "1"]}),
    ("decay-on-biases", hub.AdamWeightDecayStrategy(), {"model": stack}),
    ("decay-on-biases", hub.DefaultStrategy(optimizer_name="adamw"), {"model": stack}),
    ("batch-norm-moving", hub.DefaultStrategy(), {"model": with_batch_norm}),
    ("batch-norm-moving", hub.DefaultStrategy(), {"model": frozen_batch_norm}),
    ("batch-norm-moving", combined(scheduler={"gradual_unfreeze": 2}), {"epochs": 2}),
    ("cancelled-keys", hub.ULMFiTStrategy(), {"epochs": 3, "model": stack}),
    ("without-effect", hub.ULMFiTStrategy(), {"epochs": 3}),
]


def findings(strategy, epochs=1, model=None, **options):
    laid_out = outline(strategy, 100, epochs, None if model is None else model(), **options)
    return lint.check(laid_out)


class TestLint:
    @pytest.mark.parametrize(("rule", "strategy", "given", "text"), FOUND, ids=lambda value: str(value)[:40])
    def test_found(self, rule, strategy, given, text):
        assert any(finding.rule == rule and re.search(text, finding.text) for finding in findings(strategy, **given))

    @pytest.mark.parametrize(("rule", "strategy", "given"), NOT_FOUND, ids=lambda value: str(value)[:40])
    def test_not_found(self, rule, strategy, given):
        assert rule not in {finding.rule for finding in findings(strategy, **given)}

    def test_every_rule_is_tested_both_ways(self):
        assert {row[0] for row in FOUND} == {row[0] for row in NOT_FOUND} == set(lint.RULES)

    def test_a_rules_name_is_its_own(self):
        with pytest.raises(ValueError, match="'warmup-length' is already there"):
            lint.rule("warmup-length")(lambda plan: iter(()))

    def test_batch_norm_frozen_for_good(self):
        model = with_batch_norm()
        for param in model[1].parameters():
            param.stop_gradient = True
        assert any(
            "frozen all the time" in finding.text for finding in findings(hub.DefaultStrategy(), model=lambda: model)
        )


SCRIPT = """
import paddle_ftstrat as hub
from paddle import nn, ones

strategy = hub.ULMFiTStrategy(1e-3)
config = hub.RunConfig(num_epoch=4, strategy=hub.AdamWeightDecayStrategy(5e-5), checkpoint_dir="none")
number = 3

def build():
    return hub.DefaultFinetuneStrategy(2e-3)

def model():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))

class Backwards(nn.Layer):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2)
        self.first = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.first(x))

def with_input():
    return Backwards(), ones([1, 2])

assert __name__ != "__main__"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *sys.path])
    (tmp_path / "plans.py").write_text(SCRIPT)
    hub.ULMFiTStrategy(1e-3).to_yaml(tmp_path / "ulmfit.yaml")
    yield tmp_path
    sys.modules.pop("plans", None)


class TestCommands:
    @pytest.mark.parametrize(
        ("target", "title"),
        [
            ("ulmfit.yaml", "ULMFiTStrategy: 100 updates in one epoch"),
            ("plans.py:strategy", "ULMFiTStrategy: 100 updates in one epoch"),
            ("plans:strategy", "ULMFiTStrategy: 100 updates in one epoch"),
            ("plans.py:config", "AdamWeightDecayStrategy: 100 updates, 4 epochs of 25"),
            ("plans.py:build", "DefaultFinetuneStrategy: 100 updates in one epoch"),
        ],
    )
    def test_what_a_target_names(self, folder, capsys, target, title):
        assert cli.main(["explain", target, "--steps", "100"]) == 0
        assert capsys.readouterr().out.startswith(title)

    def test_with_a_model(self, folder, capsys):
        assert cli.main(["explain", "ulmfit.yaml", "--steps", "9", "--epochs", "3", "--model", "plans:model"]) == 0
        assert "2 (top)        2.weight, 2.bias" in capsys.readouterr().out

    def test_a_sample_input_orders_the_layers(self, folder, capsys):
        strategy = combined(scheduler={"discriminative": 2})
        strategy.to_yaml("two.yaml")
        assert cli.main(["explain", "two.yaml", "--steps", "9", "--model", "plans:with_input"]) == 0
        assert "1 (top)        last.weight, last.bias" in capsys.readouterr().out

    def test_strict(self, folder, capsys):
        assert cli.main(["explain", "ulmfit.yaml", "--steps", "9", "--epochs", "2", "--strict"]) == 1
        assert cli.main(["explain", "ulmfit.yaml", "--steps", "9", "--epochs", "3", "--strict"]) == 0

    def test_a_strategy_that_does_not_fit_the_model(self, folder, capsys):
        hub.ULMFiTStrategy(dis_params_layer={"9.weight": 1}).to_yaml("other.yaml")
        assert cli.main(["explain", "other.yaml", "--steps", "9", "--epochs", "3", "--model", "plans:model"]) == 2
        assert "it cannot be bound to the model: discriminative.params_layer: unknown" in capsys.readouterr().out
        assert cli.main(["plot", "other.yaml", "--steps", "9", "--model", "plans:model", "-o", "x.svg"]) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.yaml", "--steps", "9"], "No such file"),
            (["none.py:x", "--steps", "9"], "no such file: none.py"),
            (["plans.py:stratgy", "--steps", "9"], "'stratgy'. Did you mean 'strategy'?"),
            (["plans.py:number", "--steps", "9"], "plans.py:number is neither a strategy nor a RunConfig"),
            (["plans", "--steps", "9"], "'plans' is not a strategy file"),
            (["no.module:x", "--steps", "9"], "there is no module 'no.module'"),
            (["ulmfit.yaml", "--steps", "0"], "--steps = 0"),
            (["ulmfit.yaml", "--steps", "9", "--epochs", "0"], "--epochs = 0"),
            (["ulmfit.yaml", "--steps", "3", "--epochs", "4"], "needs at least as many updates"),
            (["ulmfit.yaml", "--steps", "9", "--model", "plans:number"], "gives no paddle.nn.Layer, but int"),
        ],
    )
    def test_refusals_are_one_line(self, folder, capsys, arguments, message):
        assert cli.main(["explain", *arguments]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("ftstrat explain: ")
        assert message in printed
        assert printed.count("\n") == 1

    @pytest.mark.parametrize("model", [[], ["--model", "plans:model"]])
    @pytest.mark.parametrize("ending", ["svg", "png"])
    def test_plot(self, folder, capsys, model, ending):
        path = folder / f"plan.{ending}"
        assert cli.main(["plot", "ulmfit.yaml", "--steps", "30", "--epochs", "3", "-o", str(path), *model]) == 0
        assert path.stat().st_size > 1000
        assert capsys.readouterr().out == f"drawn: {path}\n"
