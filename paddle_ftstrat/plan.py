"""The plan: what a strategy wants, as plain data. Strategies write plans, `binding.bind` carries them out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.schedules.schedule import Schedule

# Words in the names of scores that are better when lower.
_LOWER = ("loss", "error", "mse", "mae", "mape", "perplexity")


@dataclass(frozen=True)
class Clip:
    """Gradient clipping by a `value` v > 0, of a `kind`.

    GlobalNorm: g·v/max(‖all g‖, v); Norm: the same for each parameter by itself; Value: g limited to [−v, v].
    """

    kind: str
    value: float


@dataclass(frozen=True)
class Discriminative:
    """LR factors by depth: ×1 at the top, ×1/factor for each block (or layer of `params_layer`) below.

    `blocks` counts contiguous blocks, None for one per layer; `params_layer` (parameter name → layer number) beats it
    where given. No factor falls below `minimum`. `factors`, one per layer from the bottom up or
    by its name, beat all of them.
    """

    factor: float
    blocks: int | None = None
    params_layer: Mapping[str, int] | None = None
    minimum: float = 0.0
    factors: tuple[float, ...] | Mapping[str, float] | None = None


@dataclass(frozen=True)
class Spread:
    """LRs by depth as fastai writes them: `slice(lo, hi)`, `slice(hi)` or one per layer group (see `spread`)."""

    lr: Any


@dataclass(frozen=True)
class Top:
    """What trains: the top `count` of `of` blocks of layers, or by number the layers ≥ max − count + 1.

    `of` None counts single layers; `params_layer` (parameter name → layer number) counts its numbers instead.
    """

    count: int
    of: int | None = None
    params_layer: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Plateau:
    """The end of a phase: when a monitored value has not improved for `patience` evaluations.

    Args:
        monitor: a value of the evaluation, as the Learner's results or `run.evaluated({...})` name it.
        patience: evaluations without an improvement that end the phase, ≥ 1.
        max_epochs: the longest that the phase lasts; None: the length that the phase gives.
        min_delta: what an improvement is at least.
        mode: "min" or "max"; None: losses and errors are better when lower, all else when higher.

    Raises:
        ValueError: a number out of range, or another mode.
        TypeError: something that is not a number.

    Example:
        >>> Plateau("valid_loss", patience=2, max_epochs=10).patience
        2
    """

    monitor: str = "valid_loss"
    patience: int = 1
    max_epochs: int | None = None
    min_delta: float = 0.0
    mode: str | None = None

    def __post_init__(self) -> None:
        _errors.check_whole("Plateau.patience", self.patience, minimum=1)
        _errors.check_number("Plateau.min_delta", self.min_delta, minimum=0)
        if self.max_epochs is not None:
            _errors.check_whole("Plateau.max_epochs", self.max_epochs, minimum=1)
        if self.mode not in (None, "min", "max"):
            raise ValueError("Plateau." + _errors.unknown("mode", self.mode, ["min", "max"]))


@dataclass(frozen=True)
class Phase:
    """A stretch of the training: what trains, for how long, with which schedule, and how it ends.

    Args:
        train: "all"; "head", the top layer; a number k, the top k layers; or selectors (globs, layers, patterns, words
            for kinds: `["bias", "head"]` is BitFit, see `param_attr.kinds`).
        epochs, updates, share: its length, one of them: epochs, updates, or a share of the training's updates. Without
            any of them the phase takes what the others leave.
        learning_rate: the peak of its own schedule; None: the strategy's.
        scheduler: its own schedule of the LR, as for `CombinedStrategy`, counted from the phase's first update; None:
            the strategy's schedule goes on, or with a `learning_rate` a constant one.
        until: what ends the phase early.
        restore: "best" puts the weights of its best evaluation back when it ends; needs `until`.
        reset_optimizer: begin with a new state of the optimizer.
        name: what tables call it.

    Raises:
        ValueError: two lengths, a length out of range, or `restore` without `until`.
        TypeError: something of the wrong type.

    Example:
        >>> Phase(train="head", epochs=2, learning_rate=1e-3).train
        'head'

    Source: the phases of finetuning-scheduler; PaddleHub's gradual unfreezing and fastai's `fine_tune` are such.
    """

    train: Any = "all"
    epochs: int | None = None
    updates: int | None = None
    share: float | None = None
    learning_rate: float | None = None
    scheduler: Mapping[str, Any] | None = None
    until: Plateau | None = None
    restore: str | None = None
    reset_optimizer: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        longest = self.until.max_epochs if isinstance(self.until, Plateau) else None
        lengths = {"epochs": self.epochs, "updates": self.updates, "share": self.share, "until.max_epochs": longest}
        given = {key: value for key, value in lengths.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"a phase has one length, but {' and '.join(given)} are given")
        if self.until is not None and not isinstance(self.until, Plateau):
            raise TypeError(f"until must be a Plateau, not {self.until!r}")
        for key in ("epochs", "updates"):
            if getattr(self, key) is not None:
                _errors.check_whole(f"phase.{key}", getattr(self, key), minimum=1)
        if self.share is not None:
            _errors.check_number("phase.share", self.share, above=0, maximum=1)
        if self.learning_rate is not None:
            _errors.check_number("phase.learning_rate", self.learning_rate, above=0)
        if self.restore not in (None, "best"):
            raise ValueError("phase." + _errors.unknown("restore", self.restore, ["best"]))
        if self.restore and self.until is None:
            raise ValueError('restore="best" needs until=Plateau(...), whose monitored value says what is best')

    @property
    def length_in_epochs(self) -> int | None:
        """Its length where that is said in epochs, at the longest."""
        return self.epochs if self.until is None or self.until.max_epochs is None else self.until.max_epochs

    def length(self, max_train_steps: int | None, steps_per_epoch: int | None) -> int | None:
        """Its length in updates, as far as it is known."""
        if self.length_in_epochs is not None:
            return None if steps_per_epoch is None else self.length_in_epochs * steps_per_epoch
        if self.share is not None:
            return None if max_train_steps is None else int(max_train_steps * self.share)
        return self.updates

    @property
    def is_open(self) -> bool:
        """Whether it takes what the other phases leave."""
        return self.length_in_epochs is None and self.updates is None and self.share is None

    @property
    def has_schedule(self) -> bool:
        """Whether the phase has a schedule of its own."""
        return self.scheduler is not None or self.learning_rate is not None


@dataclass(frozen=True)
class Plan:
    """Everything that decides an update, independent of any model.

    `schedules` map hyper-parameters (`HYPERS`; "lr" always) to functions of the update index t over the whole
    training, those of phases joined in; `max_train_steps` is T, or None where no schedule has a length. `optimizer` is
    a name of the optimizer table or an Optimizer class, `optimizer_options` its keyword arguments. `weight_decay` None
    means "not asked for", which leaves an optimizer with a decay of its own alone; 0.0 switches that off. `depth` gives
    layers a share of the LR. `phases` come one after the other; `starts` are their first updates, where they are known.
    `averaging` and `perturbation` are members of `optim.averaging` and `optim.perturbation`, frozen data themselves.
    """

    schedules: Mapping[str, Schedule]
    max_train_steps: int | None = None
    optimizer: str | type = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    l2: float = 0.0
    l2sp: float = 0.0
    ewc: float = 0.0
    weight_decay: float | None = None
    clip: Clip | None = None
    depth: Discriminative | Spread | None = None
    phases: tuple[Phase, ...] = (Phase(),)
    starts: tuple[int, ...] | None = (0,)
    averaging: Any = None
    perturbation: Any = None

    @property
    def lr(self) -> Schedule:
        """The LR of the top layers before multipliers."""
        return self.schedules["lr"].group(-1)

    @cached_property
    def thaws(self) -> bool:
        """Whether what trains changes in the course of the training."""
        return len(self.phases) > 1

    @cached_property
    def first_epochs(self) -> tuple[int, ...] | None:
        """The epoch, from 1, that each phase begins with; None where lengths before it are not told in epochs."""
        if any(phase.length_in_epochs is None for phase in self.phases[:-1]):
            return None
        return tuple(1 + sum(phase.length_in_epochs or 0 for phase in self.phases[:i]) for i in range(len(self.phases)))


@dataclass
class Progress:
    """How far a plan is carried out, beside the index of the update.

    `phase` counts from 0 and began with the epoch `began`; `skipped` updates of phases that ended early were left out.
    `best` is the best value that the phase's `until` has seen, `waited` the evaluations since; `best_weights` are those
    of the best evaluation where the phase restores them. `finished` says that the last phase has ended early,
    `by_updates` that one has ended inside an epoch, since when phases change by the count of updates.
    """

    phase: int = 0
    began: int = 1
    skipped: int = 0
    best: float | None = None
    waited: int = 0
    finished: bool = False
    by_updates: bool = False
    best_weights: dict[str, Any] = field(default_factory=dict)

    def at(self, phase: int, epoch: int) -> Progress:
        """The beginning of a phase, in an epoch."""
        return Progress(phase, epoch, self.skipped, by_updates=self.by_updates)

    def over_in(self, plan: Plan, epoch: int) -> int | None:
        """The epoch, up to this one, that the next phase begins with; None where the phase goes on."""
        length = plan.phases[self.phase].length_in_epochs
        if plan.first_epochs is None or length is None or self.phase + 1 == len(plan.phases):
            return None
        return self.began + length if self.began + length <= epoch else None

    def judge(self, until: Plateau, values: Mapping[str, float], state: Mapping[str, Any] | None) -> bool:
        """Note an evaluation, with the model's state where it is to be kept; whether it ends the phase."""
        _errors.check_keys("monitored value", [until.monitor], values)
        score = float(values[until.monitor]) * (1 if (until.mode or mode_of(until.monitor)) == "min" else -1)
        if score == score and (self.best is None or score < self.best - until.min_delta):
            self.best, self.waited = score, 0
            if state is not None:
                self.best_weights = {name: value.clone() for name, value in state.items()}
            return False
        self.waited += 1
        return self.waited >= until.patience

    def state_dict(self) -> dict[str, Any]:
        """All but the weights, as JSON can hold it."""
        return {key: value for key, value in vars(self).items() if key != "best_weights"}


