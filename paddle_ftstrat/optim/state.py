"""The state of a training beside its model: that of the optimizer by structured names, and all of a binding's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim.regularizer import EWCDecay, L2SPDecay
from paddle_ftstrat.param_attr import rows as labels
from paddle_ftstrat.param_attr import settings
from paddle_ftstrat.plan import Plan, Progress
from paddle_ftstrat.schedules.schedule import HYPERS

MASTER = "master_weight"
# What a binding's state holds as tensors; the rest of it is plain data.
TENSORS = ("optimizer", "anchors", "fisher", "best_weights", "average")
NEEDED = ("optimizer", "lr_scheduler", "epoch", "max_train_steps", "anchors")


def check_binding(state_dict: Mapping[str, Any], plan: Plan) -> None:
    """Refuse what is not the state of a binding, or is that of a training of another length or with other phases."""
    missing = [key for key in NEEDED if key not in state_dict]
    if missing:
        raise ValueError(f"not the state of a binding: {missing} missing")
    if state_dict["max_train_steps"] != plan.max_train_steps:
        raise ValueError(
            f"the state was saved with max_train_steps={state_dict['max_train_steps']}, this binding has "
            f"{plan.max_train_steps}: the LR curve would mix two lengths; bind with the same length"
        )
    if state_dict.get("averaged") and plan.averaging is None:
        raise ValueError("the state has an average of the weights, but the strategy of this binding keeps none")
    phase = state_dict.get("phase", {}).get("phase", 0)
    if phase >= len(plan.phases):
        raise ValueError(f"the state was saved in phase {phase + 1}, but this binding has {len(plan.phases)}")


def of_binding(run: Any, rows: Sequence[Any]) -> dict[str, Any]:
    """What a binding's `state_dict` gives; `rows` are its resolved parameters."""
    anchored = _anchored(rows)
    return {
        "optimizer": get_state(run.optimizer, {row.name: row.param for row in rows}),
        "lr_scheduler": run.lr_scheduler.position(),
        "epoch": run.epoch,
        "max_train_steps": run.plan.max_train_steps,
        "anchors": {name: one.anchor for name, one in anchored.items() if one.anchor is not None},
        "fisher": {name: one.fisher for name, one in anchored.items() if isinstance(one, EWCDecay)},
        "block_factors": run.block_factors,
        "phase": run.progress.state_dict(),
        "best_weights": run.progress.best_weights,
        "frozen_rows": settings.saved_rows((row.name, row.param) for row in rows),
        "average": {} if run.average is None else dict(run.average.values),
        "averaged": 0 if run.average is None else run.average.count,
        "hypers": {name: run.hyper(name) for name in HYPERS[1:] if run.has_hyper(name)},
    }


def set_binding(run: Any, rows: Sequence[Any], state_dict: Mapping[str, Any]) -> None:
    """Put a binding where `of_binding` found it.

    Raises:
        ValueError: the state is of another model, optimizer, strategy or training length; nothing is changed.
    """
    check_binding(state_dict, run.plan)
    puts = _checked_anchors(rows, state_dict), labels.checked(rows, state_dict.get("frozen_rows"))
    average = {"updates": state_dict.get("averaged", 0), "average": state_dict.get("average", {})}
    if run.average is not None:
        run.average.check(average)
    set_state(run.optimizer, {row.name: row.param for row in rows}, state_dict["optimizer"])
    for put in puts:
        put()
    if run.average is not None and "averaged" in state_dict:
        run.average.set_state_dict(average)
    run.lr_scheduler.set_state_dict(dict(state_dict["lr_scheduler"]))
    run.epoch = int(state_dict["epoch"])
    for name, value in state_dict.get("hypers", {}).items():
        run.set_hyper(name, value)
    if "phase" in state_dict:
        run.progress = Progress(**state_dict["phase"], best_weights=dict(state_dict.get("best_weights", {})))
    elif run.epoch:
        # A state of version 0.1 knows the epoch only.
        run.progress = Progress()
        run.begin_epoch(run.epoch)
    run.block_factors = state_dict.get("block_factors", run.block_factors)


def _anchored(rows: Sequence[Any]) -> dict[str, L2SPDecay]:
    """The L2SP regularizers of the resolved parameters that have one, by name."""
    return {row.name: row.settings.regularizer for row in rows if isinstance(row.settings.regularizer, L2SPDecay)}


def _checked_anchors(rows: Sequence[Any], state: Mapping[str, Mapping[str, Any]]) -> Callable[[], None]:
    """What puts a saved state's anchors and Fisher information into the regularizers; refuses those of other ones."""
    here, given, fisher = _anchored(rows), state["anchors"], state.get("fisher", {})
    # What was frozen when it was bound has an anchor only since it was thawed, here or there.
    differ = [name for name in given if name not in here]
    differ += [row.name for row in rows if row.name in here and row.own.trainable and row.name not in given]
    if differ:
        raise ValueError(f"L2SP anchors of the state and of this binding differ: {_errors.listing(sorted(differ))}")
    differ = sorted(set(fisher) ^ {name for name, one in here.items() if isinstance(one, EWCDecay)})
    if differ:
        raise ValueError(f"the Fisher information of the state and of this binding differ: {_errors.listing(differ)}")
    checked: list[tuple[L2SPDecay, str, Any]] = []
    for row in rows:
        if row.name in here:
            saved, shape = given.get(row.name), row.param.shape
            anchor = (
                None if saved is None else shaped(f"the L2SP anchor of {row.name!r}", saved, shape).astype("float32")
            )
            checked.append((here[row.name], "anchor", anchor))
        if row.name in fisher:
            value = shaped(f"the Fisher information of {row.name!r}", fisher[row.name], row.param.shape)
            checked.append((here[row.name], "fisher", value.astype("float32")))

    def put() -> None:
        for regularizer, kind, value in checked:
            setattr(regularizer, kind, value)

    return put


def get_state(optimizer: Any, weights: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Structured name → accumulator → tensor (the live ones, not copies); parameters without state are left out."""
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
    """A saved value as a tensor; refuses one of another shape or dtype."""
    value = _tensor(value)
    if list(value.shape) != list(shape) or value.dtype != dtype:
        raise ValueError(
            f"{what} has shape {list(value.shape)} and dtype {value.dtype}, but {list(shape)} and {dtype} are needed"
        )
    return value


def shaped(what: str, value: Any, shape: Sequence[int]) -> Any:
    """A saved value as a tensor; refuses one of another shape."""
    value = _tensor(value)
    if list(value.shape) != list(shape):
        raise ValueError(f"{what} has shape {list(value.shape)}, not {list(shape)}")
    return value


def _tensor(value: Any) -> Any:
    return value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
