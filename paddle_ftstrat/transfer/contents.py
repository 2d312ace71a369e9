"""What a file of weights holds: named arrays, described first and read only when wanted; the file mapped, not read."""

from __future__ import annotations

import json
import mmap
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import paddle

from paddle_ftstrat import _errors

BFLOAT16 = "bfloat16"
MAX_ARRAYS = 20_000  # of one file; a shard of the largest models has some hundreds
MAX_JSON = 12_000_000  # bytes; the header of 20,000 arrays takes a quarter of it
_MAX_VALUES = 1_000_000  # of JSON; the smallest takes some fifty bytes of memory
_PAGE = mmap.ALLOCATIONGRANULARITY
# Where training scripts put the weights in a checkpoint that holds more than weights; the first that fits is taken.
USUAL_ENTRIES = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights", "params")
NAME_TABLE = "StructuredToParameterName@@"


@dataclass(frozen=True)
class Entry:
    """One array of a file, not read yet.

    Attributes:
        shape: its shape in the file.
        dtype: numpy's name of its type, or "bfloat16", whose bits come as uint16.
        read: gives the array.
        release: called when the array has been used; gives memory back.
        kept: the array has to be read while checks still can fail, because reading it is a check itself.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    release: Callable[[], None] = lambda: None
    kept: bool = False

    @property
    def size(self) -> int:
        """Number of elements, exactly: numpy's product would wrap around at 2⁶³."""
        return prod(self.shape)


AsEntry = Callable[[Any], Optional[Entry]]  # what stands in a file → an array, or None where it is none


@dataclass(frozen=True)
class Contents:
    """The arrays of one file or dict.

    Attributes:
        label: what to call it in a report: the path, or "a dict".
        kind: "safetensors", "npz", "torch", "paddle" or "dict".
        entries: arrays by key, in the order of the file.
        layout: "torch" or "paddle" where the file itself says so, else None.
        notes: what a reader of a report should know, such as which part of a checkpoint was taken.
        metadata: texts that stand in the file besides the arrays.
    """

    label: str
    kind: str
    entries: Mapping[str, Entry]
    layout: str | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def weight_name(key: str) -> str | None:
    """The name of the weight under a key of a file with other state in it; None where the key is of that state.

    State stands under `part::name`. Files of earlier versions have their weights in such a part, too.

    Example:
        >>> weight_name("fc.weight"), weight_name("model::fc.weight"), weight_name("optimizer::fc.weight::moment1")
        ('fc.weight', 'fc.weight', None)
    """
    name = key.removeprefix("model::")
    return None if "::" in name else name


def refuse_many(where: Any, number: int, limit: int = MAX_ARRAYS) -> None:
    """Refuse a file that says it has more arrays than any model, before time is spent on each of them."""
    if number > limit:
        raise ValueError(f"{where} is no file of weights: it holds {number:,} arrays, and {limit:,} are allowed")


@lru_cache
def storage_dtype(name: str, order: Literal["<", ">"] = "<") -> np.dtype[Any]:
    """The numpy type that the bits of a type lie in."""
    return np.dtype(np.uint16 if name == BFLOAT16 else name).newbyteorder(order)


def whole_numbers(value: Any) -> tuple[int, ...]:
    """A shape or stride from a file; a ValueError where it is something else."""
    if not isinstance(value, (tuple, list)) or len(value) > 64:
        raise ValueError("has an array whose shape is not a short tuple")
    if not all(type(size) is int and 0 <= size < 2**63 for size in value):
        raise ValueError("has an array whose shape is not made of whole numbers")
    return tuple(value)


def from_dict(state: Mapping[str, Any], entry: str | None = None) -> Contents:
    """The contents of a state dict in memory: arrays, Paddle tensors or torch tensors; see `pick`."""
    entries, notes = pick(state, entry_of, "the dict", entry)
    leaves = [leaf for part in state.values() for leaf in (part.values() if isinstance(part, Mapping) else [part])]
    is_paddle = any(isinstance(leaf, paddle.Tensor) for leaf in leaves)
    layout = "torch" if any(map(_is_torch, leaves)) else "paddle" if is_paddle else None
    return Contents("a dict", "dict", entries, layout, notes)


