"""Members of a plan that go by a name and its options: averages of weights, perturbations. Each is one class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from paddle_ftstrat import _errors


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of what a plan may have by name; the fields of the dataclass are its options, each with a default.

    Attributes:
        name: as strategies and files call it; `register` sets it.
    """

    name: ClassVar[str] = ""

    def __str__(self) -> str:
        options = [f"{field.name} {getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return f"{self.name} {', '.join(options)}".strip()

    @classmethod
    def what(cls) -> str:
        """What it does, in a line."""
        return (cls.__doc__ or "").strip().partition("\n")[0]


Class = TypeVar("Class", bound=type[Method])


def registering(registry: dict[str, Any], kind: str) -> Callable[[str], Callable[[Class], Class]]:
    """The decorator that enters classes in a registry under a name; an error calls one of them `kind`."""

    def register(name: str) -> Callable[[Class], Class]:
        def enter(cls: Class) -> Class:
            if name in registry:
                raise ValueError(f"{kind} named {name!r} is already registered")
            cls.name = name
            registry[name] = cls
            return cls

        return enter

    return register


def make(what: str, given: Any, registry: Mapping[str, type[Method]]) -> Any:
    """The member that a dict like `{"EMA": 0.999}` or `{"EMA": {"decay": 0.999}}` means.

    Args:
        what: the argument's name, for errors.
        given: the dict: name → its options, or the first of them alone, or None for the defaults.
        registry: the classes by name.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{what} must be a dict of a name and its options, not {_errors.shown(given)} of type "
            f"{type(given).__name__}; names: {_errors.listing(registry)}"
        )
    _errors.check_keys(what, given, registry)
    if len(given) != 1:
        raise ValueError(
            f"{what} {_errors.shown(dict(given))} must have one name; allowed: {_errors.listing(registry)}"
        )
    name, value = next(iter(given.items()))
    cls = registry[name]
    fields = [field.name for field in dataclasses.fields(cls)]
    options = value if isinstance(value, Mapping) else {} if value is None else {next(iter(fields), "value"): value}
    _errors.check_keys(f"key of {what}.{name}", options, fields)
    return cls(**options)
