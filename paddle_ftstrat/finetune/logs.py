"""The log lines of tasks."""

from __future__ import annotations

import logging
from typing import Any

from tqdm import tqdm

NAME = "paddle_ftstrat"


def logger() -> logging.Logger:
    """The library's logger. Without any logging set up by the user it prints times and levels, beside tqdm's bars."""
    log = logging.getLogger(NAME)
    if not log.hasHandlers():
        handler = _BesideBars()
        handler.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)8s] - %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def silent() -> logging.Logger:
    """A logger that says nothing."""
    log = logging.getLogger(NAME + ".silent")
    log.disabled = True
    return log


class _BesideBars(logging.Handler):
    def emit(self, record: Any) -> None:
        tqdm.write(self.format(record))
