"""An experiment: settings chosen on dev, other seeds on test, every finished run a line on disk."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from tqdm.auto import tqdm

from paddle_ftstrat.tools.runs import append, entries_of, paired

Setting = Mapping[str, Any]
# Seeds that choose begin here, so that they are none of those that count.
CHOOSING_FROM = 10_000
# A grid whose best learning rate stands at its end gets one more value there, at most so often.
WIDER = 4


@dataclass(frozen=True)
class Row:
    """One way to fine-tune.

    Attributes:
        name: in tables and pictures.
        run: (setting, seed, "dev" or "test") → score key → number. "seconds", where it is none of them, is the
            processor time of the call. FloatingPointError: this setting does not train.
        grid: setting key → the values there are to choose from, ascending; what is chosen among is their product.
            Under "lr" it grows while the best value stands at an end. Empty: nothing is chosen.
        note: what a reader of the table should know.
        choose: the score by which its setting is chosen; empty: the experiment's.
    """

    name: str
    run: Callable[[Setting, int, str], Mapping[str, float]]
    grid: Mapping[str, Sequence[Any]]
    note: str = ""
    choose: str = ""


@dataclass(frozen=True)
class Score:
    """A column of the tables.

    Attributes:
        key: as rows give it.
        english, chinese: its heading.
        percent: whether it is a share, shown in %.
        digits: decimals.
    """

    key: str
    english: str
    chinese: str
    percent: bool = True
    digits: int = 1


@dataclass(frozen=True)
class Options:
    """What the command line says; an experiment is made from it, in each process anew.

    Attributes:
        quick: sizes with which everything runs in a few minutes and nothing can be concluded.
        data: folder of data files, for the experiments that need one.
        folder: where trained weights are kept between runs.
        csv, target: a user's own texts, and which group of them is the new task.
    """

    quick: bool = False
    data: Path | None = None
    folder: Path = Path("evidence")
    csv: Path | None = None
    target: str | None = None


@dataclass(frozen=True)
class Job:
    """One run."""

    part: str
    row: str
    setting: Setting
    seed: int
    split: str

    @property
    def key(self) -> str:
        """The same for the same run."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Experiment:
    """What is compared.

    Attributes:
        parts: part → its rows; the first row is what the others are compared with.
        choose: the score by which settings are chosen, higher is better.
        choosing: number of seeds that choose.
        seeds: number of other seeds, which count.
        facts: sizes and whatever else the outcomes depend on; finished runs with other facts are passed over.
    """

    parts: Mapping[str, Sequence[Row]]
    choose: str
    choosing: int
    seeds: int
    facts: Mapping[str, Any]

    def run(self, job: Job) -> dict[str, float]:
        """The scores of one run; without a finite loss there are none but seconds."""
        row = next(row for row in self.parts[job.part] if row.name == job.row)
        seed_everything(job.seed)
        started = time.process_time()
        try:
            scores = dict(row.run(job.setting, job.seed, job.split))
        except FloatingPointError:
            scores = {}
        scores.setdefault("seconds", time.process_time() - started)
        return {key: round(float(value), 6) for key, value in scores.items()}

    @property
    def digest(self) -> str:
        """Changes with the facts and with the version of Paddle."""
        text = json.dumps([self.facts, self.choose, paddle.__version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_everything(seed: int) -> None:
    """Make whatever is drawn from here on depend on the seed alone."""
    paddle.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def module_of(name: str) -> Any:
    """The file of an experiment: `make(options)` → Experiment, and `SHOWN`."""
    return importlib.import_module(f"benchmarks.evidence.{name}")


@lru_cache
def experiment_of(name: str, options: Options) -> Experiment:
    """The experiment of this process; what it has to train first is trained once."""
    return module_of(name).make(options)


def in_processes(number: int, name: str, options: Options, jobs: Sequence[Job]) -> Iterator[dict[str, float]]:
    """The scores of jobs, several at a time."""
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_run, name, options), jobs)


def _run(name: str, options: Options, job: Job) -> dict[str, float]:
    return experiment_of(name, options).run(job)


