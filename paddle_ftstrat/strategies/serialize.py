"""Strategies as plain data: to and from a dict, YAML and JSON, with unknown keys refused."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle_ftstrat import _errors, _files
from paddle_ftstrat.optim import table
from paddle_ftstrat.strategies import plain_text

SECTIONS = ("scheduler", "regularization", "clip")
# What every strategy takes, and hands on to the base of all.
MEMBERS = ("averaging", "perturbation")
_ADD = {"scheduler": "add_scheduler", "regularization": "add_regularization", "clip": "add_clip"}
_PACKAGE = __name__.partition(".")[0] + "."
_OPEN_ENDED = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class Serializable:
    """What makes a strategy plain data: it keeps the arguments that it was built with."""

    _given: Mapping[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A strategy that knows what it was given, before any constructor changes that."""
        self = super().__new__(cls)
        self._given = _copied(_bound(cls, args, kwargs))
        return self

    def to_dict(self) -> dict[str, Any]:
        """The strategy as a dict: `strategy`, its class, and the arguments it was given.

        What `add_scheduler`, `add_regularization` and `add_clip` changed since stands under `scheduler`,
        `regularization` and `clip`, for the presets too. An optimizer class is written as "module:Class".

        Raises:
            ValueError: something that plain data cannot say: a class defined inside a function, an option that is an
                object.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.ULMFiTStrategy(learning_rate=1e-3, frz_blocks=0).add_clip("Norm", 2.0).to_dict()
            {'strategy': 'ULMFiTStrategy', 'learning_rate': 0.001, 'frz_blocks': 0, 'clip': {'Norm': 2.0}}
        """
        if self._given is None:
            raise ValueError(f"{type(self).__name__} takes *args, which have no names to be written under")
        written = {"strategy": _strategy_name(type(self))}
        for key, value in {**self._given, **_changed(self, type(self)(**_copied(self._given)))}.items():
            written[key] = _written(key, value)
        return written

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The strategy as YAML, written to `path` where one is given.

        Raises:
            ImportError: PyYAML is not installed.
            ValueError: as for `to_dict`.

        Example:
            >>> import paddle_ftstrat as hub
            >>> print(hub.DefaultStrategy(learning_rate=0.1, optimizer_name="sgd").to_yaml(), end="")
            strategy: DefaultStrategy
            learning_rate: 0.1
            optimizer_name: sgd
        """
        text = plain_text.yaml().safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        if path is not None:
            with _files.replacing(path) as file:
                file.write(text.encode("utf-8"))
        return text

    @classmethod
    @_errors.short_messages()
    def from_dict(cls, given: Mapping[str, Any], trust: bool = False) -> Any:
        """The strategy that a dict describes; the inverse of `to_dict`.

        Args:
            given: `strategy`, a class of this library or "module:Class", and arguments of its constructor, among them
                options of the optimizer. `scheduler`, `regularization` and `clip` are added to a preset's own.
            trust: import what "module:Class" names outside this library, which runs that module. Default: refuse it.

        Raises:
            ValueError: an unknown class or key (with the nearest known one), a value out of range, a class that is not
                one of the class that was asked, or code of others without `trust`.
            TypeError: not a dict, or a value of the wrong type.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.DefaultStrategy.from_dict({"strategy": "L2SPFinetuneStrategy", "regularization_coeff": 0.01})
            L2SPFinetuneStrategy(optimizer 'adam', learning_rate 0.0001, L2SP 0.01)
        """
        if not isinstance(given, Mapping):
            raise TypeError(f"a strategy is a dict with the key 'strategy', not {_of_type(given)}")
        entries = {str(key): _copied(value) for key, value in given.items()}
        built = _strategy_class(entries, cls, trust)
        optimizer = entries.get("optimizer_name")
        if isinstance(optimizer, str) and ":" in optimizer:
            known = [row.cls for row in table.ROWS.values() if row.cls is not None]
            entries["optimizer_name"] = _class_of_name(optimizer, "optimizer_name", known, trust)
        _check_keys(built, entries)
        later = {name: entries.pop(name) for name in SECTIONS if name in entries and name not in _own_arguments(built)}
        strategy = built(**entries)
        for section, values in later.items():
            if not isinstance(values, Mapping):
                raise TypeError(f"{section} must be a dict, not {_of_type(values)}")
            for key, value in values.items():
                getattr(strategy, _ADD[section])(key, value)
        return strategy

    @classmethod
    @_errors.short_messages()
    def from_yaml(cls, path_or_text: str | Path, trust: bool = False) -> Any:
        """The strategy that a YAML or JSON file, or such a text, describes.

        Args:
            path_or_text: a path, or the text itself: what has a line break or a `:` and names no file.
            trust: as for `from_dict`.

        Raises:
            FileNotFoundError: no such file.
            ImportError: PyYAML is not installed; a `.json` file does without.
            ValueError, TypeError: text that is no YAML, a key that occurs twice, more than a strategy needs (200,000
                bytes, 10,000 entries, values of 1,000 characters), no regular file, and all that `from_dict` refuses.

        Example:
            >>> import paddle_ftstrat as hub
            >>> hub.DefaultStrategy.from_yaml("strategy: DefaultFinetuneStrategy\\nlearning_rate: 1e-3")
            DefaultFinetuneStrategy(optimizer 'adam', learning_rate 0.001, L2 0.001)
        """
        return cls.from_dict(plain_text.read(path_or_text), trust)


def strategy_from_dict(given: Mapping[str, Any], trust: bool = False) -> Any:
    """The strategy that a dict describes (see `DefaultStrategy.from_dict`).

    Args:
        given: `strategy`, its class, and arguments of its constructor.
        trust: import what "module:Class" names outside this library.

    Raises:
        ValueError, TypeError: as for `DefaultStrategy.from_dict`.

    Example:
        >>> import paddle_ftstrat as hub
        >>> strategy = hub.ULMFiTStrategy(learning_rate=1e-3)
        >>> strategy_from_dict(strategy.to_dict()).scheduler == strategy.scheduler
        True
    """
    return Serializable.from_dict(given, trust)


def strategy_from_yaml(path_or_text: str | Path, trust: bool = False) -> Any:
    """The strategy that a YAML or JSON file or text describes (see `DefaultStrategy.from_yaml`).

    Args:
        path_or_text: a path, or the text itself.
        trust: import what "module:Class" names outside this library.

    Raises:
        FileNotFoundError, ImportError, ValueError, TypeError: as for `DefaultStrategy.from_yaml`.

    Example:
        >>> strategy_from_yaml("{strategy: DefaultStrategy, optimizer_name: sgd}")
        DefaultStrategy(optimizer 'sgd', learning_rate 0.0001)
    """
    return Serializable.from_yaml(path_or_text, trust)


def _of_type(value: Any) -> str:
    return f"{_errors.shown(value)} of type {type(value).__name__}"


def _copied(value: Any) -> Any:
    """A value whose dicts and lists are its own."""
    if isinstance(value, Mapping):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value


def _bound(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Argument → value as given; None where some have no name. A call that does not fit is for __init__ to refuse."""
    signature = inspect.signature(cls.__init__)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return {}
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        given.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return given


