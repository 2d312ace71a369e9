"""The optimizers that a strategy can name: one row each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import paddle
from paddle.optimizer import Optimizer
from paddle.regularizer import WeightDecayRegularizer

from paddle_ftstrat import _errors
from paddle_ftstrat.optim import muon, rules, schedule_free
from paddle_ftstrat.optim.adafactor import Adafactor
from paddle_ftstrat.optim.custom import Accumulators, CustomOptimizer, from_function
from paddle_ftstrat.optim.grouped import Optimizer as GroupedOptimizer

# What binding itself hands to the optimizer, so that it cannot come through optimizer options.
_BOUND = ("self", "learning_rate", "parameters", "name", "apply_decay_param_fun", "exclude_from_weight_decay_fn")

_RANGES: dict[str, dict[str, float]] = {
    # Nearer to 1 float32 rounds up, and the bias correction divides by 0.
    **{key: {"minimum": 0, "maximum": 1 - 2**-24} for key in ("beta1", "beta2")},
    **{key: {"minimum": 0, "maximum": 1} for key in ("rho", "decay")},
    **{key: {"minimum": 0} for key in ("epsilon", "momentum")},
    **{key: {"minimum": 0} for key in ("weight_decay", "lamb_weight_decay", "lars_weight_decay")},
}
# What an option without a default may be, beside None and a number.
_KINDS: dict[str, Any] = {"weight_decay": WeightDecayRegularizer, "lr_ratio": Callable}


@dataclass(frozen=True)
class FusedRule:
    """What the fused update has to know: the rule in `fused.kernels`, and the names of accumulators."""

    name: str
    moments: tuple[str, ...] = ()  # of full size
    powers: tuple[str, ...] = ()  # of one value: the powers of the betas
    shares: tuple[str, ...] = ()  # of one value: an average's count, largest LR and sum of weights


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer.

    Attributes:
        name, aliases: in lower case.
        cls: its class; None where this Paddle has none.
        decay: whose `weight_decay` it takes: "coupled" (added to the gradient), "native" (its own decoupled decay,
            through the arguments in `native`), or "none".
        native: the names of the coefficient's argument and of the one that excludes parameters.
        excludes: whether the latter tells the excluded ("exclude", called with the parameter) or the included
            ("include", called with its name).
        replaces_decay: its native decay is what a strategy's weight_decay means.
        no_decay: where it is not, the coefficient that switches it off.
        multiplier: honours LR multipliers and schedules.
        sparse: right on sparse gradients.
        chooses: the option whose selectors say which parameters its own rule is for, and the function (model) →
            structured names that says so where none are given.
        refused: why a strategy cannot use it at all.
        fused: its rule in the fused update, if it has one.
        registered: entered by `register`.
    """

    name: str
    cls: type[Optimizer] | None
    aliases: tuple[str, ...] = ()
    decay: str = "coupled"
    native: tuple[str, str] = ("", "")
    excludes: str = ""
    replaces_decay: bool = False
    no_decay: float = 0.0
    multiplier: bool = True
    sparse: bool = False
    chooses: tuple[str, Callable[[Any], set[str]]] | None = None
    refused: str = ""
    fused: FusedRule | None = None
    registered: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that a strategy may give the optimizer, with their defaults."""
        return {} if self.cls is None else {k: v for k, v in _arguments(self.cls).items() if k not in _BOUND}


def _paddle(name: str) -> type[Optimizer] | None:
    return getattr(paddle.optimizer, name, None)


# With the decay of a CustomOptimizer with `decoupled = True`, which is that of Paddle's AdamW.
_DecoupledRow = partial(
    OptimizerRow, decay="native", native=("weight_decay", "apply_decay_param_fun"), excludes="include"
)
_SHARES = ("count", "largest_lr", "weight_sum")
_ADAM = FusedRule("adam", ("moment1", "moment2"), ("beta1_pow_acc", "beta2_pow_acc"))

ROWS: dict[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow("sgd", _paddle("SGD"), sparse=True, fused=FusedRule("sgd")),
        OptimizerRow("momentum", _paddle("Momentum"), sparse=True, fused=FusedRule("momentum", ("velocity",))),
        OptimizerRow("adagrad", _paddle("Adagrad"), sparse=True),
        OptimizerRow("adadelta", _paddle("Adadelta")),
        OptimizerRow("adam", _paddle("Adam"), fused=_ADAM),
        _DecoupledRow("adamw", _paddle("AdamW"), replaces_decay=True, fused=_ADAM),
        OptimizerRow("adamax", _paddle("Adamax")),
        OptimizerRow("rmsprop", _paddle("RMSProp"), sparse=True),
        OptimizerRow(
            "lamb",
            _paddle("Lamb"),
            decay="native",
            native=("lamb_weight_decay", "exclude_from_weight_decay_fn"),
            excludes="exclude",
            # It adapts the LR layer by layer only where it decays: 0 would make it Adam, this adds nothing.
            no_decay=1e-30,
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
        OptimizerRow("decayedadagrad", rules.DecayedAdagrad, aliases=("decayed_adagrad",), sparse=True),
        OptimizerRow("ftrl", rules.Ftrl, sparse=True),
        OptimizerRow(
            "larsmomentum",
            rules.LarsMomentum,
            aliases=("lars_momentum", "lars"),
            decay="native",
            native=("lars_weight_decay", "exclude_from_weight_decay_fn"),
            excludes="exclude",
            sparse=True,
        ),
        _DecoupledRow("lion", rules.Lion, sparse=True),
        _DecoupledRow("adafactor", Adafactor, sparse=True),
        _DecoupledRow("muon", muon.Muon, sparse=True, chooses=("hidden", muon.hidden_weights)),
        # Their decay stands in the step: one that came after it would move the weights away from their average.
        _DecoupledRow(
            "schedule_free_sgd",
            schedule_free.ScheduleFreeSGD,
            aliases=("schedulefree_sgd",),
            fused=FusedRule("schedule_free_sgd", ("z",), shares=_SHARES),
            sparse=True,
            replaces_decay=True,
        ),
        _DecoupledRow(
            "schedule_free_adamw",
            schedule_free.ScheduleFreeAdamW,
            aliases=("schedulefree_adamw",),
            fused=FusedRule("schedule_free_adamw", ("z", "moment2"), shares=_SHARES),
            sparse=True,
            replaces_decay=True,
        ),
    )
}


def find(optimizer: str | type[Optimizer]) -> OptimizerRow:
    """The row of an optimizer name (any case) or Optimizer class; a class without a row gets a plain one.

    Raises:
        ValueError: the name is unknown, or this Paddle has no such optimizer, or strategies cannot use it.
        TypeError: neither a name nor an Optimizer class (an instance, for example).
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


