"""The image part: a small residual network learns the digits 0–4, then 5–9 from few labelled pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from effectiveness_rows import Row
from effectiveness_scoring import score
from paddle import nn
from paddle.io import TensorDataset
from sklearn.datasets import load_digits
from ulmfit.splitting import Examples, Splits, labelled_sample, split
from ulmfit.stages import digest_of, seed_everything

import paddle_ftstrat as hub
from paddle_ftstrat.tools.runs import Budget, Outcome

BATCH = 5


class ConvNorm(nn.Layer):
    """A convolution of 3×3, batch normalisation, and a rectifier where asked for."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, rectify: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, 3, stride=stride, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(outputs)
        self.rectify = rectify

    def forward(self, x):
        """[batch, outputs, height/stride, width/stride]."""
        x = self.norm(self.conv(x))
        return nn.functional.relu(x) if self.rectify else x


class Residual(nn.Layer):
    """Two convolutions beside a shortcut, as in ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(inputs, outputs, stride), ConvNorm(outputs, outputs, rectify=False))
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2D(inputs, outputs, 1, stride=stride, bias_attr=False)

    def forward(self, x):
        """[batch, outputs, height/stride, width/stride]."""
        beside = x if self.shortcut is None else self.shortcut(x)
        return nn.functional.relu(self.body(x) + beside)


class SmallResNet(nn.Layer):
    """Pictures [batch, 1, 8, 8] → logits [batch, classes]: a stem, three residual blocks, a linear head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16)
        self.blocks = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, pictures):
        """Logits [batch, classes]."""
        return self.head(self.blocks(self.stem(pictures)).mean([2, 3]))


@dataclass(frozen=True)
class ImageTask:
    """Everything that a run of the image part needs.

    Attributes:
        splits: the digits 5–9.
        pictures: every picture [n, 1, 8, 8]; the splits' texts are positions in it.
        weights: what was learnt on the digits 0–4.
        per_class: labelled pictures of each digit.
        budget: what each row gets.
        notes: facts for the table.
    """

    splits: Splits
    pictures: np.ndarray
    weights: Path
    per_class: int
    budget: Budget
    digest: str
    notes: dict[str, object]

    def run(self, row: Row, lr: float, seed: int, final: bool) -> Outcome:
        """Fine-tune once."""
        train = labelled_sample(self.splits.train, self.splits.classes, 5 * self.per_class, seed)
        seed_everything(seed)
        model = SmallResNet(5)
        if row.pretrained:
            hub.load_pretrained(model, self.weights, exclude="head")
        learner = hub.Learner(model, self._dataset(train), batch_size=BATCH, progress=False, num_threads=1)
        started = time.process_time()
        row.train(learner, lr, self.budget.epochs)
        seconds = time.process_time() - started
        return score(learner, seconds, self._of(self.splits.dev), self._of(self.splits.test) if final else None)

    def _dataset(self, examples: Examples) -> TensorDataset:
        positions = [int(position) for position in examples.texts]
        return TensorDataset([paddle.to_tensor(self.pictures[positions]), paddle.to_tensor(examples.labels)])

    def _of(self, examples: Examples) -> tuple[TensorDataset, np.ndarray]:
        return self._dataset(examples), examples.labels


def image_task(folder: Path, budget: Budget, per_class: int = 5, pretraining: int = 15) -> ImageTask:
    """Split the digits, and learn 0–4 for `pretraining` epochs unless that was done."""
    flat, digits = load_digits(return_X_y=True)
    pictures = (flat / 16).astype("float32").reshape(-1, 1, 8, 8)
    high = np.flatnonzero(digits >= 5)
    splits = split([str(i) for i in high], [str(digits[i]) for i in high], seed=0, dev=0.2, test=0.4)
    facts = {
        "pretraining epochs": pretraining,
        "labelled pictures": 5 * per_class,
        "batch": BATCH,
        "epochs": budget.epochs,
    }
    digest = digest_of("digits", facts, budget.grid, paddle.__version__)
    path = folder / f"digits-0-4-{pretraining}-epochs.safetensors"
    if not path.exists():
        _pretrain(pictures[digits < 5], digits[digits < 5], pretraining, path)
    sizes = {"train pool": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)}
    return ImageTask(splits, pictures, path, per_class, budget, digest, {**facts, **sizes})


def _pretrain(pictures: np.ndarray, digits: np.ndarray, epochs: int, path: Path) -> None:
    seed_everything(0)
    model = SmallResNet(5)
    data = TensorDataset([paddle.to_tensor(pictures), paddle.to_tensor(digits.astype("int64"))])
    hub.Learner(model, data, batch_size=32, progress=False, num_threads=1).fit_one_cycle(epochs, 3e-3)
    hub.save_pretrained(model, path)
