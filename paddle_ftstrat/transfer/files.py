"""Any file of weights, recognised by what it holds and not by what it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer import archives, safe_tensors
from paddle_ftstrat.transfer.contents import (
    BFLOAT16,
    Contents,
    Entry,
    Mapped,
    from_dict,
    pick,
    weight_name,
    whole_numbers,
)
from paddle_ftstrat.transfer.pickles import DataUnpickler, Global, array_in

_LEGACY_START = b"\x8a\x0a" + archives.LEGACY_MAGIC.to_bytes(10, "little")
FOLDER_FILES = ("model.safetensors", "model.safetensors.index.json")
_SUFFIXES = (".pdparams", ".safetensors", ".index.json", ".npz", ".pt", ".pth", ".bin")
_BIG = "UnpackBigParamInfor@@"  # the spelling of Paddle's own files
# `paddle.save` of a nested dict writes each tensor as tuple((name, array)).
_PADDLE_CALLS = {Global("builtins", "tuple"): tuple, Global("__builtin__", "tuple"): tuple}


@_errors.short_messages()
def open_contents(path_or_state: Any, entry: str | None = None) -> Contents:
    """What a file of weights or a state dict holds; no array is read yet.

    Args:
        path_or_state: what `load_pretrained` takes.
        entry: the key of the state dict in a checkpoint that holds several.

    Raises:
        ValueError: a format that is not known, a damaged file, or one that holds more than data. Nothing that stands
            in a file is ever run.
        TypeError: neither a path nor a dict.
        FileNotFoundError: no such file.

    Example:
        >>> open_contents({"weight": np.zeros([2, 3])}).entries["weight"].shape
        (2, 3)
    """
    if isinstance(path_or_state, Mapping):
        return from_dict(path_or_state, entry)
    if not isinstance(path_or_state, (str, os.PathLike)):
        raise TypeError(f"weights come from a path or a dict of arrays, not from {type(path_or_state).__name__}")
    path = Path(path_or_state)
    if not path.exists():
        where, siblings = f" (there is no folder {path.parent} either)", []
        if path.parent.is_dir():
            where, siblings = "", [item.name for item in path.parent.iterdir() if item.name.endswith(_SUFFIXES)]
        hint = _errors.nearest(path.name, siblings)
        raise FileNotFoundError(f"there is no file {path}{where}" + (f". Did you mean {hint!r}?" if hint else ""))
    file = Mapped(_of_folder(path) if path.is_dir() else path)
    return _read_shards(file, entry) if _is_index(file) else _open_file(file, entry)


def _of_folder(path: Path) -> Path:
    """The file of a folder that `save_pretrained` made, or of a checkpoint."""
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    found = [item.name for item in path.iterdir() if item.name.endswith(_SUFFIXES)]
    found += [item.parent.name for item in path.glob(f"*/{FOLDER_FILES[0]}")]
    listed = _errors.listing(sorted(found)) or "it holds no weights"
    raise ValueError(f"{path} is a folder; name a file or a folder of weights in it: {listed}")


def _is_index(file: Mapped) -> bool:
    """Whether a file is JSON; that of safetensors begins after eight bytes of length, of which the last are 0."""
    start = bytes(file.buffer[:8])
    return start.lstrip()[:1] == b"{" and any(start[4:])


def _open_file(file: Mapped, entry: str | None) -> Contents:
    start = bytes(file.buffer[:16])
    if start.startswith(b"PK\x03\x04"):
        opened = archives.open_zip(file)
        members = opened.namelist()
        if members and all(name.endswith(".npy") for name in members):
            return archives.read_npz(file, opened)
        return archives.read_zip(file, opened, entry)
    if start.startswith(b"\x80"):
        if start[2:].startswith(_LEGACY_START):
            return archives.read_legacy(file, entry)
        return _read_paddle(file, entry)
    if start[8:9] == b"{":
        contents = safe_tensors.read(file)
        return _weights_only(contents) if safe_tensors.FACTS in contents.metadata else contents
    raise ValueError(
        f"{file.path} is not a file of weights that can be read, or it is truncated; "
        f"known are {_errors.listing(_SUFFIXES)}, recognised by their content"
    )


def _weights_only(contents: Contents) -> Contents:
    """Of a file with a training's state in it, the weights."""
    entries = {name: entry for key, entry in contents.entries.items() if (name := weight_name(key)) is not None}
    aside = sorted({key.partition("::")[0] for key in contents.entries if weight_name(key) is None})
    notes = (f"state besides the weights, left aside: {_errors.listing(aside)}",) if aside else ()
    return replace(contents, entries=entries, layout="paddle", notes=notes)


