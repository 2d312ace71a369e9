"""The stages of ULMFiT, each with a file for its result: what is finished is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.io import TensorDataset

import paddle_ftstrat as hub
from ulmfit.model import Classifier, LanguageModel, Size
from ulmfit.splitting import Examples
from ulmfit.vocabulary import Vocabulary


@dataclass(frozen=True)
class LanguageRecipe:
    """How a language model is trained.

    Attributes:
        epochs: number of epochs.
        lr: the peak of the slanted triangle.
        window: characters per training sequence.
        batch: sequences per update.
        held_out: share of the texts that only measures.
        seed: of order and initial weights.
    """

    epochs: int
    lr: float
    window: int = 64
    batch: int = 64
    held_out: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class LanguageStage:
    """A finished language model.

    Attributes:
        path: its weights.
        history: results of each epoch; losses in nats per character.
        digest: of everything that the weights depend on.
    """

    path: Path
    history: list[dict[str, float]]
    digest: str


def seed_everything(seed: int) -> None:
    """Make initial weights, order of the samples and dropout depend on the seed alone."""
    paddle.seed(seed)
    np.random.seed(seed)


@dataclass(frozen=True)
class LanguageTrainer:
    """Trains language models of one vocabulary and size, or takes the finished ones from a folder.

    Attributes:
        folder: where `STAGE-DIGEST.safetensors` goes; other texts, settings or weights to start from mean another file.
        vocabulary: the characters.
        size: of the network.
        progress: show progress bars; None: on a terminal.
        num_threads: as for `hub.Learner`; another number rounds otherwise.
    """

    folder: Path
    vocabulary: Vocabulary
    size: Size
    progress: bool | None = None
    num_threads: int | None = None

    def pretrain(self, texts: Sequence[str], recipe: LanguageRecipe) -> LanguageStage:
        """Train from random weights, by a slanted triangle."""
        strategy = hub.CombinedStrategy(
            learning_rate=recipe.lr,
            scheduler={"slanted_triangle": {"cut_fraction": 0.1, "ratio": 32}},
            clip={"GlobalNorm": 1.0},
        )
        return self._finished("pretrained", texts, recipe, strategy, None)

    def adapt(self, texts: Sequence[str], recipe: LanguageRecipe, start: LanguageStage) -> LanguageStage:
        """Train further on the target's texts, each block at its own LR.

        Source: Howard & Ruder (arXiv:1801.06146, section 3.2).
        """
        strategy = hub.ULMFiTStrategy(recipe.lr, frz_blocks=0).add_clip("GlobalNorm", 1.0)
        return self._finished("adapted", texts, recipe, strategy, start)

    def _finished(
        self,
        name: str,
        texts: Sequence[str],
        recipe: LanguageRecipe,
        strategy: hub.DefaultStrategy,
        start: LanguageStage | None,
    ) -> LanguageStage:
        facts = [list(texts), self.vocabulary.characters, asdict(self.size), asdict(recipe), start and start.digest]
        digest = digest_of(*facts)
        path = self.folder / f"{name}-{digest}.safetensors"
        history = path.with_suffix(".json")
        if not (path.exists() and history.exists()):
            model, results = self._train(texts, recipe, strategy, start, path.with_suffix(".checkpoints"))
            write_json(history, results)
            hub.save_pretrained(model, path)
            shutil.rmtree(path.with_suffix(".checkpoints"))
        return LanguageStage(path, json.loads(history.read_text("utf-8")), digest)

    def _train(
        self,
        texts: Sequence[str],
        recipe: LanguageRecipe,
        strategy: hub.DefaultStrategy,
        start: LanguageStage | None,
        checkpoints: Path,
    ) -> tuple[LanguageModel, list[dict[str, float]]]:
        seed_everything(recipe.seed)
        model = LanguageModel(len(self.vocabulary), self.size)
        if start is not None:
            hub.load_pretrained(model, start.path, strict=True)
        train, held_out = (windows(self.vocabulary, part, recipe.window) for part in _held_out(texts, recipe))
        learner = hub.Learner(
            model,
            train,
            held_out,
            batch_size=recipe.batch,
            progress=self.progress,
            checkpoints=hub.Checkpoints(checkpoints, every=100),
            num_threads=self.num_threads,
        )
        return model, learner.fit(recipe.epochs, strategy=strategy)


def pretrained_classifier(vocabulary: Vocabulary, classes: int, size: Size, stage: LanguageStage | None) -> Classifier:
    """A classifier with a language model's encoder and a new head; without a stage, all of it is new."""
    model = Classifier(len(vocabulary), classes, size)
    if stage is not None:
        hub.load_pretrained(model, stage.path, include="encoder")
    return model


def windows(vocabulary: Vocabulary, texts: Sequence[str], length: int) -> TensorDataset:
    """(characters, characters that follow), int64 [length] each."""
    return TensorDataset([paddle.to_tensor(part) for part in vocabulary.windows(texts, length)])


def dataset(vocabulary: Vocabulary, examples: Examples, length: int) -> TensorDataset:
    """(characters [length], class) of labelled texts, cut off at `length`."""
    padded = vocabulary.padded(examples.texts, length)
    return TensorDataset([paddle.to_tensor(padded), paddle.to_tensor(examples.labels.astype("int64"))])


def digest_of(*facts: Any) -> str:
    """Eight characters that change when any of the facts does."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    beside.replace(path)


def _held_out(texts: Sequence[str], recipe: LanguageRecipe) -> tuple[list[str], list[str]]:
    order = np.random.RandomState(recipe.seed).permutation(len(texts))
    # At least as much as a window takes, however short the texts are.
    needed, count = recipe.window + 2, 0
    while count < len(texts) and (needed > 0 or count < recipe.held_out * len(texts)):
        needed -= 1 + len(texts[order[count]])
        count += 1
    return [texts[i] for i in order[count:]], [texts[i] for i in order[:count]]
