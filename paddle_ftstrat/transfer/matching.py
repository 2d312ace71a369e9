"""Keys of a file against the tensors of a model: which are wanted, what they are called there, what fills what."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.transfer.contents import Contents, Entry
from paddle_ftstrat.transfer.from_torch import TorchKeys
from paddle_ftstrat.transfer.report import Row
from paddle_ftstrat.transfer.rows import Carried, Request
from paddle_ftstrat.transfer.targets import Piece, Target, convertible

_TORCH_ENDS = (".running_mean", ".running_var", ".num_batches_tracked", ".in_proj_weight", ".in_proj_bias")
_PADDLE_ENDS = ("._mean", "._variance")


class Claim(NamedTuple):
    """A key of the file, and how its array becomes a tensor of the model."""

    key: str
    entry: Entry
    piece: Piece


@dataclass(frozen=True)
class Fill:
    """A tensor of the model and what goes into it, or into its rows in `carried`; `others` claim to be the same."""

    target: Target
    claim: Claim
    others: Sequence[Claim] = ()
    carried: Carried | None = None


def decide_layout(
    contents: Contents, names: Mapping[str, str], targets: Mapping[str, Target], keys: TorchKeys
) -> tuple[str, str]:
    """The layout of a file's matrices, "torch" or "paddle", and why: never by the shape of a square matrix.

    Evidence counts in this order: the file's format or metadata; names that only one of the two libraries uses; the
    shapes of Linear weights that are not square, if they all say the same. `names` are those of the wanted keys in the
    model.

    Raises:
        ValueError: the evidence contradicts itself, or there is none and it would matter.
    """
    if contents.layout is not None:
        why = "the tensors are" if contents.kind == "dict" else "its format is"
        return contents.layout, f"{why} {contents.layout}'s"
    dotted = [f".{name}" for name in names.values()]
    by_name = {"torch"} if any(name.endswith(_TORCH_ENDS) for name in dotted) else set()
    by_name |= {"paddle"} if any(name.endswith(_PADDLE_ENDS) for name in dotted) else set()
    matrices = [(key, piece) for key, name in names.items() for piece in keys.pieces.get(name, ()) if piece.transpose]
    by_shape = set()
    for key, piece in matrices:
        shape, wanted = contents.entries[key].shape, targets[piece.target].shape
        if piece.part is None and len(shape) == 2 and shape != shape[::-1] and wanted in (shape, shape[::-1]):
            by_shape.add("paddle" if shape == wanted else "torch")
    for evidence, why in ((by_name, "by its names"), (by_shape, "by the shapes of its Linear weights")):
        if len(evidence) == 1:
            return evidence.pop(), why
        if len(evidence) == 2:
            raise ValueError(f"{contents.label}: {why} it is both torch's and Paddle's; say source='torch' or 'paddle'")
    if contents.kind == "safetensors" and matrices:
        raise ValueError(
            f"{contents.label} does not say whether it comes from torch or from Paddle, and its Linear weights "
            f"({_errors.listing((key for key, _ in matrices), 4)}) fit both ways; say source='torch' or source='paddle'"
        )
    return "paddle", "nothing says otherwise"


def match(
    contents: Contents,
    names: Mapping[str, str],
    targets: Mapping[str, Target],
    keys: TorchKeys,
    left_out: Mapping[str, str],
    asked: Mapping[str, Request],
) -> tuple[list[Fill], tuple[Row, ...]]:
    """Match a file's wanted keys with a model's tensors: what fills what, and a row for every tensor and key.

    `names` are those of the wanted keys in the model, `left_out` of the others; `keys` say which name fills what,
    `asked` which rows tensors are to get instead of all of an array. Rows that do not fit are a ValueError.
    """
    claims: dict[str, list[Claim]] = {name: [] for name in targets}
    others = []
    for key, name in names.items():
        entry = contents.entries[key]
        for piece in keys.pieces.get(name, ()):
            claims[piece.target].append(Claim(key, entry, piece))
        if name not in keys.pieces:
            note = "" if key == name else f"as {name}"
            status = "dropped" if name in keys.dropped else "unexpected"
            others.append(Row(status, key=key, file_shape=entry.shape, file_dtype=entry.dtype, note=note))
    others += [Row("excluded", key=key, file_shape=contents.entries[key].shape) for key in left_out]
    not_wanted = {piece.target for name in left_out.values() for piece in keys.pieces.get(name, ())}
    fills, rows = [], []
    for name, claimed in claims.items():
        target, why = targets[name], "its key is left out" if name in not_wanted else ""
        row = Row("missing", name, "", target.kind, target.shape, None, target.dtype, shared=target.aliases, note=why)
        if claimed:
            row, fill = _settle(row, target, claimed, asked.get(name))
            fills += [fill] if fill else []
        rows.append(row)
    return fills, (*rows, *others)


def _settle(row: Row, target: Target, claimed: Sequence[Claim], asked: Request | None) -> tuple[Row, Fill | None]:
    """What becomes of a tensor that keys claim to fill."""
    key, entry, piece = claimed[0]
    fitted = piece.shape_of(entry.shape)
    shape = entry.shape if fitted is None else fitted
    row = replace(row, status="mismatched", key=key, file_shape=shape, file_dtype=entry.dtype)
    carried = asked.carried(target.name, fitted, target.shape) if asked else None
    if not carried and fitted != target.shape:
        return replace(row, note=f"file {list(shape)}, model {list(target.shape)}"), None
    if not convertible(entry.dtype, target.dtype):
        return replace(row, note=f"file {entry.dtype}, model {target.dtype}: not converted"), None
    notes = [str(carried)] if carried else []
    if entry.dtype != target.dtype:
        notes.append(f"{entry.dtype} → {target.dtype}")
    if piece.part is not None:
        notes.append(f"part {piece.part[0] + 1} of {piece.part[1]}")
    if piece.transpose:
        notes.append("transposed")
    if len(target.aliases) > 1:
        notes.append(f"shared: {_errors.listing(target.aliases, 4)}")
    status = "partly" if carried and carried.new else "loaded"
    row = replace(row, status=status, note=", ".join(notes), carried=carried)
    return row, Fill(target, claimed[0], claimed[1:], carried)


def same_values(fill: Fill) -> Iterator[str]:
    """The other keys for a tensor whose values differ from the one that it takes."""
    array = None
    for key, entry, piece in fill.others:
        array = fill.claim.piece.take(fill.claim.entry.read()) if array is None else array
        other = piece.take(entry.read()) if piece.shape_of(entry.shape) == array.shape else None
        if other is None or not np.array_equal(array, other):
            yield key


WRAPPERS = ("module.", "_layers.", "model.", "_orig_mod.")
_MAX_TRIED = 1_000_000  # pairs of a key and a change of prefix


def wanted(keys: Sequence[str], include: Any = None, exclude: Any = None) -> tuple[list[str], list[str]]:
    """The keys that `include` and `exclude` of `load_pretrained` want and those that they do not, in the order given.

    Raises:
        ValueError: a selector that matches no key.
        TypeError: a selector that is none.

    Example:
        >>> wanted(["backbone.w", "backbone.b", "head.w"], include="backbone", exclude="*.b")
        (['backbone.w'], ['backbone.b', 'head.w'])
    """
    chosen = set(keys) if include is None else _matched(keys, include, "include")
    if exclude is not None:
        chosen -= _matched(keys, exclude, "exclude")
    return [key for key in keys if key in chosen], [key for key in keys if key not in chosen]


def _matched(keys: Sequence[str], selectors: Any, what: str) -> set[str]:
    if isinstance(selectors, (str, re.Pattern)) or callable(selectors):
        selectors = [selectors]
    if not isinstance(selectors, Iterable):
        raise TypeError(f"{what} must be a glob, a compiled regex, a function of the key, or a list of these")
    found: set[str] = set()
    for selector in selectors:
        if not (isinstance(selector, (str, re.Pattern)) or callable(selector)):
            raise TypeError(f"{what} must be a glob, a compiled regex or a function key → bool, not {selector!r}")
        meant = selector.rstrip(".") if isinstance(selector, str) else selector
        matched = {key for key in keys if select.means(meant, [key], [key])}
        if not matched and isinstance(selector, str):
            heads = [head.rstrip(".") for head in _heads(keys)]
            raise ValueError(f"{what} matches no key. " + _errors.unknown("name or glob", selector, [*keys, *heads]))
        if not matched:
            raise ValueError(f"{what} {selector!r} matches no key; the keys are {_errors.listing(keys)}")
        found |= matched
    return found


def renamed(keys: Sequence[str], rename: Any = None) -> dict[str, str]:
    """Key of the file → key for the model, for every key that has one.

    Args:
        keys: keys of a file.
        rename: a mapping, a function, or a list of these, applied one after another. A mapping's text keys are
            prefixes, at the border of a name (`{"bert": "encoder"}`, `{"classifier.": ""}`, `{"": "backbone."}`), of
            which the longest that fits is replaced; its compiled regexes are substituted wherever they are found
            (`{re.compile(r"layer(\\d)"): r"layers.\\1"}`). A function gives the new key, or None to leave the key out.

    Raises:
        ValueError: a prefix or regex that fits no key, or two keys with one new name.
        TypeError: a rule that is none of these, or a function that gives something else.

    Example:
        >>> renamed(["module.fc.weight", "module.fc.bias"], {"module.": ""})
        {'module.fc.weight': 'fc.weight', 'module.fc.bias': 'fc.bias'}
    """
    rules = [] if rename is None else [rename] if isinstance(rename, Mapping) or callable(rename) else rename
    if isinstance(rules, str) or not isinstance(rules, Iterable):
        raise TypeError(f"rename must be a mapping, a function or a list of these, not {rename!r}")
    names = {key: key for key in keys}
    for rule in rules:
        names = _renamed_by(rule, names)
    by_new: dict[str, str] = {}
    for key, new in names.items():
        other = by_new.setdefault(new, key)
        if other != key:
            raise ValueError(f"rename gives {other!r} and {key!r} the same name {new!r}")
    return names


def _renamed_by(rule: Any, names: dict[str, str]) -> dict[str, str]:
    if isinstance(rule, Mapping):
        names = _with_other_prefixes({old: new for old, new in rule.items() if isinstance(old, str)}, names)
        for pattern, new in rule.items():
            if isinstance(pattern, str):
                continue
            if not isinstance(pattern, re.Pattern):
                raise TypeError(f"a key of rename must be a prefix or a compiled regex, not {pattern!r}")
            if not any(map(pattern.search, names.values())):
                raise ValueError(f"rename: {pattern!r} fits no key; the keys are {_errors.listing(names.values())}")
            names = {key: pattern.sub(new, name) for key, name in names.items()}
        return names
    if not callable(rule):
        raise TypeError(f"rename must be a mapping, a function or a list of these, not {rule!r}")
    given = {key: rule(name) for key, name in names.items()}
    for key, new in given.items():
        if not isinstance(new, (str, type(None))):
            raise TypeError(f"rename gives {new!r} for {names[key]!r}; a name or None is allowed")
    return {key: new for key, new in given.items() if new is not None}


def _with_other_prefixes(prefixes: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """The names with the longest prefix that fits replaced, which ends where a part of the name does."""
    used, found = set(), {}
    for key, name in names.items():
        fitting = [old for old in prefixes if f"{name}.".startswith(old.rstrip(".") + ".") or not old.rstrip(".")]
        used.update(fitting)
        found[key] = name
        if fitting:
            longest = max(fitting, key=len)
            parts = (prefixes[longest].rstrip("."), name[len(longest) :].lstrip("."))
            found[key] = ".".join(part for part in parts if part)
    for old in prefixes:
        if old not in used:
            heads = [head.rstrip(".") for head in _heads(names.values())]
            raise ValueError("rename fits no key. " + _errors.unknown("prefix", old, [*heads, *names.values()]))
    return found


def propose(keys: Iterable[str], known: Collection[str]) -> tuple[dict[str, str], int]:
    """The change of prefix by which most keys would be known, as a `rename`, and how many these are.

    Example:
        >>> propose(["module.fc.weight", "module.fc.bias"], {"fc.weight", "fc.bias"})
        ({'module.': ''}, 2)
    """
    keys, known = list(keys), set(known)
    candidates: list[tuple[str, str]] = [(start, "") for start in (*WRAPPERS, *_heads(keys))]
    candidates += [("", head) for head in _heads(known)]
    candidates += [(start, head) for start in _heads(keys, 1) for head in _heads(known, 1) if start != head]

    def fitting(candidate: tuple[str, str], among: Sequence[str]) -> int:
        old, new = candidate
        return sum(key.startswith(old) and new + key[len(old) :] in known for key in among)

    # Of a file with very many names some are enough to tell.
    sample = keys[:: 1 + len(keys) * len(candidates) // _MAX_TRIED]
    old, new = max(candidates, key=lambda candidate: fitting(candidate, sample))
    most = fitting((old, new), keys)
    return ({old: new}, most) if most else ({}, 0)


def _heads(keys: Iterable[str], depth: int = 2) -> list[str]:
    """The first and the first two parts of dotted names, in order of appearance: what a prefix may be."""
    found: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, min(depth, len(parts) - 1) + 1):
            found[".".join(parts[:length]) + "."] = None
    return list(found)[:100]
