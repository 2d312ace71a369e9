"""ULMFiT and its parts: a language model of reviews of goods, then the sentiment of hotels from 500 labels.

Fused updates and the CPU's own kernels are on, as they are by default; LRs come from a grid that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from paddle.io import TensorDataset
from ulmfit.model import Size
from ulmfit.splitting import Splits, labelled_sample, split
from ulmfit.stages import LanguageRecipe, LanguageStage, LanguageTrainer, dataset, pretrained_classifier
from ulmfit.vocabulary import Vocabulary

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score, Setting
from benchmarks.evidence.docs import Shown, differences
from benchmarks.evidence.texts import HOTEL, cut, reviews

BASELINE = "constant LR"
RATES = {"lr": (3e-3, 1e-2, 3e-2)}
LABELS, EPOCHS, LENGTH = 500, 6, 64
SIZE = Size(width=64)

Fit = Callable[[Any, float], Any]


def _strategy(make: Callable[[float], hub.DefaultStrategy]) -> Fit:
    return lambda learner, lr: learner.fit(EPOCHS, strategy=make(lr))


def _scheduled(**scheduler: Any) -> Fit:
    return _strategy(lambda lr: hub.CombinedStrategy(learning_rate=lr, scheduler=scheduler))


WAYS: Mapping[str, Fit] = {
    BASELINE: _strategy(hub.DefaultStrategy),
    "warmup + linear to 0": _scheduled(warmup=0.1, linear_decay={"start_point": 0.1}),
    "slanted triangle": _scheduled(slanted_triangle={"cut_fraction": 0.1, "ratio": 32}),
    "discriminative, 3 blocks": _scheduled(discriminative={"blocks": 3, "factor": 2.6}),
    "gradual unfreezing, 3 blocks": _scheduled(gradual_unfreeze=3),
    "ULMFiT": _strategy(hub.ULMFiTStrategy),
    "from scratch": _strategy(hub.DefaultStrategy),
}


@dataclass(frozen=True)
class Task:
    """The hotels, and the language model that has read about goods and hotels."""

    splits: Splits
    vocabulary: Vocabulary
    stage: LanguageStage

    def row(self, name: str) -> Row:
        """One way to fine-tune."""

        def run(setting: Setting, seed: int, split: str) -> dict[str, float]:
            few = labelled_sample(self.splits.train, self.splits.classes, LABELS, seed)
            stage = None if name == "from scratch" else self.stage
            model = pretrained_classifier(self.vocabulary, len(self.splits.classes), SIZE, stage)
            data = dataset(self.vocabulary, few, LENGTH)
            learner = hub.Learner(model, data, batch_size=32, progress=False, num_threads=1)
            WAYS[name](learner, setting["lr"])
            data, labels = self.measured[split]
            return {"accuracy": float((learner.predict(data).argmax(1).numpy() == labels).mean())}

        return Row(name, run, RATES)

    @cached_property
    def measured(self) -> dict[str, tuple[TensorDataset, np.ndarray]]:
        """Dev and test: texts and labels."""
        parts = {"dev": self.splits.dev, "test": self.splits.test}
        return {name: (dataset(self.vocabulary, part, LENGTH), part.labels) for name, part in parts.items()}


def make(options: Options) -> Experiment:
    """Train the language model, unless that was done, and make the rows."""
    kinds = reviews(options)
    hotels = split(kinds[HOTEL].texts, kinds[HOTEL].labels.tolist(), seed=0)
    hotels = cut(hotels, *((200, 400) if options.quick else (500, 1000)))
    goods = [text for kind, part in kinds.items() if kind != HOTEL for text in part.texts]
    goods = [goods[at] for at in np.random.RandomState(0).permutation(len(goods))[: 2000 if options.quick else 24_000]]
    vocabulary = Vocabulary.of([*goods, *hotels.train.texts], at_least=5, at_most=1500)
    trainer = LanguageTrainer(options.folder, vocabulary, SIZE, num_threads=1)
    start = trainer.pretrain(goods, LanguageRecipe(epochs=1 if options.quick else 2, lr=1e-2))
    adapting = LanguageRecipe(epochs=1 if options.quick else 3, lr=5e-3)
    stage = trainer.adapt(hotels.train.texts[: 1000 if options.quick else None], adapting, start)
    facts = {
        "labels": LABELS,
        "epochs": EPOCHS,
        "characters of a review": LENGTH,
        "width": SIZE.width,
        "reviews of goods": len(goods),
        "reviews of hotels, without labels": len(hotels.train),
        "dev": len(hotels.dev),
        "test": len(hotels.test),
        "loss after pretraining, nats per character": round(start.history[-1]["valid_loss"], 3),
        "loss after adapting": round(stage.history[-1]["valid_loss"], 3),
    }
    task = Task(hotels, vocabulary, stage)
    rows = [task.row(name) for name in WAYS]
    return Experiment({"reviews": rows}, "accuracy", *((1, 2) if options.quick else (3, 10)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Differences from the constant LR with their intervals."""
    differences({"hotels, 500 labels": results["parts"]["reviews"]}, SHOWN.scores[:1], path)


SHOWN = Shown(
    (Score("accuracy", "accuracy", "准确率"),),
    {
        "constant LR": "恒定学习率",
        "warmup + linear to 0": "预热 + 线性降到 0",
        "slanted triangle": "斜三角学习率",
        "discriminative, 3 blocks": "分层学习率，3 块",
        "gradual unfreezing, 3 blocks": "逐层解冻，3 块",
        "ULMFiT": "ULMFiT（完整）",
        "from scratch": "从零训练，恒定学习率",
    },
    draw,
)
