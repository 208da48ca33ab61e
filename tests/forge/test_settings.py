"""What administrators set, and that the forge keeps to it: rulesets, environments, Actions, runner groups."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.sandbox import organisation
from mlp_ci.sandbox.forge.records import RunnerGroup
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.sandbox.home import Home
from mlp_ci.sandbox.people import Refused, person
from tests.forge.test_access import run_token

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"
PULL_REQUEST: dict[str, Any] = {
    "required_approving_review_count": 0,
    "dismiss_stale_reviews_on_push": False,
    "require_code_owner_review": False,
    "require_last_push_approval": False,
    "required_review_thread_resolution": False,
}


def pull_request(**changed: Any) -> dict[str, Any]:
    return {"type": "pull_request", "parameters": {**PULL_REQUEST, **changed}}


def required(context: str, app: int | None = None, *, strict: bool = False) -> dict[str, Any]:
    check = {"context": context, **({"integration_id": app} if app else {})}
    parameters = {"required_status_checks": [check], "strict_required_status_checks_policy": strict}
    return {"type": "required_status_checks", "parameters": parameters}


def ruleset(
    *rules: dict[str, Any], name: str = "mine", include: str = "~DEFAULT_BRANCH", **more: Any
) -> dict[str, Any]:
    conditions = {"ref_name": {"include": [include], "exclude": []}}
    return {
        "name": name,
        "target": "branch",
        "enforcement": "active",
        "conditions": conditions,
        "rules": [*rules],
        **more,
    }


def ask(client: httpx.Client, method: str, path: str, status: int = 200, /, **body: Any) -> Any:
    answer = client.request(method, path, json=body or None)
    assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def given(world: World, *rules: dict[str, Any], **more: Any) -> int:
    with world.http("carol") as c:
        return int(ask(c, "POST", REPO + "/rulesets", 201, **ruleset(*rules, **more))["id"])


def propose(world: World, files: dict[str, str], login: str = "alice", branch: str = "topic") -> tuple[Any, str]:
    folder = world.clone(login)
    sha = world.commit(folder, files, "Propose", branch)
    world.push(folder)
    return world.repo(login).create_pull(title="T", body="", head=branch, base="main"), sha


def merge(world: World, login: str, number: int = 1) -> tuple[int, str]:
    with world.http(login) as client:
        answer = client.put(f"{REPO}/pulls/{number}/merge", json={})
        return answer.status_code, answer.json()["message"]


def tour(world: World) -> None:
    """Every route of settings once, for the test that holds all routes to GitHub's description."""
    with world.http("carol") as c:
        rulesets_tour(c, world)
        environments_tour(c)
        actions_tour(c)
        groups_tour(c, world)
        assert ask(c, "GET", "/apps/github-actions")["id"] == 15368
        ask(c, "GET", "/apps/nothing", 404)


def rulesets_tour(c: httpx.Client, world: World) -> None:
    assert ask(c, "GET", REPO + "/rulesets") == []
    made = ask(c, "POST", REPO + "/rulesets", 201, **ruleset(pull_request(), {"type": "deletion"}))
    ask(c, "POST", REPO + "/rulesets", 422, **ruleset())
    ask(c, "POST", REPO + "/rulesets", 422, name="bad", enforcement="active", rules=[{"type": "pull_request"}])
    ask(c, "POST", REPO + "/rulesets", 422, name="bad", enforcement="active", rules=[{"type": "magic"}])
    path = f"{REPO}/rulesets/{made['id']}"
    listed = ask(c, "GET", REPO + "/rulesets")
    assert [r["name"] for r in listed] == ["mine"]
    assert "rules" not in listed[0], "GitHub's list has no rules in it"
    assert ask(c, "GET", path)["bypass_actors"] == []
    rules = ask(c, "GET", REPO + "/rules/branches/main")
    assert [(r["type"], r["ruleset_id"]) for r in rules] == [("pull_request", made["id"]), ("deletion", made["id"])]
    assert ask(c, "GET", REPO + "/rules/branches/other") == []
    changed = ask(c, "PUT", path, enforcement="disabled")
    assert (changed["enforcement"], len(changed["rules"])) == ("disabled", 2)
    assert ask(c, "GET", REPO + "/rules/branches/main") == []
    with world.http("alice") as alice:
        assert "bypass_actors" not in ask(alice, "GET", path)
        ask(alice, "PUT", path, 403, enforcement="active")
    ask(c, "DELETE", path, 204)
    ask(c, "GET", path, 404)
    ask(c, "GET", REPO + "/codeowners/errors", 404)
    text = base64.b64encode(b"* @alice\n# none @x\n/a @nobody @acme/nothing  dave@acme.test\n").decode()
    ask(c, "PUT", REPO + "/contents/.github/CODEOWNERS", 201, message="Own", content=text)
    errors = ask(c, "GET", REPO + "/codeowners/errors")["errors"]
    assert [(e["line"], e["column"]) for e in errors] == [(3, 4), (3, 12), (3, 27)]


