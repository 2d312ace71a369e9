"""The layers of a model, bottom to top in order of execution, and their division into contiguous blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.param_attr import select

_LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True)
class Unit:
    """One layer that strategies do not split: its path, its weights' structured names, the layers that make it up."""

    name: str
    parameters: tuple[str, ...]
    layers: tuple[nn.Layer, ...] = ()


def find_units(model: nn.Layer, sample_input: Any = None, layers: Sequence[Any] | None = None) -> list[Unit]:
    """The units of a model, bottom first.

    Containers (LayerList, Sequential, a layer that only wraps them, a backbone that holds a stack of layers) are
    descended into. What stands inside a container is one unit: a transformer layer, a residual block, an LSTM, a
    Sequential of leaf layers. Other children of the model that own parameters are units, too. Parameters held by a
    descended-into layer itself (a class token, say) form a unit below its children. A parameter that several units
    use belongs to the lowest. The head is on top: auxiliary classifiers (with "aux" in their names, or GoogLeNet's)
    stand below it.

    Args:
        model: the model.
        sample_input: one input of the model, whose forward in eval mode traces the order of execution; None: the order
            of registration.
        layers: the units by hand, bottom first: each a selector or a list of them; together they cover every parameter.

    Raises:
        ValueError, TypeError: `layers` overlap, leave parameters out or are no list; the forward fails.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 4), nn.Linear(4, 2))
        >>> [unit.name for unit in find_units(model)]
        ['0', '1', '2']
    """
    model = _paddle.unwrap(model)
    if layers is not None:
        return _units_by_hand(model, layers)
    found = list(_expand(model, ""))
    if sample_input is not None:
        found = _in_order_of_execution(found, _first_calls(model, found, sample_input))
    return _main_head_last(model, _without_repeats(model, found))


@select.kind("head")
def find_head(model: nn.Layer, head: Any = None) -> list[str]:
    """The structured names of a model's head.

    Args:
        model: the model.
        head: selectors of its parameters: a layer, the name of one, a glob, a regex, a function (name, parameter) →
            bool, or a list. None means what `load_pretrained` has not filled, if it has filled something and not all;
            else the last layer that was registered, auxiliary classifiers apart (see `find_units`).

    Raises:
        ValueError: a selector matches nothing, or the model is a single layer.
        TypeError: not a selector.

    Example:
        >>> import paddle
        >>> find_head(paddle.vision.models.resnet18(num_classes=3))
        ['fc.weight', 'fc.bias']
    """
    weights = select.named_weights(model)
    if head is not None:
        chosen = select.select_all(model, head, "head")
        return [name for name in weights if name in chosen]
    loaded = set(select.loaded_names(model))
    if loaded and loaded != set(weights):
        return [name for name in weights if name not in loaded]
    units = find_units(model)
    if len(units) < 2:
        raise ValueError(f"the model is one layer, so its head is not clear; say head=… of {_errors.listing(weights)}")
    return list(units[-1].parameters)


@select.kind("first_block")
def _first_block(model: nn.Layer) -> tuple[str, ...]:
    return stack_of(model)[0].parameters


@select.kind("last_block")
def _last_block(model: nn.Layer) -> tuple[str, ...]:
    return stack_of(model)[-1].parameters


def stack_of(model: nn.Layer) -> list[Unit]:
    """The layers that a model is a stack of, bottom first: residual blocks, transformer layers, convolutions.

    They are the units (see `find_units`) below the head of the class that is most common among these, of several the
    one with the most weights; where no two are alike, all units below the head.

    Example:
        >>> [unit.name for unit in stack_of(paddle.vision.models.resnet18())][::7]
        ['layer1.0', 'layer4.1']
    """
    units = find_units(model)
    units = units[:-1] or units
    by_class: dict[Any, list[Unit]] = {}
    for unit in units:
        by_class.setdefault(tuple(type(layer) for layer in unit.layers), []).append(unit)
    stack = max(by_class.values(), key=lambda alike: (len(alike), sum(len(unit.parameters) for unit in alike)))
    return stack if len(stack) > 1 else units


