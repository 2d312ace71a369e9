"""Files of `torch.save`, zip and legacy, read without torch and without running anything that is in them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.lib.stride_tricks import as_strided

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer import archive, numpy_pickle
from paddle_ftstrat.transfer.contents import Contents, Entry, count, pick, storage_dtype
from paddle_ftstrat.transfer.mapped import Mapped
from paddle_ftstrat.transfer.numpy_pickle import PickledArray, whole_numbers
from paddle_ftstrat.transfer.pickles import Global, Machine

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
    """A run of numbers in the file; in a legacy file its place is known only after the pickle."""

    key: str
    dtype: str
    length: int
    whole: Entry | None = None


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def entry(self) -> Entry:
        whole = self.storage.whole
        return Entry(self.shape, self.storage.dtype, self._read, whole.release)

    def _read(self) -> np.ndarray:
        numbers = self.storage.whole.read()[self.offset :]
        step = numbers.itemsize
        return as_strided(numbers, self.shape, [stride * step for stride in self.stride], writeable=False)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
    """`torch._utils._rebuild_tensor_v2`, with the bounds checked that torch leaves to C++."""
    if not isinstance(storage, _Storage) or not isinstance(offset, int) or offset < 0:
        raise ValueError("has a tensor without a storage")
    shape, stride = whole_numbers(shape), whole_numbers(stride)
    if len(shape) != len(stride):
        raise ValueError(f"has a tensor of shape {shape} and stride {stride}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride)) if count(shape) else 0
    if count(shape) and last >= storage.length:
        raise ValueError(f"has a tensor of shape {shape} that ends beyond its storage of {storage.length} numbers")
    return _Tensor(storage, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise ValueError("has a Parameter that is not a tensor")
    return data


def _from_type(function: Any, kind: Any, arguments: Any, *_: Any) -> _Tensor:
    """`torch._tensor._rebuild_from_type_v2`: a tensor that somebody gave Python attributes; they are dropped."""
    if function not in _REBUILDERS or not isinstance(arguments, tuple):
        raise ValueError(f"rebuilds a tensor with {function!s:.80}, which is not admitted")
    return _REBUILDERS[function](*arguments)


def _named(module: str, *names: str) -> frozenset[Global]:
    return frozenset(Global(module, name) for name in names)


_REBUILDERS: dict[Global, Callable[..., Any]] = {
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_CALLS: dict[Global, Callable[..., Any]] = {
    **numpy_pickle.CALLS,
    **_REBUILDERS,
    Global("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    Global("torch", "Size"): lambda sizes=(): whole_numbers(sizes),
    Global("torch", "device"): lambda *_: None,
}
_SYMBOLS = (
    numpy_pickle.SYMBOLS
    | _named("torch", *_STORAGES, *set(_STORAGES.values()), "Tensor")
    | _named("torch.nn.parameter", "Parameter", "Buffer")
)


def read_zip(file: Mapped, opened: ZipFile, entry: str | None = None) -> Contents:
    """The arrays of a file in torch's zip format (`.pt`, `.pth`, `.bin` since torch 1.6).

    Args:
        file: the file.
        opened: its directory.
        entry: the key of the state dict in a checkpoint that holds several.

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
    order = _byte_order(file, members.get(f"{root}byteorder"))

    def place(storage: _Storage) -> None:
        info = members.get(f"{root}data/{storage.key}")
        if info is None:
            raise ValueError(f"refers to the storage {storage.key!r}, which is not in the archive")
        length = storage.length * storage_dtype(storage.dtype).itemsize
        if info.file_size != length:
            raise ValueError(f"claims {length} bytes for the storage {storage.key!r}, which has {info.file_size}")
        storage.whole = file.entry(archive.member_start(file, info), (storage.length,), storage.dtype, order)

    info = members[pickled[0]]
    data = file.slice(archive.member_start(file, info), info.file_size)
    return _contents(file, _machine(data, f"{file.path}", {}, place).run(), entry)


def read_legacy(file: Mapped, entry: str | None = None) -> Contents:
    """The arrays of a file of `torch.save` before torch 1.6: five pickles, then the storages one after another.

    Args:
        file: the file.
        entry: the key of the state dict in a checkpoint that holds several.

    Raises:
        ValueError: a damaged file, or anything in it but dicts, lists, numbers, text and tensors.
    """
    where, storages, position, parts = str(file.path), {}, 0, []
    for _ in range(5):
        machine = _machine(file.buffer, where, storages, lambda storage: None, start=position)
        parts.append(machine.run())
        position = machine.position
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


def _machine(
    data: Any, where: str, storages: dict[str, _Storage], place: Callable[[_Storage], None], start: int = 0
) -> Machine:
    return Machine(
        data, where, _CALLS, _SYMBOLS, numpy_pickle.build, partial(_persistent, storages=storages, place=place), start
    )


def _persistent(reference: Any, storages: dict[str, _Storage], place: Callable[[_Storage], None]) -> _Storage:
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


def _contents(file: Mapped, tree: Any, entry: str | None) -> Contents:
    entries, notes = pick(tree, _as_entry, str(file.path), entry)
    return Contents(str(file.path), "torch", entries, "torch", notes)


def _as_entry(value: Any) -> Entry | None:
    if isinstance(value, PickledArray) and value.dtype is not None:
        return value.entry(bfloat16=False)
    return value.entry() if isinstance(value, _Tensor) else None


def _byte_order(file: Mapped, info: Any) -> str:
    if info is None:
        return "<"
    text = bytes(file.slice(archive.member_start(file, info), min(info.file_size, 16)))
    if text not in (b"little", b"big"):
        raise ValueError(f"{file.path} has the byte order {text!r}")
    return ">" if text == b"big" else "<"