def register(
    name: str,
    optimizer: type[Optimizer] | Callable[..., None],
    *,
    accumulators: Accumulators = (),
    aliases: Iterable[str] = (),
    **row_fields: Any,
) -> type[Optimizer]:
    """Enter an optimizer in the table, so that strategies find it by name: `optimizer_name="lion"`.

    Args:
        name: its name; any case finds it.
        optimizer: an Optimizer class whose constructor takes `learning_rate` and `parameters`, or a function
            `(param, grad, lr, state, …) → None` (see `from_function`).
        accumulators: the state of a function.
        aliases: further names.
        **row_fields: further fields of `OptimizerRow`: `decay`, `native`, `excludes`, `multiplier`, `sparse`, …

    Returns:
        The class, to be used without a strategy too.

    Raises:
        ValueError: a name that the table has already (one that was registered is replaced), an unknown field, or a
            constructor that a strategy cannot call.
        TypeError: no Optimizer class and no function, or `accumulators` for a class.

    Example:
        >>> def sign_sgd(param, grad, lr, state):
        ...     param.subtract_(paddle.sign(grad) * lr)
        >>> register("signsgd", sign_sgd).__name__
        'SignSgd'
        >>> find("SignSGD").decay
        'coupled'
    """
    settable = [f.name for f in fields(OptimizerRow) if f.name not in ("name", "cls", "fused", "registered")]
    _errors.check_keys("field of an optimizer's row", row_fields, settable)
    if not isinstance(optimizer, type) and callable(optimizer):
        optimizer = from_function(optimizer, accumulators)
    elif accumulators:
        raise TypeError("accumulators= belongs to a function; a class names its own in `accumulators`")
    key = name.lower()
    others = tuple(alias.lower() for alias in aliases)
    row = replace(_plain_row(optimizer), **row_fields, name=key, aliases=others, registered=True)
    for other in ROWS.values():
        taken = {key, *row.aliases} & {other.name, *other.aliases}
        if taken and not (other.registered and other.name == key):
            raise ValueError(f"the optimizer table has {sorted(taken)[0]!r} already, for {other.name!r}")
    ROWS[key] = row
    return optimizer


