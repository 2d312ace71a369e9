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
        memory: bytes of memory that the features may take; more than that goes to disk. Default 2 GiB.
        folder: where the disk's share goes, in a folder that `close` removes; None: the system's temporary folder.
        dataset: the samples, where their number is known and a few may be fetched to see whether they are random.

    Attributes:
        was_used: whether any batch was spared its frozen layers so far.

    Raises:
        ValueError: samples of `dataset` are random, `paddle.jit.to_static` compiled the model, or memory < 0.

    Example:
        >>> from paddle_ftstrat.param_attr.depth import find_units
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> features = FrozenFeatures(model, find_units(model))
        >>> for param in model[0].parameters():
        ...     param.stop_gradient = True
        >>> features.begin_phase({"0.weight", "0.bias"})
        >>> x = paddle.randn([4, 2])
        >>> outputs = [features.call(x, np.arange(4)) for epoch in range(2)]
        >>> features.boundary, features.cached, bool((outputs[0] == outputs[1]).all())
        ('0', 4, True)
        >>> features.close()
    """

    def __init__(
        self,
        model: nn.Layer,
        units: Sequence[Unit],
        memory: int = DEFAULT_MEMORY,
        folder: str | os.PathLike | None = None,
        dataset: Any = None,
    ) -> None:
        self._model = model
        self._units = list(units)
        self._memory = _errors.check_whole("memory", memory)
        self._folder = folder
        compiled = _paddle.compiled_layers(_paddle.unwrap(model))
        if compiled:
            raise Refusal(f"paddle.jit.to_static compiled {_errors.listing(compiled)}")
        if dataset is not None:
            refuse_random_samples(dataset)
        self._samples = None if dataset is None else len(dataset)
        self._frozen: Frozen | None = None
        self._state = b""
        self._route: Route | None = None
        self._store: FeatureStore | None = None
        self._is_checked = False
        self.was_used = False

    @property
    def boundary(self) -> str | None:
        """The topmost layer that need not be run again, None where nothing is frozen at the bottom."""
        if self._route is not None:
            return self._route.boundary
        return self._frozen[-1][0] if self._frozen else None

    @property
    def cached(self) -> int:
        """How many samples' features are stored."""
        return 0 if self._store is None else len(self._store)

    @property
    def on_disk(self) -> bool:
        """Whether the features are too many for the memory allowed."""
        return self._store is not None and self._store.on_disk

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
        layers = {id(layer): (unit.name, layer) for unit in run for layer in unit.layers}
        names = [name for name, _ in layers.values()]
        state = _state_of(run, weights)
        if self._frozen is None or names != [name for name, _ in self._frozen] or state != self._state:
            self._forget()
        self._frozen, self._state, self._is_checked = list(layers.values()), state, False

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
        indices = self._checked(indices)
        keys = sample_keys(inputs, len(indices))
        if self._route is None:
            route, output, rows = first_call(self._model, self._frozen, inputs, len(indices))
            columns = [(values.shape[1], values.dtype) for values in rows]
            store = FeatureStore(columns, self._memory, self._folder, self._samples)
            store.put(indices, keys, rows)
            self._route, self._store = route, store
            return output
        known = self._store.has(indices)
        changed = indices[known][self._store.keys(indices[known]) != keys[known]]
        if len(changed):
            raise Refusal(
                f"sample {changed[0]} is not what it was in an earlier epoch (augmentation, or padding that varies)"
            )
        if not known.all():
            output, rows = self._route.record(inputs, len(indices))
            self._store.put(indices, keys, rows)
            return output
        rows = self._store.get(indices)
        if not self._is_checked:
            check_rows(self._route, inputs, len(indices), rows)
            self._is_checked = True
        self.was_used = True
        return self._route.replay(inputs, rows)

    def close(self) -> None:
        """Forget the features and remove their files; `begin_phase` starts anew."""
        self._forget()
        self._frozen = None

    def _checked(self, indices: Any) -> np.ndarray:
        found = np.asarray(indices)
        if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
            raise ValueError(f"indices must be whole numbers of shape [batch], not {indices!r}")
        highest = np.inf if self._samples is None else self._samples
        if found.min() < 0 or found.max() >= highest:
            raise ValueError(f"indices must lie in 0 … {highest - 1}, not {found.min()} … {found.max()}")
        return found.astype(np.int64)

    def _forget(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store, self._route, self._state = None, None, b""


def _frozen_run(units: Sequence[Unit], weights: Mapping[str, Any], frozen: Collection[str]) -> list[Unit]:
    """The units from the bottom on that hold nothing that trains, not even something shared with another unit."""
    ids = {id(weights[name]) for name in frozen if name in weights}

    def is_frozen(unit: Unit) -> bool:
        held = [param for layer in unit.layers for param in select.named_weights(layer).values()]
        return all(id(param) in ids for param in [*held, *(weights[name] for name in unit.parameters)])

    return list(takewhile(is_frozen, units))


def _state_of(units: Sequence[Unit], weights: Mapping[str, Any]) -> bytes:
    """A digest of everything that these units compute with."""
    digest = hashlib.blake2b()
    layers = {id(layer): layer for unit in units for layer in unit.layers}.values()
    held = [tensor for layer in layers for tensor in (*layer.buffers(), *select.statistics(layer).values())]
    for tensor in filter(has_values, [*(weights[name] for unit in units for name in unit.parameters), *held]):
        digest.update(np.ascontiguousarray(tensor.numpy()))
    return digest.digest()
