"""`ftstrat explain` and `ftstrat plot`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.integrations import pictures
from paddle_ftstrat.tools import lint, targets
from paddle_ftstrat.tools.explain import block_label, explain
from paddle_ftstrat.tools.outline import Outline, outline

EXPLAIN_HELP = "what a strategy will do, in words and as a table, and what is probably not meant"
PLOT_HELP = "draw the learning rate of every block over the training"
_TARGET_HELP = "strategy.yaml (or .json), or script.py:NAME or package.module:NAME of a strategy or RunConfig"


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ftstrat explain`."""
    _add_common(parser)
    parser.description = EXPLAIN_HELP[0].upper() + EXPLAIN_HELP[1:] + "."
    parser.add_argument("--strict", action="store_true", help="exit code 1 where something is probably not meant")
    parser.set_defaults(run=_reporting("explain", run_explain))


def add_plot_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ftstrat plot`."""
    _add_common(parser)
    parser.description = PLOT_HELP[0].upper() + PLOT_HELP[1:] + "."
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="image to write (.png, .svg, .pdf)"
    )
    parser.set_defaults(run=_reporting("plot", run_plot))


def run_explain(arguments: argparse.Namespace) -> int:
    """Print the explanation; returns the exit code."""
    laid_out = _laid_out(arguments)
    findings = lint.check(laid_out)
    print(explain(laid_out, findings))
    return 2 if laid_out.failed else 1 if arguments.strict and findings else 0


def run_plot(arguments: argparse.Namespace) -> int:
    """Draw the picture; returns the exit code."""
    draw(_laid_out(arguments), arguments.output)
    print(f"drawn: {arguments.output}")
    return 0


def draw(outline: Outline, path: Any = None) -> Any:
    """Draw the LR of every block over the updates; returns the matplotlib figure.

    Args:
        outline: the strategy over its training.
        path: image file to write; None only returns the figure.

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


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("strategy", metavar="STRATEGY", help=_TARGET_HELP)
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="updates of the whole training")
    parser.add_argument("--epochs", type=int, metavar="E", help="number of epochs (a RunConfig's own, else 1)")
    parser.add_argument(
        "--model",
        metavar="MODULE:FACTORY",
        help="package.module:NAME or script.py:NAME of a model or of a function that returns one, or a pair "
        "(model, sample input), which shows the order of its layers",
    )
    parser.add_argument(
        "--pretrained", action="append", metavar="GLOB", help="parameters that L2SP anchors; repeatable"
    )
    parser.add_argument(
        "--trust", action="store_true", help="import the modules of other classes that a strategy file names"
    )
    parser.add_argument("--no-decay", action="append", metavar="GLOB", help="parameters that decay skips; repeatable")


def _laid_out(arguments: argparse.Namespace) -> Outline:
    steps = _errors.check_whole("--steps", arguments.steps, minimum=1)
    named = targets.find_strategy(arguments.strategy, arguments.trust)
    given = arguments.epochs if arguments.epochs is not None else named.epochs or 1
    epochs = _errors.check_whole("--epochs", given, minimum=1)
    if epochs > steps:
        raise ValueError(f"--epochs {epochs} needs at least as many updates, but --steps is {steps}")
    model, sample = targets.find_model(arguments.model) if arguments.model else (None, None)
    return outline(
        named.strategy, steps, epochs, model, sample, pretrained=arguments.pretrained, no_decay=arguments.no_decay
    )


def _reporting(name: str, run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command whose refusals are one line on stderr and exit code 2."""

    def reported(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (ValueError, TypeError, OSError, ImportError) as error:
            print(f"ftstrat {name}: {error}", file=sys.stderr)
            return 2

    return reported
