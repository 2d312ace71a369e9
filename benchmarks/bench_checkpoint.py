"""Saving 110 M parameters with Adam's moments: how long the caller waits, and how long until all is on the disk.

Against `paddle.save` of the same state, which neither syncs nor checks what it writes. One after the other in every
round; only the ratios of the best rounds mean something.

    PYTHONPATH=. python benchmarks/bench_checkpoint.py [--quick]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
from common import report

from paddle_ftstrat.training.checkpoint.store import Store

HIDDEN, VOCABULARY = 768, 30522  # BERT base
LIMIT = 0.1  # of paddle.save: the share that the caller may wait


def build_state(layers: int) -> dict[str, dict[str, Any]]:
    """Weights and both moments of BERT's embeddings and some of its layers."""
    shapes = {"words": [VOCABULARY, HIDDEN], "positions": [512, HIDDEN]}
    for layer in range(layers):
        for name in ("query", "key", "value", "out"):
            shapes[f"{layer}.{name}.weight"] = [HIDDEN, HIDDEN]
        shapes[f"{layer}.up.weight"] = [HIDDEN, 4 * HIDDEN]
        shapes[f"{layer}.down.weight"] = [4 * HIDDEN, HIDDEN]
        for name, size in (("query", 1), ("key", 1), ("value", 1), ("out", 1), ("up", 4), ("down", 1), ("norm", 2)):
            shapes[f"{layer}.{name}.bias"] = [size * HIDDEN]
    weights = {name: paddle.randn(shape) for name, shape in shapes.items()}
    moments = {f"{name}::moment{i}": paddle.randn(shape) for name, shape in shapes.items() for i in (1, 2)}
    return {"model": weights, "optimizer": moments}


def seconds(act: Callable[[], Any]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def measure(state: dict[str, dict[str, Any]], folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each way to save, in turn; the first round apart, because memory is new to the process there."""
    background, waiting = Store(folder / "background", keep=1), Store(folder / "waiting", keep=1, background=False)
    times: dict[str, list[float]] = {"paddle_save": [], "caller_waits": [], "on_disk": [], "in_foreground": []}
    for step in range(rounds + 1):
        times["paddle_save"].append(seconds(lambda: paddle.save(state, str(folder / "paddle.pdparams"))))
        blocked = seconds(lambda step=step: background.save(step, state, {"step": step}))
        times["caller_waits"].append(blocked)
        times["on_disk"].append(blocked + seconds(background.wait))
        times["in_foreground"].append(seconds(lambda step=step: waiting.save(step, state, {"step": step})))
    loading = seconds(background.latest)
    best = {name: min(values[1:]) for name, values in times.items()}
    ratios = {name: value / best["paddle_save"] for name, value in best.items() if name != "paddle_save"}
    return {
        "first_round_s": {name: values[0] for name, values in times.items()},
        "median_s": {name: statistics.median(values[1:]) for name, values in times.items()},
        "best_s": best,
        "over_paddle_save": ratios,
        "first_caller_waits_over_first_paddle_save": times["caller_waits"][0] / times["paddle_save"][0],
        "load_and_check_s": loading,
        "paddle_load_s": seconds(lambda: paddle.load(str(folder / "paddle.pdparams"))),
        "limit": LIMIT,
        "holds": ratios["caller_waits"] < LIMIT or ratios["on_disk"] <= 1.0,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small state and few rounds: a smoke test")
    parser.add_argument("--folder", help="a folder on the disk to measure; default: the one for temporary files")
    options = parser.parse_args()
    state = build_state(layers=0 if options.quick else 12)
    values = [tensor for part in state.values() for tensor in part.values()]
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        results = measure(state, folder, rounds=2 if options.quick else 7)
    finally:
        shutil.rmtree(folder)
    parameters = sum(tensor.size for tensor in state["model"].values())
    sizes = {"parameters": parameters, "tensors": len(values), "bytes": 4 * sum(tensor.size for tensor in values)}
    report("quick_checkpoint" if options.quick else "checkpoint", {**sizes, **results})


if __name__ == "__main__":
    main()
