"""Weights of several models made into one: interpolated with the pretrained ones, averaged as a soup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import layers
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import call, only_inputs
from paddle_ftstrat.transfer.contents import Contents, Entry
from paddle_ftstrat.transfer.files import open_contents
from paddle_ftstrat.transfer.targets import FLOATS, Target, find_targets, memory, put, values_in

_BLOCK = 1 << 16  # values that are worked on at a time, which stay in a processor's cache


@dataclass(frozen=True)
class Interpolation:
    """What `interpolate` has put into the model: the share of its own weights, and the score of each that was tried."""

    alpha: float
    scores: Mapping[float, float] = field(default_factory=dict)


class Soup(dict[str, np.ndarray]):
    """A state dict of numpy arrays that `soup` made; `load_pretrained` and `set_state_dict` take it.

    Attributes:
        taken: which of the given states are in it, by number.
        scores: the score of each state alone, by number; empty without `score`.
        score: the soup's own.
    """

    taken: list[int]
    scores: list[float]
    score: float | None


def interpolate(
    model: nn.Layer,
    pretrained: Any,
    alpha: float | None = None,
    *,
    alphas: Sequence[float] | None = None,
    score: Callable[[nn.Layer], float] | None = None,
    keep: Any = None,
) -> Interpolation:
    """WiSE-FT: put (1 − α)·w_pretrained + α·w into a fine-tuned model, statistics of BatchNorm among them.

    The file is read tensor by tensor; beside the model there is one of them in memory, with `alphas` also a copy of the
    fine-tuned weights. Where a model has BatchNorm, `update_statistics` on data makes the statistics true ones.

    Args:
        model: the fine-tuned model, changed in place.
        pretrained: file, folder or dict with the pretrained weights under the model's names, as for `load_pretrained`.
        alpha: α in [0, 1]; 1 keeps the fine-tuned weights, 0 gives the pretrained ones. Where nothing can be scored,
            0.5, as the paper does.
        alphas: several, of which the one with the highest score is left in the model; needs `score`.
        score: function of the model with one α in it, higher is better.
        keep: selectors of weights that stay as they are, such as a new head.

    Raises:
        ValueError: neither or both of `alpha` and `alphas`, one out of range, weights that the file lacks or has in
            another shape, a file in torch's layout; the model is unchanged then.
        TypeError, FileNotFoundError: as for `load_pretrained`.

    Example:
        >>> model = nn.Linear(2, 1, weight_attr=nn.initializer.Constant(4.0))
        >>> pretrained = {"weight": paddle.zeros([2, 1]), "bias": paddle.zeros([1])}
        >>> interpolate(model, pretrained, alphas=[0.0, 0.25, 1.0], score=lambda m: -(m.weight.sum().item() - 2.5) ** 2)
        Interpolation(alpha=0.25, scores={0.0: -6.25, 0.25: -0.25, 1.0: -30.25})
        >>> model.weight.tolist()
        [[1.0], [1.0]]

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (arXiv:2109.01903, section 4).
    """
    if (alpha is None) == (alphas is None) or (alphas is None) != (score is None):
        raise ValueError("interpolate wants alpha, or alphas together with score")
    asked = [alpha] if alphas is None else alphas
    tried = [_errors.check_number("alpha", one, minimum=0, maximum=1) for one in asked]
    if not tried:
        raise ValueError("alphas is empty: give at least one number in [0, 1]")
    kept = set() if keep is None else select.select_all(model, keep, "keep")
    contents = open_contents(pretrained)
    targets = [one for one in find_targets(model).values() if one.name not in kept and one.dtype in FLOATS]
    found = [(target, _entry(contents, target)) for target in targets]
    if score is None:
        for target, entry in found:
            _mix(target, entry, tried[0])
        return Interpolation(tried[0])
    own = [target.tensor.detach().clone() for target, _ in found]

    def set_to(share: float) -> None:
        for (target, entry), value in zip(found, own):
            paddle.assign(value, output=target.tensor)
            _mix(target, entry, share)

    scores = {}
    try:
        with paddle.no_grad():
            for share in tried:
                set_to(share)
                scores[share] = float(score(model))
    except BaseException:
        set_to(1.0)
        raise
    best = max(scores, key=lambda share: (scores[share] == scores[share], scores[share]))
    set_to(best)
    return Interpolation(best, scores)


def soup(
    states: Sequence[Any], weights: Sequence[float] | None = None, score: Callable[[Soup], float] | None = None
) -> Soup:
    """A model soup: the mean of models' weights, or of those that make it better.

    Without `score` all of them: Σ weightᵢ·wᵢ/Σ weightᵢ. With it greedily: from the best one on, in order of their own
    scores, each that does not make the soup's score worse is taken in. Files are read tensor by tensor, so that at most
    two models and one tensor are in memory beside what `score` needs. Arrays that are no floats are those of the first.
    The soup is in float32 where the states are half precision, and knows what is in it.

    Args:
        states: files or folders as for `load_pretrained`, or state dicts, of models of the same shape.
        weights: a number ≥ 0 for each; None: all the same.
        score: function of a state dict, higher is better.

    Raises:
        ValueError: no states, other names or shapes in one of them, or weights together with `score`.
        TypeError, FileNotFoundError: as for `load_pretrained`.

    Example:
        >>> states = [{"w": paddle.to_tensor([value])} for value in (0.0, 1.0, 5.0)]
        >>> soup(states)["w"].item()
        2.0
        >>> found = soup(states, score=lambda state: -abs(state["w"].item() - 0.6))
        >>> found["w"].item(), found.taken
        (0.5, [1, 0])

    Source: Wortsman et al., "Model soups" (arXiv:2203.05482, recipe 1).
    """
    opened = [open_contents(state) for state in states]
    if not opened:
        raise ValueError("soup wants at least one state")
    for number, contents in enumerate(opened[1:], 1):
        _check_alike(opened[0], contents, number)
    if score is None:
        made: dict[str, np.ndarray] = {}
        for contents, share in zip(opened, _shares(weights, len(opened))):
            _add(made, contents, share)
        return _finished(made, list(range(len(opened))))
    if weights is not None:
        raise ValueError("soup takes weights, or a score by which it chooses, not both")
    scores = [float(score(_finished(_add({}, contents, 1.0), [number]))) for number, contents in enumerate(opened)]
    order = sorted(range(len(opened)), key=lambda number: (scores[number] != scores[number], -scores[number]))
    made, taken, best = _add({}, opened[order[0]], 1.0), order[:1], scores[order[0]]
    for number in order[1:]:
        share = 1 / (len(taken) + 1)
        kept = np.float32(1 - share)
        tried = {name: value * kept if value.dtype.kind == "f" else value for name, value in made.items()}
        found = float(score(_finished(_add(tried, opened[number], share), [*taken, number])))
        if found >= best:
            made, taken, best = tried, [*taken, number], found
        del tried  # a third model, while the next is made
    return _finished(made, taken, scores, best)


def update_statistics(model: nn.Layer, loader: Iterable[Any]) -> None:
    """Gather the running statistics of BatchNorm layers anew: the plain mean of those of each batch.

    Averaged and interpolated weights need this: the statistics that the model has are those of other weights. All other
    layers run in eval mode, so that nothing drops out; statistics that were frozen stay. Several processes take the
    mean over all of them.

    Args:
        model: the model.
        loader: batches as for a Learner; their labels are left out.

    Example:
        >>> model = nn.BatchNorm1D(1)
        >>> update_statistics(model, [paddle.to_tensor([[1.0], [3.0]]), paddle.to_tensor([[3.0], [5.0]])])
        >>> model._mean.tolist()
        [3.0]

    Source: Izmailov et al. (arXiv:1803.05407, section 3.2); torch's `swa_utils.update_bn`, in which dropout acts.
    """
    model = _paddle.unwrap(model)
    layers.estimate_statistics(model, lambda batch: call(model, only_inputs(batch)), loader)


def _entry(contents: Contents, target: Target) -> Entry:
    """What a file has for a tensor of the model."""
    if contents.layout == "torch":
        raise ValueError(
            f"{contents.label} is in torch's layout: load_pretrained it into a second model, and give its state_dict()"
        )
    entry = next((contents.entries[name] for name in target.aliases if name in contents.entries), None)
    if entry is None:
        raise ValueError(
            f"{contents.label} has no {target.name!r}: give weights of the whole model, or leave it as it is with keep="
        )
    if entry.shape != target.shape:
        raise ValueError(
            f"{target.name!r} has shape {entry.shape} in {contents.label}, not {target.shape}: leave it with keep="
        )
    return entry


def _mix(target: Target, entry: Entry, alpha: float) -> None:
    """w ← (1 − α)·(the file's) + α·w, in place."""
    other = entry.read()
    view = memory(target.tensor, target.dtype) if target.dtype == entry.dtype == "float32" else None
    if view is not None and other.flags.c_contiguous:
        flat, given = view.reshape(-1), other.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK]
            part *= np.float32(alpha)
            part += given[start : start + _BLOCK] * np.float32(1 - alpha)
        entry.release()
    else:
        own = target.tensor.astype("float32").numpy()
        mixed = own * np.float32(alpha) + values_in(other, entry.dtype, "float32") * np.float32(1 - alpha)
        put(target, mixed, "float32", entry.release)


