"""From a browser's request to a page: sessions, permissions (the API's own), forms, refusals to read."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from mlp_ci.sandbox.forge import access
from mlp_ci.sandbox.forge.access import Actor
from mlp_ci.sandbox.forge.api.routing import read_body
from mlp_ci.sandbox.forge.pages.rendering import Renderer
from mlp_ci.sandbox.forge.pages.session import SESSION_SECONDS, Sealer, Session, new_session
from mlp_ci.sandbox.forge.records import Event, Record, Repo, Token, User
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from mlp_ci.sandbox.forge.access import Forge

REPO = "/{owner}/{repo}"
MAX_FORM = 1024 * 1024
_STATIC = Path(__file__).parent / "static"
_LARGEST_ID = 2**53
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)


@dataclass
class Page:
    """A template and what it needs. ``refresh``: seconds after which the page's live parts are fetched again."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    refresh: int = 0


@dataclass
class Visit:
    """One request: who looks, at what, with which form. ``problem`` says why a form was refused.

    ``source`` is then the address of the page that is shown again; ``opened`` is a session that begins or ends here.
    """

    forge: Forge
    session: Session
    who: User | None
    path: str
    params: dict[str, str]
    query: dict[str, str]
    form: dict[str, str]
    at: Repo | None = None
    problem: str = ""
    source: str = ""
    opened: Session | None = None

    @property
    def actor(self) -> Actor:
        if self.who is None:
            raise Refusal(401, "Log in first")
        return Actor(self.who)

    @property
    def repo(self) -> Repo:
        if self.at is None:
            raise Refusal(404, "Not Found")
        return self.at

    @property
    def home(self) -> str:
        """The path of the repository's page."""
        return f"/{self.repo.full_name}"

    def number(self, name: str) -> int:
        text = self.params[name]
        if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > _LARGEST_ID:
            raise Refusal(404, "Not Found")
        return int(text)

    def row(self, kind: type[R], where: str, *args: Any) -> R:
        found = self.forge.store.first(kind, where, *args)
        if found is None:
            raise Refusal(404, "Not Found")
        return found

    @property
    def stirring(self) -> bool:
        """Whether something has happened in the repository that the runner has not finished with: more is to come."""
        return self.forge.store.count(Event, "repo_id = ? AND state != 'done'", self.repo.id) > 0

    def may(self, scope: str, level: str, need: str) -> bool:
        return access.allowed(self.forge, self.actor, self.repo, scope, level, need)


Handler = Callable[[Visit], "Page | Response"]


@dataclass(frozen=True)
class Entry:
    """One route. ``scope`` and ``need`` are the API's; ``back`` shows a refused form again; ``open`` needs no login."""

    method: str
    path: str
    handler: Handler
    scope: str
    need: str
    back: Handler | None
    open: bool


class Group:
    """The pages of one subject, filled by decorators."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def get(self, path: str, scope: str = "metadata", *, open: bool = False) -> Callable[[Handler], Handler]:
        return self._add("GET", path, scope, "read", None, open)

    def post(
        self,
        path: str,
        scope: str = "metadata",
        need: str = "write",
        *,
        back: Handler | None = None,
        open: bool = False,
    ) -> Callable[[Handler], Handler]:
        return self._add("POST", path, scope, need, back, open)

    def _add(self, *facts: Any) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            method, path, *rest = facts
            self.entries.append(Entry(method, path, handler, *rest))
            return handler

        return add


def routes(forge: Forge, groups: Sequence[Group]) -> list[BaseRoute]:
    """Starlette's routes, in the order of the groups, and the two static files."""
    entries = [entry for group in groups for entry in group.entries]
    desk = _Desk(forge, {entry.handler: entry.path for entry in entries if entry.method == "GET"})
    static = [Route(f"/-/{file.name}", _static(file), methods=["GET"]) for file in sorted(_STATIC.iterdir())]
    return [*static, *(Route(e.path, desk.endpoint(e), methods=[e.method]) for e in entries)]


def go(path: str) -> RedirectResponse:
    """After a form: on to a page of this forge."""
    return RedirectResponse(path, 303)


def safe_next(path: str) -> str:
    """``path`` if it stays on this forge, else the first page."""
    ok = path.startswith("/") and not path.startswith("//") and not re.search(r"[\x00-\x20\\\x7f]", path)
    return path if ok else "/"


def words_of(refusal: Refusal) -> str:
    """A refusal in one or two sentences."""
    parts = []
    for error in refusal.errors or []:
        text = error if isinstance(error, str) else error.get("message") or f"{error.get('field')}: {error.get('code')}"
        parts.append(str(text).rstrip(".") + ".")
    return " ".join(parts) or refusal.message.rstrip(".") + "."


