"""What the command line names: strategies in files, scripts and modules, and functions that build models."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat.strategies.combined import DefaultStrategy
from paddle_ftstrat.tasks.config import RunConfig

_FILES = (".yaml", ".yml", ".json")


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
