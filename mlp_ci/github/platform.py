"""Where the organisation's policy comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.github.hub import connect
from mlp_ci.github.wire import GitHubError
from mlp_ci.spec import PLATFORM_FILE, PlatformSpec, default_platform, load_platform, parse_platform

if TYPE_CHECKING:
    from mlp_ci.context import Context

POLICY_REPOSITORY = ".github"


def platform_of(ctx: Context) -> PlatformSpec:
    """The platform.yaml that holds here; see :func:`policy_of`."""
    return policy_of(ctx)[0]


def policy_of(ctx: Context) -> tuple[PlatformSpec, str]:
    """The policy and where it was read, for people.

    ``--platform`` wins; else platform.yaml on the default branch of the owner's ``.github`` repository; else (no
    GitHub, no token, no such file) the built-in default.
    """
    if ctx.platform_file:
        return load_platform(ctx.platform_file), str(ctx.platform_file)
    if ctx.github is None or not ctx.github.token:
        return default_platform(), "the built-in default"
    hub = connect(ctx.github).of(POLICY_REPOSITORY)
    shown = f"{hub.place.full_name}/{PLATFORM_FILE}"
    try:
        branch = hub.default_branch
    except GitHubError as refusal:
        if refusal.status != 404:
            raise
        return default_platform(), f"the built-in default (there is no {hub.place.full_name} that the token can read)"
    raw = hub.read_file(PLATFORM_FILE, branch)
    if raw is None:
        return default_platform(), f"the built-in default (there is no {shown})"
    return parse_platform(raw, shown), shown
