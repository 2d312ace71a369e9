"""Which keys of a torch state dict fill which tensors of a Paddle model: decided by the type of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Union

from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.transfer.targets import Piece, Target

LAYOUTS = ("same", "transposed")
DROPPED = "num_batches_tracked"
_BATCH_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D)
_CONVS = (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose)
_CELLS = (nn.SimpleRNNCell, nn.LSTMCell, nn.GRUCell)
_RNNS = (nn.SimpleRNN, nn.LSTM, nn.GRU)
_WEIGHT_NORM = "belongs to a weight_norm, which the two libraries shape differently; remove_weight_norm in torch first"
_UNTRACKED = "is a running statistic, which Paddle's InstanceNorm does not have: its output in eval mode would differ"


@dataclass(frozen=True)
class TorchKeys:
    """What a model understands of torch's keys: what each fills, why it cannot, and what Paddle has no use for."""

    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


def torch_keys(model: nn.Layer, targets: Mapping[str, Target], layout: Mapping[Any, str] | None = None) -> TorchKeys:
    """What each key of a torch state dict means to a Paddle model.

    | layer | torch | Paddle |
    |---|---|---|
    | Linear | weight [out, in] | weight [in, out] |
    | BatchNorm | running_mean, running_var, num_batches_tracked | _mean, _variance, nothing |
    | InstanceNorm | weight | scale |
    | LayerNorm | weight of any rank (also called gamma, beta) | weight, flat |
    | PReLU | weight | _weight |
    | Bilinear | bias [out] | bias [1, out] |
    | MultiheadAttention | in_proj_weight [3E, E], or q_proj_weight …; in_proj_bias | q_proj.weight …, transposed |
    | TransformerDecoderLayer | multihead_attn | cross_attn |
    | Conv, ConvTranspose, Embedding, GroupNorm, LSTM, GRU, RNN and their cells | as it is | as it is |

    A matrix of any other layer is taken as it is; where it is square, `layout` has to say what holds.

    Raises:
        ValueError: a selector that matches nothing, or another word for a layout.

    Example:
        >>> import paddle
        >>> from paddle_ftstrat.transfer.targets import find_targets
        >>> keys = torch_keys(model := paddle.nn.BatchNorm1D(3), find_targets(model))
        >>> keys.pieces["running_var"][0].target, keys.dropped
        ('_variance', {'num_batches_tracked'})

    Source: https://pytorch.org/docs/stable/nn.html and the layers of `paddle.nn`.
    """
    names = {alias: target.name for target in targets.values() for alias in target.aliases}
    keys = TorchKeys()
    for torch_path, path, layer in _walk(_paddle.unwrap(model)):
        found = [rules for kinds, rules in _RULES if isinstance(layer, kinds)]
        found += [_WEIGHT_NORM_RULES] if found else []
        for torch_name, own_name, how in chain.from_iterable(one(layer) if callable(one) else one for one in found):
            key = select.join(torch_path, torch_name)
            if isinstance(how, str):
                keys.refused[key] = how
            elif how is None:
                keys.dropped.add(key)
            else:
                _add(keys.pieces, key, names.get(select.join(path, own_name)), how)
    known = {piece.target for pieces in keys.pieces.values() for piece in pieces}
    for target in targets.values():
        if target.name not in known:
            undecided = target.kind == "weight" and len(target.shape) == 2 and target.shape[0] == target.shape[1]
            for alias in target.aliases:
                _add(keys.pieces, alias, target.name, {"undecided": undecided})
    _apply_layout(keys.pieces, model, layout or {})
    return keys


# Torch's name, Paddle's, and the fields of the Piece; None where the key is dropped, or the reason why it is refused.
_Rule = tuple[str, str, Union[Mapping[str, Any], str, None]]
_Rules = Union[Iterable[_Rule], Callable[[nn.Layer], Iterator[_Rule]]]


