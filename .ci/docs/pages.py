"""The site's navigation, from the pages that there are: one language at a time, and a switch between them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

# Pages in the order in which they are best read; what is not named here follows under "More".
SECTIONS = (
    ("Begin", "开始", ("index", "howto", "from_paddlehub")),
    ("Strategies", "策略", ("strategies", "phases", "schedules", "methods", "precedence", "param_attr")),
    ("Training", "训练", ("learner", "tasks", "integrations", "resume", "distributed")),
    ("Weights and optimizers", "权重与优化器", ("transfer", "optimizers")),
    ("Tools", "工具", ("commands", "compare")),
    ("Evidence", "实测", ("effectiveness", "performance")),
    ("About", "关于", ("limitations", "support")),
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
LANGUAGES = {"en": "", "zh": "zh/"}
API = "API"
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:demo|tests|benchmarks|SECURITY|CHANGELOG|CONTRIBUTING)[^)]*\)")
# The link to the other language, for who reads the files; the site has its switch.
OTHER = re.compile(r"^\[(?:中文|English)\]\([^)]+\)\n", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Set the navigation."""
    config.nav = nav(Path(config.docs_dir))
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Leave only the words of links to files that are no pages, as demos are."""
    return OTHER.sub("", OUTSIDE.sub(r"\1", markdown), count=1)


def on_page_context(context: dict[str, Any], page: Any, config: Any, nav: Any) -> dict[str, Any]:
    """Show the navigation and the words of the page's own language."""
    language = "zh" if page.url.startswith("zh/") else "en"
    config.theme["language"] = language
    config.extra["alternate"] = [
        {"name": name, "link": _counterpart(page.file.src_uri, prefix, config), "lang": lang}
        for name, (lang, prefix) in zip(("English", "中文"), LANGUAGES.items())
    ]
    parts = {item.title: item for item in nav.items}
    own = type(nav)([*parts[language].children, parts[API]], nav.pages)
    own.homepage = next(each for each in nav.pages if each.url == f"{LANGUAGES[language]}index.html")
    return {**context, "nav": own}


def on_post_build(config: Any) -> None:
    """The language switch asks for a list of pages beside each language's first one."""
    site = Path(config.site_dir)
    shutil.copy(site / "sitemap.xml", site / LANGUAGES["zh"] / "sitemap.xml")


def _counterpart(source: str, prefix: str, config: Any) -> str:
    """The same page in another language; where there is none, as for the reference, that language's first page."""
    path = prefix + source.removeprefix("zh/")
    known = (Path(config.docs_dir) / path).exists() and not source.startswith("reference/")
    return (path if known else f"{prefix}index.md").removesuffix(".md") + ".html"


def nav(docs: Path) -> list[dict[str, list[Any]]]:
    """A tree for each language and one for the reference, each with all pages of its folder."""
    reference = [f"reference/{name}.md" for name in _ordered(docs / "reference", REFERENCE)]
    return [*({language: tree(docs, language)} for language in LANGUAGES), {API: reference}]


def tree(docs: Path, language: str) -> list[dict[str, list[str]]]:
    """The sections of a language, with the pages that it has."""
    prefix = LANGUAGES[language]
    found = {page.stem for page in (docs / prefix).glob("*.md")}
    known = {name for *_, names in SECTIONS for name in names}
    sections = [*SECTIONS, ("More", "更多", tuple(sorted(found - known)))]
    titled = {zh if language == "zh" else en: [n for n in names if n in found] for en, zh, names in sections}
    return [{title: [f"{prefix}{name}.md" for name in names]} for title, names in titled.items() if names]


def _ordered(folder: Path, order: tuple[str, ...]) -> list[str]:
    """The pages of a folder, the known ones first and in their order."""
    known = {name: place for place, name in enumerate(order)}
    return sorted((page.stem for page in folder.glob("*.md")), key=lambda name: (known.get(name, len(known)), name))
