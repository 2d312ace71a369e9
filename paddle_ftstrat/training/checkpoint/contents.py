"""What is in a checkpoint and in a model's file, how it gets back, and what a fit that goes on has to agree with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, acceleration
from paddle_ftstrat._files import replacing
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim.fused import step
from paddle_ftstrat.optim.state import TENSORS
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules.schedule import ParamScheduler
from paddle_ftstrat.strategies import DefaultStrategy, strategy_from_dict
from paddle_ftstrat.training import data
from paddle_ftstrat.training.checkpoint.folder import as_entries, as_tensors
from paddle_ftstrat.training.checkpoint.store import Checkpoint
from paddle_ftstrat.training.state import Position, Training
from paddle_ftstrat.transfer import safe_tensors
from paddle_ftstrat.transfer.contents import Mapped, weight_name

_TRACE = ("lrs", "losses", "smooth_losses")
LENGTH = "epochs"
_SHOWN = 12


def collect(learner: Training, run: Binding) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The state of a training as parts of tensors and facts that JSON can hold.

    Parts: the tensors of the model and of the binding by structured name, `trace` (the losses and LRs of all updates),
    and `callbacks`.
    """
    bound, recorder, sampler = run.state_dict(), learner.recorder, data.own_sampler(learner.train)
    tensors = {part: bound.pop(part) for part in TENSORS}
    if not tensors["average"]:
        del tensors["average"]
    # All names of this part begin with '::', as in the first version of the format.
    tensors["optimizer"] = separated({"": tensors["optimizer"]})[1]
    callbacks, of_callbacks = separated({name: each.state_dict() for name, each in _stateful(learner).items()})
    trace = {name: getattr(recorder, name) for name in _TRACE}
    trace.update({f"hps::{name}": values for name, values in recorder.hps.items()})
    parts = {
        "model": dict(learner.model.state_dict()),
        **tensors,
        "trace": {name: np.asarray(values, dtype="float64") for name, values in trace.items()},
        "callbacks": of_callbacks,
    }
    facts = {
        "run": bound,
        "recorder": {"values": recorder.values, "ends": recorder.ends, "average": recorder.average},
        "callbacks": callbacks,
        "precision": learner.precision.state_dict(),
        "data": {
            "seed": None if sampler is None else sampler.seed,
            "together": None if sampler is None else sampler.batch_size * sampler.ranks.world,
            "fixed": data.is_fixed(learner.train, learner.state.reading_host),
        },
        "environment": environment(learner, run),
        **learner.notes,
    }
    return parts, facts


def restore(learner: Training, run: Binding, saved: Checkpoint, same_lr: bool) -> None:
    """Put a fit that goes on, or was finished, where it was when `saved` was written, whose tensors are let go then.

    Unless it has the `same_lr`, LR by depth and hyper-parameters are those of its plan. Warns of what will keep the
    rest of the training from being bit-identical.
    """
    lines = differences(saved.facts["environment"], environment(learner, run))
    if lines:
        _errors.warn(
            f"resuming {saved.path} in another environment ({'; '.join(lines)}): the results will differ in the last "
            "digits from those of an unbroken run"
        )
    tensors = {part: saved.parts.get(part, {}) for part in TENSORS}
    tensors["optimizer"] = joined({"": {}}, tensors["optimizer"])[""]
    state = {**saved.facts["run"], **tensors}
    if not same_lr:
        # What the old schedules have left is not for the new ones.
        state.update(block_factors=run.block_factors, hypers={})
    # Another length was confirmed by the user, or the fit would have been refused.
    run.set_state_dict({**state, "max_train_steps": run.plan.max_train_steps})
    run.lr_scheduler.step(learner.state.curve_step + run.progress.skipped)
    restore_learner(learner, saved)
    names = {name: key for key in saved.parts["trace"] if (name := key.removeprefix("hps::")) != key}
    learner.recorder.hps = {name: saved.parts["trace"][key].numpy().tolist() for name, key in names.items()}
    learner.precision.set_state_dict(saved.facts["precision"])
    states = joined(saved.facts["callbacks"], saved.parts["callbacks"])
    for name, callback in _stateful(learner).items():
        if name in states:
            callback.set_state_dict(states[name])
    saved.parts.clear()


def check_callbacks(learner: Training, saved: Checkpoint) -> None:
    """Check that a fit that goes on has the callbacks whose state is in the checkpoint.

    Raises:
        ValueError: there are others.
    """
    before, now = sorted(saved.facts["callbacks"]), sorted(_stateful(learner))
    lines = differences({"callbacks": before}, {"callbacks": now})
    if lines:
        raise ValueError(f"the checkpoint {saved.path} is of another training:\n  {listing(lines)}")


