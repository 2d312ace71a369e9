"""One Parameter for all layers whose ParamAttr has the same name."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle import layers
from paddle_ftstrat.param_attr import settings

_FIELDS = ("learning_rate", "regularizer", "trainable", "need_clip", "do_model_average", "initializer")


@dataclass(frozen=True)
class _Shared:
    """A parameter with the ParamAttr fields and the layer that it was first built with."""

    parameter: Any
    fields: Mapping[str, Any]
    layer: str


class SharedParameters(Mapping[str, Any]):
    """The parameters that layers built inside `shared_parameters()` may share: name → Parameter."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self._entries: dict[str, _Shared] = {}
        if isinstance(known, SharedParameters):
            self._entries.update(known._entries)
        else:
            self._entries.update({name: _given(name, param) for name, param in (known or {}).items()})

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise KeyError(_errors.unknown("shared name", name, self._entries))
        return self._entries[name].parameter

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


# A ContextVar, so that another thread or task that builds layers meanwhile sees no sharing.
_OPEN: ContextVar[tuple[SharedParameters, ...]] = ContextVar("shared_parameters", default=())


@contextmanager
def shared_parameters(known: Mapping[str, Any] | None = None) -> Iterator[SharedParameters]:
    """Layers built inside with equal `ParamAttr(name=...)` share one Parameter.

    The first layer makes the parameter; each later one gets that same object, so that the optimizer, the clip norm and
    `parameters()` count it once, gradients add up, and `state_dict` holds it under every layer's name. Layers without a
    name, outside the `with` or in other threads are built as ever. Nested blocks see the names of the outer ones.

    Attributes have to agree: `learning_rate`, `regularizer`, `trainable`, `need_clip`, `do_model_average` and, if the
    later layer states one, `initializer`. A later layer that gives only the name as a string (`weight_attr="emb"`)
    states none and takes what the first one has.

    Args:
        known: parameters to begin with, by name: what an earlier `with shared_parameters() as known` gave, or any
            mapping, such as `{"emb": pretrained.embedding.weight}`. Default: none.

    Yields:
        name → Parameter of what has been built so far.

    Raises:
        ValueError: two layers want the same name with another shape, dtype or attribute (the message names both), or a
            layer outside the `with` already has the name.
        TypeError: `known` is no mapping, or holds something that is no Parameter.

    Example:
        >>> import paddle
        >>> query = paddle.ParamAttr(name="words", learning_rate=0.5)
        >>> with paddle.utils.unique_name.guard(), shared_parameters() as shared:
        ...     left = paddle.nn.Embedding(10, 4, weight_attr=query)
        ...     right = paddle.nn.Embedding(10, 4, weight_attr="words")
        >>> left.weight is right.weight is shared["words"]
        True
        >>> len(paddle.nn.LayerList([left, right]).parameters())
        1

    Source: equal names mean one parameter in Paddle's static graph; dygraph refuses the second layer.
    """
    if known is not None and not isinstance(known, Mapping):
        raise TypeError(f"known must be a mapping from name to Parameter, not {type(known).__name__}")
    scope = SharedParameters(known)
    with layers.parameter_creation_through(_create):
        token = _OPEN.set((*_OPEN.get(), scope))
        try:
            yield scope
        finally:
            _OPEN.reset(token)


def _create(make: Any, layer: str, attr: Any, shape: Any, dtype: Any) -> Any:
    scopes, name = _OPEN.get(), _name_of(attr)
    if not scopes or name is None or not paddle.in_dynamic_mode():
        return make()
    label = f"layer {layer!r} ({_building_line()})"
    shared = next((scope._entries[name] for scope in reversed(scopes) if name in scope), None)
    if shared is None:
        if layers.name_is_used(name):
            raise ValueError(
                f"{label} cannot share the parameter {name!r}: that name belongs to a layer built before or outside "
                "this `with shared_parameters()`. Build that layer inside too; or pass its parameter, "
                f"`shared_parameters({{{name!r}: layer.weight}})`; or, for a second model of its own, build it inside "
                "`with paddle.utils.unique_name.guard():`"
            )
        shared = _Shared(make(), _fields_of(attr), label)
    else:
        _check_same(name, shared, attr, shape, dtype, label)
    for scope in scopes:
        scope._entries.setdefault(name, shared)
    return shared.parameter


def _name_of(attr: Any) -> str | None:
    if isinstance(attr, str):
        return attr
    if isinstance(attr, paddle.static.WeightNormParamAttr) or not isinstance(attr, paddle.ParamAttr):
        return None
    return attr.name


def _fields_of(attr: Any) -> dict[str, Any]:
    attr = paddle.ParamAttr(name=attr) if isinstance(attr, str) else attr
    return {field: getattr(attr, field) for field in _FIELDS}


def _given(name: str, param: Any) -> _Shared:
    if not isinstance(param, paddle.Tensor):
        raise TypeError(f"known[{name!r}] must be a Parameter, not {type(param).__name__}")
    own = settings.own(param)
    fields = {field: getattr(own, field, None) for field in _FIELDS}
    fields["do_model_average"] = bool(getattr(param, "do_model_average", True))
    return _Shared(param, fields, f"the parameter {param.name!r} given to shared_parameters")


def _check_same(name: str, shared: _Shared, attr: Any, shape: Any, dtype: Any, label: str) -> None:
    here, there = [int(size) for size in shape], list(shared.parameter.shape)
    if here != there:
        hint = ""
        if here == there[::-1]:
            hint = ". One is the other transposed: use paddle.matmul(x, weight, transpose_y=True) instead of a layer"
        raise ValueError(_conflict(name, shared, label, "shape", there, here) + hint)
    wanted = paddle.empty([0], dtype=dtype or paddle.get_default_dtype()).dtype
    if wanted != shared.parameter.dtype:
        raise ValueError(_conflict(name, shared, label, "dtype", shared.parameter.dtype, wanted))
    if isinstance(attr, str):
        return
    for field, value in _fields_of(attr).items():
        unstated = field == "initializer" and value is None
        if not unstated and not settings.same(value, shared.fields[field]):
            message = _conflict(name, shared, label, field, _text(shared.fields[field]), _text(value))
            raise ValueError(f"{message}. Give both the same ParamAttr, or the later one only the name: {name!r}")


def _conflict(name: str, shared: _Shared, label: str, what: str, there: Any, here: Any) -> str:
    return f"parameter {name!r} is shared, but its {what} is {there} in {shared.layer} and {here} in {label}"


def _text(value: Any) -> str:
    """A value for a message; Paddle's initializers and regularizers print as an address."""
    if not hasattr(value, "__dict__"):
        return repr(value)
    inside = {key.lstrip("_"): item for key, item in vars(value).items() if np.isscalar(item)}
    return f"{type(value).__name__}({', '.join(f'{key}={item!r}' for key, item in inside.items())})"


def _building_line() -> str:
    """`file:line` of the code that builds the layer: the innermost frame outside Paddle and this package."""
    for frame, line in traceback.walk_stack(None):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("paddle", "paddle_ftstrat", "contextlib", "decorator"):
            return f"{frame.f_code.co_filename}:{line}"
    return "unknown line"
