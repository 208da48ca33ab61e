"""One request on its way: to an arm, to another if that one is dead, to the shadows, back to the client, to the record.

All by callbacks. Predictions change nothing, so what a dead server did not answer is asked again elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING
from zlib import crc32

from mlp_ci.serve.gateway.counting import TOO_MANY
from mlp_ci.serve.gateway.request import CHECK
from mlp_ci.serve.gateway.upstream import HOP_BY_HOP, UpstreamSlow

if TYPE_CHECKING:
    from mlp_ci.serve.gateway.core import Gateway
    from mlp_ci.serve.gateway.front import Client
    from mlp_ci.serve.gateway.request import Request
    from mlp_ci.serve.gateway.routing import Arm, Route
    from mlp_ci.serve.gateway.upstream import Answer, UpstreamDown

PATIENCE = 15.0  # how long a request waits for a server that is being restarted
AGAIN = 0.05  # seconds between two rounds over servers that are down
MIRRORED = 64  # requests under way to one shadow; it must not grow without end when it is slow
# What the gateway says itself, and what an upstream must not be asked for: a compressed answer could not be logged.
_NOT_PASSED = HOP_BY_HOP | {b"host", b"expect", b"accept-encoding", b"x-request-id", CHECK}
_MARKS = (b"x-request-id:", b"x-model-version:")


def head_of(request: Request, arm: Arm, target: bytes, request_id: str) -> bytes:
    """The head of the request for an arm's server: the client's headers, less those of its connection."""
    upstream = arm.upstream
    lines = b"".join([b"%b: %b\r\n" % one for one in request.headers if one[0] not in _NOT_PASSED])
    length = b"content-length: %d\r\n" % len(request.body) if request.body or request.method == b"POST" else b""
    method = b"GET" if request.method == b"HEAD" else request.method
    first = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n" % (method, upstream.base, target, upstream.authority)
    return b"%b%bx-request-id: %b\r\n%b\r\n" % (first, lines, request_id.encode(), length)


class Exchange:
    """A request for predictions. As an ``Asker`` it is told of the upstream's answer."""

    def __init__(self, gateway: Gateway, client: Client, way: tuple[Route, bytes], request: Request) -> None:
        self.gateway, self.client, self.request = gateway, client, request
        self.route, self.target = way
        self.request_id = request.identity()
        self.body = request.body
        self.began = self.sent = time.perf_counter()
        self.deadline = time.monotonic() + self.route.plan.timeout
        self.tried: list[Arm] = []
        self.blamed: set[Arm] | None = None
        self.quiet = bool(request.check) and gateway.is_token(request.check)  # a check, no traffic

    def start(self) -> None:
        """Ask the arm that the route chooses."""
        if not self.quiet:
            self.gateway.counts.asked[self.route.name] += 1
        arm = self.route.choose(self.request, self.gateway.counts)
        if arm is None:
            self._give_up(slow=False)
            return
        self._ask(arm)

    def _ask(self, arm: Arm) -> None:
        self.arm = arm
        self.tried.append(arm)
        self.head = head_of(self.request, arm, self.target, self.request_id)
        self.sent = time.perf_counter()
        arm.upstream.ask(self)

    # told by the upstream

    def answered(self, answer: Answer) -> None:
        arm, now = self.arm, time.perf_counter()
        if not self.quiet:
            self._count(answer.status, now - self.sent)
        marks = b"x-request-id: %b\r\nx-model-version: %d\r\n" % (self.request_id.encode(), arm.version)
        told = [line for line in answer.headers if not line.startswith(_MARKS)]  # of another gateway behind this one
        self.client.answer(answer.status, b"".join(told) + marks, answer.body)
        if self.quiet:
            return
        self.gateway.record(self, arm, answer, (now - self.began) * 1000)
        for shadow in self.route.shadows:
            if shadow.plan.weight >= 100 or random.random() * 100 < shadow.plan.weight:
                Mirror.start(self, shadow, answer)

    def _count(self, status: int, seconds: float) -> None:
        failed = status >= 500
        self.arm.tally.answered(seconds, status)
        self.arm.health.note(time.monotonic(), failed=failed, silent=False)
        if failed or status == TOO_MANY:
            self.gateway.counts.unanswered[self.route.name] += 1
        if failed:
            self.gateway.eject(self.route)

    def failed(self, error: UpstreamDown | UpstreamSlow) -> None:
        slow = isinstance(error, UpstreamSlow)
        self.blamed = self.blamed or set()
        if self.arm not in self.blamed and not self.quiet:  # one request is one failure, however often it was tried
            self.blamed.add(self.arm)
            self.arm.tally.silent()
            self.arm.health.note(time.monotonic(), failed=True, silent=True)
            self.gateway.eject(self.route)
        if slow:
            self._give_up(slow=True)
            return
        other = self.route.another(self.tried)
        if other is not None:
            self._ask(other)
        elif self._may_wait():
            asyncio.get_running_loop().call_later(AGAIN, self._again)
        else:
            self._give_up(slow=False)

    def _may_wait(self) -> bool:
        """Whether there is time for another round, and somebody who waits for its answer."""
        patient = time.perf_counter() - self.began < PATIENCE and time.monotonic() + AGAIN < self.deadline
        return patient and not self.client.done and not self.gateway.front.ending

    def _again(self) -> None:
        """Another round: by the configuration of now, for it may have changed because the servers were down."""
        self.tried.clear()
        way = self.gateway.table.route(self.gateway.table.resolve(self.request.target), self.request)
        if way is not None:
            self.route, self.target = way
        arm = self.route.choose(self.request, self.gateway.counts)
        if arm is None:
            self._give_up(slow=False)
        else:
            self._ask(arm)

    def _give_up(self, *, slow: bool) -> None:
        if not self.quiet:
            self.gateway.counts.unanswered[self.route.name] += 1
        message = "the model did not answer in time" if slow else "no server of this model answers right now"
        value = {"error_code": "UNAVAILABLE", "message": message}
        headers = b"retry-after: 1\r\nx-request-id: %b\r\n" % self.request_id.encode()
        self.client.tell(504 if slow else 503, value, headers)


