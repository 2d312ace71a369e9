"""Weights from a file into a model, all of them or none, with a report of what happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.transfer import matching
from paddle_ftstrat.transfer.contents import Contents
from paddle_ftstrat.transfer.files import open_contents
from paddle_ftstrat.transfer.from_torch import TorchKeys, torch_keys
from paddle_ftstrat.transfer.matching import Fill
from paddle_ftstrat.transfer.report import LoadError, LoadReport, Row
from paddle_ftstrat.transfer.rows import Request, requests
from paddle_ftstrat.transfer.targets import Piece, Target, find_targets, overflows, put

SOURCES = ("auto", "paddle", "torch")


@_errors.short_messages()
def load_pretrained(
    model: nn.Layer,
    path_or_state: Any,
    include: Any = None,
    exclude: Any = None,
    rename: Any = None,
    source: str = "auto",
    strict: bool = False,
    ignore_mismatched: bool = False,
    layout: Mapping[Any, str] | None = None,
    entry: str | None = None,
    rows: Mapping[Any, Any] | None = None,
) -> LoadReport:
    """Load what a file has for a model: all of it, or only the backbone, whatever the file calls it.

    Keys of the file are first chosen (`include`, `exclude`), then renamed (`rename`), then matched with the model's
    structured names. Torch's files are read without torch, and nothing that stands in a file is ever run. The weights
    that were loaded are what L2SP takes as pretrained by default. Returns a report, which prints as a table; whatever
    is raised, the model is unchanged then.

    Args:
        model: the model; plain or wrapped in `paddle.DataParallel`.
        path_or_state: `.pdparams`, `.safetensors`, an index of shards (`.safetensors.index.json`,
            `.bin.index.json`), `.npz`, torch's `.pt` / `.pth` / `.bin`, or a dict of arrays or tensors. Of what
            `Learner.save`, `EMA.save` and a task write, the weights; of a checkpoint, its folder or the
            `model.safetensors` in it.
        include: keys of the file that are wanted: globs (`"*backbone*"`), names of layers (`"encoder"`), compiled
            regexes (fullmatch), functions of the key, or a list of these; None wants all.
        exclude: keys that are not wanted, in the same way; goes before `include`.
        rename: a mapping of prefixes (`{"classifier.": ""}`) or compiled regexes, a function of the key, or a list.
        source: whose layout the matrices have: "paddle", "torch" (the weights of Linear layers are transposed,
            BatchNorm's statistics renamed, and so on, see `torch_keys`), or "auto", which goes by the file.
        strict: raise unless every wanted key was used and every tensor of the model filled; what `include`,
            `exclude` and `rename` leave out does not count.
        ignore_mismatched: leave a tensor of another shape or type as it is (a new head), and report it; otherwise it
            is an error.
        layout: for matrices of layers that are not Paddle's own: selector of parameters → "same" or "transposed".
        entry: the key of the state dict in a checkpoint that holds several.
        rows: for a head or an embedding with other labels: selector of weights → (labels of the file, labels of the
            model), or → {row of the model: row of the file}. Rows that both have are taken over, new ones keep their
            initialisation. They lie along the axis of the layer's labels: the columns of a Linear's weight, the rows of
            an Embedding or a Conv, the entries of a bias; of other layers along the only axis that fits.

    Raises:
        LoadError: (a ValueError, with the report) a mismatch, or with `strict` anything missing or unexpected.
        ValueError: nothing matches (a rename is proposed); a selector or prefix that fits nothing; a damaged or
            unknown file; keys that cannot be converted, or not without being told how; labels that are not unique or
            not as many as a tensor has rows.
        TypeError: arguments of the wrong type.
        FileNotFoundError: no such file.

    Example:
        >>> import paddle
        >>> from paddle import nn
        >>> pretrained = {"module.0.weight": paddle.ones([4, 4]), "module.0.bias": paddle.zeros([4])}
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> report = load_pretrained(model, pretrained, rename={"module.": ""})
        >>> report.loaded, report.missing
        (['0.weight', '0.bias'], ['1.weight', '1.bias'])

        The row of a label that both have, into a head with a new one:

        >>> head = {"weight": paddle.to_tensor([[1.0, 2.0]]), "bias": paddle.to_tensor([3.0, 4.0])}
        >>> model = nn.Linear(1, 3)
        >>> report = load_pretrained(model, head, rows={"*": (["cat", "dog"], ["dog", "emu", "cat"])})
        >>> model.bias.tolist(), report.carried["bias"].sources, report.carried["bias"].new
        ([4.0, 0.0, 3.0], {0: 1, 2: 0}, ('emu',))

        Without the rename:

        >>> load_pretrained(nn.Sequential(nn.Linear(4, 4)), pretrained)
        Traceback (most recent call last):
            ...
        ValueError: no key of a dict names a tensor of the model: it has module.0.weight, ...
    """
    targets, asked = find_targets(model), requests(model, rows)
    if source not in SOURCES:
        raise ValueError(_errors.unknown("source", source, SOURCES))
    contents = open_contents(path_or_state, entry)
    sharded = [name for name, target in targets.items() if target.tensor.is_dist()]
    if sharded:
        raise ValueError(f"these tensors are spread over several devices: {_errors.listing(sharded)}; load before that")
    wanted, left_out = matching.wanted(list(contents.entries), include, exclude)
    names = matching.renamed(wanted, rename)
    left_out += [key for key in wanted if key not in names]
    keys, taken, why = _keys(model, contents, names, targets, source, layout)
    if not any(name in keys.pieces for name in names.values()):
        raise ValueError(_nothing_fits(contents, names, keys, targets))
    fills, all_rows = matching.match(contents, names, targets, keys, _leniently_renamed(left_out, rename), asked)
    report = LoadReport(contents.label, taken, why, all_rows, (*contents.notes, *_hints(all_rows, keys, names)))
    for message in _refusals(fills, report, strict, ignore_mismatched, asked):
        raise LoadError(message, report)
    kept = _check_values(fills, report)
    for fill in fills:
        key, found, piece = fill.claim
        array = piece.take(kept[key] if key in kept else found.read())
        put(fill.target, array, found.dtype, found.release, fill.carried)
    select.remember_loaded(model, report.weights)
    if any(settings.owner_of(target.tensor) is not None for target in targets.values() if target.kind == "weight"):
        _errors.warn(
            "the model is bound to a strategy: its L2SP anchors and optimizer state are of the weights before loading; "
            "load first, then bind"
        )
    return report


def _keys(
    model: nn.Layer,
    contents: Contents,
    names: Mapping[str, str],
    targets: Mapping[str, Target],
    source: str,
    layout: Mapping[Any, str] | None,
) -> tuple[TorchKeys, str, str]:
    """What the names in the file mean, the layout of its matrices, and why it is that one."""
    of_torch = torch_keys(model, targets, layout)
    why = "as source= says"
    if source == "auto":
        source, why = matching.decide_layout(contents, names, targets, of_torch)
    if source == "torch":
        refused = [f"{key} {of_torch.refused[name]}" for key, name in names.items() if name in of_torch.refused]
        if refused:
            raise ValueError(f"{contents.label}: {_errors.listing(refused, 4)}; exclude= leaves a key out")
        return of_torch, source, why
    if layout:
        raise ValueError("layout= is about torch's matrices, but the file has Paddle's; say source='torch' if not")
    # A shared weight may stand under any of its names.
    return TorchKeys({name: [Piece(one.name)] for one in targets.values() for name in one.aliases}), source, why


def _nothing_fits(contents: Contents, names: Mapping[str, str], keys: TorchKeys, targets: Mapping[str, Target]) -> str:
    message = f"no key of {contents.label} names a tensor of the model: it has {_errors.listing(contents.entries, 4)}"
    if contents.entries and not names:
        message = f"no key of {contents.label} is left after include, exclude and rename"
    message += f"; the model has {_errors.listing(targets, 4)}"
    proposal, count = matching.propose(names.values(), keys.pieces)
    return message + (f". With rename={proposal!r} {count} of {len(names)} keys would match" if proposal else "")


def _leniently_renamed(keys: Sequence[str], rename: Any) -> dict[str, str]:
    """The names of keys that are left out, for the report only: one that `rename` does not fit keeps its own."""
    names = {key: key for key in keys}
    for key in keys:
        with suppress(ValueError, TypeError):
            names[key] = matching.renamed([key], rename).get(key, key)
    return names


def _hints(rows: Sequence[Row], keys: TorchKeys, names: Mapping[str, str]) -> tuple[str, ...]:
    missing = {row.name for row in rows if row.status == "missing"}
    unexpected = [names[row.key] for row in rows if row.status == "unexpected"]
    known = [name for name, pieces in keys.pieces.items() if missing & {piece.target for piece in pieces}]
    proposal, count = matching.propose(unexpected, known) if unexpected and known else ({}, 0)
    return (f"rename={proposal!r} would match {count} more keys",) if count > 1 else ()


def _refusals(
    fills: Sequence[Fill], report: LoadReport, strict: bool, ignore_mismatched: bool, asked: Mapping[str, Request]
) -> Iterator[str]:
    """What is wrong, by the names and shapes alone."""
    without = [name for name in report.missing if name in asked]
    if without:
        yield f"rows= speaks of {_errors.listing(without)}, for which the file has nothing"
    undecided = [fill.target.name for fill in fills if fill.claim.piece.undecided]
    if undecided:
        yield (
            f"nothing says whether these square matrices have to be transposed: {_errors.listing(undecided)}; "
            "their layers are not Paddle's own, so say layout={name: 'same'} or {name: 'transposed'}"
        )
    pairs = report.mismatched.items()
    swapped = [name for name, (file, model) in pairs if len(file) == 2 and file == model[::-1] != model]
    if swapped:
        other = "paddle" if report.layout == "torch" else "torch"
        yield (
            f"these matrices would fit with their axes exchanged: {_errors.listing(swapped)}; if the whole "
            f"file has {other}'s layout, say source={other!r}; if layers of one kind are stored otherwise (as Hugging "
            "Face's Conv1D), square ones are, too: say source='torch' and layout={pattern: 'same' or 'transposed'}"
        )
    if report.mismatched and not ignore_mismatched:
        yield f"these do not fit: {_errors.listing(report.mismatched)}; ignore_mismatched=True leaves them as they are"
    missing = [row.name for row in report.rows if row.status == "missing" and not row.note]
    if strict and (missing or report.unexpected or report.mismatched):
        yield (
            f"strict=True, but {len(missing)} missing, {len(report.unexpected)} unexpected, "
            f"{len(report.mismatched)} mismatched"
        )


def _check_values(fills: Sequence[Fill], report: LoadReport) -> dict[str, np.ndarray]:
    """Everything about the arrays that can fail, before the first tensor is written; what had to be read for that."""
    kept: dict[str, np.ndarray] = {}
    for fill in fills:
        (key, entry, _), target = fill.claim, fill.target
        if entry.kept and key not in kept:
            kept[key] = entry.read()
        different = list(matching.same_values(fill))
        if different:
            raise LoadError(
                f"{target.name!r} is one tensor in the model, but {key!r} and {_errors.listing(different)} "
                "have different values for it; exclude all but one",
                report,
            )
        if target.dtype == "float16" and overflows(kept[key] if key in kept else entry.read(), entry.dtype):
            raise LoadError(f"{key!r} has values beyond float16, the type of {target.name!r}", report)
    return kept
