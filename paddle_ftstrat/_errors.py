"""Words for errors: one way to say what was wrong, what is allowed, and what was probably meant."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

MAX_LISTED = 12
MAX_SHOWN = 200
# Past the first, a number is infinite where it is computed with; past the second, no array can be so long.
FLOAT32_MAX = (2 - 2**-23) * 2.0**127
FLOAT32_TINY = 2.0**-126
INT64_MAX = 2**63 - 1
MAX_MESSAGE = 1_000  # characters
_PACKAGE = __name__.partition(".")[0]
_MAX_NAME = 120  # characters of a name in a list
_MAX_COMPARED = 2_000_000  # pairs of characters


def shortened(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text`, with its middle left out where it has more than `limit` characters.

    Example:
        >>> shortened("a" * 5_000, 40)
        'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaaa'
    """
    end = limit // 4
    return text if len(text) <= limit else f"{text[: limit - end - 1]}…{text[-end:]}"


@contextmanager
def short_messages() -> Iterator[None]:
    """Keep the messages of refusals short, whatever names and values of a file they quote; also as a decorator."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if len(str(error)) > MAX_MESSAGE:
            error.args = (shortened(str(error)),)
        raise


@contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Have an import of a package that is not there say what it is for, and by which extra it is installed."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what}: pip install 'paddle_ftstrat[{extra}]'") from error


def listing(names: Iterable[Any], limit: int = MAX_LISTED) -> str:
    """The names, comma-separated; past `limit` the rest is counted instead of printed."""
    names = list(names)
    shown = ", ".join(shortened(str(name), _MAX_NAME) for name in names[:limit])
    rest = len(names) - limit
    return f"{shown}, … and {rest} more" if rest > 0 else shown


def shown(value: Any) -> str:
    """`repr(value)`, cut where it is long; the type of what cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # an int of too many digits, or whatever a class does in its own __repr__
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def shown_with_type(value: Any) -> str:
    """What was given, for an error that says what type it has to have."""
    return f"{shown(value)} of type {type(value).__name__}"


def nearest(name: Any, allowed: Iterable[Any]) -> str | None:
    """The allowed name that looks most like `name`, or None when none is close."""
    wanted, allowed = str(name).lower(), list(allowed)
    # Keys of a file may be many and long; what stands first is compared.
    compared = itertools.accumulate(len(wanted) * len(str(option)) for option in allowed)
    options = [str(option) for option, pairs in zip(allowed, compared) if pairs <= _MAX_COMPARED]
    begun = [option for option in options if len(option) > 2 and wanted.startswith(option.lower())]
    if begun:
        return max(begun, key=len)
    if not options:
        return None
    edits, option = min(((_edits(wanted, option.lower()), option) for option in options), key=lambda pair: pair[0])
    return option if edits <= max(len(wanted), len(option)) / 2 else None


def _edits(a: str, b: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`."""
    before, row = [], list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y))
            if last and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]


def unknown(what: str, name: Any, allowed: Iterable[Any]) -> str:
    """The message for a name that is not among the allowed ones."""
    allowed = [str(option) for option in allowed]
    hint = nearest(name, allowed)
    meant = f" Did you mean {hint!r}?" if hint else ""
    return f"unknown {what} {shown(name)}.{meant} Allowed: {listing(allowed)}"


def renamed(module: str, since: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` under which names that were renamed still work; each place that uses one is warned once.

    They go two minor releases after `since` (docs/support.md); `tests/test_renamed.py` fails from then on.

    Args:
        module: its `__name__`.
        since: the release that renamed them, "major.minor".
        names: old name → the one to write instead, both in the module.
    """
    major, minor = map(int, since.split("."))

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(
            f"{module}.{name} is called {names[name]} since {since}: write {module}.{names[name]}; "
            f"the old name goes in {major}.{minor + 2}",
            DeprecationWarning,
        )
        return getattr(sys.modules[module], names[name])

    return __getattr__


def check_keys(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse the first given key that is not allowed."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise ValueError(unknown(what, key, allowed))


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """`value` as a Python float that float32 holds, in the closed range [minimum, maximum],
    above `above` and below `below`.

    Arrays and tensors are no numbers, even with one value.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {shown_with_type(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (abs(number) <= FLOAT32_MAX and minimum <= number <= maximum and above < number < below):
        limits = ((">", above, "g"), ("≥", minimum, "g"), ("≤", maximum, ".8g"), ("<", below, "g"))
        bounds = " and ".join(f"{sign} {limit:{digits}}" for sign, limit, digits in limits if math.isfinite(limit))
        allowed = f"a finite float32 number {bounds}".rstrip()
        raise ValueError(f"{name} = {shown(value)} is outside what is allowed: {allowed}")
    return number


def check_whole(name: str, value: Any, *, minimum: int = 0) -> int:
    """`value` as a Python int that is at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {shown_with_type(value)}")
    number = int(value)
    if not minimum <= number <= INT64_MAX:
        raise ValueError(
            f"{name} = {shown(value)} is outside what is allowed: a whole number ≥ {minimum}, and of 64 bits"
        )
    return number


def check_flag(name: str, value: Any) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown_with_type(value)}")
    return value


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the line outside this package that led here, however deep in it the reason was found."""
    frame, level = inspect.currentframe(), 1
    # By the module's name, which functions that dataclasses write have, too.
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (_PACKAGE, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
