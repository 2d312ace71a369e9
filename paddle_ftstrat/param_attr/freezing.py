"""Freezing that holds: parameters, BatchNorm's statistics, whole stages; and a check that nothing frozen moved."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _compat, _errors
from paddle_ftstrat._compat import batch_norm as compat
from paddle_ftstrat.param_attr import batch_norm as norms
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.param_attr.stage import FrozenStage, freeze_stage

__all__ = ["FrozenStage", "freeze", "freeze_stage", "unfreeze", "verify_frozen"]

_RECORD = "_ftstrat_frozen"
_IGNORED_TEXT = (
    f"paddlepaddle {paddle.__version__} ignores `requires_grad = False`; freeze with "
    "paddle_ftstrat.param_attr.freeze or with `stop_gradient = True`"
)


def freeze(model_or_layer: nn.Layer, patterns: Any = None, batch_norm: str = "freeze") -> list[str]:
    """Freeze parameters for good: no gradient, no update, no decay, no part in the clip norm.

    A BatchNorm layer whose weights are all frozen then follows `batch_norm`. With "freeze" it normalises with its
    running statistics and keeps them, also after `.train()`: y = (x − mean)/√(variance + ε)·weight + bias. With "track"
    it goes on normalising with each batch and moving its statistics, as Paddle does by itself.

    Under a binding this takes effect at once, and no strategy thaws it. `unfreeze` undoes it. Freeze before
    `paddle.DataParallel` wraps the model. Of a model that `paddle.jit.to_static` has compiled give the whole model,
    and the part as pattern: a call on the part does not reach the compiled whole.

    Args:
        model_or_layer: a model or any layer of one.
        patterns: which parameters: a glob or sublayer name, a compiled regex, a function (name, parameter) → bool, a
            layer, or a list of these; None means all.
        batch_norm: "freeze" (default) or "track".

    Returns:
        The structured names of the parameters that were chosen.

    Raises:
        ValueError: a pattern that matches nothing, an unknown policy, or a BatchNorm that cannot be fixed; nothing is
            changed then.
        TypeError: not a layer, or not a pattern.
        RuntimeError: the model is wrapped in DataParallel with several processes.

    Example:
        >>> model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Conv2D(4, 2, 3))
        >>> freeze(model, ["0", "1"])
        ['0.weight', '0.bias', '1.weight', '1.bias']
        >>> with verify_frozen(model):
        ...     out = model(paddle.randn([2, 3, 8, 8]))
    """
    if batch_norm not in norms.POLICIES:
        raise ValueError(_errors.unknown("BatchNorm policy", batch_norm, norms.POLICIES))
    model = _checked(model_or_layer)
    weights = select.named_weights(model)
    names = _selected(model, weights, patterns)
    chosen = {id(weights[name]) for name in names}
    governed = [
        (path, layer)
        for path, layer in norms.touched(model, patterns, chosen).items()
        if all(id(param) in chosen or not settings.own(param).trainable for param in norms.weights(layer))
    ]
    if batch_norm == "freeze":
        norms.refuse_unfixable(governed)
    _note(model, frozen={id(weights[name]) for name in names if settings.own(weights[name]).trainable})
    _write(model, [weights[name] for name in names], trainable=False)
    for _, layer in governed:
        norms.set_policy(layer, batch_norm)
    return names


def unfreeze(model_or_layer: nn.Layer, patterns: Any = None) -> list[str]:
    """Undo `freeze`, exactly: what it froze trains again, BatchNorm layers normalise as before it.

    Without patterns, what was frozen in another way (`stop_gradient`, `ParamAttr(trainable=False)`) stays frozen; a
    pattern thaws every parameter that it means, whoever froze it: `unfreeze(model, "*")` thaws all. Running statistics
    never become trainable. Under a binding this takes effect at once, but a layer that the strategy's unfreezing plan
    holds back waits for its epoch.

    Args:
        model_or_layer: a model or any layer of one.
        patterns: which parameters, as for `freeze`; None means what `freeze` froze.

    Returns:
        The structured names of the thawed parameters.

    Raises:
        ValueError: a pattern that matches nothing; or without patterns, `freeze` froze nothing here, but something is
            frozen.
        TypeError: not a layer, or not a pattern.
        RuntimeError: the model is wrapped in DataParallel with several processes.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> model[0].bias.stop_gradient = True
        >>> _ = freeze(model)
        >>> unfreeze(model)
        ['0.weight', '1.weight', '1.bias']
        >>> unfreeze(model, "0.bias")
        ['0.bias']
    """
    model = _checked(model_or_layer)
    weights = select.named_weights(model)
    frozen = [name for name, param in weights.items() if not settings.own(param).trainable]
    names = _frozen_here(model, weights) if patterns is None else _selected(model, weights, patterns)
    chosen = {id(weights[name]) for name in names}
    governed = [layer for layer in norms.touched(model, patterns, chosen).values() if norms.policy_of(layer)]
    if frozen and not names and not governed:
        raise ValueError(
            f"freeze() froze nothing here; to thaw what was frozen in another way ({_errors.listing(frozen)}), "
            "give its name or a pattern: unfreeze(model, patterns)"
        )
    _note(model, thawed=chosen)
    _write(model, [weights[name] for name in names], trainable=True)
    for layer in governed:
        norms.set_policy(layer, None)
    return [name for name in names if name in frozen]


@contextlib.contextmanager
def verify_frozen(model: nn.Layer) -> Iterator[list[str]]:
    """Check that nothing that is frozen at the start of the block has changed by its end, bit for bit.

    Watched are frozen parameters (those that a strategy holds back, too) and the running statistics of BatchNorm layers
    that the user froze, unless by `freeze(batch_norm="track")`. A parameter with `requires_grad = False`, which
    paddlepaddle 2.6 ignores, counts as frozen: whoever wrote that believes it is. Memory: a hash per tensor.

    Args:
        model: a model or any layer of one.

    Yields:
        The structured names of what is watched.

    Raises:
        RuntimeError: at the end of the block, naming what changed. An exception from inside the block passes instead.
        TypeError: not a layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> model[0].weight.stop_gradient = True
        >>> with verify_frozen(model) as watched:
        ...     model[1].weight.set_value(model[1].weight + 1)
        >>> watched
        ['0.weight']
    """
    model = _checked_layer(model)
    before = {name: _digest(tensor) for name, tensor in _watched(model).items()}
    ignored = _ignored(model)
    yield list(before)
    now = {**select.named_weights(model), **select.statistics(model)}
    changed = [name for name, digest in before.items() if name not in now or _digest(now[name]) != digest]
    if not changed:
        return
    message = f"frozen, but changed: {_errors.listing(changed)}"
    if any(name in ignored for name in changed):
        message += f". {_IGNORED_TEXT}"
    if any(name in select.statistics(model) for name in changed):
        message += '. BatchNorm moves its statistics in train mode, unless freeze(..., batch_norm="freeze") fixes them'
    raise RuntimeError(message)


def _checked(model: Any) -> nn.Layer:
    if isinstance(model, paddle.DataParallel) and paddle.distributed.get_world_size() > 1:
        raise RuntimeError(
            "paddle.DataParallel settles at wrapping which gradients it exchanges; changed later, the processes drift "
            "apart without an error: freeze first, then wrap"
        )
    return _checked_layer(model)


def _checked_layer(model: Any) -> nn.Layer:
    if not isinstance(model, nn.Layer):
        raise TypeError(f"a paddle.nn.Layer is needed, not {model!r} of type {type(model).__name__}")
    return _compat.unwrap(model)


def _selected(model: nn.Layer, weights: Mapping[str, Any], patterns: Any) -> list[str]:
    if patterns is None:
        return list(weights)
    wanted = select.select_all(model, patterns, "patterns")
    return [name for name in weights if name in wanted]


def _write(model: nn.Layer, params: Collection[Any], trainable: bool) -> None:
    for param in params:
        compat.forget_requires_grad(param)
        settings.set_own(param, trainable=trainable)
    _compat.forget_traces(model)
    ignored = _ignored(model)
    if ignored:
        warnings.warn(f"{_errors.listing(ignored)} train: {_IGNORED_TEXT}", stacklevel=3)


def _note(model: nn.Layer, frozen: Collection[int] = (), thawed: Collection[int] = ()) -> None:
    """Write down in each layer which of its parameters `freeze` froze: a copied layer keeps that, an id would not."""
    for layer in model.sublayers(include_self=True):
        own = {name: id(param) for name, param in select.own_parameters(layer)}
        kept = {name for name in _noted(layer) if own.get(name) not in thawed}
        layer.__dict__[_RECORD] = frozenset(kept | {name for name, key in own.items() if key in frozen})


def _noted(layer: nn.Layer) -> Collection[str]:
    return layer.__dict__.get(_RECORD, ())


def _frozen_here(model: nn.Layer, weights: Mapping[str, Any]) -> list[str]:
    """The parameters that `freeze` froze and nobody thawed since."""
    noted = {
        id(param)
        for layer in model.sublayers(include_self=True)
        for name, param in select.own_parameters(layer)
        if name in _noted(layer)
    }
    return [name for name, param in weights.items() if id(param) in noted and not settings.own(param).trainable]


def _watched(model: nn.Layer) -> dict[str, Any]:
    ignored = _ignored(model)
    found = {n: p for n, p in select.named_weights(model).items() if p.stop_gradient or n in ignored}
    for path, layer in norms.layers(model).items():
        policy, own = norms.policy_of(layer), norms.weights(layer)
        by_hand = policy is None and own and not any(settings.own(param).trainable for param in own)
        if policy == "freeze" or by_hand:
            found.update({select.join(path, name): getattr(layer, name) for name in _compat.statistic_names(layer)})
    return found


def _digest(tensor: Any) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(tensor.numpy())).digest()


def _ignored(model: nn.Layer) -> list[str]:
    weights = select.named_weights(model)
    return [name for name, param in weights.items() if compat.ignores_requires_grad(param)]
