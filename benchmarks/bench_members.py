"""What averages, frozen rows and perturbations cost: an update over a plain one, a whole step over a plain one.

python benchmarks/bench_members.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import paddle
from common import report
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import freeze_rows

# Number of tensors, shape of each, rounds.
SIZES = {"9.5M in 192": (192, [223, 222], 25), "85M in 192": (192, [664, 666], 11)}
QUICK_SIZES = {"0.1M in 10": (10, [100, 100], 3)}
MEMBERS = {
    "plain": {},
    "EMA": {"averaging": {"EMA": 0.999}},
    "FGM": {"perturbation": {"FGM": 1.0}},
    "SAM": {"perturbation": {"SAM": 0.05}},
    "PGD of 3": {"perturbation": {"PGD": {"steps": 3}}},
}


class Text(nn.Layer):
    """An embedding and two transformer layers of width 256."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5000, 256), nn.Linear(256, 2)
        self.layers = nn.LayerList([nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1) for _ in range(2)])

    def forward(self, tokens: Any) -> Any:
        """Logits of two classes."""
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.mean(1))


def medians(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds that each run says it took, one after the other in every round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            seconds = run()
            if number >= 2:
                times[name].append(seconds)
    return {name: float(np.median(measured)) for name, measured in times.items()}


def update_costs(count: int, shape: list[int], rounds: int, fused: bool | None, what: str = "EMA") -> dict[str, float]:
    """`run.step()` of AdamW with a clip, without and with an EMA or frozen rows, on gradients that are there."""
    grads = [paddle.full(shape, 1e-3) for _ in range(count)]

    def prepared(member: str) -> Callable[[], float]:
        model = nn.Layer()
        for number in range(count):
            param = model.create_parameter(shape)
            model.add_parameter(f"p{number}", param)
            if member == "rows":
                freeze_rows(param, range(shape[0] - 100 if shape[0] > 100 else shape[0] - 1))
        strategy = hub.CombinedStrategy("adamw", 1e-4, clip={"GlobalNorm": 1.0}, **MEMBERS.get(member, {}))
        run = strategy.bind(model, fused=fused)

        def update() -> float:
            for param, grad in zip(model.parameters(), grads):
                param.grad = grad
            started = time.perf_counter()
            run.step()
            return time.perf_counter() - started

        return update

    found = medians({name: prepared(name) for name in ("plain", what)}, rounds)
    with_it = f"{what.lower()}_ms"
    return {"plain_ms": 1e3 * found["plain"], with_it: 1e3 * found[what], "ratio": found[what] / found["plain"]}


def step_costs(rounds: int, batch: int, length: int) -> dict[str, dict[str, float]]:
    """A whole step, forward to update, over a plain one."""
    tokens, labels = paddle.randint(0, 5000, [batch, length]), paddle.randint(0, 2, [batch])

    def prepared(member: str) -> Callable[[], float]:
        model = Text()
        run = hub.CombinedStrategy("adamw", 1e-4, clip={"GlobalNorm": 1.0}, **MEMBERS[member]).bind(model)

        def step() -> float:
            started = time.perf_counter()
            for loss in run.losses(lambda: nn.functional.cross_entropy(model(tokens), labels)):
                loss.backward()
            run.step()
            return time.perf_counter() - started

        return step

    found = medians({name: prepared(name) for name in MEMBERS}, rounds)
    return {name: {"ms": 1e3 * value, "ratio": value / found["plain"]} for name, value in found.items()}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and a small model: a smoke test")
    quick = parser.parse_args().quick
    sizes = QUICK_SIZES if quick else SIZES
    embedding = (1, [300 if quick else 30_000, 256], 3 if quick else 25)
    report(
        "quick_members" if quick else "members",
        {
            "updates_fused": {name: update_costs(*size, fused=None) for name, size in sizes.items()},
            "updates_composed": {name: update_costs(*size, fused=False) for name, size in sizes.items()},
            "frozen_rows": {
                name: update_costs(*embedding, fused, "rows") for name, fused in (("fused", None), ("composed", False))
            },
            "steps": step_costs(1 if quick else 31, 2 if quick else 8, 8 if quick else 64),
        },
    )


if __name__ == "__main__":
    main()
