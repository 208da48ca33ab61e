"""What administrators set: rulesets, environments' rules, Actions' permissions, runner groups."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_ci.sandbox.forge.records.tables import Json, Record


@dataclass(frozen=True)
class Ruleset(Record):
    """Rules for the branches that ``conditions`` name. ``enforcement``: active | evaluate | disabled."""

    TABLE = "rulesets"
    KEYS = ("UNIQUE (repo_id, name)",)
    repo_id: int
    name: str
    target: str
    enforcement: str
    bypass_actors: Json
    conditions: Json
    rules: Json
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class EnvironmentRules(Record):
    """Who may deploy to an environment, and from where; ``branch_policy`` NULL: from any branch."""

    TABLE = "environment_rules"
    KEYS = ("UNIQUE (environment_id)",)
    environment_id: int
    wait_timer: int
    prevent_self_review: bool
    reviewers: Json
    branch_policy: Json | None


@dataclass(frozen=True)
class BranchPolicy(Record):
    """A branch (or a pattern of branches) that may deploy to an environment."""

    TABLE = "branch_policies"
    KEYS = ("UNIQUE (environment_id, name, kind)",)
    environment_id: int
    name: str
    kind: str


@dataclass(frozen=True)
class ActionsSettings(Record):
    """What a repository lets Actions do; a repository without a row has GitHub's defaults."""

    TABLE = "actions_settings"
    KEYS = ("UNIQUE (repo_id)",)
    repo_id: int
    permissions: Json
    selected: Json
    workflow: Json
    forks: Json
    private_forks: Json


@dataclass(frozen=True)
class RunnerGroup(Record):
    """Runners of an organisation, and who may use them. ``visibility``: all | selected | private."""

    TABLE = "runner_groups"
    KEYS = ("UNIQUE (org_id, name)",)
    org_id: int
    name: str
    visibility: str
    standard: bool
    public: bool
    restricted: bool
    workflows: Json
    repositories: Json
