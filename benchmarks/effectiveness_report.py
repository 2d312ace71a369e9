"""Finished runs as the tables and the picture of the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from effectiveness_rows import BASELINE, FROM_SCRATCH

from paddle_ftstrat.pictures import finished, pyplot
from paddle_ftstrat.tools.runs import Line


@dataclass(frozen=True)
class Words:
    """The table's words: its five headings, and names of rows in another language."""

    headings: tuple[str, ...]
    rows: Mapping[str, str]


ENGLISH = Words(("", "LR", "test accuracy, %", "against constant LR, points", "seconds"), {})


def markdown(lines: Sequence[Line], words: Words = ENGLISH) -> str:
    """The table. Bold: the interval leaves out 0. A star: the LR stands at the end of its grid."""
    text = [f"| {' | '.join(words.headings)} |", "|---" * len(words.headings) + "|"]
    for line in lines:
        difference = f"{100 * line.difference:+.2f} ± {100 * line.margin:.2f}"
        if abs(line.difference) > line.margin:
            difference = f"**{difference}**"
        if line.name == BASELINE:
            difference = ""
        rate = f"{line.lr:g}{'*' if line.edge else ''}"
        accuracy = f"{100 * line.mean:.2f} ± {100 * line.std:.2f}"
        name = words.rows.get(line.name, line.name)
        text.append(f"| {name} | {rate} | {accuracy} | {difference} | {line.seconds:.1f} |")
    return "\n".join(text)


def draw(parts: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Differences from constant LR with their intervals, a panel per part; from scratch is left out of the scale."""
    figure, panels = pyplot().subplots(
        1, len(parts), figsize=(7 * len(parts), 5), constrained_layout=True, squeeze=False
    )
    for axes, (title, lines) in zip(panels[0], parts.items()):
        shown = [line for line in lines if line.name != BASELINE and not line.name.startswith(FROM_SCRATCH)]
        heights = np.arange(len(shown))[::-1]
        axes.axvline(0, color="0.6", lw=1)
        differences = [100 * line.difference for line in shown]
        margins = [100 * line.margin for line in shown]
        axes.errorbar(differences, heights, xerr=margins, fmt="o", color="tab:blue", capsize=4)
        axes.set_yticks(heights, [line.name for line in shown])
        axes.set(title=title, xlabel="points of test accuracy against constant LR (mean, 95 % interval)")
    finished(figure, path)
