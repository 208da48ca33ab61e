"""What a client may hold of a server: slow, silent, endless and half-open ones against real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.serve.connections import Server, configured
from mlp_ci.serve.listening import Limits, bind
from tests.serving import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(head_bytes=4096, head=0.4, body_bytes=200_000, body=0.8, reading=0.5, idle=2, connections=8)
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; ``/large`` with more than a socket's buffers hold."""
    if scope["path"] == "/blocking":
        time.sleep(0.5)  # as a prediction does
    size, message = 0, {"more_body": True}
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
    body = b"x" * 50_000_000 if scope["path"] == "/large" else str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def listening() -> Iterator[Server]:
    listener = bind("127.0.0.1", 0)
    running = Server(configured(echo, LIMITS, lifespan=False), 0.0, None)
    running.port = listener.getsockname()[1]  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    wait_until(lambda: running.started)
    try:
        yield running
    finally:
        running.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with listening() as running:
        yield running


@contextlib.contextmanager
def client(server: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


def test_a_client_that_says_nothing_is_shown_out(server: Server) -> None:
    with client(server) as connection:
        assert all_of(connection).startswith(b"HTTP/1.1 408")


def test_headers_that_drip_are_not_waited_for(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.1)
        assert time.monotonic() - began < 10
    with client(server) as connection:  # nor between two requests
        connection.sendall(POST + b"Content-Length: 2\r\n\r\nhi")
        assert connection.recv(1000).endswith(b"2")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b"\r\n")
                time.sleep(0.1)
        assert time.monotonic() - began < 10


def test_endless_headers_are_refused(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(POST + b"X-A: " + b"a" * 8000)
        assert all_of(connection).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("body", [b"", b"b" * 10_000])
def test_large_headers_are_refused_in_one_read_too(server: Server, body: bytes) -> None:
    """A large body behind small headers is none of that, however it comes."""
    length = b"Connection: close\r\nContent-Length: %d\r\n" % len(body)
    with client(server) as connection:
        connection.sendall(POST + length + b"X-A: " + b"a" * 8000 + b"\r\n\r\n" + body)
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 431")
        assert answer.count(b"HTTP/1.1") == 1
    with client(server) as connection:
        connection.sendall(POST + length + b"\r\n" + body)
        assert all_of(connection).endswith(b"%d" % len(body))


def test_a_body_that_does_not_come_is_refused(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nhalf")
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body did not arrive" in answer


def test_an_endless_body_is_cut_off(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(b"1000\r\n" + b"b" * 4096 + b"\r\n")
                time.sleep(0.001)
            pytest.fail("the server read on")
        assert b"413" in all_of(connection) or not server.server_state.tasks


def test_an_answer_that_nobody_reads_is_dropped(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(b"POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(server.server_state.tasks) == 1, 5)
        wait_until(lambda: not server.server_state.tasks and not server.server_state.connections, 10)


def test_garbage_is_a_400_and_the_next_client_is_served(server: Server) -> None:
    with client(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 400")
    with client(server) as connection:
        connection.sendall(POST + b"Content-Length: 3\r\n\r\nabc" * 1)
        assert connection.recv(1000).endswith(b"3")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_offer_of_http2_is_passed_over_and_the_body_read(server: Server, size: int) -> None:
    """Java's client makes it with its first request; what is parsed in pieces of any size is parsed alike."""
    offer = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    sent = offer + b"Content-Length: 3\r\n\r\nabc" + offer.replace(b"POST", b"GET") + b"\r\n"
    sent += offer + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    sent += POST + b"Connection: close\r\nContent-Length: 1\r\n\r\nx"
    with client(server) as connection:
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        answers = all_of(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 4
    assert [part[-1:] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"3", b"0", b"2", b"1"]


def test_more_connections_than_allowed_are_closed_at_once(server: Server) -> None:
    wait_until(lambda: not server.server_state.connections)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(client(server))
        wait_until(lambda: len(server.server_state.connections) == 8, 5)
        with client(server) as one_too_many:
            assert all_of(one_too_many) == b""


def test_a_slow_but_steady_client_is_served(server: Server) -> None:
    """Half a second is enough for a body; that it comes in pieces is no offence."""
    with client(server) as connection:
        connection.sendall(POST + b"Content-Length: 5\r\n\r\n")
        for letter in b"steady"[:5]:
            connection.sendall(bytes([letter]))
            time.sleep(0.05)
        assert connection.recv(1000).endswith(b"5")


def test_who_came_while_the_server_was_busy_is_answered_before_it_ends() -> None:
    with listening() as server, client(server) as first:
        first.sendall(b"POST /blocking HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.1)
        server.should_exit = True
        with client(server) as second:
            second.sendall(POST + b"Content-Length: 4\r\n\r\nlate")
            assert all_of(second).endswith(b"4")


def test_who_asks_again_and_again_is_answered_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlp_ci.serve.connections.RECENT", 60.0)
    monkeypatch.setattr("mlp_ci.serve.connections.PARTING", 2.0)
    with listening() as server, client(server) as busy, client(server) as new:
        busy.sendall(POST + b"Content-Length: 1\r\n\r\nx")
        assert busy.recv(1000).endswith(b"1")
        server.should_exit = True
        wait_until(lambda: not server.servers[0].is_serving())
        for one in (busy, new):
            one.sendall(POST + b"Content-Length: 2\r\n\r\nxx")
        assert all_of(busy).endswith(b"2")
        assert all_of(new).endswith(b"2")