def _changed(strategy: Any, fresh: Any) -> dict[str, Any]:
    """Argument → value for what differs from a strategy that the arguments alone make."""
    changed: dict[str, Any] = {
        name: getattr(strategy, name)
        for name in ("learning_rate", "optimizer_name")
        if getattr(strategy, name) != getattr(fresh, name)
    }
    given = fresh.optimizer_options
    changed.update({k: v for k, v in strategy.optimizer_options.items() if k not in given or given[k] != v})
    for section in SECTIONS:
        before = getattr(fresh, section, {})
        entries = {key: value for key, value in getattr(strategy, section, {}).items() if value != before[key]}
        if section == "regularization" and _decay_given(strategy) and not _decay_given(fresh):
            entries["weight_decay"] = strategy.regularization["weight_decay"]
        if entries:
            changed[section] = {**(strategy._given.get(section) or {}), **entries}
    return changed


def _decay_given(strategy: Any) -> bool:
    """Whether a weight decay was asked for: one of 0 switches off an optimizer's own, none leaves it alone."""
    return getattr(strategy, "_weight_decay_given", False)


def _written(key: str, value: Any) -> Any:
    if isinstance(value, type):
        return _class_name(value, key)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value):
        # A phase or what ends one: what is not at its default.
        fields = [field for field in dataclasses.fields(value) if getattr(value, field.name) != field.default]
        value = {field.name: getattr(value, field.name) for field in fields}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, Mapping):
        return {str(name): _written(f"{key}.{name}", entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(f"{key}[{index}]", entry) for index, entry in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    raise ValueError(
        f"{key}={_errors.shown(value)} cannot be written as plain data; say it with numbers, names and dicts (a clip "
        "under 'clip', a regularizer under 'regularization')"
    )


def _strategy_name(cls: type) -> str:
    return cls.__name__ if cls.__module__.startswith(_PACKAGE) else _class_name(cls, "strategy")


def _class_name(cls: type, key: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise ValueError(f"{key}: {cls.__qualname__} is defined inside a function, where no file can find it again")
    return f"{cls.__module__}:{cls.__qualname__}"


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _strategy_class(entries: dict[str, Any], asked: type, trust: bool) -> type:
    """The class that the key `strategy`, which is taken out of the entries, names."""
    own = {cls.__name__: cls for cls in _subclasses(Serializable) if cls.__module__.startswith(_PACKAGE)}
    name = entries.pop("strategy", None)
    if name is None:
        hint = _errors.nearest("strategy", entries)
        meant = f" (is {hint!r} meant to be it?)" if hint else ""
        raise ValueError(f"the key 'strategy' is missing{meant}: it names the class, one of {_errors.listing(own)}")
    if not isinstance(name, str):
        raise TypeError(f"strategy must be the name of a class, not {_of_type(name)}")
    found = _class_of_name(name, "strategy", own.values(), trust) if ":" in name else own.get(name)
    if found is None:
        raise ValueError(_errors.unknown("strategy", name, own))
    if not (isinstance(found, type) and issubclass(found, Serializable)):
        raise TypeError(f"strategy {_errors.shown(name)} is not a strategy class")
    if not issubclass(found, asked):
        raise ValueError(f"the dict describes a {found.__name__}, which is not a {asked.__name__}")
    return found


def _class_of_name(name: str, key: str, known: Iterable[type], trust: bool) -> Any:
    """What "module:Class" names: a known class, or with `trust` what the import of the module gives."""
    for cls in known:
        if name == f"{cls.__module__}:{cls.__qualname__}":
            return cls
    if not trust:
        raise ValueError(
            f"{key} {_errors.shown(name)} is code outside this library, and importing it would run it; if whoever "
            "wrote the file is trusted, say trust=True (on the command line --trust)"
        )
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key} {_errors.shown(name)} cannot be found as module:Class: {error}") from error
    return found


def _own_arguments(cls: type) -> list[str]:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind not in _OPEN_ENDED]


def _check_keys(cls: type, entries: Mapping[str, Any]) -> None:
    """Refuse a key that is neither an argument of the class, nor a section, nor an option of the optimizer.

    A user's own class may hand on what it likes; what arrives in `DefaultStrategy` is checked there.
    """
    if not cls.__module__.startswith(_PACKAGE):
        return
    row = table.find(entries.get("optimizer_name", "adam"))
    allowed = [*_own_arguments(cls), *MEMBERS, *(SECTIONS if hasattr(cls, "add_scheduler") else ())]
    for key in entries:
        if key in allowed:
            continue
        try:
            table.check_options(row, {key: None})
        except ValueError:
            names = dict.fromkeys(["strategy", *allowed, *row.defaults])
            raise ValueError(_errors.unknown(f"key of {cls.__name__}", key, names)) from None
