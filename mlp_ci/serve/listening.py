"""Sockets, and what answers on them: uvicorn, with limits on what clients may hold, and a graceful end."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from mlp_ci.serve.payload import BODY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may take. Times in seconds; a client that exceeds one is sent 408, 413 or 431, or cut off.

    ``head``: from the first byte of a request, or from connecting, to the last of its headers. ``body``: from there to
    the last byte. ``reading``: how long a client may leave an answer unread. ``idle``: between two requests.
    """

    head_bytes: int = 64 * 1024
    head: float = 10.0
    body_bytes: int = 2 * BODY_LIMIT  # as sent, with what chunks add; the application counts what it reads
    body: float = 60.0
    reading: float = 60.0
    idle: int = 75
    connections: int = 10_000


class Reading(Protocol):
    """One connection, for its parser."""

    def head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The target and the headers of the request that is being read."""


class Parser(httptools.HttpRequestParser):
    """httptools' parser, which passes over offers to speak another protocol, as RFC 9110 (7.8) lets it.

    Java's client and others offer HTTP/2 with their first request. httptools takes all that follows such a head for the
    other protocol's, the body of that very request too. So the head is parsed once more, without the offer; until then
    :meth:`should_upgrade` is true, and the connection ignores what it is told.
    """

    def __init__(self, connection: Reading) -> None:
        super().__init__(connection)
        self.connection = connection

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # that is what connections are given
        """Raises HttpParserError."""
        while data:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self.get_method() == b"CONNECT":
                    msg = "this is no proxy"
                    raise httptools.HttpParserError(msg) from None
                data = self._without_offer() + data[upgrade.args[0] :]
            else:
                return

    def _without_offer(self) -> bytes:
        target, headers = self.connection.head()
        lines = [b"%b %b HTTP/%b" % (self.get_method(), target, self.get_http_version().encode())]
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"connection":
                kept = [t for t in value.split(b",") if t.strip().lower() not in _OFFERS]
                lines += [b"connection:" + b",".join(kept)] if kept else []
            elif lowered not in _OFFERS:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join(lines) + b"\r\n\r\n"


_OFFERS = (b"upgrade", b"http2-settings")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; raises OSError when the port is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def serve(
    app: Any,
    listener: socket.socket,
    *,
    lifespan: bool,
    limits: Limits | None = None,
    drain: float = 0.0,
    leaving: Callable[[], None] | None = None,
) -> None:
    """Answer on ``listener`` until SIGTERM, then finish what is under way.

    At the signal ``leaving`` is called, once; for ``drain`` seconds more everything is answered as before, so that
    who asks whether this is ready can send its clients elsewhere.
    """
    from mlp_ci.serve.connections import Server, configured

    raise_file_limit()
    Server(configured(app, limits or Limits(), lifespan=lifespan), drain, leaving).run(sockets=[listener])


def raise_file_limit() -> None:
    """As many open files, and so connections, as the system lets this process have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
