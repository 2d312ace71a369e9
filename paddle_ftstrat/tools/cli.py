"""The console script `ftstrat`, and what its arguments name: strategies in files and scripts, makers of models."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors, _files, strategies
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.averaging import AVERAGES
from paddle_ftstrat.optim.perturbation import PERTURBATIONS
from paddle_ftstrat.param_attr import description
from paddle_ftstrat.schedules import SCHEDULES
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.tasks.config import RunConfig
from paddle_ftstrat.tools import explain, lint
from paddle_ftstrat.tools.compare import compare
from paddle_ftstrat.tools.migrate import command
from paddle_ftstrat.tools.outline import Outline, outline

_FILES = (".yaml", ".yml", ".json")
_Run = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code, 2 with one line on stderr where it refuses."""
    parser = argparse.ArgumentParser(prog="ftstrat", description="Fine-tuning strategies for PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: _Run, what: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=what.capitalize() + ".", parents=parents)
        made.set_defaults(run=run)
        return made

    add("list", list_all, "the strategies, schedules, averages, perturbations and optimizers there are")
    of_plan = argparse.ArgumentParser(add_help=False)
    _plan_arguments(of_plan.add_argument)
    what = "what a strategy will do, in words and as a table, and what is probably not meant"
    strict = "exit code 1 where something is probably not meant"
    add("explain", run_explain, what, of_plan).add_argument("--strict", action="store_true", help=strict)
    what, image = "draw the learning rate of every block over the training", "image to write (.png, .svg, .pdf)"
    plotting = add("plot", run_plot, what, of_plan)
    plotting.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=image)
    what = "train with each strategy on the same seeds, and tell by how much each is better than the first"
    _compare_arguments(add("compare", run_compare, what).add_argument)
    command.add_arguments(commands.add_parser("migrate", help=command.HELP))
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"ftstrat {arguments.command}: {error}", file=sys.stderr)
        return 2


def list_all(arguments: argparse.Namespace) -> int:
    """Print the strategies, the schedules and the optimizer table."""
    width = shutil.get_terminal_size((140, 24)).columns if sys.stdout.isatty() else 140
    known = {name: getattr(strategies, name) for name in strategies.__all__ if name.endswith("Strategy")}
    sections: dict[str, Mapping[str, object]] = {
        "strategies": known,
        "schedules": SCHEDULES,
        "averages": AVERAGES,
        "perturbations": PERTURBATIONS,
    }
    for title, things in sections.items():
        columns = ("name", "LR at update t" if title == "schedules" else "what it does")
        rows = [(name, (thing.__doc__ or "").strip().splitlines()[0]) for name, thing in things.items()]
        print(title, description.table(columns, rows, width), "", sep="\n")
    headings = ("optimizer", "aliases", "class", "options", "own decay", "LR ×", "sparse", "note")
    optimizers = [
        (
            row.name,
            ", ".join(row.aliases),
            row.cls.__name__ if row.cls else "-",
            " ".join(f"{name}={value:g}" for name, value in row.defaults.items() if type(value) in (int, float)),
            row.decay,
            "yes" if row.multiplier else "no",
            "yes" if row.sparse else "no",
            row.refused or ("" if row.cls else "not in this Paddle"),
        )
        for row in table.ROWS.values()
    ]
    print("optimizers", description.table(headings, optimizers, width), "", sep="\n")
    return 0


def run_explain(arguments: argparse.Namespace) -> int:
    """Print the explanation; returns the exit code."""
    laid_out = _laid_out(arguments)
    findings = lint.check(laid_out)
    print(explain.explain(laid_out, findings))
    return 2 if laid_out.failed else 1 if arguments.strict and findings else 0


