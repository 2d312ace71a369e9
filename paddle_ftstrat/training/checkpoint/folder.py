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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from paddle_ftstrat import _errors
from paddle_ftstrat._files import open_regular
from paddle_ftstrat.training.checkpoint import tensor_file
from paddle_ftstrat.transfer import safe_tensors
from paddle_ftstrat.transfer.contents import Entry, Mapped

FORMAT = 1
MANIFEST, FACTS, SUFFIX = "manifest.json", "facts.json", ".safetensors"
PART = re.compile(r"[A-Za-z0-9_-]+")
_BLOCK = 2**24  # bytes that are read at a time
_LONGEST_MANIFEST = 2**18  # bytes; 1,000 parts take half of it
_WORTH_A_THREAD = 2**18  # bytes


class Damaged(Exception):
    """A file of a checkpoint is not what was written.

    Args:
        file: the file.
        why: what is wrong with it.
    """

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file}: {why}")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint's manifest says.

    Attributes:
        step: updates that had been done.
        number: grows with every checkpoint saved in a folder, also where training went back to an earlier step.
        best: whether it was the best when it was saved.
        files: name → (bytes, SHA-256).
    """

    step: int
    number: int
    best: bool
    files: Mapping[str, tuple[int, str]]


def write(
    folder: Path, step: int, number: int, best: bool, parts: Mapping[str, Mapping[str, Entry]], facts: bytes
) -> None:
    """Write a checkpoint into a folder that does not exist yet, and have the system put all of it on the disk.

    Args:
        folder: the folder.
        step: updates that have been done.
        number: greater than that of every other checkpoint.
        best: whether it is the best so far.
        parts: name of the part → name → array.
        facts: JSON.

    Raises:
        OSError: the disk is full, or the folder cannot be made.
    """
    folder.mkdir()
    files = {}
    for part, arrays in parts.items():
        files[part + SUFFIX] = _write_file(
            folder / (part + SUFFIX), lambda file, arrays=arrays: safe_tensors.write(file, arrays, {"format": "pd"})
        )
    files[FACTS] = _write_file(folder / FACTS, lambda file: file.write(facts))
    manifest = encode({"format": FORMAT, "step": step, "number": number, "best": best, "files": files})
    _write_file(folder / MANIFEST, lambda file: file.write(manifest))
    sync(folder)


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
    """The manifest of a checkpoint; the files that it lists are not looked at.

    Args:
        folder: the folder.
        step: the step that the folder is named after.

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
    except (KeyError, TypeError, AttributeError):
        found = None
    if found is None or not _is_whole(found.step, found.number, *(size for size, _ in files.values())):
        raise Damaged(file, "damaged: it has its own checksum, but is no manifest")
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
    for name, (size, digest) in manifest.files.items():
        _verify(folder / name, size, digest)
    parts, facts = {}, None
    for name in manifest.files:
        try:
            if name == FACTS:
                facts = json.loads((folder / FACTS).read_bytes())
            else:
                parts[name.removesuffix(SUFFIX)] = tensor_file.as_tensors(safe_tensors.read(Mapped(folder / name)))
        except (ValueError, TypeError, RecursionError) as error:
            raise Damaged(folder / name, f"{error!s:.300}") from error
    if not isinstance(facts, dict):
        raise Damaged(folder / FACTS, "missing, or no facts")
    return parts, facts


def _is_whole(*numbers: Any) -> bool:
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
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


def _verify(file: Path, size: int, digest: str) -> None:
    summed = hashlib.sha256()
    with _opened(file) as stream:
        found = os.fstat(stream.fileno()).st_size
        if found != size:
            raise Damaged(file, f"{found} bytes long, {size} were written")
        while block := stream.read(_BLOCK):
            summed.update(block)
    if summed.hexdigest() != digest:
        raise Damaged(file, "damaged, or from another checkpoint: it has another checksum than what was written")


class _Summed:
    """A file that adds up what is written to it, in a thread beside: that takes as long as writing does."""

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.size += len(data)
        try:
            summing = self._thread.submit(self.digest.update, data) if len(data) >= _WORTH_A_THREAD else None
        except RuntimeError:  # the interpreter exits and starts no threads any more
            summing = None
        if summing is None:
            self.digest.update(data)
            return self._file.write(data)
        try:
            return self._file.write(data)
        finally:
            summing.result()


def _write_file(path: Path, fill: Callable[[Any], Any]) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as thread, path.open("xb") as file:
        summed = _Summed(file, thread)
        fill(summed)
        file.flush()
        os.fsync(file.fileno())
    return {"size": summed.size, "sha256": summed.digest.hexdigest()}
