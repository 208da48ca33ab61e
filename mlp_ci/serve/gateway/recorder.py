"""Reads what the gateway hands over, in a process of its own: ``python -m mlp_ci.serve.gateway.recorder FD``.

It writes the prediction log, counts predictions by bins, and compares those of shadows. A process, not a thread:
reading JSON holds the interpreter, and each request would wait for it. A part is written within a second of its first
row; when the gateway ends, however it ends, the socket ends, and what is left in it is written. It ignores the signals
that end the gateway, so that nothing is lost when all processes of a session get one.
"""

from __future__ import annotations

import marshal
import math
import select
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mlp_ci.serve.gateway.bodies import Form, Rows, Unreadable, predictions_of, rows_of
from mlp_ci.serve.gateway.parquet import Part, Written
from mlp_ci.serve.gateway.plan import LogPlan
from mlp_ci.serve.measured import LABELS, OTHER, prediction_bin

FLUSH_EVERY = 0.85  # seconds from a part's first row; the promise is one
FLUSH_ROWS = 20_000
TELL_EVERY = 0.1
SAME = 1e-6  # of the larger number: what two machines may differ by
STEPS = (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)  # bins of differences
HEADER = 4  # bytes that give a frame's length


@dataclass
class Book:
    """What is known of one log: the plan, the rows by hour, and what became of them."""

    plan: LogPlan | None
    parts: dict[int, Part] = field(default_factory=dict)
    written: int = 0
    lost: int = 0
    skipped: int = 0


@dataclass
class Recorder:
    """Everything that was handed over, and its sums since the start."""

    books: dict[int, Book] = field(default_factory=dict)
    bins: dict[tuple[int, int, str], Counter[str]] = field(default_factory=dict)
    compared: dict[tuple[int, int, str], list[Any]] = field(default_factory=dict)  # rows, different ones, bins
    settled: int = 0  # entries whose fate is certain
    unsettled: int = 0
    rows: int = 0
    since: float = 0.0  # when the first row came that is not on disk

    def take(self, entry: tuple[Any, ...]) -> None:
        """One plan, or one answered request."""
        if entry[0] == "plan":
            _, number, root, columns, model, stage = entry
            if root:
                import_module("pyarrow.parquet")  # half a second that no row should wait for
            self.books[number] = Book(LogPlan(Path(root), model, stage, columns) if root else None)
            return
        _, number, version, arm, form, body, answer, logged, beside = entry
        self.unsettled += 1
        try:
            predictions = predictions_of(answer, Form(form))
        except Unreadable:
            self.books[number].skipped += bool(logged)
            return
        self._count(number, version, arm, predictions)
        if beside is not None:
            self._compare((number, version, arm), predictions, beside, Form(form))
        if logged:
            self._log(self.books[number], (version, arm, *logged), (body, Form(form)), predictions)

    def try_to_take(self, entry: tuple[Any, ...]) -> None:
        """Take an entry; one that nobody thought of is lost and said, and the next ones are not."""
        try:
            self.take(entry)
        except Exception as error:
            self.books.setdefault(int(entry[1]), Book(None)).lost += 1
            print(f"a request cannot be recorded: {error!r}", file=sys.stderr, flush=True)

    def _count(self, number: int, version: int, arm: str, predictions: list[Any]) -> None:
        bins = self.bins.setdefault((number, version, arm), Counter())
        for value in predictions:
            name = prediction_bin(value)
            if name not in bins and name[0] == "=" and len(bins) >= LABELS:
                name = OTHER
            bins[name] += 1

    def _compare(self, key: tuple[int, int, str], predictions: list[Any], beside: bytes, form: Form) -> None:
        try:
            answered = predictions_of(beside, form)
        except Unreadable:
            return
        sums = self.compared.setdefault(key, [0, 0, Counter()])
        for one, other in zip(predictions, answered, strict=False):
            name = difference_bin(one, other)
            sums[0] += 1
            sums[1] += name != "same"
            sums[2][name] += 1

    def _log(self, book: Book, facts: tuple[Any, ...], request: tuple[bytes, Form], predictions: list[Any]) -> None:
        if book.plan is None:
            return
        version, arm, ts, request_id, latency_ms = facts
        try:
            rows = rows_of(*request) if book.plan.columns else Rows({}, len(predictions))
        except Unreadable:
            book.skipped += 1
            return
        if rows.count != len(predictions):
            book.skipped += 1
            return
        if not self.rows:
            self.since = time.monotonic()
        hour = int(ts // 3600)
        part = book.parts.get(hour) or book.parts.setdefault(hour, Part(book.plan))
        part.add(Written(ts, request_id, version, arm, latency_ms), rows, predictions)
        self.rows += rows.count

    @property
    def wait(self) -> float:
        """Seconds until the rows that are there must be written."""
        if self.rows >= FLUSH_ROWS:
            return 0.0
        return max(0.0, self.since + FLUSH_EVERY - time.monotonic()) if self.rows else math.inf

    def flush(self) -> None:
        """Write all rows. What the disk refuses is lost, and counted."""
        for book in self.books.values():
            parts, book.parts = book.parts, {}
            for hour, part in parts.items():
                try:
                    part.write(hour)
                    book.written += part.count
                except Exception as error:  # of the disk, or a value that Arrow cannot hold: never the end of the log
                    book.lost += part.count
                    print(f"{part.count} rows of the prediction log are lost: {error}", file=sys.stderr, flush=True)
        self.rows = 0

    def report(self) -> bytes:
        """All sums, for the gateway."""
        if not self.rows:
            self.settled, self.unsettled = self.settled + self.unsettled, 0
        return marshal.dumps(
            {
                "settled": self.settled,
                "logs": {n: (b.written, b.lost, b.skipped) for n, b in self.books.items()},
                "bins": {k: dict(v) for k, v in self.bins.items()},
                "compared": {k: (v[0], v[1], dict(v[2])) for k, v in self.compared.items()},
            }
        )


def difference_bin(one: Any, other: Any) -> str:
    """How far two predictions of one row are apart: ``same``, an upper bound, or ``other`` for what is no number."""
    if one == other:
        return "same"
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) and one:
        names = [difference_bin(a, b) for a, b in zip(one, other, strict=True)]
        return max(names, key=_RANK.index)
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
    if not plain:
        return "other"
    apart = abs(one - other)
    if apart <= SAME * max(abs(one), abs(other)):
        return "same"
    return next((f"<={step:g}" for step in STEPS if apart <= step), f">{STEPS[-1]:g}")


