"""What a strategy will do, in words and as a table."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from paddle_ftstrat import _errors
from paddle_ftstrat.optim import table
from paddle_ftstrat.tools import lint
from paddle_ftstrat.tools.blocks import Block, decay_of
from paddle_ftstrat.tools.outline import Outline, Phase

_HEADINGS = ("phase", "epochs", "updates", "block", "learning rate", "regulariser", "weight decay", "trains")


def explain(outline: Outline, findings: Sequence[lint.Finding] = ()) -> str:
    """The whole plan as text: in words, as a table phase × block, and what the lint found.

    Args:
        outline: the strategy over its training.
        findings: of `lint.check`.

    Example:
        >>> import paddle_ftstrat as hub
        >>> from paddle_ftstrat.tools.outline import outline
        >>> print(explain(outline(hub.DefaultFinetuneStrategy(), steps=100, epochs=2)))  # doctest: +ELLIPSIS
        DefaultFinetuneStrategy: 100 updates, 2 epochs of 50
        ...
    """
    sections = [
        _title(outline),
        _words(outline),
        _table(outline),
        *([_members(outline)] if outline.run is not None and len(outline.blocks) > 1 else []),
        _lint(outline, findings),
    ]
    return "\n\n".join(sections)


def block_label(outline: Outline, block: Block) -> str:
    """What a block is called in a sentence or a legend."""
    return f"block {block.label}" if outline.run is not None else block.label


def _title(outline: Outline) -> str:
    epochs = f", {outline.epochs} epochs of {outline.steps_per_epoch}" if outline.epochs > 1 else " in one epoch"
    return f"{type(outline.strategy).__name__}: {_count(outline.steps, 'update')}{epochs}"


def _words(outline: Outline) -> str:
    lines = {
        "optimizer": _optimizer(outline),
        "learning rate": _rate(outline),
        "layers": _layers(outline),
        "unfreezing": _unfreezing(outline),
        "regulariser": _regulariser(outline),
        "weight decay": _decay(outline),
        "clipping": _clip(outline),
    }
    return "\n".join(f"  {key:<14} {text}" for key, text in lines.items())


def _optimizer(outline: Outline) -> str:
    row = table.find(outline.plan.optimizer)
    options = ", ".join(f"{name}={value!r}" for name, value in outline.plan.optimizer_options.items())
    return f"{row.cls.__name__}, {options}" if options else f"{row.cls.__name__} with its default options"


def _rate(outline: Outline) -> str:
    curve, parts = outline.plan.curve, outline.stretches
    if len(parts) == 1 and parts[0].name == "constant":
        return f"{_g(curve(0))} throughout"
    told = [
        f"{part.name} {_g(curve(part.start))} → {_g(curve(part.end - 1))} in updates {part.start}–{part.end - 1}"
        if curve(part.start) != curve(part.end - 1)
        else f"constant {_g(curve(part.start))} in updates {part.start}–{part.end - 1}"
        for part in parts
    ]
    return ", then ".join(told)


def _layers(outline: Outline) -> str:
    spec = outline.plan.discriminative
    if spec is None:
        return "all at the same learning rate"
    how = "by params_layer" if spec.params_layer else _count(spec.blocks, "block") if spec.blocks else "layer by layer"
    return f"{how}: the top at the full rate, each below at 1/{spec.factor:g} of the one above"


def _unfreezing(outline: Outline) -> str:
    epochs = sorted({block.first_epoch for block in outline.blocks if block.first_epoch})
    if outline.plan.gradual_unfreeze is None or not epochs:
        return "none: everything trains from the start"
    told = []
    for epoch in epochs:
        labels = [block_label(outline, block) for block in outline.blocks if block.first_epoch == epoch]
        late = "" if epoch <= outline.epochs else ", which is never reached"
        told.append(f"{' and '.join(labels)} from epoch {epoch}{late}")
    return "; ".join(told)


def _regulariser(outline: Outline) -> str:
    plan = outline.plan
    parts = []
    if plan.l2sp:
        whom = (
            "the pretrained parameters"
            if outline.options.get("pretrained")
            else "what is pretrained (bind(pretrained=…) names it)"
        )
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


def _clip(outline: Outline) -> str:
    clip = outline.plan.clip
    if clip is None:
        return "none"
    how = {
        "GlobalNorm": "the norm of all gradients together is at most",
        "Norm": "the norm of each gradient is at most",
        "Value": "each entry of a gradient is in ±",
    }[clip.kind]
    return f"{how}{'' if clip.kind == 'Value' else ' '}{clip.value:g}"


def _table(outline: Outline) -> str:
    rows = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        rows.add_column(heading, no_wrap=True)
    for number, phase in enumerate(outline.phases):
        if number and len(outline.blocks) > 1:
            rows.add_row()
        for index, block in enumerate(outline.blocks):
            before = _phase_cells(phase) if index == 0 else ("", "", "")
            rows.add_row(*before, *_block_cells(outline, phase, block))
    out = io.StringIO()
    Console(file=out, width=10_000, color_system=None, highlight=False, markup=False).print(rows)
    return "\n".join("  " + line.rstrip() if line.strip() else "" for line in out.getvalue().splitlines())


def _phase_cells(phase: Phase) -> tuple[str, str, str]:
    one = phase.first_epoch == phase.last_epoch
    epochs = f"{phase.first_epoch}" if one else f"{phase.first_epoch}–{phase.last_epoch}"
    updates = f"{phase.start}–{phase.end - 1}" if phase.end - phase.start > 1 else f"{phase.start}"
    return phase.name, epochs, updates


def _block_cells(outline: Outline, phase: Phase, block: Block) -> tuple[str, ...]:
    if not 0 < block.first_epoch <= phase.first_epoch:
        until = f"from epoch {block.first_epoch}" if block.first_epoch else "never: frozen beforehand"
        return block.label, "-", "-", "-", f"no, {until}" if block.first_epoch else until
    start, end = (outline.plan.curve(t) * block.factor for t in (phase.start, phase.end - 1))
    rate = _g(start) if start == end else f"{_g(start)} → {_g(end)}"
    return block.label, rate, block.regulariser, block.decay, "yes" + (f"; {block.remarks}" if block.remarks else "")


def _members(outline: Outline) -> str:
    lines = [f"  {block.label:<14} {_errors.listing(block.names, 4)}" for block in outline.blocks]
    return "\n".join(["  parameters of each block", *lines])


def _lint(outline: Outline, findings: Sequence[lint.Finding]) -> str:
    lines = [f"  - it cannot be bound to the model: {outline.failed}"] if outline.failed else []
    lines += [f"  - {finding.text} [{finding.rule}]" for finding in findings if finding.text != outline.failed]
    if not lines:
        return "Nothing stands out."
    return "\n".join(["Worth a look:", *lines])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _g(value: float) -> str:
    return f"{float(value):.3g}"
