"""Docstrings as they stand in this project, in the form that the site generator knows."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A section of doctests is called "Example" here; the generator shows one that is called "Examples" as code.
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
ARGS = re.compile(r"^Args:\n(?:[ ]{4}.*\n?|\n)+", re.MULTILINE)
SEVERAL = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)+): ((?:.*\n?)(?: {5,}.*\n?)*)", re.MULTILINE)


class OurForm(griffe.Extension):
    """Shows `Example:` sections as highlighted doctests, and `start, end: …` as two arguments."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring:
            text = EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = ARGS.sub(lambda found: SEVERAL.sub(one_each, found[0]), text)


def one_each(found: re.Match[str]) -> str:
    """The entry of several arguments as an entry for each."""
    text = found[2].rstrip("\n")
    return "".join(f"    {name}: {text}\n" for name in found[1].split(", "))