def position_of(saved: Checkpoint, learner: Training) -> Position:
    """Where a checkpoint's training stood, in batches of this Learner's size."""
    position = Position(**saved.facts["position"])
    sampler, together = data.own_sampler(learner.train), saved.facts["data"]["together"]
    if sampler is None or not position.batch:
        return position
    samples = min(position.batch * together, sampler.length)
    return replace(position, batch=-(-samples // (sampler.batch_size * sampler.ranks.world)))


def environment(learner: Training, run: Binding) -> dict[str, Any]:
    """What bit-identical results depend on besides the training itself."""
    return {
        "paddle": paddle.__version__,
        "processes": learner.ranks.world,
        "threads": threads.wanted(learner.num_threads),
        "MKL code": threads.code_in_force(),
        "updates by": step.maker(run.optimizer),
        "layers by": acceleration.maker(run.model),
    }


def restore_learner(learner: Training, saved: Checkpoint) -> None:
    """Give a Learner the weights, the records and the order of the data."""
    learner.model.set_state_dict(saved.parts["model"])
    recorder, facts = learner.recorder, saved.facts["recorder"]
    for name in _TRACE:
        setattr(recorder, name, saved.parts["trace"][name].numpy().tolist())
    recorder.values, recorder.ends, recorder.average = facts["values"], facts["ends"], facts["average"]
    sampler = data.own_sampler(learner.train)
    if sampler is not None:
        sampler.seed = saved.facts["data"]["seed"]


def _stateful(learner: Training) -> dict[str, Any]:
    """The callbacks that have a state, as `1:EMA`: their place among all of that fit, and their class."""
    return {
        f"{place}:{type(callback).__name__}": callback
        for place, callback in enumerate(learner.callbacks)
        if hasattr(callback, "state_dict") and hasattr(callback, "set_state_dict")
    }


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


def separated(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Nested dicts as what JSON can hold, with the tensors taken out, and the tensors by their `::` path.

    Example:
        >>> separated({"ema": {"decay": 0.9, "weights": {"fc.bias": np.zeros(1)}}})
        ({'ema': {'decay': 0.9, 'weights': {}}}, {'ema::weights::fc.bias': array([0.])})
    """
    plain: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            plain[key], inner = separated(value, f"{prefix}{key}::")
            tensors.update(inner)
        elif isinstance(value, (paddle.Tensor, np.ndarray)):
            tensors[f"{prefix}{key}"] = value
        else:
            plain[key] = value
    return plain, tensors


def joined(plain: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `separated`."""
    whole = {key: joined(value, {}) if isinstance(value, Mapping) else value for key, value in plain.items()}
    for path, tensor in tensors.items():
        inner = whole
        *above, last = path.split("::")
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = tensor
    return whole


def save(path: Path, model: nn.Layer, run: Binding | None) -> Path:
    """Write weights and buffers by their names, and with a binding its state as `part::name`, into one file.

    Raises:
        ValueError: a name with `::` in it, which stands before other state.
        OSError: the folder cannot be written; an older file stays.
    """
    weights = model.state_dict()
    reserved = [name for name in weights if "::" in name]
    if reserved:
        raise ValueError(f"names of weights cannot have '::' in them: {_errors.listing(reserved)}")
    state = {} if run is None else run.state_dict()
    _, tensors = separated({part: state.pop(part) for part in TENSORS if part in state})
    facts = {"run": state} if state else {}
    with replacing(path) as file:
        entries = as_entries({**weights, **tensors})
        safe_tensors.write(file, entries, {"format": "pd", safe_tensors.FACTS: json.dumps(facts)})
    return Path(path)


def load(path: Path, model: nn.Layer, run: Binding | None) -> None:
    """Load what `save` wrote; the binding's part only where both sides have one. All or nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another model, optimizer or training length.
    """
    tensors, facts = read(path)
    weights = {name: tensor for key, tensor in tensors.items() if (name := weight_name(key)) is not None}
    check_weights(model, weights)
    if run is not None and "run" in facts:
        state = joined({part: {} for part in TENSORS}, {key: value for key, value in tensors.items() if "::" in key})
        run.set_state_dict({**facts["run"], **{part: state[part] for part in TENSORS}})
    model.set_state_dict(weights)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors and facts in a file that `save` wrote. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no safetensors file, or no file at all but a folder, a pipe, a device.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        contents = safe_tensors.read(Mapped(path))
        return as_tensors(contents), json.loads(contents.metadata.get(safe_tensors.FACTS, "{}"))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error!s:.500}") from error


def check_weights(model: nn.Layer, weights: Mapping[str, Any]) -> None:
    """Check that a model has just these weights and buffers.

    Raises:
        ValueError: other names or shapes.
    """
    mine = model.state_dict()
    differ = sorted(set(mine) ^ set(weights))
    if differ:
        raise ValueError(f"the file and the model differ in {_errors.listing(differ)}")
    for name, value in mine.items():
        if list(value.shape) != list(weights[name].shape):
            raise ValueError(f"{name}: the file has shape {list(weights[name].shape)}, the model {list(value.shape)}")
