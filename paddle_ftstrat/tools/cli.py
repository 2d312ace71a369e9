"""The console script `ftstrat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from paddle_ftstrat.finetune import strategy
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.table import OptimizerRow
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.tools import plan_commands
from paddle_ftstrat.tools.migrate import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ftstrat", description="Fine-tuning strategies for PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the strategies, curves and optimizers there are").set_defaults(run=list_all)
    plan_commands.add_explain_arguments(commands.add_parser("explain", help=plan_commands.EXPLAIN_HELP))
    plan_commands.add_plot_arguments(commands.add_parser("plot", help=plan_commands.PLOT_HELP))
    command.add_arguments(commands.add_parser("migrate", help=command.HELP))
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


def list_all(arguments: argparse.Namespace) -> int:
    """Print the strategies, the curves and the optimizer table."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    strategies = [getattr(strategy, name) for name in strategy.__all__]
    _print(console, "strategies", ("name", "what it does"), [(cls.__name__, _first_line(cls)) for cls in strategies])
    curves = [(name, _first_line(build)) for name, build in SCHEDULES.items()]
    _print(console, "LR curves", ("name", "what it does"), curves)
    headings = ("optimizer", "aliases", "class", "options", "own decay", "LR ×", "sparse", "note")
    _print(console, "optimizers", headings, [_optimizer_row(row) for row in table.ROWS.values()])
    return 0


def _optimizer_row(row: OptimizerRow) -> tuple[str, ...]:
    note = row.refused or ("" if row.cls else "not in this Paddle")
    return (
        row.name,
        ", ".join(row.aliases),
        row.cls.__name__ if row.cls else "-",
        _options(row),
        row.decay,
        "yes" if row.multiplier else "no",
        "yes" if row.sparse else "no",
        note,
    )


def _options(row: OptimizerRow) -> str:
    """The numbers a strategy may give the optimizer, with their defaults."""
    numbers = {name: value for name, value in row.defaults.items() if type(value) in (int, float)}
    return " ".join(f"{name}={value:g}" for name, value in numbers.items())


def _print(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    console.print()


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
