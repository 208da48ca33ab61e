"""What a team does all day, through PyGithub and real git."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from github import GithubException

from tests.forge.openapi import event_problem

if TYPE_CHECKING:
    from tests.forge.conftest import World


def test_a_branch_becomes_a_reviewed_and_merged_pull_request(world: World) -> None:
    folder = world.clone("alice")
    first = world.commit(folder, {"train.py": "print(1)\n"}, "Add training", "topic")
    world.push(folder)
    repo = world.repo("alice")
    pull = repo.create_pull(title="Train", body="why", head="topic", base="main")
    assert (pull.number, pull.head.sha, pull.mergeable, pull.user.login) == (1, first, True, "alice")
    assert [f.filename for f in pull.get_files()] == ["train.py"]
    assert next(iter(pull.get_files())).patch == "@@ -0,0 +1 @@\n+print(1)"
    commit = next(iter(pull.get_commits()))
    assert (commit.author.login, commit.commit.message) == ("alice", "Add training")

    with pytest.raises(GithubException) as refused:
        pull.create_review(event="APPROVE")
    assert refused.value.status == 422
    assert refused.value.data["errors"] == ["Can not approve your own pull request"]

    second = world.commit(folder, {"train.py": "print(2)\n"}, "Better")
    world.push(folder)
    assert world.repo("bob").get_pull(1).head.sha == second
    review = world.repo("bob").get_pull(1).create_review(event="APPROVE", body="fine")
    assert (review.state, review.commit_id, review.user.login) == ("APPROVED", second, "bob")

    merged = world.repo("bob").get_pull(1).merge(merge_method="squash")
    assert merged.merged
    done = repo.get_pull(1)
    assert (done.merged, done.state, done.merged_by.login, done.merge_commit_sha) == (True, "closed", "bob", merged.sha)
    assert repo.get_contents("train.py").decoded_content == b"print(2)\n"
    assert [p.number for p in repo.get_commit(second).get_pulls()] == [1]
    assert [p.number for p in repo.get_commit(merged.sha).get_pulls()] == [1]

    said = [(e.event, e.action) for e in world.events()]
    assert said[-7:] == [
        ("push", None),
        ("pull_request", "opened"),
        ("push", None),
        ("pull_request", "synchronize"),
        ("pull_request_review", "submitted"),
        ("push", None),
        ("pull_request", "closed"),
    ]
    problems = [event_problem(e.event, e.action, e.payload) for e in world.events()]
    assert [p for p in problems if p] == []