def environments_tour(c: httpx.Client) -> None:
    path = REPO + "/environments/production"
    ask(c, "GET", path, 404)
    carol = ask(c, "GET", "/user")["id"]
    policy = {"protected_branches": False, "custom_branch_policies": True}
    wanted = {"wait_timer": 5, "reviewers": [{"type": "User", "id": carol}], "deployment_branch_policy": policy}
    made = ask(c, "PUT", path, **wanted)
    assert made["deployment_branch_policy"] == policy
    assert [r["type"] for r in made["protection_rules"]] == ["wait_timer", "required_reviewers", "branch_policy"]
    ask(c, "PUT", path, 422, deployment_branch_policy=dict.fromkeys(policy, True))
    ask(c, "PUT", path, 422, reviewers=[{"type": "User", "id": 10**6}])
    policies = path + "/deployment-branch-policies"
    assert ask(c, "POST", policies, name="main")["type"] == "branch"
    ask(c, "POST", policies, name="main")
    assert [p["name"] for p in ask(c, "GET", policies)["branch_policies"]] == ["main"]
    assert ask(c, "GET", path)["protection_rules"][0]["wait_timer"] == 5
    assert "production" in [e["name"] for e in ask(c, "GET", REPO + "/environments")["environments"]]
    assert ask(c, "PUT", path)["protection_rules"] == [], "what is not given is off"
    ask(c, "POST", policies, 404, name="main")


def actions_tour(c: httpx.Client) -> None:
    path = REPO + "/actions/permissions"
    assert ask(c, "GET", path)["allowed_actions"] == "all"
    ask(c, "GET", path + "/selected-actions", 409)
    ask(c, "PUT", path, 204, enabled=True, allowed_actions="selected")
    ask(c, "PUT", path, 422, allowed_actions="selected")
    ask(c, "PUT", path + "/selected-actions", 204, patterns_allowed=["acme/*"])
    assert ask(c, "GET", path + "/selected-actions")["patterns_allowed"] == ["acme/*"]
    ask(c, "PUT", path + "/workflow", 204, default_workflow_permissions="read")
    ask(c, "PUT", path + "/workflow", 422, default_workflow_permissions="all")
    workflow = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}
    assert ask(c, "GET", path + "/workflow") == workflow
    ask(c, "PUT", path + "/fork-pr-contributor-approval", 204, approval_policy="all_external_contributors")
    ask(c, "PUT", path + "/fork-pr-contributor-approval", 422, approval_policy="nobody")
    assert ask(c, "GET", path + "/fork-pr-contributor-approval")["approval_policy"] == "all_external_contributors"
    private = path + "/fork-pr-workflows-private-repos"
    ask(c, "PUT", private, 204, run_workflows_from_fork_pull_requests=True)
    assert ask(c, "GET", private)["run_workflows_from_fork_pull_requests"]
    ask(c, "GET", private.replace("flight-delay", "open-data"), 403)


