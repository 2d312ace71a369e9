"""Strategies against each other on one's own task: an LR for each, the same seeds, differences with intervals."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors, pictures
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.tools.runs import Budget, Line, Outcome, Records, lines_of, run_rows
from paddle_ftstrat.training.learner import Learner

# Seeds of the runs that choose a learning rate begin here, so that they are none of those that count.
CHOOSING_FROM = 10_000
_RATES = ("learning_rate", "lr_max", "base_lr")


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; prints as a table.

    Attributes:
        metric: the score.
        mode: "max" where a higher score is better, or "min".
        scored: "test" or "valid", the data of the scores.
        lines: a line per strategy, the one that the others are compared with first.
        budget: what each strategy got.

    Example:
        >>> line = Line("a", 0.1, {}, False, [0.5, 0.7], 0.6, 0.14, 0.0, 0.0, 1.0)
        >>> other = Line("b", 0.1, {}, False, [0.7, 0.9], 0.8, 0.14, 0.2, 0.1, 1.0)
        >>> print(Comparison("acc", "max", "test", [line, other], Budget(3, (), (), (0, 1))))
        strategy  LR   test acc     against 'a'          seconds
        a         0.1  0.6 ± 0.14                        1.0
        b         0.1  0.8 ± 0.14   +0.2 ± 0.1 (better)  1.0
        2 seeds, 3 epochs each; ±: standard deviation over seeds, and half a 95 % interval of the paired difference
    """

    metric: str
    mode: str
    scored: str
    lines: Sequence[Line]
    budget: Budget

    def verdict(self, line: Line) -> str:
        """ "better" or "worse" where the interval of a line's difference leaves out 0, else ""."""
        if not abs(line.difference) > line.margin:
            return ""
        return "better" if (line.difference > 0) == (self.mode == "max") else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        plain = {"metric": self.metric, "mode": self.mode, "scored": self.scored, "budget": asdict(self.budget)}
        return {**plain, "rows": [{**asdict(line), "verdict": self.verdict(line)} for line in self.lines]}

    def plot(self, path: Any = None) -> Any:
        """Draw the differences from the first strategy with their intervals; returns the matplotlib figure.

        Args:
            path: image file to write; None only returns the figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        first, *others = self.lines
        figure, axes = pictures.pyplot().subplots(figsize=(8, 1.5 + 0.45 * len(others)), constrained_layout=True)
        heights = np.arange(len(others))[::-1]
        axes.axvline(0, color="0.6", lw=1)
        margins = [line.margin for line in others]
        axes.errorbar([line.difference for line in others], heights, xerr=margins, fmt="o", capsize=4)
        axes.set_yticks(heights, [line.name for line in others])
        axes.set_ylim(-0.7, len(others) - 0.3)
        better = "higher" if self.mode == "max" else "lower"
        axes.set_xlabel(f"{self.scored} {self.metric} less that of {first.name!r} ({better} is better), 95 % interval")
        return pictures.finished(figure, path)

    def __str__(self) -> str:
        first = self.lines[0]
        headings = ("strategy", "LR", f"{self.scored} {self.metric}", f"against {first.name!r}", "seconds")
        rows = []
        for line in self.lines:
            rate = "" if line.lr is None else f"{line.lr:g}{'*' if line.edge else ''}"
            verdict = self.verdict(line)
            difference = f"{line.difference:+.4g} ± {line.margin:.2g}{f' ({verdict})' if verdict else ''}"
            score = f"{line.mean:.4g} ± {line.std:.2g}"
            rows.append((line.name, rate, score, "" if line is first else difference, f"{line.seconds:.1f}"))
        notes = [
            f"{len(self.budget.seeds)} seeds, {self.budget.epochs} epochs each; ±: standard deviation over seeds, and "
            "half a 95 % interval of the paired difference"
        ]
        if any(line.edge for line in self.lines):
            notes.append("*: the lowest or highest learning rate there was to choose from; a better one may lie beyond")
        return "\n".join([description.table(headings, rows), *notes])


def compare(
    strategies: Mapping[str, Any] | Iterable[Any],
    make_learner: Callable[[int], Any],
    epochs: int,
    seeds: int = 5,
    lrs: Sequence[float] = (),
    choosing: int = 1,
    metric: str | None = None,
    path: str | Path | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Train with each strategy on the same seeds, and tell by how much each is better than the first.

    For each strategy the learning rate with the best score on validation data is taken from `lrs`, with seeds of their
    own. Then each is trained with the same `seeds`, which decide what `make_learner` draws, the order of the data and
    dropout: differences are taken seed by seed, so that what the seeds have in common cancels out.

    Args:
        strategies: name → strategy, or strategies; what is no strategy but a function (learning rate) → strategy is
            asked for one.
        make_learner: function (seed) → a new `Learner` with validation data, or a pair (Learner, test data). Without
            test data the scores are those on validation data, on which the learning rates were chosen.
        epochs: number of epochs of each run, ≥ 1.
        seeds: number of runs that count, ≥ 1; 2 for intervals.
        lrs: learning rates to choose from; none: every strategy keeps its own.
        choosing: number of runs per learning rate that choose.
        metric: the score, a metric of the Learner or "loss"; None: its first metric, else the loss.
        path: a file of finished runs (JSON lines). The same comparison, started again, goes on there; runs with other
            settings, or another source of `make_learner`, are passed over.
        progress: whether to show a bar; None: on a terminal.

    Raises:
        ValueError: no strategies, numbers out of range, a strategy whose LR cannot be set, an unknown metric, or a
            Learner without validation data or with checkpoints.
        TypeError: a strategy or Learner that is none.

    Example:
        >>> import paddle_ftstrat as hub
        >>> x = paddle.randn([64, 4])
        >>> pairs = paddle.io.TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
        >>> def make_learner(seed):
        ...     return hub.Learner(paddle.nn.Linear(4, 2), pairs, pairs, metrics="acc", batch_size=16, progress=False)
        >>> strategies = [hub.DefaultStrategy(), hub.OneCycleStrategy(0.1)]
        >>> found = compare(strategies, make_learner, epochs=1, seeds=2, lrs=[0.01, 0.1], progress=False)
        >>> [line.name for line in found.lines], found.metric, len(found.lines[0].scores)
        (['DefaultStrategy', 'OneCycleStrategy'], 'acc', 2)
    """
    named = _named(strategies)
    _errors.check_whole("epochs", epochs, minimum=1)
    grid = tuple(_errors.check_number(f"lrs[{i}]", lr, above=0) for i, lr in enumerate(lrs))
    seeds = _errors.check_whole("seeds", seeds, minimum=1)
    choosers = range(CHOOSING_FROM, CHOOSING_FROM + _errors.check_whole("choosing", choosing, minimum=1))
    budget = Budget(epochs, grid, tuple(choosers) if grid else (), tuple(range(seeds)))
    # All are made once before the first run: what is refused is refused now.
    made = {name: [_at_rate(name, given, lr) for lr in grid or [None]] for name, given in named.items()}
    learner, test = _learner_of(make_learner, 0)
    known = [name for name in learner.value_names() if name not in ("epoch", "train_loss", "valid_loss")]
    metric = metric or (known or ["loss"])[0]
    _errors.check_keys("metric", [metric], ["loss", *known])
    common = [epochs, metric, paddle.__version__, _source(make_learner)]
    parts = {name: json.dumps([*common, *map(_described, made[name])]) for name in named}
    digests = {name: hashlib.sha256(part.encode()).hexdigest()[:16] for name, part in parts.items()}
    records = Records(None if path is None else Path(path), digests)

    def run(name: str, lr: float | None, seed: int, final: bool) -> Outcome:
        return _run(_at_rate(name, named[name], lr), make_learner, epochs, seed, metric, final)

    mode = mode_of(metric)
    chosen = run_rows(named, budget, records, run, mode, progress)
    lines = lines_of(records.all(), chosen, grid, "dev" if test is None else "test")
    return Comparison(metric, mode, "valid" if test is None else "test", lines, budget)


