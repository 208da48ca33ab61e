"""`mlp-ci doctor --github`, setting by setting: environments, forks, runner groups, actions, owners, the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.context import Context, GitHubPlace
from mlp_ci.doctor import examine
from mlp_ci.errors import InputError
from mlp_ci.sandbox.forge import seed
from mlp_ci.sandbox.forge.records import Ruleset, RunnerGroup
from tests.unit.doctored import REPO, WORLD, World, lines, running, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as found:
        yield found


def test_an_environment_keeps_its_reviewers_and_its_own_branches(world: World) -> None:
    carol = world.ask("GET", "/user")["id"]
    path = REPO + "/environments/production"
    reviewers = {"reviewers": [{"type": "User", "id": carol}], "wait_timer": 30, "prevent_self_review": True}
    world.ask("PUT", path, reviewers)
    custom = {"protected_branches": False, "custom_branch_policies": True}
    world.ask("PUT", REPO + "/environments/staging", {"deployment_branch_policy": custom})
    report = world.doctor()
    assert lines(report)["environment production"]["is"] == "any branch"
    assert lines(report)["environment staging"]["is"] == "no branch", "somebody was interrupted halfway"
    world.doctor(fix=True)
    now = {rule["type"]: rule for rule in world.ask("GET", path)["protection_rules"]}
    assert now["wait_timer"]["wait_timer"] == 30
    assert now["required_reviewers"]["prevent_self_review"]
    assert now["required_reviewers"]["reviewers"][0]["reviewer"]["login"] == "carol"
    world.ask("POST", path + "/deployment-branch-policies", {"name": "release/*"})
    protected = {"protected_branches": True, "custom_branch_policies": False}
    world.ask("PUT", REPO + "/environments/staging", {"deployment_branch_policy": protected})
    report = world.doctor(fix=True)
    assert report.data["done"] == [], "what somebody chose is not taken away"
    assert lines(report)["environment production"]["is"] == "main, release/*"
    assert lines(report)["environment staging"]["is"] == "any protected branch"
    assert wrong(report) >= {"environment production", "environment staging"}


def test_forks_of_a_private_repository_get_no_secrets(world: World) -> None:
    path = REPO + "/actions/permissions/fork-pr-workflows-private-repos"
    assert lines(world.doctor())["pull requests from forks"]["is"] == "start nothing"
    on = {"run_workflows_from_fork_pull_requests": True, "send_secrets_and_variables": True}
    world.ask("PUT", path, on)
    told = lines(world.doctor())["pull requests from forks"]
    assert told["is"] == "secrets are sent, no approval is asked"
    world.doctor(fix=True)
    assert world.ask("GET", path) == {
        "run_workflows_from_fork_pull_requests": True,
        "send_write_tokens_to_workflows": False,
        "send_secrets_and_variables": False,
        "require_approval_for_fork_pr_workflows": True,
    }


def test_forks_of_a_public_repository_wait_and_its_runners_are_closed_to_it(world: World) -> None:
    row = seed.repo_of(world.forge, "acme/open-data")
    world.forge.store.insert(
        RunnerGroup, org_id=row.owner_id, name="gpu", visibility="all", standard=False, public=True,
        restricted=False, workflows=[], repositories=[],
    )  # fmt: skip
    report = world.doctor(repo="open-data")
    assert wrong(report) >= {"pull requests from forks", "runner group gpu: repositories", "CODEOWNERS"}
    assert "deploy.yml@refs/heads/main" in lines(report)["runner group gpu: workflows"]["fix"]
    assert "/.github/ @acme/platform" in lines(report)["CODEOWNERS"]["fix"]
    done = world.doctor(repo="open-data", fix=True).data["done"]
    assert [d["refusal"] for d in done] == [""] * len(done)
    group = world.ask("GET", "/orgs/acme/actions/runner-groups")["runner_groups"][0]
    assert (group["allows_public_repositories"], group["visibility"]) == (False, "all")
    forks = world.ask("GET", "/repos/acme/open-data/actions/permissions/fork-pr-contributor-approval")
    assert forks == {"approval_policy": "all_external_contributors"}
    assert wrong(world.doctor(repo="open-data")) == {"CODEOWNERS", "acme/.github"}


def test_the_repository_of_the_policy_needs_an_approval_for_every_change(world: World) -> None:
    report = world.doctor(repo=".github")
    assert "required status" not in lines(report)
    assert not any(name.startswith(("environment", "runner")) for name in lines(report))
    world.doctor(repo=".github", fix=True)
    assert wrong(world.doctor(repo=".github")) == {"CODEOWNERS"}
    rules = {r["type"]: r.get("parameters") for r in world.ask("GET", "/repos/acme/.github/rules/branches/main")}
    assert rules["pull_request"]["required_approving_review_count"] == 1
    assert lines(world.doctor())["acme/.github"]["outcome"] == "pass"


def test_no_environment_is_made_up_where_the_policy_cannot_be_read(tmp_path: Path) -> None:
    with running(tmp_path, replace(WORLD, repos=WORLD.repos[:2])) as world:
        told = lines(world.doctor(fix=True))
        assert world.ask("GET", REPO + "/environments")["environments"] == []
    assert (told["environments"]["outcome"], told["acme/.github"]["outcome"]) == ("skip", "skip")
    assert "contents: read" in told["environments"]["fix"]


def test_our_ruleset_is_found_behind_more_than_a_hundred_others(world: World) -> None:
    row = seed.repo_of(world.forge, "acme/flight-delay")
    blank = {"repo_id": row.id, "target": "branch", "bypass_actors": [], "conditions": {}, "rules": []}
    for number in range(101):
        world.forge.store.insert(
            Ruleset, **blank, name=f"r{number}", enforcement="disabled", created_at=row.created_at,
            updated_at=row.created_at,
        )  # fmt: skip
    world.doctor(fix=True)
    assert world.doctor(fix=True).data["done"] == []


@pytest.mark.parametrize(
    ("permissions", "selected", "shown", "outcome"),
    [
        ({"allowed_actions": "all"}, None, "everybody's", "skip"),
        ({"allowed_actions": "all", "sha_pinning_required": True}, None, "all, by full commit hash only", "pass"),
        ({"allowed_actions": "local_only"}, None, "local only", "pass"),
        ({"allowed_actions": "selected"}, {"patterns_allowed": ["acme/*"]}, "acme/*, GitHub's", "pass"),
    ],
)
def test_whose_actions_may_run_is_shown_and_never_changed(
    world: World, permissions: dict[str, Any], selected: dict[str, Any] | None, shown: str, outcome: str
) -> None:
    world.ask("PUT", REPO + "/actions/permissions", {"enabled": True, **permissions})
    if selected:
        world.ask("PUT", REPO + "/actions/permissions/selected-actions", selected)
    told = lines(world.doctor())["whose actions may run"]
    assert (told["is"], told["outcome"]) == (shown, outcome)


def test_a_job_that_may_open_pull_requests_still_may(world: World) -> None:
    path = REPO + "/actions/permissions/workflow"
    world.ask("PUT", path, {"can_approve_pull_request_reviews": True})
    world.doctor(fix=True)
    now = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": True}
    assert world.ask("GET", path) == now


@pytest.mark.parametrize(
    ("text", "outcome", "shown"),
    [
        ("* @acme/platform\n/promotion.yaml\n", "pass", "owners of"),
        ("* @acme/platform\n", "skip", "promotion.yaml has owners"),
        ("* @acme/platform\n/promotion.yaml\n/data @nobody\n", "fail", "line 3: Unknown owner"),
        ("/.github/workflows/ @acme/platform\n", "fail", "nobody owns .github/CODEOWNERS, model.yaml"),
    ],
)
def test_what_codeowners_covers(world: World, text: str, outcome: str, shown: str) -> None:
    row = seed.repo_of(world.forge, "acme/flight-delay")
    from mlp_ci.sandbox.forge import repositories
    from mlp_ci.sandbox.forge.access import Actor

    carol = world.forge.store.user("carol")
    assert carol
    repositories.commit_files(world.forge, row, Actor(carol), {".github/CODEOWNERS": text.encode()}, "Own")
    told = lines(world.doctor())["CODEOWNERS"]
    assert (told["outcome"], shown in told["is"]) == (outcome, True), told


def test_fix_alone_is_a_mistake(world: World, cli: Callable[..., Any]) -> None:
    done = cli("doctor", "--fix", "--path", world.folder)
    assert done.returncode == 2
    assert "--fix is for --github only" in done.stderr
    place = GitHubPlace(owner="acme", repo="flight-delay", api_url=world.api, server_url=world.api)
    folder = world.folder
    ctx = Context(repo=folder, work=folder, serve_home=folder, prediction_log=folder, github=place)
    with pytest.raises(InputError, match="needs a GitHub token"):
        examine(ctx, github=True)


def test_the_command_line_ends_with_3_while_something_is_missing(world: World, cli: Callable[..., Any]) -> None:
    env = {
        "GITHUB_TOKEN": "carol-token",
        "GITHUB_REPOSITORY": "acme/flight-delay",
        "GITHUB_API_URL": world.api,
        "GITHUB_SERVER_URL": world.api,
    }
    done = cli("doctor", "--github", "--path", world.folder, **env)
    assert done.returncode == 3, done.stderr
    assert "carol-token" not in done.stdout
    assert "What --fix would do" in done.stdout
    assert cli("doctor", "--github", "--fix", "--path", world.folder, **env).returncode == 3, "acme/.github is left"
    world.doctor(repo=".github", fix=True)
    assert cli("doctor", "--github", "--path", world.folder, **env).returncode == 0
