"""Git over HTTP: ``git http-backend`` behind the forge's own authentication, permissions and branch protection."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mlp_ci.sandbox.forge import access, protection, pushes
from mlp_ci.sandbox.forge.access import Actor, Forge, email_of
from mlp_ci.sandbox.forge.api.routing import credentials
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from mlp_ci.sandbox.forge.records import Repo

MAX_PUSH = 1024 * 1024 * 1024
_CHUNK = 64 * 1024
_SERVICES = ("git-upload-pack", "git-receive-pack")
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="mlp-ci forge"'}


def routes(forge: Forge) -> list[Route]:
    """``/<owner>/<repo>[.git]/info/refs`` and the two services; nothing else of a repository's folder is served."""

    async def info(request: Request) -> Response:
        return await _serve(forge, request, request.query_params.get("service", ""), "/info/refs")

    async def service(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return await _serve(forge, request, name, f"/{name}")

    return [
        Route("/{owner}/{repo}/info/refs", info, methods=["GET"]),
        *(Route(f"/{{owner}}/{{repo}}/{name}", service, methods=["POST"]) for name in _SERVICES),
    ]


async def _serve(forge: Forge, request: Request, service: str, tail: str) -> Response:
    if service not in _SERVICES:
        return PlainTextResponse("Not Found", 404)
    body = tempfile.TemporaryFile(dir=forge.root)  # noqa: SIM115 - closed below, or by the stream that sends it
    try:
        actor, repo = await run_in_threadpool(_admit, forge, request, service)
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_PUSH:
                raise Refusal(413, "The push is too large")
            await run_in_threadpool(body.write, chunk)
        body.seek(0)
        env = _environment(forge, request, repo, actor, tail, size)
        return await run_in_threadpool(_run, forge, repo, actor, env, body, writes=tail == "/git-receive-pack")
    except Refusal as refusal:
        return PlainTextResponse(refusal.message, refusal.status, _CHALLENGE if refusal.status == 401 else None)
    finally:
        body.close()


def _admit(forge: Forge, request: Request, service: str) -> tuple[Actor, Repo]:
    header = request.headers.get("authorization", "")
    actor = access.authenticate(forge, credentials(header))
    if actor is None:
        raise Refusal(401, "Authentication required: use a token of the forge as password")
    name = str(request.path_params["repo"]).removesuffix(".git")
    repo = forge.store.repo(str(request.path_params["owner"]), name)
    if repo is None or not access.visible(forge, actor, repo):
        raise Refusal(404, "Repository not found.")
    level, need = ("write", "write") if service == "git-receive-pack" else ("read", "read")
    if not access.allowed(forge, actor, repo, "contents", level, need):
        raise Refusal(403, f"Permission to {repo.full_name}.git denied to {actor.user.login}.")
    return actor, repo


def _environment(forge: Forge, request: Request, repo: Repo, actor: Actor, tail: str, size: int) -> dict[str, str]:
    """The CGI environment. The path comes from the database, never from the request."""
    env = {
        **forge.git.environment(),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "GIT_PROJECT_ROOT": str(forge.git.root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{repo.owner}/{repo.name}.git{tail}",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.url.query if tail == "/info/refs" else "",
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(size),
        "REMOTE_USER": actor.user.login,
        "REMOTE_ADDR": "127.0.0.1",
        "GIT_COMMITTER_NAME": actor.user.login,
        "GIT_COMMITTER_EMAIL": email_of(actor.user),
        "FORGE_CLOSED": " ".join(protection.closed_refs(forge, repo, actor)),
        "FORGE_UNFORCED": " ".join(protection.unforced_refs(forge, repo, actor)),
        "FORGE_UNDELETED": " ".join(protection.undeletable_refs(forge, repo, actor)),
    }
    if request.headers.get("content-encoding") == "gzip":
        env["HTTP_CONTENT_ENCODING"] = "gzip"
    version = request.headers.get("git-protocol", "")
    if re.fullmatch(r"version=[0-2]", version):
        env["GIT_PROTOCOL"] = version
    return env


def _run(forge: Forge, repo: Repo, actor: Actor, env: dict[str, str], body: IO[bytes], *, writes: bool) -> Response:
    out = tempfile.TemporaryFile(dir=forge.root)  # noqa: SIM115 - closed by the stream that sends it
    with pushes.writing(forge, repo, actor) if writes else contextlib.nullcontext():
        command = ["git", "http-backend"]
        subprocess.run(command, stdin=body, stdout=out, stderr=subprocess.DEVNULL, env=env, check=False)
    out.seek(0)
    headers: dict[str, str] = {}
    for line in iter(out.readline, b""):
        if not line.strip():
            break
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip()] = value.strip()
    status = int(headers.pop("Status", "200" if headers else "500").split()[0])
    return StreamingResponse(_chunks(out), status, headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
