"""Reads what the gateway hands over, in a process of its own: ``python -m mlp_ci.serve.gateway.recorder FD``.

It writes the prediction log, counts predictions by bins, and compares those of shadows. A process, not a thread:
reading JSON holds the interpreter, and each request would wait for it. What comes is kept for a tenth of a second and
then read in one go, so that a row costs less. A part is written within a second of its first row; when the gateway
ends, however it ends, the socket ends, and what is left in it is written. It ignores the signals that end the gateway,
so that nothing is lost when all processes of a session get one.
"""

from __future__ import annotations

import marshal
import math
import select
import signal
import socket
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mlp_ci.serve.gateway.bodies import Form, Selection, Unreadable, predictions_of
from mlp_ci.serve.gateway.parquet import Fact, Part
from mlp_ci.serve.gateway.plan import LogPlan
from mlp_ci.serve.measured import LABELS, OTHER, prediction_bin

FLUSH_EVERY = 0.75  # seconds from a part's first row; with GATHER and the gateway's own wait, the promise is one
FLUSH_ROWS = 20_000
GATHER = 0.1  # seconds in which what comes is only kept: a long run over many entries is cheaper than many short ones
GATHER_BYTES = 1 << 20  # that are not kept for that long
SAME = 1e-6  # of the larger number: what two machines may differ by
STEPS = (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)  # bins of differences
HEADER = 4  # bytes that give a frame's length
FORMS = tuple(Form)
Key = tuple[int, int, str]  # of a log: its number; version, arm


@dataclass
class Book:
    """What is known of one log: the plan, the rows by hour, and what became of them."""

    plan: LogPlan | None
    selection: Selection = field(default_factory=lambda: Selection(()))
    parts: dict[int, Part] = field(default_factory=dict)  # by hours since the epoch
    written: int = 0
    lost: int = 0
    skipped: int = 0


@dataclass
class Recorder:
    """Everything that was handed over, and its sums since the start."""

    books: dict[int, Book] = field(default_factory=dict)
    bins: dict[Key, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    compared: dict[Key, list[Any]] = field(default_factory=dict)  # rows, different ones, bins
    settled: int = 0  # entries whose fate is certain
    unsettled: int = 0
    rows: int = 0
    since: float = 0.0  # when the first row came that is not on disk

    def take(self, entry: tuple[Any, ...]) -> None:
        """One plan, or one answered request."""
        if entry[0] == "plan":
            self._plan(entry)
            return
        _, number, version, arm, code, body, answer, logged, beside = entry
        self.unsettled += 1
        form = FORMS[code]
        try:
            predictions = predictions_of(answer, form)
        except Unreadable:
            self.books[number].skipped += logged is not None
            return
        key = (number, version, arm)
        _count(self.bins[key], predictions)
        if beside is not None:
            self._compare(key, predictions, beside, form)
        if logged is not None:
            ts, request_id, latency_ms = logged
            self._log(self.books[number], (ts, request_id, version, arm, latency_ms), (body, form), predictions)

    def _plan(self, entry: tuple[Any, ...]) -> None:
        _, number, root, columns, model, stage = entry
        if root:
            plan = LogPlan(Path(root), model, stage, columns)
            import_module("pyarrow.parquet")
            Part(plan).table()  # pyarrow imports pandas with the first one: a second in all that no row should wait for
            self.books[number] = Book(plan, Selection(columns))
        else:
            self.books[number] = Book(None)

    def take_all(self, batches: list[list[tuple[Any, ...]]]) -> None:
        """Take all entries of all batches."""
        for entries in batches:
            for entry in entries:
                self.try_to_take(entry)

    def try_to_take(self, entry: tuple[Any, ...]) -> None:
        """Take an entry; one that nobody thought of is lost and said, and the next ones are not."""
        try:
            self.take(entry)
        except Exception as error:
            self.books.setdefault(int(entry[1]), Book(None)).lost += 1
            print(f"a request cannot be recorded: {error!r}", file=sys.stderr, flush=True)

    def _compare(self, key: Key, predictions: list[Any], beside: bytes, form: Form) -> None:
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

    def _log(self, book: Book, fact: Fact, request: tuple[bytes, Form], predictions: list[Any]) -> None:
        if book.plan is None:
            return
        try:
            rows = book.selection.of(*request) if book.selection.names else [()] * len(predictions)
        except Unreadable:
            book.skipped += 1
            return
        if len(rows) != len(predictions):
            book.skipped += 1
            return
        if not rows:
            return
        if not self.rows:
            self.since = time.monotonic()
        hour = int(fact[0] // 3600)
        part = book.parts.get(hour)
        if part is None:
            part = book.parts[hour] = Part(book.plan)
        part.add(fact, rows, predictions)
        self.rows += len(rows)

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


def _count(bins: Counter[str], predictions: list[Any]) -> None:
    for value in predictions:
        name = prediction_bin(value)
        if name not in bins and name[0] == "=" and len(bins) >= LABELS:
            name = OTHER
        bins[name] += 1


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


class Inbox:
    """What came and was not looked at yet."""

    def __init__(self) -> None:
        self.frames = Frames()
        self._pieces: list[bytes] = []
        self._size = 0
        self._since = 0.0

    def put(self, data: bytes) -> None:
        """Keep what came."""
        if not self._pieces:
            self._since = time.monotonic()
        self._pieces.append(data)
        self._size += len(data)

    @property
    def wait(self) -> float:
        """Seconds until it should be looked at."""
        if self._size >= GATHER_BYTES:
            return 0.0
        return max(0.0, self._since + GATHER - time.monotonic()) if self._pieces else math.inf

    def empty(self) -> list[Any]:
        """The frames that are complete."""
        found = self.frames.feed(b"".join(self._pieces))
        self._pieces, self._size = [], 0
        return found


def run(link: socket.socket) -> None:
    """Take what comes until the gateway is gone, and write it."""
    recorder, inbox, told = Recorder(), Inbox(), b""
    link.setblocking(False)
    while True:
        readable, _, _ = select.select([link], [], [], min(recorder.wait, inbox.wait, 60.0))
        if readable:
            data = link.recv(1 << 20)
            if not data:
                break
            inbox.put(data)
        if due := inbox.wait == 0.0:
            recorder.take_all(inbox.empty())
        if full := recorder.wait == 0.0:
            recorder.flush()
        if due or full:
            told = _tell(link, recorder, told)
    recorder.take_all(inbox.empty())
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
