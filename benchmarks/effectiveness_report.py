"""Finished runs as a table, a picture and plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from effectiveness_rows import BASELINE, FROM_SCRATCH
from effectiveness_runs import CHOOSE, FINAL
from scipy import stats

from paddle_ftstrat.pictures import finished, pyplot


@dataclass(frozen=True)
class Line:
    """One row of the table, over its seeds.

    Attributes:
        name: of the row.
        lr: the learning rate chosen on dev.
        dev: mean accuracy on dev, in %, of each learning rate there was to choose from.
        edge: whether it is the lowest or highest of the grid: a better one may lie outside.
        accuracy: test accuracy of each seed.
        mean, std: of these; std with n − 1.
        difference: mean of (row − baseline), seed by seed.
        margin: half the width of its 95 % interval: t(0.975, n − 1) · std / √n.
        seconds: mean processor time of a training.
    """

    name: str
    lr: float
    dev: dict[str, float]
    edge: bool
    accuracy: list[float]
    mean: float
    std: float
    difference: float
    margin: float
    seconds: float


def lines_of(records: Iterable[Mapping[str, Any]], chosen: Mapping[str, float], grid: Sequence[float]) -> list[Line]:
    """The rows in the order in which they were run."""
    records = list(records)
    final = {(r["row"], r["seed"]): r for r in records if r["stage"] == FINAL and r["lr"] == chosen.get(r["row"])}
    seeds = sorted({seed for _, seed in final})
    made = []
    for name, lr in chosen.items():
        mine = np.array([final[name, seed]["test"] for seed in seeds])
        difference, margin = paired(mine, np.array([final[BASELINE, seed]["test"] for seed in seeds]))
        seconds = float(np.mean([final[name, seed]["seconds"] for seed in seeds]))
        spread = float(mine.std(ddof=1)) if len(mine) > 1 else 0.0
        edge = lr in (min(grid), max(grid))
        mean, dev = float(mine.mean()), _dev_accuracies(records, name)
        made.append(Line(name, lr, dev, edge, mine.tolist(), mean, spread, difference, margin, seconds))
    return made


def _dev_accuracies(records: Sequence[Mapping[str, Any]], row: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for entry in records:
        if entry["row"] == row and entry["stage"] == CHOOSE:
            found.setdefault(f"{entry['lr']:g}", []).append(100 * entry["dev"])
    return {lr: round(float(np.mean(values)), 2) for lr, values in found.items()}


def paired(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Mean difference of pairs, and half the width of its 95 % interval.

    Args:
        mine, theirs: one number per pair, [n]; n ≥ 2 for an interval.

    Example:
        >>> difference, margin = paired(np.array([3.0, 5.0]), np.array([2.0, 2.0]))
        >>> difference, round(margin, 2)
        (2.0, 12.71)
    """
    differences = mine - theirs
    if len(differences) < 2:
        return float(differences.mean()), float("nan")
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean()), float(stats.t.ppf(0.975, len(differences) - 1) * error)


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
