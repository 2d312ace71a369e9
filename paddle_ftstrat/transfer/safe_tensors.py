"""The safetensors format: a JSON header, then the arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer import contents
from paddle_ftstrat.transfer.contents import Contents, Entry, Mapped, storage_dtype, whole_numbers

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
_CODES = {name: code for code, name in _DTYPES.items()}
FACTS = "facts"  # what a file with a training's state has in its metadata
# "format" of the metadata, as Hugging Face and PaddleNLP write it.
_LAYOUTS = {"pt": "torch", "pd": "paddle", "np": "paddle", "paddle": "paddle"}


def read(file: Mapped) -> Contents:
    """The arrays of a `.safetensors` file.

    Raises:
        ValueError: a header that is too long, is no JSON, or says what does not fit the file.

    Source: https://github.com/huggingface/safetensors, "Format".
    """
    header, start = _header(file)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{file.path} has a damaged safetensors header: its metadata is no dict")
    contents.refuse_many(file.path, len(header))
    spans, entries = [], {}
    for name, described in header.items():
        begin, end, entries[name] = _entry(file, name, described, start)
        spans.append((begin, end, name))
    # They have to cover the rest of the file without gap or overlap, so that nothing can hide in it.
    position, size = 0, file.size - start
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ValueError(f"{file.path} is damaged: {name!r:.100} stands at byte {begin}, not {position}")
        position = end
    if position != size:
        raise ValueError(f"{file.path} is damaged: its arrays take {position} bytes, but {size} follow the header")
    return Contents(
        str(file.path), "safetensors", entries, _LAYOUTS.get(str(metadata.get("format"))), metadata=metadata
    )


def write(file: BinaryIO, arrays: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Write arrays, bfloat16 as the uint16 of its bits; one of them is in memory at a time.

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
    if length > min(contents.MAX_JSON, file.size - 8):
        raise ValueError(
            f"{file.path} is truncated or damaged: it claims a header of {length} bytes; "
            f"the file has {file.size}, and a header may have {contents.MAX_JSON:,}"
        )
    try:
        header = file.json(8, length)
        if not isinstance(header, dict):
            raise ValueError("no dict of arrays")
    except ValueError as error:
        raise ValueError(f"{file.path} has a damaged safetensors header: {error}") from error
    return header, 8 + length


def _entry(file: Mapped, name: str, described: Any, start: int) -> tuple[int, int, Entry]:
    try:
        code, shape = str(described["dtype"]), whole_numbers(described["shape"])
        begin, end = whole_numbers(described["data_offsets"])
        fits = begin <= end <= file.size - start
    except (TypeError, KeyError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"{file.path} is truncated or damaged: its header says of {name!r:.100} {described!s:.200}, "
            f"and {file.size - start} bytes of arrays follow the header"
        )
    if code not in _DTYPES:

        def unreadable() -> np.ndarray:
            raise ValueError(f"{file.path}: {name!r} is of dtype {code:.40}, which cannot be converted")

        return begin, end, Entry(shape, code, unreadable)
    dtype = _DTYPES[code]
    if prod(shape) * storage_dtype(dtype).itemsize != end - begin:
        raise ValueError(
            f"{file.path} is damaged: {name!r:.100} of shape {list(shape)} cannot take {end - begin} bytes"
        )
    return begin, end, file.entry(start + begin, shape, dtype)
