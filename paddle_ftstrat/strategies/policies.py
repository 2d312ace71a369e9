"""fastai's training policies as strategies: one-cycle, flat and cosine, warm restarts, fine-tuning in two phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.optim import table
from paddle_ftstrat.plan import Discriminative, Phase, Spread, spread
from paddle_ftstrat.schedules.annealing import combined_cos
from paddle_ftstrat.schedules.curves import constant, flat_cos, one_cycle, sgdr
from paddle_ftstrat.schedules.schedule import Schedule, join
from paddle_ftstrat.strategies import keys
from paddle_ftstrat.strategies.combined import CombinedStrategy

MOMS = (0.95, 0.85, 0.95)
_BY_DEPTH = (*keys.DEPTH, "gradual_unfreeze")


class Policy(CombinedStrategy):
    """A schedule over the whole training at an LR in fastai's forms; what else a strategy has can be added.

    Args:
        lr: a number, `slice(lo, hi)` or `slice(hi)` spread over the layers (in a file `{slice: [lo, hi]}`), or a list
            with one per layer.
        optimizer_name, **kwargs: as for DefaultStrategy.
    """

    _curve: Callable[..., Schedule] = staticmethod(constant)
    _shown: Sequence[str] = ("div", "div_final", "pct_start", "moms")
    moms: Sequence[float] | None = None

    def __init__(
        self, name: str, lr: Any, optimizer_name: str | type, options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if isinstance(lr, Mapping):
            # As a file says it.
            _errors.check_keys(f"key of {name}", lr, ["slice"])
            lr = slice(*lr["slice"])
        groups = 1 if isinstance(lr, slice) or np.ndim(lr) == 0 else len(lr)
        self._lr, top = lr, spread(lr, groups)[-1]
        # The top layers' LR; 0 trains nothing, which a Learner allows.
        super().__init__(optimizer_name, top or 1.0, **kwargs)
        self.learning_rate = _errors.check_number(name, top, minimum=0)
        self._options = dict(options or {})
        self._curve(1.0, 1, **self._options)  # judges them

    def add_scheduler(self, name: str = "discriminative", value: Any = None, **values: Any) -> CombinedStrategy:
        """Set `gradual_unfreeze`, or what gives the LR by depth; the schedule is the policy's own.

        Raises:
            ValueError, TypeError: another key, or as for CombinedStrategy.
        """
        _errors.check_keys(f"scheduler of {type(self).__name__}", [name], _BY_DEPTH)
        return super().add_scheduler(name, value, **values)

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        steps = keys.known_length(type(self).__name__, max_train_steps)
        return {"lr": self._curve(self.learning_rate, steps, **self._options)}

    def _momentum(self, schedule: Schedule) -> dict[str, Schedule]:
        """The momentum's schedule, where one is wanted and the optimizer has momentum."""
        if self.moms is None:
            return {}
        options = {**table.find(self.optimizer_name).defaults, **self.optimizer_options}
        has_momentum = any(options.get(key) is not None for key in ("momentum", "beta1"))
        # The default goes where it can; what was asked for is refused by an optimizer that has no momentum.
        return {"mom": schedule} if has_momentum or self.moms != MOMS else {}

    def _depth(self) -> Discriminative | Spread | None:
        return super()._depth() or Spread(self._lr)

    def _more(self) -> list[str]:
        given = {key: value for key, value in (self._given or {}).items() if key in self._shown}
        spread_over = [] if isinstance(self._lr, (int, float)) else [f"spread over the layers as {self._lr}"]
        return [*spread_over, *(f"{key} {value}" for key, value in given.items()), *super()._more()]


