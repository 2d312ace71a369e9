"""What changes between updates on an optimizer that stays the same: the LR, decoupled decay, momentum, ε."""

from __future__ import annotations

import math
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
_MAXIMUM = {"mom": 1.0, "sqr_mom": 1.0}
Blocks = Callable[[], Sequence[Sequence[str]]]  # the parameters' names, bottom block first


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

    last_epoch: int

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
        """The position and what `carry` put beside it; every loop saves it, most of them inside the optimizer's."""
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


class HyperParameters:
    """Momentum, second-moment decay, epsilon and weight decay of an optimizer, settable at any time.

    `mom` is the momentum, or Adam's β₁; `sqr_mom` Adam's β₂ or RMSProp's and Adadelta's ρ; `eps` what keeps the
    denominator from 0; `wd` the decoupled decay. Each is one number, or one per parameter.

    Args:
        optimizer: the Paddle optimizer.
        lr_scheduler: what tells the LR.
        decayed: `.name` of the parameters that are decayed here, in the optimizer's place; None: the optimizer does it.
        wd: the decay of these.

    Attributes:
        varied: what differs between parameters: the optimizer's attribute → parameter `.name` → number.
        coefficients: wd of each parameter that is decayed here, by `.name`.

    Example:
        >>> import paddle
        >>> adam = paddle.optimizer.Adam(parameters=paddle.nn.Linear(1, 1).parameters())
        >>> hypers = HyperParameters(adam, None)
        >>> hypers.set("mom", 0.85)
        >>> hypers.get("mom")
        0.85
    """

    def __init__(self, optimizer: Any, lr_scheduler: Any, decayed: set[str] | None = None, wd: float = 0.0) -> None:
        self.varied: dict[str, dict[str, float]] = {}
        self.coefficients: dict[str, float] = {}
        self._optimizer, self._lr, self._decayed = optimizer, lr_scheduler, decayed
        self._hooked: set[Callable[..., Any]] = set()
        self._set_decay(wd)

    def has(self, name: str) -> bool:
        """Whether this optimizer has the hyper-parameter."""
        _errors.check_keys("hyper-parameter", [name], NAMES)
        return self._is_ours(name) or _paddle.hyper_attribute(self._optimizer, name) is not None

    def get(self, name: str, blocks: Blocks = tuple) -> Any:
        """The number in force, or a list with one per block where parameters differ; `blocks()` has their `.name`s."""
        attribute = self._attribute(name)
        value = self._wd if self._is_ours(name) else self.varied.get(attribute, getattr(self._optimizer, attribute))
        if not isinstance(value, dict):
            return value
        return [next((value[key] for key in block if key in value), None) for block in blocks()]

    def set(self, name: str, value: Any, blocks: Blocks = tuple) -> None:
        """Use another number from the next update on, or a list with one per block of `blocks()`."""

        def checked(number: Any) -> float:
            return _errors.check_number(name, number, minimum=0, maximum=_MAXIMUM.get(name, math.inf))

        attribute, one = self._attribute(name), np.ndim(value) == 0
        keys = [] if one else blocks()
        if not one and len(value) != len(keys):
            raise ValueError(f"{name} has {len(value)} values, but there are {len(keys)} blocks")
        each = checked(value) if one else {k: checked(number) for block, number in zip(keys, value) for k in block}
        if self._is_ours(name):
            self._set_decay(each)
        elif isinstance(each, float):
            self.varied.pop(attribute, None)
            setattr(self._optimizer, attribute, each)
        else:
            self.varied[attribute] = each
            self._hook(_paddle.before_each_update, self._put)

    def check(self, names: Iterable[str]) -> None:
        """Refuse hyper-parameters, beside `lr`, that the optimizer lacks: ValueError."""
        for name in names:
            if name != "lr":
                self._attribute(name)  # which refuses it

    def decay(self, params_grads: Sequence[tuple[Any, Any]]) -> None:
        """p ← p·(1 − lr·wd) for those that were just updated, with the lr of the update, multiplier included."""
        for param, grad in params_grads:
            coefficient = self.coefficients.get(param.name)
            if coefficient is not None and grad is not None:
                param.scale_(1.0 - self._lr.last_lr * param.optimize_attr["learning_rate"] * coefficient)

    def _set_decay(self, value: Any) -> None:
        self._wd, reached = value, self._decayed or ()
        each = value if isinstance(value, dict) else dict.fromkeys(reached, value)
        self.coefficients = {name: wd for name, wd in each.items() if wd and name in reached}
        if self.coefficients:
            self._hook(_paddle.after_update, self.decay)

    def _hook(self, listen: Callable[..., None], act: Callable[..., None]) -> None:
        if listen not in self._hooked:
            listen(self._optimizer, act)
            self._hooked.add(listen)

    def _put(self, param: Any) -> None:
        for attribute, by_param in self.varied.items():
            if param.name in by_param:
                setattr(self._optimizer, attribute, by_param[param.name])

    def _is_ours(self, name: str) -> bool:
        return name == "wd" and self._decayed is not None

    def _attribute(self, name: str) -> str:
        """Where the optimizer itself keeps a hyper-parameter; "" for one that is kept here."""
        if not self.has(name):
            have = [known for known in NAMES if self.has(known)]
            raise ValueError(
                f"optimizer {type(self._optimizer).__name__} has no hyper-parameter {name!r}; "
                f"it has {_errors.listing(['lr', *have])}"
            )
        return "" if self._is_ours(name) else _paddle.hyper_attribute(self._optimizer, name) or ""
