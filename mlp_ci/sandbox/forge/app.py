"""The forge as one ASGI application: the REST API, git over HTTP, and whatever pages are given to it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from mlp_ci.sandbox.forge import git_http, pushes
from mlp_ci.sandbox.forge.access import Forge, open_forge
from mlp_ci.sandbox.forge.api import (
    actions,
    commits,
    contents,
    deployments,
    environments,
    git_data,
    graphql,
    history,
    issues,
    people,
    pulls,
    repositories,
    rulesets,
    settings,
)
from mlp_ci.sandbox.forge.api.routing import DOCS, routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from starlette.requests import Request

GROUPS = [
    module.group
    for module in (
        repositories, contents, git_data, commits, pulls, issues, deployments, actions, people, history,
        environments, rulesets, settings,
    )
]  # fmt: skip
_log = logging.getLogger(__name__)


def create_app(root: Path, extra_routes: Sequence[BaseRoute] = (), *, url: str = "http://127.0.0.1") -> Starlette:
    """The forge whose state lies under ``root``, reached at ``url``; ``app.state.forge`` is its ``Forge``.

    ``extra_routes`` (the pages) come after the API and git, so that they may end in ``/{owner}/{repo}``.
    """
    return app_of(open_forge(root, url), extra_routes)


def app_of(forge: Forge, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The same for a forge that is open already (pages need it to make their routes)."""
    pushes.recover(forge)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        forge.store.close()

    app = Starlette(
        routes=[
            Route("/healthz", _health, methods=["GET"]),
            graphql.route(forge),
            Mount("/api/v3", routes=routes(forge, GROUPS)),
            *git_http.routes(forge),
            *extra_routes,
        ],
        exception_handlers={HTTPException: _http_error, Exception: _bug},
        lifespan=lifespan,
    )
    app.state.forge = forge
    return app


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if not request.url.path.startswith("/api/"):
        return PlainTextResponse("Not Found" if status == 404 else str(error), status)
    # GitHub answers 404 for a method it does not know, too.
    return JSONResponse({"message": "Not Found", "documentation_url": DOCS, "status": "404"}, 404)


async def _bug(request: Request, error: Exception) -> Response:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse({"message": "Server Error", "documentation_url": DOCS, "status": "500"}, 500)
