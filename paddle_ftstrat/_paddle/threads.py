"""CPU threads: how many this process may use, Paddle's kernels on that many for a while, and their widest code."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle import mkl
from paddle_ftstrat._paddle import thread_counts as paddles

_VARIABLE = "OMP_NUM_THREADS"


class _Aside(threading.local):
    """What this thread has to remember: the number that `one_thread` put aside, and the one that was asked for."""

    threads: int | None = None
    asked: int | None = None


_ASIDE = _Aside()


@contextmanager
def cpu_threads(n: int | None = None) -> Iterator[int]:
    """Let Paddle's CPU kernels use `n` threads inside; importing Paddle leaves them with one.

    Afterwards, also after an error, the setting is what it was. The setting belongs to the thread that enters. The
    first time in a process, matrix products are switched to the widest code of the processor (`take_widest_code`).

    Args:
        n: number of threads, ≥ 1; None: all cores that the process may use (`threads.allowed`), unless OMP_NUM_THREADS
            was set before Paddle was imported: then that stays.

    Yields:
        The number in use.

    Raises:
        ValueError, TypeError: n is not a whole number ≥ 1.

    Example:
        >>> import paddle, paddle_ftstrat as hub
        >>> model = paddle.nn.Linear(4, 2)
        >>> run = hub.DefaultFinetuneStrategy(learning_rate=0.1).bind(model)
        >>> with hub.cpu_threads(2) as used:
        ...     for x in paddle.randn([3, 8, 4]):
        ...         model(x).square().mean().backward()
        ...         done = run.step()
        >>> used
        2
    """
    count = wanted(n)
    take_widest_code()
    before, asked = paddles.get_threads(), _ASIDE.asked
    paddles.set_threads(count)
    _ASIDE.asked = count
    try:
        yield count
    finally:
        paddles.set_threads(before)
        _ASIDE.asked = asked


@contextmanager
def one_thread() -> Iterator[None]:
    """Paddle's kernels on one thread inside; `current` goes on telling how many there are outside.

    Paddle's optimizers run so: with several threads their update can make the next forward and backward slower than on
    one thread.
    """
    before = paddles.get_threads()
    if before == 1:
        yield
        return
    outer, _ASIDE.threads = _ASIDE.threads, before
    paddles.set_threads(1)
    try:
        yield
    finally:
        paddles.set_threads(before)
        _ASIDE.threads = outer


def take_widest_code() -> None:
    """Let Paddle's matrix products use AVX2 or AVX-512 on processors that are not Intel's; for the whole process.

    MKL, which carries them out, gives such processors code for SSE. It can be told better until its first use in a
    process, so what trains calls this before it runs a model. Nothing is changed where MKL_DEBUG_CPU_TYPE,
    MKL_ENABLE_INSTRUCTIONS or MKL_CBWR is set in the environment, nor without MKL.

    Example:
        >>> from paddle_ftstrat import threads
        >>> threads.take_widest_code()
    """
    code = mkl.take_widest()
    if code.late:
        _tell_late(code)


@functools.cache
def _tell_late(code: mkl.Code) -> None:
    warnings.warn(
        f"Paddle's matrix products run on SSE code here and could use {code.name}, several times faster: they were "
        "used before the first bind(), Learner or cpu_threads(), which switch them over. Let one of these come first, "
        f"or start the process with {mkl.VARIABLE}={code.wanted}.",
        stacklevel=4,
    )


def code_in_force() -> int | None:
    """MKL's number of the code that `take_widest_code` found or left in force; None where MKL decides alone."""
    return mkl.take_widest().in_force


def current() -> int:
    """The number of threads that Paddle's kernels use when this thread calls them.

    Example:
        >>> from paddle_ftstrat import threads
        >>> with threads.cpu_threads(3):
        ...     threads.current()
        3
    """
    return _ASIDE.threads or paddles.get_threads()


