"""Who gets in, who may see and who may do: tokens, roles, run tokens, protected branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from github import GithubException

from mlp_ci.sandbox.forge import events, protection, runs

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.records import Run
    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"


def run_token(world: World, permissions: dict[str, str]) -> tuple[Run, str]:
    """A run of the repository's latest event, and its token."""
    event = [e for e in events.take_events(world.forge.store) if e.repo_id == world.repo_row().id][-1]
    run = runs.create_run(world.forge, event, ".github/workflows/ci.yml", "CI")
    token = runs.mint_run_token(world.forge, run, permissions)
    world.tokens["run"] = token
    return run, token


def test_every_door_asks_for_a_token(world: World) -> None:
    with world.http(None) as client:
        assert client.get(REPO).status_code == 401
        assert client.get(REPO, headers={"Authorization": "token nonsense"}).json()["message"] == "Bad credentials"
        assert client.get("/rate_limit").status_code == 401
        assert client.get(REPO, auth=("alice", "alice-token")).status_code == 200
        assert client.get(REPO, auth=("alice-token", "x-oauth-basic")).status_code == 200
        assert client.get(REPO, headers={"Authorization": "Basic %%%"}).status_code == 401
    bare = world.url("alice").replace("alice:alice-token@", "")
    assert world.git(world.home, "ls-remote", bare, ok=False).returncode != 0
    wrong = world.url("alice").replace("alice-token", "guess")
    assert "Authentication failed" in world.git(world.home, "ls-remote", wrong, ok=False).stderr
    assert world.git(world.home, "ls-remote", world.url("alice").removesuffix(".git")).returncode == 0


def test_tokens_are_not_kept_in_clear(world: World) -> None:
    files = [p for p in (world.server.forge.root).iterdir() if p.name.startswith("forge.db")]
    data = b"".join(p.read_bytes() for p in files)
    assert b"alice-token" not in data
    assert all(p.stat().st_mode & 0o077 == 0 for p in files if p.name == "forge.db")


def test_what_is_hidden_is_not_found_and_what_is_seen_may_be_forbidden(world: World) -> None:
    with world.http("eve") as eve, world.http("dave") as dave:
        assert eve.get(REPO).status_code == 404
        assert eve.get("/repos/acme/open-data").status_code == 200
        assert [r["name"] for r in eve.get("/orgs/acme/repos").json()] == ["open-data"]
        assert eve.get("/orgs/acme/teams/platform").status_code == 404
        said = dave.post(REPO + "/statuses/main", json={"state": "success"})
        assert (said.status_code, said.json()["message"]) == (
            403,
            "Resource not accessible by personal access token",
        )
        assert dave.post(REPO + "/issues", json={"title": "hi"}).status_code == 201
    assert world.git(world.home, "ls-remote", world.url("eve"), ok=False).returncode != 0
    folder = world.clone("dave")
    world.commit(folder, {"x": "1"})
    assert "403" in world.push(folder, ok=False).stderr


def test_permissions_come_from_the_strongest_source(world: World) -> None:
    repo = world.repo("carol")
    logins = ("alice", "carol", "dave", "eve", "mlp-ci[bot]")
    have = {login: repo.get_collaborator_permission(login) for login in logins}
    assert have == {"alice": "write", "carol": "admin", "dave": "read", "eve": "none", "mlp-ci[bot]": "none"}
    assert repo.has_in_collaborators("dave")
    assert not repo.has_in_collaborators("eve")
    assert world.repo("alice").permissions.push
    assert not world.repo("dave").permissions.push


def test_an_app_token_is_not_a_person(world: World) -> None:
    with pytest.raises(GithubException) as refused:
        _ = world.hub("mlp-ci[bot]").get_user().login
    assert refused.value.status == 403
    issue = world.repo("mlp-ci[bot]").create_issue("from the app")
    assert (issue.user.login, issue.user.type) == ("mlp-ci[bot]", "Bot")


def test_a_run_token_does_what_the_workflow_was_granted_and_dies_with_the_run(world: World) -> None:
    run, token = run_token(world, {"contents": "read", "statuses": "write", "pull-requests": "write"})
    with world.http("run") as client:
        assert client.get(REPO + "/contents/README.md").status_code == 200
        status = client.post(REPO + "/statuses/main", json={"state": "success", "context": "x"})
        assert (status.status_code, status.json()["creator"]["login"]) == (201, "github-actions[bot]")
        put = client.put(REPO + "/contents/new", json={"message": "m", "content": ""})
        assert (put.status_code, put.json()["message"]) == (403, "Resource not accessible by integration")
        assert client.post(REPO + "/deployments", json={"ref": "main"}).status_code == 403
        assert client.get("/repos/acme/open-data/issues").status_code == 200
        assert client.post("/repos/acme/open-data/issues", json={"title": "t"}).status_code == 403
        assert client.put(REPO + "/branches/main/protection", json={}).status_code == 403
        assert client.post("/orgs/acme/repos", json={"name": "mine"}).status_code == 403
    assert world.git(world.home, "ls-remote", world.url("run"), ok=False).returncode == 0
    runs.update_run(world.forge, run, "completed", "success")
    with world.http("run") as client:
        assert client.get(REPO).status_code == 401
    assert token.startswith("ghs_")