def run_plot(arguments: argparse.Namespace) -> int:
    """Draw the picture; returns the exit code."""
    explain.draw(_laid_out(arguments), arguments.output)
    print(f"drawn: {arguments.output}")
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    """Do the runs that are not done yet, print the table, write it and its picture; returns the exit code."""
    named = {short_name(one): find_strategy(one, arguments.trust)[0] for one in arguments.strategies}
    if len(named) < len(arguments.strategies):
        raise ValueError(f"two strategies go by the same name: {', '.join(arguments.strategies)}")
    make_learner = _find(arguments.learner, FunctionType, "package.module:function or script.py:function")
    if not callable(make_learner):
        raise TypeError(f"{arguments.learner} is no function, but of type {type(make_learner).__name__}")
    folder, lrs = arguments.output, arguments.lr or ()
    counts = (arguments.epochs, arguments.seeds, lrs, arguments.choosing)
    found = compare(named, make_learner, *counts, arguments.metric, folder / "runs.jsonl")
    print(found)
    with _files.replacing(folder / "comparison.json") as file:
        file.write(json.dumps(found.to_dict(), indent=1).encode())
    if importlib.util.find_spec("matplotlib"):
        found.plot(folder / "comparison.png")
    return 0


def _compare_arguments(add: Callable[..., Any]) -> None:
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


def _plan_arguments(add: Callable[..., Any]) -> None:
    """What `explain` and `plot` take both."""
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


def _laid_out(arguments: argparse.Namespace) -> Outline:
    steps = _errors.check_whole("--steps", arguments.steps, minimum=1)
    strategy, epochs = find_strategy(arguments.strategy, arguments.trust)
    given = arguments.epochs if arguments.epochs is not None else epochs or 1
    epochs = _errors.check_whole("--epochs", given, minimum=1)
    if epochs > steps:
        raise ValueError(f"--epochs {epochs} needs at least as many updates, but --steps is {steps}")
    model, sample = find_model(arguments.model) if arguments.model else (None, None)
    asked = {"pretrained": arguments.pretrained, "no_decay": arguments.no_decay}
    return outline(strategy, steps, epochs, model, sample, **asked)


def find_strategy(target: str, trust: bool = False) -> tuple[DefaultStrategy, int | None]:
    """The strategy that the command line names, and the number of epochs where a RunConfig names it.

    `target` is a `.yaml` or `.json` file, or `script.py:NAME` or `package.module:NAME`, where NAME is a strategy, a
    RunConfig, or a function or class that makes one without arguments. A script is run, but not as `__main__`. With
    `trust` a file may name classes outside this library, whose modules are imported then.

    Raises:
        ValueError: no such name, with the nearest one that is a strategy.
        TypeError: it is something else.
        FileNotFoundError: no such file.
    """
    if Path(target).suffix.lower() in _FILES:
        return DefaultStrategy.from_yaml(Path(target), trust), None
    found = _made(target, (DefaultStrategy, RunConfig), "a strategy file (.yaml, .json) or script.py:NAME")
    strategy, epochs = (found.strategy, found.num_epoch) if isinstance(found, RunConfig) else (found, None)
    if not isinstance(strategy, DefaultStrategy):
        raise TypeError(f"{target} is neither a strategy nor a RunConfig, but of type {type(found).__name__}")
    return strategy, epochs


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

    NAME is a model, a pair (model, sample input), or a function or class that makes one of these without arguments.

    Raises:
        ValueError: no such name.
        TypeError: it is no model.
        FileNotFoundError: no such file.
    """
    found = _made(target, nn.Layer, "package.module:factory")
    model, sample = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Layer):
        raise TypeError(f"{target} gives no paddle.nn.Layer, but {type(model).__name__}")
    return model, sample


def _made(target: str, kinds: Any, expected: str) -> Any:
    """What a name stands for, or what it makes."""
    found = _find(target, kinds, expected)
    return found() if callable(found) and not isinstance(found, kinds) else found


def _find(target: str, kinds: Any, expected: str) -> Any:
    place, colon, name = target.rpartition(":")
    if not (colon and name and place):
        raise ValueError(f"{target!r} is not {expected}")
    module = _run_script(Path(place)) if place.endswith(".py") else _imported(place)
    if not hasattr(module, name):
        fitting = [key for key, value in vars(module).items() if isinstance(value, kinds)]
        fitting = fitting or [key for key in vars(module) if not key.startswith("_")]
        raise ValueError(_errors.unknown(f"name in {place}", name, fitting))
    return getattr(module, name)


def _imported(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ValueError(f"there is no module {name!r}, looking from {Path.cwd()}") from error
        raise


def _run_script(path: Path) -> ModuleType:
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
