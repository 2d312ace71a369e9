"""Reading YAML and JSON, from files and texts, with numbers as people write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.transfer.contents import Mapped

_MAX_TEXT = 200_000
_MAX_ENTRIES = 10_000
_MAX_VALUE = 1_000
_TAG, _KINDS = "tag:yaml.org,2002:", ("null", "bool", "int", "float", "str", "seq", "map")


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

    Example:
        >>> read("learning_rate: 5e-5")
        {'learning_rate': 5e-05}
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
    try:
        import yaml as parser
    except ImportError as error:
        raise ImportError("YAML needs PyYAML: pip install 'paddle_ftstrat[yaml]'") from error
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