def test_what_a_run_token_causes_starts_nothing_but_dispatches(world: World) -> None:
    flow = "on: {workflow_dispatch: {inputs: {stage: {required: true}, dry: {default: 'no'}}}}\njobs: {}\n"
    folder = world.clone("alice")
    world.commit(folder, {".github/workflows/ci.yml": flow})
    world.push(folder)
    run_token(world, {"contents": "write", "actions": "write", "issues": "write"})
    bot = world.clone("run")
    world.commit(bot, {"x": "1"})
    world.push(bot)
    push = world.events("push")[-1]
    assert (push.actor, push.suppressed, push.state) == ("github-actions[bot]", True, "done")
    with world.http("run") as client:
        client.post(REPO + "/issues", json={"title": "t"})
        path = REPO + "/actions/workflows/ci.yml/dispatches"
        assert client.post(path, json={"ref": "main", "inputs": {}}).status_code == 422
        assert client.post(path, json={"ref": "main", "inputs": {"stage": "a", "b": "c"}}).status_code == 422
        assert client.post(path, json={"ref": "nope", "inputs": {"stage": "a"}}).status_code == 422
        assert client.post(path, json={"ref": "main", "inputs": {"stage": "a"}}).status_code == 204
    taken = events.take_events(world.forge.store)
    assert [e.event for e in taken] == ["workflow_dispatch"]
    assert taken[0].payload["inputs"] == {"stage": "a", "dry": "no"}
    world.repo("mlp-ci[bot]").create_file("y", "m", b"1")
    assert [e.event for e in events.take_events(world.forge.store)] == ["push"]


def test_a_closed_branch_takes_pull_requests_only(world: World) -> None:
    row = world.repo_row()
    folder = world.clone("alice")
    world.commit(folder, {"x": "1"})
    assert world.push(folder).returncode == 0
    protection.protect(world.forge, row, "main", block_pushes=True, bypass=["bob"])
    world.commit(folder, {"x": "2"})
    refused = world.push(folder, ok=False)
    assert refused.returncode != 0
    assert "GH006: Protected branch update failed for refs/heads/main" in refused.stderr
    assert world.push(folder, "HEAD:refs/heads/topic").returncode == 0
    with pytest.raises(GithubException) as said:
        world.repo("alice").create_file("y", "m", b"1")
    assert said.value.status == 409
    other = world.clone("bob")
    world.commit(other, {"z": "1"})
    assert world.push(other).returncode == 0
    world.git(other, "commit", "-q", "--amend", "-m", "rewritten")
    assert "Cannot force-push" in world.push(other, "+HEAD", ok=False).stderr
    assert "cannot be changed by a push" in world.push(other, "HEAD:refs/pull/9/head", ok=False).stderr
    rule = world.repo("carol").get_branch("main").get_protection()
    assert rule.url.endswith("/branches/main/protection")


def test_secrets_are_for_the_runner_alone(world: World) -> None:
    row = world.repo_row()
    assert runs.secrets(world.forge, row) == {"MLP_CI_TOKEN": "app-token"}
    runs.set_setting(world.forge, "secret", "ORG", "o", owner=world.org())
    assert runs.secrets(world.forge, row)["ORG"] == "o"
    with world.http("carol") as client:
        names = client.get(REPO + "/actions/secrets")
        assert [s["name"] for s in names.json()["secrets"]] == ["MLP_CI_TOKEN"]
        assert "app-token" not in names.text
        assert client.get(REPO + "/actions/variables").json()["variables"][0]["value"] == "test"
    with world.http("alice") as client:
        assert client.get(REPO + "/actions/secrets").status_code == 403


def test_a_check_run_is_changed_by_the_app_that_made_it_only(world: World) -> None:
    run_token(world, {"checks": "write"})
    sha = world.repo("alice").get_branch("main").commit.sha
    with world.http("mlp-ci[bot]") as app, world.http("run") as run, world.http("carol") as owner:
        check = app.post(REPO + "/check-runs", json={"name": "gate", "head_sha": sha}).json()
        path = f"{REPO}/check-runs/{check['id']}"
        assert run.patch(path, json={"conclusion": "success"}).status_code == 403
        assert owner.patch(path, json={"conclusion": "success"}).status_code == 403
        assert app.patch(path, json={"conclusion": "failure"}).json()["conclusion"] == "failure"
        twin = run.post(REPO + "/check-runs", json={"name": "gate", "head_sha": sha, "conclusion": "success"}).json()
    assert (check["app"]["slug"], twin["app"]["slug"]) == ("mlp-ci", "github-actions")
