"""What is in a training's checkpoint, and how it gets back to where it came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from paddle_ftstrat._paddle import threads
from paddle_ftstrat.optim.fused import step
from paddle_ftstrat.optim.state import TENSORS
from paddle_ftstrat.training import data
from paddle_ftstrat.training.checkpoint import fingerprint, tensor_file
from paddle_ftstrat.training.checkpoint.store import Checkpoint
from paddle_ftstrat.training.distributed import Ranks
from paddle_ftstrat.training.state import Position

if TYPE_CHECKING:
    from paddle_ftstrat.binding import Binding
    from paddle_ftstrat.training.state import Training as Learner

_TRACE = ("lrs", "losses", "smooth_losses")


def collect(learner: Learner, run: Binding) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The state of a training as parts of tensors and facts that JSON can hold.

    Parts: `model`, `optimizer` and `anchors` by structured name, `trace` (losses and LRs of each update), `callbacks`.
    """
    bound = run.state_dict()
    recorder, sampler = learner.recorder, data.own_sampler(learner.train)
    kept, tensors = _separate(_callback_states(learner))
    trace = {name: np.asarray(getattr(recorder, name), dtype="float64") for name in _TRACE}
    trace.update({f"hps::{name}": np.asarray(values, dtype="float64") for name, values in recorder.hps.items()})
    parts = {
        "model": dict(learner.model.state_dict()),
        "optimizer": tensor_file.flatten("", bound.pop("optimizer")),
        "anchors": bound.pop("anchors"),
        "best_weights": bound.pop("best_weights"),
        "trace": trace,
        "callbacks": tensors,
    }
    facts = {
        "run": bound,
        "recorder": {"values": recorder.values, "ends": recorder.ends, "average": recorder.average},
        "callbacks": kept,
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


def restore(learner: Learner, run: Binding, saved: Checkpoint) -> None:
    """Put a fit that goes on, or was finished, where it was when `saved` was written, whose tensors are let go then."""
    tensors = {part: saved.parts.get(part, {}) for part in TENSORS}
    tensors["optimizer"] = tensor_file.unflatten("", tensors["optimizer"])
    state = {**saved.facts["run"], **tensors}
    # Another length was confirmed by the user, or the fit would have been refused.
    run.set_state_dict({**state, "max_train_steps": run.plan.max_train_steps})
    run.lr_scheduler.step(learner.state.curve_step + run.progress.skipped)
    restore_learner(learner, saved)
    names = {name: key for key in saved.parts["trace"] if (name := key.removeprefix("hps::")) != key}
    learner.recorder.hps = {name: saved.parts["trace"][key].numpy().tolist() for name, key in names.items()}
    learner.precision.set_state_dict(saved.facts["precision"])
    states = _joined(saved.facts["callbacks"], saved.parts["callbacks"])
    for name, callback in _stateful(learner).items():
        if name in states:
            callback.set_state_dict(states[name])
    saved.parts.clear()


def check_callbacks(learner: Learner, saved: Checkpoint) -> None:
    """Check that a fit that goes on has the callbacks whose state is in the checkpoint.

    Raises:
        ValueError: there are others.
    """
    before, now = sorted(saved.facts["callbacks"]), sorted(_stateful(learner))
    lines = fingerprint.differences({"callbacks": before}, {"callbacks": now})
    if lines:
        raise ValueError(f"the checkpoint {saved.path} is of another training:\n  {fingerprint.listing(lines)}")


def position_of(saved: Checkpoint, learner: Learner) -> Position:
    """Where a checkpoint's training stood, in batches of this Learner's size."""
    position = Position(**saved.facts["position"])
    sampler, together = data.own_sampler(learner.train), saved.facts["data"]["together"]
    if sampler is None or not position.batch:
        return position
    samples = min(position.batch * together, sampler.length)
    return replace(position, batch=-(-samples // (sampler.batch_size * sampler.ranks.world)))


def of_rank(hosts: list[dict[str, Any]], who: Ranks) -> dict[str, Any]:
    """The random numbers of this process; where there were fewer, those of one of them."""
    return hosts[who.rank % len(hosts)]


def environment(learner: Learner, run: Binding) -> dict[str, Any]:
    """What bit-identical results depend on besides the training itself."""
    return {
        "paddle": paddle.__version__,
        "processes": learner.ranks.world,
        "threads": threads.wanted(learner.num_threads),
        "MKL code": threads.code_in_force(),
        "updates by": step.maker(run.optimizer),
    }


def warn_of_environment(saved: Checkpoint, learner: Learner, run: Binding) -> None:
    """Say what will keep the resumed training from being bit-identical."""
    lines = fingerprint.differences(saved.facts["environment"], environment(learner, run))
    if lines:
        warnings.warn(
            f"resuming {saved.path} in another environment ({'; '.join(lines)}): the results will differ in the last "
            "digits from those of an unbroken run",
            stacklevel=2,
        )


def restore_learner(learner: Learner, saved: Checkpoint) -> None:
    """Give a Learner the weights, the records and the order of the data."""
    learner.model.set_state_dict(saved.parts["model"])
    recorder, facts = learner.recorder, saved.facts["recorder"]
    for name in _TRACE:
        setattr(recorder, name, saved.parts["trace"][name].numpy().tolist())
    recorder.values, recorder.ends, recorder.average = facts["values"], facts["ends"], facts["average"]
    sampler = data.own_sampler(learner.train)
    if sampler is not None:
        sampler.seed = saved.facts["data"]["seed"]


def _stateful(learner: Learner) -> dict[str, Any]:
    """The callbacks that have a state, as `1:EMA`: their place among all of that fit, and their class."""
    return {
        f"{place}:{type(callback).__name__}": callback
        for place, callback in enumerate(learner.callbacks)
        if hasattr(callback, "state_dict") and hasattr(callback, "set_state_dict")
    }


def _callback_states(learner: Learner) -> dict[str, Any]:
    return {name: callback.state_dict() for name, callback in _stateful(learner).items()}


def _separate(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Nested dicts as what JSON can hold, with the tensors taken out, and the tensors by their `::` path."""
    plain: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            plain[key], inner = _separate(value, f"{prefix}{key}::")
            tensors.update(inner)
        elif isinstance(value, (paddle.Tensor, np.ndarray)):
            tensors[f"{prefix}{key}"] = value
        else:
            plain[key] = value
    return plain, tensors


def _joined(plain: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_separate`."""
    whole = {key: _joined(value, {}) if isinstance(value, Mapping) else value for key, value in plain.items()}
    for path, tensor in tensors.items():
        inner = whole
        *above, last = path.split("::")
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = tensor
    return whole
