"""New characters: a classifier and a reader of lines know 0–6 and learn 0–9; their heads grow by three rows.

Source: what users of PaddleOCR meet when a dictionary grows (PaddleOCR#3887).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score
from benchmarks.evidence.digits import Digits, accuracy, pretrained, splits
from benchmarks.evidence.docs import Shown

OLD, NEW = tuple(range(7)), (7, 8, 9)
EVERY, GOAL = 5, 0.9
PULL = (0.1, 1.0)
# To choose from; where there are new characters alone, little is better than much.
RATES = {"all ten in the new data": (1e-3, 3e-3, 1e-2), "the new ones alone": (1e-4, 3e-4, 1e-3, 3e-3)}
WAYS = ("head re-initialised", "rows mapped", "rows mapped and frozen", "the same, body frozen", "rows mapped, L2SP")


class Mlp(nn.Layer):
    """Pictures [batch, 1, 8, 8] → logits [batch, classes]: two hidden layers of 64 and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, pictures):
        """Logits."""
        return self.head(self.body(pictures))


class Reader(nn.Layer):
    """Lines [batch, 1, 8, width] → logits [batch, width/2, 1 + characters], the first of them CTC's blank."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2D(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2D(2)),
            *(nn.Conv2D(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2D((2, 1))),
            *(nn.Conv2D(32, 48, (2, 5), padding=(0, 2)), nn.ReLU()),
        )
        self.head = nn.Linear(48, 1 + characters)

    def forward(self, lines):
        """Logits."""
        return self.head(self.body(lines).squeeze(2).transpose([0, 2, 1]))


def lines_of(digits: Digits, count: int, seed: int, length: int = 4) -> Digits:
    """Lines of digits drawn at random, before half of them a gap of a pixel: pictures [n, 1, 8, 36], labels [n, 4]."""
    random = np.random.RandomState(seed)
    pictures = np.zeros((count, 1, 8, 10 * length - 4), "float32")
    labels = np.zeros((count, length), "int64")
    for line in range(count):
        at = 0
        for place, chosen in enumerate(random.randint(len(digits.labels), size=length)):
            at += random.randint(2)
            pictures[line, :, :, at : at + 8] = digits.pictures[chosen]
            labels[line, place], at = digits.labels[chosen], at + 8
    return Digits(pictures, labels)


def ctc(logits: Any, labels: Any) -> Any:
    """CTC loss; a character's number in the head is its label + 1."""
    batch, steps = logits.shape[:2]
    lengths = paddle.full([batch], steps, "int64"), paddle.full([batch], labels.shape[1], "int64")
    return nn.functional.ctc_loss(logits.transpose([1, 0, 2]), (labels + 1).astype("int32"), *lengths)


def read(model: nn.Layer, lines: Digits) -> float:
    """The share of characters read right: 1 − mean edit distance / length, taking the likeliest one of each place."""
    model.eval()
    with paddle.no_grad():
        best = model(paddle.to_tensor(lines.pictures)).argmax(-1).numpy()
    keep = (best > 0) & (best != np.pad(best, ((0, 0), (1, 0)))[:, :-1])
    found = ["".join(map(str, row[kept] - 1)) for row, kept in zip(best, keep)]
    wanted = ["".join(map(str, label)) for label in lines.labels]
    return 1 - float(np.mean([min(1.0, distance(*pair) / len(pair[1])) for pair in zip(found, wanted)]))


def distance(one: str, other: str) -> int:
    """Levenshtein's distance.

    Example:
        >>> distance("0123", "024")
        2
    """
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


