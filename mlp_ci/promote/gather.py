"""Everything the policy wants to know, asked of GitHub and of the registry once and put into a :class:`Case`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError
from mlp_ci.github import policy_at, policy_of
from mlp_ci.promote.case import GUARDED, QUARANTINE, Case, Registered, Stay, Verdict
from mlp_ci.promote.files import model_at, promotion_at
from mlp_ci.promote.history import Change, History, of_quarantine, of_stage
from mlp_ci.promote.people import latest_reviews
from mlp_ci.promote.policy import decide, decide_guarded, needed, strictest
from mlp_ci.report import Outcome
from mlp_ci.spec import MODEL_FILE, Promote, StageEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlp_ci.context import Context
    from mlp_ci.github import Hub, Policy, PullDetail, PullHistory, ReviewFact
    from mlp_ci.spec import ModelSpec, PromotionSpec
    from mlp_ci.tracking import Tracking

ASKED_LIMIT = 50  # how many promotions back a version is looked for in the stage before
DEPLOYMENTS_READ = 1_000
PUSHES_LIMIT = 1_000  # how many pushes back a rollback is looked for
MERGE_PATIENCE = 6.0  # seconds that a job waits for GitHub to show a merge that it has just made


@dataclass(frozen=True, kw_only=True)
class Basis:
    """By what a pull request is judged: a policy, and the model's own model.yaml, from the same time."""

    policy: Policy
    model: ModelSpec | None

    @property
    def where(self) -> str:
        """Where the policy was read, for people and for the record."""
        return self.policy.source + (f" at {self.policy.commit[:12]}" if self.policy.commit else "")

    @property
    def own(self) -> Promote:
        return self.model.promote if self.model else Promote()  # type: ignore[call-arg]

    @property
    def tier(self) -> str:
        return self.model.tier if self.model else "standard"

    @property
    def on_inconclusive(self) -> str:
        return self.model.evaluate.on_inconclusive if self.model else "ask"


