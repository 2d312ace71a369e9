"""A training killed a hundred times against an unbroken one: they must come out equal in every bit.

    python benchmarks/soak_resume.py [--kills 100] [--seed 0]

It is the test of tests/test_resume.py, for longer; a few seconds per kill.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

import common  # noqa: E402
from killing import different, killed_and_resumed, unbroken  # noqa: E402


def main() -> None:
    """Kill, resume, compare, and note the outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        expected = unbroken(Path(folder))
        found, inside = killed_and_resumed(Path(folder), given.kills, seed=given.seed)
    differing = different(expected, found)
    common.report(
        "soak_resume",
        {
            "kills": given.kills,
            "kills while saving": inside,
            "arrays compared": len(expected),
            "arrays that differ": differing,
            "seconds": round(time.time() - begun),
        },
    )
    if differing:
        raise SystemExit(f"{len(differing)} arrays differ: {differing[:5]}")


if __name__ == "__main__":
    main()
