"""What carrying rows of labels saves: a network that knows the digits 0–6 learns 0–9 with a new head, or with its rows.

    python benchmarks/label_rows.py [-o results.json]

Two new data sets: 20 images of each of the ten digits, and 20 of each of the three new ones alone. The accuracy over
all ten digits and over the seven known ones, on 597 other images, after some updates; the mean over ten seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from common import environment
from paddle import nn
from sklearn.datasets import load_digits

import paddle_ftstrat as hub

OLD, NEW = list(range(7)), [7, 8, 9]
AFTER = (0, 5, 20, 100)
WAYS = ("new head", "rows carried", "rows carried and frozen")


def net(labels: int) -> nn.Layer:
    """Two hidden layers and a head."""
    body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    return nn.Sequential(("body", body), ("head", nn.Linear(64, labels)))


def knowing(images: Any, labels: Any, seed: int) -> nn.Layer:
    """A network that has learnt the old digits from 100 images each."""
    paddle.seed(seed)
    model, chosen = net(len(OLD)), np.concatenate([np.flatnonzero(labels == old)[:100] for old in OLD])
    train = paddle.io.TensorDataset([paddle.to_tensor(images[chosen]), paddle.to_tensor(labels[chosen])])
    hub.Learner(model, train, batch_size=32, progress=False).fit_one_cycle(10, 1e-2)
    return model


def accuracies(way: str, known: nn.Layer, train: Any, test: Any, seed: int) -> list[list[float]]:
    """(of all, of the known digits) after each number of updates."""
    paddle.seed(100 + seed)
    model = net(10)
    rows = None if way == "new head" else {"head": (OLD, [*OLD, *NEW])}
    hub.load_pretrained(model, known.state_dict(), rows=rows, ignore_mismatched=rows is None)
    if way == "rows carried and frozen":
        hub.param_attr.freeze_rows(model.head, OLD)
    run = hub.DefaultStrategy(1e-3).bind(model)
    order, found = np.random.RandomState(seed), []
    for update in range(AFTER[-1] + 1):
        if update in AFTER:
            right = model(paddle.to_tensor(test[0])).argmax(-1).numpy() == test[1]
            found.append([float(right.mean()), float(right[np.isin(test[1], OLD)].mean())])
        batch = order.choice(len(train[1]), 32, replace=False)
        outputs = model(paddle.to_tensor(train[0][batch]))
        nn.functional.cross_entropy(outputs, paddle.to_tensor(train[1][batch])).backward()
        run.step()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    digits = load_digits()
    results: dict[str, Any] = {}
    for seed in range(options.seeds):
        order = np.random.RandomState(seed).permutation(len(digits.target))
        images, labels = (digits.data[order] / 16).astype("float32"), digits.target[order]
        known = knowing(images[:1200], labels[:1200], seed)
        test = images[1200:], labels[1200:]
        for name, classes in (("all ten digits", [*OLD, *NEW]), ("the new digits alone", NEW)):
            chosen = np.concatenate([np.flatnonzero(labels[:1200] == one)[-20:] for one in classes])
            for way in WAYS:
                found = accuracies(way, known, (images[chosen], labels[chosen]), test, seed)
                results.setdefault(name, {}).setdefault(way, []).append(found)
    means = {name: {way: np.mean(runs, 0).tolist() for way, runs in ways.items()} for name, ways in results.items()}
    for name, ways in means.items():
        print(name)
        for way, found in ways.items():
            shown = "  ".join(f"{t}: {a:.1%} ({old:.1%})" for t, (a, old) in zip(AFTER, found))
            print(f"  {way:24} {shown}")
    if options.output is not None:
        facts = {"environment": environment(), "after": AFTER, "seeds": options.seeds, "mean of (all, known)": means}
        options.output.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
