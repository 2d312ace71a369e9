"""Loading 110 M float32 parameters from safetensors: time and peak extra memory against reading the file with numpy.

Both are measured in this run, in processes of their own, alternately; only their ratios mean something.

    PYTHONPATH=. python benchmarks/bench_transfer.py [--quick] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HIDDEN, LAYERS, VOCABULARY = 768, 12, 30522  # BERT base
QUICK_LAYERS = 1
LIMITS = {"extra_memory_of_file": 0.3, "time_of_numpy_load": 1.3, "interpolate_time_of_numpy_load": 1.5}


def build(layers):
    """A model of BERT base's size, with its 12 layers: an embedding and encoder layers."""
    from paddle import nn

    blocks = [nn.TransformerEncoderLayer(HIDDEN, 12, 4 * HIDDEN) for _ in range(layers)]
    return nn.Sequential(nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(512, HIDDEN), *blocks)


def resident():
    """Resident memory of this process, in bytes, files that are mapped included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Peak(threading.Thread):
    """The highest resident memory while it runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_value = self.value = resident()
        self.done = threading.Event()

    def run(self):
        """Look every half millisecond: one array takes longer than that."""
        while not self.done.wait(5e-4):
            self.value = max(self.value, resident())

    def extra(self):
        """Bytes above the start."""
        self.done.set()
        self.join()
        return max(self.value, resident()) - self.start_value


def load_ours(path, layers):
    from paddle_ftstrat.transfer import load_pretrained

    model = build(layers)
    return lambda: load_pretrained(model, path, strict=True)


def load_numpy(path, layers):
    from safetensors.numpy import load_file

    return lambda: load_file(path)


def load_paddle(path, layers):
    """What one writes without this library: read, then set_state_dict."""
    try:
        from safetensors.paddle import load_file
    except AttributeError:  # it needs dtypes that paddlepaddle 2.6 does not have
        from safetensors.numpy import load_file

    model = build(layers)
    return lambda: model.set_state_dict(load_file(path))


def interpolate_ours(path, layers):
    from paddle_ftstrat.transfer import interpolate

    model = build(layers)
    return lambda: interpolate(model, path, 0.5)


HOW = {"ours": load_ours, "numpy": load_numpy, "paddle": load_paddle, "interpolate": interpolate_ours}


def measure(how, path, layers, with_memory):
    """Seconds and extra bytes of one load; watching memory takes time of its own, so only one of both counts."""
    load = HOW[how](path, layers)
    peak = Peak()
    if with_memory:
        peak.start()
    start = time.perf_counter()
    result = load()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "extra": peak.extra() if with_memory else None, "done": result is not None}))


def spawn(how, path, layers, with_memory):
    command = [sys.executable, __file__, "--measure", how, "--path", str(path), "--layers", str(layers)]
    command += ["--memory"] * with_memory
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def compare(rounds, layers):
    from paddle_ftstrat.transfer import save_pretrained

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model = build(layers)
        save_pretrained(model, path)
        size = path.stat().st_size
        spawn("numpy", path, layers, False)  # the file is in the page cache from here on, for all alike
        seconds = {how: [] for how in HOW}
        for _ in range(rounds):
            for how in HOW:
                seconds[how].append(spawn(how, path, layers, False)["seconds"])
        extra = {how: spawn(how, path, layers, True)["extra"] for how in HOW}
    best = {how: min(values) for how, values in seconds.items()}
    return {
        "parameters": sum(param.size for param in model.parameters()),
        "file_bytes": size,
        "seconds_best": best,
        "seconds_median": {how: statistics.median(values) for how, values in seconds.items()},
        "extra_memory_of_file": {how: value / size for how, value in extra.items()},
        "time_of_numpy_load": best["ours"] / best["numpy"],
        "time_of_set_state_dict": best["ours"] / best["paddle"],
        "interpolate_time_of_numpy_load": best["interpolate"] / best["numpy"],
        "limits": LIMITS,
        "holds": extra["ours"] / size <= LIMITS["extra_memory_of_file"]
        and best["ours"] / best["numpy"] <= LIMITS["time_of_numpy_load"]
        and best["interpolate"] / best["numpy"] <= LIMITS["interpolate_time_of_numpy_load"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model and one round: a smoke test")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=HOW, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, default=LAYERS, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.path, args.layers, args.memory)
        return 0
    # Only here: what this brings along would count as memory of the processes that measure.
    from common import report

    results = compare(1, QUICK_LAYERS) if args.quick else compare(args.rounds, LAYERS)
    report("quick_transfer" if args.quick else "transfer", results)
    return 0 if args.quick or results["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