class _Desk:
    def __init__(self, forge: Forge, places: dict[Handler, str]) -> None:
        self.forge = forge
        self.places = places
        self.sealer = Sealer(forge.root)
        self.render = Renderer(forge)
        # Cookies do not know ports: two forges on one machine must not log each other out.
        self.cookie = f"forge_session_{urlsplit(forge.url).port or 80}"

    def endpoint(self, entry: Entry) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                body = await read_body(request, MAX_FORM) if entry.method == "POST" else b""
            except Refusal as refusal:
                return HTMLResponse(refusal.message, refusal.status, _HEADERS)
            return await run_in_threadpool(self._answer, entry, request, body)

        return answer

    def _answer(self, entry: Entry, request: Request, body: bytes) -> Response:
        visit = self._visit(request, body)
        if visit.who is None and not entry.open:
            return self._finish(visit, _to_login(request, entry))
        try:
            if any("\0" in text for text in (*visit.params.values(), *visit.query.values())):
                raise Refusal(404, "Not Found")
            if "repo" in visit.params:
                visit.at = self._repo(visit)
            if entry.method == "POST":
                self._check_form(visit, request)
            return self._finish(visit, self._handle(entry, visit))
        except Refusal as refusal:
            result = Page("error.html", {"status": refusal.status, "words": words_of(refusal)}, refusal.status)
        except Exception:
            _log.exception("%s %s", request.method, request.url.path)
            result = Page("error.html", {"status": 500, "words": "The forge made a mistake; its log says more."}, 500)
        return self._finish(visit, result)

    def _handle(self, entry: Entry, visit: Visit) -> Page | Response:
        try:
            _permit(entry, visit)
            return entry.handler(visit)
        except Refusal as refusal:
            if entry.back is None or refusal.status == 404:
                raise
            visit.problem = words_of(refusal)
            visit.source = self.places[entry.back].format(**{k: quote(v) for k, v in visit.params.items()})
            page = entry.back(visit)
            if isinstance(page, Page):
                # 405 would promise a list of methods; to a browser a refused form is a form with a mistake.
                page.status = refusal.status if refusal.status == 403 else 422
            return page

    def _visit(self, request: Request, body: bytes) -> Visit:
        session = self.sealer.unseal(request.cookies.get(self.cookie, "")) or new_session()
        who = self._user(session)
        try:
            form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200))
        except ValueError:
            form = {}
        params = {name: str(value) for name, value in request.path_params.items()}
        return Visit(self.forge, session, who, request.url.path, params, dict(request.query_params), form)

    def _user(self, session: Session) -> User | None:
        """Whose session it is; a session dies with the token that opened it."""
        store = self.forge.store
        if session.token_id and not store.count(Token, "id = ?", session.token_id):
            return None
        return store.first(User, "id = ?", session.user_id) if session.user_id else None

    def _repo(self, visit: Visit) -> Repo:
        repo = self.forge.store.repo(visit.params["owner"], visit.params["repo"].removesuffix(".git"))
        if repo is None or visit.who is None or not access.visible(self.forge, Actor(visit.who), repo):
            raise Refusal(404, "There is nothing here, or nothing that you may see")
        return repo

    def _check_form(self, visit: Visit, request: Request) -> None:
        origin = request.headers.get("origin")
        foreign = origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}"
        if foreign or not self.sealer.accepts(visit.session, visit.form.get("form_token", "")):
            raise Refusal(
                403, "This form is too old, or came from another page. Go back, load the page again and retry"
            )

    def _finish(self, visit: Visit, result: Page | Response) -> Response:
        if isinstance(result, Page):
            shell = {
                "me": visit.who,
                "form_token": self.sealer.form_token(visit.opened or visit.session),
                "repo": visit.at,
                "path": visit.path,
                "refresh": result.refresh,
                "source": visit.source,
                "problem": visit.problem,
                "form": visit.form if visit.problem else {},
            }
            result = HTMLResponse(self.render(result.template, {**shell, **result.values}), result.status)
        for name, value in _HEADERS.items():
            result.headers.setdefault(name, value)
        session = visit.opened or visit.session
        result.set_cookie(
            self.cookie, self.sealer.seal(session), max_age=SESSION_SECONDS, httponly=True, samesite="strict"
        )
        return result


def _permit(entry: Entry, visit: Visit) -> None:
    if visit.at is None:
        return
    level = "read" if entry.method == "GET" or entry.need == "read" else "write"
    if not visit.may(entry.scope, level, entry.need):
        have = access.role(visit.forge, visit.actor.user, visit.repo)
        words = f"This needs {entry.need} access to {visit.repo.full_name}; {visit.actor.user.login} has {have} access"
        raise Refusal(403, words)


def _to_login(request: Request, entry: Entry) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    # A form cannot be sent again after the login; its page's parent is the nearest thing to show.
    return go("/login?" + urlencode({"next": target if entry.method == "GET" else "/"}, quote_via=quote))


def _static(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return FileResponse(file, headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"})

    return answer
