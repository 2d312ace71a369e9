"""Pickles, read by a machine that can only build data; the numpy arrays in them, and Paddle's files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from paddle_ftstrat.transfer.contents import BFLOAT16, Entry, count

MAX_OPERATIONS = 1_000_000
_SHORT = 256  # a Python 2 string up to here is text (a name), a longer one is the data of an array


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
        calls: what each admitted global does when the pickle calls it.
        symbols: globals that may stand in the data but not be called.
        build: what the BUILD operation does: (object, state) → None. Dicts are left as they are.
        persistent: what a persistent id stands for; None refuses them.
        start: where in `data` the pickle begins.

    Raises:
        ValueError: from `run`: another operation or global than these, a truncated pickle, too many operations.

    Example:
        >>> import pickle
        >>> Machine(pickle.dumps({"step": 3}), "x.pdparams", {}).run()
        {'step': 3}
        >>> import os
        >>> Machine(pickle.dumps(os.system), "x.pdparams", {}).run()
        Traceback (most recent call last):
            ...
        ValueError: x.pdparams contains posix.system, which no state dict needs: refused, and nothing of it was run. ...

    Source: the operations are those of CPython's `pickletools`.
    """

    def __init__(
        self,
        data: Any,
        where: str,
        calls: Mapping[Global, Callable[..., Any]],
        symbols: frozenset[Global] = frozenset(),
        build: Callable[[Any, Any], None] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self._data = memoryview(data)
        self._where = where
        self._calls = calls
        self._symbols = symbols
        self._build = build
        self._persistent = persistent
        self.position = start
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

    def _text(self, form: str) -> None:
        self._push(str(self._take(self._number(form)), "utf-8", "surrogatepass"))

    def _old_string(self, form: str) -> None:
        raw = self._take(self._number(form))
        self._push(str(raw, "latin1") if len(raw) <= _SHORT else raw)

    def _long(self) -> None:
        self._push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

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
        found = Global(module, name)
        if found not in self._calls and found not in self._symbols:
            raise ValueError(
                f"contains {found}, which no state dict needs: refused, and nothing of it was run. "
                "Save the weights alone where the file comes from, for example model.state_dict()"
            )
        self._push(found)

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a global's name is not text")
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or function not in self._calls:
            raise ValueError(f"calls {function!s:.80}, which is not admitted")
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments of a call are not a tuple")
        self._push(self._calls[function](*arguments))

    def _build_object(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        # torch gives its OrderedDicts attributes (`_metadata`); they say nothing about the arrays.
        if isinstance(target, dict):
            return
        if self._build is None:
            raise ValueError(f"gives a {type(target).__name__} a state, which is not admitted")
        self._build(target, state)

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise ValueError("refers to data outside the pickle, which is not admitted here")
        self._push(self._persistent(self._stack.pop()))

    def _memoize(self, index: int) -> None:
        self._memo[index] = self._stack[-1]


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[Machine], None]] = {
    code[0]: operation
    for code, operation in {
        b"\x80": lambda m: m._take(1),
        b"\x95": lambda m: m._take(8),
        b"(": Machine._mark,
        b"0": lambda m: m._stack.pop(),
        b"1": lambda m: m._since_mark(),
        b"N": lambda m: m._push(None),
        b"\x88": lambda m: m._push(True),
        b"\x89": lambda m: m._push(False),
        b"J": lambda m: m._push(m._number("<i")),
        b"K": lambda m: m._push(m._number("<B")),
        b"M": lambda m: m._push(m._number("<H")),
        b"G": lambda m: m._push(m._number(">d")),
        b"\x8a": Machine._long,
        b"X": lambda m: m._text("<I"),
        b"\x8c": lambda m: m._text("<B"),
        b"\x8d": lambda m: m._text("<Q"),
        b"B": lambda m: m._push(m._take(m._number("<I"))),
        b"C": lambda m: m._push(m._take(m._number("<B"))),
        b"\x8e": lambda m: m._push(m._take(m._number("<Q"))),
        b"\x96": lambda m: m._push(m._take(m._number("<Q"))),
        b"T": lambda m: m._old_string("<i"),
        b"U": lambda m: m._old_string("<B"),
        b")": lambda m: m._push(()),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"t": lambda m: m._push(tuple(m._since_mark())),
        b"]": lambda m: m._push([]),
        b"a": lambda m: m._append([m._stack.pop()]),
        b"e": lambda m: m._append(m._since_mark()),
        b"}": lambda m: m._push({}),
        b"s": lambda m: m._set_items([m._stack.pop(-2), m._stack.pop()]),
        b"u": lambda m: m._set_items(m._since_mark()),
        b"c": lambda m: m._global(m._line(), m._line()),
        b"\x93": Machine._stack_global,
        b"R": Machine._reduce,
        b"b": Machine._build_object,
        b"Q": Machine._persistent_id,
        b"q": lambda m: m._memoize(m._number("<B")),
        b"r": lambda m: m._memoize(m._number("<I")),
        b"\x94": lambda m: m._memoize(len(m._memo)),
        b"h": lambda m: m._push(m._memo[m._number("<B")]),
        b"j": lambda m: m._push(m._memo[m._number("<I")]),
    }.items()
}


