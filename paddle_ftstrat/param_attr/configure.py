"""ParamAttr for a model that is already built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.nn.initializer import Initializer
from paddle.regularizer import L2Decay, WeightDecayRegularizer

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.layers import trained_changed
from paddle_ftstrat.param_attr import select, settings

# What rules say of one parameter: field → (number of the rule, value).
_Claims = dict[str, tuple[int, Any]]


def configure(model: nn.Layer, rules: Iterable[tuple[Any, Any]], reinitialize: bool = False) -> None:
    """Set ParamAttr fields of parameters of a model that is already built, as if it had been built with them.

    A rule is a pair (selector, fields). The selector is a glob or sublayer name, a compiled regex (fullmatch), a
    function (name, parameter) → bool, a layer, or `...`, which means every parameter and gives way, field by field, to
    all other rules. The fields are one of these:

    - a dict with any of `learning_rate` (multiplier ≥ 0), `regularizer` (a Paddle regularizer, a coefficient of L2, or
      None to have none), `trainable`, `need_clip`, `initializer`: exactly these are set;
    - a `paddle.ParamAttr`, of which those are set that differ from `ParamAttr()`; to go back to a default, use a dict;
    - a number: short for `{"regularizer": number}`. A coefficient of 0.0 is a regularizer, too: no strategy's
      regularization or decay comes in its place.

    Args:
        model: the model, or any layer of one.
        rules: pairs (selector, fields). Two rules may not set the same field of one parameter differently.
        reinitialize: whether rules may have an `initializer`, which overwrites weights; else they keep their values.

    Raises:
        ValueError, TypeError: a rule matches nothing or sets nothing, two rules contradict each other, an unknown
            field, a value out of range, an initializer that is not allowed or of another shape; nothing is changed.
        RuntimeError: a strategy is bound to the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> configure(model, [("*.bias", 0.0), (..., 0.01), (model[0], {"learning_rate": 0.1})])
        >>> from paddle_ftstrat.param_attr import describe
        >>> [(row.regularizer, row.learning_rate) for row in describe(model)]
        [('L2(0.01)', 0.1), ('L2(0)', 0.1), ('L2(0.01)', 1.0), ('L2(0)', 1.0)]

        >>> configure(model, [("0", paddle.ParamAttr(trainable=False, need_clip=False))])
        >>> model[0].weight.stop_gradient
        True

    Source: the fields and their meaning are those of `paddle.ParamAttr`.
    """
    _paddle.check_layer(model)
    model = _paddle.unwrap(model)
    weights = select.named_weights(model)
    settings.refuse_bound(weights, "configure")
    claims = _claims(model, weights, _parsed(rules, reinitialize))
    values = {
        name: _initial(name, weights[name], *fields.pop("initializer"))
        for name, fields in claims.items()
        if "initializer" in fields
    }
    for name, fields in claims.items():
        settings.set_own(weights[name], **{field: value for field, (_, value) in fields.items()})
        if name in values:
            weights[name].set_value(values[name])
    trained_changed(model)


def _parsed(rules: Any, reinitialize: bool) -> list[tuple[Any, dict[str, Any]]]:
    if isinstance(rules, (str, Mapping)) or not isinstance(rules, Iterable):
        raise TypeError(f"rules must be a list of pairs (selector, fields), not {rules!r}")
    parsed = []
    for index, rule in enumerate(rules):
        if not isinstance(rule, Sequence) or isinstance(rule, str) or len(rule) != 2:
            raise TypeError(f"rules[{index}] must be a pair (selector, fields), not {rule!r}")
        fields = _fields(f"rules[{index}]", rule[1])
        if "initializer" in fields and not reinitialize:
            raise ValueError(
                f"rules[{index}] has an initializer, which would overwrite weights: allow it with reinitialize=True"
            )
        parsed.append((rule[0], fields))
    return parsed


def _fields(what: str, given: Any) -> dict[str, Any]:
    """The fields that a rule sets, checked."""
    if isinstance(given, Mapping):
        fields = dict(given)
    elif isinstance(given, paddle.ParamAttr):
        default = vars(paddle.ParamAttr())
        fields = {name: value for name, value in vars(given).items() if value != default.get(name)}
        if "name" in fields:
            raise ValueError(
                f"{what}: a parameter that is built already keeps its name, ParamAttr(name={given.name!r})"
            )
    elif isinstance(given, WeightDecayRegularizer) or (hasattr(given, "__float__") and not isinstance(given, bool)):
        fields = {"regularizer": given}
    else:
        raise TypeError(
            f"{what}: the fields must be a dict, a paddle.ParamAttr, or a regularizer or its L2 coefficient, "
            f"not {given!r} of type {type(given).__name__}"
        )
    if not fields:
        hint = "; ParamAttr() with default values sets none, a dict does" if not isinstance(given, Mapping) else ""
        raise ValueError(f"{what} sets no field{hint}. Allowed: {_errors.listing(_CHECKS)}")
    _errors.check_keys(f"field of {what}", fields, _CHECKS)
    return {field: _CHECKS[field](f"{what}: {field}", value) for field, value in fields.items()}


def _regularizer(what: str, value: Any) -> Any:
    if value is None or isinstance(value, WeightDecayRegularizer):
        return value
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{what} must be a paddle regularizer, an L2 coefficient or None, not {value!r}")
    return L2Decay(_errors.check_number(what, value, minimum=0))


def _initializer(what: str, value: Any) -> Any:
    if not isinstance(value, Initializer):
        raise TypeError(f"{what} must be a paddle.nn.initializer, not {value!r} of type {type(value).__name__}")
    return value


_CHECKS = {
    "learning_rate": lambda what, value: _errors.check_number(what, value, minimum=0),
    "regularizer": _regularizer,
    "trainable": _errors.check_flag,
    "need_clip": _errors.check_flag,
    "initializer": _initializer,
}


def _claims(
    model: nn.Layer, weights: Mapping[str, Any], rules: Sequence[tuple[Any, dict[str, Any]]]
) -> dict[str, _Claims]:
    """Parameter → what holds for it, in the model's order."""
    claims: dict[str, _Claims] = {name: {} for name in weights}
    defaults: dict[str, _Claims] = {name: {} for name in weights}
    contradictions = []
    for index, (selector, fields) in enumerate(rules):
        others = selector is ...
        for name in weights if others else select.select(model, selector, f"the selector of rules[{index}]"):
            for field, value in fields.items():
                rule, first = (defaults if others else claims)[name].setdefault(field, (index, value))
                if not settings.same(first, value):
                    contradictions.append(f"{field} of {name!r} (rules[{rule}] and rules[{index}])")
    if contradictions:
        raise ValueError(
            f"two rules set the same field differently: {_errors.listing(contradictions)}; "
            "a rule for `...` gives way to all others"
        )
    return {name: merged for name in weights if (merged := {**defaults[name], **claims[name]})}


def _initial(name: str, param: Any, rule: int, initializer: Initializer) -> Any:
    """The value that an initializer gives a parameter, which is not touched."""
    with paddle.utils.unique_name.guard():  # layers that are built later keep the names that they would have had
        made = paddle.create_parameter(param.shape, param.dtype, default_initializer=initializer)
    if list(made.shape) != list(param.shape) or made.dtype != param.dtype:
        raise ValueError(
            f"rules[{rule}]: the initializer makes shape {list(made.shape)} and dtype {made.dtype}, but {name!r} "
            f"has {list(param.shape)} and {param.dtype}"
        )
    return made
