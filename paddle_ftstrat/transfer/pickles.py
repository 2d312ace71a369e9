"""Pickles, read by a machine that can only build data, and the numpy arrays in them."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from paddle_ftstrat.transfer.contents import Entry, whole_numbers

MAX_OPERATIONS = 1_000_000
_SHORT = 256  # a Python 2 string up to here is text (a name), a longer one is the data of an array
_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


class Global(NamedTuple):
    """The name of something in a module; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Machine:
    """Reads one pickle.

    Args:
        data: the bytes; the pickle may end before them.
        where: what to call the file in an error.
        calls: what each admitted global does when the pickle calls it; numpy's are always admitted.
        symbols: globals that may stand in the data but not be called.
        persistent: what a persistent id stands for; None refuses them.
        start: where in `data` the pickle begins.

    Raises:
        ValueError: from `run`: another operation or global than these, a truncated pickle, too many operations.

    Example:
        >>> import os
        >>> Machine(pickle.dumps({"step": 3}), "x.pdparams").run()
        {'step': 3}
        >>> Machine(pickle.dumps(os.system), "x.pdparams").run()
        Traceback (most recent call last):
            ...
        ValueError: x.pdparams contains posix.system, which no state dict needs: refused, and nothing of it was run. ...

    Source: the operations are those of CPython's `pickletools`.
    """

    def __init__(
        self,
        data: Any,
        where: str,
        calls: Mapping[Global, Callable[..., Any]] | None = None,
        symbols: frozenset[Global] = frozenset(),
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self._data, self._where, self.position = memoryview(data), where, start
        self._calls = {**_CALLS, **(calls or {})}
        self._admitted = {*self._calls, Global("numpy", "ndarray"), *symbols}
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes; `position` is then the byte after it."""
        try:
            for _ in range(MAX_OPERATIONS):
                code = self._data[self.position]
                self.position += 1
                if code == _STOP:
                    return self._stack.pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise ValueError(f"uses the pickle operation {chr(code)!r}, which no state dict needs")
                operation(self)
        except (IndexError, KeyError, struct.error) as error:
            raise ValueError(f"{self._where} is truncated or not a pickle (at byte {self.position})") from error
        except (TypeError, AttributeError, UnicodeError, OverflowError) as error:
            raise ValueError(f"{self._where} is a damaged pickle (at byte {self.position}): {error}") from error
        except ValueError as error:
            named = str(error).startswith(self._where)
            raise ValueError(str(error) if named else f"{self._where} {error}") from error
        raise ValueError(f"{self._where} has more than {MAX_OPERATIONS:,} pickle operations: not a state dict")

    def _take(self, length: int) -> memoryview:
        end = self.position + length
        if length < 0 or end > len(self._data):
            raise ValueError(f"is truncated: {length} bytes are to follow byte {self.position}, the end is before that")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        # Names are short: no line of a state dict's pickle needs more.
        for end in range(self.position, min(self.position + 512, len(self._data))):
            if self._data[end] == 0x0A:
                text = str(self._take(end - self.position), "utf-8")
                self.position += 1
                return text
        raise ValueError("is truncated or not a pickle: a name does not end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _bytes(self, form: str) -> memoryview:
        return self._take(self._number(form))

    def _text(self, form: str) -> None:
        self._push(str(self._bytes(form), "utf-8", "surrogatepass"))

    def _old_string(self, form: str) -> None:
        raw = self._bytes(form)
        self._push(str(raw, "latin1") if len(raw) <= _SHORT else raw)

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _tuple(self, length: int) -> None:
        items = tuple(self._stack[-length:])
        if len(items) < length:
            raise IndexError
        self._stack[-length:] = [items]

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError(f"appends to a {type(target).__name__}")
        target.extend(values)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise TypeError(f"sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2]):
            # Hashing nested tuples can take time exponential in the length of the file.
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise ValueError(f"has a dict key of type {type(key).__name__}: only text and numbers are admitted")
            target[key] = value

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a global's name is not text")
        found = Global(module, name)
        if found not in self._admitted:
            raise ValueError(
                f"contains {found}, which no state dict needs: refused, and nothing of it was run. "
                "Save the weights alone where the file comes from, for example model.state_dict()"
            )
        self._push(found)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or function not in self._calls:
            raise ValueError(f"calls {function!s:.80}, which is not admitted")
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments of a call are not a tuple")
        self._push(self._calls[function](*arguments))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, (_DType, PickledArray)):
            target.build(state)
        # torch gives its OrderedDicts attributes (`_metadata`); they say nothing about the arrays.
        elif not isinstance(target, dict):
            raise ValueError(f"gives a {type(target).__name__} a state, which is not admitted")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise ValueError("refers to data outside the pickle, which is not admitted here")
        self._push(self._persistent(self._stack.pop()))

    def _memoize(self, index: int) -> None:
        self._memo[index] = self._stack[-1]


_STOP = pickle.STOP[0]
_OPERATIONS: dict[int, Callable[[Machine], object]] = {
    code[0]: operation
    for code, operation in {
        pickle.PROTO: lambda m: m._take(1),
        pickle.FRAME: lambda m: m._take(8),
        pickle.MARK: Machine._mark,
        pickle.POP: lambda m: m._stack.pop(),
        pickle.POP_MARK: Machine._since_mark,
        pickle.NONE: lambda m: m._push(None),
        pickle.NEWTRUE: lambda m: m._push(True),
        pickle.NEWFALSE: lambda m: m._push(False),
        pickle.BININT: lambda m: m._push(m._number("<i")),
        pickle.BININT1: lambda m: m._push(m._number("<B")),
        pickle.BININT2: lambda m: m._push(m._number("<H")),
        pickle.BINFLOAT: lambda m: m._push(m._number(">d")),
        pickle.LONG1: lambda m: m._push(int.from_bytes(m._bytes("<B"), "little", signed=True)),
        pickle.BINUNICODE: lambda m: m._text("<I"),
        pickle.SHORT_BINUNICODE: lambda m: m._text("<B"),
        pickle.BINUNICODE8: lambda m: m._text("<Q"),
        pickle.BINBYTES: lambda m: m._push(m._bytes("<I")),
        pickle.SHORT_BINBYTES: lambda m: m._push(m._bytes("<B")),
        pickle.BINBYTES8: lambda m: m._push(m._bytes("<Q")),
        pickle.BYTEARRAY8: lambda m: m._push(m._bytes("<Q")),
        pickle.BINSTRING: lambda m: m._old_string("<i"),
        pickle.SHORT_BINSTRING: lambda m: m._old_string("<B"),
        pickle.EMPTY_TUPLE: lambda m: m._push(()),
        pickle.TUPLE1: lambda m: m._tuple(1),
        pickle.TUPLE2: lambda m: m._tuple(2),
        pickle.TUPLE3: lambda m: m._tuple(3),
        pickle.TUPLE: lambda m: m._push(tuple(m._since_mark())),
        pickle.EMPTY_LIST: lambda m: m._push([]),
        pickle.APPEND: lambda m: m._append([m._stack.pop()]),
        pickle.APPENDS: lambda m: m._append(m._since_mark()),
        pickle.EMPTY_DICT: lambda m: m._push({}),
        pickle.SETITEM: lambda m: m._set_items([m._stack.pop(-2), m._stack.pop()]),
        pickle.SETITEMS: lambda m: m._set_items(m._since_mark()),
        pickle.GLOBAL: lambda m: m._global(m._line(), m._line()),
        pickle.STACK_GLOBAL: lambda m: m._global(m._stack.pop(-2), m._stack.pop()),
        pickle.REDUCE: Machine._reduce,
        pickle.BUILD: Machine._build,
        pickle.BINPERSID: Machine._persistent_id,
        pickle.BINPUT: lambda m: m._memoize(m._number("<B")),
        pickle.LONG_BINPUT: lambda m: m._memoize(m._number("<I")),
        pickle.MEMOIZE: lambda m: m._memoize(len(m._memo)),
        pickle.BINGET: lambda m: m._push(m._memo[m._number("<B")]),
        pickle.LONG_BINGET: lambda m: m._push(m._memo[m._number("<I")]),
    }.items()
}


class _DType:
    """A dtype under construction: code first, byte order in a second operation."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in _CODES:
            what = "Python objects" if str(code).lstrip("<>=|").startswith("O") else f"dtype {code!s:.40}"
            raise ValueError(f"has an array of {what}: only arrays of numbers are admitted")
        self.numpy: np.dtype[Any] = np.dtype(code)

    def build(self, state: Any) -> None:
        """Give it its byte order."""
        if any(part is not None for part in state[2:5]):
            raise ValueError("has an array of a structured dtype: only arrays of numbers are admitted")
        if state[1] not in ("<", ">", "=", "|"):
            raise ValueError(f"has an array of byte order {state[1]!s:.20}")
        self.numpy = self.numpy.newbyteorder(state[1])


class PickledArray:
    """An array under construction: made empty, filled in a second operation."""

    def __init__(self, *_: Any) -> None:
        self.entry: Entry | None = None

    def build(self, state: Any) -> None:
        """Fill it."""
        _, shape, dtype, is_fortran, data = state
        self.entry = _array(shape, dtype, data, is_fortran)


def array_in(value: Any) -> Entry | None:
    """The numpy array that a value from a pickle is; None where it is something else."""
    value = value.entry if isinstance(value, PickledArray) else value
    return value if isinstance(value, Entry) else None


def _array(shape: Any, dtype: Any, data: Any, is_fortran: Any) -> Entry:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, memoryview)):
        raise TypeError("an array has no data or no dtype of numbers")
    sizes, stored = whole_numbers(shape), dtype.numpy
    if prod(sizes) * stored.itemsize != len(data):
        raise ValueError(f"has an array of shape {sizes} with {len(data)} bytes of data")
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    return Entry(sizes, stored.name, lambda: np.frombuffer(data, stored).reshape(sizes, order=order))


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("encodes something else than latin1 text, which is not admitted")
    return text.encode("latin1")


def _ordered_dict(items: Any = ()) -> dict[str, Any]:
    """A dict from the pairs that Python 2 writes for an OrderedDict; later versions set the items afterwards."""
    pairs = [tuple(pair) for pair in items]
    if not all(len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise TypeError("an OrderedDict's items are not pairs of a name and a value")
    return dict(pairs)


_CALLS: dict[Global, Callable[..., Any]] = {
    Global("numpy", "dtype"): _DType,
    Global("_codecs", "encode"): _encode,
    Global("collections", "OrderedDict"): _ordered_dict,
}
for _core in ("numpy.core", "numpy._core"):
    _CALLS[Global(f"{_core}.multiarray", "_reconstruct")] = PickledArray
    _CALLS[Global(f"{_core}.multiarray", "scalar")] = lambda dtype, data: _array((), dtype, data, False).read().item()
    _CALLS[Global(f"{_core}.numeric", "_frombuffer")] = lambda data, *of: _array(of[1], of[0], data, of[2] == "F")
