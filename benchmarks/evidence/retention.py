"""Retention against adaptation: what a classifier knows of nine kinds of goods, while it learns hotels.

A classifier of sentiment is trained on reviews of nine kinds of goods, then fine-tuned on 100 or 500 reviews of
hotels, and scored on both. Settings are chosen by the mean of both on dev.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from paddle.io import TensorDataset
from ulmfit.splitting import Examples, Splits, labelled_sample, split

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score, Setting, seed_everything
from benchmarks.evidence.docs import Shown
from benchmarks.evidence.texts import HOTEL, LENGTH, WIDTH, Source, accuracy, cut, learnt, reviews, together
from paddle_ftstrat.pictures import finished, pyplot
from paddle_ftstrat.tools.runs import paired

BASELINE = "constant LR"
# The rows that the picture shows in colour; the others are grey.
MARKS = {
    BASELINE: ("s", "C0"),
    "constant LR, for hotels alone": ("D", "C1"),
    "L2SP": ("^", "C2"),
    "WiSE-FT": ("o", "C3"),
    "LP-FT": ("p", "C4"),
    "EMA": ("v", "C5"),
    "ULMFiT": ("P", "C6"),
    "goods mixed in 1:1": ("*", "C8"),
    "head only": ("X", "C9"),
}
RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = {100: 15, 500: 10, 2000: 3}
# All rows at so many labels, and the frontier; at the others those that answer the question.
FULL = 500
FEW = (BASELINE, "constant LR, for hotels alone", "head only", "L2SP", "WiSE-FT", "ULMFiT", "goods mixed in 1:1")

Make = Callable[[Setting, int], hub.DefaultStrategy]
STRATEGIES: Mapping[str, tuple[Make, Mapping[str, Any]]] = {
    BASELINE: (lambda s, epochs: hub.DefaultStrategy(s["lr"]), {}),
    "head only": (lambda s, epochs: hub.PhasedStrategy([hub.Phase("head", learning_rate=s["lr"])]), {}),
    "lower half frozen": (
        lambda s, epochs: hub.PhasedStrategy([hub.Phase(["high.*", "head.*"], learning_rate=s["lr"])]),
        {},
    ),
    "discriminative": (
        lambda s, epochs: hub.CombinedStrategy("adam", s["lr"], scheduler={"discriminative": {"factor": 2.6}}),
        {},
    ),
    "LP-FT": (lambda s, epochs: hub.LPFTStrategy(10 * s["lr"], s["lr"], head_epochs=epochs // 2), {}),
    "ULMFiT": (lambda s, epochs: hub.ULMFiTStrategy(s["lr"]), {}),
    "EMA": (
        lambda s, epochs: hub.CombinedStrategy("adam", s["lr"], averaging={"EMA": s["decay"]}),
        {"decay": (0.95,)},
    ),
    "L2SP": (
        lambda s, epochs: hub.L2SPFinetuneStrategy(s["lr"], regularization_coeff=s["λ"]),
        {"λ": (0.1, 1.0, 10.0)},
    ),
    "EWC": (
        lambda s, epochs: hub.CombinedStrategy("adam", s["lr"], regularization={"EWC": s["λ"]}),
        {"λ": (100.0, 1000.0, 10000.0)},
    ),
}


@dataclass(frozen=True)
class Part:
    """The fine-tuning on so many labels."""

    source: Source
    old: Splits
    new: Splits
    labels: int
    epochs: int
    states: dict[Any, tuple[dict[str, Any], float]] = field(default_factory=dict)
    fishers: dict[int, dict[str, Any]] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """Every way to fine-tune, the baseline first."""

        def plain(name: str) -> Callable[[Setting, int, str], dict[str, float]]:
            return lambda setting, seed, split: self.scored(*self.trained(name, setting, seed), split)

        rates = {"lr": RATES}
        anchored = {"lr": RATES[1:]}  # more LRs are tried where the best stands at an end
        made = [
            Row(name, plain(name), {**(anchored if "λ" in grid else rates), **grid})
            for name, (_, grid) in STRATEGIES.items()
        ]
        alone = Row("constant LR, for hotels alone", plain(BASELINE), rates, choose="new")
        mixed = Row(
            "goods mixed in 1:1", lambda *run: self.scored(*self.trained(BASELINE, *run[:2], mixed=True), run[2]), rates
        )
        wise = Row("WiSE-FT", self.interpolated, {**rates, "α": (0.25, 0.5, 0.75)})
        soup = Row("soup of three LRs", self.soup, rates)
        return [made[0], alone, *made[1:], wise, soup, mixed]

    def frontier(self) -> list[Row]:
        """Fixed settings, for the picture: the highest LR, two lower ones, and ways to hold the highest back."""

        def plain(name: str, setting: Setting) -> Callable[[Setting, int, str], dict[str, float]]:
            return lambda nothing, seed, split: self.scored(*self.trained(name, setting, seed), split)

        def wise(setting: Setting) -> Callable[[Setting, int, str], dict[str, float]]:
            return lambda nothing, seed, split: self.interpolated(setting, seed, split)

        made = [Row(f"{BASELINE} {lr:g}", plain(BASELINE, {"lr": lr}), {}) for lr in RATES[::-1]]
        made += [Row(f"WiSE-FT, α {α:g}", wise({"lr": RATES[-1], "α": α}), {}) for α in (0.25, 0.5, 0.75)]
        return made + [Row(f"L2SP, λ {λ:g}", plain("L2SP", {"lr": RATES[-1], "λ": λ}), {}) for λ in (1.0, 10.0, 100.0)]

    def trained(self, name: str, setting: Setting, seed: int, mixed: bool = False) -> tuple[nn.Layer, float]:
        """A fine-tuned model, and seconds; weights of constant LRs are kept, since several rows begin with them."""
        # Made before the seeding: what it draws at its first time must not matter.
        fisher = {"fisher": self.fisher(seed % len(self.source.weights))} if name == "EWC" else {}
        seed_everything(seed)
        model = self.source.model(seed)
        key = (name, json.dumps(setting), seed, mixed)
        if key in self.states:
            state, seconds = self.states[key]
            model.set_state_dict(state)
            return model, seconds
        few = labelled_sample(self.new.train, self.new.classes, self.labels, seed)
        if mixed:
            few = together([few, self.of_old(self.labels, seed)])
        strategy = STRATEGIES[name][0](setting, self.epochs)
        anchored = {"pretrained": "*"} if name == "L2SP" else {}
        learner = hub.Learner(model, self.source.data(few), batch_size=32, progress=False, num_threads=1)
        started = time.process_time()
        learner.fit(self.epochs, strategy=strategy, **anchored, **fisher)
        seconds = time.process_time() - started
        if name == "EMA":
            with learner.run.averaged():
                state = {key: value.clone() for key, value in model.state_dict().items()}
            model.set_state_dict(state)
        if name == BASELINE and not mixed:
            self.states[key] = {key: value.numpy() for key, value in model.state_dict().items()}, seconds
        return model, seconds

    def of_old(self, size: int, seed: int) -> Examples:
        """So many labelled examples of the old task, or all there are."""
        return labelled_sample(self.old.train, self.old.classes, min(size, len(self.old.train)), seed)

    def fisher(self, number: int) -> dict[str, Any]:
        """Of one of the source's models, over 500 reviews of what it has learnt."""
        if number not in self.fishers:
            self.fishers[number] = hub.fisher(self.source.model(number), self.source.data(self.of_old(500, 0)))
        return self.fishers[number]

    def interpolated(self, setting: Setting, seed: int, split: str) -> dict[str, float]:
        """WiSE-FT: between the weights before and after."""
        model, seconds = self.trained(BASELINE, {"lr": setting["lr"]}, seed)
        hub.interpolate(model, self.source.weights[seed % len(self.source.weights)], setting["α"])
        return self.scored(model, seconds, split)

    def soup(self, setting: Setting, seed: int, split: str) -> dict[str, float]:
        """The mean of the weights after three LRs around the setting's."""
        tries = [
            self.trained(BASELINE, {"lr": float(f"{factor * setting['lr']:.2g}")}, seed) for factor in (1 / 3, 1, 3)
        ]
        model = tries[0][0]
        model.set_state_dict(hub.soup([model.state_dict() for model, _ in tries]))
        return self.scored(model, sum(seconds for _, seconds in tries), split)

    def scored(self, model: nn.Layer, seconds: float, split: str) -> dict[str, float]:
        """Both accuracies, their mean, and the seconds of the training."""
        new, old = (accuracy(model, data) for data in self.measured[split])
        return {"both": (new + old) / 2, "new": new, "old": old, "seconds": seconds}

    @cached_property
    def measured(self) -> dict[str, tuple[TensorDataset, TensorDataset]]:
        """Dev and test of (the new task, the old one)."""
        return {
            "dev": (self.source.data(self.new.dev), self.source.data(self.old.dev)),
            "test": (self.source.data(self.new.test), self.source.data(self.old.test)),
        }


