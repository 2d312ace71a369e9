"""How kernels become machine code, made by numba, and run on the threads of Paddle's own kernels, in operations.

Imported at the first use only: numba takes a while. A kernel is a function (a, first, last) of its int64 arguments
(sizes, addresses of float32 values, numbers as the bits of a float64) and a range of units, rows mostly. Each thread
takes ranges from a counter in memory, always the same ranges, so that no result depends on the number of threads.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from paddle_ftstrat._paddle import threads

# What stands before a kernel's own arguments: the counter, units per range, units in all.
OWN = 3
SLOTS = 28
# About so many values are one thread's at a time.
GRAIN = 1 << 14
# Adding it rounds to a whole number, which then stands in the last bits.
ROUND = np.float32(12582912.0)

Arguments = npt.NDArray[np.int64]
Kernel = Callable[[Arguments, int, int], None]


def fast(function: Any) -> Any:
    """What kernels call, in machine code."""
    return njit(nogil=True, error_model="numpy", fastmath={"contract"})(function)


def _reordered(function: Any) -> Any:
    """As `fast`, with sums in any order, for which one value at a time would do otherwise."""
    return njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})(function)


def _pointer_to(kind: Any) -> Any:
    """What makes an address a pointer to values of a kind."""
    pointer = types.CPointer(kind)

    @intrinsic
    def pointer_to(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return pointer_to


floats, ints = _pointer_to(types.float32), _pointer_to(types.int64)


@intrinsic
def number(typingctx: Any, bits: Any) -> Any:
    """The float32 of a float64's bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fptrunc(builder.bitcast(args[0], ir.DoubleType()), ir.FloatType())

    return types.float32(types.int64), codegen


@intrinsic
def two_to_the(typingctx: Any, rounded: Any) -> Any:
    """2ⁿ, where `rounded` is n + ROUND."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        n = builder.sub(builder.bitcast(args[0], word), ir.Constant(word, 0x4B400000))
        exponent = builder.shl(builder.add(n, ir.Constant(word, 127)), ir.Constant(word, 23))
        return builder.bitcast(exponent, ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def ranked(typingctx: Any, number: Any) -> Any:
    """A whole number for a float32, and back; they have the same order, in which maxima are found many at a time."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = args[0] if signature.args[0] == types.int32 else builder.bitcast(args[0], word)
        # Below zero, floats grow while their bits do not.
        flips = builder.and_(builder.ashr(bits, ir.Constant(word, 31)), ir.Constant(word, 0x7FFFFFFF))
        turned = builder.xor(bits, flips)
        return turned if signature.return_type == types.int32 else builder.bitcast(turned, ir.FloatType())

    return (types.float32(types.int32) if number == types.int32 else types.int32(types.float32)), codegen


@intrinsic
def mixed(typingctx: Any, index: Any, seed: Any, other: Any) -> Any:
    """32 random bits of an index: two rounds of multiplying and shifting, with a seed before each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        x, first, second = (builder.trunc(arg, word) for arg in args)
        x = builder.add(builder.mul(x, ir.Constant(word, 0x9E3779B9)), first)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None), (15, 0x2C1B3C6D), (12, 0x297A2D39)):
            x = builder.xor(x, builder.lshr(x, ir.Constant(word, shift)))
            x = builder.xor(x, second) if factor is None else builder.mul(x, ir.Constant(word, factor))
        x = builder.xor(x, builder.lshr(x, ir.Constant(word, 15)))
        return builder.lshr(x, ir.Constant(word, 1))

    return types.int32(types.int64, types.int64, types.int64), codegen


@intrinsic
def _take(typingctx: Any, counter: Any, amount: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return types.int64(types.CPointer(types.int64), types.int64), codegen


_work: Any = None  # each copy of the loop below has its own


def _shared(arguments: Any) -> None:
    a = carray(arguments, (SLOTS,))
    while True:
        first = _take(arguments, a[1])
        if first >= a[2]:
            return
        _work(a, first, min(first + a[1], a[2]))


@functools.cache
def _compiled(work: Kernel) -> Any:
    """A kernel in the loop, compiled or read from the disk when it is needed first."""
    # What numba keeps on disk goes by a function's name and does not tell closures apart.
    code = _shared.__code__.replace(co_filename=work.__code__.co_filename)  # which it compares when it reads
    loop = FunctionType(code, {**globals(), "_work": _reordered(work)}, f"_shared_{work.__name__}")
    loop.__qualname__ = f"_shared_{work.__name__}"
    signature, options = types.void(types.CPointer(types.int64)), {"nopython": True, "error_model": "numpy"}
    try:
        return cfunc(signature, cache=True, **options)(loop)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return cfunc(signature, **options)(loop)


def bits(number: float) -> int:
    """A float64 as the int64 of the same bits."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def run(kernel: Kernel, units: int, grain: int, *arguments: int) -> None:
    """Run a kernel over `units` units, `grain` of them at a time, on as many threads as Paddle's kernels have now."""
    a = np.zeros(SLOTS, np.int64)
    a[1], a[2] = grain, units
    a[OWN : OWN + len(arguments)] = arguments
    threads.share(_compiled(kernel).address, a.ctypes.data, min(threads.current(), -(-units // grain)))


def at(*tensors: Any) -> list[int]:
    """Where each tensor's first value lies, 0 for None."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
