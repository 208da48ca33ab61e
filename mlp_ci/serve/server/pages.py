"""What a model server answers besides predictions: whether it is well, what it serves, how to ask it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__
from mlp_ci.serve.server import inference
from mlp_ci.serve.server.counting import exposition
from mlp_ci.serve.server.openapi import document
from mlp_ci.serve.server.page import html

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlp_ci.serve.server.app import Application

# The page needs nothing from outside, and says so to the browser.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def pages(app: Application) -> Starlette:
    """The ASGI application for every path but those that predict."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    health = Health(app)
    telling = Telling(app)
    one = "/v2/models/{name}"
    version = one + "/versions/{version}"
    return Starlette(
        routes=[
            Route("/health", health.ready),
            Route("/ping", health.ready),
            Route("/version", health.version),
            Route("/v2/health/live", health.v2_live),
            Route("/v2/health/ready", health.v2_ready),
            Route("/v2", telling.server),
            *(Route(path, telling.model) for path in (one, version)),
            *(Route(f"{path}/ready", telling.model_ready) for path in (one, version)),
            *(Route(f"{path}/infer", telling.no_such_model, methods=["POST"]) for path in (one, version)),
            Route("/invocations", telling.no_such_model, methods=["POST"]),  # so that GET is refused with 405
            Route("/metrics", telling.metrics),
            Route("/openapi.json", telling.openapi),
            Route("/docs", telling.docs),
            Route("/", telling.front),
        ],
        exception_handlers={HTTPException: refused},
    )


async def refused(request: Request, error: Any) -> Response:
    """404 and 405, in the words of the protocol that was meant."""
    from starlette.responses import JSONResponse

    known = "/invocations, /v2, /health, /version, /metrics, /docs"
    missing = error.status_code == HTTPStatus.NOT_FOUND
    message = f"there is no such path; there are {known}" if missing else f"{request.method} is not for this path"
    v2 = request.url.path.startswith("/v2")
    code = "NOT_FOUND" if missing else "METHOD_NOT_ALLOWED"
    told = {"error": message} if v2 else {"error_code": code, "message": message}
    return JSONResponse(told, error.status_code, error.headers)


class Health:
    """Whether it lives, whether it takes requests, and what it is."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def ready(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        told = "ok" if self.app.ready else "leaving" if self.app.leaving else "a prediction does not come back"
        return JSONResponse({"status": told, **self.app.facts.to_json()}, 200 if self.app.ready else 503)

    async def version(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(self.app.facts.to_json())

    async def v2_live(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        live = not self.app.batcher.stuck
        return JSONResponse({"live": live}, 200 if live else 503)

    async def v2_ready(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse({"ready": self.app.ready}, 200 if self.app.ready else 503)


class Telling:
    """What it serves and how to ask it, in several notations."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.described = document(app)

    def _other(self, request: Request) -> str | None:
        """What is wrong with the model that the path names."""
        facts, asked = self.app.facts, request.path_params
        name, version = asked.get("name", facts.model), asked.get("version", str(facts.version))
        if (name, version) == (facts.model, str(facts.version)):
            return None
        return f"this server serves {facts.model} version {facts.version}, not {name[:60]} version {version[:20]}"

    async def server(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse({"name": "mlp-ci", "version": __version__, "extensions": []})

    async def model(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        if message := self._other(request):
            return JSONResponse({"error": message}, 404)
        facts, loaded = self.app.facts, self.app.loaded
        told = {
            "name": facts.model,
            "versions": [str(facts.version)],
            "platform": f"mlflow_{facts.kind}",
            "inputs": inference.described(loaded.signature),
            "outputs": inference.outputs(loaded, self.app.sample),
        }
        return JSONResponse(told)

    async def model_ready(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        if message := self._other(request):
            return JSONResponse({"error": message}, 404)
        ready = self.app.ready
        return JSONResponse({"name": self.app.facts.model, "ready": ready}, 200 if ready else 503)

    async def no_such_model(self, request: Request) -> Response:
        """Reached by names only that are not this model's: its own are answered before."""
        from starlette.responses import JSONResponse

        return JSONResponse({"error": self._other(request) or "not found"}, 404)

    async def metrics(self, _request: Request) -> Response:
        from starlette.responses import Response

        facts = self.app.facts
        labels = {"model": facts.model, "version": str(facts.version)}
        text = exposition(self.app.board, labels, ready=self.app.ready)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(self.described)

    async def front(self, _request: Request) -> Response:
        from starlette.responses import RedirectResponse

        return RedirectResponse("docs")

    async def docs(self, _request: Request) -> Response:
        from starlette.responses import HTMLResponse

        return HTMLResponse(html(self.app), headers={"Content-Security-Policy": _POLICY})
