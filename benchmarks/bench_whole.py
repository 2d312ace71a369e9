"""Whole training steps of five kinds of model: Paddle as it comes, with all threads, with this library, and torch's.

    PYTHONPATH=. python benchmarks/bench_whole.py [--quick] [--torch PYTHON] [--models NAME …] [--runs N]

Model, batch, AdamW and clipping are the same; `torch_whole.py` has torch's models. Each case runs in a process of its
own, in turn, and all of it `--runs` times in new processes, of which the middle one counts: where a process's memory
lies decides over some percent of its time. `--torch` names a Python that has torch; `--models` measures some and leaves
the other figures as they are. Memory is what the steps add to a model (gradients, optimizer, activations), at the peak:
of what the process holds, and of what is in use, without the holes that glibc keeps between tensors (with a C compiler;
over Paddle's with as many threads).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import zlib  # noqa: F401  before Paddle, as the package does: libpaddle of 2.6.2 breaks one loaded after it
from pathlib import Path
from typing import Any

import paddle
from common import RESULTS, report
from paddle import nn
from paddle.vision.models import mobilenet_v2, resnet18
from whole_sizes import CLASSES, QUICK, SIZES, Size
from workers import Worker, alternate, counting, serve

import paddle_ftstrat as hub
from paddle_ftstrat import acceleration
from paddle_ftstrat._paddle import threads

LR = 1e-4
MEMORY_LIMIT = 1.1
TORCH = Path(__file__).with_name("torch_whole.py")


class Encoder(nn.Layer):
    """Embedding, encoder layers, a classifier of the mean."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        layer = nn.TransformerEncoderLayer(size.width, size.heads, 4 * size.width, size.dropout, size.activation)
        self.body = nn.TransformerEncoder(layer, size.layers)
        self.head = nn.Linear(size.width, CLASSES)

    def forward(self, ids: Any) -> Any:
        """Token ids [batch, length] → logits [batch, classes]."""
        return self.head(self.body(self.embedding(ids)).mean(1))


class LanguageModel(nn.Layer):
    """Embedding, LSTM layers, scores of the next word."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.body = nn.LSTM(size.width, size.width, size.layers)
        self.head = nn.Linear(size.width, size.vocabulary)

    def forward(self, ids: Any) -> Any:
        """Token ids [batch, length] → logits [batch·length, vocabulary]."""
        return self.head(self.body(self.embedding(ids))[0]).flatten(0, 1)


def model_and_batch(name: str, size: Size) -> tuple[nn.Layer, Any, Any]:
    """A model, its inputs and its labels."""
    paddle.seed(0)
    if size.vocabulary:
        inputs = paddle.randint(0, size.vocabulary, size.batch)
        model = LanguageModel(size) if name == "lstm" else Encoder(size)
    else:
        inputs, make = paddle.randn(size.batch), {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}[name]
        model = make(num_classes=CLASSES)
    labels = inputs.flatten() if name == "lstm" else paddle.randint(0, CLASSES, [inputs.shape[0]])
    return model, inputs, labels


def work(case: str, name: str, size: Size) -> None:
    """One case in this process: measure whenever asked to."""
    model, inputs, labels = model_and_batch(name, size)
    loss = nn.CrossEntropyLoss()
    if case.startswith("paddle"):
        clip = nn.ClipGradByGlobalNorm(1.0)
        optimizer = paddle.optimizer.AdamW(LR, parameters=model.parameters(), grad_clip=clip)

        def update() -> None:
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
    else:
        acceleration.stands.operations()  # so that numba's memory is not counted as the steps'
        update = hub.CombinedStrategy("adamw", LR).add_clip("GlobalNorm", 1.0).bind(model).step
        hub.accelerate(loss)

    def step() -> None:
        loss(model(inputs), labels).backward()
        update()

    if case.startswith("paddle"):
        serve(step, size.steps)
        return
    with hub.cpu_threads():
        serve(step, size.steps)


def one_run(name: str, torch: str | None, more: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds per step and peak memory of each case, and ours over the others."""
    everything = {"OMP_NUM_THREADS": str(threads.allowed())}
    environments = {"paddle": {}, "paddle_all_threads": everything, "ours": {}}
    with counting() as counted:
        workers = [
            Worker(__file__, case, [name, *more], {**environment, **counted})
            for case, environment in environments.items()
        ]
        if torch is not None:
            workers.append(Worker(str(TORCH), "torch", [name, *more], {**everything, **counted}, python=torch))
        cases = alternate(workers, rounds)
    ours = cases["ours"]
    over = {case: round(ours["step_ms"] / row["step_ms"], 3) for case, row in cases.items() if case != "ours"}
    # With as many threads: MKL keeps memory for each of them.
    equal = cases["paddle_all_threads"]["steps_in_use_mib"]
    return {
        "cases": cases,
        "over": over,
        "memory": round(ours["steps_mib"] / cases["paddle"]["steps_mib"], 3),
        "used": round(ours["steps_in_use_mib"] / equal, 3) if equal else math.nan,
    }


def whole_steps(name: str, size: Size, torch: str | None, more: list[str], runs: int) -> dict[str, Any]:
    """The middle one of several runs, and what the others gave."""
    reference = "paddle" if torch is None else "torch"
    done = sorted(
        (one_run(name, torch, more, size.rounds) for _ in range(runs)), key=lambda run: run["over"][reference]
    )
    middle = done[len(done) // 2]
    memory, used = (statistics.median_low(run[kind] for run in done) for kind in ("memory", "used"))
    over = middle["over"]
    return {
        "threads": threads.allowed(),
        "cases": middle["cases"],
        "times_faster_than": {case: round(1 / ratio, 2) for case, ratio in over.items()},
        "over_torch": over.get("torch"),
        "limit": size.limit,
        "memory_over_paddle": memory,
        "memory_in_use_over_paddle": None if math.isnan(used) else used,
        "memory_limit": MEMORY_LIMIT,
        "runs": [{"over_torch": run["over"].get("torch"), "memory_over_paddle": run["memory"]} for run in done],
        "holds": memory <= MEMORY_LIMIT and over.get("torch", 0) <= size.limit,
    }


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: a smoke test")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that can import torch")
    parser.add_argument(
        "--models", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME", help=", ".join(SIZES)
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often (3); once with --quick")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = QUICK if options.quick else SIZES
    if options.worker:
        case, name = options.worker
        work(case, name, sizes[name])
        return 0
    label = "quick_whole" if options.quick else "whole"
    path = RESULTS / f"{label}-{paddle.__version__}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.models:
        more = ["--quick"] if options.quick else []
        results[name] = whole_steps(name, sizes[name], options.torch, more, 1 if options.quick else options.runs)
    results = {name: results[name] for name in SIZES if name in results}
    held = all(row["holds"] for row in results.values())
    report(label, {**results, "holds": held})
    return 0 if options.quick or held else 1


if __name__ == "__main__":
    sys.exit(main())
