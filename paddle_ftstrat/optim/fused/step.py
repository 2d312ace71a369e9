"""`optimizer.step` as one fused pass where it can be that, and as Paddle's own step where it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Mapping
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import paddle
from paddle.nn import ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import pointers, threads, updates
from paddle_ftstrat.optim.decay import Decoupled
from paddle_ftstrat.optim.finite import FiniteGradients
from paddle_ftstrat.optim.fused import blocked, layout, pool
from paddle_ftstrat.optim.fused.members import Members
from paddle_ftstrat.optim.fused.rule import Unfit, check_clip, check_numbers, rule_of
from paddle_ftstrat.optim.hyper import HyperParameters


def attach(
    optimizer: Any,
    names: Mapping[str, str],
    decoupled: Decoupled | None,
    hypers: HyperParameters,
    check: FiniteGradients,
    fused: bool | None,
) -> None:
    """Put a fused `step` on an optimizer that has one.

    Args:
        optimizer: a Paddle optimizer over a flat list of parameters; its class and state stay as they are.
        names: parameter `.name` → structured name, for messages.
        decoupled: the decoupled decay, which becomes part of the pass.
        hypers: the hyper-parameters that may differ between parameters.
        check: what refuses gradients that are not finite.
        fused: None or True for the fused pass, False for none.

    Raises:
        ValueError: `fused=True`, but the optimizer cannot have one.
        TypeError: `fused` is none of the three.
    """
    if fused not in (None, True, False) or (isinstance(fused, (int, float)) and not isinstance(fused, bool)):
        raise TypeError(f"fused must be None, True or False, not {_errors.shown(fused)}")
    if fused is False:
        return
    try:
        rule_of(optimizer)
        check_clip(updates.gradient_clip(optimizer))
    except Unfit as unfit:
        if fused:
            raise ValueError(f"fused=True, but there is no fused update: {unfit}") from None
        return
    optimizer.step = FusedStep(optimizer, names, decoupled, hypers, check)


def describe(optimizer: Any) -> str:
    """Which path the updates of an optimizer take, and why.

    Example:
        >>> describe(paddle.optimizer.Lamb(0.1, parameters=paddle.nn.Linear(1, 1).parameters()))
        "updates by Paddle's own operations: the optimizer is Lamb, and only SGD, Momentum, Adam, AdamW are fused"
    """
    step = vars(optimizer).get("step")
    if isinstance(step, FusedStep):
        return step.path()
    try:
        rule_of(optimizer)
        check_clip(updates.gradient_clip(optimizer))
    except Unfit as unfit:
        return f"updates by Paddle's own operations: {unfit}"
    return "updates by Paddle's own operations: fused=False"


def maker(optimizer: Any) -> str:
    """What makes the updates of an optimizer wherever they fit, on which their rounding depends.

    Example:
        >>> maker(paddle.optimizer.Lamb(0.1, parameters=paddle.nn.Linear(1, 1).parameters()))
        'Paddle'
    """
    step = vars(optimizer).get("step")
    return step.maker() if isinstance(step, FusedStep) else "Paddle"


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
        decoupled: Decoupled | None,
        hypers: HyperParameters,
        check: FiniteGradients,
    ) -> None:
        self._optimizer = optimizer
        self._own = type(optimizer).step
        self._names = names
        self._decoupled = decoupled
        self._hypers = hypers
        self._check = check
        self._members: Members | None = None
        self._kernels: Any = None
        self._listeners: list[Any] | None = None
        self._unfit: str | None = None

    def use(self, kernels: Any) -> None:
        """Make the updates with these passes (`compiled` or `blocked`)."""
        self._kernels = kernels

    def path(self) -> str:
        """Which path the last update took, or the coming one will as far as can be known."""
        if self._unfit:
            return f"last update by Paddle's own operations: {self._unfit}"
        how = "numpy; faster with numba" if self.maker() == "numpy" else "numba"
        return f"fused updates ({how}, up to {threads.for_updates()} threads)"

    def maker(self) -> str:
        """What makes the passes, or will as far as can be known: numpy, or numba in a certain version."""
        if self._kernels is None:
            compiled = importlib.util.find_spec("numba") is not None and _paddle.compression_works()
        else:
            compiled = self._kernels is not blocked
        return f"numba {importlib.metadata.version('numba')}" if compiled else "numpy"

    def __call__(self) -> None:
        """One update.

        Raises:
            FloatingPointError: a gradient is not finite; nothing was changed.
        """
        if updates.mixed_precision_skips(self._optimizer):
            self._own(self._optimizer)
            return
        try:
            members = self._prepare()
        except Unfit as unfit:
            self._unfit = str(unfit)
            self._members = None
            self._own(self._optimizer)
            return
        self._unfit = None
        if members is None:
            return
        self._run(members)
        grads, members.grads = members.grads, []
        for listener in self._listeners or ():
            if listener is not self._decoupled:
                listener(list(zip(members.params, grads)))

    def _prepare(self) -> Members | None:
        optimizer = self._optimizer
        if not paddle.in_dynamic_mode():
            raise Unfit("the step is part of a static graph")
        self._listeners = updates.listeners(optimizer)
        if self._listeners is None:
            raise Unfit("a stage of the optimizer was replaced")
        rule = rule_of(optimizer)
        check_clip(updates.gradient_clip(optimizer))
        seen = pointers.glance(updates.parameters(optimizer))
        if not seen.params:
            return None
        members = self._members
        if members is None or not members.fit(seen):
            names = [self._names.get(param.name, param.name) for param in seen.params]
            members = self._members = Members(optimizer, rule, seen, names)
        if self._kernels is None:
            self._kernels = _kernels(rule.name)
        if members.sizes.mean() < self._kernels.SMALLEST:
            raise Unfit("numba is not installed, and the parameters are small")
        members.read(seen)
        self._fill(members)
        return members

    def _fill(self, members: Members) -> None:
        """The numbers that are the same for all parameters, or follow from others."""
        numbers, keys = members.numbers, members.keys
        common = updates.numbers(self._optimizer)
        check_numbers(common)
        varied = self._hypers.varied
        for column, attribute, value in zip(
            (layout.A, layout.B, layout.EPS), updates.number_attributes(self._optimizer), common
        ):
            by_key = varied.get(attribute)
            numbers[:, column] = value if by_key is None else [by_key.get(key, value) for key in keys]
        lr = updates.learning_rate(self._optimizer)
        numbers[:, layout.LR] = lr * members.rates.astype(np.float32)
        numbers[:, layout.BEFORE], numbers[:, layout.AFTER] = 0.0, 1.0
        decay, reaches = updates.own_decay(self._optimizer)
        decay = varied.get("_weight_decay", decay)
        if decay:
            each = [decay.get(key, 0.0) if isinstance(decay, Mapping) else decay for key in keys]
            if reaches is not None:
                each = [wd if reaches(key) else 0.0 for key, wd in zip(keys, each)]
            numbers[:, layout.BEFORE] = -numbers[:, layout.LR] * np.array(each, np.float32)
        if self._decoupled is not None and self._decoupled.coefficients:
            each = np.array([*map(self._decoupled.coefficients.get, keys, repeat(0.0))])
            numbers[:, layout.AFTER] = 1.0 - self._optimizer.get_lr() * members.rates * each

    def _run(self, members: Members) -> None:
        kernels = self._kernels
        chunks = members.chunks
        table = chunks.index, chunks.start, chunks.length
        self._clip(members, self._squares(members, table))
        if members.powers:
            self._correct(members)
        count = pool.threads_for(int(chunks.ends[-1]), threads.for_updates())
        kernels.update(rule_of(self._optimizer).name, members, count)
        pointers.mark_changed(members.params)

    def _correct(self, members: Members) -> None:
        """Adam's bias corrections go into LR and ε, in float32 as Paddle's kernel does it; the powers move on."""
        numbers = members.numbers
        first, second = np.empty((2, len(members.params)), np.float32)
        self._kernels.powers(members.powers[0], numbers[:, layout.A].copy(), first)
        self._kernels.powers(members.powers[1], numbers[:, layout.B].copy(), second)
        root = np.sqrt(1 - second)
        numbers[:, layout.LR] *= root / (1 - first)
        numbers[:, layout.EPS] *= root

    def _clip(self, members: Members, squares: np.ndarray) -> None:
        clip, numbers = updates.gradient_clip(self._optimizer), members.numbers
        numbers[:, layout.SCALE] = 1.0
        numbers[:, [layout.LOW, layout.HIGH]] = 0.0
        if isinstance(clip, ClipGradByValue):
            numbers[members.clipped, layout.LOW] = clip.min
            numbers[members.clipped, layout.HIGH] = clip.max
        elif isinstance(clip, (ClipGradByGlobalNorm, ClipGradByNorm)) and members.clipped.any():
            squares = np.where(members.clipped, squares, 0.0)
            if isinstance(clip, ClipGradByGlobalNorm):
                squares = np.where(members.clipped, squares.sum(), 0.0)
            norms = np.sqrt(squares)
            numbers[:, layout.SCALE] = clip.clip_norm / np.maximum(norms, clip.clip_norm)

    def _squares(self, members: Members, table: Any) -> np.ndarray:
        """Σ g² of each parameter, float64.

        Raises:
            FloatingPointError: one is not finite; float32 values have no squares that overflow there.
        """
        chunks = members.chunks
        out = np.empty(len(chunks))
        count = pool.threads_for(int(chunks.ends[-1]) // 4, threads.for_updates())
        work = partial(_square, self._kernels.squares, members.at, table, out)
        pool.run(work, members.shares(count))
        squares = np.add.reduceat(out, chunks.first)
        if not math.isfinite(squares.sum()):
            self._check.refuse([name for name, square in zip(members.names, squares) if not math.isfinite(square)])
        return squares


def _square(squares: Any, at: Any, table: Any, out: Any, first: int, last: int) -> None:
    squares(at, table, first, last, out)


def without_numba(optimizer: Any) -> None:
    """Have a fused update made by numpy, as where numba is not installed; for tests and benchmarks."""
    vars(optimizer)["step"].use(blocked)


def _kernels(rule: str) -> Any:
    """The passes in machine code, made ready; those in numpy where numba is not installed or fails."""
    if not _paddle.compression_works():
        warnings.warn(
            "the fused update goes without numba, which unpacks what it keeps on disk: Paddle 2.6, imported before "
            "paddle_ftstrat, has broken this process's zlib; import paddle_ftstrat first",
            stacklevel=4,
        )
        return blocked
    try:
        from paddle_ftstrat.optim.fused import compiled

        compiled.make_ready(rule)
    except ImportError:
        compiled = blocked
    except Exception as error:
        # What numba raises where it does not get along with a processor or another package has no common class.
        warnings.warn(f"numba fails ({error!r}): the fused update goes without it", stacklevel=4)
        compiled = blocked
    return compiled
