"""Commits through GitHub's git data API: several files in one commit, no clone, no push credentials."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.github.exchange import Transient
from mlp_ci.github.wire import GitHubError, Wire, repository_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# How often a commit is made again because the branch moved meanwhile.
MOVED_TRIES = 8
PLAIN = ("100644", "100755")  # modes of files; 120000 is a link, 160000 a submodule
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a folder with nothing in it
_FOLDER = "040000"
_COMMIT = re.compile(r"[0-9a-f]{40}")  # GitHub refuses branches of such a name


class Entry(NamedTuple):
    """What stands in a tree under some name."""

    mode: str
    sha: str


@dataclass(frozen=True)
class Trees:
    """The git objects of one repository on GitHub. What a hash names never changes, so it is read once."""

    wire: Wire
    _listings: dict[str, dict[str, Entry]] = field(default_factory=dict, compare=False, repr=False)
    _blobs: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def _path(self, *parts: str) -> str:
        return repository_path(self.wire.place.owner, self.wire.place.repo, "git", *parts)

    def head(self, branch: str) -> str | None:
        """The commit that ``branch`` points to; None when there is no such branch."""
        try:
            found = self.wire.get(self._path("ref", "heads", branch), f"read the branch {branch}")
        except GitHubError as refusal:
            if refusal.status in (404, 409):  # 409: the repository has no commit yet
                return None
            raise
        return str(found["object"]["sha"])

    def commit_of(self, ref: str) -> str | None:
        """The commit that a branch or a whole hash names; None when there is no such branch."""
        return ref if _COMMIT.fullmatch(ref) else self.head(ref)

    def commit(self, parent: str, files: Mapping[str, bytes], message: str) -> str:
        """A new commit on top of ``parent`` with ``files`` as they should be; no branch moves.

        Without a parent it begins a history of its own and holds nothing but ``files``.
        """
        purpose, needs = "write a commit", "contents: write"
        base = {}
        if parent:
            base = {"base_tree": self.wire.get(self._path("commits", parent), "read a commit")["tree"]["sha"]}
        elements = []
        for path, content in sorted(files.items()):
            body = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
            blob = self.wire.send("POST", self._path("blobs"), purpose, body, needs=needs)["sha"]
            elements.append({"path": path, "mode": "100644", "type": "blob", "sha": blob})
        body_tree = {**base, "tree": elements}
        new_tree = self.wire.send("POST", self._path("trees"), purpose, body_tree, needs=needs)["sha"]
        body_commit = {"message": message, "tree": new_tree, "parents": [parent] if parent else []}
        return str(self.wire.send("POST", self._path("commits"), purpose, body_commit, needs=needs)["sha"])

    def point(self, branch: str, sha: str, *, force: bool) -> None:
        """Make ``branch`` point to ``sha``, whether or not it exists."""
        purpose, needs = f"move the branch {branch}", "contents: write"
        if self.head(branch) is None:
            try:
                body = {"ref": f"refs/heads/{branch}", "sha": sha}
                self.wire.send("POST", self._path("refs"), purpose, body, needs=needs)
                return
            except GitHubError as refusal:
                if refusal.status != 422:  # 422: someone (or our own lost attempt) made it meanwhile
                    raise
        path = self._path("refs", "heads", branch)
        if force:
            self._force(branch, sha, path)
        else:
            self.wire.send("PATCH", path, purpose, {"sha": sha, "force": False}, needs=needs)

    def _force(self, branch: str, sha: str, path: str) -> None:
        """What somebody pushed on top of our lost attempt is not pushed away by the next."""
        purpose = f"move the branch {branch}"
        seen = self.head(branch)

        def step() -> None:
            here = self.head(branch)
            if here not in (seen, sha):
                what = f"somebody pushed to {branch} of {self.wire.place.full_name} at the same moment"
                raise OutsideError(what, fix="run the same command again")
            if here != sha:
                self.wire.once("PATCH", path, purpose, body={"sha": sha, "force": True}, needs="contents: write")

        self.wire.again(step, purpose)

    def add_commit(
        self, branch: str, make: Callable[[str], Mapping[str, bytes]], message: str, *, begin: bool = False
    ) -> tuple[str, bool]:
        """Commit to a branch that others move too: ``make`` gets the newest head and gives the files.

        Returns the head and whether it is new; files that already are so make no commit. With ``begin`` a branch that
        is not there begins as a history of its own, and ``make`` gets an empty head.
        """
        for _ in range(MOVED_TRIES):
            parent = self.head(branch) or ""
            if not parent and not begin:
                raise GitHubError(404, f"there is no branch {branch} in {self.wire.place.full_name}")
            files = self.different(parent, make(parent)) if parent else make(parent)
            if not files:
                return parent, False
            sha = self.commit(parent, files, message)
            try:
                self.point(branch, sha, force=False)
            except GitHubError as refusal:
                moved = refusal.status in (409, 422) and self.head(branch) not in (parent, sha)
                if not moved:
                    raise
                continue
            return sha, True
        msg = f"the branch {branch} of {self.wire.place.full_name} moved {MOVED_TRIES} times while it was written to"
        raise OutsideError(msg, fix="run the same command again")

    def different(self, ref: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Those of ``files`` that are not already so at ``ref``."""
        return {path: content for path, content in files.items() if self.blob_at(ref, path) != blob_id(content)}

    def blob_at(self, ref: str, path: str) -> str | None:
        """The id of the file's content at ``ref``; None where there is no plain file (a link to one is none)."""
        entry = self.entry(ref, path)
        return entry.sha if entry and entry.mode in PLAIN else None

    def read(self, ref: str, path: str) -> bytes | None:
        """The file's content at a branch or commit; None where nothing is. InputError for what is no plain file."""
        entry = self.entry(ref, path)
        if entry is None:
            return None
        if entry.mode not in PLAIN:
            msg = f"{path} at {ref[:12]} of {self.wire.place.full_name} is not a plain file"
            raise InputError(msg, fix="put a plain file there; links, folders and submodules are not read")
        return self.blob(entry.sha, path)

    def entry(self, ref: str, path: str) -> Entry | None:
        """What git has at ``path``, seen without following any link; GitHub's contents API follows them."""
        here = self.commit_of(ref)
        *folders, name = path.split("/")
        for folder in folders:
            found = self._listing(here).get(folder) if here else None
            here = found.sha if found and found.mode == _FOLDER else None
        return self._listing(here).get(name) if here else None

    def _listing(self, sha: str) -> dict[str, Entry]:
        if sha == EMPTY_TREE:
            return {}
        if sha not in self._listings:
            try:
                found = self.wire.get(self._path("trees", sha), "read the files of a commit")
            except GitHubError as refusal:
                if refusal.status in (404, 409):
                    return {}
                raise
            if found.get("truncated"):
                msg = f"a folder at {sha[:12]} of {self.wire.place.full_name} has more files than GitHub lists"
                raise InputError(msg, fix="spread the files over folders")
            self._listings[sha] = {e["path"]: Entry(e["mode"], e["sha"]) for e in found["tree"]}
        return self._listings[sha]

    def listing(self, commit: str, folder: str) -> dict[str, str]:
        """Path → blob id of the plain files right in ``folder`` at a commit; empty where there is no such folder.

        The contents API would stop at a thousand files.
        """
        found = self.entry(commit, folder)
        inside = self._listing(found.sha) if found and found.mode == _FOLDER else {}
        return {f"{folder}/{name}": e.sha for name, e in inside.items() if e.mode in PLAIN}

    def has_read(self, commit: str) -> bool:
        """Whether a commit was there when something of it was read: not there looks like empty otherwise."""
        return commit in self._listings

    def changed(self, before: str, after: str, folder: str = "") -> set[str]:
        """Paths that differ between two commits (or trees), however many; a folder that is the same is not read."""
        old, new = self._listing(before), self._listing(after)
        paths: set[str] = set()
        for name in {n for n in {*old, *new} if old.get(n) != new.get(n)}:
            was, now, path = old.get(name), new.get(name), f"{folder}{name}"
            if any(e and e.mode != _FOLDER for e in (was, now)):
                paths.add(path)
            under, over = (e.sha if e and e.mode == _FOLDER else EMPTY_TREE for e in (was, now))
            if under != over:
                paths |= self.changed(under, over, f"{path}/")
        return paths

    def blob(self, sha: str, shown: str = "") -> bytes:
        """The content that a blob id names, checked against it; ``shown`` is what people call it."""
        purpose = f"read {shown or f'the blob {sha[:12]}'}"

        def step() -> bytes:
            found = self.wire.once("GET", self._path("blobs", sha), purpose)[1]
            content = base64.b64decode(found["content"])
            if blob_id(content) != sha:
                msg = "the answer is not whole"
                raise Transient(msg)
            return content

        if sha not in self._blobs:
            self._blobs[sha] = self.wire.again(step, purpose)
        return self._blobs[sha]


def blob_id(content: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
