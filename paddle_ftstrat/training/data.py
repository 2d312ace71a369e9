"""What the training loop accepts as data, and how it takes a batch apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader, Dataset, DistributedBatchSampler, IterableDataset

from paddle_ftstrat.training import reading, rng
from paddle_ftstrat.training.distributed import ONE, Ranks, check_loader, gather_facts
from paddle_ftstrat.training.sampler import EpochSampler

_LABEL_KEYS = ("labels", "label")


def as_loader(data: Any, batch_size: int, shuffle: bool, what: str, who: Ranks = ONE) -> DataLoader:
    """A DataLoader over `data`: a DataLoader as it is, a Dataset in batches of `batch_size`.

    The order of a Dataset's samples follows from one number drawn from numpy's generator, so `np.random.seed` decides
    it, as it does for Paddle's own loaders.

    Args:
        data: a `paddle.io.DataLoader` or a map-style `paddle.io.Dataset` (or any object with len and indexing).
        batch_size: samples per batch, where a loader is made.
        shuffle: new order in each epoch, where a loader is made.
        what: how to call the data in an error.
        who: the processes that share the samples of a Dataset.

    Raises:
        ValueError: there is nothing in it, or a loader would give several processes the same samples.
        TypeError: its length is unknown, or it is no data set at all.

    Example:
        >>> pairs = paddle.io.TensorDataset([paddle.ones([5, 2]), paddle.zeros([5])])
        >>> len(as_loader(pairs, 2, shuffle=False, what="train"))
        3
    """
    if isinstance(data, DataLoader):
        length = _length(data, what)
        if own_sampler(data) is None:
            check_loader(data, length, what, who)
        return _not_empty(data, length, what)
    if isinstance(data, IterableDataset):
        raise TypeError(f"{what}: an IterableDataset has no length, which schedules need; use a map-style Dataset")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, (str, bytes, Mapping)):
        raise TypeError(f"{what} must be a paddle.io.DataLoader or Dataset, not {type(data).__name__}")
    _not_empty(data, len(data), what)
    if not isinstance(data, Dataset):
        data = _Indexed(data)
    seed = gather_facts(int(np.random.randint(2**31 - 1)), who)[0] if shuffle else 0
    return DataLoader(data, batch_sampler=EpochSampler(len(data), batch_size, shuffle, seed, who))


def split_batch(batch: Any) -> tuple[Any, Any]:
    """(inputs, label) of one batch: the last entry is the label, or the one called `labels` or `label`.

    Inputs come as one tensor, a tuple of positional, or a dict of keyword arguments. A batch that is a single tensor
    has no label.

    Example:
        >>> split_batch((1, 2, 3))
        ((1, 2), 3)
        >>> split_batch({"input_ids": 1, "labels": 2})
        ({'input_ids': 1}, 2)

    Raises:
        TypeError: the batch is one of texts.
    """
    if isinstance(batch, Mapping):
        key = next((key for key in _LABEL_KEYS if key in batch), None)
        return {name: value for name, value in batch.items() if name != key}, batch.get(key) if key else None
    if isinstance(batch, (list, tuple)):
        if any(isinstance(entry, str) for entry in batch):
            raise TypeError(
                f"a batch of texts, beginning with {batch[0]!r}: a model needs numbers, so the Dataset or its "
                "collate_fn has to turn texts into arrays of ids"
            )
        if len(batch) == 1:
            return batch[0], None
        inputs = tuple(batch[:-1])
        return (inputs[0] if len(inputs) == 1 else inputs), batch[-1]
    return batch, None


def only_inputs(batch: Any) -> Any:
    """The inputs of a batch that may come without labels: one entry is all input, more end in a label."""
    return split_batch(batch)[0]


def first_inputs(loader: DataLoader) -> Any:
    """The inputs of one batch, with the random number generators left as they were.

    Raises:
        ValueError: the loader gives no batch.
    """
    with rng.preserved():
        sampler = getattr(loader, "batch_sampler", None)
        first = next(iter(reading.read(loader) if sampler is None else sampler), None)
        if first is None:
            raise ValueError(f"train gives no batch, although its length is {len(loader)}")
        if sampler is None:
            return only_inputs(first)
        # Not through the loader: its reading thread would go on drawing random numbers after this.
        samples = [loader.dataset[index] for index in first]
        return only_inputs(_as_tensors(reading.collated(loader, samples)))


def batch_size_of(batch: Any) -> int:
    """How many samples a batch has, from the first tensor in it."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    while isinstance(batch, (list, tuple)):
        batch = batch[0]
    return int(batch.shape[0]) if getattr(batch, "shape", None) else 1


def begin_epoch(loader: DataLoader, epoch: int, skip: int = 0) -> None:
    """Have the next iteration of a loader be over epoch `epoch` (from 1), from batch `skip` on where it can skip."""
    sampler = getattr(loader, "batch_sampler", None)
    if isinstance(sampler, EpochSampler):
        sampler.begin(epoch, skip)
    elif isinstance(sampler, DistributedBatchSampler):
        sampler.set_epoch(epoch)


def own_sampler(loader: DataLoader) -> EpochSampler | None:
    """The sampler of a loader that was made here, None for a user's."""
    sampler = getattr(loader, "batch_sampler", None)
    return sampler if isinstance(sampler, EpochSampler) else None


def is_shared(loader: DataLoader) -> bool:
    """Whether several processes get different samples from it."""
    sampler = own_sampler(loader)
    if sampler is not None:
        return sampler.ranks.several
    return isinstance(getattr(loader, "batch_sampler", None), DistributedBatchSampler)


def is_fixed(loader: DataLoader, host: Mapping[str, Any]) -> bool:
    """Whether batches can be skipped without being read: they are numbered here, and reading drew nothing at random.

    Args:
        loader: the loader.
        host: Python's and numpy's generators when the epoch began.
    """
    return own_sampler(loader) is not None and loader.num_workers == 0 and rng.host_state() == host


def _as_tensors(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _as_tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_as_tensors(value) for value in tree]
    return paddle.to_tensor(tree) if isinstance(tree, (np.ndarray, np.generic)) else tree


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
