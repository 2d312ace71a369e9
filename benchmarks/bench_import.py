"""What `import paddle_ftstrat` adds to Paddle's own import: alone, with a strategy, with everything that it has.

    PYTHONPATH=. python benchmarks/bench_import.py [--quick]

Each figure is the median over new processes, in which Paddle is imported first. `holds` says whether the import
alone takes at most 0.15 s.
"""

import argparse
import json
import statistics
import subprocess
import sys

from common import report

CODE = """
import json, time, zlib
begun = time.perf_counter()
import paddle
times = [time.perf_counter() - begun]
for names in ([], ["CombinedStrategy"], ["CombinedStrategy", "Learner"], None):
    begun = time.perf_counter()
    import paddle_ftstrat as hub
    for name in hub.__all__ if names is None else names:
        getattr(hub, name)
    times.append(time.perf_counter() - begun)
print(json.dumps(times))
"""
BOUND = 0.15


def measure(rounds):
    """Seconds of Paddle's import, and beyond it of each stage with those before it."""
    found = []
    for _ in range(rounds + 1):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=True)
        paddle, *stages = json.loads(done.stdout.splitlines()[-1])
        found.append([paddle, *(sum(stages[: count + 1]) for count in range(len(stages)))])
    # The first process fills the caches.
    medians = [statistics.median(column) for column in zip(*found[1:])]
    return dict(zip(("paddle_s", "alone_s", "with_a_strategy_s", "with_learner_s", "everything_s"), medians))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    quick = parser.parse_args().quick
    result = measure(3 if quick else 11)
    result["with_a_strategy_over_paddle"] = result["with_a_strategy_s"] / result["paddle_s"]
    result["holds"] = result["alone_s"] <= BOUND
    report("quick_import" if quick else "import", result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
