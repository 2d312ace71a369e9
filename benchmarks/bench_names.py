"""Time and state of optimizers that a strategy names, beside the fused AdamW.

    PYTHONPATH=. python benchmarks/bench_names.py [--quick] [--rounds 9]

An Embedding of 8,000 × 256 and four transformer layers of width 256, 5.2 million values. Every optimizer runs by
itself, in one thread; the ratio is to AdamW's median in the same process. Prints a table.
"""

from __future__ import annotations

import argparse
import statistics
import time

import paddle
from paddle import nn

import paddle_ftstrat as hub

CASES = [
    ("adamw", {}, None),
    ("adamw", {}, False),
    ("adafactor", {}, None),
    ("adafactor", {"factored": False}, None),
    ("muon", {}, None),
    ("schedule_free_sgd", {}, None),
    ("schedule_free_adamw", {}, None),
    ("schedule_free_adamw", {}, False),
]


class Encoder(nn.Layer):
    """An embedding, four transformer layers and a head, never run."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(8000, 256)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 1024), 4)
        self.head = nn.Linear(256, 2)


def measured(name, options, fused, rounds):
    """Median seconds of an update, and values of state per weight."""
    paddle.seed(0)
    model = Encoder()
    run = hub.DefaultStrategy(1e-4, name, **options).bind(model, fused=fused)
    gradients = [paddle.randn(param.shape) for param in model.parameters()]
    times = []
    for _ in range(rounds + 3):
        for param, gradient in zip(model.parameters(), gradients):
            param.grad = gradient.clone()
        begun = time.perf_counter()
        run.optimizer.step()
        times.append(time.perf_counter() - begun)
    state = sum(value.size for kinds in run.state_dict()["optimizer"].values() for value in kinds.values())
    return statistics.median(times[3:]), state / sum(param.size for param in model.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one update each: a smoke test")
    parser.add_argument("--rounds", type=int, default=9, help="updates that are measured")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    first = None
    for name, given, fused in CASES:
        seconds, state = measured(name, given, fused, rounds)
        first = first or seconds
        shown = given if fused is None else {**given, "fused": fused}
        what = " ".join([name, *(f"{key}={value}" for key, value in shown.items())])
        print(f"{what:34}{1e3 * seconds:8.1f} ms{seconds / first:8.2f} ×{state:9.3f} of state per weight", flush=True)


if __name__ == "__main__":
    main()
