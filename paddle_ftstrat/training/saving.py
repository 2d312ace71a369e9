"""A model and its binding's state in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim.state import TENSORS
from paddle_ftstrat.training.checkpoint import tensor_file
from paddle_ftstrat.transfer.contents import weight_name


def save(path: Path, model: nn.Layer, run: Binding | None) -> Path:
    """Write weights and buffers by their names, and with a binding its optimizer state, anchors and position.

    Raises:
        ValueError: a name with `::` in it, which stands before other state.
        OSError: the folder cannot be written; an older file stays.
    """
    tensors = dict(model.state_dict())
    reserved = [name for name in tensors if "::" in name]
    if reserved:
        raise ValueError(f"names of weights cannot have '::' in them: {_errors.listing(reserved)}")
    facts: dict[str, Any] = {}
    if run is not None:
        state = run.state_dict()
        for part in TENSORS:
            tensors.update(tensor_file.flatten(part, state.pop(part)))
        facts = {"run": state}
    return tensor_file.write(path, tensors, facts)


def load(path: Path, model: nn.Layer, run: Binding | None) -> None:
    """Load what `save` wrote; the binding's part only where both sides have one. All or nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another model, optimizer or training length.
    """
    tensors, facts = tensor_file.read(path)
    weights = {name: tensor for key, tensor in tensors.items() if (name := weight_name(key)) is not None}
    _check(model, weights)
    if run is not None and "run" in facts:
        state = {part: tensor_file.unflatten(part, tensors) for part in TENSORS}
        run.set_state_dict({**facts["run"], **state})
    model.set_state_dict(weights)


def set_weights(model: nn.Layer, weights: dict[str, Any]) -> None:
    """Load weights and buffers into a model that has just these.

    Raises:
        ValueError: other names or shapes; nothing is changed then.
    """
    _check(model, weights)
    model.set_state_dict(weights)


def _check(model: nn.Layer, weights: dict[str, Any]) -> None:
    mine = model.state_dict()
    differ = sorted(set(mine) ^ set(weights))
    if differ:
        raise ValueError(f"the file and the model differ in {_errors.listing(differ)}")
    for name, value in mine.items():
        if list(value.shape) != list(weights[name].shape):
            raise ValueError(f"{name}: the file has shape {list(weights[name].shape)}, the model {list(value.shape)}")
