"""Promotion pull requests and what the default branch may ask for: a real forge, real git, a real MLflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mlp_ci.cli import run
from mlp_ci.errors import GateError, InputError, NotApproved, NothingToDo
from mlp_ci.github import PullFact, platform_of
from mlp_ci.promote import Verdict, Wish, promote, propose, record_rollback, verify_intent
from mlp_ci.report import Outcome
from mlp_ci.sandbox.forge import protection
from mlp_ci.sandbox.forge.objects import Person
from mlp_ci.spec import Quarantined, parse_promotion
from tests.conftest import free_port
from tests.promotion import DIGESTS, MODEL, World, entry, promotion, register_versions, running_world, world_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from mlp_ci.tracking import Tracking

SINCE = datetime(2013, 8, 1, tzinfo=UTC)


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return register_versions(mlflow_server)


@pytest.fixture
def world(tmp_path: Path, tracking: Tracking) -> Iterator[World]:
    with running_world(tmp_path, tracking_uri=tracking.uri) as running:
        yield running


def held(version: int, reason: str = "late") -> Quarantined:
    return Quarantined(version=version, digest=DIGESTS[version], reason=reason, since=SINCE)


def verdict(world: World, tracking: Tracking, stage: str) -> Verdict:
    ctx = world.ctx()
    return verify_intent(ctx, world.hub(), tracking, platform_of(ctx), stage)


def failed(found: Verdict) -> set[str]:
    return {r.check for r in found.reasons if r.outcome is Outcome.FAIL}


def text_of(found: Verdict) -> str:
    return "\n".join(f"{r.message} → {r.fix}" for r in found.reasons if r.outcome is Outcome.FAIL)


def put(world: World, stage: str, version: int, *, method: str = "merge") -> int:
    """Promote as a team does: alice asks, bob approves, alice merges."""
    now = world.hub().read_file("promotion.yaml", "main") or b""
    stages = {s: e.version for s, e in parse_promotion(now).stages.items()}
    quarantine = parse_promotion(now).quarantine
    content = promotion(quarantine, **{**stages, stage: version})
    number = world.open("alice", {"promotion.yaml": content}, f"to-{stage}-{version}-{world.main()[:6]}")
    world.review("bob", number)
    world.merge("alice", number, method)
    return number


# ---------------------------------------------------------------- asking


def test_register_asks_for_the_first_stage_once(world: World, tracking: Tracking) -> None:
    ctx, hub = world.ctx(), world.hub()
    platform = platform_of(ctx)
    first = propose(ctx, hub, tracking, platform, Wish(stage="staging", version=tracking.version(MODEL, 1)))
    again = propose(ctx, hub, tracking, platform, Wish(stage="staging", version=tracking.version(MODEL, 1)))
    assert (first.created, again.created, again.changed, again.number) == (True, False, False, first.number)
    pull = hub.pull(first.number)
    assert (pull.title, pull.head_ref) == (f"Promote {MODEL} 1 to staging", "mlp-ci/promote-staging")
    assert pull.files == ("promotion.yaml",)
    assert "roc_auc at least 0.7" in pull.body
    assert "0.7 to 0.72" in pull.body
    assert "no approval: tier standard asks for none in staging" in pull.body
    assert DIGESTS[1] in pull.body
    newer = propose(ctx, hub, tracking, platform, Wish(stage="staging", version=tracking.version(MODEL, 2)))
    assert newer.number == first.number
    assert hub.pull(newer.number).title == f"Promote {MODEL} 2 to staging"
    assert parse_promotion(hub.read_file("promotion.yaml", newer.sha) or b"").stages["staging"].same(entry(2))


def test_production_takes_what_staging_has_and_shows_the_difference(world: World) -> None:
    put(world, "staging", 1)
    put(world, "production", 1)
    put(world, "staging", 2)
    report = promote(world.ctx("alice"), "production", None)
    pull = world.hub().pull(int(report.outputs["pull-request"]))
    assert report.outputs["version"] == "2"
    assert pull.author == "alice"
    spec = parse_promotion(world.hub().read_file("promotion.yaml", pull.head_sha) or b"")
    assert all(spec.stages[stage].same(entry(2)) for stage in ("staging", "production"))
    assert "What differs from version 1" in pull.body
    assert "Evidence on 1,234 held-out rows" in pull.body
    assert "| version 1, same rows | change |" in pull.body
    assert "| roc_auc | 0.72 | 0.71 to 0.73 | 0.69 | +0.03 |" in pull.body
    assert "parameter `rate`: 0.1 → 0.2" in pull.body
    assert "data/train.parquet" in pull.body
    assert "1 approval (tier standard, production)" in pull.body
    assert "already open and up to date" in promote(world.ctx("alice"), "production", None).headline


def test_another_stage_merged_meanwhile_is_kept(world: World) -> None:
    put(world, "staging", 1)
    opened = promote(world.ctx("alice"), "production", None)
    put(world, "staging", 2)
    promote(world.ctx("alice"), "production", None)
    pull = world.hub().pull(int(opened.outputs["pull-request"]))
    spec = parse_promotion(world.hub().read_file("promotion.yaml", pull.head_sha) or b"")
    assert all(spec.stages[stage].same(entry(2)) for stage in ("staging", "production"))


def test_what_can_never_be_promoted_is_refused_before_a_pull_request(world: World) -> None:
    put(world, "staging", 1)
    for stage, version, error, says in [
        ("staging", 1, NothingToDo, "already has"),
        ("staging", 4, GateError, "did not pass its gate"),
        ("staging", 99, InputError, "99"),
        ("canary", 1, InputError, "there is no stage 'canary'"),
        ("staging", None, InputError, "first stage"),
        ("production", 2, NotApproved, "production only takes what staging has"),
    ]:
        with pytest.raises(error, match=says):
            promote(world.ctx("alice"), stage, version)
    assert world.hub().pulls_of_branch("mlp-ci/promote-staging") == []
    world.push("alice", {"promotion.yaml": promotion((held(2, "too slow"),), staging=1)})
    with pytest.raises(NotApproved, match="quarantined since 2013-08-01: too slow"):
        promote(world.ctx("alice"), "staging", 2)


# ---------------------------------------------------------------- what the default branch may ask for


@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
def test_an_approved_merge_is_allowed_however_it_was_merged(world: World, tracking: Tracking, method: str) -> None:
    put(world, "staging", 1, method=method)
    number = put(world, "production", 1, method=method)
    found = verdict(world, tracking, "production")
    assert found.allowed, text_of(found)
    assert (found.entry, found.pull, found.approvers) == (entry(1), number, ("bob",))
    assert found.commit == world.main()


def test_later_commits_that_do_not_promote_change_nothing(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    number = put(world, "production", 1)
    commit = world.main()
    put(world, "staging", 2, method="squash")
    world.push("alice", {"train.py": b"print(2)\n"})
    other = world.open("alice", {"notes.md": b"x\n"}, "notes")
    world.merge("alice", other)
    found = verdict(world, tracking, "production")
    assert found.allowed, text_of(found)
    assert (found.pull, found.commit, found.entry) == (number, commit, entry(1))


def test_nothing_promoted_yet_is_no_fault(world: World, tracking: Tracking) -> None:
    found = verdict(world, tracking, "production")
    assert found.allowed
    assert found.entry is None


def test_a_direct_push_is_refused_by_name(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    sha = world.push("alice", {"promotion.yaml": promotion(staging=1, production=1)}, "Just this once")
    world.push("bob", {"train.py": b"print(2)\n"})
    found = verdict(world, tracking, "production")
    assert failed(found) == {"pull-request"}
    assert found.commit == sha
    assert f"{sha[:12]} by alice asks for version 1 in production without a merged pull request" in text_of(found)
    assert f"git revert {sha[:12]}" in text_of(found)
    assert "mlp-ci promote production --version 1" in text_of(found)
    assert verdict(world, tracking, "staging").allowed
    # The way out that the message names works.
    world.push("alice", {"promotion.yaml": promotion(staging=1)}, "Revert")
    put(world, "production", 1)
    assert verdict(world, tracking, "production").allowed


def test_merged_without_enough_approval_is_refused(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    number = world.open("alice", {"promotion.yaml": promotion(staging=1, production=1)}, "topic")
    world.merge("alice", number)
    assert failed(verdict(world, tracking, "production")) == {"approvals"}
    # An approval after the merge is of the merged head, and is what was missing.
    world.review("bob", number)
    assert verdict(world, tracking, "production").allowed


def test_an_approval_before_the_last_push_is_refused(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    number = world.open("alice", {"promotion.yaml": promotion(staging=1) + b"# soon\n"}, "topic")
    world.review("bob", number)
    world.push("alice", {"promotion.yaml": promotion(staging=1, production=1)}, branch="topic")
    world.merge("alice", number)
    assert failed(verdict(world, tracking, "production")) == {"approvals"}


def test_a_promotion_hidden_in_a_larger_pull_request_is_refused(world: World, tracking: Tracking) -> None:
    files = {"promotion.yaml": promotion(staging=1), "train.py": b"print(3)\n"}
    number = world.open("alice", files, "topic")
    world.review("bob", number)
    world.merge("alice", number)
    assert failed(verdict(world, tracking, "staging")) == {"one-file"}


def test_a_digest_that_the_registry_does_not_have_is_refused(world: World, tracking: Tracking) -> None:
    other = promotion(staging=1).replace(DIGESTS[1].encode(), DIGESTS[9].encode())
    number = world.open("alice", {"promotion.yaml": other}, "topic")
    world.review("bob", number)
    world.merge("alice", number)
    assert failed(verdict(world, tracking, "staging")) == {"digest"}


def test_staging_reached_by_a_push_does_not_open_production(world: World, tracking: Tracking) -> None:
    world.push("alice", {"promotion.yaml": promotion(staging=1)})
    put(world, "production", 1)
    assert failed(verdict(world, tracking, "production")) == {"stage-order"}


def crafted_merge(world: World, parents: tuple[str, str], content: bytes) -> str:
    """A merge commit made by hand with this promotion.yaml, pushed to main by alice."""
    git, repo = world.forge.git, world.repo
    blob = git.write_blob(repo, content)
    tree = git.write_tree(repo, world.main(), {"promotion.yaml": ("100644", blob)})
    who = Person("Alice Ash", "alice@acme.test")
    sha = git.commit_tree(repo, tree, list(parents), "Merge", (who, who))
    world.hub("alice").trees.point("main", sha, force=False)
    return sha


def test_a_pushed_merge_that_brings_an_old_promotion_back_is_refused(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    put(world, "production", 1)
    old = world.main()
    put(world, "staging", 2)
    put(world, "production", 2)
    new = world.main()
    content = promotion(staging=2, production=1)
    for parents in ((old, new), (new, old)):
        sha = crafted_merge(world, parents, content)
        found = verdict(world, tracking, "production")
        assert failed(found) == {"pull-request"}, parents
        assert found.commit == sha
        world.hub("alice").trees.point("main", new, force=True)


def test_a_pull_that_merged_locally_is_harmless(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    before = world.main()
    world.ensure_branch("mine")
    mine = world.push("alice", {"train.py": b"print(4)\n"}, branch="mine")
    number = put(world, "production", 1)
    assert before != world.main()
    crafted_merge(world, (mine, world.main()), promotion(staging=1, production=1))
    found = verdict(world, tracking, "production")
    assert found.allowed, text_of(found)
    assert found.pull == number


def test_a_later_quarantine_counts(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    world.push("alice", {"promotion.yaml": promotion((held(1),), staging=1)})
    assert failed(verdict(world, tracking, "staging")) == {"quarantine"}


# ---------------------------------------------------------------- rolling back


def two_versions(world: World) -> None:
    for version in (1, 2):
        put(world, "staging", version)
        put(world, "production", version)


def test_a_rollback_is_recorded_once_and_needs_no_approval(world: World, tracking: Tracking) -> None:
    two_versions(world)
    sha = record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2, "July is too calm"))
    assert sha == world.main()
    assert record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2, "again")) == sha
    now = parse_promotion(world.hub().read_file("promotion.yaml", "main") or b"")
    assert now.stages == {"staging": entry(2), "production": entry(1)}
    assert [(q.version, q.reason) for q in now.quarantine] == [(2, "July is too calm")]
    commit = world.hub().commit(str(sha))
    assert commit.message.splitlines()[0] == f"Roll back production of {MODEL} to version 1"
    assert "July is too calm" in commit.message
    found = verdict(world, tracking, "production")
    assert found.allowed, text_of(found)
    assert found.entry == entry(1)
    with pytest.raises(NotApproved, match="quarantined"):
        promote(world.ctx("alice"), "production", 2)


def test_what_only_looks_like_a_rollback_is_refused(world: World, tracking: Tracking) -> None:
    two_versions(world)
    put(world, "staging", 3)
    # Never live in production.
    world.push("alice", {"promotion.yaml": promotion((held(2),), staging=3, production=3)})
    assert failed(verdict(world, tracking, "production")) == {"rollback"}
    # Back, but without the quarantine.
    world.push("alice", {"promotion.yaml": promotion(staging=3, production=1)})
    assert failed(verdict(world, tracking, "production")) == {"pull-request"}


def test_a_rollback_that_carries_more_is_refused(world: World, tracking: Tracking) -> None:
    two_versions(world)
    files = {"promotion.yaml": promotion((held(2),), staging=2, production=1), "train.py": b"print(9)\n"}
    world.push("alice", files)
    assert failed(verdict(world, tracking, "production")) == {"one-file"}


def test_a_rollback_to_what_was_itself_not_approved_is_refused(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    world.push("alice", {"promotion.yaml": promotion(staging=1, production=1)})
    put(world, "staging", 2)
    put(world, "production", 2)
    record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2))
    assert "rollback" in failed(verdict(world, tracking, "production"))


def test_a_protected_branch_gets_the_rollback_as_a_pull_request(tmp_path: Path, tracking: Tracking) -> None:
    seeded = world_seed(stages=promotion(staging=2, production=2).decode())
    with running_world(tmp_path, seeded, tracking.uri) as world:
        protection.protect(world.forge, world.repo, "main", block_pushes=True, enforce_admins=True)
        fact = record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2, "slow @everyone"))
        again = record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2, "slow @everyone"))
        assert isinstance(fact, PullFact)
        assert isinstance(again, PullFact)
        assert again.number == fact.number
        pull = world.hub().pull(fact.number)
        assert "needs no approval" in pull.body
        assert pull.files == ("promotion.yaml",)


def test_a_promotion_merged_meanwhile_is_not_undone_unseen(world: World) -> None:
    two_versions(world)
    put(world, "staging", 3)
    put(world, "production", 3)
    with pytest.raises(InputError, match="asks for version 3 in production by now"):
        record_rollback(world.ctx(), world.hub(), "production", entry(1), held(2))


# ---------------------------------------------------------------- from the command line


def test_the_command_line_tells_outcomes_apart(
    world: World,
    cli: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = world.place("alice")
    env = {
        "GITHUB_TOKEN": place.token,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_REPOSITORY": place.full_name,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
    }
    dead = f"http://127.0.0.1:{free_port()}"
    put(world, "staging", 1)
    for arguments, changes, code, says in [
        (["staging", "--version", "2"], {}, 0, "pull request #2 is opened"),
        (["staging", "--version", "2"], {}, 0, "already open and up to date"),
        (["production"], {}, 0, "pull request #3 is opened"),
        (["staging", "--version", "1"], {}, 4, "staging already has"),
        (["staging", "--version", "4"], {}, 3, "did not pass its gate"),
        (["staging", "--version", "99"], {}, 2, "99"),
        (["stagin", "--version", "1"], {}, 2, "there is no stage 'stagin'"),
        (["production", "--version", "2"], {}, 5, "mlp-ci promote staging --version 2"),
        (["staging", "--version", "2"], {"GITHUB_TOKEN": ""}, 2, "set GITHUB_TOKEN"),
        (["staging", "--version", "2"], {"GITHUB_TOKEN": "nonsense"}, 2, "does not accept the token"),
        (["staging", "--version", "3"], {"GITHUB_TOKEN": "dave-token"}, 2, "contents: write"),
        (["staging", "--version", "2"], {"GITHUB_API_URL": f"{dead}/api/v3"}, 7, "connection was refused"),
        (["staging", "--version", "2"], {"MLFLOW_TRACKING_URI": dead}, 7, "cannot be reached"),
    ]:
        for name, value in {**env, **changes}.items():
            monkeypatch.setenv(name, value)
        assert run(["promote", *arguments, "--path", str(tmp_path)]) == code, arguments
        said = "".join(capsys.readouterr())
        assert says in said
        assert "Traceback" not in said
        assert "nonsense" not in said
    done = cli("promote", "production", "--path", tmp_path, "--format", "json", **env)
    assert json.loads(done.stdout)["outputs"] == {"version": "1", "pull-request": "3"}


def test_verifying_stays_cheap_as_history_grows(world: World, tracking: Tracking) -> None:
    put(world, "staging", 1)
    put(world, "production", 1)
    for i in range(30):
        world.push("alice", {"notes.md": f"{i}\n".encode()}, f"Note {i}")
    world.faults.requests.clear()
    assert verdict(world, tracking, "production").allowed
    assert len(world.faults.requests) <= 50
