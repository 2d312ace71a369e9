"""The numpy arrays in a pickle, and Paddle's files, which are pickles of dicts of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_ftstrat.transfer.contents import BFLOAT16, Contents, Entry, count, pick
from paddle_ftstrat.transfer.mapped import Mapped
from paddle_ftstrat.transfer.pickles import Global, Machine

_BIG = "UnpackBigParamInfor@@"  # the spelling of Paddle's own files
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


def ordered_dict(items: Any = ()) -> dict[str, Any]:
    """A dict from the pairs that Python 2 writes for an OrderedDict; later versions set the items afterwards.

    Raises:
        TypeError: a key that is not text.
    """
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


def _both(name: str, act: Callable[..., Any], *modules: str) -> dict[Global, Callable[..., Any]]:
    return {Global(module, name): act for module in modules}


_CORES = ("numpy.core", "numpy._core")
CALLS: dict[Global, Callable[..., Any]] = {
    **_both("_reconstruct", lambda *_: PickledArray(), *(f"{core}.multiarray" for core in _CORES)),
    **_both("scalar", _scalar, *(f"{core}.multiarray" for core in _CORES)),
    **_both("_frombuffer", _from_buffer, *(f"{core}.numeric" for core in _CORES)),
    **_both("dtype", _dtype, "numpy"),
    **_both("encode", _encode, "_codecs"),
    **_both("OrderedDict", ordered_dict, "collections"),
}
SYMBOLS = frozenset({Global("numpy", "ndarray")})
# `paddle.save` of a nested dict writes each tensor as tuple((name, array)).
_PADDLE_CALLS = {**CALLS, **_both("tuple", tuple, "builtins", "__builtin__")}


def read_paddle(file: Mapped, entry: str | None = None) -> Contents:
    """The arrays of a file of `paddle.save`, without `paddle.load`, which would run what the file says.

    Args:
        file: the file.
        entry: the key of the state dict in a checkpoint that holds several.

    Raises:
        ValueError: anything in the file but dicts, lists, numbers, text and arrays.
    """
    where = str(file.path)
    tree = Machine(file.buffer, where, _PADDLE_CALLS, SYMBOLS, build).run()
    if isinstance(tree, dict) and _BIG in tree:
        tree = _joined(tree, where)
    entries, notes = pick(tree, _as_entry, where, entry)
    return Contents(where, "paddle", entries, "paddle", notes)


def _as_entry(value: Any) -> Entry | None:
    if isinstance(value, Entry):
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value.entry(bfloat16=True) if isinstance(value, PickledArray) and value.dtype is not None else None


def _joined(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Put together the arrays of more than 1 GB, which `paddle.save` cuts into slices for pickle protocols 2 and 3."""
    tree = dict(tree)
    try:
        for key, info in tree.pop(_BIG).items():
            slices = [tree.pop(part) for part in info["slices"]]
            shape = whole_numbers(info["OriginShape"])
            if sum(count(part.shape) for part in slices) != count(shape):
                raise ValueError
            first = slices[0].entry(bfloat16=True)
            tree[key] = Entry(shape, first.dtype, _joiner(slices, shape))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is damaged: the slices of a large array are not all there") from error
    return tree


def _joiner(slices: list[PickledArray], shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    return lambda: np.concatenate([part.read() for part in slices]).reshape(shape)
