"""What a command is doing right now, for somebody who waits at a terminal.

Flows say it with :func:`doing`; who shows it, if anybody, is the command line's affair. Nothing is shown in a job,
in a pipe, or for what takes less than a second.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 0.8  # seconds before anything is shown
_log = logging.getLogger("mlp_ci.progress")


def doing(what: str) -> None:
    """Say what is being done from now on: ``doing("fetching data/train.parquet")``."""
    _log.info("%s", what)


@contextmanager
def shown(command: str) -> Iterator[None]:
    """Show what is being done on the terminal's stderr, with the seconds so far, until the block ends."""
    if not sys.stderr.isatty() or os.environ.get("GITHUB_ACTIONS") == "true" or os.environ.get("TERM") == "dumb":
        yield
        return
    line = _Line(command)
    _log.addHandler(line)
    level = _log.level
    _log.setLevel(logging.INFO)
    timer = threading.Timer(PATIENCE, line.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.stop()
        _log.removeHandler(line)
        _log.setLevel(level)


class _Line(logging.Handler):
    """One line that moves: a spinner, what is being done, how long the command has taken."""

    def __init__(self, command: str) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(command, total=None)
        self._turn = threading.Lock()
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.update(self._task, description=record.getMessage())

    def start(self) -> None:
        with self._turn:
            if not self._ended:
                self._progress.start()

    def stop(self) -> None:
        with self._turn:
            self._ended = True
            self._progress.stop()
