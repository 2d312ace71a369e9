"""From a plan and a model to what holds for each parameter. Nothing is changed here."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import paddle

from paddle_ftstrat import _compat, _errors
from paddle_ftstrat.optim.regularizer import L2Decay, L2SPDecay, anchor_of
from paddle_ftstrat.param_attr import depth, select, settings
from paddle_ftstrat.param_attr.settings import ParamSettings
from paddle_ftstrat.plan import Discriminative, GradualUnfreeze, Plan
from paddle_ftstrat.transfer.report import LoadReport, loaded_names


@dataclass(frozen=True)
class Depth:
    """Where a parameter stands: its block (0 is the bottom), its LR factor, the epoch (from 1) it trains from."""

    block: int
    factor: float
    first_epoch: int


@dataclass(frozen=True)
class Resolved:
    """What a plan means for one parameter. `settings` hold once it trains, `own` are the user's.

    `decayed` tells whether weight decay, if there is any, applies to it.
    """

    name: str
    param: Any
    own: ParamSettings
    depth: Depth
    settings: ParamSettings
    regularizer_from: str
    decayed: bool

    def with_factor(self, factor: float) -> Resolved:
        """The same with another factor in the LR."""
        put = replace(self.settings, learning_rate=self.own.learning_rate * factor)
        return replace(self, depth=replace(self.depth, factor=factor), settings=put)

    def in_epoch(self, epoch: int, held: Collection[str] = ()) -> ParamSettings:
        """What is wanted in an epoch, counted from 1: frozen before `first_epoch`, and where the name is held."""
        return replace(self.settings, trainable=epoch >= self.depth.first_epoch and self.name not in held)


def resolve(
    plan: Plan,
    weights: Mapping[str, Any],
    depths: Mapping[str, Depth],
    pretrained: Collection[str],
    no_decay: Collection[str],
) -> list[Resolved]:
    """Section by section of the precedence rules, for each parameter.

    The user's ParamAttr regularizer beats L2SP (pretrained parameters), which beats L2; it also switches off decoupled
    decay. The user's LR multiplier multiplies the depth factor.

    Args:
        plan: the plan.
        weights: structured name → parameter.
        depths: structured name → Depth.
        pretrained: names that L2SP anchors.
        no_decay: names that decoupled decay skips.
    """
    l2 = L2Decay(plan.l2) if plan.l2 else None
    rows = []
    for name, param in weights.items():
        own = settings.own(param)
        regularizer, source = own.regularizer, "ParamAttr"
        if regularizer is None:
            source = "strategy"
            if plan.l2sp and name in pretrained:
                # A parameter that the user froze does not move, so it needs no copy of its value until it is thawed.
                regularizer = L2SPDecay(plan.l2sp, anchor_of(param) if own.trainable else None)
            else:
                regularizer = l2
        decayed = own.regularizer is None and name not in no_decay
        put = ParamSettings(own.learning_rate * depths[name].factor, regularizer, own.trainable, own.need_clip)
        rows.append(
            Resolved(
                name,
                param,
                own,
                depths[name],
                put,
                regularizer_from=source if regularizer is not None else "",
                decayed=decayed,
            )
        )
    return rows


def resolve_depths(plan: Plan, model: Any, units: Sequence[depth.Unit]) -> dict[str, Depth]:
    """Block, LR factor and first training epoch of each parameter, from the plan's two ways to say it."""
    levels, factors = _discriminative(plan.discriminative, model, units)
    epochs = _first_epochs(plan.gradual_unfreeze, model, units)
    if plan.discriminative is None and plan.gradual_unfreeze is None:
        keys = {name: (number,) for number, unit in enumerate(units) for name in unit.parameters}
    else:
        keys = {name: (levels[name], -epochs[name]) for unit in units for name in unit.parameters}
    numbers = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return {name: Depth(numbers[key], factors[name], epochs[name]) for name, key in keys.items()}


def refuse_wrapped(model: Any) -> None:
    """Refuse to change what trains in a model that `paddle.DataParallel` holds in several processes.

    Raises:
        ValueError: the model, or a layer of it, is wrapped.
    """
    if paddle.distributed.get_world_size() > 1 and _compat.is_wrapped(model):
        raise ValueError(
            "what trains changes here (gradual_unfreeze, or layers held), but paddle.DataParallel settled at wrapping "
            "which gradients it exchanges: the processes would drift apart without an error. Bind the model without "
            "the wrapper and call paddle.distributed.fleet.utils.hybrid_parallel_util.fused_allreduce_gradients([p for "
            "p in model.parameters() if not p.stop_gradient], None) before each update, or use a Learner or a task"
        )


