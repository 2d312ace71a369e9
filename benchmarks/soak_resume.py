"""A training stopped in many ways and started again, against an unbroken one: they must come out equal in every bit.

    python benchmarks/soak_resume.py [--kills 100] [--seed 0]
    python benchmarks/soak_resume.py --every-point [--jobs 2] [--done FILE]

The first kills a process with SIGKILL at random, as tests/test_resume.py does, for longer; a few seconds per kill. The
second goes through every point of tests/stops.py, of which tests/test_resume_points.py takes a sample: hours. Started
again with the same `--done`, it goes on with the scripts that are not in that file yet; Ctrl+C notes what was done.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

# One thread in each of the processes that share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

import common  # noqa: E402
import stops  # noqa: E402
from killing import different, killed_and_resumed, unbroken  # noqa: E402
from tqdm import tqdm  # noqa: E402


def at_random(kills: int, seed: int) -> dict[str, Any]:
    """Kill, resume, compare."""
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        expected = unbroken(Path(folder))
        found, inside = killed_and_resumed(Path(folder), kills, seed=seed)
    return {
        "kills": kills,
        "kills while saving": inside,
        "arrays compared": len(expected),
        "arrays that differ": different(expected, found),
        "seconds": round(time.time() - begun),
    }


def of_script(name: str) -> dict[str, Any]:
    """All points of one script of `stops.scenarios`.

    Those with the same files on the disk are run once; those that differ in nothing any more once a run has gone on
    from them are run to the end once.
    """
    run, begun, differing, known = stops.scenarios()[name], time.time(), [], set()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "f"
        expected, points = stops.recorded(run, folder)

        def compare(what: str, go: Any, *given: Any) -> None:
            try:
                found = go(run, folder, *given)
                names = [] if found is None else different(expected, found)
            except Exception as error:  # whatever it is, the other points are to be run
                names = [repr(error)]
            if names:
                differing.append(f"{what}: {', '.join(names[:5])}")

        states = {point.files: point for point in reversed(points)}
        for files, point in states.items():
            what = f"killed before {point.kind} in epoch {point.epoch} of fit {point.fit}"
            compare(what, stops.outcome, files, known)
        events = [point for point in points if point.kind in stops.EVENTS]
        for number, point in enumerate(events):
            compare(f"raised in {point.kind} in epoch {point.epoch} of fit {point.fit}", stops.raised, number)
    return {
        "kill points": len(points),
        "different states of the disk": len(states),
        "run to the end": len(known),
        "exceptions": len(events),
        "arrays compared": len(expected),
        "differences": differing,
        "seconds": round(time.time() - begun),
    }


def every_point(jobs: int, done: Path | None) -> dict[str, Any]:
    """The points of all scripts, in several processes."""
    found = {}
    if done is not None and done.exists():
        found = dict(json.loads(line) for line in done.read_text().splitlines())
    scripts = list(stops.scenarios())
    # In an order in which those that are through, should it be stopped, are a sample of all.
    names = [name for name in random.Random(0).sample(scripts, len(scripts)) if name not in found]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as pool, tqdm(total=len(names), unit="script") as bar:
        waiting = {pool.submit(of_script, name): name for name in names}
        try:
            for future in as_completed(waiting):
                name = waiting[future]
                found[name] = future.result()
                if done is not None:
                    with done.open("a") as file:
                        file.write(json.dumps([name, found[name]]) + "\n")
                bar.set_postfix_str(f"{name}: {len(found[name]['differences'])} differences")
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    sums = ("kill points", "different states of the disk", "run to the end", "exceptions", "seconds")
    return {
        "scripts": len(scripts),
        "of them done": len(found),
        **{key: sum(each[key] for each in found.values()) for key in sums},
        "differences": {name: each["differences"] for name, each in found.items() if each["differences"]},
    }


def main() -> None:
    """Run what was asked for, and note the outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-point", action="store_true", help="all points of tests/stops.py instead of kills")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, with --every-point")
    parser.add_argument("--done", type=Path, help="file of the scripts that are done, with --every-point")
    given = parser.parse_args()
    if given.every_point:
        results = every_point(given.jobs, given.done)
        common.report("soak_points", results)
        differing = results["differences"]
    else:
        results = at_random(given.kills, given.seed)
        common.report("soak_resume", results)
        differing = results["arrays that differ"]
    if differing:
        raise SystemExit(f"not equal: {differing}")


if __name__ == "__main__":
    main()
