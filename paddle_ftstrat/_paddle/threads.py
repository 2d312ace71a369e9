"""CPU threads: how many this process may use, Paddle's kernels on that many for a while, and their widest code.

Checked on paddlepaddle 2.6.2 and 3.3.1. The number of threads belongs to the thread that calls; MKL's is the process's.
The wheels for Linux and Windows bring Intel's OpenMP, which Paddle's own kernels, oneDNN and MKL all use.

Both bring MKL 2019.0.5 too, which asks for the processor's maker and gives all but Intel's the code for SSE, without
AVX, however wide their registers are. The variable MKL_DEBUG_CPU_TYPE overrules it, when it is set before MKL is used
for the first time in a process. MKL 2020.1 dropped the variable.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle.base import core
from paddle.io.dataloader.dataloader_iter import _DataLoaderIterSingleProcess

from paddle_ftstrat import _errors

_VARIABLE = "OMP_NUM_THREADS"
_OPENMP = ("libiomp5.so", "libiomp5md.dll", "libiomp5.dylib")
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
MKL_VARIABLE = "MKL_DEBUG_CPU_TYPE"
CPUINFO = Path("/proc/cpuinfo")
# With any of these the user has chosen.
_CHOICES = (MKL_VARIABLE, "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
# Widest first: MKL's number of the code, its name, and what a processor has to have for it.
_CODES = (
    (7, "AVX-512", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "bmi1", "bmi2"}),
    (5, "AVX2", {"avx2", "fma", "bmi1", "bmi2"}),
)


class _Here(threading.local):
    """Numbers of threads that this thread has to remember."""

    aside: int | None = None  # what `one_thread` put aside
    asked: int | None = None  # what `cpu_threads` was asked for
    said: int | None = None  # what was said last, where OpenMP cannot be asked


_HERE = _Here()


class Code(NamedTuple):
    """The code that MKL runs in this process.

    Attributes:
        in_force: MKL's number of it; None where MKL decides alone and was not asked.
        wanted: the number of the widest that the processor can run, if MKL would not take it by itself; else None.
        name: the name of the wanted one.
    """

    in_force: int | None
    wanted: int | None = None
    name: str = ""

    @property
    def late(self) -> bool:
        """Whether MKL had settled on narrower code before it could be told."""
        return self.in_force != self.wanted


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
    before, asked = get_threads(), _HERE.asked
    set_threads(count)
    _HERE.asked = count
    try:
        yield count
    finally:
        set_threads(before)
        _HERE.asked = asked


@contextmanager
def one_thread() -> Iterator[None]:
    """Paddle's kernels on one thread inside; `current` goes on telling how many there are outside.

    Paddle's optimizers run so: with several threads their update can make the next forward and backward slower than on
    one thread.
    """
    before = get_threads()
    if before == 1:
        yield
        return
    outer, _HERE.aside = _HERE.aside, before
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)
        _HERE.aside = outer


@functools.cache
def take_widest_code() -> Code:
    """Let Paddle's matrix products use AVX2 or AVX-512 on processors that are not Intel's; for the whole process.

    MKL, which carries them out, gives such processors code for SSE. It can be told better until its first use in a
    process, so what trains calls this before it runs a model. Nothing is changed where the user has chosen, nor
    without MKL.
    """
    wanted, name = (None, "") if any(choice in os.environ for choice in _CHOICES) else widest(CPUINFO)
    detect = _detection() if wanted else None
    if detect is None:
        return Code(None)
    # MKL looks at the variable once, here at the latest. It does not stay, so that no other process inherits it.
    os.environ[MKL_VARIABLE] = str(wanted)
    try:
        code = Code(detect(), wanted, name)
    finally:
        os.environ.pop(MKL_VARIABLE, None)  # another thread may have been here at the same time
    if code.late:
        _errors.warn(
            f"Paddle's matrix products run on SSE code here and could use {name}, several times faster: they were used "
            "before the first bind(), Learner or cpu_threads(), which switch them over. Let one of these come first, "
            f"or start the process with {MKL_VARIABLE}={wanted}."
        )
    return code


def code_in_force() -> int | None:
    """MKL's number of the code that `take_widest_code` found or left in force; None where MKL decides alone."""
    return take_widest_code().in_force


def current() -> int:
    """The number of threads that Paddle's kernels use when this thread calls them, or outside `one_thread`."""
    return _HERE.aside or get_threads()


