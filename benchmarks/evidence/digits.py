"""The handwritten digits of scikit-learn for the experiments on pictures: splits, a small network, what it knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import TensorDataset
from sklearn.datasets import load_digits

import paddle_ftstrat as hub
from benchmarks.evidence.core import seed_everything

DEV, TEST, SOURCE = 200, 500, 600


@dataclass(frozen=True)
class Digits:
    """Pictures [n, 1, 8, 8] in [0, 1] and labels [n]."""

    pictures: np.ndarray
    labels: np.ndarray

    def only(self, wanted: np.ndarray) -> Digits:
        """The samples at these positions (indices or mask)."""
        return Digits(self.pictures[wanted], self.labels[wanted])

    def of(self, classes: Sequence[int]) -> Digits:
        """Those of some classes."""
        return self.only(np.isin(self.labels, classes))

    def few(self, per_class: int, seed: int) -> Digits:
        """So many of each class, drawn by a seed."""
        order = np.random.RandomState(seed).permutation(len(self.labels))
        return self.only(np.concatenate([order[self.labels[order] == c][:per_class] for c in np.unique(self.labels)]))

    def dataset(self) -> TensorDataset:
        """As a Paddle Dataset of (picture, label)."""
        return TensorDataset([paddle.to_tensor(self.pictures), paddle.to_tensor(self.labels)])


@lru_cache
def splits() -> dict[str, Digits]:
    """No picture is in two of "source" (to pretrain on), "train" (labels are drawn from it), "dev" and "test"."""
    pictures, labels = load_digits(return_X_y=True)
    everything = Digits((pictures / 16).astype("float32").reshape(-1, 1, 8, 8), labels.astype("int64"))
    order = np.random.RandomState(0).permutation(len(labels))
    parts = np.split(order, np.cumsum([DEV, TEST, SOURCE]))
    return {name: everything.only(part) for name, part in zip(("dev", "test", "source", "train"), parts)}


class ConvNorm(nn.Layer):
    """A convolution of 3×3, group normalisation, and a rectifier where asked for.

    BatchNorm's statistics would adapt to new pictures in every row alike, and blur what training a layer does.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, rectify: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.GroupNorm(4, outputs)
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
    """Pictures [batch, 1, height, width] → logits [batch, classes]: a stem, three residual blocks, a linear head."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = ConvNorm(1, width)
        self.blocks = nn.Sequential(
            Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, pictures):
        """Logits [batch, classes]."""
        return self.head(self.blocks(self.stem(pictures)).mean([2, 3]))


def pretrained(
    path: Path, make: Callable[[], nn.Layer], data: Digits, epochs: int, lr: float = 3e-3, loss: Any = None
) -> Path:
    """The weights of a model that has learnt from some data, trained unless the file is there."""
    if not path.exists():
        seed_everything(0)
        learner = hub.Learner(make(), data.dataset(), loss=loss, batch_size=32, progress=False, num_threads=1)
        learner.fit_one_cycle(epochs, lr)
        hub.save_pretrained(learner.model, path)
    return path


def accuracy(model: nn.Layer, data: Digits) -> float:
    """The share of pictures whose class is the likeliest of all."""
    model.eval()
    with paddle.no_grad():
        right = model(paddle.to_tensor(data.pictures)).argmax(-1).numpy() == data.labels
    return float(right.mean())
