"""Runs to be compared: an LR for each row chosen on dev, other seeds for the score, every finished run on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

CHOOSE, FINAL = "choose", "final"


@dataclass(frozen=True)
class Budget:
    """What every row of a table gets alike.

    Attributes:
        epochs: number of epochs of each run.
        grid: learning rates to choose from; none: each row has its own.
        choosing: seeds of the runs that choose.
        seeds: other seeds, of the runs that count.
    """

    epochs: int
    grid: tuple[float, ...]
    choosing: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What one run came to.

    Attributes:
        dev: score on dev; None where the loss was not finite.
        dev_loss: loss there, likewise.
        test: score on test; None where there is none, and in runs that choose.
        train_loss: mean training loss of the last epoch.
        seconds: processor time of the training.
    """

    dev: float | None
    dev_loss: float | None
    test: float | None
    train_loss: float | None
    seconds: float


class Records:
    """Outcomes by (row, learning rate, seed, stage), kept in a JSON-lines file; other settings' lines are passed over.

    Args:
        path: the file; made where it does not exist. None: outcomes are kept in memory.
        digests: row → digest of the settings that its outcomes depend on.
    """

    def __init__(self, path: Path | None, digests: Mapping[str, str]) -> None:
        self.path, self.digests = path, digests
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        for entry in entries_of(path) if path is not None else ():
            if entry.get("row") in digests and entry.get("digest") == digests[entry["row"]]:
                self._known[_key(entry)] = entry

    def get(self, row: str, lr: float | None, seed: int, stage: str, run: Callable[[], Outcome]) -> dict[str, Any]:
        """The recorded outcome, or that of `run()`, which is recorded then."""
        place = {"row": row, "lr": lr, "seed": seed, "stage": stage}
        if _key(place) not in self._known:
            entry = {"digest": self.digests[row], **place, **asdict(run())}
            if self.path is not None:
                append(self.path, entry)
            self._known[_key(entry)] = entry
        return self._known[_key(place)]

    def all(self) -> list[dict[str, Any]]:
        """Every outcome of these settings."""
        return list(self._known.values())


def entries_of(path: Path) -> list[dict[str, Any]]:
    """What `append` has put into a file; half a line is passed over, no file has none."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return [entry for entry in found if entry and isinstance(entry, dict)]


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Put one more line of JSON at the end of a file, and see that it is on the disk."""
    with path.open("ab+") as file:
        # A line that a killed process left half written must not spoil this one.
        if file.tell() and path.read_bytes()[-1:] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["row"], entry["lr"], entry["seed"], entry["stage"]


def best_rate(entries: Iterable[Mapping[str, Any]], mode: str = "max") -> float:
    """The LR of outcomes with the best mean score on dev, by `mode`; of equal ones, that with the lower loss.

    Raises:
        ValueError: the loss was not finite with any of them.

    Example:
        >>> best_rate([{"lr": 0.1, "dev": 0.8, "dev_loss": 1.0}, {"lr": 0.2, "dev": 0.8, "dev_loss": 0.5}])
        0.2
    """
    by_rate: dict[float, list[tuple[float, float]]] = {}
    for entry in entries:
        dev, loss = (math.nan if entry[key] is None else entry[key] for key in ("dev", "dev_loss"))
        by_rate.setdefault(entry["lr"], []).append((dev if mode == "max" else -dev, -loss))
    merits = {lr: tuple(np.mean(by_rate[lr], axis=0)) for lr in sorted(by_rate)}
    finite = [lr for lr, merit in merits.items() if np.isfinite(merit).all()]
    if not finite:
        raise ValueError(f"the loss is not finite with any of the learning rates {sorted(by_rate)}: give lower ones")
    return max(finite, key=lambda lr: merits[lr])


