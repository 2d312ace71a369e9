"""The console script `ftstrat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ftstrat", description="Fine-tuning strategies for PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the strategies, curves and optimizers there are").set_defaults(run=list_all)
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


def list_all(arguments: argparse.Namespace) -> int:
    """Print the strategies, the curves and the optimizer table."""
    from paddle_ftstrat.finetune import strategy
    from paddle_ftstrat.optim import table
    from paddle_ftstrat.schedules.curves import CURVES

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    strategies = [getattr(strategy, name) for name in strategy.__all__]
    _print(console, "strategies", ("name", "what it does"), [(cls.__name__, _first_line(cls)) for cls in strategies])
    curves = [(name, _first_line(build)) for name, build in CURVES.items()]
    _print(console, "LR curves", ("name", "what it does"), curves)
    headings = ("optimizer", "aliases", "class", "weight decay", "LR multiplier", "sparse gradients", "note")
    _print(console, "optimizers", headings, [_optimizer_row(row) for row in table.ROWS.values()])
    return 0


def _optimizer_row(row: object) -> tuple[str, ...]:
    note = row.refused or ("" if row.cls else "not in this Paddle")
    return (
        row.name,
        ", ".join(row.aliases),
        row.cls.__name__ if row.cls else "-",
        row.decay,
        "yes" if row.multiplier else "no",
        "yes" if row.sparse else "no",
        note,
    )


def _print(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
