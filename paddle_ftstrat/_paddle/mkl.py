"""Which code Paddle's matrix products run. Checked on paddlepaddle 2.6.2 and 3.3.1, which both bring MKL 2019.0.5.

MKL of that age asks for the processor's maker and gives all but Intel's the code for SSE, without AVX, however wide
their registers are. The variable MKL_DEBUG_CPU_TYPE overrules it, when it is set before MKL is used for the first time
in a process. MKL 2020.1 dropped the variable.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import paddle

VARIABLE = "MKL_DEBUG_CPU_TYPE"
CPUINFO = Path("/proc/cpuinfo")
# With any of these the user has chosen.
_CHOICES = (VARIABLE, "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
# Widest first: MKL's number of the code, its name, and what a processor has to have for it.
_CODES = (
    (7, "AVX-512", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "bmi1", "bmi2"}),
    (5, "AVX2", {"avx2", "fma", "bmi1", "bmi2"}),
)


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


def take_widest() -> Code:
    """Have MKL take the widest code that the processor can run, where it would not by itself; once per process."""
    if any(name in os.environ for name in _CHOICES):
        return Code(None)
    return _take_widest()


@functools.cache
def _take_widest() -> Code:
    wanted, name = widest(CPUINFO)
    detect = _detection() if wanted else None
    if detect is None:
        return Code(None)
    # MKL looks at the variable once, here at the latest. It does not stay, so that no other process inherits it.
    os.environ[VARIABLE] = str(wanted)
    try:
        return Code(detect(), wanted, name)
    finally:
        os.environ.pop(VARIABLE, None)  # another thread may have been here at the same time


def widest(cpuinfo: Path) -> tuple[int | None, str]:
    """Number and name of the code that a processor which is not Intel's can run; (None, "") for Intel's, or unknown."""
    facts = processor(cpuinfo)
    if facts.get("vendor_id", "GenuineIntel") == "GenuineIntel":
        return None, ""
    flags = set(facts.get("flags", "").split())
    return next(((number, name) for number, name, needed in _CODES if needed <= flags), (None, ""))


def processor(cpuinfo: Path) -> dict[str, str]:
    """What Linux says of the first processor; nothing where it cannot be asked."""
    try:
        first, _, _ = cpuinfo.read_text("utf-8", "replace").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _detection() -> Callable[[], int] | None:
    """MKL's function that settles which code it runs and returns the number; None for another MKL or none."""
    library = Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"
    if not library.exists():
        return None
    # Paddle has it loaded; this gives another handle of the same library.
    return getattr(ctypes.CDLL(str(library)), "mkl_serv_cpu_detect", None)