def for_updates() -> int:
    """How many threads an update may use: those of the `cpu_threads` around it, else as many as it would take.

    Example:
        >>> from paddle_ftstrat import threads
        >>> with threads.cpu_threads(1):
        ...     threads.for_updates()
        1
    """
    if _ASIDE.asked is not None:
        return _ASIDE.asked
    return current() if current() > 1 else _of_process(os.getpid())


@functools.cache
def _of_process(process: int) -> int:
    # Asked at every update, and read from files: not more than once by each process, forked ones included.
    return wanted()


def wanted(n: int | None = None) -> int:
    """How many threads `cpu_threads(n)` uses."""
    if n is not None:
        return _errors.check_whole("n", n, minimum=1)
    return current() if set_by_user() else allowed()


def allowed(root: Path = Path("/")) -> int:
    """Cores that the process may use: its affinity or cgroup quota, divided by the run's processes on this node.

    Args:
        root: where `proc` and `sys` are, for tests.

    Returns:
        A number ≥ 1.

    Example:
        >>> import os
        >>> from paddle_ftstrat import threads
        >>> 1 <= threads.allowed() <= os.cpu_count()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Part of a core is no core: a thread that waits for one which has used up its quota keeps all others waiting.
    return max(1, int(min(cores, _quota(root))) // _local_processes())


def _local_processes() -> int:
    """Processes on this node of the data-parallel run that this one belongs to."""
    size = _number(os.environ.get("PADDLE_LOCAL_SIZE"))
    if size:
        return size
    # `paddle.distributed.spawn` and scripts name the addresses only.
    addresses = [address for address in os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if address]
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    here = sum(address.rpartition(":")[0] == host for address in addresses)
    return here or _number(os.environ.get("PADDLE_TRAINERS_NUM")) or 1


def _number(text: str | None) -> int:
    return int(text) if text and text.strip().isdigit() else 0


def _quota(root: Path) -> float:
    """Cores that the control groups of the process grant, the tightest of them; infinity without a limit."""
    quotas = [float("inf")]
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folders, read = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], _quota_of_v2
        elif "cpu" in controllers.split(","):
            folders, read = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup" / controllers], _quota_of_v1
        else:
            continue
        # A container without a namespace of its own reads the host's path, and has its own group mounted at the top.
        parts = [part for part in path.split("/") if part]
        for folder in folders:
            quotas += [read(folder.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min(quotas)


def _quota_of_v2(folder: Path) -> float:
    quota, _, period = (_text(folder / "cpu.max") or "").strip().partition(" ")
    return int(quota) / int(period) if _number(quota) and _number(period) else float("inf")


def _quota_of_v1(folder: Path) -> float:
    quota, period = (_number(_text(folder / name)) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return quota / period if quota and period else float("inf")


def set_by_user(proc: Path = Path("/proc"), pid: str = "self") -> bool:
    """Whether OMP_NUM_THREADS was set by somebody else than Paddle.

    Paddle writes "1" where there is nothing, so any other value is the user's. A "1" is the user's where the process
    began with it, unless it was begun by a process that had Paddle loaded and had itself begun without, as
    `paddle.distributed.launch` is. Where /proc cannot tell, a "1" counts as Paddle's.
    """
    if pid == "self" and paddles.written_threads() != 1:
        return True
    begun_with = _begun_with(proc / pid)
    if begun_with != "1":
        return bool(begun_with)
    parent = _parent(proc / pid)
    if parent is None or not paddles.is_loaded_in(_text(proc / parent / "maps") or ""):
        return True
    return set_by_user(proc, parent)


def _begun_with(process: Path) -> str | None:
    """OMP_NUM_THREADS in the environment that a process was started with."""
    for entry in (_text(process / "environ") or "").split("\0"):
        name, _, value = entry.partition("=")
        if name == _VARIABLE:
            return value.strip()
    return None


def _parent(process: Path) -> str | None:
    for line in (_text(process / "status") or "").splitlines():
        if line.startswith("PPid:"):
            return line.split()[1]
    return None


def _text(path: Path) -> str | None:
    """What a file of the kernel says; None where it is missing or not ours to read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None