def pick(tree: Any, as_entry: AsEntry, where: str, entry: str | None) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """The state dict in what a checkpoint holds, and notes about what was left aside.

    Raises:
        ValueError: there is none, or several and `entry` does not say which.
        TypeError: its keys are not strings.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} holds a {type(tree).__name__}, not a state dict (a dict name → array)")
    notes: tuple[str, ...] = ()
    chosen = _inner_key(tree, as_entry, where, entry)
    if chosen is not None:
        others = _errors.listing(key for key in tree if key != chosen)
        notes = (f"entry {chosen!r} of {where} was taken; it also holds {others or 'nothing else'}",)
        tree = tree[chosen]
    entries, other = {}, []
    for key, value in tree.items():
        found = as_entry(value)
        if found is not None and not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}: names of weights are strings")
        if found is not None:
            entries[key] = found
        elif key != NAME_TABLE:
            other.append(key)
    if other:
        notes += (f"not arrays, left aside: {_errors.listing(other)}",)
    return entries, notes


def _inner_key(tree: Mapping[str, Any], as_entry: AsEntry, where: str, entry: str | None) -> str | None:
    def is_state(value: Any) -> bool:
        named = value.items() if isinstance(value, Mapping) else ()
        return any(isinstance(name, str) and as_entry(one) is not None for name, one in named)

    inner = [key for key, value in tree.items() if is_state(value)]
    if entry is not None:
        if entry not in inner:
            raise ValueError(f"entry: {where} has no such state dict, " + _errors.unknown("entry", entry, inner))
        return entry
    usual = [key for key in USUAL_ENTRIES if key in inner]
    if len(usual) == 1:
        return usual[0]
    if any(as_entry(value) is not None for value in tree.values()):
        return None
    if len(inner) == 1:
        return inner[0]
    if not inner:
        raise ValueError(f"{where} holds no arrays; its keys are: {_errors.listing(tree) or 'none'}")
    raise ValueError(f"{where} holds several state dicts: say entry=… with one of {_errors.listing(inner)}")


def entry_of(value: Any) -> Entry | None:
    """A Paddle tensor, torch tensor or numpy array as an entry; None for anything else."""
    if isinstance(value, np.ndarray):
        return Entry(value.shape, value.dtype.name, lambda: value)
    name = str(getattr(value, "dtype", "")).rpartition(".")[2]
    if isinstance(value, paddle.Tensor):
        return Entry(tuple(value.shape), name, value.numpy)
    if not _is_torch(value):
        return None

    def read() -> np.ndarray:
        tensor = value.detach().cpu()
        if name == BFLOAT16:
            return tensor.contiguous().view(sys.modules["torch"].int16).numpy().view(np.uint16)
        return tensor.numpy()

    return Entry(tuple(value.shape), name, read)


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class Mapped:
    """A regular file mapped read-only.

    Raises:
        ValueError: not a regular file (a pipe would wait forever, a device never end), or empty.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise ValueError(f"{self.path} is not a regular file")
        with self.path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size == 0:
                raise ValueError(f"{self.path} is empty")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.buffer = memoryview(self._map)

    def slice(self, start: int, length: int) -> memoryview:
        """The bytes [start, start + length), not copied; a ValueError where they are not all in the file."""
        if start < 0 or length < 0 or start + length > self.size:
            raise ValueError(
                f"{self.path} is truncated or damaged: it says that {length} bytes stand at byte {start}, "
                f"but it has {self.size} bytes"
            )
        return self.buffer[start : start + length]

    def json(self, start: int, length: int) -> Any:
        """The JSON in the bytes [start, start + length), which is bounded before it is parsed.

        Raises:
            ValueError: no JSON, too long, too deep, or with a name twice in a dict.
        """
        if length > MAX_JSON:
            raise ValueError(f"it has {length:,} bytes, and {MAX_JSON:,} are allowed")
        # Given bytes, the parser would guess their encoding, and import its module.
        text = str(self.slice(start, length), "utf-8").removeprefix("\ufeff")
        if sum(map(text.count, ",[{")) > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values")
        try:
            return json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_short_int)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error

    def entry(self, start: int, shape: tuple[int, ...], dtype: str, order: Literal["<", ">"] = "<") -> Entry:
        """An array of the file, its elements in row-major order from byte `start` on."""
        stored = storage_dtype(dtype, order)
        length = prod(shape) * stored.itemsize
        data = self.slice(start, length)

        def release() -> None:  # the system takes whole pages back; a later use reads them again
            first, end = -(-start // _PAGE) * _PAGE, (start + length) // _PAGE * _PAGE
            if end > first and hasattr(self._map, "madvise"):
                self._map.madvise(mmap.MADV_DONTNEED, first, end - first)

        return Entry(shape, dtype, lambda: np.frombuffer(data, stored).reshape(shape), release)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"the number {digits[:20]}… has {len(digits)} digits")
    return int(digits)
