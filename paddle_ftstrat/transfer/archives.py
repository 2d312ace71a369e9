"""Zip archives that may be hostile: numpy's `.npz` and the files of `torch.save`; legacy ones of torch, too."""

from __future__ import annotations

import ast
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer.contents import Contents, Entry, Mapped, pick, refuse_many, storage_dtype, whole_numbers
from paddle_ftstrat.transfer.pickles import DataUnpickler, Global, array_in

_ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}


@dataclass
class _Storage:
    """A run of numbers in the file; `whole` is None until its place is known, in a legacy file after the pickle."""

    key: str
    dtype: str
    length: int
    whole: Any = None


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Entry:
    """`torch._utils._rebuild_tensor_v2`, with the bounds checked that torch leaves to C++."""
    if not isinstance(storage, _Storage) or not isinstance(offset, int) or offset < 0:
        raise ValueError("has a tensor without a storage")
    shape, stride = whole_numbers(shape), whole_numbers(stride)
    if len(shape) != len(stride):
        raise ValueError(f"has a tensor of shape {shape} and stride {stride}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride)) if prod(shape) else 0
    if prod(shape) and last >= storage.length:
        raise ValueError(f"has a tensor of shape {shape} that ends beyond its storage of {storage.length} numbers")

    def read() -> np.ndarray:
        numbers = storage.whole.read()[offset:]
        return as_strided(numbers, shape, [step * numbers.itemsize for step in stride], writeable=False)

    return Entry(shape, storage.dtype, read, lambda: storage.whole.release())


def _parameter(data: Any, *_: Any) -> Entry:
    if not isinstance(data, Entry):
        raise ValueError("has a Parameter that is not a tensor")
    return data


def _from_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Entry:
    """`torch._tensor._rebuild_from_type_v2`: a tensor that somebody gave Python attributes; they are dropped."""
    if function not in _REBUILDERS or not isinstance(arguments, tuple):
        raise ValueError(f"rebuilds a tensor with {function!s:.80}, which is not admitted")
    return _REBUILDERS[function](*arguments)


_REBUILDERS: dict[Global, Callable[..., Entry]] = {
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_CALLS: dict[Global, Callable[..., Any]] = {
    **_REBUILDERS,
    Global("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    Global("torch", "Size"): lambda sizes=(): whole_numbers(sizes),
    Global("torch", "device"): lambda *_: None,
}
_SYMBOLS = frozenset(Global("torch", name) for name in (*_STORAGES, *_STORAGES.values(), "Tensor")).union(
    Global("torch.nn.parameter", name) for name in ("Parameter", "Buffer")
)


def read_zip(file: Mapped, opened: zipfile.ZipFile, entry: str | None = None) -> Contents:
    """The arrays of a file in torch's zip format (`.pt`, `.pth`, `.bin` since torch 1.6), whose directory is read.

    Raises:
        ValueError: TorchScript, a damaged file, or anything in it but dicts, lists, numbers, text and tensors.
    """
    members = {info.filename: info for info in opened.infolist()}
    pickled = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickled) != 1:
        raise ValueError(f"{file.path} is a zip archive, but neither of torch.save nor of numpy.savez")
    root = pickled[0][: -len("data.pkl")]
    if f"{root}constants.pkl" in members:
        raise ValueError(
            f"{file.path} is a TorchScript program; save its weights in torch: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
    listed = members.get(f"{root}byteorder")
    order = bytes(file.slice(_member_start(file, listed), min(listed.file_size, 16))) if listed else b"little"
    if order not in _ORDERS:
        raise ValueError(f"{file.path} has the byte order {order!r}")

    def place(storage: _Storage) -> None:
        info = members.get(f"{root}data/{storage.key}")
        if info is None:
            raise ValueError(f"refers to the storage {storage.key!r}, which is not in the archive")
        length = storage.length * storage_dtype(storage.dtype).itemsize
        if info.file_size != length:
            raise ValueError(f"claims {length} bytes for the storage {storage.key!r}, which has {info.file_size}")
        start = _member_start(file, info)
        storage.whole = file.entry(start, (storage.length,), storage.dtype, _ORDERS[order])

    info = members[pickled[0]]
    data = file.slice(_member_start(file, info), info.file_size)
    return _contents(file, _unpickler(data, str(file.path), {}, place).run(), entry)


def read_legacy(file: Mapped, entry: str | None = None) -> Contents:
    """The arrays of a file of `torch.save` before torch 1.6: five pickles, then the storages one after another.

    Raises:
        ValueError: a damaged file, or anything in it but dicts, lists, numbers, text and tensors.
    """
    where, position, parts = str(file.path), 0, []
    storages: dict[str, _Storage] = {}
    for _ in range(5):
        reader = _unpickler(file.buffer, where, storages, lambda storage: None, position)
        parts.append(reader.run())
        position = reader.position
    magic, version, _, tree, keys = parts
    if magic != LEGACY_MAGIC or version != 1001 or not isinstance(keys, list):
        raise ValueError(f"{where} is not a file of torch.save, or of a version that is not known ({version!s:.20})")
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise ValueError(f"{where} is damaged: it lists the storage {key!s:.40}, which no tensor uses")
        storage = storages[key]
        length = struct.unpack("<q", file.slice(position, 8))[0]
        if length != storage.length:
            raise ValueError(f"{where} is damaged: storage {key} has {length} numbers, not {storage.length}")
        storage.whole = file.entry(position + 8, (length,), storage.dtype)
        position += 8 + length * storage_dtype(storage.dtype).itemsize
    homeless = [key for key, storage in storages.items() if storage.whole is None]
    if homeless:
        raise ValueError(f"{where} is truncated: the storages {_errors.listing(homeless)} are not in it")
    return _contents(file, tree, entry)


def _unpickler(
    data: Any, where: str, storages: dict[str, _Storage], place: Callable[[_Storage], None], start: int = 0
) -> DataUnpickler:
    def persistent(reference: Any) -> _Storage:
        """What torch writes for a storage: ("storage", its type, its key, its device, its length[, None])."""
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
            raise ValueError(f"refers to {reference!s:.80}, which is not a storage")
        _, kind, key, _, length, *view = reference
        dtype = _STORAGES.get(kind.name) if isinstance(kind, Global) and kind.module == "torch" else None
        if dtype is None:
            raise ValueError(f"has a storage of type {kind!s:.60}; admitted are {_errors.listing(_STORAGES, limit=20)}")
        if not isinstance(key, str) or not isinstance(length, int) or length < 0 or view not in ([], [None]):
            raise ValueError(f"has the storage reference {reference!s:.120}, which is not understood")
        if key not in storages:
            storages[key] = _Storage(key, dtype, length)
            place(storages[key])
        if (storages[key].dtype, storages[key].length) != (dtype, length):
            raise ValueError(f"has two descriptions of the storage {key!r}")
        return storages[key]

    return DataUnpickler(data, where, _CALLS, _SYMBOLS, persistent, start)


def _contents(file: Mapped, tree: Any, entry: str | None) -> Contents:
    entries, notes = pick(tree, array_in, str(file.path), entry)
    return Contents(str(file.path), "torch", entries, "torch", notes)


MAX_DIRECTORY = 5 * 2**20  # bytes; 20,000 members of a file of torch take half of it
_MAX_NPZ = 5_000  # members; each has a header of its own to be parsed
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile decompresses the others without a limit
_OTHERS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma"}
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


def _directory_size(file: Mapped) -> int:
    """Size of the central directory as the end record says it; zip64 keeps it in a record of its own."""
    tail_start = max(0, file.size - 65557)
    tail = bytes(file.slice(tail_start, file.size - tail_start))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise ValueError(f"{file.path} is truncated: a zip archive that does not end in its directory")
    at64 = tail.rfind(b"PK\x06\x06", 0, at)
    if at64 >= 0 and at64 + 48 <= len(tail):
        return int.from_bytes(tail[at64 + 40 : at64 + 48], "little")
    return int.from_bytes(tail[at + 12 : at + 16], "little")


def _member_start(file: Mapped, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed member stand in the file."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{file.path}: its member {info.filename!r} is compressed; torch writes members uncompressed")
    header = file.slice(info.header_offset, 30)
    if bytes(header[:4]) != b"PK\x03\x04":
        raise ValueError(f"{file.path} is a damaged zip archive: no member at byte {info.header_offset}")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + name + extra


def read_npz(file: Mapped, archive: zipfile.ZipFile) -> Contents:
    """The arrays of an `.npz`, stored or deflated; only arrays that are wanted are ever decompressed.

    Raises:
        ValueError: a damaged archive, or a member that is not an array of numbers.
    """
    refuse_many(file.path, len(archive.filelist), _MAX_NPZ)
    entries = {}
    for info in archive.infolist():
        try:
            entries[info.filename[: -len(".npy")]] = _npy_entry(file, archive, info)
        except ValueError as error:
            raise ValueError(f"{file.path}: its array {info.filename!r} {error}") from error
    return Contents(str(file.path), "npz", entries)


def _npy_entry(file: Mapped, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    if info.compress_type not in _BOUNDED:
        method = _OTHERS.get(info.compress_type, info.compress_type)
        raise ValueError(f"is compressed by {method}, which cannot be bounded; numpy stores or deflates")
    # numpy's own reader of headers allocates what the length field claims.
    try:
        with archive.open(info) as member:
            form = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}[member.read(8)]
            size = struct.unpack(form, member.read(struct.calcsize(form)))[0]
            if size > _MAX_NPY_HEADER:
                raise ValueError(f"claims a header of {size} bytes")
            header = ast.literal_eval(str(member.read(size), "latin1").strip())
        shape, order, dtype = header["shape"], header["fortran_order"], np.dtype(str(header["descr"]))
    except Exception as error:
        # zipfile lets zlib's, lzma's and its own errors through; all of them mean the same here.
        raise ValueError(f"is no .npy array, or a damaged one: {error}") from error
    if dtype.hasobject or dtype.names is not None or dtype.kind not in "biufc":
        raise ValueError(f"is of dtype {dtype}: only arrays of numbers are admitted (an object array is a pickle)")
    shape, start = whole_numbers(shape), 8 + struct.calcsize(form) + size
    length = prod(shape) * dtype.itemsize
    if info.file_size != start + length:
        raise ValueError(f"is damaged: its shape {shape} takes {length} bytes, there are {info.file_size - start}")

    def read() -> np.ndarray:
        """Never more than the shape says, whatever the compressed data gives."""
        data = bytearray()
        try:
            with archive.open(info) as member:
                member.read(start)
                while piece := member.read(min(_CHUNK, length + 1 - len(data))):
                    data += piece
            if len(data) != length:
                raise ValueError(f"{length} bytes expected, {len(data)} found")
        except Exception as error:
            raise ValueError(
                f"{file.path}: its array {info.filename!r} is damaged, it cannot be decompressed: {error}"
            ) from error
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order else "C")

    return Entry(shape, dtype.name, read, kept=True)
