"""`mlp-ci doctor --github --fix` on a forge that keeps to what is set: compared, set, set once, never loosened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mlp_ci.context import GitHubPlace
from mlp_ci.github import GitHubError, connect
from mlp_ci.report import Outcome
from tests.unit.doctored import REPO, World, lines, loose, running, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as found:
        yield found


def test_without_fix_nothing_changes_and_all_that_fix_would_do_is_said(world: World) -> None:
    before = loose(world)
    report = world.doctor()
    assert loose(world) == before
    assert report.outcome is Outcome.FAIL
    assert [(c["verb"], c["path"].removeprefix(REPO)) for c in report.data["changes"]] == [
        ("POST", "/rulesets"),
        ("POST", "/rulesets"),
        ("PUT", "/actions/permissions/workflow"),
        ("PUT", "/environments/staging"),
        ("POST", "/environments/staging/deployment-branch-policies"),
        ("PUT", "/environments/production"),
        ("POST", "/environments/production/deployment-branch-policies"),
    ]
    assert "nothing is changed yet" in report.tables[1].title
    assert wrong(report) == {
        "changes of main", "required status", "force push to main", "deletion of main", "review by code owners",
        "force push to mlp-ci/records", "deletion of mlp-ci/records", "acme/.github",
        "a job's token, where the workflow does not say", "environment staging", "environment production",
    }  # fmt: skip
    assert all(line["why"] for line in lines(report).values())


def test_fix_sets_it_and_a_second_time_does_nothing(world: World) -> None:
    report = world.doctor(fix=True)
    assert [done["refusal"] for done in report.data["done"]] == [""] * 7
    assert wrong(report) == {"acme/.github"}, "that is another repository"
    after = loose(world)
    again = world.doctor(fix=True)
    assert again.data["done"] == again.data["changes"] == []
    assert loose(world) == after
    refused = httpx.put(
        f"{world.api}{REPO}/contents/x",
        json={"message": "m", "content": ""},
        headers={"Authorization": "token carol-token"},
    )
    assert refused.status_code == 409, "an admin pushes nothing to main any more"
    world.doctor(fix=True, repo=".github")
    assert wrong(world.doctor()) == set()


def test_a_writer_and_a_job_see_what_they_may_and_are_told_what_is_missing(world: World) -> None:
    for token in ("alice-token", world.run_token()):
        report = world.doctor(token)
        shown = lines(report)
        assert shown["a job's token, where the workflow does not say"]["outcome"] == "skip"
        assert "administration: read" in shown["pull requests from forks"]["fix"]
        assert "self-hosted runners: read" in shown["runner groups"]["fix"]
        assert "403" in shown["runner groups"]["is"]
        assert shown["changes of main"]["outcome"] == "fail", "that main is open can be seen by anybody"
    world.doctor(fix=True)
    shown = lines(world.doctor("alice-token"))
    assert shown["changes of main"]["outcome"] == "pass", "rulesets are for all to see"
    assert "only an administrator" in shown["who may pass the rules of main"]["is"]


def test_what_is_refused_says_so_and_changes_nothing(world: World) -> None:
    before = loose(world)
    report = world.doctor("alice-token", fix=True)
    assert report.outcome is Outcome.FAIL
    tried = [done["refusal"] for done in report.data["done"] if not done["refusal"].startswith("not tried")]
    assert (len(tried), len(report.data["done"])) == (4, 6), "no branch for an environment that could not be made"
    assert all("403" in refusal and "administration: write" in refusal for refusal in tried)
    assert loose(world) == before


def test_a_ruleset_of_ours_that_was_loosened_is_tightened_and_all_others_stay(world: World) -> None:
    world.doctor(fix=True)
    theirs = {
        "name": "theirs", "target": "branch", "enforcement": "active", "rules": [{"type": "required_signatures"}],
        "conditions": {"ref_name": {"include": ["refs/heads/release"], "exclude": []}},
        "bypass_actors": [{"actor_type": "OrganizationAdmin", "actor_id": 1, "bypass_mode": "always"}],
    }  # fmt: skip
    world.ask("POST", REPO + "/rulesets", theirs)
    kept = world.ruleset("theirs")
    ours = world.ruleset("mlp-ci")
    check = {"required_status_checks": [{"context": "ci"}], "strict_required_status_checks_policy": True}
    review = next(r for r in ours["rules"] if r["type"] == "pull_request")["parameters"]
    rules = [
        {"type": "required_linear_history"},
        {"type": "required_status_checks", "parameters": check},
        {"type": "pull_request", "parameters": {**review, "require_code_owner_review": False,
                                                "required_approving_review_count": 2}},
    ]  # fmt: skip
    loosened = {
        "rules": rules,
        "bypass_actors": [{"actor_type": "RepositoryRole", "actor_id": 4, "bypass_mode": "pull_request"}],
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH", "refs/heads/next"], "exclude": []}},
    }
    world.ask("PUT", f"{REPO}/rulesets/{ours['id']}", loosened)
    report = world.doctor()
    assert lines(report)["who may pass the rules of main"]["is"] == "writers (on pull requests)"
    assert wrong(report) >= {"required status", "review by code owners", "force push to main", "deletion of main"}
    assert [(c["verb"], c["path"]) for c in report.data["changes"]] == [("PUT", f"{REPO}/rulesets/{ours['id']}")]
    world.doctor(fix=True)
    now = world.ruleset("mlp-ci")
    by_type = {r["type"]: r.get("parameters") for r in now["rules"]}
    assert now["bypass_actors"] == []
    assert now["conditions"]["ref_name"]["include"] == ["~DEFAULT_BRANCH", "refs/heads/next"]
    assert set(by_type) == {
        "required_linear_history", "required_status_checks", "pull_request", "non_fast_forward", "deletion"
    }  # fmt: skip
    checks = by_type["required_status_checks"]
    assert [c["context"] for c in checks["required_status_checks"]] == ["ci", "mlp-ci/approvals"]
    assert checks["strict_required_status_checks_policy"]
    assert (by_type["pull_request"]["required_approving_review_count"], review["require_code_owner_review"]) == (
        2,
        True,
    )
    assert world.ruleset("theirs") == kept
    assert world.doctor(fix=True).data["done"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"enforcement": "evaluate"},
        {"enforcement": "disabled"},
        {"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": ["refs/heads/main"]}}},
        {"conditions": {"ref_name": {"include": ["refs/heads/other"], "exclude": []}}},
        {"rules": []},
    ],
)
def test_whatever_takes_a_ruleset_out_of_force_is_put_right(world: World, change: dict[str, Any]) -> None:
    world.doctor(fix=True)
    number = world.ruleset("mlp-ci")["id"]
    world.ask("PUT", f"{REPO}/rulesets/{number}", change)
    assert "force push to main" in wrong(world.doctor())
    assert len(world.doctor(fix=True).data["done"]) == 1
    assert wrong(world.doctor()) == {"acme/.github"}
    assert world.ruleset("mlp-ci")["id"] == number, "the same ruleset, no second one"


def test_classic_protection_counts_as_well_as_a_ruleset(world: World) -> None:
    rules = {
        "required_status_checks": {"strict": False, "contexts": ["mlp-ci/approvals"]},
        "required_pull_request_reviews": {"required_approving_review_count": 1, "dismiss_stale_reviews": True},
        "enforce_admins": True,
        "restrictions": None,
    }
    world.ask("PUT", REPO + "/branches/main/protection", rules)
    report = world.doctor()
    assert not wrong(report) & {"changes of main", "required status", "force push to main", "deletion of main"}
    assert "branch protection" in lines(report)["required status"]["is"]
    assert lines(report)["who may pass the rules of main"]["outcome"] == "pass"
    world.ask("PUT", REPO + "/branches/main/protection", {**rules, "enforce_admins": False})
    report = world.doctor()
    assert lines(report)["who may pass the rules of main"]["is"] == "administrators"
    body = next(c for c in report.data["changes"] if "for main" in c["says"])["body"]
    assert {r["type"] for r in body["rules"]} == {
        "pull_request", "required_status_checks", "non_fast_forward", "deletion"
    }  # fmt: skip
    world.doctor(fix=True)
    assert lines(world.doctor())["who may pass the rules of main"]["is"] == "nobody"
    assert world.ask("GET", REPO + "/branches/main/protection")["enforce_admins"]["enabled"] is False, "theirs stays"


def test_the_status_is_bound_to_the_app_that_sets_it(world: World) -> None:
    setting = "who may set mlp-ci/approvals"
    sha = world.propose()
    world.doctor(fix=True)
    assert "after the first promotion" in lines(world.doctor())[setting]["fix"]
    world.set_status(sha, "alice-token")
    assert "alice set it last" in lines(world.doctor())[setting]["fix"]
    world.set_status(sha, world.run_token())
    assert "github-actions[bot] (15368)" in lines(world.doctor())[setting]["should_be"]
    world.set_status(sha, "app-token")
    number = world.ask("GET", "/apps/mlp-ci")["id"]
    assert setting in wrong(world.doctor())
    assert [d["says"] for d in world.doctor(fix=True).data["done"]] == [
        'tighten the ruleset "mlp-ci" for main: required status checks'
    ]
    checks = {r["type"]: r.get("parameters") for r in world.ruleset("mlp-ci")["rules"]}["required_status_checks"]
    assert checks["required_status_checks"] == [{"context": "mlp-ci/approvals", "integration_id": number}]
    assert lines(world.doctor())[setting]["outcome"] == "pass"
    world.set_status(sha, world.run_token())
    told = lines(world.doctor(fix=True))[setting]
    assert told["outcome"] == "skip", "never bound anew: the newest status may be the forged one"
    assert "find out which" in told["fix"]


class Breaking:
    """ASGI middleware: each write is done, and then its answer is lost, once."""

    def __init__(self) -> None:
        self.lost: set[tuple[str, str]] = set()
        self.on = False

    def __call__(self, app: Any) -> Any:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            key = (scope.get("method", ""), scope.get("path", ""))
            if not self.on or key[0] in ("GET", "") or key in self.lost:
                await app(scope, receive, send)
                return
            self.lost.add(key)

            async def swallow(_: Any) -> None:
                """Nobody hears it."""

            await app(scope, receive, swallow)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 502, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})

        return serve


def test_an_answer_that_is_lost_makes_nothing_twice(tmp_path: Path) -> None:
    breaking = Breaking()
    with running(tmp_path, wrap=breaking) as world:
        breaking.on = True
        done = world.doctor(fix=True).data["done"]
        assert [d["refusal"] for d in done] == [""] * 7
        assert len(breaking.lost) == 6, "the two rulesets have one address"
        assert [r["name"] for r in world.ask("GET", REPO + "/rulesets")] == ["mlp-ci", "mlp-ci records"]
        assert wrong(world.doctor()) == {"acme/.github"}


def test_what_the_loop_does_still_works_under_the_rules(world: World) -> None:
    """Records are added, a rollback's direct commit is refused so that it becomes a pull request, and that merges."""
    sha = world.propose()
    world.set_status(sha, "app-token")
    world.doctor(fix=True)
    place = GitHubPlace(owner="acme", repo="flight-delay", api_url=world.api, server_url=world.api, token="app-token")
    hub = connect(place)
    tip = world.ask("GET", REPO + "/git/ref/heads/main")["object"]["sha"]
    world.ask("POST", REPO + "/git/refs", {"ref": "refs/heads/mlp-ci/records", "sha": tip})
    for number in (1, 2):
        assert hub.commit_files("mlp-ci/records", lambda _, n=number: {f"records/{n}.json": b"{}\n"}, "Record")[1]  # type: ignore[misc]
    with pytest.raises(GitHubError) as refused:
        hub.commit_files("main", lambda _: {"promotion.yaml": b"x"}, "Roll back")
    assert refused.value.status in (403, 409, 422), "what record_rollback takes for a protected branch"
    assert hub.merge_pull(1, sha)
