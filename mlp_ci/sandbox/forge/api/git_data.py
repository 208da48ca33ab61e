"""Git's own objects: refs, trees, blobs and commits, so that several files can be committed at once."""

from __future__ import annotations

import base64
from typing import Any

from mlp_ci.sandbox.forge import protection, pushes, shapes
from mlp_ci.sandbox.forge.access import email_of
from mlp_ci.sandbox.forge.api.contents import from_base64, person_of
from mlp_ci.sandbox.forge.api.repositories import REPO
from mlp_ci.sandbox.forge.api.routing import Call, Group, Reply, page
from mlp_ci.sandbox.forge.repos import ZERO, is_sha
from mlp_ci.sandbox.forge.store import Refusal, invalid

group = Group()
_MODES = ("100644", "100755", "040000", "160000", "120000")


@group("GET", REPO + "/git/ref/{ref}", "contents")
def get_ref(call: Call) -> Any:
    ref = f"refs/{call.params['ref']}"
    sha = _all_refs(call).get(ref)
    if sha is None:
        raise Refusal(404, "Not Found")
    return _shape(call, ref, sha)


@group("GET", REPO + "/git/matching-refs/{ref}", "contents")
def matching_refs(call: Call) -> Any:
    found = [(ref, sha) for ref, sha in _all_refs(call).items() if ref.startswith(f"refs/{call.params['ref']}")]
    return page(call, found, lambda item: _shape(call, *item))


@group("POST", REPO + "/git/refs", "contents")
def create_ref(call: Call) -> Any:
    ref = call.text("ref")
    if not ref.startswith(("refs/heads/", "refs/tags/")) or not call.forge.git.valid_ref(call.repo, ref):
        raise Refusal(422, f"{ref} is not a valid ref name")
    sha = _object(call, call.text("sha"))
    with call.forge.git.lock(call.repo):
        if ref in call.forge.git.refs(call.repo):
            raise Refusal(422, "Reference already exists")
        pushes.move(call.forge, call.repo, call.actor, ref, sha, ZERO)
    return Reply(_shape(call, ref, sha), 201)


@group("PATCH", REPO + "/git/refs/{ref}", "contents")
def update_ref(call: Call) -> Any:
    ref = f"refs/{call.params['ref']}"
    new = _object(call, call.text("sha"))
    with call.forge.git.lock(call.repo):
        old = _existing(call, ref)
        forced = call.get("force", bool, False) and ref not in protection.unforced_refs(
            call.forge, call.repo, call.actor
        )
        if not forced and not call.forge.git.is_ancestor(call.repo, old, new):
            raise Refusal(422, "Update is not a fast forward")
        pushes.move(call.forge, call.repo, call.actor, ref, new, old)
    return _shape(call, ref, new)


@group("DELETE", REPO + "/git/refs/{ref}", "contents")
def delete_ref(call: Call) -> Any:
    ref = f"refs/{call.params['ref']}"
    with call.forge.git.lock(call.repo):
        old = _existing(call, ref)
        kept = protection.undeletable_refs(call.forge, call.repo, call.actor)
        if ref in (*kept, f"refs/heads/{call.repo.default_branch}"):
            raise Refusal(422, "Cannot delete this branch")
        pushes.move(call.forge, call.repo, call.actor, ref, ZERO, old)


@group("POST", REPO + "/git/blobs", "contents")
def create_blob(call: Call) -> Any:
    encoding = call.choice("encoding", ("utf-8", "base64"), "utf-8")
    content = call.get("content", str)
    if content is None:
        msg = "Blob"
        raise invalid(msg, "content", "missing_field")
    data = from_base64(content) if encoding == "base64" else content.encode()
    sha = call.forge.git.write_blob(call.repo, data)
    return Reply({"sha": sha, "url": f"{shapes.repo_url(call.forge, call.repo)}/git/blobs/{sha}"}, 201)


@group("GET", REPO + "/git/blobs/{file_sha}", "contents")
def get_blob(call: Call) -> Any:
    sha = _known(call, call.params["file_sha"], "blob")
    data = call.forge.git.blob(call.repo, sha)
    return {
        "sha": sha,
        "node_id": sha,
        "size": len(data),
        "url": f"{shapes.repo_url(call.forge, call.repo)}/git/blobs/{sha}",
        "content": base64.encodebytes(data).decode(),
        "encoding": "base64",
    }


