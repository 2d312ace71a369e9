"""Reading YAML and JSON, from files and texts, with numbers as people write them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def is_text(path_or_text: str) -> bool:
    """Whether a string is text rather than the path of a file.

    Example:
        >>> is_text("strategy: DefaultStrategy"), is_text("strategy.yaml"), is_text("C:/strategy.yaml")
        (True, False, False)
    """
    if "\n" in path_or_text:
        return True
    if Path(path_or_text).suffix.lower() in (".yaml", ".yml", ".json"):
        return False
    return ":" in path_or_text or not path_or_text.strip()


def read(path_or_text: str | Path) -> Any:
    """What a YAML or JSON file or text holds, as plain data.

    Raises:
        FileNotFoundError, ImportError, ValueError: see `DefaultStrategy.from_yaml`.

    Example:
        >>> read("learning_rate: 5e-5")
        {'learning_rate': 5e-05}
    """
    text, name = str(path_or_text), "the text"
    if isinstance(path_or_text, Path) or not is_text(text):
        path = Path(path_or_text)
        text, name = path.read_text("utf-8"), str(path)
        if path.suffix.lower() == ".json":
            try:
                return json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name} is not JSON: {error}") from error
    parser = yaml()
    try:
        return parser.load(text, Loader=_loader(parser))
    except parser.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from error


def yaml() -> Any:
    """The PyYAML module, or an error that says how to get it."""
    try:
        import yaml as parser
    except ImportError as error:
        raise ImportError("YAML needs PyYAML: pip install 'paddle_ftstrat[yaml]'") from error
    return parser


def _loader(parser: Any) -> Any:
    """PyYAML's safe loader, which reads `1e-3` as a number (YAML 1.1 does not) and refuses a key that occurs twice."""

    class Loader(parser.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"the key {twice!r} occurs twice, the second time{node.value[-1][0].start_mark}")
        return loader.construct_mapping(node, deep=True)

    number = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    return Loader
