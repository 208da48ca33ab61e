"""GitHub, against a real forge: what is read, what is written once, what is retried and refused."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.github import BUILT_IN, GitHubError, PullRequest, connect, platform_of, policy_of
from mlp_ci.sandbox.forge.seed import SeedRule
from tests.promotion import MODEL, World, promotion, running_world, world_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlp_ci.github import Hub

BRANCH = "mlp-ci/promote-staging"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as running:
        yield running


def wanted(**changes: object) -> PullRequest:
    plain = PullRequest(
        branch=BRANCH,
        title="Promote flight-delay 1 to staging",
        body="why",
        files={"promotion.yaml": promotion(staging=1)},
        labels=("promotion",),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_pull_request_is_opened_once_and_then_left_alone(world: World) -> None:
    first = world.hub().open_or_update_pull(wanted())
    assert (first.created, first.changed) == (True, True)
    world.faults.requests.clear()
    again = world.hub().open_or_update_pull(wanted())
    assert (again.number, again.created, again.changed, again.sha) == (first.number, False, False, first.sha)
    assert world.faults.writes() == []
    pull = world.hub().pull(first.number)
    assert (pull.author, pull.author_bot, pull.state) == ("mlp-ci[bot]", True, "open")
    assert pull.files == ("promotion.yaml",)
    assert [(c.author, c.committer) for c in pull.commits] == [("mlp-ci[bot]", "mlp-ci[bot]")]
    assert pull.commits[0].bots == {"mlp-ci[bot]"}
    assert pull.head_repo == f"acme/{MODEL}"


def test_new_content_replaces_the_commit_and_a_new_text_keeps_it(world: World) -> None:
    hub = world.hub()
    first = hub.open_or_update_pull(wanted())
    texts = hub.open_or_update_pull(wanted(title="Another title", body="other"))
    assert (texts.number, texts.sha, texts.changed) == (first.number, first.sha, True)
    content = hub.open_or_update_pull(wanted(files={"promotion.yaml": promotion(staging=2)}))
    assert content.number == first.number
    assert content.sha != first.sha
    pull = hub.pull(first.number)
    assert len(pull.commits) == 1
    assert hub.read_file("promotion.yaml", pull.head_sha) == promotion(staging=2)


def test_somebody_elses_file_on_the_branch_is_kept(world: World) -> None:
    hub = world.hub()
    first = hub.open_or_update_pull(wanted())
    world.push("alice", {"notes.md": b"mine\n"}, branch=BRANCH)
    hub.open_or_update_pull(wanted(files={"promotion.yaml": promotion(staging=2)}))
    pull = hub.pull(first.number)
    assert pull.files == ("notes.md", "promotion.yaml")
    assert [c.author for c in pull.commits] == ["mlp-ci[bot]", "alice", "mlp-ci[bot]"]


def test_a_closed_pull_request_is_followed_by_a_new_one(world: World) -> None:
    hub = world.hub()
    first = hub.open_or_update_pull(wanted())
    world.merge("alice", first.number)
    second = hub.open_or_update_pull(wanted(files={"promotion.yaml": promotion(staging=2)}))
    assert second.created
    assert second.number != first.number
    assert hub.pull(second.number).files == ("promotion.yaml",)


def test_several_files_go_into_one_commit(world: World) -> None:
    hub = world.hub()
    files = {"data/train.parquet.dvc": b"outs: []\n", "params.yaml": b"rate: 0.1\n"}
    fact = hub.open_or_update_pull(wanted(branch="mlp-ci/retrain", files=files))
    pull = hub.pull(fact.number)
    assert pull.files == ("data/train.parquet.dvc", "params.yaml")
    assert len(pull.commits) == 1


def test_a_lost_answer_opens_no_second_pull_request(world: World) -> None:
    world.faults.fail(f"POST /api/v3/repos/acme/{MODEL}/pulls", 502, done=True)
    fact = world.hub().open_or_update_pull(wanted())
    assert [p["number"] for p in world.hub().pulls_of_branch(BRANCH, "all")] == [fact.number]


def test_a_lost_answer_writes_no_second_comment(world: World) -> None:
    number = world.hub().open_or_update_pull(wanted()).number
    world.faults.fail(f"issues/{number}/comments", 500)
    world.faults.fail(f"POST /api/v3/repos/acme/{MODEL}/issues/{number}/comments", 502, done=True)
    world.hub().sticky_comment(number, "marker", "first")
    world.hub().sticky_comment(number, "marker", "second")
    comments = world.hub().wire.pages(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")
    assert [c["body"] for c in comments] == ["<!-- marker -->\nsecond"]


@pytest.mark.slow
def test_any_one_answer_may_get_lost(world: World) -> None:
    """Each request of an opening, a comment and a commit in turn is done, but its answer never arrives."""
    expected = {}
    for lost in range(16):
        hub = world.hub()
        branch = f"mlp-ci/{lost}"
        files = {f"{lost}.md": b"x\n"}
        world.faults.lose = lost
        fact = hub.open_or_update_pull(wanted(branch=branch, files=files))
        hub.sticky_comment(fact.number, "marker", "once")
        hub.commit_files("main", lambda _, n=lost: {f"main-{n}.md": b"y\n"}, f"Commit {lost}")  # type: ignore[misc]
        world.faults.lose = None
        expected[branch] = [fact.number]
    assert {b: [p["number"] for p in world.hub().pulls_of_branch(b, "all")] for b in expected} == expected
    for branch, [number] in expected.items():
        pull = world.hub().pull(number)
        assert len(pull.commits) == 1, branch
        assert [label["name"] for label in world.hub().pulls_of_branch(branch)[0]["labels"]] == ["promotion"]
        assert len(world.hub().wire.pages(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")) == 1
    titles = [c.message for c in world.hub().commits("main")]
    assert sorted(t for t in titles if t.startswith("Commit")) == sorted(f"Commit {n}" for n in range(16))


def test_a_comment_of_somebody_else_with_our_marker_is_not_taken_for_ours(world: World) -> None:
    number = world.hub().open_or_update_pull(wanted()).number
    world.hub("alice").wire.send(
        "POST", f"/repos/acme/{MODEL}/issues/{number}/comments", "comment", {"body": "<!-- marker -->\napproved!"}
    )
    world.hub().sticky_comment(number, "marker", "not approved")
    world.hub().sticky_comment(number, "marker", "still not approved")
    comments = world.hub().wire.pages(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")
    assert [(c["user"]["login"], c["body"].split("\n")[1]) for c in comments] == [
        ("alice", "approved!"),
        ("mlp-ci[bot]", "still not approved"),
    ]


def test_faults_that_pass_are_waited_out(world: World) -> None:
    hub = world.hub()
    for status, headers in [(503, {}), (429, {"retry_after": "1"}), (403, {"retry_after": "1"})]:
        world.faults.fail(f"GET /api/v3/repos/acme/{MODEL}/git/blobs", status, **headers)
    start = time.monotonic()
    assert hub.read_file("promotion.yaml", "main") == promotion()
    assert time.monotonic() - start >= 2


def test_the_budget_ends_in_an_outside_error_that_names_the_reason(world: World) -> None:
    world.faults.fail("git/blobs", 500, times=50)
    with pytest.raises(OutsideError, match=r"read promotion.yaml: 500 the server is on fire"):
        world.hub(patience=1).read_file("promotion.yaml", "main")


def test_a_rate_limit_longer_than_the_patience_fails_at_once(world: World) -> None:
    world.faults.fail("git/blobs", 429, retry_after="3600")
    start = time.monotonic()
    with pytest.raises(OutsideError, match="429"):
        world.hub().read_file("promotion.yaml", "main")
    assert time.monotonic() - start < 2


def test_nobody_there_is_said_within_seconds(world: World) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(OutsideError, match="connection was refused"):
        _ = connect(world.place(api_url=f"http://127.0.0.1:{port}/api/v3")).default_branch
    assert time.monotonic() - start < 6


@pytest.mark.parametrize(
    ("who", "act", "status", "says"),
    [
        ("wrong-token", lambda h: h.default_branch, 401, "does not accept the token"),
        ("dave", lambda h: h.set_status(h.head("main"), "success", "x", "y"), 403, "statuses: write"),
        ("dave", lambda h: h.open_or_update_pull(wanted()), 403, "contents: write"),
        ("alice", lambda h: h.of("nowhere").default_branch, 404, "does not exist, or the token may not see it"),
    ],
)
def test_a_refusal_says_what_the_token_lacks(
    world: World, who: str, act: Callable[[Hub], object], status: int, says: str
) -> None:
    with pytest.raises(GitHubError) as refused:
        act(world.hub(who))
    assert refused.value.status == status
    assert says in f"{refused.value.what} {refused.value.fix}"
    assert refused.value.exit_code == InputError.exit_code
    assert "wrong-token" not in str(refused.value.__dict__)


def test_commits_to_a_moving_branch_lose_nothing(world: World) -> None:
    hub = world.hub("carol")
    moved = []

    def make(head: str) -> dict[str, bytes]:
        if len(moved) < 2:  # somebody pushes between our reading and our writing
            moved.append(world.push("alice", {f"note-{len(moved)}.md": b"hello\n"}))
        return {"promotion.yaml": promotion(staging=1)}

    sha, new = hub.commit_files("main", make, "Change")
    assert new
    assert hub.head("main") == sha
    assert hub.read_file("note-1.md", sha) == b"hello\n"
    assert hub.commit_files("main", make, "Change") == (sha, False)


def test_a_protected_branch_refuses_without_harm(tmp_path: Path) -> None:
    rules = (SeedRule(branch="main", block_pushes=True, enforce_admins=True),)
    with running_world(tmp_path, world_seed(rules=rules)) as world:
        before = world.main()
        with pytest.raises(GitHubError):
            world.hub("alice").commit_files("main", lambda _: {"promotion.yaml": promotion(staging=1)}, "Change")
        assert world.main() == before


def test_permissions_reviews_and_teams(world: World) -> None:
    number = world.hub().open_or_update_pull(wanted()).number
    world.review("bob", number, "REQUEST_CHANGES")
    world.review("bob", number, "APPROVE")
    hub = world.hub()
    assert [(r.person, r.state, r.bot) for r in hub.reviews(number)] == [
        ("bob", "CHANGES_REQUESTED", False),
        ("bob", "APPROVED", False),
    ]
    assert {who: hub.permission(who) for who in ("alice", "bob", "carol", "dave", "nobody")} == {
        "alice": "write", "bob": "write", "carol": "admin", "dave": "read", "nobody": "none",
    }  # fmt: skip
    assert world.hub("carol").team_members("growth-ml") == {"alice", "bob"}


def test_who_brought_a_commit(world: World) -> None:
    number = world.hub().open_or_update_pull(wanted()).number
    head = world.hub().pull(number).head_sha
    merge = world.merge("alice", number, "squash")
    hub = world.hub()
    assert hub.pulls_of_commit(head) == [number]
    assert hub.pulls_merged_as(merge) == [number]
    assert (hub.pull(number).state, hub.pull(number).merge_commit_sha) == ("merged", merge)
    assert [c.sha for c in hub.commits_touching("promotion.yaml", "main")][:1] == [merge]


def test_a_status_that_already_says_so_is_not_written_again(world: World) -> None:
    hub, sha = world.hub(), world.main()
    hub.set_status(sha, "pending", "mlp-ci/approvals", "x" * 200)
    hub.set_status(sha, "pending", "mlp-ci/approvals", "x" * 200)
    hub.set_status(sha, "success", "mlp-ci/approvals", "done")
    statuses = hub.wire.pages(f"/repos/acme/{MODEL}/commits/{sha}/statuses", "read")
    assert [(s["state"], len(s["description"])) for s in statuses] == [("success", 4), ("pending", 140)]


def test_a_deployment_is_recorded_once(world: World) -> None:
    hub, sha = world.hub(), world.main()
    world.faults.fail(f"POST /api/v3/repos/acme/{MODEL}/deployments", 502, done=True)
    one = hub.record_deployment(sha, "staging", "http://127.0.0.1:1", {"version": 1})
    assert hub.record_deployment(sha, "staging", "http://127.0.0.1:1", {"version": 1}) == one
    two = hub.record_deployment(sha, "staging", "http://127.0.0.1:1", {"version": 2})
    found = hub.deployments("staging")
    assert next((d.id, d.payload["version"], d.state) for d in found) == (two, 2, "success")
    assert len(found) == 2


@pytest.mark.slow
def test_long_lists_are_read_to_the_end(world: World) -> None:
    for i in range(105):
        world.push("alice", {"notes.md": f"{i}\n".encode()}, f"Note {i}")
    hub = world.hub()
    assert len(hub.commits("main")) > 105
    assert len(hub.commits_touching("notes.md", "main")) == 105


def test_a_folder_in_place_of_a_file_is_refused(world: World) -> None:
    world.push("alice", {"folder/promotion.yaml": b"x"})
    with pytest.raises(InputError, match="not a plain file"):
        world.hub().read_file("folder", "main")
    assert world.hub().read_file("folder/promotion.yaml", "main") == b"x"
    assert world.hub().read_file("folder/other", "main") is None
    assert world.hub().read_file("promotion.yaml/inside", "main") is None


def put(world: World, path: str, mode: str, content: bytes) -> str:
    """Commit one tree entry of any mode to main, as a push can; returns the commit."""
    hub = world.hub("carol")
    root = f"/repos/acme/{MODEL}/git"
    head = hub.head("main")
    kind = "commit" if mode == "160000" else "blob"
    sha = head if kind == "commit" else hub.wire.send("POST", f"{root}/blobs", "", {"content": content.decode()})["sha"]
    base = hub.wire.get(f"{root}/commits/{head}", "")["tree"]["sha"]
    item = {"path": path, "mode": mode, "type": kind, "sha": sha}
    tree = hub.wire.send("POST", f"{root}/trees", "", {"base_tree": base, "tree": [item]})["sha"]
    body = {"message": "Put", "tree": tree, "parents": [head]}
    commit = str(hub.wire.send("POST", f"{root}/commits", "", body)["sha"])
    hub.trees.point("main", commit, force=False)
    return commit


@pytest.mark.parametrize("mode", ["120000", "160000"])
def test_links_and_submodules_are_not_followed(world: World, mode: str) -> None:
    world.push("alice", {"hidden.yaml": promotion(production=1)})
    put(world, "promotion.yaml", mode, b"hidden.yaml")
    hub = world.hub()
    with pytest.raises(InputError, match="not a plain file"):
        hub.read_file("promotion.yaml", "main")
    assert hub.trees.different("main", {"promotion.yaml": b"hidden.yaml"})  # the link's own content is no file's


def test_an_executable_is_a_plain_file(world: World) -> None:
    put(world, "promotion.yaml", "100755", promotion())
    assert world.hub().read_file("promotion.yaml", "main") == promotion()


def test_what_a_hash_names_is_asked_for_once(world: World) -> None:
    hub, sha = world.hub(), world.main()
    world.faults.requests.clear()
    assert hub.read_file("promotion.yaml", sha) == hub.read_file("promotion.yaml", sha)
    hub.read_file("model.yaml", sha)
    assert [r.rpartition("/git/")[2].partition("/")[0] for r in world.faults.requests] == ["trees", "blobs", "blobs"]


def test_the_policy_comes_from_the_organisation(world: World) -> None:
    policy = policy_of(world.ctx())
    assert policy.spec.organisation == "acme"
    assert policy.source == "acme/.github/platform.yaml"
    assert policy.commit == world.hub("carol").of(".github").head("main")


@pytest.fixture
def no_policy(tmp_path: Path) -> Iterator[World]:
    """An organisation without a ``.github`` repository."""
    described = world_seed()
    alone = replace(described, repos=tuple(r for r in described.repos if r.name != ".github"))
    with running_world(tmp_path, alone) as running:
        yield running


def test_a_policy_that_cannot_be_read_is_not_taken_for_none(no_policy: World) -> None:
    with pytest.raises(InputError, match=r"acme/.github cannot be read") as refused:
        policy_of(no_policy.ctx())
    assert "contents: read" in refused.value.fix
    assert "--platform built-in" in refused.value.fix


def test_where_trust_is_no_matter_the_default_holds(no_policy: World) -> None:
    assert platform_of(no_policy.ctx()).stage_names() == ("staging", "production")
    assert policy_of(replace(no_policy.ctx(), github=None)).source == "the built-in default"


def test_the_built_in_policy_can_be_asked_for(no_policy: World) -> None:
    asked = policy_of(replace(no_policy.ctx(), platform_file=BUILT_IN))
    assert asked.spec.stage_names() == ("staging", "production")
    assert "--platform built-in" in asked.source
    assert no_policy.faults.requests == []


def test_a_readable_repository_without_the_file_means_the_default(tmp_path: Path) -> None:
    described = world_seed()
    repos = tuple(replace(r, files={"README.md": b"hello\n"}) if r.name == ".github" else r for r in described.repos)
    with running_world(tmp_path, replace(described, repos=repos)) as world:
        policy = policy_of(world.ctx())
    assert "there is no acme/.github/platform.yaml" in policy.source


def test_a_policy_file_of_ones_own_wins(world: World, tmp_path: Path) -> None:
    file = tmp_path / "platform.yaml"
    file.write_text("apiVersion: mlp-ci/v1\nstages: [{name: only}]\ntiers: {standard: {approvals: {only: 3}}}\n")
    assert platform_of(replace(world.ctx(), platform_file=file)).stage_names() == ("only",)