_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


@dataclass
class _DType:
    """A dtype under construction: code first, byte order in a second operation."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


@dataclass
class PickledArray:
    """An array under construction: made empty, filled in a second operation."""

    shape: tuple[int, ...] = ()
    dtype: _DType | None = None
    data: Any = None
    order: str = "C"

    def fill(self, shape: Any, dtype: Any, data: Any, order: str) -> PickledArray:
        """Give the array its content, checked against its shape.

        Raises:
            ValueError, TypeError: the parts do not fit together.
        """
        if isinstance(data, str):
            data = data.encode("latin1")
        if not isinstance(dtype, _DType) or not isinstance(data, (bytes, memoryview)):
            raise TypeError("an array has no data or no dtype of numbers")
        self.shape, self.dtype, self.data, self.order = whole_numbers(shape), dtype, memoryview(data), order
        if count(self.shape) * dtype.numpy().itemsize != len(self.data):
            raise ValueError(f"has an array of shape {self.shape} with {len(self.data)} bytes of data")
        return self

    def read(self) -> np.ndarray:
        """The array, as a view of the file."""
        return np.frombuffer(self.data, self.dtype.numpy()).reshape(self.shape, order=self.order)

    def entry(self, bfloat16: bool) -> Entry:
        """The array as an entry; `bfloat16` takes uint16 for the bits of bfloat16, as Paddle stores them."""
        name = self.dtype.numpy().name
        return Entry(self.shape, BFLOAT16 if bfloat16 and name == "uint16" else name, self.read)


def whole_numbers(value: Any) -> tuple[int, ...]:
    """A shape or stride from a file.

    Raises:
        ValueError: not a tuple of whole numbers ≥ 0.
    """
    if isinstance(value, int):
        value = (value,)
    if not isinstance(value, (tuple, list)) or len(value) > 64:
        raise ValueError("has an array whose shape is not a short tuple")
    if not all(isinstance(size, int) and 0 <= size < 2**63 for size in value):
        raise ValueError("has an array whose shape is not made of whole numbers")
    return tuple(value)


def _dtype(code: Any, *_: Any) -> _DType:
    if not isinstance(code, str) or code.lstrip("<>=|") not in _CODES:
        what = "Python objects" if str(code).lstrip("<>=|").startswith("O") else f"dtype {code!s:.40}"
        raise ValueError(f"has an array of {what}: only arrays of numbers are admitted")
    order = code[0] if code[0] in "<>" else "="
    return _DType(code.lstrip("<>=|"), order)


def _scalar(dtype: Any, data: Any) -> Any:
    return PickledArray().fill((), dtype, data, "C").read().item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray().fill(shape, dtype, data, "F" if order == "F" else "C")


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


def build(target: Any, state: Any) -> None:
    """The BUILD operation for numpy's arrays and dtypes.

    Raises:
        ValueError: another target, or a structured dtype.
    """
    if isinstance(target, _DType):
        if any(part is not None for part in state[2:5]):
            raise ValueError("has an array of a structured dtype: only arrays of numbers are admitted")
        if state[1] not in ("<", ">", "=", "|"):
            raise ValueError(f"has an array of byte order {state[1]!s:.20}")
        target.order = state[1] if state[1] in "<>" else "="
    elif isinstance(target, PickledArray):
        _, shape, dtype, is_fortran, data = state
        target.fill(shape, dtype, data, "F" if is_fortran else "C")
    else:
        raise ValueError(f"gives a {type(target).__name__} a state, which is not admitted")


CALLS: dict[Global, Callable[..., Any]] = {
    Global("numpy", "dtype"): _dtype,
    Global("_codecs", "encode"): _encode,
    Global("collections", "OrderedDict"): _ordered_dict,
}
for _core in ("numpy.core", "numpy._core"):
    CALLS[Global(f"{_core}.multiarray", "_reconstruct")] = lambda *_: PickledArray()
    CALLS[Global(f"{_core}.multiarray", "scalar")] = _scalar
    CALLS[Global(f"{_core}.numeric", "_frombuffer")] = _from_buffer
SYMBOLS = frozenset({Global("numpy", "ndarray")})
