"""The safetensors format: a JSON header, then the arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer.contents import MAX_JSON, Contents, Entry, Mapped, count, refuse_many, storage_dtype

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
FACTS = "facts"  # what a file with a training's state has in its metadata
_CODES = {name: code for code, name in _DTYPES.items()}
# "format" of the metadata, as Hugging Face and PaddleNLP write it.
_LAYOUTS = {"pt": "torch", "pd": "paddle", "np": "paddle", "paddle": "paddle"}


def read(file: Mapped) -> Contents:
    """The arrays of a `.safetensors` file.

    Args:
        file: the file.

    Raises:
        ValueError: a header that is too long, is no JSON, or says what does not fit the file.

    Source: https://github.com/huggingface/safetensors, "Format".
    """
    header, start = _header(file)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, (dict, type(None))):
        raise ValueError(f"{file.path} has a damaged safetensors header: its metadata is no dict")
    refuse_many(file.path, len(header))
    spans, entries = [], {}
    for name, described in header.items():
        begin, end, entries[name] = _entry(file, name, described, start)
        spans.append((begin, end, name))
    _check_cover(file, sorted(spans), file.size - start)
    metadata = metadata or {}
    layout = _LAYOUTS.get(str(metadata.get("format")))
    return Contents(str(file.path), "safetensors", entries, layout, metadata=metadata)


def write(file: BinaryIO, arrays: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Write arrays; one of them is in memory at a time.

    Args:
        file: where to, open for writing bytes.
        arrays: what to write; bfloat16 as the uint16 of its bits.
        metadata: texts for the header.

    Raises:
        ValueError: a dtype that the format does not know.
    """
    for name, entry in arrays.items():
        if entry.dtype not in _CODES:
            raise ValueError(
                f"{name!r} is of dtype {entry.dtype}; safetensors knows {_errors.listing(_CODES, limit=20)}"
            )
    # Wide types first, as the format's own library does, so that every array stands aligned.
    ordered = sorted(arrays.items(), key=lambda item: -storage_dtype(item[1].dtype).itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, entry in ordered:
        end = position + entry.size * storage_dtype(entry.dtype).itemsize
        header[name] = {"dtype": _CODES[entry.dtype], "shape": entry.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, entry in ordered:
        array = np.ascontiguousarray(entry.read(), storage_dtype(entry.dtype))
        file.write(array.reshape(-1).view(np.uint8).data)


def _header(file: Mapped) -> tuple[dict[str, Any], int]:
    if file.size < 8:
        raise ValueError(f"{file.path} is truncated: a safetensors file has at least 8 bytes")
    length = struct.unpack("<Q", file.slice(0, 8))[0]
    if length > min(MAX_JSON, file.size - 8):
        raise ValueError(
            f"{file.path} is truncated or damaged: it claims a header of {length} bytes; "
            f"the file has {file.size}, and a header may have {MAX_JSON:,}"
        )
    try:
        header = file.json(8, length)
    except ValueError as error:
        raise ValueError(f"{file.path} has a damaged safetensors header: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{file.path} has a damaged safetensors header: no dict of arrays")
    return header, 8 + length


def _entry(file: Mapped, name: str, described: Any, start: int) -> tuple[int, int, Entry]:
    try:
        code, shape, (begin, end) = described["dtype"], described["shape"], described["data_offsets"]
        known = _is_shape(shape) and _is_shape([begin, end]) and begin <= end <= file.size - start
    except (TypeError, KeyError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"{file.path} is truncated or damaged: its header says of {name!r:.100} {described!s:.200}, "
            f"and {file.size - start} bytes of arrays follow the header"
        )
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        return begin, end, Entry(tuple(shape), str(code), lambda: _unreadable(file, name, code))
    if count(tuple(shape)) * storage_dtype(dtype).itemsize != end - begin:
        raise ValueError(f"{file.path} is damaged: {name!r:.100} of shape {shape} cannot take {end - begin} bytes")
    return begin, end, file.entry(start + begin, tuple(shape), dtype)


def _check_cover(file: Mapped, spans: Sequence[tuple[int, int, str]], size: int) -> None:
    """The arrays have to cover the rest of the file without gap or overlap, so that nothing can hide in it."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise ValueError(f"{file.path} is damaged: {name!r:.100} stands at byte {begin}, not {position}")
        position = end
    if position != size:
        raise ValueError(f"{file.path} is damaged: its arrays take {position} bytes, but {size} follow the header")


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) <= 64 and all(type(size) is int and 0 <= size < 2**63 for size in value)
    )


def _unreadable(file: Mapped, name: str, code: Any) -> np.ndarray:
    raise ValueError(f"{file.path}: {name!r} is of dtype {code!s:.40}, which cannot be converted")
