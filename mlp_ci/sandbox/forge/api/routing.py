"""From an HTTP request to a handler and back: tokens, permissions, bodies, pages, and errors as GitHub words them.

A handler is a plain function ``(Call) -> Reply | JSON``; it runs in a worker thread, so it may ask git and SQLite. It
is registered with its path as GitHub's OpenAPI description writes it, which is also how the tests find the response
model it is held to.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlp_ci.sandbox.forge import access
from mlp_ci.sandbox.forge.records import Record, Repo, User
from mlp_ci.sandbox.forge.store import Refusal, invalid

if TYPE_CHECKING:
    from starlette.requests import Request

    from mlp_ci.sandbox.forge.access import Actor, Forge

MAX_BODY = 32 * 1024 * 1024
DOCS = "https://docs.github.com/rest"
_LARGEST_ID = 2**53
_MULTI = ("path", "ref", "branch", "basehead", "environment_name", "name")
R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass
class Reply:
    """What a handler answers when it is more than JSON with status 200."""

    data: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Call:
    """One authenticated request: who asks, path parameters, query, JSON body and, under ``/repos``, the repository."""

    forge: Forge
    actor: Actor
    params: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]
    url: str
    headers: dict[str, str]
    at: Repo | None = None

    @property
    def repo(self) -> Repo:
        if self.at is None:
            msg = "repo"
            raise KeyError(msg)
        return self.at

    def number(self, name: str) -> int:
        """A number of the path; anything else names nothing: 404."""
        text = self.params[name]
        if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > _LARGEST_ID:
            raise Refusal(404, "Not Found")
        return int(text)

    def row(self, kind: type[R], where: str, *args: Any) -> R:
        """The row that the path names, or 404."""
        found = self.forge.store.first(kind, where, *args)
        if found is None:
            raise Refusal(404, "Not Found")
        return found

    def user(self, name: str = "username") -> User:
        return self.row(User, "login = ? COLLATE NOCASE", self.params[name])

    def commit(self, rev: str) -> str:
        """The commit that ``rev`` means, or GitHub's 422."""
        sha = self.forge.git.resolve(self.repo, rev)
        if sha is None:
            raise Refusal(422, f"No commit found for SHA: {rev}")
        return sha

    def get(self, name: str, kind: type[R] | type[Any], default: Any = None) -> Any:
        """A field of the body that must be of a JSON type if it is there; None counts as absent."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            msg = "Body"
            raise invalid(msg, name)
        return value

    def text(self, name: str) -> str:
        """A field that must be a non-empty string."""
        value = self.get(name, str)
        if not value:
            msg = "Body"
            raise invalid(msg, name, "missing_field")
        return str(value)

    def texts(self, name: str) -> list[str]:
        value = self.get(name, list, [])
        if not all(isinstance(item, str) for item in value):
            msg = "Body"
            raise invalid(msg, name)
        return list(value)

    def choice(self, name: str, options: Sequence[str], default: str | None = None) -> str | None:
        value = self.get(name, str, default)
        if value is not None and value not in options:
            msg = "Body"
            raise invalid(msg, name)
        return value if value is None else str(value)


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Endpoint:
    """One operation. ``scope``: what a run token needs (``contents``); ``role``: what a user needs on the repo."""

    method: str
    template: str
    handler: Handler
    scope: str
    role: str

    @property
    def path(self) -> str:
        """The template for starlette; parameters that may hold slashes take them."""
        return re.sub(r"{(\w+)}", lambda m: f"{{{m[1]}:path}}" if m[1] in _MULTI else m[0], self.template)

    @property
    def level(self) -> str:
        return "read" if self.method == "GET" else "write"


class Group:
    """The endpoints of one subject, filled by decorators."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    def __call__(
        self, method: str, template: str, scope: str = "metadata", role: str = ""
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            need = role or ("read" if method == "GET" else "write")
            self.endpoints.append(Endpoint(method, template, handler, scope, need))
            return handler

        return add


def routes(forge: Forge, groups: Iterable[Group]) -> list[Route]:
    """Starlette routes, most specific first: ``/commits/{ref}/status`` must not be taken for a ref with a slash."""
    endpoints = sorted((e for g in groups for e in g.endpoints), key=_generality)
    return [Route(e.path, _endpoint(forge, e), methods=[e.method], name=f"{e.method} {e.template}") for e in endpoints]


