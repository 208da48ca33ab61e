"""The record of a deployment: one spelling, a chain, one file a commit, whoever else writes at the same time."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.promote import records
from mlp_ci.promote.records import BRANCH, DeploymentRecord, Draft, append, canonical, digest_of, parse, read
from tests.promotion import DIGESTS, MODEL, World, running_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as running:
        yield running


def draft(version: int = 1, stage: str = "staging", **changes: Any) -> Draft:
    known: dict[str, Any] = {
        "model": MODEL,
        "stage": stage,
        "version": version,
        "digest": DIGESTS[version],
        "evidence": f"sha256:{version:064x}",
        "kind": "promotion",
        "at": AT + timedelta(hours=version),
        "commit": f"{version:040x}",
        "pull": version,
        "asked_by": "alice",
        "approved_by": ("bob",),
        "merged_by": "alice",
        "policy": "acme/.github/platform.yaml at 0123456789ab",
        "run": "https://github.com/acme/m/actions/runs/1",
        "address": "http://127.0.0.1:8000",
    }
    return Draft(**{**known, **changes})


def record(**changes: Any) -> DeploymentRecord:
    return DeploymentRecord(**{**vars(draft()), "number": 1, "previous": "", **changes})


# ---------------------------------------------------------------- the file


def test_a_record_has_one_spelling_and_is_read_back_as_it_was() -> None:
    one = record(asked_by="Ünï \u202e \ud800", address="a\nb", pull=None, approved_by=("bob", "carol"))
    raw = canonical(one)
    assert raw.isascii()
    assert raw.endswith(b"}\n")
    assert raw.count(b"\n") == 1
    assert parse(raw) == one
    assert one.digest_of_record == digest_of(raw)
    assert json.loads(raw)["at"] == "2026-03-01T13:30:05Z"


def test_instants_are_in_utc_and_whole_seconds_and_long_texts_are_cut() -> None:
    made = draft(at=datetime(2026, 3, 1, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2))), policy="x" * 5000)
    assert made.at == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert len(made.policy) == records.LONGEST


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]\n", "fields"),
        (b"[" * 60_000, "no JSON"),
        (b" " * 70_000, "70,000 bytes"),
        (b'{"number":' + b"9" * 5000 + b"}\n", "no JSON"),
        (b"{}\n", "fields"),
        ({"number": True}, "number"),
        ({"number": 0}, "number"),
        ({"version": 2**31}, "version"),
        ({"version": 1.0}, "version"),
        ({"pull": "1"}, "pull"),
        ({"digest": "sha256:" + "G" * 64}, "digest"),
        ({"digest": "sha256:" + "a" * 64 + "\n"}, "digest"),
        ({"evidence": None}, "evidence"),
        ({"previous": "sha1:00"}, "previous"),
        ({"commit": "HEAD"}, "commit"),
        ({"at": "2026-03-01"}, "at"),
        ({"at": "2026-13-01T00:00:00Z"}, "at"),
        ({"kind": "approved"}, "kind"),
        ({"approved_by": "bob"}, "approved_by"),
        ({"approved_by": ["bob", ""]}, "approved_by"),
        ({"approved_by": ["bob"] * 101}, "approved_by"),
        ({"asked_by": "x" * 1001}, "asked_by"),
        ({"stage": ""}, "stage"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_no_record_is_refused_in_words(change: bytes | dict[str, Any], says: str) -> None:
    raw = change if isinstance(change, bytes) else spelled({**record().as_dict(), **change})
    with pytest.raises(ValueError, match=says):
        parse(raw)


def spelled(found: dict[str, Any]) -> bytes:
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    "respell",
    [
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b":", b": ", 1),
        lambda raw: raw.replace(b'{"address"', b'{"address":"x","address"', 1),
        lambda raw: raw.replace(b"alice", b"\\u0061lice", 1),
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: json.dumps(dict(reversed(json.loads(raw).items())), separators=(",", ":")).encode() + b"\n",
    ],
)
def test_another_spelling_of_the_same_record_is_refused(respell: Any) -> None:
    with pytest.raises(ValueError, match="not spelled"):
        parse(respell(canonical(record())))


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("records/000001.json", 1),
        ("records/1000000.json", 1_000_000),
        ("records/1000000000.json", None),
        ("records/000000.json", None),
        ("records/0000001.json", None),
        ("records/1.json", None),
        ("000001.json", None),
        ("records/000001.json\n", None),
        ("records/٠٠٠٠٠١.json", None),
    ],
)
def test_a_number_has_one_path(path: str, number: int | None) -> None:
    assert records.number_of(path) == number


# ---------------------------------------------------------------- writing it


def test_records_chain_on_a_branch_that_shares_nothing_with_the_code(world: World) -> None:
    hub = world.hub()
    written = [append(hub, draft(1)), append(hub, draft(1, "production")), append(hub, draft(2))]
    assert [number for number, _ in written] == [1, 2, 3]
    found = read(hub)
    assert [r.previous for r in found] == ["", written[0][1], written[1][1]]
    assert [r.digest_of_record for r in found] == [digest for _, digest in written]
    commits = hub.commits(BRANCH)
    assert len(commits) == 3
    assert commits[-1].parents == ()
    assert commits[0].message == f"Record {MODEL} 2 in staging (promotion)"
    assert set(hub.trees.listing(BRANCH, "records")) == {records.path_of(n) for n in (1, 2, 3)}
    assert hub.read_file("model.yaml", BRANCH) is None


def test_the_same_deployment_is_recorded_once_but_again_after_another(world: World) -> None:
    hub = world.hub()
    first = append(hub, draft(1))
    append(hub, draft(1, "production"))
    world.faults.requests.clear()
    later = replace(draft(1), at=AT + timedelta(days=1), address="http://elsewhere", approved_by=())
    assert append(hub, later) == first
    assert world.faults.writes() == []
    append(hub, draft(2))
    back = append(hub, draft(1, kind="rollback", commit="b" * 40, pull=None))
    assert back[0] == 4
    assert append(hub, draft(2))[0] == 5, "it runs again, so it is recorded again"


def test_what_would_be_unreadable_is_not_written(world: World) -> None:
    for wrong in ({"kind": "push"}, {"digest": ""}, {"commit": "main"}, {"version": 0}, {"stage": "s" * 1001}):
        with pytest.raises(InputError, match="cannot be recorded"):
            append(world.hub(), replace(draft(1), **wrong))
    assert world.hub().trees.head(BRANCH) is None


def test_a_branch_that_somebody_tampered_with_is_not_built_upon(world: World) -> None:
    append(world.hub(), draft(1))
    append(world.hub(), draft(2))
    world.push("alice", {"records/000002.json": b"{}\n"}, branch=BRANCH)
    with pytest.raises(InputError, match=r"000002\.json .* is no record: its fields"):
        append(world.hub(), draft(3))


def test_a_branch_with_a_gap_is_not_built_upon(world: World) -> None:
    append(world.hub(), draft(1))
    slipped_in = record(number=999_999_999)
    world.push("alice", {slipped_in.path: canonical(slipped_in)}, branch=BRANCH)
    with pytest.raises(InputError, match=r"missing on mlp-ci/records .*: 999999999 is the newest of 2"):
        append(world.hub(), draft(2))


def test_deployers_at_once_get_a_number_each(world: World) -> None:
    stages = ["staging", "production", "eu", "us"]
    failures: list[Exception] = []

    def run(stage: str) -> None:
        try:
            append(world.hub(), draft(1, stage))
        except OutsideError as error:  # pragma: no cover - only if all tries are used up
            failures.append(error)

    workers = [threading.Thread(target=run, args=(stage,)) for stage in stages]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    found = read(world.hub())
    assert [r.number for r in found] == [1, 2, 3, 4]
    assert {r.stage for r in found} == set(stages)
    for before, after in itertools.pairwise(found):
        assert after.previous == before.digest_of_record


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_killed_or_failing_anywhere_it_is_written_once(tmp_path: Path, begun: bool) -> None:
    """Each request in turn fails for good, and each answer in turn gets lost: then the same call again."""
    with running_world(tmp_path) as world:
        for index in range(20):
            for patience in (20.0, 0.0):  # tried again at once; or given up, as if killed, and begun anew
                begin_anew(world)
                if begun:
                    append(world.hub(), draft(1, "eu"))
                world.faults.lose = index
                with contextlib.suppress(OutsideError):
                    append(world.hub(patience=patience), draft(1))
                reached = world.faults.lose is None
                world.faults.lose = None
                append(world.hub(), draft(1))
                assert [r.stage for r in read(world.hub())] == [*(["eu"] if begun else []), "staging"]
            if not reached:
                break
        assert 6 <= index < 19, "every request of a call had its turn"


def begin_anew(world: World) -> None:
    hub = world.hub("carol")
    if hub.trees.head(BRANCH):
        hub.wire.once("DELETE", f"/repos/acme/{MODEL}/git/refs/heads/{BRANCH}", "begin anew")


def test_a_lost_answer_while_others_write_is_not_written_twice(world: World) -> None:
    append(world.hub(), draft(1))
    hub = world.hub()
    mine = draft(2)
    point = hub.trees.wire.send
    calls = {"n": 0}

    def moved_meanwhile(verb: str, path: str, *arguments: Any, **options: Any) -> Any:
        done = point(verb, path, *arguments, **options)
        if verb == "PATCH" and not calls["n"]:
            calls["n"] += 1
            append(world.hub(), draft(3))  # another deployer of the same stage, on top of ours
            return point(verb, path, *arguments, **options)  # ours, tried again: no longer a fast forward
        return done

    object.__setattr__(hub.trees.wire, "send", moved_meanwhile)
    number, _ = append(hub, mine)
    assert number == 2
    assert [r.version for r in read(world.hub())] == [1, 2, 3]
