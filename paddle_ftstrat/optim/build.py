"""The optimizer of a plan: how it is made, and what changes on it between updates: LR, decay, hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import nn
from paddle.optimizer.lr import LRScheduler
from paddle.regularizer import L2Decay

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import fused, masters, table
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules.schedule import HYPERS, Schedule

# So many LRs are computed at a time.
AHEAD = 1024
CARRIED = "ftstrat"
NAMES = HYPERS[1:]  # beside the LR
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


@dataclass(frozen=True)
class Decay:
    """The decay in force."""

    coefficient: float  # of the decoupled one
    names: frozenset[str]  # the parameters that it reaches
    source: str = "strategy"  # whose wish it is, or "optimizer"
    by_optimizer: bool = False  # whether the optimizer carries it out itself
    coupled: Any = None  # the optimizer's regularizer, which acts on parameters that have none

    def of(self, name: str) -> float:
        """The decoupled decay of one parameter, 0.0 for none."""
        return self.coefficient if name in self.names else 0.0


def build_optimizer(
    plan: Plan, model: nn.Layer, rows: Sequence[Any], lr_scheduler: Any, fused_update: bool | None = None
) -> tuple[Any, Decay, HyperParameters]:
    """The optimizer over a flat list of all weights, the decay that holds, and its hyper-parameters.

    Args:
        plan: the plan.
        model: the model, for the check of its embeddings.
        rows: the resolved parameters.
        lr_scheduler: the scheduler that the optimizer follows.
        fused_update: whether its step is the fused one, where there is one (see `optim.fused`); None: yes.

    Raises:
        ValueError: the optimizer is unknown, has no such option, does not honour multipliers that are asked for,
            is wrong on sparse gradients of the model, two decays or clips are given, or a fused update is
            asked for that there is not.
    """
    row = table.find(plan.optimizer)
    assert row.cls is not None  # `find` refuses what this Paddle lacks
    table.check_options(row, plan.optimizer_options)
    options = table.checked_values(row, plan.optimizer_options)
    _check_multipliers(row, plan, rows)
    _check_sparse(row, model, rows, plan)
    in_force, native = _choose_decay(row, plan, options, rows)
    if row.chooses:
        option, rule = row.chooses
        given = options.get(option)
        chosen = rule(model) if given is None else select.select_all(model, given, option) if given else set()
        options[option] = {r.param.name for r in rows if r.name in chosen}.__contains__
    given_clip = options.pop("grad_clip", None)
    if given_clip is not None and plan.clip is not None:
        raise ValueError(f"two gradient clips: clip {plan.clip.kind} and the optimizer option grad_clip={given_clip}")
    # An optimizer that ignores multipliers (Rprop) takes no scheduler either; that the LR is constant was checked.
    learning_rate = lr_scheduler if row.multiplier else lr_scheduler()
    arguments = {**options, **native, "learning_rate": learning_rate, "parameters": [r.param for r in rows]}
    if plan.clip is not None:
        arguments["grad_clip"] = getattr(nn, f"ClipGradBy{plan.clip.kind}")(plan.clip.value)
    elif given_clip is not None:
        arguments["grad_clip"] = given_clip
    try:
        optimizer = row.cls(**arguments)
    except (AssertionError, RuntimeError, OverflowError) as error:
        raise ValueError(f"optimizer {row.name!r} refuses its options {_errors.shown(options)}: {error}") from error
    names = {r.param.name: r.name for r in rows}
    check = masters.FiniteGradients(names, lr_scheduler)
    # Inside what turns half precision into float32, where all sums have the range.
    _paddle.before_update(optimizer, check)
    _paddle.list_anew(optimizer)
    restore = masters.install(optimizer, arguments["parameters"], lasting=options.get("multi_precision") is not False)
    decayed = None if in_force.by_optimizer else {r.param.name for r in rows if r.decayed}
    hypers = HyperParameters(optimizer, lr_scheduler, decayed, in_force.coefficient)
    hypers.check(plan.schedules)
    _paddle.after_update(optimizer, restore)
    fused.attach(optimizer, names, restore, hypers, check, fused_update)
    return optimizer, in_force, hypers


def _check_multipliers(row: table.OptimizerRow, plan: Plan, rows: Sequence[Any]) -> None:
    if row.multiplier:
        return
    scaled = [r.name for r in rows if r.settings.learning_rate != 1.0]
    if scaled:
        raise ValueError(
            f"optimizer {row.name!r} ignores LR multipliers, but these parameters have one: {scaled[:5]}; "
            "use another optimizer, or no discriminative LR and no ParamAttr(learning_rate=)"
        )
    steps = plan.max_train_steps or 2
    if any(plan.lr(t) != plan.lr(0) for t in {1, steps // 2, steps - 1}):
        raise ValueError(f"optimizer {row.name!r} ignores the LR after its first step: it cannot follow a schedule")


def _check_sparse(row: table.OptimizerRow, model: nn.Layer, rows: Sequence[Any], plan: Plan) -> None:
    """Refuse sparse embeddings where Paddle would abort the process (AdamW, Value clip) or miscalculate (Adam)."""
    trained = {id(r.param) for r in rows if r.own.trainable}
    sparse = [
        name
        for name, layer in model.named_sublayers(include_self=True)
        if _paddle.is_sparse_embedding(layer) and id(layer.weight) in trained
    ]
    if not sparse:
        return
    remedy = f"build {sparse} with sparse=False"
    if any(masters.is_half(r.param) for r in rows):
        raise ValueError(f"Paddle aborts on sparse gradients in half precision, of Embedding(sparse=True): {remedy}")
    if any(settings.frozen_rows(r.param) for r in rows if r.name.rpartition(".")[0] in sparse):
        raise ValueError(f"freeze_rows needs dense gradients: {remedy}")
    if not row.sparse:
        fit = [name for name in table.names() if table.ROWS[name].sparse]
        raise ValueError(
            f"optimizer {row.name!r} is wrong or aborts on the sparse gradients of Embedding(sparse=True) layers "
            f"{sparse}: {remedy}, or use one of {', '.join(fit)}"
        )
    if plan.clip is not None and plan.clip.kind == "Value":
        raise ValueError(
            f"clip Value aborts on the sparse gradients of Embedding(sparse=True) layers {sparse}: {remedy}, "
            "or clip by GlobalNorm or Norm"
        )


def _choose_decay(
    row: table.OptimizerRow, plan: Plan, options: Mapping[str, Any], rows: Sequence[Any]
) -> tuple[Decay, dict[str, Any]]:
    """The decay in force, and the optimizer's arguments for a decay of its own; refuses two decays."""
    names = frozenset(r.name for r in rows if r.decayed)
    if row.decay != "native":
        coupled = options.get("weight_decay") if row.decay == "coupled" else None
        if isinstance(coupled, (int, float)):
            coupled = L2Decay(float(coupled))
        return Decay(plan.weight_decay or 0.0, names, coupled=coupled), {}
    argument, exclusion = row.native
    if plan.weight_decay is not None and argument in options:
        raise ValueError(
            f"two decays for optimizer {row.name!r}: weight_decay={plan.weight_decay} of the strategy and the "
            f"optimizer option {argument}={options[argument]}"
        )
    if plan.weight_decay is not None and not row.replaces_decay:
        return Decay(plan.weight_decay, names), {argument: row.no_decay, exclusion: _exclusion(row, rows)}
    coefficient, source = plan.weight_decay, "strategy"
    if coefficient is None:
        coefficient, source = options.get(argument, row.defaults[argument]), "optimizer"
    # A registered optimizer may say None for none.
    native = {argument: float(coefficient or 0.0), exclusion: _exclusion(row, rows)}
    return Decay(float(coefficient or 0.0), names, source, by_optimizer=True), native


def _exclusion(row: table.OptimizerRow, rows: Sequence[Any]) -> Callable[[Any], bool]:
    """What tells the optimizer which parameters it decays, in the form that this one asks for."""
    decayed = {r.param.name for r in rows if r.decayed}
    return decayed.__contains__ if row.excludes == "include" else lambda param: param.name not in decayed
