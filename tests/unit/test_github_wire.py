"""Requests to GitHub against a server that answers whatever a test writes down: limits, faults, pages, redirects."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.context import GitHubPlace
from mlp_ci.errors import OutsideError
from mlp_ci.github import GitHubError, Hub
from mlp_ci.github.graphql import address_of
from mlp_ci.github.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON = {"Content-Type": "application/json"}
FINE = (200, {}, b'{"name": "flight-delay"}')


@dataclass
class Scripted:
    """A server with a list of answers: (status, headers, body). The last one is given for ever.

    ``cut`` in the headers announces more bytes than are sent, ``reset`` closes without an answer.
    """

    answers: list[tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # verb, path, Authorization
    url: str = ""

    def next(self) -> tuple[int, dict[str, str], bytes]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Scripted

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.script.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        status, headers, body = self.script.next()
        if "reset" in headers:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(status)
        for name, value in {**JSON, "Date": formatdate(usegmt=True), **headers}.items():
            if name != "cut":
                self.send_header(name, value.replace("HERE", self.script.url))
        self.send_header("Content-Length", str(len(body) + (100 if "cut" in headers else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "cut" in headers

    do_GET = do_POST = do_PATCH = _any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    servers = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> Scripted:
        script = Scripted(list(answers))
        handler = type("Of", (Handler,), {"script": script})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def wire(script: Scripted, *, patience: float = 20.0, token: str = "secret", waits: list[float] | None = None) -> Wire:
    """A wire that notes how long it would wait instead of waiting."""
    place = GitHubPlace(owner="acme", repo="flight-delay", api_url=f"{script.url}/api/v3", token=token)
    noted = waits if waits is not None else []
    return Wire(place, patience, noted.append)


# ---------------------------------------------------------------- limits


def test_retry_after_in_seconds_is_kept_to(serve: Callable[..., Scripted]) -> None:
    waits: list[float] = []
    script = serve((429, {"Retry-After": "7"}, b'{"message": "slow down"}'), FINE)
    assert wire(script, waits=waits).get("/x", "read") == {"name": "flight-delay"}
    assert 7 <= waits[0] <= 7.7
    assert len(waits) == 1


def test_retry_after_as_a_date_is_meant_by_the_clock_of_the_server(serve: Callable[..., Scripted]) -> None:
    waits: list[float] = []
    there = 1_000_000_000  # a server whose clock is far off
    dates = {"Date": formatdate(there, usegmt=True), "Retry-After": formatdate(there + 9, usegmt=True)}
    wire(serve((503, dates, b"{}"), FINE), waits=waits).get("/x", "read")
    assert 9 <= waits[0] <= 9.9


def test_a_used_up_limit_is_waited_for_until_its_reset(serve: Callable[..., Scripted]) -> None:
    waits: list[float] = []
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 12)}
    wire(serve((403, reset, b'{"message": "API rate limit exceeded"}'), FINE), waits=waits).get("/x", "read")
    assert 11 <= waits[0] <= 15


def test_a_secondary_limit_without_a_time_is_waited_out_for_a_minute_and_then_two(
    serve: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mlp_ci.progress")
    waits: list[float] = []
    said = b'{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}'
    limited = (403, {"X-RateLimit-Remaining": "4711", "X-RateLimit-Reset": "1"}, said)
    wire(serve(limited, limited, FINE), patience=60, waits=waits).get("/x", "read")
    assert 60 <= waits[0] <= 66
    assert 120 <= waits[1] <= 132
    assert "waiting 6" in caplog.messages[0]
    assert "secondary rate limit" in caplog.messages[0]


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (403, {}, b'{"message": "You have exceeded a secondary rate limit"}'),
        (429, {}, b'{"message": "Too many requests"}'),
        (429, {"Retry-After": "3600"}, b"{}"),
    ],
)
def test_a_limit_longer_than_the_patience_is_said_at_once(
    serve: Callable[..., Scripted], status: int, headers: dict[str, str], said: bytes
) -> None:
    waits: list[float] = []
    script = serve((status, headers, said))
    with pytest.raises(OutsideError, match=str(status)) as refused:
        wire(script, patience=5, waits=waits).get("/x", "read")
    assert (waits, len(script.asked)) == ([], 1)
    assert "min" in refused.value.fix


def test_no_answer_is_followed_at_once_by_the_next_request(serve: Callable[..., Scripted]) -> None:
    waits: list[float] = []
    hurried = (429, {"Retry-After": "0"}, b"{}")
    wire(serve(*[hurried] * 5, FINE), waits=waits).get("/x", "read")
    assert len(waits) == 5
    for attempt, wait in enumerate(waits):
        assert 0.125 * 2**attempt <= wait <= 0.25 * 2**attempt


def test_two_clients_do_not_come_back_at_the_same_moment(serve: Callable[..., Scripted]) -> None:
    first: list[float] = []
    second: list[float] = []
    failing = [(500, {}, b"{}")] * 4
    for waits in (first, second):
        wire(serve(*failing, FINE), waits=waits).get("/x", "read")
    assert first != second


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault",
    [
        (500, {}, b'{"message": "oops"}'),
        (502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
        (503, {}, b""),
        (408, {}, b""),
        (200, {"cut": ""}, b'{"name": "fl'),
        (200, {}, b'{"name": "fl'),
        (200, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Log in to the hotel's network</html>"),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (403, {}, b'{"message": "Res'),
        (200, {"reset": ""}, b""),
    ],
)
def test_a_fault_is_tried_again(serve: Callable[..., Scripted], fault: tuple[int, dict[str, str], bytes]) -> None:
    script = serve(fault, fault, FINE)
    assert wire(script).get("/x", "read") == {"name": "flight-delay"}
    assert len(script.asked) == 3


def test_names_in_any_script_arrive_as_they_are(serve: Callable[..., Scripted]) -> None:
    said = '{"name": "Ærøskøbing 東京 é"}'.encode()
    assert wire(serve((200, {"Content-Type": "application/json"}, said))).get("/x", "read") == json.loads(said)
    cut = said[:-4]  # in the middle of a letter
    assert wire(serve((200, {}, cut), (200, {}, said))).get("/x", "read") == json.loads(said)


def test_a_proxy_that_says_no_is_a_refusal(serve: Callable[..., Scripted]) -> None:
    script = serve((407, {"Content-Type": "text/html"}, b"<html>Who are you?</html>"))
    with pytest.raises(GitHubError) as refused:
        wire(script).get("/x", "read")
    assert refused.value.status == 407


def test_a_token_that_is_none_is_refused_before_it_is_sent(serve: Callable[..., Scripted]) -> None:
    script = serve(FINE)
    for token in ("two\nlines", "naïve", "a b"):
        with pytest.raises(GitHubError) as refused:
            wire(script, token=token).get("/x", "read")
        assert refused.value.status == 401
        assert token not in f"{refused.value.what}{refused.value.why}{refused.value.fix}"
    assert script.asked == []


# ---------------------------------------------------------------- pages


def link(path: str, server: str = "HERE") -> dict[str, str]:
    return {"Link": f'<{server}/api/v3{path}>; rel="next", <{server}/api/v3/x?page=9>; rel="last"'}


def test_a_page_that_breaks_off_is_read_again_and_counts_once(serve: Callable[..., Scripted]) -> None:
    script = serve(
        (200, link("/x?page=2"), b"[1, 2]"),
        (200, {**link("/x?page=3"), "cut": ""}, b"[3, "),
        (200, link("/x?page=3"), b"[3, 4]"),
        (200, {}, b"[5]"),
    )
    assert wire(script).pages("/x", "read", state="all") == [1, 2, 3, 4, 5]
    assert [path for _, path, _ in script.asked] == [
        "/api/v3/x?per_page=100&state=all", *["/api/v3/x?page=2"] * 2, "/api/v3/x?page=3",
    ]  # fmt: skip


def test_pages_that_lead_back_are_not_read_for_ever(serve: Callable[..., Scripted]) -> None:
    script = serve((200, link("/x?page=2"), b"[1]"))
    with pytest.raises(OutsideError, match="never end"):
        wire(script).pages("/x", "read")
    assert len(script.asked) == 2


@pytest.mark.parametrize("server", ["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_the_token_follows_no_page_to_another_server(serve: Callable[..., Scripted], server: str) -> None:
    script = serve((200, link("/x?page=2", server), b"[1]"))
    with pytest.raises(OutsideError, match="the next page is said to be at") as refused:
        wire(script).pages("/x", "read")
    assert "token is sent to no other server" in refused.value.why


def test_a_page_that_is_no_list_is_a_fault(serve: Callable[..., Scripted]) -> None:
    script = serve((200, {}, b'{"message": "sorry"}'), (200, {}, b"[1]"))
    assert wire(script).pages("/x", "read") == [1]


def test_only_as_many_pages_are_read_as_are_wanted(serve: Callable[..., Scripted]) -> None:
    script = serve((200, link("/x?page=2"), b"[1, 2]"), (200, link("/x?page=3"), b"[3, 4]"))
    assert next(iter(wire(script).each("/x", "read"))) == 1
    assert len(script.asked) == 1


# ---------------------------------------------------------------- redirects


def test_a_renamed_repository_is_followed_with_its_query(serve: Callable[..., Scripted]) -> None:
    script = serve((301, {"Location": "HERE/api/v3/repositories/7/commits?sha=abc&per_page=100"}, b"{}"), FINE)
    assert wire(script).get("/repos/acme/old/commits", "read", sha="abc") == {"name": "flight-delay"}
    assert script.asked[1][1] == "/api/v3/repositories/7/commits?sha=abc&per_page=100"


def test_a_write_is_sent_on_only_where_it_stays_a_write(serve: Callable[..., Scripted]) -> None:
    moved = {"Location": "/api/v3/repositories/7/statuses"}
    script = serve((307, moved, b"{}"), (201, {}, b'{"id": 1}'))
    assert wire(script).send("POST", "/repos/acme/old/statuses", "write", {"state": "success"}) == {"id": 1}
    assert [verb for verb, _, _ in script.asked] == ["POST", "POST"]
    with pytest.raises(GitHubError) as refused:
        wire(serve((302, moved, b"{}"))).send("POST", "/x", "write", {})
    assert refused.value.status == 302


@pytest.mark.parametrize("there", ["http://evil.example/x", "//evil.example/x", "HERE/api/v3/x"])
def test_no_redirect_leads_the_token_away_or_around(serve: Callable[..., Scripted], there: str) -> None:
    with pytest.raises(OutsideError, match=r"sends us (on to http://evil.example|around in a circle)"):
        wire(serve((301, {"Location": there}, b"{}"))).get("/x", "read")


# ---------------------------------------------------------------- GraphQL


@pytest.mark.parametrize(
    ("api", "there"),
    [
        ("https://api.github.com", "https://api.github.com/graphql"),
        ("https://github.acme.example/api/v3", "https://github.acme.example/api/graphql"),
        ("https://github.acme.example/api/v3/", "https://github.acme.example/api/graphql"),
        ("https://api.acme.ghe.com", "https://api.acme.ghe.com/graphql"),
        ("http://127.0.0.1:3000/api/v3", "http://127.0.0.1:3000/api/graphql"),
    ],
)
def test_where_graphql_is(api: str, there: str) -> None:
    assert address_of(api) == there


def test_graphql_is_asked_beside_the_rest_api_and_faults_pass(serve: Callable[..., Scripted]) -> None:
    own = b'{"data": null, "errors": [{"message": "Something went wrong while executing your query."}]}'
    limited = b'{"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}'
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 12)}
    waits: list[float] = []
    script = serve((200, {}, own), (200, reset, limited), (502, {}, b""), (200, {}, b'{"data": {"viewer": 1}}'))
    assert Hub(wire(script, waits=waits)).graphql("query { viewer }", {}, "ask") == {"viewer": 1}
    assert 11 <= waits[1] <= 15
    assert {(verb, path, secret) for verb, path, secret in script.asked} == {("POST", "/api/graphql", "Bearer secret")}


@pytest.mark.parametrize(("kind", "status"), [("NOT_FOUND", 404), ("FORBIDDEN", 403), ("undefinedField", 422)])
def test_a_partial_answer_is_a_refusal(serve: Callable[..., Scripted], kind: str, status: int) -> None:
    said = b'{"data": {"repository": {"object": null}}, "errors": [{"type": "KIND", "message": "no"}]}'
    with pytest.raises(GitHubError) as refused:
        Hub(wire(serve((200, {}, said.replace(b"KIND", kind.encode()))))).graphql("query", {}, "ask")
    assert refused.value.status == status
