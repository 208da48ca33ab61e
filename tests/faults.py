"""Faults between a client and the forge, one per request: what GitHub, a proxy or the network can do to a call."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mlp_ci.github import limits
from mlp_ci.tracking import rest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

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


# Every write meets a third of the faults, of the reads a third one: so a run takes minutes. MLP_CI_FAULTS=all spoils
# each request with each fault, which takes the better part of an hour.
WRITES_EVERY, READS_EVERY = 3, 9
# A read that meets one of these is asked again by the client, which tests/unit/test_github_wire.py holds to each of
# them; who called never knows. Those left out come to the same for a read as one that is kept.
ASKED_AGAIN = (Fault.FAILED, Fault.BUSY, Fault.LIMITED, Fault.RESET, Fault.CUT)
SAME_FOR_READING = (Fault.LOST, Fault.DIED)
ASKED_AGAIN_EVERY = 27


def is_read(request: str) -> bool:
    return request.startswith("GET ") or request.endswith("/graphql")


def chosen(requests: Sequence[str], fault: Fault, *, reads: bool = True) -> list[int]:
    """The requests (by their place in an undisturbed run) that a run of the tests spoils with this fault."""
    turn, everything = list(Fault).index(fault), os.environ.get("MLP_CI_FAULTS") == "all"

    def due(i: int, request: str) -> bool:
        if everything:
            return True
        if not is_read(request):
            return i % WRITES_EVERY == turn % WRITES_EVERY
        every = ASKED_AGAIN_EVERY if fault in ASKED_AGAIN else READS_EVERY
        return reads and fault not in SAME_FOR_READING and i % every == turn

    return [i for i, request in enumerate(requests) if due(i, request)]


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks again does so at once; how long it waits is tested where it decides that."""
    monkeypatch.setattr(limits, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(rest, "time", SimpleNamespace(time=time.time, sleep=lambda _: None))


def pack(folder: Path) -> None:
    """Few files for the repositories of a forge in ``folder``, which is to be copied often."""
    for repository in folder.glob("forge/repos/*/*.git"):
        subprocess.run(["git", "-C", str(repository), "gc", "--quiet"], check=True)


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
