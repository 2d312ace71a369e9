"""Surgical fine-tuning: which layers to train when the pictures, or what they are called, have changed.

A small ResNet has learnt clean digits. It gets a few labels of changed ones; which layers train is the row.

Source: the design of Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (arXiv:2210.11466).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score
from benchmarks.evidence.digits import DEV, SOURCE, TEST, Digits, SmallResNet, accuracy, pretrained, splits
from benchmarks.evidence.docs import Shown

RATES = (1e-3, 3e-3, 1e-2)


def noisy(pictures: np.ndarray, seed: int) -> np.ndarray:
    """With Gaussian noise of standard deviation 0.3."""
    drawn = pictures + np.random.RandomState(seed).normal(0, 0.3, pictures.shape)
    return drawn.clip(0, 1).astype("float32")


def blurred(pictures: np.ndarray, seed: int) -> np.ndarray:
    """Each pixel the mean of the 3×3 around it, twice."""
    for _ in range(2):
        wide = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        pictures = sum(wide[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9
    return pictures.astype("float32")


CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "noise": noisy,
    "blur": blurred,
    "contrast": lambda pictures, seed: 0.5 + 0.15 * (pictures - 0.5),
    "shift": lambda pictures, seed: np.roll(pictures, (2, 2), (2, 3)),
    "inversion": lambda pictures, seed: 1 - pictures,
    "other names": lambda pictures, seed: pictures,
}
WAYS: dict[str, Any] = {
    "all layers": "all",
    "first block": ["stem.*", "blocks.0.*"],
    "middle block": ["blocks.1.*"],
    "last block": ["blocks.2.*"],
    "head": "head",
    "BitFit": ["bias", "head"],
}


def changed(data: Digits, change: str, seed: int) -> Digits:
    """The digits after one of CHANGES; under "other names" every class has the next one's label."""
    labels = (data.labels + 1) % 10 if change == "other names" else data.labels
    return Digits(CHANGES[change](data.pictures, seed).astype("float32"), labels)


def strategy_of(way: str, lr: float) -> hub.DefaultStrategy:
    """A constant LR on the layers that train."""
    return hub.PhasedStrategy([hub.Phase(WAYS[way])], learning_rate=lr) if way in WAYS else hub.DefaultStrategy(lr)


def row(way: str, change: str, per_class: int, epochs: int, weights: Path) -> Row:
    """One way to fine-tune on one change."""

    def run(setting: Mapping[str, Any], seed: int, split: str) -> dict[str, float]:
        train = changed(splits()["train"].few(per_class, seed), change, seed)
        model = SmallResNet(10)
        hub.load_pretrained(model, weights)
        if way != "as it was":
            learner = hub.Learner(model, train.dataset(), batch_size=10, progress=False, num_threads=1)
            callbacks = hub.AutoRGN(batches=2) if way == "auto-RGN" else ()
            learner.fit(epochs, strategy=strategy_of(way, setting["lr"]), cbs=callbacks)
        return {"accuracy": accuracy(model, changed(splits()[split], change, 777))}

    return Row(way, run, {} if way == "as it was" else {"lr": RATES})


def make(options: Options) -> Experiment:
    """Six changes, with 50 labels each."""
    per_class, epochs = 5, 2 if options.quick else 8
    changes = list(CHANGES)[:2] if options.quick else list(CHANGES)
    path = options.folder / f"digits-resnet{'-quick' if options.quick else ''}.safetensors"
    weights = pretrained(path, lambda: SmallResNet(10), splits()["source"], 2 if options.quick else 15)
    ways = [*WAYS, "auto-RGN", "as it was"]
    parts = {change: [row(way, change, per_class, epochs, weights) for way in ways] for change in changes}
    facts = {
        "pretrained on": SOURCE, "labels": 10 * per_class, "batch": 10, "epochs": epochs, "optimizer": "adam",
        "dev": DEV, "test": TEST,
    }  # fmt: skip
    return Experiment(parts, "accuracy", *((1, 2) if options.quick else (3, 10)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Differences from training all layers, a panel per change."""
    from paddle_ftstrat.pictures import finished, pyplot

    parts = results["parts"]
    figure, panels = pyplot().subplots(2, 3, figsize=(11, 6), sharey=True, constrained_layout=True)
    for axes, (change, lines) in zip(panels.flat, parts.items()):
        shown = lines[1:-1]
        differences, margins = (np.array([line["difference"]["accuracy"][i] for line in shown]) * 100 for i in (0, 1))
        heights = np.arange(len(shown))[::-1]
        clear = np.abs(differences) > margins
        for mark, style in ((clear, {"color": "C0"}), (~clear, {"color": "0.6"})):
            axes.errorbar(differences[mark], heights[mark], xerr=margins[mark], fmt="o", capsize=3, **style)
        axes.axvline(0, color="0.5", lw=1)
        axes.set_yticks(heights, [line["name"] for line in shown])
        axes.set_title(f"{change} (all layers: {100 * lines[0]['mean']['accuracy']:.0f} %)")
        axes.grid(axis="x", alpha=0.3)
    figure.supxlabel("accuracy less that of training all layers, points, 95 % interval")
    finished(figure, path)


SHOWN = Shown(
    (Score("accuracy", "accuracy", "准确率"),),
    {
        "noise": "噪声",
        "blur": "模糊",
        "contrast": "对比度",
        "shift": "平移",
        "inversion": "反色",
        "other names": "换了名称",
        "all layers": "全部层",
        "first block": "第一块",
        "middle block": "中间块",
        "last block": "最后一块",
        "head": "输出层",
        "as it was": "不微调",
    },
    draw,
)
