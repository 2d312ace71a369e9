"""What changes between updates on an optimizer that stays the same: the LR, decoupled decay, momentum, ε."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from paddle.optimizer.lr import LRScheduler

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.schedules.schedule import Schedule

# So many LRs are computed at a time.
AHEAD = 1024
CARRIED = "ftstrat"
NAMES = ("mom", "sqr_mom", "wd", "eps")
_BOUNDS = {
    "mom": {"minimum": 0, "maximum": 1},
    "sqr_mom": {"minimum": 0, "maximum": 1},
    "wd": {"minimum": 0},
    "eps": {"minimum": 0},
}


class ScheduleLR(LRScheduler):
    """A Paddle LR scheduler that evaluates a schedule: lr = schedule(last_epoch).

    `last_epoch` (the index of the coming update) is its only state, so setting it, in any order, gives the value of
    that update; a `Schedule` holds its last value past its end.

    Args:
        schedule: function update index → LR, a `Schedule` or any callable.
        last_epoch: the index before the first update to come; -1 starts at update 0.
        verbose: print the LR whenever it is stepped, as Paddle's schedulers do.

    Attributes:
        heard: called after each step by one update, which every loop makes; None: nothing is.

    Raises:
        TypeError: `schedule` is not callable.

    Example:
        >>> from paddle_ftstrat.schedules.curves import linear_decay
        >>> scheduler = ScheduleLR(linear_decay(1.0, 4))
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs.append(scheduler())
        ...     scheduler.step()
        >>> lrs
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(self, schedule: Callable[[Any], Any], last_epoch: int = -1, verbose: bool = False) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the update index, not {schedule!r}")
        self.schedule = schedule
        self._ahead: tuple[int, list[float]] = (0, [])
        self.heard: Callable[[bool], None] | None = None
        self._carried: tuple[Callable[[], Any], Callable[[Any, Any], None]] | None = None
        # The base class keeps base_lr only for schedulers that scale it; a curve already has its own scale.
        super().__init__(learning_rate=float(schedule(0)), last_epoch=last_epoch, verbose=verbose)

    def step(self, epoch: int | None = None) -> None:
        """Move on by one update, or to update `epoch`."""
        t = self.last_epoch + 1 if epoch is None else int(epoch)
        self.last_epoch = t
        first, values = self._ahead
        self.last_lr = values[t - first] if 0 <= t - first < len(values) else self._look_ahead(t)
        if self.verbose:
            print(f"update {t}: {type(self).__name__} sets the learning rate to {self.last_lr}")
        if self.heard is not None:
            self.heard(epoch is None)

    def _look_ahead(self, t: int) -> float:
        # As one array, a thousand values cost about as much as fifty single ones, and training asks for them in order.
        # Blocks begin at multiples of their length, so that the order of questions cannot change an answer.
        if not isinstance(self.schedule, Schedule):
            return float(self.schedule(t))
        first = t - t % AHEAD
        values = self.schedule(np.arange(first, first + AHEAD)).tolist()
        self._ahead = (first, values)
        return values[t - first]

    def position(self) -> dict[str, Any]:
        """The state without what is carried."""
        return super().state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The position, and what `carry` put beside it: every loop saves this, most of them inside the optimizer's."""
        carried = {} if self._carried is None else {CARRIED: self._carried[0]()}
        return {**self.position(), **carried}

    def set_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on at a saved position, and hand on what was carried with it."""
        rest = dict(state_dict)
        carried = rest.pop(CARRIED, None)
        super().set_state_dict(rest)
        if carried is not None and self._carried is not None:
            self._carried[1](carried, rest)
        elif self.heard is not None:
            self.heard(False)

    set_dict = set_state_dict

    @property
    def carries(self) -> bool:
        """Whether its state holds more than the position."""
        return self._carried is not None

    def carry(self, give: Callable[[], Mapping[str, Any]], take: Callable[[Any, Any], None]) -> None:
        """Have `state_dict` hold `give()` too, and `set_state_dict` call `take(what was given, position)`."""
        self._carried = (give, take)

    def get_lr(self) -> float:
        """The LR of the coming update, as a Python float."""
        return float(self.schedule(self.last_epoch))

    def follow(self, schedule: Callable[[Any], Any]) -> None:
        """Follow another schedule from its update 0 on."""
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the update index, not {schedule!r}")
        self.schedule, self._ahead, self.last_epoch = schedule, (0, []), 0
        self.last_lr = self._look_ahead(0)


class Decoupled:
    """p ← p·(1 − lr·wd) after each update, with lr the one the update used, multiplier included.

    Args:
        optimizer: the optimizer whose updates it follows.
        lr_scheduler: what tells the LR.
        decayed: `.name` of the parameters it reaches.
        coefficient: wd.
    """

    def __init__(self, optimizer: Any, lr_scheduler: Any, decayed: set[str], coefficient: float) -> None:
        self._optimizer = optimizer
        self._lr = lr_scheduler
        self._decayed = decayed
        self._value: float | dict[str, float] = 0.0
        self._coefficients: dict[str, float] = {}
        self._hooked = False
        self.set(coefficient)

    def get(self) -> float | dict[str, float]:
        """wd, or a dict parameter `.name` → wd."""
        return self._value

    @property
    def coefficients(self) -> Mapping[str, float]:
        """wd of each parameter that decays, by `.name`."""
        return self._coefficients

    def set(self, value: float | Mapping[str, float]) -> None:
        """Use another wd from the next update on, or a dict parameter `.name` → wd."""
        self._value = dict(value) if isinstance(value, Mapping) else value
        each = value if isinstance(value, Mapping) else dict.fromkeys(self._decayed, value)
        self._coefficients = {name: wd for name, wd in each.items() if wd and name in self._decayed}
        if self._coefficients and not self._hooked:
            _paddle.after_update(self._optimizer, self)
            self._hooked = True

    def __call__(self, params_grads: Sequence[tuple[Any, Any]]) -> None:
        """Decay the parameters that were just updated."""
        lr, coefficients = self._lr.last_lr, self._coefficients
        for param, grad in params_grads:
            coefficient = coefficients.get(param.name)
            if coefficient is None or grad is None:
                continue
            param.scale_(1.0 - lr * param.optimize_attr["learning_rate"] * coefficient)


class HyperParameters:
    """Momentum, second-moment decay, epsilon and weight decay of an optimizer, settable at any time.

    `mom` is the momentum, or Adam's β₁; `sqr_mom` Adam's β₂ or RMSProp's and Adadelta's ρ; `eps` what keeps the
    denominator from 0; `wd` the decoupled decay. Each is one number, or one per parameter.

    Args:
        optimizer: the Paddle optimizer.
        decoupled: what carries out decoupled decay in the optimizer's place; None: the optimizer does it.

    Example:
        >>> import paddle
        >>> adam = paddle.optimizer.Adam(parameters=paddle.nn.Linear(1, 1).parameters())
        >>> hypers = HyperParameters(adam, None)
        >>> hypers.set("mom", 0.85)
        >>> hypers.get("mom")
        0.85
    """

    def __init__(self, optimizer: Any, decoupled: Decoupled | None) -> None:
        self._optimizer = optimizer
        self._decoupled = decoupled
        self._varied: dict[str, dict[str, float]] = {}
        self._hooked = False

    def has(self, name: str) -> bool:
        """Whether this optimizer has the hyper-parameter."""
        _errors.check_keys("hyper-parameter", [name], NAMES)
        by_us = name == "wd" and self._decoupled is not None
        return by_us or _paddle.hyper_attribute(self._optimizer, name) is not None

    def get(self, name: str) -> Any:
        """The number in force, or a dict parameter `.name` → number where they differ."""
        self._check(name)
        if name == "wd" and self._decoupled is not None:
            return self._decoupled.get()
        attribute = _paddle.hyper_attribute(self._optimizer, name)
        return dict(self._varied[attribute]) if attribute in self._varied else getattr(self._optimizer, attribute)

    def by_block(self, name: str, blocks: Callable[[], Sequence[Sequence[str]]]) -> Any:
        """The number in force, or a list with one per block where parameters differ; `blocks()` has their `.name`s."""
        value = self.get(name)
        if not isinstance(value, dict):
            return value
        return [next((value[key] for key in block if key in value), None) for block in blocks()]

    def set_by_block(self, name: str, value: Any, blocks: Callable[[], Sequence[Sequence[str]]]) -> None:
        """Use another number from the next update on, or a list with one per block of `blocks()`.

        Raises:
            ValueError: as for `set`, or a list of another length.
        """
        if np.ndim(value) == 0:
            self.set(name, value)
            return
        keys = blocks()
        if len(value) != len(keys):
            raise ValueError(f"{name} has {len(value)} values, but there are {len(keys)} blocks")
        self.set(name, {key: number for block, number in zip(keys, value) for key in block})

    def check(self, names: Iterable[str]) -> None:
        """Refuse hyper-parameters, beside `lr`, that the optimizer lacks.

        Raises:
            ValueError: there is one.
        """
        for name in names:
            if name != "lr":
                self._check(name)

    @property
    def varied(self) -> Mapping[str, Mapping[str, float]]:
        """What differs between parameters: the optimizer's attribute → parameter `.name` → number."""
        return self._varied

    def set(self, name: str, value: Any) -> None:
        """Use another number from the next update on, or a dict parameter `.name` → number.

        Raises:
            ValueError: an unknown name, one that the optimizer lacks, or a number out of range.
        """
        self._check(name)
        each = value if isinstance(value, Mapping) else {None: value}
        each = {key: _errors.check_number(name, number, **_BOUNDS[name]) for key, number in each.items()}
        if name == "wd" and self._decoupled is not None:
            self._decoupled.set(each if isinstance(value, Mapping) else each[None])
            return
        attribute = _paddle.hyper_attribute(self._optimizer, name)
        if not isinstance(value, Mapping):
            self._varied.pop(attribute, None)
            setattr(self._optimizer, attribute, each[None])
            return
        self._varied[attribute] = each
        if not self._hooked:
            _paddle.before_each_update(self._optimizer, self._put)
            self._hooked = True

    def _put(self, param: Any) -> None:
        for attribute, by_param in self._varied.items():
            if param.name in by_param:
                setattr(self._optimizer, attribute, by_param[param.name])

    def _check(self, name: str) -> None:
        if not self.has(name):
            have = [known for known in NAMES if self.has(known)]
            raise ValueError(
                f"optimizer {type(self._optimizer).__name__} has no hyper-parameter {name!r}; "
                f"it has {_errors.listing(['lr', *have])}"
            )
