"""Which route a request takes, and which version of it: by path, host, header and field; by weight or by sticky key.

All of a :class:`Table` is made when the configuration changes and only read afterwards, so exchanging it is one
assignment: a request meets either the old configuration or the new one.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING

from mlp_ci.serve.gateway.plan import SHADOW, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.gateway.counting import Counts, Key, Tally
    from mlp_ci.serve.gateway.ejecting import Health
    from mlp_ci.serve.gateway.plan import ArmPlan, Plan, RoutePlan
    from mlp_ci.serve.gateway.request import Request
    from mlp_ci.serve.gateway.upstream import Upstream

REMEMBERED = 1024  # request targets whose resolution is kept


class Kind(Enum):
    """What a path asks for."""

    INFER = "infer"  # predictions: measured, logged, mirrored
    PAGE = "page"  # what only the model's server can tell: metadata, its OpenAPI page
    OWN = "own"  # health and facts of the gateway
    UNKNOWN = "unknown"


_INFER = re.compile(r"/invocations|/v2/models/[^/]+(/versions/[^/]+)?/infer")
_OWN = ("/health", "/ping", "/version", "/v2/health/live", "/v2/health/ready")
_PAGE = re.compile(r"/v2(/models/[^/]+(/versions/[^/]+)?(/ready)?)?|/openapi\.json|/docs(/.*)?")
_MODEL = re.compile(r"/v2/models/([^/]+)")


def kind_of(path: str) -> Kind:
    """What the path asks for, without a route's prefix."""
    if _INFER.fullmatch(path):
        return Kind.INFER
    if path in _OWN:
        return Kind.OWN
    return Kind.PAGE if _PAGE.fullmatch(path) else Kind.UNKNOWN


@dataclass(slots=True, eq=False)
class Arm:
    """One version of a route, ready to be asked."""

    plan: ArmPlan
    upstream: Upstream
    key: Key
    tally: Tally
    health: Health

    @property
    def version(self) -> int:
        return self.plan.version


@dataclass
class Route:
    """One model in one stage. ``arms`` share the requests; ``shadows`` get copies."""

    plan: RoutePlan
    arms: list[Arm]
    shadows: list[Arm]
    number: int  # that the recorder knows its model, stage and log by
    total: float = 0.0

    def __post_init__(self) -> None:
        self.arms = [arm for arm in self.arms if arm.plan.weight > 0]
        self.total = sum(arm.plan.weight for arm in self.arms)

    @property
    def name(self) -> tuple[str, str]:
        return self.plan.model, self.plan.stage

    def choose(self, request: Request, counts: Counts) -> Arm | None:
        """The arm for a request: the same one for the same sticky key, else by chance; None without any."""
        arms = self.arms
        if len(arms) < 2:
            return arms[0] if arms else None
        point = -1.0
        if self.plan.sticky:
            key = sticky_key(request, self.plan.sticky)
            if key is None:
                counts.keyless[self.name] += 1
            else:
                point = share_of(self.plan.salt, key)
        chosen = pick(arms, (random.random() if point < 0 else point) * self.total)
        if not chosen.health.ejected:
            return chosen
        others = [arm for arm in arms if not arm.health.ejected]
        return pick(others, random.random() * sum(a.plan.weight for a in others)) if others else chosen

    def another(self, tried: Sequence[Arm]) -> Arm | None:
        """An arm that was not asked yet, those that are well first."""
        left = [arm for arm in self.arms if arm not in tried]
        return min(left, key=lambda arm: arm.health.ejected) if left else None


def pick(arms: Sequence[Arm], point: float) -> Arm:
    """The arm that the point, from 0 to the sum of their weights, falls on."""
    for arm in arms:
        point -= arm.plan.weight
        if point < 0:
            return arm
    return arms[-1]


def share_of(salt: str, key: str) -> float:
    """Where a key lies between 0 and 1: evenly spread, and the same for ever under one salt."""
    digest = blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def sticky_key(request: Request, sticky: str) -> str | None:
    """What tells the users apart: ``header:X-User`` or a column of the first row; None where the request lacks it."""
    if sticky.startswith("header:"):
        found = request.header(sticky[7:].lower().encode())
        return found.decode("latin-1") if found else None
    value = request.row.get(sticky)
    return None if value is None or value == "" else text_of(value)


@dataclass(slots=True)
class Found:
    """What a request target means: the routes whose path fits, with the target that their servers know."""

    kind: Kind
    path: str
    routes: list[tuple[Route, bytes]] = field(default_factory=list)


class Table:
    """All routes, in the order of the configuration."""

    def __init__(self, plan: Plan, routes: Sequence[Route]) -> None:
        self.plan = plan
        self.routes = list(routes)
        self._found: dict[bytes, Found] = {}
        self._plain = all(not (r.plan.match.host or r.plan.match.headers or r.plan.match.fields) for r in self.routes)

    def resolve(self, target: bytes) -> Found:
        """What the request target asks for."""
        found = self._found.get(target)
        if found is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = self._found[target] = self._resolve(target)
        return found

    def _resolve(self, target: bytes) -> Found:
        path, mark, query = target.decode("latin-1").partition("?")
        fitting: list[tuple[Route, bytes]] = []
        kind, rest = kind_of(path), path
        for route in self.routes:
            prefix = route.plan.match.path
            if prefix and not path.startswith(f"{prefix}/"):
                continue
            inner = path[len(prefix) :]
            if (found := kind_of(inner)) is Kind.UNKNOWN:
                continue
            if not fitting:
                kind, rest = found, inner
            fitting.append((route, f"{inner}{mark}{query}".encode("latin-1")))
        named = _MODEL.match(rest)
        ours = [one for one in fitting if named and one[0].plan.model == named[1]]
        return Found(kind, rest, ours or fitting)

    def route(self, found: Found, request: Request) -> tuple[Route, bytes] | None:
        """The first route that matches in every respect."""
        if self._plain:
            return found.routes[0] if found.routes else None
        return next((one for one in found.routes if _matches(one[0], request)), None)

    def of(self, model: str | None, stage: str | None) -> list[tuple[str, str]]:
        """The models and stages that are routed, or those that are meant."""
        pairs = dict.fromkeys(route.name for route in self.routes)
        return [(m, s) for m, s in pairs if model in (None, m) and stage in (None, s)]


def _matches(route: Route, request: Request) -> bool:
    match = route.plan.match
    if match.host and request.host.partition(":")[0].lower() != match.host:
        return False
    if any(request.header(name) != value for name, value in match.headers):
        return False
    if not match.fields:
        return True
    row = request.row
    return all(name in row and text_of(row[name]) in wanted for name, wanted in match.fields)


def divided(arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """Those that answer, and those that only get copies."""
    return [a for a in arms if a.plan.arm != SHADOW], [a for a in arms if a.plan.arm == SHADOW]