class Mirror:
    """The copy of a request for a shadow, sent once the client has its answer; whatever becomes of it, nobody waits."""

    def __init__(self, exchange: Exchange, arm: Arm, told: Answer) -> None:
        self.exchange, self.arm = exchange, arm
        self.told = told.body if told.status == 200 and not told.encoded else None
        self.head = head_of(exchange.request, arm, exchange.target, exchange.request_id)
        self.body = exchange.body
        self.deadline = time.monotonic() + exchange.route.plan.timeout
        self.sent = time.perf_counter()

    @classmethod
    def start(cls, exchange: Exchange, arm: Arm, told: Answer) -> None:
        """Send a copy, unless too many are under way."""
        if arm.upstream.in_flight >= MIRRORED:
            exchange.gateway.counts.shadow(arm.key).skipped += 1
        else:
            arm.upstream.ask(cls(exchange, arm, told))

    def answered(self, answer: Answer) -> None:
        seconds = time.perf_counter() - self.sent
        self.arm.tally.answered(seconds, answer.status)
        self.exchange.gateway.record(self.exchange, self.arm, answer, seconds * 1000, self.told)

    def failed(self, error: UpstreamDown | UpstreamSlow) -> None:
        self.arm.tally.silent()


def sampled(request_id: str, share: float) -> bool:
    """Whether the log keeps this request: decided by its id, so that all who see it decide alike."""
    return share >= 1 or crc32(request_id.encode()) < share * 2**32


class Page:
    """A request for what only a server can tell, such as its metadata: asked of one arm, not counted, not logged."""

    def __init__(self, client: Client, way: tuple[Route, bytes], request: Request) -> None:
        self.client, self.request, self.body = client, request, request.body
        self.target = way[1]
        self.deadline = time.monotonic() + min(10.0, way[0].plan.timeout)
        self.left = sorted(way[0].arms, key=lambda arm: -arm.plan.weight)

    def start(self) -> None:
        """Ask the arm with the largest share, then the others."""
        if not self.left:
            value = {"error_code": "UNAVAILABLE", "message": "no server of this model answers right now"}
            self.client.tell(503, value, b"retry-after: 1\r\n")
            return
        arm = self.left.pop(0)
        self.head = head_of(self.request, arm, self.target, self.request.identity())
        arm.upstream.ask(self)

    def answered(self, answer: Answer) -> None:
        self.client.answer(answer.status, b"".join(answer.headers), answer.body)

    def failed(self, error: UpstreamDown | UpstreamSlow) -> None:
        self.start()
