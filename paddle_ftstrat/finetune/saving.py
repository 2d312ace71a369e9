"""A model and its binding's state in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.finetune import checkpoint


def save(path: Path, model: nn.Layer, run: Binding | None) -> Path:
    """Write weights and buffers, and with a binding its optimizer state, anchors and position."""
    tensors = checkpoint.flatten("model", model.state_dict())
    facts: dict[str, Any] = {}
    if run is not None:
        state = run.state_dict()
        tensors.update(checkpoint.flatten("optimizer", state.pop("optimizer")))
        tensors.update(checkpoint.flatten("anchors", state.pop("anchors")))
        facts = {"run": state}
    return checkpoint.write(path, tensors, facts)


def load(path: Path, model: nn.Layer, run: Binding | None) -> None:
    """Load what `save` wrote; the binding's part only where both sides have one. All or nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another model, optimizer or training length.
    """
    tensors, facts = checkpoint.read(path)
    weights = checkpoint.unflatten("model", tensors)
    _check(model, weights)
    if run is not None and "run" in facts:
        state = {part: checkpoint.unflatten(part, tensors) for part in ("optimizer", "anchors")}
        run.set_state_dict({**facts["run"], **state})
    model.set_state_dict(weights)


def _check(model: nn.Layer, weights: dict[str, Any]) -> None:
    mine = model.state_dict()
    differ = sorted(set(mine) ^ set(weights))
    if differ:
        raise ValueError(f"the file and the model differ in {_errors.listing(differ)}")
    for name, value in mine.items():
        if list(value.shape) != list(weights[name].shape):
            raise ValueError(f"{name}: the file has shape {list(weights[name].shape)}, the model {list(value.shape)}")
