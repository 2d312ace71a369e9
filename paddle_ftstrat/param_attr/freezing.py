"""Freezing that holds: parameters, BatchNorm's statistics, whole stages; and a check that nothing frozen moved."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import layers
from paddle_ftstrat.param_attr import rows, select, settings

POLICIES = ("freeze", "track")
_RECORD = "_ftstrat_freezing"
# Of a parameter that `freeze` froze.
_FROZEN = "ftstrat_frozen"
_IGNORED_TEXT = (
    f"paddlepaddle {paddle.__version__} ignores `requires_grad = False`; freeze with "
    "paddle_ftstrat.param_attr.freeze or with `stop_gradient = True`"
)
_PLAIN = (type(None), bool, int, float, complex, str, np.ndarray, np.generic)


@dataclass(frozen=True)
class _Record:
    """The policy of a BatchNorm, and what that replaced. It lies in the layer, so that a copy can be thawed, too."""

    policy: str | None = None
    before: Any = None


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
        ValueError, TypeError: a pattern that matches nothing or is none, no layer, an unknown policy, or a BatchNorm
            that cannot be fixed; nothing is changed then.
        RuntimeError: the model is wrapped in DataParallel with several processes.

    Example:
        >>> model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Conv2D(4, 2, 3))
        >>> freeze(model, ["0", "1"])
        ['0.weight', '0.bias', '1.weight', '1.bias']
        >>> with verify_frozen(model):
        ...     out = model(paddle.randn([2, 3, 8, 8]))
    """
    _errors.check_keys("BatchNorm policy", [batch_norm], POLICIES)
    model = _checked(model_or_layer)
    weights = select.named_weights(model)
    names = _selected(model, weights, patterns)
    chosen = {id(weights[name]) for name in names}
    governed = {
        path: layer
        for path, layer in _touched(model, patterns, chosen).items()
        if all(id(param) in chosen or not settings.own(param).trainable for _, param in select.own_parameters(layer))
    }
    unfixable = [path for path, layer in governed.items() if not layers.can_fix_statistics(layer)]
    if batch_norm == "freeze" and unfixable:
        raise ValueError(
            f"subclasses of SyncBatchNorm cannot be told to keep their statistics: {_errors.listing(unfixable)}; "
            'use nn.SyncBatchNorm itself there, or batch_norm="track"'
        )
    for name in names:
        if settings.own(weights[name]).trainable:
            settings.note(weights[name], _FROZEN, True)
    _write(model, [weights[name] for name in names], trainable=False)
    for layer in governed.values():
        set_policy(layer, batch_norm)
    return names


def unfreeze(model_or_layer: nn.Layer, patterns: Any = None) -> list[str]:
    """Undo `freeze`, exactly: what it froze trains again, BatchNorm layers normalise as before it.

    Without patterns, what was frozen in another way (`stop_gradient`, `ParamAttr(trainable=False)`) stays frozen; a
    pattern thaws every parameter that it means, whoever froze it: `unfreeze(model, "*")` thaws all. Running statistics
    never become trainable. Under a binding this takes effect at once, but a layer that the strategy's unfreezing plan
    holds back waits for its epoch.

    Args:
        model_or_layer, patterns: as for `freeze`; None means what `freeze` froze.

    Returns:
        The structured names of the thawed parameters.

    Raises:
        ValueError, TypeError: as for `freeze`; or without patterns, only something else than `freeze` froze here.
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
    by_freeze = [name for name in frozen if settings.noted(weights[name], _FROZEN)]
    names = by_freeze if patterns is None else _selected(model, weights, patterns)
    chosen = {id(weights[name]) for name in names}
    governed = [layer for layer in _touched(model, patterns, chosen).values() if policy_of(layer)]
    if frozen and not names and not governed:
        raise ValueError(
            f"freeze() froze nothing here; to thaw what was frozen in another way ({_errors.listing(frozen)}), "
            "give its name or a pattern: unfreeze(model, patterns)"
        )
    for name in names:
        settings.note(weights[name], _FROZEN, None)
    _write(model, [weights[name] for name in names], trainable=True)
    for layer in governed:
        set_policy(layer, None)
    return [name for name in names if name in frozen]


@contextlib.contextmanager
def verify_frozen(model: nn.Layer) -> Iterator[list[str]]:
    """Check that nothing that is frozen at the start of the block has changed by its end, bit for bit.

    Watched are frozen parameters (those that a strategy holds back, too), frozen rows, and the running statistics of
    BatchNorm layers that the user froze, unless by `freeze(batch_norm="track")`. A parameter with `requires_grad =
    False`, which paddlepaddle 2.6 ignores, counts as frozen: whoever wrote that believes it is. Memory: a hash each.

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
    _paddle.check_layer(model)
    model = _paddle.unwrap(model)
    before = {name: _digest(tensor) for name, tensor in _watched(model).items()}
    ignored = _ignored(model)
    yield list(before)
    weights = select.named_weights(model)
    now = {**weights, **select.statistics(model), **rows.values(weights.items())}
    changed = [name for name, digest in before.items() if name not in now or _digest(now[name]) != digest]
    if not changed:
        return
    message = f"frozen, but changed: {_errors.listing(changed)}"
    if any(name in ignored for name in changed):
        message += f". {_IGNORED_TEXT}"
    if any(name in select.statistics(model) for name in changed):
        message += '. BatchNorm moves its statistics in train mode, unless freeze(..., batch_norm="freeze") fixes them'
    raise RuntimeError(message)


