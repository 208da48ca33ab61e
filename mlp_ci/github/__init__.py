"""GitHub: the only place that speaks to it. Reads facts and writes what a promotion needs; decides nothing.

Everything goes through the REST API, so that no command needs push credentials and the same code runs against
github.com, GitHub Enterprise Server and the sandbox's forge.
"""

from mlp_ci.github.facts import (
    CommitFact,
    DeploymentFact,
    DismissalFact,
    PullDetail,
    PullFact,
    PullHistory,
    PullRequest,
    ReviewFact,
)
from mlp_ci.github.hub import Hub, connect
from mlp_ci.github.platform import BUILT_IN, Policy, platform_of, policy_at, policy_of
from mlp_ci.github.wire import GitHubError

__all__ = [
    "BUILT_IN",
    "CommitFact",
    "DeploymentFact",
    "DismissalFact",
    "GitHubError",
    "Hub",
    "Policy",
    "PullDetail",
    "PullFact",
    "PullHistory",
    "PullRequest",
    "ReviewFact",
    "connect",
    "platform_of",
    "policy_at",
    "policy_of",
]