def _read_shards(index: Mapped, entry: str | None) -> Contents:
    try:
        weight_map = index.json(0, index.size)["weight_map"]
        if not isinstance(weight_map, dict):
            raise TypeError("its weight_map is not a dict")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index.path} is no index of shards (JSON with a weight_map): {error}") from error
    shards: dict[str, Contents] = {}
    entries: dict[str, Entry] = {}
    for key, name in weight_map.items():
        if not _is_plain_name(name):
            raise ValueError(
                f"{index.path} names {name!r} as the file of {key!r}: shards stand in the index's own folder"
            )
        if name not in shards:
            if not (index.path.parent / name).is_file():
                raise ValueError(f"{index.path} names the shard {name}, which is not beside it")
            shard = Mapped(index.path.parent / name)
            if _is_index(shard):
                raise ValueError(f"{index.path} names the shard {name}, which is an index itself")
            shards[name] = _open_file(shard, entry)
        if key not in shards[name].entries:
            raise ValueError(f"{index.path} says that {key!r} stands in {name}, but it does not")
        entries[key] = shards[name].entries[key]
    if not shards:
        raise ValueError(f"{index.path} is an index of no shards")
    layouts = {shard.layout for shard in shards.values()}
    layout = layouts.pop() if len(layouts) == 1 else None
    label = f"{index.path} ({len(shards)} shards)"
    return replace(next(iter(shards.values())), label=label, entries=entries, layout=layout)


def _is_plain_name(name: Any) -> bool:
    # Longer names than 255 bytes are an error of the system in whatever asks for them.
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not set(name) & {"/", "\\", ":", "\0"}
        and len(name.encode(errors="replace")) <= 255
    )


def _read_paddle(file: Mapped, entry: str | None) -> Contents:
    """The arrays of a file of `paddle.save`, without `paddle.load`, which would run what the file says."""
    where = str(file.path)
    tree = DataUnpickler(file.buffer, where, _PADDLE_CALLS).run()
    if isinstance(tree, dict) and _BIG in tree:
        try:
            tree = _with_large(tree)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} is damaged: the slices of a large array are not all there") from error
    entries, notes = pick(tree, _as_entry, where, entry)
    return Contents(where, "paddle", entries, "paddle", notes)


def _as_entry(value: Any) -> Entry | None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    found = array_in(value)
    # That is how Paddle writes the bits of bfloat16.
    return replace(found, dtype=BFLOAT16) if found is not None and found.dtype == "uint16" else found


def _with_large(tree: dict[str, Any]) -> dict[str, Any]:
    """Put together the arrays of more than 1 GB, which `paddle.save` cuts into slices for pickle protocols 2 and 3."""
    tree = dict(tree)
    for key, info in tree.pop(_BIG).items():
        slices = [found for part in info["slices"] if (found := array_in(tree.pop(part))) is not None]
        shape = whole_numbers(info["OriginShape"])
        if sum(part.size for part in slices) != prod(shape):
            raise ValueError

        def read(slices: list[Entry] = slices, shape: tuple[int, ...] = shape) -> np.ndarray:
            return np.concatenate([part.read() for part in slices]).reshape(shape)

        tree[key] = Entry(shape, slices[0].dtype, read)
    return tree
