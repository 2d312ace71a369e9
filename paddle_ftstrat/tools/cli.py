"""The console script `ftstrat`, and what its arguments name: strategies in files and scripts, makers of models."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors, _files, strategies
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.averaging import AVERAGES
from paddle_ftstrat.optim.perturbation import PERTURBATIONS
from paddle_ftstrat.optim.table import OptimizerRow
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.tasks.config import RunConfig
from paddle_ftstrat.tools import explain, lint
from paddle_ftstrat.tools.compare import compare
from paddle_ftstrat.tools.migrate import command
from paddle_ftstrat.tools.outline import Outline, outline

_LISTED = "the strategies, schedules, averages, perturbations and optimizers there are"

_FILES = (".yaml", ".yml", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ftstrat", description="Fine-tuning strategies for PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help=_LISTED).set_defaults(run=list_all)
    of_plan = [_plan_arguments()]
    what = "what a strategy will do, in words and as a table, and what is probably not meant"
    explaining = commands.add_parser("explain", help=what, description=what.capitalize() + ".", parents=of_plan)
    explaining.add_argument("--strict", action="store_true", help="exit code 1 where something is probably not meant")
    explaining.set_defaults(run=run_explain)
    what, image = "draw the learning rate of every block over the training", "image to write (.png, .svg, .pdf)"
    plotting = commands.add_parser("plot", help=what, description=what.capitalize() + ".", parents=of_plan)
    plotting.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=image)
    plotting.set_defaults(run=run_plot)
    what = "train with each strategy on the same seeds, and tell by how much each is better than the first"
    comparing = commands.add_parser("compare", help=what, description=what.capitalize() + ".")
    _compare_arguments(comparing)
    comparing.set_defaults(run=run_compare)
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
        "averages": (("name", "what it does"), [(name, _first_line(cls)) for name, cls in AVERAGES.items()]),
        "perturbations": (("name", "what it does"), [(name, _first_line(cls)) for name, cls in PERTURBATIONS.items()]),
        "optimizers": (
            ("optimizer", "aliases", "class", "options", "own decay", "LR ×", "sparse", "note"),
            [_optimizer_row(row) for row in table.ROWS.values()],
        ),
    }
    for title, (headings, rows) in sections.items():
        print(title, description.table(headings, rows, width), "", sep="\n")
    return 0


def _refusing(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command whose refusals are one line on stderr and exit code 2."""

    @functools.wraps(run)
    def refusing(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (ValueError, TypeError, OSError, ImportError) as error:
            print(f"ftstrat {arguments.command}: {error}", file=sys.stderr)
            return 2

    return refusing


@_refusing
def run_explain(arguments: argparse.Namespace) -> int:
    """Print the explanation; returns the exit code."""
    laid_out = _laid_out(arguments)
    findings = lint.check(laid_out)
    print(explain.explain(laid_out, findings))
    return 2 if laid_out.failed else 1 if arguments.strict and findings else 0


@_refusing
def run_plot(arguments: argparse.Namespace) -> int:
    """Draw the picture; returns the exit code."""
    explain.draw(_laid_out(arguments), arguments.output)
    print(f"drawn: {arguments.output}")
    return 0


@_refusing
def run_compare(arguments: argparse.Namespace) -> int:
    """Do the runs that are not done yet, print the table, write it and its picture; returns the exit code."""
    named = {short_name(one): find_strategy(one, arguments.trust) for one in arguments.strategies}
    if len(named) < len(arguments.strategies):
        raise ValueError(f"two strategies go by the same name: {', '.join(arguments.strategies)}")
    folder = arguments.output
    found = compare(
        {name: one.strategy for name, one in named.items()},
        find_function(arguments.learner),
        arguments.epochs,
        arguments.seeds,
        arguments.lr or (),
        arguments.choosing,
        arguments.metric,
        folder / "runs.jsonl",
    )
    print(found)
    with _files.replacing(folder / "comparison.json") as file:
        file.write(json.dumps(found.to_dict(), indent=1).encode())
    if importlib.util.find_spec("matplotlib"):
        found.plot(folder / "comparison.png")
    return 0


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    factory = "script.py:NAME or package.module:NAME of the function (seed) that makes a Learner; that code is run"
    add("learner", metavar="MODULE:FUNCTION", help=factory)
    where = "strategy files, or script.py:NAME or package.module:NAME of strategies; the first is compared with"
    add("strategies", metavar="STRATEGY", nargs="+", help=where)
    add("--epochs", type=int, required=True, metavar="E", help="epochs of each run")
    add("--seeds", type=int, default=5, metavar="N", help="runs of each strategy that count (5)")
    add("--lr", type=float, action="append", metavar="LR", help="a learning rate to choose from; repeatable")
    add("--choosing", type=int, default=1, metavar="N", help="runs of each learning rate that choose (1)")
    add("--metric", metavar="NAME", help="the score (the Learner's first metric, else the loss)")
    results = "folder of the results (comparison)"
    add("-o", "--output", type=Path, default=Path("comparison"), metavar="DIR", help=results)
    add("--trust", action="store_true", help="import the modules of other classes that the strategy files name")


def _plan_arguments() -> argparse.ArgumentParser:
    """What `explain` and `plot` take both."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    where = "strategy.yaml (or .json), or script.py:NAME or package.module:NAME of a strategy or RunConfig"
    add("strategy", metavar="STRATEGY", help=where)
    add("--steps", type=int, required=True, metavar="N", help="updates of the whole training")
    add("--epochs", type=int, metavar="E", help="number of epochs (a RunConfig's own, else 1)")
    factory = (
        "package.module:NAME or script.py:NAME of a model or of a function that returns one, or a pair "
        "(model, sample input), which shows the order of its layers"
    )
    add("--model", metavar="MODULE:FACTORY", help=factory)
    add("--pretrained", action="append", metavar="GLOB", help="parameters that L2SP anchors; repeatable")
    add("--no-decay", action="append", metavar="GLOB", help="parameters that decay skips; repeatable")
    add("--trust", action="store_true", help="import the modules of other classes that a strategy file names")
    return parser


def _laid_out(arguments: argparse.Namespace) -> Outline:
    steps = _errors.check_whole("--steps", arguments.steps, minimum=1)
    named = find_strategy(arguments.strategy, arguments.trust)
    given = arguments.epochs if arguments.epochs is not None else named.epochs or 1
    epochs = _errors.check_whole("--epochs", given, minimum=1)
    if epochs > steps:
        raise ValueError(f"--epochs {epochs} needs at least as many updates, but --steps is {steps}")
    model, sample = find_model(arguments.model) if arguments.model else (None, None)
    return outline(
        named.strategy, steps, epochs, model, sample, pretrained=arguments.pretrained, no_decay=arguments.no_decay
    )


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


@dataclass(frozen=True)
class Named:
    """A strategy, and the number of epochs where a RunConfig named it."""

    strategy: DefaultStrategy
    epochs: int | None = None


def find_strategy(target: str, trust: bool = False) -> Named:
    """The strategy that the command line names.

    Args:
        target: a `.yaml` or `.json` file, or `script.py:NAME` or `package.module:NAME`, where NAME is a strategy, a
            RunConfig, or a function or class that makes one without arguments. The script is run, but not as
            `__main__`.
        trust: whether a file may name classes outside this library, whose modules are imported then.

    Raises:
        ValueError: no such name, with the nearest one that is a strategy.
        TypeError: it is something else.
        FileNotFoundError: no such file.
    """
    if Path(target).suffix.lower() in _FILES:
        return Named(DefaultStrategy.from_yaml(Path(target), trust))
    found = _find(target, (DefaultStrategy, RunConfig), "a strategy file (.yaml, .json) or script.py:NAME")
    if callable(found):
        found = found()
    if isinstance(found, RunConfig):
        return Named(found.strategy, found.num_epoch)
    if not isinstance(found, DefaultStrategy):
        raise TypeError(f"{target} is neither a strategy nor a RunConfig, but of type {type(found).__name__}")
    return Named(found)


def short_name(target: str) -> str:
    """What a strategy is called by: its file's name without ending, or NAME.

    Example:
        >>> short_name("strategies/one_cycle.yaml"), short_name("study.py:constant")
        ('one_cycle', 'constant')
    """
    path = Path(target)
    return path.stem if path.suffix.lower() in _FILES else target.rpartition(":")[2]


def find_model(target: str) -> tuple[nn.Layer, Any]:
    """The model that the command line names, and a sample input for it or None.

    Args:
        target: `package.module:NAME` or `script.py:NAME`; NAME is a model, a pair (model, sample input), or a function
            or class that makes one of these without arguments.

    Raises:
        ValueError: no such name.
        TypeError: it is no model.
        FileNotFoundError: no such file.
    """
    found = _find(target, (nn.Layer,), "package.module:factory")
    if callable(found) and not isinstance(found, nn.Layer):
        found = found()
    model, sample = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Layer):
        raise TypeError(f"{target} gives no paddle.nn.Layer, but {type(model).__name__}")
    return model, sample


def find_function(target: str) -> Callable[..., Any]:
    """The function that the command line names, as `package.module:NAME` or `script.py:NAME`.

    Raises:
        ValueError: no such name.
        TypeError: it is no function.
        FileNotFoundError: no such file.
    """
    found = _find(target, (FunctionType,), "package.module:function or script.py:function")
    if not callable(found):
        raise TypeError(f"{target} is no function, but of type {type(found).__name__}")
    return found


def _find(target: str, kinds: Sequence[type], expected: str) -> Any:
    place, colon, name = target.rpartition(":")
    if not (colon and name and place):
        raise ValueError(f"{target!r} is not {expected}")
    module = _run_script(Path(place)) if place.endswith(".py") else _imported(place)
    if not hasattr(module, name):
        fitting = [key for key, value in vars(module).items() if isinstance(value, tuple(kinds))]
        fitting = fitting or [key for key in vars(module) if not key.startswith("_")]
        raise ValueError(_errors.unknown(f"name in {place}", name, fitting))
    return getattr(module, name)


def _imported(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ValueError(f"there is no module {name!r}, looking from {Path.cwd()}") from error
        raise


def _run_script(path: Path) -> Any:
    """The script as a module, with its own folder importable, as when Python runs it."""
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    name = path.stem if path.stem not in sys.modules else f"_ftstrat_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be run as a Python script")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


if __name__ == "__main__":
    sys.exit(main())
