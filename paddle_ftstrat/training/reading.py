"""Reading batches so that an error in a Dataset ends the loop, where Paddle's DataLoader would wait for ever."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from paddle.io import DataLoader
from paddle.io.dataloader.collate import default_collate_fn, default_convert_fn

from paddle_ftstrat._paddle import threads

_FAILED = "reading failed"


def read(loader: DataLoader) -> Iterator[Any]:
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
            if isinstance(batch, dict) and _FAILED in batch:
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

    def _guarded(self, function: Any, argument: Any) -> Any:
        if self.error is None:
            try:
                return function(argument)
            except BaseException as error:
                self.error = error
        return None
