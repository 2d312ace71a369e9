"""The fused update beside torch's fused AdamW with its clip by global norm; ours has L2SP and multipliers on top.

    PYTHONPATH=. python benchmarks/bench_torch.py [--quick] [--torch PYTHON]

`--torch` names a Python that has torch; without it nothing is measured. Both run in processes of their own that take
turns, each with as many cores as threads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import on_cores, report
from workers import Worker, alternate

SIZES = {"0.6M in 192": (192, [56, 55]), "9.5M in 192": (192, [223, 222]), "85M in 192": (192, [664, 666])}
QUICK_SIZES = {"0.1M in 10": (10, [100, 100])}
LIMIT = 1.0
UPDATES = str(Path(__file__).with_name("updates.py"))


def beside(torch: str, count: int, shape: list[int], cores: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of both updates, and ours over torch's."""
    arguments = [json.dumps(argument) for argument in (count, shape, cores)]
    workers = [Worker(UPDATES, "fused", arguments, {}), Worker(UPDATES, "torch", arguments, {}, python=torch)]
    measured = alternate(workers, rounds)
    ratio = measured["fused"]["step_ms"] / measured["torch"]["step_ms"]
    return {**measured, "fused_over_torch": round(ratio, 3), "limit": LIMIT, "holds": ratio <= LIMIT}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small size and few rounds: a smoke test")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch")
    options = parser.parse_args()
    if options.torch is None:
        print("not measured: no --torch PYTHON was given")
        return
    rounds = 3 if options.quick else 15
    rows = {
        label: beside(options.torch, count, shape, cores, rounds)
        for label, (count, shape), cores in on_cores(QUICK_SIZES if options.quick else SIZES)
    }
    report("quick_torch" if options.quick else "torch", rows)


if __name__ == "__main__":
    main()
