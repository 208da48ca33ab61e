"""The only caller of git. Values in, values out; a failed git is an error that shows what git said."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REMOTE = re.compile(
    r"^(?:(?P<scheme>https?)://(?:[^@/]*@)?(?P<host>[^/]+)/|(?:ssh://)?[^@/]+@(?P<ssh>[^:/]+)[:/])"
    r"(?P<name>[^/]+/[^/]+?)(?:\.git)?/?$"
)


def git(repo: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run git in ``repo`` and return what it printed, without the final newline."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **(env or {})},
        )
    except FileNotFoundError as error:
        msg = "git is not installed"
        raise OutsideError(msg, fix="install git and run again") from error
    if done.returncode != 0:
        what = f"`git {' '.join(arguments[:2])}` failed: {done.stderr.strip() or done.stdout.strip()}"
        raise OutsideError(what, fix="mend what git says and run again")
    return done.stdout.rstrip("\n")


def is_repository(path: Path) -> bool:
    """Whether ``path`` lies in a git working tree that has a commit."""
    try:
        git(path, "rev-parse", "--verify", "HEAD")
    except OutsideError:
        return False
    return True


def require_repository(path: Path) -> None:
    """Raise InputError unless ``path`` lies in a git working tree with a commit."""
    if not is_repository(path):
        msg = f"{path} is not in a git repository with a commit"
        why = "mlp-ci ties every run and version to a commit"
        raise InputError(msg, why=why, fix="git init && git add -A && git commit -m 'Start the model'")


def head(repo: Path) -> str:
    """The commit that is checked out, 40 hex digits."""
    return git(repo, "rev-parse", "HEAD")


def branch(repo: Path) -> str:
    """The branch that is checked out; empty when HEAD is detached."""
    name = git(repo, "rev-parse", "--abbrev-ref", "HEAD")
    return "" if name == "HEAD" else name


def origin(repo: Path) -> tuple[str, str] | None:
    """Server address and ``owner/name`` of the remote ``origin``; None where there is none that looks like GitHub."""
    try:
        url = git(repo, "remote", "get-url", "origin")
    except OutsideError:
        return None
    match = _REMOTE.match(url)
    if not match:
        return None
    server = f"{match['scheme']}://{match['host']}" if match["host"] else f"https://{match['ssh']}"
    return server, match["name"]


def changed_files(repo: Path) -> list[str]:
    """Tracked files that differ from HEAD and untracked files that git does not ignore."""
    lines = git(repo, "status", "--porcelain", "-z", "--untracked-files=all").split("\0")
    return sorted(line[3:] for line in lines if len(line) > 3)


def tracked_files(repo: Path) -> set[str]:
    """Paths (relative to ``repo``) that git tracks, whether or not they changed."""
    return {path for path in git(repo, "ls-files", "-z").split("\0") if path}


def tracked_blobs(repo: Path) -> dict[str, str]:
    """Path (relative to ``repo``) → blob id, for every tracked file as it is in the working tree now."""
    listed = git(repo, "ls-files", "-s", "-z").split("\0")
    blobs = {entry.split("\t", 1)[1]: entry.split()[1] for entry in listed if entry}
    for path in changed_files(repo):
        file = repo / path
        if file.is_symlink() or not file.is_file():
            blobs.pop(path, None)
        else:
            blobs[path] = _blob_id(file)
    return blobs


def _blob_id(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def add_and_commit(repo: Path, paths: Sequence[str], message: str, *, author: tuple[str, str]) -> str:
    """Commit ``paths`` and return the new commit, or HEAD when they hold no change."""
    git(repo, "add", "--", *paths)
    if not git(repo, "diff", "--cached", "--name-only"):
        return head(repo)
    name, email = author
    identity = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }
    git(repo, "commit", "-q", "-m", message, env=identity)
    return head(repo)