def groups_tour(c: httpx.Client, world: World) -> None:
    path = "/orgs/acme/actions/runner-groups"
    assert ask(c, "GET", path)["runner_groups"] == []
    group = world.forge.store.insert(
        RunnerGroup, org_id=world.org().id, name="gpu", visibility="selected", standard=False, public=True,
        restricted=False, workflows=[], repositories=[world.repo_row().id],
    )  # fmt: skip
    seen = ask(c, "GET", path + "?visible_to_repository=flight-delay")["runner_groups"]
    assert [(g["name"], g["allows_public_repositories"]) for g in seen] == [("gpu", True)]
    assert ask(c, "GET", path + "?visible_to_repository=open-data")["runner_groups"] == []
    own = f"{path}/{group.id}"
    assert not ask(c, "PATCH", own, name="gpu", allows_public_repositories=False)["allows_public_repositories"]
    ask(c, "PATCH", own, 422, name="gpu", selected_workflows=["acme/x/.github/workflows/a.yml"])
    ask(c, "PATCH", own, 422, visibility="all")
    with world.http("alice") as alice:
        ask(alice, "GET", path, 403)


def test_a_branch_of_a_ruleset_takes_pull_requests_only(world: World) -> None:
    folder = world.clone("carol")
    world.commit(folder, {"x": "1"})
    number = given(world, pull_request(), {"type": "non_fast_forward"}, {"type": "deletion"}, include="refs/heads/ma*")
    assert "through a pull request" in world.push(folder, ok=False).stderr, "an admin is nobody special"
    with world.http("carol") as carol:
        said = carol.put(REPO + "/contents/y", json={"message": "m", "content": ""})
        assert (said.status_code, "pull request" in said.text) == (409, True)
        tip = ask(carol, "GET", REPO + "/git/ref/heads/main")["object"]["sha"]
        ask(carol, "PATCH", REPO + "/git/refs/heads/main", 422, sha=tip, force=True)
        ask(carol, "DELETE", REPO + "/git/refs/heads/main", 422)
        ask(carol, "PUT", f"{REPO}/rulesets/{number}", enforcement="evaluate")
    assert world.push(folder).returncode == 0, "a ruleset that only evaluates refuses nothing"


def test_force_and_deletion_are_refused_by_the_rules_that_say_so(world: World) -> None:
    folder = world.clone("alice")
    world.commit(folder, {"r": "1"}, branch="mlp-ci/records")
    world.push(folder)
    number = given(world, {"type": "non_fast_forward"}, {"type": "deletion"}, include="refs/heads/mlp-ci/records")
    world.commit(folder, {"r": "2"})
    assert world.push(folder).returncode == 0, "an honest addition"
    world.git(folder, "commit", "-q", "--amend", "-m", "forged")
    assert "Cannot force-push" in world.push(folder, "+HEAD", ok=False).stderr
    assert "Cannot delete" in world.push(folder, ":mlp-ci/records", ok=False).stderr
    with world.http("alice") as alice:
        old = world.git(folder, "rev-parse", "origin/main").stdout.strip()
        ask(alice, "PATCH", REPO + "/git/refs/heads/mlp-ci/records", 422, sha=old, force=True)
        ask(alice, "DELETE", REPO + "/git/refs/heads/mlp-ci/records", 422)
    with world.http("carol") as carol:
        ask(carol, "PUT", f"{REPO}/rulesets/{number}", rules=[{"type": "deletion"}])
    assert world.push(folder, "+HEAD").returncode == 0, "only deletion is refused now"


@pytest.mark.parametrize(
    ("actor", "passes"),
    [
        ({"actor_type": "OrganizationAdmin", "actor_id": 1}, {"carol"}),
        ({"actor_type": "RepositoryRole", "actor_id": 5}, {"carol"}),
        ({"actor_type": "RepositoryRole", "actor_id": 4}, {"alice", "bob", "carol"}),
        ({"actor_type": "Team", "actor_id": "growth-ml"}, {"alice", "bob"}),
        ({"actor_type": "Integration", "actor_id": "mlp-ci"}, {"mlp-ci[bot]"}),
        ({"actor_type": "User", "actor_id": "bob"}, {"bob"}),
    ],
)
def test_who_may_bypass_may_and_nobody_else(world: World, actor: dict[str, Any], passes: set[str]) -> None:
    with world.http("carol") as carol:
        ids = {t["slug"]: t["id"] for t in ask(carol, "GET", "/orgs/acme/teams")}
        ids["bob"] = ask(carol, "GET", "/users/bob")["id"]
        ids["mlp-ci"] = ask(carol, "GET", "/apps/mlp-ci")["id"]
    entry = {**actor, "actor_id": ids.get(actor["actor_id"], actor["actor_id"])}
    given(world, pull_request(), bypass_actors=[entry])
    logins = ("alice", "bob", "carol", "mlp-ci[bot]")
    able = set()
    for number, login in enumerate(logins):
        with world.http(login) as client:
            body = {"message": "m", "content": "", "branch": "main"}
            if client.put(f"{REPO}/contents/f{number}", json=body).status_code == 201:
                able.add(login)
    assert able == passes


