"""What freezing saves: time and peak memory of a step as the frozen share grows, on ResNet-18 and a transformer.

    PYTHONPATH=. python benchmarks/bench_freeze.py [--quick]

A step is forward, backward and an Adam update. Times are medians of interleaved rounds in one process; the peak is
what a process that does nothing else grows by in three steps. Ratios are to the same step with nothing frozen.

`phases` are those of a strategy that thaws thirds of the layers, epoch by epoch; each is held against the forward and
the thawed layers' share of the backward of the same model with nothing frozen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zlib  # noqa: F401  before Paddle, as the package does: libpaddle of 2.6.2 breaks one loaded after it
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from common import interleaved, report, resident
from paddle import nn
from paddle.vision.models import resnet18

import paddle_ftstrat as hub
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.param_attr.freezing import freeze
from paddle_ftstrat.param_attr.select import named_weights


@dataclass(frozen=True)
class Size:
    """How large the models and their batches are."""

    images: tuple[int, int, int, int]
    width: int
    tokens: tuple[int, int]
    rounds: int


FULL = Size(images=(8, 3, 96, 96), width=256, tokens=(8, 64), rounds=11)
QUICK = Size(images=(2, 3, 32, 32), width=32, tokens=(2, 16), rounds=3)
VOCABULARY = 8000
STAGES = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
# What is frozen, bottom first; each line adds to those above it.
SHARES: dict[str, list[list[str]]] = {
    "resnet18": [[], STAGES[:3], STAGES[:4], STAGES[:5], STAGES],
    "transformer": [[], *(["embedding", *(f"body.layers.{i}" for i in range(top))] for top in (0, 2, 4, 6))],
}
TWO_THIRDS = SHARES["transformer"][3]
PHASES = 3
# In the first phase, two thirds frozen: peak memory over that of the last phase; time over what has to be computed.
MEMORY_LIMITS = {"resnet18": 0.75, "transformer": 0.5}
# A layer of ResNet is not as dear as any other, so their number says nothing about the time.
TIME_LIMITS = {"resnet18": None, "transformer": 1.03}


class Transformer(nn.Layer):
    """Embedding, 6 encoder layers, a classifier of the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, width // 32 or 1, 4 * width), 6)
        self.head = nn.Linear(width, 4)

    def forward(self, ids: Any) -> Any:
        """Token ids [batch, length] → logits [batch, 4]."""
        return self.head(self.body(self.embedding(ids)).mean(1))


class Step:
    """A model with the lower part frozen, by names or by the phase of a strategy, and its step in parts."""

    def __init__(self, kind: str, frozen: list[str], size: Size, phase: int | None = None) -> None:
        paddle.seed(0)
        is_image = kind == "resnet18"
        self.model = resnet18(num_classes=4) if is_image else Transformer(size.width)
        self.inputs = paddle.randn(size.images) if is_image else paddle.randint(0, VOCABULARY, size.tokens)
        self.model.train()
        freeze(self.model, frozen)
        self.optimizer = paddle.optimizer.Adam(1e-4, parameters=self.model.parameters())
        if phase is not None:
            strategy = hub.CombinedStrategy("adam", 1e-4, scheduler={"gradual_unfreeze": PHASES})
            run = strategy.bind(self.model, max_train_steps=10**6, sample_input=self.inputs)
            run.begin_epoch(phase)
            self.optimizer = run.optimizer

    def forward(self) -> Any:
        """The loss, with the graph that backward needs."""
        return self.model(self.inputs).square().mean()

    def backward(self) -> None:
        """Forward and backward."""
        self.forward().backward()
        self.optimizer.clear_grad(set_to_zero=False)

    def whole(self) -> None:
        """Forward, backward and update."""
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)

    def frozen_share(self) -> float:
        """Frozen values of all values."""
        sizes = [(param.size, param.stop_gradient) for param in named_weights(self.model).values()]
        return float(sum(size for size, frozen in sizes if frozen) / sum(size for size, _ in sizes))


def high_water() -> int:
    """The most bytes that this process has held. (getrusage counts the process that started it, too.)"""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def peak_growth(step: Step) -> int:
    """Bytes that this process grows by at its peak in three steps."""
    # What the process held for a moment while it loaded is no peak of the steps: the kernel counts anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    for _ in range(3):
        step.whole()
    return high_water() - before


