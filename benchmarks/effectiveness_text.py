"""The text part: a language model of Chinese reviews of goods, then the sentiment of hotel reviews from few labels."""

from __future__ import annotations

import time
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import paddle
from effectiveness_rows import Row
from effectiveness_scoring import score
from ulmfit.model import Size
from ulmfit.splitting import Splits, labelled_sample, split, without
from ulmfit.stages import (
    LanguageRecipe,
    LanguageStage,
    LanguageTrainer,
    dataset,
    digest_of,
    pretrained_classifier,
    seed_everything,
)
from ulmfit.tables import read_table
from ulmfit.vocabulary import Vocabulary

import paddle_ftstrat as hub
from paddle_ftstrat.tools.runs import Budget, Outcome

GOODS, HOTELS = "online_shopping_10_cats", "ChnSentiCorp_htl_all.csv"
HOTEL = "酒店"


@dataclass(frozen=True)
class TextSettings:
    """What the text part does.

    Attributes:
        pretrain: how the language model is trained on reviews of goods.
        adapt: how it is trained on hotel reviews.
        texts: at most so many reviews of goods; None: all.
        labels: labelled hotel reviews of each run.
        length: characters of a review that are read.
        batch: reviews per update.
        dev, test: at most so many reviews of each; None: all.
        size: of the networks.
    """

    pretrain: LanguageRecipe
    adapt: LanguageRecipe
    texts: int | None = None
    labels: int = 500
    length: int = 128
    batch: int = 32
    dev: int | None = None
    test: int | None = None
    size: Size = field(default_factory=Size)


@dataclass(frozen=True)
class TextTask:
    """Everything that a run of the text part needs."""

    splits: Splits
    vocabulary: Vocabulary
    stage: LanguageStage
    settings: TextSettings
    budget: Budget
    digest: str
    notes: dict[str, object]

    def run(self, row: Row, lr: float, seed: int, final: bool) -> Outcome:
        """Fine-tune once."""
        train = labelled_sample(self.splits.train, self.splits.classes, self.settings.labels, seed)
        seed_everything(seed)
        stage = self.stage if row.pretrained else None
        model = pretrained_classifier(self.vocabulary, len(self.splits.classes), self.settings.size, stage)
        learner = hub.Learner(
            model, self._dataset(train), batch_size=self.settings.batch, progress=False, num_threads=1
        )
        started = time.process_time()
        row.train(learner, lr, self.budget.epochs)
        seconds = time.process_time() - started
        dev, test = self.splits.dev, self.splits.test
        tested = (self._dataset(test), test.labels) if final else None
        return score(learner, seconds, (self._dataset(dev), dev.labels), tested)

    def _dataset(self, examples):
        return dataset(self.vocabulary, examples, self.settings.length)


def text_task(data: Path, folder: Path, budget: Budget, settings: TextSettings) -> TextTask:
    """Read and split the reviews, and train the language model unless that was done.

    Raises:
        FileNotFoundError: a file is missing in `data`.
    """
    hotels = read_table(data / HOTELS)
    splits = split(hotels.texts, hotels.labels, seed=0)
    goods, notes = _goods(data, folder, hotels.texts)
    goods = goods[: settings.texts]
    vocabulary = Vocabulary.of([*goods, *splits.train.texts], at_least=5, at_most=1500)
    trainer = LanguageTrainer(folder, vocabulary, settings.size, num_threads=1)
    start = trainer.pretrain(goods, settings.pretrain)
    stage = trainer.adapt(splits.train.texts[: settings.texts], settings.adapt, start)
    cut = Splits(
        splits.classes,
        splits.train,
        splits.dev.only(range(len(splits.dev))[: settings.dev]),
        splits.test.only(range(len(splits.test))[: settings.test]),
        splits.repeats,
    )
    notes |= {
        "reviews of goods": len(goods),
        "characters known": len(vocabulary),
        "hotel reviews dropped as repeats": splits.repeats,
        "train pool": len(cut.train),
        "dev": len(cut.dev),
        "test": len(cut.test),
        "loss after pretraining, nats per character": round(start.history[-1]["valid_loss"], 3),
        "loss after adapting": round(stage.history[-1]["valid_loss"], 3),
        "settings": asdict(settings),
    }
    digest = digest_of(stage.digest, asdict(settings), budget.epochs, budget.grid, paddle.__version__)
    return TextTask(cut, vocabulary, stage, settings, budget, digest, notes)


def _goods(data: Path, folder: Path, hotels: list[str]) -> tuple[list[str], dict[str, object]]:
    """Reviews of goods, without repeats and without anything that stands among the hotel reviews."""
    path = data / f"{GOODS}.csv"
    if not path.exists():
        path = folder / f"{GOODS}.csv"
        with zipfile.ZipFile(data / f"{GOODS}.zip") as archive:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(path.name))
    table = read_table(path, label="cat")
    texts = [text for text, kind in zip(table.texts, table.labels) if kind != HOTEL]
    kept, repeats, shared = without(texts, hotels)
    order = sorted(range(len(kept)), key=lambda i: digest_of(kept[i]))
    facts = {"reviews of goods dropped as repeats": repeats, "dropped because among the hotel reviews": shared}
    return [kept[i] for i in order], facts
