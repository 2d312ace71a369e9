"""What the training loop accepts as data: the order of its samples, how they are read, how a batch is taken apart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle.io import BatchSampler, DataLoader, DistributedBatchSampler, IterableDataset
from paddle.io.dataloader.collate import default_collate_fn, default_convert_fn

from paddle_ftstrat._paddle import threads
from paddle_ftstrat.param_attr.depth import only_inputs
from paddle_ftstrat.training import rng
from paddle_ftstrat.training.distributed import ONE, Ranks, check_loader, gather_facts, mapped

_FAILED = "reading failed"


def as_loader(data: Any, batch_size: int, shuffle: bool, what: str, dist: Ranks = ONE) -> DataLoader:
    """A DataLoader over `data`: a DataLoader as it is, a Dataset in batches of `batch_size`.

    The order of a Dataset's samples follows from one number drawn from numpy's generator, so `np.random.seed` decides
    it, as it does for Paddle's own loaders.

    Args:
        data: a `paddle.io.DataLoader` or a map-style `paddle.io.Dataset` (or any object with len and indexing).
        batch_size: samples per batch, where a loader is made.
        shuffle: new order in each epoch, where a loader is made.
        what: how to call the data in an error.
        dist: the processes that share the samples of a Dataset.

    Raises:
        ValueError: there is nothing in it, or a loader would give several processes the same samples.
        TypeError: its length is unknown, or it is no data set at all.

    Example:
        >>> pairs = paddle.io.TensorDataset([paddle.ones([5, 2]), paddle.zeros([5])])
        >>> len(as_loader(pairs, 2, shuffle=False, what="train"))
        3
    """
    if isinstance(data, IterableDataset):
        raise TypeError(f"{what}: an IterableDataset has no length, which schedules need; use a map-style Dataset")
    is_loader = isinstance(data, DataLoader)
    is_data = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, (str, bytes, Mapping))
    if not (is_loader or is_data):
        raise TypeError(f"{what} must be a paddle.io.DataLoader or Dataset, not {type(data).__name__}")
    try:
        length = len(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what}: it has no length, which schedules need; use a map-style Dataset") from error
    if is_loader and own_sampler(data) is None:
        check_loader(data, length, what, dist)
    if length == 0:
        raise ValueError(f"{what} is empty: there is no batch to take from it")
    if is_loader:
        return data
    seed = gather_facts(int(np.random.randint(2**31 - 1)), dist)[0] if shuffle else 0
    return DataLoader(data, batch_sampler=EpochSampler(length, batch_size, shuffle, seed, dist))


def first_inputs(loader: DataLoader) -> Any:
    """The inputs of one batch, with the random number generators left as they were.

    Raises:
        ValueError: the loader gives no batch.
    """
    with rng.preserved():
        first = next(in_this_thread(loader), None)
        if first is None:
            raise ValueError(f"train gives no batch, although its length is {len(loader)}")
        return only_inputs(first)


def in_this_thread(loader: DataLoader) -> Iterator[Any]:
    """The batches of an epoch, not through the loader, whose reading thread goes on drawing random numbers."""

    def as_tensor(value: Any) -> Any:
        return paddle.to_tensor(value) if isinstance(value, (np.ndarray, np.generic)) else value

    if loader.batch_sampler is None:
        yield from read(loader)
        return
    for indices in loader.batch_sampler:
        yield mapped(as_tensor, collated(loader, [loader.dataset[index] for index in indices]))


def share(loader: Any, batch: Any, number: int, accumulate: int, dist: Ranks) -> tuple[int, float]:
    """How many samples of a batch count, and the weight of its mean loss in the update's gradient.

    Gradients are summed over the `accumulate` batches of an update and averaged over the processes. The weights make of
    this the mean over all samples of the update. Batches have numbers in the epoch, from 0.
    """
    sampler = own_sampler(loader)
    samples = batch_size_of(batch) if sampler is None else sampler.count(number)
    if accumulate == 1 and not dist.is_distributed:
        return samples, 1.0
    if sampler is None:
        # How many samples the rest of the update will have, only the loader knows: corrected at the update.
        nominal = getattr(loader.batch_sampler, "batch_size", None) or 1
        return samples, samples / accumulate / nominal
    first = number - number % accumulate
    together = sum(sampler.total(one) for one in range(first, min(first + accumulate, len(sampler))))
    return samples, samples * dist.world / together


def batch_size_of(batch: Any) -> int:
    """How many samples a batch has, from the first tensor in it."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    while isinstance(batch, (list, tuple)):
        batch = batch[0]
    return int(batch.shape[0]) if getattr(batch, "shape", None) else 1


