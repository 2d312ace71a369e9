"""From a plan and a model to what holds for each parameter, and how that is told. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import fused
from paddle_ftstrat.optim.build import Decay
from paddle_ftstrat.optim.custom import CustomOptimizer
from paddle_ftstrat.optim.regularizer import EWCDecay, L2Decay, L2SPDecay, anchor_of
from paddle_ftstrat.param_attr import depth, description, select, settings
from paddle_ftstrat.param_attr.settings import ParamSettings
from paddle_ftstrat.plan import Discriminative, Plan, Spread, Top, spread
from paddle_ftstrat.transfer.report import LoadReport


@dataclass(frozen=True)
class Depth:
    """Where a parameter stands: its block (0 is the bottom), its LR factor, and whether it trains in each phase.

    `first_epoch` is the epoch (from 1) that it trains from, 0 for never.
    """

    block: int
    factor: float
    trains: tuple[bool, ...]
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

    def at(self, where: Depth) -> Resolved:
        """The same at another depth, with its factor in the LR."""
        put = replace(self.settings, learning_rate=self.own.learning_rate * where.factor)
        return replace(self, depth=where, settings=put)

    def in_phase(self, phase: int) -> ParamSettings:
        """What the plan wants in a phase, counted from 0."""
        return replace(self.settings, trainable=self.depth.trains[phase])


def check_model(model: Any) -> dict[str, Any]:
    """The weights of a model that can be bound, by structured name.

    Raises:
        ValueError, TypeError: it is no layer, or has no parameters.
        RuntimeError: Paddle is in static mode.
    """
    if not paddle.in_dynamic_mode():
        raise RuntimeError(
            "strategies train in dynamic mode, but Paddle is in static mode: call paddle.disable_static()"
        )
    _paddle.check_layer(model)
    weights = select.named_weights(model)
    if not weights:
        raise ValueError("the model has no parameters to train")
    return weights


def resolve(
    plan: Plan,
    weights: Mapping[str, Any],
    depths: Mapping[str, Depth],
    anchored: Mapping[str, Any],
    no_decay: Collection[str],
) -> list[Resolved]:
    """Section by section of the precedence rules, for each parameter.

    The user's ParamAttr regularizer beats EWC (parameters with a Fisher information), which beats L2SP (pretrained
    ones), which beats L2; it also switches off decoupled decay. The user's LR multiplier multiplies the depth factor.
    Everything is by structured name; `anchored` is what `resolve_anchors` gives, decoupled decay skips `no_decay`.
    """
    l2 = L2Decay(plan.l2) if plan.l2 else None
    rows = []
    for name, param in weights.items():
        own = settings.own(param)
        regularizer, source = own.regularizer, "ParamAttr"
        if regularizer is None:
            source = "strategy"
            if name in anchored:
                # A parameter that the user froze does not move, so it needs no copy of its value until it is thawed.
                anchor, fisher = anchor_of(param) if own.trainable else None, anchored[name]
                regularizer = L2SPDecay(plan.l2sp, anchor) if fisher is None else EWCDecay(plan.ewc, fisher, anchor)
            else:
                regularizer = l2
        decayed = own.regularizer is None and name not in no_decay
        put = ParamSettings(own.learning_rate * depths[name].factor, regularizer, own.trainable, own.need_clip)
        source = source if regularizer is not None else ""
        rows.append(Resolved(name, param, own, depths[name], put, source, decayed))
    return rows


def resolve_depths(
    plan: Plan, model: Any, units: Sequence[depth.Unit], steps_per_epoch: int | None = None
) -> dict[str, Depth]:
    """Block, LR factor and trainable phases of each parameter.

    A block is a layer, unless discriminative LRs or phases join several: then parameters of one factor that train in
    the same phases are one.
    """
    if plan.starts is None and plan.first_epochs is None:
        endless = [i + 1 for i, one in enumerate(plan.phases[:-1]) if not (one.is_open and one.until)]
        if endless:
            raise ValueError(
                f"the ends of phases {endless} are unknown without the length of the training: give bind() "
                "steps_per_epoch and num_epoch or max_train_steps"
            )
    levels, factors = _factors(plan.depth, model, units)
    phases = [_trained(phase.train, index, model, units) for index, phase in enumerate(plan.phases)]
    trains = {name: tuple(name in names for names in phases) for name in levels}
    if plan.depth is None and plan.thaws:
        levels = dict.fromkeys(levels, 0)
    # What thaws later stands lower.
    keys = {
        name: (levels[name], -in_phases.index(True) if any(in_phases) else -len(phases), in_phases)
        for name, in_phases in trains.items()
    }
    numbers = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    epochs = [*first_epochs(plan, steps_per_epoch), 0]
    firsts = {name: epochs[in_phases.index(True) if any(in_phases) else -1] for name, in_phases in trains.items()}
    return {name: Depth(numbers[keys[name]], factors[name], trains[name], firsts[name]) for name in levels}


def first_epochs(plan: Plan, steps_per_epoch: int | None) -> Sequence[int]:
    """The epoch, from 1, in which each phase begins, as well as that is known."""
    if plan.first_epochs is not None:
        return plan.first_epochs
    if plan.starts is None or steps_per_epoch is None:
        return [1] * len(plan.phases)
    return [1 + start // steps_per_epoch for start in plan.starts]


def changes(rows: Sequence[Resolved], phase: int, model: Any) -> bool:
    """Whether other parameters train in a phase than now.

    Raises:
        ValueError: they do, in a model that `paddle.DataParallel` holds in several processes.
    """
    trains = [row.in_phase(phase).trainable and settings.own(row.param).trainable for row in rows]
    changed = trains != [not row.param.stop_gradient for row in rows]
    if changed:
        refuse_wrapped(model)
    return changed


def refuse_wrapped(model: Any) -> None:
    """Refuse to change what trains in a model that `paddle.DataParallel` holds in several processes.

    Raises:
        ValueError: the model, or a layer of it, is wrapped.
    """
    if paddle.distributed.get_world_size() > 1 and _paddle.is_wrapped(model):
        raise ValueError(
            "what trains changes here (gradual_unfreeze, or layers held), but paddle.DataParallel settled at wrapping "
            "which gradients it exchanges: the processes would drift apart without an error. Bind the model without "
            "the wrapper and call paddle.distributed.fleet.utils.hybrid_parallel_util.fused_allreduce_gradients([p for "
            "p in model.parameters() if not p.stop_gradient], None) before each update, or use a Learner or a task"
        )


def resolve_anchors(plan: Plan, model: Any, pretrained: Any, fisher: Any) -> dict[str, Any]:
    """The parameters that are pulled back to their value, by name: their Fisher information for EWC, None for L2SP.

    Raises:
        ValueError, TypeError: EWC without `fisher`, or one that is not of this model; what is pretrained is unclear.
    """
    anchored: dict[str, Any] = dict.fromkeys(resolve_pretrained(plan, model, pretrained))
    if not plan.ewc:
        if fisher is not None:
            _errors.warn("fisher= only matters to EWC, which this strategy does not use")
        return anchored
    if not isinstance(fisher, Mapping):
        raise (ValueError if fisher is None else TypeError)(
            "EWC needs bind(fisher={parameter name: how much each of its values matters}), as hub.fisher(model, "
            f"loader) measures it on what is not to be forgotten; not {_errors.shown(fisher)}"
        )
    weights, structured = select.named_weights(model), select.structured_names(model)
    for key, given in fisher.items():
        if key not in structured:
            raise ValueError("fisher: " + _errors.unknown("parameter", key, structured))
        value = (given if isinstance(given, paddle.Tensor) else paddle.to_tensor(given)).astype("float32")
        shape = weights[structured[key]].shape
        if value.shape != shape or not bool(((value >= 0) & paddle.isfinite(value)).all()):
            raise ValueError(f"fisher[{key!r}] has to be of shape {list(shape)} with values ≥ 0, not {value.shape}")
        anchored[structured[key]] = value
    return anchored


def resolve_pretrained(plan: Plan, model: Any, pretrained: Any) -> Collection[str]:
    """The names that L2SP anchors, from selectors, a state dict or a LoadReport.

    Without either: what `load_pretrained` has filled; if that is nothing, all of them, with a warning.
    """
    if not plan.l2sp:
        if pretrained is not None:
            _errors.warn("pretrained= only matters to L2SP, which this strategy does not use")
        return ()
    if isinstance(pretrained, LoadReport):
        pretrained = pretrained.weights
    if pretrained is None:
        loaded = select.loaded_names(model)
        if loaded:
            return loaded
        _errors.warn(
            "L2SP without pretrained=: every parameter, a new head too, is pulled back to its value of now; "
            "name the pretrained ones, or pretrained='*' for all"
        )
        return select.named_weights(model)
    if isinstance(pretrained, Mapping):
        known = select.structured_names(model)
        found = {known[key] for key in pretrained if key in known}
        if not found:
            raise ValueError("pretrained: none of its keys is a parameter of the model, " + _errors.listing(pretrained))
        return found
    if isinstance(pretrained, (list, tuple, set)):
        # Names of loaded entries may include buffers and running statistics, which L2SP has nothing to do with.
        others = {*select.statistics(model), *(name for name, _ in _paddle.unwrap(model).named_buffers())}
        pretrained = [entry for entry in pretrained if not (isinstance(entry, str) and entry in others)]
    return _selected(model, pretrained, "pretrained")


def resolve_no_decay(model: Any, no_decay: Any) -> Collection[str]:
    """The names that weight decay skips: None stands for biases and normalisation layers, `[]` for none."""
    return select.norm_or_bias(model) if no_decay is None else _selected(model, no_decay, "no_decay")


def by_block(rows: Sequence[Resolved], key: Callable[[Resolved], str]) -> list[list[str]]:
    """What `key` tells of the parameters of each block, bottom block first."""
    blocks: list[list[str]] = [[] for _ in range(1 + max(row.depth.block for row in rows))]
    for row in rows:
        blocks[row.depth.block].append(key(row))
    return blocks


def row_of(row: Resolved, decay: Decay) -> description.Row:
    """What `describe` tells of one parameter of a binding."""
    fallback = decay.coupled if row.settings.regularizer is None else None
    return description.Row(
        name=row.name,
        shape=tuple(row.param.shape),
        block=row.depth.block,
        trainable=row.own.trainable,
        first_epoch=row.depth.first_epoch,
        learning_rate=row.settings.learning_rate,
        own_learning_rate=row.own.learning_rate,
        factor=row.depth.factor,
        regularizer=settings.text_of(row.settings.regularizer or fallback),
        regularizer_from="optimizer" if fallback is not None else row.regularizer_from,
        decay=decay.of(row.name),
        decay_from=decay.source if decay.of(row.name) else "",
        need_clip=row.settings.need_clip,
    )


def describe_rows(
    rows: Sequence[Resolved], plan: Plan, optimizer: Any, update: int, layers: str
) -> description.Description:
    """What holds for each parameter, as rows and as a table; below it the plan's totals and what runs `layers`."""
    blocks = 1 + max(row.depth.block for row in rows)
    shown = [description.row_of(row.name, row.param) for row in rows]
    values = [int(np.prod(row.shape)) for row in shown]
    shares = [1 - (row.frozen_rows.share if row.frozen_rows else 0) if row.trainable else 0 for row in shown]
    training = round(sum(count * share for count, share in zip(values, shares)))
    own = optimizer.describe() if isinstance(optimizer, CustomOptimizer) else ""
    notes = [
        "",
        f"optimizer {type(optimizer).__name__}, LR of the next update {optimizer.get_lr():.6g}, "
        f"update {update} of {plan.max_train_steps or '∞'}",
        f"clip {plan.clip.kind}({plan.clip.value:g})" if plan.clip else "no gradient clipping",
        *(f"averaging {plan.averaging}" for _ in range(plan.averaging is not None)),
        *(f"perturbation {plan.perturbation}" for _ in range(plan.perturbation is not None)),
        fused.describe(optimizer),
        *([own] if own else []),
        layers,
        f"{training:,} of {sum(values):,} values train now, in {blocks} block{'s' * (blocks != 1)}",
    ]
    return description.Description(shown, notes)


