"""What is probably not meant about a strategy: one function per rule, entered in `RULES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import table
from paddle_ftstrat.param_attr import freezing, select
from paddle_ftstrat.param_attr.depth import named_layers
from paddle_ftstrat.plan import Discriminative, Spread, Top
from paddle_ftstrat.tools.outline import Outline
from paddle_ftstrat.training import metrics

# Multipliers below this are learning rates more often than shares of one.
_LOOKS_ABSOLUTE = 0.01
_VANISHING = 1e-4
_MUCH_WARMUP = 0.5
_DECAYED = 0.5
_MUCH_OF_THE_FIRST = 0.1


@dataclass(frozen=True)
class Finding:
    """Something worth a look: the rule that found it, and what to do about it."""

    rule: str
    text: str


Rule = Callable[[Outline], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Enter a rule, a function (Outline) → texts, in `RULES` under `name`; a ValueError where the name is taken.

    Example:
        >>> @rule("long-training")
        ... def long_training(plan):
        ...     yield from ["that takes long"] if plan.steps > 10**6 else []
        >>> RULES.pop("long-training").__name__
        'long_training'
    """

    def enter(found: Rule) -> Rule:
        if name in RULES:
            raise ValueError(f"a lint rule named {name!r} is already there")
        RULES[name] = found
        return found

    return enter


def check(outline: Outline) -> list[Finding]:
    """What the rules find in a strategy over its training, with or without a model, in their order.

    Example:
        >>> import paddle_ftstrat as hub
        >>> from paddle_ftstrat.tools.outline import outline
        >>> [finding.rule for finding in check(outline(hub.ULMFiTStrategy(), steps=100, epochs=2))]
        ['unfreezing-incomplete']
    """
    return [Finding(name, text) for name, found in RULES.items() for text in found(outline)]


@rule("absolute-multiplier")
def absolute_multipliers(outline: Outline) -> Iterator[str]:
    """ParamAttr(learning_rate=) holds a factor of the LR; one like 1e-4 was probably meant as the LR itself."""
    small = [row for row in outline.rows if 0 < row.own_learning_rate < _LOOKS_ABSOLUTE]
    if small:
        own, learning_rate = small[0].own_learning_rate, outline.strategy.learning_rate
        names = _errors.listing([row.name for row in small], 3)
        yield (
            f"ParamAttr(learning_rate={own:g}) multiplies the LR: {names} would get "
            f"{learning_rate * small[0].learning_rate:.3g} at most; for an LR of {own:g} give {own / learning_rate:.3g}"
        )


@rule("vanishing-rate")
def vanishing_rates(outline: Outline) -> Iterator[str]:
    """Many blocks or a large factor leave the lowest layers next to nothing."""
    lowest = min((block.factor for block in outline.blocks), default=1.0)
    if lowest < _VANISHING:
        what, do = "discriminative", "fewer blocks or a smaller factor"
        if isinstance(outline.plan.depth, Spread):
            what, do = "the slice of learning rates", "a narrower one"
        yield (
            f"{what} leaves the lowest block ×{lowest:.1e}, an LR of "
            f"{lowest * outline.strategy.learning_rate:.1e} at most: give {do}"
        )


@rule("average-and-decay")
def averages_and_decays(outline: Outline) -> Iterator[str]:
    """An optimizer whose average of the weights stands in for a decay of the LR, under a schedule that decays."""
    row = table.find(outline.plan.optimizer)
    lrs = [float(outline.plan.lr(t)) for t in range(outline.steps)]
    if hasattr(row.cls, "averaged_weights") and lrs[-1] < _DECAYED * max(lrs):
        yield (
            f"{row.name} averages the weights in place of a decay, but the LR falls from {max(lrs):.3g} to "
            f"{lrs[-1]:.3g}: give a warmup alone, or another optimizer"
        )


@rule("warmup-length")
def warmup_length(outline: Outline) -> Iterator[str]:
    """A warmup that takes most or all of the training, or none of it."""
    share = (getattr(outline.strategy, "scheduler", None) or {}).get("warmup", 0.0)
    names = [stretch.name for stretch in outline.stretches]
    if share and "warmup" in names and names == ["warmup"]:
        yield f"warmup={share:g} is as long as the training: the LR only rises and reaches its peak when all is over"
    elif share > _MUCH_WARMUP and "warmup" in names:
        yield f"warmup={share:g} takes {int(outline.steps * share)} of {outline.steps} updates"
    elif share and int(outline.steps * share) == 0:
        yield f"warmup={share:g} of {outline.steps} updates is less than one update: there is no warmup"


@rule("unfreezing-incomplete")
def unfreezing_incomplete(outline: Outline) -> Iterator[str]:
    """Layers that are still frozen when the training ends."""
    last = max((block.trains.index(True) for block in outline.blocks if True in block.trains), default=0)
    if outline.starts[last] >= outline.steps:
        end = f"the training ends with epoch {outline.epochs}"
        few = "fewer blocks" if isinstance(outline.plan.phases[last].train, Top) else "shorter phases"
        yield f"the last layers are thawed in {outline.when(last)}, but {end}: give more epochs or {few}"


@rule("early-end")
def early_end(outline: Outline) -> Iterator[str]:
    """Phases that are to end early, but go by a value that nothing gives, or wait longer than they last."""
    scores = [name for kind in ("classes", "labels", "values", "tokens") for name in metrics.names(kind)]
    known = {"valid_loss", "train_loss", *scores, *(f"valid_{name}" for name in scores)}
    for index, phase in enumerate(outline.plan.phases):
        if phase.until is None:
            continue
        name, monitor = outline.phase_name(index) or "the training", phase.until.monitor
        if monitor not in known:
            meant = _errors.nearest(monitor, sorted(known))
            hint = f"; is {meant!r} meant?" if meant else ""
            yield f"{name} ends by {monitor!r}, which is no loss or metric of this library, but one of your own{hint}"
        length = phase.length_in_epochs
        if length is not None and phase.until.patience >= length:
            yield f"{name} waits for {phase.until.patience} evaluations, but lasts {length} epochs: it never ends early"


