"""Which parameters a model has, and which of them a pattern means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Union

from paddle import nn

from paddle_ftstrat import _errors, _paddle

Selector = Union[str, "re.Pattern[str]", Callable[[str, Any], bool], nn.Layer]
# Word → a function (model) → the names of the parameters that it means, wherever nothing in the model is called so.
KINDS: dict[str, Callable[[nn.Layer], Iterable[str]]] = {}
_LOADED = "_ftstrat_loaded"


def kind(word: str) -> Callable[[Any], Any]:
    """Have a word select what the decorated function (model) → names gives."""

    def entered(function: Any) -> Any:
        KINDS[word] = function
        return function

    return entered


def kinds(model: nn.Layer) -> dict[str, list[str]]:
    """The words that select parameters by what they are, and the structured names that each means in a model.

    `bias`: all biases, those of normalisation layers too (BitFit, Ben Zaken et al., arXiv:2106.10199); `norm`: the
    parameters of normalisation layers; `head`: see `transfer.find_head`; `first_block`, `last_block`: the lowest and
    the highest layer of the stack, see `param_attr.depth.stack_of`.

    Example:
        >>> import paddle
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.LayerNorm(3), paddle.nn.Linear(3, 1))
        >>> kinds(model)["bias"], kinds(model)["norm"]
        (['0.bias', '1.bias', '2.bias'], ['1.weight', '1.bias'])
    """
    found: dict[str, list[str]] = {word: [] for word in KINDS}
    for word, names in KINDS.items():
        with contextlib.suppress(ValueError):  # a model of one layer has no head
            chosen = set(names(model))
            found[word] = [name for name in named_weights(model) if name in chosen]
    return found


def named_weights(model: nn.Layer) -> dict[str, Any]:
    """Every parameter of a model once, by structured name, in order of registration.

    BatchNorm's running statistics, which Paddle keeps among the parameters, are left out: they are not weights.
    A parameter that several layers share stands under its first name. `paddle.DataParallel` is looked through.

    Example:
        >>> import paddle
        >>> list(named_weights(paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))))
        ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    found: dict[int, tuple[str, Any]] = {}
    for name, param in every_name(_paddle.unwrap(model)):
        found.setdefault(id(param), (name, param))
    return dict(found.values())


def all_names(model: nn.Layer) -> dict[str, list[str]]:
    """Structured name of each weight → every structured name it has, the first being the key itself."""
    names: dict[int, list[str]] = {}
    for name, param in every_name(_paddle.unwrap(model)):
        names.setdefault(id(param), []).append(name)
    return {aliases[0]: aliases for aliases in names.values()}


def structured_names(model: nn.Layer) -> dict[str, str]:
    """Every structured name of each weight → its first one."""
    return {alias: name for name, aliases in all_names(model).items() for alias in aliases}


def statistics(model: nn.Layer) -> dict[str, Any]:
    """The running statistics of a model's normalisation layers, by structured name."""
    return {
        join(prefix, name): getattr(layer, name)
        for prefix, layer in every_layer(_paddle.unwrap(model))
        for name in _paddle.statistic_names(layer)
    }


def norm_or_bias(model: nn.Layer) -> set[str]:
    """Names of the biases and of the parameters of normalisation layers: what weight decay skips by default.

    Source: PaddleHub 1.8 `AdamWeightDecayStrategy` (its test by name suffix; here by layer type).
    """
    return {*_biases(model), *_norms(model)}


@kind("bias")
def _biases(model: nn.Layer) -> set[str]:
    def is_bias(layer: nn.Layer, name: str) -> bool:
        return name == "bias" or name.startswith(("bias_", "b_")) or name.endswith(("_bias", ".b_0"))

    return _names_where(model, is_bias)


@kind("norm")
def _norms(model: nn.Layer) -> set[str]:
    return _names_where(model, lambda layer, name: _paddle.is_norm(layer))


def _names_where(model: nn.Layer, test: Callable[[nn.Layer, str], bool]) -> set[str]:
    """The parameters of which a layer that holds them, and their name there, pass a test."""
    ids = {
        id(param)
        for _, layer in every_layer(_paddle.unwrap(model))
        for name, param in own_parameters(layer)
        if test(layer, name)
    }
    return {name for name, param in named_weights(model).items() if id(param) in ids}


def select(model: nn.Layer, selector: Selector, what: str = "pattern") -> list[str]:
    """The structured names that a selector means.

    Args:
        model: the model.
        selector: a glob over structured names or the exact name of a sublayer (`"encoder.*"`, `"head"`); a compiled
            regex (fullmatch); a function (name, parameter) → bool; a layer of the model; or a word for a kind
            (`"bias"`, `"norm"`, `"head"`, `"first_block"`, `"last_block"`, see `kinds`), unless something in the model
            is called so.
        what: how to call the selector in an error.

    Raises:
        ValueError: nothing matches, or the layer is not part of the model.
        TypeError: the selector is none of these.

    Example:
        >>> import paddle
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.Linear(3, 1))
        >>> select(model, "*.bias")
        ['0.bias', '1.bias']
        >>> select(model, model[1])
        ['1.weight', '1.bias']
        >>> select(model, "bias")
        ['0.bias', '1.bias']
    """
    weights, aliases = named_weights(model), all_names(model)
    if isinstance(selector, nn.Layer):
        inside = {id(param) for _, param in every_name(selector)}
        matched = [name for name, param in weights.items() if id(param) in inside]
    else:
        matched = [name for name, param in weights.items() if means(selector, aliases[name], (name, param), what)]
        if isinstance(selector, str) and selector in KINDS:
            matched = _of_kind(model, selector, matched, what)
    if matched:
        return matched
    if isinstance(selector, str):
        options = {*KINDS, *weights, *(prefix for prefix, _ in every_layer(_paddle.unwrap(model)) if prefix)}
        raise ValueError(f"{what} matches no parameter. " + _errors.unknown("name or glob", selector, sorted(options)))
    raise ValueError(f"{what} {selector!r} matches no parameter of the model; it has {_errors.listing(weights)}")


