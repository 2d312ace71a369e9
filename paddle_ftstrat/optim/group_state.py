"""The state of an optimizer with parameter groups, as {"state", "param_groups"} with numbers instead of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.custom import State
from paddle_ftstrat.optim.groups import COMMON, ParamGroup, check_options

STEP, MASTER = "step", "master_weight"


@dataclass(frozen=True)
class Loaded:
    """A checked state: groups with the saved options, the updates done, and (parameter, name → tensor) pairs."""

    groups: list[ParamGroup]
    steps: int
    states: list[tuple[Any, dict[str, Any]]]
    stateless: list[Any]


def packed(
    param_groups: Sequence[ParamGroup],
    states: Mapping[str, State],
    masters: Mapping[str, Any],
    steps: int,
) -> dict[str, Any]:
    """What `state_dict` gives.

    Args:
        param_groups: the groups.
        states: parameter's name → its state.
        masters: parameter's name → float32 copy.
        steps: updates done.
    """
    state: dict[Any, Any] = {STEP: steps}
    described, number = [], 0
    for group in param_groups:
        numbers = list(range(number, number + len(group.parameters)))
        described.append({**group.options, "params": numbers})
        for index, param in zip(numbers, group.parameters):
            known = states.get(param.name)
            kinds = {} if known is None else {**known, **known.numbers}
            if param.name in masters:
                kinds[MASTER] = masters[param.name]
            if kinds:
                state[index] = kinds
        number += len(numbers)
    return {"state": state, "param_groups": described}


def checked(optimizer: Any, state_dict: Mapping[str, Any], defaults: Mapping[str, Any]) -> Loaded:
    """A state dict, compared with the optimizer that is to take it over.

    Args:
        optimizer: an optimizer with parameter groups.
        state_dict: what `packed` gave.
        defaults: the optimizer's options.

    Raises:
        ValueError: it does not fit.
    """
    param_groups = optimizer.param_groups
    missing = [key for key in ("state", "param_groups") if key not in state_dict]
    if missing:
        raise ValueError(f"not the state of an optimizer with parameter groups: {missing} missing")
    saved = state_dict["param_groups"]
    sizes, here = [len(group["params"]) for group in saved], [len(group.parameters) for group in param_groups]
    if sizes != here:
        raise ValueError(f"the state has parameter groups of {sizes} parameters, this optimizer of {here}")
    loaded = [
        ParamGroup(group.parameters, _options(given, defaults, number), f"parameter group {number}")
        for number, (given, group) in enumerate(zip(saved, param_groups))
    ]
    states, stateless, number = [], [], 0
    entries = {int(key): value for key, value in state_dict["state"].items() if key != STEP}
    for group in loaded:
        names = optimizer.state_names(group.options)
        for param in group.parameters:
            if number in entries:
                states.append((param, _values(number, entries.pop(number), param, names, optimizer.state_numbers)))
            else:
                stateless.append(param)
            number += 1
    if entries:
        raise ValueError(f"the state has entries for parameters {sorted(entries)}, this optimizer has {number}")
    steps = _errors.check_whole("state['step']", state_dict["state"].get(STEP, 0))
    return Loaded(loaded, steps, states, stateless)


def write(state: State, master: Any, values: Mapping[str, Any]) -> None:
    """Copy checked values into the optimizer's state and float32 copy of one parameter."""
    state.numbers.clear()
    for name, value in values.items():
        if not isinstance(value, paddle.Tensor):
            state.numbers[name] = value
        elif name != MASTER:
            paddle.assign(value, output=state[name])
        elif master is not None:
            paddle.assign(value, output=master)


def _options(given: Mapping[str, Any], defaults: Mapping[str, Any], number: int) -> dict[str, Any]:
    options = {key: value for key, value in given.items() if key != "params"}
    check_options(f"option of parameter group {number} of the state", options, (*defaults, *COMMON))
    absent = [key for key in defaults if key not in options]
    if absent:
        raise ValueError(f"parameter group {number} of the state lacks {absent}: it was saved with another optimizer")
    return options


def _values(
    number: int, kinds: Mapping[str, Any], param: Any, names: Mapping[str, float], numbers: Sequence[str]
) -> dict[str, Any]:
    if set(kinds) - {MASTER, *numbers} != set(names):
        raise ValueError(
            f"the state of parameter {number} is {sorted(kinds)}, but this optimizer keeps {sorted(names)}: it was "
            "saved with another optimizer or other options"
        )
    half = param.dtype in (paddle.float16, paddle.bfloat16)
    dtype = paddle.float32 if half else param.dtype
    found: dict[str, Any] = {}
    for name, value in kinds.items():
        if name in numbers:
            found[name] = _errors.check_number(f"{name!r} of parameter {number}", value)
            continue
        tensor = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
        if list(tensor.shape) != list(param.shape) or tensor.dtype != dtype:
            raise ValueError(
                f"{name!r} of parameter {number} ({param.name}) has shape {list(tensor.shape)} and dtype "
                f"{tensor.dtype} in the state, but {list(param.shape)} and {dtype} are needed"
            )
        found[name] = tensor
    return found
