"""The record of a deployment: one file each on a branch of its own, each with the hash of the file before it.

The files are ``records/000001.json``, ``records/000002.json``, … on :data:`BRANCH`, which shares no history with the
code. A file is canonical JSON (sorted keys, no spaces, ASCII, a newline at the end), so that a record has one spelling
and the hash of its bytes is the hash of what it says. ``previous`` is the hash of the file before, and GitHub's own
deployment carries the hash of its record: whoever changes, drops or slips in a record breaks one of the two, or the
history of the branch, which only ever gains one file a commit. :mod:`mlp_ci.promote.ledger` looks for that.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from mlp_ci.github import Hub

BRANCH = "mlp-ci/records"
FOLDER = "records"
KINDS = ("promotion", "rollback", "emergency")
LARGEST = 64 * 1024  # bytes of a record; ours have some 800
LONGEST = 1000  # characters of one text in it
MOST_APPROVERS = 100
LOOK_BACK = 30  # records; one that says the same further back is written again, which does no harm
_PATH = re.compile(rf"{FOLDER}/(\d{{6,9}})\.json")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_INSTANT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is to be recorded: which version a stage runs from now on, who wanted that, and on what grounds.

    ``commit`` is the commit on the default branch that asks for it, ``pull`` the merged pull request it came by (None
    for a rollback that was committed directly). ``policy`` says which platform.yaml judged it, ``run`` is the address
    of the workflow run, ``address`` where the version answers. Texts that are too long are cut.
    """

    model: str
    stage: str
    version: int
    digest: str
    evidence: str
    kind: str
    at: datetime
    commit: str
    pull: int | None
    asked_by: str
    approved_by: tuple[str, ...]
    merged_by: str
    policy: str
    run: str
    address: str

    def __post_init__(self) -> None:
        at = self.at.replace(tzinfo=UTC) if self.at.tzinfo is None else self.at.astimezone(UTC)
        object.__setattr__(self, "at", at.replace(microsecond=0))
        object.__setattr__(self, "approved_by", tuple(self.approved_by))
        for name in ("asked_by", "merged_by", "policy", "run", "address"):
            text = getattr(self, name)
            if len(text) > LONGEST:
                object.__setattr__(self, name, text[: LONGEST - 1] + "…")

    def same(self, other: Draft) -> bool:
        """Whether both say the same deployment: these bytes, in this stage, because of this commit."""
        return all(getattr(self, name) == getattr(other, name) for name in _IDENTITY)


_IDENTITY = ("model", "stage", "version", "digest", "kind", "commit")


@dataclass(frozen=True, kw_only=True)
class DeploymentRecord(Draft):
    """A record as it stands in its file. ``previous``: the hash of the file before; empty for the first."""

    number: int
    previous: str

    @property
    def path(self) -> str:
        return path_of(self.number)

    @property
    def digest_of_record(self) -> str:
        """The hash that the next record and GitHub's deployment carry."""
        return digest_of(canonical(self))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**found, "at": self.at.strftime(_INSTANT), "approved_by": list(self.approved_by)}


def path_of(number: int) -> str:
    """Where the record of this number stands."""
    return f"{FOLDER}/{number:06d}.json"


def number_of(path: str) -> int | None:
    """The number that a path gives a record; None for what is no path of a record."""
    match = _PATH.fullmatch(path)
    number = int(match[1]) if match else 0
    return number if number and path_of(number) == path else None