def for_updates() -> int:
    """How many threads an update may use: those of the `cpu_threads` around it, else as many as it would take."""
    if _HERE.asked is not None:
        return _HERE.asked
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

    `root` is where `proc` and `sys` are, for tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Part of a core is no core: a thread that waits for one which has used up its quota keeps all others waiting.
    return max(1, int(min(cores, _quota(root))) // _local_processes())


def _local_processes() -> int:
    """Processes on this node of the data-parallel run that this one belongs to."""
    if size := _number(os.environ.get("PADDLE_LOCAL_SIZE", "")):
        return size
    # `paddle.distributed.spawn` and scripts name the addresses only.
    addresses = [address for address in os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if address]
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    here = sum(address.rpartition(":")[0] == host for address in addresses)
    return here or _number(os.environ.get("PADDLE_TRAINERS_NUM", "")) or 1


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _quota(root: Path) -> float:
    """Cores that the control groups of the process grant, the tightest of them; infinity without a limit."""
    quotas = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folders = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            folders = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup" / controllers]
        else:
            continue
        # A container without a namespace of its own reads the host's path, and has its own group mounted at the top.
        parts = [part for part in path.split("/") if part]
        for folder in folders:
            quotas += [_quota_of(folder.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    """Cores that one control group grants: version 2 says so in one file, version 1 in two."""
    said = _text(group / "cpu.max").split() or [_text(group / f"cpu.cfs_{what}_us") for what in ("quota", "period")]
    quota, period = map(_number, said) if len(said) == 2 else (0, 0)
    return quota / period if quota and period else math.inf


def set_by_user(begun_with: Path = Path("/proc/self/environ")) -> bool:
    """Whether OMP_NUM_THREADS was set by somebody else than Paddle.

    Paddle writes "1" where there is nothing, so any other value is the user's. A "1" is the user's where the process
    began with it, unless it is one of a distributed run, whose launcher has Paddle loaded and hands its "1" on. Where
    /proc cannot tell, a "1" counts as Paddle's.
    """
    if written_threads() != 1:
        return True
    entries = dict(entry.partition("=")[::2] for entry in _text(begun_with).split("\0"))
    value = entries.get(_VARIABLE, "").strip()
    return bool(value) if value != "1" else "PADDLE_TRAINER_ID" not in os.environ


def _text(path: Path) -> str:
    """What a file of the kernel says; "" where it is missing or not ours to read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def set_threads(threads: int) -> None:
    """Let Paddle's kernels use `threads` threads when this thread calls them; 0.2 µs."""
    core.set_num_threads(threads)
    _HERE.said = threads


def get_threads() -> int:
    """How many threads Paddle's kernels use when this thread calls them."""
    openmp = _openmp()
    if openmp is not None:
        return openmp.omp_get_max_threads()
    return written_threads() if _HERE.said is None else _HERE.said


def written_threads() -> int:
    """OMP_NUM_THREADS as importing Paddle leaves it: what the user set, else 1."""
    try:
        return max(1, int(os.environ.get(_VARIABLE, "1")))
    except ValueError:
        return 1


@functools.cache
def _openmp() -> Any:
    """Another handle of the OpenMP that Paddle has loaded; None where Paddle was built without."""
    folder = Path(paddle.__file__).parent / "libs"
    found = (folder / name for name in _OPENMP if (folder / name).exists())
    return next((ctypes.CDLL(str(path)) for path in found), None)


@functools.cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """What begins a parallel region, under the name that it has in GCC's OpenMP; None where there is none."""
    parallel = getattr(_openmp(), "GOMP_parallel", None)
    if parallel is not None:
        parallel.restype, parallel.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return parallel


def share(body: int, data: int, threads: int) -> None:
    """Call the C function void(void *) at the address `body` with `data` in so many threads at once, without the GIL.

    They are those that Paddle's kernels run on: other threads would have to wait for these, which go on spinning for
    200 ms after their work. Without OpenMP the function is called in this thread alone.
    """
    parallel = _parallel() if threads > 1 else None
    if parallel is None:
        _CALL(body)(data)
    else:
        parallel(body, data, threads, 0)


def widest(cpuinfo: Path) -> tuple[int | None, str]:
    """Number and name of the code that a processor which is not Intel's can run; (None, "") for Intel's, or unknown."""
    facts = processor(cpuinfo)
    if facts.get("vendor_id", "GenuineIntel") == "GenuineIntel":
        return None, ""
    flags = set(facts.get("flags", "").split())
    return next(((number, name) for number, name, needed in _CODES if needed <= flags), (None, ""))


def processor(cpuinfo: Path) -> dict[str, str]:
    """What Linux says of the first processor; nothing where it cannot be asked."""
    first, _, _ = _text(cpuinfo).partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _detection() -> Callable[[], int] | None:
    """MKL's function that settles which code it runs and returns the number; None for another MKL or none."""
    library = Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"
    if not library.exists():
        return None
    # Paddle has it loaded; this gives another handle of the same library.
    return getattr(ctypes.CDLL(str(library)), "mkl_serv_cpu_detect", None)


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
