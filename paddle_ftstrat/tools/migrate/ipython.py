"""What IPython adds to Python: lines of `!` and `%`, cells of `%%`, and the notebooks that hold them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from typing import Any

# `!ls`, `%time x`, `?help`, `help?` and `files = !ls`.
_LINE = re.compile(rb"\s*(?:[!%?]|[\w., ]+=\s*[!%])|.*\?\s*$")
_INSTALLS = re.compile(rb"\s*[!%]\s*(?:hub\s|(?:python\d? -m )?pip\d?\s.*paddlehub)")
_HIDDEN = re.compile(r"(?:pass  )?#ftstrat:(?:install:)?(\d+)#")
INSTALL = "#ftstrat:install:"
_BOUNDARY = '"ftstrat: the next cell"'
_PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun")


def hide(source: bytes, hidden: list[bytes]) -> bytes:
    """The source with IPython's lines as `pass` statements, which `show` turns back; the lines are added to `hidden`.

    Only a line that Python refuses is hidden: `% b)` may as well go on with a division.

    Raises:
        ValueError: the rest is not Python 3, with the place of the error.

    Example:
        >>> lines = []
        >>> hide(b"!ls\\nx = (a\\n% b)\\n", lines), lines
        (b'pass  #ftstrat:0#\\nx = (a\\n% b)\\n', [b'!ls'])
    """
    try:
        source.decode(tokenize.detect_encoding(io.BytesIO(source).readline)[0])
    except (UnicodeDecodeError, LookupError, SyntaxError) as error:
        raise ValueError(f"not text in the encoding that it declares, UTF-8 where it declares none: {error}") from error
    lines = source.splitlines(keepends=True)
    while True:
        try:
            ast.parse(b"".join(lines))
            return b"".join(lines)
        except (RecursionError, MemoryError) as error:
            raise ValueError("nested too deeply to be read") from error
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if not 0 <= number < len(lines) or not _LINE.match(lines[number]):
                raise ValueError(f"not Python 3: line {error.lineno}: {error.msg}") from error
        mark = b"pass  " + (INSTALL.encode() if _INSTALLS.match(lines[number]) else b"#ftstrat:")
        goes_on = True
        while goes_on and number < len(lines):
            whole = lines[number].rstrip(b"\r\n")
            text = whole.lstrip(b" \t")
            indent, end = whole[: len(whole) - len(text)], lines[number][len(whole) :]
            lines[number] = b"%b%b%d#%b" % (indent, mark, len(hidden), end)
            hidden.append(text)
            goes_on, mark, number = text.endswith(b"\\"), b"#ftstrat:", number + 1


def show(text: str, hidden: list[bytes], encoding: str = "utf-8") -> str:
    """The text with the hidden lines back in their places."""
    return _HIDDEN.sub(lambda found: hidden[int(found[1])].decode(encoding), text)


class Notebook:
    """The code cells of a notebook as one text.

    A cell that begins with `%%` belongs to another language and stays as it is, but for `%%time` and its like.

    Args:
        source: the file's bytes.

    Raises:
        ValueError: it is no notebook of Jupyter's format 4.
    """

    def __init__(self, source: bytes) -> None:
        self._text = source.decode("utf-8")
        try:
            self._json = json.loads(self._text)
            found = [cell for cell in self._json["cells"] if cell["cell_type"] == "code"]
            self._cells = [(cell, "".join(cell["source"])) for cell in found]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a notebook of Jupyter's format 4: {type(error).__name__}: {error}") from error
        self._heads = [_head(text) for _, text in self._cells]
        self.hidden: list[bytes] = []

    def joined(self) -> bytes:
        """The cells' Python, with a statement at each boundary that `with_code` splits at."""
        parts = []
        for number, ((_, text), head) in enumerate(zip(self._cells, self._heads), 1):
            # Empty lines for the head, so that errors have the cell's line.
            above = head.count("\n")
            try:
                part = hide(b"\n" * above + text[len(head) :].encode(), self.hidden)[above:]
            except ValueError as error:
                raise ValueError(f"code cell {number}: {error}") from error
            parts.append(part)
        return f"\n{_BOUNDARY}\n".encode().join(parts)

    def with_code(self, code: str) -> tuple[bytes, list[str]]:
        """The notebook with the cells of a rewritten text, written as the file was; and the cells."""
        cells = [show(part, self.hidden) for part in code.split(f"\n{_BOUNDARY}\n")]
        for (cell, old), head, new in zip(self._cells, self._heads, cells):
            if head + new != old:
                cell["source"] = (head + new).splitlines(True) if isinstance(cell["source"], list) else head + new
        return _like(self._json, self._text).encode(), cells

    @staticmethod
    def cell_at(code: str, line: int) -> int:
        """The code cell, counted from 1, that a line of the text belongs to."""
        return 1 + code.splitlines()[:line].count(_BOUNDARY)


def _head(text: str) -> str:
    """What of a cell is no Python: nothing, the first line, or all of it."""
    if not text.lstrip().startswith("%%"):
        return ""
    first, end, _ = text.partition("\n")
    return first + end if first.split()[:1] and first.split()[0] in _PYTHON_CELLS else text


def _like(value: Any, old: str) -> str:
    """The JSON text, laid out as the old one was; as Jupyter does where that is unknown."""
    end = old[len(old.rstrip()) :]
    styles: list[dict[str, Any]] = [
        {"indent": indent, "ensure_ascii": ascii} for indent in (1, 2, 4, None) for ascii in (False, True)
    ]
    fitting = (style for style in styles if json.dumps(json.loads(old), **style) + end == old)
    return json.dumps(value, **next(fitting, styles[0])) + end
