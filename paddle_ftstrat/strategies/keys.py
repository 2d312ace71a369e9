"""The dicts of a strategy: their keys, defaults and checks, and the schedule and depth factors that they mean.

A key that is left out of an entry has PaddleHub's default. Every registered schedule is a key of the scheduler dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.plan import Discriminative, Phase, Top
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.schedules.schedule import SCHEDULES, Schedule, join

# PaddleHub's keys with its defaults, which are off.
SCHEDULER: dict[str, Any] = {
    "warmup": 0.0,
    "linear_decay": {"start_point": 1.0, "end_learning_rate": 0.0},
    "noam_decay": False,
    "discriminative": {"blocks": 0, "factor": 2.6, "params_layer": None},
    "gradual_unfreeze": {"blocks": 0, "params_layer": None},
    "slanted_triangle": {"cut_fraction": 0.0, "ratio": 32},
}
# A weight decay of 0 switches an optimizer's own off; None leaves it alone.
REGULARIZATION: dict[str, float | None] = {"L2": 0.0, "L2SP": 0.0, "weight_decay": None}
CLIP = {"GlobalNorm": 0.0, "Norm": 0.0, "Value": 0.0}
# The entry whose default above leaves its key off, as it does in PaddleHub.
_SWITCHES = {"linear_decay": "start_point", "slanted_triangle": "cut_fraction"}
_LAYER_DECAY = {"decay": 1.0, "minimum": 0.0}
# The entry that a plain number stands for.
_SHORT = {"discriminative": "blocks", "gradual_unfreeze": "blocks", "layer_decay": "decay"}
# Those that give the LR by depth.
DEPTH = ("discriminative", "layer_decay", "layer_factors")


def known_keys() -> list[str]:
    """The keys of the scheduler dict: PaddleHub's, the others for the LR by depth, and all registered schedules."""
    return list(dict.fromkeys([*SCHEDULER, *DEPTH, *SCHEDULES]))


def items_of(what: str, given: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """The entries of one of the three dicts, None standing for an empty one."""
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a dict, not {_errors.shown_with_type(given)}")
    return list(given.items())


def entry(name: str, current: Any, value: Any, values: Mapping[str, Any]) -> Any:
    """What a key of the scheduler dict holds once `value`, or the entries `values`, are put over `current`.

    Raises:
        ValueError: an unknown key at any depth, or a value out of range.
        TypeError: a value of the wrong type.
    """
    _errors.check_keys("scheduler", [name], known_keys())
    if name in _SINGLE:
        if values:
            raise TypeError(f"scheduler {name!r} takes one value, not the entries {sorted(values)}")
        return _SINGLE[name](f"scheduler.{name}", value)
    defaults = _defaults(name)
    entries = _as_entries(name, value, values, defaults)
    _errors.check_keys(f"key of scheduler.{name}", entries, defaults)
    checked = dict(entries)
    for key in _CHECKS.keys() & entries:
        checked[key] = _CHECKS[key](f"scheduler.{name}.{key}", entries[key])
    if name == "gradual_unfreeze" and "blocks" in entries:
        _errors.check_whole("scheduler.gradual_unfreeze.blocks", entries["blocks"])
    if name not in SCHEDULER and name in SCHEDULES:
        # Its own function judges the options, before the first step.
        build(name, {**(current or {}), **checked}, 1.0, 1000)
    found = {**(defaults if current is None else current), **checked}
    if name == "discriminative" and not {"blocks", "params_layer"} & set(entries) and not found["params_layer"]:
        found["blocks"] = found["blocks"] or None
    switch = _SWITCHES.get(name)
    if switch is not None and switch not in entries and found[switch] == SCHEDULER[name][switch]:
        _errors.warn(f"scheduler.{name} is off as long as {switch} is not given, as in PaddleHub")
    return found


def lr_schedule(given: Mapping[str, Any], learning_rate: float, max_train_steps: int | None) -> Schedule:
    """The schedule of the LR that a scheduler dict means; warns of keys that others override.

    Raises:
        ValueError: it needs the length of the training, or two schedules are asked for.
    """
    asked = asked_schedules(given)
    if not asked:
        return curves.constant(learning_rate)
    steps = known_length(f"scheduler {asked}", max_train_steps)
    chosen, *others = asked
    warmup = given["warmup"]
    if chosen not in SCHEDULER:
        if set(others) - {"warmup"}:
            raise ValueError(f"scheduler {asked}: give one of them")
        return _with_warmup(warmup, chosen, given[chosen], learning_rate, steps)
    ignored = [name for name in others if name != "warmup" or chosen == "slanted_triangle"]
    if ignored:
        _errors.warn(f"scheduler {chosen!r} takes over: {', '.join(ignored)} ignored")
    if chosen == "noam_decay" and curves.warmup_steps(steps, warmup) == 0:
        _errors.warn("noam_decay needs a warmup of at least one update: the LR stays constant")
        return curves.constant(learning_rate)
    options = {
        "slanted_triangle": given["slanted_triangle"],
        "noam_decay": {"warmup_proportion": warmup},
        "linear_decay": {**given["linear_decay"], "warmup_proportion": warmup},
        "warmup": {"proportion": warmup},
    }
    return build(chosen, options[chosen], learning_rate, steps)


def known_length(what: str, max_train_steps: int | None) -> int:
    """The length of the training, for what needs it.

    Raises:
        ValueError: it is not known.
    """
    if max_train_steps is None:
        raise ValueError(
            f"{what} needs the length of the training: give bind() max_train_steps, or num_epoch and steps_per_epoch"
        )
    return max_train_steps


def asked_schedules(given: Mapping[str, Any]) -> list[str]:
    """Names of the schedules that are switched on, the strongest first."""
    on = {
        "slanted_triangle": given["slanted_triangle"]["cut_fraction"] > 0,
        "noam_decay": given["noam_decay"],
        "linear_decay": given["linear_decay"]["start_point"] < 1,
        "warmup": given["warmup"] > 0,
    }
    return [name for name in given if name in SCHEDULES and name not in SCHEDULER] + [name for name in on if on[name]]


def build(name: str, options: Mapping[str, Any], learning_rate: float, steps: int) -> Schedule:
    """A registered schedule over so many updates.

    Raises:
        TypeError: the registered function gives something else.
    """
    schedule = SCHEDULES[name](learning_rate, steps, **options)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"the registered function of schedule {name!r} must return a Schedule, not {schedule!r}")
    return schedule


