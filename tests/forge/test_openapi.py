"""A tour of every route, so that every shape of answer is held to GitHub's OpenAPI description."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mlp_ci.sandbox.forge import events, runs
from mlp_ci.sandbox.forge.app import GROUPS
from tests.forge import test_settings
from tests.forge.openapi import check, operations

if TYPE_CHECKING:
    import httpx

    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"
ENDPOINTS = {(e.method, e.template) for group in GROUPS for e in group.endpoints}


def test_every_route_is_one_of_githubs() -> None:
    assert ENDPOINTS - set(operations()) == set()


def ask(client: httpx.Client, method: str, path: str, status: int = 200, /, **body: Any) -> Any:
    answer = client.request(method, path, json=body or None)
    assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content and "json" in answer.headers["content-type"] else answer.content


def people(world: World) -> None:
    with world.http("carol") as c:
        assert ask(c, "GET", "/user")["login"] == "carol"
        assert ask(c, "GET", "/users/bob")["email"] == "bob@acme.test"
        assert ask(c, "GET", "/rate_limit")["resources"]["core"]["limit"] == 5000
        assert ask(c, "GET", "/orgs/acme")["login"] == "acme"
        assert len(ask(c, "GET", "/orgs/acme/members")) == 4
        ask(c, "GET", "/orgs/acme/members/bob", 204)
        ask(c, "GET", "/orgs/acme/members/eve", 404)
        assert ask(c, "GET", "/orgs/acme/memberships/carol")["role"] == "admin"
        assert [t["slug"] for t in ask(c, "GET", "/orgs/acme/teams")] == ["growth-ml", "platform"]
        assert ask(c, "GET", "/orgs/acme/teams/growth-ml")["members_count"] == 2
        assert [u["login"] for u in ask(c, "GET", "/orgs/acme/teams/growth-ml/members")] == ["alice", "bob"]
        assert ask(c, "GET", "/orgs/acme/teams/growth-ml/memberships/bob")["state"] == "active"
        assert [r["name"] for r in ask(c, "GET", "/orgs/acme/teams/growth-ml/repos")] == ["flight-delay"]
        ask(c, "GET", "/users/nobody", 404)
        grant = "/orgs/acme/teams/platform/repos/acme/flight-delay"
        ask(c, "PUT", grant, 204, permission="maintain")
        ask(c, "PUT", grant, 422, permission="everything")
        ask(c, "PUT", "/orgs/acme/teams/platform/repos/acme/none", 404)
        with world.http("alice") as alice:
            ask(alice, "PUT", grant, 403, permission="push")


def repositories(world: World) -> None:
    with world.http("carol") as c:
        assert {r["name"] for r in ask(c, "GET", "/user/repos")} == {"flight-delay", "open-data"}
        assert len(ask(c, "GET", "/orgs/acme/repos")) == 2
        made = ask(c, "POST", "/orgs/acme/repos", 201, name="new", auto_init=True, private=True)
        assert made["default_branch"] == "main"
        ask(c, "POST", "/orgs/acme/repos", 422, name="NEW")
        ask(c, "POST", "/repos/acme/open-data/forks", 202)
        assert ask(c, "PATCH", "/repos/acme/new", description="d")["description"] == "d"
        ask(c, "PATCH", "/repos/acme/new", 422, default_branch="nope")
        assert ask(c, "GET", REPO)["permissions"]["admin"]
        assert [b["name"] for b in ask(c, "GET", REPO + "/branches")] == ["main"]
        assert not ask(c, "GET", REPO + "/branches/main")["protected"]
        ask(c, "GET", REPO + "/branches/nope", 404)
        ask(c, "GET", REPO + "/branches/main/protection", 404)
        rules: dict[str, Any] = {
            "required_status_checks": {"strict": True, "contexts": ["ci"]},
            "required_pull_request_reviews": {"required_approving_review_count": 2, "dismiss_stale_reviews": True},
            "enforce_admins": True,
            "restrictions": {"users": ["carol"], "teams": []},
        }
        put = ask(c, "PUT", REPO + "/branches/main/protection", **rules)
        assert put["required_pull_request_reviews"]["required_approving_review_count"] == 2
        assert ask(c, "GET", REPO + "/branches/main/protection")["restrictions"]["users"][0]["login"] == "carol"
        ask(c, "DELETE", REPO + "/branches/main/protection", 204)
        assert {u["login"] for u in ask(c, "GET", REPO + "/collaborators")} == {"alice", "bob", "carol", "dave"}
        ask(c, "GET", REPO + "/collaborators/alice", 204)
        assert ask(c, "GET", REPO + "/collaborators/bob/permission")["permission"] == "write"
        assert {t["slug"]: t["permission"] for t in ask(c, "GET", REPO + "/teams")} == {
            "growth-ml": "push",
            "platform": "maintain",
        }


def files_and_git(world: World) -> None:
    with world.http("alice") as c:
        content = base64.b64encode(b"one\n").decode()
        new = ask(c, "PUT", REPO + "/contents/data/a.txt", 201, message="Add", content=content)
        sha = new["content"]["sha"]
        assert new["commit"]["author"]["email"] == "alice@acme.test"
        ask(c, "PUT", REPO + "/contents/data/a.txt", 422, message="No sha", content=content)
        ask(c, "PUT", REPO + "/contents/data/a.txt", 409, message="Bad", content=content, sha="0" * 40)
        ask(c, "PUT", REPO + "/contents/x", 422, message="Bad", content="%%%")
        two = base64.b64encode(b"two\n").decode()
        ask(c, "PUT", REPO + "/contents/data/a.txt", message="Change", content=two, sha=sha, branch="main")
        assert base64.b64decode(ask(c, "GET", REPO + "/contents/data/a.txt")["content"]) == b"two\n"
        ask(c, "GET", REPO + "/contents/data/a.txt?ref=main~1", 404)
        raw = c.get(REPO + "/contents/data/a.txt", headers={"Accept": "application/vnd.github.raw+json"})
        assert raw.content == b"two\n"
        large = base64.b64encode(b"0123456789abcdef" * 65537).decode()
        ask(c, "PUT", REPO + "/contents/large", 201, message="Large", content=large, branch="main")
        assert ask(c, "GET", REPO + "/contents/large")["encoding"] == "none"
        assert {e["type"] for e in ask(c, "GET", REPO + "/contents/")} == {"file", "dir"}
        history = ask(c, "GET", REPO + "/commits?path=data/a.txt&author=alice&since=2000-01-01T00:00:00Z")
        assert [h["commit"]["message"] for h in history] == ["Change", "Add"]
        assert [h["author"]["login"] for h in history] == ["alice", "alice"]
        one = ask(c, "GET", REPO + f"/commits/{history[0]['sha']}")
        assert (one["files"][0]["status"], one["stats"]["total"]) == ("modified", 2)
        compared = ask(c, "GET", REPO + f"/compare/{history[1]['sha']}...main")
        assert (compared["status"], compared["ahead_by"], len(compared["files"])) == ("ahead", 2, 2)
        gone = ask(c, "GET", REPO + "/contents/data/a.txt")["sha"]
        assert ask(c, "DELETE", REPO + "/contents/data/a.txt", message="Gone", sha=gone)["content"] is None
        ask(c, "DELETE", REPO + "/contents/data/a.txt", 404, message="Gone", sha=gone)
        several_at_once(c)


def several_at_once(c: httpx.Client) -> None:
    tip = ask(c, "GET", REPO + "/git/ref/heads/main")["object"]["sha"]
    base = ask(c, "GET", REPO + f"/git/commits/{tip}")["tree"]["sha"]
    blob = ask(c, "POST", REPO + "/git/blobs", 201, content="aGk=", encoding="base64")["sha"]
    assert base64.b64decode(ask(c, "GET", REPO + f"/git/blobs/{blob}")["content"]) == b"hi"
    entries = [
        {"path": "a/b", "mode": "100644", "type": "blob", "sha": blob},
        {"path": "c", "mode": "100755", "type": "blob", "content": "text"},
        {"path": "promotion.yaml", "mode": "100644", "type": "blob", "sha": None},
    ]
    tree = ask(c, "POST", REPO + "/git/trees", 201, base_tree=base, tree=entries)["sha"]
    listed = ask(c, "GET", REPO + f"/git/trees/{tree}?recursive=1")["tree"]
    assert {e["path"] for e in listed} == {"README.md", "a", "a/b", "c", "large"}
    bad = [{"path": "../up", "mode": "100644", "type": "blob", "content": "x"}]
    ask(c, "POST", REPO + "/git/trees", 422, tree=bad)
    commit = ask(c, "POST", REPO + "/git/commits", 201, message="Several", tree=tree, parents=[tip])["sha"]
    ask(c, "POST", REPO + "/git/commits", 422, message="Several", tree=tip, parents=[tip])
    ask(c, "POST", REPO + "/git/refs", 201, ref="refs/heads/side/one", sha=commit)
    ask(c, "POST", REPO + "/git/refs", 422, ref="refs/heads/side/one", sha=commit)
    ask(c, "POST", REPO + "/git/refs", 422, ref="refs/heads/bad..name", sha=commit)
    ask(c, "POST", REPO + "/git/refs", 422, ref="refs/heads/none", sha="0" * 40)
    assert [r["ref"] for r in ask(c, "GET", REPO + "/git/matching-refs/heads/side")] == ["refs/heads/side/one"]
    assert ask(c, "GET", REPO + "/branches/side/one")["commit"]["sha"] == commit
    ask(c, "PATCH", REPO + "/git/refs/heads/main", sha=commit)
    ask(c, "PATCH", REPO + "/git/refs/heads/main", 422, sha=tip)
    ask(c, "PATCH", REPO + "/git/refs/heads/side/one", sha=tip, force=True)
    ask(c, "DELETE", REPO + "/git/refs/heads/side/one", 204)
    ask(c, "GET", REPO + "/git/ref/heads/side/one", 404)


def checks(world: World) -> None:
    with world.http("alice") as c:
        ask(c, "POST", REPO + "/statuses/main", 201, state="pending", context="ci")
        ask(c, "POST", REPO + "/statuses/main", 201, state="success", context="ci", description="ok")
        ask(c, "POST", REPO + "/statuses/main", 422, state="great", context="ci")
        ask(c, "POST", REPO + "/statuses/nope", 422, state="success")
        combined = ask(c, "GET", REPO + "/commits/main/status")
        assert (combined["state"], combined["total_count"]) == ("success", 1)
        assert [s["state"] for s in ask(c, "GET", REPO + "/commits/main/statuses")] == ["success", "pending"]
        ask(c, "POST", REPO + "/check-runs", 403, name="x", head_sha="main")
    with world.http("mlp-ci[bot]") as c:
        sha = ask(c, "GET", REPO + "/commits/main")["sha"]
        check = ask(c, "POST", REPO + "/check-runs", 201, name="gate", head_sha=sha, status="in_progress")
        output = {"title": "Gate", "summary": "fine"}
        path = f"{REPO}/check-runs/{check['id']}"
        assert ask(c, "PATCH", path, conclusion="success", output=output)["status"] == "completed"
        assert ask(c, "GET", path)["output"]["title"] == "Gate"
        listed = ask(c, "GET", REPO + "/commits/main/check-runs?check_name=gate&status=completed")
        assert [r["app"]["slug"] for r in listed["check_runs"]] == ["mlp-ci"]
        assert ask(c, "GET", REPO + "/commits/main/check-suites")["check_suites"][0]["conclusion"] == "success"


def talk(world: World) -> None:
    with world.http("alice") as c:
        issue = ask(c, "POST", REPO + "/issues", 201, title="Bug", labels=["bug"], assignees=["bob"])
        path = f"{REPO}/issues/{issue['number']}"
        assert ask(c, "GET", path)["assignees"][0]["login"] == "bob"
        assert ask(c, "PATCH", path, state="closed", body="b", labels=["x/y"])["state_reason"] == "completed"
        assert ask(c, "GET", REPO + "/issues?state=all&labels=x/y&creator=alice")[0]["title"] == "Bug"
        ask(c, "POST", REPO + "/issues", 422)
        comment = ask(c, "POST", path + "/comments", 201, body="hello")
        ask(c, "POST", path + "/comments", 422, body="")
        own = f"{REPO}/issues/comments/{comment['id']}"
        assert ask(c, "PATCH", own, body="bye")["body"] == "bye"
        assert ask(c, "GET", own)["user"]["login"] == "alice"
        assert [m["id"] for m in ask(c, "GET", path + "/comments")] == [comment["id"]]
        assert len(ask(c, "GET", REPO + "/issues/comments")) == 1
        with world.http("dave") as dave:
            ask(dave, "PATCH", own, 403, body="mine now")
        ask(c, "DELETE", own, 204)
        ask(c, "POST", REPO + "/labels", 201, name="mlp", color="#00ff00", description="d")
        ask(c, "POST", REPO + "/labels", 422, name="MLP")
        assert ask(c, "GET", REPO + "/labels/mlp")["color"] == "00ff00"
        assert ask(c, "PATCH", REPO + "/labels/mlp", new_name="mlops")["name"] == "mlops"
        assert {label["name"] for label in ask(c, "GET", REPO + "/labels")} == {"bug", "mlops", "x/y"}
        assert len(ask(c, "POST", path + "/labels", labels=["bug"])) == 2
        assert len(ask(c, "GET", path + "/labels")) == 2
        assert [label["name"] for label in ask(c, "DELETE", path + "/labels/x%2Fy")] == ["bug"]
        assert [label["name"] for label in ask(c, "PUT", path + "/labels", labels=["mlops"])] == ["mlops"]
        ask(c, "DELETE", path + "/labels", 204)
        ask(c, "DELETE", REPO + "/labels/mlops", 204)


def pull_requests(world: World) -> None:
    with world.http("alice") as c, world.http("bob") as bob:
        content = base64.b64encode(b"x").decode()
        tip = ask(c, "GET", REPO + "/git/ref/heads/main")["object"]["sha"]
        ask(c, "POST", REPO + "/git/refs", 201, ref="refs/heads/topic", sha=tip)
        ask(c, "POST", REPO + "/pulls", 422, title="T", head="topic", base="main")
        ask(c, "POST", REPO + "/pulls", 422, title="T", head="nope", base="main")
        ask(c, "PUT", REPO + "/contents/x", 201, message="x", content=content, branch="topic")
        made = ask(c, "POST", REPO + "/pulls", 201, title="T", head="topic", base="main")
        path = f"{REPO}/pulls/{made['number']}"
        assert [p["number"] for p in ask(c, "GET", REPO + "/pulls?sort=updated&base=main")] == [made["number"]]
        assert ask(c, "PATCH", path, body="new")["body"] == "new"
        assert ask(c, "GET", f"{REPO}/issues/{made['number']}")["pull_request"]["url"].endswith(path)
        assert len(ask(c, "GET", path + "/files")) == 1
        assert len(ask(c, "GET", path + "/commits")) == 1
        assert len(ask(c, "GET", REPO + "/commits/topic/pulls")) == 1
        ask(c, "GET", path + "/merge", 404)
        ask(c, "POST", path + "/requested_reviewers", 201, reviewers=["bob"])
        assert ask(c, "GET", path + "/requested_reviewers")["users"][0]["login"] == "bob"
        ask(c, "DELETE", path + "/requested_reviewers", reviewers=["bob"])
        ask(c, "POST", path + "/reviews", 422, event="APPROVE")
        review = ask(bob, "POST", path + "/reviews", event="APPROVE")
        assert ask(c, "GET", path + "/reviews")[0]["state"] == "APPROVED"
        own = f"{path}/reviews/{review['id']}"
        assert ask(c, "GET", own)["commit_id"] == made["head"]["sha"]
        assert ask(c, "PUT", own + "/dismissals", message="again")["state"] == "DISMISSED"
        ask(c, "PUT", own + "/dismissals", 422, message="again")
        ask(c, "PUT", path + "/merge", 422, merge_method="magic")
        ask(c, "PUT", path + "/merge", 409, sha="0" * 40)
        assert ask(c, "PUT", path + "/merge", merge_method="merge")["merged"]
        ask(c, "GET", path + "/merge", 204)
        ask(c, "PUT", path + "/merge", 405)
        assert ask(c, "GET", path)["merged_by"]["login"] == "alice"
        diff = c.get(path, headers={"Accept": "application/vnd.github.diff"})
        assert diff.status_code == 200


def deployments(world: World) -> None:
    with world.http("alice") as c:
        ask(c, "POST", REPO + "/deployments", 422, ref="nope")
        ask(c, "POST", REPO + "/deployments", 409, ref="main", required_contexts=["missing"])
        ids = []
        for _ in range(2):
            made = ask(c, "POST", REPO + "/deployments", 201, ref="main", environment="staging", payload={"v": 1})
            ids.append(made["id"])
            status = ask(
                c, "POST", f"{REPO}/deployments/{made['id']}/statuses", 201, state="success", log_url="http://l"
            )
            own = f"{REPO}/deployments/{made['id']}/statuses/{status['id']}"
            assert ask(c, "GET", own)["environment"] == "staging"
        states = ask(c, "GET", f"{REPO}/deployments/{ids[0]}/statuses")
        assert [s["state"] for s in states] == ["inactive", "success"]
        assert len(ask(c, "GET", REPO + "/deployments?environment=staging")) == 2
        assert ask(c, "GET", REPO + "/deployments?environment=other") == []
        assert ask(c, "GET", f"{REPO}/deployments/{ids[0]}")["payload"] == {"v": 1}
        assert ask(c, "GET", REPO + "/environments")["environments"][0]["name"] == "staging"
        assert ask(c, "GET", REPO + "/environments/staging")["name"] == "staging"
    with world.http("carol") as c:
        assert ask(c, "PUT", REPO + "/environments/prod")["name"] == "prod"


def actions(world: World) -> None:
    flow = base64.b64encode(b"name: CI\non: [push, workflow_dispatch]\njobs: {}\n").decode()
    with world.http("alice") as c:
        ask(c, "PUT", REPO + "/contents/.github/workflows/ci.yml", 201, message="CI", content=flow)
        listed = ask(c, "GET", REPO + "/actions/workflows")["workflows"]
        assert [w["name"] for w in listed] == ["CI"]
        assert ask(c, "GET", f"{REPO}/actions/workflows/{listed[0]['id']}")["path"] == ".github/workflows/ci.yml"
        body = {"ref": "main", "return_run_details": True}
        started = ask(c, "POST", REPO + "/actions/workflows/ci.yml/dispatches", **body)
        run = f"{REPO}/actions/runs/{started['workflow_run_id']}"
        assert ask(c, "GET", run)["status"] == "queued"
        event = events.take_events(world.forge.store)[-1]
        row = runs.create_run(world.forge, event, ".github/workflows/ci.yml", "CI")
        assert row.id == started["workflow_run_id"]
        job = runs.create_job(world.forge, row, "build", ["self-hosted"])
        step = {"name": "Step", "status": "completed", "conclusion": "success"}
        runs.update_job(world.forge, job, "in_progress", steps=[step])
        runs.append_log(world.forge, row, "hello\n", job)
        assert ask(c, "GET", run + "/jobs")["jobs"][0]["steps"][0]["name"] == "Step"
        assert ask(c, "GET", f"{REPO}/actions/jobs/{job.id}")["status"] == "in_progress"
        log = c.get(f"{REPO}/actions/jobs/{job.id}/logs", follow_redirects=True)
        assert log.text == "hello\n"
        assert c.get(run + "/logs", follow_redirects=True).content[:2] == b"PK"
        for query in ("event=workflow_dispatch", "status=queued", "branch=main"):
            assert ask(c, "GET", f"{REPO}/actions/runs?{query}")["total_count"] == 1
        assert ask(c, "GET", REPO + "/actions/workflows/ci.yml/runs?status=success")["total_count"] == 0
        ask(c, "POST", run + "/cancel", 202)
        ask(c, "POST", run + "/cancel", 409)
        assert ask(c, "GET", run)["conclusion"] == "cancelled"
        ask(c, "POST", REPO + "/dispatches", 204, event_type="go", client_payload={"a": 1})
        ask(c, "GET", REPO + "/actions/variables")
    with world.http("carol") as c:
        ask(c, "GET", REPO + "/actions/secrets")


def what_happened(world: World) -> None:
    with world.http("alice") as c:
        moves = ask(c, "GET", REPO + "/activity?activity_type=pr_merge")
        assert [(m["ref"], m["actor"]["login"]) for m in moves] == [("refs/heads/main", "alice")]
        ask(c, "GET", REPO + "/activity?direction=up", 422)
        number = ask(c, "GET", REPO + "/pulls?state=closed")[0]["number"]
        told = ask(c, "GET", f"{REPO}/issues/{number}/events")
        assert [e["event"] for e in told] == ["review_dismissed", "merged", "closed"]
        assert ask(c, "GET", f"{REPO}/issues/events/{told[0]['id']}")["issue"]["number"] == number


def test_every_route_answers_as_github_describes_it(world: World) -> None:
    for part in (people, repositories, files_and_git, checks, talk, pull_requests, deployments, actions, what_happened):
        part(world)
    test_settings.tour(world)
    assert ENDPOINTS - world.recorder.seen == set()


def test_the_recorder_would_notice_a_wrong_answer() -> None:
    assert "is no FullRepository" in check("GET", "/repos/{owner}/{repo}", 200, b'{"id": 1}')
    assert check("GET", "/repos/{owner}/{repo}", 404, b'{"message": "Not Found"}') == ""


def test_pages_link_to_each_other(world: World) -> None:
    repo = world.repo("alice")
    for number in range(5):
        repo.create_issue(f"Issue {number}")
    with world.http("alice") as client:
        answer = client.get(REPO + "/issues?per_page=2&page=2&state=open")
        assert [i["title"] for i in answer.json()] == ["Issue 2", "Issue 1"]
        assert {rel: "page=" in link["url"] for rel, link in answer.links.items()} == dict.fromkeys(
            ("prev", "first", "next", "last"), True
        )
        assert client.get(answer.links["next"]["url"]).json()[0]["title"] == "Issue 0"
    assert len(list(repo.get_issues())) == 5
