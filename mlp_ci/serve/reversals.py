"""What follows a rollback's traffic: git, the alias, the chained record, GitHub's deployment. Each step once.

How far it is stands in the target's state, so that the same command, or the next deploy, finishes what was killed or
failed. Nothing here moves traffic, and nothing heavy is imported before a step needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import MlpError
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve.rights import one_record
from mlp_ci.spec import PROMOTION_FILE, Quarantined, StageEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.serve.state import Place, Reversal
    from mlp_ci.serve.targets import Target
    from mlp_ci.spec import PromotionSpec

# A step that has to wait for another: the record names git's commit, the deployment names the record.
AFTER = {"record": "git", "deployment": "record"}


@dataclass
class Finished:
    """What was said, the first failure, and the rollbacks as they stand now. ``wrote``: git asks for something new."""

    findings: list[Finding] = field(default_factory=list)
    failure: MlpError | None = None
    reversals: list[Reversal] = field(default_factory=list)
    wrote: bool = False


def finish(ctx: Context, place: Place, target: Target) -> Finished:
    """Do what is left of the rollbacks of ``place``, oldest first. A step that fails is said and stays left."""
    done = Finished()
    if not target.unfinished(place):
        return done
    with one_record(place):
        for reversal in target.unfinished(place):  # again: whoever held the lock may have finished it
            _finish_one(_Steps(ctx, place, target, reversal), done)
    return done


def _finish_one(steps: _Steps, done: Finished) -> None:
    place, failed = steps.place, False
    for name in steps.reversal.left:
        if AFTER.get(name) in steps.reversal.left:
            continue
        try:
            message = getattr(steps, name)()
        except MlpError as error:
            done.failure, failed = done.failure or error, True
            fix = f"{error.fix + '; then ' if error.fix else ''}run the same command again: it moves no traffic twice"
            message = f"{error.what}; {error.why}" if error.why else error.what
            done.findings.append(
                Finding(check=name, outcome=Outcome.FAIL, subject=place.stage, message=message, fix=fix)
            )
            continue
        done.findings.append(Finding(check=name, outcome=Outcome.PASS, subject=place.stage, message=message))
        steps.note(done=(*steps.reversal.done, name))
        done.wrote = done.wrote or name == "git"
    done.reversals.append(steps.reversal)
    if not failed and not steps.reversal.overtaken:
        steps.target.announce(place, steps.reversal.version)


@dataclass
class _Steps:
    """The steps of one rollback. Each gives what it says; a second call of each changes nothing more."""

    ctx: Context
    place: Place
    target: Target
    reversal: Reversal

    def note(self, **changes: Any) -> None:
        self.reversal = replace(self.reversal, **changes)
        self.target.note(self.place, self.reversal)

    def _hub(self) -> Hub:
        from mlp_ci.github import connect

        return connect(self.ctx.require_github("recording a rollback"))

    def git(self) -> str:
        """promotion.yaml goes back, and the bytes that were taken away are quarantined."""
        if self.ctx.github is None:
            return "this repository is on no GitHub: change promotion.yaml by hand"
        hub, held = self._hub(), self.reversal.held
        taken = Quarantined(
            version=held.version,
            digest=held.digest,
            reason=held.reason,
            since=datetime.fromisoformat(held.since),
        )
        if self._goes_back(hub):
            from mlp_ci.promote import record_rollback

            entry = StageEntry(version=self.reversal.version, digest=self.reversal.digest)
            made: Any = record_rollback(self.ctx, hub, self.place.stage, entry, taken, self._evidence())
        else:
            made = quarantine(hub, self.place.model, taken)
        commit = made if isinstance(made, str) else hub.head(hub.default_branch)
        pull = None if isinstance(made, str) else int(made.number)
        self.note(commit=commit, pull=pull, by=self.reversal.by or hub.login)
        if pull:
            return f"pull request #{pull} records it; deploy holds version {held.version} back until it is merged"
        return f"recorded in git as {commit[:12]}; version {held.version} is quarantined"

    def _evidence(self) -> str:
        """What was seen of the bytes that were taken away, if that was in a rollout; the same whenever it is asked."""
        from mlp_ci.serve.rollout.progress import Phase

        progress, held = self.target.progress(self.place), self.reversal.held
        if progress is None or progress.digest != held.digest or progress.phase is not Phase.ABORTED:
            return ""
        from mlp_ci.serve.rollout.standing import facts
        from mlp_ci.serve.telling.ended import evidence
        from mlp_ci.spec import load_model

        rollout = load_model(self.ctx.repo).serve.rollout
        return evidence(facts(self.target, self.place, rollout, datetime.fromisoformat(held.since)))

    def _goes_back(self, hub: Hub) -> bool:
        """Whether git's entry has to go back too: not when people asked for a third version meanwhile."""
        if self.reversal.overtaken == "deploy":
            return False
        from mlp_ci.promote.files import promotion_at

        asked = promotion_at(hub, hub.head(hub.default_branch), self.place.model).stages.get(self.place.stage)
        return asked is not None and asked.digest in (self.reversal.held.digest, self.reversal.digest)

    def alias(self) -> str:
        """The alias of the stage follows the traffic."""
        from mlp_ci.github import platform_of
        from mlp_ci.serve.announcing import point_alias
        from mlp_ci.tracking import connect

        # A GitHub that is down must not keep the alias back where the address of MLflow is known without it.
        platform = None if self.ctx.tracking_uri else platform_of(self.ctx)
        point_alias(connect(self.ctx, platform), self.place, self.reversal.version)
        return f"the alias {self.place.stage} names version {self.reversal.version}"

    def record(self) -> str:
        """The chain of deployments says that the version before runs again, and why."""
        if self.ctx.github is None:
            return "this repository is on no GitHub: there is no chain of records"
        from mlp_ci.promote.records import Draft, append

        hub, reversal = self._hub(), self.reversal
        draft = Draft(
            model=self.place.model,
            stage=self.place.stage,
            version=reversal.version,
            digest=reversal.digest,
            evidence=reversal.evidence,
            kind="rollback",
            at=datetime.fromisoformat(reversal.held.since),
            commit=reversal.commit,
            pull=reversal.pull,
            asked_by=reversal.by,
            approved_by=(),
            merged_by="",
            policy="",
            run=hub.place.run_url,
            address=self._address(),
        )
        number, digest = append(hub, draft)
        self.note(record=digest)
        return f"deployment record {number} says so"

    def deployment(self) -> str:
        """GitHub's page of deployments says what runs."""
        if self.ctx.github is None:
            return "this repository is on no GitHub: there is no deployment to record"
        from mlp_ci.serve.announcing import deployment_payload

        reversal = self.reversal
        payload = deployment_payload(self.place.model, reversal.version, reversal.digest, reversal.record)
        self._hub().record_deployment(reversal.commit, self.place.stage, self._address(), payload)
        return "the deployment is on record"

    def _address(self) -> str:
        fact = self.target.live(self.place)
        return fact.address if fact else ""


