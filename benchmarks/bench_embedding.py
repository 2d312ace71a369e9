"""Memory and time of an Embedding that starts from pretrained vectors, one process per case.

    PYTHONPATH=. python benchmarks/bench_embedding.py [--quick] [--rows 400000] [--dim 300] [--plain]

`above_parameter` is the peak of the process (VmHWM) while the layer is built, less what it held before, less the
parameter's own bytes, as a ratio of the table's size; it may be 1.2 at most. An array is in memory before the layer is
built and is not counted. `--plain` adds Paddle's own Assign, on a hundredth of the rows: it turns every number into a
Python object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import report

LIMIT = 1.2
CASES = ("array", "npy", "npy with vocab", "mapping", "KeyedVectors")


def memory(field):
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


class KeyedVectors:
    """The two attributes of gensim's class that are used."""

    def __init__(self, words, vectors):
        self.key_to_index = {word: row for row, word in enumerate(words)}
        self.vectors = vectors


def source_of(case, path, rows):
    """(vectors, arguments of embedding_attr): every tenth word of a vocab is unknown, and its order is another."""
    words = [f"word{row}" for row in range(rows)]
    order = np.random.RandomState(1).permutation(rows)
    vocab = {(f"unknown{row}" if row % 10 == 0 else words[place]): row for row, place in enumerate(order.tolist())}
    if case == "npy":
        return path, {}
    if case == "npy with vocab":
        return path, {"vocab": vocab, "words": words}
    table = np.load(path)
    if case == "mapping":
        return dict(zip(words, table)), {"vocab": vocab}
    if case == "KeyedVectors":
        return KeyedVectors(words, table), {"vocab": vocab}
    return table, {}


def measure(case, path, rows, dim):
    """One case in this process."""
    import paddle
    from paddle import nn

    from paddle_ftstrat.param_attr.initialize import embedding_attr

    # What Paddle loads at its first layer is not the table's.
    nn.Embedding(8, dim, weight_attr=embedding_attr(np.zeros((8, dim), "float32"), num_embeddings=8))
    source, kw = source_of(case.removeprefix("plain "), path, rows)
    before, start = memory("VmRSS"), time.perf_counter()
    # The peak so far may lie above what is held now; the kernel starts counting anew.
    Path("/proc/self/clear_refs").write_text("5")
    if case.startswith("plain"):
        attr = paddle.ParamAttr(initializer=nn.initializer.Assign(source))
    else:
        attr = embedding_attr(source, **kw)
    layer = nn.Embedding(rows, dim, weight_attr=attr)
    seconds, peak = time.perf_counter() - start, memory("VmHWM")
    size = rows * dim * 4
    assert list(layer.weight.shape) == [rows, dim]
    return {
        "case": case,
        "rows": rows,
        "dim": dim,
        "table_mb": size / 1e6,
        "above_parameter": round((peak - before - size) / size, 3),
        "seconds": round(seconds, 2),
        "paddle": paddle.__version__,
    }


def in_own_process(case, path, rows, dim):
    """The same, measured in a fresh process."""
    command = [sys.executable, __file__, "--case", case, "--table", str(path), "--rows", str(rows), "--dim", str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_table(path, rows, dim):
    """Random vectors, written a few at a time."""
    table = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=(rows, dim))
    for start in range(0, rows, 10_000):
        stop = min(start + 10_000, rows)
        table[start:stop] = np.random.RandomState(start).standard_normal((stop - start, dim))
    table.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows: a smoke test")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.table, args.rows, args.dim)))
        return 0
    if args.quick:
        args.rows //= 20
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors.npy")
        write_table(path, args.rows, args.dim)
        results = [in_own_process(case, path, args.rows, args.dim) for case in CASES]
        if args.plain:
            rows = max(1, args.rows // 100)
            write_table(path, rows, args.dim)
            results.append(in_own_process("plain array", path, rows, args.dim))
    within = all(result["above_parameter"] <= LIMIT for result in results if not result["case"].startswith("plain"))
    figures = {"limit": LIMIT, "within_limit": within, "results": results}
    report("quick_embedding" if args.quick else "embedding", figures)
    # Beside a small table, what a process needs anyway is large.
    return 0 if args.quick or within else 1


if __name__ == "__main__":
    sys.exit(main())
