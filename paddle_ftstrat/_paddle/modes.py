"""Train and eval mode for a while, with each layer back in its own mode afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paddle import nn


@contextmanager
def kept(model: nn.Layer) -> Iterator[None]:
    """Whatever mode the layers are put in inside, afterwards each is in the one it had."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextmanager
def evaluating(model: nn.Layer) -> Iterator[None]:
    """The model in eval mode inside.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
        >>> _ = model[0].eval()
        >>> with evaluating(model):
        ...     model[1].training
        False
        >>> model[0].training, model[1].training
        (False, True)
    """
    with kept(model):
        model.eval()
        yield
