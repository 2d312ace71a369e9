"""`python -m paddle_ftstrat.integrations HOST SCRIPT …`: run a host's training script with strategies in its YAML."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from paddle_ftstrat import _errors

HOSTS = ("paddleocr", "paddleseg", "paddledet")
_USAGE = "usage: python -m paddle_ftstrat.integrations {paddleocr,paddleseg,paddledet} SCRIPT [its arguments …]"


def main(arguments: Sequence[str]) -> None:
    """Install strategies in a host, then run its script as `python SCRIPT …` would.

    Args:
        arguments: the host, the script, and the script's own arguments.

    Raises:
        SystemExit: fewer than two arguments, or an unknown host.
    """
    if len(arguments) < 2:
        sys.exit(_USAGE)
    host, script, *_ = arguments
    if host not in HOSTS:
        sys.exit(_errors.unknown("host", host, HOSTS) + "\n" + _USAGE)
    # The script's folder as Python has it, and the repository that the script lies in, which its own imports need.
    folder = Path(script).resolve().parent
    sys.path[:0] = [str(folder), str(folder.parent)]
    importlib.import_module(f"paddle_ftstrat.integrations.{host}").install()
    sys.argv = list(arguments[1:])
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
