"""Files: reading them at any ref, writing one per commit."""

from __future__ import annotations

import base64
import binascii
import posixpath
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from mlp_ci.sandbox.forge import protection, pushes, shapes
from mlp_ci.sandbox.forge.access import email_of
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply
from mlp_ci.sandbox.forge.objects import Entry, Person
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import Refusal, invalid, parse_date

group = Group()
_PATH = REPO + "/contents/{path}"
_LARGE = 1024 * 1024
LINK = "120000"
PLAIN = ("100644", "100755")


@group("GET", _PATH, "contents")
def get_contents(call: Call) -> Any:
    git = call.forge.git
    ref = call.query.get("ref") or call.repo.default_branch
    sha = git.resolve(call.repo, ref)
    if sha is None:
        raise Refusal(404, f"No commit found for the ref {ref}" if "ref" in call.query else "This repository is empty.")
    path = call.params["path"].strip("/")
    entry = git.entry(call.repo, sha, path)
    if entry is None:
        raise Refusal(404, "Not Found")
    if entry.kind == "tree":
        return _listing(call, ref, sha, path, entry)
    if entry.kind == "commit":
        return _submodule(call, ref, sha, entry)
    data = git.blob(call.repo, entry.sha)
    behind = _behind_link(call, sha, entry, data)
    raw = "raw" in call.headers.get("accept", "")
    if entry.mode == LINK and behind is None and not raw:
        return {**shapes.content(call.forge, call.repo, ref, entry), "target": data.decode(errors="replace")}
    if behind is not None:
        # As github.com has it: the link's own name and path around the other file's id, size and content.
        data = git.blob(call.repo, behind.sha)
        entry = replace(behind, path=entry.path)
    if raw:
        return Response(data, media_type="application/octet-stream")
    return {**shapes.content(call.forge, call.repo, ref, entry), **_encoded(data)}


def _listing(call: Call, ref: str, sha: str, path: str, folder: Entry) -> list[dict[str, Any]]:
    """What a folder holds. Submodules are called files here, as GitHub has it for old clients' sake."""
    prefix = f"{path}/" if path else ""
    found = []
    for inside in call.forge.git.ls(call.repo, folder.sha):
        entry = replace(inside, path=prefix + inside.path)
        if entry.kind == "commit":
            found.append({**_submodule(call, ref, sha, entry), "type": "file"})
        else:
            found.append(shapes.content(call.forge, call.repo, ref, entry))
    return found


def _submodule(call: Call, ref: str, sha: str, entry: Entry) -> dict[str, Any]:
    """The commit of another repository, and where ``.gitmodules`` says that one is."""
    git = call.forge.git
    args = ("config", "--null", "--blob", f"{sha}:.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$")
    told = git.run(call.repo, *args, ok=(0, 1, 128)).stdout.decode(errors="replace")
    settings = dict(item.partition("\n")[::2] for item in told.split("\0") if item)
    name = next((key.removesuffix(".path") for key, value in settings.items() if value == entry.path), "")
    return {
        **shapes.content(call.forge, call.repo, ref, entry),
        "submodule_git_url": settings.get(f"{name}.url", ""),
        "git_url": None,
        "download_url": None,
    }


def _behind_link(call: Call, sha: str, entry: Entry, target: bytes) -> Entry | None:
    """The plain file of the repository that a symbolic link points to, if it does; one step, no link to a link."""
    if entry.mode != LINK:
        return None
    place = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), target.decode(errors="replace")))
    if place.startswith(("/", "..")) or "\0" in place:
        return None
    found = call.forge.git.entry(call.repo, sha, place)
    return found if found is not None and found.path == place and found.mode in PLAIN else None


@group("PUT", _PATH, "contents")
def put_contents(call: Call) -> Any:
    if "content" not in call.body:
        msg = "Contents"
        raise invalid(msg, "content", "missing_field")
    blob = call.forge.git.write_blob(call.repo, from_base64(call.get("content", str, "")))
    entry, existed = _write(call, ("100644", blob))
    return Reply(entry, 200 if existed else 201)


@group("DELETE", _PATH, "contents")
def delete_contents(call: Call) -> Any:
    call.text("sha")
    return _write(call, None)[0]


def _write(call: Call, change: tuple[str, str] | None) -> tuple[dict[str, Any], bool]:
    """Commit one file and give GitHub's answer; the ``sha`` of the file before must match: 409 and 422."""
    git, repo = call.forge.git, call.repo
    path = call.params["path"].strip("/")
    message = call.text("message")
    branch = call.get("branch", str, repo.default_branch)
    ref = f"refs/heads/{branch}"
    people = _people(call)
    with git.lock(repo):
        tip = git.refs(repo, ref).get(ref)
        if tip is None and (git.refs(repo, "refs/heads") or not git.valid_ref(repo, ref)):
            raise Refusal(404, f"Branch {branch} not found")
        before = git.entry(repo, tip, path) if tip else None
        _match(before, call.get("sha", str), path, deleting=change is None)
        tree = git.write_tree(repo, tip, {path: change})
        new = git.commit_tree(repo, tree, [tip] if tip else [], message, people)
        _guard(call, ref)
        pushes.move(call.forge, repo, call.actor, ref, new, tip or ZERO)
    after = git.entry(repo, new, path) if change else None
    shape = shapes.content(call.forge, repo, branch, after) if after else None
    return {"content": shape, "commit": shapes.git_commit(call.forge, repo, git.commit(repo, new))}, before is not None


def _match(before: Entry | None, sha: str | None, path: str, *, deleting: bool) -> None:
    if before is None and (deleting or sha):
        raise Refusal(404 if deleting else 409, "Not Found" if deleting else f"{path} does not match {sha}")
    if before is not None and before.kind == "tree":
        raise Refusal(422, f"{path} is a folder")
    if before is not None and not sha:
        raise Refusal(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if before is not None and before.sha != sha:
        raise Refusal(409, f"{path} does not match {sha}")


def _guard(call: Call, ref: str) -> None:
    """Refuse a commit on a branch that takes pull requests only."""
    if ref in protection.closed_refs(call.forge, call.repo, call.actor):
        raise Refusal(409, "Repository rule violations found\n\nChanges must be made through a pull request.\n\n")


def _people(call: Call) -> tuple[Person, Person]:
    """Author and committer of the body; whoever is missing is the user who asks."""
    user = call.actor.user
    own = {"name": user.name or user.login, "email": email_of(user)}
    committer = person_of(call, "committer", own)
    return person_of(call, "author", {"name": committer.name, "email": committer.email}), committer


def from_base64(text: str) -> bytes:
    """Bytes of a body's base64, which may be broken into lines; anything else is a 422."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, "content is not valid Base64") from error


def person_of(call: Call, field: str, default: dict[str, str]) -> Person:
    """A ``{name, email, date}`` of the body as a Person."""
    given = call.get(field, dict, default)
    if not all(isinstance(given.get(key), str) and given[key].strip() for key in ("name", "email")):
        msg = "Commit"
        raise invalid(msg, field)
    date = given.get("date")
    return Person(given["name"], given["email"], parse_date(str(date)) if date else "")


def _encoded(data: bytes) -> dict[str, Any]:
    """A file's content; of a large one GitHub gives none here, only by its blob."""
    if len(data) > _LARGE:
        return {"encoding": "none", "content": ""}
    return {"encoding": "base64", "content": base64.encodebytes(data).decode()}