def begin_epoch(loader: DataLoader, epoch: int, skip: int = 0) -> None:
    """Have the next iteration of a loader be over epoch `epoch` (from 1), from batch `skip` on where it can skip."""
    sampler = loader.batch_sampler
    if isinstance(sampler, EpochSampler):
        sampler.begin(epoch, skip)
    elif isinstance(sampler, DistributedBatchSampler):
        sampler.set_epoch(epoch)


def own_sampler(loader: DataLoader) -> EpochSampler | None:
    """The sampler of a loader that was made here, None for a user's."""
    return loader.batch_sampler if isinstance(loader.batch_sampler, EpochSampler) else None


def is_shared(loader: DataLoader) -> bool:
    """Whether several processes get different samples from it."""
    sampler = loader.batch_sampler
    if isinstance(sampler, EpochSampler):
        return sampler.ranks.is_distributed
    return isinstance(sampler, DistributedBatchSampler)


def is_fixed(loader: DataLoader, host: Mapping[str, Any]) -> bool:
    """Whether batches can be skipped without being read: they are numbered here, and reading drew nothing at random.

    `host` are Python's and numpy's generators when the epoch began.
    """
    return own_sampler(loader) is not None and loader.num_workers == 0 and rng.host_state() == host


def concatenated(parts: list[Any]) -> Any:
    """Batches of outputs as one: tensors joined along the first axis, tuples and dicts entry by entry."""
    return mapped(lambda *some: paddle.concat([part if part.ndim else part.reshape([1]) for part in some]), *parts)


def read(loader: DataLoader) -> Generator[Any, None, None]:
    """The batches of a loader; what its Dataset, sampler or collate function raises is raised here, as it was.

    Paddle reads ahead in a thread. An exception ends that thread and nobody hears of it, so the error is handed on as
    a batch of its own. A loader with worker processes has Paddle's own way to tell. A generator that is closed before
    its end reads no more.

    Args:
        loader: a `paddle.io.DataLoader`, which is left as it is.

    Example:
        >>> import paddle
        >>> class Broken(paddle.io.Dataset):
        ...     def __getitem__(self, index):
        ...         return np.float32(1 / index)
        ...
        ...     def __len__(self):
        ...         return 4
        >>> list(read(DataLoader(Broken(), batch_size=2)))
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
    """
    if loader.num_workers or type(loader).__iter__ is not DataLoader.__iter__:
        with threads.reading(loader) as batches:
            yield from batches
        return
    guard = _Guard(loader)
    guarded = copy.copy(loader)
    guarded.dataset, guarded.collate_fn = guard, guard.collate
    if loader.batch_sampler is not None:
        guarded.batch_sampler = guard.indices()
    with threads.reading(guarded) as batches:
        for batch in batches:
            if guard.error is not None and isinstance(batch, dict) and _FAILED in batch:
                raise guard.error
            yield batch


def collated(loader: DataLoader, samples: Any) -> Any:
    """The batch that a loader makes of samples.

    Raises:
        TypeError: a sample holds a numpy bool, which Paddle's batches cannot.
    """
    if loader.collate_fn is not None:
        return loader.collate_fn(samples)
    try:
        return (default_convert_fn if loader.batch_sampler is None else default_collate_fn)(samples)
    except TypeError as error:
        if "numpy.bool" not in str(error):
            raise
        raise TypeError(
            "a sample holds a numpy bool, which Paddle cannot put into a batch: make labels int64 for classes, float32 "
            "for numbers, e.g. np.int64(label)"
        ) from error


