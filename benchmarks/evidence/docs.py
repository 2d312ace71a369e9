"""Results as the documents show them: tables, figures in sentences, one picture per experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.core import Score
from paddle_ftstrat.pictures import finished, pyplot

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
PAGES = {
    language: [DOCS / folder / name for name in ("effectiveness.md", "methods.md")]
    for language, folder in {"en": ".", "zh": "zh"}.items()
}
PAGES["en"].append(ROOT / "README.md")
PAGES["zh"].append(ROOT / "README_zh.md")
BAR = r" \\?\| "
BASELINE = {"en": ("against {}, points", "against {}"), "zh": ("与“{}”之差（百分点）", "与“{}”之差")}
HEADINGS = {"en": ("", "setting"), "zh": ("", "设置")}
SECONDS = Score("seconds", "seconds", "秒", percent=False)


@dataclass(frozen=True)
class Shown:
    """How an experiment is shown.

    Attributes:
        scores: the columns.
        chinese: names of rows, keys and values of settings in Chinese, where they differ.
        draw: (results, path) → None; the picture.
    """

    scores: Sequence[Score]
    chinese: Mapping[str, str] = field(default_factory=dict)
    draw: Callable[[Mapping[str, Any], Path], None] | None = None


def path_of(name: str, version: str = "3.3.1") -> Path:
    """Where the results of an experiment are."""
    return RESULTS / f"evidence_{name}-{version}.json"


def setting_of(line: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """What was chosen for a row; a star where it stands at the end of its grid."""
    shown = []
    for key, value in line["setting"].items():
        value = f"{value:g}" if isinstance(value, (int, float)) else words.get(value, value)
        star = "\\*" if key in line["at the end of its grid"] else ""
        shown.append(f"{'LR' if key == 'lr' else words.get(key, key)} {value}{star}")
    return ", ".join(shown)


def mean_of(line: Mapping[str, Any], score: Score) -> str:
    """The mean of a score over the seeds."""
    return f"{line['mean'][score.key] * (100 if score.percent else 1):.{score.digits}f}"


def difference_of(line: Mapping[str, Any], score: Score) -> str:
    """The mean difference from the first row, seed by seed, with half its 95 % interval."""
    difference, margin = (number * (100 if score.percent else 1) for number in line["difference"][score.key])
    return f"{difference:+.{score.digits}f} ± {margin:.{score.digits}f}".replace("-", "−")


def table(lines: Sequence[Mapping[str, Any]], shown: Shown, language: str) -> str:
    """A part's table in Markdown; bold where the interval of a difference leaves out 0."""
    words = shown.chinese if language == "zh" else {}
    first = words.get(lines[0]["name"], lines[0]["name"])
    headings, with_seconds = list(HEADINGS[language]), any("seconds" in line["mean"] for line in lines)
    scores = [score for score in shown.scores if any(score.key in line["mean"] for line in lines)]
    for score in scores:
        heading = score.chinese if language == "zh" else score.english
        headings += [f"{heading}{', %' if score.percent else ''}", BASELINE[language][not score.percent].format(first)]
    headings += [SECONDS.chinese if language == "zh" else SECONDS.english] if with_seconds else []
    text = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for line in lines:
        cells = [words.get(line["name"], line["name"]), setting_of(line, words)]
        for score in scores:
            if score.key not in line["mean"]:
                cells += ["", ""]
                continue
            difference, margin = line["difference"][score.key]
            told = difference_of(line, score)
            cells += [
                mean_of(line, score),
                "" if line is lines[0] else f"**{told}**" if abs(difference) > margin else told,
            ]
        text.append(f"| {' | '.join([*cells, mean_of(line, SECONDS)] if with_seconds else cells)} |")
    return "\n".join(text)


