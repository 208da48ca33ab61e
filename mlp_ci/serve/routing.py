"""``gateway.json`` from the state of a place: where requests go, who always meets the same arm, and what is logged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.serve.state import State


def gateway_plan(state: State) -> dict[str, Any]:
    """Format 2 of the gateway's file, with one route that every request matches."""
    arms = [
        {**asdict(a), "url": state.servers[a.version].url, "digest": state.servers[a.version].digest}
        for a in state.arms
        if a.version in state.servers
    ]
    route = {"model": state.model, "stage": state.stage, "match": {}, "arms": arms, "log": _log(state)}
    return {"generation": state.generation, "routes": [{**route, **_sticky(state)}]}


def _sticky(state: State) -> dict[str, Any]:
    """Who meets which arm. The salt is the new version's digest: the same through its rollout, another in the next."""
    rollout = state.serve.get("rollout") or {}
    digest = state.progress.digest if state.progress else ""
    return {"sticky": rollout.get("sticky"), "salt": salt(state.model, state.stage, digest)}


def salt(model: str, stage: str, digest: str) -> str:
    """What the users are shuffled with, on every target; ``digest`` is that of the version on its way in."""
    return f"{model}/{stage}/{digest}"


def _log(state: State) -> dict[str, Any]:
    return {**state.log, "sample": state.serve.get("log_sample", 1.0)} if state.log else {}
