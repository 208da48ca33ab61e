"""uvicorn's connections, with an eye on clients that are slow, half gone or endless.

uvicorn bounds neither the time nor the size of a request's head, and waits for a body without end; a few hundred such
clients would hold a server's memory and connections for as long as they like.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlp_ci.serve.listening import Limits, Parser

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

_REFUSAL = (
    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    b'{"error_code":"BAD_REQUEST","message":"%b"}'
)
_TOO_LARGE = (b"431 Request Header Fields Too Large", b"the request's headers are too large")
_PAST_ITS_TIME = {
    "head": (b"408 Request Timeout", b"the request's headers did not arrive in time"),
    "body": (b"408 Request Timeout", b"the request's body did not arrive in time"),
}


RECENT, PARTING = 1.0, 0.3  # seconds: who came or asked so lately is given so long to ask when all ends


class Waiting(Enum):
    """What a connection waits for from its client."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class Config(uvicorn.Config):
    """uvicorn's settings, and the limits."""

    limits: Limits


class Connection(HttpToolsProtocol):
    """One connection, which knows since when its client owes it something."""

    config: Config

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parser = Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn: what came before is answered
        self.limits = self.config.limits
        self.refused = False
        self.reading = 0  # bytes of the read that is being parsed
        self.asked = self.loop.time()  # when it came, or its last request was complete
        self.unread_since: float | None = None
        self._expect(Waiting.HEAD, self.limits.head)
        if len(self.connections) > self.limits.connections:
            transport.abort()

    def _expect(self, what: Waiting, seconds: float) -> None:
        self.awaited, self.received = what, 0
        self.due = self.loop.time() + seconds

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        if self.awaited is Waiting.NOTHING and (self.cycle is None or self.cycle.response_complete):
            self._expect(Waiting.HEAD, self.limits.head)
        self.reading = len(data)
        super().data_received(data)
        if self.refused or self.awaited is Waiting.NOTHING:
            return
        self.received += len(data)
        if self.awaited is Waiting.HEAD and self.received > self.limits.head_bytes:
            self.refuse(*_TOO_LARGE)
        elif self.awaited is Waiting.BODY and self.received > self.limits.body_bytes:
            self.refuse(b"413 Content Too Large", b"the body is too large")

    def head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The target and the headers of the request that is being read."""
        return self.url, self.headers

    def on_headers_complete(self) -> None:
        if self.refused or self.parser.should_upgrade():
            return
        most = self.limits.head_bytes
        # A head may come whole, in one read: only then has nobody counted it yet.
        if self.received + self.reading > most and len(self.url) + sum(map(_size, self.headers)) > most:
            self.refuse(*_TOO_LARGE)
            return
        self._expect(Waiting.BODY, self.limits.body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.refused or self.parser.should_upgrade():
            return
        self.awaited, self.asked = Waiting.NOTHING, self.loop.time()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Asked to end: closes once nothing is under way.

        A client that has just come, or asks again and again, has a request on its way, which closing now would fail.
        """
        if self.loop.time() - self.asked < RECENT:
            self.loop.call_later(PARTING, super().shutdown)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        self.unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    def refuse(self, status: bytes, message: bytes) -> None:
        """Answer in the application's stead, and close; what it says after that goes nowhere."""
        self.refused = True
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            size = len(b'{"error_code":"BAD_REQUEST","message":""}') + len(message)
            self.transport.write(_REFUSAL % (status, size, message))
        self.transport.close()

    def look(self, now: float) -> None:
        """Once a second: end it if the client is past its time."""
        if self.unread_since is not None and now - self.unread_since > self.limits.reading:
            self.transport.abort()
        elif self.awaited is not Waiting.NOTHING and now > self.due:
            if self.refused:
                self.transport.abort()
            self.refuse(*_PAST_ITS_TIME[self.awaited.value])
            self.due = now + self.limits.reading


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1]) + len(b": \r\n")


class Server(uvicorn.Server):
    """uvicorn's server, which looks after its connections and says beforehand that it will leave."""

    def __init__(self, config: Config, drain: float, leaving: Callable[[], None] | None) -> None:
        super().__init__(config)
        self.drain, self.leaving = drain, leaving
        self.stays_until: float | None = None

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            import asyncio

            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.look(now)
        if not await super().on_tick(counter):
            return False
        if self.stays_until is None:
            # From now and not from the signal: a prediction may have held this up, with clients waiting to be let in.
            self.stays_until = time.monotonic() + self.drain
            return False
        return time.monotonic() >= self.stays_until

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal begins the end; a second one makes it come at once."""
        if self.should_exit:
            self.stays_until = 0.0
        elif self.leaving is not None:
            self.leaving()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but a server that was asked to end has ended well: no signal is raised again."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        handlers = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in handlers.items():
                signal.signal(sig, handler)


def configured(app: Any, limits: Limits, *, lifespan: bool) -> Config:
    """uvicorn's settings for ``app``."""
    config = Config(
        app,
        http=Connection,
        ws="none",
        log_level="error",  # a client that sends garbage must not fill a disk with warnings
        access_log=False,
        lifespan="on" if lifespan else "off",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=limits.idle,
        timeout_graceful_shutdown=10,
        backlog=2048,
    )
    config.limits = limits
    return config
