"""What reusing frozen features saves: an epoch of a transformer whose lower two thirds are frozen.

    PYTHONPATH=. python benchmarks/bench_features.py [--quick]

Six encoder layers above an embedding, the lower four and the embedding frozen. An epoch is a shuffled pass of forward,
backward and Adam. The third alone is the upper two layers and the head as a model of their own, fed from memory with
what the frozen layers give, with an optimizer of their own: nothing that is cached can cost less. A cached epoch
includes everything it does: the digest of the frozen weights, the keys of the samples, two samples computed anew.
Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from common import interleaved, report
from paddle import nn

from paddle_ftstrat._paddle import threads
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.param_attr.freezing import freeze
from paddle_ftstrat.param_attr.select import named_weights
from paddle_ftstrat.training.frozen_features import FrozenFeatures

VOCABULARY = 8000
FROZEN = ["embedding", *(f"body.layers.{i}" for i in range(4))]
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """How large the model, its data and their batches are."""

    width: int
    length: int
    samples: int
    batch: int
    rounds: int


FULL = Size(width=256, length=64, samples=128, batch=8, rounds=7)
QUICK = Size(width=32, length=8, samples=16, batch=4, rounds=3)


class Transformer(nn.Layer):
    """Embedding, 6 encoder layers without dropout, a classifier of the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(width, width // 32 or 1, 4 * width, dropout=0.0)
        self.body = nn.TransformerEncoder(layer, 6)
        self.head = nn.Linear(width, 4)

    def below(self, ids: Any) -> Any:
        """Token ids [batch, length] → what the frozen layers return [batch, length, width]."""
        hidden = self.embedding(ids)
        for layer in list(self.body.layers)[:4]:
            hidden = layer(hidden)
        return hidden

    def forward(self, ids: Any) -> Any:
        """Token ids [batch, length] → logits [batch, 4]."""
        return self.head(self.body(self.embedding(ids)).mean(1))


class Third(nn.Layer):
    """The upper two layers and the head of a transformer."""

    def __init__(self, whole: Transformer) -> None:
        super().__init__()
        self.layers = nn.LayerList(list(whole.body.layers)[4:])
        self.head = whole.head

    def forward(self, hidden: Any) -> Any:
        """What the frozen layers return [batch, length, width] → logits [batch, 4]."""
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.mean(1))


class Epochs:
    """Epochs of the same model over the same samples, computed in several ways."""

    def __init__(self, size: Size) -> None:
        paddle.seed(0)
        self.size = size
        self.model = Transformer(size.width)
        freeze(self.model, FROZEN)
        self.model.train()
        self.third = Third(self.model)
        self.frozen = {name for name, param in named_weights(self.model).items() if param.stop_gradient}
        self.ids = np.random.RandomState(0).randint(0, VOCABULARY, [size.samples, size.length])
        self.random = np.random.RandomState(0)
        self.of_model = paddle.optimizer.Adam(1e-4, parameters=self.model.parameters())
        self.of_third = paddle.optimizer.Adam(1e-4, parameters=self.third.parameters())
        batches = range(0, size.samples, size.batch)
        with paddle.no_grad():
            self.hidden = [self.model.below(self.batch(np.arange(i, i + size.batch))) for i in batches]

    def batch(self, rows: np.ndarray) -> Any:
        """The token ids of some samples."""
        return paddle.to_tensor(self.ids[rows])

    def rows(self) -> list[np.ndarray]:
        """The samples of each batch of the next epoch."""
        return np.split(self.random.permutation(self.size.samples), self.size.samples // self.size.batch)

    def update(self, output: Any, optimizer: Any) -> None:
        """Backward and the update."""
        output.square().mean().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    def without(self) -> None:
        """Frozen, and computed each time."""
        for rows in self.rows():
            self.update(self.model(self.batch(rows)), self.of_model)

    def alone(self) -> None:
        """The unfrozen third as a model of its own."""
        for hidden in self.hidden:
            self.update(self.third(hidden), self.of_third)

    def cached(self, features: FrozenFeatures) -> Callable[[], None]:
        """Frozen features."""

        def epoch() -> None:
            features.begin_phase(self.frozen)
            for rows in self.rows():
                self.update(features.call(self.batch(rows), rows), self.of_model)

        return epoch


def first_epoch(epochs: Epochs, features: FrozenFeatures) -> Callable[[], None]:
    """The epoch that fills the cache, checks included."""
    epoch = epochs.cached(features)

    def filling() -> None:
        features.close()
        epoch()

    return filling


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small model and few rounds: a smoke test")
    size = QUICK if parser.parse_args().quick else FULL
    threads.take_widest_code()
    epochs = Epochs(size)
    units = find_units(epochs.model, epochs.batch(np.arange(2)))
    with tempfile.TemporaryDirectory() as folder:
        kept = FrozenFeatures(epochs.model, units, epochs.ids, memory=GIB)
        filling = FrozenFeatures(epochs.model, units, epochs.ids, memory=GIB)
        on_disk = FrozenFeatures(epochs.model, units, epochs.ids, memory=0, folder=folder)
        seconds = interleaved(
            {
                "without": epochs.without,
                "third_alone": epochs.alone,
                "cached": epochs.cached(kept),
                "cached_on_disk": epochs.cached(on_disk),
                "first_epoch": first_epoch(epochs, filling),
                "begin_phase": lambda: kept.begin_phase(epochs.frozen),
            },
            rounds=size.rounds,
        )
        for features in (kept, filling, on_disk):
            features.close()
    results: dict[str, Any] = {f"{name}_ms": round(1e3 * value, 2) for name, value in seconds.items()}
    results["batches_per_epoch"] = size.samples // size.batch
    results["cached_to_third_alone"] = round(seconds["cached"] / seconds["third_alone"], 4)
    results["cached_on_disk_to_third_alone"] = round(seconds["cached_on_disk"] / seconds["third_alone"], 4)
    results["without_to_cached"] = round(seconds["without"] / seconds["cached"], 4)
    results["first_epoch_to_without"] = round(seconds["first_epoch"] / seconds["without"], 4)
    report("quick_features" if size is QUICK else "features", results)


if __name__ == "__main__":
    main()
