"""Strategies as dicts, YAML and JSON: what is written of one, which class and keys a dict may name, safe reading."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.optim import table
from paddle_ftstrat.transfer.contents import Mapped

SECTIONS = ("scheduler", "regularization", "clip")
# What every strategy takes, and hands on to the base of all.
_MEMBERS = ("averaging", "perturbation")
_PACKAGE = __name__.partition(".")[0] + "."
_OPEN_ENDED = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_MAX_TEXT = 200_000
_MAX_ENTRIES = 10_000
_MAX_VALUE = 1_000
_TAG, _KINDS = "tag:yaml.org,2002:", ("null", "bool", "int", "float", "str", "seq", "map")


def changed(strategy: Any, fresh: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Argument → value for what differs from a fresh strategy, which the arguments that were given alone make."""
    found = {
        name: getattr(strategy, name)
        for name in ("learning_rate", "optimizer_name")
        if getattr(strategy, name) != getattr(fresh, name)
    }
    options = fresh.optimizer_options
    found.update({k: v for k, v in strategy.optimizer_options.items() if k not in options or options[k] != v})
    for section in SECTIONS:
        # Not the public dict, where a weight decay of 0 and none at all look the same.
        before = getattr(fresh, f"_{section}", {})
        now = getattr(strategy, f"_{section}", {})
        entries = {key: value for key, value in now.items() if key not in before or value != before[key]}
        if entries:
            found[section] = {**(given.get(section) or {}), **entries}
    return found


