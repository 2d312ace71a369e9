"""The order of the data: which samples make up which batch of which epoch, on which process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from paddle.io import BatchSampler

from paddle_ftstrat.training.distributed import ONE, Ranks


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
        return self._share(self.order(epoch), batch)

    def count(self, batch: int) -> int:
        """How many of this process's samples count in a batch (from 0) of any epoch."""
        first, last = self._bounds(batch)
        return last - first

    def total(self, batch: int) -> int:
        """How many samples all processes together have in a batch (from 0) of any epoch."""
        together = self.batch_size * self.ranks.world
        return min(together, self.length - batch * together)

    def __iter__(self) -> Iterator[list[int]]:
        order, (first, self._skip) = self.order(self._epoch), (self._skip, 0)
        for batch in range(first, len(self)):
            yield self._share(order, batch).tolist()

    def __len__(self) -> int:
        return -(-self.length // (self.batch_size * self.ranks.world))

    def _bounds(self, batch: int) -> tuple[int, int]:
        first, number, (rank, world) = batch * self.batch_size * self.ranks.world, self.total(batch), self.ranks
        small, larger = divmod(number, world)
        return first + rank * small + min(rank, larger), first + (rank + 1) * small + min(rank + 1, larger)

    def _share(self, order: np.ndarray, batch: int) -> np.ndarray:
        first, last = self._bounds(batch)
        return order[first:last] if last > first else order[:1]
