"""Files and folders that others use meanwhile: written whole or not at all, one writer at a time, no pipe read."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from paddle_ftstrat import _errors

if sys.platform != "win32":
    import fcntl

NAME = ".lock"
# Seconds: a process that was killed takes a moment to die, and one that has just begun to write who it is.
_PATIENCE = 2.0
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_handles: set[int] = set()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of `path` when the block ends without an error.

    It is written in the same folder, synced, then renamed; the folder is made, an old file's mode kept. After an error
    the file is as it was.

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
def open_regular(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """A regular file open for reading; a pipe, whose writer may never come, a device or a folder is refused.

    Raises:
        OSError, ValueError: it may not be read, or is no regular file.
    """

    def opener(name: str, flags: int) -> int:
        # Opening a pipe waits for its writer, unless it is told not to.
        handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ValueError(f"{path} is not a regular file")
        return handle

    with open(path, "rb", opener=opener) as file:
        yield file


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Inside it every other `locked` of the folder raises: in this process, in others, on machines that share it.

    The lock is `flock` on the file `.lock` in the folder, which stays there. Where the file system has no such locks,
    a warning says so.

    Raises:
        RuntimeError: somebody else is inside; it names host, process and time.
        OSError: the file cannot be made or written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with locked(folder):
        ...         Path(folder, ".lock").read_text()
        '{"host": ..., "pid": ..., "since": ...}'
    """
    path = Path(folder, NAME)
    try:
        handle = _take(path)
    except OSError as error:
        raise OSError(error.errno, f"the folder cannot be locked: {error.strerror}", str(path)) from error
    try:
        yield
    finally:
        _give_back(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _take(path: Path) -> int:
    # A link would have the file that it points to emptied; a pipe would wait.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o666)
    _handles.add(handle)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        end = time.monotonic() + _PATIENCE
        while not _lock(handle, path.parent):
            if time.monotonic() > end:
                raise RuntimeError(
                    f"another fit writes to the checkpoint folder {path.parent}: {_holder(handle)}. Wait for its end, "
                    "or give this training a folder of its own"
                )
            time.sleep(0.05)
        os.ftruncate(handle, 0)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        os.write(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}).encode())
    except BaseException:
        os.close(handle)
        _handles.discard(handle)
        raise
    return handle


def _lock(handle: int, folder: Path) -> bool:
    """Whether the lock was free, and now is ours; True too where there are no locks."""
    try:
        if sys.platform == "win32":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _errors.warn(
            f"{folder} cannot be locked here ({error.strerror}): see to it yourself that only one process at a time "
            "trains with this checkpoint folder",
            RuntimeWarning,
        )
    return True


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        return f"process {holder['pid']!s:.100} on host {holder['host']!s:.100}, since {holder['since']!s:.100}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said which"


def _give_back(handle: int) -> None:
    if handle not in _handles:
        return  # in a child of the process that took it
    with suppress(OSError):  # no such locks here, or the folder is gone: to close it is enough
        os.ftruncate(handle, 0)
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_UN)  # also where a child that was just forked still has the file open
    _handles.discard(handle)
    os.close(handle)


def _forget() -> None:
    """Close a parent's locks, which otherwise would outlive it in this child; its own hold goes on."""
    while _handles:
        os.close(_handles.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
