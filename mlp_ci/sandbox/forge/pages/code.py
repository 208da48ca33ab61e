"""What is in a repository: files, folders and commits at any branch, tag or commit."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.responses import Response

from mlp_ci.sandbox.forge import access, checks
from mlp_ci.sandbox.forge.pages import markdown
from mlp_ci.sandbox.forge.pages.diffs import file_diffs
from mlp_ci.sandbox.forge.pages.rendering import file_base
from mlp_ci.sandbox.forge.pages.web import REPO, Group, Page, Visit, go
from mlp_ci.sandbox.forge.repos import EMPTY_TREE
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.objects import Entry
    from mlp_ci.sandbox.forge.records import Repo

group = Group()
MAX_SHOWN = 512 * 1024
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
_READMES = ("README.md", "readme.md", "README.markdown", "README.txt", "README")


@group.get(REPO + "/commit/{sha}", "contents")
def commit(visit: Visit) -> Page:
    git, repo = visit.forge.git, visit.repo
    sha = git.resolve(repo, visit.params["sha"])
    if sha is None:
        raise Refusal(404, f"{repo.full_name} has no commit {visit.params['sha'][:40]}")
    found = git.commit(repo, sha)
    files = file_diffs(git.diff(repo, found.parents[0] if found.parents else EMPTY_TREE, sha))
    states = [
        (run.name, run.conclusion or run.status, run.details_url) for run in checks.check_runs(visit.forge, repo, sha)
    ]
    states += [(row.context, row.state, row.target_url) for row in checks.latest_statuses(visit.forge, repo, sha)]
    author = access.by_email(visit.forge, found.author.email)
    name = author.login if author else found.author.name
    body = found.message.partition("\n")[2].strip()
    return Page("commit.html", {"commit": found, "name": name, "body": body, "files": files, "checks": states})


@group.get(REPO + "/tree/{rest:path}", "contents")
def folder(visit: Visit) -> Page | Response:
    ref, sha, path = _place(visit)
    entry = _entry(visit, sha, path)
    if entry.kind != "tree":
        return go(f"{visit.home}/blob/{quote(f'{ref}/{path}')}")
    values = {
        "ref": ref,
        "where": path,
        "crumbs": _crumbs(path),
        **folder_values(visit.forge, visit.repo, ref, path, entry),
    }
    return Page("tree.html", values)


@group.get(REPO + "/blob/{rest:path}", "contents")
def file(visit: Visit) -> Page | Response:
    ref, sha, path = _place(visit)
    entry = _entry(visit, sha, path)
    if entry.kind != "blob":
        return go(f"{visit.home}/tree/{quote(f'{ref}/{path}')}")
    data = visit.forge.git.blob(visit.repo, entry.sha) if entry.size <= MAX_SHOWN else b""
    plain = "plain" in visit.query
    values: dict[str, Any] = {
        "ref": ref,
        "where": path,
        "crumbs": _crumbs(path),
        "size": entry.size,
        "image": mimetypes.guess_type(path)[0] in _IMAGES,
        "binary": b"\0" in data[:8000] or entry.size > MAX_SHOWN,
        "prose": None,
        "lines": [],
        "is_prose": path.lower().endswith((".md", ".markdown")),
    }
    if not values["image"] and not values["binary"]:
        text = data.decode(errors="replace")
        if values["is_prose"] and not plain:
            base, raw = (file_base(visit.repo, kind, ref, path) for kind in ("blob", "raw"))
            values["prose"] = markdown.render(text, base, raw)
        else:
            values["lines"] = highlighted(path, text)
    return Page("blob.html", values)


@group.get(REPO + "/raw/{rest:path}", "contents")
def raw(visit: Visit) -> Response:
    """The bytes of a file. Only images keep their type, and none may run anything: contents are hostile."""
    _, sha, path = _place(visit)
    entry = _entry(visit, sha, path)
    if entry.kind != "blob":
        raise Refusal(404, f"{path} is not a file")
    kind = mimetypes.guess_type(path)[0] or ""
    data = visit.forge.git.blob(visit.repo, entry.sha)
    text = "text/plain; charset=utf-8" if b"\0" not in data[:8000] else "application/octet-stream"
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
    return Response(data, media_type=kind if kind in _IMAGES else text, headers=headers)


def folder_values(forge: Forge, repo: Repo, ref: str, path: str, entry: Entry) -> dict[str, Any]:
    """What a folder's page shows: its entries, folders first, and its README rendered."""
    entries = sorted(forge.git.ls(repo, entry.sha), key=lambda e: (e.kind != "tree", e.path.lower()))
    names = {e.path: e for e in entries if e.kind == "blob" and e.size <= MAX_SHOWN}
    readme = next((names[name] for name in _READMES if name in names), None)
    shown: Markup | None = None
    if readme is not None:
        text = forge.git.blob(repo, readme.sha).decode(errors="replace")
        inside = f"{path}/{readme.path}" if path else readme.path
        if readme.path.lower().endswith((".md", ".markdown")):
            shown = markdown.render(text, file_base(repo, "blob", ref, inside), file_base(repo, "raw", ref, inside))
        else:
            shown = Markup("<pre>{}</pre>").format(text)
    prefix = f"{path}/" if path else ""
    return {"entries": entries, "readme": shown, "readme_name": readme.path if readme else "", "prefix": prefix}


def highlighted(path: str, text: str) -> list[Markup]:
    """Lines of a file as HTML, coloured when its kind is known."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_for_filename
    from pygments.lexers.special import TextLexer
    from pygments.util import ClassNotFound

    options = {"stripnl": False, "ensurenl": False}
    try:
        lexer = get_lexer_for_filename(path.rpartition("/")[2], **options)
    except ClassNotFound:
        lexer = TextLexer(**options)
    html = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return [Markup(line) for line in html.removesuffix("\n").split("\n")]


def _place(visit: Visit) -> tuple[str, str, str]:
    """The ref, its commit and the path inside; a branch's name may hold slashes, so the longest that fits is taken."""
    rest = visit.params["rest"].strip("/")
    git, repo = visit.forge.git, visit.repo
    names = [ref.removeprefix("refs/heads/").removeprefix("refs/tags/") for ref in git.refs(repo)]
    fitting = [name for name in names if rest == name or rest.startswith(f"{name}/")]
    ref = max(fitting, key=len) if fitting else rest.partition("/")[0]
    sha = git.resolve(repo, ref)
    if sha is None:
        raise Refusal(404, f"{repo.full_name} has no branch, tag or commit {ref}")
    return ref, sha, rest[len(ref) :].strip("/")


def _entry(visit: Visit, sha: str, path: str) -> Entry:
    entry = visit.forge.git.entry(visit.repo, sha, path)
    if entry is None:
        raise Refusal(404, f"There is no {path} at {visit.params['rest'].partition('/')[0]}")
    return entry


def _crumbs(path: str) -> list[tuple[str, str]]:
    """(name, path) of each folder on the way, and of the thing itself."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: number + 1])) for number, part in enumerate(parts)]
