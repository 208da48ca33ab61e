"""Reviews: who may give one, on what, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.sandbox.forge import events, runs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"


@pytest.fixture
def folder(world: World) -> Path:
    """Alice's clone, from whose branch she has opened pull request 1."""
    made = world.clone("alice")
    world.commit(made, {"a.txt": "1\n"}, "A", "topic")
    world.push(made)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    return made


def review(world: World, login: str, **body: Any) -> tuple[int, str]:
    with world.http(login) as client:
        answer = client.post(f"{REPO}/pulls/1/reviews", json=body)
        data = answer.json()
        return answer.status_code, data.get("state") or "; ".join(data.get("errors", [])) or data["message"]


@pytest.mark.parametrize("state", ["closed", "merged"])
def test_a_pull_request_that_is_over_can_still_be_reviewed(world: World, folder: Path, state: str) -> None:
    pull = world.repo("carol").get_pull(1)
    if state == "merged":
        pull.merge()
    else:
        pull.edit(state="closed")
    assert review(world, "bob", event="APPROVE") == (200, "APPROVED")
    assert review(world, "carol", event="REQUEST_CHANGES", body="too late") == (200, "CHANGES_REQUESTED")
    assert review(world, "alice", event="APPROVE") == (422, "Can not approve your own pull request")
    given = list(pull.get_reviews())
    assert [r.commit_id for r in given] == [pull.head.sha] * 2
    assert given[0].dismiss("after all") is None
    assert [r.state for r in pull.get_reviews()] == ["DISMISSED", "CHANGES_REQUESTED"]


def test_only_a_commit_of_the_pull_request_can_be_reviewed(world: World, folder: Path) -> None:
    old = world.git(folder, "rev-parse", "HEAD").stdout.strip()
    base = world.git(folder, "rev-parse", "HEAD~1").stdout.strip()
    new = world.commit(folder, {"a.txt": "2\n"})
    other = "The commitOID is not part of the pull request"
    assert review(world, "bob", event="APPROVE", commit_id=new) == (422, other), "it is not pushed yet"
    world.push(folder)
    for sha in (new, old):
        assert review(world, "bob", event="APPROVE", commit_id=sha) == (200, "APPROVED")
    for sha in (base, "0" * 40, "main"):
        assert review(world, "bob", event="APPROVE", commit_id=sha) == (422, other)


def test_readers_may_review_and_not_dismiss_and_outsiders_neither(world: World, folder: Path) -> None:
    assert review(world, "dave", event="APPROVE") == (200, "APPROVED")
    assert review(world, "eve", event="APPROVE")[0] == 404
    assert review(world, "mlp-ci[bot]", event="APPROVE") == (200, "APPROVED")
    own = next(iter(world.repo("dave").get_pull(1).get_reviews()))
    with world.http("dave") as client:
        assert client.put(f"{REPO}/pulls/1/reviews/{own.id}/dismissals", json={"message": "m"}).status_code == 403


def test_a_run_approves_only_where_the_repository_lets_it(world: World, folder: Path) -> None:
    event = events.take_events(world.forge.store)[-1]
    run = runs.create_run(world.forge, event, ".github/workflows/ci.yml", "CI")
    world.tokens["run"] = runs.mint_run_token(world.forge, run, {"pull-requests": "read"})
    assert review(world, "run", event="APPROVE")[0] == 403
    world.tokens["run"] = runs.mint_run_token(world.forge, run, {"pull-requests": "write"})
    refusal = "GitHub Actions is not permitted to approve pull requests."
    assert review(world, "run", event="APPROVE") == (422, refusal)
    assert review(world, "run", event="COMMENT", body="hm") == (200, "COMMENTED")
    with world.http("carol") as carol:
        body = {"can_approve_pull_request_reviews": True}
        assert carol.put(f"{REPO}/actions/permissions/workflow", json=body).status_code == 204
    assert review(world, "run", event="APPROVE") == (200, "APPROVED")


def test_instants_are_the_servers_whatever_the_client_says(world: World, folder: Path) -> None:
    past = "2001-01-01T00:00:00Z"
    assert review(world, "bob", event="APPROVE", submitted_at=past)[0] == 200
    with world.http("carol") as carol:
        carol.patch(f"{REPO}/pulls/1", json={"title": "T", "created_at": past, "merged_at": past})
        made = carol.post(f"{REPO}/deployments", json={"ref": "main", "created_at": past}).json()
        assert carol.put(f"{REPO}/pulls/1/merge").status_code == 200
        pull = carol.get(f"{REPO}/pulls/1").json()
        given = carol.get(f"{REPO}/pulls/1/reviews").json()
        moves = carol.get(f"{REPO}/activity").json()
    assert pull["merged_by"]["login"] == "carol"
    instants = [pull["created_at"], pull["merged_at"], made["created_at"], given[0]["submitted_at"]]
    assert past not in [*instants, *(move["timestamp"] for move in moves)]
    assert pull["created_at"] <= given[0]["submitted_at"] <= pull["merged_at"]


def test_a_pull_request_follows_its_base_branch_where_that_was_merged(world: World, folder: Path) -> None:
    world.commit(folder, {"b.txt": "1\n"}, "B", "second")
    world.push(folder)
    world.repo("alice").create_pull(title="Second", body="", head="second", base="topic")
    with world.http("carol") as carol:
        assert carol.patch(REPO, json={"delete_branch_on_merge": True}).status_code == 200
        assert carol.put(f"{REPO}/pulls/1/merge").status_code == 200
        second = carol.get(f"{REPO}/pulls/2").json()
        told = carol.get(f"{REPO}/issues/2/events").json()
    assert (second["state"], second["base"]["ref"], second["mergeable"]) == ("open", "main", True)
    assert [(e["event"], e["actor"]["login"]) for e in told] == [("automatic_base_change_succeeded", "carol")]