class Done:
    """Scores of the jobs that are done, in a JSON-lines file; lines of other facts are passed over."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        path.parent.mkdir(parents=True, exist_ok=True)
        self.known = {entry["key"]: entry["scores"] for entry in entries_of(path) if entry.get("digest") == digest}

    def add(self, job: Job, scores: Mapping[str, float]) -> None:
        """Keep the scores of one more job."""
        append(self.path, {"digest": self.digest, "key": job.key, "scores": scores})
        self.known[job.key] = dict(scores)


def results(
    experiment: Experiment,
    done: Done,
    perform: Callable[[Sequence[Job]], Iterable[Mapping[str, float]]],
    progress: bool = True,
) -> dict[str, Any]:
    """Do all runs that are not done yet; the tables' content, as plain data.

    Args:
        experiment: what is compared.
        done: where finished runs are kept.
        perform: jobs → their scores in the same order, as they are finished.
        progress: whether to show a bar.
    """
    with tqdm(unit="run", smoothing=0.1, disable=not progress, total=0) as bar:

        def scores_of(jobs: Sequence[Job]) -> Iterator[dict[str, float]]:
            missing = [job for job in jobs if job.key not in done.known]
            bar.total += len(missing)
            for job, scores in zip(missing, perform(missing)):
                bar.set_description(f"{job.part}, {job.row}")
                done.add(job, scores)
                bar.update()
            return (done.known[job.key] for job in jobs)

        grids, tried = _chosen(experiment, scores_of)
        final = [
            Job(part, row.name, best_of(tried[part, row.name], row.choose or experiment.choose), seed, "test")
            # Row after row with each seed, so that what seconds depend on is the same for all rows.
            for seed in range(experiment.seeds)
            for part, rows in experiment.parts.items()
            for row in rows
        ]
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for job, scores in zip(final, scores_of(final)):
            found.setdefault((job.part, job.row), []).append(scores)
    parts = {}
    for part, rows in experiment.parts.items():
        baseline = found[part, rows[0].name]
        parts[part] = [
            _line(row, experiment.choose, grids[part, row.name], tried[part, row.name], found[part, row.name], baseline)
            for row in rows
        ]
    return {"facts": dict(experiment.facts), "choosing seeds": experiment.choosing, "parts": parts}


Tried = list[tuple[Setting, list[dict[str, float]]]]
Places = Mapping[tuple[str, str], Any]


def _chosen(
    experiment: Experiment, scores_of: Callable[[Sequence[Job]], Iterator[dict[str, float]]]
) -> tuple[Places, Mapping[tuple[str, str], Tried]]:
    """The grid of each row as it has grown, and the scores of each of its settings with each choosing seed."""
    grids = {(part, row.name): dict(row.grid) for part, rows in experiment.parts.items() for row in rows}
    tried: dict[tuple[str, str], Tried] = {place: [({}, [])] for place, grid in grids.items() if not grid}
    growing = {place: grid for place, grid in grids.items() if grid}
    keys = {
        (part, row.name): row.choose or experiment.choose for part, rows in experiment.parts.items() for row in rows
    }
    for left in range(WIDER, -1, -1):
        jobs = [
            Job(*place, setting, CHOOSING_FROM + seed, "dev")
            for place, grid in growing.items()
            for setting in settings(grid)
            for seed in range(experiment.choosing)
        ]
        found: dict[tuple[str, str], dict[str, tuple[Setting, list[dict[str, float]]]]] = {}
        for job, scores in zip(jobs, scores_of(jobs)):
            mine = found.setdefault((job.part, job.row), {})
            mine.setdefault(json.dumps(job.setting), (job.setting, []))[1].append(scores)
        for place, mine in found.items():
            tried[place] = list(mine.values())
        wider = {place: widened(grid, best_of(tried[place], keys[place])) for place, grid in growing.items()}
        growing = {place: grid for place, grid in wider.items() if grid != growing[place]}
        if not growing or not left:
            break
        grids.update(growing)
    return grids, tried


def settings(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every point of a grid.

    Example:
        >>> settings({"lr": [0.1, 0.2], "λ": [1]})
        [{'lr': 0.1, 'λ': 1}, {'lr': 0.2, 'λ': 1}]
    """
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def best_of(tried: Iterable[tuple[Setting, Sequence[Mapping[str, float]]]], key: str) -> Setting:
    """The setting with the highest mean score; one whose loss was not finite with any seed is none.

    Raises:
        ValueError: none trains.
    """
    finite = [(setting, runs) for setting, runs in tried if all(math.isfinite(run.get(key, math.nan)) for run in runs)]
    if not finite:
        raise ValueError(f"no setting of this grid gives a score {key!r}")
    return max(finite, key=lambda one: sum(run[key] for run in one[1]) / max(1, len(one[1])))[0]


def widened(grid: Mapping[str, Sequence[Any]], best: Setting) -> dict[str, Sequence[Any]]:
    """The grid, with one more learning rate where the best one stands at an end of several.

    Example:
        >>> widened({"lr": [0.1, 0.2, 0.4]}, {"lr": 0.4})
        {'lr': [0.1, 0.2, 0.4, 0.8]}
    """
    rates = list(grid.get("lr", ()))
    if len(rates) > 1 and best["lr"] == rates[0]:
        rates.insert(0, float(f"{rates[0] ** 2 / rates[1]:.2g}"))
    elif len(rates) > 1 and best["lr"] == rates[-1]:
        rates.append(float(f"{rates[-1] ** 2 / rates[-2]:.2g}"))
    return {**grid, **({"lr": rates} if rates else {})}


def _line(
    row: Row,
    choose: str,
    grid: Mapping[str, Sequence[Any]],
    tried: Tried,
    mine: Sequence[Mapping[str, float]],
    baseline: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    setting = best_of(tried, row.choose or choose)
    ends = {key: (values[0], values[-1]) for key, values in grid.items() if len(values) > 1}
    keys = dict.fromkeys(key for run in mine for key in run)
    scores = {key: np.array([run.get(key, math.nan) for run in mine]) for key in keys}
    theirs = {key: np.array([run.get(key, math.nan) for run in baseline]) for key in scores}
    differences = {key: paired(scores[key], theirs[key]) for key in scores}
    return {
        "name": row.name,
        "note": row.note,
        "setting": dict(setting),
        "at the end of its grid": [key for key, value in setting.items() if value in ends.get(key, ())],
        "dev": [{"setting": dict(one), "scores": _means(runs)} for one, runs in tried if runs],
        "scores": {key: values.tolist() for key, values in scores.items()},
        "mean": {key: float(values.mean()) for key, values in scores.items()},
        "difference": {key: list(difference) for key, difference in differences.items()},
    }


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = set.intersection(*(set(run) for run in runs)) - {"seconds"}
    return {key: float(np.mean([run[key] for run in runs])) for key in sorted(keys)}
