"""Reviews by kind of goods, and a small classifier of their sentiment that is trained on some kinds once and kept."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import TensorDataset
from ulmfit.splitting import Examples, Splits, essence
from ulmfit.stages import digest_of
from ulmfit.tables import read_table
from ulmfit.vocabulary import Vocabulary

import paddle_ftstrat as hub
from benchmarks.evidence.core import Options, seed_everything
from paddle_ftstrat import _files

GOODS, HOTELS, HOTEL = "online_shopping_10_cats", "ChnSentiCorp_htl_all.csv", "酒店"
LENGTH, WIDTH = 48, 32


class Reader(nn.Layer):
    """Characters [batch, length] → logits [batch, classes]: an embedding, two convolutions, pooling."""

    def __init__(self, characters: int, classes: int = 2, width: int = WIDTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.low = nn.Sequential(nn.Conv1D(width, width, 3, padding=1, data_format="NLC"), nn.ReLU())
        self.high = nn.Sequential(nn.Conv1D(width, width, 3, padding=1, data_format="NLC"), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, characters: Any) -> Any:
        """Logits [batch, classes]."""
        x = self.low(self.embedding(characters))
        x = x + self.high(x)
        # x.max(1) would do; its backward takes 60 times as long on the CPU.
        largest = nn.functional.adaptive_max_pool1d(x.transpose([0, 2, 1]), 1).squeeze(2)
        return self.head(self.dropout(paddle.concat([largest, x.mean(1)], -1)))


def reviews(options: Options) -> dict[str, Examples]:
    """Kind of goods → its reviews with the sentiment 0 or 1, none of them twice, in an order that looks random.

    Raises:
        ValueError: neither a folder of data nor a CSV file was given, or there are other than two labels.
    """
    if options.csv is not None:
        tables = [(read_table(options.csv), read_table(options.csv, label="group").labels)]
    elif options.data is not None:
        path = options.data / f"{GOODS}.csv"
        if not path.exists():
            path = options.folder / f"{GOODS}.csv"
        if not path.exists():
            options.folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(options.data / f"{GOODS}.zip") as archive, _files.replacing(path) as file:
                file.write(archive.read(path.name))
        hotels = read_table(options.data / HOTELS)
        # The hotels among the goods are mostly the same reviews: of equal ones the first stays.
        tables = [(hotels, [HOTEL] * len(hotels.texts)), (read_table(path), read_table(path, label="cat").labels)]
    else:
        raise ValueError("this experiment needs --data, the folder of the reviews, or --csv, your own")
    first: dict[str, tuple[str, str, str]] = {}
    for table, groups in tables:
        if len(groups) != len(table.texts):
            raise ValueError(f"{table.path}: every row needs a text, a label and a group. {table.summary()}")
        for text, label, group in zip(table.texts, table.labels, groups):
            if options.csv is not None or group != HOTEL or table is tables[0][0]:
                first.setdefault(essence(text), (text, label, group))
    classes = sorted({label for _, label, _ in first.values()})
    if len(classes) != 2:
        raise ValueError(f"the sentiment has two labels, but there are {classes}")
    kinds: dict[str, list[tuple[str, int]]] = {}
    for text, label, group in sorted(first.values(), key=lambda row: digest_of(row[0])):
        kinds.setdefault(group, []).append((text, classes.index(label)))
    return {
        kind: Examples([text for text, _ in rows], np.array([label for _, label in rows], np.int64))
        for kind, rows in kinds.items()
    }


def cut(splits: Splits, dev: int, test: int) -> Splits:
    """With at most so many examples to choose and to report on."""
    shown = splits.dev.only(range(min(dev, len(splits.dev)))), splits.test.only(range(min(test, len(splits.test))))
    return Splits(splits.classes, splits.train, *shown, splits.repeats)


def together(parts: Sequence[Examples]) -> Examples:
    """All examples of several data sets."""
    return Examples([text for part in parts for text in part.texts], np.concatenate([part.labels for part in parts]))


@dataclass(frozen=True)
class Source:
    """What models know before they are fine-tuned.

    Attributes:
        vocabulary: the characters.
        weights: files of models that were trained with different seeds.
    """

    vocabulary: Vocabulary
    weights: Sequence[Path]

    def data(self, examples: Examples) -> TensorDataset:
        """(characters [LENGTH], label)."""
        padded = self.vocabulary.padded(examples.texts, LENGTH)
        return TensorDataset([paddle.to_tensor(padded), paddle.to_tensor(examples.labels)])

    def model(self, seed: int, head: bool = True) -> Reader:
        """A model that has learnt the source; without `head`, with a new one."""
        model = Reader(len(self.vocabulary))
        hub.load_pretrained(model, self.weights[seed % len(self.weights)], exclude=None if head else "head.*")
        return model


def learnt(train: Examples, folder: Path, seeds: int, epochs: int) -> Source:
    """Models that were trained on a source by one-cycle, or the finished ones from a folder."""
    vocabulary = Vocabulary.of(train.texts, at_least=5, at_most=2000)
    digest = digest_of(train.texts, train.labels.tolist(), epochs, LENGTH, WIDTH, paddle.__version__)
    paths = [folder / f"reader-{digest}-{seed}.safetensors" for seed in range(seeds)]
    source = Source(vocabulary, paths)
    for seed, path in enumerate(paths):
        if not path.exists():
            seed_everything(seed)
            model = Reader(len(vocabulary))
            learner = hub.Learner(model, source.data(train), batch_size=64, num_threads=1)
            learner.fit_one_cycle(epochs, 3e-3)
            hub.save_pretrained(model, path)
    return source


def accuracy(model: nn.Layer, data: TensorDataset) -> float:
    """The share of labels that a model gets right."""
    characters, labels = data.tensors
    model.eval()
    with paddle.no_grad():
        parts = [model(characters[at : at + 250]).argmax(1) for at in range(0, len(labels), 250)]
    return float((paddle.concat(parts).numpy() == labels.numpy()).mean())