def written(key: str, value: Any) -> Any:
    """A value as plain data.

    Raises:
        ValueError: plain data cannot say it.
    """
    if isinstance(value, type):
        return _path_of(value, key)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value):
        # A phase or what ends one: what is not at its default.
        fields = [field for field in dataclasses.fields(value) if getattr(value, field.name) != field.default]
        value = {field.name: getattr(value, field.name) for field in fields}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, Mapping):
        return {str(name): written(f"{key}.{name}", entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(f"{key}[{index}]", entry) for index, entry in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    raise ValueError(
        f"{key}={_errors.shown(value)} cannot be written as plain data; say it with numbers, names and dicts (a clip "
        "under 'clip', a regularizer under 'regularization')"
    )


def name_of(cls: type) -> str:
    """What a strategy's class is called: by its name, or where it is not of this package as "module:Class"."""
    return cls.__name__ if cls.__module__.startswith(_PACKAGE) else _path_of(cls, "strategy")


def _path_of(cls: type, key: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise ValueError(f"{key}: {cls.__qualname__} is defined inside a function, where no file can find it again")
    return f"{cls.__module__}:{cls.__qualname__}"


def strategy_class(entries: dict[str, Any], base: type, trust: bool) -> type:
    """The class derived from `base` that the key `strategy`, which is taken out of the entries, names.

    Raises:
        ValueError, TypeError: there is no such key or class, or it is not to be trusted.
    """
    own = {cls.__name__: cls for cls in [base, *_subclasses(base)] if cls.__module__.startswith(_PACKAGE)}
    name = entries.pop("strategy", None)
    if name is None:
        hint = _errors.nearest("strategy", entries)
        meant = f" (is {hint!r} meant to be it?)" if hint else ""
        raise ValueError(f"the key 'strategy' is missing{meant}: it names the class, one of {_errors.listing(own)}")
    if not isinstance(name, str):
        raise TypeError(f"strategy must be the name of a class, not {_errors.shown_with_type(name)}")
    found = _class_at(name, "strategy", own.values(), trust) if ":" in name else own.get(name)
    if found is None:
        raise ValueError(_errors.unknown("strategy", name, own))
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"strategy {_errors.shown(name)} is not a strategy class")
    return found


def prepare(cls: type[Any], entries: dict[str, Any], trust: bool) -> dict[str, Mapping[str, Any]]:
    """Check the entries of a dict for a class, find their optimizer's, take out and return what is added later.

    A key may be an argument of the class, a section, or an option of the optimizer. A user's own class may hand on what
    it likes; what arrives in `DefaultStrategy` is checked there.

    Raises:
        ValueError, TypeError: another key, or an optimizer that does not exist or is not to be trusted.
    """
    optimizer = entries.get("optimizer_name", "adam")
    if isinstance(optimizer, str) and ":" in optimizer:
        known = [row.cls for row in table.ROWS.values() if row.cls is not None]
        optimizer = entries["optimizer_name"] = _class_at(optimizer, "optimizer_name", known, trust)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    own = [parameter.name for parameter in parameters if parameter.kind not in _OPEN_ENDED]
    if cls.__module__.startswith(_PACKAGE):
        row = table.find(optimizer)
        allowed = [*own, *_MEMBERS, *(SECTIONS if hasattr(cls, "add_scheduler") else ())]
        for key in entries:
            if key in allowed:
                continue
            try:
                table.check_options(row, {key: None})
            except ValueError:
                names = dict.fromkeys(["strategy", *allowed, *row.defaults])
                raise ValueError(_errors.unknown(f"key of {cls.__name__}", key, names)) from None
    later = {section: entries.pop(section) for section in SECTIONS if section in entries and section not in own}
    for section, values in later.items():
        if not isinstance(values, Mapping):
            raise TypeError(f"{section} must be a dict, not {_errors.shown_with_type(values)}")
    return later


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _class_at(path: str, key: str, known: Iterable[type], trust: bool) -> Any:
    """What "module:Class" names: a known class, or with `trust` what the import of the module gives."""
    for cls in known:
        if path == f"{cls.__module__}:{cls.__qualname__}":
            return cls
    if not trust:
        raise ValueError(
            f"{key} {_errors.shown(path)} is code outside this library, and importing it would run it; if whoever "
            "wrote the file is trusted, say trust=True (on the command line --trust)"
        )
    module, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in attributes.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key} {_errors.shown(path)} cannot be found as module:Class: {error}") from error
    return found


def is_text(path_or_text: str) -> bool:
    """Whether a string is text rather than the path of a file.

    Example:
        >>> is_text("strategy: DefaultStrategy"), is_text("strategy.yaml"), is_text("C:/strategy.yaml")
        (True, False, False)
    """
    if "\n" in path_or_text or len(path_or_text) > 4096:  # no system has longer paths
        return True
    if Path(path_or_text).suffix.lower() in (".yaml", ".yml", ".json"):
        return False
    return ":" in path_or_text or not path_or_text.strip()


def read(path_or_text: str | Path) -> Any:
    """What a YAML or JSON file or text holds, as plain data: dicts, lists, text, numbers, True, False and None.

    Whatever it says, reading takes little: at most 200,000 bytes, 10,000 entries (those behind an alias counted at
    every use of it), 1,000 characters in a value and 20 digits in a whole number.

    Raises:
        FileNotFoundError, ImportError, ValueError: see `DefaultStrategy.from_yaml`.
    """
    text, name, is_json = str(path_or_text), "the text", False
    if isinstance(path_or_text, Path) or not is_text(text):
        file = Mapped(path_or_text)
        name, is_json = str(file.path), file.path.suffix.lower() == ".json"
        _refuse_long(name, file.size)
        try:
            text = str(file.buffer, "utf-8")
            if is_json:
                return file.json(0, file.size)
        except ValueError as error:
            raise ValueError(f"{name} is not {'JSON' if is_json else 'UTF-8 text'}: {error}") from error
    _refuse_long(name, len(text))
    parser = yaml()
    try:
        return parser.load(text, Loader=_loader(parser))
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply for a strategy") from error
    except (parser.YAMLError, ValueError, LookupError) as error:
        raise ValueError(f"{name} is not YAML that describes a strategy: {error}") from error


def yaml() -> Any:
    """The PyYAML module, or an error that says how to get it."""
    with _errors.needed("YAML needs PyYAML", "yaml"):
        import yaml as parser
    return parser


def _refuse_long(name: str, length: int) -> None:
    if length > _MAX_TEXT:
        raise ValueError(f"{name} describes no strategy: it has {length:,} bytes, and {_MAX_TEXT:,} are allowed")


def _loader(parser: Any) -> Any:
    """PyYAML's safe loader for plain data of bounded size, which reads `1e-3` as a number (YAML 1.1 does not)."""

    class Loader(parser.SafeLoader):
        yaml_constructors = {_TAG + kind: parser.SafeLoader.yaml_constructors[_TAG + kind] for kind in _KINDS} | {
            None: parser.SafeLoader.construct_undefined
        }
        entries = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            before, event = self.entries, self.peek_event()
            if len(getattr(event, "value", "")) > _MAX_VALUE:
                raise ValueError(f"a value of more than {_MAX_VALUE:,} characters{event.start_mark}")
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"the tag {_errors.shown(event.tag)}, but a strategy needs none{event.start_mark}")
            node = super().compose_node(parent, index)
            if not isinstance(event, parser.AliasEvent):
                self.entries += 1
                node.entries = self.entries - before
            elif hasattr(node, "entries"):
                self.entries += node.entries
            else:
                raise ValueError(f"the alias {_errors.shown(event.anchor)} stands in what it names{event.start_mark}")
            if self.entries > _MAX_ENTRIES:
                raise ValueError(f"more than {_MAX_ENTRIES:,} entries, aliases written out{event.start_mark}")
            return node

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        found = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                raise ValueError(f"the merge key '<<' is not known: write its entries out{key_node.start_mark}")
            if not isinstance(key_node, parser.ScalarNode):
                raise ValueError(f"a key is text or a number, not a list or a mapping{key_node.start_mark}")
            key = loader.construct_object(key_node)
            if key in found:
                raise ValueError(f"the key {_errors.shown(key)} occurs twice, the second time{key_node.start_mark}")
            found[key] = loader.construct_object(value_node, deep=True)
        return found

    def whole(loader: Any, node: Any) -> int:
        value = loader.construct_yaml_int(node)
        if abs(value) >= 10**20:
            raise ValueError(f"a whole number of more than 20 digits{node.start_mark}")
        return value

    number = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z")
    Loader.add_implicit_resolver(_TAG + "float", number, list("-+.0123456789"))
    Loader.add_constructor(_TAG + "map", mapping)
    Loader.add_constructor(_TAG + "int", whole)
    return Loader