def remind_of_epochs(run: Any) -> bool:
    """Warn, in whatever loop it is that steps the LR, when the second epoch has come and none was begun.

    Returns:
        Whether nothing is left to remind of.
    """
    # The length of an epoch is not known, but at least as many as there are phases have to fit into the training.
    first = (run.plan.max_train_steps or 0) // run.plan.first_epochs[-1]
    forgotten = run.epoch == 0 and run.in_force
    if forgotten and run.lr_scheduler.last_epoch <= first:
        return False
    if forgotten:
        _errors.warn(
            "the plan thaws layers epoch by epoch, but does not know how long an epoch is, and begin_epoch() was not "
            "called, so only the top layers train: bind with steps_per_epoch=, or call begin_epoch() at the start of "
            "every epoch"
        )
    return True


def _factors(
    spec: Discriminative | Spread | None, model: Any, units: Sequence[depth.Unit]
) -> tuple[dict[str, int], dict[str, float]]:
    """Level (0 is the bottom) and LR factor of each parameter."""
    levels = {name: number for number, unit in enumerate(units) for name in unit.parameters}
    if spec is None:
        return levels, dict.fromkeys(levels, 1.0)
    if isinstance(spec, Spread):
        lrs = spread(spec.lr, len(units))
        if any(lrs) and not lrs[-1]:
            raise ValueError(
                f"lr = {lrs!r}: the top layers' LR must be > 0, the others are multiples of it; param_attr.freeze "
                "keeps layers as they are"
            )
        return levels, {name: lrs[level] / lrs[-1] if lrs[-1] else 1.0 for name, level in levels.items()}
    if spec.factors:
        names = [unit.name for unit in units]
        if isinstance(spec.factors, Mapping):
            _errors.check_keys("layer of layer_factors", spec.factors, names)
        if len(spec.factors) != len(units):
            raise ValueError(
                f"layer_factors has {len(spec.factors)} factors, but the model has {len(units)} layers: "
                f"{_errors.listing(names)}"
            )
        by_name = spec.factors if isinstance(spec.factors, Mapping) else dict(zip(names, spec.factors))
        return levels, {name: by_name[names[level]] for name, level in levels.items()}
    if spec.params_layer:
        given = depth.named_layers("discriminative", spec.params_layer, model)
        levels = {name: given.get(name, max(given.values())) for name in levels}
    elif spec.blocks is not None:
        numbers = _block_numbers("discriminative", spec.blocks, len(units))
        levels = {name: numbers[level] for name, level in levels.items()}
    top = max(levels.values())
    return levels, {name: max(spec.factor ** -(top - level), spec.minimum) for name, level in levels.items()}


