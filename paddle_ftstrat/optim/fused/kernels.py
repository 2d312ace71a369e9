"""The passes over memory in machine code, made by numba, and the threads that run them.

Imported at the first update only: numba takes a while. Each pass works on the chunks [first, last) of the tables that
`members` describes, and holds no lock of Python meanwhile. Neither OpenMP (hangs after a fork, as DataLoader workers do
it) nor numba's own threads (not safe where two threads use them) fit here, so the threads are plain ones of Python.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from paddle_ftstrat.acceleration.machine import floats
from paddle_ftstrat.optim.fused.members import (
    ADDRESSES,
    ANCHOR,
    AVERAGE,
    FIRST,
    FISHER,
    GRAD,
    NUMBERS,
    PARAM,
    SECOND,
    TRAINS,
    Addresses,
    Constants,
    Range,
    Table,
)

# Below this many values per thread, waking one costs more than it takes over.
GRAIN = 1 << 19
TILE = 1024
ONE = np.float32(1)
ZERO = np.float32(0)
Numbers = npt.NDArray[np.float32]


def threads_for(values: int, allowed: int) -> int:
    """How many threads a pass over so many values is worth, at most `allowed`."""
    return max(1, min(allowed, values // GRAIN))


def run(function: Any, at: Addresses, table: Table, ranges: Sequence[Range], result: Any) -> None:
    """Call `function(at, table, first, last, result)` for each range, one in this thread, the others beside it."""
    others = [
        _executor(os.getpid(), len(ranges) - 1).submit(function, at, table, first, last, result)
        for first, last in ranges[1:]
    ]
    try:
        function(at, table, *ranges[0], result)
    finally:
        for other in others:
            other.result()


@functools.cache
def _executor(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has its parent's objects but not its threads: by process, it makes threads of its own.
    return ThreadPoolExecutor(threads, thread_name_prefix="ftstrat-update")


def _pass(*freedoms: str) -> Callable[[Any], Any]:
    """Compile a function; `freedoms` are liberties with rounding, in this function only."""

    def compiled(function: Any) -> Any:
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms)}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written to
            return njit(**options)(function)

    return compiled


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once where the processor can: where Paddle's kernels do so, for the very same bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        kind = ir.FunctionType(number, [number] * 3)
        return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [number], kind), args)

    return types.float32(types.float32, types.float32, types.float32), codegen


def make_ready(rule: str) -> None:
    """Compile what an optimizer's rule needs, or load it from the cache: no chunk is worked on yet."""
    at, numbers = np.zeros((1, ADDRESSES), np.int64), np.zeros((1, NUMBERS), np.float32)
    table = (np.zeros(1, np.int64),) * 3
    squares(at, table, 0, 0, np.zeros(1))
    powers(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    shares(np.zeros((3, 0), np.int64), np.zeros(0, np.float32), 0.0, 2.0, np.zeros((2, 0), np.float32))
    UPDATES[rule](at, table, 0, 0, numbers)


# Any order of the sum is right, and without that freedom it would take one value at a time.
@_pass("reassoc", "contract")
def squares(at: Addresses, table: Table, first: int, last: int, out: npt.NDArray[np.float64]) -> None:
    """Σ g² of each chunk."""
    index, start, length = table
    for c in range(first, last):
        i = index[c]
        total = 0.0
        g = carray(floats(at[i, GRAD] + 4 * start[c]), (length[c],))
        if at[i, TRAINS] != 0:
            trains = carray(floats(at[i, TRAINS] + 4 * start[c]), (length[c],))
            for k in range(length[c]):
                x = np.float64(g[k]) if trains[k] != ZERO else 0.0
                total += x * x
        else:
            for k in range(length[c]):
                x = np.float64(g[k])
                total += x * x
        out[c] = total


@_pass()
def powers(at: Addresses, factors: Numbers, out: Numbers) -> None:
    """The powers of a beta, which then move on by one update."""
    for i in range(len(at)):
        power = carray(floats(at[i]), (1,))
        out[i] = power[0]
        power[0] *= factors[i]


@_pass()
def shares(at: Addresses, lr: Numbers, r: float, power: float, out: Numbers) -> None:
    """The share of z in the average, and the number of the update; both move on by one update."""
    for i in range(len(lr)):
        count, largest = carray(floats(at[0, i]), (1,)), carray(floats(at[1, i]), (1,))
        total = carray(floats(at[2, i]), (1,))
        count[0] += ONE
        largest[0] = max(largest[0], lr[i])
        weight = largest[0] ** power * count[0] ** r
        total[0] += weight
        out[0, i] = weight / total[0] if total[0] > ZERO else ZERO
        out[1, i] = count[0]


@_pass()
def _values(address: int, begin: int, n: int, none: Numbers) -> Any:
    return carray(floats(address + 4 * begin), (n,)) if address != 0 else none[:n]


@_pass()
def _clamped(p: Numbers, g: Numbers, n: int, c: Constants, out: Numbers) -> None:
    for k in range(n):
        x = g[k] * c.scale
        if c.low < c.high:
            x = c.low if x < c.low else x
            x = c.high if x > c.high else x
        sign = ONE if p[k] > ZERO else ZERO
        out[k] = x + c.l1 * (-ONE if p[k] < ZERO else sign)


@_pass()
def _moved(p: np.float32, direction: np.float32, c: Constants) -> np.float32:
    return (_fma(p, c.before, p) - c.lr * direction) * c.after


_rule: Any = None  # each copy of the loop below has its own


def _update(at: Addresses, table: Table, first: int, last: int, numbers: Numbers) -> None:
    index, start, length = table
    buffer, none = np.empty(TILE, np.float32), np.zeros(TILE, np.float32)
    before, silenced = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for chunk in range(first, last):
        i = index[chunk]
        # No list: numba wants to know how many there are.
        row = numbers[i]
        c = Constants(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11])
        for begin in range(start[chunk], start[chunk] + length[chunk], TILE):
            n = min(TILE, start[chunk] + length[chunk] - begin)
            p, g, scale = _values(at[i, PARAM], begin, n, none), _values(at[i, GRAD], begin, n, none), c.scale
            m, v = _values(at[i, FIRST], begin, n, none), _values(at[i, SECOND], begin, n, none)
            trains = _values(at[i, TRAINS], begin, n, none)
            if at[i, TRAINS] != 0:
                for k in range(n):
                    before[k], silenced[k] = p[k], g[k] if trains[k] != ZERO else ZERO
                g = silenced[:n]
            if c.low < c.high or c.l1 != ZERO:
                _clamped(p, g, n, c, buffer)
                g, scale = buffer[:n], ONE
            # The commonest cases read and write every value once.
            if at[i, FISHER] != 0:
                w, f = _values(at[i, ANCHOR], begin, n, none), _values(at[i, FISHER], begin, n, none)
                for k in range(n):
                    x = g[k] * scale + (p[k] - w[k]) * c.l2 * f[k]
                    p[k], m[k], v[k] = _rule(p[k], x, m[k], v[k], c)
            elif at[i, ANCHOR] != 0:
                w = _values(at[i, ANCHOR], begin, n, none)
                for k in range(n):
                    p[k], m[k], v[k] = _rule(p[k], g[k] * scale + (p[k] - w[k]) * c.l2, m[k], v[k], c)
            else:
                for k in range(n):
                    p[k], m[k], v[k] = _rule(p[k], g[k] * scale + p[k] * c.l2, m[k], v[k], c)
            if at[i, TRAINS] != 0:
                for k in range(n):
                    p[k] = p[k] if trains[k] != ZERO else before[k]
            if at[i, AVERAGE] != 0:
                e = _values(at[i, AVERAGE], begin, n, none)
                for k in range(n):
                    e[k] = (e[k] - p[k]) * c.keep + p[k]