class FrozenStage(contextlib.ExitStack):
    """A boundary made by `freeze_stage`: `remove()` takes it away, and so does leaving its `with` block."""

    def __init__(self, layer: nn.Layer, model: nn.Layer) -> None:
        super().__init__()
        self.callback(_paddle.forget_traces, model)
        self.callback(layer.register_forward_post_hook(_cut).remove)
        _paddle.forget_traces(model)

    def remove(self) -> None:
        """Let gradients through again; a second call does nothing."""
        self.close()


def freeze_stage(layer: nn.Layer, model: nn.Layer | None = None) -> FrozenStage:
    """Freeze everything up to and including a layer: no gradient passes its output, and none is kept below it.

    The output, also one of tuples, lists, dicts and dataclasses, is cut off from what made it: nothing that reaches the
    loss only through this layer gets a gradient. The activations below the boundary are freed at once.

    Parameters that are cut off stay `stop_gradient=False`, and optimizers skip them for want of a gradient. Two things
    are left to you. A gradient of zeros is a gradient, which momentum and decay act on: clear gradients below the layer
    with `optimizer.clear_grad(set_to_zero=False)`, as `Binding.step` does. And BatchNorm statistics below go on moving
    unless `freeze` fixes them.

    Args:
        layer: the topmost frozen layer. A skip connection around it is not cut.
        model: the model it is part of; only needed where `paddle.jit.to_static` has compiled that already.

    Returns:
        A handle with `remove()`, which is a context manager, too.

    Raises:
        TypeError: not a layer; or, in the forward, an output with something else than tensors and plain values in it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> with freeze_stage(model[1]):
        ...     model(paddle.ones([1, 2])).backward()
        >>> [param.grad is None for param in model.parameters()]
        [True, True, True, True, False, False]
    """
    model = layer if model is None else model
    _paddle.check_layer(layer, "layer")
    _paddle.check_layer(model)
    for param in layer.parameters():
        param.clear_gradient(False)
    return FrozenStage(layer, _paddle.unwrap(model))


def batch_norms(model: nn.Layer) -> dict[str, nn.Layer]:
    """The layers of a model that keep running statistics, by path.

    Example:
        >>> list(batch_norms(nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4))))
        ['1']
    """
    return {path: layer for path, layer in model.named_sublayers(include_self=True) if _paddle.is_batch_norm(layer)}


def policy_of(layer: nn.Layer) -> str | None:
    """The policy that a freeze has put on a BatchNorm layer, None where there was none."""
    return _record(layer).policy


def set_policy(layer: nn.Layer, policy: str | None) -> None:
    """Fix a BatchNorm layer's statistics ("freeze") or give it back its own way ("track", None)."""
    record = _record(layer)
    if record.policy == "freeze":
        layers.release_statistics(layer, record.before)
    layer.__dict__[_RECORD] = _Record(policy, layers.fix_statistics(layer) if policy == "freeze" else None)


