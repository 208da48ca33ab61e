"""Logging in: with a token, or with a one-time link that ``mlp-ci sandbox up`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import access
from mlp_ci.sandbox.forge.pages.session import new_session, redeem
from mlp_ci.sandbox.forge.pages.web import Group, Page, Visit, go, safe_next
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.responses import Response

group = Group()


@group.get("/login", open=True)
def show(visit: Visit) -> Page:
    return Page("login.html", {"next": safe_next(visit.form.get("next") or visit.query.get("next", "/"))})


@group.post("/login", back=show, open=True)
def log_in(visit: Visit) -> Response:
    actor = access.authenticate(visit.forge, visit.form.get("token", "").strip())
    # A run's or an app's token acts in a workflow's name; a page is for people.
    if actor is None or actor.token is None or actor.token.kind != "user":
        raise Refusal(403, "The forge knows no person with this token")
    visit.opened = new_session(actor.user.id, actor.token.id)
    return go(safe_next(visit.form.get("next", "/")))


@group.get("/login/{code}", open=True)
def one_time(visit: Visit) -> Response:
    login = redeem(visit.forge.root, visit.params["code"])
    user = visit.forge.store.user(login) if login else None
    if user is None:
        raise Refusal(
            403, "This link has been used, or is older than ten minutes. Ask for a new one, or log in with a token"
        )
    visit.opened = new_session(user.id)
    return go(safe_next(visit.query.get("next", "/")))


@group.post("/logout")
def log_out(visit: Visit) -> Response:
    visit.opened = new_session()
    return go("/login")
