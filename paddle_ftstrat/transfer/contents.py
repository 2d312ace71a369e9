"""What a file of weights holds: named arrays, described first and read only when wanted; the file mapped, not read."""

from __future__ import annotations

import json
import mmap
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors

BFLOAT16 = "bfloat16"
MAX_ARRAYS = 20_000  # of one file; a shard of the largest models has some hundreds
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
        """Number of elements."""
        return count(self.shape)


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


def count(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape, exactly: numpy's product wraps around at 2⁶³."""
    number = 1
    for size in shape:
        number *= size
    return number


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
    """Refuse a file that says it has more arrays than any model, before time is spent on each of them.

    Raises:
        ValueError: more than `limit`.
    """
    if number > limit:
        raise ValueError(f"{where} is no file of weights: it holds {number:,} arrays, and {limit:,} are allowed")


@lru_cache
def storage_dtype(name: str, order: str = "<") -> np.dtype:
    """The numpy type that the bits of a type lie in."""
    return np.dtype(np.uint16 if name == BFLOAT16 else name).newbyteorder(order)


def from_dict(state: Mapping[str, Any], entry: str | None = None) -> Contents:
    """The contents of a state dict in memory: arrays, Paddle tensors or torch tensors.

    Args:
        state: name → array; or a checkpoint dict that has such a dict in it.
        entry: the key of that inner dict; None finds the usual ones.

    Raises:
        ValueError: no arrays, or several inner dicts and no `entry`.
        TypeError: keys that are not strings.

    Example:
        >>> import numpy as np
        >>> from_dict({"epoch": 3, "state_dict": {"fc.bias": np.zeros(4)}}).entries["fc.bias"].shape
        (4,)
    """
    entries, notes = pick(state, entry_of, "the dict", entry)
    leaves = [leaf for part in state.values() for leaf in (part.values() if isinstance(part, Mapping) else [part])]
    is_paddle = any(isinstance(leaf, paddle.Tensor) for leaf in leaves)
    layout = "torch" if any(map(_is_torch, leaves)) else "paddle" if is_paddle else None
    return Contents("a dict", "dict", entries, layout, notes)


def pick(
    tree: Any, as_entry: Callable[[Any], Entry | None], where: str, entry: str | None
) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """The state dict in what a checkpoint holds, and a note about what was left aside.

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


def _inner_key(tree: Mapping[str, Any], as_entry: Callable, where: str, entry: str | None) -> str | None:
    inner = [
        key
        for key, value in tree.items()
        if isinstance(value, Mapping)
        and any(isinstance(name, str) and as_entry(one) is not None for name, one in value.items())
    ]
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
    if isinstance(value, paddle.Tensor):
        return Entry(tuple(value.shape), str(value.dtype).rpartition(".")[2], value.numpy)
    if _is_torch(value):
        return _torch_entry(value)
    if isinstance(value, np.ndarray):
        return Entry(value.shape, value.dtype.name, lambda: value)
    return None


def _torch_entry(value: Any) -> Entry:
    name = str(value.dtype).rpartition(".")[2]

    def read() -> np.ndarray:
        tensor = value.detach().cpu()
        if name == BFLOAT16:
            return tensor.contiguous().view(sys.modules["torch"].int16).numpy().view(np.uint16)
        return tensor.numpy()

    return Entry(tuple(value.shape), name, read)


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


MAX_JSON = 12_000_000  # bytes; the header of 20,000 arrays takes a quarter of it
_MAX_VALUES = 1_000_000  # of JSON; the smallest takes some fifty bytes of memory
_PAGE = mmap.ALLOCATIONGRANULARITY


class Mapped:
    """A regular file mapped read-only.

    Args:
        path: the file.

    Raises:
        ValueError: not a regular file (a pipe would wait forever, a device never end), or empty.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
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
        """The bytes [start, start + length), not copied.

        Raises:
            ValueError: they are not all in the file.
        """
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

    def entry(self, start: int, shape: tuple[int, ...], dtype: str, order: str = "<") -> Entry:
        """An array of the file, its elements in row-major order from byte `start` on.

        Raises:
            ValueError: it is not all in the file.
        """
        stored = storage_dtype(dtype, order)
        length = count(shape) * stored.itemsize
        data = self.slice(start, length)
        return Entry(
            shape, dtype, lambda: np.frombuffer(data, stored).reshape(shape), lambda: self.release(start, length)
        )

    def release(self, start: int, length: int) -> None:
        """Let the system take the pages of these bytes back; a later use reads them again."""
        first, end = -(-start // _PAGE) * _PAGE, (start + length) // _PAGE * _PAGE
        if end > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"the number {digits[:20]}… has {len(digits)} digits")
    return int(digits)
