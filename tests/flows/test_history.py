"""`mlp-ci history`: what was live when, from a clone alone; and what tampering with the records looks like."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import git
from mlp_ci.context import Context
from mlp_ci.promote.ledger import Ledger, broken, read_local
from mlp_ci.promote.records import BRANCH, DeploymentRecord, append, canonical, digest_of, parse, path_of
from mlp_ci.promote.what_was_live import what_was_live
from mlp_ci.report import Outcome, Report
from tests.promotion import DIGESTS, promotion, running_world
from tests.unit.test_records import AT, draft

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess


def run(repo: Path, *arguments: str, at: datetime = AT, stdin: str = "") -> str:
    env = {"GIT_AUTHOR_DATE": at.isoformat(), "GIT_COMMITTER_DATE": at.isoformat()}
    done = subprocess.run(
        ["git", "-C", str(repo), *arguments],
        capture_output=True,
        check=True,
        env={**os.environ, **env},
        input=os.fsencode(stdin),
    )
    return os.fsdecode(done.stdout).strip()


class Clone:
    """A repository with the branch of records, written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        run(path, "init", "-q")
        run(path, "commit", "-q", "--allow-empty", "-m", "Start")
        self.head = ""

    def ask(self, content: bytes, hour: int, who: str = "Alice Ash", message: str = "Promote") -> str:
        (self.path / "promotion.yaml").write_bytes(content)
        run(self.path, "add", "-A")
        run(self.path, "commit", "-q", "-m", message, f"--author={who} <a@b.c>", at=AT + timedelta(hours=hour))
        return git.head(self.path)

    def commit(
        self, files: dict[str, bytes | None], message: str = "Record", parents: tuple[str, ...] | None = None
    ) -> str:
        """A commit on the branch of records that brings these files."""
        index = {"GIT_INDEX_FILE": str(self.path / ".git" / "records-index")}
        above = (self.head,) if parents is None and self.head else parents or ()
        git.git(self.path, "read-tree", *([above[0]] if above else ["--empty"]), env=index)
        for path, raw in files.items():
            if raw is None:
                git.git(self.path, "rm", "-q", "--cached", "--", path, env=index)
                continue
            blob = run(self.path, "hash-object", "-w", "--stdin", stdin=os.fsdecode(raw))
            git.git(self.path, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
        tree = git.git(self.path, "write-tree", env=index)
        self.head = run(self.path, "commit-tree", tree, *(f"-p{p}" for p in above), "-m", message)
        run(self.path, "update-ref", f"refs/heads/{BRANCH}", self.head)
        return self.head

    def record(self, *versions: int, **changes: Any) -> list[DeploymentRecord]:
        """Records as deployments would leave them."""
        ledger = read_local(self.path)
        known = ledger.records if ledger else []
        for version in versions:
            before = known[-1] if known else None
            number, previous = (before.number + 1, before.digest_of_record) if before else (1, "")
            made = DeploymentRecord(**vars(draft(version, **changes)), number=number, previous=previous)
            self.commit({made.path: canonical(made)})
            known.append(made)
        return known

    @property
    def ledger(self) -> Ledger:
        found = read_local(self.path)
        assert found is not None
        return found

    def history(self, stage: str | None = None, at: str | None = None, *, as_csv: bool = False) -> Report:
        return what_was_live(context(self.path), stage, at, as_csv=as_csv)


def context(repo: Path) -> Context:
    return Context(repo=repo, work=repo / ".mlp", serve_home=repo / "serve", prediction_log=repo / "log")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def said(report: Report) -> str:
    return "\n".join([report.headline, *(f"{f.message} → {f.fix}" for f in report.findings)])


# ---------------------------------------------------------------- what was live


def test_each_version_was_live_until_the_next_of_its_stage(clone: Clone) -> None:
    clone.record(1)
    clone.record(1, stage="production", approved_by=("bob", "carol"))
    clone.record(2)
    clone.record(1, at=AT + timedelta(hours=9), kind="rollback", pull=None)
    rows = clone.history().data["history"]
    assert [(r["stage"], r["version"], r["from"], r["until"]) for r in rows] == [
        ("staging", 1, "2026-03-01T13:30:05Z", "2026-03-01T14:30:05Z"),
        ("production", 1, "2026-03-01T13:30:05Z", None),
        ("staging", 2, "2026-03-01T14:30:05Z", "2026-03-01T21:30:05Z"),
        ("staging", 1, "2026-03-01T21:30:05Z", None),
    ]
    assert rows[1]["approved_by"] == ["bob", "carol"]
    assert [r["kind"] for r in rows if r["stage"] == "staging"] == ["promotion", "promotion", "rollback"]
    assert {r["basis"] for r in rows} == {"recorded"}
    assert [r["version"] for r in clone.history("production").data["history"]] == [1]
    assert clone.history("production").headline == "1 deployment; production has version 1 since 2026-03-01T13:30:05Z"


def test_at_an_instant_each_stage_has_one_line(clone: Clone) -> None:
    clone.record(1, 2)
    clone.record(2, stage="production")
    at = clone.history(at="2026-03-01T14:00:00+00:00")
    assert at.headline == "at 2026-03-01T14:00:00Z staging had version 1, production had nothing"
    assert at.data["history"][1] == {"stage": "production", "version": None}
    assert at.tables[0].rows[1][2:4] == ("production", "nothing")
    edge = clone.history(at="2026-03-01T14:30:05Z")
    assert [r["version"] for r in edge.data["history"]] == [2, 2], "a span begins with its first second"
    assert [r["version"] for r in clone.history(at="2013-01-01").data["history"]] == [None, None]
    assert clone.history("eu", at="2030-01-01").headline == "at 2030-01-01T00:00:00Z eu had nothing"


def test_without_the_branch_it_is_what_was_asked_for_and_says_so(clone: Clone) -> None:
    clone.ask(promotion(staging=1), 1)
    clone.ask(promotion(staging=1, production=1), 2)
    clone.ask(b"stages: [broken\n", 3)
    clone.ask(promotion(staging=2, production=1), 4, who="Bob Birch")
    clone.ask(promotion(staging=2), 5)
    report = clone.history()
    rows = report.data["history"]
    assert [(r["stage"], r["version"], r["from"], r["until"]) for r in rows] == [
        ("staging", 1, "2026-03-01T13:30:05Z", "2026-03-01T16:30:05Z"),
        ("production", 1, "2026-03-01T14:30:05Z", "2026-03-01T17:30:05Z"),
        ("staging", 2, "2026-03-01T16:30:05Z", None),
    ]
    assert [r["asked_by"] for r in rows] == ["Alice Ash", "Alice Ash", "Bob Birch"]
    assert {(r["basis"], r["approved_by"]) for r in rows} == {("asked", None)}
    assert report.tables[0].rows[0][7] == "unknown"
    assert "not what was proven to be live" in said(report)
    assert f"git fetch origin {BRANCH}:refs/remotes/origin/{BRANCH}" in said(report)
    assert report.outcome is Outcome.PASS


def test_what_was_before_the_first_record_is_filled_in_from_promotion_yaml(clone: Clone) -> None:
    clone.ask(promotion(staging=1), -9)
    clone.record(2, 3)
    report = clone.history()
    assert [(r["version"], r["basis"], r["until"]) for r in report.data["history"]] == [
        (1, "asked", "2026-03-01T14:30:05Z"),
        (2, "recorded", "2026-03-01T15:30:05Z"),
        (3, "recorded", None),
    ]
    assert "before a stage's first record" in said(report)


def test_merges_count_as_the_default_branch_saw_them(clone: Clone) -> None:
    clone.ask(promotion(), 0)
    run(clone.path, "checkout", "-q", "-b", "topic")
    clone.ask(promotion(staging=9), 1)
    clone.ask(promotion(staging=1), 2)
    run(clone.path, "checkout", "-q", "main")
    run(clone.path, "merge", "-q", "--no-ff", "-m", "Merge", "topic", at=AT + timedelta(hours=5))
    rows = clone.history().data["history"]
    assert [(r["version"], r["from"]) for r in rows] == [(1, "2026-03-01T17:30:05Z")]


def test_csv_is_for_spreadsheets_and_no_name_becomes_a_formula(clone: Clone) -> None:
    clone.record(1, asked_by='=HYPERLINK("http://evil","x")', merged_by="@sum", approved_by=("-1+1", "bob"))
    report = clone.history(as_csv=True)
    [row] = csv.DictReader(io.StringIO(report.document))
    assert row["asked by"] == '\'=HYPERLINK("http://evil","x")'
    assert row["merged by"] == "'@sum"
    assert row["approved by"] == "'-1+1, bob"
    assert row["digest"] == DIGESTS[1]
    assert row["from"] == "2026-03-01T13:30:05Z"
    assert (row["record"], row["until"], row["pull request"]) == ("1", "", "1")
    assert report.tables == []


def test_the_command_line_works_offline_and_shows_all_formats(
    clone: Clone, cli: Callable[..., CompletedProcess[str]]
) -> None:
    clone.record(1, asked_by="mal\x1b[2Jlory")
    env = {"GITHUB_API_URL": "http://127.0.0.1:9", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    text = cli("history", "--path", clone.path, **env)
    assert text.returncode == 0, text.stderr
    assert "\x1b[2J" not in text.stdout
    assert "staging has version 1" in text.stdout
    table = cli("history", "--path", clone.path, "--format", "csv", **env)
    assert table.stdout.startswith("from,until,stage,version,digest,kind,asked by,approved by,merged by,")
    assert len(table.stdout.splitlines()) == 2
    assert "staging has version 1" in table.stderr
    found = json.loads(cli("history", "--path", clone.path, "--format", "json", "--at", "2026-04-01", **env).stdout)
    assert found["data"]["history"][0]["version"] == 1
    assert cli("history", "--path", clone.path, "--at", "yesterday", **env).returncode == 2
    assert cli("history", "--path", clone.path, "--format", "xml", **env).returncode == 2


def test_a_repository_without_any_of_it_has_had_nothing(clone: Clone) -> None:
    assert clone.history().headline == "nothing was ever deployed"
    assert clone.history("production").headline == "nothing was ever deployed to production"
    assert clone.history(as_csv=True).document.count("\n") == 1


def test_a_thousand_records_are_read_in_the_time_of_a_look(clone: Clone, tmp_path: Path) -> None:
    """By one stream into git, as `git fast-import` takes it."""
    stream, previous = [], ""
    for number in range(1, 1501):
        made = replace(
            draft(1 + number % 9, "production" if number % 3 else "staging"), at=AT + timedelta(hours=number)
        )
        raw = canonical(DeploymentRecord(**vars(made), number=number, previous=previous))
        previous = digest_of(raw)
        stream.append(
            f"commit refs/heads/{BRANCH}\ncommitter a <a@b.c> {1772368205 + number} +0000\ndata 1\nx\n"
            f"M 100644 inline {path_of(number)}\ndata {len(raw)}\n{raw.decode()}\n"
        )
    run(tmp_path, "fast-import", "--quiet", stdin="".join(stream))
    began = time.perf_counter()
    report = clone.history()
    seconds = time.perf_counter() - began
    assert report.outcome is Outcome.PASS, said(report)
    assert len(report.data["history"]) == 1500
    assert seconds < 10, f"{seconds:.2f} s"


def test_records_written_through_the_api_are_read_from_a_clone(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        append(world.hub(), draft(1))
        append(world.hub(), draft(1, "production"))
        tip = world.hub().head(BRANCH)
        here = tmp_path / "clone"
        run(tmp_path, "clone", "-q", str(world.forge.git.path(world.repo)), str(here))
    ledger = read_local(here)
    assert ledger is not None
    assert ledger.tip == tip
    assert broken(ledger) == []
    assert [r["stage"] for r in what_was_live(context(here), None, None).data["history"]] == ["staging", "production"]


# ---------------------------------------------------------------- tampering


def tampered(clone: Clone, **announced: str) -> dict[str, list[str]]:
    """Check → what it says, of everything that does not hold."""
    found: dict[str, list[str]] = {}
    for finding in broken(clone.ledger, {v: k for k, v in announced.items()}):
        assert finding.outcome is Outcome.FAIL
        assert "git push --force origin" in finding.fix
        found.setdefault(finding.check, []).append(finding.message)
    return found


def rewritten(raw: bytes, **changes: Any) -> bytes:
    return canonical(replace(parse(raw), **changes))


def test_an_untouched_chain_holds(clone: Clone) -> None:
    known = clone.record(1, 2, 3)
    assert tampered(clone, one=known[0].digest_of_record, three=known[2].digest_of_record) == {}


def test_a_changed_record_is_found_with_who_changed_it(clone: Clone) -> None:
    known = clone.record(1, 2, 3)
    sha = clone.commit({path_of(2): rewritten(canonical(known[1]), approved_by=("mallory",))}, "Tidy")
    found = tampered(clone)
    assert set(found) == {"chain", "chain-history"}
    assert "record 3 carries the hash of another record 2" in found["chain"][0]
    assert f"changed by {sha[:12]}" in found["chain"][0]
    assert "records/000002.json changed" in found["chain-history"][0]
    report = clone.history()
    assert report.outcome is Outcome.FAIL
    assert report.headline.endswith("the records were tampered with")


def test_a_changed_newest_record_is_found_although_nothing_follows(clone: Clone) -> None:
    known = clone.record(1, 2)
    newest = canonical(known[1])
    clone.commit({path_of(2): rewritten(newest, approved_by=("mallory",))})
    assert set(tampered(clone)) == {"chain-history"}
    assert set(tampered(clone, production=digest_of(newest))) == {"chain-history", "chain-end"}


def test_a_chain_worked_out_anew_is_found_by_the_history(clone: Clone) -> None:
    known = clone.record(1, 2, 3)
    second = replace(known[1], asked_by="mallory")
    third = replace(known[2], previous=second.digest_of_record)
    clone.commit({second.path: canonical(second), third.path: canonical(third)})
    found = tampered(clone)
    assert set(found) == {"chain-history"}
    assert "records/000002.json changed, records/000003.json changed" in found["chain-history"][0]


def test_a_branch_written_anew_is_found_by_githubs_deployments(clone: Clone) -> None:
    known = clone.record(1, 2)
    clone.head = ""
    first = replace(known[0], asked_by="mallory")
    clone.commit({first.path: canonical(first)}, parents=())
    assert tampered(clone) == {}, "the branch alone looks whole"
    found = tampered(clone, one=known[0].digest_of_record, two=known[1].digest_of_record)
    assert len(found["chain-end"]) == 2
    assert "which is not on mlp-ci/records: it was cut off or replaced" in found["chain-end"][0]


def test_a_gap_a_stranger_and_what_is_no_record_are_found(clone: Clone) -> None:
    known = clone.record(1, 2, 3, 4)
    clone.commit({path_of(2): None, "README.md": b"hello\n", "records/1.json": b"{}"})
    clone.commit({path_of(4): b"{}\n"})
    clone.commit({path_of(7): b"\xff" * 100_000})
    clone.commit({path_of(999_999_999): b"{}"})
    found = tampered(clone)
    text = "\n".join(found["chain"])
    assert "record 2 is missing; deleted by" in text
    assert "records 5 to 6 are missing" in text
    assert "holds what is no record: README.md, records/1.json" in text
    assert "its fields are not those of a record" in text
    assert "more than 65,536 bytes" in text
    assert "records 8 to 999999998 are missing" in text
    assert len(found["chain-history"]) == 4
    assert known


def test_a_beginning_cut_off_and_records_swapped_are_found(clone: Clone) -> None:
    known = clone.record(1, 2, 3)
    clone.head = ""
    moved = replace(known[1], number=1)
    clone.commit({path_of(1): canonical(moved)}, parents=())
    assert "the first record names one before it" in tampered(clone)["chain"][0]
    clone.commit({path_of(2): canonical(known[2]), path_of(3): canonical(known[1])}, parents=())
    assert any("it says that it is number 3" in text for text in tampered(clone)["chain"])


def test_a_merge_and_an_empty_commit_do_not_pass(clone: Clone) -> None:
    clone.record(1)
    first = clone.head
    known = clone.record(2)
    other = clone.commit({}, parents=(first,))
    clone.commit({known[1].path: canonical(known[1])}, parents=(first, other))
    text = "\n".join(tampered(clone)["chain-history"])
    assert "it changes nothing" in text
    assert "is no single step on" in text


def test_a_link_in_place_of_a_record_is_none(clone: Clone) -> None:
    known = clone.record(1)
    blob = run(clone.path, "hash-object", "-w", "--stdin", stdin=canonical(known[0]).decode())
    inner = run(clone.path, "mktree", stdin=f"120000 blob {blob}\t000001.json\n")
    tree = run(clone.path, "mktree", stdin=f"040000 tree {inner}\trecords\n")
    head = run(clone.path, "commit-tree", tree, "-m", "x")
    run(clone.path, "update-ref", f"refs/heads/{BRANCH}", head)
    assert "does more than add" in "".join(tampered(clone)["chain-history"])


def test_instants_of_the_past_are_in_utc(clone: Clone) -> None:
    clone.record(1, at=datetime(2026, 3, 29, 3, 30, tzinfo=UTC))
    assert clone.history().data["history"][0]["from"] == "2026-03-29T03:30:00Z"
