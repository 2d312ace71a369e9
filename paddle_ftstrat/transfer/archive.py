"""Zip files that may be hostile: the directory is bounded before it is parsed, members before they are read."""

from __future__ import annotations

import ast
import struct
import zipfile
from collections import Counter
from collections.abc import Callable

import numpy as np

from paddle_ftstrat.transfer.contents import Contents, Entry, count, refuse_many
from paddle_ftstrat.transfer.mapped import Mapped

MAX_DIRECTORY = 5 * 2**20  # bytes; 20,000 members of a file of torch take half of it
_MAX_NPZ = 5_000  # members; each has a header of its own to be parsed
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile decompresses the others without a limit
_MAX_NPY_HEADER = 10_000
_CHUNK = 2**20


def open_zip(file: Mapped) -> zipfile.ZipFile:
    """The archive, its directory read.

    Raises:
        ValueError: truncated (the directory stands at the end) or damaged; a directory of more than 5 MB, or with a
            name that occurs twice.
    """
    if _directory_size(file) > MAX_DIRECTORY:
        raise ValueError(
            f"{file.path} is no file of weights: its zip directory is larger than {MAX_DIRECTORY >> 20} MB"
        )
    try:
        archive = zipfile.ZipFile(file.path)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, UnicodeError) as error:
        raise ValueError(f"{file.path} is a damaged zip archive: {error}") from error
    names = Counter(archive.namelist())
    refuse_many(file.path, len(names))
    if len(names) < len(archive.filelist):
        raise ValueError(f"{file.path} holds the member {names.most_common(1)[0][0]!r} twice")
    return archive


def member_start(file: Mapped, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed member stand in the file.

    Raises:
        ValueError: the member is compressed, or is not where the directory says.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{file.path}: its member {info.filename!r} is compressed; torch writes members uncompressed")
    header = file.slice(info.header_offset, 30)
    if bytes(header[:4]) != b"PK\x03\x04":
        raise ValueError(f"{file.path} is a damaged zip archive: no member at byte {info.header_offset}")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + name + extra


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is numpy's: all its members are arrays."""
    return bool(archive.filelist) and all(name.endswith(".npy") for name in archive.namelist())


def read_npz(file: Mapped, archive: zipfile.ZipFile) -> Contents:
    """The arrays of an `.npz`, stored or deflated; only arrays that are wanted are ever decompressed.

    Raises:
        ValueError: a damaged archive, or a member that is not an array of numbers.
    """
    refuse_many(file.path, len(archive.filelist), _MAX_NPZ)
    entries = {info.filename[: -len(".npy")]: _npy_entry(file, archive, info) for info in archive.infolist()}
    return Contents(str(file.path), "npz", entries)


def _npy_entry(file: Mapped, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    def fail(why: object) -> ValueError:
        return ValueError(f"{file.path}: its array {info.filename!r} {why}")

    if info.compress_type not in _BOUNDED:
        method = zipfile.compressor_names.get(info.compress_type, info.compress_type)
        raise fail(f"is compressed by {method}, which cannot be bounded; numpy stores or deflates")
    shape, fortran, dtype, start = _npy_header(archive, info, fail)
    if dtype.hasobject or dtype.names is not None or dtype.kind not in "biufc":
        raise fail(f"is of dtype {dtype}: only arrays of numbers are admitted (an object array is a pickle)")
    length = count(shape) * dtype.itemsize
    if info.file_size != start + length:
        raise fail(f"is damaged: its shape {shape} takes {length} bytes, there are {info.file_size - start}")

    def read() -> np.ndarray:
        data = _inflate(archive, info, start, length, fail)
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    return Entry(shape, dtype.name, read, kept=True)


def _npy_header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, fail: Callable[[object], ValueError]
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, dtype and length of the header. numpy's own reader allocates what the length field claims."""
    try:
        with archive.open(info) as member:
            magic = member.read(8)
            form = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}[magic]
            length = struct.unpack(form, member.read(struct.calcsize(form)))[0]
            if length > _MAX_NPY_HEADER:
                raise ValueError(f"claims a header of {length} bytes")
            header = ast.literal_eval(str(member.read(length), "latin1").strip())
            shape, fortran, dtype = header["shape"], bool(header["fortran_order"]), np.dtype(str(header["descr"]))
    except Exception as error:
        # zipfile lets zlib's, lzma's and its own errors through; all of them mean the same here.
        raise fail(f"is no .npy array, or a damaged one: {error}") from error
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise fail(f"has the shape {shape!s:.200}")
    return shape, fortran, dtype, 8 + struct.calcsize(form) + length


def _inflate(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, start: int, length: int, fail: Callable[[object], ValueError]
) -> bytearray:
    """The member's bytes after `start`; never more than `length` of them, whatever the compressed data gives."""
    data = bytearray()
    try:
        with archive.open(info) as member:
            member.read(start)
            while piece := member.read(min(_CHUNK, length + 1 - len(data))):
                data += piece
    except Exception as error:
        raise fail(f"cannot be decompressed: {error}") from error
    if len(data) != length:
        raise fail(f"is truncated or damaged: {length} bytes expected, {len(data)} found")
    return data


def _directory_size(file: Mapped) -> int:
    """Size of the central directory as the end record says it; zip64 keeps it in a record of its own."""
    tail_start = max(0, file.size - 65557)
    tail = bytes(file.slice(tail_start, file.size - tail_start))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise ValueError(f"{file.path} is truncated: a zip archive that does not end in its directory")
    size = struct.unpack("<I", tail[at + 12 : at + 16])[0]
    at64 = tail.rfind(b"PK\x06\x06", 0, at)
    if at64 >= 0 and at64 + 48 <= len(tail):
        size = struct.unpack("<Q", tail[at64 + 40 : at64 + 48])[0]
    return size
