"""What the forge remembers: one frozen dataclass per table, from which the SQLite schema is generated.

Instants are text, ``2026-01-31T08:00:00Z``. A ``Json`` column holds JSON; an ``X | None`` column may be NULL.
"""

from mlp_ci.sandbox.forge.records.checks import CheckRun, CheckSuite, Deployment, DeploymentStatus, Environment, Status
from mlp_ci.sandbox.forge.records.people import OrgMember, Team, TeamMember, Token, User
from mlp_ci.sandbox.forge.records.repositories import Activity, Collaborator, Protection, Ref, Repo, Setting, TeamRepo
from mlp_ci.sandbox.forge.records.runs import Event, Job, Log, Run, Workflow
from mlp_ci.sandbox.forge.records.settings import (
    ActionsSettings,
    BranchPolicy,
    EnvironmentRules,
    Ruleset,
    RunnerGroup,
)
from mlp_ci.sandbox.forge.records.tables import Json, Record, ddl
from mlp_ci.sandbox.forge.records.work import (
    Assignee,
    Comment,
    Issue,
    IssueEvent,
    IssueLabel,
    Label,
    Pull,
    Review,
    ReviewRequest,
)

__all__ = [
    "ActionsSettings",
    "Activity",
    "Assignee",
    "BranchPolicy",
    "CheckRun",
    "CheckSuite",
    "Collaborator",
    "Comment",
    "Deployment",
    "DeploymentStatus",
    "Environment",
    "EnvironmentRules",
    "Event",
    "Issue",
    "IssueEvent",
    "IssueLabel",
    "Job",
    "Json",
    "Label",
    "Log",
    "OrgMember",
    "Protection",
    "Pull",
    "Record",
    "Ref",
    "Repo",
    "Review",
    "ReviewRequest",
    "Ruleset",
    "Run",
    "RunnerGroup",
    "Setting",
    "Status",
    "Team",
    "TeamMember",
    "TeamRepo",
    "Token",
    "User",
    "Workflow",
    "ddl",
]
