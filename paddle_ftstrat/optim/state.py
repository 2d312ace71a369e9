"""Optimizer state keyed by (structured parameter name, accumulator), independent of Paddle's generated names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.plan import Plan

MASTER = "master_weight"
# What a binding's state holds as tensors; the rest of it is plain data.
TENSORS = ("optimizer", "anchors", "fisher", "best_weights")
NEEDED = ("optimizer", "lr_scheduler", "epoch", "max_train_steps", "anchors")


def check_binding(state_dict: Mapping[str, Any], plan: Plan) -> None:
    """Refuse what is not the state of a binding, or is that of a training of another length or with other phases.

    Raises:
        ValueError: it is not.
    """
    missing = [key for key in NEEDED if key not in state_dict]
    if missing:
        raise ValueError(f"not the state of a binding: {missing} missing")
    if state_dict["max_train_steps"] != plan.max_train_steps:
        raise ValueError(
            f"the state was saved with max_train_steps={state_dict['max_train_steps']}, this binding has "
            f"{plan.max_train_steps}: the LR curve would mix two lengths; bind with the same length"
        )
    phase = state_dict.get("phase", {}).get("phase", 0)
    if phase >= len(plan.phases):
        raise ValueError(f"the state was saved in phase {phase + 1}, but this binding has {len(plan.phases)}")


def get_state(optimizer: Any, weights: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Structured name → accumulator → tensor (the live ones, not copies); parameters without state are left out.

    Args:
        optimizer: a Paddle optimizer.
        weights: structured name → parameter, as `named_weights` gives them.
    """
    state: dict[str, dict[str, Any]] = {}
    stored = _paddle.accumulators(optimizer)
    for name, param in weights.items():
        master = _paddle.master_weight(optimizer, param)
        # Where an optimizer makes the float32 copy itself, the accumulators are under the copy's name.
        keys = (param.name,) if master is None else (param.name, master.name)
        found = {kind: by_param[key] for kind, by_param in stored.items() for key in keys if key in by_param}
        if master is not None:
            found[MASTER] = master
        if found:
            state[name] = found
    return state


def set_state(optimizer: Any, weights: Mapping[str, Any], state: Mapping[str, Mapping[str, Any]]) -> None:
    """Load what `get_state` gave, into this or another optimizer of the same kind. Nothing changes on an error.

    Raises:
        ValueError: a parameter or accumulator that does not exist here, or another shape or dtype.
    """
    strangers = [name for name in state if name not in weights]
    if strangers:
        raise ValueError("optimizer state: " + _errors.unknown("parameter", strangers[0], weights))
    _paddle.create_accumulators(optimizer, [weights[name] for name in state])
    here = get_state(optimizer, weights)
    pairs = []
    for name, kinds in state.items():
        if set(kinds) ^ set(here[name]) == {MASTER}:
            raise ValueError(
                f"optimizer state of {name!r} was saved with {'half-precision' if MASTER in kinds else 'float32'} "
                "weights, unlike these: cast the model as it was, or start the optimizer afresh"
            )
        if set(kinds) != set(here[name]):
            raise ValueError(
                f"optimizer state of {name!r} is {sorted(kinds)}, but this optimizer keeps {sorted(here[name])}: "
                "it was saved with another optimizer"
            )
        for kind, value in kinds.items():
            target = here[name][kind]
            what = f"optimizer state {f'{name}/{kind}'!r}"
            pairs.append((target, fitting(what, value, target.shape, target.dtype)))
    with paddle.no_grad():
        for target, value in pairs:
            target.set_value(value)


def fitting(what: str, value: Any, shape: Any, dtype: Any) -> Any:
    """A saved value as a tensor.

    Raises:
        ValueError: it has another shape or dtype.
    """
    value = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
    if list(value.shape) != list(shape) or value.dtype != dtype:
        raise ValueError(
            f"{what} has shape {list(value.shape)} and dtype {value.dtype}, but {list(shape)} and {dtype} are needed"
        )
    return value
