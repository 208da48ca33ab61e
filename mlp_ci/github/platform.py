"""Where the organisation's policy comes from: now, and as it was at an instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.clock import parse_instant
from mlp_ci.errors import InputError
from mlp_ci.github.hub import connect
from mlp_ci.github.wire import GitHubError
from mlp_ci.spec import PLATFORM_FILE, PlatformSpec, default_platform, load_platform, parse_platform

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.context import Context
    from mlp_ci.github.hub import Hub

POLICY_REPOSITORY = ".github"
BUILT_IN = Path("built-in")  # `--platform built-in`: no file is read


@dataclass(frozen=True)
class Policy:
    """The policy, for people where it was read, and the commit of ``.github`` it was read at ("" for a file)."""

    spec: PlatformSpec
    source: str
    commit: str = ""


class _Unreadable(InputError):
    """There is no ``.github``, or the token may not see it; GitHub answers both the same."""


def platform_of(ctx: Context) -> PlatformSpec:
    """The platform.yaml that holds here, for what is no matter of trust: without one that can be read, the default."""
    try:
        return policy_of(ctx).spec
    except _Unreadable:
        return default_platform()


def policy_of(ctx: Context) -> Policy:
    """The policy that holds now.

    ``--platform`` wins; else platform.yaml on the default branch of the owner's ``.github`` repository. The built-in
    default holds where there is no GitHub or no token, and where ``.github`` can be read and has no such file. A
    ``.github`` that cannot be read is an InputError: the policy in it may be stricter than the default.
    """
    fixed = _fixed(ctx)
    if fixed is not None:
        return fixed
    hub = _policy_hub(ctx)
    branch = _default_branch(hub)
    commit = hub.trees.head(branch)
    if commit is None:
        msg = f"{hub.place.full_name} has no commit on {branch}, so nobody can say which policy holds"
        fix = f"commit a {PLATFORM_FILE} there, or say `--platform built-in`"
        raise _Unreadable(msg, fix=fix)
    return _policy_in(hub, commit)


def policy_at(ctx: Context, instant: str) -> Policy:
    """The policy as the default branch of ``.github`` had it at an ISO instant; a file of one's own ignores it.

    GitHub's record of pushes says what the branch pointed to: the dates in commits are whatever their author wrote.
    Only for what is older than that record do the commits' dates have to do.
    """
    fixed = _fixed(ctx)
    if fixed is not None:
        return fixed
    hub = _policy_hub(ctx)
    branch = _default_branch(hub)
    commit = _pushed_before(hub, branch, parse_instant(instant)) or _dated_before(hub, branch, instant)
    if not commit:
        shown = f"{hub.place.full_name}/{PLATFORM_FILE}"
        return Policy(default_platform(), f"the built-in default (there was no {shown} at {instant})")
    return _policy_in(hub, commit)


def _fixed(ctx: Context) -> Policy | None:
    """The policy where GitHub is not asked for it."""
    if ctx.platform_file == BUILT_IN:
        return Policy(default_platform(), "the built-in default (--platform built-in)")
    if ctx.platform_file:
        return Policy(load_platform(ctx.platform_file), str(ctx.platform_file))
    if ctx.github is None or not ctx.github.token:
        return Policy(default_platform(), "the built-in default")
    return None


def _policy_hub(ctx: Context) -> Hub:
    """One for the whole process: what it has read by hash need not be read again for the next promotion."""
    place = ctx.require_github("reading the organisation's policy")
    key = (place.api_url, place.owner, place.token)
    if key not in _HUBS:
        _HUBS[key] = connect(place).of(POLICY_REPOSITORY)
    return _HUBS[key]


_HUBS: dict[tuple[str, str, str], Hub] = {}


def _default_branch(hub: Hub) -> str:
    try:
        return hub.default_branch
    except GitHubError as refusal:
        if refusal.status != 404:
            raise
        where = hub.place.full_name
        msg = f"{where} cannot be read, so nobody can say which policy holds"
        why = "GitHub answers the same whether it does not exist or the token may not see it"
        fix = f"give the token `contents: read` on {where}, or say `--platform built-in` where there is none"
        raise _Unreadable(msg, why=why, fix=fix) from refusal


def _policy_in(hub: Hub, commit: str) -> Policy:
    shown = f"{hub.place.full_name}/{PLATFORM_FILE}"
    raw = hub.read_file(PLATFORM_FILE, commit)
    if raw is None and not hub.trees.has_read(commit):  # a force push may have taken it away
        msg = (
            f"{commit[:12]}, which {hub.place.full_name} once pointed to, is gone, so nobody can say which policy held"
        )
        raise InputError(
            msg, fix="forbid force pushes there; ask for the promotion again, so that today's policy holds"
        )
    if raw is None:
        return Policy(default_platform(), f"the built-in default (there is no {shown})", commit)
    return Policy(parse_platform(raw, shown), shown, commit)


def _pushed_before(hub: Hub, branch: str, instant: datetime) -> str:
    """What the branch pointed to by the record of pushes, newest first; "" where that does not reach back."""
    try:
        for push in hub.pushes(branch):
            if parse_instant(push["timestamp"]) <= instant:
                return "" if set(push["after"]) == {"0"} else str(push["after"])
    except GitHubError as refusal:
        if refusal.status not in (403, 404, 422):
            raise
    return ""


def _dated_before(hub: Hub, branch: str, instant: str) -> str:
    found = hub.commits_touching(PLATFORM_FILE, branch, until=instant, limit=1)
    return found[0].sha if found else ""
