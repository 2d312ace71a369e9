"""Starts `resumable.py`, kills it with SIGKILL at random points, and starts it again until it is through."""

import random
import time
from pathlib import Path

import numpy as np
import processes

SCRIPT = Path(__file__).parent / "resumable.py"


def start(folder, result, every, pace):
    """The training in a process of its own; folder "" trains without checkpoints."""
    return processes.start(f"{result}.log", SCRIPT, folder, result, every, PACE=str(pace), PYTHONWARNINGS="ignore")


def finish(process):
    """Wait for the training to end well."""
    assert processes.finish(process, seconds=300) == 0


def killed_and_resumed(tmp_path, kills, seed=0, every=2, pace=0.02):
    """Train with `kills` interruptions; the outcome, and how many of them came while a checkpoint was being written."""
    folder, result = tmp_path / "ckpt", tmp_path / "killed.npz"
    draw = random.Random(seed)
    # 60 updates: each process is killed a few updates after it has got going.
    points = sorted(draw.sample(range(1, 60), min(kills, 59)) + draw.choices(range(1, 60), k=max(0, kills - 59)))
    progress, inside = Path(f"{result}.progress"), 0
    for number, point in enumerate(points):
        progress.unlink(missing_ok=True)
        process = start(folder, result, every, pace)
        while process.is_alive() and int(progress.read_text() or 0 if progress.exists() else 0) < point:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        while number % 3 == 0 and process.is_alive() and not _is_saving(folder):
            # Every third waits for a checkpoint that is being written.
            time.sleep(0.0002)
        process.kill()
        process.join()
        inside += _is_saving(folder)
    finish(start(folder, result, every, pace=0))
    return dict(np.load(result)), inside


def _is_saving(folder):
    return folder.exists() and any(path.name.startswith(".step_") for path in folder.iterdir())


def unbroken(tmp_path, every=2):
    """The outcome of the same training without checkpoints or interruptions."""
    finish(start("", tmp_path / "unbroken.npz", every, pace=0))
    return dict(np.load(tmp_path / "unbroken.npz"))


def different(a, b):
    """The names under which two outcomes differ in any bit."""
    bits = [{name: (str(v.dtype), v.shape, v.tobytes()) for name, v in side.items()} for side in (a, b)]
    return sorted(name for name in {*a, *b} if bits[0].get(name) != bits[1].get(name))
