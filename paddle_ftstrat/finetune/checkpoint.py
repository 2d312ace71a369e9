"""Tensors and facts in one safetensors file, written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from paddle_ftstrat._files import replacing

_BF16 = "bfloat16"


def write(path: str | Path, tensors: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Path:
    """Write tensors and JSON-able facts to one `.safetensors` file: beside it first, synced, then renamed.

    Args:
        path: the file; its folder is made.
        tensors: name → Paddle tensor or numpy array.
        facts: name → anything JSON can hold.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file stays as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write(folder + "/a.safetensors", {"w": paddle.ones([2])}, {"epoch": 3})
        ...     tensors, facts = read(file)
        >>> tensors["w"].tolist(), facts
        ([1.0, 1.0], {'epoch': 3})
    """
    arrays, halves = {}, []
    for name, tensor in tensors.items():
        if getattr(tensor, "dtype", None) == paddle.bfloat16:
            halves.append(name)
        arrays[name] = np.ascontiguousarray(tensor.numpy() if isinstance(tensor, paddle.Tensor) else tensor)
    # numpy has no bfloat16: Paddle hands out the bits as uint16, and the file has to say so.
    metadata = {"facts": json.dumps(dict(facts or {})), _BF16: json.dumps(halves)}
    payload = save(arrays, metadata=metadata)
    with replacing(path) as file:
        file.write(payload)
    return Path(path)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The (tensors, facts) that `write` put into a file. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
        halves = set(json.loads(metadata.get(_BF16, "[]")))
        facts = json.loads(metadata.get("facts", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    tensors = {name: _from_bits(array) if name in halves else paddle.to_tensor(array) for name, array in arrays.items()}
    return tensors, facts


def _from_bits(array: np.ndarray) -> Any:
    return paddle.to_tensor(array.view(np.uint16), dtype=_BF16)


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
