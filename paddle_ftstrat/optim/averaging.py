"""Averages of the weights, beside those that train: the rules by name, and what keeps the average of one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import masters
from paddle_ftstrat.optim.fused.step import FusedStep
from paddle_ftstrat.optim.methods import Method, registering
from paddle_ftstrat.optim.perturbation import kept
from paddle_ftstrat.optim.state import shaped
from paddle_ftstrat.param_attr import select

AVERAGES: dict[str, type[Average]] = {}
register = registering(AVERAGES, "an average")


@dataclass(frozen=True)
class Average(Method):
    """A rule: after which updates the weights go into the average, and with which share.

    A frozen dataclass that is derived from this and entered with `@averaging.register("name")` is known to strategies,
    files, `ftstrat list`, `explain` and `plot`.

    Example:
        >>> @register("latest_for_doctest")
        ... @dataclass(frozen=True)
        ... class Latest(Average):
        ...     def share(self, count, update, steps):
        ...         return 1.0
        >>> AVERAGES.pop("latest_for_doctest")().share(0, 0, None)
        1.0
    """

    def share(self, count: int, update: int, steps: int | None) -> float:
        """The share s of the weights in average ← (1 − s)·average + s·w; 0 leaves them out.

        Args:
            count: how many times weights went into the average before; at the first, s < 1 keeps a share of w⁰.
            update: t, the index of the update that was done just now.
            steps: T, the length of the training in updates, None where it is not known.
        """
        raise NotImplementedError

    def begins(self, steps: int | None) -> int:
        """The update after which weights can first go in; ValueError where that needs a length that is not known."""
        return 0


@register("EMA")
@dataclass(frozen=True)
class EMA(Average):
    """Exponential moving average: ema ← d·ema + (1 − d)·w after every update, from w⁰ on.

    Args:
        decay: d, 0 ≤ d < 1.
        bias_correction: leave w⁰ out: the share of update t is (1 − d)/(1 − dᵗ) instead of 1 − d.

    Raises:
        ValueError: decay out of range.
        TypeError: a value of the wrong type.

    Example:
        >>> EMA(0.9).share(0, 0, None), EMA(0.9, bias_correction=True).share(0, 0, None)
        (0.09999999999999998, 1.0)

    Source: Polyak & Juditsky (1992) for averaging; Kingma & Ba (arXiv:1412.6980, section 3) for the correction.
    """

    decay: float = 0.999
    bias_correction: bool = False

    def __post_init__(self) -> None:
        _errors.check_number("decay", self.decay, minimum=0, below=1)
        _errors.check_flag("bias_correction", self.bias_correction)

    def share(self, count: int, update: int, steps: int | None) -> float:
        """1 − d, or (1 − d)/(1 − dᵗ)."""
        share = 1.0 - self.decay
        return share / (1.0 - self.decay ** (count + 1)) if self.bias_correction else share


@register("SWA")
@dataclass(frozen=True)
class SWA(Average):
    """Stochastic weight averaging: the plain mean of the weights after updates at the end of the training.

    Args:
        start: the share of the training after which the mean begins, in [0, 1): from update ⌊T·start⌋ on.
        every: every how manieth update from there on goes in, ≥ 1; the length of a cycle takes the end of each.

    Raises:
        ValueError: a number out of range.
        TypeError: something that is not a (whole) number.

    Example:
        >>> [SWA(0.5, every=2).share(0, update, 8) for update in range(8)]
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (arXiv:1803.05407).
    """

    start: float = 0.75
    every: int = 1

    def __post_init__(self) -> None:
        _errors.check_number("start", self.start, minimum=0, below=1)
        _errors.check_whole("every", self.every, minimum=1)

    def share(self, count: int, update: int, steps: int | None) -> float:
        """1/(count + 1) at the updates that go in."""
        done = update + 1 - self.begins(steps)
        return 1.0 / (count + 1) if done > 0 and done % self.every == 0 else 0.0

    def begins(self, steps: int | None) -> int:
        """⌊T·start⌋."""
        if self.start == 0:
            return 0
        if steps is None:
            raise ValueError(
                f"averaging SWA from {self.start:g} of the training on needs its length: give bind() max_train_steps, "
                "or num_epoch and steps_per_epoch"
            )
        return int(steps * self.start)


class Averaging:
    """Keeps the average that a rule means of the weights of a model.

    A weight has an average from when it trains on, in float32 (of half-precision weights, that of the float32 copy
    which the optimizer updates); up to then it does not move, so that its average is itself. One that stays frozen has
    no copy and costs nothing. Statistics of BatchNorm layers are not averaged: they are moving averages already.

    Args:
        rule: the rule.
        weights: structured name → parameter.
        optimizer: whose updates move them; None: it keeps no float32 copies.
        clock: gives the index of the current update and T (see `Average.share`).

    Attributes:
        count: how many times weights have gone into the average.
        values: structured name → averaged weight.
    """

    def __init__(
        self,
        rule: Average,
        weights: Mapping[str, Any],
        optimizer: Any = None,
        clock: Callable[[], tuple[int, int | None]] = lambda: (0, None),
    ) -> None:
        self.rule, self.count = rule, 0
        self.values: dict[str, Any] = {}
        # Names of those that the update itself has moved.
        self.moved: Sequence[str] = ()
        self._resumed = False
        self._weights, self._optimizer, self._clock = weights, optimizer, clock

    def join(self) -> None:
        """Take in what has begun to train, with the weights of now as w⁰."""
        if not self.count and not 0 < self.rule.share(0, *self._clock()) < 1:
            return
        for name, weight in self._weights.items():
            # Before the first update, weights may have been loaded since they were taken.
            renewed = not self.count and not self._resumed
            if not weight.stop_gradient and (renewed or name not in self.values):
                self.values[name] = _copy(masters.float32_of(weight) if masters.is_half(weight) else weight)

    def update(self, params_grads: Any = None) -> None:
        """Put the weights after an update into the average; what the optimizer has updated is not needed."""
        share, moved = self.rule.share(self.count, *self._clock()), set(self.moved)
        self.moved = ()
        if not share:
            return
        for name, weight in self._weights.items() if len(moved) < len(self._weights) else ():
            if name in moved:
                continue
            master = None if self._optimizer is None else _paddle.master_weight(self._optimizer, weight)
            weight = weight if master is None else master
            average = self.values.get(name)
            if average is not None:
                _move(average, weight, share)
            elif not self._weights[name].stop_gradient:
                self.values[name] = _copy(weight)
        self.count += 1

    def keeps(self) -> float:
        """The share of the average that the coming update keeps: 1 where it leaves the weights out."""
        return 1.0 - self.rule.share(self.count, *self._clock())

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by structured name, and how many times weights have gone in."""
        return {"updates": self.count, "average": dict(self.values)}

    def check(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The averaged weights of a state; refuses those of parameters that the model lacks, or of another shape."""
        _errors.check_keys("averaged parameter", state["average"], self._weights)
        return {
            name: shaped(f"the average of {name!r}", value, self._weights[name].shape)
            for name, value in state["average"].items()
        }

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken; a state that `check` refuses changes nothing."""
        self.values = {name: _copy(value) for name, value in self.check(state).items()}
        self.count, self._resumed = int(state["updates"]), True


def keep(run: Any, weights: Mapping[str, Any]) -> Averaging:
    """The average that a binding's plan asks for; it follows the optimizer's updates, whatever loop makes them."""
    rule, optimizer = run.plan.averaging, run.optimizer
    if hasattr(optimizer, "averaged_weights"):
        raise ValueError(
            f"averaging {rule.name}: optimizer {type(optimizer).__name__} has averaged weights of its own, which "
            "run.averaged() takes: leave averaging out"
        )
    rule.begins(run.plan.max_train_steps)
    average = Averaging(rule, weights, optimizer, lambda: (run.lr_scheduler.last_epoch, run.plan.max_train_steps))
    _paddle.after_update(optimizer, average.update)
    step = vars(optimizer).get("step")
    if isinstance(step, FusedStep):
        step.average = average
    return average


@contextmanager
def swapped(model: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Inside it weights of a model have other values, by structured name; afterwards they and statistics their own."""
    weights = select.named_weights(model)
    with kept([*(weights[name] for name in values), *select.statistics(model).values()]):
        put(values, weights)
        yield


@contextmanager
def averaged(run: Any) -> Iterator[None]:
    """See `Binding.averaged`."""
    if not run.has_average:
        raise RuntimeError(
            'there is no average: give the strategy averaging={"EMA": 0.999}, or another of '
            f"{_errors.listing(AVERAGES)}, or take an optimizer that has averaged weights of its own"
        )
    if run.average is not None:
        values = run.average.values
    else:
        names = {param.name: name for name, param in select.named_weights(run.model).items()}
        values = {names[key]: value for key, value in run.optimizer.averaged_weights().items()}
    with swapped(run.model, values):
        yield


def _move(average: Any, weight: Any, share: float) -> None:
    weight = weight if weight.dtype == average.dtype else weight.astype(average.dtype)
    with paddle.no_grad():
        # (average − w)·(1 − share) + w, in place: several times as fast as `lerp_`, and w is a fixed point exactly.
        average.subtract_(weight)
        average.scale_(1.0 - share)
        average.add_(weight)


def put(values: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Write values into the tensors of the same names, in the tensors' dtype."""
    with paddle.no_grad():
        for name, value in values.items():
            paddle.assign(value.astype(tensors[name].dtype), output=tensors[name])


def _copy(weight: Any) -> Any:
    kept = weight.detach().clone()
    return kept if str(kept.dtype).rpartition(".")[2] in ("float32", "float64") else kept.astype("float32")
