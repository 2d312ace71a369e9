"""Shared by the benchmarks: interleaved timing, ratios, memory, JSON."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat._paddle import threads

RESULTS = Path(__file__).parent / "results"


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int = 15, repeat: int = 1) -> dict[str, float]:
    """Median seconds of each run; one after the other in every round, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                for _ in range(repeat):
                    run()
                times[name].append((time.perf_counter() - started) / repeat)
    finally:
        gc.enable()
    return {name: statistics.median(measured) for name, measured in times.items()}


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def environment() -> dict[str, Any]:
    """What a figure has to be read with."""
    return {
        "paddle": paddle.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": threads.processor(threads.CPUINFO).get("model name", platform.processor()),
        "cpus": os.cpu_count(),
        "mkl_code": threads.code_in_force(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def on_cores(sizes: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Each size on one core and on all: (label, the size's value, number of cores)."""
    for name, size in sizes.items():
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            yield f"{name}, {cores} {'core' if cores == 1 else 'cores'}", size, cores


def report(name: str, results: dict[str, Any]) -> Path:
    """Print the results and write them to results/NAME-PADDLEVERSION.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{paddle.__version__}.json"
    text = json.dumps({"environment": environment(), **results}, indent=1)
    path.write_text(text + "\n")
    print(text)
    return path