def test_a_bypass_for_pull_requests_is_none_for_pushes(world: World) -> None:
    admin = {"actor_type": "OrganizationAdmin", "actor_id": 1, "bypass_mode": "pull_request"}
    given(world, pull_request(), required("ci"), bypass_actors=[admin])
    propose(world, {"a": "1"})
    folder = world.clone("carol")
    world.commit(folder, {"x": "1"})
    assert world.push(folder, ok=False).returncode != 0
    assert merge(world, "bob") == (405, 'Required status check "ci" is expected.')
    assert merge(world, "carol")[0] == 200


def test_a_required_check_counts_only_from_the_app_it_is_bound_to(world: World) -> None:
    with world.http("carol") as carol:
        app = ask(carol, "GET", "/apps/mlp-ci")["id"]
    given(world, required("mlp-ci/approvals", app))
    _, sha = propose(world, {"a": "1"})
    with world.http("alice") as alice:
        ask(alice, "POST", f"{REPO}/statuses/{sha}", 201, state="success", context="mlp-ci/approvals")
    assert merge(world, "bob") == (405, 'Required status check "mlp-ci/approvals" is expected.')
    run_token(world, {"statuses": "write"})
    with world.http("run") as run:
        ask(run, "POST", f"{REPO}/statuses/{sha}", 201, state="success", context="mlp-ci/approvals")
    assert merge(world, "bob")[0] == 405, "another app's word is nothing either"
    with world.http("mlp-ci[bot]") as bot:
        ask(bot, "POST", f"{REPO}/statuses/{sha}", 201, state="success", context="mlp-ci/approvals")
        with world.http("alice") as alice:
            ask(alice, "POST", f"{REPO}/statuses/{sha}", 201, state="failure", context="mlp-ci/approvals")
    assert merge(world, "bob")[0] == 200


def test_reviews_that_a_ruleset_asks_for(world: World) -> None:
    folder = world.clone("carol")
    world.commit(folder, {"CODEOWNERS": "/model.yaml @bob\n", "model.yaml": "a\n"})
    world.push(folder)
    rule = pull_request(
        require_code_owner_review=True, require_last_push_approval=True, dismiss_stale_reviews_on_push=True
    )
    given(world, rule)
    pull, _ = propose(world, {"model.yaml": "b\n"})
    said = merge(world, "carol")[1]
    assert "code owner review" in said
    assert "other than the last pusher" in said
    world.repo("carol").get_pull(pull.number).create_review(event="APPROVE")
    assert merge(world, "carol")[1] == "Waiting on code owner review."
    world.repo("bob").get_pull(pull.number).create_review(event="APPROVE")
    assert world.repo("bob").get_pull(pull.number).mergeable_state == "clean"
    other = world.clone("bob")
    world.git(other, "checkout", "-q", "topic")
    world.commit(other, {"model.yaml": "c\n"})
    world.push(other)
    assert {r.state for r in pull.get_reviews()} == {"DISMISSED"}
    world.repo("bob").get_pull(pull.number).create_review(event="APPROVE")
    assert merge(world, "carol")[1] == "New changes require approval from someone other than the last pusher."
    world.repo("carol").get_pull(pull.number).create_review(event="APPROVE")
    assert merge(world, "carol")[0] == 200


def test_a_pull_request_without_owned_files_needs_no_owner(world: World) -> None:
    folder = world.clone("carol")
    world.commit(folder, {"CODEOWNERS": "/.github/ @bob\n"})
    world.push(folder)
    given(world, pull_request(require_code_owner_review=True), required("ci", strict=True))
    pull, sha = propose(world, {"notes.md": "b\n"})
    with world.http("alice") as alice:
        ask(alice, "POST", f"{REPO}/statuses/{sha}", 201, state="success", context="ci")
    assert pull.mergeable_state != "dirty"
    assert merge(world, "alice")[0] == 200