def _run(strategy: DefaultStrategy, make_learner: Any, epochs: int, seed: int, metric: str, final: bool) -> Outcome:
    learner, test = _learner_of(make_learner, seed)
    # What making the data has drawn, at its first time perhaps, must not matter.
    _seed(seed)
    started = time.process_time()
    try:
        learner.fit(epochs, strategy=strategy)
    except FloatingPointError:
        return Outcome(None, None, None, None, time.process_time() - started)
    seconds = round(time.process_time() - started, 3)
    run = learner.run
    with run.averaged() if run is not None and run.has_average else nullcontext():
        dev = learner.validate()
        tested = learner.validate(test)[metric] if final and test is not None else None
    return Outcome(dev[metric], dev["loss"], tested, learner.recorder.values[-1]["train_loss"], seconds)


def _learner_of(make_learner: Callable[[int], Any], seed: int) -> tuple[Learner, Any]:
    _seed(seed)
    made = make_learner(seed)
    learner, test = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(learner, Learner):
        raise TypeError(f"make_learner must return a Learner, or a Learner and test data, not {_errors.shown(made)}")
    if learner.valid is None:
        raise ValueError("make_learner gives a Learner without validation data: learning rates are chosen on them")
    if learner.journal.settings is not None:
        raise ValueError(
            "make_learner gives a Learner with checkpoints: the second run would go on where the first ended"
        )
    if learner.progress is None:
        learner.progress = False
    return learner, test


