"""Pretrain on the handwritten digits 0-4, fine-tune on all ten with few examples, once per strategy and seed.

    python demo/finetune_digits.py

The digits are scikit-learn's (1,797 pictures of 8×8 pixels, part of that package). Prints one table and writes the
plan of ULMFiT as a picture. No accuracy is promised: the table shows what came out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.io import TensorDataset
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import paddle_ftstrat as hub

LEARNING_RATE = 3e-3


class ConvNet(nn.Layer):
    """Three small convolution blocks and a linear head, for pictures of 1×8×8."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*(self._block(i, o) for i, o in ((1, 16), (16, 32), (32, 64))))
        self.head = nn.Linear(64, classes)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2D(inputs, outputs, 3, padding=1), nn.BatchNorm2D(outputs), nn.ReLU(), nn.MaxPool2D(2)
        )

    def forward(self, x):
        """Logits [batch, classes] of pictures [batch, 1, 8, 8]."""
        return self.head(self.features(x).flatten(1))


@dataclass(frozen=True)
class Digits:
    """Pictures [n, 1, 8, 8] in [0, 1] and labels [n] of one split."""

    pictures: np.ndarray
    labels: np.ndarray

    def only(self, wanted: np.ndarray) -> Digits:
        """The samples at these positions (indices or mask)."""
        return Digits(self.pictures[wanted], self.labels[wanted])

    def dataset(self) -> TensorDataset:
        """As a Paddle Dataset of (picture, label)."""
        return TensorDataset([paddle.to_tensor(self.pictures), paddle.to_tensor(self.labels)])


def load() -> tuple[Digits, Digits, Digits]:
    """The splits: to learn from, to choose the best model on, to test on."""
    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures / 16).astype("float32").reshape(-1, 1, 8, 8)
    rest_x, test_x, rest_y, test_y = train_test_split(pictures, labels, test_size=500, stratify=labels, random_state=0)
    train_x, dev_x, train_y, dev_y = train_test_split(rest_x, rest_y, test_size=200, stratify=rest_y, random_state=0)
    return Digits(train_x, train_y), Digits(dev_x, dev_y), Digits(test_x, test_y)


def pretrain(train: Digits, dev: Digits, epochs: int, folder: Path) -> Path:
    """Train on the digits 0-4 and save the weights."""
    paddle.seed(0)
    np.random.seed(0)
    model = ConvNet(5)
    small, dev = train.only(train.labels < 5), dev.only(dev.labels < 5)
    learner = hub.Learner(model, small.dataset(), dev.dataset(), metrics="acc", lr=LEARNING_RATE, progress=False)
    result = learner.fit(epochs)[-1]
    print(f"pretrained on the digits 0-4: accuracy {result['acc']:.3f} on the dev pictures of these")
    path = folder / "pretrained.pdparams"
    paddle.save(model.state_dict(), str(path))
    return path


def strategies() -> dict[str, hub.DefaultStrategy]:
    """The rows of the table."""
    return {
        "constant LR": hub.DefaultStrategy(LEARNING_RATE),
        "DefaultFinetune": hub.DefaultFinetuneStrategy(LEARNING_RATE),
        "L2SP": hub.L2SPFinetuneStrategy(LEARNING_RATE),
        "ULMFiT": hub.ULMFiTStrategy(LEARNING_RATE),
        "AdamWeightDecay": hub.AdamWeightDecayStrategy(LEARNING_RATE, warmup_proportion=0.1),
    }


def pretrained_model(path: Path) -> ConvNet:
    """A model for ten digits with the pretrained features and a new head."""
    model = ConvNet(10)
    features = {name: value for name, value in paddle.load(str(path)).items() if name.startswith("features.")}
    model.set_state_dict({**model.state_dict(), **features})
    return model


def finetune(strategy: hub.DefaultStrategy, path: Path, splits: tuple, seed: int, options: argparse.Namespace) -> float:
    """One fine-tuning on few labelled examples per class: the test accuracy of the model that was best on dev."""
    train, dev, test = splits
    paddle.seed(seed)
    np.random.seed(seed)
    chosen = np.concatenate(
        [np.random.permutation(np.flatnonzero(train.labels == digit))[: options.per_class] for digit in range(10)]
    )
    model = pretrained_model(path)
    data = {"train": train.only(chosen).dataset(), "dev": dev.dataset(), "test": test.dataset()}
    uses_l2sp = getattr(strategy, "regularization", {}).get("L2SP", 0) > 0
    with tempfile.TemporaryDirectory() as folder:
        config = hub.RunConfig(
            num_epoch=options.epochs,
            batch_size=10,
            eval_interval=10 * options.per_class // 10,
            log_interval=10**6,
            checkpoint_dir=folder,
            strategy=strategy,
        )
        task = hub.ClassifierTask(model, data, config, pretrained="features.*" if uses_l2sp else None, verbose=False)
        return task.finetune_and_eval()["acc"]


def draw_plan(strategy: hub.DefaultStrategy, options: argparse.Namespace) -> None:
    """The picture of one strategy's plan."""
    per_epoch = -(-10 * options.per_class // 10)
    run = strategy.bind(
        ConvNet(10), num_epoch=options.epochs, steps_per_epoch=per_epoch, sample_input=paddle.ones([1, 1, 8, 8])
    )
    run.plot(options.picture)
    print(f"the plan of ULMFiT: {options.picture}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="fine-tunings per strategy (default 5)")
    parser.add_argument("--epochs", type=int, default=15, help="epochs of each (default 15)")
    parser.add_argument("--per-class", type=int, default=5, help="labelled examples per digit (default 5)")
    parser.add_argument("--picture", default="ulmfit_plan.png", help="where the plan's picture goes")
    parser.add_argument("--quick", action="store_true", help="one seed, three epochs: a smoke test")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.epochs = 1, 3

    splits = load()
    table = Table(title=f"10 digits, {options.per_class} labelled pictures each, {options.seeds} seeds")
    for heading in ("strategy", "accuracy mean ± std", "seconds"):
        table.add_column(heading, no_wrap=True)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(strategies()) * options.seeds, disable=None) as bar:
        path = pretrain(splits[0], splits[1], 2 if options.quick else 10, Path(folder))
        for name, strategy in strategies().items():
            bar.set_description(name)
            started, scores = time.perf_counter(), []
            for seed in range(options.seeds):
                scores.append(finetune(strategy, path, splits, seed, options))
                bar.update()
            seconds = (time.perf_counter() - started) / options.seeds
            table.add_row(name, f"{np.mean(scores):.3f} ± {np.std(scores):.3f}", f"{seconds:.1f}")
    Console().print(table)
    draw_plan(strategies()["ULMFiT"], options)


if __name__ == "__main__":
    warnings.filterwarnings("default", module="paddle_ftstrat")
    main()
