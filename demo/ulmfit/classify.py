"""The last stage: a classifier from few labels, with a file for its result."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import paddle_ftstrat as hub
from ulmfit.model import Size
from ulmfit.splitting import Splits, labelled_sample
from ulmfit.stages import LanguageStage, dataset, digest_of, pretrained_classifier, seed_everything, write_json
from ulmfit.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained.

    Attributes:
        epochs: number of epochs.
        lr: the peak of the slanted triangle.
        length: characters of a text that are read.
        batch: texts per update.
        seed: of the labelled sample, the new head, and the order.
    """

    epochs: int
    lr: float
    length: int = 128
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class ClassifierStage:
    """A finished classifier.

    Attributes:
        path: its weights.
        test: accuracy on test.
        losses: training loss of each update.
        epochs: results of each epoch.
    """

    path: Path
    test: float
    losses: list[float]
    epochs: list[dict[str, float]]


def strategy_of(recipe: ClassifierRecipe, pretrained: bool) -> hub.DefaultStrategy:
    """ULMFiT on pretrained weights; on random ones its triangle alone: there is nothing to keep."""
    if pretrained:
        return hub.ULMFiTStrategy(recipe.lr)
    return hub.ULMFiTStrategy(recipe.lr, dis_blocks=0, frz_blocks=0)


def train_classifier(
    folder: Path,
    splits: Splits,
    labels: int,
    vocabulary: Vocabulary,
    size: Size,
    recipe: ClassifierRecipe,
    start: LanguageStage | None,
    progress: bool | None = None,
) -> ClassifierStage:
    """Fine-tune a classifier on some labels, or take the finished one from `folder`.

    Args:
        folder: where `classifier-LABELS-DIGEST.safetensors` goes.
        splits: the labelled texts.
        labels: how many of them to train on.
        vocabulary: the characters.
        size: of the network.
        recipe: how to train.
        start: the language model; None trains from random weights.
        progress: show progress bars; None: on a terminal.

    Raises:
        ValueError: there are not so many labels, or too few for every class.
    """
    train = labelled_sample(splits.train, splits.classes, labels, recipe.seed)
    texts = [train.texts, splits.dev.texts, splits.test.texts, vocabulary.characters]
    digest = digest_of(texts, splits.classes, asdict(size), asdict(recipe), start and start.digest)
    path = folder / f"classifier-{labels}-{digest}.safetensors"
    facts = path.with_suffix(".json")
    if path.exists() and facts.exists():
        return ClassifierStage(path, **json.loads(facts.read_text("utf-8")))
    seed_everything(recipe.seed)
    model = pretrained_classifier(vocabulary, len(splits.classes), size, start)
    learner = hub.Learner(
        model,
        dataset(vocabulary, train, recipe.length),
        dataset(vocabulary, splits.dev, recipe.length),
        metrics="acc",
        batch_size=recipe.batch,
        progress=progress,
        checkpoints=hub.Checkpoints(path.with_suffix(".checkpoints"), every=20),
    )
    epochs = learner.fit(recipe.epochs, strategy=strategy_of(recipe, start is not None))
    test = learner.validate(dataset(vocabulary, splits.test, recipe.length))["acc"]
    found: dict[str, Any] = {"test": test, "losses": learner.recorder.losses, "epochs": epochs}
    write_json(facts, found)
    hub.save_pretrained(model, path)
    shutil.rmtree(path.with_suffix(".checkpoints"))
    return ClassifierStage(path, **found)


def plan_of(
    splits: Splits,
    labels: int,
    vocabulary: Vocabulary,
    size: Size,
    recipe: ClassifierRecipe,
    start: LanguageStage,
) -> hub.Binding:
    """The binding of a classifier's fine-tuning, for its picture and its table."""
    model = pretrained_classifier(vocabulary, len(splits.classes), size, start)
    sample = dataset(vocabulary, splits.dev.only([0]), recipe.length)[0][0].unsqueeze(0)
    per_epoch = int(np.ceil(labels / recipe.batch))
    return strategy_of(recipe, True).bind(
        model, num_epoch=recipe.epochs, steps_per_epoch=per_epoch, sample_input=sample
    )
