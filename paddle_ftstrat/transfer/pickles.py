"""Pickles, read by an Unpickler that can only build data, and the numpy arrays in them."""

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


class DataUnpickler(pickle._Unpickler):
    """Reads one pickle, by the operations of Python's own reader that build data, of which nothing is copied.

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
        >>> DataUnpickler(pickle.dumps({"step": 3}), "x.pdparams").run()
        {'step': 3}
        >>> DataUnpickler(pickle.dumps(os.system), "x.pdparams").run()
        Traceback (most recent call last):
            ...
        ValueError: x.pdparams contains posix.system, which no state dict needs: refused, and nothing of it was run. ...

    Source: the operations are those of CPython's `pickletools`; derived from `pickle._Unpickler`, as joblib does,
    because the reader in C asks nobody before an operation.
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
        self.memo: Any = {}
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append

    def run(self) -> Any:
        """The object that the pickle describes; `position` is then the byte after it."""
        try:
            for _ in range(MAX_OPERATIONS):
                code = self.read(1)[0]
                if code == _STOP:
                    return self.stack.pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise ValueError(f"uses the pickle operation {chr(code)!r}, which no state dict needs")
                operation(self)
        except (IndexError, KeyError, struct.error, pickle.UnpicklingError) as error:
            raise ValueError(f"{self._where} is truncated or not a pickle (at byte {self.position})") from error
        except (TypeError, AttributeError, UnicodeError, OverflowError) as error:
            raise ValueError(f"{self._where} is a damaged pickle (at byte {self.position}): {error}") from error
        except ValueError as error:
            named = str(error).startswith(self._where)
            raise ValueError(str(error) if named else f"{self._where} {error}") from error
        raise ValueError(f"{self._where} has more than {MAX_OPERATIONS:,} pickle operations: not a state dict")

    def read(self, length: int) -> memoryview:
        """The next bytes, not copied."""
        end = self.position + length
        if end > len(self._data):
            raise ValueError(f"is truncated: {length} bytes are to follow byte {self.position}, the end is before that")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def readline(self) -> bytes:
        """The next line; names are short: none of a state dict's pickle needs more than 512 bytes."""
        line, end, _ = bytes(self._data[self.position : self.position + 512]).partition(b"\n")
        if not end:
            raise ValueError("is truncated or not a pickle: a name does not end")
        return bytes(self.read(len(line) + 1))

    def find_class(self, module: str, name: str) -> Global:
        """The name itself, where it is admitted."""
        found = Global(module, name)
        if found not in self._admitted:
            raise ValueError(
                f"contains {found}, which no state dict needs: refused, and nothing of it was run. "
                "Save the weights alone where the file comes from, for example model.state_dict()"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """What a persistent id stands for."""
        if self._persistent is None:
            raise ValueError("refers to data outside the pickle, which is not admitted here")
        return self._persistent(pid)

    def _decode_string(self, value: memoryview) -> str | memoryview:
        return str(value, "latin1") if len(value) <= _SHORT else value

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError(f"sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2]):
            # Hashing nested tuples can take time exponential in the length of the file.
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise ValueError(f"has a dict key of type {type(key).__name__}: only text and numbers are admitted")
            target[key] = value

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function not in self._calls:
            raise ValueError(f"calls {function!s:.80}, which is not admitted")
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments of a call are not a tuple")
        self.append(self._calls[function](*arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, (_DType, PickledArray)):
            target.build(state)
        # torch gives its OrderedDicts attributes (`_metadata`); they say nothing about the arrays.
        elif not isinstance(target, dict):
            raise ValueError(f"gives a {type(target).__name__} a state, which is not admitted")


_STOP = pickle.STOP[0]
_ADMITTED = (
    *(pickle.PROTO, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.BINFLOAT, pickle.LONG1),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
)
_OPERATIONS: dict[int, Callable[[Any], object]] = {
    **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _ADMITTED},
    pickle.FRAME[0]: lambda m: m.read(8),
    pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    pickle.SETITEM[0]: lambda m: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    pickle.SETITEMS[0]: lambda m: m._set_items(m.pop_mark()),
    pickle.REDUCE[0]: DataUnpickler._reduce,
    pickle.BUILD[0]: DataUnpickler._build,
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
