"""The only caller of git. Values in, values out; a failed git is an error that shows what git said."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """What a commit did to a file. ``status``: A added, M modified, D deleted, T another kind of file."""

    status: str
    path: str
    blob: str  # what it holds now; zeros where it is gone
    mode: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit as git has it; names are what its maker claimed. ``changes`` are those against the first parent."""

    sha: str
    parents: tuple[str, ...]
    author: str
    committer: str
    date: str  # of the committer, ISO 8601
    subject: str
    changes: tuple[FileChange, ...]


def commit_of(repo: Path, *names: str) -> str | None:
    """The commit that the first of these refs that is there points to; None when none is."""
    for name in names:
        try:
            return git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        except OutsideError:
            continue
    return None


def commits(repo: Path, tip: str, *paths: str, first_parent: bool = False) -> list[Commit]:
    """The history of ``tip`` (what touches ``paths``, if given), oldest first, with what each commit changed."""
    asked = ["log", "-z", "--reverse", "--topo-order", "--raw", "--no-abbrev", "--no-renames", "--root"]
    asked += [
        "--diff-merges=first-parent",
        "--no-show-signature",
        "--no-follow",
        *(["--first-parent"] if first_parent else []),
    ]
    printed = _text(_bytes(repo, *asked, "--format=tformat:%H%x00%P%x00%an%x00%cn%x00%cI%x00%s", tip, "--", *paths))
    found: list[Commit] = []
    tokens = iter(printed.split("\0"))
    sha = next(tokens)
    while sha:
        parents, author, committer, date, subject = islice(tokens, 5)
        changes, token = [], ""
        for token in tokens:  # each change as `:mode mode blob blob status`, then its path; after them the next commit
            about = token.lstrip("\n")
            if about.startswith(":"):
                _, mode, _, blob, status = about.split(" ")
                changes.append(FileChange(status=status, path=next(tokens), blob=blob, mode=mode))
            elif about:
                break
        people = {"author": author, "committer": committer, "date": date, "subject": subject}
        found.append(Commit(sha=sha, parents=tuple(parents.split()), changes=tuple(changes), **people))
        sha = token
    return found


def files_in(repo: Path, tip: str) -> dict[str, str]:
    """Path → blob id of every file in a commit, by its full path; what is no file (a submodule) has an empty id."""
    listed = _text(_bytes(repo, "ls-tree", "-r", "-z", "--full-tree", tip)).split("\0")
    entries = [entry.split("\t", 1) for entry in listed if entry]
    return {path: about.split()[2] if about.split()[1] == "blob" else "" for about, path in entries}


def blobs(repo: Path, ids: Iterable[str], *, largest: int) -> dict[str, bytes]:
    """Blob id → content, all in two processes; what is missing or larger than ``largest`` is left out."""
    wanted = "".join(f"{blob}\n" for blob in dict.fromkeys(ids))
    sizes = _text(_bytes(repo, "cat-file", "--batch-check", stdin=wanted.encode())).splitlines()
    known = [line.split() for line in sizes]
    small = [about for about in known if len(about) == 3 and about[1] == "blob" and int(about[2]) <= largest]
    printed = _bytes(repo, "cat-file", "--batch", stdin="".join(f"{about[0]}\n" for about in small).encode())
    found, at = {}, 0
    for name, _, size in small:
        begin = printed.index(b"\n", at) + 1
        found[name] = printed[begin : begin + int(size)]
        at = begin + int(size) + 1
    return found


def fetch_branch(store: Path, url: str, branch: str, token: str = "") -> str:
    """Bring a branch of another repository into the bare repository ``store``; its head.

    The token goes through the environment: a command line can be read by everybody on the machine.
    """
    if not (store / "HEAD").is_file():
        store.mkdir(parents=True, exist_ok=True)
        git(store, "init", "--quiet", "--bare")
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{url}.extraHeader"}
    basic = b64encode(f"x-access-token:{token}".encode()).decode()
    env["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {basic}" if token else ""
    ref = f"refs/heads/{branch}"
    git(store, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", url, f"+{ref}:{ref}", env=env)
    return git(store, "rev-parse", ref)


def is_shallow(repo: Path) -> bool:
    """Whether the clone lacks older history."""
    return git(repo, "rev-parse", "--is-shallow-repository") == "true"


def _bytes(repo: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments],
            capture_output=True,
            check=False,
            input=stdin,  # nothing, unless something is given: git must not ask whoever started us
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
