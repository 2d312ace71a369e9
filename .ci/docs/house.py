"""Draws which folder of the package imports which, from the imports, into CONTRIBUTING.md.

python .ci/docs/house.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "paddle_ftstrat"
PAGE = ROOT / "CONTRIBUTING.md"
PLACE = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- /map -->)", re.DOTALL)
# Everybody imports these; arrows to them say nothing.
COMMON = {"_errors", "_files", "paddle_ftstrat"}


def room(parts: tuple[str, ...]) -> str:
    """The folder or top file in which a module stands."""
    return parts[1] if len(parts) > 1 else "paddle_ftstrat"


def rooms() -> dict[str, set[str]]:
    """Room → the rooms that its files import, at any place in them."""
    modules = {path.relative_to(ROOT).with_suffix("").parts: path for path in sorted(PACKAGE.rglob("*.py"))}
    arrows: dict[str, set[str]] = {}
    for parts, path in modules.items():
        here = room(parts if parts[-1] != "__init__" else parts[:-1])
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paddle_ftstrat":
                from_ = tuple(node.module.split("."))
                targets = [from_] if len(from_) > 1 else [(*from_, alias.name) for alias in node.names]
                arrows.setdefault(here, set()).update(map(room, targets))
    return {here: found - {here} - COMMON for here, found in arrows.items() if here not in COMMON}


def needed(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that a longer way already shows."""

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    return {
        here: {to for to in found if not any(to in reached(other) for other in found - {to})}
        for here, found in arrows.items()
    }


def drawn() -> str:
    """The picture, in the language that code hosts draw."""
    lines = [f"    {here} --> {to}" for here, found in sorted(needed(rooms()).items()) for to in sorted(found)]
    return "```mermaid\nflowchart TD\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: drawn(), PAGE.read_text("utf-8")), "utf-8")
