"""The site's navigation, from the pages that there are: English first, then Chinese, then the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# Pages in the order in which they are best read; what is not named here follows in alphabetical order.
ORDER = (
    "index",
    "from_paddlehub",
    "strategies",
    "phases",
    "precedence",
    "param_attr",
    "learner",
    "optimizers",
    "transfer",
    "resume",
    "distributed",
    "commands",
    "performance",
)
REFERENCE = (
    "index",
    "strategies",
    "training",
    "learner",
    "schedules",
    "param_attr",
    "optim",
    "lr_scheduler",
    "transfer",
)
SECTIONS = (("English", "", ORDER), ("中文", "zh", ORDER), ("API", "reference", REFERENCE))
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:demo|tests|benchmarks)/[^)]*\)")


def on_config(config: Any) -> Any:
    """Set the navigation."""
    config.nav = nav(Path(config.docs_dir))
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Leave only the words of links to files that are no pages, as demos are."""
    return OUTSIDE.sub(r"\1", markdown)


def nav(docs: Path) -> list[dict[str, list[str]]]:
    """One section per language and one for the reference, each with all pages of its folder."""
    return [{title: pages(docs, folder, order)} for title, folder, order in SECTIONS]


def pages(docs: Path, folder: str, order: tuple[str, ...]) -> list[str]:
    """The pages of a folder, the known ones first and in their order."""
    known = {name: place for place, name in enumerate(order)}
    names = sorted(page.stem for page in (docs / folder).glob("*.md"))
    names.sort(key=lambda name: known.get(name, len(known)))
    return [f"{folder}/{name}.md" if folder else f"{name}.md" for name in names]
