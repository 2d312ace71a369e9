"""What strategies are for, measured.

    python -m benchmarks.evidence NAME [--quick] [--jobs 1] [--done FILE] [--data DIR]
    python -m benchmarks.evidence docs                       tables, figures and pictures of the documents from the JSON

Every finished run is a line of the file of --done: started again, the command goes on there. Two runs give the same
figures but for seconds. Writes benchmarks/results/evidence_NAME-PADDLEVERSION.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# A file of this folder each.
NAMES = ("retention", "domains", "ulmfit", "surgical", "characters", "cost", "stability")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*NAMES, "docs"])
    parser.add_argument("--quick", action="store_true", help="small sizes: a few minutes, shows nothing")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1), each with one thread")
    parser.add_argument("--folder", type=Path, default=Path("evidence"), help="for weights and finished runs")
    parser.add_argument("--done", type=Path, help="the file of finished runs (default FOLDER/NAME.jsonl)")
    parser.add_argument(
        "--data", type=Path, help="folder of the reviews (ChineseNlpCorpus), for the experiments on texts"
    )
    parser.add_argument("--csv", type=Path, help="retention, domains: your own texts; columns text, label, group")
    parser.add_argument("--target", help="with --csv: the group that is the new task")
    parser.add_argument(
        "-o", "--output", type=Path, help="the JSON (default in benchmarks/results; with --quick or --csv in FOLDER)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    given = parsed(arguments)
    # Before Paddle is imported, here and in the processes: another number of threads rounds otherwise.
    os.environ["OMP_NUM_THREADS"] = "1"
    import paddle

    from benchmarks.common import environment
    from benchmarks.evidence import core, docs

    if given.name == "docs":
        docs.refresh({name: core.module_of(name).SHOWN for name in NAMES})
        return
    options = core.Options(given.quick, given.data, given.folder, given.csv, given.target)
    experiment, own = core.experiment_of(given.name, options), given.quick or given.csv
    done = core.Done(
        given.done or given.folder / f"{given.name}{'-quick' if given.quick else ''}.jsonl", experiment.digest
    )
    perform = partial(map, experiment.run)
    if given.jobs > 1:
        perform = partial(core.in_processes, given.jobs, given.name, options)
    results = {"environment": environment(), **core.results(experiment, done, perform, progress=sys.stderr.isatty())}
    path = given.output or (given.folder if own else docs.RESULTS) / f"evidence_{given.name}-{paddle.__version__}.json"
    path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for part, lines in results["parts"].items():
        print(f"\n{part}\n\n{docs.table(lines, core.module_of(given.name).SHOWN, 'en')}")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
