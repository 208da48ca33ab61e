"""One exchange over HTTP with GitHub's REST API, by requests: what came back, or why nothing whole did.

Redirects are followed here (a renamed repository answers with them) because their query and their verb matter, and
because the token must never follow one to another server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Response, Session

REQUEST_SECONDS = 10
REDIRECTS_LIMIT = 3
API_VERSION = "2022-11-28"
_ALWAYS = (307, 308)  # followed with the verb and the body as they are
_READING = (301, 302)
_BODILESS = (204, 205, 304)


class Transient(Exception):
    """A failure that may pass: GitHub's own, a limit, the network. Never leaves this package.

    ``wait``: the seconds that GitHub asks for. ``limited``: a rate limit, no failure. ``repeats``: it gave no time,
    so that each further such answer doubles the wait.
    """

    def __init__(
        self,
        what: str,
        *,
        wait: float | None = None,
        unreachable: bool = False,
        limited: bool = False,
        repeats: bool = False,
    ) -> None:
        super().__init__(what)
        self.wait = wait
        self.unreachable = unreachable
        self.limited = limited
        self.repeats = repeats


class Elsewhere(Exception):
    """An answer that sends us where we do not go: to another server, or around in a circle."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: ``url`` is whole, ``body`` becomes JSON."""

    verb: str
    url: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whatever its status; the names of headers are in lower case. ``data`` is None without a body."""

    status: int
    headers: Mapping[str, str]
    data: Any


def same_server(one: str, other: str) -> bool:
    """Whether two addresses are on one server: scheme, host and port."""
    return _server(one) == _server(other)


def _server(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def exchange(question: Question, token: str) -> Answer:
    """One attempt. Raises Transient where no whole answer came, Elsewhere where it sends us off."""
    verb, url, parameters = question.verb, question.url, question.parameters
    for _ in range(REDIRECTS_LIMIT + 1):
        response = _ask(verb, url, parameters, question.body, token)
        followed = response.status_code in (_READING + _ALWAYS if verb == "GET" else _ALWAYS)
        if not followed or "location" not in response.headers:
            return _answer(response)
        there = urljoin(url, response.headers["location"])
        if not same_server(url, there):
            msg = f"it sends us on to {urlsplit(there).scheme}://{urlsplit(there).netloc}"
            raise Elsewhere(msg)
        url, parameters = there, {}  # the new address has the query already
    msg = "it sends us around in a circle"
    raise Elsewhere(msg)


def _ask(verb: str, url: str, parameters: Mapping[str, Any], body: Mapping[str, Any] | None, token: str) -> Response:
    import requests

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return _session().request(
            verb,
            url,
            params=dict(parameters),
            json=dict(body) if body is not None else None,
            headers=headers,
            timeout=REQUEST_SECONDS,
            allow_redirects=False,
        )
    except requests.exceptions.ConnectTimeout as error:
        msg = "nobody answers there"
        raise Transient(msg, unreachable=True) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        msg = "the answer broke off"
        raise Transient(msg) from error
    except requests.exceptions.ConnectionError as error:
        text = str(error)
        broke_off = any(sign in text for sign in ("aborted", "reset", "Read timed out"))
        raise Transient(_network_reason(text), unreachable=not broke_off) from error
    except requests.exceptions.Timeout as error:
        msg = f"no answer within {REQUEST_SECONDS} s"
        raise Transient(msg) from error


def _answer(response: Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    status, body = response.status_code, response.content  # bytes: guessing an encoding takes long and goes wrong
    if status in _BODILESS or (not body and status >= 300):
        return Answer(status=status, headers=headers, data=None)
    if not body:
        msg = "the answer is empty"
        raise Transient(msg)
    try:
        return Answer(status=status, headers=headers, data=json.loads(body))
    except ValueError as error:
        if "json" not in headers.get("content-type", "") and status >= 300:  # a page of whatever stands in between
            return Answer(status=status, headers=headers, data=None)
        msg = "the answer is not whole" if body.lstrip()[:1] in (b"{", b"[") else "the answer is no JSON"
        raise Transient(msg) from error


@cache
def _session() -> Session:
    """The connections of this process, kept open between calls."""
    import requests

    session = requests.Session()
    session.auth = lambda request: request  # else requests would put what ~/.netrc says in place of our token
    session.headers["User-Agent"] = "mlp-ci"
    session.headers["Accept"] = "application/vnd.github+json"
    session.headers["X-GitHub-Api-Version"] = API_VERSION
    return session


def _network_reason(text: str) -> str:
    if "Name or service not known" in text or "NameResolution" in text or "Temporary failure in name" in text:
        return "the name of the server is not known"
    if "refused" in text:
        return "the connection was refused"
    if "certificate" in text.lower():
        return "its certificate is not trusted"
    return "the connection failed"
