"""`mlp-ci audit`: each thing that may disagree with git is told, and nothing is put right unless that is asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mlp_ci.audit import issue
from mlp_ci.audit.flow import audit
from mlp_ci.context import Context
from mlp_ci.errors import InputError
from mlp_ci.promote.emergencies import marker
from mlp_ci.promote.records import BRANCH, DeploymentRecord, Draft, append, canonical, path_of, read
from mlp_ci.report import Outcome, Report
from mlp_ci.sandbox.forge import reviews
from mlp_ci.sandbox.forge import seed as seeds
from mlp_ci.sandbox.forge.records import Review, TeamMember
from mlp_ci.sandbox.forge.repositories import commit_files
from mlp_ci.serve import flow_deploy
from mlp_ci.serve.asked import Job, open_job
from mlp_ci.serve.flow_rollback import roll_back
from tests.flows.paper import Paper
from tests.flows.served import BETTER, BROKEN, GOOD, Scene, scene, written
from tests.promotion import MODEL, PLATFORM_YAML, World

POLICY = PLATFORM_YAML + "platform_team: platform\nemergency: {team: growth-ml}\n"


@dataclass
class Audited:
    """A model that is deployed, to a target that is a stand-in; and what an audit says of it."""

    flights: Scene
    paper: Paper = field(default_factory=Paper)

    @property
    def world(self) -> World:
        return self.flights.world

    def job(self, ctx: Context) -> Job:
        return replace(open_job(ctx), target=self.paper)  # type: ignore[arg-type]

    def deploy(self, *, approve: bool = True, **stages: int) -> None:
        """Promote as a team does, one stage at a time, and deploy."""
        for stage, version in stages.items():
            known = {s: e.version for s, e in self.flights.asked().stages.items()}
            self.flights.promote(approve=approve, **{**known, stage: version})
            done = flow_deploy.bring_all(self.job(self.flights.ctx), [stage])
            assert done[stage].exit_code == 0, done[stage].findings

    def look(self, *, in_job: bool = False, **options: Any) -> Report:
        return audit(self.world.ctx("app", in_job=in_job), job=self.job, **options)

    def wrong(self, **options: Any) -> dict[str, str]:
        """Check → what it says, of all that does not agree."""
        return bad(self.look(**options))

    def forge_policy(self, text: str) -> None:
        carol = self.world.actor("carol")
        repo = seeds.repo_of(self.world.forge, "acme/.github")
        commit_files(self.world.forge, repo, carol, {"platform.yaml": text.encode()}, "Policy", "main")

    def leave(self, login: str) -> None:
        """Somebody leaves all teams, and with them the right to write."""
        user = self.world.actor(login).user
        self.world.forge.store.delete(TeamMember, "user_id = ?", user.id)

    def change(self, path: str, content: bytes, *, approve: str = "", by: str = "alice") -> int:
        number = self.world.open(by, {path: content}, f"change-{self.world.main()[:8]}", f"Change {path}")
        if approve:
            self.world.review(approve, number)
        self.world.merge("alice", number)
        return number


def bad(report: Report) -> dict[str, str]:
    found = [f for f in report.findings if f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)]
    assert report.outputs["agrees"] == ("false" if found else "true")
    assert all(f.message for f in found)
    return {f.check: f"{f.subject}: {f.message} → {f.fix}" for f in found}


def notices(report: Report) -> str:
    return "\n".join(f"{f.check}: {f.subject} {f.message}" for f in report.findings if f.outcome is Outcome.SKIP)


@pytest.fixture
def audited(tmp_path: Path, mlflow_server: str) -> Iterator[Audited]:
    with scene(tmp_path, mlflow_server, models=written) as flights:
        made = Audited(flights)
        made.forge_policy(POLICY)
        yield made


def test_nothing_deployed_yet_is_no_fault(audited: Audited) -> None:
    report = audited.look()
    assert bad(report) == {}
    assert report.outcome is Outcome.PASS
    assert "no deployment is on record yet" in notices(report)


def test_all_agrees_after_promotions_and_a_rollback_and_nothing_is_written(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    audited.deploy(staging=BETTER, production=BETTER)
    ctx, place = audited.flights.ctx, audited.flights.place("production")
    roll_back(ctx, place, audited.paper, to="previous", reason="slow")  # type: ignore[arg-type]
    assert [kind for _, _, kind in audited.flights.records()] == [*["promotion"] * 4, "rollback"]
    audited.world.faults.requests.clear()
    report = audited.look()
    assert bad(report) == {}, report.findings
    assert audited.world.faults.writes() in ([], [r for r in audited.world.faults.writes() if "git-upload-pack" in r])
    said = " ".join(f.message for f in report.findings)
    assert "5 records, each with the hash of the one before" in said
    assert "5 deployments were approved as recorded" in said
    assert "no workflow, owner, tier or rule of promotion changed" in said
    assert report.headline.endswith("all agrees with git")


def test_a_tampered_chain_is_told(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    first = read(audited.world.hub())[0]
    audited.world.push("alice", {path_of(1): canonical(replace(first, approved_by=("carol",)))}, branch=BRANCH)
    found = audited.wrong()
    assert "carries the hash of another record 1" in found["chain"]
    assert "records/000001.json changed" in found["chain-history"]
    assert "names the record sha256:" in found["chain-end"]


@pytest.mark.slow
def test_newest_records_cut_off_are_told_by_githubs_deployments_and_by_what_this_machine_saw(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    assert audited.wrong() == {}
    hub = audited.world.hub("carol")
    older = hub.commits(BRANCH)[-1].sha
    hub.trees.point(BRANCH, older, force=True)
    report = audited.look()
    ends = [f.message for f in report.findings if f.check == "chain-end"]
    assert any("deployment" in m and "cut off or replaced" in m for m in ends)
    assert any("when this machine last looked" in m for m in ends)


def test_a_branch_of_records_that_is_gone_is_told(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    audited.world.hub("carol").wire.once(
        "DELETE", f"/repos/acme/{audited.world.repo.name}/git/refs/heads/{BRANCH}", "hide it"
    )
    assert "cut off or replaced" in audited.wrong()["chain-end"]


def test_a_record_of_what_git_never_asked_for_is_told(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    known = read(audited.world.hub())[0]
    forged = {**vars(known), "version": BETTER, "digest": audited.flights.digests[BETTER], "approved_by": ("bob",)}
    append(audited.world.hub("alice"), Draft(**{k: v for k, v in forged.items() if k not in ("number", "previous")}))
    report = audited.look()
    assert "does not ask for version 2 in staging" in bad(report)["asked"]
    assert "GitHub has no deployment for record 2" in notices(report)


def test_a_record_that_names_an_approval_that_was_never_given_is_told(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    known = read(audited.world.hub())[0]
    hub = audited.world.hub("carol")
    hub.wire.once("DELETE", f"/repos/acme/{audited.world.repo.name}/git/refs/heads/{BRANCH}", "write it anew")
    forged: DeploymentRecord = replace(known, approved_by=("carol",), pull=known.pull)
    append(hub, Draft(**{k: v for k, v in vars(forged).items() if k not in ("number", "previous")}))
    found = audited.wrong()
    assert "GitHub has no approval of the merged head by carol" in found["approvals"]
    assert "approve #" in found["approvals"]


@pytest.mark.slow
def test_an_approval_dismissed_after_the_deployment_is_told_and_mended_by_another(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    pull = read(audited.world.hub())[-1].pull
    assert pull
    row = audited.world.pull_row(pull)
    review = audited.world.forge.store.first(Review, "pull_id = ?", row.id)
    assert review
    reviews.dismiss(audited.world.forge, audited.world.repo, audited.world.actor("carol"), review, "Too early")
    found = audited.wrong()
    assert "record 2 (production, version 1)" in found["approvals"]
    assert f"approve #{pull}" in found["approvals"]
    audited.world.review("bob", pull)
    assert audited.wrong() == {}


def test_people_who_left_are_news_and_no_failure(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    audited.leave("bob")
    report = audited.look()
    assert bad(report) == {}, report.findings
    assert "bob, who approved it, may no longer write to the repository" in notices(report)


@pytest.mark.slow
def test_an_emergency_asks_for_a_review_until_somebody_gave_one(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    text = audited.flights.entries(staging=GOOD, production=BETTER).decode()
    production = text.index("production:")
    line = text[production:].index("    digest")
    at = production + line
    text = f"{text[:at]}    emergency: the site is down\n{text[at:]}"
    number = audited.world.open("alice", {"promotion.yaml": text.encode()}, "urgent")
    audited.world.merge("alice", number)
    done = flow_deploy.bring_all(audited.job(audited.flights.ctx), ["production"])
    assert done["production"].exit_code == 0, done["production"].findings
    assert audited.flights.records()[-1] == ("production", BETTER, "emergency")
    found = audited.wrong()
    assert set(found) == {"emergency"}
    assert f"in #{number} still waits for its review: 1 of 1 approval missing" in found["emergency"]
    hub = audited.world.hub()
    [issue_number] = hub.open_issues(marker(number))
    audited.world.review("bob", number)
    assert bad(audited.look(in_job=True)) == {}
    assert hub.wire.get(f"/repos/acme/{MODEL}/issues/{issue_number}", "read")["state"] == "closed"


def test_older_approvals_are_left_out_when_only_newer_are_asked_for(audited: Audited) -> None:
    audited.deploy(staging=GOOD, production=GOOD)
    audited.leave("bob")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    report = audited.look(since=tomorrow)
    assert bad(report) == {}
    assert "no deployment on record whose approvals" in notices(report)
    assert "may no longer write" in notices(audited.look(since="30d"))
    with pytest.raises(InputError, match="neither an instant nor how long ago"):
        audited.look(since="yesterday")


# ---------------------------------------------------------------- guarded files


WORKFLOW = ".github/workflows/deploy.yml"


def test_a_workflow_pushed_past_everybody_is_told(audited: Audited) -> None:
    audited.world.push("alice", {WORKFLOW: b"on: push\n"}, "Before anything was deployed")
    audited.deploy(staging=GOOD)
    assert audited.wrong() == {}
    sha = audited.world.push("alice", {WORKFLOW: b"on: [push, pull_request_target]\n"}, "Tidy")
    audited.world.push("alice", {"train.py": b"print(1)\n"})
    found = audited.wrong()
    assert set(found) == {"guarded-files"}
    assert f"{WORKFLOW}: {sha[:12]} by alice changed it without a pull request" in found["guarded-files"]


@pytest.mark.slow
def test_a_guarded_change_needs_the_platform_team_also_after_the_merge(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    for path in ("CODEOWNERS", ".github/actions/x/action.yml", "docs/CODEOWNERS"):
        number = audited.change(path, b"* @acme/growth-ml\n", approve="bob")
        found = audited.wrong()["guarded-files"]
        assert f"{path}: #{number} changed it, and nobody of the team platform has approved" in found
        audited.world.review("carol", number)
        assert audited.wrong() == {}
    assert "3 changes of guarded files" in " ".join(f.message for f in audited.look().findings)


def test_a_laxer_tier_is_told_and_the_rest_of_model_yaml_is_free(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    model = audited.world.hub().read_file("model.yaml", "main") or b""
    audited.change("model.yaml", model.replace(b"min: 0.7", b"min: 0.8"), approve="bob")
    assert audited.wrong() == {}
    number = audited.change("model.yaml", model.replace(b"tier: standard", b"tier: low"), approve="bob")
    told = f"model.yaml (its name, tier, promote or on_inconclusive): #{number} changed it"
    assert told in audited.wrong()["guarded-files"]


# ---------------------------------------------------------------- the registry, what serves, the issue


def test_a_moved_alias_is_told_left_and_put_back_when_that_is_asked_for(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    tracking, name = audited.flights.tracking, audited.flights.name
    tracking.set_alias(name, "staging", BETTER)
    assert "points to version 2" in audited.wrong()["alias"]
    assert tracking.alias(name, "staging") == BETTER
    report = audited.look(repair=True)
    assert bad(report) == {}
    assert tracking.alias(name, "staging") == GOOD
    assert any("is back on version 1" in f.message for f in report.findings)


def test_one_issue_says_it_until_all_agrees_again(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    hub, tracking, name = audited.world.hub(), audited.flights.tracking, audited.flights.name
    assert audited.look(in_job=True).links == []
    tracking.set_alias(name, "staging", BROKEN)
    assert audited.look().links == []
    assert hub.open_issues(issue.MARKER) == [], "outside a job nothing is written"
    first = audited.look(in_job=True)
    [number] = hub.open_issues(issue.MARKER)
    assert first.links[0][1].endswith(f"/issues/{number}")
    writes = len(audited.world.faults.writes())
    audited.look(in_job=True)
    assert hub.open_issues(issue.MARKER) == [number]
    said = [r for r in audited.world.faults.writes()[writes:] if "git-upload-pack" not in r]
    assert said == [], "what says so already is left alone"
    tracking.set_alias(name, "staging", GOOD)
    audited.look(in_job=True)
    assert hub.open_issues(issue.MARKER) == []


def test_a_look_that_fails_leaves_the_others_and_says_which(audited: Audited) -> None:
    audited.deploy(staging=GOOD)
    audited.world.faults.fail("/deployments", 403, times=50)
    report = audited.look()
    found = bad(report)
    assert "could not be looked at: the token may not read the deployments" in found["chain"]
    assert "agreement" not in found
    assert report.exit_code == 3


def test_the_command_says_no_with_exit_code_three(
    audited: Audited, cli: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    place = audited.world.place("app")
    env = {
        "GITHUB_TOKEN": place.token,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_REPOSITORY": place.full_name,
        "MLFLOW_TRACKING_URI": audited.world.tracking_uri,
    }
    audited.deploy(staging=GOOD)
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", str(audited.world.forge.git.path(audited.world.repo)), str(clone)],
        check=True,
        env=os.environ,
    )
    good = cli("audit", "--path", clone, **env)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "all agrees with git" in good.stdout
    assert cli("audit", "--path", clone, **{**env, "GITHUB_TOKEN": ""}).returncode == 2
    audited.world.push("alice", {WORKFLOW: b"on: push\n"})
    wrong = cli("audit", "--path", clone, **env)
    assert wrong.returncode == 3, wrong.stdout + wrong.stderr
    assert "1 thing does not agree" in wrong.stdout
