"""Layer groups in the forms that fastai's users have them."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat.param_attr import select


def as_selectors(model: nn.Layer, groups: Any) -> list[Any]:
    """Layer groups as `find_units` takes them: lists of parameters, which fastai's splitters give, become names.

    Args:
        model: the model.
        groups: a list of groups, bottom first, or a function (model) → such a list; a group is a selector, or a list
            of selectors and parameters.

    Raises:
        ValueError: a parameter of another model.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> as_selectors(model, lambda m: [m[0].parameters(), m[1]])
        [['0.weight', '0.bias'], Linear(in_features=1, out_features=1, dtype=float32)]
    """
    groups = groups(model) if callable(groups) else groups
    names = {id(param): name for name, param in model.named_parameters()}

    def selector(entry: Any) -> Any:
        if not isinstance(entry, paddle.Tensor):
            return entry
        if id(entry) not in names:
            raise ValueError(f"layer_groups: {entry.name!r} is no parameter of the model")
        return names[id(entry)]

    # `layer.parameters()` has the running statistics of BatchNorm layers in it, too.
    statistics = names.keys() - {id(weight) for weight in select.named_weights(model).values()}
    return [
        [selector(entry) for entry in group if id(entry) not in statistics]
        if isinstance(group, (list, tuple))
        else group
        for group in groups
    ]
