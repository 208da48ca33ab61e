"""What GitHub's servers recorded: pushes, dismissals, co-authors, the policy of the past, merges not shown yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.github import BUILT_IN, GitHubError, policy_at
from tests.promotion import MODEL, World, promotion, running_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BRANCH = "mlp-ci/promote-staging"
REPO = f"/repos/acme/{MODEL}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as running:
        yield running


def send(world: World, login: str, verb: str, path: str, **body: Any) -> Any:
    return world.hub(login).wire.send(verb, REPO + path, "act", body)


# ---------------------------------------------------------------- the history of a pull request


def test_who_pushed_is_known_whoever_the_commits_name(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    world.push("bob", {"notes.md": b"x\n"}, branch=BRANCH)
    world.push("carol", {"other.md": b"x\n"})  # to main: no part of the pull request
    past = world.hub().pull_history(world.hub().pull(number))
    assert set(past.pushers) == {"alice", "bob"}
    assert past.push_known
    assert (past.dismissals, past.restarted, past.co_authors, past.unresolved) == ((), "", {}, ())


def test_a_merged_branch_that_is_gone_still_has_its_record(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    world.merge("bob", number)
    world.hub("carol").wire.once("DELETE", f"{REPO}/git/refs/heads/{BRANCH}", "delete")
    pull = world.hub().pull(number)
    past = world.hub().pull_history(pull)
    assert (past.pushers, past.push_known) == (("alice",), True)
    assert pull.created_at <= pull.merged_at != ""


@pytest.mark.parametrize("status", [403, 404, 422])
def test_a_record_out_of_reach_is_said_to_be_unknown(world: World, status: int) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    world.faults.fail("/activity", status)
    past = world.hub().pull_history(world.hub().pull(number))
    assert (past.pushers, past.push_known) == ((), False)
    gone = replace(world.hub().pull(number), head_repo="")  # the fork was deleted
    assert not world.hub().pull_history(gone).push_known


def test_dismissals_and_restarts_are_told_with_who_and_when(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    asked = world.review("bob", number, "REQUEST_CHANGES")
    given = world.review("bob", number, "APPROVE")
    for review in (asked, given):
        send(world, "carol", "PUT", f"/pulls/{number}/reviews/{review.id}/dismissals", message="no", event="DISMISS")
    send(world, "alice", "PATCH", f"/pulls/{number}", state="closed")
    send(world, "alice", "PATCH", f"/pulls/{number}", state="open")
    past = world.hub().pull_history(world.hub().pull(number))
    told = [(d.review, d.was, d.by, d.by_bot) for d in past.dismissals]
    assert told == [(asked.id, "CHANGES_REQUESTED", "carol", False), (given.id, "APPROVED", "carol", False)]
    assert past.restarted >= past.dismissals[0].at > ""


def test_another_base_is_a_restart(world: World) -> None:
    world.ensure_branch("release")
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    send(world, "alice", "PATCH", f"/pulls/{number}", base="release")
    assert world.hub().pull_history(world.hub().pull(number)).restarted


def message(*trailers: str) -> str:
    return "Promote\n\nBecause.\n\n" + "\n".join(trailers) + "\n"


@pytest.mark.parametrize("word", ["Co-authored-by", "co-authored-by", "CO-AUTHORED-BY"])
def test_co_authors_are_found_by_their_address(world: World, word: str) -> None:
    said = message(f"{word}: Robert <bob@acme.test>", f"{word}: Nobody <nobody@elsewhere.test>")
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH, said)
    pull = world.hub().pull(number)
    past = world.hub().pull_history(pull)
    assert set(past.co_authors[pull.head_sha]) == {"alice", "bob"}
    assert past.unresolved == (f"{pull.head_sha[:12]}: Nobody <nobody@elsewhere.test>",)


def test_an_app_as_co_author_is_no_stranger(world: World) -> None:
    said = message("Co-authored-by: helper[bot] <4711+helper[bot]@users.noreply.github.com>")
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH, said)
    pull = world.hub().pull(number)
    past = world.hub().pull_history(pull)
    assert "helper[bot]" in past.co_authors[pull.head_sha]
    assert past.unresolved == ()


def test_a_trailer_that_github_does_not_list_is_not_ignored(world: World) -> None:
    said = "Promote\n\nCo-authored-by: Mallory <mallory@elsewhere.test>\n\nAnd this ends it.\n"
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH, said)
    past = world.hub().pull_history(world.hub().pull(number))
    assert [who.partition(": ")[2] for who in past.unresolved] == ["Mallory <mallory@elsewhere.test>"]


def test_nobody_hides_behind_a_hundred_others(world: World) -> None:
    crowd = [f"Co-authored-by: Helper <{n}+helper-{n}[bot]@users.noreply.github.com>" for n in range(100)]
    said = message(*crowd, "Co-authored-by: Robert <bob@acme.test>")
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH, said)
    past = world.hub().pull_history(world.hub().pull(number))
    assert [who.partition(": ")[2] for who in past.unresolved] == [
        "Robert <bob@acme.test>",
        "names more authors than GitHub lists",
    ]


def test_without_trailers_graphql_is_not_asked(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    world.hub().pull_history(world.hub().pull(number))
    assert not [r for r in world.faults.requests if "graphql" in r]


# ---------------------------------------------------------------- the policy of the past


def policy_text(*stages: str) -> bytes:
    names = ", ".join(f"{{name: {s}}}" for s in stages)
    counts = ", ".join(f"{s}: 0" for s in stages)
    return f"apiVersion: mlp-ci/v1\nstages: [{names}]\ntiers: {{standard: {{approvals: {{{counts}}}}}}}\n".encode()


def change_policy(world: World, text: bytes, date: str = "") -> str:
    """A push to ``.github``, whose commit may carry any date."""
    hub = world.hub("carol").of(".github")
    root = "/repos/acme/.github/git"
    parent = hub.head("main")
    commit = hub.trees.commit(parent, {"platform.yaml": text}, "Change the policy")
    if date:
        tree = hub.wire.get(f"{root}/commits/{commit}", "read")["tree"]["sha"]
        who = {"name": "Carol Cedar", "email": "carol@acme.test", "date": date}
        body = {"message": "Change", "tree": tree, "parents": [parent], "author": who, "committer": who}
        commit = str(hub.wire.send("POST", f"{root}/commits", "commit", body)["sha"])
    hub.trees.point("main", commit, force=False)
    return commit


def test_the_policy_of_an_instant_is_what_was_pushed_by_then(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clock"
    monkeypatch.setenv(clock.ENV, str(file))
    start = datetime(2027, 3, 1, tzinfo=UTC)
    changes = []
    for day, stages in enumerate([("one",), ("one", "two"), ("one", "two", "three")]):
        clock.set_instant(file, start + timedelta(days=day))
        changes.append(change_policy(world, policy_text(*stages)))
    clock.set_instant(file, start + timedelta(days=9))
    # Pushed today, but dated long ago: it does not change what held then.
    change_policy(world, policy_text("backdated"), date="2027-02-01T00:00:00Z")
    for day in range(3):
        policy = policy_at(world.ctx(), (start + timedelta(days=day, hours=1)).isoformat())
        assert len(policy.spec.stages) == day + 1
        assert policy.commit == changes[day]
        assert policy.source == "acme/.github/platform.yaml"
    now = policy_at(world.ctx(), (start + timedelta(days=10)).isoformat())
    assert now.spec.stage_names() == ("backdated",)


def test_beyond_the_record_the_dates_of_commits_have_to_do(world: World) -> None:
    world.faults.fail("/activity", 404)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert policy_at(world.ctx(), tomorrow).spec.organisation == "acme"
    world.faults.fail("/activity", 404)
    early = policy_at(world.ctx(), "2001-01-01T00:00:00Z")
    assert "there was no acme/.github/platform.yaml" in early.source


def test_a_file_of_ones_own_ignores_the_instant(world: World) -> None:
    policy = policy_at(replace(world.ctx(), platform_file=BUILT_IN), "2001-01-01T00:00:00Z")
    assert policy.spec.stage_names() == ("staging", "production")
    assert world.faults.requests == []


# ---------------------------------------------------------------- where things are


def test_a_commit_is_in_the_history_of_a_branch_or_not(world: World) -> None:
    old = world.main()
    new = world.push("alice", {"a.md": b"a\n"})
    aside = world.push("alice", {"b.md": b"b\n"}, branch="aside")
    hub = world.hub()
    assert [hub.is_ancestor(sha, "main") for sha in (old, new, aside, "0" * 40)] == [True, True, False, False]
    assert hub.is_ancestor(new, "aside")


def test_a_merge_that_is_not_shown_yet_is_waited_for(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    sha = world.merge("bob", number)
    waits: list[float] = []
    hub = world.hub()
    object.__setattr__(hub.wire, "sleep", waits.append)
    assert hub.merged_pull_numbers(sha) == [number]
    assert waits == []
    direct = world.push("alice", {"a.md": b"a\n"})
    assert hub.merged_pull_numbers(direct) == []
    assert waits == []


def test_open_pull_requests_are_listed_to_the_end(world: World) -> None:
    numbers = {world.open("alice", {f"{n}.md": b"x\n"}, f"topic-{n}") for n in range(3)}
    world.merge("bob", min(numbers))
    assert set(world.hub().open_pulls()) == numbers - {min(numbers)}


def test_more_files_than_github_compares_are_found_in_the_trees(world: World) -> None:
    base = world.main()
    files: dict[str, bytes | None] = {f"data/{n % 3}/{n}.csv": b"1\n" for n in range(320)}
    head = world.push("alice", {**files, "train.py": None, "model.yaml/now/a/folder": b"x\n"}, branch="many")
    assert set(world.hub().changed_between(base, head)) == {*files, "train.py", "model.yaml", "model.yaml/now/a/folder"}
    assert set(world.hub().changed_between(base, "many")) == {
        *files,
        "train.py",
        "model.yaml",
        "model.yaml/now/a/folder",
    }


@pytest.mark.parametrize(("who", "team"), [("carol", "no-such-team"), ("app", "growth-ml")])
def test_a_team_that_cannot_be_read_says_what_token_can(world: World, who: str, team: str) -> None:
    if who == "app":
        world.faults.fail("/teams/", 403)
    with pytest.raises(GitHubError) as refused:
        world.hub(who).team_members(team)
    assert refused.value.status in (403, 404)
    assert "members: read" in refused.value.fix
    assert "MLP_CI_TOKEN" in refused.value.fix
    assert "no rule about a team can be verified" in refused.value.why


# ---------------------------------------------------------------- issues


def test_an_issue_is_opened_once_brought_up_to_date_and_closed_once(world: World) -> None:
    hub = world.hub()
    world.faults.fail(f"POST /api/v3{REPO}/issues", 502, done=True)
    number = hub.open_issue("mlp-ci audit", "An alias moved", "champion is 3", ("audit",))
    assert hub.open_issue("mlp-ci audit", "An alias moved", "champion is 3", ("audit",)) == number
    assert hub.open_issue("mlp-ci audit", "Two aliases moved", "champion is 4", ("audit",)) == number
    assert hub.open_issues("mlp-ci audit") == [number]
    found = hub.wire.get(f"{REPO}/issues/{number}", "read")
    assert (found["title"], found["body"].split("\n")[1]) == ("Two aliases moved", "champion is 4")
    assert [label["name"] for label in found["labels"]] == ["audit"]
    for _ in range(2):
        hub.close_issue(number, "All is as git says again.")
    assert hub.wire.get(f"{REPO}/issues/{number}", "read")["state"] == "closed"
    assert len(hub.wire.pages(f"{REPO}/issues/{number}/comments", "read")) == 1
    assert hub.open_issue("mlp-ci audit", "Again", "it moved again") != number


def test_somebody_elses_issue_with_our_marker_is_not_ours(world: World) -> None:
    theirs = send(world, "alice", "POST", "/issues", title="Mine", body="<!-- mlp-ci audit -->\nall is well")["number"]
    assert world.hub().open_issue("mlp-ci audit", "An alias moved", "champion is 3") != theirs


# ---------------------------------------------------------------- nothing twice


def test_a_review_and_a_merge_whose_answers_get_lost_are_done_once(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    hub = world.hub()
    head = hub.pull(number).head_sha
    world.faults.fail(f"POST /api/v3{REPO}/pulls/{number}/reviews", 502, done=True)
    hub.approve(number, head, "fine")
    assert [(r.person, r.state) for r in hub.reviews(number)] == [("mlp-ci[bot]", "APPROVED")]
    world.faults.fail(f"PUT /api/v3{REPO}/pulls/{number}/merge", 502, done=True)
    merged = hub.merge_pull(number, head)
    assert hub.head("main") == merged


def test_two_comments_of_ours_become_one_again(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": promotion(staging=1)}, BRANCH)
    for text in ("one", "two"):
        send(world, "app", "POST", f"/issues/{number}/comments", body=f"<!-- marker -->\n{text}")
    world.hub().sticky_comment(number, "marker", "three")
    comments = world.hub().wire.pages(f"{REPO}/issues/{number}/comments", "read")
    assert [c["body"] for c in comments] == ["<!-- marker -->\nthree"]


def test_what_somebody_pushed_meanwhile_is_not_pushed_away(world: World) -> None:
    hub = world.hub()
    world.ensure_branch(BRANCH)
    ours = hub.trees.commit(hub.head("main"), {"a.md": b"a\n"}, "Ours")
    world.faults.fail(f"PATCH /api/v3{REPO}/git/refs/heads/{BRANCH}", 502, done=True)
    object.__setattr__(hub.wire, "sleep", lambda _: world.push("bob", {"b.md": b"b\n"}, branch=BRANCH))
    object.__setattr__(hub.trees.wire, "sleep", hub.wire.sleep)
    with pytest.raises(OutsideError, match="at the same moment"):
        hub.trees.point(BRANCH, ours, force=True)
    assert hub.read_file("b.md", BRANCH) == b"b\n"
    assert hub.read_file("a.md", BRANCH) == b"a\n"


def test_a_policy_that_was_pushed_away_is_not_taken_for_none(world: World) -> None:
    head = world.hub("carol").of(".github").head("main")
    world.faults.fail(f".github/git/trees/{head}", 404)
    with pytest.raises(InputError, match="is gone, so nobody can say which policy held"):
        policy_at(world.ctx(), (datetime.now(UTC) + timedelta(days=1)).isoformat())
