"""What a checkpoint has to agree with: the model, data and settings of a fit as plain data, and how two differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules.schedule import ParamScheduler
from paddle_ftstrat.strategies import DefaultStrategy, strategy_from_dict
from paddle_ftstrat.training import data
from paddle_ftstrat.training.state import Training

LENGTH = "epochs"
_SHOWN = 12


def of_fit(
    learner: Training, strategy: Any, method: str, epochs: tuple[int, int], given: Mapping[str, Any], cbs: Iterable[Any]
) -> dict[str, Any]:
    """Everything that has to be the same for a fit to be continued, as JSON can hold it.

    `epochs` are their number, and how many of them were done before by the user's account; `given` is what else decides
    the fit besides the schedules of its callbacks.
    """
    by_hand = [callback for callback in [*learner.cbs, *cbs] if isinstance(callback, ParamScheduler)]
    scheds = {name: sched for callback in by_hand for name, sched in callback.scheds.items()}
    try:
        options = strategy.to_dict()
    except (TypeError, ValueError):  # it holds something that has no name
        options = _text(strategy)
    return {
        "fit": method,
        LENGTH: epochs[0],
        "model": shapes(learner.model.state_dict()),
        "data": _data(learner),
        "parameter settings": _own_settings(learner.model),
        "amp": [learner.precision.level, learner.precision.dtype if learner.precision.level else None],
        "strategy": options,
        **given,
        **({"schedules": {name: _values(sched) for name, sched in scheds.items()}} if scheds else {}),
        "begun at epoch": epochs[1],
    }


def shapes(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Name → `float32[3, 4]`."""
    return {name: f"{value.dtype}{list(value.shape)}".removeprefix("paddle.") for name, value in tensors.items()}


def _values(sched: Callable[[float], Any]) -> list[Any]:
    """A schedule's values at eleven places of the fit."""
    return [np.asarray(sched(x)).tolist() for x in np.linspace(0, 1, 11).tolist()]


def of_optimizer(plan: Any) -> dict[str, Any]:
    """The optimizer of a plan with its options."""
    name = plan.optimizer if isinstance(plan.optimizer, str) else plan.optimizer.__name__
    return {"optimizer": {"name": name, **{key: _text(value) for key, value in plan.optimizer_options.items()}}}


def only_lr_differs(
    saved: Mapping[str, Any], about: Mapping[str, Any], strategy: DefaultStrategy, updates: int
) -> bool:
    """Whether a fit by a strategy is the one saved but for the LR, and perhaps the epochs; both as `of_fit` has them.

    The strategy's schedules and its LR by depth count as the LR.
    """
    if any(not line.startswith("strategy") for line in differences(saved, about)):
        return False
    try:
        before = strategy_from_dict(saved["strategy"])
    except (ValueError, TypeError, KeyError):  # what only its text tells, or code outside the library
        return False

    def others(plan: Plan) -> Plan:
        phases = tuple(replace(phase, learning_rate=None, scheduler=None) for phase in plan.phases)
        return replace(plan, schedules={}, depth=None, phases=phases)

    plans = [one.plan(about[LENGTH] * updates, updates) for one in (before, strategy)]
    return others(plans[0]) == others(plans[1])


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line per difference but the length: `data.batch: 32 in the checkpoint, 64 now`."""
    before, after = dict(_leaves("", saved)), dict(_leaves("", now))
    lines = []
    for key in {**before, **after}:
        if before.get(key) != after.get(key) and key != LENGTH:
            was, is_now = (repr(side[key]) if key in side else "absent" for side in (before, after))
            lines.append(f"{key}: {was} in the checkpoint, {is_now} now")
    return lines


def listing(lines: list[str]) -> str:
    """Differences below each other, the first dozen of them."""
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])


def _leaves(prefix: str, tree: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)


def _text(value: Any) -> str:
    """What an object prints, without its address, which is another in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def _data(learner: Training) -> dict[str, Any]:
    """The data's size; a batch is all that goes into one update, whatever processes and accumulation it comes from."""
    sampler, loader = data.own_sampler(learner.train), learner.train
    if sampler is None:
        return {"batches": len(loader), "accumulate": learner.accumulate, "processes": learner.ranks.world}
    batch = sampler.batch_size * sampler.ranks.world * learner.accumulate
    return {"samples": sampler.length, "batch": batch, "shuffle": sampler.shuffle}


def _own_settings(model: nn.Layer) -> dict[str, Any]:
    """The user's own settings of the parameters that have any."""
    found = {}
    for name, param in select.named_weights(model).items():
        own = settings.own(param)
        if own.learning_rate != 1.0 or own.regularizer is not None or not own.trainable or not own.need_clip:
            regularizer = None if own.regularizer is None else _text(own.regularizer)
            found[name] = [own.learning_rate, regularizer, own.trainable, own.need_clip]
    for name, held in settings.saved_rows(select.named_weights(model).items()).items():
        found[f"{name}, frozen rows"] = held
    return found