def split(count: int, blocks: int) -> list[int]:
    """Block number of each of `count` layers, bottom first: contiguous blocks whose sizes differ by at most one.

    Block boundaries are where gradual unfreezing in as many epochs moves them: the top e blocks are the top
    ⌊count·e/blocks⌋ layers. With fewer layers than blocks each layer is a block.

    Example:
        >>> split(11, 3)
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
        >>> split(2, 3)
        [0, 1]
    """
    blocks = max(1, min(blocks, count))
    tops = [count * e // blocks for e in range(blocks + 1)]
    return [blocks - bisect_right(tops, above) for above in reversed(range(count))]


def _units_by_hand(model: nn.Layer, layers: Sequence[Any]) -> list[Unit]:
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a list of selectors, bottom first, not {_errors.shown(layers)}")
    units: list[Unit] = []
    taken: dict[str, int] = {}
    weights = select.named_weights(model)
    for index, selectors in enumerate(layers):
        names = select.select_all(model, selectors, f"layers[{index}]")
        clash = sorted(name for name in names if name in taken)
        if clash:
            raise ValueError(f"layers[{index}] and layers[{taken[clash[0]]}] both hold {clash}")
        taken.update(dict.fromkeys(names, index))
        ordered = tuple(name for name in weights if name in names)
        units.append(Unit(selectors if isinstance(selectors, str) else f"layers[{index}]", ordered))
    left_out = [name for name in weights if name not in taken]
    if left_out:
        raise ValueError(f"layers= leaves out {left_out}; every parameter needs a layer")
    return units


def _expand(layer: nn.Layer, path: str, in_container: bool = False) -> Iterable[Unit]:
    """The units of a layer that is descended into."""
    own = tuple(select.join(path, name) for name, _ in select.own_parameters(layer))
    if own:
        yield Unit(path, own)
    inside = in_container or _paddle.is_container(layer)
    for name, child in _children(layer).items():
        child_path = select.join(path, name)
        if _is_descended(child, inside):
            yield from _expand(child, child_path, inside)
        else:
            yield Unit(child_path, tuple(select.join(child_path, n) for n, _ in select.every_name(child)), (child,))


def _children(layer: nn.Layer) -> dict[str, nn.Layer]:
    """The children that have weights, themselves or below."""
    return {name: child for name, child in layer.named_children() if any(True for _ in select.every_name(child))}


def _is_descended(layer: nn.Layer, in_container: bool) -> bool:
    if in_container:
        is_sequence_of_leaves = isinstance(layer, nn.Sequential) and not any(map(_is_composite, layer.children()))
        return _paddle.is_container(layer) and not is_sequence_of_leaves
    return _paddle.is_container(layer) or _only_wraps_containers(layer) or _holds_stack(layer)


def _is_composite(layer: nn.Layer) -> bool:
    return any(True for _ in layer.children())


def _only_wraps_containers(layer: nn.Layer) -> bool:
    children = _children(layer).values()
    return (
        not any(True for _ in select.own_parameters(layer))
        and bool(children)
        and all(_paddle.is_container(child) or _only_wraps_containers(child) for child in children)
    )


def _holds_stack(layer: nn.Layer) -> bool:
    """A container of layers that are made of layers themselves, here or deeper: a backbone or an encoder."""
    return any(
        any(map(_is_composite, _children(held).values())) if _paddle.is_container(held) else _holds_stack(held)
        for held in _children(layer).values()
    )


def _first_calls(model: nn.Layer, units: Sequence[Unit], sample_input: Any) -> dict[int, int]:
    """id(layer) → rank of its first call in one forward that leaves no trace in the model or the RNG."""
    ranks: dict[int, int] = {}

    def note(layer: nn.Layer, _: Any) -> None:
        ranks.setdefault(id(layer), len(ranks))

    parts = {id(part): part for unit in units for part in unit.layers}
    hooks = [part.register_forward_pre_hook(note) for part in parts.values()]
    rng = paddle.get_rng_state()
    try:
        with _paddle.evaluating(model), paddle.no_grad():
            call(model, sample_input)
    except Exception as error:
        if _is_double(model, sample_input):
            raise
        raise ValueError(
            f"the forward of sample_input, which finds the order of the layers, failed: {error}\n"
            "Give an input as the model takes it (tensor, tuple of arguments or dict), or layers= by hand. If it came "
            "from a Dataset whose samples hold lists of numbers: make them arrays (np.array), or Paddle's batches take "
            "them apart."
        ) from error
    finally:
        paddle.set_rng_state(rng)
        for hook in hooks:
            hook.remove()
    return ranks


def split_batch(batch: Any) -> tuple[Any, Any]:
    """(inputs, label) of one batch: the last entry is the label, or the one called `labels` or `label`.

    Inputs come as one tensor, a tuple of positional, or a dict of keyword arguments. A batch that is a single tensor
    has no label.

    Raises:
        TypeError: the batch is one of texts.

    Example:
        >>> split_batch((1, 2, 3)), split_batch({"input_ids": 1, "labels": 2})
        (((1, 2), 3), ({'input_ids': 1}, 2))
    """
    if isinstance(batch, Mapping):
        key = next((key for key in _LABEL_KEYS if key in batch), None)
        return {name: value for name, value in batch.items() if name != key}, batch.get(key) if key else None
    if isinstance(batch, (list, tuple)):
        if any(isinstance(entry, str) for entry in batch):
            raise TypeError(
                f"a batch of texts, beginning with {batch[0]!r}: a model needs numbers, so the Dataset or its "
                "collate_fn has to turn texts into arrays of ids"
            )
        if len(batch) == 1:
            return batch[0], None
        inputs = tuple(batch[:-1])
        return (inputs[0] if len(inputs) == 1 else inputs), batch[-1]
    return batch, None


def only_inputs(batch: Any) -> Any:
    """The inputs of a batch that may come without labels: one entry is all input, more end in a label."""
    return split_batch(batch)[0]


def call(model: nn.Layer, inputs: Any) -> Any:
    """`model(inputs)`, with a tuple or list as positional and a dict as keyword arguments.

    Raises:
        TypeError: the forward failed on inputs in float64, which the model's weights are not.
    """
    try:
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
    except Exception as error:
        if _is_double(model, inputs):
            raise TypeError(
                "the inputs are float64, as numpy makes them, but the model's weights are not: make the arrays "
                "float32 in the Dataset, e.g. x.astype('float32')"
            ) from error
        raise


def _is_double(model: nn.Layer, inputs: Any) -> bool:
    """Whether inputs are float64 and the model has no weight that is."""
    given = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, (tuple, list)) else [inputs]
    return any(getattr(value, "dtype", None) == paddle.float64 for value in given) and not any(
        param.dtype == paddle.float64 for param in model.parameters()
    )


