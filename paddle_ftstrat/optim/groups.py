"""Parameter groups as torch and OneFlow have them: dicts of options with an absolute LR, checked when written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.masters import wide
from paddle_ftstrat.param_attr import rows

MAX_NORM, NORM_TYPE = "clip_grad_max_norm", "clip_grad_norm_type"
# What a group may carry besides the optimizer's own options.
COMMON = (MAX_NORM, NORM_TYPE, "initial_lr", "name")
_PADDLES_WORDS = {"learning_rate": "lr", "epsilon": "eps", "beta1": "betas", "beta2": "betas", "rho": "alpha"}


class ParamGroup(MutableMapping[str, Any]):
    """The parameters of one group under "params", and their options; a dict that checks what is written to it.

    Args:
        params: the group's parameters.
        options: every option of the optimizer, and any of COMMON.
        where: how to call the group in an error.

    Raises:
        ValueError: an unknown key or a value out of range; the group keeps the old value.
        TypeError: a value of the wrong type.

    Example:
        >>> group = ParamGroup([], {"lr": 0.1, "momentum": 0.9})
        >>> group["lr"] = 0.01
        >>> group["momentun"] = 0.5
        Traceback (most recent call last):
        ValueError: unknown option of the parameter group 'momentun'. Did you mean 'momentum'? ...
    """

    def __init__(self, params: Iterable[Any], options: Mapping[str, Any], where: str = "the parameter group") -> None:
        self.parameters = tuple(params)
        self._where = where
        self._allowed = (*options, *(key for key in COMMON if key not in options))
        self.options: dict[str, Any] = {}
        self.update(options)
        if NORM_TYPE in options and MAX_NORM not in options:
            raise ValueError(f"{where} has {NORM_TYPE} without {MAX_NORM}: give both, or only {MAX_NORM}")

    def __getitem__(self, key: str) -> Any:
        return self.parameters if key == "params" else self.options[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "params":
            raise ValueError(f"the parameters of {self._where} are fixed: use optimizer.add_param_group for more")
        check_options(f"option of {self._where}", [key], self._allowed)
        self.options[key] = _CHECKS[key](f"{key} of {self._where}", value) if key in _CHECKS else value

    def __delitem__(self, key: str) -> None:
        if key not in COMMON:
            raise ValueError(f"{key!r} of {self._where} is needed by the optimizer and cannot be deleted")
        del self.options[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self.options))

    def __len__(self) -> int:
        return 1 + len(self.options)

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}: {value!r}" for key, value in self.options.items())
        return f"ParamGroup({len(self.parameters)} parameters, {shown})"


def read_groups(
    params: Any, defaults: Mapping[str, Any], taken: Iterable[Any] = (), start: int = 0
) -> list[ParamGroup]:
    """What was given as an optimizer's `params`, as groups with every option; `start` is the first one's number."""
    entries = _listed("params", params)
    if not entries:
        raise ValueError("params is empty: the optimizer has nothing to update")
    dicts = [isinstance(entry, Mapping) for entry in entries]
    if not any(dicts):
        entries = [{"params": entries}]
    elif not all(dicts):
        raise TypeError("params mixes dicts and parameters: give a list of parameters or a list of dicts")
    groups = []
    for number, entry in enumerate(entries, start):
        where = f"parameter group {number}" if len(entries) + start > 1 else "the parameter group"
        if "params" not in entry:
            raise ValueError(f"{where} has no key 'params', only {_errors.listing(entry)}")
        members = [entry["params"]] if isinstance(entry["params"], paddle.Tensor) else entry["params"]
        members = _listed(f"params of {where}", members)
        if not members:
            raise ValueError(f"params of {where} is empty")
        _check_tensors(where, members)
        given = {key: value for key, value in entry.items() if key != "params"}
        check_options(f"option of {where}", given, (*defaults, *COMMON))
        groups.append(ParamGroup(members, {**defaults, **given}, where))
    _check_distinct([*taken, *(param for group in groups for param in group.parameters)])
    return groups


def check_options(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse an unknown option; for Paddle's word for one of ours, name ours."""
    allowed = list(allowed)
    for key in given:
        ours = _PADDLES_WORDS.get(key)
        if key not in allowed and ours in allowed:
            raise ValueError(f"unknown {what} {key!r}: it is called {ours!r} here. Allowed: {_errors.listing(allowed)}")
    _errors.check_keys(what, given, allowed)