def _of_kind(model: nn.Layer, word: str, named: list[str], what: str) -> list[str]:
    """What a word means: what the model calls so, with a warning where that is not all of the kind; else the kind."""
    chosen = set(KINDS[word](model)) if word in ("bias", "norm") or not named else set()
    if not named:
        return [name for name in named_weights(model) if name in chosen]
    others = len(chosen - set(named))
    if others:
        _errors.warn(
            f"{what}: {word!r} is the name of {_errors.listing(named, 4)} in this model and leaves out {others} others "
            f"of that kind: say param_attr.kinds(model)[{word!r}] for all, or names or globs for these"
        )
    return named


def means(selector: Any, names: Iterable[str], arguments: Sequence[Any], what: str = "pattern") -> bool:
    """Whether a selector means something that goes by these names; a function is asked with the arguments.

    Raises:
        TypeError: neither a glob (or the name of a layer around it), nor a compiled regex (fullmatch), nor a function.
    """
    if isinstance(selector, str):
        return any(fnmatchcase(name, selector) or name.startswith(selector + ".") for name in names)
    if isinstance(selector, re.Pattern):
        return any(selector.fullmatch(name) for name in names)
    if callable(selector):
        return bool(selector(*arguments))
    raise TypeError(
        f"{what} must be a glob, a compiled regex, a function (name, parameter) → bool or a layer, not {selector!r}"
    )


def select_all(model: nn.Layer, selectors: Any, what: str = "pattern") -> set[str]:
    """The union of what one selector or several (a list, tuple or set) mean."""
    return {name for selector in as_list(selectors, what) for name in select(model, selector, what)}


def as_list(selectors: Any, what: str = "pattern") -> list[Any]:
    """One selector or several as a list."""
    if isinstance(selectors, (str, re.Pattern)) or callable(selectors):
        return [selectors]
    if not isinstance(selectors, Iterable):
        raise TypeError(f"{what} must be a glob, a compiled regex, a function, a layer or a list of these")
    return list(selectors)


def every_layer(model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
    """Each path to each layer; a layer that is registered twice comes under both names."""
    stack = [("", model)]
    while stack:
        prefix, layer = stack.pop()
        yield prefix, layer
        children = [(join(prefix, name), child) for name, child in layer._sub_layers.items() if child is not None]
        stack.extend(reversed(children))


def every_name(model: nn.Layer) -> Iterator[tuple[str, Any]]:
    """(structured name, weight) for each name that a weight has."""
    for prefix, layer in every_layer(model):
        for name, param in own_parameters(layer):
            yield join(prefix, name), param


def own_parameters(layer: nn.Layer) -> Iterator[tuple[str, Any]]:
    """(attribute name, parameter) of the weights a layer holds itself, its statistics left out."""
    skipped = _paddle.statistic_names(layer)
    for name, param in layer._parameters.items():
        if param is not None and name not in skipped:
            yield name, param


def join(prefix: str, name: str) -> str:
    """`prefix.name`, or just `name` at the top."""
    return f"{prefix}.{name}" if prefix else name


def remember_loaded(model: nn.Layer, names: Sequence[str]) -> None:
    """Write down in a model which of its weights were loaded; a copy of the model keeps that."""
    model = _paddle.unwrap(model)
    model.__dict__[_LOADED] = frozenset(model.__dict__.get(_LOADED, ())) | set(names)


def forget_loaded(model: nn.Layer, names: Collection[str]) -> None:
    """Take back that these weights of a model were loaded."""
    model = _paddle.unwrap(model)
    for path, layer in every_layer(model):
        if _LOADED in layer.__dict__:
            layer.__dict__[_LOADED] = {name for name in layer.__dict__[_LOADED] if join(path, name) not in names}


def loaded_names(model: nn.Layer) -> list[str]:
    """The weights of a model that `load_pretrained` has filled, in it or in one of its layers, by structured name.

    Example:
        >>> import paddle, paddle_ftstrat.transfer as transfer
        >>> backbone = paddle.nn.Linear(2, 2)
        >>> _ = transfer.load_pretrained(backbone, {"weight": paddle.ones([2, 2]), "bias": paddle.ones([2])})
        >>> loaded_names(paddle.nn.Sequential(backbone, paddle.nn.Linear(2, 1)))
        ['0.weight', '0.bias']
    """
    model = _paddle.unwrap(model)
    layers = every_layer(model)
    noted = {join(path, name) for path, layer in layers for name in layer.__dict__.get(_LOADED, ())}
    return [name for name, aliases in all_names(model).items() if not noted.isdisjoint(aliases)]