UPDATES: dict[str, Any] = {}


def fused_rule(rule: Any) -> Any:
    """Enter `_update` with this rule in its loop: a copy whose global `_rule` it is.

    What numba keeps on disk goes by a function's name and does not tell closures apart.
    """
    loop = FunctionType(_update.__code__, {**globals(), "_rule": _pass()(rule)}, rule.__name__)
    loop.__qualname__ = f"_update_{rule.__name__}"
    UPDATES[rule.__name__] = _pass()(loop)
    return rule


# The rules: the new parameter and state of one value, from the old ones and the effective gradient x.
Moved = tuple[np.float32, np.float32, np.float32]


@fused_rule
def sgd(p: np.float32, x: np.float32, m: np.float32, v: np.float32, c: Constants) -> Moved:
    return _moved(p, x, c), m, v


@fused_rule
def momentum(p: np.float32, x: np.float32, m: np.float32, v: np.float32, c: Constants) -> Moved:
    m = m * c.a + x
    return _moved(p, x + m * c.a if c.b != ZERO else m, c), m, v


@fused_rule
def adam(p: np.float32, x: np.float32, m: np.float32, v: np.float32, c: Constants) -> Moved:
    m = _fma(m, c.a, (ONE - c.a) * x)
    v = _fma(v, c.b, (ONE - c.b) * (x * x))
    return _fma(m / (math.sqrt(v) + c.eps), -c.lr, _fma(p, c.before, p)) * c.after, m, v


# The state of the schedule-free ones is (z, v); a is the share of z in the average, after that of the step in y.


@_pass()
def _averaged(p: np.float32, z: np.float32, step: np.float32, c: Constants) -> tuple[np.float32, np.float32]:
    return p + c.a * (z - p) - c.after * step, z - step


@fused_rule
def schedule_free_sgd(p: np.float32, x: np.float32, m: np.float32, v: np.float32, c: Constants) -> Moved:
    p, m = _averaged(p, m, c.lr * x - c.before * p, c)
    return p, m, v


@fused_rule
def schedule_free_adamw(p: np.float32, x: np.float32, m: np.float32, v: np.float32, c: Constants) -> Moved:
    v = _fma(v, c.b, (ONE - c.b) * (x * x))
    p, m = _averaged(p, m, c.lr * x / (math.sqrt(v) + c.eps) - c.before * p, c)
    return p, m, v
