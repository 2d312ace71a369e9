"""One checkpoint as a folder: a safetensors file per part, facts, and a manifest with a checksum of each of them.

    manifest.json       {"best", "checksum", "files": {name: {"sha256", "size"}}, "format", "number", "step"}
    facts.json          what JSON can hold
    PART.safetensors    the tensors of a part

The manifest's `checksum` is the SHA-256 of the manifest without it. How that is reckoned, and the key `format`, stay as
they are in all versions to come, so that a newer format can be told from damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat._files import open_regular
from paddle_ftstrat.transfer import safe_tensors
from paddle_ftstrat.transfer.contents import BFLOAT16, Contents, Entry, Mapped, entry_of, storage_dtype
from paddle_ftstrat.transfer.targets import memory

FORMAT = 1
MANIFEST, FACTS, SUFFIX = "manifest.json", "facts.json", ".safetensors"
PART = re.compile(r"[A-Za-z0-9_-]+")
# What Paddle and safetensors both have. Paddle takes uint16 for the bits of bfloat16, and has no wider unsigned types.
DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", BFLOAT16, "float32", "float64", "complex64"),
)
_BLOCK = 2**20  # bytes that are read at a time
_LONGEST_MANIFEST = 2**18  # bytes; 1,000 parts take half of it
_ALIGNMENT = 64  # bytes
_COPYING = 4  # threads: one alone does not use all of the memory's bandwidth


class Damaged(Exception):
    """A file of a checkpoint is not what was written."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file}: {why}")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint's manifest says: updates done, whether it was the best, file → (bytes, SHA-256).

    Its `number` grows with every checkpoint saved in a folder, also where training went back to an earlier step.
    """

    step: int
    number: int
    best: bool
    files: Mapping[str, tuple[int, str]]


def write(
    folder: Path, step: int, number: int, best: bool, parts: Mapping[str, Mapping[str, Entry]], facts: bytes
) -> None:
    """Write a checkpoint (see `Manifest`) into a folder that is made, and have the system put all of it on the disk.

    Raises:
        OSError: the disk is full, or the folder cannot be made.
    """
    files: dict[str, dict[str, Any]] = {}

    @contextmanager
    def new_file(name: str) -> Iterator[BufferedRandom]:
        with (folder / name).open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            file.seek(0)
            files[name] = {"size": size, "sha256": _checksum(file)}

    folder.mkdir()
    for part, arrays in parts.items():
        with new_file(part + SUFFIX) as file:
            safe_tensors.write(file, arrays, {"format": "pd"})
    with new_file(FACTS) as file:
        file.write(facts)
    manifest = encode({"format": FORMAT, "step": step, "number": number, "best": best, "files": files})
    with new_file(MANIFEST) as file:
        file.write(manifest)
    sync(folder)


def _checksum(file: BufferedIOBase) -> str:
    summed, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    while size := file.readinto(block):
        summed.update(block[:size])
    return summed.hexdigest()


def encode(content: Mapping[str, Any]) -> bytes:
    """The text of a manifest; the same content always gives the same bytes."""
    plain = json.dumps(content, sort_keys=True).encode()
    return json.dumps({**content, "checksum": hashlib.sha256(plain).hexdigest()}, sort_keys=True).encode()


def sync(folder: Path) -> None:
    """Have the system put a folder's list of files on the disk."""
    if os.name != "posix":
        return  # other systems do not open folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_manifest(folder: Path, step: int) -> Manifest:
    """The manifest of the checkpoint of a step; the files that it lists are not looked at.

    Raises:
        Damaged: it is missing, changed, or of another step.
        ValueError: a newer format.
    """
    file = folder / MANIFEST
    with _opened(file) as stream:
        text = stream.read(_LONGEST_MANIFEST)
    try:
        content = json.loads(text)
        sound = encode({name: value for name, value in content.items() if name != "checksum"}) == text
    except (ValueError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise Damaged(file, "damaged: it does not have its own checksum")
    if isinstance(content.get("format"), int) and content["format"] != FORMAT:
        raise ValueError(
            f"{folder} has format {content['format']}; this version of paddle_ftstrat reads format {FORMAT}: "
            "use the version that wrote it, or another folder"
        )
    try:
        files = {name: (described["size"], described["sha256"]) for name, described in content["files"].items()}
        found = Manifest(content["step"], content["number"], content["best"], files)
        numbers = [found.step, found.number, *(size for size, _ in files.values())]
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise TypeError(numbers)
    except (KeyError, TypeError, AttributeError):
        raise Damaged(file, "damaged: it has its own checksum, but is no manifest") from None
    if found.step != step:
        raise Damaged(file, f"from another checkpoint: it says step {found.step}")
    if not all(name == FACTS or PART.fullmatch(name.removesuffix(SUFFIX)) for name in files):
        raise Damaged(file, f"it names files of other folders: {_errors.listing(files):.200}")
    return found


def read(folder: Path, manifest: Manifest) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The (parts, facts) of a checkpoint, after all its files have been compared with their checksums.

    Raises:
        Damaged: a file is missing or changed, or holds something else than checkpoints do.
    """
    for name, (size, checksum) in manifest.files.items():
        with _opened(folder / name) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise Damaged(folder / name, f"{found} bytes long, {size} were written")
            if _checksum(file) != checksum:
                raise Damaged(
                    folder / name, "damaged, or from another checkpoint: it has another checksum than what was written"
                )
    parts, facts = {}, None
    for name in manifest.files:
        try:
            if name == FACTS:
                facts = json.loads((folder / FACTS).read_bytes())
            else:
                parts[name.removesuffix(SUFFIX)] = as_tensors(safe_tensors.read(Mapped(folder / name)))
        except (ValueError, TypeError, RecursionError) as error:
            raise Damaged(folder / name, f"{error!s:.300}") from error
    if not isinstance(facts, dict):
        raise Damaged(folder / FACTS, "missing, or no facts")
    return parts, facts


def as_entries(tensors: Mapping[str, Any]) -> dict[str, Entry]:
    """What the writer of safetensors wants for each Paddle tensor or numpy array; nothing is copied yet.

    Raises:
        TypeError: something that is no tensor.
        ValueError: a dtype that Paddle or safetensors does not have.

    Example:
        >>> as_entries({"w": np.zeros([2, 3])})["w"].shape
        (2, 3)
    """
    entries = {}
    for name, tensor in tensors.items():
        entry = entry_of(tensor)
        if entry is None:
            raise TypeError(f"{name!r} must be a tensor or a numpy array, not {tensor!r:.80}")
        if entry.dtype not in DTYPES:
            raise ValueError(f"{name!r} is of dtype {entry.dtype}; allowed: {_errors.listing(DTYPES)}")
        entries[name] = entry
    return entries


def as_tensors(contents: Contents) -> dict[str, Any]:
    """The arrays of a file as Paddle tensors of their own memory, by name."""
    tensors = {}
    for name, entry in contents.entries.items():
        array = entry.read()
        # numpy has no bfloat16: Paddle takes and hands out the bits as uint16.
        bits = entry.dtype == BFLOAT16
        tensors[name] = paddle.to_tensor(array.view(np.uint16), BFLOAT16) if bits else paddle.to_tensor(array)
        entry.release()
    return tensors


class Copies:
    """Takes copies of dicts of tensors; each `take` overwrites those of the one before.

    They lie in one block of memory that stays allocated: most of the time of a first copy goes into getting memory from
    the system, and one block costs less of it than many arrays.

    Example:
        >>> copies, array = Copies(), np.ones(2)
        >>> taken = copies.take({"model": {"w": array}})
        >>> array[0] = 5
        >>> taken["model"]["w"].read().tolist()
        [1.0, 1.0]
    """

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)

    def take(self, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Entry]]:
        """The tensors, by part and name, as they are now.

        Raises:
            TypeError, ValueError: as `as_entries`.
        """
        entries = {part: as_entries(tensors) for part, tensors in parts.items()}
        places, size = [], 0
        for part, described in entries.items():
            for name, entry in described.items():
                end = size + entry.size * storage_dtype(entry.dtype).itemsize
                places.append((part, name, slice(size, end)))
                size = -(-end // _ALIGNMENT) * _ALIGNMENT
        if size > self._block.size:
            self._block = np.empty(0, np.uint8)  # given back before more is asked for
            self._block = np.empty(size, np.uint8)

        def copy(place: tuple[str, str, slice]) -> None:
            part, name, piece = place
            tensor, entry = parts[part][name], entries[part][name]
            array = self._block[piece].view(storage_dtype(entry.dtype)).reshape(entry.shape)
            source = tensor if isinstance(tensor, np.ndarray) else memory(tensor, entry.dtype)
            np.copyto(array, entry.read() if source is None else source)
            entries[part][name] = Entry(entry.shape, entry.dtype, lambda: array)

        with ThreadPoolExecutor(_COPYING) as threads:
            list(threads.map(copy, places))
        return entries


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    """A file of a checkpoint, open for reading; what goes wrong with it inside is damage."""
    try:
        with open_regular(file) as stream:
            yield stream
    except FileNotFoundError:
        raise Damaged(file, "missing") from None
    except OSError as error:
        raise Damaged(file, f"cannot be read ({error.strerror})") from error
    except ValueError:
        raise Damaged(file, "not a regular file") from None
