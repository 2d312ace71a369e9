"""Draws every registered schedule from its function while the site is built, where a page says `<!-- schedules -->`."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent.parent
MARK = "<!-- schedules -->"
STEPS, RATE = 100, 1e-3
# What shows a schedule's form over 100 updates; the others have their defaults.
OPTIONS = {
    "warmup": {"proportion": 0.1},
    "linear_decay": {"warmup_proportion": 0.1},
    "noam_decay": {"warmup_proportion": 0.1},
    "sgdr": {"n_cycles": 3},
    "cosine_annealing": {"T_max": 50},
    "exponential_decay": {"gamma": 0.97},
    "step_decay": {"step_size": 25, "gamma": 0.5},
    "multi_step_decay": {"milestones": (40, 80)},
    "polynomial_decay": {"power": 2.0},
}


def schedules() -> dict[str, Any]:
    """The registered functions; the package's own `__init__`, which needs Paddle, is not run."""
    if "paddle_ftstrat" not in sys.modules:
        package = types.ModuleType("paddle_ftstrat")
        package.__path__ = [str(ROOT / "paddle_ftstrat")]
        sys.modules["paddle_ftstrat"] = package
    from paddle_ftstrat.schedules import SCHEDULES

    return dict(SCHEDULES)


def drawn(function: Any, options: dict[str, Any]) -> bytes:
    """One schedule over 100 updates, as SVG in a grey that light and dark pages show."""
    figure = Figure(figsize=(4, 1.6))
    axes = figure.subplots()
    axes.plot(function(RATE, STEPS, **options).values(STEPS), color="#3f7fbf", linewidth=2)
    axes.set_ylim(bottom=0)
    axes.tick_params(colors="#808080", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#808080")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.yaxis.get_offset_text().set_color("#808080")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "paddle_ftstrat"}):
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return file.getvalue()


def on_files(files: Any, config: Any) -> Any:
    """Add a picture of each schedule."""
    from mkdocs.structure.files import File  # the pictures alone need no mkdocs

    for name, function in schedules().items():
        picture = drawn(function, OPTIONS.get(name, {}))
        files.append(File.generated(config, f"img/schedules/{name}.svg", content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Put the gallery where the mark stands."""
    if MARK not in markdown:
        return markdown
    up = "../" * page.file.src_uri.count("/")
    entries = (entry(name, function, up) for name, function in schedules().items())
    return markdown.replace(MARK, f'<div class="gallery" markdown>\n\n{chr(10).join(entries)}\n\n</div>')


def entry(name: str, function: Any, up: str) -> str:
    """A schedule's card: formula, picture, the entry of a scheduler dict that gives it."""
    summary = (function.__doc__ or "").splitlines()[0]
    picture = f"![{name}]({up}img/schedules/{name}.svg)"
    options = ", ".join(f'"{key}": {value!r}' for key, value in OPTIONS.get(name, {}).items())
    body = f'### {name}\n\n{summary}\n\n{picture}\n\n`{{"{name}": {{{options}}}}}`'
    return f'<div class="card" markdown>\n\n{body}\n\n</div>\n'
