"""``gateway.yaml``: several models and tenants behind one address, for ``mlp-ci gateway``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import ApiVersion, Duration, Name, Strict

Percent = Annotated[float, Field(ge=0, le=100)]
Kind = Literal["float", "int", "string", "bool", "timestamp", "date"]


class GatewayArm(Strict):
    """One version's server, and its share of a route's requests."""

    version: int = Field(0, ge=0, description="Number that headers, metrics and the log know it by.")
    arm: Literal["stable", "canary", "shadow"] = Field(
        "stable", description="shadow gets copies, and its answers go nowhere but into the record."
    )
    weight: Percent = Field(100.0, description="Share, against the other arms; of a shadow the per cent mirrored.")
    url: str = Field(
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", description="Address of the server, as http://host:port."
    )


class GatewayMatch(Strict):
    """Which requests a route is for; what is not given matches all, and all that is given must hold."""

    path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Prefix; it is taken off: /flights/invocations → /invocations.",
    )
    host: str = Field("", description="Host that the request names, without a port.")
    headers: dict[str, str] = Field({}, description="Headers and the value that each must have.")
    fields: dict[str, Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)]] = Field(
        {}, description="Columns and the values that the first row of the request may have in each."
    )


class GatewayLog(Strict):
    """What the prediction log keeps of a route's requests."""

    columns: dict[str, Kind] = Field({}, description="Input columns to keep, with their types; no others are.")
    sample: Annotated[float, Field(ge=0, le=1)] = Field(1.0, description="Share of the requests, chosen by their id.")


class GatewayRoute(Strict):
    """One model, or one tenant's version of it."""

    model: Name = Field(description="Name of the model, in metrics and the log.")
    stage: Name = Field("production", description="Stage, in metrics and the log.")
    match: GatewayMatch = Field(GatewayMatch(), description="Requests that it is for.")  # type: ignore[call-arg]
    arms: Annotated[tuple[GatewayArm, ...], Field(min_length=1)] = Field(description="Versions that answer.")
    sticky: str | None = Field(
        None,
        pattern=r"^(header:[A-Za-z0-9-]+|[^\s:]+)$",
        description="Column (or `header:X-User`) whose value decides the arm.",
    )
    salt: str = Field("", description="Changes who meets which arm; the model and stage if not given.")
    timeout: Duration = Field(timedelta(seconds=30), description="How long an answer may take.")
    log: GatewayLog = Field(GatewayLog(), description="What the prediction log keeps.")  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if not any(arm.arm != "shadow" and arm.weight > 0 for arm in self.arms):
            msg = "no arm answers: at least one needs a weight, and be no shadow"
            raise ValueError(msg)
        known = [(arm.arm, arm.version) for arm in self.arms]
        twice = next((one for one in known if known.count(one) > 1), None)
        if twice:
            msg = f"two arms are {twice[0]} of version {twice[1]}; give each version an arm and a number of its own"
            raise ValueError(msg)
        if not 0 < self.timeout.total_seconds() <= 3600:
            msg = "timeout must be more than nothing and at most an hour"
            raise ValueError(msg)
        return self


class GatewayLimits(Strict):
    """What one client may ask for."""

    body_mb: int = Field(16, ge=1, le=1024, description="Largest request, in MiB.")
    head_kb: int = Field(32, ge=1, le=1024, description="Largest headers, in KiB.")
    connections: int = Field(2000, ge=1, description="Most clients at a time; more get 503.")
    head_time: Duration = Field(timedelta(seconds=10), description="Longest time for the headers to arrive.")
    body_time: Duration = Field(timedelta(seconds=30), description="Longest time for the body after them.")
    idle_time: Duration = Field(timedelta(seconds=75), description="How long a connection may wait for a request.")


class GatewayExpose(Strict):
    """What is told without a token."""

    measured: bool = Field(False, description="GET /measured: the counts that a rollout is judged by.")


class GatewaySpec(Strict):
    """The whole file."""

    api_version: ApiVersion = Field(alias="apiVersion", description="The version of this format: mlp-ci/v1.")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 is all of this machine.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    log: str | None = Field(None, description="Folder of the prediction log; without it nothing is logged.")
    token: str | None = Field(
        None, description="File with the token of /admin; relative to this file. Without it there is no /admin."
    )
    expose: GatewayExpose = Field(GatewayExpose(), description="Told without a token.")  # type: ignore[call-arg]
    limits: GatewayLimits = Field(GatewayLimits(), description="For each client.")  # type: ignore[call-arg]
    routes: Annotated[tuple[GatewayRoute, ...], Field(min_length=1)] = Field(
        description="Tried in this order; the first that matches gets the request."
    )

    @model_validator(mode="after")
    def _every_route_can_be_reached(self) -> Self:
        seen: list[GatewayMatch] = []
        for number, route in enumerate(self.routes, 1):
            earlier = next((i for i, one in enumerate(seen, 1) if one in (GatewayMatch(), route.match)), 0)  # type: ignore[call-arg]
            if earlier:
                msg = f"route {number} gets no request: route {earlier} before it matches all of them"
                raise ValueError(msg)
            seen.append(route.match)
        return self