def said_in(content: bytes) -> tuple[str, str]:
    """The outcome that an evidence file tells, and what it says an undecided gate means; "nothing" for none."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    told = value if isinstance(value, dict) else {}
    outcome = told.get("outcome")
    known = outcome in ("pass", "fail", "inconclusive")
    return (str(outcome) if known else "nothing"), str(told.get("on_inconclusive") or "")


@dataclass
class Gatherer:
    """Asks each question once. ``registry`` connects to MLflow, and only when a version has to be looked up."""

    ctx: Context
    hub: Hub
    model: str
    registry: Callable[[], Tracking]
    at: datetime = field(default_factory=clock.now)
    _tracking: Tracking | None = None
    _permissions: dict[str, str] = field(default_factory=dict)
    _teams: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def walk(self) -> History:
        """The history of promotion.yaml on the default branch."""
        return History(self.hub, self.model, MERGE_PATIENCE if self.ctx.in_job else 0.0)

    # ------------------------------------------------------------ verdicts

    def verdict(self, pull: PullDetail, stage: str, change: tuple[PromotionSpec, PromotionSpec], base: str) -> Verdict:
        """The verdict on one stage; ``change`` is promotion.yaml on the default branch (at ``base``) without and with.

        The policy and model.yaml as they were before the pull request was opened have to allow it, and so do those
        of now (or of the merge): a rule that was loosened meanwhile does not help, and one that was made stricter
        counts.
        """
        verdicts = []
        for basis, plain in self._cases(pull, stage, change, base):
            case = replace(plain, teams=self._members(plain))
            verdicts.append(replace(decide(self._with_version(case, base)), policy=basis.where))
        return strictest(verdicts)

    def guarded_verdict(self, pull: PullDetail, paths: tuple[str, ...], base: str) -> Verdict:
        """The verdict on a pull request that changes what promotions rely on."""
        same = promotion_at(self.hub, base, self.model)
        verdicts = []
        for basis, plain in self._cases(pull, GUARDED, (same, same), base):
            team = basis.policy.spec.platform_team
            case = replace(plain, guarded=paths, teams={team: self._team(team)} if team else {})
            verdicts.append(replace(decide_guarded(case), policy=basis.where))
        return strictest(verdicts)

    def _cases(
        self, pull: PullDetail, stage: str, change: tuple[PromotionSpec, PromotionSpec], base: str
    ) -> Iterator[tuple[Basis, Case]]:
        """The case by each basis, without what only some rules ask for: teams and the version."""
        history, reviews = self.hub.pull_history(pull), tuple(self.hub.reviews(pull.number))
        before, after = change
        for basis in self._bases(pull, base):
            yield (
                basis,
                Case(
                    stage=stage,
                    tier=basis.tier,
                    platform=basis.policy.spec,
                    own=basis.own,
                    on_inconclusive=basis.on_inconclusive,
                    repository=self.hub.place.full_name,
                    default_branch=self.hub.default_branch,
                    pull=pull,
                    history=history,
                    reviews=reviews,
                    permissions=self._may(reviews, history),
                    before=before.model_copy(update={"model": self.model}),
                    after=after,
                    at=self.at,
                ),
            )

    def _bases(self, pull: PullDetail, base: str) -> list[Basis]:
        """Before it was opened, and now (or at the merge); one where nothing changed between."""
        parted = self.hub.merge_base(base, pull.head_sha)
        then = policy_at(self.ctx, pull.created_at) if pull.created_at else policy_of(self.ctx)
        now = policy_at(self.ctx, pull.merged_at) if pull.merged_at else policy_of(self.ctx)
        older = Basis(policy=then, model=self._model(parted))
        newer = Basis(policy=now, model=self._model(base))
        rules = [(b.own, b.tier, b.on_inconclusive, b.policy.spec) for b in (older, newer)]
        same = rules[0] == rules[1]
        return [newer] if same or older.model is None else [older, newer]

    def _model(self, ref: str) -> ModelSpec | None:
        return model_at(self.hub, ref) if self.hub.read_file(MODEL_FILE, ref) is not None else None

    # ------------------------------------------------------------ people

    def _may(self, reviews: tuple[ReviewFact, ...], history: PullHistory) -> dict[str, str]:
        """What those may do whose review, or whose dismissal of one, could matter."""
        people = [r.person for r in latest_reviews(reviews).values() if not r.bot]
        people += [d.by for d in history.dismissals if not d.by_bot]
        for person in people:
            if person and person not in self._permissions:
                self._permissions[person] = self.hub.permission(person)
        return self._permissions

    def _members(self, case: Case) -> dict[str, frozenset[str]]:
        """The teams that this case asks for."""
        needs, _ = needed(case)
        teams = list(needs.teams)
        emergency = case.platform.emergency
        if emergency and case.entry and case.entry.emergency:
            teams.append(emergency.team)
        return {team: self._team(team) for team in teams}

    def _team(self, slug: str) -> frozenset[str]:
        if slug not in self._teams:
            self._teams[slug] = self.hub.team_members(slug)
        return self._teams[slug]

    # ------------------------------------------------------------ the version

    def tracking(self) -> Tracking:
        if self._tracking is None:
            self._tracking = self.registry()
        return self._tracking

    def _with_version(self, case: Case, base: str) -> Case:
        if case.stage == QUARANTINE or case.entry is None:
            return case
        entry = case.entry
        return replace(
            case,
            registered=self.registered(entry),
            stay=self.stay(case, entry, base),
            lifted=self.lifted(entry.digest, base),
        )

    def registered(self, entry: StageEntry) -> Registered:
        """What the registry knows of the version that ``entry`` names."""
        found = self.tracking().find_version(self.model, entry.version)
        if found is None:
            return Registered(exists=False)
        try:
            content = self.tracking().read_bytes(found.run_id, found.evidence_file)
        except InputError:
            content = b""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if content else ""
        shown, care = said_in(content) if digest == found.evidence else ("", "")
        branch = self.hub.default_branch
        return Registered(
            exists=True,
            gate=found.gate,
            shown=shown,
            on_inconclusive=care,
            digest=found.digest,
            evidence=found.evidence,
            evidence_found=digest,
            commit=found.commit,
            commit_known=bool(found.commit) and self.hub.is_ancestor(found.commit, branch),
            data=bool(found.data) and all(found.data.values()),
        )

    def stay(self, case: Case, entry: StageEntry, base: str) -> Stay:
        """How long the stage before has had these bytes, by the deployments that GitHub has on record.

        Whoever may write deployments can record one that never was, but not in the past; and no stay begins before
        the default branch (at ``base``) asked for it.
        """
        needs, unknown = needed(case)
        earlier = case.platform.stage_before(case.stage) if not unknown else None
        if earlier is None or not needs.soak:
            return Stay()
        asked = self._asked_since(earlier.name, entry, base)
        longest, since = Stay().longest, None
        until = self.at
        for deployment in self.hub.all_deployments(limit=DEPLOYMENTS_READ, stage=earlier.name):  # newest first
            began = max(asked, datetime.fromisoformat(deployment.created))  # by GitHub's own clock
            ours = deployment.payload.get("digest") == entry.digest and until > began
            if ours and self.hub.deployment_state(deployment.id) in ("success", "inactive"):
                longest = max(longest, until - began)
                since = began if until == self.at else since
            until = began
            if began == asked:
                break
        return Stay(longest=longest, since=since)

    def _asked_since(self, stage: str, entry: StageEntry, base: str) -> datetime:
        """Since when the default branch last asked for these bytes in a stage, by GitHub's own clock; else now."""
        changes = islice(self.walk.changes(of_stage(stage), base), ASKED_LIMIT)
        change = next((c for c in changes if entry.same(c.after.stages.get(stage))), None)
        if change is None:
            return self.at
        if change.pull is not None:
            return datetime.fromisoformat(change.pull.merged_at)
        pushes = islice(self.hub.pushes(self.hub.default_branch), PUSHES_LIMIT)
        found = next((p["timestamp"] for p in pushes if p["after"] == change.commit.sha), "")
        return datetime.fromisoformat(found) if found else self.at

    def lifted(self, digest: str, base: str) -> str:
        """What is wrong with the lift of these bytes' quarantine; empty where they never were in one, or still are."""
        change = self.walk.last_change(of_quarantine(digest), base)
        if change is None or digest in {q.digest for q in change.after.quarantine}:
            return ""
        sha = change.commit.sha[:12]
        if change.pull is None:
            return f"the quarantine of these bytes was lifted by {sha} without a merged pull request"
        verdict = self._lift(change)
        if verdict.allowed:
            return ""
        why = next(r.message for r in verdict.reasons if r.outcome is Outcome.FAIL)
        return f"the quarantine of these bytes was lifted in #{change.pull.number}, which was not allowed: {why}"

    def _lift(self, change: Change) -> Verdict:
        assert change.pull is not None
        return self.verdict(change.pull, QUARANTINE, (change.before, change.after), change.commit.parents[0])