_RANK = ["same", *(f"<={step:g}" for step in STEPS), f">{STEPS[-1]:g}", "other"]


def framed(data: bytes) -> bytes:
    """The bytes with their length before them."""
    return len(data).to_bytes(HEADER, "little") + data


class Frames:
    """Cuts a stream into its frames."""

    def __init__(self) -> None:
        self._gathered = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """What is complete now, as Python values."""
        self._gathered += data
        found, start = [], 0
        while len(self._gathered) - start >= HEADER:
            size = int.from_bytes(self._gathered[start : start + HEADER], "little")
            end = start + HEADER + size
            if len(self._gathered) < end:
                break
            found.append(marshal.loads(memoryview(self._gathered)[start + HEADER : end]))  # our own parent
            start = end
        del self._gathered[:start]
        return found


def run(link: socket.socket) -> None:
    """Take what comes until the gateway is gone, and write it."""
    recorder, frames, told, tell_at = Recorder(), Frames(), b"", 0.0
    link.setblocking(False)
    while True:
        patience = min(recorder.wait, TELL_EVERY if tell_at else 60.0)
        readable, _, _ = select.select([link], [], [], patience)
        if readable:
            data = link.recv(1 << 20)
            if not data:
                break
            for entries in frames.feed(data):
                for entry in entries:
                    recorder.try_to_take(entry)
            tell_at = tell_at or time.monotonic() + TELL_EVERY
        if recorder.wait == 0.0:
            recorder.flush()
            tell_at = tell_at or time.monotonic()
        if tell_at and time.monotonic() >= tell_at:
            tell_at, told = 0.0, _tell(link, recorder, told)
    recorder.flush()
    _tell(link, recorder, told)


def _tell(link: socket.socket, recorder: Recorder, told: bytes) -> bytes:
    """Send the sums where they have changed; a gateway that does not listen hears the next ones."""
    report = recorder.report()
    if report != told:
        link.setblocking(True)
        try:
            link.sendall(framed(report))
        except OSError:
            return told
        finally:
            link.setblocking(False)
    return report


def main() -> int:
    """Ignore what ends the gateway: the end of the socket ends this."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
