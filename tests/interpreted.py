"""Kernels run by Python instead of as machine code: their own lines, with stand-ins for what only numba can do."""

import ctypes
import functools
import math
import struct
from types import FunctionType

import numpy as np

from paddle_ftstrat.acceleration import machine

_WORD = 2**32 - 1


def _pointer(kind):
    return lambda address: ctypes.cast(int(address), ctypes.POINTER(kind))


def _mixed(index, seed, other):
    """Wellons' triple32, with a seed before each of its halves."""
    x = (int(index) * 0x9E3779B9 + int(seed)) & _WORD
    x = ((x ^ x >> 16) * 0x85EBCA6B) & _WORD
    x = ((x ^ x >> 13) * 0xC2B2AE35) & _WORD
    x = x ^ x >> 16 ^ (int(other) & _WORD)
    x = ((x ^ x >> 15) * 0x2C1B3C6D) & _WORD
    x = ((x ^ x >> 12) * 0x297A2D39) & _WORD
    return (x ^ x >> 15) >> 1


def _ranked(number):
    """As numpy views it: a float's bits as a whole number, and back."""
    there, back = (np.float32, np.int32) if isinstance(number, np.int32) else (np.int32, np.float32)
    word = int(np.asarray(number, back).view(np.int32))
    return np.int32(word ^ 0x7FFFFFFF if word < 0 else word).view(there)


def _take(counter, amount):
    counter[0] += int(amount)
    return counter[0] - int(amount)


STAND_INS = {
    "carray": np.ctypeslib.as_array,
    "floats": _pointer(ctypes.c_float),
    "ints": _pointer(ctypes.c_int64),
    "number": lambda bits: np.float32(struct.unpack("<d", struct.pack("<q", bits))[0]),
    "two_to_the": lambda rounded: np.float32(math.nan if np.isnan(rounded) else 2.0 ** float(rounded - machine.ROUND)),
    "mixed": _mixed,
    "ranked": _ranked,
    "_take": _take,
    "_fma": lambda a, b, c: np.float32(np.float64(a) * np.float64(b) + np.float64(c)),
}


@functools.cache
def interpreted(function):
    """A compiled function's own code, and that of those it calls."""
    function = getattr(function, "py_func", function)
    known = function.__globals__
    called = {
        name: interpreted(known[name]) for name in function.__code__.co_names if hasattr(known.get(name), "py_func")
    }
    return FunctionType(function.__code__, {**known, **called, **STAND_INS}, function.__name__)


def run(kernel, units, grain, *arguments):
    """What `machine.run` does, one range after the other."""
    a = np.zeros(machine.SLOTS, np.int64)
    a[1], a[2] = grain, units
    a[machine.OWN : machine.OWN + len(arguments)] = arguments
    loop = interpreted(machine._shared)
    loop.__globals__["_work"] = interpreted(kernel)
    with np.errstate(all="ignore"):
        loop(STAND_INS["ints"](a.ctypes.data))
