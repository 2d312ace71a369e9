"""The only place that writes the fields Paddle's optimizers read from a parameter.

A parameter carries its user's own settings beside the ones that are in force, so that a binding can always start
from the user's and give them back. The record lies in `optimize_attr`, the one field that a copied parameter keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from operator import attrgetter, contains
from typing import Any

import numpy as np
from paddle.nn.initializer import Initializer
from paddle.regularizer import WeightDecayRegularizer

from paddle_ftstrat import _errors

_RECORD = "ftstrat"
ROWS = "ftstrat_rows"


@dataclass(frozen=True)
class ParamSettings:
    """The fields of one parameter that decide its update, as `paddle.ParamAttr` names them."""

    learning_rate: float
    regularizer: Any
    trainable: bool
    need_clip: bool


@dataclass(frozen=True)
class _Record:
    own: ParamSettings
    applied: ParamSettings
    owner: object
    allowed: bool  # whether the owner lets the parameter train now


def in_force(param: Any) -> ParamSettings:
    """What Paddle reads from the parameter now."""
    attr = getattr(param, "optimize_attr", None) or {}
    return ParamSettings(
        learning_rate=float(attr.get("learning_rate", 1.0)),
        regularizer=getattr(param, "regularizer", None),
        trainable=not param.stop_gradient,
        need_clip=bool(getattr(param, "need_clip", True)),
    )


def own(param: Any) -> ParamSettings:
    """The user's settings: what a binding applied is looked through, what was changed by hand since then counts."""
    current, record = in_force(param), _record(param)
    if record is None:
        return current
    return ParamSettings(
        *(
            mine if now is put or now == put else now
            for now, put, mine in zip(*(vars(part).values() for part in (current, record.applied, record.own)))
        )
    )


def apply(param: Any, settings: ParamSettings, owner: object) -> None:
    """Put settings in force for `owner`, keeping the user's own; what the user froze stays frozen."""
    mine = own(param)
    put = replace(settings, trainable=settings.trainable and mine.trainable)
    _write(param, put, _Record(mine, put, owner, settings.trainable))


def set_own(param: Any, **fields: Any) -> None:
    """Change the user's own settings; under a binding, what is in force changes with them.

    A parameter thawed here that the binding's unfreezing plan still holds back trains once its epoch has come.
    """
    record = _record(param)
    current = replace(in_force(param), **fields)
    if record is not None:
        if "trainable" in fields:
            current = replace(current, trainable=current.trainable and record.allowed)
        record = replace(record, own=replace(own(param), **fields), applied=current)
    _write(param, current, record)


def restore(param: Any, owner: object) -> None:
    """Give the parameter its user's settings back, unless another owner has taken over since."""
    record = _record(param)
    if record is not None and record.owner is owner:
        _write(param, own(param), None)


def capture(param: Any) -> tuple[Any, ...]:
    """Everything this module writes, for `put_back`."""
    attr = getattr(param, "optimize_attr", None)
    return dict(attr) if attr else attr, param.regularizer, param.need_clip, param.stop_gradient


def put_back(param: Any, captured: tuple[Any, ...]) -> None:
    """Put a parameter back where `capture` found it, its owner included."""
    param.optimize_attr, param.regularizer, param.need_clip, param.stop_gradient = captured


def owner_of(param: Any) -> object | None:
    """The owner of what is in force, None when that is the user."""
    record = _record(param)
    return None if record is None else record.owner


def refuse_bound(weights: Mapping[str, Any], action: str) -> None:
    """RuntimeError where a strategy is bound to one of these parameters."""
    bound = [name for name, param in weights.items() if owner_of(param) is not None]
    if bound:
        raise RuntimeError(
            f"a strategy is bound to {_errors.listing(bound)}: release it, {action}, bind again (run.release())"
        )


def noted(param: Any, key: str) -> Any:
    """What `note` has put down, None for nothing."""
    return (getattr(param, "optimize_attr", None) or {}).get(key)


def note(param: Any, key: str, value: Any) -> None:
    """Put something of the user's own down on a parameter, bound or not, which copies keep; None takes it away."""
    attr = dict(getattr(param, "optimize_attr", None) or {"learning_rate": 1.0})
    attr.pop(key, None)
    param.optimize_attr = attr if value is None else {**attr, key: value}


def frozen_rows(param: Any) -> Any | None:
    """What `freeze_rows` froze of a parameter, None where that is nothing."""
    return noted(param, ROWS)


def any_frozen_rows(params: Sequence[Any]) -> bool:
    """Whether some rows of one of these parameters are frozen; asked at each update, of thousands in C."""
    return any(map(contains, map(attrgetter("optimize_attr"), params), repeat(ROWS)))


def saved_rows(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The frozen rows of (name, parameter) pairs, by name, as JSON can hold them."""
    found = {name: frozen_rows(param) for name, param in named}
    return {name: [rows.axis, list(rows.rows)] for name, rows in found.items() if rows is not None}


def text_of(regularizer: Any) -> str:
    """A regularizer in a few characters: `L2(0.01)`."""
    if regularizer is None:
        return ""
    name = type(regularizer).__name__.replace("DecayRegularizer", "").replace("Decay", "")
    coeff = getattr(regularizer, "_coeff", None)
    return f"{name}({coeff:g})" if isinstance(coeff, (int, float)) else name


def same(one: Any, other: Any) -> bool:
    """Equality of attribute values: Paddle's initializers and regularizers have no `==` of their own."""
    if one is other:
        return True
    if type(one) is not type(other):
        return bool(np.isscalar(one) and np.isscalar(other) and one == other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (Initializer, WeightDecayRegularizer)):
        return same(vars(one), vars(other))
    return bool(one == other)


def _record(param: Any) -> _Record | None:
    return noted(param, _RECORD)


def _write(param: Any, settings: ParamSettings, record: _Record | None) -> None:
    attr = dict(getattr(param, "optimize_attr", None) or {})
    attr.pop(_RECORD, None)
    attr["learning_rate"] = settings.learning_rate
    if record is not None:
        attr[_RECORD] = record
    param.optimize_attr = attr
    param.regularizer = settings.regularizer
    param.need_clip = settings.need_clip
    param.stop_gradient = not settings.trainable
    if not settings.trainable:
        # A gradient left over from before would count as this parameter's; Paddle's clear_grad skips frozen ones.
        param.clear_gradient(False)
