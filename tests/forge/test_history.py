"""Who moved which branch and what happened to a pull request, as the server saw it and not as commits tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.sandbox.forge import history, protection
from mlp_ci.sandbox.forge.access import Actor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"


def activity(world: World, **query: str | int) -> list[tuple[str, str, str]]:
    with world.http() as client:
        answer = client.get(REPO + "/activity", params=query)
        assert answer.status_code == 200, answer.text
        return [(a["activity_type"], a["ref"].removeprefix("refs/heads/"), a["actor"]["login"]) for a in answer.json()]


def told(world: World, number: int = 1, login: str = "alice") -> list[dict[str, Any]]:
    with world.http(login) as client:
        answer = client.get(f"{REPO}/issues/{number}/events", params={"per_page": 100})
        assert answer.status_code == 200, answer.text
        return list(answer.json())


def propose(world: World, text: str = "1\n") -> Path:
    folder = world.clone("alice")
    world.commit(folder, {"a.txt": text}, "A", "topic")
    world.push(folder)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    return folder


def test_the_one_who_pushed_is_named_and_not_the_commits_author(world: World) -> None:
    folder = world.clone("bob")
    world.git(folder, "config", "user.name", "Alice Ash")
    world.git(folder, "config", "user.email", "alice@acme.test")
    old = world.git(folder, "rev-parse", "HEAD").stdout.strip()
    new = world.commit(folder, {"a": "1"})
    world.push(folder)
    with world.http("eve") as outsider, world.http("dave") as reader:
        assert outsider.get(REPO + "/activity").status_code == 404
        found = reader.get(REPO + "/activity").json()[0]
    assert (found["actor"]["login"], found["before"], found["after"]) == ("bob", old, new)
    assert world.repo("dave").get_commit(new).author.login == "alice"


def test_every_way_to_move_a_branch_is_recorded(world: World) -> None:
    folder = world.clone("alice")
    tip = world.git(folder, "rev-parse", "HEAD").stdout.strip()
    world.commit(folder, {"a": "1"}, branch="topic")
    world.push(folder)
    world.git(folder, "commit", "-q", "--amend", "-m", "again")
    world.push(folder, "+HEAD")
    world.git(folder, "tag", "v1")
    world.push(folder, "v1")
    bob = world.repo("bob")
    bob.create_git_ref("refs/heads/side", tip)
    bob.create_file("b", "by the contents API", b"1", branch="side")
    bob.get_git_ref("heads/side").edit(tip, force=True)
    bob.get_git_ref("heads/side").delete()
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    world.repo("carol").get_pull(1).merge()
    assert activity(world) == [
        ("pr_merge", "main", "carol"),
        ("branch_deletion", "side", "bob"),
        ("force_push", "side", "bob"),
        ("push", "side", "bob"),
        ("branch_creation", "side", "bob"),
        ("force_push", "topic", "alice"),
        ("branch_creation", "topic", "alice"),
        ("branch_creation", "main", "carol"),
    ]
    assert activity(world, ref="topic") == activity(world, ref="refs/heads/topic", actor="alice")
    assert len(activity(world, actor="bob")) == 4
    assert activity(world, actor="nobody") == []
    assert activity(world, direction="asc")[0] == ("branch_creation", "main", "carol")
    assert [ref for _, ref, _ in activity(world, activity_type="force_push")] == ["side", "topic"]
    assert len(activity(world, time_period="day")) == 8


def test_a_merge_pushed_by_hand_is_a_push_of_whoever_pushed_it(world: World) -> None:
    folder = propose(world)
    world.git(folder, "checkout", "-q", "main")
    world.git(folder, "merge", "-q", "--no-ff", "-m", "Merge pull request #1", "topic")
    world.push(folder)
    assert activity(world, ref="main")[0] == ("push", "main", "alice")
    assert [(e["event"], e["actor"]["login"]) for e in told(world)] == [("merged", "alice"), ("closed", "alice")]


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_activity_is_paged_by_cursors_both_ways(world: World, direction: str) -> None:
    repo = world.repo("alice")
    tip = repo.get_branch("main").commit.sha
    for number in range(4):
        repo.create_git_ref(f"refs/heads/b{number}", tip)
    with world.http() as client:
        everything = [a["id"] for a in client.get(REPO + f"/activity?direction={direction}").json()]
        answer = client.get(REPO + f"/activity?direction={direction}&per_page=2")
        assert "prev" not in answer.links
        pages = [answer]
        while "next" in pages[-1].links:
            pages.append(client.get(pages[-1].links["next"]["url"]))
        assert [a["id"] for page in pages for a in page.json()] == everything
        assert [len(page.json()) for page in pages] == [2, 2, 1]
        back = client.get(pages[-1].links["prev"]["url"])
        assert back.json() == pages[1].json()
        first = client.get(back.links["prev"]["url"])
        assert first.json() == pages[0].json()
        assert "prev" not in first.links
        assert client.get(first.links["next"]["url"]).json() == pages[1].json()
        for bad in ("after=%25%25", "before=eA==", "activity_type=magic", "time_period=never"):
            assert client.get(f"{REPO}/activity?{bad}").status_code == 422


def test_a_dismissal_tells_what_the_review_had_said_and_who_dismissed_it(world: World) -> None:
    propose(world)
    bob = world.repo("bob").get_pull(1)
    no = bob.create_review(event="REQUEST_CHANGES", body="no")
    yes = world.repo("carol").get_pull(1).create_review(event="APPROVE")
    no.dismiss("settled")
    world.repo("alice").get_pull(1).get_review(yes.id).dismiss("not this one")
    with world.http("dave") as reader:
        path = f"{REPO}/pulls/1/reviews/{yes.id}/dismissals"
        assert reader.put(path, json={"message": "mine"}).status_code == 403
    assert [(e["actor"]["login"], e["dismissed_review"]) for e in told(world)] == [
        ("bob", {"state": "changes_requested", "review_id": no.id, "dismissal_message": "settled"}),
        ("alice", {"state": "approved", "review_id": yes.id, "dismissal_message": "not this one"}),
    ]
    assert {r.id: (r.state, r.body) for r in bob.get_reviews()} == {
        no.id: ("DISMISSED", "no"),
        yes.id: ("DISMISSED", ""),
    }


def test_a_push_that_dismisses_is_an_event_of_whoever_pushed(world: World) -> None:
    folder = propose(world)
    protection.protect(world.forge, world.repo_row(), "main", dismiss_stale=True)
    review = world.repo("bob").get_pull(1).create_review(event="APPROVE")
    world.git(folder, "commit", "-q", "--amend", "-m", "again")
    world.push(folder, "+HEAD")
    new = world.git(folder, "rev-parse", "HEAD").stdout.strip()
    events = told(world)
    assert [(e["event"], e["actor"]["login"]) for e in events] == [
        ("head_ref_force_pushed", "alice"),
        ("review_dismissed", "alice"),
    ]
    assert events[0]["commit_id"] == new
    assert events[1]["dismissed_review"] == {
        "state": "approved",
        "review_id": review.id,
        "dismissal_message": None,
        "dismissal_commit_id": new,
    }


def test_closing_renaming_and_another_base_are_told_in_order(world: World) -> None:
    propose(world)
    repo = world.repo("alice")
    repo.create_git_ref("refs/heads/other", repo.get_branch("main").commit.sha)
    pull = repo.get_pull(1)
    pull.edit(state="closed")
    world.repo("bob").get_pull(1).edit(state="open")
    pull.edit(base="other")
    pull.edit(title="New")
    world.repo("mlp-ci[bot]").get_pull(1).edit(base="main")
    events = told(world)
    assert [(e["event"], e["actor"]["login"]) for e in events] == [
        ("closed", "alice"),
        ("reopened", "bob"),
        ("base_ref_changed", "alice"),
        ("renamed", "alice"),
        ("base_ref_changed", "mlp-ci[bot]"),
    ]
    assert events[3]["rename"] == {"from": "T", "to": "New"}
    assert [bool(e["performed_via_github_app"]) for e in events] == [False, False, False, False, True]
    assert [e.event for e in repo.get_issue(1).get_events()] == [e["event"] for e in events]


def test_a_closed_pull_request_takes_what_was_pushed_but_not_what_was_forced(world: World) -> None:
    folder = propose(world)
    pull = world.repo("alice").get_pull(1)
    pull.edit(state="closed")
    new = world.commit(folder, {"a.txt": "2\n"})
    world.push(folder)
    assert world.repo("alice").get_pull(1).head.sha != new, "nobody looks at a closed one"
    pull.edit(state="open")
    assert world.repo("alice").get_pull(1).head.sha == new
    pull.edit(state="closed")
    world.git(folder, "commit", "-q", "--amend", "-m", "again")
    world.push(folder, "+HEAD")
    with world.http() as client:
        said = client.patch(f"{REPO}/pulls/1", json={"state": "open"})
    assert (said.status_code, "force-pushed" in said.text) == (422, True)


def test_events_of_issues_are_paged_beyond_a_hundred(world: World) -> None:
    issue = world.repo("alice").create_issue("I")
    issue.edit(state="closed")
    who = world.forge.store.user("bob")
    assert who
    with world.forge.store.tx():
        for number in range(120):
            rename = {"from": "", "to": str(number)}
            history.note(world.forge, world.repo_row(), Actor(who), issue.id, "renamed", rename=rename)
    assert len(told(world)) == 100
    assert len(list(issue.get_events())) == 121
