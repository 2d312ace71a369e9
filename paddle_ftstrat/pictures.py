"""One picture of a plan: the LR of every block over the updates, frozen stretches marked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.resolve import Resolved


def pyplot() -> Any:
    """matplotlib's pyplot, or an error that says how to get it."""
    with _errors.needed("pictures need matplotlib", "plot"):
        import matplotlib
    headless = sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and "MPLBACKEND" not in os.environ
    if headless and "matplotlib.pyplot" not in sys.modules:
        # A GUI backend would fail at the first figure; writing a file needs none.
        matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_plan(
    plan: Plan,
    steps: int,
    blocks: Sequence[tuple[str, float, Sequence[bool]]],
    title: str,
    epoch_steps: int | None = None,
    path: Any = None,
) -> Any:
    """Draw the LR of every block over the updates, dotted where it is frozen; returns the matplotlib figure.

    `blocks` say what each is called, its share of the LR, and whether it trains in each phase, top block first; every
    `epoch_steps` updates an epoch is marked. With a `path` the picture is written, as its ending says.

    Raises:
        ImportError: matplotlib is not installed.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 4.8), constrained_layout=True)
    t = np.arange(steps)
    lrs = np.asarray(plan.lr(t.astype(np.float64)))
    phases = np.searchsorted(plan.starts or (0,), t, side="right") - 1
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(blocks)))
    any_frozen = False
    for index, ((label, factor, trains), colour) in enumerate(zip(blocks, colours)):
        # Of lines that lie on one another the lower ones are broader, so that each is seen.
        alike = sum(other == factor for _, other, _ in blocks[:index])
        solid = {"color": colour, "lw": 2 + 2 * alike, "zorder": 2 - 0.01 * alike}
        # Where the length of a phase is not known, what trains at some time is drawn as training.
        live = np.asarray(trains)[phases] if plan.starts else np.full(steps, any(trains))
        if not live.all():
            any_frozen = True
            axes.plot(t, lrs * factor, color=colour, lw=1, ls=":", alpha=0.7, zorder=1.9)
            thaws = t[1:][live[1:] & ~live[:-1]]
            axes.plot(thaws, lrs[thaws] * factor, "o", color=colour, ms=6)
        axes.plot(t, np.where(live, lrs * factor, np.nan), **solid, label=label)
    if any_frozen:
        axes.plot([], [], color="0.3", lw=1, ls=":", label="frozen (● thaws)")
    if epoch_steps and steps / epoch_steps <= 60:
        for epoch, start in enumerate(range(0, steps, epoch_steps), 1):
            axes.axvline(start, color="0.85", lw=0.8, zorder=0)
            above = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
            axes.annotate(f"{epoch}", (start, 1.0), **above, color="0.4", fontsize=8, ha="center")
    begins = 0 if plan.averaging is None else plan.averaging.begins(steps)
    if begins:
        axes.axvline(begins, color="0.4", lw=1, ls="--", label=f"{plan.averaging.name} begins")
    axes.set_title(title, pad=18)
    axes.set(xlabel="update" + (" (numbers above: epoch)" if epoch_steps else ""), ylabel="learning rate")
    axes.set_xlim(0, max(steps - 1, 1))
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finished(figure, path)


def finished(figure: Any, path: Any = None) -> Any:
    """The figure; with a path, written there and closed.

    Raises:
        RuntimeError: writing a compressed file would crash this process.
    """
    if path is not None:
        if not _paddle.compression_works():
            raise RuntimeError(
                "this paddlepaddle 2 breaks zlib when it is imported before it, and writing a picture would crash the "
                "process: put `import zlib` before `import paddle`"
            )
        figure.savefig(path, dpi=130)
        pyplot().close(figure)
    return figure


def plot(run: Any, rows: Sequence[Resolved], path: Any, steps: int | None) -> Any:
    """Draw the LR of every block of a binding over so many updates (see `Binding.plot`); blocks alike share a line.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `steps` is None.
    """
    if steps is None:
        raise ValueError("a plan without max_train_steps has no length to draw: give plot(steps=...)")
    alike: dict[tuple[float, tuple[bool, ...]], set[int]] = {}
    trains = run.trains
    for row in rows:
        alike.setdefault((row.settings.learning_rate, trains[row.name]), set()).add(row.depth.block)
    ordered = sorted(alike.items(), key=lambda item: -max(item[1]))
    blocks = [(f"block {_spans(numbers)} (×{factor:.3g})", factor, live) for (factor, live), numbers in ordered]
    title = f"{type(run.optimizer).__name__}: learning rate of {len(run.blocks)} blocks"
    return draw_plan(run.plan, steps, blocks, title, run.steps_per_epoch, path)


def _spans(numbers: Iterable[int]) -> str:
    """Block numbers in short: [0, 1, 2, 5] → "0-2, 5"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in spans)