def run_rows(
    rows: Iterable[str],
    budget: Budget,
    records: Records,
    run: Callable[[str, Any, int, bool], Outcome],
    mode: str = "max",
    progress: bool | None = True,
) -> dict[str, Any]:
    """Do all runs that are not recorded yet; row → the learning rate chosen for it, None without a grid.

    `run` is a function (row, learning rate, seed, whether it counts) → outcome; `mode` "max" where a higher score is
    better, or "min"; `progress` whether to show a bar, None: on a terminal.
    """
    rows = list(rows)
    total = len(rows) * (len(budget.grid) * len(budget.choosing) + len(budget.seeds))
    chosen: dict[str, Any] = {}
    hidden = None if progress is None else not progress
    with tqdm(total=total, unit="run", smoothing=0.1, disable=hidden) as bar:

        def outcome(row: str, lr: float | None, seed: int, stage: str) -> dict[str, Any]:
            bar.set_description(f"{row}, seed {seed}" if lr is None else f"{row}, lr {lr:g}, seed {seed}")
            entry = records.get(row, lr, seed, stage, lambda: run(row, lr, seed, stage == FINAL))
            bar.update()
            return entry

        for row in rows:
            tried = [outcome(row, lr, seed, CHOOSE) for lr in budget.grid for seed in budget.choosing]
            chosen[row] = best_rate(tried, mode) if tried else None
            for seed in budget.seeds:
                outcome(row, chosen[row], seed, FINAL)
    return chosen


@dataclass(frozen=True)
class Line:
    """One row of the table, over its seeds.

    Attributes:
        name: of the row.
        lr: the learning rate chosen on dev; None: its own.
        dev: mean score on dev of each learning rate there was to choose from.
        edge: whether it is the lowest or highest of the grid: a better one may lie outside.
        scores: what counts, of each seed.
        mean, std: of these; std with n − 1.
        difference: mean of (row − first row), seed by seed.
        margin: half the width of its 95 % interval: t(0.975, n − 1) · std / √n.
        seconds: mean processor time of a training.
    """

    name: str
    lr: float | None
    dev: dict[str, float]
    edge: bool
    scores: list[float]
    mean: float
    std: float
    difference: float
    margin: float
    seconds: float


def lines_of(
    records: Iterable[Mapping[str, Any]], chosen: Mapping[str, Any], grid: Sequence[float], score: str = "test"
) -> list[Line]:
    """The rows in the order in which they were run, compared with the first, by `score`, "test" or "dev"."""
    records = list(records)
    final = {(r["row"], r["seed"]): r for r in records if r["stage"] == FINAL and r["lr"] == chosen.get(r["row"])}
    seeds = sorted({seed for _, seed in final})

    def numbers(entries: Iterable[Mapping[str, Any]], key: str) -> np.ndarray:
        return np.array([math.nan if entry[key] is None else entry[key] for entry in entries])

    first, made = next(iter(chosen)), []
    for name, lr in chosen.items():
        mine, theirs = (numbers((final[row, seed] for seed in seeds), score) for row in (name, first))
        tried: dict[str, list[Mapping[str, Any]]] = {}
        for entry in records:
            if entry["row"] == name and entry["stage"] == CHOOSE:
                tried.setdefault(f"{entry['lr']:g}", []).append(entry)
        difference, margin = paired(mine, theirs)
        line = Line(
            name,
            lr,
            dev={rate: round(float(numbers(entries, "dev").mean()), 4) for rate, entries in tried.items()},
            edge=len(grid) > 1 and lr in (min(grid), max(grid)),
            scores=mine.tolist(),
            mean=float(mine.mean()),
            std=float(mine.std(ddof=1)) if len(mine) > 1 else 0.0,
            difference=difference,
            margin=margin,
            seconds=float(numbers((final[name, seed] for seed in seeds), "seconds").mean()),
        )
        made.append(line)
    return made


def paired(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Mean difference of pairs [n], and half the width of its 95 % interval; n ≥ 2 for an interval.

    Example:
        >>> difference, margin = paired(np.array([3.0, 5.0]), np.array([2.0, 2.0]))
        >>> difference, round(margin, 2)
        (2.0, 12.71)
    """
    differences = mine - theirs
    if len(differences) < 2:
        return float(differences.mean()), math.nan
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return float(differences.mean()), float(student(0.95, len(differences) - 1) * error)


def student(level: float, freedom: int) -> float:
    """The t within whose ±t a share `level` of Student's distribution lies.

    Example:
        >>> round(student(0.95, 4), 3)
        2.776

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        cosine, odd = math.cos(angle), freedom % 2
        total, term = 0.0, cosine if odd else 1.0
        for k in range(odd, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

    low, high = 0.0, 1.0
    while within(high) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return high
