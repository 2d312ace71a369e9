"""What a strategy will do: in words, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle_ftstrat import _errors, pictures
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.plan import Discriminative, Spread
from paddle_ftstrat.tools import lint
from paddle_ftstrat.tools.outline import (
    Block,
    Outline,
    Stage,
    decay_of,
    factors_of,
    label_of,
    optimizer_of,
    spread_factor,
)

_HEADINGS = ("phase", "epochs", "updates", "block", "learning rate", "regulariser", "weight decay", "trains")
_CLIPS = {
    "GlobalNorm": "the norm of all gradients together is at most ",
    "Norm": "the norm of each gradient is at most ",
    "Value": "each entry of a gradient is in ±",
}


def explain(outline: Outline, findings: Sequence[lint.Finding] = ()) -> str:
    """The whole plan as text: in words, as a table phase × block, and what `lint.check` found.

    Example:
        >>> import paddle_ftstrat as hub
        >>> from paddle_ftstrat.tools.outline import outline
        >>> print(explain(outline(hub.DefaultFinetuneStrategy(), steps=100, epochs=2)))  # doctest: +ELLIPSIS
        DefaultFinetuneStrategy: 100 updates, 2 epochs of 50
        ...
    """
    epochs = f", {outline.epochs} epochs of {outline.steps_per_epoch}" if outline.epochs > 1 else " in one epoch"
    title = f"{type(outline.strategy).__name__}: {_count(outline.steps, 'update')}{epochs}"
    sections = [title, _words(outline), _table(outline)]
    if outline.run is not None and len(outline.blocks) > 1:
        members = [f"  {block.label:<14} {_errors.listing(block.names, 4)}" for block in outline.blocks]
        sections.append("\n".join(["  parameters of each block", *members]))
    worth = [f"  - it cannot be bound to the model: {outline.failed}"] if outline.failed else []
    worth += [f"  - {finding.text} [{finding.rule}]" for finding in findings if finding.text != outline.failed]
    sections.append("\n".join(["Worth a look:", *worth]) if worth else "Nothing stands out.")
    return "\n\n".join(sections)


def draw(outline: Outline, path: Any = None) -> Any:
    """Draw the LR of every block over the updates into an image file, if any; returns the matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the strategy cannot be bound to the model.
    """
    if outline.failed:
        raise ValueError(f"the strategy cannot be bound to the model: {outline.failed}")
    blocks = [
        (f"{block_label(outline, block)} (×{block.factor:.3g})", block.factor, block.trains) for block in outline.blocks
    ]
    title = f"{type(outline.strategy).__name__}: learning rate over {outline.steps} updates"
    per_epoch = outline.steps_per_epoch if outline.epochs > 1 else None
    return pictures.draw_plan(outline.plan, outline.steps, blocks, title, per_epoch, path)


def block_label(outline: Outline, block: Block) -> str:
    """What a block is called in a sentence or a legend."""
    return f"block {block.label}" if outline.run is not None else block.label


def _words(outline: Outline) -> str:
    plan = outline.plan
    options = ", ".join(f"{name}={value!r}" for name, value in plan.optimizer_options.items())
    members = {"averaging": plan.averaging, "perturbation": plan.perturbation}
    lines = {
        "optimizer": optimizer_of(plan) + (f", {options}" if options else " with its default options"),
        "learning rate": _rate(outline),
        "layers": _layers(plan.depth),
        "unfreezing": _unfreezing(outline),
        "early end": _early_ends(outline),
        "regulariser": _regulariser(outline),
        "weight decay": _decay(outline),
        **{key: f"{member}: {member.what()}" for key, member in members.items() if member is not None},
        "clipping": "none" if plan.clip is None else f"{_CLIPS[plan.clip.kind]}{plan.clip.value:g}",
    }
    return "\n".join(f"  {key:<14} {text}" for key, text in lines.items() if text)


def _rate(outline: Outline) -> str:
    curve, parts = outline.plan.lr, outline.stretches
    if len(parts) == 1 and parts[0].name == "constant":
        return f"{_g(curve(0))} throughout"
    told = []
    for name, start, end in parts:
        first, last = curve(start), curve(end - 1)
        values = f"{name} {_g(first)} → {_g(last)}" if first != last else f"constant {_g(first)}"
        told.append(f"{values} in updates {start}–{end - 1}")
    return ", then ".join(told)


def _layers(spec: Any) -> str:
    if isinstance(spec, Spread) and isinstance(spec.lr, (list, tuple)):
        return f"each at its own learning rate, bottom first: {_errors.listing(map(_g, spec.lr))}"
    if isinstance(spec, Spread) and spread_factor(spec) != 1:
        how = "in equal ratios" if spec.lr.start is not None else "all below the top"
        return f"the top at the full rate, ×{spread_factor(spec):g} at the bottom, {how}"
    if not isinstance(spec, Discriminative):
        return "all at the same learning rate"
    if spec.factors:
        return f"each at its own share of the learning rate, bottom first: {_errors.listing(map(_g, factors_of(spec)))}"
    how = "layer by layer" if spec.blocks is None else _count(spec.blocks, "block")
    how = "by params_layer" if spec.params_layer else how
    least = f", none below {spec.minimum:g}" if spec.minimum else ""
    return f"{how}: the top at the full rate, each below at 1/{spec.factor:g} of the one above{least}"


def _unfreezing(outline: Outline) -> str:
    """Which blocks train from when, and from when they do not any more."""
    if not outline.plan.thaws or not any(any(block.trains) for block in outline.blocks):
        return "none: everything trains from the start"
    blocks: dict[tuple[int, int | None], list[str]] = {}
    for block in outline.blocks:
        if True in block.trains:
            first = block.trains.index(True)
            again = block.trains.index(False, first) if outline.run and False in block.trains[first:] else None
            blocks.setdefault((first, again), []).append(block_label(outline, block))
    told = []
    for (first, again), labels in sorted(blocks.items(), key=lambda item: item[0][0]):
        late = ", which is never reached" if outline.starts[first] >= outline.steps else ""
        until = "" if again is None else f", frozen again from {outline.when(again)}"
        told.append(f"{' and '.join(labels)} from {outline.when(first)}{late}{until}")
    return "; ".join(told)


def _early_ends(outline: Outline) -> str:
    told = []
    for index, phase in enumerate(outline.plan.phases):
        if phase.until is not None:
            name = outline.phase_name(index) or "the training"
            waits = _count(phase.until.patience, "evaluation")
            restored = "; its best weights are restored then" if phase.restore else ""
            told.append(f"{name}, when {phase.until.monitor} has not improved for {waits}{restored}")
    return "; ".join(told)


def _regulariser(outline: Outline) -> str:
    plan, parts = outline.plan, []
    if plan.ewc:
        parts.append(f"EWC: gradient += {plan.ewc:g}·F·(w − w⁰) for the parameters with a Fisher information F")
    if plan.l2sp:
        named = outline.options.get("pretrained")
        whom = "the pretrained parameters" if named else "what is pretrained (bind(pretrained=…) names it)"
        parts.append(f"L2SP: gradient += {plan.l2sp:g}·(w − w⁰) for {whom}")
    if plan.l2:
        parts.append(f"L2: gradient += {plan.l2:g}·w" + (" for the others" if plan.l2sp else ""))
    return "; ".join(parts) or "none"


def _decay(outline: Outline) -> str:
    decay = outline.plan.weight_decay
    if not decay:
        return decay_of(outline.plan)
    spared = "those of no_decay" if outline.options.get("no_decay") else "biases and normalisation layers"
    return f"w ← w·(1 − lr·{decay:g}) after each update, except for {spared}"


def _table(outline: Outline) -> str:
    rows: list[tuple[str, ...]] = []
    for stage in outline.phases:
        if rows and len(outline.blocks) > 1:
            rows.append(())
        ends = ((stage.first_epoch, stage.last_epoch), (stage.start, stage.end - 1))
        epochs, updates = (f"{first}" if first == last else f"{first}–{last}" for first, last in ends)
        for index, block in enumerate(outline.blocks):
            before = ("", "", "") if index else (stage.name, epochs, updates)
            rows.append((*before, block.label, *_block_cells(outline, stage, block)))
    text = description.table(_HEADINGS, rows)
    return "\n".join("  " + line if line else "" for line in text.splitlines())


def _block_cells(outline: Outline, stage: Stage, block: Block) -> tuple[str, ...]:
    index = outline.planned_phase(stage.start)
    if block.trains[index]:
        start, end = (outline.plan.lr(t) * block.factor for t in (stage.start, stage.end - 1))
        rate = _g(start) if start == end else f"{_g(start)} → {_g(end)}"
        return rate, block.regulariser, block.decay, f"yes; {block.remarks}" if block.remarks else "yes"
    first = block.trains.index(True) if True in block.trains else None
    if first is None:
        why = "never: frozen beforehand"
    elif first > index:
        why = f"no, from {outline.when(first)}"
    elif outline.run is not None:
        why = "no, frozen again"
    else:  # without a model nobody knows whether what a phase names has this block in it
        why = f"as far as {label_of(outline.plan.phases[index].train)} includes it"
    return "-", "-", "-", why


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _g(value: float) -> str:
    return f"{float(value):.3g}"
