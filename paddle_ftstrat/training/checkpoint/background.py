"""One job at a time in a thread, whose errors are not lost."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable


class Background:
    """Runs jobs in a thread, one at a time. The interpreter does not exit before the job has ended.

    Example:
        >>> background, done = Background("adding"), []
        >>> background.start(lambda: done.append(1))
        >>> background.wait()
        >>> done
        [1]

    Args:
        what: what the jobs do, for the name of the thread and for the warning about an error that nobody asked for.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        weakref.finalize(self, _complain, what, self._errors)

    def start(self, job: Callable[[], None]) -> None:
        """Begin a job, once the one before has ended.

        Raises:
            BaseException: what the one before raised; this one is not begun then.
        """
        self.wait()
        errors = self._errors

        def run() -> None:
            try:
                job()
            except BaseException as error:  # whatever it is, the caller is to see it
                errors.append(error)

        # No daemon: such a thread would be cut off at exit.
        self._thread = threading.Thread(target=run, name=self._what, daemon=False)
        self._thread.start()

    def settle(self) -> None:
        """Wait until no job runs; what it raised is kept for `wait`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until no job runs.

        Raises:
            BaseException: what the job raised; once.
        """
        self.settle()
        if self._errors:
            raise self._errors.pop()


def _complain(what: str, errors: list[BaseException]) -> None:
    for error in errors:
        warnings.warn(f"{what} failed: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