def _check_alike(first: Contents, other: Contents, number: int) -> None:
    if set(first.entries) != set(other.entries):
        apart = sorted(set(first.entries) ^ set(other.entries))
        raise ValueError(f"states[{number}] and states[0] differ in {_errors.listing(apart)}")
    for name, entry in first.entries.items():
        shape = other.entries[name].shape
        if shape != entry.shape:
            raise ValueError(f"{name!r} has shape {shape} in states[{number}], {entry.shape} in states[0]")


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    given = [_errors.check_number(f"weights[{number}]", weight, minimum=0) for number, weight in enumerate(weights)]
    if len(given) != count or not sum(given):
        raise ValueError(f"weights {_errors.shown(weights)}: one for each of the {count} states, not all of them 0")
    return [weight / sum(given) for weight in given]


def _add(made: dict[str, np.ndarray], contents: Contents, share: float) -> dict[str, np.ndarray]:
    """Add the arrays of a file times a number, in float32 or float64; of what are no floats those of the first stay."""
    for name, entry in contents.entries.items():
        if entry.dtype in FLOATS:
            wide = "float64" if entry.dtype == "float64" else "float32"
            value = values_in(entry.read(), entry.dtype, wide) * np.float32(share)
            if name in made:
                made[name] += value
            else:
                made[name] = value
        elif name not in made:
            made[name] = np.array(entry.read())
        entry.release()
    return made


def _finished(
    made: Mapping[str, np.ndarray], taken: list[int], scores: Sequence[float] = (), score: float | None = None
) -> Soup:
    state = Soup(made)
    state.taken, state.scores, state.score = taken, list(scores), score
    return state
