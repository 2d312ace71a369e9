"""The arguments of a call: finding, renaming, dropping and adding them with layout and comments kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import libcst as cst
from libcst import matchers as m

_PLAIN_EQUAL = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))


def find(call: cst.Call, name: str, position: int | None = None) -> cst.Arg | None:
    """The argument of a name, or at a position (counted from 0), or None."""
    for index, arg in enumerate(call.args):
        if arg.star:
            position = None if arg.star == "*" else position
        elif arg.keyword is not None:
            if arg.keyword.value == name:
                return arg
        elif index == position:
            return arg
    return None


def has_star(call: cst.Call, star: str = "*") -> bool:
    """Whether the call has an argument `*x` (or `**x`)."""
    return any(arg.star == star for arg in call.args)


def text_of(arg: cst.Arg | None) -> str | None:
    """The value of an argument that is a plain string, else None."""
    return string_of(arg.value) if arg is not None else None


def string_of(node: cst.CSTNode | None) -> str | None:
    """The value of a plain string, None for anything else."""
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else None
    return value if isinstance(value, str) else None


def code_of(node: cst.CSTNode) -> str:
    """The source text of a node in one line."""
    return " ".join(cst.Module([]).code_for_node(node).split())


def named(arg: cst.Arg, name: str) -> cst.Arg:
    """The argument under another name; a positional one becomes a keyword."""
    equal = arg.equal if arg.keyword is not None else _PLAIN_EQUAL
    return arg.with_changes(keyword=cst.Name(name), equal=equal)


def replaced(call: cst.Call, old: cst.Arg, value: cst.BaseExpression) -> cst.Call:
    """The call with another value for one of its arguments."""
    return call.with_changes(args=[arg.with_changes(value=value) if arg is old else arg for arg in call.args])


def by_name(call: cst.Call, parameters: Sequence[str], beyond: int = 0) -> cst.Call:
    """The call with its positional arguments from position `beyond` on given by name."""
    if has_star(call):
        return call
    args = [
        named(arg, parameters[index])
        if arg.keyword is None and not arg.star and beyond <= index < len(parameters)
        else arg
        for index, arg in enumerate(call.args)
    ]
    return call.with_changes(args=args)


def without(call: cst.Call, names: Collection[str]) -> cst.Call:
    """The call without the keyword arguments of these names."""
    kept = [arg for arg in call.args if arg.keyword is None or arg.keyword.value not in names]
    if len(kept) == len(call.args):
        return call
    if not kept:
        return call.with_changes(args=[], whitespace_before_args=cst.SimpleWhitespace(""))
    last = call.args[-1]
    if kept[-1] is not last:
        kept[-1] = _ending_like(kept[-1], last)
    return call.with_changes(args=kept)


def added(call: cst.Call, name: str, value: str) -> cst.Call:
    """The call with `name=value` at its end, laid out as the others are."""
    new = cst.Arg(cst.parse_expression(value), keyword=cst.Name(name), equal=_PLAIN_EQUAL)
    if not call.args:
        return call.with_changes(args=[new])
    separator = _separator(call)
    last = call.args[-1]
    if isinstance(last.comma, cst.Comma):
        new = new.with_changes(comma=cst.Comma(whitespace_after=_without_comment(last.comma.whitespace_after)))
        space = _with_comments_of(separator, last.comma.whitespace_after)
    else:
        new = new.with_changes(whitespace_after_arg=last.whitespace_after_arg)
        space = separator
    last = last.with_changes(comma=cst.Comma(whitespace_after=space), whitespace_after_arg=cst.SimpleWhitespace(""))
    return call.with_changes(args=[*call.args[:-1], last, new])


def _ending_like(arg: cst.Arg, last: cst.Arg) -> cst.Arg:
    """An argument that has become the last one: its own comment, the layout of the former last one."""
    own = arg.comma.whitespace_after if isinstance(arg.comma, cst.Comma) else None
    if own is not None and comments(own):
        end = last.comma.whitespace_after if isinstance(last.comma, cst.Comma) else last.whitespace_after_arg
        return arg.with_changes(comma=cst.Comma(whitespace_after=_with_comments_of(end, own)))
    if isinstance(last.comma, cst.Comma):
        return arg.with_changes(comma=cst.Comma(whitespace_after=_without_comment(last.comma.whitespace_after)))
    return arg.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=last.whitespace_after_arg)


def _separator(call: cst.Call) -> Any:
    """What stands between two arguments of this call."""
    if len(call.args) > 1:
        return _without_comment(getattr(call.args[0].comma, "whitespace_after", None))
    before = call.whitespace_before_args
    if isinstance(before, cst.ParenthesizedWhitespace):
        return _without_comment(before)
    return cst.SimpleWhitespace(" ")


def _without_comment(space: Any) -> Any:
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    return space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])


def _with_comments_of(space: Any, source: Any) -> Any:
    """The white space `space`, with the comments that `source` has; that takes a line break."""
    if not comments(source):
        return space
    target = space if isinstance(space, cst.ParenthesizedWhitespace) else source
    return target.with_changes(first_line=source.first_line, empty_lines=source.empty_lines)


def comments(node: cst.CSTNode) -> list[str]:
    """The comments inside a node, in order."""
    return [found.value for found in m.findall(node, m.Comment()) if isinstance(found, cst.Comment)]


def identifiers(*nodes: cst.CSTNode) -> set[str]:
    """All identifiers inside some nodes, those of attributes and keywords too."""
    return {found.value for node in nodes for found in m.findall(node, m.Name()) if isinstance(found, cst.Name)}
