"""One version's model server: ``python -m mlp_ci.serve.server --model FOLDER --digest sha256:… --port N``.

Verifies the artefact's digest before it loads a byte of it, then answers MLflow's ``/invocations`` and ``/health``
on loopback. Requests that arrive together are predicted together: a prediction costs the same for one row or for
sixteen. Exits: 2 the model is refused or cannot be loaded, 98 the port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, MlpError
from mlp_ci.serve.listening import bind, serve
from mlp_ci.serve.payload import BODY_LIMIT, BadRequest, parse
from mlp_ci.serve.processes import EXIT_PORT_TAKEN, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlp_ci.serve.model import Loaded

BATCH_ROWS = 512


class ModelFailed(Exception):
    """The model raised on an input that fits its signature."""


@dataclass
class _Waiting:
    columns: Any
    count: int
    future: asyncio.Future[list[Any]]


@dataclass
class Batcher:
    """Collects the requests that arrive in one turn of the event loop and predicts them in one call.

    There is no timer: while one batch is predicted the next one gathers in the sockets, so a batch grows with
    the load, and a single request waits for nothing. ``predict`` runs in the event loop on purpose: handing it to a
    thread costs more than it takes.
    """

    loaded: Loaded
    waiting: list[_Waiting] = field(default_factory=list)

    def submit(self, columns: Any, count: int) -> asyncio.Future[list[Any]]:
        """Queue checked columns (or a tensor); the future holds one prediction per row, or raises ModelFailed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        if not self.waiting:
            loop.call_soon(self._flush)
        self.waiting.append(_Waiting(columns, count, future))
        return future

    def _flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        groups: dict[Any, list[_Waiting]] = {}
        for one in waiting:
            key = tuple(one.columns) if isinstance(one.columns, dict) else id(one)
            groups.setdefault(key, []).append(one)
        for group in groups.values():
            for batch in _chunks(group):
                self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            predictions = self._predict(batch)
        except Exception as error:
            if len(batch) > 1:  # one bad request must not spoil its neighbours
                for one in batch:
                    self._answer([one])
                return
            print(f"the model failed: {error!r}", file=sys.stderr)
            if not batch[0].future.done():
                batch[0].future.set_exception(ModelFailed(type(error).__name__))
            return
        start = 0
        for one in batch:
            if not one.future.done():
                one.future.set_result(predictions[start : start + one.count])
            start += one.count

    def _predict(self, batch: list[_Waiting]) -> list[Any]:
        if not isinstance(batch[0].columns, dict):
            import numpy as np

            predictions = self.loaded.predict(np.array(batch[0].columns))
        else:
            columns = batch[0].columns
            if len(batch) > 1:
                columns = {name: [v for one in batch for v in one.columns[name]] for name in columns}
            predictions = self.loaded.predict(self.loaded.signature.frame(columns))
        rows = sum(one.count for one in batch)
        if len(predictions) != rows:
            msg = f"the model returned {len(predictions)} predictions for {rows} rows"
            raise ValueError(msg)
        return predictions


def _chunks(group: list[_Waiting]) -> list[list[_Waiting]]:
    chunks: list[list[_Waiting]] = []
    rows = BATCH_ROWS
    for one in group:
        if rows + one.count > BATCH_ROWS:
            chunks.append([])
            rows = 0
        chunks[-1].append(one)
        rows += one.count
    return chunks


async def read_body(request: Request) -> bytes:
    """The request's body; raises BadRequest (413) as soon as it is too large, without reading the rest."""
    announced = request.headers.get("content-length", "")
    too_large = f"the body is larger than {BODY_LIMIT // 2**20} MiB; send fewer rows at a time"
    if announced.isdigit() and int(announced) > BODY_LIMIT:
        raise BadRequest(too_large, 413)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise BadRequest(too_large, 413)
        parts.append(part)
    return b"".join(parts)


def application(loaded: Loaded, facts: dict[str, Any]) -> Starlette:
    """The ASGI application. ``facts`` is what ``/version`` answers."""
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    batcher = Batcher(loaded)
    signature = loaded.signature

    def refusal(status: int, code: str, message: str) -> Response:
        return JSONResponse({"error_code": code, "message": message}, status)

    async def invocations(request: Request) -> Response:
        try:
            kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            if kind != "application/json":
                msg = f"this server reads application/json, not {kind[:60]}"
                raise BadRequest(msg, 415)
            rows = parse(await read_body(request))
            columns = rows.tensor if signature.tensor and rows.tensor is not None else signature.check(rows)
            predictions = await batcher.submit(columns, rows.count)
        except BadRequest as error:
            return refusal(error.status, "BAD_REQUEST", error.message)
        except ModelFailed as error:
            return refusal(500, "MODEL_FAILED", f"the model failed on this input ({error}); its log has more")
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            text = json.dumps({"predictions": predictions}, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError):
            return refusal(500, "MODEL_FAILED", "the model returned a value that JSON cannot hold")
        return Response(text, media_type="application/json")

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", **facts})

    async def version(_request: Request) -> Response:
        return JSONResponse(facts)

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/health", health),
            Route("/ping", health),
            Route("/version", version),
        ]
    )


def verify(folder: Path, digest: str) -> None:
    """Refuse an artefact whose bytes are not the approved ones; raises InputError."""
    from mlp_ci.tracking import artifact_digest

    if not folder.is_dir():
        msg = f"the model folder {folder} does not exist"
        raise InputError(msg, fix="run `mlp-ci deploy` to fetch it")
    found = artifact_digest(folder)
    if found != digest:
        msg = f"the artefact in {folder} has the digest {found}, not {digest}"
        why = "what was approved is other bytes; loading these could run anything"
        raise InputError(msg, why=why, fix=f"remove {folder} and run `mlp-ci deploy` again")


def main(arguments: Sequence[str] | None = None) -> int:
    """Bind, verify, load, serve; the exit code says which of these failed."""
    parser = argparse.ArgumentParser(prog="mlp_ci.serve.server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of an MLflow model")
    parser.add_argument("--digest", required=True, help="sha256:… that the folder must have")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="model")
    parser.add_argument("--version", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        print(f"port {options.port} cannot be used: {error.strerror}", file=sys.stderr)
        return EXIT_PORT_TAKEN
    try:
        verify(options.model, options.digest)
        from mlp_ci.serve.model import load

        loaded = load(options.model)
    except MlpError as error:
        print(f"refused: {error.what}", file=sys.stderr)
        return EXIT_REFUSED
    except Exception as error:
        traceback.print_exc()
        print(f"refused: the model cannot be loaded: {error!r}", file=sys.stderr)
        return EXIT_REFUSED
    facts = {"model": options.name, "version": options.version, "digest": options.digest, "kind": loaded.kind}
    serve(application(loaded, facts), listener, lifespan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
