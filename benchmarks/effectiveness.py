"""What each strategy does to accuracy: on Chinese reviews and on handwritten digits, over seeds, against constant LR.

    python benchmarks/effectiveness.py --data-dir DIR

DIR holds ChnSentiCorp_htl_all.csv and online_shopping_10_cats.zip (or .csv) of the collection ChineseNlpCorpus. Every
finished run is a line of runs.jsonl in the output folder: started again, the script goes on there, and the
tables come out the same. Writes effectiveness.json, effectiveness.md and effectiveness.png.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import zlib  # noqa: F401  (before Paddle 2, which breaks it for pictures otherwise)
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

import paddle
from common import environment
from effectiveness_images import image_task
from effectiveness_report import draw, markdown
from effectiveness_rows import rows
from effectiveness_text import TextSettings, text_task
from ulmfit.stages import LanguageRecipe, write_json

from paddle_ftstrat.tools.runs import Budget, Line, Records, lines_of, run_rows

PARTS = ("text", "images")
TEXT = Budget(epochs=8, grid=(1e-3, 3e-3, 1e-2), choosing=(100, 101), seeds=tuple(range(7)))
IMAGES = Budget(epochs=12, grid=(3e-3, 1e-2, 3e-2), choosing=(100, 101, 102, 103), seeds=tuple(range(20)))
QUICK_TEXT = Budget(epochs=3, grid=(3e-3, 1e-2), choosing=(100,), seeds=(0, 1))
QUICK_IMAGES = Budget(epochs=4, grid=(3e-3, 1e-2), choosing=(100,), seeds=(0, 1, 2))
SETTINGS = TextSettings(LanguageRecipe(epochs=2, lr=1e-2), LanguageRecipe(epochs=3, lr=5e-3))
QUICK_SETTINGS = TextSettings(
    LanguageRecipe(epochs=1, lr=1e-2), LanguageRecipe(epochs=1, lr=5e-3), texts=3000, labels=100, dev=200, test=300
)


def make_task(part: str, options: argparse.Namespace) -> Any:
    """The text or the image task, with what it needs trained."""
    # Weights that another Paddle has trained would give another table.
    folder = options.output / f"weights-{paddle.__version__}"
    if part == "images":
        return image_task(folder, QUICK_IMAGES, pretraining=3) if options.quick else image_task(folder, IMAGES)
    budget, settings = (QUICK_TEXT, QUICK_SETTINGS) if options.quick else (TEXT, SETTINGS)
    return text_task(options.data_dir, folder, budget, settings)


def run_part(part: str, options: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """All runs of one part: its table's lines, and its plain data."""
    task, known = make_task(part, options), rows()
    records = Records(options.output / "runs.jsonl", dict.fromkeys(known, task.digest))
    chosen = run_rows(known, task.budget, records, lambda name, *run: task.run(known[name], *run))
    lines = lines_of(records.all(), chosen, task.budget.grid)
    peak = max(entry["peak_mb"] for entry in records.all())
    facts = {"budget": asdict(task.budget), **task.notes, "peak memory, MB": peak}
    return lines, {**facts, "rows": [asdict(line) for line in lines]}


def main() -> None:
    """Run what is asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the reviews; the text part needs it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (default both)")
    parser.add_argument("--output", type=Path, default=Path("effectiveness"), help="folder (default effectiveness)")
    parser.add_argument("--quick", action="store_true", help="little data, few seeds: under ten minutes, shows nothing")
    options = parser.parse_args()
    if "text" in options.parts and options.data_dir is None:
        parser.error("the text part needs --data-dir; without it: --parts images")
    tables, data = {}, {}
    for part in options.parts:
        tables[part], data[part] = run_part(part, options)
        print(f"\n{part}\n\n{markdown(tables[part])}\n", flush=True)
    name = "effectiveness-quick" if options.quick else "effectiveness"
    write_json(options.output / f"{name}.json", {"environment": environment(), **data})
    text = "\n\n".join(f"## {part}\n\n{markdown(lines)}" for part, lines in tables.items())
    (options.output / f"{name}.md").write_text(text + "\n", "utf-8")
    draw(tables, options.output / f"{name}.png")
    print(f"written: {options.output / name}.json, .md, .png")


if __name__ == "__main__":
    warnings.filterwarnings("default", module="paddle_ftstrat")
    main()