class _Guard:
    """The parts of a loader that run a user's code; after the first error none of it runs any more."""

    def __init__(self, loader: DataLoader) -> None:
        self._dataset, self._sampler, self._loader = loader.dataset, loader.batch_sampler, loader
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        return self._guarded(self._dataset.__getitem__, index)

    def indices(self) -> Iterator[Any]:
        try:
            for indices in self._sampler:
                yield indices
                if self.error is not None:
                    return
        except Exception as error:
            self.error = error
            yield []

    def collate(self, samples: Any) -> Any:
        batch = self._guarded(partial(collated, self._loader), samples)
        return batch if self.error is None else {_FAILED: np.zeros(1, "float32")}

    def _guarded(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return function(argument) if self.error is None else None
        except BaseException as error:
            self.error = error


class EpochSampler(BatchSampler):
    """Batches whose order is a function of (seed, epoch), shared out among processes without loss or repetition.

    All processes together take `batch_size · ranks.world` samples of the epoch's order at a time, each a contiguous
    share of them; the last, smaller group is shared out as evenly as possible. A process that gets nothing of it is
    handed one sample to keep it in step, with a `count` of 0.

    Args:
        length: number of samples.
        batch_size: samples per batch and process.
        shuffle: a new order in each epoch; False keeps the order of the data set.
        seed: what the orders follow from, the same on all processes.
        ranks: which process this is, of how many.

    Example:
        >>> sampler = EpochSampler(5, 2, shuffle=False, seed=0)
        >>> list(sampler)
        [[0, 1], [2, 3], [4]]
        >>> sampler.begin(epoch=1, skip=2)
        >>> list(sampler)
        [[4]]
    """

    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int, ranks: Ranks = ONE) -> None:
        # Paddle's constructor wants a data set and makes a sampler of its own; DataLoader only iterates and asks len.
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.ranks = ranks
        self.drop_last = False
        self._epoch, self._skip = 1, 0
        self._last: tuple[Any, np.ndarray] = (None, np.arange(0))

    def begin(self, epoch: int, skip: int = 0) -> None:
        """Iterations are over epoch `epoch` (from 1) from now on; the next one leaves out its first `skip` batches."""
        self._epoch, self._skip = epoch, skip

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, for all processes together, shape [length]."""
        if not self.shuffle:
            return np.arange(self.length)
        if self._last[0] != (self.seed, epoch):
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._last = (self.seed, epoch), generator.permutation(self.length)
        return self._last[1]

    def indices(self, epoch: int, batch: int) -> np.ndarray:
        """This process's samples of a batch (from 0) of an epoch; one that counts for nothing where it has none."""
        order, (first, last) = self.order(epoch), self._bounds(batch)
        return order[first:last] if last > first else order[:1]

    def count(self, batch: int) -> int:
        """How many of this process's samples count in a batch (from 0) of any epoch."""
        first, last = self._bounds(batch)
        return last - first

    def total(self, batch: int) -> int:
        """How many samples all processes together have in a batch (from 0) of any epoch."""
        together = self.batch_size * self.ranks.world
        return min(together, self.length - batch * together)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first, self._skip = self._epoch, self._skip, 0
        for batch in range(first, len(self)):
            yield self.indices(epoch, batch).tolist()

    def __len__(self) -> int:
        return -(-self.length // (self.batch_size * self.ranks.world))

    def _bounds(self, batch: int) -> tuple[int, int]:
        first, number, (rank, world) = batch * self.batch_size * self.ranks.world, self.total(batch), self.ranks
        small, larger = divmod(number, world)
        return first + rank * small + min(rank, larger), first + (rank + 1) * small + min(rank + 1, larger)