def _trained(train: Any, index: int, model: Any, units: Sequence[depth.Unit]) -> set[str]:
    """Names of what a phase trains."""
    names = {name for unit in units for name in unit.parameters}
    if isinstance(train, str) and train == "all":
        return names
    if isinstance(train, str) and train == "head":
        return set(depth.find_head(model))
    if isinstance(train, int) and not isinstance(train, bool):
        if not 0 < train <= len(units):
            raise ValueError(f"phase {index + 1}: train={train}, but the model has {len(units)} layers: 1 to that many")
        train = Top(train)
    if not isinstance(train, Top):
        return _selected(model, train, f"phase {index + 1}: train")
    if train.params_layer:
        given = depth.named_layers("gradual_unfreeze", train.params_layer, model)
        top = max(given.values())
        return {name for name in names if given.get(name, top) > top - train.count}
    count = train.count
    if train.of is not None:
        first = index == 0 and train.count < train.of
        blocks = min(train.of, len(units))
        numbers = _block_numbers("gradual_unfreeze", train.of, len(units), told=first)
        count = sum(number >= blocks - train.count for number in numbers)
    return {name for unit in units[max(len(units) - count, 0) :] for name in unit.parameters}


def _block_numbers(key: str, blocks: int, layers: int, told: bool = True) -> list[int]:
    if told and blocks > layers:
        _errors.warn(f"{key}: {blocks} blocks, but the model has {layers} layers; each layer is a block")
    return depth.split(layers, blocks)


def _selected(model: Any, selectors: Any, what: str) -> set[str]:
    return set() if not isinstance(selectors, str) and not selectors else select.select_all(model, selectors, what)
