"""Three ways to tune a pretrained model: its head, all of it, all with a faster head; and its top layers begun anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.layers import first_value
from paddle_ftstrat.param_attr import depth, freezing, select, settings
from paddle_ftstrat.param_attr.depth import find_head as find_head
from paddle_ftstrat.param_attr.select import loaded_names as loaded_names

FACTOR = 10.0
_RECORD = "_ftstrat_tune"


@dataclass(frozen=True)
class _Record:
    """What a call has changed: names that it froze, BatchNorm policies before it, LR multipliers before and after."""

    frozen: frozenset[str] = frozenset()
    policies: Mapping[str, str | None] = field(default_factory=dict)
    multipliers: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def tune(model: nn.Layer, how: str, head: Any = None, factor: float = FACTOR, batch_norm: str = "freeze") -> list[str]:
    """Prepare a model for one of the three ways to tune, by name; returns the names of the head's weights, or of all.

    What an earlier call did is undone first.

    Args:
        model: the model.
        how: "head" (`tune_head`), "all" (`tune_all`) or "differential" (`tune_differential`).
        head: what the head is, for "head" and "differential": see `find_head`.
        factor: k of "differential": the head's LR is k times the backbone's.
        batch_norm: what "head" does with the statistics of the backbone's BatchNorm layers: "freeze" or "track".

    Raises:
        ValueError, TypeError, RuntimeError: another word for `how`, or as the three functions say; nothing is changed.

    Example:
        >>> import paddle
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 1))
        >>> tune(model, "head")
        ['1.weight', '1.bias']
        >>> [param.stop_gradient for param in model.parameters()]
        [True, True, False, False]
    """
    if how == "head":
        return tune_head(model, head, batch_norm)
    if how == "all":
        return tune_all(model)
    if how == "differential":
        return tune_differential(model, head, factor)
    raise ValueError(_errors.unknown("way to tune", how, ("head", "all", "differential")))


def tune_head(model: nn.Layer, head: Any = None, batch_norm: str = "freeze") -> list[str]:
    """Freeze everything but the head; returns the names of the head's weights.

    Args:
        model: the model.
        head: what the head is: see `find_head`.
        batch_norm: "freeze" keeps the running statistics of the backbone's BatchNorm layers and normalises with them in
            train mode, too; "track" lets them follow the new data.

    Raises:
        ValueError: no head or no backbone, a selector that matches nothing, an unknown policy; nothing is changed.
        TypeError: not a layer or not a selector.
        RuntimeError: the model is wrapped in DataParallel with several processes, or bound after another way to tune
            had set LR multipliers.

    Example:
        >>> import paddle
        >>> model = paddle.vision.models.LeNet()
        >>> tune_head(model, "fc.2")
        ['fc.2.weight', 'fc.2.bias']
    """
    names = _checked_head(model, head)
    _errors.check_keys("BatchNorm policy", [batch_norm], freezing.POLICIES)
    _undo(model)
    model = _paddle.unwrap(model)
    weights = select.named_weights(model)
    frozen = frozenset(name for name in weights if name not in names and settings.own(weights[name]).trainable)
    policies = {path: freezing.policy_of(layer) for path, layer in freezing.batch_norms(model).items()}
    freezing.freeze(model, lambda name, _: _is_backbone(name, names, weights), batch_norm)
    model.__dict__[_RECORD] = _Record(frozen, policies)
    return names


def tune_all(model: nn.Layer) -> list[str]:
    """Let all weights of a model train at one LR, undoing `tune_head` and `tune_differential`; returns their names.

    What was frozen in another way stays frozen, and LR multipliers set in another way stay.

    Raises:
        TypeError: not a layer.
        RuntimeError: as for `tune_head`.

    Example:
        >>> import paddle
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 1))
        >>> model[0].bias.stop_gradient = True
        >>> _ = tune_head(model)
        >>> _ = tune_all(model)
        >>> [param.stop_gradient for param in model.parameters()]
        [False, True, False, False]
    """
    _paddle.check_layer(model)
    _undo(model)
    return list(select.named_weights(model))


def tune_differential(model: nn.Layer, head: Any = None, factor: float = FACTOR) -> list[str]:
    """Let all weights train, the head k times as fast: lr(backbone) = η, lr(head) = k·η.

    η is the strategy's learning rate, so choose it for the backbone. The factor goes into the head's LR multipliers,
    `ParamAttr(learning_rate=...)`, times what they were. Returns the names of the head's weights.

    Args:
        model: the model.
        head: what the head is: see `find_head`.
        factor: k > 0.

    Raises:
        ValueError: no head or no backbone, a selector that matches nothing, k ≤ 0; nothing is changed.
        TypeError: not a layer, not a selector, or a factor that is no number.
        RuntimeError: a strategy is bound to the model.

    Example:
        >>> import paddle, paddle_ftstrat as hub
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 1))
        >>> tune_differential(model)
        ['1.weight', '1.bias']
        >>> [row.learning_rate for row in hub.DefaultStrategy(0.001).bind(model).describe()]
        [1.0, 1.0, 10.0, 10.0]
    """
    names = _checked_head(model, head)
    factor = _errors.check_number("factor", factor, above=0)
    settings.refuse_bound(select.named_weights(model), "tune")
    _undo(model)
    weights = select.named_weights(model)
    changes = {}
    for name in names:
        before = settings.own(weights[name]).learning_rate
        settings.set_own(weights[name], learning_rate=before * factor)
        changes[name] = (before, before * factor)
    _paddle.unwrap(model).__dict__[_RECORD] = _Record(multipliers=changes)
    return names


def _checked_head(model: nn.Layer, head: Any) -> list[str]:
    _paddle.check_layer(model)
    names = find_head(model, head)
    if len(names) == len(select.named_weights(model)):
        raise ValueError(f"the head {_errors.listing(names)} is the whole model: nothing is left as a backbone")
    return names


def _undo(model: nn.Layer) -> None:
    """Take back what the last call did, as far as nobody has changed it since."""
    model = _paddle.unwrap(model)
    record: _Record = model.__dict__.get(_RECORD, _Record())
    weights = select.named_weights(model)
    if record.multipliers:
        settings.refuse_bound(weights, "tune")
    ours = {name for name in record.frozen if name in weights and not settings.own(weights[name]).trainable}
    if ours:
        freezing.unfreeze(model, lambda name, _: name in ours)
    for path, layer in freezing.batch_norms(model).items():
        if path in record.policies and freezing.policy_of(layer) != record.policies[path]:
            freezing.set_policy(layer, record.policies[path])
    for name, (before, after) in record.multipliers.items():
        if name in weights and settings.own(weights[name]).learning_rate == after:
            settings.set_own(weights[name], learning_rate=before)
    model.__dict__.pop(_RECORD, None)


def _is_backbone(name: str, head: Collection[str], weights: Mapping[str, Any]) -> bool:
    """Whether a weight, or a statistic of a BatchNorm without weights, is outside the head.

    Such a statistic belongs to the head if all weights of the smallest layer around it that has any do.
    """
    if name in weights:
        return name not in head
    path = name
    while path:
        path = path.rpartition(".")[0]
        around = [weight for weight in weights if not path or weight.startswith(path + ".")]
        if around:
            return not all(weight in head for weight in around)
    return True


def reinitialize(model: nn.Layer, layers: int = 1, sample_input: Any = None) -> list[str]:
    """Give the top layers of a pretrained model new values, by the layers' own initializers.

    What the upper layers have learnt for pretraining itself may be a bad beginning for another task. Weights take the
    initializer of their layer's ParamAttr, or else Paddle's default for the layer; running statistics begin anew. They
    do not count as loaded any more, so that L2SP does not pull them anywhere by default. A layer of another kind has to
    have a method `reset_parameters()`, which is called. Returns the names of the weights with new values.

    Args:
        model: the model, before it is bound.
        layers: how many of the top layers (see `param_attr.depth.find_units`), the head included.
        sample_input: one input, for the order in which the layers run; else as registered.

    Raises:
        ValueError: more layers than there are, or parameters that nobody knows the initializer of; nothing is changed.
        TypeError: not a layer, or no number.
        RuntimeError: a strategy is bound to the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> reinitialize(model, layers=2)
        ['1.weight', '1.bias', '2.weight', '2.bias']

    Source: Zhang et al., "Revisiting Few-sample BERT Fine-tuning" (arXiv:2006.05987, section 5): the top 1 to 6 of 12
    layers.
    """
    _paddle.check_layer(model)
    model = _paddle.unwrap(model)
    weights, units = select.named_weights(model), depth.find_units(model, sample_input)
    settings.refuse_bound(weights, "reinitialize")
    if _errors.check_whole("layers", layers, minimum=1) > len(units):
        raise ValueError(f"layers = {layers}, but the model has {len(units)}")
    names = {name for unit in units[-layers:] for name in unit.parameters}
    chosen = {id(weights[name]) for name in names}
    values: dict[int, tuple[Any, Any]] = {}
    by_themselves, unknown = [], []
    for path, layer in select.every_layer(model):
        own = {name: param for name, param in select.own_parameters(layer) if id(param) in chosen}
        if own and callable(getattr(layer, "reset_parameters", None)):
            by_themselves.append(layer)
            continue
        for name, param in own.items():
            value = first_value(layer, name)
            values.setdefault(id(param), (param, value))
            if value is None:
                unknown.append(select.join(path, name))
        for name in _paddle.statistic_names(layer) if own else ():
            statistic = getattr(layer, name)
            values[id(statistic)] = statistic, paddle.full_like(statistic, float(name == "_variance"))
    if unknown:
        raise ValueError(
            f"nothing tells how {_errors.listing(unknown)} begin: give their layers a method reset_parameters(), or "
            "use param_attr.configure(model, [(name, {'initializer': ...})], reinitialize=True)"
        )
    for layer in by_themselves:
        layer.reset_parameters()
    for tensor, value in values.values():
        tensor.set_value(value.astype(tensor.dtype))
    select.forget_loaded(model, names)
    return [name for name in weights if name in names]