def _generality(endpoint: Endpoint) -> list[int]:
    """Sorts a literal part before a parameter, that before one that takes slashes, and all of them before the end."""
    parts = endpoint.path.split("/")
    return [2 if part.endswith(":path}") else 1 if part.startswith("{") else 0 for part in parts] + [3]


def page_size(call: Call) -> int:
    return min(max(_integer(call.query.get("per_page"), 30), 1), 100)


def page(call: Call, items: Sequence[T], shape: Callable[[T], Any], wrap: str = "") -> Reply:
    """One page of ``items`` with GitHub's ``Link`` header; ``wrap`` puts it as ``{total_count, <wrap>: […]}``."""
    size = page_size(call)
    number = max(_integer(call.query.get("page"), 1), 1)
    last = max((len(items) + size - 1) // size, 1)
    rels = {"prev": number - 1, "first": 1} if number > 1 else {}
    rels |= {"next": number + 1, "last": last} if number < last else {}
    links = [f'<{call.url}?{urlencode({**call.query, "page": n})}>; rel="{rel}"' for rel, n in rels.items()]
    data: Any = [shape(item) for item in items[(number - 1) * size : number * size]]
    if wrap:
        data = {"total_count": len(items), wrap: data}
    return Reply(data, headers={"Link": ", ".join(links)} if links else {})


def credentials(header: str) -> str:
    """The token in an ``Authorization`` header: bearer, ``token``, or basic with the token as password."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return user if password in ("", "x-oauth-basic") else password


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The whole body; 413 as soon as it is longer than ``limit`` bytes."""
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(413, "Payload too large")
        chunks.append(chunk)
    return b"".join(chunks)


def error_response(refusal: Refusal) -> JSONResponse:
    data: dict[str, Any] = {"message": refusal.message, "documentation_url": DOCS, "status": str(refusal.status)}
    if refusal.errors is not None:
        data["errors"] = refusal.errors
    return JSONResponse(data, refusal.status)


def _endpoint(forge: Forge, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            body = await read_body(request)
            return await run_in_threadpool(_answer, forge, endpoint, request, body)
        except Refusal as refusal:
            return error_response(refusal)

    return answer


def _answer(forge: Forge, endpoint: Endpoint, request: Request, body: bytes) -> Response:
    header = request.headers.get("authorization", "")
    actor = access.authenticate(forge, credentials(header))
    if actor is None:
        raise Refusal(401, "Bad credentials" if header else "Requires authentication")
    params = {name: str(value) for name, value in request.path_params.items()}
    call = Call(
        forge, actor, params, dict(request.query_params), {}, forge.url + request.url.path, dict(request.headers)
    )
    if any("\0" in text for text in (*params.values(), *call.query.values())):
        raise Refusal(404, "Not Found")
    if endpoint.template.startswith("/repos/"):
        call.at = _admit(forge, actor, params, endpoint)
    call.body = parse_body(body)
    result = endpoint.handler(call)
    if isinstance(result, Response):
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    if reply.data is None:
        return Response(status_code=reply.status if reply.status != 200 else 204, headers=reply.headers)
    if isinstance(reply.data, str):
        return PlainTextResponse(reply.data, reply.status, reply.headers)
    return JSONResponse(reply.data, reply.status, reply.headers)


def _admit(forge: Forge, actor: Actor, params: dict[str, str], endpoint: Endpoint) -> Repo:
    """The repository of the path, if the actor may know it (404) and do this to it (403)."""
    repo = forge.store.repo(params["owner"], params["repo"].removesuffix(".git"))
    if repo is None or not access.visible(forge, actor, repo):
        raise Refusal(404, "Not Found")
    if not access.allowed(forge, actor, repo, endpoint.scope, endpoint.level, endpoint.role):
        kind = "personal access token" if actor.token is None or actor.token.kind == "user" else "integration"
        raise Refusal(403, f"Resource not accessible by {kind}")
    return repo


def parse_body(body: bytes) -> dict[str, Any]:
    """A request's body, which must be a JSON object or nothing: 400."""
    if not body.strip():
        return {}
    try:
        data = json.loads(body)
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair parses, but nothing can store it
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "Problems parsing JSON") from error
    if not isinstance(data, dict):
        raise Refusal(400, "Body should be a JSON object")
    return data


def _integer(text: str | None, default: int) -> int:
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else default
