"""Frozen features: what the frozen layers of a model give each sample, computed once and then reused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle.layers import has_values
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import Unit, call
from paddle_ftstrat.training.frozen_features.checks import (
    Frozen,
    Refusal,
    Route,
    check_rows,
    first_call,
    refuse_random_samples,
)
from paddle_ftstrat.training.frozen_features.rows import FeatureStore, sample_keys

DEFAULT_MEMORY = 2 * 2**30


class FrozenFeatures:
    """Calls a model with its lower, frozen layers computed once per sample instead of once per epoch.

    The boundary is the topmost layer of the longest run of frozen units from the bottom. A sample's first visit runs
    the whole model and stores what the boundary returns; when all samples of a batch have been seen, the layers up to
    the boundary are not run, and the boundary returns what is stored. Outputs and gradients are those of the whole
    model: on CPU bit for bit, but to rounding where a batch has one sample or a frozen layer returns one number.

    That holds where the frozen layers give a sample the same each time and the layers above use nothing but the
    boundary's output. Both are checked, else there is a ValueError before any update: the first batch of a phase is run
    both ways and the outputs compared, the frozen layers are run on another batch and with other random numbers, each
    sample is compared with what it was, and in each epoch two samples are computed anew. Layers below the boundary
    return NaN when they are not run, so hooks on them see NaN then, and so does a loss that uses them by a way that the
    first batch did not take.

    Args:
        model: the model.
        units: its layers bottom first, from `param_attr.depth.find_units(model, sample_input)`.
        dataset: the samples, with a length; a few are fetched to see whether they are random.
        memory: bytes of memory that the features may take; more than that goes to disk. Default 2 GiB.
        folder: where the disk's share goes, in a folder that `close` removes; None: the system's temporary folder.

    Attributes:
        was_used: whether any batch was spared its frozen layers so far.

    Raises:
        ValueError: samples of `dataset` are random, `paddle.jit.to_static` compiled the model, or memory < 0.

    Example:
        >>> from paddle_ftstrat.param_attr.depth import find_units
        >>> model, x = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), paddle.randn([4, 2])
        >>> features = FrozenFeatures(model, find_units(model), x.numpy())
        >>> for param in model[0].parameters():
        ...     param.stop_gradient = True
        >>> features.begin_phase({"0.weight", "0.bias"})
        >>> outputs = [features.call(x, np.arange(4)) for epoch in range(2)]
        >>> features.boundary, features.cached, bool((outputs[0] == outputs[1]).all())
        ('0', 4, True)
        >>> features.close()
    """

    def __init__(
        self,
        model: nn.Layer,
        units: Sequence[Unit],
        dataset: Any,
        memory: int = DEFAULT_MEMORY,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self._model, self._units, self._samples = model, list(units), len(dataset)
        self._memory, self._folder = _errors.check_whole("memory", memory), folder
        compiled = _paddle.compiled_layers(_paddle.unwrap(model))
        if compiled:
            raise Refusal(f"paddle.jit.to_static compiled {_errors.listing(compiled)}")
        refuse_random_samples(dataset)
        self._frozen: Frozen | None = None
        self._state = b""
        self._kept: tuple[Route, FeatureStore] | None = None
        self._is_checked = False
        self.was_used = False

    @property
    def boundary(self) -> str | None:
        """The topmost layer that need not be run again, None where nothing is frozen at the bottom."""
        if self._kept is not None:
            return self._kept[0].boundary
        return self._frozen[-1][0] if self._frozen else None

    @property
    def cached(self) -> int:
        """How many samples' features are stored."""
        return 0 if self._kept is None else int(self._kept[1].present.sum())

    @property
    def on_disk(self) -> bool:
        """Whether the features are too many for the memory allowed."""
        return self._kept is not None and self._kept[1].on_disk

    def begin_phase(self, frozen: Collection[str]) -> None:
        """Begin an epoch; what is stored is dropped where other layers are frozen than before, or they have changed.

        Args:
            frozen: structured names of all parameters that do not train.

        Raises:
            ValueError: there is no such parameter.
        """
        weights = select.named_weights(self._model)
        _errors.check_keys("parameter", frozen, {**weights, **select.statistics(self._model)})
        run = _frozen_run(self._units, weights, frozen)
        layers = list({id(layer): (unit.name, layer) for unit in run for layer in unit.layers}.values())
        state = _state_of(layers, [weights[name] for unit in run for name in unit.parameters])
        if state != self._state:
            self.close()
        self._frozen, self._state, self._is_checked = layers, state, False

    def call(self, inputs: Any, indices: Any) -> Any:
        """The model's output for a batch. Where nothing is frozen, or without gradients, that is the model's call.

        Args:
            inputs: a tensor, a tuple or list of positional or a dict of keyword arguments.
            indices: whole numbers, shape [batch]: which samples of the data set these are.

        Raises:
            ValueError: the features cannot be reused, and why; or indices that do not fit the inputs.
            RuntimeError: no phase has begun.
        """
        if self._frozen is None:
            raise RuntimeError("no phase has begun: call begin_phase(frozen) before the first batch of each epoch")
        if not self._frozen or not paddle.is_grad_enabled():
            return call(self._model, inputs)
        indices = np.asarray(indices)
        if indices.ndim != 1 or indices.dtype.kind not in "iu" or not len(indices):
            raise ValueError(f"indices must be whole numbers of shape [batch], not {indices!r}")
        if indices.min() < 0 or indices.max() >= self._samples:
            raise ValueError(f"indices must lie in 0 … {self._samples - 1}, not {indices.min()} … {indices.max()}")
        keys = sample_keys(inputs, len(indices))
        if self._kept is None:
            route, output, rows = first_call(self._model, self._frozen, inputs, len(indices))
            columns = [(values.shape[1], values.dtype) for values in rows]
            store = FeatureStore(columns, self._samples, self._memory, self._folder)
            store.put(indices, keys, rows)
            self._kept = route, store
            return output
        route, store = self._kept
        known = store.present[indices]
        changed = indices[known & (store.keys[indices] != keys)]
        if len(changed):
            raise Refusal(
                f"sample {changed[0]} is not what it was in an earlier epoch (augmentation, or padding that varies)"
            )
        if not known.all():
            output, rows = route.record(inputs, len(indices))
            store.put(indices, keys, rows)
            return output
        rows = store.get(indices)
        if not self._is_checked:
            check_rows(route, inputs, len(indices), rows)
            self._is_checked = True
        self.was_used = True
        return route.replay(inputs, rows)

    def close(self) -> None:
        """Forget the features and remove their files; `begin_phase` starts anew."""
        if self._kept is not None:
            self._kept[1].close()
        self._frozen, self._kept, self._state = None, None, b""


def _frozen_run(units: Sequence[Unit], weights: Mapping[str, Any], frozen: Collection[str]) -> list[Unit]:
    """The units from the bottom on that hold nothing that trains, not even something shared with another unit."""
    ids = {id(weights[name]) for name in frozen if name in weights}

    def is_frozen(unit: Unit) -> bool:
        held = [param for layer in unit.layers for param in select.named_weights(layer).values()]
        return all(id(param) in ids for param in [*held, *(weights[name] for name in unit.parameters)])

    return list(takewhile(is_frozen, units))


def _state_of(frozen: Frozen, weights: Sequence[Any]) -> bytes:
    """A digest of the frozen layers' names and of everything that they compute with."""
    digest = hashlib.blake2b(repr([name for name, _ in frozen]).encode())
    held = [tensor for _, layer in frozen for tensor in (*layer.buffers(), *select.statistics(layer).values())]
    for tensor in filter(has_values, [*weights, *held]):
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.digest()