def make(options: Options) -> Experiment:
    """Train the source's models, unless that was done, and make the rows."""
    kinds, target = reviews(options), options.target or HOTEL
    if target not in kinds:
        raise ValueError(f"--target {target!r} is none of the groups {sorted(kinds)}")
    sizes = (200, 400) if options.quick else (500, 800)
    goods = together([examples for kind, examples in kinds.items() if kind != target])
    old, new = (cut(split(part.texts, part.labels.tolist(), seed=0), *sizes) for part in (goods, kinds[target]))
    models, epochs = (1, 1) if options.quick else (2, 2)
    old = replace(old, train=old.train.only(range(min(4_000 if options.quick else 20_000, len(old.train)))))
    source = learnt(old.train, options.folder, models, epochs)
    before = [accuracy(source.model(seed), source.data(part.test)) for seed in range(models) for part in (new, old)]
    facts = {
        "target": target,
        "characters of a review": LENGTH,
        "width": WIDTH,
        "reviews to learn the source from": len(old.train),
        "source models": models,
        "dev of each": sizes[0],
        "test of each": sizes[1],
        "accuracy before, new and old": [np.mean(before[::2]), np.mean(before[1::2])],
        "epochs": EPOCHS,
    }
    parts = {}
    for labels, epochs in EPOCHS.items():
        if labels <= len(new.train) and not (options.quick and labels == FULL):
            part = Part(source, old, new, labels, epochs)
            parts[f"{labels} labels"] = [row for row in part.rows() if labels == FULL or row.name in FEW]
            if labels == FULL:
                parts[f"{labels} labels, frontier"] = part.frontier()
    if not parts:
        raise ValueError(f"{len(new.train)} reviews of {target!r} to train on; it takes {min(EPOCHS)}")
    seeds = (1, 2) if options.quick else (3, 10)
    return Experiment(parts, "both", *seeds, facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Both accuracies on test: of the settings that were chosen, and along three frontiers."""
    number = len(results["parts"])
    rows = 1 if number < 4 else 2
    columns = -(-number // rows)
    figure, panels = pyplot().subplots(
        rows, columns, figsize=(6 * columns, 5 * rows), constrained_layout=True, squeeze=False
    )
    for axes, (part, lines) in zip(panels.flat, results["parts"].items()):
        frontier = part.endswith("frontier")
        for line in () if frontier else lines:
            (new, more), (old, kept) = (_mean_and_margin(line["scores"][key]) for key in ("new", "old"))
            mark, color = MARKS.get(line["name"], (".", "0.6"))
            look = {"fmt": mark, "color": color, "markersize": 8, "elinewidth": 0.6}
            axes.errorbar(new, old, xerr=more, yerr=kept, label=line["name"], **look)
        for kind in (BASELINE, "WiSE-FT", "L2SP") if frontier else ():
            mine = [line for line in lines if line["name"].startswith(kind)]
            if kind != BASELINE:
                # From the fine-tuned weights themselves, which are α = 1 and λ = 0, to those nearest to the pretrained.
                mine = [lines[0], *(mine[::-1] if kind == "WiSE-FT" else mine)]
            places = [[100 * line["mean"][key] for key in ("new", "old")] for line in mine]
            axes.plot(*zip(*places), "o-", label=f"{kind}{'' if kind == BASELINE else f', LR {RATES[-1]:g}'}")
            for line, place in zip(mine, places):
                if line["name"].startswith(kind):
                    axes.annotate(line["name"].removeprefix(kind).strip(", "), place, fontsize=8)
        axes.set(title=part, xlabel="hotels, accuracy in %", ylabel="goods, accuracy in %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="lower left")
    finished(figure, path)


def _mean_and_margin(scores: Sequence[float]) -> tuple[float, float]:
    """The mean in %, and half of its 95 % interval."""
    return paired(100 * np.array(scores), np.zeros(len(scores)))


SHOWN = Shown(
    (Score("new", "hotels", "酒店"), Score("old", "goods", "商品"), Score("both", "mean of both", "二者平均")),
    {
        "constant LR": "恒定学习率",
        "constant LR, for hotels alone": "恒定学习率，只按酒店选",
        **{f"constant LR {lr:g}": f"恒定学习率 {lr:g}" for lr in RATES},
        "head only": "只训练输出层",
        "lower half frozen": "冻结下半部分",
        "discriminative": "分层学习率",
        "goods mixed in 1:1": "1:1 混入商品评论",
        "soup of three LRs": "三个学习率的 soup",
        "decay": "衰减",
    },
    draw,
)
