"""Tensors and facts in one safetensors file, written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat._files import replacing
from paddle_ftstrat.transfer import safe_tensors
from paddle_ftstrat.transfer.contents import BFLOAT16, Contents, Entry, Mapped, entry_of

# What Paddle and safetensors both have. Paddle takes uint16 for the bits of bfloat16, and has no wider unsigned types.
_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")
_DTYPES = (*_INTEGERS, "float16", BFLOAT16, "float32", "float64", "complex64")


def write(path: str | Path, tensors: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Path:
    """Write tensors and JSON-able facts to one `.safetensors` file: beside it first, synced, then renamed.

    Args:
        path: the file; its folder is made.
        tensors: name → Paddle tensor or numpy array.
        facts: name → anything JSON can hold.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file stays as it was.
        TypeError: something that is no tensor.
        ValueError: a dtype that Paddle or safetensors does not have.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write(folder + "/a.safetensors", {"w": paddle.ones([2])}, {"epoch": 3})
        ...     tensors, facts = read(file)
        >>> tensors["w"].tolist(), facts
        ([1.0, 1.0], {'epoch': 3})
    """
    entries = as_entries(tensors)
    metadata = {"format": "pd", safe_tensors.FACTS: json.dumps(dict(facts or {}))}
    with replacing(path) as file:
        safe_tensors.write(file, entries, metadata)
    return Path(path)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The (tensors, facts) that `write` put into a file. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no safetensors file, or no file at all but a folder, a pipe, a device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        contents = safe_tensors.read(Mapped(path))
        facts = json.loads(contents.metadata.get("facts", "{}"))
        return as_tensors(contents), facts
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error!s:.500}") from error


def as_entries(tensors: Mapping[str, Any]) -> dict[str, Entry]:
    """What the writer of safetensors wants for each tensor; nothing is copied yet.

    Args:
        tensors: name → Paddle tensor or numpy array.

    Raises:
        TypeError: something that is no tensor.
        ValueError: a dtype that Paddle or safetensors does not have.

    Example:
        >>> as_entries({"w": np.zeros([2, 3])})["w"].shape
        (2, 3)
    """
    entries = {name: entry_of(tensor) for name, tensor in tensors.items()}
    for name, entry in entries.items():
        if entry is None:
            raise TypeError(f"{name!r} must be a tensor or a numpy array, not {tensors[name]!r:.80}")
        if entry.dtype not in _DTYPES:
            raise ValueError(f"{name!r} is of dtype {entry.dtype}; allowed: {_errors.listing(_DTYPES)}")
    return entries


def as_tensors(contents: Contents) -> dict[str, Any]:
    """The arrays of a file as Paddle tensors of their own memory, by name."""
    tensors = {}
    for name, entry in contents.entries.items():
        array = entry.read()
        tensors[name] = _from_bits(array) if entry.dtype == BFLOAT16 else paddle.to_tensor(array)
        entry.release()
    return tensors


def _from_bits(array: np.ndarray) -> Any:
    # numpy has no bfloat16: Paddle takes and hands out the bits as uint16.
    return paddle.to_tensor(array.view(np.uint16), dtype=BFLOAT16)


def flatten(prefix: str, nested: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of tensors as one dict with names joined by `::`, which no parameter name holds.

    Example:
        >>> flatten("optimizer", {"fc.weight": {"moment1": 1}})
        {'optimizer::fc.weight::moment1': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        key = f"{prefix}::{name}"
        flat.update(flatten(key, value) if isinstance(value, Mapping) else {key: value})
    return flat


def unflatten(prefix: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten` for the names that begin with `prefix`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, *path = name.split("::")
        if head != prefix:
            continue
        inner = nested
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return nested
