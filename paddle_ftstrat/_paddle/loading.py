"""Reading from a DataLoader. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paddle.io.dataloader.dataloader_iter import _DataLoaderIterSingleProcess


@contextmanager
def reading(loader: Any) -> Iterator[Iterator[Any]]:
    """The batches of a loader; after the block nothing of it is read any more.

    Paddle reads ahead in a thread, which goes on, drawing random numbers, after a loop was left in the middle.
    """
    batches = iter(loader)
    try:
        yield batches
    finally:
        thread = batches._thread if isinstance(batches, _DataLoaderIterSingleProcess) else None
        if thread is not None:
            # Paddle's own shutdown looks once a second whether the thread has ended.
            batches._exit_thread_expectedly()
            thread.join()
