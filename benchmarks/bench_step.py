"""What a strategy costs: run.step() against the same Paddle calls by hand, bind() of a large model, L2SP's memory.

And what the update by itself costs, by each of the ways of `updates.py`, on one core and on all.

python benchmarks/bench_step.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
from common import interleaved, on_cores, report, resident
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.optim.regularizer import L2SPDecay

LR, DECAY, L2SP, CLIP = 1e-4, 0.01, 1e-3, 1.0
# Number of tensors, shape of each, rounds.
UPDATES = {
    "0.6M in 192": (192, [56, 55], 101),
    "9.5M in 192": (192, [223, 222], 25),
    "85M in 192": (192, [664, 666], 9),
    "1M in 100": (100, [100, 100], 51),
    "1M in 1,000": (1_000, [100, 10], 25),
    "0.1M in 10,000": (10_000, [10], 9),
}
QUICK_UPDATES = {"0.1M in 10": (10, [100, 100], 3)}


def small_model() -> nn.Layer:
    """96 layers, 192 tensors, 0.6 million values."""
    return nn.Sequential(*(nn.Linear(78, 78) for _ in range(96)))


def fill_gradients(model: nn.Layer) -> list:
    """A gradient for each parameter, made anew without a backward."""
    return [paddle.full_like(param, 1e-3) for param in model.parameters()]


class ByHand:
    """The same update with Paddle's own classes, written out."""

    def __init__(self, model: nn.Layer, full: bool) -> None:
        self.params = model.parameters()
        self.lr = paddle.optimizer.lr.LambdaDecay(LR, lambda t: max(0.0, 1 - t / 10**6))
        self.full = full
        options = {}
        if full:
            options["grad_clip"] = nn.ClipGradByGlobalNorm(CLIP)
            for param in self.params:
                param.regularizer = L2SPDecay(L2SP, param.detach().clone())
        self.optimizer = paddle.optimizer.Adam(self.lr, parameters=self.params, **options)
        self.decayed = [param for param in self.params if param.ndim > 1]

    def step(self) -> None:
        """One update."""
        self.optimizer.step()
        if self.full:
            keep = 1.0 - self.lr() * DECAY
            with paddle.no_grad():
                for param in self.decayed:
                    param.scale_(keep)
        self.optimizer.clear_grad(set_to_zero=False)
        self.lr.step()


def ours(model: nn.Layer, full: bool) -> hub.Binding:
    """The same update as a strategy."""
    strategy = hub.CombinedStrategy("adam", LR, scheduler={"linear_decay": {"start_point": 0.0}})
    if full:
        strategy.add_regularization("L2SP", L2SP).add_regularization("weight_decay", DECAY).add_clip("GlobalNorm", CLIP)
    return strategy.bind(model, max_train_steps=10**6, pretrained="*" if full else None)


def step_cost(rounds: int, full: bool) -> dict[str, float]:
    """Seconds of one update, ours and by hand, on models of their own with the same gradients."""
    models = {"by_hand": small_model(), "ours": small_model()}
    steppers = {"by_hand": ByHand(models["by_hand"], full), "ours": ours(models["ours"], full)}
    inputs = paddle.ones([1, 78])

    def prepared(name: str):
        model, stepper = models[name], steppers[name]

        def run() -> float:
            model(inputs).sum().backward()
            started = time.perf_counter()
            stepper.step()
            return time.perf_counter() - started

        return run

    runs = {name: prepared(name) for name in models}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 3):
        for name, run in runs.items():
            seconds = run()
            if index >= 3:
                times[name].append(seconds)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "tensors": len(models["ours"].parameters()),
        "values": sum(param.size for param in models["ours"].parameters()),
        "by_hand_ms": 1e3 * medians["by_hand"],
        "run_step_ms": 1e3 * medians["ours"],
        "ratio": medians["ours"] / medians["by_hand"],
    }


def bind_cost(width: int) -> dict[str, float]:
    """Seconds and memory of bind() on 200 tensors, without and with L2SP."""
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(100)))
    weights = sum(4 * param.size for param in model.parameters())
    plain = hub.ULMFiTStrategy()
    before, started = resident(), time.perf_counter()
    run = plain.bind(model, max_train_steps=1000)
    seconds, copied = time.perf_counter() - started, resident() - before
    repeated = interleaved({"bind": lambda: plain.bind(model, max_train_steps=1000)}, rounds=5)["bind"]
    run = plain.bind(model, max_train_steps=1000)
    before = resident()
    anchored = hub.L2SPFinetuneStrategy().bind(model, pretrained="*")
    kept = resident() - before
    assert run is not anchored
    return {
        "tensors": 200,
        "values": weights // 4,
        "bind_first_s": seconds,
        "bind_s": repeated,
        "bind_memory_over_weights": copied / weights,
        "l2sp_memory_over_weights": kept / weights,
    }


def update_costs(sizes: dict[str, tuple[int, list[int], int]]) -> dict[str, dict[str, float]]:
    """Milliseconds of one update by each of the ways, and what the fused one gains, by size and number of cores."""
    rows = {}
    script = str(Path(__file__).with_name("updates.py"))
    for label, (count, shape, rounds), cores in on_cores(sizes):
        command = [sys.executable, script, *(json.dumps(argument) for argument in (count, shape, rounds, cores))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=_clean())
        row = json.loads(done.stdout.splitlines()[-1])
        rows[label] = {**row, **_ratios(row)}
    return rows


def _ratios(row: dict[str, float]) -> dict[str, float]:
    """What the fused update gains over the others, and could at most; how often the triad fits into its time."""
    ratios = {}
    for suffix in ("", "_in_a_row") if "fused_in_a_row" in row else ("",):
        fused = row[f"fused{suffix}"]
        ratios[f"composed_over_fused{suffix}"] = row[f"composed{suffix}"] / fused
        ratios[f"adamw_over_fused{suffix}"] = row[f"adamw{suffix}"] / fused
        floor = row[f"asking{suffix}"] + row[f"passes{suffix}"]
        ratios[f"composed_over_floor{suffix}"] = row[f"composed{suffix}"] / floor
        ratios[f"adamw_over_floor{suffix}"] = row[f"adamw{suffix}"] / floor
    ratios["fused_over_triad"] = row["fused"] / row["triad"]
    return ratios


def _clean() -> dict[str, str]:
    """The environment as the user left it: importing Paddle has set a number of threads, which children inherit."""
    return {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and a small model: a smoke test")
    quick = parser.parse_args().quick
    rounds = 9 if quick else 101
    report(
        "quick_step" if quick else "step",
        {
            "step_plain_adam": step_cost(rounds, full=False),
            "step_clip_l2sp_decay": step_cost(rounds, full=True),
            "bind": bind_cost(100 if quick else 1048),
            "updates_ms": update_costs(QUICK_UPDATES if quick else UPDATES),
        },
    )


if __name__ == "__main__":
    main()
