"""Writing files so that a crash, a full disk or an error leaves the old file or the new one; reading none but files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of `path` when the block ends without an error.

    It is written in the same folder, synced, then renamed; the folder is made, an old file's mode kept.

    Raises:
        OSError: the folder is not writable or the disk is full; the file is as it was.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(folder + "/a") as file:
        ...         _ = file.write(b"new")
        ...     Path(folder, "a").read_bytes()
        b'new'
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask()
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, mode)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


@contextmanager
def open_regular(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A regular file open for reading; a pipe, whose writer may never come, or a device is refused instead.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: it is no regular file.

    Example:
        >>> with open_regular(os.devnull) as file:
        ...     file.read()
        Traceback (most recent call last):
        ValueError: /dev/null is not a regular file
    """
    # Opening a pipe waits for its writer, unless it is told not to.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file")
        yield file


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