def _seed(seed: int) -> None:
    paddle.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _named(strategies: Any) -> dict[str, Any]:
    named: dict[str, Any] = dict(strategies) if isinstance(strategies, Mapping) else {}
    for strategy in () if isinstance(strategies, Mapping) else strategies:
        name = getattr(strategy, "__name__", type(strategy).__name__)
        number = sum(known.partition(" ")[0] == name for known in named)
        named[f"{name} {number + 1}" if number else name] = strategy
    for name, given in named.items():
        if not (isinstance(given, DefaultStrategy) or (callable(given) and not isinstance(given, type))):
            raise TypeError(f"strategy {name!r} is neither a strategy nor a function, but {_errors.shown(given)}")
    if not named:
        raise ValueError("there is no strategy to compare")
    return named


def _at_rate(name: str, given: Any, lr: float | None) -> DefaultStrategy:
    """A strategy at another learning rate; None: its own."""
    if not isinstance(given, DefaultStrategy):
        if lr is None:
            raise ValueError(f"strategy {name!r} is a function of the learning rate: give lrs=")
        strategy = given(lr)
        if not isinstance(strategy, DefaultStrategy):
            raise TypeError(f"the function {name!r} must return a strategy, not {_errors.shown(strategy)}")
        return strategy
    if lr is None:
        return given
    arguments = inspect.signature(type(given)).parameters
    key = next((key for key in _RATES if key in arguments), None)
    phases = getattr(given, "phases", ()) if "phases" in arguments else ()
    if key is None or any(phase.learning_rate is not None for phase in phases):
        raise ValueError(
            f"strategy {name!r}, {type(given).__name__}, has learning rates in its phases, or under another name: give "
            "a function (learning rate) → strategy in its place"
        )
    return DefaultStrategy.from_dict({**given.to_dict(), key: lr}, trust=True)


def _described(strategy: DefaultStrategy) -> str:
    try:
        return json.dumps(strategy.to_dict(), sort_keys=True)
    except ValueError:  # options that are objects
        return repr(strategy)


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or a callable object
        return getattr(function, "__qualname__", type(function).__qualname__)
