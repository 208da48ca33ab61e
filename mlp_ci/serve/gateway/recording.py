"""The gateway's end of the recorder: hands over answered requests in batches, and keeps the sums that come back.

A request costs one tuple here; every 20 ms all of them go through a socket in one piece. A recorder that dies is
started again, and what it had not settled is counted as lost. Nothing here ever waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from mlp_ci.serve.gateway.recorder import Frames, framed

if TYPE_CHECKING:
    from mlp_ci.serve.gateway.counting import Counts, Key
    from mlp_ci.serve.gateway.plan import LogPlan

EVERY = 0.02  # seconds between batches
AT_ONCE = 1 << 20  # bytes that are not kept for that long
LIMIT = 128 << 20  # bytes that may wait for a slow recorder; what comes then is lost, and counted
LAST_WORDS = 10.0  # seconds that the recorder has to write what is left
SOCKET_BUFFER = 1 << 20


@dataclass
class Log:
    """What became of the rows (``lost`` and ``skipped`` count requests where the rows are not known)."""

    model: str
    stage: str
    plan: LogPlan | None
    dropped: int = 0  # on this side
    told: tuple[int, int, int] = (0, 0, 0)  # written, lost, skipped, by the recorder that runs
    before: tuple[int, int, int] = (0, 0, 0)  # the same, by those that ran before

    @property
    def written(self) -> int:
        return self.told[0] + self.before[0]

    @property
    def lost(self) -> int:
        return self.told[1] + self.before[1] + self.dropped

    @property
    def skipped(self) -> int:
        return self.told[2] + self.before[2]


@dataclass
class Recording:
    """The recorder process, and what is on its way to it."""

    counts: Counts
    logs: list[Log] = field(default_factory=list)
    _pending: list[tuple[Any, ...]] = field(default_factory=list)
    _size: int = 0
    _link: _Link | None = None
    _process: subprocess.Popen[bytes] | None = None
    _timer: asyncio.TimerHandle | None = None
    _sent: int = 0
    _settled: int = 0
    _retry_at: float = 0.0
    _failures: int = 0
    _closing: bool = False
    _bases: dict[Key, Counter[str]] = field(default_factory=dict)
    _shadow_bases: dict[Key, tuple[int, int, Counter[str]]] = field(default_factory=dict)

    # ------------------------------------------------------------ taking

    def number(self, model: str, stage: str, plan: LogPlan | None) -> int:
        """The number that entries of this model, stage and log are handed over under."""
        for number, log in enumerate(self.logs):
            if (log.model, log.stage, log.plan) == (model, stage, plan):
                return number
        self.logs.append(Log(model, stage, plan))
        self._pending.append(self._planned(len(self.logs) - 1))
        self._soon()
        return len(self.logs) - 1

    def add(self, entry: tuple[Any, ...], size: int) -> None:
        """Take ``("x", number, version, arm, form, request, answer, logged, beside)``; never blocks."""
        if self._size + size > LIMIT or (self._link is not None and self._link.waiting + size > LIMIT):
            self.logs[entry[1]].dropped += 1
            return
        self._pending.append(entry)
        self._size += size
        if self._timer is None:
            self._soon()
        elif self._size > AT_ONCE and self._link is not None:
            self._hand_over()

    def _planned(self, number: int) -> tuple[Any, ...]:
        log = self.logs[number]
        plan = log.plan
        return (
            "plan",
            number,
            str(plan.root) if plan else "",
            dict(plan.columns) if plan else {},
            log.model,
            log.stage,
        )

    def _soon(self) -> None:
        if self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is None:
            if time.monotonic() >= self._retry_at:
                self._start()
            self._soon()
            return
        pending, self._pending, self._size = self._pending, [], 0
        self._sent += sum(entry[0] == "x" for entry in pending)
        self._link.write(framed(marshal.dumps(pending)))

    # ------------------------------------------------------------ the process

    def _start(self) -> None:
        """Start the recorder; where that fails, it is tried again later."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self._retry_at = time.monotonic() + min(10.0, 0.2 * 2**self._failures)
        self._failures += 1
        command = [sys.executable, "-m", "mlp_ci.serve.gateway.recorder", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"the prediction log waits, its process cannot be started: {error}", file=sys.stderr)
            ours.close()
            return
        finally:
            theirs.close()
        self._settled = self._sent = 0
        self._link = _Link(self)
        ours.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._attach(self._link, ours))
        self._link.task = task
        plans = [self._planned(n) for n in range(len(self.logs))]
        self._pending = plans + [e for e in self._pending if e[0] != "plan"]

    async def _attach(self, link: _Link, ours: socket.socket) -> None:
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)

    def lost_link(self) -> None:
        """The recorder is gone: what it had not settled is lost."""
        self._link = None
        if self._process is not None:
            self._process.poll()
        missing = max(0, self._sent - self._settled)
        for log in self.logs:
            log.before, log.told = (log.written, log.lost - log.dropped, log.skipped), (0, 0, 0)
        if missing and self.logs and not self._closing:
            next((log for log in self.logs if log.plan), self.logs[0]).dropped += missing
            print(f"the recorder ended; up to {missing} requests are not in the prediction log", file=sys.stderr)
        self._bases = {key: Counter(bins) for key, bins in self.counts.predictions.items()}
        self._shadow_bases = {
            key: (c.compared, c.different, Counter(c.differences)) for key, c in self.counts.shadows.items()
        }
        if not self._closing:
            self._soon()

    def told(self, report: dict[str, Any]) -> None:
        """Take over the recorder's sums; they are since its start, and come on top of those before."""
        self._settled, self._failures = report["settled"], 0
        for number, sums in report["logs"].items():
            self.logs[number].told = sums
        bins: dict[Key, Counter[str]] = {}
        for raw, found in report["bins"].items():
            key = self._key(raw)
            bins.setdefault(key, Counter(self._bases.get(key, {}))).update(found)
        self.counts.predictions.update(bins)
        sums_of: dict[Key, tuple[int, int, Counter[str]]] = {}
        for raw, (compared, different, found) in report["compared"].items():
            key = self._key(raw)
            before = sums_of.get(key) or self._shadow_bases.get(key, (0, 0, Counter()))
            sums_of[key] = (before[0] + compared, before[1] + different, before[2] + Counter(found))
        for key, sums in sums_of.items():
            shadow = self.counts.shadow(key)
            shadow.compared, shadow.different, shadow.differences = sums

    def _key(self, raw: tuple[int, int, str]) -> Key:
        return (self.logs[raw[0]].model, self.logs[raw[0]].stage, raw[1], raw[2])

    async def close(self) -> None:
        """Hand over what is left, and wait until it is written."""
        if any(entry[0] == "x" for entry in self._pending):
            if self._link is None:
                self._start()
            self._hand_over()
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is None or self._process is None:
            return
        if self._link.task is not None:
            await self._link.task
        self._link.end()
        deadline = time.monotonic() + LAST_WORDS
        while self._process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


class _Link(asyncio.Protocol):
    """The socket to the recorder."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.frames = Frames()
        self._early: list[bytes] = []

    @property
    def waiting(self) -> int:
        """Bytes that the recorder has not taken yet."""
        return self.transport.get_write_buffer_size() if self.transport else sum(map(len, self._early))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        for data in self._early:
            self.transport.write(data)
        self._early = []

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def end(self) -> None:
        """No more will come."""
        if self.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        for report in self.frames.feed(data):
            self.recording.told(report)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.recording.lost_link()