def quarantine(hub: Hub, model: str, held: Quarantined) -> Any:
    """Quarantine bytes and change nothing else: the commit, or the pull request where the branch takes no commit."""
    from mlp_ci.github import GitHubError, PullRequest
    from mlp_ci.promote.files import promotion_at

    def make(head: str) -> Mapping[str, bytes]:
        now = promotion_at(hub, head, model)
        if held.digest in {q.digest for q in now.quarantine}:
            return {}
        return {PROMOTION_FILE: _with(hub.read_file(PROMOTION_FILE, head) or b"", now, held)}

    branch, title = hub.default_branch, f"Quarantine version {held.version} of {model}"
    why = " ".join(held.reason.split())[:500] or "No reason was given."
    message = f"{title}\n\n{why}\n\nIt was rolled back, and git asks for another version by now ({held.digest})."
    try:
        return hub.commit_files(branch, make, message)[0]
    except GitHubError as refusal:
        if refusal.status not in (403, 409, 422):
            raise
    files = make(hub.head(branch))
    body = f"These bytes were rolled back. It is a pull request because {branch} takes no direct commit.\n"
    wanted = PullRequest(
        branch=f"mlp-ci/quarantine-{held.version}", title=title, body=body, files=files, message=message
    )
    return hub.open_or_update_pull(wanted)


def _with(text: bytes, now: PromotionSpec, held: Quarantined) -> bytes:
    from mlp_ci.spec import edited_promotion

    after = now.model_copy(update={"quarantine": (*now.quarantine, held)})
    return edited_promotion(text.decode(), after).encode()
