"""Pull requests on real git: ways to merge, conflicts, branches that move, rules that hold them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from github import GithubException

from mlp_ci.sandbox.forge import protection, pulls
from mlp_ci.sandbox.forge.access import Actor
from mlp_ci.sandbox.forge.records import Pull

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forge.conftest import World


def propose(world: World, files: dict[str, str], branch: str = "topic", login: str = "alice") -> tuple[Path, Any]:
    """A clone with a pushed branch, and the pull request from it."""
    folder = world.clone(login)
    world.commit(folder, files, f"Work on {branch}", branch)
    world.push(folder)
    return folder, world.repo(login).create_pull(title=f"PR {branch}", body="b", head=branch, base="main")


def refusal(action: Any) -> GithubException:
    with pytest.raises(GithubException) as caught:
        action()
    return caught.value


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
def test_each_way_to_merge_gives_the_history_it_promises(world: World, method: str) -> None:
    folder, pull = propose(world, {"a.txt": "1\n"})
    world.commit(folder, {"b.txt": "2\n"}, "Second")
    world.push(folder)
    other = world.clone("bob")
    world.commit(other, {"c.txt": "3\n"}, "Meanwhile")
    world.push(other)
    sha = world.repo("bob").get_pull(pull.number).merge(merge_method=method).sha
    world.git(folder, "fetch", "-q", "origin")
    assert world.git(folder, "rev-parse", "origin/main").stdout.strip() == sha
    names = set(world.git(folder, "ls-tree", "--name-only", "origin/main").stdout.split())
    assert {"a.txt", "b.txt", "c.txt"} <= names
    parents = world.git(folder, "log", "-1", "--format=%P", sha).stdout.split()
    assert len(parents) == (2 if method == "merge" else 1)
    subjects = world.git(folder, "log", "--format=%s|%an", "origin/main").stdout.splitlines()
    expected = {
        "merge": "Merge pull request #1 from acme/topic|Bob Birch",
        "squash": "PR topic (#1)|Alice Ash",
        "rebase": "Second|alice",
    }
    assert subjects[0] == expected[method]
    head = world.repo("alice").get_commit(sha)
    assert head.author.login == ("bob" if method == "merge" else "alice")
    assert head.committer.login == "web-flow"


def test_a_conflict_cannot_be_merged_and_has_no_merge_ref(world: World) -> None:
    folder, pull = propose(world, {"README.md": "mine\n"})
    refs = world.git(folder, "ls-remote", "origin").stdout
    assert "refs/pull/1/head" in refs
    assert "refs/pull/1/merge" in refs
    other = world.clone("bob")
    world.commit(other, {"README.md": "theirs\n"})
    world.push(other)
    assert "refs/pull/1/merge" not in world.git(folder, "ls-remote", "origin").stdout
    pull = world.repo("alice").get_pull(1)
    assert (pull.mergeable, pull.mergeable_state) == (False, "dirty")
    said = refusal(pull.merge)
    assert (said.status, said.data["message"]) == (405, "Pull Request has merge conflicts")
    world.commit(folder, {"README.md": "theirs too\n"})
    world.push(folder)
    last = world.events("pull_request")[-1]
    assert (last.action, last.sha) == ("synchronize", "")


def test_a_merge_of_an_old_head_is_refused(world: World) -> None:
    folder, pull = propose(world, {"a.txt": "1\n"})
    old = pull.head.sha
    world.commit(folder, {"a.txt": "2\n"})
    world.push(folder)
    assert refusal(lambda: world.repo("bob").get_pull(1).merge(sha=old)).status == 409
    assert not world.repo("bob").get_pull(1).merged


def test_drafts_closing_reopening_and_deleted_branches(world: World) -> None:
    folder = world.clone("alice")
    world.commit(folder, {"a.txt": "1\n"}, "A", "topic")
    world.push(folder)
    repo = world.repo("alice")
    pull = repo.create_pull(title="T", body="", head="topic", base="main", draft=True)
    assert (pull.draft, pull.mergeable_state) == (True, "draft")
    assert refusal(pull.merge).status == 405
    row = world.forge.store.get(Pull, pull.id)
    alice = world.forge.store.user("alice")
    assert alice
    pulls.set_draft(world.forge, world.repo_row(), Actor(alice), row, draft=False)
    assert repo.get_pull(1).mergeable_state == "clean"
    pull.edit(state="closed")
    assert repo.get_pull(1).state == "closed"
    assert [p.number for p in repo.get_pulls(state="open")] == []
    pull.edit(state="open", title="New", body="text")
    assert (repo.get_pull(1).title, repo.get_pull(1).body) == ("New", "text")
    assert [p.number for p in repo.get_pulls(head="acme:topic")] == [1]
    assert [p.number for p in repo.get_pulls(head="acme:other")] == []
    assert refusal(lambda: repo.create_pull(title="T", body="", head="topic", base="main")).status == 422
    world.push(folder, ":topic")
    assert repo.get_pull(1).state == "closed"
    assert refusal(lambda: repo.get_pull(1).edit(state="open")).status == 422
    actions = [e.action for e in world.events("pull_request")]
    assert actions == ["opened", "ready_for_review", "closed", "edited", "reopened", "closed"]


def test_a_pushed_merge_marks_the_pull_request_merged(world: World) -> None:
    folder, _ = propose(world, {"a.txt": "1\n"})
    world.git(folder, "checkout", "-q", "main")
    world.git(folder, "merge", "-q", "--no-ff", "-m", "by hand", "topic")
    world.push(folder)
    pull = world.repo("alice").get_pull(1)
    assert (pull.merged, pull.state, pull.merged_by.login) == (True, "closed", "alice")


def test_protection_asks_for_reviews_and_checks_and_bypass_is_for_admins(world: World) -> None:
    folder, pull = propose(world, {"a.txt": "1\n"})
    rules = {"required_checks": ["ci"], "approvals": 1, "dismiss_stale": True}
    protection.protect(world.forge, world.repo_row(), "main", **rules)
    bob = world.repo("bob").get_pull(1)
    assert bob.mergeable_state == "blocked"
    said = refusal(bob.merge).data["message"]
    assert "approving review" in said
    assert '"ci" is expected' in said
    bob.create_review(event="REQUEST_CHANGES", body="no")
    world.repo("carol").get_pull(1).create_review(event="APPROVE")
    world.repo("alice").get_commit(pull.head.sha).create_status("success", context="ci")
    assert "Changes have been requested" in refusal(bob.merge).data["message"]
    own = next(r for r in bob.get_reviews() if r.user.login == "bob")
    own.dismiss("settled")
    assert world.repo("bob").get_pull(1).mergeable_state == "clean"
    world.commit(folder, {"a.txt": "2\n"})
    world.push(folder)
    states = {r.user.login: r.state for r in bob.get_reviews()}
    assert states == {"bob": "DISMISSED", "carol": "DISMISSED"}
    assert refusal(bob.merge).status == 405
    assert world.repo("carol").get_pull(1).merge().merged


def test_an_outsider_can_propose_from_a_fork_only(world: World) -> None:
    fork = world.repo("eve", "acme/open-data").create_fork()
    assert fork.full_name == "eve/open-data"
    folder = world.clone("eve", "eve/open-data")
    sha = world.commit(folder, {"evil.py": "1\n"}, "Mine", "topic")
    world.push(folder)
    upstream = world.repo("eve", "acme/open-data")
    assert refusal(lambda: upstream.create_pull(title="T", body="", head="main", base="main")).status == 403
    pull = upstream.create_pull(title="T", body="", head="eve:topic", base="main")
    assert (pull.head.repo.full_name, pull.head.sha, pull.author_association) == ("eve/open-data", sha, "NONE")
    assert pull.head.repo.fork
    new = world.commit(folder, {"evil.py": "2\n"})
    world.push(folder)
    assert upstream.get_pull(1).head.sha == new
    assert refusal(lambda: upstream.get_pull(1).merge()).status == 403
    assert world.repo("carol", "acme/open-data").get_pull(1).merge().merged
    assert refusal(lambda: upstream.create_pull(title="T", body="", head="eve:nope", base="main")).status == 422


def test_reviewers_can_be_asked_and_a_review_answers(world: World) -> None:
    _, pull = propose(world, {"a.txt": "1\n"})
    pull.create_review_request(reviewers=["bob"], team_reviewers=["platform"])
    users, teams = pull.get_review_requests()
    assert ([u.login for u in users], [t.slug for t in teams]) == (["bob"], ["platform"])
    assert refusal(lambda: pull.create_review_request(reviewers=["alice"])).status == 422
    assert refusal(lambda: pull.create_review_request(reviewers=["eve"])).status == 422
    world.repo("bob").get_pull(1).create_review(event="COMMENT", body="hm")
    pull.delete_review_request(team_reviewers=["platform"])
    users, teams = pull.get_review_requests()
    assert ([*users], [*teams]) == ([], [])


def test_renames_and_deletions_show_in_the_files(world: World) -> None:
    folder = world.clone("alice")
    text = "".join(f"line {n}\n" for n in range(20))
    world.commit(folder, {"old name.txt": text, "gone.txt": "x\n"})
    world.push(folder)
    world.git(folder, "checkout", "-q", "-b", "topic")
    world.git(folder, "mv", "old name.txt", "nëw.txt")
    world.git(folder, "rm", "-q", "gone.txt")
    world.commit(folder, {"nëw.txt": text + "more\n"})
    world.push(folder, "topic")
    pull = world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    files = {f.filename: f for f in pull.get_files()}
    assert files["nëw.txt"].status == "renamed"
    assert files["nëw.txt"].previous_filename == "old name.txt"
    assert files["nëw.txt"].patch.endswith("+more")
    assert (files["gone.txt"].status, files["gone.txt"].deletions) == ("removed", 1)
