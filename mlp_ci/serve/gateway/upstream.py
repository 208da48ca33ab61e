"""Kept-alive HTTP/1.1 connections to one model server, driven by callbacks: a gateway must add little.

Parsing is httptools' (Node.js's parser); what is here is the pooling. A kept connection that the server closes before
it answers is no failure of the server: the request goes out again on a new one. No task and no timer belongs to a
request; :meth:`Upstream.sweep` ends what is overdue.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

ANSWER_LIMIT = 64 * 1024 * 1024
CONNECT_TIMEOUT = 2.0
CONNECTIONS = 256  # to one server; more requests than that wait their turn
IDLE = 30.0  # seconds that a connection is kept without being used
# Headers that belong to a connection, not to a message (RFC 9110, 7.6.1), and those that are written anew.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade", b"content-length"),
    )
)


class UpstreamDown(Exception):
    """The server refused the connection, or closed it before it had answered."""


class UpstreamSlow(Exception):
    """The server did not answer in time."""


@dataclass(slots=True)
class Answer:
    """What the server said. ``headers`` are ready to be sent on, one line each."""

    status: int
    headers: list[bytes]
    body: bytes
    encoded: bool = False  # compressed: nothing here reads it


class Asker(Protocol):
    """A request under way: its bytes, until when it waits (``time.monotonic``), and who is told."""

    head: bytes
    body: bytes
    deadline: float

    def answered(self, answer: Answer) -> None: ...

    def failed(self, error: UpstreamDown | UpstreamSlow) -> None: ...


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, pool: Upstream) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.asker: Asker | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.usable = self.fresh = True
        self.used_at = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self.headers: list[bytes] = []
        self.body: list[bytes] = []
        self.size = 0
        self.heard = self.framed = self.encoded = False

    def send(self, asker: Asker) -> None:
        assert self.transport is not None
        self.asker = asker
        self._reset()
        if len(asker.body) < 65536:
            self.transport.write(asker.head + asker.body)
        else:  # copying it would cost more than a second call
            self.transport.writelines((asker.head, asker.body))

    # called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.asker is None:  # it talks without having been asked
            self.close()
            return
        self.heard = True
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("the server's answer is not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self.pool.lost(self)
        if self.asker is not None and self.headers and not self.framed and exc is None:
            self._complete()  # an answer without a length ends with its connection
        elif self.asker is not None:
            self._fail("the server closed the connection")

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self.framed = True
        if name == b"content-encoding":
            self.encoded = True
        if name not in HOP_BY_HOP:
            self.headers.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > ANSWER_LIMIT:
            self._fail("the server's answer is too large")
        else:
            self.body.append(body)

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:  # 100 Continue and its like announce the answer
            self._reset()
            return
        self.usable = self.usable and self.parser.should_keep_alive()
        if self.asker is not None:
            self._complete()

    # how it ends

    def _complete(self) -> None:
        asker, self.asker, self.fresh = self.asker, None, False
        assert asker is not None
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        answer = Answer(self.parser.get_status_code(), self.headers, body, self.encoded)
        self.pool.free(self)
        asker.answered(answer)

    def _fail(self, why: str) -> None:
        asker, self.asker, self.usable = self.asker, None, False
        if self.transport is not None:
            self.transport.abort()
        if asker is None:
            return
        if self.fresh or self.heard:
            self.pool.failed(self, asker, UpstreamDown(why))
        else:  # the server closed an idle connection just as we used it
            self.pool.again(self, asker)

    def expire(self, why: str) -> None:
        """Give up on the answer; the connection is of no more use."""
        asker, self.asker, self.usable = self.asker, None, False
        if self.transport is not None:
            self.transport.abort()
        if asker is not None:
            self.pool.failed(self, asker, UpstreamSlow(why))

    def close(self) -> None:
        self.usable = False
        if self.transport is not None:
            self.transport.close()


class Upstream:
    """One model server, by its ``http://host:port`` (or https, with or without a path before the server's own)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host = str(parts.hostname)
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = int(parts.port or (443 if self.tls else 80))
        self.base = parts.path.rstrip("/").encode()
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.idle: deque[_Connection] = deque()
        self.busy: set[_Connection] = set()
        self.waiting: deque[Asker] = deque()
        self.opening: set[asyncio.Task[None]] = set()
        self.open = 0
        self.in_flight = 0
        self.retired = False

    def ask(self, asker: Asker) -> None:
        """Send the request; ``asker`` is told of the answer or the failure, never before this returns."""
        self.in_flight += 1
        self._dispatch(asker)

    def _dispatch(self, asker: Asker) -> None:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                self.busy.add(connection)
                connection.send(asker)
                return
        if self.open < CONNECTIONS:
            self._open(asker)
        else:
            self.waiting.append(asker)

    def _open(self, asker: Asker) -> None:
        self.open += 1
        task = asyncio.get_running_loop().create_task(self._connect(asker))
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _connect(self, asker: Asker) -> None:
        loop = asyncio.get_running_loop()
        patience = max(0.05, min(CONNECT_TIMEOUT, asker.deadline - time.monotonic()))
        try:
            async with asyncio.timeout(patience):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self), self.host, self.port, ssl=self.tls
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            self.open -= 1
            self.in_flight -= 1
            asker.failed(UpstreamDown(f"{type(error).__name__}: {error}"))
            self._next()
            return
        self.busy.add(connection)
        connection.send(asker)

    # told by the connections

    def free(self, connection: _Connection) -> None:
        """An answer is complete: the connection serves the next in line, waits, or goes."""
        self.in_flight -= 1
        self.busy.discard(connection)
        connection.used_at = time.monotonic()
        if not connection.usable or self.retired:
            connection.close()
        elif self.waiting:
            self.busy.add(connection)
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)

    def failed(self, connection: _Connection, asker: Asker, error: UpstreamDown | UpstreamSlow) -> None:
        self.in_flight -= 1
        self.busy.discard(connection)
        asker.failed(error)

    def again(self, connection: _Connection, asker: Asker) -> None:
        self.busy.discard(connection)
        self._open(asker)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone, so there is room for another."""
        self.open -= 1
        self.busy.discard(connection)
        self._next()

    def _next(self) -> None:
        if self.waiting and self.open < CONNECTIONS:
            self._dispatch(self.waiting.popleft())

    # from time to time

    def sweep(self, now: float) -> None:
        """End what has waited too long, and connections that nobody has used for a while."""
        for connection in [c for c in self.busy if c.asker is not None and c.asker.deadline < now]:
            connection.expire("no answer in time")
        for asker in [a for a in self.waiting if a.deadline < now]:
            self.waiting.remove(asker)
            self.in_flight -= 1
            asker.failed(UpstreamSlow("all connections to the server are taken"))
        while self.idle and (not self.idle[0].usable or self.idle[0].used_at < now - IDLE):
            self.idle.popleft().close()

    def retire(self) -> None:
        """Take no new connections; what is under way ends as it would."""
        self.retired = True
        while self.idle:
            self.idle.pop().close()

    async def get(self, path: str, patience: float) -> Answer:
        """Ask for a page; raises UpstreamDown or UpstreamSlow. For probes: it makes a future, requests do not."""
        return await self._asked(b"GET", path, b"", patience)

    async def post(self, body: bytes, path: str = "/invocations", patience: float = 30.0) -> Answer:
        """Send JSON; raises UpstreamDown or UpstreamSlow. For load generators and tools."""
        return await self._asked(b"POST", path, body, patience)

    async def _asked(self, method: bytes, path: str, body: bytes, patience: float) -> Answer:
        lines = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) if body else b""
        head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, self.base, path.encode(), self.authority, lines)
        waiter = _Waiter(head, body, time.monotonic() + patience)
        self.ask(waiter)
        try:
            async with asyncio.timeout(patience):
                return await waiter.future
        except TimeoutError:
            msg = "no answer in time"
            raise UpstreamSlow(msg) from None


class _Waiter:
    """An asker that a coroutine waits for."""

    def __init__(self, head: bytes, body: bytes, deadline: float) -> None:
        self.head, self.body, self.deadline = head, body, deadline
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answered(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def failed(self, error: UpstreamDown | UpstreamSlow) -> None:
        if not self.future.done():
            self.future.set_exception(error)
