"""Out of domain: fine-tuned on two kinds of goods, tested on these and on seven others.

A classifier of sentiment that knows hotels gets a new head and 300 reviews of two kinds of goods. Settings are chosen
on dev data of these two alone, as one has to who has nothing of the others (the design of Kumar 2022).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from paddle.io import TensorDataset
from ulmfit.splitting import Examples, labelled_sample, split

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score, Setting, seed_everything
from benchmarks.evidence.docs import Shown, differences
from benchmarks.evidence.texts import HOTEL, LENGTH, WIDTH, Source, accuracy, cut, learnt, reviews, together

BASELINE = "constant LR"
CARRIED = "head carried over, constant LR"
RATES = {"lr": (3e-4, 1e-3, 3e-3)}
PAIRS = (("书籍", "平板"), ("水果", "衣服"))
PICTURED = {"书籍 + 平板": "books + tablets", "水果 + 衣服": "fruit + clothes"}  # not every machine has Chinese letters
REUSED = "seconds without the training, which is that of the row above"
LABELS, EPOCHS = 300, 8

Make = Callable[[Setting], hub.DefaultStrategy]
STRATEGIES: Mapping[str, tuple[Make, Mapping[str, Any]]] = {
    BASELINE: (lambda s: hub.DefaultStrategy(s["lr"]), RATES),
    "head only": (lambda s: hub.PhasedStrategy([hub.Phase("head", learning_rate=s["lr"])]), {"lr": (1e-3, 3e-3, 1e-2)}),
    "LP-FT": (lambda s: hub.LPFTStrategy(1e-2, s["lr"], head_epochs=EPOCHS // 2), RATES),
    "discriminative": (
        lambda s: hub.CombinedStrategy("adam", s["lr"], scheduler={"discriminative": {"factor": 2.6}}),
        RATES,
    ),
    "ULMFiT": (lambda s: hub.ULMFiTStrategy(s["lr"]), RATES),
    "EMA": (
        lambda s: hub.CombinedStrategy("adam", s["lr"], averaging={"EMA": s["decay"]}),
        {**RATES, "decay": (0.95,)},
    ),
    "L2SP": (
        lambda s: hub.L2SPFinetuneStrategy(s["lr"], regularization_coeff=s["λ"]),
        {**RATES, "λ": (0.1, 1.0, 10.0)},
    ),
    CARRIED: (lambda s: hub.DefaultStrategy(s["lr"]), RATES),
}


@dataclass(frozen=True)
class Part:
    """The fine-tuning on two kinds.

    Attributes:
        source: what is known before.
        pool: what labelled samples are drawn from.
        inside: "dev" and "test" of the same two kinds.
        outside: of each other kind.
    """

    source: Source
    pool: Examples
    inside: Mapping[str, TensorDataset]
    outside: Sequence[TensorDataset]
    states: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """Every way to fine-tune, the baseline first."""

        def plain(name: str) -> Callable[[Setting, int, str], dict[str, float]]:
            return lambda setting, seed, split: self.scored(self.trained(name, setting, seed), split)

        made = {name: Row(name, plain(name), grid) for name, (_, grid) in STRATEGIES.items()}
        wise = {**RATES, "α": (0.5,)}
        made["carried, WiSE-FT"] = Row("head carried over, WiSE-FT", self.interpolated, wise, REUSED)
        made["LP-FT, WiSE-FT"] = Row("LP-FT, WiSE-FT", self.interpolated_with_probed, wise)
        return list(made.values())

    def trained(self, name: str, setting: Setting, seed: int) -> nn.Layer:
        """A fine-tuned model; weights with the head carried over are kept, since two rows begin with them."""
        seed_everything(seed)
        model = self.source.model(seed, head=name == CARRIED)
        key = json.dumps([setting, seed])
        if name == CARRIED and key in self.states:
            model.set_state_dict(self.states[key])
            return model
        learner = self.learner(model, seed)
        known = {"pretrained": ["embedding.*", "low.*", "high.*"]} if name == "L2SP" else {}
        learner.fit(EPOCHS, strategy=STRATEGIES[name][0](setting), **known)
        if name == "EMA":
            with learner.run.averaged():
                state = {key: value.clone() for key, value in model.state_dict().items()}
            model.set_state_dict(state)
        if name == CARRIED:
            self.states[key] = {key: value.numpy() for key, value in model.state_dict().items()}
        return model

    def learner(self, model: nn.Layer, seed: int) -> hub.Learner:
        """With labelled reviews of the two kinds."""
        few = self.source.data(labelled_sample(self.pool, [0, 1], min(LABELS, len(self.pool)), seed))
        return hub.Learner(model, few, batch_size=32, progress=False, num_threads=1)

    def interpolated(self, setting: Setting, seed: int, split: str) -> dict[str, float]:
        """WiSE-FT with the model as it was before."""
        model = self.trained(CARRIED, {"lr": setting["lr"]}, seed)
        hub.interpolate(model, self.source.weights[seed % len(self.source.weights)], setting["α"])
        return self.scored(model, split)

    def interpolated_with_probed(self, setting: Setting, seed: int, split: str) -> dict[str, float]:
        """WiSE-FT where there is no head before: with the model whose head alone was trained."""
        model = self.source.model(seed, head=False)
        learner = self.learner(model, seed)
        learner.fit(EPOCHS // 2, strategy=hub.PhasedStrategy([hub.Phase("head", learning_rate=1e-2)]))
        probed = {name: value.clone() for name, value in model.state_dict().items()}
        learner.fit(EPOCHS - EPOCHS // 2, strategy=hub.DefaultStrategy(setting["lr"]))
        hub.interpolate(model, probed, setting["α"])
        return self.scored(model, split)

    def scored(self, model: nn.Layer, split: str) -> dict[str, float]:
        """Accuracy on the two kinds; where it counts, also the mean of those on the others."""
        inside = accuracy(model, self.inside[split])
        if split == "dev":
            return {"inside": inside}
        return {"inside": inside, "outside": float(np.mean([accuracy(model, data) for data in self.outside]))}


def make(options: Options) -> Experiment:
    """Train the source's models, unless that was done, and make the rows."""
    kinds, known = reviews(options), options.target or HOTEL
    if known not in kinds or len(kinds) < 4:
        raise ValueError(f"it takes --target, one of four groups or more; there are {sorted(kinds)}")
    pairs = PAIRS if options.csv is None else (tuple(sorted(set(kinds) - {known})[:2]),)
    models, epochs = (1, 1) if options.quick else (2, 4)
    source = learnt(kinds[known].only(range(min(len(kinds[known]), 6000))), options.folder, models, epochs)
    parts: dict[str, list[Row]] = {}
    facts: dict[str, Any] = {
        "known": known,
        "characters of a review": LENGTH,
        "width": WIDTH,
        "labels": LABELS,
        "epochs": EPOCHS,
        "source models": models,
    }
    for pair in pairs[: 1 if options.quick else None]:
        splits = [split(kinds[kind].texts, kinds[kind].labels.tolist(), seed=0) for kind in pair]
        splits = [cut(one, 200, 400) for one in splits]
        inside = {name: source.data(together([getattr(one, name) for one in splits])) for name in ("dev", "test")}
        pool = together([labelled_sample(one.train, [0, 1], min(len(one.train), 3000), 0) for one in splits])
        others = [kind for kind in sorted(kinds) if kind not in (*pair, known)]
        outside = [source.data(labelled_sample(kinds[kind], [0, 1], min(200, len(kinds[kind])), 0)) for kind in others]
        part = Part(source, pool, inside, outside)
        parts[f"{pair[0]} + {pair[1]}"] = part.rows()
        facts["others"] = {**facts.get("others", {}), f"{pair[0]} + {pair[1]}": others}
    return Experiment(parts, "inside", *((1, 2) if options.quick else (3, 10)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Differences from the constant LR with their intervals, on the two kinds and on the others."""
    parts = {PICTURED.get(part, part): lines for part, lines in results["parts"].items()}
    differences(parts, SHOWN.scores, path)


SHOWN = Shown(
    (Score("inside", "same kinds", "同类商品"), Score("outside", "other kinds", "其他商品")),
    {
        "constant LR": "恒定学习率",
        "head only": "只训练输出层",
        "discriminative": "分层学习率",
        "head carried over, constant LR": "沿用输出层，恒定学习率",
        "head carried over, WiSE-FT": "沿用输出层，WiSE-FT",
        "decay": "衰减",
    },
    draw,
)