def _walk(model: nn.Layer) -> Iterator[tuple[str, str, nn.Layer]]:
    """(path in torch, path in Paddle, layer); a decoder layer's cross attention has two paths in torch."""
    stack = [("", "", model)]
    while stack:
        torch_path, path, layer = stack.pop()
        yield torch_path, path, layer
        for name, child in layer._sub_layers.items():
            if child is None:
                continue
            torch_names = [name]
            if isinstance(layer, nn.TransformerDecoderLayer) and name == "cross_attn":
                torch_names.append("multihead_attn")
            stack.extend((select.join(torch_path, known), select.join(path, name), child) for known in torch_names)


def _plain(*names: str) -> tuple[_Rule, ...]:
    return tuple((name, name, {}) for name in names)


def _shaped(**names: str) -> Callable[[nn.Layer], Iterator[_Rule]]:
    """Torch's name → Paddle's, of parameters that have another rank there."""

    def rules(layer: nn.Layer) -> Iterator[_Rule]:
        for torch_name, name in names.items():
            param = getattr(layer, name, None)
            yield torch_name, name, {"shape": None if param is None else tuple(param.shape)}

    return rules


def _attention(layer: nn.Layer) -> Iterator[_Rule]:
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        yield "in_proj_weight", f"{name}.weight", {"part": (index, 3), "transpose": True}
        yield f"{name}_weight", f"{name}.weight", {"transpose": True}
        yield "in_proj_bias", f"{name}.bias", {"part": (index, 3)}
    for name in ("bias_k", "bias_v"):
        yield name, "", "is of add_bias_kv=True, which Paddle's MultiHeadAttention does not have"


def _rnn(layer: nn.Layer) -> Iterator[_Rule]:
    projected = bool(getattr(layer, "proj_size", 0))
    refused = "belongs to an LSTM with proj_size, which is not converted"
    for index in range(layer.num_layers):
        for end in ("", "_reverse")[: layer.num_directions]:
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                full = f"{name}_l{index}{end}"
                yield full, full, refused if projected else {}
            yield f"weight_hr_l{index}{end}", "", refused


_WEIGHT_NORM_RULES: tuple[_Rule, ...] = tuple(
    (name, "", _WEIGHT_NORM)
    for name in ("weight_g", "weight_v", "parametrizations.weight.original0", "parametrizations.weight.original1")
)
_RULES: tuple[tuple[Any, _Rules], ...] = (
    (nn.Linear, (("weight", "weight", {"transpose": True}), ("bias", "bias", {}))),
    (_CONVS, _plain("weight", "bias")),
    (nn.Embedding, _plain("weight")),
    (_INSTANCE_NORMS, (("weight", "scale", {}), ("bias", "bias", {}), (DROPPED, "", None))),
    (_INSTANCE_NORMS, tuple((name, "", _UNTRACKED) for name in ("running_mean", "running_var"))),
    (nn.LayerNorm, _shaped(weight="weight", bias="bias", gamma="weight", beta="bias")),
    (nn.GroupNorm, _plain("weight", "bias")),
    (nn.PReLU, (("weight", "_weight", {}),)),
    (nn.Bilinear, _plain("weight")),
    (nn.Bilinear, _shaped(bias="bias")),
    (nn.MultiHeadAttention, _attention),
    (_RNNS, _rnn),
    (_CELLS, _plain("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    (_BATCH_NORMS, (("running_mean", "_mean", {}), ("running_var", "_variance", {}), (DROPPED, "", None))),
    (_BATCH_NORMS, _plain("weight", "bias")),
)


def _add(pieces: dict[str, list[Piece]], key: str, target: str | None, how: Mapping[str, Any]) -> None:
    piece = None if target is None else Piece(target, **how)
    if piece is not None and piece not in pieces.setdefault(key, []):
        pieces[key].append(piece)


def _apply_layout(pieces: dict[str, list[Piece]], model: nn.Layer, layout: Mapping[Any, str]) -> None:
    transposed: dict[str, bool] = {}
    for selector, word in layout.items():
        if word not in LAYOUTS:
            raise ValueError("layout: " + _errors.unknown("layout", word, LAYOUTS))
        transposed.update(dict.fromkeys(select.select(model, selector, "layout"), word == "transposed"))
    for found in pieces.values():
        for place, piece in enumerate(found):
            if piece.target in transposed:
                found[place] = replace(piece, transpose=transposed[piece.target], undecided=False)
