"""A pool of kept-alive HTTP/1.1 connections to one model server, for a gateway that must add little.

Parsing is httptools' (Node.js's parser); what is here is only the pooling. A kept connection that the server closes
before it answers is no failure of the server: the request goes out again on a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

TIMEOUT = 30.0
ANSWER_LIMIT = 64 * 1024 * 1024


class UpstreamDown(Exception):
    """The server refused the connection, or closed it before it answered."""


class UpstreamSlow(Exception):
    """The server did not answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    content_type: bytes
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.future: asyncio.Future[Answer] | None = None
        self.reusable = True
        self._reset()

    def _reset(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.content_type = b"application/json"
        self.body: list[bytes] = []
        self.size = 0
        self.started = False

    def request(self, head: bytes, body: bytes) -> asyncio.Future[Answer]:
        assert self.transport is not None
        self._reset()
        self.future = asyncio.get_running_loop().create_future()
        self.transport.write(head + body)
        return self.future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.started = True
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("the server's answer is not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._fail("the server closed the connection")

    def _fail(self, why: str) -> None:
        self.reusable = False
        if self.future and not self.future.done():
            self.future.set_exception(UpstreamDown(why))
        if self.transport:
            self.transport.close()

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > ANSWER_LIMIT:
            self._fail("the server's answer is too large")
            return
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.reusable = self.reusable and self.parser.should_keep_alive()
        if self.future and not self.future.done():
            self.future.set_result(Answer(self.parser.get_status_code(), self.content_type, b"".join(self.body)))


class Upstream:
    """One model server, by its ``http://host:port``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.idle: deque[_Connection] = deque()
        self.in_flight = 0
        self.retired = False
        self._prefix = (
            f"POST /invocations HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()

    async def post(self, body: bytes) -> Answer:
        """Send ``body`` to ``/invocations``; raises UpstreamDown or UpstreamSlow."""
        head = self._prefix + str(len(body)).encode() + b"\r\n\r\n"
        self.in_flight += 1
        try:
            while True:
                connection, fresh = await self._connection()
                try:
                    async with asyncio.timeout(TIMEOUT):
                        answer = await connection.request(head, body)
                except UpstreamDown:
                    if fresh or connection.started:
                        raise
                    continue  # the server closed an idle connection just as we used it
                except TimeoutError:
                    self._close(connection)
                    msg = f"no answer within {TIMEOUT:.0f} s"
                    raise UpstreamSlow(msg) from None
                if connection.reusable and not self.retired:
                    self.idle.append(connection)
                else:
                    self._close(connection)
                return answer
        finally:
            self.in_flight -= 1

    async def _connection(self) -> tuple[_Connection, bool]:
        while self.idle:
            connection = self.idle.pop()
            if connection.reusable:
                return connection, False
        try:
            async with asyncio.timeout(2):
                _, made = await asyncio.get_running_loop().create_connection(_Connection, self.host, self.port)
        except (OSError, TimeoutError) as error:
            raise UpstreamDown(str(error)) from error
        return made, True

    def retire(self) -> None:
        """Take no new connections; what is under way ends as it would."""
        self.retired = True
        while self.idle:
            self._close(self.idle.pop())

    @staticmethod
    def _close(connection: Any) -> None:
        if connection.transport:
            connection.transport.close()
