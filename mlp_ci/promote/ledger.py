"""The branch of records as git has it, and whether anybody tampered with it. Git objects alone; asks nobody.

Four things hold for a ledger that mlp-ci alone has written, and :func:`broken` says which do not:

- the files are ``records/000001.json`` to ``records/NNNNNN.json`` without a gap, each a record in its one spelling;
- each carries the hash of the one before;
- each commit of the branch adds the next file and does nothing else;
- every hash that GitHub's deployments carry is the hash of a record.

The first two find a file that was changed, dropped or slipped in. Whoever rewrites all that follows as well leaves
commits that change files, which the third finds; whoever also rewrites the branch leaves GitHub's deployments, which
name hashes that are gone, and every clone that has the old branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.promote.records import (
    BRANCH,
    LARGEST,
    DeploymentRecord,
    digest_of,
    number_of,
    parse,
    path_of,
)
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

REFS = (f"refs/remotes/origin/{BRANCH}", f"refs/heads/{BRANCH}")
FETCH = f"git fetch origin {BRANCH}:{REFS[0]}"
PLAIN = "100644"
RESTORE = (
    f"find who moved {BRANCH} (the repository's Activity page says it), and put back what a clone has of it: "
    f"`git push --force origin GOOD-COMMIT:refs/heads/{BRANCH}`; let nobody but the deployers write to that branch "
    "(`mlp-ci doctor --github`)"
)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The branch at one commit: its history, oldest commit first, and its files (None where one is too large)."""

    tip: str
    commits: tuple[git.Commit, ...]
    files: Mapping[str, bytes | None]

    @cached_property
    def parsed(self) -> dict[int, DeploymentRecord | str]:
        """Number → the record, or why the file is none."""
        found: dict[int, DeploymentRecord | str] = {}
        for path, raw in self.files.items():
            number = number_of(path)
            if number is None:
                continue
            try:
                found[number] = _parsed(number, raw)
            except ValueError as error:
                found[number] = str(error)
        return dict(sorted(found.items()))

    @property
    def records(self) -> list[DeploymentRecord]:
        """The records that can be read, oldest first."""
        return [record for record in self.parsed.values() if isinstance(record, DeploymentRecord)]

    @cached_property
    def digests(self) -> dict[str, int]:
        """The hash of each file that stands where a record does → its number."""
        return {digest_of(raw): n for path, raw in self.files.items() if raw is not None and (n := number_of(path))}


def _parsed(number: int, raw: bytes | None) -> DeploymentRecord:
    if raw is None:
        msg = f"it has more than {LARGEST:,} bytes, or is no file"
        raise ValueError(msg)
    record = parse(raw)
    if record.number != number:
        msg = f"it says that it is number {record.number}"
        raise ValueError(msg)
    return record


def read_local(repo: Path) -> Ledger | None:
    """The ledger as the clone has it; None where the branch was not fetched."""
    tip = git.commit_of(repo, *REFS)
    if tip is None:
        return None
    files = git.files_in(repo, tip)
    contents = git.blobs(repo, (blob for blob in files.values() if blob), largest=LARGEST)
    return Ledger(
        tip=tip,
        commits=tuple(git.commits(repo, tip)),
        files={path: contents.get(blob) for path, blob in files.items()},
    )


# ---------------------------------------------------------------- is it whole?


def broken(ledger: Ledger, announced: Mapping[str, str] | None = None) -> list[Finding]:
    """What does not hold. ``announced``: the hashes that GitHub's deployments carry → what to call the deployment."""
    return [*_files(ledger), *_links(ledger), *_commits(ledger), *_gone(ledger, announced or {})]


def _files(ledger: Ledger) -> Iterator[Finding]:
    strange = sorted(path for path in ledger.files if number_of(path) is None)
    if strange:
        shown = ", ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        yield _fail("chain", f"{BRANCH} holds what is no record: {shown}", subject=shown)
    for number, record in ledger.parsed.items():
        if isinstance(record, str):
            yield _fail("chain", f"it is no record: {record}{_touched(ledger, number)}", subject=path_of(number))
    for first, last in _gaps(ledger.parsed):
        what = f"record {first} is" if first == last else f"records {first} to {last} are"
        yield _fail("chain", f"{what} missing{_touched(ledger, first)}", subject=path_of(first))


def _gaps(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of numbers that is missing; somebody may have written one that is huge."""
    expected = 1
    for number in numbers:
        if number != expected:
            yield expected, number - 1
        expected = number + 1


def _links(ledger: Ledger) -> Iterator[Finding]:
    hashes = {number: digest for digest, number in ledger.digests.items()}
    for number, record in ledger.parsed.items():
        if isinstance(record, str) or (number > 1 and number - 1 not in hashes):
            continue
        if record.previous == hashes.get(number - 1, ""):
            continue
        if number == 1:
            what = "the first record names one before it: the beginning was cut off"
        else:
            what = f"record {number} carries the hash of another record {number - 1} than the one that stands there"
            what += _touched(ledger, number - 1) or _touched(ledger, number)
        yield _fail("chain", what, subject=path_of(number))


def _touched(ledger: Ledger, number: int) -> str:
    """Who did what to a record's file after it was written, in words; empty where nobody did."""
    path = path_of(number)
    for commit in reversed(ledger.commits):
        for change in commit.changes:
            if change.path == path and change.status != "A":
                return f"; {_done(change.status)} by {_named(commit)}"
    return ""


def _done(status: str) -> str:
    return {"M": "changed", "D": "deleted", "A": "added"}.get(status, "made another kind of file")


def _named(commit: git.Commit) -> str:
    return f"{commit.sha[:12]} of {commit.date} (its author is given as {commit.author})"


def _commits(ledger: Ledger) -> Iterator[Finding]:
    """The history: commit by commit, one new file each, in the order of the numbers."""
    expected = 1
    for index, commit in enumerate(ledger.commits):
        if len(commit.parents) != (1 if index else 0):
            yield _fail("chain-history", f"{_named(commit)} is no single step on from the one before", BRANCH)
        additions = [c for c in commit.changes if c.status == "A" and c.mode == PLAIN]
        number = number_of(additions[0].path) if len(additions) == 1 else None
        if len(commit.changes) == 1 and number == expected:
            expected += 1
            continue
        if number is not None:
            expected = max(expected, number + 1)
        done = [f"{c.path} {_done(c.status)}" for c in commit.changes if c not in additions or number is None]
        said = ", ".join(done[:3]) + (f" and {len(done) - 3} more" if len(done) > 3 else "")
        said = said or (f"it adds record {number} out of turn" if number else "it changes nothing")
        yield _fail("chain-history", f"{_named(commit)} does more than add the next record: {said}", BRANCH)


def _gone(ledger: Ledger, announced: Mapping[str, str]) -> Iterator[Finding]:
    for digest, deployment in announced.items():
        if digest not in ledger.digests:
            what = f"{deployment} names the record {digest[:19]}…, which is not on {BRANCH}: it was cut off or replaced"
            yield _fail("chain-end", what, BRANCH)


def _fail(check: str, message: str, subject: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, subject=subject, fix=RESTORE)
