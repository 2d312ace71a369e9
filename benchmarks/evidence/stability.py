"""Stability: how often a fine-tuning at a high learning rate fails, and what helps.

A small transformer with LayerNorm after each block, as BERT has it, has learnt the digits 0–4. It gets 50 pictures of
5–9. A run is bad if its accuracy is below the majority class + 5 points.

Source: the design of Mosbach et al. (arXiv:2006.04884) and Zhang et al. (arXiv:2006.05987).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score
from benchmarks.evidence.digits import Digits, accuracy, pretrained, splits
from benchmarks.evidence.docs import Shown

OLD, NEW = tuple(range(5)), tuple(range(5, 10))
RATES, CHOSEN = (1e-2, 2e-2), (1e-3, 3e-3, 1e-2)
PULL = 0.1


class Transformer(nn.Layer):
    """Pictures [batch, 1, 8, 8] → logits [batch, classes]: a token per line of pixels, layers as BERT's, the mean."""

    def __init__(self, classes: int, width: int = 32, layers: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.places = nn.Embedding(8, width)
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, activation="gelu") for _ in range(layers))
        )
        self.head = nn.Linear(width, classes)

    def forward(self, pictures):
        """Logits."""
        return self.head(self.layers(self.embedding(pictures.squeeze(1)) + self.places(paddle.arange(8))).mean(1))


@dataclass(frozen=True)
class Way:
    """One way to fine-tune: a strategy of a learning rate, and how many of the top layers begin anew."""

    name: str
    strategy: Callable[[float], hub.DefaultStrategy]
    anew: int = 0

    def row(self, lr: float | None, epochs: int, weights: Path) -> Row:
        """The row at a learning rate; None: at one that is chosen."""

        def run(setting: Mapping[str, Any], seed: int, split: str) -> dict[str, float]:
            train = moved(splits()["train"].of(NEW).few(10, seed))
            model = Transformer(len(NEW))
            hub.load_pretrained(model, weights, exclude="head.*")
            if self.anew:
                hub.reinitialize(model, self.anew, sample_input=paddle.to_tensor(train.pictures[:1]))
            learner = hub.Learner(model, train.dataset(), batch_size=25, progress=False, num_threads=1)
            scored = moved(splits()[split].of(NEW))
            majority = np.bincount(scored.labels).max() / len(scored.labels)
            try:
                learner.fit(epochs, strategy=self.strategy(setting.get("lr", lr)))
                right = accuracy(model, scored)
            except FloatingPointError:  # the loss is not finite: no better than guessing
                right = 1 / len(NEW)
            return {"bad": float(right < majority + 0.05), "accuracy": right}

        return Row(self.name, run, {} if lr else {"lr": CHOSEN})


def scheduled(lr: float, clip: float | None = None, **scheduler: Any) -> hub.DefaultStrategy:
    """A strategy of a schedule, with gradients clipped where asked for."""
    return hub.CombinedStrategy("adam", lr, scheduler=scheduler, clip={"GlobalNorm": clip} if clip else None)


WARM = {"warmup": 0.1, "linear_decay": {"start_point": 0.1, "end_learning_rate": 0.0}}
WAYS = (
    Way("constant LR", hub.DefaultStrategy),
    Way("warmup + linear to 0", lambda lr: scheduled(lr, **WARM)),
    Way("clip by norm 1", lambda lr: scheduled(lr, 1.0)),
    Way("warmup, linear to 0, clip", lambda lr: scheduled(lr, 1.0, **WARM)),
    Way(f"L2SP, λ = {PULL}", lambda lr: hub.L2SPFinetuneStrategy(lr, regularization_coeff=PULL)),
    Way("top layer re-initialised", hub.DefaultStrategy, anew=2),
    Way("LR by depth, × 0.65", lambda lr: scheduled(lr, layer_decay=0.65)),
)


def moved(digits: Digits) -> Digits:
    """The digits 5–9 under the labels 0–4."""
    return Digits(digits.pictures, digits.labels - len(OLD))


def make(options: Options) -> Experiment:
    """Every way at two high learning rates, and at the one that is best for it."""
    quick = options.quick
    path = options.folder / f"digits-transformer{'-quick' if quick else ''}.safetensors"
    weights = pretrained(path, lambda: Transformer(len(OLD)), splits()["source"].of(OLD), 2 if quick else 30)
    epochs = 2 if quick else 15
    parts = {f"LR {lr:g}": [way.row(lr, epochs, weights) for way in WAYS] for lr in (RATES[:1] if quick else RATES)}
    parts["LR chosen on dev"] = [way.row(None, epochs, weights) for way in WAYS]
    facts = {
        "pretrained on": int((splits()["source"].labels < 5).sum()),
        "labels": 50,
        "batch": 25,
        "epochs": epochs,
        "optimizer": "adam",
        "bad": "below majority + 5 points",
    }
    return Experiment(parts, "accuracy", *((1, 2) if quick else (3, 20)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """The accuracy of every run, a panel per learning rate; the bad ones in red."""
    from paddle_ftstrat.pictures import finished, pyplot

    parts = results["parts"]
    figure, panels = pyplot().subplots(
        1, len(parts), figsize=(3.4 * len(parts), 4), sharey=True, constrained_layout=True, squeeze=False
    )
    for axes, (part, lines) in zip(panels[0], parts.items()):
        for height, line in zip(range(len(lines))[::-1], lines):
            right, bad = 100 * np.array(line["scores"]["accuracy"]), np.array(line["scores"]["bad"]) > 0
            heights = height + np.linspace(-0.25, 0.25, len(right))
            axes.plot(right[~bad], heights[~bad], ".", color="C0", alpha=0.7)
            axes.plot(right[bad], heights[bad], ".", color="C3")
            axes.annotate(f"{100 * bad.mean():.0f} %", (1.0, height), xycoords=("axes fraction", "data"), fontsize=8)
        axes.set_title(part, fontsize=10)
        axes.set_xlim(0, 100)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(lines))[::-1], [line["name"] for line in lines])
    figure.supxlabel("test accuracy of each run, %; beside it the share of bad runs")
    finished(figure, path)


SHOWN = Shown(
    (Score("bad", "bad runs", "失败的运行", digits=0), Score("accuracy", "accuracy", "准确率")),
    {
        "constant LR": "恒定学习率",
        "warmup + linear to 0": "预热 + 线性降到 0",
        "clip by norm 1": "按范数 1 裁剪",
        "warmup, linear to 0, clip": "预热、线性降到 0、裁剪",
        f"L2SP, λ = {PULL}": f"L2SP，λ = {PULL}",
        "top layer re-initialised": "顶层重新初始化",
        "LR by depth, × 0.65": "逐层学习率，× 0.65",
        "LR chosen on dev": "在验证集上选的学习率",
        "LR 0.01": "学习率 0.01",
        "LR 0.02": "学习率 0.02",
    },
    draw,
)
