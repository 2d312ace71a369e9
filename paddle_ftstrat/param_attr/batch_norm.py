"""What freezing means for the running statistics of BatchNorm layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from paddle import nn

from paddle_ftstrat import _compat, _errors
from paddle_ftstrat._compat import batch_norm as compat
from paddle_ftstrat.param_attr import select

POLICIES = ("freeze", "track")
_RECORD = "_ftstrat_statistics"


@dataclass(frozen=True)
class _Record:
    """A layer's policy and what it was set to before. It lies in the layer, so that a copy can be thawed, too."""

    policy: str
    before: Any = None


def layers(model: nn.Layer) -> dict[str, nn.Layer]:
    """The layers of a model that keep running statistics, by path.

    Example:
        >>> list(layers(nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4))))
        ['1']
    """
    return {path: layer for path, layer in model.named_sublayers(include_self=True) if _compat.is_batch_norm(layer)}


def weights(layer: nn.Layer) -> list[Any]:
    """The weight and bias of a BatchNorm layer, as far as it has them."""
    return [param for _, param in select.own_parameters(layer)]


def touched(model: nn.Layer, patterns: Any, chosen: Collection[int]) -> dict[str, nn.Layer]:
    """The BatchNorm layers that a call to freeze or unfreeze is about, by path.

    They are those with a weight among the chosen ones; one without weights, if a pattern means its statistics.

    Args:
        model: the model.
        patterns: the patterns of the call, None for all layers.
        chosen: `id` of each parameter that the patterns mean.
    """
    selectors = _as_list(patterns)
    return {
        path: layer
        for path, layer in layers(model).items()
        if patterns is None
        or any(id(param) in chosen for param in weights(layer))
        or (not weights(layer) and any(_means(selector, path, layer) for selector in selectors))
    }


def policy_of(layer: nn.Layer) -> str | None:
    """The policy that a freeze has put on a BatchNorm layer, None where there was none."""
    record = layer.__dict__.get(_RECORD)
    return None if record is None else record.policy


def set_policy(layer: nn.Layer, policy: str | None) -> None:
    """Fix a BatchNorm layer's statistics ("freeze") or give it back its own way ("track", None)."""
    record = layer.__dict__.pop(_RECORD, None)
    if record is not None and record.policy == "freeze":
        compat.release_statistics(layer, record.before)
    if policy is not None:
        before = compat.fix_statistics(layer) if policy == "freeze" else None
        layer.__dict__[_RECORD] = _Record(policy, before)


def refuse_unfixable(norms: Iterable[tuple[str, nn.Layer]]) -> None:
    """Raise ValueError for the layers whose statistics cannot be fixed."""
    own_forward = [path for path, layer in norms if not compat.can_fix_statistics(layer)]
    if own_forward:
        raise ValueError(
            f"subclasses of SyncBatchNorm cannot be told to keep their statistics: {_errors.listing(own_forward)}; "
            'use nn.SyncBatchNorm itself there, or batch_norm="track"'
        )


def _as_list(patterns: Any) -> list[Any]:
    if patterns is None:
        return []
    single = isinstance(patterns, (str, re.Pattern, nn.Layer)) or callable(patterns)
    return [patterns] if single else list(patterns)


def _means(selector: Any, path: str, layer: nn.Layer) -> bool:
    """Whether a selector means the statistics of a BatchNorm layer."""
    if isinstance(selector, nn.Layer):
        return any(part is layer for part in selector.sublayers(include_self=True))
    names = [select.join(path, name) for name in _compat.statistic_names(layer)]
    if isinstance(selector, str):
        return any(fnmatchcase(name, selector) or name.startswith(selector + ".") for name in names)
    if isinstance(selector, re.Pattern):
        return any(selector.fullmatch(name) for name in names)
    return any(selector(select.join(path, name), getattr(layer, name)) for name in _compat.statistic_names(layer))
