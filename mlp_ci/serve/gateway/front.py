"""The clients' side: HTTP/1.1 connections, with limits on everything that a client can make large or slow.

httptools (Node.js's parser) reads; a request is handed on as soon as it is complete, and answered by a callback: no
task and no timer belongs to it. What is overdue is found by :meth:`Front.sweep`. Requests that a client sends before it
has its answer wait in line, and the client is not read any further until then.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from mlp_ci.serve.gateway.request import NOTED, Request, form_of
from mlp_ci.serve.listening import Parser
from mlp_ci.serve.payload import BODY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

_REASONS = {code.value: f"HTTP/1.1 {code.value} {code.phrase}\r\n".encode() for code in HTTPStatus}
JSON = b"content-type: application/json\r\n"
TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


@dataclass(frozen=True)
class Limits:
    """What a client may ask for. Times are in seconds."""

    body: int = BODY_LIMIT
    head: int = 32 * 1024
    connections: int = 2000
    head_time: float = 10.0  # for the first line and the headers
    body_time: float = 30.0  # for the body after them
    idle_time: float = 75.0  # between two requests
    write_time: float = 30.0  # to take an answer


class Client(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.transport: asyncio.Transport | None = None
        self.parser = Parser(self)
        self.request = Request()  # that is being read
        self.busy: Request | None = None  # that waits for its answer
        self.line: deque[Request] = deque()  # that were sent meanwhile
        self.body: list[bytes] = []
        self.size = self.head_size = 0
        self.in_head = self.in_body = self.discarding = self.done = self.ended = False
        self.since = time.monotonic()  # when what it does now began
        self.writing_since = 0.0

    # ------------------------------------------------------------ called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self.front.welcome(self):
            self.refuse(503, "UNAVAILABLE", "too many connections; try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        self.done = True
        self.front.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self.size += len(data)
            if self.size > 4 * self.front.limits.body:
                self.abort()
            return
        if not self.in_head and not self.in_body and self.busy is None:
            self.since = time.monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.discarding:
                self.refuse(400, "BAD_REQUEST", "this is not HTTP/1.1")
        if self.in_head:
            self.head_size += len(data)
            if self.head_size > self.front.limits.head and not self.discarding:
                self._head_too_large()

    def eof_received(self) -> bool:
        self.ended = True
        return self.busy is not None  # it may still wait for its answer

    def pause_writing(self) -> None:
        self.writing_since = time.monotonic()

    def resume_writing(self) -> None:
        self.writing_since = 0.0
        self._next()

    # ------------------------------------------------------------ called by the parser

    def on_message_begin(self) -> None:
        self.request = Request()
        self.body, self.size, self.head_size = [], 0, 0
        self.in_head, self.in_body = True, False

    def on_url(self, url: bytes) -> None:
        self.request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        request = self.request
        request.headers.append((name, value))
        request.size += len(name) + len(value) + 4
        setter = NOTED.get(name)
        if setter is not None:
            setter(request, value)

    def head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The target and the headers of the request that is being read."""
        return self.request.target, self.request.headers

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        request = self.request
        self.in_head, self.in_body = False, True
        self.since = time.monotonic()
        request.method = self.parser.get_method()
        if self.parser.get_http_version() == "1.0":
            request.close = True  # without keep-alive, which nobody needs of HTTP/1.0
        if request.size + len(request.target) > self.front.limits.head:
            self._head_too_large()
        elif request.announced > self.front.limits.body:
            self._too_large()
        elif request.expects and self.busy is None and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.discarding:
            return
        if self.size > self.front.limits.body:
            self._too_large()
        else:
            self.body.append(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.in_head = self.in_body = False
        if self.discarding:
            return
        request = self.request
        request.body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        request.form = form_of(request)
        request.close = request.close or not self.parser.should_keep_alive()
        self.body = []
        if self.busy is not None:
            self.line.append(request)
            if self.transport is not None:
                self.transport.pause_reading()
            return
        self.busy = request
        self._hand_on(request)

    def _hand_on(self, request: Request) -> None:
        """A mistake of ours costs one answer, not the connection, and is not taken for one of the client's."""
        try:
            self.front.handle(self, request)
        except Exception:
            traceback.print_exc()
            self.tell(500, {"error_code": "INTERNAL_ERROR", "message": "the gateway failed; its log has more"})

    # ------------------------------------------------------------ answering

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer the request that waits; ``headers`` are whole lines."""
        request, self.busy = self.busy, None
        if self.done or self.transport is None or request is None:
            return
        close = request.close or self.front.ending or (self.ended and not self.line)
        head = b"%b%bcontent-length: %d\r\n%b\r\n" % (
            _REASONS.get(status) or b"HTTP/1.1 %d \r\n" % status,
            headers,
            len(body),
            b"connection: close\r\n" if close else b"",
        )
        if request.method == b"HEAD":
            self.transport.write(head)
        elif len(body) < 65536:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        if close:
            self.transport.close()
            return
        self.since = time.monotonic()
        if self.line:
            self._next()

    def _next(self) -> None:
        """Go on with what the client sent meanwhile, once it takes answers."""
        if not self.line or self.busy is not None or self.writing_since or self.transport is None:
            return
        self.busy = self.line.popleft()
        # Not from within this call: a client could otherwise make the stack as deep as it likes.
        asyncio.get_running_loop().call_soon(self._hand_on, self.busy)
        if not self.line:
            self.transport.resume_reading()

    def tell(self, status: int, value: object, headers: bytes = b"") -> None:
        """Answer the request that waits with JSON."""
        self.answer(status, JSON + headers, json.dumps(value).encode())

    def _too_large(self) -> None:
        limit = self.front.limits.body // 2**20
        self.refuse(413, "BAD_REQUEST", f"the body is larger than {limit} MiB; send fewer rows at a time")

    def _head_too_large(self) -> None:
        self.refuse(431, "BAD_REQUEST", f"the headers are larger than {self.front.limits.head // 1024} KiB")

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer what cannot be read to its end, and read no more: what still comes is thrown away for a while.

        Closing at once would reset the connection, and the client would never read why.
        """
        self.discarding, self.size, self.since = True, 0, time.monotonic()
        self.in_head = self.in_body = False
        if self.transport is None:
            return
        body = json.dumps({"error_code": code, "message": message}).encode()
        retry = b"retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else b""
        head = b"%b%b%bcontent-length: %d\r\nconnection: close\r\n\r\n" % (_REASONS[status], JSON, retry, len(body))
        if self.busy is None:  # else an answer to an earlier request would come second
            self.transport.write(head + body)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.busy = None
        self.line.clear()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # ------------------------------------------------------------ time

    def overdue(self, now: float) -> None:
        """End it if it has taken longer than it may."""
        limits, waited = self.front.limits, now - self.since
        if self.writing_since and now - self.writing_since > limits.write_time:
            self.abort()
        elif self.discarding:
            if waited > LINGER:
                self.abort()
        elif self.busy is not None:
            return  # the gateway has its own deadline
        elif self.in_head or self.in_body:
            if waited > (limits.head_time if self.in_head else limits.body_time):
                self.refuse(408, "BAD_REQUEST", "the request did not arrive in time")
        elif waited > limits.idle_time and self.transport is not None:
            self.transport.close()


LINGER = 5.0  # seconds in which a refused client may send the rest, and read why


@dataclass
class Front:
    """All clients. ``handle`` gets each complete request and answers it by :meth:`Client.answer`, now or later."""

    handle: Callable[[Client, Request], None]
    limits: Limits = field(default_factory=Limits)
    clients: set[Client] = field(default_factory=set)
    ending: bool = False
    refused: int = 0

    def __call__(self) -> Client:
        return Client(self)

    def welcome(self, client: Client) -> bool:
        """Take a new client; False when there are too many."""
        self.clients.add(client)
        if len(self.clients) > self.limits.connections:
            self.refused += 1
            return False
        return True

    def sweep(self, now: float) -> None:
        """End what has taken longer than it may."""
        for client in list(self.clients):
            client.overdue(now)

    async def end(self, patience: float) -> None:
        """Answer what is under way, ask every client to go, and close; ``patience`` in seconds.

        Clients that keep their connection get a moment to send one more request, whose answer tells them to go: a
        connection that is closed just as a request is on its way fails that request.
        """
        self.ending = True
        began = time.monotonic()
        recent = [c for c in self.clients if began - c.since < RECENT]
        while recent and time.monotonic() - began < PARTING:
            await asyncio.sleep(0.01)
            recent = [c for c in recent if not c.done]
        while time.monotonic() - began < patience:
            for client in list(self.clients):
                if client.busy is None and client.transport is not None:
                    client.transport.close()
            if not self.clients:
                return
            await asyncio.sleep(0.01)
        for client in list(self.clients):
            client.abort()


RECENT, PARTING = 1.0, 0.3  # seconds: who asked so lately is given so long