def _checked(model: Any) -> nn.Layer:
    if isinstance(model, paddle.DataParallel) and paddle.distributed.get_world_size() > 1:
        raise RuntimeError(
            "paddle.DataParallel settles at wrapping which gradients it exchanges; changed later, the processes drift "
            "apart without an error: freeze first, then wrap"
        )
    _paddle.check_layer(model)
    return _paddle.unwrap(model)


def _selected(model: nn.Layer, weights: Mapping[str, Any], patterns: Any) -> list[str]:
    if patterns is None:
        return list(weights)
    wanted = select.select_all(model, patterns, "patterns")
    return [name for name in weights if name in wanted]


def _write(model: nn.Layer, params: Collection[Any], trainable: bool) -> None:
    for param in params:
        layers.forget_requires_grad(param)
        settings.set_own(param, trainable=trainable)
    layers.trained_changed(model)
    ignored = _ignored(model)
    if ignored:
        _errors.warn(f"{_errors.listing(ignored)} train: {_IGNORED_TEXT}")


def _record(layer: nn.Layer) -> _Record:
    return layer.__dict__.get(_RECORD, _Record())


def _touched(model: nn.Layer, patterns: Any, chosen: Collection[int]) -> dict[str, nn.Layer]:
    """The BatchNorm layers that a call is about: with a chosen weight, or with none at all and statistics it means."""
    selectors = [] if patterns is None else select.as_list(patterns)
    found = {}
    for path, layer in batch_norms(model).items():
        own = [id(param) for _, param in select.own_parameters(layer)]
        by_statistics = not own and any(_means_statistics(selector, path, layer) for selector in selectors)
        if patterns is None or by_statistics or any(key in chosen for key in own):
            found[path] = layer
    return found


def _means_statistics(selector: Any, path: str, layer: nn.Layer) -> bool:
    if isinstance(selector, nn.Layer):
        return any(part is layer for part in selector.sublayers(include_self=True))
    named = {select.join(path, name): getattr(layer, name) for name in _paddle.statistic_names(layer)}
    return any(select.means(selector, [name], (name, tensor)) for name, tensor in named.items())


def _watched(model: nn.Layer) -> dict[str, Any]:
    ignored, weights = _ignored(model), select.named_weights(model)
    found = {name: param for name, param in weights.items() if param.stop_gradient or name in ignored}
    found.update(rows.values((name, param) for name, param in weights.items() if name not in found))
    for path, layer in batch_norms(model).items():
        own = [settings.own(param).trainable for _, param in select.own_parameters(layer)]
        by_hand = policy_of(layer) is None and own and not any(own)
        if policy_of(layer) == "freeze" or by_hand:
            found.update({select.join(path, name): getattr(layer, name) for name in _paddle.statistic_names(layer)})
    return found


def _digest(tensor: Any) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(tensor.numpy()).data).digest()


def _ignored(model: nn.Layer) -> list[str]:
    weights = select.named_weights(model)
    return [name for name, param in weights.items() if layers.ignores_requires_grad(param)]


def _cut(layer: nn.Layer, _: Any, output: Any) -> Any:
    try:
        return _detached(output)
    except TypeError as error:
        raise TypeError(
            f"freeze_stage cannot cut the output of {type(layer).__name__}, which holds a {error}: return tensors, or "
            "tuples, lists, dicts or dataclasses of them"
        ) from None


def _detached(output: Any) -> Any:
    if hasattr(output, "stop_gradient"):
        # Setting stop_gradient would keep the graph alive below, and mark the input of a layer that returns its input.
        return output.detach()
    if isinstance(output, _PLAIN):
        return output
    if isinstance(output, MutableMapping):
        result = copy.copy(output)
        for key, value in output.items():
            result[key] = _detached(value)
        return result
    if isinstance(output, (tuple, list)):
        values = [_detached(value) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(output, **{name: _detached(getattr(output, name)) for name in fields})
    raise TypeError(type(output).__name__)
