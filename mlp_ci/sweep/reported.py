"""Intermediate values of a trial: lines that its command appends to $MLP_PROGRESS, kept with its run, and judged.

A line is ``{"step": 3, "value": 0.81}``. Steps are whole numbers from 0; a later line of the same step counts.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING

from mlp_ci.errors import MlpError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.train.command import Watch

LOOK_SECONDS = 0.3
LONGEST_LINE = 4096

Judge = Callable[["Mapping[int, float]"], str]


class Curve:
    """What a file of intermediate values holds so far; reads only what was added."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self.points: dict[int, float] = {}
        self.bad = ""  # the first line that is none

    def more(self) -> dict[int, float]:
        """The points of the whole lines that were added since the last call."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                added = stream.read()
        except OSError:
            return {}
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        new: dict[int, float] = {}
        for line in whole.splitlines():
            point = point_of(line)
            if point is not None:
                new[point[0]] = point[1]
            elif line.strip() and not self.bad:
                self.bad = line.decode("utf-8", errors="replace")[:100]
        self.points |= new
        return new


def point_of(line: bytes) -> tuple[int, float] | None:
    """``(step, value)`` of one line; None for what is no such line."""
    try:
        value = json.loads(line) if len(line) <= LONGEST_LINE else None
        step, number = value["step"], value["value"]  # type: ignore[index]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (step, number))
    if not numbers or not math.isfinite(step) or step != int(step) or not 0 <= step < 2**53:
        return None
    return (int(step), float(number)) if math.isfinite(number) else None


class Reported:
    """Watches a command, together with the watch ``beside`` that every training has.

    Hands new points to ``keep``, and ends the command with what ``judge`` says about all of them. Both speak to
    MLflow, so they run in a thread of their own; MLflow being away for a while ends no trial.
    """

    def __init__(self, file: Path, keep: Callable[[Mapping[int, float]], None], judge: Judge, beside: Watch) -> None:
        self.curve = Curve(file)
        self._keep = keep
        self._judge = judge
        self._beside = beside
        self._waiting: dict[int, float] = {}
        self._stopped = Event()
        self._thread = Thread(target=self._follow, name="progress", daemon=True)
        self.verdict = ""

    def begin(self, roots: Callable[[], Sequence[int]]) -> None:
        self._beside.begin(roots)
        self._thread.start()

    def look(self, quiet: float) -> str:
        return self.verdict or self._beside.look(quiet)

    def end(self) -> None:
        """What the command wrote last is kept as well."""
        self._beside.end()
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _follow(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self._turn(judged=True)
        self._turn(judged=False)

    def _turn(self, *, judged: bool) -> None:
        self._waiting |= self.curve.more()
        if not self._waiting:
            return
        try:
            self._keep(self._waiting)
            self._waiting = {}
            if judged and not self.verdict:
                self.verdict = self._judge(self.curve.points)
        except MlpError:
            time.sleep(LOOK_SECONDS)
