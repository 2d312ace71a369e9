"""Run the benchmarks of this folder, one after the other, each in a process of its own.

    python -m benchmarks [--quick] [NAME …]       all bench_*.py or the named ones; JSON and a picture into results/
    python -m benchmarks --table                  only write the tables of docs/performance.md anew from the JSON files

Run it with each Paddle version in turn; every script also runs alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# The scripts import what they share by its bare name, as they do when they run alone.
sys.path.insert(0, str(HERE))


def found() -> dict[str, Path]:
    """Benchmark name → script."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def run(script: Path, quick: bool) -> tuple[int, float]:
    """Exit status and seconds of one script."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *(["--quick"] if quick else [])], env={**os.environ, "PYTHONPATH": path}
    )
    return done.returncode, time.perf_counter() - started


def main() -> int:
    """Run what was asked for; 1 when a script failed or a bound does not hold."""
    scripts = found()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scripts))
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: a smoke test")
    parser.add_argument("--table", action="store_true", help="only write the tables of the documents anew")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in scripts]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(scripts)}")
    statuses = {}
    if not options.table:
        for name in options.names or scripts:
            print(f"== {name}", flush=True)
            statuses[name] = run(scripts[name], options.quick)
    for name, (status, seconds) in statuses.items():
        print(f"{name:12} {seconds:6.0f} s  {'ok' if status == 0 else f'exit status {status}'}")
    # Only now: it imports Paddle, which sets OMP_NUM_THREADS, and the scripts have to find that as the user left it.
    import table

    if options.table:
        table.refresh()
        newest = sorted(table.RESULTS.glob("whole-*.json"))[-1:]
        for path in newest:
            table.draw_whole(path.stem.partition("-")[2], table.ROOT / "docs/whole_steps.png")
        print(table.markdown("en"))
    elif not options.quick:
        import paddle

        picture = table.RESULTS / f"overview-{paddle.__version__}.png"
        table.draw(paddle.__version__, picture)
        print(picture)
    return int(any(status for status, _ in statuses.values()))


if __name__ == "__main__":
    sys.exit(main())
