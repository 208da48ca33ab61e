"""The ASGI application of one model server: the two paths that predict, quick; all others in :mod:`.pages`."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.answers import Unwritable
from mlp_ci.serve.payload import BODY_LIMIT, BadRequest
from mlp_ci.serve.server import inference, invocations, table
from mlp_ci.serve.server.batching import Batcher, BatchLimits, ModelFailed, Overloaded

if TYPE_CHECKING:
    from mlp_ci.serve.model import Loaded
    from mlp_ci.serve.server.counting import Board, Counts

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
Answer = tuple[int, bytes, list[Header]]  # status, JSON, further headers

BODIES_LIMIT = (
    256 * 1024 * 1024
)  # bytes of all bodies that are being read, over which newcomers are asked to come again
_TOO_LARGE = f"the body is larger than {BODY_LIMIT // 2**20} MiB; send fewer rows at a time"
_OTHER_TYPE = 415
_READABLE = (b"accept-encoding", b"identity")  # RFC 9110, 15.5.16: what a client may send instead
_MLFLOW, _V2 = 0, 1  # places in counting.PROTOCOLS


class Gone(Exception):
    """The client left in the middle of its request."""


@dataclass(frozen=True)
class Facts:
    """What this server serves."""

    model: str
    version: int
    digest: str
    kind: str

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.version, "digest": self.digest, "kind": self.kind}


@dataclass
class Application:
    """One worker's application. ``leaving`` is set once it was asked to end: it answers on, but is not ready.

    ``example`` is a request's body that the model was saved with, ``sample`` its answer to it.
    """

    loaded: Loaded
    facts: Facts
    board: Board
    counts: Counts
    limits: BatchLimits = field(default_factory=BatchLimits)
    example: dict[str, Any] | None = None
    sample: list[Any] | None = None
    leaving: bool = False

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.loaded, self.limits, self.counts)
        self.read_json = invocations.reader(self.loaded.signature)
        self.read_v2 = inference.reader(self.loaded.signature)
        self.held = 0
        own = f"/v2/models/{self.facts.model}"
        self.v2_paths = {f"{own}/infer", f"{own}/versions/{self.facts.version}/infer"}
        self._pages: Any = None

    @property
    def ready(self) -> bool:
        return not self.leaving and not self.batcher.stuck

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if method == "POST" and path == "/invocations":
            await self._serve(_MLFLOW, scope, receive, send)
        elif method == "POST" and path in self.v2_paths:
            await self._serve(_V2, scope, receive, send)
        else:
            await self.pages(scope, receive, send)

    @property
    def pages(self) -> Any:
        """All that is not asked a thousand times a second."""
        if self._pages is None:
            from mlp_ci.serve.server.pages import pages

            self._pages = pages(self)
        return self._pages

    async def _serve(self, protocol: int, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        self.counts.begin()
        try:
            ask = self._mlflow if protocol == _MLFLOW else self._v2
            status, body, headers = await self._answer(ask, protocol, scope, receive)
        except BaseException as error:
            self.counts.gone()
            if isinstance(error, Gone):
                return
            raise  # a mistake of ours: uvicorn answers 500, and its log has it
        self.counts.end(protocol, status, time.perf_counter() - began)
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if self.leaving:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, ask: Callable[[bytes, str], Awaitable[bytes]], protocol: int, scope: Scope, receive: Receive
    ) -> Answer:
        try:
            kind = ""
            for name, value in scope["headers"]:
                if name == b"content-type":
                    kind = value.partition(b";")[0].strip().lower().decode("latin-1")
                elif name == b"content-length" and int(value) > BODY_LIMIT:
                    raise BadRequest(_TOO_LARGE, 413)
                elif name == b"content-encoding" and value.lower() != b"identity":
                    packed = value[:60].decode("latin-1")
                    msg = f"this server reads no body with Content-Encoding: {packed}; send it as it is"
                    raise BadRequest(msg, 415)
            part = await receive()
            body = await self._rest(part, receive) if part.get("more_body") else part.get("body")
            if body is None:
                raise Gone
            return 200, await ask(body, kind), []
        except BadRequest as error:
            told = refusal(protocol, "BAD_REQUEST", error.message)
            return error.status, told, [_READABLE] if error.status == _OTHER_TYPE else []
        except Overloaded as error:
            retry = (b"retry-after", str(error.seconds).encode())
            message = f"too many requests wait for this model; ask again in {error.seconds} s"
            return 429, refusal(protocol, "OVERLOADED", message), [retry]
        except ModelFailed as error:
            message = f"the model failed on this input ({error}); its log has more"
            return 500, refusal(protocol, "MODEL_FAILED", message), []
        except Unwritable as error:
            print(f"the model's answer cannot be written: {error}", file=sys.stderr)
            return 500, refusal(protocol, "MODEL_FAILED", "the model returned a value that JSON cannot hold"), []

    async def _rest(self, message: MutableMapping[str, Any], receive: Receive) -> bytes:
        """A body that comes in parts; raises BadRequest (413) as soon as it is too large, without reading on."""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise Gone
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self.held += len(part)
                if size > BODY_LIMIT:
                    raise BadRequest(_TOO_LARGE, 413)
                if self.held > BODIES_LIMIT:
                    raise Overloaded(1)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
        finally:
            self.held -= size

    async def _mlflow(self, body: bytes, kind: str) -> bytes:
        if kind in ("application/json", ""):
            question = self.read_json(body)
        elif kind == "text/csv":
            question = invocations.question_of(table.read_csv(body, self.loaded.signature), self.loaded.signature)
        else:
            msg = f"this server reads application/json and text/csv, not {kind[:60]}; say which by Content-Type"
            raise BadRequest(msg, 415)
        return invocations.written(await self.batcher.submit(question))

    async def _v2(self, body: bytes, kind: str) -> bytes:
        if kind not in ("application/json", ""):
            msg = f"this server reads application/json here, not {kind[:60]}; it has no binary tensors"
            raise BadRequest(msg, 415)
        asked = self.read_v2(body)
        predictions = await self.batcher.submit(asked.question)
        return inference.written(asked, predictions, self.facts.model, str(self.facts.version))


def refusal(protocol: int, code: str, message: str) -> bytes:
    """An error's body: MLflow's shape, or that of the Open Inference Protocol."""
    import orjson

    told = {"error": message} if protocol == _V2 else {"error_code": code, "message": message}
    return orjson.dumps(told)
