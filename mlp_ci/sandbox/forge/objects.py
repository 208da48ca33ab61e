"""What git holds, as values, and how they are read from what git prints."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Person:
    """Author or committer of a commit; ``date`` is ISO 8601 with zone."""

    name: str
    email: str
    date: str = ""


@dataclass(frozen=True)
class Commit:
    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str

    @property
    def title(self) -> str:
        return self.message.partition("\n")[0]


@dataclass(frozen=True)
class Entry:
    """One entry of a tree. ``kind``: blob | tree | commit; ``size`` only of blobs."""

    path: str
    mode: str
    kind: str
    sha: str
    size: int


@dataclass(frozen=True)
class Change:
    """One changed file of a diff. ``status``: added | removed | modified | renamed | copied | changed."""

    path: str
    status: str
    sha: str
    additions: int
    deletions: int
    previous: str | None = None
    patch: str | None = None


def commit_of(text: str) -> Commit:
    sha, tree, parents, *people, message = text.split("\0", 9)
    return Commit(sha, tree, tuple(parents.split()), Person(*people[:3]), Person(*people[3:]), message.rstrip("\n"))


def entries_of(raw: bytes) -> list[Entry]:
    found = []
    for line in raw.decode(errors="replace").split("\0"):
        if line:
            head, _, path = line.partition("\t")
            mode, kind, sha, size = head.split()
            found.append(Entry(path, mode, kind, sha, 0 if size == "-" else int(size)))
    return found


def changes_of(raw: str) -> list[Change]:
    """Parse ``diff-tree -z --raw --numstat``: all raw records come before all numstat records."""
    words = iter(raw.split("\0"))
    names = {"A": "added", "D": "removed", "M": "modified", "R": "renamed", "C": "copied", "T": "changed"}
    found: list[Change] = []
    counts: list[tuple[int, int]] = []
    for word in words:
        if word.startswith(":"):
            _, _, old, new, letter = word.split(" ")
            moved = letter[0] in "RC"
            previous = next(words) if moved else None
            sha = old if letter[0] == "D" else new
            found.append(Change(next(words), names.get(letter[0], "changed"), sha, 0, 0, previous))
        elif word:
            added, removed, path = word.split("\t", 2)
            if not path:  # a rename: the two paths follow
                next(words), next(words)
            counts.append(tuple(0 if n == "-" else int(n) for n in (added, removed)))  # type: ignore[arg-type]
    return [replace(c, additions=a, deletions=d) for c, (a, d) in zip(found, counts, strict=True)]


def hunks_of(part: str) -> str | None:
    at = part.find("@@")
    return part[at:].rstrip("\n") if at >= 0 else None