def _in_order_of_execution(units: list[Unit], ranks: dict[int, int]) -> list[Unit]:
    """Called units by rank; one that was never called as a layer stays right after the unit registered before it.

    A unit of parameters that a descended-into layer holds itself stays below the units registered after it.
    """
    first = [min((ranks[id(part)] for part in unit.layers if id(part) in ranks), default=None) for unit in units]
    keys, last = [], -1
    for position, unit in enumerate(units):
        if unit.layers:
            rank = first[position]
            last = last if rank is None else rank
            keys.append((last, int(rank is None), position))
        else:
            prefix = unit.name + "." if unit.name else ""
            following = zip(units[position + 1 :], first[position + 1 :])
            inside = [rank for other, rank in following if rank is not None and other.name.startswith(prefix)]
            keys.append((min(inside, default=-1), -1, position))
    return [units[position] for _, _, position in sorted(keys)]


def _main_head_last(model: nn.Layer, units: list[Unit]) -> list[Unit]:
    """The last unit that is no auxiliary classifier goes on top: it is the one that predictions come from."""

    def is_auxiliary(unit: Unit) -> bool:
        googlenet = isinstance(model, paddle.vision.models.GoogLeNet)
        return "aux" in unit.name or (googlenet and unit.name in _GOOGLENET_AUXILIARY)

    main = max((place for place, unit in enumerate(units) if not is_auxiliary(unit)), default=len(units) - 1)
    return [*units[:main], *units[main + 1 :], *units[main : main + 1]]


_GOOGLENET_AUXILIARY = ("_conv_o1", "_fc_o1", "_out1", "_conv_o2", "_fc_o2", "_out2")


def _without_repeats(model: nn.Layer, units: Sequence[Unit]) -> list[Unit]:
    canonical = select.structured_names(model)
    taken: set[str] = set()
    kept = []
    for unit in units:
        names = tuple(dict.fromkeys(canonical[name] for name in unit.parameters if canonical[name] not in taken))
        taken.update(names)
        if names:
            kept.append(Unit(unit.name or "(model)", names, unit.layers))
    return kept


def named_layers(what: str, params_layer: Mapping[str, int], model: Any) -> dict[str, int]:
    """A `params_layer` with its keys (structured or Paddle names) turned into structured names, and checked."""
    weights = select.named_weights(model)
    structured = select.structured_names(model)
    structured.update({param.name: name for name, param in weights.items()})
    for key in params_layer:
        if key not in structured:
            raise ValueError(f"{what}.params_layer: " + _errors.unknown("parameter", key, structured))
    return {structured[key]: number for key, number in params_layer.items()}