class OneCycleStrategy(Policy):
    """The 1cycle policy: cosine from lr_max/div up to lr_max, then down to lr_max/div_final; momentum the other way.

    Args:
        lr_max: the highest LR: a number, `slice(lo, hi)` spread over the layers, or one per layer.
        div: lr_max / first LR.
        div_final: lr_max / last LR.
        pct_start: in [0, 1], the share of the training that rises.
        moms: momentum (Adam's β₁) at the start, at the peak of the LR and at the end; None leaves it alone. The default
            is left out where the optimizer has no momentum.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: a negative LR, div or div_final not above 0, pct_start outside [0, 1], not three moms, or
            no numbers.

    Example:
        >>> plan = OneCycleStrategy(0.01).plan(max_train_steps=8)
        >>> [round(plan.schedules["lr"](t), 6) for t in (0, 1, 2, 8)]
        [0.0004, 0.0052, 0.01, 0.0]
        >>> [round(plan.schedules["mom"](t), 6) for t in (0, 2, 8)]
        [0.95, 0.85, 0.95]

    Source: Smith & Topin, "Super-convergence" (arXiv:1708.07120); fastai `fit_one_cycle`.
    """

    _curve = staticmethod(one_cycle)

    def __init__(
        self,
        lr_max: Any,
        div: float = 25.0,
        div_final: float = 1e5,
        pct_start: float = 0.25,
        moms: Sequence[float] | None = MOMS,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        options = {"div": div, "div_final": div_final, "pct_start": pct_start}
        super().__init__("lr_max", lr_max, optimizer_name, options, **kwargs)
        self.moms = _checked(moms)

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        steps = keys.known_length(type(self).__name__, max_train_steps)
        moms = combined_cos(self._options["pct_start"], *self.moms or MOMS).over(steps)
        return {**super()._schedules(steps, steps_per_epoch), **self._momentum(moms)}


class FlatCosStrategy(Policy):
    """A constant LR, then a cosine down to learning_rate/div_final.

    Args:
        learning_rate: the flat LR: a number, `slice(lo, hi)` spread over the layers, or one per layer.
        div_final: learning_rate / last LR.
        pct_start: in [0, 1], the share of the training that is flat.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: a negative LR, div_final not above 0, pct_start outside [0, 1], or no numbers.

    Example:
        >>> plan = FlatCosStrategy(0.01).plan(max_train_steps=8)
        >>> [round(plan.schedules["lr"](t), 6) for t in (0, 6, 7, 8)]
        [0.01, 0.01, 0.005, 0.0]

    Source: fastai `fit_flat_cos`.
    """

    _curve = staticmethod(flat_cos)

    def __init__(
        self,
        learning_rate: Any,
        div_final: float = 1e5,
        pct_start: float = 0.75,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            "lr", learning_rate, optimizer_name, {"div_final": div_final, "pct_start": pct_start}, **kwargs
        )


class SGDRStrategy(Policy):
    """Warm restarts: `n_cycles` cosines from lr_max to 0, each `cycle_mult` times as long as the one before.

    Args:
        lr_max: the LR at each restart: a number, `slice(lo, hi)` spread over the layers, or one per layer.
        n_cycles: how many cycles.
        cycle_len: epochs of the first one.
        cycle_mult: how many times longer each next one is; 1 for equal cycles.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: a negative LR, cycles or epochs that are no whole numbers ≥ 1; at bind a training of
            another length than `num_epoch` epochs.

    Example:
        >>> strategy = SGDRStrategy(0.1, n_cycles=2, cycle_len=1, cycle_mult=3)
        >>> strategy.num_epoch
        4
        >>> [round(strategy.plan(16).schedules["lr"](t), 6) for t in (0, 2, 4, 10, 16)]
        [0.1, 0.05, 0.1, 0.05, 0.0]

    Source: Loshchilov & Hutter, SGDR (arXiv:1608.03983); fastai `fit_sgdr`, which divides by 0 at cycle_mult=1 and,
    where a joint is not a float32, gives the update on it the LR 0 of the cycle before.
    """

    _curve = staticmethod(sgdr)
    _shown = ("n_cycles", "cycle_len", "cycle_mult")

    def __init__(
        self,
        lr_max: Any,
        n_cycles: int,
        cycle_len: int,
        cycle_mult: int = 2,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        options = {"n_cycles": n_cycles, "cycle_mult": cycle_mult}
        super().__init__("lr_max", lr_max, optimizer_name, options, **kwargs)
        cycle_len = _errors.check_whole("cycle_len", cycle_len, minimum=1)
        self.num_epoch = sum(cycle_len * cycle_mult**index for index in range(n_cycles))

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        schedules = super()._schedules(max_train_steps, steps_per_epoch)
        if steps_per_epoch is not None and max_train_steps != self.num_epoch * steps_per_epoch:
            raise ValueError(
                f"SGDRStrategy's cycles last {self.num_epoch} epochs, {self.num_epoch * steps_per_epoch} updates, but "
                f"the training has {max_train_steps}"
            )
        return schedules


class FineTuneStrategy(Policy):
    """One cycle with only the top layer training, then one with everything and LRs spread over the layers.

    Args:
        base_lr: the top layer's highest LR in the first phase; in the second, half of it.
        freeze_epochs: epochs of the first phase, whose LR rises during 99 % of it, from 1/25 of its peak; 0 leaves it
            out. The second phase has the rest of the training.
        lr_mult: top LR / bottom LR in the second phase.
        pct_start: the rising share of the second phase.
        div: peak / first LR of the second phase.
        div_final: peak / last LR of both phases.
        moms: as for `OneCycleStrategy`.
        optimizer_name, **kwargs: as for DefaultStrategy.

    Raises:
        ValueError, TypeError: negative epochs, base_lr or lr_mult not above 0, or what `OneCycleStrategy` refuses; at
            bind a training that is not longer than the first phase.

    Example:
        >>> plan = FineTuneStrategy(2e-3).plan(max_train_steps=20, steps_per_epoch=10)
        >>> [(phase.name, phase.train) for phase in plan.phases], plan.starts
        ([('frozen', 1), ('whole', 'all')], (0, 10))

    Source: fastai `fine_tune`.
    """

    _curve = staticmethod(one_cycle)
    _shown = ("freeze_epochs", "lr_mult", *Policy._shown)

    def __init__(
        self,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100.0,
        pct_start: float = 0.3,
        div: float = 5.0,
        div_final: float = 1e5,
        moms: Sequence[float] | None = MOMS,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        base_lr = _errors.check_number("base_lr", base_lr, above=0)
        lr_mult = _errors.check_number("lr_mult", lr_mult, above=0)
        options = {"div": div, "div_final": div_final, "pct_start": pct_start}
        super().__init__("base_lr", slice(base_lr / lr_mult, base_lr), optimizer_name, options, **kwargs)
        self._freeze = _errors.check_whole("freeze_epochs", freeze_epochs)
        self.moms = _checked(moms)

    def _phases(self) -> tuple[Phase, ...]:
        whole = Phase("all", name="whole")
        return (Phase(1, epochs=self._freeze, name="frozen"), whole) if self._freeze else (whole,)

    def _schedules(self, max_train_steps: int | None, steps_per_epoch: int | None) -> dict[str, Schedule]:
        steps, frozen = keys.known_length("FineTuneStrategy", max_train_steps), 0
        if self._freeze:
            if steps_per_epoch is None:
                raise ValueError("FineTuneStrategy needs the length of an epoch: give bind() steps_per_epoch")
            frozen = self._freeze * steps_per_epoch
        if frozen > steps:
            raise ValueError(f"freeze_epochs={self._freeze} take {frozen} updates, but the training has {steps}")
        first, second = {**self._options, "div": 25.0, "pct_start": 0.99}, self._options
        parts = [(frozen, self.learning_rate, first), (steps - frozen, self.learning_rate / 2, second)]
        lr = join([(n, self._curve(peak, n, **options)) for n, peak, options in parts if n])
        moms = [(n, combined_cos(options["pct_start"], *self.moms or MOMS)) for n, _, options in parts if n]
        return {"lr": lr, **self._momentum(join(moms))}


def _checked(moms: Any) -> Sequence[float] | None:
    if moms is None:
        return None
    if np.ndim(moms) == 0 or len(moms) != 3:
        raise ValueError(f"moms = {moms!r} must be three values: at the start, at the peak of the LR, at the end")
    return tuple(_errors.check_number(f"moms[{i}]", mom, minimum=0, maximum=1) for i, mom in enumerate(moms))