def resolve_pretrained(plan: Plan, model: Any, pretrained: Any) -> Collection[str]:
    """The names that L2SP anchors, from selectors, a state dict or a LoadReport.

    Without either: what `load_pretrained` has filled; if that is nothing, all of them, with a warning.
    """
    if not plan.l2sp:
        if pretrained is not None:
            warnings.warn("pretrained= only matters to L2SP, which this strategy does not use", stacklevel=4)
        return ()
    if isinstance(pretrained, LoadReport):
        pretrained = pretrained.weights
    if pretrained is None:
        loaded = loaded_names(model)
        if loaded:
            return loaded
        warnings.warn(
            "L2SP without pretrained=: every parameter, a new head too, is pulled back to its value of now; "
            "name the pretrained ones, or pretrained='*' for all",
            stacklevel=4,
        )
        return select.named_weights(model)
    if isinstance(pretrained, Mapping):
        known = {alias: name for name, aliases in select.all_names(model).items() for alias in aliases}
        found = {known[key] for key in pretrained if key in known}
        if not found:
            raise ValueError("pretrained: none of its keys is a parameter of the model, " + _errors.listing(pretrained))
        return found
    if isinstance(pretrained, (list, tuple, set)):
        # Names of loaded entries may include buffers and running statistics, which L2SP has nothing to do with.
        others = {*select.statistics(model), *(name for name, _ in _compat.unwrap(model).named_buffers())}
        pretrained = [entry for entry in pretrained if not (isinstance(entry, str) and entry in others)]
    return _selected(model, pretrained, "pretrained")


def resolve_no_decay(model: Any, no_decay: Any) -> Collection[str]:
    """The names that weight decay skips: None stands for biases and normalisation layers, `[]` for none."""
    return select.norm_or_bias(model) if no_decay is None else _selected(model, no_decay, "no_decay")


def named_layers(what: str, params_layer: Mapping[str, int], model: Any) -> dict[str, int]:
    """A `params_layer` with its keys (structured or Paddle names) turned into structured names, and checked."""
    weights = select.named_weights(model)
    structured = {alias: name for name, aliases in select.all_names(model).items() for alias in aliases}
    structured.update({param.name: name for name, param in weights.items()})
    for key in params_layer:
        if key not in structured:
            raise ValueError(f"{what}.params_layer: " + _errors.unknown("parameter", key, structured))
    return {structured[key]: number for key, number in params_layer.items()}


def _discriminative(
    spec: Discriminative | None, model: Any, units: Sequence[depth.Unit]
) -> tuple[dict[str, int], dict[str, float]]:
    names = [name for unit in units for name in unit.parameters]
    if spec is None:
        return dict.fromkeys(names, 0), dict.fromkeys(names, 1.0)
    if spec.params_layer:
        given = named_layers("discriminative", spec.params_layer, model)
        top = max(given.values())
        levels = {name: given.get(name, top) for name in names}
    else:
        numbers = _block_numbers("discriminative", spec.blocks, len(units))
        levels = {name: numbers[index] for index, unit in enumerate(units) for name in unit.parameters}
        top = numbers[-1]
    return levels, {name: spec.factor ** -(top - level) for name, level in levels.items()}


def _first_epochs(spec: GradualUnfreeze | None, model: Any, units: Sequence[depth.Unit]) -> dict[str, int]:
    names = [name for unit in units for name in unit.parameters]
    if spec is None:
        return dict.fromkeys(names, 1)
    if spec.params_layer:
        given = named_layers("gradual_unfreeze", spec.params_layer, model)
        top = max(given.values())
        return {name: top - given.get(name, top) + 1 for name in names}
    numbers = _block_numbers("gradual_unfreeze", spec.blocks, len(units))
    return {name: numbers[-1] - numbers[index] + 1 for index, unit in enumerate(units) for name in unit.parameters}


def _block_numbers(key: str, blocks: int | None, layers: int) -> list[int]:
    if blocks is None:
        return list(range(layers))
    if blocks > layers:
        warnings.warn(f"{key}: {blocks} blocks, but the model has {layers} layers; each layer is a block", stacklevel=6)
    return depth.split(layers, blocks)


def _selected(model: Any, selectors: Any, what: str) -> set[str]:
    return set() if not isinstance(selectors, str) and not selectors else select.select_all(model, selectors, what)
