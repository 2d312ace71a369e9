"""`optimizer.step` as one fused pass where it can be that, and as Paddle's own step where it cannot."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle.nn import ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import pointers, threads
from paddle_ftstrat.acceleration.stands import BROKEN_ZLIB, NO_NUMBA
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.fused.members import (
    AFTER,
    AVERAGE,
    BEFORE,
    EPS,
    HIGH,
    LOW,
    LR,
    SCALE,
    A,
    B,
    FusedParams,
    NotFusable,
)
from paddle_ftstrat.optim.masters import FiniteGradients
from paddle_ftstrat.param_attr import settings

RULES = {row.cls: row.fused for row in table.ROWS.values() if row.cls is not None and row.fused is not None}
_CLIPS = (type(None), ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue)


def rule_of(optimizer: Any) -> table.FusedRule:
    """The rule of an optimizer; a subclass may have changed it, so only the classes themselves have one.

    Raises:
        NotFusable: the optimizer is of another class, or has a setting or clip that the fused update does not know.
    """
    rule, clip = RULES.get(type(optimizer)), _paddle.gradient_clip(optimizer)
    if rule is None:
        name, fused = type(optimizer).__name__, ", ".join(cls.__name__ for cls in RULES)
        raise NotFusable(f"the optimizer is {name}, and only {fused} are fused")
    if type(clip) not in _CLIPS:
        raise NotFusable(f"the gradient clip is {type(clip).__name__}")
    if special := _paddle.special_setting(optimizer):
        raise NotFusable(special)
    return rule


def attach(
    optimizer: Any,
    names: Mapping[str, str],
    restore: Any,
    hypers: Any,
    check: FiniteGradients,
    fused: bool | None,
) -> None:
    """Put a fused `step` on an optimizer that has one.

    Args:
        optimizer: a Paddle optimizer over a flat list of parameters; its class and state stay as they are.
        names: parameter `.name` → structured name, for messages.
        restore: what puts frozen rows back; the pass does that itself.
        hypers: the optimizer's `HyperParameters`; the decay among them is part of the pass, too.
        check: what refuses gradients that are not finite.
        fused: None or True for the fused pass, False for none; ValueError where True and there is none.
    """
    if fused is not None and not isinstance(fused, bool):
        raise TypeError(f"fused must be None, True or False, not {_errors.shown(fused)}")
    if fused is False:
        return
    reason = _why_not(optimizer)
    if not reason:
        optimizer.step = FusedStep(optimizer, names, restore, hypers, check)
    elif fused:
        raise ValueError(f"fused=True, but there is no fused update: {reason}")


def describe(optimizer: Any) -> str:
    """Which path the updates of an optimizer take, and why."""
    step = vars(optimizer).get("step")
    if isinstance(step, FusedStep):
        return step.path()
    return f"updates by Paddle's own operations: {_why_not(optimizer) or 'fused=False'}"


def _why_not(optimizer: Any) -> str:
    """Why an optimizer cannot have the fused update; "" where it can."""
    try:
        rule_of(optimizer)
    except NotFusable as reason:
        return str(reason)
    return "" if importlib.util.find_spec("numba") else NO_NUMBA


def maker(optimizer: Any) -> str:
    """What makes the updates of an optimizer wherever they fit, on which their rounding depends."""
    fused = isinstance(vars(optimizer).get("step"), FusedStep) and _paddle.compression_works()
    return f"numba {_paddle.numba_version()}" if fused else "Paddle"


class FusedStep:
    """Stands in for an optimizer's `step`: the same update, and Paddle's own where it does not fit.

    clip → regulariser → rule with lr·multiplier → decay, each value read and written once (and each gradient once
    before, for the norm and because one that is not finite must not get that far). Everything is asked anew at each
    update: addresses, settings, hyper-parameters.
    """

    def __init__(
        self,
        optimizer: Any,
        names: Mapping[str, str],
        restore: Any,
        hypers: Any,
        check: FiniteGradients,
    ) -> None:
        self._optimizer = optimizer
        self._names = names
        self._hypers, self._taken = hypers, (hypers.decay, restore)
        self._check = check
        self.average: Any = None  # what keeps an average of the weights (see `optim.averaging`), which sets it
        self._averaged: list[str] = []
        self._params: FusedParams | None = None
        self._listeners: list[Any] = []
        self._reason = ""

    def path(self) -> str:
        """Which path the last update took, or the coming one will as far as can be known."""
        if self._reason:
            return f"last update by Paddle's own operations: {self._reason}"
        return f"fused updates (numba, up to {threads.for_updates()} threads)"

    def __call__(self) -> None:
        """One update.

        Raises:
            FloatingPointError: a gradient is not finite; nothing was changed.
        """
        optimizer = self._optimizer
        if _paddle.mixed_precision_skips(optimizer):
            type(optimizer).step(optimizer)
            return
        try:
            params = self._prepare()
            self._reason = ""
        except NotFusable as unfit:
            self._reason, self._params = str(unfit), None
            type(optimizer).step(optimizer)
            return
        if params is None:
            return
        self._run(params)
        if self.average is not None:
            self.average.moved = self._averaged
        grads, params.grads = params.grads, []
        for listener in self._listeners:
            if listener not in self._taken:
                listener(list(zip(params.params, grads)))

    def _prepare(self) -> FusedParams | None:
        optimizer = self._optimizer
        if not paddle.in_dynamic_mode():
            raise NotFusable("the step is part of a static graph")
        listeners = _paddle.update_listeners(optimizer)
        if listeners is None:
            raise NotFusable("a stage of the optimizer was replaced")
        self._listeners = listeners
        self._rule = rule = rule_of(optimizer)
        seen = pointers.glance(_paddle.parameter_list(optimizer), settings.ROWS)
        if not seen.params:
            return None
        self._kernels = _kernels(rule.name)
        if isinstance(self._kernels, str):
            raise NotFusable(self._kernels)
        params = self._params
        if params is None or not params.are(seen):
            names = [self._names.get(param.name, param.name) for param in seen.params]
            params = self._params = FusedParams(optimizer, rule.moments, (*rule.powers, *rule.shares), seen, names)
        params.read(seen)
        self._fill(params)
        self._take_average(params)
        return params

    def _take_average(self, params: FusedParams) -> None:
        """Make the average part of the pass, where nothing outside it changes the weights before it is kept."""
        params.addresses[:, AVERAGE], self._averaged = 0, []
        if self.average is None:
            return
        ahead = self._listeners[: self._listeners.index(self.average.update)]
        keep = self.average.keeps()
        if 0 < keep < 1 and all(listener in self._taken for listener in ahead):
            self._averaged = params.average([*map(self.average.values.get, params.names)], keep)

    def _fill(self, params: FusedParams) -> None:
        """The numbers that are the same for all parameters, or follow from others."""
        optimizer, numbers, keys = self._optimizer, params.numbers, params.keys
        varied = self._hypers.varied
        for column, (attribute, value) in zip((A, B, EPS), _paddle.rule_numbers(optimizer)):
            if not isinstance(value, (int, float)):
                raise NotFusable("a hyper-parameter of the optimizer is a tensor")
            by_key = varied.get(attribute)
            numbers[:, column] = value if by_key is None else [by_key.get(key, value) for key in keys]
        numbers[:, LR] = np.float32(optimizer.get_lr()) * params.rates.astype(np.float32)
        numbers[:, BEFORE], numbers[:, AFTER] = 0.0, 1.0
        decay, reaches = _paddle.own_decay(optimizer)
        if decay or "_weight_decay" in varied:
            by_key = varied.get("_weight_decay")
            each = [decay] * len(keys) if by_key is None else [by_key.get(key, 0.0) for key in keys]
            if reaches is not None:
                each = [wd if reaches(key) else 0.0 for key, wd in zip(keys, each)]
            numbers[:, BEFORE] = -numbers[:, LR] * np.array(each, np.float32)
        if self._hypers.coefficients:
            coefficients = np.array([*map(self._hypers.coefficients.get, keys, repeat(0.0))])
            numbers[:, AFTER] = 1.0 - optimizer.get_lr() * params.rates * coefficients

    def _run(self, params: FusedParams) -> None:
        kernels, chunks = self._kernels, params.chunks
        self._clip(params, self._squares(params))
        if self._rule.powers:
            self._correct(params)
        if self._rule.shares:
            self._average(params)
        shares = chunks.shares(kernels.threads_for(int(chunks.ends[-1]), threads.for_updates()))
        kernels.run(kernels.UPDATES[self._rule.name], params.addresses, chunks.table, shares, params.numbers)
        pointers.mark_changed(params.params)

    def _correct(self, params: FusedParams) -> None:
        """Adam's bias corrections go into LR and ε, in float32 as Paddle's kernel does it; the powers move on."""
        numbers = params.numbers
        first, second = np.empty((2, len(params.keys)), np.float32)
        self._kernels.powers(params.powers[0], numbers[:, A].copy(), first)
        self._kernels.powers(params.powers[1], numbers[:, B].copy(), second)
        root = np.sqrt(1 - second)
        numbers[:, LR] *= root / (1 - first)
        numbers[:, EPS] *= root

    def _average(self, params: FusedParams) -> None:
        """The share of z, that of the step, and the second moment's bias correction go into A, AFTER, LR and ε."""
        numbers, out = params.numbers, np.empty((2, len(params.keys)), np.float32)
        interpolation, r, power = self._optimizer.averaging
        self._kernels.shares(np.stack(params.powers), numbers[:, LR].copy(), r, power, out)
        numbers[:, A], numbers[:, AFTER] = out[0], 1.0 - interpolation * (1.0 - out[0])
        with np.errstate(divide="ignore"):  # no second moment is one with β₂ = 0
            root = np.sqrt(-np.expm1(out[1] * np.log(numbers[:, B].astype(np.float64))))
        numbers[:, LR] *= root
        numbers[:, EPS] *= root

    def _clip(self, params: FusedParams, squares: npt.NDArray[np.float64]) -> None:
        clip, numbers, clipped = _paddle.gradient_clip(self._optimizer), params.numbers, params.clipped
        numbers[:, SCALE] = 1.0
        numbers[:, [LOW, HIGH]] = 0.0
        if isinstance(clip, ClipGradByValue):
            numbers[clipped, LOW] = clip.min
            numbers[clipped, HIGH] = clip.max
        elif isinstance(clip, (ClipGradByGlobalNorm, ClipGradByNorm)) and clipped.any():
            squares = np.where(clipped, squares, 0.0)
            if isinstance(clip, ClipGradByGlobalNorm):
                squares = np.where(clipped, squares.sum(), 0.0)
            norms = np.sqrt(squares)
            numbers[:, SCALE] = clip.clip_norm / np.maximum(norms, clip.clip_norm)

    def _squares(self, params: FusedParams) -> npt.NDArray[np.float64]:
        """Σ g² of each parameter, float64.

        Raises:
            FloatingPointError: one is not finite; float32 values have no squares that overflow there.
        """
        kernels, chunks = self._kernels, params.chunks
        out = np.empty(len(chunks.ends))
        shares = chunks.shares(kernels.threads_for(int(chunks.ends[-1]) // 4, threads.for_updates()))
        kernels.run(kernels.squares, params.addresses, chunks.table, shares, out)
        squares = np.add.reduceat(out, chunks.first)
        if not math.isfinite(squares.sum()):
            self._check.refuse([name for name, square in zip(params.names, squares) if not math.isfinite(square)])
        return squares


@functools.cache
def _kernels(rule: str) -> Any:
    """The module of the passes, those of a rule made ready; or why there is none, in words."""
    if not _paddle.compression_works():
        _errors.warn(
            f"no fused update: {BROKEN_ZLIB} by Paddle 2.6, imported before paddle_ftstrat; import paddle_ftstrat first"
        )
        return BROKEN_ZLIB
    try:
        from paddle_ftstrat.optim.fused import kernels

        kernels.make_ready(rule)
    except ImportError:
        return NO_NUMBA
    except Exception as error:
        # What numba raises where it does not get along with a processor or another package has no common class.
        _errors.warn(f"no fused update: numba fails ({error!r})")
        return f"numba fails ({error!r})"
    return kernels
