"""Weight decay: whose it is, which parameters it reaches, and the decoupled kind for optimizers that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddle.regularizer import L2Decay

from paddle_ftstrat import _paddle
from paddle_ftstrat.optim import table
from paddle_ftstrat.plan import Plan


@dataclass(frozen=True)
class Decay:
    """The decay in force.

    `coefficient` is the decoupled one, `names` the parameters it reaches, `source` whose wish it is ("strategy" or
    "optimizer"), `by_optimizer` whether the optimizer carries it out itself. `coupled` is the optimizer's regularizer,
    which acts on parameters that have none.
    """

    coefficient: float
    names: frozenset[str]
    source: str = "strategy"
    by_optimizer: bool = False
    coupled: Any = None

    def of(self, name: str) -> float:
        """The decoupled decay of one parameter, 0.0 for none."""
        return self.coefficient if name in self.names else 0.0


def choose(
    row: table.OptimizerRow, plan: Plan, options: Mapping[str, Any], rows: Sequence[Any]
) -> tuple[Decay, dict[str, Any]]:
    """The decay in force, and the optimizer's arguments for a decay of its own.

    Raises:
        ValueError: the strategy and the optimizer's options both give one.
    """
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