def check_options(row: OptimizerRow, options: Iterable[str]) -> None:
    """Refuse optimizer options that the constructor does not have, or that the binding itself sets: ValueError."""
    if row.cls is not None and not _takes_anything(row.cls):
        _errors.check_keys(f"option of optimizer {row.name!r}", options, row.defaults)


def checked_values(row: OptimizerRow, options: Mapping[str, Any]) -> dict[str, Any]:
    """Optimizer options with their numbers as Python's; refuses what is out of range or unlike its default."""
    defaults = row.defaults
    return {
        key: _checked_value(f"option {key!r} of optimizer {row.name!r}", key, defaults[key], value)
        if key in defaults
        else value
        for key, value in options.items()
    }


def _checked_value(what: str, key: str, default: Any, value: Any) -> Any:
    if isinstance(default, bool):
        return _errors.check_flag(what, value)
    if key == "batch_num":
        return _errors.check_whole(what, value, minimum=1)
    if isinstance(default, tuple) and default:
        if not isinstance(value, (tuple, list)) or len(value) != len(default):
            raise TypeError(f"{what} must be {len(default)} numbers, not {_errors.shown(value)}")
        return tuple(_errors.check_number(f"{what}, entry {i}", number) for i, number in enumerate(value))
    if isinstance(default, Real) or (isinstance(value, Real) and not isinstance(value, bool)):
        number = _errors.check_number(what, value, **_RANGES.get(key, {}))
        return int(value) if isinstance(default, int) and number.is_integer() else number
    # What ends the process at the first update, in place of an object.
    no_option = isinstance(value, (np.ndarray, np.generic, paddle.Tensor))
    if value is not None and (no_option or not isinstance(value, _KINDS.get(key, object))):
        raise TypeError(f"{what} cannot be {_errors.shown_with_type(value)}")
    return value


def _row_of_name(name: str) -> OptimizerRow:
    wanted = name.lower()
    for row in ROWS.values():
        if wanted == row.name or wanted in row.aliases:
            return row
    raise ValueError(_errors.unknown("optimizer", name, names()))


def _row_of_class(cls: Any) -> OptimizerRow:
    plain = _plain_row(cls)
    for base in cls.__mro__:
        for row in ROWS.values():
            if row.cls is base:
                return row if base is cls else replace(row, name=cls.__name__, cls=cls, fused=None, registered=False)
    return plain


def _plain_row(cls: Any) -> OptimizerRow:
    """The row of a class of which nothing is known but the class."""
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise TypeError(
            "optimizer_name must be a name or a paddle.optimizer.Optimizer class (not an instance: the strategy "
            f"builds it), not {_errors.shown(cls)}"
        )
    if issubclass(cls, GroupedOptimizer):
        raise ValueError(
            f"{cls.__module__}.{cls.__name__} has parameter groups, which a strategy takes the place of: use it by "
            f"itself, or name one of {', '.join(names())}"
        )
    row = OptimizerRow(cls.__name__, cls)
    if issubclass(cls, CustomOptimizer):
        # The short form gets dense gradients; one's own _append_optimize_op gets Paddle's, which may be sparse.
        sparse = cls._append_optimize_op is CustomOptimizer._append_optimize_op
        row = (_DecoupledRow if cls.decoupled else OptimizerRow)(cls.__name__, cls, sparse=sparse)
    arguments = _arguments(cls)
    missing = [key for key in ("learning_rate", "parameters", *row.native) if key and key not in arguments]
    if missing and not _takes_anything(cls):
        raise ValueError(
            f"the constructor of {cls.__name__} must take {' and '.join(missing)} by name; it has "
            f"{_errors.listing(arguments)}"
        )
    return row


def _arguments(cls: type[Optimizer]) -> dict[str, Any]:
    """Argument → default of a constructor, and of the one that its **kwargs go on to."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found.update((p.name, p.default) for p in parameters if p.kind not in open_ended and p.name not in found)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


def _takes_anything(cls: type[Optimizer]) -> bool:
    """Whether there is no telling what a constructor takes; those of this package hand on to `CustomOptimizer`'s."""
    parameters = inspect.signature(cls).parameters.values()
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return open_ended and not cls.__init__.__module__.startswith(f"{__package__}.")