def test_the_sandbox_sets_what_doctor_asks_for_and_leaves_main_to_its_admins(tmp_path: Path) -> None:
    with ForgeServer(tmp_path / "forge") as server:
        logins = [login for login, _, _ in organisation.PEOPLE]
        tokens = {login: f"{login}-token" for login in (*logins, organisation.BOT)}
        home = Home(root=tmp_path, forge_port=server.port, mlflow_port=1, tokens=tokens)
        organisation.seed(server.forge, home)
        organisation.found_repository(home, "acme/model")
        organisation.protect(home, "acme/model")
        carol, alice = person(home, "carol"), person(home, "alice")
        assert [r["name"] for r in carol.api("GET", "/repos/acme/model/rulesets")] == ["mlp-ci records"]
        assert len(carol.api("GET", "/repos/acme/model/environments")["environments"]) == 2
        for who, path in ((carol, "by-an-admin"), (alice, "by-a-writer")):
            who.api("PUT", f"/repos/acme/model/contents/{path}", {"message": "m", "content": ""})
        tip = carol.api("GET", "/repos/acme/model/git/ref/heads/main")["object"]["sha"]
        alice.api("POST", "/repos/acme/model/git/refs", {"ref": "refs/heads/mlp-ci/records", "sha": tip})
        with pytest.raises(Refused):
            carol.api("DELETE", "/repos/acme/model/git/refs/heads/mlp-ci/records")


def test_settings_are_for_admins(world: World) -> None:
    run_token(world, {"contents": "write", "actions": "write", "administration": "write"})
    for login in ("alice", "run"):
        with world.http(login) as client:
            for path in ("", "/workflow", "/fork-pr-contributor-approval", "/fork-pr-workflows-private-repos"):
                assert client.get(f"{REPO}/actions/permissions{path}").status_code == 403
            assert client.put(f"{REPO}/environments/production", json={}).status_code == 403
            assert client.post(f"{REPO}/rulesets", json=ruleset()).status_code == 403
            assert client.get("/orgs/acme/actions/runner-groups").status_code == 403


ODD: list[Any] = [None, 0, -1, 2**70, 1.5, True, "", "x" * 300, [], [1], [[]], [{}], {}, {"a": []}, {"type": ["x"]}]


def test_odd_settings_are_refused_or_taken_but_never_a_failure(world: World) -> None:
    """The recorder fails the test on any answer of 500, or one that is not as GitHub describes it."""
    dice = random.Random(7)
    good: dict[str, dict[str, Any]] = {
        "POST " + REPO + "/rulesets": ruleset(pull_request(), required("ci"), bypass_actors=[{"actor_type": "Team"}]),
        "PUT " + REPO + "/environments/e": {"wait_timer": 1, "reviewers": [], "deployment_branch_policy": None},
        "PUT " + REPO + "/actions/permissions": {"enabled": True, "allowed_actions": "all"},
        "PUT " + REPO + "/actions/permissions/workflow": {"default_workflow_permissions": "read"},
        "PUT " + REPO + "/actions/permissions/fork-pr-contributor-approval": {"approval_policy": "x"},
        "PUT " + REPO + "/actions/permissions/fork-pr-workflows-private-repos": {"send_secrets_and_variables": True},
    }
    with world.http("carol") as carol:
        for number in range(150):
            verb, _, path = dice.choice(list(good)).partition(" ")
            body = json.loads(json.dumps(good[f"{verb} {path}"]))
            spoil(body, dice)
            if "name" in body and dice.random() < 0.9:
                body["name"] = f"r{number}"
            assert carol.request(verb, path, json=body).status_code in (200, 201, 204, 400, 422), body
        for path in ("/rulesets", "/rules/branches/main", "/environments", "/actions/permissions"):
            assert carol.get(REPO + path).status_code == 200
        carol.put(REPO + "/contents/x", json={"message": "m", "content": ""})


def spoil(value: Any, dice: random.Random) -> None:
    """Put something odd somewhere into a body."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = dice.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and dice.random() < 0.7:
        spoil(value[key], dice)
    else:
        value[key] = dice.choice(ODD)
