"""Curves and schedules: array evaluation, single evaluation, and `ScheduleLR.step()` against Paddle's NoamDecay.

    PYTHONPATH=. python benchmarks/bench_schedules.py [--quick]

`holds` says whether the two bounds do: 10⁶ values as an array in less than 0.5 s, and a step that costs no more than
NoamDecay's in the same run.
"""

import argparse
import statistics
import sys
import time

import numpy as np
from common import report
from paddle.optimizer.lr import NoamDecay

from paddle_ftstrat.optim.build import ScheduleLR
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.schedules.annealing import SchedCos, SchedExp, SchedLin, SchedNo, SchedPoly, combined_cos

N = 10**6
STEPS = 20_000
ROUNDS = 15
SETTINGS = {
    "warmup": {"proportion": 0.1},
    "linear_decay": {"warmup_proportion": 0.1},
    "noam_decay": {"warmup_proportion": 0.1},
}
MORE = {
    "cosine_annealing": {"T_max": N // 7},
    "exponential_decay": {"gamma": 0.999999},
    "multi_step_decay": {"milestones": [N // 4, N // 2, 3 * N // 4]},
    "polynomial_decay": {"power": 0.9},
    "sgdr": {"n_cycles": 4},
}


def curves():
    found = {name: build(0.1, N, **SETTINGS.get(name, MORE.get(name, {}))) for name, build in SCHEDULES.items()}
    fits = {
        "one_cycle mom": combined_cos(0.25, 0.95, 0.85, 0.95),
        "one_cycle, 3 groups": combined_cos(0.25, [0.01, 0.02, 0.03], [0.1, 0.2, 0.3], 0.0),
        "SchedNo": SchedNo(0.1, 1),
        "SchedLin": SchedLin(0.1, 1),
        "SchedCos": SchedCos(0.1, 1),
        "SchedExp": SchedExp(0.1, 1),
        "SchedPoly": SchedPoly(0.1, 1, 2.5),
    }
    return {**found, **{name: schedule.over(N) for name, schedule in fits.items()}}


def seconds(function, *args):
    begin = time.perf_counter()
    function(*args)
    return time.perf_counter() - begin


def per_step(scheduler):
    """Seconds per step of one round; schedulers go on, so that every round is at another place of the curve."""
    step = scheduler.step
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS


def measure(curve, rounds):
    t = np.arange(N, dtype=np.float64)
    row = {"array_s": min(seconds(curve, t) for _ in range(3))}
    row["single_ns"] = 1e9 * min(seconds(lambda: [curve(t) for t in range(STEPS)]) for _ in range(5)) / STEPS
    if np.ndim(curve(0)) == 0:
        ours, noam = ScheduleLR(curve), NoamDecay(d_model=64, warmup_steps=4000)
        # Alternating rounds see the same load of the machine; the median of their ratios is what is judged.
        pairs = [(per_step(ours), per_step(noam)) for _ in range(rounds)]
        row["step_ns"] = 1e9 * min(mine for mine, _ in pairs)
        row["noam_step_ns"] = 1e9 * min(theirs for _, theirs in pairs)
        row["step_ratio"] = statistics.median(mine / theirs for mine, theirs in pairs)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: a smoke test")
    quick = parser.parse_args().quick
    rows = {name: measure(curve, 2 if quick else ROUNDS) for name, curve in curves().items()}
    slowest = max(row["array_s"] for row in rows.values())
    highest = max(row.get("step_ratio", 0.0) for row in rows.values())
    result = {
        "values_per_array": N,
        "slowest_array_s": slowest,
        "highest_step_ratio": highest,
        "holds": slowest < 0.5 and highest <= 1.0,
        "curves": rows,
    }
    report("quick_schedules" if quick else "schedules", result)
    return 0 if quick or result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
