"""Put the tables of a finished run into the documents, between their marks.

    python benchmarks/effectiveness_docs.py benchmarks/results/effectiveness-3.3.1.json

A table stands between `<!-- table: PART -->` and `<!-- end of table -->` in docs/effectiveness.md and its translation.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib  # noqa: F401  (before Paddle 2, which breaks it for pictures otherwise)
from pathlib import Path
from typing import Any

from effectiveness_report import ENGLISH, Words, markdown

from paddle_ftstrat.tools.runs import Line

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHINESE = Words(
    headings=("", "学习率", "测试准确率（%）", "与恒定学习率之差（百分点）", "秒"),
    rows={
        "constant LR": "恒定学习率",
        "warmup + linear to 0": "预热 + 线性降到 0",
        "warmup + linear to lr/32": "预热 + 线性降到 lr/32",
        "slanted triangle": "斜三角学习率",
        "discriminative, 3 blocks": "分层学习率，3 块",
        "discriminative, 5 blocks": "分层学习率，5 块",
        "gradual unfreezing, 3 blocks": "逐层解冻，3 块",
        "L2SP": "L2SP",
        "ULMFiT": "ULMFiT（完整）",
        "one-cycle": "one-cycle",
        "fine_tune": "fine_tune",
        "from scratch": "从零训练，恒定学习率",
        "triangle + discriminative": "斜三角 + 分层学习率",
        "triangle + unfreezing": "斜三角 + 逐层解冻",
        "from scratch, one-cycle": "从零训练，one-cycle",
    },
)
PAGES = {DOCS / "effectiveness.md": ENGLISH, DOCS / "zh" / "effectiveness.md": CHINESE}


def filled(text: str, results: dict[str, Any], words: Words) -> str:
    """A document with the tables of the parts that `results` has.

    Raises:
        ValueError: the document has no place for one of them.
    """
    for part in (name for name in results if name != "environment"):
        table = markdown([Line(**row) for row in results[part]["rows"]], words)
        pattern = re.compile(rf"(<!-- table: {part} -->\n).*?(<!-- end of table -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"there is no <!-- table: {part} --> with an <!-- end of table --> after it")
        text = pattern.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)
    return text


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="effectiveness.json of a run")
    results = json.loads(parser.parse_args().results.read_text("utf-8"))
    for page, words in PAGES.items():
        page.write_text(filled(page.read_text("utf-8"), results, words), "utf-8")
        print(f"written: {page}")


if __name__ == "__main__":
    main()