@group("POST", REPO + "/git/trees", "contents")
def create_tree(call: Call) -> Any:
    base = call.get("base_tree", str)
    if base is not None and call.forge.git.kind(call.repo, base) not in ("tree", "commit"):
        raise Refusal(404, "base_tree not found")
    items = call.get("tree", list)
    if not items:
        msg = "Tree"
        raise invalid(msg, "tree", "missing_field")
    changes = dict(_change(call, item) for item in items)
    return Reply(_tree(call, call.forge.git.write_tree(call.repo, base, changes)), 201)


@group("GET", REPO + "/git/trees/{tree_sha}", "contents")
def get_tree(call: Call) -> Any:
    rev = call.params["tree_sha"]
    git = call.forge.git
    if git.kind(call.repo, rev) == "tree":
        return _tree(call, rev, recursive="recursive" in call.query)
    sha = git.resolve(call.repo, rev)
    if sha is None:
        raise Refusal(404, "Not Found")
    return _tree(call, git.commit(call.repo, sha).tree, recursive="recursive" in call.query)


@group("POST", REPO + "/git/commits", "contents")
def create_commit(call: Call) -> Any:
    git = call.forge.git
    tree = call.text("tree")
    parents = call.texts("parents")
    if git.kind(call.repo, tree) != "tree":
        raise Refusal(422, "Tree SHA does not exist")
    if any(git.kind(call.repo, parent) != "commit" for parent in parents):
        raise Refusal(422, "Parent SHA does not exist or is not a commit object")
    user = call.actor.user
    author = person_of(call, "author", {"name": user.name or user.login, "email": email_of(user)})
    default = {"name": author.name, "email": author.email, "date": author.date}
    committer = person_of(call, "committer", default)
    sha = git.commit_tree(call.repo, tree, parents, call.text("message"), (author, committer))
    return Reply(shapes.git_commit(call.forge, call.repo, git.commit(call.repo, sha)), 201)


@group("GET", REPO + "/git/commits/{commit_sha}", "contents")
def get_commit(call: Call) -> Any:
    sha = _known(call, call.params["commit_sha"], "commit")
    return shapes.git_commit(call.forge, call.repo, call.forge.git.commit(call.repo, sha))


def _all_refs(call: Call) -> dict[str, str]:
    return call.forge.git.refs(call.repo, "refs/heads", "refs/tags", "refs/pull")


def _shape(call: Call, ref: str, sha: str) -> dict[str, Any]:
    return shapes.git_ref(call.forge, call.repo, ref, sha, call.forge.git.kind(call.repo, sha) or "commit")


def _existing(call: Call, ref: str) -> str:
    old = call.forge.git.refs(call.repo).get(ref)
    if old is None:
        raise Refusal(422, "Reference does not exist")
    if ref in protection.closed_refs(call.forge, call.repo, call.actor):
        raise Refusal(422, "Changes must be made through a pull request.")
    return old


def _object(call: Call, sha: str) -> str:
    if call.forge.git.kind(call.repo, sha) not in ("commit", "tag"):
        raise Refusal(422, "Object does not exist")
    return sha


def _known(call: Call, sha: str, kind: str) -> str:
    if call.forge.git.kind(call.repo, sha) != kind:
        raise Refusal(404, "Not Found")
    return sha


def _change(call: Call, item: Any) -> tuple[str, tuple[str, str] | None]:
    if not isinstance(item, dict) or not isinstance(item.get("path"), str) or item.get("mode", "100644") not in _MODES:
        msg = "Tree"
        raise invalid(msg, "tree")
    sha = item.get("sha")
    if isinstance(item.get("content"), str):
        sha = call.forge.git.write_blob(call.repo, item["content"].encode())
    elif sha is None:
        return item["path"], None
    # A submodule's commit is another repository's.
    foreign = item.get("mode") == "160000" and isinstance(sha, str) and is_sha(sha)
    if not isinstance(sha, str) or (not foreign and call.forge.git.kind(call.repo, sha) is None):
        raise Refusal(422, f"tree.sha {sha} is not a valid object")
    return item["path"], (item.get("mode", "100644"), sha)


def _tree(call: Call, sha: str, *, recursive: bool = False) -> dict[str, Any]:
    url = f"{shapes.repo_url(call.forge, call.repo)}/git"
    entries = []
    for entry in call.forge.git.ls(call.repo, sha, recursive=recursive):
        shape = {"path": entry.path, "mode": entry.mode, "type": entry.kind, "sha": entry.sha}
        size = {"size": entry.size} if entry.kind == "blob" else {}
        entries.append({**shape, **size, "url": f"{url}/{entry.kind}s/{entry.sha}"})
    return {"sha": sha, "url": f"{url}/trees/{sha}", "tree": entries, "truncated": False}
