"""The console script `ftstrat`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from paddle_ftstrat import strategies
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.table import OptimizerRow
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.tools import plan_commands
from paddle_ftstrat.tools.migrate import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ftstrat", description="Fine-tuning strategies for PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the strategies, schedules and optimizers there are").set_defaults(run=list_all)
    plan_commands.add_explain_arguments(commands.add_parser("explain", help=plan_commands.EXPLAIN_HELP))
    plan_commands.add_plot_arguments(commands.add_parser("plot", help=plan_commands.PLOT_HELP))
    command.add_arguments(commands.add_parser("migrate", help=command.HELP))
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


def list_all(arguments: argparse.Namespace) -> int:
    """Print the strategies, the schedules and the optimizer table."""
    width = shutil.get_terminal_size((140, 24)).columns if sys.stdout.isatty() else 140
    known = {name: getattr(strategies, name) for name in strategies.__all__ if name.endswith("Strategy")}
    sections = {
        "strategies": (("name", "what it does"), [(name, _first_line(cls)) for name, cls in known.items()]),
        "schedules": (("name", "LR at update t"), [(name, _first_line(build)) for name, build in SCHEDULES.items()]),
        "optimizers": (
            ("optimizer", "aliases", "class", "options", "own decay", "LR ×", "sparse", "note"),
            [_optimizer_row(row) for row in table.ROWS.values()],
        ),
    }
    for title, (headings, rows) in sections.items():
        print(title, description.table(headings, rows, width), "", sep="\n")
    return 0


def _optimizer_row(row: OptimizerRow) -> tuple[str, ...]:
    numbers = {name: value for name, value in row.defaults.items() if type(value) in (int, float)}
    return (
        row.name,
        ", ".join(row.aliases),
        row.cls.__name__ if row.cls else "-",
        " ".join(f"{name}={value:g}" for name, value in numbers.items()),
        row.decay,
        "yes" if row.multiplier else "no",
        "yes" if row.sparse else "no",
        row.refused or ("" if row.cls else "not in this Paddle"),
    )


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
