"""Where to look for better numbers of a strategy: a range for each, for Optuna or any other search."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from typing import Any

from paddle_ftstrat import _errors


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, evenly or by `log`arithm.

    Raises:
        ValueError: low above high, or not above 0 by logarithm.

    Example:
        >>> Range(1e-5, 1e-3, log=True)
        Range(low=1e-05, high=0.001, log=True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        low = {"above": 0.0} if self.log else {}
        _errors.check_number("Range.low", self.low, maximum=_errors.check_number("Range.high", self.high), **low)


# How many times more or less than the strategy's own, by logarithm.
_TIMES = {
    **dict.fromkeys(("learning_rate", "lr_max", "base_lr", "head_learning_rate", "lr_mult"), 10.0),
    **dict.fromkeys(("L2", "L2SP", "weight_decay", "regularization_coeff", "GlobalNorm", "Norm", "Value"), 10.0),
    **dict.fromkeys(("ratio", "div"), 4.0),
}
# What means the same for every model and training.
_FIXED = {
    **dict.fromkeys(("warmup", "warmup_proportion"), Range(0.0, 0.3)),
    "start_point": Range(0.0, 0.9),
    "cut_fraction": Range(0.02, 0.4),
    "pct_start": Range(0.05, 0.9),
    "factor": Range(1.0, 5.0),
    **dict.fromkeys(("layer_decay", "decay"), Range(0.5, 1.0)),
}


class SearchSpace(dict[str, Range]):
    """The numbers of a strategy that are worth a search: path → `Range`, to be changed, added to and deleted from.

    A path names an argument (`learning_rate`) or an entry of one (`scheduler.warmup`, `phases.0.learning_rate`).

    Args:
        strategy: the strategy that the ranges are around.

    Raises:
        ValueError: the strategy cannot be written as plain data, or has no number to look for.

    Example:
        >>> import paddle_ftstrat as hub
        >>> space = hub.CombinedStrategy(learning_rate=1e-4, scheduler={"warmup": 0.1}).suggest_space()
        >>> space["learning_rate"]
        Range(low=1e-05, high=0.001, log=True)
        >>> space.at({"scheduler.warmup": 0.2})
        CombinedStrategy(optimizer 'adam', learning_rate 0.0001, warmup 0.2)
    """

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        given = strategy.to_dict()
        arguments = [*signature(type(strategy).__init__).parameters.values()][1:]
        defaults = {p.name: None if p.default is Parameter.empty else p.default for p in arguments}
        values = {**{name: given.get(name, default) for name, default in defaults.items()}, **given}
        super().__init__({path: found for path, one in _numbers(values) if (found := _range(path, one))})
        # What changes nothing, as the factor of layers whose LRs are alike, would only blur the search.
        for path, found in list(self.items()):
            if _effects(self.at({path: found.low})) == _effects(self.at({path: found.high})):
                del self[path]
        if not self:
            raise ValueError(f"{type(strategy).__name__} has no number to look for")

    def suggest(self, trial: Any) -> Any:
        """The strategy with numbers that an Optuna trial suggests.

        Args:
            trial: an `optuna.trial.Trial`, or what has its `suggest_float(name, low, high, log=…)`.

        Raises:
            ValueError: a path that does not exist, or a number that the strategy refuses.
        """
        return self.at({path: trial.suggest_float(path, one.low, one.high, log=one.log) for path, one in self.items()})

    def at(self, values: Mapping[str, float]) -> Any:
        """The strategy with these numbers, by path; for `study.best_params`, for one.

        Raises:
            ValueError: a path that does not exist, or a number that the strategy refuses.
        """
        given = copy.deepcopy(self.strategy.to_dict())
        for path, value in values.items():
            *parts, last = path.split(".")
            inner: Any = given
            for part in parts:
                inner = inner[int(part)] if isinstance(inner, list) else inner.get(part)
                if not isinstance(inner, (dict, list)):
                    raise ValueError(_errors.unknown("path", path, self))
            inner[int(last) if isinstance(inner, list) else last] = value
        return type(self.strategy).from_dict(given, trust=True)

    def distributions(self) -> dict[str, Any]:
        """Path → `optuna.distributions.FloatDistribution`, for samplers and `study.ask`.

        Raises:
            ImportError: Optuna is not installed.
        """
        with _errors.needed("distributions() needs Optuna", "optuna"):
            from optuna.distributions import FloatDistribution
        return {path: FloatDistribution(one.low, one.high, log=one.log) for path, one in self.items()}


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(path, number) of all numbers in dicts and lists."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, entry in entries:
        here = f"{path}.{key}" if path else str(key)
        if isinstance(entry, (Mapping, list, tuple)):
            yield from _numbers(entry, here)
        elif isinstance(entry, (int, float)) and not isinstance(entry, bool):
            yield here, float(entry)


def _range(path: str, value: float) -> Range | None:
    name = path.rpartition(".")[2]
    if name in _TIMES:
        return Range(value / _TIMES[name], value * _TIMES[name], log=True) if value > 0 else None
    # The decay of an average is another one than that of LRs: it is below 1, and follows from the number of updates.
    found = None if path.startswith("averaging.") else _FIXED.get(name)
    # Of the shares only a warmup may be 0; the others are off then.
    if found is None or (value == 0 and "warmup" not in name):
        return None
    return Range(min(found.low, value), max(found.high, value))


def _effects(strategy: Any) -> list[Any]:
    """What a strategy does in a training of some length, as far as numbers of it can matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plan = strategy.plan(200, 20)
        except ValueError:  # its training has another length
            return [strategy]
    values = [schedule(t) for schedule in plan.schedules.values() for t in range(0, 200, 3)]
    return [repr(values), *(getattr(plan, field.name) for field in fields(plan) if field.name != "schedules")]
