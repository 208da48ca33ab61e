"""What a command is doing right now, for somebody who waits at a terminal.

Flows say it with :func:`doing`; who shows it, if anybody, is the command line's affair. Nothing is shown in a job,
in a pipe, or for what takes less than a second.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 0.8  # seconds before anything is shown
_log = logging.getLogger("mlp_ci.progress")


def doing(what: str) -> None:
    """Say what is being done from now on: ``doing("fetching data/train.parquet")``."""
    _log.info("%s", what)


def share(done: float, said: str = "") -> None:
    """How much of what is being done now is done, 0 to 1; forgotten at the next :func:`doing`.

    ``said``: what else there is to say of it, such as how fast it goes. In a job's log it is a line each minute.
    """
    for line in _log.handlers:
        if isinstance(line, _Line | _Minutes):
            line.share(done, said)


def note(what: str) -> None:
    """Say something that stays, before the report at the end does: a line at a terminal, and in a job's log."""
    one = " ".join(what.split())  # whatever it quotes begins no line of its own, which the runner could obey
    for line in _log.handlers:
        if isinstance(line, _Line | _Minutes):
            line.note(one)


def watched() -> bool:
    """Whether somebody is shown what is being done; if not, nobody need find out how far it is."""
    return any(isinstance(line, _Line) for line in _log.handlers)


@contextmanager
def shown(command: str) -> Iterator[None]:
    """Show what is being done on the terminal's stderr, with the seconds so far, until the block ends."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        minutes = _Minutes(command)
        _log.addHandler(minutes)
        try:
            yield
        finally:
            _log.removeHandler(minutes)
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
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


class _Minutes(logging.Handler):
    """A line in a job's log each minute, of work that says how fast it goes: a silent job looks like one that hangs."""

    EVERY = 60.0

    def __init__(self, command: str) -> None:
        super().__init__()
        self._command = command
        self.last = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        pass

    def note(self, what: str) -> None:
        print(f"{self._command}: {what}", file=sys.stderr, flush=True)

    def share(self, done: float, said: str) -> None:
        if said and time.monotonic() - self.last >= self.EVERY:
            self.last = time.monotonic()
            print(f"{self._command}: {done:.0%}, {said}", file=sys.stderr, flush=True)


class _Line(logging.Handler):
    """One line that moves: a spinner, what is being done, how far it is where that is known, how long it has taken."""

    def __init__(self, command: str) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        class Bar(BarColumn):
            """Nothing where it is not known how far the work is."""

            def render(self, task: Any) -> Any:
                return "" if task.total is None else super().render(task)

        text = TextColumn("{task.description}", markup=False)
        said = TextColumn("{task.fields[said]}", markup=False)
        columns = (SpinnerColumn(), text, Bar(bar_width=24), TimeElapsedColumn(), said)
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(command, total=None, said="")
        self._turn = threading.Lock()
        self._ended = False

    def note(self, what: str) -> None:
        self._progress.console.print(what, markup=False, highlight=False)

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.update(self._task, description=record.getMessage())
        self._progress.update(self._task, completed=0, said="")
        self._progress.tasks[0].total = None

    def share(self, done: float, said: str) -> None:
        self._progress.update(self._task, total=1.0, completed=min(1.0, max(0.0, done)), said=said)

    def start(self) -> None:
        with self._turn:
            if not self._ended:
                self._progress.start()

    def stop(self) -> None:
        with self._turn:
            self._ended = True
            self._progress.stop()
