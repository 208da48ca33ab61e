"""Faults between a client and the forge, one per request: what GitHub, a proxy or the network can do to a call."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LATER = str(24 * 3600)  # a wait that no patience covers: the command gives up at once, as if it were killed


class Fault(StrEnum):
    """What happens to one request. Those of ``KILLED`` also happen to every request after it."""

    FAILED = "500 before the work"
    LOST = "502 after the work"
    BUSY = "429 with Retry-After: 0"
    LIMITED = "403 secondary rate limit"
    RESET = "connection reset before the work"
    CUT = "the answer breaks off"
    UNCUT = "the answer breaks off, and nobody says where it should have ended"
    STOPPED = "the command dies before the work"
    DIED = "the command dies after the work"


KILLED = (Fault.STOPPED, Fault.DIED)
_DONE = (Fault.LOST, Fault.CUT, Fault.UNCUT, Fault.DIED)  # the forge does what was asked


# Every write meets a third of the faults, every read one of them: so a run takes minutes, and each request meets some.
# MLP_CI_FAULTS=all spoils each request with each fault, which takes the better part of an hour.
WRITES_EVERY, READS_EVERY = 3, 9


def chosen(requests: list[str], fault: Fault) -> list[int]:
    """The requests (by their place in an undisturbed run) that a run of the tests spoils with this fault."""
    turn, everything = list(Fault).index(fault), os.environ.get("MLP_CI_FAULTS") == "all"

    def due(i: int, request: str) -> bool:
        every = READS_EVERY if request.startswith("GET ") or request.endswith("/graphql") else WRITES_EVERY
        return everything or i % every == turn % every

    return [i for i, request in enumerate(requests) if due(i, request)]


@dataclass
class Injector:
    """ASGI middleware that counts requests and spoils the one with the number ``at``. Disarmed while ``at`` is None."""

    at: int | None = None
    fault: Fault = Fault.FAILED
    requests: list[str] = field(default_factory=list)
    _app: Any = None

    def __call__(self, app: Any) -> Any:
        self._app = app
        return self._handle

    def arm(self, at: int | None, fault: Fault = Fault.FAILED) -> None:
        self.at, self.fault = at, fault
        self.requests.clear()

    @property
    def reached(self) -> bool:
        return self.at is not None and len(self.requests) > self.at

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        index = len(self.requests)
        self.requests.append(f"{scope['method']} {scope['path']}")
        if self.at is None or index < self.at or (index > self.at and self.fault not in KILLED):
            await self._app(scope, receive, send)
            return
        if index > self.at:
            await _answer(send, 429, {"retry-after": LATER})
            return
        answer = _Kept()
        if self.fault in _DONE:
            await self._app(scope, receive, answer)
        await self._spoil(receive, send, answer)

    async def _spoil(self, receive: Any, send: Any, answer: _Kept) -> None:
        match self.fault:
            case Fault.FAILED:
                await _answer(send, 500)
            case Fault.LOST:
                await _answer(send, 502)
            case Fault.BUSY:
                await _answer(send, 429, {"retry-after": "0"})
            case Fault.LIMITED:
                await _answer(send, 403, {"retry-after": "0"}, "You have exceeded a secondary rate limit")
            case Fault.STOPPED | Fault.DIED:
                await _answer(send, 429, {"retry-after": LATER})
            case Fault.RESET:
                receive.__self__.transport.abort()
            case Fault.CUT:  # uvicorn closes the connection of an answer that is shorter than announced
                await send(answer.start)
                await send({"type": "http.response.body", "body": answer.half, "more_body": True})
                receive.__self__.transport.close()
            case Fault.UNCUT:
                kept = [h for h in answer.start["headers"] if h[0].lower() != b"content-length"]
                size = (b"content-length", str(len(answer.half)).encode())
                await send({**answer.start, "headers": [*kept, size]})
                await send({"type": "http.response.body", "body": answer.half})


class _Kept:
    """Takes the answer of the forge instead of the client."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.body = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def half(self) -> bytes:
        return self.body[: len(self.body) // 2]


async def _answer(send: Any, status: int, headers: dict[str, str] | None = None, said: str = "out of order") -> None:
    body = json.dumps({"message": said}).encode()
    sent = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