def mode_of(name: str) -> str:
    """Whether a score is better when lower ("min": its name has loss, error, mse, mae, … in it) or higher ("max").

    Example:
        >>> [mode_of(name) for name in ("valid_loss", "rmse", "mae", "r2", "acc")]
        ['min', 'min', 'min', 'max', 'max']
    """
    return "min" if any(word in name.lower() for word in _LOWER) else "max"


def spread(lr: Any, groups: int) -> list[float]:
    """One learning rate per layer group, bottom group first.

    Args:
        lr: a number (the same for all); `slice(hi)`: hi for the top group and hi/10 below; `slice(lo, hi)`:
            lo·(hi/lo)^(i/(groups−1)) for group i; or a list with one number per group.
        groups: how many layer groups there are.

    Raises:
        ValueError, TypeError: a rate below 0 (in a slice: not above 0), a list of another length, or none of these.

    Example:
        >>> spread(slice(1e-5, 1e-3), 3), spread(slice(0.5), 3)
        ([1e-05, 0.0001, 0.001], [0.05, 0.05, 0.5])

    Source: fastai `Optimizer.set_hyper` and `even_mults`.
    """
    groups = _errors.check_whole("groups", groups, minimum=1)
    if isinstance(lr, slice):
        if lr.stop is None or lr.step is not None:
            raise ValueError(f"lr = {lr!r} must be slice(hi) or slice(lo, hi)")
        high = _errors.check_number("lr.stop", lr.stop, above=0)
        if lr.start is None:
            return [high / 10] * (groups - 1) + [high]
        low = _errors.check_number("lr.start", lr.start, above=0)
        return [low * (high / low) ** (index / (groups - 1)) for index in range(groups - 1)] + [high]
    if np.ndim(lr) == 0:
        return [_errors.check_number("lr", lr, minimum=0)] * groups
    if len(lr) != groups:
        raise ValueError(f"lr = {lr!r} has {len(lr)} values, but there are {groups} layer groups")
    return [_errors.check_number(f"lr[{index}]", value, minimum=0) for index, value in enumerate(lr)]


def starts_of(
    phases: tuple[Phase, ...], max_train_steps: int | None, steps_per_epoch: int | None
) -> tuple[int, ...] | None:
    """The first update of each phase, None where it cannot be known yet.

    Raises:
        ValueError: several phases without a length, or none left for the one that has no length.

    Example:
        >>> starts_of((Phase(epochs=1), Phase(share=0.5), Phase()), 100, 10)
        (0, 10, 60)
    """
    lengths = [phase.length(max_train_steps, steps_per_epoch) for phase in phases]
    open_ended = [i for i, phase in enumerate(phases) if phase.is_open]
    if len(open_ended) > 1:
        numbers = [i + 1 for i in open_ended]
        raise ValueError(f"phases {numbers} have no length: only one can take what the others leave")
    known = [length for length in lengths if length is not None]
    if open_ended and open_ended[0] < len(phases) - 1:
        if max_train_steps is None or len(known) < len(phases) - 1:
            return None
        if sum(known) >= max_train_steps:
            raise ValueError(f"the other phases take {sum(known)} updates, but the training has {max_train_steps}")
        known.insert(open_ended[0], max_train_steps - sum(known))
    elif None in lengths[:-1]:
        return None
    return (0, *itertools.accumulate(known[: len(phases) - 1]))
