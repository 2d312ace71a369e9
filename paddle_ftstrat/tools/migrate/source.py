"""One script, from its old bytes to its new ones."""

from __future__ import annotations

import ast

import libcst as cst
from libcst.metadata import MetadataWrapper

from paddle_ftstrat.tools.migrate import imports
from paddle_ftstrat.tools.migrate.facts import Facts
from paddle_ftstrat.tools.migrate.report import Migrated, Note, todos
from paddle_ftstrat.tools.migrate.rewriter import Rewriter


def migrate(source: bytes) -> Migrated:
    """Rewrite a script that uses PaddleHub 1.x or paddle.fluid; one that uses neither comes back as it is.

    Migrating twice changes nothing more: what was rewritten is ours, and a TODO that stands there is not repeated.

    Args:
        source: the script, in the encoding that it declares.

    Returns:
        The new bytes, notes of what was rewritten and of what is left to do by hand.

    Raises:
        ValueError: the source is not Python 3, with the place of the error.

    Example:
        >>> migrated = migrate(b"import paddlehub as hub\\ns = hub.DefaultStrategy(optimizer_name='sgd')\\n")
        >>> print(migrated.code.decode(), end="")
        import paddle_ftstrat as hub
        s = hub.DefaultStrategy(optimizer_name='sgd')
        >>> migrated.rewritten, migrated.left
        ((Note(line=1, text='import paddlehub as hub → import paddle_ftstrat as hub'),), ())
    """
    wrapper = MetadataWrapper(_parsed(source))
    facts = Facts(wrapper)
    wrapper.module.visit(facts)
    if not facts.relevant:
        return Migrated(source, left=todos(wrapper.module.code))
    rewriter = Rewriter(wrapper, facts)
    module = wrapper.module.visit(rewriter)
    findings = rewriter.findings
    module, notes = imports.rewrite(module, facts.finetunes, findings.required, findings.import_lines)
    _check(module.code)
    return Migrated(module.bytes, _sorted([*findings.notes, *notes]), todos(module.code))


def _parsed(source: bytes) -> cst.Module:
    try:
        return cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        raise ValueError(f"not Python 3: {_what_is_wrong(source, error)}") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"not text in the encoding that it declares: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def _what_is_wrong(source: bytes, error: cst.ParserSyntaxError) -> str:
    """Python's own words where it refuses the text too; they are clearer."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as refusal:
        return f"line {getattr(refusal, 'lineno', '?')}: {getattr(refusal, 'msg', refusal)}"
    return f"line {error.raw_line}, column {error.raw_column + 1}: {error.message}"


def _check(code: str) -> None:
    try:
        ast.parse(code)
    except SyntaxError as error:
        raise RuntimeError(f"the rewritten text would not be Python (line {error.lineno}: {error.msg})") from error


def _sorted(notes: list[Note]) -> tuple[Note, ...]:
    return tuple(sorted(dict.fromkeys(notes), key=lambda note: note.line))
