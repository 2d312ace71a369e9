"""One picture of a plan: the LR of every block over the updates, frozen stretches marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_ftstrat import _paddle
from paddle_ftstrat.resolve import Resolved


@dataclass(frozen=True)
class Line:
    """The LR of one block: a value per update, and the number of updates at the beginning in which it is frozen."""

    label: str
    lrs: np.ndarray
    frozen: int = 0


def pyplot() -> Any:
    """matplotlib's pyplot, or an error that says how to get it."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'paddle_ftstrat[plot]'") from error
    import sys

    if "matplotlib.pyplot" not in sys.modules and matplotlib.get_backend().lower() not in ("agg",):
        # Without a display a GUI backend would fail at the first figure; writing a file needs none.
        import os

        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and "MPLBACKEND" not in os.environ:
            matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_plan(lines: Sequence[Line], title: str, epoch_steps: int | None = None, path: Any = None) -> Any:
    """Draw the lines (top block first), write them to `path` if given, and return the matplotlib figure.

    Args:
        lines: one per block.
        title: over the picture.
        epoch_steps: updates per epoch, for the epoch marks; None leaves them out.
        path: file to write (its ending decides the format).

    Raises:
        ImportError: matplotlib is not installed.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 4.8), constrained_layout=True)
    steps = len(lines[0].lrs)
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(lines)))
    for line, colour in zip(lines, colours):
        t = np.arange(steps)
        live = t >= line.frozen
        axes.plot(t[live], line.lrs[live], color=colour, lw=2, label=line.label)
        if line.frozen:
            axes.plot(t[: line.frozen + 1], line.lrs[: line.frozen + 1], color=colour, lw=1, ls=":", alpha=0.7)
        if 0 < line.frozen < steps:
            axes.plot([line.frozen], line.lrs[line.frozen : line.frozen + 1], "o", color=colour, ms=6)
    if any(line.frozen for line in lines):
        axes.plot([], [], color="0.3", lw=1, ls=":", label="frozen (● thaws)")
    if epoch_steps and steps / epoch_steps <= 60:
        for epoch, start in enumerate(range(0, steps, epoch_steps), 1):
            axes.axvline(start, color="0.85", lw=0.8, zorder=0)
            above = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
            axes.annotate(f"{epoch}", (start, 1.0), **above, color="0.4", fontsize=8, ha="center")
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


def lines(rows: Sequence[Resolved], lrs: np.ndarray, steps_per_epoch: int | None) -> list[Line]:
    """The LRs of each block for a picture, top block first; blocks that look alike share a line."""
    merged: dict[tuple[float, int], list[int]] = {}
    for row in rows:
        frozen = len(lrs) if not row.own.trainable else (row.depth.first_epoch - 1) * (steps_per_epoch or 0)
        members = merged.setdefault((row.settings.learning_rate, frozen), [])
        if row.depth.block not in members:
            members.append(row.depth.block)
    ordered = sorted(merged.items(), key=lambda item: -max(item[1]))
    return [
        Line(f"block {_spans(blocks)} (×{factor:.3g})", lrs * factor, min(frozen, len(lrs)))
        for (factor, frozen), blocks in ordered
    ]


def plot(run: Any, rows: Sequence[Resolved], path: Any, steps: int | None) -> Any:
    """Draw the LR of every block of a binding over so many updates (see `Binding.plot`).

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `steps` is None.
    """
    if steps is None:
        raise ValueError("a plan without max_train_steps has no length to draw: give plot(steps=...)")
    lrs = np.asarray(run.plan.lr(np.arange(steps, dtype=np.float64)))
    title = f"{type(run.optimizer).__name__}: learning rate of {len(run.blocks)} blocks"
    return draw_plan(lines(rows, lrs, run.steps_per_epoch), title, run.steps_per_epoch, path)


def _spans(numbers: Sequence[int]) -> str:
    """Block numbers in short: [0, 1, 2, 5] → "0-2, 5"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in spans)