def peak_in_a_process(what: str, kind: str, index: int, quick: bool) -> int:
    """`peak_growth` of a share or a phase in a process of its own, which no other measurement has filled."""
    command = [sys.executable, __file__, "--peak", what, kind, str(index), *(["--quick"] if quick else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def by_share(kind: str, size: Size, quick: bool) -> list[dict[str, Any]]:
    """Time and peak of a step for each frozen share."""
    steps = {str(index): Step(kind, frozen, size) for index, frozen in enumerate(SHARES[kind])}
    seconds = interleaved({name: step.whole for name, step in steps.items()}, rounds=size.rounds)
    shares = [step.frozen_share() for step in steps.values()]
    del steps
    peaks = [peak_in_a_process("share", kind, index, quick) for index in range(len(shares))]
    return [
        {
            "frozen_to": (frozen or ["nothing"])[-1],
            "frozen_values": round(share, 4),
            "step_ms": round(1e3 * seconds[str(index)], 2),
            "time": round(seconds[str(index)] / seconds["0"], 4),
            "peak_mib": round(peaks[index] / 2**20, 1),
            "memory": round(peaks[index] / peaks[0], 4),
        }
        for index, (frozen, share) in enumerate(zip(SHARES[kind], shares))
    ]


def by_phase(kind: str, size: Size, quick: bool) -> dict[str, Any]:
    """Time and peak of a step in each phase of gradual unfreezing, and the same step with nothing frozen."""
    free = Step(kind, [], size)
    layers = len(find_units(free.model, free.inputs))
    steps = {epoch: Step(kind, [], size, epoch) for epoch in range(1, PHASES + 1)}
    runs: dict[str, Callable[[], Any]] = {"forward": free.forward, "backward": free.backward, "whole": free.whole}
    runs.update({str(epoch): step.backward for epoch, step in steps.items()})
    seconds = interleaved(runs, rounds=2 * size.rounds)
    shares = {epoch: step.frozen_share() for epoch, step in steps.items()}
    del steps, free, runs
    peaks = {epoch: peak_in_a_process("phase", kind, epoch, quick) for epoch in range(1, PHASES + 1)}
    rows = []
    for epoch, peak in peaks.items():
        thawed = layers * epoch // PHASES / layers
        bound = seconds["forward"] + thawed * (seconds["backward"] - seconds["forward"])
        rows.append(
            {
                "epoch": epoch,
                "frozen_values": round(shares[epoch], 4),
                "thawed_layers": round(thawed, 4),
                "forward_and_backward_ms": round(1e3 * seconds[str(epoch)], 2),
                "to_forward_and_thawed_share_of_backward": round(seconds[str(epoch)] / bound, 4),
                "peak_mib": round(peak / 2**20, 1),
                "memory": round(peak / peaks[PHASES], 4),
            }
        )
    first = rows[0]
    time_limit, memory_limit = TIME_LIMITS[kind], MEMORY_LIMITS[kind]
    return {
        "layers": layers,
        "forward_ms": round(1e3 * seconds["forward"], 2),
        "backward_ms": round(1e3 * seconds["backward"], 2),
        "phases": rows,
        "limits": {"time": time_limit, "memory": memory_limit},
        "holds": first["memory"] <= memory_limit
        and (time_limit is None or first["to_forward_and_thawed_share_of_backward"] <= time_limit),
    }


def two_thirds(size: Size) -> dict[str, float]:
    """The lower 2/3 of the transformer frozen, against forward + 1/3 of the backward of the whole.

    Forward and backward are those of the same model with nothing frozen; the second ratio counts the update to the
    backward.
    """
    free, part = Step("transformer", [], size), Step("transformer", TWO_THIRDS, size)
    runs: dict[str, Callable[[], Any]] = {
        "forward": free.forward,
        "backward": free.backward,
        "whole": free.whole,
        "part_backward": part.backward,
        "part_whole": part.whole,
    }
    seconds = interleaved(runs, rounds=2 * size.rounds)
    forward = seconds["forward"]
    bound = forward + (seconds["backward"] - forward) / 3
    bound_with_update = forward + (seconds["whole"] - forward) / 3
    return {
        **{f"{name}_ms": round(1e3 * value, 2) for name, value in seconds.items()},
        "to_forward_and_third_of_backward": round(seconds["part_backward"] / bound, 4),
        "to_forward_and_third_of_backward_and_update": round(seconds["part_whole"] / bound_with_update, 4),
    }


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: a smoke test")
    parser.add_argument("--peak", nargs=3, metavar=("WHAT", "MODEL", "INDEX"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    threads.take_widest_code()
    if options.peak:
        what, kind, index = options.peak[0], options.peak[1], int(options.peak[2])
        if what == "phase":
            # What a strategy loads at its first step is not the phase's.
            Step(kind, [], QUICK, PHASES).whole()
        step = Step(kind, [], size, index) if what == "phase" else Step(kind, SHARES[kind][index], size)
        print(peak_growth(step))
        return 0
    results: dict[str, Any] = {"lower_two_thirds_of_transformer": two_thirds(size)}
    results.update({kind: by_share(kind, size, options.quick) for kind in SHARES})
    results["phases"] = {kind: by_phase(kind, size, options.quick) for kind in SHARES}
    results["holds"] = all(row["holds"] for row in results["phases"].values())
    report("quick_freeze" if options.quick else "freeze", results)
    return 0 if options.quick or results["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
