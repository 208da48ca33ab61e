"""Git on the forge's bare repositories: everything the server asks of git, by real git.

Revisions that come from outside go through ``resolve`` first; all other functions take full object ids.
Needs git >= 2.38 (``merge-tree --write-tree`` merges without a work tree).
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.sandbox.forge import update_hook
from mlp_ci.sandbox.forge.objects import Change, Commit, Entry, Person, changes_of, commit_of, entries_of, hunks_of
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlp_ci.sandbox.forge.records import Repo

ZERO = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_NAME = re.compile(r"(?!\.\.?$)(?!.*\.git$)[A-Za-z0-9._-]{1,100}")
_BAD_REV = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|^-|^/|/$")
_SHA = re.compile(r"[0-9a-f]{40}")
# How many answers of git are remembered, and up to how many bytes each.
_ANSWERS, _LONG_ANSWER = 2048, 50_000
# What pushes and clones may do; set when the repository is made.
_CONFIG = """\
[http]
	receivepack = true
[uploadpack]
	allowAnySHA1InWant = true
	allowFilter = true
[receive]
	fsckObjects = true
[gc]
	auto = 0
"""


class GitError(Exception):
    """Git failed in a way the caller did not foresee."""


def valid_name(name: str) -> bool:
    """Whether ``name`` may name an owner or a repository (and so a folder on disk)."""
    return _NAME.fullmatch(name) is not None


def is_sha(text: str) -> bool:
    """Whether ``text`` is a full object id."""
    return _SHA.fullmatch(text) is not None


class Repos:
    """The bare repositories under ``root``: ``<owner>/<name>.git``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hooks = root.parent / "hooks"
        self._locks: dict[int, threading.RLock] = {}
        self._held: dict[int, int] = {}
        self._answers: dict[tuple[str, ...], subprocess.CompletedProcess[bytes]] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hooks.mkdir(exist_ok=True)
        update_hook.install(self._hooks)

    def path(self, repo: Repo) -> Path:
        return self.root / repo.owner / f"{repo.name}.git"

    def environment(self) -> dict[str, str]:
        """What git may see: nothing of the user's configuration, and the forge's own hooks."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "core.hooksPath",
            "GIT_CONFIG_VALUE_0": str(self._hooks),
            "GIT_CONFIG_KEY_1": "core.quotePath",
            "GIT_CONFIG_VALUE_1": "false",
        }

    @contextmanager
    def lock(self, repo: Repo) -> Iterator[None]:
        """Only one thread or process changes refs of ``repo`` at a time. Re-entrant within a thread."""
        with self._locks.setdefault(repo.id, threading.RLock()):
            if self._held.get(repo.id):
                yield
                return
            with (self.path(repo) / "forge.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._held[repo.id] = 1
                try:
                    yield
                finally:
                    self._held[repo.id] = 0

    def run(
        self,
        repo: Repo,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git in ``repo``; an exit status not in ``ok`` is a GitError."""
        _without_nul(*args)
        command = ["git", "--git-dir", str(self.path(repo)), *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env={**self.environment(), **(env or {})}, check=False
        )
        if done.returncode not in ok:
            msg = f"git {args[0]}: {done.stderr.decode(errors='replace').strip()}"
            raise GitError(msg)
        return done

    def fixed(self, repo: Repo, *args: str, ok: Sequence[int] = (0,)) -> subprocess.CompletedProcess[bytes]:
        """As ``run`` where the answer follows from full object ids alone, and so stays: git is asked once.

        Only success is remembered: an object that is not there may come.
        """
        asked = (str(self.path(repo)), str(repo.id), *args)
        known = self._answers.get(asked)
        if known is not None:
            return known
        done = self.run(repo, *args, ok=ok)
        if done.returncode == 0 and len(done.stdout) < _LONG_ANSWER:
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            self._answers[asked] = done
        return done

    def text(self, repo: Repo, *args: str) -> str:
        return self.run(repo, *args).stdout.decode(errors="replace").strip()

    def create(self, repo: Repo, source: Repo | None = None) -> None:
        """Make the bare repository, as a copy of ``source`` if given."""
        path = self.path(repo)
        path.mkdir(parents=True, exist_ok=True)
        # No template: fifteen sample files, of which the forge reads none.
        bare = ("init", "--quiet", "--bare", "--template=", "--initial-branch", repo.default_branch)
        self.run(repo, *bare, str(path))
        with (path / "config").open("a", encoding="utf-8") as file:
            file.write(_CONFIG)
        if source is not None:
            self.run(repo, "fetch", "--quiet", str(self.path(source)), "+refs/heads/*:refs/heads/*")

    def set_head(self, repo: Repo, branch: str) -> None:
        self.run(repo, "symbolic-ref", "HEAD", f"refs/heads/{branch}")

    # --- refs and revisions

    def refs(self, repo: Repo, *prefixes: str) -> dict[str, str]:
        """Full ref name to object id, sorted; by default branches and tags."""
        out = self.text(
            repo, "for-each-ref", "--format=%(objectname) %(refname)", *(prefixes or ("refs/heads", "refs/tags"))
        )
        return {ref: sha for sha, _, ref in (line.partition(" ") for line in out.splitlines())}

    def resolve(self, repo: Repo, rev: str) -> str | None:
        """The commit that a branch, tag, ref or (short) object id from outside means, or None."""
        if not rev or _BAD_REV.search(rev) or len(rev) > 300:
            return None
        name = rev.removeprefix("refs/")
        tries = [f"refs/heads/{name}", f"refs/tags/{name}", f"refs/{name}"]
        if re.fullmatch(r"[0-9a-f]{4,40}", rev) or rev == "HEAD":
            tries.append(rev)
        asked = "".join(f"{candidate}^{{commit}}\n" for candidate in tries)
        form = "--batch-check=%(objectname) %(objecttype)"  # else "… missing" or "… ambiguous"
        for line in self.run(repo, "cat-file", form, stdin=os.fsencode(asked)).stdout.split(b"\n"):
            sha, _, kind = line.partition(b" ")
            if kind == b"commit":
                return sha.decode()
        return None

    def kind(self, repo: Repo, sha: str) -> str | None:
        """blob | tree | commit | tag, or None for an unknown object."""
        if not is_sha(sha):
            return None
        done = self.fixed(repo, "cat-file", "-t", sha, ok=(0, 128))
        return done.stdout.decode().strip() or None

    def valid_ref(self, repo: Repo, ref: str) -> bool:
        return self.run(repo, "check-ref-format", ref, ok=(0, 1)).returncode == 0 and not _BAD_REV.search(ref)

    def update_ref(self, repo: Repo, ref: str, new: str, old: str) -> bool:
        """Move ``ref`` from ``old`` to ``new`` (ZERO: create, delete); False when it is not at ``old`` any more."""
        args = ["-d", ref, old] if new == ZERO else [ref, new, old]
        done = self.run(repo, "update-ref", *args, ok=(0, 1, 128))
        return done.returncode == 0

    def force_ref(self, repo: Repo, ref: str, new: str | None) -> None:
        """Put a ref of the forge's own (``refs/pull/…``) somewhere, or take it away."""
        self.run(repo, "update-ref", *([ref, new] if new else ["-d", ref]))

    def fetch(self, repo: Repo, source: Repo, sha: str) -> None:
        """Bring a commit of another repository (a fork) into this one."""
        if source.id != repo.id:
            self.run(repo, "fetch", "--quiet", str(self.path(source)), sha)

    def is_ancestor(self, repo: Repo, old: str, new: str) -> bool:
        return self.fixed(repo, "merge-base", "--is-ancestor", old, new, ok=(0, 1, 128)).returncode == 0

    def merge_base(self, repo: Repo, one: str, other: str) -> str | None:
        return self.fixed(repo, "merge-base", one, other, ok=(0, 1)).stdout.decode().strip() or None

    # --- commits

    def log(self, repo: Repo, *args: str, path: str = "") -> list[Commit]:
        """Commits of ``git log``; ``args`` are options and object ids, ``path`` limits to a file or folder."""
        form = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x1e"
        pathspec = ["--", f":(literal){path}"] if path else ["--"]
        out = self.fixed(repo, "log", f"--format={form}", *args, *pathspec).stdout.decode(errors="replace")
        return [commit_of(text.lstrip("\n")) for text in out.split("\x1e") if text.strip()]

    def commit(self, repo: Repo, sha: str) -> Commit:
        return self.log(repo, "-1", sha)[0]

    def count(self, repo: Repo, base: str, head: str) -> int:
        return int(self.fixed(repo, "rev-list", "--count", f"{base}..{head}").stdout)

    def commit_tree(
        self, repo: Repo, tree: str, parents: Sequence[str], message: str, people: tuple[Person, Person]
    ) -> str:
        """Write a commit; a person without a date gets the clock's."""
        author, committer = (replace(p, date=p.date or clock.now().isoformat()) for p in people)
        env = {
            "GIT_AUTHOR_NAME": author.name,
            "GIT_AUTHOR_EMAIL": author.email,
            "GIT_AUTHOR_DATE": author.date,
            "GIT_COMMITTER_NAME": committer.name,
            "GIT_COMMITTER_EMAIL": committer.email,
            "GIT_COMMITTER_DATE": committer.date,
        }
        _without_nul(message, *env.values())
        flags = [part for parent in parents for part in ("-p", parent)]
        return self.run(repo, "commit-tree", tree, *flags, stdin=message.encode(), env=env).stdout.decode().strip()

    def merge_tree(self, repo: Repo, base: str, head: str) -> str | None:
        """The tree of a merge of two commits, or None when they conflict or have no history in common."""
        done = self.run(repo, "merge-tree", "--write-tree", base, head, ok=(0, 1, 128))
        return done.stdout.decode().splitlines()[0] if done.returncode == 0 else None

    def replay(self, repo: Repo, onto: str, head: str, committer: Person) -> str | None:
        """Rebase ``onto..head`` (without merges) on ``onto``; the new tip, or None on a conflict."""
        tip = onto
        for commit in self.log(repo, "--reverse", "--no-merges", f"{onto}..{head}"):
            parent = self.text(repo, "rev-parse", f"{commit.parents[0]}^{{tree}}") if commit.parents else EMPTY_TREE
            # `merge-tree --merge-base` came with git 2.40; a made-up common parent does the same on 2.38.
            both = (commit.author, committer)
            base = self.commit_tree(repo, parent, [], "base", both)
            ours = self.commit_tree(repo, self.commit(repo, tip).tree, [base], "ours", both)
            theirs = self.commit_tree(repo, commit.tree, [base], "theirs", both)
            tree = self.merge_tree(repo, ours, theirs)
            if tree is None:
                return None
            tip = self.commit_tree(repo, tree, [tip], commit.message, both)
        return tip

    # --- files

    def entry(self, repo: Repo, sha: str, path: str) -> Entry | None:
        """What lies at ``path`` in a commit or tree; the root is the tree itself."""
        if not path:
            root = self.fixed(repo, "rev-parse", f"{sha}^{{tree}}").stdout.decode().strip()
            return Entry("", "040000", "tree", root, 0)
        found = self.fixed(repo, "--literal-pathspecs", "ls-tree", "-z", "-l", sha, "--", path.rstrip("/"), ok=(0, 128))
        entries = entries_of(found.stdout)
        return entries[0] if entries else None

    def ls(self, repo: Repo, tree: str, *, recursive: bool = False) -> list[Entry]:
        flags = ["-r", "-t"] if recursive else []
        return entries_of(self.fixed(repo, "ls-tree", "-z", "-l", *flags, tree).stdout)

    def blob(self, repo: Repo, sha: str) -> bytes:
        return self.fixed(repo, "cat-file", "blob", sha).stdout

    def read(self, repo: Repo, sha: str, path: str) -> bytes | None:
        """The bytes of a file at a commit, or None."""
        entry = self.entry(repo, sha, path)
        return self.blob(repo, entry.sha) if entry and entry.kind == "blob" else None

    def write_blob(self, repo: Repo, data: bytes) -> str:
        return self.run(repo, "hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()

    def write_tree(self, repo: Repo, base: str | None, changes: Mapping[str, tuple[str, str] | None]) -> str:
        """A tree: ``base`` with, by path, ``(mode, blob)`` put in or (None) taken out. A path git refuses is a 422."""
        _without_nul(*changes)
        with TemporaryDirectory(dir=self.path(repo)) as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            self.run(repo, "read-tree", *([base] if base else ["--empty"]), env=env)
            for path, change in changes.items():
                mode, sha = change or ("0", ZERO)
                if change and mode == "040000":
                    self.run(repo, "read-tree", f"--prefix={path}/", sha, env=env)
                    continue
                line = f"{mode} {sha}\t{path}\0".encode()
                done = self.run(repo, "update-index", "-z", "--index-info", stdin=line, env=env, ok=(0, 1, 128))
                if done.returncode or b"gnoring path" in done.stderr:
                    raise Refusal(422, f"path contains a malformed path component: {path!r}")
            return self.run(repo, "write-tree", env=env).stdout.decode().strip()

    def diff(self, repo: Repo, base: str, head: str, *, patch: bool = True) -> list[Change]:
        """Changed files from ``base`` to ``head`` with renames found; patches as GitHub shows them (hunks only)."""
        raw = self.fixed(repo, "diff-tree", "-r", "-M", "-z", "--raw", "--numstat", base, head).stdout.decode(
            errors="replace"
        )
        changes = changes_of(raw)
        if not patch or not changes:
            return changes
        text = self.fixed(repo, "diff-tree", "-r", "-M", "-p", base, head).stdout.decode(errors="replace")
        parts = re.split(r"^diff --git .*\n", text, flags=re.M)[1:]
        if len(parts) != len(changes):  # a submodule or a mode change git prints differently: do without patches
            return changes
        return [replace(change, patch=hunks_of(part)) for change, part in zip(changes, parts, strict=True)]


def _without_nul(*texts: str) -> None:
    """Neither an argument nor an environment variable nor git itself takes one."""
    if any("\0" in text for text in texts):
        raise Refusal(422, "A NUL character is not allowed here")
