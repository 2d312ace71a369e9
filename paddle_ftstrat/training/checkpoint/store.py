"""A folder of checkpoints: saved in the background, complete or not there, checked when they are loaded."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat._files import locked
from paddle_ftstrat.training.checkpoint import folder as store_folder
from paddle_ftstrat.training.checkpoint.folder import Damaged, Manifest
from paddle_ftstrat.transfer.contents import Entry

_NAME = re.compile(r"step_(\d{9,})")
# Hidden beside the checkpoints: one that is being written or removed, and one whose place another is taking.
_HIDDEN = re.compile(r"\.(step_\d{9,})(\.old|(\.old)?\.[0-9a-f]+\.tmp)")
_SHOWN = 3  # damaged checkpoints in a message


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded from its folder: updates done, part → name → Paddle tensor, what JSON can hold."""

    path: Path
    step: int
    parts: dict[str, dict[str, Any]]
    facts: dict[str, Any]


class Store:
    """A folder of checkpoints `step_000000120/`, of which the last ones and the best are kept.

    A checkpoint is written to a hidden folder, synced and renamed: whenever the process is killed or the disk fills up,
    every checkpoint there is complete. One process at a time may save to a folder; `writing` sees to it.

    Args:
        folder: the folder; it is made by the first `save`.
        keep: how many of the last checkpoints stay, ≥ 1. The newest that was saved as the best stays besides.
        background: `save` copies the tensors and a thread writes them; the copy's memory stays in use between saves.
            False: `save` returns when all is on the disk.

    Raises:
        TypeError, ValueError: `keep` is no whole number ≥ 1; `folder` is a file.

    Example:
        >>> import paddle, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder)
        ...     store.save(120, {"model": {"w": paddle.ones([2])}}, {"epoch": 3})
        ...     found = store.latest()
        >>> found.step, found.parts["model"]["w"].tolist(), found.facts
        (120, [1.0, 1.0], {'epoch': 3})
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2, background: bool = True) -> None:
        self.folder = Path(folder)
        self.keep = _errors.check_whole("keep", keep, minimum=1)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"folder: {self.folder} is a file; a folder for checkpoints is needed")
        self._background, self._copies = background, store_folder.Copies()
        self._running: list[futures.Future[None]] = []
        self._damaged: set[Path] = set()
        weakref.finalize(self, _complain, self.folder, self._running)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside it nobody else who asks for this may save to the folder; it is made, and unfinished saves are removed.

        Raises:
            OSError: it cannot be made or locked, or has a link or a file where checkpoints are to stand.
            RuntimeError: somebody else is saving there; the error says who.
        """
        self._make()
        with locked(self.folder):
            _clean(self.folder)
            try:
                yield
            finally:
                futures.wait(self._running)

    def save(
        self,
        step: int,
        parts: Mapping[str, Mapping[str, Any]],
        facts: Mapping[str, Any] = MappingProxyType({}),
        best: bool = False,
    ) -> None:
        """Save a checkpoint; in the background, what is given may change as soon as this returns.

        Waits for the save before it. A checkpoint of the same step is replaced, and stays the best if it was.

        Args:
            step: updates that have been done, ≥ 0.
            parts: name of a file → name → Paddle tensor or numpy array.
            facts: anything JSON can hold. Default: none.
            best: whether this one is to be kept until a better one comes.

        Raises:
            TypeError, ValueError: a part or a fact that cannot be saved, or a newer version has written to the folder.
            OSError: the disk is full or the folder cannot be written, now or at the save before (this one was not begun
                then). The checkpoints that were there are still there.
        """
        step = _errors.check_whole("step", step)
        for part in parts:
            if not isinstance(part, str) or not store_folder.PART.fullmatch(part):
                raise ValueError(f"part {part!r}: the name of a part is a file's, of letters, digits, '_' and '-'")
        try:
            text = json.dumps(dict(facts)).encode()
        except (TypeError, ValueError) as error:
            name, value = next((name, value) for name, value in facts.items() if not _is_json({name: value}))
            raise TypeError(f"facts[{name!r}] = {value!r:.80} is nothing that JSON can hold: {error}") from error
        if not self._background:
            self._write(step, {part: store_folder.as_entries(held) for part, held in parts.items()}, text, best)
            return
        self.wait()
        copies = self._copies.take(parts)
        # A thread for each save: a child that is forked in between has none of its parent's.
        thread = futures.ThreadPoolExecutor(1)
        self._running.append(thread.submit(self._write, step, copies, text, best))
        thread.shutdown(wait=False)

    def wait(self) -> None:
        """Return when every save is on the disk.

        Raises:
            OSError: the last save failed; said once.
        """
        futures.wait(self._running)
        if self._running:
            self._running.pop().result()

    def latest(self, best: bool = False) -> Checkpoint | None:
        """The newest checkpoint that is not damaged; None where none was ever saved. Warns of each damaged one.

        Args:
            best: of those that were saved as the best.

        Raises:
            ValueError: there is one, or may be, but all are damaged; or a newer version wrote them.
        """
        futures.wait(self._running)
        sound, damaged = _survey(self.folder)
        for path, manifest in sound:
            if best and not manifest.best:
                continue
            try:
                parts, facts = store_folder.read(path, manifest)
            except Damaged as error:
                damaged[path] = str(error)
                self._damaged.add(path)
            else:
                for why in damaged.values():
                    _errors.warn(f"a damaged checkpoint is passed over: {why}", RuntimeWarning)
                return Checkpoint(path, manifest.step, parts, facts)
        if not damaged:
            return None
        reasons = [why.removeprefix(f"{self.folder}{os.sep}") for why in damaged.values()]
        reasons[_SHOWN:] = [f"… and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        raise ValueError(
            f"no undamaged {'best ' if best else ''}checkpoint is left in {self.folder}; "
            "to start anew, remove the folder:\n" + "\n".join(reasons)
        )

    def _make(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            store_folder.sync(self.folder.parent)

    def _write(self, step: int, parts: Mapping[str, Mapping[str, Entry]], facts: bytes, best: bool) -> None:
        try:
            self._make()
            _clean(self.folder)
            sound, _ = _survey(self.folder)
            number = 1 + max((manifest.number for _, manifest in sound), default=0)
            best = bool(best) or any(manifest.step == step and manifest.best for _, manifest in sound)
            path = self.folder / f"step_{step:09d}"
            draft = _draft(path)
            try:
                store_folder.write(draft, step, number, best, parts, facts)
                _replace(draft, path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            self._damaged.discard(path)
            self._prune()
        except OSError as error:
            # The class (PermissionError, …) follows from the number, which shutil's errors do not have.
            why = f"saving the checkpoint of step {step} failed: {error.strerror or error}"
            raise OSError(error.errno or errno.EIO, why, str(error.filename or self.folder)) from error

    def _prune(self) -> None:
        """Remove all but the last ones and the best; a damaged one takes no undamaged one's place."""
        listed, damaged = _survey(self.folder)
        sound = [(path, manifest) for path, manifest in listed if path not in self._damaged]
        kept = {path for path, _ in sound[: self.keep]}
        kept.update([path for path, manifest in sound if manifest.best][:1])
        for path in {path for path, _ in listed}.union(damaged) - kept:
            _remove(path)
        self._damaged.clear()


def _survey(folder: Path) -> tuple[list[tuple[Path, Manifest]], dict[Path, str]]:
    """The checkpoints with a sound manifest, newest first, and those without: folder → what is wrong.

    Raises:
        ValueError: a newer version wrote one.
    """
    sound, damaged = [], {}
    for path, step in _folders(folder):
        try:
            sound.append((path, store_folder.read_manifest(path, step)))
        except Damaged as error:
            damaged[path] = str(error)
    return sorted(sound, key=lambda found: -found[1].number), damaged


def _folders(folder: Path) -> list[tuple[Path, int]]:
    """Folders of checkpoints and their steps, the retired one of a step too where nothing has taken its place."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
        name = path.name[1:].removesuffix(".old") if path.name.startswith(".") else path.name
        match = _NAME.fullmatch(name)
        if match and path.is_dir():
            found.setdefault(int(match[1]), path)
    return [(path, step) for step, path in found.items()]


def _replace(draft: Path, path: Path) -> None:
    """Put a complete checkpoint in its place; between the two renames `_folders` sees the retired one."""
    retired = path.with_name(f".{path.name}.old")
    again = path.exists()
    if again:
        os.rename(path, retired)
    try:
        os.rename(draft, path)
    except BaseException:
        if again:
            os.rename(retired, path)
        raise
    store_folder.sync(path.parent)
    if again:
        _remove(retired)


def _remove(path: Path) -> None:
    """Remove a checkpoint: first from sight, so that a kill on the way leaves no half of it."""
    draft = _draft(path)
    os.rename(path, draft)
    shutil.rmtree(draft)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name.strip('.')}.{secrets.token_hex(4)}.tmp")


def _clean(folder: Path) -> None:
    """Undo what killed runs left: drafts go, and a retired checkpoint comes back where nothing took its place.

    Raises:
        NotADirectoryError: a link or a file has the name of a checkpoint; neither is ours to remove.
    """
    for path in sorted(folder.iterdir()):
        hidden = _HIDDEN.fullmatch(path.name)
        if not hidden and not _NAME.fullmatch(path.name):
            continue
        if path.is_symlink() or not path.is_dir():
            what = "a symbolic link" if path.is_symlink() else "no folder"
            raise NotADirectoryError(errno.ENOTDIR, f"{what}, with the name of a checkpoint: move it away", str(path))
        if not hidden:
            continue
        if hidden[2] != ".old":
            shutil.rmtree(path)
        elif path.with_name(hidden[1]).exists():
            _remove(path)
        else:
            os.rename(path, path.with_name(hidden[1]))


def _complain(folder: Path, ran: Sequence[futures.Future[None]]) -> None:
    """Warn of a save that failed when nobody is left to ask."""
    for error in filter(None, (save.exception() for save in ran)):
        what = f"saving a checkpoint to {folder} failed: {type(error).__name__}: {error}"
        _errors.warn(what, RuntimeWarning)
