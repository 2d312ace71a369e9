"""Keys of a file against the tensors of a model: what fills what, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer.contents import Contents, Entry
from paddle_ftstrat.transfer.from_torch import TorchKeys
from paddle_ftstrat.transfer.report import Row
from paddle_ftstrat.transfer.targets import Piece, Target
from paddle_ftstrat.transfer.write import convertible

_TORCH_ENDS = (".running_mean", ".running_var", ".num_batches_tracked", ".in_proj_weight", ".in_proj_bias")
_PADDLE_ENDS = ("._mean", "._variance")


@dataclass(frozen=True)
class Fill:
    """A tensor of the model and the part of the file that goes into it; `others` claim to hold the same values."""

    target: Target
    key: str
    entry: Entry
    piece: Piece
    others: tuple[tuple[str, Entry, Piece], ...] = ()


@dataclass(frozen=True)
class Match:
    """What fills what, and a row for every tensor and key."""

    fills: tuple[Fill, ...]
    rows: tuple[Row, ...]
    swapped: tuple[str, ...]
    undecided: tuple[str, ...]


def decide_layout(
    contents: Contents, names: Mapping[str, str], targets: Mapping[str, Target], keys: TorchKeys
) -> tuple[str, str]:
    """The layout of a file's matrices, "torch" or "paddle", and why: never by the shape of a square matrix.

    Evidence counts in this order: the file's format or metadata; names that only one of the two libraries uses; the
    shapes of Linear weights that are not square, if they all say the same.

    Args:
        contents: the file.
        names: its wanted keys → their names in the model.
        targets: the model's tensors.
        keys: what the model understands of torch's keys.

    Raises:
        ValueError: the evidence contradicts itself, or there is none and it would matter.
    """
    if contents.layout is not None:
        why = "the tensors are" if contents.kind == "dict" else "its format is"
        return contents.layout, f"{why} {contents.layout}'s"
    dotted = [f".{name}" for name in names.values()]
    by_name = {"torch"} if any(name.endswith(_TORCH_ENDS) for name in dotted) else set()
    by_name |= {"paddle"} if any(name.endswith(_PADDLE_ENDS) for name in dotted) else set()
    votes = list(_votes(contents, names, targets, keys))
    for evidence, why in ((by_name, "by its names"), (set(votes), "by the shapes of its Linear weights")):
        if len(evidence) == 1:
            return evidence.pop(), why
        if len(evidence) == 2:
            raise ValueError(f"{contents.label}: {why} it is both torch's and Paddle's; say source='torch' or 'paddle'")
    squares = [key for key, name in names.items() for piece in keys.pieces.get(name, ()) if piece.transpose]
    if contents.kind == "safetensors" and squares:
        raise ValueError(
            f"{contents.label} does not say whether it comes from torch or from Paddle, and its Linear weights "
            f"({_errors.listing(squares, 4)}) fit both ways; say source='torch' or source='paddle'"
        )
    return "paddle", "nothing says otherwise"


def refuse(contents: Contents, names: Mapping[str, str], keys: TorchKeys) -> None:
    """Raise for keys that cannot be converted.

    Raises:
        ValueError: there are such keys; each is named with its reason.
    """
    refused = [f"{key} {keys.refused[name]}" for key, name in names.items() if name in keys.refused]
    if refused:
        raise ValueError(f"{contents.label}: {_errors.listing(refused, 4)}; exclude= leaves a key out")


def match(
    contents: Contents,
    names: Mapping[str, str],
    targets: Mapping[str, Target],
    keys: TorchKeys,
    left_out: Mapping[str, str],
) -> Match:
    """Match a file's wanted keys with a model's tensors.

    Args:
        contents: the file.
        names: wanted keys → their names in the model.
        targets: the model's tensors.
        keys: which name fills which tensors.
        left_out: keys that are not wanted → the names that they would have.
    """
    claims: dict[str, list[tuple[str, Entry, Piece]]] = {name: [] for name in targets}
    rows = []
    for key, name in names.items():
        entry = contents.entries[key]
        for piece in keys.pieces.get(name, ()):
            claims[piece.target].append((key, entry, piece))
        if name not in keys.pieces:
            note = "" if key == name else f"as {name}"
            status = "dropped" if name in keys.dropped else "unexpected"
            rows.append(Row(status, key=key, file_shape=entry.shape, file_dtype=entry.dtype, note=note))
    rows += [Row("excluded", key=key, file_shape=contents.entries[key].shape) for key in left_out]
    not_wanted = {piece.target for name in left_out.values() for piece in keys.pieces.get(name, ())}
    return _settle(claims, targets, not_wanted, rows)


def same_values(fill: Fill) -> Iterator[str]:
    """The other keys for a tensor whose values differ from the one that it takes."""
    array = None
    for key, entry, piece in fill.others:
        array = fill.piece.take(fill.entry.read()) if array is None else array
        other = piece.take(entry.read()) if piece.shape_of(entry.shape) == fill.target.shape else None
        if other is None or not np.array_equal(array, other):
            yield key


def _settle(
    claims: Mapping[str, Sequence[tuple[str, Entry, Piece]]],
    targets: Mapping[str, Target],
    not_wanted: set[str],
    rows: list[Row],
) -> Match:
    fills, of_targets, swapped, undecided = [], [], [], []
    for name, claimed in claims.items():
        target = targets[name]
        about: dict[str, Any] = {
            "name": name,
            "kind": target.kind,
            "shape": target.shape,
            "dtype": target.dtype,
            "shared": target.aliases,
        }
        if not claimed:
            of_targets.append(Row("missing", **about, note="its key is left out" if name in not_wanted else ""))
            continue
        key, entry, piece = claimed[0]
        shape = piece.shape_of(entry.shape)
        about.update(key=key, file_shape=entry.shape if shape is None else shape, file_dtype=entry.dtype)
        problem = _problem(target, entry, shape)
        if problem:
            of_targets.append(Row("mismatched", **about, note=problem))
            if shape and len(shape) == 2 and shape != target.shape == shape[::-1]:
                swapped.append(name)
            continue
        if piece.undecided:
            undecided.append(name)
        of_targets.append(Row("loaded", **about, note=_note(target, entry, piece)))
        fills.append(Fill(target, key, entry, piece, tuple(claimed[1:])))
    return Match(tuple(fills), (*of_targets, *rows), tuple(swapped), tuple(undecided))


def _problem(target: Target, entry: Entry, shape: tuple[int, ...] | None) -> str:
    if shape != target.shape:
        return f"file {list(entry.shape if shape is None else shape)}, model {list(target.shape)}"
    if not convertible(entry.dtype, target.dtype):
        return f"file {entry.dtype}, model {target.dtype}: not converted"
    return ""


def _note(target: Target, entry: Entry, piece: Piece) -> str:
    parts = []
    if entry.dtype != target.dtype:
        parts.append(f"{entry.dtype} → {target.dtype}")
    if piece.part is not None:
        parts.append(f"part {piece.part[0] + 1} of {piece.part[1]}")
    if piece.transpose:
        parts.append("transposed")
    if len(target.aliases) > 1:
        parts.append(f"shared: {_errors.listing(target.aliases, 4)}")
    return ", ".join(parts)


def _votes(
    contents: Contents, names: Mapping[str, str], targets: Mapping[str, Target], keys: TorchKeys
) -> Iterator[str]:
    for key, name in names.items():
        for piece in keys.pieces.get(name, ()):
            shape = contents.entries[key].shape
            wanted = targets[piece.target].shape
            if piece.transpose and piece.part is None and len(shape) == 2 and shape[0] != shape[1]:
                if shape == wanted:
                    yield "paddle"
                elif shape[::-1] == wanted:
                    yield "torch"
