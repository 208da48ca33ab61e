"""The only caller of git. Values in, values out; a failed git is an error that shows what git said."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
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
    """Run git in ``repo`` and return what it printed, without the final newline.

    Bytes that are not UTF-8 (the name of a file may be any bytes) come as surrogates, as in ``os.fsdecode``.
    """
    return _text(_bytes(repo, *arguments, env=env)).rstrip("\n")


def file_at(repo: Path, commit: str, path: str) -> bytes | None:
    """The content of ``path`` (relative to ``repo``) in a commit; None when the commit does not have it."""
    if not _bytes(repo, "ls-tree", "-z", commit, "--", path):
        return None
    return _bytes(repo, "show", f"{commit}:./{path}")


def _bytes(repo: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LANGUAGE": "en", **(env or {})},
        )
    except FileNotFoundError as error:
        msg = "git is not installed"
        raise OutsideError(msg, fix="install git and run again") from error
    if done.returncode != 0:
        what = f"`git {' '.join(arguments[:2])}` failed: {_text(done.stderr).strip() or _text(done.stdout).strip()}"
        raise OutsideError(what, fix="mend what git says and run again")
    return done.stdout


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")


def is_repository(path: Path) -> bool:
    """Whether ``path`` lies in a git working tree that has a commit."""
    try:
        git(path, "rev-parse", "--verify", "HEAD")
    except OutsideError:
        return False
    return True


def require_repository(path: Path) -> None:
    """Raise InputError unless ``path`` lies in a git working tree with a commit."""
    if is_repository(path):
        return
    why = "mlp-ci ties every run and version to a commit"
    try:
        git(path, "rev-parse", "--show-prefix")
    except OutsideError as error:
        if "dubious ownership" in error.what:
            msg = f"git does not trust the repository at {path}: it belongs to another user"
            fix = f"git config --global --add safe.directory {shlex.quote(str(path))}"
            raise InputError(msg, why=why, fix=fix) from None
        msg = f"{path} is not in a git repository"
        fix = (
            "go to the model's folder or pass it with --path; a new one starts with `mlp-ci init FOLDER`, and a folder "
        )
        fix += "with files in it with `git init && git add -A && git commit -m 'Start the model'`"
        raise InputError(msg, why=why, fix=fix) from None
    msg = f"the git repository at {path} has no commit yet"
    raise InputError(msg, why=why, fix="git add -A && git commit -m 'Start the model'")


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
    """Tracked files that differ from HEAD and untracked files that git does not ignore; paths relative to ``repo``.

    ``repo`` may be a subfolder of the working tree: what lies outside it does not count.
    """
    # Unlike ls-files, status names paths from the top of the working tree, wherever it runs.
    prefix = git(repo, "rev-parse", "--show-prefix")
    asked = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    return sorted(entry[3:].removeprefix(prefix) for entry in git(repo, *asked).split("\0") if len(entry) > 3)


def tracked_files(repo: Path) -> set[str]:
    """Paths (relative to ``repo``) that git tracks, whether or not they changed."""
    return {path for path in git(repo, "ls-files", "-z").split("\0") if path}


def tracked_blobs(repo: Path) -> dict[str, str]:
    """Path (relative to ``repo``) → blob id, for every tracked or new file as it is in the working tree now."""
    listed = git(repo, "ls-files", "-s", "-z").split("\0")
    blobs = {entry.split("\t", 1)[1]: entry.split()[1] for entry in listed if entry}
    for path in changed_files(repo):
        file = repo / path
        if file.is_symlink():
            blobs[path] = _blob_id(os.fsencode(file.readlink()))
        elif file.is_file():
            blobs[path] = _blob_id(_content(file, path))
        else:
            blobs.pop(path, None)
    return blobs


def _content(file: Path, path: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        why = "every file of the repository can change training, so each must be read"
        raise InputError(msg, why=why, fix="mend its permissions, or add it to .gitignore", file=path) from error


def _blob_id(content: bytes) -> str:
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
