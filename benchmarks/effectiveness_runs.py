"""Choose each row's learning rate on dev, then run it with other seeds: every finished run is a line of a file."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

CHOOSE, FINAL = "choose", "final"


@dataclass(frozen=True)
class Budget:
    """What every row of a table gets alike.

    Attributes:
        epochs: number of epochs of each run.
        grid: learning rates to choose from.
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
        dev: accuracy on dev.
        dev_loss: cross entropy there.
        test: accuracy on test; None in runs that choose.
        train_loss: mean training loss of the last epoch.
        seconds: processor time of the training, without evaluation.
    """

    dev: float
    dev_loss: float
    test: float | None
    train_loss: float
    seconds: float


class Records:
    """Outcomes by (row, learning rate, seed, stage), kept in a JSON-lines file; other settings' lines are passed over.

    Args:
        path: the file; made where it does not exist.
        digest: of the settings that outcomes depend on.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        self._known: dict[tuple[str, float, int, str], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            entry = _entry(line)
            if entry.get("digest") == digest:
                self._known[_key(entry)] = entry

    def get(self, row: str, lr: float, seed: int, stage: str, run: Callable[[], Outcome]) -> dict[str, Any]:
        """The recorded outcome, or that of `run()`, which is recorded then."""
        place = {"row": row, "lr": lr, "seed": seed, "stage": stage}
        if _key(place) not in self._known:
            outcome = asdict(run())
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            entry = {"digest": self.digest, **place, **outcome, "peak_mb": round(megabytes)}
            self._append(entry)
            self._known[_key(entry)] = entry
        return self._known[_key(place)]

    def all(self) -> list[dict[str, Any]]:
        """Every outcome of these settings."""
        return list(self._known.values())

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("ab+") as file:
            # A line that a killed process left half written must not spoil this one.
            if file.tell() and self.path.read_bytes()[-1:] != b"\n":
                file.write(b"\n")
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def best_rate(entries: Iterable[Mapping[str, Any]]) -> float:
    """The LR with the best mean accuracy on dev; of equal ones, that with the lower loss.

    Example:
        >>> best_rate([{"lr": 0.1, "dev": 0.8, "dev_loss": 1.0}, {"lr": 0.2, "dev": 0.8, "dev_loss": 0.5}])
        0.2
    """
    by_rate: dict[float, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_rate.setdefault(entry["lr"], []).append(entry)

    def merit(lr: float) -> tuple[float, float]:
        mine = by_rate[lr]
        return sum(e["dev"] for e in mine) / len(mine), -sum(e["dev_loss"] for e in mine) / len(mine)

    return max(sorted(by_rate), key=merit)


def run_rows(
    rows: Iterable[str], budget: Budget, records: Records, run: Callable[[str, float, int, bool], Outcome]
) -> dict[str, float]:
    """Do all runs that are not recorded yet.

    Args:
        rows: names of the rows.
        budget: what each gets.
        records: where outcomes are kept.
        run: function (row, learning rate, seed, whether it counts) → outcome.

    Returns:
        The learning rate chosen for each row.
    """
    rows = list(rows)
    total = len(rows) * (len(budget.grid) * len(budget.choosing) + len(budget.seeds))
    chosen = {}
    with tqdm(total=total, unit="run", smoothing=0.1) as bar:

        def outcome(row: str, lr: float, seed: int, stage: str) -> dict[str, Any]:
            bar.set_description(f"{row}, lr {lr:g}, seed {seed}")
            entry = records.get(row, lr, seed, stage, lambda: run(row, lr, seed, stage == FINAL))
            bar.update()
            return entry

        for row in rows:
            chosen[row] = best_rate([outcome(row, lr, s, CHOOSE) for lr in budget.grid for s in budget.choosing])
            for seed in budget.seeds:
                outcome(row, chosen[row], seed, FINAL)
    return chosen


def _key(entry: Mapping[str, Any]) -> tuple[str, float, int, str]:
    return entry["row"], entry["lr"], entry["seed"], entry["stage"]


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