def canonical(record: DeploymentRecord) -> bytes:
    """The one spelling of a record."""
    return json.dumps(record.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def parse(raw: bytes) -> DeploymentRecord:
    """A record from the bytes of its file; ValueError says in words what is wrong with them."""
    if len(raw) > LARGEST:
        msg = f"it has {len(raw):,} bytes; a record has at most {LARGEST:,}"
        raise ValueError(msg)
    try:
        found = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON: {error}"
        raise ValueError(msg) from error
    record = _record(found)
    if canonical(record) != raw:
        msg = "it is not spelled as mlp-ci writes it (keys twice or in another order, spaces, other escapes)"
        raise ValueError(msg)
    return record


def _record(found: Any) -> DeploymentRecord:
    names = {f.name for f in fields(DeploymentRecord)}
    if not isinstance(found, dict) or set(found) != names:
        odd = sorted(names ^ set(found)) if isinstance(found, dict) else ["everything"]
        msg = f"its fields are not those of a record: {', '.join(odd)[:200]}"
        raise ValueError(msg)
    wrong = [name for name, value in found.items() if not _fits(name, value)]
    if wrong:
        msg = f"not a value that the field may have: {', '.join(sorted(wrong))}"
        raise ValueError(msg)
    at = datetime.fromisoformat(found["at"])
    return DeploymentRecord(**{**found, "at": at, "approved_by": tuple(found["approved_by"])})


def _fits(name: str, value: Any) -> bool:
    """Whether a value has the type and the bounds of its field."""
    if name in ("number", "version"):
        return _number(value)
    if name == "pull":
        return value is None or _number(value)
    if name == "approved_by":
        return isinstance(value, list) and len(value) <= MOST_APPROVERS and all(_text(v) and v for v in value)
    if not _text(value):
        return False
    if name == "at":
        return _is_instant(value)
    if name == "kind":
        return value in KINDS
    if name == "digest":
        return bool(_SHA256.fullmatch(value))
    if name in ("evidence", "previous"):
        return not value or bool(_SHA256.fullmatch(value))
    if name == "commit":
        return bool(_COMMIT.fullmatch(value))
    return bool(value) or name not in ("model", "stage")


def _number(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).strftime(_INSTANT) == text and text.endswith("Z")
    except ValueError:
        return False


# ---------------------------------------------------------------- through the API


def append(hub: Hub, draft: Draft) -> tuple[int, str]:
    """Write the record of a deployment, unless it is the newest of its stage already; its number and its hash.

    Two deployers at once get two numbers, one after the other: the branch only moves on from the head that a record
    was made for, and whoever comes second makes theirs again. Killed anywhere, nothing or the whole record is there,
    and the same call again ends as one call would. Raises InputError when the branch holds what is no record.
    """
    problem = _unfit(draft)
    if problem:
        msg = f"the deployment cannot be recorded: {problem}"
        raise InputError(msg, fix="this is a mistake of whoever called it; report it")
    written: list[DeploymentRecord] = []
    first_seen: list[int] = []

    def make(head: str) -> dict[str, bytes]:
        listed = _listed(hub, head)
        first_seen.append(max(listed, default=0))
        found, last = _already(hub, listed, draft, since=first_seen[0])
        if found:
            written.append(found)
            return {}
        number, previous = (last.number + 1, last.digest_of_record) if last else (1, "")
        record = DeploymentRecord(**_values(draft), number=number, previous=previous)
        written.append(record)
        return {record.path: canonical(record)}

    message = f"Record {draft.model} {draft.version} in {draft.stage} ({draft.kind})"
    hub.trees.add_commit(BRANCH, make, message, begin=True)
    return written[-1].number, written[-1].digest_of_record


def read(hub: Hub) -> list[DeploymentRecord]:
    """All records, oldest first, one request each: for many, read a clone (:mod:`mlp_ci.promote.ledger`)."""
    listed = _listed(hub, hub.trees.head(BRANCH) or "")
    return [_fetched(hub, number, listed[number]) for number in sorted(listed)]


def _values(draft: Draft) -> dict[str, Any]:
    return {f.name: getattr(draft, f.name) for f in fields(Draft)}


def _unfit(draft: Draft) -> str:
    """What would make the record unreadable; empty when nothing would."""
    record = DeploymentRecord(**_values(draft), number=1, previous="")
    try:
        parse(canonical(record))
    except ValueError as error:
        return str(error)
    return ""


def _listed(hub: Hub, head: str) -> dict[int, str]:
    """Number → blob id."""
    found = hub.trees.listing(head, FOLDER) if head else {}
    listed = {number: blob for path, blob in found.items() if (number := number_of(path))}
    if max(listed, default=0) != len(listed):
        what = (
            f"records are missing on {BRANCH} of {hub.place.full_name}, or were slipped in: {max(listed)} is the newest"
        )
        what += f" of {len(listed)}"
        raise InputError(what, why=_WHY, fix=_FIX)
    return listed


def _fetched(hub: Hub, number: int, blob: str) -> DeploymentRecord:
    try:
        record = parse(hub.trees.blob(blob))
        if record.number != number:
            msg = f"it says that it is number {record.number}"
            raise ValueError(msg)
    except ValueError as error:
        what = f"{path_of(number)} on {BRANCH} of {hub.place.full_name} is no record: {error}"
        raise InputError(what, why=_WHY, fix=_FIX) from error
    return record


def _already(
    hub: Hub, listed: dict[int, str], draft: Draft, *, since: int
) -> tuple[DeploymentRecord | None, DeploymentRecord | None]:
    """The record that says the draft already, if there is one; and the newest of all.

    That is the newest of the stage; or one newer than ``since`` that equals the draft in everything: our own attempt,
    whose answer was lost while others went on writing.
    """
    last, newest_of_stage = None, False
    for number in sorted(listed, reverse=True)[:LOOK_BACK]:
        if number <= since and newest_of_stage:
            break
        record = _fetched(hub, number, listed[number])
        last = last or record
        if record.stage != draft.stage:
            continue
        if _values(record) == _values(draft) or (not newest_of_stage and record.same(draft)):
            return record, last
        newest_of_stage = True
    return None, last


_WHY = "the next record has to carry the hash of the one before"
_FIX = "`mlp-ci audit` says who changed it; put the branch back"
