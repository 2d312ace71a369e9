"""Whole training steps: Paddle's AdamW loop against a full strategy on all cores; the Learner against a loop by hand.

    PYTHONPATH=. python benchmarks/bench_loop.py [--quick] [--fastai PYTHON]

Five cases, each in a process of its own, in turn: Paddle's AdamW as it comes; the same under OMP_NUM_THREADS=all; the
full strategy (clip, L2SP, discriminative, decay, Adam) under `hub.cpu_threads()`; the same strategy on one thread, and
with MKL left as it comes, which show what the threads and MKL's wider code (not on Intel's processors) alone give.
`--fastai` names a Python that has fastai, to put the overhead of its Learner over a loop by hand beside that of ours.
`processors_busy_elsewhere` tells whether the machine was quiet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import zlib  # noqa: F401  before Paddle, as the package does: libpaddle of 2.6.2 breaks one loaded after it
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from common import report
from paddle import nn
from paddle.vision.models import resnet18
from workers import Worker, alternate, serve

import paddle_ftstrat as hub
from paddle_ftstrat._paddle import threads

LR, VOCABULARY, CLASSES = 1e-4, 8000, 4
LIMITS = {
    "resnet18": {"paddle": 1.6, "paddle_all_threads": 3.0},
    "transformer": {"paddle": 1.35},
}
LEARNER_LIMIT = 1.05
FASTAI = Path(__file__).with_name("fastai_loop.py")


@dataclass(frozen=True)
class Size:
    """How much is computed and how often."""

    images: tuple[int, int, int, int]
    width: int
    tokens: tuple[int, int]
    steps: int
    rounds: int
    batches: int
    fits: int


FULL = Size(images=(16, 3, 64, 64), width=256, tokens=(16, 64), steps=3, rounds=9, batches=8, fits=9)
QUICK = Size(images=(2, 3, 32, 32), width=32, tokens=(2, 16), steps=2, rounds=2, batches=2, fits=3)


class Transformer(nn.Layer):
    """Embedding, 4 encoder layers, a classifier of the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, max(1, width // 32), 4 * width), 4)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, ids: Any) -> Any:
        """Token ids [batch, length] → logits [batch, classes]."""
        return self.head(self.body(self.embedding(ids)).mean(1))


def model_and_batch(kind: str, size: Size) -> tuple[nn.Layer, Any, Any]:
    """A model, its inputs and its labels."""
    paddle.seed(0)
    if kind == "resnet18":
        model, inputs = resnet18(num_classes=CLASSES), paddle.randn(size.images)
    else:
        model, inputs = Transformer(size.width), paddle.randint(0, VOCABULARY, size.tokens)
    model.train()
    return model, inputs, paddle.randint(0, CLASSES, [inputs.shape[0]])


def full_strategy() -> Any:
    """Everything that a strategy can ask of an update."""
    strategy = hub.CombinedStrategy("adam", LR, scheduler={"linear_decay": {}, "discriminative": {"blocks": 3}})
    return (
        strategy.add_regularization("L2SP", 1e-3).add_regularization("weight_decay", 0.01).add_clip("GlobalNorm", 1.0)
    )


def work(case: str, kind: str, size: Size) -> None:
    """One case in this process: measure whenever asked to."""
    model, inputs, labels = model_and_batch(kind, size)
    if case.startswith("paddle"):
        optimizer = paddle.optimizer.AdamW(LR, parameters=model.parameters())

        def update() -> None:
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
    else:
        run = full_strategy().bind(model, max_train_steps=10**6, sample_input=inputs, pretrained="*")
        update = run.step

    def step() -> None:
        nn.functional.cross_entropy(model(inputs), labels).backward()
        update()

    if case.startswith("paddle"):
        serve(step, size.steps)
        return
    with hub.cpu_threads(1 if case.endswith("one_thread") else None):
        serve(step, size.steps)


def whole_steps(kind: str, size: Size, quick: bool) -> dict[str, Any]:
    """Milliseconds per step of each case, and how many times faster ours is than Paddle's."""
    environments = {
        "paddle": {},
        "paddle_all_threads": {"OMP_NUM_THREADS": str(threads.allowed())},
        "ours": {},
        "ours_one_thread": {},
        # A choice of the user's, which the library leaves alone; it asks for no other code than MKL takes by itself.
        "ours_mkl_as_it_comes": {"MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    }
    arguments = [kind, *(["--quick"] if quick else [])]
    workers = [Worker(__file__, name, arguments, environment) for name, environment in environments.items()]
    measured = alternate(workers, size.rounds)
    ours = measured["ours"]["step_ms"]
    faster = {name: round(row["step_ms"] / ours, 3) for name, row in measured.items() if name != "ours"}
    limits = LIMITS[kind]
    return {
        "threads": threads.allowed(),
        "cases": measured,
        "times_faster_than": faster,
        "limits": limits,
        "holds": all(faster[name] >= limit for name, limit in limits.items()),
    }


def by_hand(model: nn.Layer, loader: Any) -> Callable[[], None]:
    """One epoch as one would write it without a library: the same optimizer, the loss read at each step."""
    schedule = paddle.optimizer.lr.LambdaDecay(LR, lambda _: 1.0)
    optimizer = paddle.optimizer.Adam(schedule, parameters=model.parameters())
    losses: list[float] = []

    def epoch() -> None:
        model.train()
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            losses.append(loss.item())
            loss.backward()
            with threads.one_thread():
                optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            schedule.step()

    return epoch


def learner_against_hand(size: Size) -> dict[str, Any]:
    """An epoch of `Learner.fit` over one of a loop by hand: same model, data, optimizer, losses and threads."""
    paddle.seed(0)
    images = paddle.randn([32 * size.batches, 3, 32, 32]).numpy()
    labels = paddle.randint(0, CLASSES, [len(images)]).numpy()
    pairs = [(image, label) for image, label in zip(images, labels)]
    loader = paddle.io.DataLoader(pairs, batch_size=32)
    hand = by_hand(resnet18(num_classes=CLASSES), loader)
    learner = hub.Learner(resnet18(num_classes=CLASSES), loader, opt="adam", lr=LR, progress=False)
    runs = {"by_hand": hand, "learner": lambda: learner.fit(1)}
    with hub.cpu_threads():
        ratios, seconds = in_turn(runs, size.fits)
    return {
        "threads": threads.wanted(),
        "steps": size.batches,
        **{f"{name}_ms": round(1e3 * value / size.batches, 2) for name, value in seconds.items()},
        "ratio": ratios,
        "limit": LEARNER_LIMIT,
        "holds": ratios <= LEARNER_LIMIT,
    }


def in_turn(runs: dict[str, Callable[[], Any]], rounds: int) -> tuple[float, dict[str, float]]:
    """The median of the rounds' ratios, last over first, and the median seconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - started)
    first, *_, last = times.values()
    ratio = statistics.median(after / before for before, after in zip(first, last))
    return round(ratio, 4), {name: statistics.median(values) for name, values in times.items()}


def fastai_beside(python: str | None, size: Size) -> dict[str, Any]:
    """fastai's Learner over bare torch on the same work, or why it was not measured."""
    if python is None:
        return {"note": "not measured: no --fastai PYTHON was given"}
    command = [python, str(FASTAI), str(size.batches), str(size.fits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"note": f"not measured: {done.stderr.strip().splitlines()[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: a smoke test")
    parser.add_argument("--fastai", metavar="PYTHON", help="a Python that can import fastai")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.worker:
        work(*options.worker, size)
        return 0
    results: dict[str, Any] = {kind: whole_steps(kind, size, options.quick) for kind in LIMITS}
    results["learner"] = learner_against_hand(size)
    results["fastai"] = fastai_beside(options.fastai, size)
    held = [row["holds"] for row in results.values() if "holds" in row]
    report("quick_loop" if options.quick else "loop", {**results, "holds": all(held)})
    return 0 if options.quick or all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
