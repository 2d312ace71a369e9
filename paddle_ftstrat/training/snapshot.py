"""Everything a trial run changes, to be put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _paddle
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.optim import masters
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.training import rng


@contextmanager
def preserved(model: nn.Layer, run: Binding | None = None) -> Iterator[None]:
    """Whatever happens inside, afterwards all is as before, after an exception too.

    That is: weights and buffers, train and eval flags, parameter settings and frozen set, random number generators;
    and of the binding: its plan and all of its state.

    Args:
        model: the model.
        run: the binding in force, if the trial uses it.
    """
    values = {name: value.clone() for name, value in model.state_dict().items()}
    weights = select.named_weights(model)
    fields = {name: settings.capture(param) for name, param in weights.items()}
    kept = masters.capture(weights.values())
    generators = rng.get_state()
    undo_run = None if run is None else _capture_run(run, weights)
    try:
        with _paddle.kept(model):
            yield
    finally:
        if undo_run is not None:
            undo_run()
        with paddle.no_grad():
            for name, value in model.state_dict().items():
                value.set_value(values[name])
        masters.put_back(kept)
        for name, param in weights.items():
            param.clear_gradient(False)
            settings.put_back(param, fields[name])
        rng.set_state(generators)
        _paddle.forget_traces(_paddle.unwrap(model))


def _capture_run(run: Binding, weights: dict[str, Any]) -> Any:
    plan, per_epoch, kept = run.plan, run.steps_per_epoch, run.state_dict()
    kept["optimizer"] = {
        name: {kind: value.clone() for kind, value in kinds.items()} for name, kinds in kept["optimizer"].items()
    }

    def undo() -> None:
        run.follow(plan, per_epoch)
        for name, param in weights.items():
            if name not in kept["optimizer"]:
                _paddle.drop_accumulators(run.optimizer, param)
        run.set_state_dict(kept)

    return undo