def clip(group: ParamGroup) -> None:
    """Scale the group's gradients in place so that their norm is at most its `clip_grad_max_norm`."""
    rows.silence((p, p.grad) for p in group.parameters)
    grads = [p.grad for p in group.parameters if not p.stop_gradient and getattr(p, "need_clip", True)]
    grads = [grad for grad in grads if grad is not None]
    if any(grad.is_selected_rows() for grad in grads):
        raise ValueError("clip_grad cannot clip sparse gradients: build the Embedding with sparse=False")
    order = group.get(NORM_TYPE, 2.0)
    norms = [paddle.norm(wide(grad), order) for grad in grads]
    # The norm of the norms: of order 0, as torch, how many gradients are not zero.
    norm = float(paddle.norm(paddle.stack(norms), order)) if norms else 0.0
    if not math.isfinite(norm):
        raise RuntimeError(f"the gradients' norm in {group!r} is {norm}: they cannot be clipped")
    # The constant is OneFlow's and torch's; without it their numbers differ in the sixth digit.
    factor = group[MAX_NORM] / (norm + 1e-6)
    if factor < 1.0:
        for grad in grads:
            grad.scale_(factor)


def _listed(what: str, params: Any) -> list[Any]:
    if isinstance(params, (set, frozenset)):
        raise TypeError(f"{what} is a set, which has no order that a saved state could rely on: give a list")
    if isinstance(params, nn.Layer):
        raise TypeError(f"{what} is a layer: give its parameters, {type(params).__name__}.parameters()")
    if isinstance(params, (paddle.Tensor, Mapping, str)) or not isinstance(params, Iterable):
        raise TypeError(f"{what} must be an iterable of parameters or of dicts, not {type(params).__name__}")
    return list(params)


def _check_tensors(where: str, members: Iterable[Any]) -> None:
    for member in members:
        if not isinstance(member, paddle.Tensor):
            raise TypeError(f"{where} holds {member!r} of type {type(member).__name__}, which is no parameter")
        if not member.is_leaf:
            raise ValueError(f"{where}: tensor {member.name!r} is computed from others, only leaves can be updated")


def _check_distinct(params: Iterable[Any]) -> None:
    seen: dict[str, Any] = {}
    for param in params:
        if param.name not in seen:
            seen[param.name] = param
        elif seen[param.name] is param:
            raise ValueError(f"parameter {param.name!r} of shape {list(param.shape)} is in the groups twice")
        else:
            raise ValueError(f"two parameters have the name {param.name!r}, by which Paddle keeps optimizer state")


def _betas(what: str, value: Any) -> tuple[float, float]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{what} must be a pair of numbers, not {value!r}")
    first = _errors.check_number(f"{what}, the first,", value[0], minimum=0, below=1)
    return first, _errors.check_number(f"{what}, the second,", value[1], minimum=0, below=1)


def _norm_type(what: str, value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not hasattr(value, "__float__") or math.isnan(float(value)):
        raise TypeError(f"{what} must be a number, inf or -inf, not {value!r}")
    return float(value)


_not_negative = partial(_errors.check_number, minimum=0)
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("lr", "lr_decay", "weight_decay", "eps", "momentum", "initial_accumulator_value"), _not_negative),
    **dict.fromkeys(("alpha", "dampening", "initial_lr", MAX_NORM), _not_negative),
    **dict.fromkeys(
        ("nesterov", "maximize", "centered", "amsgrad", "do_bias_correction", "adam_w_mode"), _errors.check_flag
    ),
    "betas": _betas,
    NORM_TYPE: _norm_type,
}
