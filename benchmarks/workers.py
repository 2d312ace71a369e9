"""Steps measured in processes of their own that take turns, each with its own environment.

A thread count has to stand in the environment before Paddle is imported, so what differs in it cannot share a process.
The processes stay alive and measure in turn, so that all of them see the same machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# A process whose threads have just worked goes on spinning for 200 ms.
PAUSE = 0.3


def busy_ticks() -> int:
    """Ticks in which some processor of the machine worked, for any process."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(values[:8]) - values[3] - values[4]


class OtherLoad:
    """How many processors other processes kept busy since this was made."""

    def __init__(self) -> None:
        self._before = self._now()

    def processors(self) -> float:
        """The mean number."""
        passed = [now - before for now, before in zip(self._now(), self._before)]
        return (passed[0] / os.sysconf("SC_CLK_TCK") - passed[1]) / passed[2]

    def _now(self) -> tuple[float, float, float]:
        own = os.times()
        return busy_ticks(), own.user + own.system, time.perf_counter()


class Worker:
    """A process that runs `script --worker NAME ARGUMENTS…` and measures once per line that it is sent."""

    def __init__(
        self,
        script: str,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        inherited = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        self._process = subprocess.Popen(
            [python, script, "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited, "PYTHONWARNINGS": "ignore", **environment},
        )
        self.name = name

    def measure(self) -> dict[str, float]:
        """What the process measured in one turn.

        Raises:
            RuntimeError: the process ended.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the process of {self.name} ended; what it said stands above")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def serve(step: Callable[[], Any], steps: int) -> None:
    """Measure `steps` calls for each line of the standard input; the first call is not counted."""
    before, used = _resident(), _in_use("now")
    for _ in range(2):
        step()
    for _ in sys.stdin:
        step()
        load, seconds = OtherLoad(), []
        for _ in range(steps):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        turn = {"seconds": statistics.median(seconds), "load": load.processors(), "peak": peak, "before": before}
        turn["used"] = 0 if used is None else _in_use("top") - used
        print(json.dumps(turn), flush=True)


@contextlib.contextmanager
def counting() -> Iterator[dict[str, str]]:
    """The environment in which a process counts the memory that it uses; nothing where no compiler is."""
    source = Path(__file__).with_name("in_use.c")
    with tempfile.TemporaryDirectory() as folder:
        library, done = Path(folder, "in_use.so"), None
        with contextlib.suppress(OSError):
            done = subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], capture_output=True)
        yield {"LD_PRELOAD": str(library)} if done is not None and done.returncode == 0 else {}


def _in_use(which: str) -> int | None:
    """Bytes that are in use "now", or at the "top" since that was asked last; None where nothing counts them."""
    counted = getattr(ctypes.CDLL(None), f"in_use_{which}", None)
    if counted is None:
        return None
    counted.restype = ctypes.c_long
    return counted()


def _resident() -> int:
    """KiB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def alternate(workers: list[Worker], rounds: int) -> dict[str, dict[str, float]]:
    """Measure all workers in turn; the median over the rounds, and the other load that they met."""
    turns: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
    try:
        for _ in range(rounds):
            for worker in workers:
                time.sleep(PAUSE)
                turns[worker.name].append(worker.measure())
    finally:
        for worker in workers:
            worker.close()
    return {
        name: {
            "step_ms": round(1e3 * statistics.median(turn["seconds"] for turn in measured), 2),
            "best_ms": round(1e3 * min(turn["seconds"] for turn in measured), 2),
            "peak_mib": round(measured[-1]["peak"] / 1024),
            "steps_mib": round((measured[-1]["peak"] - measured[-1]["before"]) / 1024),
            "steps_in_use_mib": round(measured[-1]["used"] / 2**20),
            "processors_busy_elsewhere": round(statistics.median(turn["load"] for turn in measured), 2),
        }
        for name, measured in turns.items()
    }
