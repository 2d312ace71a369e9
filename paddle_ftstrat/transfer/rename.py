"""Which keys of a file are wanted, and what they are called in the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Union

from paddle_ftstrat import _errors

KeySelector = Union[str, "re.Pattern[str]", Callable[[str], bool]]
WRAPPERS = ("module.", "_layers.", "model.", "_orig_mod.")
_MAX_TRIED = 1_000_000  # pairs of a key and a change of prefix


def wanted(keys: Sequence[str], include: Any = None, exclude: Any = None) -> tuple[list[str], list[str]]:
    """The keys that are wanted and those that are not, each in the order given.

    Args:
        keys: keys of a file.
        include: one selector or several; None wants all. A selector is a glob (`"*backbone*"`), the name of a layer
            (`"encoder"` means `encoder.*`), a compiled regex (fullmatch) or a function of the key.
        exclude: the same, for keys that are not wanted; it goes before `include`.

    Raises:
        ValueError: a selector that matches no key.
        TypeError: a selector that is none of these.

    Example:
        >>> wanted(["backbone.w", "backbone.b", "head.w"], include="backbone", exclude="*.b")
        (['backbone.w'], ['backbone.b', 'head.w'])
    """
    chosen = set(keys) if include is None else _matched(keys, include, "include")
    if exclude is not None:
        chosen -= _matched(keys, exclude, "exclude")
    return [key for key in keys if key in chosen], [key for key in keys if key not in chosen]


def renamed(keys: Sequence[str], rename: Any = None) -> dict[str, str]:
    """Key of the file → key for the model, for every key that has one.

    Args:
        keys: keys of a file.
        rename: a mapping, a function, or a list of these, applied one after another. A mapping's text keys are
            prefixes, at the border of a name (`{"bert": "encoder"}`, `{"classifier.": ""}`, `{"": "backbone."}`), of
            which the longest that fits is replaced; its compiled regexes are substituted wherever they are found
            (`{re.compile(r"layer(\\d)"): r"layers.\\1"}`). A function gives the new key, or None to leave the key out.

    Raises:
        ValueError: a prefix or regex that fits no key, or two keys with one new name.
        TypeError: a rule that is none of these, or a function that gives something else.

    Example:
        >>> renamed(["module.fc.weight", "module.fc.bias"], {"module.": ""})
        {'module.fc.weight': 'fc.weight', 'module.fc.bias': 'fc.bias'}
    """
    rules = [] if rename is None else [rename] if isinstance(rename, Mapping) or callable(rename) else rename
    if isinstance(rules, str) or not isinstance(rules, Iterable):
        raise TypeError(f"rename must be a mapping, a function or a list of these, not {rename!r}")
    names = {key: key for key in keys}
    for rule in rules:
        names = _apply(rule, names)
    by_new: dict[str, str] = {}
    for key, new in names.items():
        other = by_new.setdefault(new, key)
        if other != key:
            raise ValueError(f"rename gives {other!r} and {key!r} the same name {new!r}")
    return names


def propose(keys: Iterable[str], known: Collection[str]) -> tuple[dict[str, str], int]:
    """The change of prefix by which most keys would be known, as a `rename`, and how many these are.

    Args:
        keys: keys that are not known, after any renaming.
        known: what the model understands.

    Example:
        >>> propose(["module.fc.weight", "module.fc.bias"], {"fc.weight", "fc.bias"})
        ({'module.': ''}, 2)
    """
    keys, known = list(keys), set(known)
    starts = [*WRAPPERS, *_heads(keys)]
    candidates: list[dict[str, str]] = [{start: ""} for start in starts]
    candidates += [{"": head} for head in _heads(known)]
    candidates += [{start: head} for start in _heads(keys, 1) for head in _heads(known, 1) if start != head]

    def fitting(candidate: Mapping[str, str], among: Sequence[str]) -> int:
        ((old, new),) = candidate.items()
        return sum(key.startswith(old) and new + key[len(old) :] in known for key in among)

    # Of a file with very many names some are enough to tell.
    sample = keys[:: 1 + len(keys) * len(candidates) // _MAX_TRIED]
    best = max(candidates, key=lambda candidate: fitting(candidate, sample))
    most = fitting(best, keys)
    return (best, most) if most else ({}, 0)


def _heads(keys: Iterable[str], depth: int = 2) -> list[str]:
    """The first and the first two parts of dotted names, in order of appearance: what a prefix may be."""
    found: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, min(depth, len(parts) - 1) + 1):
            found[".".join(parts[:length]) + "."] = None
    return list(found)[:100]


def _matched(keys: Sequence[str], selectors: Any, what: str) -> set[str]:
    if isinstance(selectors, (str, re.Pattern)) or callable(selectors):
        selectors = [selectors]
    if not isinstance(selectors, Iterable):
        raise TypeError(f"{what} must be a glob, a compiled regex, a function of the key, or a list of these")
    found: set[str] = set()
    for selector in selectors:
        matched = {key for key in keys if _fits(selector, key, what)}
        if not matched and isinstance(selector, str):
            heads = [head.rstrip(".") for head in _heads(keys)]
            raise ValueError(f"{what} matches no key. " + _errors.unknown("name or glob", selector, [*keys, *heads]))
        if not matched:
            raise ValueError(f"{what} {selector!r} matches no key; the keys are {_errors.listing(keys)}")
        found |= matched
    return found


def _fits(selector: KeySelector, key: str, what: str) -> bool:
    if isinstance(selector, str):
        return fnmatchcase(key, selector) or key.startswith(selector.rstrip(".") + ".")
    if isinstance(selector, re.Pattern):
        return selector.fullmatch(key) is not None
    if callable(selector):
        return bool(selector(key))
    raise TypeError(f"{what} must be a glob, a compiled regex or a function key → bool, not {selector!r}")


def _apply(rule: Any, names: Mapping[str, str]) -> dict[str, str]:
    if isinstance(rule, Mapping):
        names = _replace_prefixes({old: new for old, new in rule.items() if isinstance(old, str)}, names)
        for pattern, new in rule.items():
            if not isinstance(pattern, str):
                names = _substitute(pattern, new, names)
        return dict(names)
    if not callable(rule):
        raise TypeError(f"rename must be a mapping, a function or a list of these, not {rule!r}")
    found = {}
    for key, name in names.items():
        new = rule(name)
        if not isinstance(new, (str, type(None))):
            raise TypeError(f"rename gives {new!r} for {name!r}; a name or None is allowed")
        if new is not None:
            found[key] = new
    return found


def _replace_prefixes(prefixes: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    used, found = set(), {}
    for key, name in names.items():
        fitting = [old for old in prefixes if _begins(name, old)]
        longest = max(fitting, key=len, default=None)
        used.update(fitting)
        found[key] = name if longest is None else _joined(prefixes[longest], name[len(longest) :])
    for old in prefixes:
        if old not in used:
            heads = [head.rstrip(".") for head in _heads(names.values())]
            raise ValueError("rename fits no key. " + _errors.unknown("prefix", old, [*heads, *names.values()]))
    return found


def _begins(name: str, prefix: str) -> bool:
    stem = prefix.rstrip(".")
    return not stem or name == stem or name.startswith(stem + ".")


def _joined(prefix: str, rest: str) -> str:
    return ".".join(part for part in (prefix.rstrip("."), rest.lstrip(".")) if part)


def _substitute(pattern: Any, new: Any, names: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(pattern, re.Pattern):
        raise TypeError(f"a key of rename must be a prefix or a compiled regex, not {pattern!r}")
    if not any(pattern.search(name) for name in names.values()):
        raise ValueError(f"rename: {pattern!r} fits no key; the keys are {_errors.listing(names.values())}")
    return {key: pattern.sub(new, name) for key, name in names.items()}
