"""The log lines of tasks."""

from __future__ import annotations

import logging
from typing import Any

from tqdm import tqdm

NAME = "paddle_ftstrat"


def logger() -> logging.Logger:
    """The library's logger. Unless the user has set logging up, it prints times and levels, beside tqdm's bars.

    Set up is: a level for this logger, or for one above it that lets INFO through. That there are handlers says
    nothing: importing Paddle 2.6 hands one to the root logger.
    """
    log = logging.getLogger(NAME)
    if log.level == logging.NOTSET and (not log.hasHandlers() or not log.isEnabledFor(logging.INFO)):
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
