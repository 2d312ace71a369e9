"""The top layers of a pretrained model as they were before its training."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.layers import first_value
from paddle_ftstrat.param_attr import depth, select, settings
from paddle_ftstrat.transfer.report import forget


def reinitialize(model: nn.Layer, layers: int = 1, sample_input: Any = None) -> list[str]:
    """Give the top layers of a pretrained model new values, by the layers' own initializers.

    What the upper layers have learnt for pretraining itself may be a bad beginning for another task. Weights take the
    initializer of their layer's ParamAttr, or else Paddle's default for the layer; running statistics begin anew. They
    do not count as loaded any more, so that L2SP does not pull them anywhere by default. A layer of another kind has to
    have a method `reset_parameters()`, which is called.

    Args:
        model: the model, before it is bound.
        layers: how many of the top layers (see `param_attr.depth.find_units`), the head included.
        sample_input: one input, for the order in which the layers run; else as registered.

    Returns:
        The names of the weights that have new values.

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
    forget(model, names)
    return [name for name in weights if name in names]
