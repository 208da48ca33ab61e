"""What a repository's settings on GitHub are, and what is to be said and done about each; no network in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlp_ci.report import Outcome

STATUS = "mlp-ci/approvals"
RECORDS = "mlp-ci/records"  # the branch that deployments are recorded on
POLICY_REPOSITORY = ".github"
RULESET = "mlp-ci"  # our ruleset for the default branch
RECORDS_RULESET = "mlp-ci records"
ADMINISTRATION = "`administration: read`"

Rules = Mapping[str, Mapping[str, Any]]  # type of rule → parameters


@dataclass(frozen=True)
class Unseen:
    """GitHub did not show a setting: what it said, the permission that is needed, and what else would help."""

    why: str
    needs: str
    instead: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that puts rules on a branch: a ruleset or classic branch protection.

    ``passers`` are those it lets pass, for people; None where only an administrator sees them.
    """

    name: str
    rules: Rules
    passers: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch and all that puts rules on it; ``unseen``: there may be protection that was not shown."""

    name: str
    sources: tuple[Source, ...] = ()
    unseen: Unseen | None = None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``branches`` None: from any branch. ``kept`` is what a change has to send again so that it stays."""

    branches: tuple[str, ...] | None
    protected: bool = False
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Owners:
    """The CODEOWNERS file and what GitHub does not understand in it."""

    path: str
    text: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setter:
    """Who set the status of approvals last: an app (``number`` None where GitHub does not tell its id) or a person."""

    login: str
    is_app: bool
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that is compared. ``None`` means that there is none, :class:`Unseen` that it could not be looked at."""

    owner: str
    name: str
    private: bool
    branch: Branch
    records: Branch
    stages: tuple[str, ...] | Unseen = ()
    team: str = "platform"  # who owns workflows and policy
    policy: Branch | Unseen | None = None
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # our rulesets, by name
    setter: Setter | Unseen | None = None
    owners: Owners | Unseen | None = None
    permissions: Mapping[str, Any] | Unseen = field(default_factory=dict)
    selected: Mapping[str, Any] | Unseen | None = None
    workflow: Mapping[str, Any] | Unseen = field(default_factory=dict)
    forks: Mapping[str, Any] | Unseen = field(default_factory=dict)
    environments: Mapping[str, Environment | Unseen | None] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] | Unseen | None = None

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def is_policy(self) -> bool:
        """Whether this is the organisation's own repository, where platform.yaml is."""
        return self.name == POLICY_REPOSITORY


@dataclass(frozen=True, kw_only=True)
class Change:
    """One request that ``--fix`` makes. ``says`` is for people; ``needs`` the permission it takes.

    ``once``: for a POST, the key under which the same path lists what is there ("" for a bare list); where the name
    is in it already, nothing is sent.
    """

    verb: str
    path: str
    body: Mapping[str, Any]
    says: str
    needs: str = "administration: write"
    once: str | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One setting. ``fix`` is what to do about it; ``rules`` what our ruleset for ``branch`` has to have so that
    it is right, ``changes`` the requests that mend it. With neither, it takes a person.
    """

    setting: str
    now: str
    wanted: str
    why: str
    outcome: Outcome
    fix: str = ""
    branch: str = ""
    rules: Rules = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @property
    def mends_itself(self) -> bool:
        return bool(self.rules or self.changes)


def passed(setting: str, now: str, wanted: str, why: str) -> Line:
    return Line(setting=setting, now=now, wanted=wanted, why=why, outcome=Outcome.PASS)


def unseen(setting: str, hidden: Unseen, wanted: str, why: str) -> Line:
    """A setting that the token may not see; the permission that is missing is the fix."""
    fix = f"run it with a token that has {hidden.needs}" + (f", or {hidden.instead}" if hidden.instead else "")
    return Line(
        setting=setting, now=f"not checked: {hidden.why}", wanted=wanted, why=why, outcome=Outcome.SKIP, fix=fix
    )


def advice(setting: str, now: str, wanted: str, why: str, fix: str) -> Line:
    """What helps, but is not relied on; or what only the organisation can decide."""
    return Line(setting=setting, now=now, wanted=wanted, why=why, outcome=Outcome.SKIP, fix=f"advice: {fix}")