def depth_of(given: Mapping[str, Any]) -> Discriminative | None:
    """The LR factors by depth that a scheduler dict means.

    Raises:
        ValueError: more than one of DEPTH is given.
    """
    spec, decay, factors = given["discriminative"], given.get("layer_decay"), given.get("layer_factors")
    off = spec["blocks"] == 0 and not spec["params_layer"]
    asked = [name for name, there in zip(DEPTH, (not off, decay is not None, factors is not None)) if there]
    if len(asked) > 1:
        raise ValueError(f"scheduler: {' and '.join(asked)} both give the LR by depth: give one of them")
    if factors is not None:
        return Discriminative(1.0, factors=factors if isinstance(factors, Mapping) else tuple(factors))
    if decay is not None:
        return Discriminative(1 / decay["decay"], None, minimum=decay["minimum"])
    return None if off else Discriminative(spec["factor"], *_by_depth("discriminative", spec))


def unfreezing(given: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of gradual unfreezing, one per epoch, the last to the end; one with everything where it is off."""
    spec = given["gradual_unfreeze"]
    if not spec["blocks"] and not spec["params_layer"]:
        return (Phase(),)
    blocks, params_layer = _by_depth("gradual_unfreeze", spec)
    count = blocks or 1
    if params_layer is not None:
        count = 1 + max(params_layer.values()) - min(params_layer.values())
    tops = [Phase(Top(e, blocks or None, params_layer), epochs=1) for e in range(1, count)]
    return (*tops, Phase(Top(count, blocks or None, params_layer)))


def summary(given: Mapping[str, Any]) -> list[str]:
    """A scheduler dict in words, what is off left out."""
    more = []
    for name in reversed(asked_schedules(given)):
        value = given[name]
        if name == "linear_decay":
            more.append(f"{name} from {value['start_point']:g} to {value['end_learning_rate']:g}")
        elif name == "slanted_triangle":
            more.append(f"{name} {value['cut_fraction']:g}, ratio {value['ratio']:g}")
        elif isinstance(value, Mapping):
            more.append(" ".join([name, *(f"{key} {one}" for key, one in value.items())]))
        else:
            more.append(name if value is True else f"{name} {value:g}")
    for name in ("discriminative", "gradual_unfreeze"):
        spec = given[name]
        if spec["blocks"] != 0 or spec["params_layer"]:
            blocks = "layer by layer" if spec["blocks"] is None else f"{spec['blocks']} blocks"
            how = "params_layer" if spec["params_layer"] else blocks
            more.append(f"{name} {how}" + (f", factor {spec['factor']:g}" if "factor" in spec else ""))
    if given.get("layer_decay") is not None:
        more.append(f"layer_decay {given['layer_decay']['decay']:g}")
    if given.get("layer_factors") is not None:
        factors = given["layer_factors"]
        values = factors.values() if isinstance(factors, Mapping) else factors
        more.append(f"layer_factors {_errors.listing(f'{factor:.3g}' for factor in values)}")
    return more


def _with_warmup(warmup: float, name: str, options: Mapping[str, Any], learning_rate: float, steps: int) -> Schedule:
    """A linear warmup, then the schedule over the updates that are left."""
    rise = min(curves.warmup_steps(steps, warmup), steps - 1)
    main = build(name, options, learning_rate, steps - rise)
    if not rise:
        return main
    return join([(rise, curves.warmup(learning_rate, rise, 1.0)), (steps - rise, main)])


def _defaults(name: str) -> dict[str, Any]:
    """The options of a dict-valued key with their defaults."""
    if name == "layer_decay":
        return _LAYER_DECAY
    if name in SCHEDULER:
        return SCHEDULER[name]
    parameters = list(inspect.signature(SCHEDULES[name]).parameters.values())[2:]
    return {one.name: None if one.default is one.empty else one.default for one in parameters}


def _as_entries(name: str, value: Any, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a dict-valued key, which may come as a dict, as keywords, or as one number."""
    if isinstance(value, Mapping):
        return {**value, **values}
    if value is None or (value is True and name not in SCHEDULER and name != "layer_decay"):
        return dict(values)
    short = _SHORT.get(name)
    if short and not isinstance(value, bool) and hasattr(value, "__index__" if short == "blocks" else "__float__"):
        return {short: value, **values}
    expected = f"a dict with {_errors.listing(defaults)}"
    if short:
        expected += " or a number of blocks" if short == "blocks" else " or a number"
    raise TypeError(f"scheduler.{name} must be {expected}, not {_errors.shown(value)}")


def _by_depth(what: str, given: Mapping[str, Any]) -> tuple[int | None, Mapping[str, int] | None]:
    if given["blocks"] and given["params_layer"]:
        _errors.warn(f"{what}: params_layer takes over: blocks={given['blocks']} ignored")
    return (0, given["params_layer"]) if given["params_layer"] else (given["blocks"], None)


def _params_layer(what: str, value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict parameter name → layer number, not {_errors.shown(value)}")
    return {str(name): _errors.check_whole(f"{what}[{name!r}]", number) for name, number in value.items()}


def boolean(what: str, value: Any) -> bool:
    """A switch; None, as in `add_scheduler("noam_decay")`, means on."""
    return True if value is None else _errors.check_flag(what, value)


def _factors(what: str, value: Any) -> list[float] | dict[str, float]:
    if isinstance(value, Mapping) and value:
        return {str(name): _errors.check_number(f"{what}[{name!r}]", one, minimum=0) for name, one in value.items()}
    if isinstance(value, (list, tuple)) and value:
        return [_errors.check_number(f"{what}[{index}]", one, minimum=0) for index, one in enumerate(value)]
    raise TypeError(
        f"{what} must be factors by the names of layers, or a list with one per layer from the bottom up, not "
        f"{_errors.shown(value)}"
    )


_fraction = partial(_errors.check_number, minimum=0, maximum=1)
# Keys with one value, which is no dict.
_SINGLE: dict[str, Callable[[str, Any], Any]] = {"warmup": _fraction, "noam_decay": boolean, "layer_factors": _factors}
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "start_point": _fraction,
    "end_learning_rate": partial(_errors.check_number, minimum=0),
    "cut_fraction": _fraction,
    "ratio": partial(_errors.check_number, minimum=1),
    "factor": partial(_errors.check_number, above=0),
    "blocks": lambda what, value: None if value is None else _errors.check_whole(what, value),
    "params_layer": _params_layer,
    "decay": partial(_errors.check_number, above=0, maximum=1),
    "minimum": _fraction,
}