def across(parts: Mapping[str, Sequence[Mapping[str, Any]]], key: str, shown: Shown, language: str) -> str:
    """One score of all parts, which have the same rows, in a table: the first row's mean, the others' differences."""
    words = shown.chinese if language == "zh" else {}
    score = next(score for score in shown.scores if score.key == key)
    text = [f"|  | {' | '.join(words.get(part, part) for part in parts)} |", "|---" * (1 + len(parts)) + "|"]
    for lines in zip(*parts.values()):
        cells = [words.get(lines[0]["name"], lines[0]["name"])]
        for line, (first, *_) in zip(lines, parts.values()):
            difference, margin = line["difference"][key]
            told = mean_of(line, score) if line is first else difference_of(line, score)
            cells.append(f"**{told}**" if abs(difference) > margin else told)
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def figure(results: Mapping[str, Any], shown: Shown, part: str, row: str, what: str, kind: str) -> str:
    """One figure for a sentence: mean, spread over seeds, difference, ratio to the first row, or setting of a key.

    Raises:
        KeyError: there is no such part, row or score.
    """
    line = next((line for line in results["parts"][part] if line["name"] == row), None)
    if line is None:
        raise KeyError(f"{part!r} has no row {row!r}")
    if kind == "setting":
        return f"{line['setting'][what]:g}"
    score = next(score for score in (*shown.scores, SECONDS) if score.key == what)
    if kind == "ratio":
        return f"{np.median(np.divide(line['scores'][what], results['parts'][part][0]['scores'][what])):.2f}"
    if kind == "spread":
        return f"{np.std(line['scores'][what], ddof=1) * (100 if score.percent else 1):.{score.digits}f}"
    return (mean_of if kind == "mean" else difference_of)(line, score)


def filled(text: str, name: str, results: Mapping[str, Any], shown: Shown, language: str) -> str:
    """A document with the tables and figures of one experiment put in anew.

    A table stands between `<!-- table: NAME | PART -->` (or `NAME | every part | SCORE`) and `<!-- end of table -->`; a
    figure between `<!-- NAME | PART | ROW | SCORE | KIND -->` and `<!-- . -->`; inside a Markdown table its bars are
    written as `\\|`.
    """

    def made(found: re.Match[str]) -> str:
        part, _, key = found[2].partition(" | ")
        parts = results["parts"]
        made = across(parts, key, shown, language) if key else table(parts[part], shown, language)
        return f"{found[1]}\n{made}\n\n<!-- end of table -->"

    def figured(found: re.Match[str]) -> str:
        return f"{found[1]}{figure(results, shown, *re.split(BAR, found[2]))}<!-- . -->"

    mark = re.escape(name)
    # A comment that begins a line would be a block of its own, and end the paragraph that it stands in.
    text = re.sub(rf"(?<=[^\n])\n *(?=<!-- {mark}{BAR})", " ", text)
    text = re.sub(rf"(<!-- table: {mark} \| (.*?) -->\n).*?<!-- end of table -->", made, text, flags=re.DOTALL)
    return re.sub(rf"(<!-- {mark}{BAR}(.*?) -->)[^<]*<!-- \. -->", figured, text)


def differences(parts: Mapping[str, Sequence[Mapping[str, Any]]], scores: Sequence[Score], path: Path) -> None:
    """Draw the differences from the first row with their 95 % intervals: a panel per part, a colour per score."""
    figure, panels = pyplot().subplots(
        1, len(parts), figsize=(6.5 * len(parts), 4.5), constrained_layout=True, squeeze=False
    )
    for axes, (title, (first, *others)) in zip(panels[0], parts.items()):
        axes.axvline(0, color="0.6", lw=1)
        for number, score in enumerate(scores):
            told = [[100 * value for value in line["difference"][score.key]] for line in others]
            heights = np.arange(len(others))[::-1] - 0.2 * number
            middles, margins = zip(*told)
            axes.errorbar(middles, heights, xerr=margins, fmt="o", capsize=3, label=score.english)
        axes.set_yticks(np.arange(len(others))[::-1], [line["name"] for line in others])
        axes.set(title=title, xlabel=f"points of accuracy against {first['name']} (mean, 95 % interval)")
        axes.grid(alpha=0.3)
    if len(scores) > 1:
        panels[0][0].legend()
    finished(figure, path)


def refresh(experiments: Mapping[str, Shown]) -> None:
    """Write all tables, figures and pictures anew, of the experiments that there are results of."""
    for name, shown in experiments.items():
        if not path_of(name).exists():
            continue
        results = json.loads(path_of(name).read_text("utf-8"))
        for language, pages in PAGES.items():
            for page in pages:
                page.write_text(filled(page.read_text("utf-8"), name, results, shown, language), "utf-8")
        if shown.draw is not None:
            shown.draw(results, DOCS / "img" / f"evidence_{name}.png")
        print(f"in the documents: {name}")