@dataclass(frozen=True)
class Case:
    """A network whose head grows.

    Attributes:
        make: number of characters → network.
        weights: what it has learnt on 0–6.
        sample: (digits, how many of each, seed) → training data.
        scored: (split, classes) → data to score on.
        loss, score: of outputs and labels; of model and data.
        labels: characters → labels of the head's rows.
        updates, batch: of a fine-tuning.
    """

    make: Callable[[int], nn.Layer]
    weights: Path
    sample: Callable[[Digits, int], Digits]
    scored: Callable[[str, Sequence[int]], Digits]
    loss: Callable[[Any, Any], Any]
    score: Callable[[nn.Layer, Digits], float]
    labels: Callable[[Sequence[int]], list[Any]]
    updates: int
    batch: int

    def row(self, way: str, kind: str) -> Row:
        """One way to fine-tune on one of two kinds of new data."""
        grid = {"lr": RATES[kind], "λ": PULL} if "L2SP" in way else {"lr": RATES[kind]}
        classes = NEW if kind == "the new ones alone" else (*OLD, *NEW)
        return Row(way, lambda *given: self.run(way, classes, *given), grid)

    def run(
        self, way: str, classes: Sequence[int], setting: Mapping[str, Any], seed: int, split: str
    ) -> dict[str, float]:
        """Fine-tune in a loop of one's own; scores at the end, and when all characters were first right to 90 %."""
        model, strategy = self.make(len(OLD) + len(NEW)), hub.DefaultStrategy(setting["lr"])
        rows = None if way == WAYS[0] else {"head.*": (self.labels(OLD), self.labels((*OLD, *NEW)))}
        hub.load_pretrained(model, self.weights, rows=rows, ignore_mismatched=rows is None)
        if "frozen" in way:
            kept = self.labels((*OLD, *NEW))[: len(self.labels(OLD))]
            hub.param_attr.freeze_rows(model.head, range(len(kept)))
        if way == "the same, body frozen":
            strategy = hub.PhasedStrategy([hub.Phase("head")], learning_rate=setting["lr"])
        if "L2SP" in way:
            strategy = hub.L2SPFinetuneStrategy(setting["lr"], regularization_coeff=setting["λ"])
        binding = strategy.bind(model, max_train_steps=self.updates)
        train, order = self.sample(splits()["train"].of(classes), seed), np.random.RandomState(seed)
        kinds = {"all": (*OLD, *NEW), "old": OLD, "new": NEW}
        scored = {kind: self.scored(split, chosen) for kind, chosen in kinds.items()}
        reached = self.updates
        for update in range(1, self.updates + 1):
            model.train()
            batch = train.only(order.choice(len(train.labels), min(self.batch, len(train.labels)), replace=False))
            self.loss(model(paddle.to_tensor(batch.pictures)), paddle.to_tensor(batch.labels)).backward()
            binding.step()
            # Only in the runs that count: the others look at the end alone.
            if split == "test" and update % EVERY == 0 and update < reached == self.updates:
                reached = update if self.score(model, scored["all"]) >= GOAL else reached
        return {**{kind: self.score(model, data) for kind, data in scored.items()}, "updates": reached}


def make(options: Options) -> Experiment:
    """Two networks, each with all ten characters in the new data, and with the new ones alone."""
    quick = options.quick
    known, name = splits()["source"].of(OLD), "-quick" if quick else ""
    cases = {
        "classifier": Case(
            Mlp,
            pretrained(
                options.folder / f"digits-0-6{name}.safetensors", lambda: Mlp(len(OLD)), known, 3 if quick else 15
            ),
            lambda digits, seed: digits.few(20, seed),
            lambda split, classes: splits()[split].of(classes),
            nn.functional.cross_entropy,
            accuracy,
            list,
            *((20, 32) if quick else (100, 32)),
        ),
        "reader of lines": Case(
            Reader,
            pretrained(
                options.folder / f"lines-0-6{name}.safetensors",
                lambda: Reader(len(OLD)),
                lines_of(known, 100 if quick else 600, 0),
                3 if quick else 24,
                1e-2,
                ctc,
            ),
            lambda digits, seed: lines_of(digits.few(20, seed), 50, seed),
            lambda split, classes: lines_of(splits()[split].of(classes), 100, 1),
            ctc,
            read,
            lambda characters: ["blank", *characters],
            *((10, 16) if quick else (80, 16)),
        ),
    }
    parts = {f"{name}, {kind}": [case.row(way, kind) for way in WAYS] for name, case in cases.items() for kind in RATES}
    facts = {
        "known from": len(known.labels), "pictures of each digit": 20, "lines": 50,
        "updates": {name: case.updates for name, case in cases.items()},
        "batch": {name: case.batch for name, case in cases.items()}, "optimizer": "adam", "looked every": EVERY,
    }  # fmt: skip
    return Experiment(parts, "all", *((1, 2) if quick else (3, 10)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Accuracy on the new characters against that on the old ones, a panel per part."""
    from paddle_ftstrat.pictures import finished, pyplot

    parts = results["parts"]
    figure, panels = pyplot().subplots(1, len(parts), figsize=(3.4 * len(parts), 4), constrained_layout=True)
    for axes, (part, lines) in zip(panels, parts.items()):
        for line, mark in zip(lines, "Xosv^"):
            new, old = (100 * np.array(line["scores"][kind]) for kind in ("new", "old"))
            errors = {"xerr": new.std(ddof=1), "yerr": old.std(ddof=1)}
            axes.errorbar(new.mean(), old.mean(), **errors, fmt=mark, capsize=3, label=line["name"])
        axes.set_title(part.replace(", ", ",\n"), fontsize=9)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-3, 103)
        axes.grid(alpha=0.3)
    figure.supxlabel("accuracy on the new characters 7–9, %")
    figure.supylabel("on the old ones 0–6, %")
    panels[0].legend(fontsize=7, loc="lower left")
    finished(figure, path)


SHOWN = Shown(
    (
        Score("all", "all ten", "全部十个"),
        Score("old", "old 0–6", "旧字符 0–6"),
        Score("new", "new 7–9", "新字符 7–9"),
        Score("updates", "updates until 90 %", "达到 90 % 的更新数", percent=False, digits=0),
    ),
    {
        "head re-initialised": "新输出层",
        "rows mapped": "搬来各行",
        "rows mapped and frozen": "搬来并冻结旧行",
        "the same, body frozen": "同上，主体也冻结",
        "rows mapped, L2SP": "搬来各行，L2SP",
    },
    draw,
)
