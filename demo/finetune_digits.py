"""Learn new digits without forgetting the old ones: fine-tuning strategies, scored on both.

    python demo/finetune_digits.py

A network that knows the handwritten digits 0-4 gets five pictures of each of 5-9, and no old one. Each strategy has the
learning rate that is best on dev pictures, chosen with seeds of their own. The digits are scikit-learn's (1,797
pictures of 8×8 pixels, part of that package). Prints one table and draws both scores, and the plan of ULMFiT. No
accuracy is promised: the table shows what came out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
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
from paddle_ftstrat.pictures import finished, pyplot

OLD, DIGITS = range(5), range(10)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
# Seeds that choose a learning rate begin here, so that they are none of those that count.
CHOOSING_FROM = 1000


@dataclass(frozen=True)
class Row:
    """One way to fine-tune: a strategy of a learning rate, and what is done beside it."""

    name: str
    strategy: Callable[[float], hub.DefaultStrategy]
    alpha: float | None = None
    mixed: bool = False


ROWS = (
    Row("constant LR", hub.DefaultStrategy),
    Row("ULMFiT", hub.ULMFiTStrategy),
    Row("LP-FT", lambda lr: hub.LPFTStrategy(lr, lr / 10, head_epochs=5)),
    Row("WiSE-FT, α = 0.5", hub.DefaultStrategy, alpha=0.5),
    Row("L2SP, λ = 0.001", lambda lr: hub.L2SPFinetuneStrategy(lr, regularization_coeff=1e-3)),
    Row("L2SP, λ = 0.3", lambda lr: hub.L2SPFinetuneStrategy(lr, regularization_coeff=0.3)),
    Row("old pictures mixed in", hub.DefaultStrategy, mixed=True),
)


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

    def few(self, per_digit: int, digits: range) -> Digits:
        """So many pictures of each of these digits, drawn at random."""
        chosen = [np.random.permutation(np.flatnonzero(self.labels == digit))[:per_digit] for digit in digits]
        return self.only(np.concatenate(chosen))

    def dataset(self) -> TensorDataset:
        """As a Paddle Dataset of (picture, label)."""
        return TensorDataset([paddle.to_tensor(self.pictures), paddle.to_tensor(self.labels)])


def load() -> tuple[Digits, Digits, Digits]:
    """The splits: to learn from, to choose learning rates on, to test on."""
    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures / 16).astype("float32").reshape(-1, 1, 8, 8)
    rest_x, test_x, rest_y, test_y = train_test_split(pictures, labels, test_size=500, stratify=labels, random_state=0)
    train_x, dev_x, train_y, dev_y = train_test_split(rest_x, rest_y, test_size=200, stratify=rest_y, random_state=0)
    return Digits(train_x, train_y), Digits(dev_x, dev_y), Digits(test_x, test_y)


def seed_everything(seed: int) -> None:
    """The same draws for every strategy."""
    paddle.seed(seed)
    np.random.seed(seed)


def pretrain(train: Digits, epochs: int, path: Path) -> None:
    """Train on the digits 0-4 and save the weights."""
    seed_everything(0)
    learner = hub.Learner(ConvNet(len(OLD)), train.only(train.labels < 5).dataset(), lr=3e-3, progress=False)
    learner.fit(epochs)
    paddle.save(learner.model.state_dict(), str(path))


def pretrained(path: Path) -> ConvNet:
    """A network for ten digits that has the features and the five rows of the head that are known."""
    model = ConvNet(len(DIGITS))
    hub.load_pretrained(model, path, rows={"head.*": (list(OLD), list(DIGITS))})
    return model


def scores(model: nn.Layer, digits: Digits) -> tuple[float, float]:
    """Accuracy on the new digits, and on the old ones, each among all ten."""
    model.eval()
    with paddle.no_grad():
        right = model(paddle.to_tensor(digits.pictures)).argmax(1).numpy() == digits.labels
    old = digits.labels < len(OLD)
    return float(right[~old].mean()), float(right[old].mean())


def finetune(row: Row, lr: float, seed: int, train: Digits, path: Path, options: argparse.Namespace) -> nn.Layer:
    """One fine-tuning on few pictures of the new digits."""
    seed_everything(seed)
    model = pretrained(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    few = train.few(options.per_class, DIGITS if row.mixed else range(len(OLD), len(DIGITS)))
    learner = hub.Learner(model, few.dataset(), batch_size=10, progress=False)
    strategy = row.strategy(lr)
    anchored = getattr(strategy, "regularization", {}).get("L2SP", 0) > 0
    learner.fit(options.epochs, strategy=strategy, pretrained="*" if anchored else None)
    if row.alpha is not None:
        hub.interpolate(model, before, row.alpha)
    return model


def run(options: argparse.Namespace, path: Path) -> Iterator[tuple[Row, float, np.ndarray, float]]:
    """Row, learning rate, test scores [seeds, 2] and seconds of a fine-tuning, as they come."""
    train, dev, test = load()
    pretrain(train, 2 if options.quick else 10, path)
    trainings = len(ROWS) * (len(options.rates) * options.choosing + options.seeds)
    with tqdm(total=trainings, disable=None) as bar:

        def scored(row: Row, lr: float, seed: int, digits: Digits) -> tuple[float, float]:
            bar.set_description(row.name)
            bar.update()
            return scores(finetune(row, lr, seed, train, path, options), digits)

        for row in ROWS:
            choosing = range(CHOOSING_FROM, CHOOSING_FROM + options.choosing)
            on_dev = {lr: np.mean([scored(row, lr, seed, dev) for seed in choosing]) for lr in options.rates}
            lr, started = max(on_dev, key=on_dev.get), time.perf_counter()
            found = np.array([scored(row, lr, seed, test) for seed in range(options.seeds)])
            yield row, lr, found, (time.perf_counter() - started) / options.seeds


def draw(found: dict[str, np.ndarray], path: str) -> None:
    """Both scores of each strategy, with their spread over seeds."""
    figure, axes = pyplot().subplots(figsize=(7, 5), constrained_layout=True)
    for name, values in found.items():
        (new, old), (over_new, over_old) = values.mean(0), values.std(0)
        axes.errorbar(new, old, xerr=over_new, yerr=over_old, fmt="o", capsize=3, label=name)
    axes.set_xlabel("accuracy on the new digits 5-9")
    axes.set_ylabel("accuracy on the old digits 0-4")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    finished(figure, path)


def draw_plan(path: str) -> None:
    """The picture of one strategy's plan."""
    bound = hub.ULMFiTStrategy(1e-3).bind(
        ConvNet(10), num_epoch=15, steps_per_epoch=3, sample_input=paddle.ones([1, 1, 8, 8])
    )
    bound.plot(path)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="fine-tunings per strategy (default 10)")
    parser.add_argument("--choosing", type=int, default=2, help="fine-tunings per learning rate (default 2)")
    parser.add_argument("--epochs", type=int, default=15, help="epochs of each (default 15)")
    parser.add_argument("--per-class", type=int, default=5, help="labelled pictures per new digit (default 5)")
    parser.add_argument("--picture", default="new_and_old.png", help="where the picture of the scores goes")
    parser.add_argument("--plan", default="ulmfit_plan.png", help="where the plan's picture goes")
    parser.add_argument("--json", type=Path, help="a file for the scores of each seed")
    parser.add_argument("--quick", action="store_true", help="one seed, one LR, six epochs: a smoke test")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.choosing, options.epochs = 1, 1, 6
    options.rates = RATES[2:3] if options.quick else RATES

    table = Table(title=f"accuracy in %, mean ± std of {options.seeds} seeds")
    for heading in ("strategy", "LR", "new 5-9", "old 0-4", "mean", "s"):
        table.add_column(heading, no_wrap=True)
    found, records = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for row, lr, values, seconds in run(options, Path(folder) / "pretrained.pdparams"):
            found[row.name] = values
            records.append({"strategy": row.name, "lr": lr, "new, old": values.round(4).tolist()})
            cells = [f"{100 * part.mean():.1f} ± {100 * part.std():.1f}" for part in (*values.T, values.mean(1))]
            table.add_row(row.name, f"{lr:g}", *cells, f"{seconds:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"paddle": paddle.__version__, "rows": records}, indent=1) + "\n", "utf-8")
    draw(found, options.picture)
    draw_plan(options.plan)
    print(f"the scores: {options.picture}; the plan of ULMFiT: {options.plan}")


if __name__ == "__main__":
    warnings.filterwarnings("default", module="paddle_ftstrat")
    # Paddle 2.6 says so whenever a BatchNorm layer is first used in training.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    main()
