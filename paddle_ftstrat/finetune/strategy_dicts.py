"""The dicts of CombinedStrategy: their keys, defaults and checks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from paddle_ftstrat import _errors

SCHEDULER = {
    "warmup": 0.0,
    "linear_decay": {"start_point": 1.0, "end_learning_rate": 0.0},
    "noam_decay": False,
    "discriminative": {"blocks": 0, "factor": 2.6, "params_layer": None},
    "gradual_unfreeze": {"blocks": 0, "params_layer": None},
    "slanted_triangle": {"cut_fraction": 0.0, "ratio": 32},
}
REGULARIZATION = {"L2": 0.0, "L2SP": 0.0, "weight_decay": 0.0}
CLIP = {"GlobalNorm": 0.0, "Norm": 0.0, "Value": 0.0}
# The entry whose default above leaves its key off, as it does in PaddleHub.
_SWITCHES = {"linear_decay": "start_point", "slanted_triangle": "cut_fraction"}


def items_of(what: str, given: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """The entries of one of the three dicts, None standing for an empty one."""
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a dict, not {_errors.shown(given)} of type {type(given).__name__}")
    return list(given.items())


def as_entries(name: str, value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a dict-valued key, which may come as a dict, as keywords, or as the number of blocks."""
    if isinstance(value, Mapping):
        return {**value, **values}
    if value is None:
        return dict(values)
    if "blocks" in SCHEDULER[name] and not isinstance(value, bool) and hasattr(value, "__index__"):
        return {"blocks": value, **values}
    expected = f"a dict with {_errors.listing(SCHEDULER[name])}"
    expected += " or a number of blocks" if "blocks" in SCHEDULER[name] else ""
    raise TypeError(f"scheduler.{name} must be {expected}, not {_errors.shown(value)}")


def merged(name: str, current: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """`current` with new entries checked and put in; `discriminative` without a number of blocks is for every layer."""
    _errors.check_keys(f"key of scheduler.{name}", entries, SCHEDULER[name])
    checks = {**_CHECKS, "blocks": _blocks_or_every_layer} if name == "discriminative" else _CHECKS
    checked = {key: checks[key](f"scheduler.{name}.{key}", value) for key, value in entries.items()}
    found = {**current, **checked}
    if name == "discriminative" and not {"blocks", "params_layer"} & set(entries) and not found["params_layer"]:
        found["blocks"] = found["blocks"] or None
    switch = _SWITCHES.get(name)
    if switch is not None and switch not in entries and found[switch] == SCHEDULER[name][switch]:
        warnings.warn(f"scheduler.{name} is off as long as {switch} is not given, as in PaddleHub", stacklevel=3)
    return found


def _params_layer(what: str, value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict parameter name → layer number, not {_errors.shown(value)}")
    return {str(name): _errors.check_whole(f"{what}[{name!r}]", number) for name, number in value.items()}


def _blocks_or_every_layer(what: str, value: Any) -> int | None:
    return None if value is None else _errors.check_whole(what, value)


def boolean(what: str, value: Any) -> bool:
    """A switch; None, as in `add_scheduler("noam_decay")`, means on."""
    return True if value is None else _errors.check_flag(what, value)


_CHECKS = {
    "start_point": lambda what, value: _errors.check_number(what, value, minimum=0, maximum=1),
    "end_learning_rate": lambda what, value: _errors.check_number(what, value, minimum=0),
    "cut_fraction": lambda what, value: _errors.check_number(what, value, minimum=0, maximum=1),
    "ratio": lambda what, value: _errors.check_number(what, value, minimum=1),
    "factor": lambda what, value: _errors.check_number(what, value, above=0),
    "blocks": _errors.check_whole,
    "params_layer": _params_layer,
}
