"""What the training loop accepts as data, and how it takes a batch apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
from paddle.io import DataLoader, Dataset, IterableDataset

from paddle_ftstrat.finetune import rng

_LABEL_KEYS = ("labels", "label")


def as_loader(data: Any, batch_size: int, shuffle: bool, what: str) -> DataLoader:
    """A DataLoader over `data`: a DataLoader as it is, a Dataset in batches of `batch_size`.

    Args:
        data: a `paddle.io.DataLoader` or a map-style `paddle.io.Dataset` (or any object with len and indexing).
        batch_size: samples per batch, where a loader is made.
        shuffle: new order in each epoch, where a loader is made.
        what: how to call the data in an error.

    Raises:
        ValueError: there is nothing in it.
        TypeError: its length is unknown, or it is no data set at all.

    Example:
        >>> pairs = paddle.io.TensorDataset([paddle.ones([5, 2]), paddle.zeros([5])])
        >>> len(as_loader(pairs, 2, shuffle=False, what="train"))
        3
    """
    if isinstance(data, DataLoader):
        return _not_empty(data, _length(data, what), what)
    if isinstance(data, IterableDataset):
        raise TypeError(f"{what}: an IterableDataset has no length, which schedules need; use a map-style Dataset")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, (str, bytes, Mapping)):
        raise TypeError(f"{what} must be a paddle.io.DataLoader or Dataset, not {type(data).__name__}")
    _not_empty(data, len(data), what)
    if not isinstance(data, Dataset):
        data = _Indexed(data)
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle)


def split_batch(batch: Any) -> tuple[Any, Any]:
    """(inputs, label) of one batch: the last entry is the label, or the one called `labels` or `label`.

    Inputs come as one tensor, a tuple of positional, or a dict of keyword arguments. A batch that is a single tensor
    has no label.

    Example:
        >>> split_batch(("x", "y"))
        ('x', 'y')
        >>> split_batch({"input_ids": 1, "labels": 2})
        ({'input_ids': 1}, 2)
    """
    if isinstance(batch, Mapping):
        key = next((key for key in _LABEL_KEYS if key in batch), None)
        return {name: value for name, value in batch.items() if name != key}, batch.get(key) if key else None
    if isinstance(batch, (list, tuple)):
        if len(batch) == 1:
            return batch[0], None
        inputs = tuple(batch[:-1])
        return (inputs[0] if len(inputs) == 1 else inputs), batch[-1]
    return batch, None


def only_inputs(batch: Any) -> Any:
    """The inputs of a batch that may come without labels: one entry is all input, more end in a label."""
    return split_batch(batch)[0]


def first_inputs(loader: DataLoader) -> Any:
    """The inputs of one batch, with the random number generators left as they were."""
    with rng.preserved():
        return only_inputs(next(iter(loader)))


def batch_size_of(batch: Any) -> int:
    """How many samples a batch has, from the first tensor in it."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    while isinstance(batch, (list, tuple)):
        batch = batch[0]
    return int(batch.shape[0]) if getattr(batch, "shape", None) else 1


class _Indexed(Dataset):
    """A list (of samples) as a Dataset."""

    def __init__(self, items: Any) -> None:
        super().__init__()
        self._items = items

    def __getitem__(self, index: int) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


def _length(loader: DataLoader, what: str) -> int:
    try:
        return len(loader)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what}: the loader has no length, which schedules need; use a map-style Dataset") from error


def _not_empty(data: Any, length: int, what: str) -> Any:
    if length == 0:
        raise ValueError(f"{what} is empty: there is no batch to take from it")
    return data


def concatenated(parts: list[Any]) -> Any:
    """Batches of outputs as one: tensors joined along the first axis, tuples and dicts entry by entry."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: concatenated([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        return tuple(concatenated([part[i] for part in parts]) for i in range(len(first)))
    return paddle.concat([part if part.ndim else part.reshape([1]) for part in parts])
