"""The optimizers that a strategy can name: one row each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import paddle
from paddle.optimizer import Optimizer

from paddle_ftstrat import _errors

# What binding itself hands to the optimizer, so that it cannot come through optimizer options.
_BOUND = ("self", "learning_rate", "parameters", "name", "apply_decay_param_fun", "exclude_from_weight_decay_fn")


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer.

    `decay` says whose `weight_decay` it takes: "coupled" (added to the gradient), "native" (its own decoupled decay,
    through the arguments in `native`), or "none". `native` holds the names of the coefficient's argument and of the
    one that excludes parameters; `excludes` tells whether the latter names the excluded ("exclude", called with the
    parameter) or the included ("include", called with its name). `replaces_decay`: its native decay is what a
    strategy's weight_decay means. `multiplier`: honours LR multipliers and schedules. `sparse`: right on sparse
    gradients. `refused`: why a strategy cannot use it at all.
    """

    name: str
    cls: type[Optimizer] | None
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    decay: str = "coupled"
    native: tuple[str, str] = ("", "")
    excludes: str = ""
    replaces_decay: bool = False
    multiplier: bool = True
    sparse: bool = False
    refused: str = ""


def _paddle(name: str) -> type[Optimizer] | None:
    return getattr(paddle.optimizer, name, None)


_LATER = "comes with a later release of paddle_ftstrat (Paddle 2 and 3 have no such optimizer)"

ROWS: dict[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow("sgd", _paddle("SGD"), sparse=True),
        OptimizerRow("momentum", _paddle("Momentum"), sparse=True),
        OptimizerRow("adagrad", _paddle("Adagrad"), sparse=True),
        OptimizerRow("adadelta", _paddle("Adadelta")),
        OptimizerRow("adam", _paddle("Adam")),
        OptimizerRow(
            "adamw",
            _paddle("AdamW"),
            decay="native",
            native=("weight_decay", "apply_decay_param_fun"),
            excludes="include",
            replaces_decay=True,
        ),
        OptimizerRow("adamax", _paddle("Adamax")),
        OptimizerRow("rmsprop", _paddle("RMSProp"), sparse=True),
        OptimizerRow(
            "lamb",
            _paddle("Lamb"),
            decay="native",
            native=("lamb_weight_decay", "exclude_from_weight_decay_fn"),
            excludes="exclude",
            sparse=True,
        ),
        OptimizerRow("nadam", _paddle("NAdam")),
        OptimizerRow("radam", _paddle("RAdam")),
        OptimizerRow("asgd", _paddle("ASGD")),
        OptimizerRow("rprop", _paddle("Rprop"), decay="none", multiplier=False),
        OptimizerRow(
            "lbfgs",
            _paddle("LBFGS"),
            multiplier=False,
            refused="its step() takes a closure and ignores LR multipliers; use paddle.optimizer.LBFGS by itself",
        ),
        OptimizerRow("decayedadagrad", None, aliases=("decayed_adagrad",), refused=_LATER),
        OptimizerRow("ftrl", None, refused=_LATER),
        OptimizerRow("larsmomentum", None, aliases=("lars_momentum", "lars"), refused=_LATER),
    )
}


def find(optimizer: str | type[Optimizer]) -> OptimizerRow:
    """The row of an optimizer name (any case) or Optimizer class; a class without a row gets a plain one.

    Raises:
        ValueError: the name is unknown, or this Paddle has no such optimizer, or strategies cannot use it.
        TypeError: neither a name nor an Optimizer class (an instance, for example).

    Example:
        >>> find("AdamW").name, find(paddle.optimizer.SGD).name
        ('adamw', 'sgd')
    """
    row = _row_of_name(optimizer) if isinstance(optimizer, str) else _row_of_class(optimizer)
    if row.refused:
        raise ValueError(f"optimizer {row.name!r} cannot be used in a strategy: {row.refused}")
    if row.cls is None:
        raise ValueError(f"paddlepaddle {paddle.__version__} has no optimizer {row.name!r}")
    return row


def names() -> list[str]:
    """The names that `find` accepts on this Paddle, sorted."""
    return sorted(name for name, row in ROWS.items() if row.cls is not None and not row.refused)


def check_options(row: OptimizerRow, options: Mapping[str, Any]) -> None:
    """Refuse optimizer options that the optimizer's constructor does not have.

    Raises:
        ValueError: an option that is unknown, or one that the binding itself sets.
    """
    signature = inspect.signature(row.cls.__init__)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        return
    allowed = [name for name in signature.parameters if name not in _BOUND]
    _errors.check_keys(f"option of optimizer {row.name!r}", options, allowed)


def _row_of_name(name: str) -> OptimizerRow:
    wanted = name.lower()
    for row in ROWS.values():
        if wanted == row.name or wanted in row.aliases:
            return row
    raise ValueError(_errors.unknown("optimizer", name, names()))


def _row_of_class(cls: Any) -> OptimizerRow:
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise TypeError(
            "optimizer_name must be a name or a paddle.optimizer.Optimizer class (not an instance: the strategy "
            f"builds it), not {cls!r}"
        )
    for base in cls.__mro__:
        for row in ROWS.values():
            if row.cls is base:
                return row if base is cls else _subclass_row(row, cls)
    return OptimizerRow(cls.__name__, cls)


def _subclass_row(row: OptimizerRow, cls: type[Optimizer]) -> OptimizerRow:
    return replace(row, name=cls.__name__, cls=cls)