@rule("pattern-without-match")
def patterns_without_match(outline: Outline) -> Iterator[str]:
    """Names and globs that mean no parameter of the model."""
    if outline.model is None:
        return
    model = outline.model
    for key, spec in (("discriminative", outline.plan.depth), ("gradual_unfreeze", outline.plan.phases[-1].train)):
        for name in getattr(spec, "params_layer", None) or {}:
            yield from _refusal(named_layers, key, {name: 0}, model)
    for key in ("pretrained", "no_decay"):
        for pattern in outline.options.get(key) or ():
            yield from _refusal(select.select, model, pattern, key)


def _refusal(look: Callable[..., object], *arguments: Any) -> Iterator[str]:
    try:
        look(*arguments)
    except ValueError as error:
        yield str(error)


@rule("decay-on-biases")
def decay_on_biases(outline: Outline) -> Iterator[str]:
    """L2 and decay that pull biases and normalisation layers towards 0, which nothing is gained by."""
    plan = outline.plan
    if plan.l2 and outline.run is None:
        yield f"L2 {plan.l2:g} reaches biases and normalisation layers too; weight_decay leaves them out"
    if outline.run is None or outline.model is None:
        return
    spared = select.norm_or_bias(outline.model)
    reached = [row for row in outline.rows if row.name in spared and row.first_epoch]
    l2 = [row.name for row in reached if row.regularizer_from == "strategy"] if plan.l2 else []
    if l2:
        yield f"L2 {plan.l2:g} reaches {_some(l2)}; weight_decay would leave biases and normalisation layers out"
    decayed = [row for row in reached if row.decay]
    if decayed:
        some = _some([row.name for row in decayed])
        yield f"weight decay {decayed[0].decay:g} reaches {some}; without no_decay= it would spare them"


def _some(names: list[str]) -> str:
    return f"{len(names)} biases and normalisation weights ({_errors.listing(names, 3)})"


@rule("batch-norm-moving")
def batch_norm_moving(outline: Outline) -> Iterator[str]:
    """BatchNorm layers whose weights are frozen for a time or for good, while their statistics follow the batches."""
    if outline.run is None or outline.model is None:
        return
    first = {row.name: row.first_epoch for row in outline.rows}
    moving: dict[str, int] = {}
    for path, layer in freezing.batch_norms(_paddle.unwrap(outline.model)).items():
        names = [select.join(path, name) for name, _ in select.own_parameters(layer)]
        epochs = [first[name] for name in names if name in first]
        if epochs and 1 not in epochs and freezing.policy_of(layer) != "freeze":
            moving[path] = 0 if 0 in epochs else min(epochs)
    for until in sorted(set(moving.values())):
        paths = [path for path, epoch in moving.items() if epoch == until]
        when = f"before epoch {until}" if until else "all the time"
        do = "call .eval() on them in those epochs" if until else "freeze them with paddle_ftstrat.param_attr.freeze"
        yield f"BatchNorm {_errors.listing(paths, 3)}: frozen {when}, but the running statistics move on; {do}"


@rule("average-of-little")
def average_of_little(outline: Outline) -> Iterator[str]:
    """An average into which no weights go, or that is still much the first weights at the end."""
    averaging, first, count = outline.plan.averaging, 1.0, 0
    if averaging is None:
        return
    for update in range(outline.steps):
        share = averaging.share(count, update, outline.steps)
        first, count = first * (1 - share), count + (share > 0)
    if not count:
        yield f"averaging {averaging}: no weights go into the average in {outline.steps} updates"
    elif first > _MUCH_OF_THE_FIRST:
        yield (
            f"averaging {averaging}: after {outline.steps} updates {first:.0%} of the average are still the weights at "
            "the beginning: choose a lower decay, or bias_correction"
        )


@rule("cancelled-keys")
def cancelled_keys(outline: Outline) -> Iterator[str]:
    """What the plan and the binding warned of: keys that override one another, blocks that are not there."""
    yield from outline.warned


@rule("without-effect")
def without_effect(outline: Outline) -> Iterator[str]:
    """Values that switch a key on and change nothing by it."""
    given = getattr(outline.strategy, "scheduler", None)
    if given is None:
        return
    depth = outline.plan.depth
    if isinstance(depth, Discriminative) and depth.factor == 1:
        yield "discriminative with factor 1: all blocks have the same LR"
    elif isinstance(depth, Discriminative) and depth.factor < 1:
        yield f"discriminative with factor {depth.factor:g} < 1: lower layers get larger LRs than the top"
    for key in ("discriminative", "gradual_unfreeze"):
        if given[key]["blocks"] == 1 and not given[key]["params_layer"]:
            yield f"{key} with 1 block does nothing: that block is the whole model"
    if given["slanted_triangle"]["cut_fraction"] > 0 and given["slanted_triangle"]["ratio"] == 1:
        yield "slanted_triangle with ratio 1 is a constant LR"
    linear, learning_rate = given["linear_decay"], outline.strategy.learning_rate
    if linear["start_point"] < 1 and linear["end_learning_rate"] >= learning_rate:
        end = f"{linear['end_learning_rate']:g}, not below learning_rate {learning_rate:g}"
        yield f"linear_decay ends at {end}: it does not decay"
