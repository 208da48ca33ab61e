"""GitHub's GraphQL API, for the few things that the REST API does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.github.exchange import Transient
from mlp_ci.github.limits import passing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.github.wire import Wire

# What GitHub calls an error, and the status that REST would have answered with.
_STATUS = {"NOT_FOUND": 404, "FORBIDDEN": 403, "INSUFFICIENT_SCOPES": 403, "UNAUTHENTICATED": 401}
_PASSING = {"SERVICE_UNAVAILABLE", "INTERNAL", "TIMEOUT"}
_LIMITS = {"RATE_LIMIT", "RATE_LIMITED"}
_OWN_FAULT = "something went wrong while executing your query"  # has no type, and is said of timeouts as well


def address_of(api_url: str) -> str:
    """Where GraphQL is: beside ``/api/v3`` on a server of one's own, below the API's host on GitHub's."""
    root = api_url.rstrip("/")
    return f"{root.removesuffix('/v3')}/graphql" if root.endswith("/api/v3") else f"{root}/graphql"


def ask(wire: Wire, query: str, variables: Mapping[str, Any], purpose: str) -> Mapping[str, Any]:
    """The ``data`` of the answer. A partial answer is a failure: what is missing would look like what is not there."""
    body = {"query": query, "variables": dict(variables)}

    def step() -> Mapping[str, Any]:
        headers, answer = wire.once("POST", address_of(wire.place.api_url), purpose, body=body)
        if not isinstance(answer, dict):
            msg = "the answer is not whole"
            raise Transient(msg)
        errors = [e for e in answer.get("errors") or [] if isinstance(e, dict)]
        if errors or not isinstance(answer.get("data"), dict):
            raise _understood(wire, headers, errors, purpose)
        found: Mapping[str, Any] = answer["data"]
        return found

    return wire.again(step, purpose)


def _understood(wire: Wire, headers: Mapping[str, str], errors: list[dict[str, Any]], purpose: str) -> Exception:
    """GraphQL answers 200 to what it refuses, to its own failures, and to more than it allows."""
    said = "; ".join(str(e.get("message") or e.get("type")) for e in errors) or "no data"
    kinds = {str(e.get("type") or "") for e in errors}
    if kinds & _LIMITS or "rate limit" in said.lower():
        return passing(429, headers, said) or Transient(said)
    if kinds & _PASSING or _OWN_FAULT in said.lower():
        return Transient(said)
    return wire.refusal(next((_STATUS[k] for k in kinds if k in _STATUS), 422), said, purpose)
