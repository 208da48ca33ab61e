"""Which data an argument of ``mlp-ci data`` means: files or an address, now or as they were at a git revision."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc
from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.git import file_at, git
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from mlp_ci.context import Context

DEFAULT_BRANCHES = ("origin/HEAD", "origin/main", "origin/master", "main", "master")


@dataclass(frozen=True, kw_only=True)
class Version:
    """Data to compare. ``digest`` is the one that git asks for, empty where nothing does."""

    source: Source
    shown_as: str
    digest: str = ""


def here(what: str, types: Mapping[str, str] | None = None) -> Source:
    """What lies at a path or an address now. Raises InputError when nothing does."""
    if "://" not in what and not glob.has_magic(what) and not Path(what).exists():
        msg = f"there is no {what}"
        tracked = Path(f"{what}.dvc").is_file()
        fix = f"DVC tracks it: `dvc pull {what}` brings it here" if tracked else "correct the path"
        raise InputError(msg, fix=fix)
    return Source.parse(what, types=types)


def split_revision(repo: Path, what: str) -> tuple[str, str]:
    """``path@revision`` in its two parts; the revision is empty where there is none, or a file of that very name is."""
    path, at, revision = what.rpartition("@")
    if not at or not path or not revision or "://" in what or Path(what).exists() or (repo / what).exists():
        return what, ""
    return path, revision


def commit_of(repo: Path, revision: str) -> str:
    """The commit that a revision names. Raises InputError when git knows none."""
    try:
        return git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except OutsideError as error:
        msg = f"git knows no revision {revision}"
        shallow = "in a job, check out with `fetch-depth: 0`; " if _is_shallow(repo) else ""
        raise InputError(msg, fix=f"{shallow}`git log --oneline` lists commits, `git branch --all` branches") from error


def base_commit(context: Context) -> str:
    """Where this work left the default branch: the merge base with it, or with the pull request's base in a job."""
    pull = context.github.event.get("pull_request") if context.github else None
    named = str((pull.get("base") or {}).get("sha") or "") if isinstance(pull, Mapping) else ""
    tried = [named] if named else list(DEFAULT_BRANCHES)
    for revision in tried:
        try:
            return git(context.repo, "merge-base", "HEAD", revision)
        except OutsideError:
            continue
    msg = f"git finds no common commit with {named[:12] or 'the default branch'}"
    fix = "name the revision to compare with: `mlp-ci data diff --base REVISION`"
    if _is_shallow(context.repo):
        fix = "check out the whole history: `fetch-depth: 0` of actions/checkout, or `git fetch --unshallow`"
    raise InputError(msg, fix=fix)


def _is_shallow(repo: Path) -> bool:
    try:
        return git(repo, "rev-parse", "--is-shallow-repository") == "true"
    except OutsideError:
        return False


# ---------------------------------------------------------------- at a revision


def tracked_at(repo: Path, commit: str, path: str) -> dvc.Tracked | None:
    """What git asked DVC for at ``path`` in a commit; None where DVC did not track it then."""
    relative = PurePosixPath(path)
    for candidate in (relative, *relative.parents):
        if candidate == PurePosixPath("."):
            break
        pointer = f"{candidate}.dvc"
        found = _in_outputs(_yaml(repo, commit, pointer).get("outs"), candidate, candidate.parent)
        if found:
            return dvc.Tracked(path=str(candidate), md5=found, said_in=pointer)
    for folder in relative.parents:
        lock = str(folder / "dvc.lock")
        stages = _yaml(repo, commit, lock).get("stages")
        for stage in stages.values() if isinstance(stages, Mapping) else ():
            outs = stage.get("outs") if isinstance(stage, Mapping) else None
            for candidate in (relative, *list(relative.parents)[:-1]):
                found = _in_outputs(outs, candidate, folder)
                if found:
                    return dvc.Tracked(path=str(candidate), md5=found, said_in=lock)
    return None


def _yaml(repo: Path, commit: str, path: str) -> Mapping[str, Any]:
    import yaml

    content = file_at(repo, commit, path)
    if content is None:
        return {}
    try:
        value = yaml.safe_load(content)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _in_outputs(outs: Any, path: PurePosixPath, folder: PurePosixPath) -> str:
    for out in outs if isinstance(outs, list) else ():
        if isinstance(out, Mapping) and folder / str(out.get("path", "")) == path:
            return str(out.get("md5") or "")
    return ""


def at_commit(repo: Path, commit: str, path: str, folder: Path) -> Version | None:
    """The bytes of ``path`` at a commit, below the empty ``folder``; None where neither DVC nor git had it.

    Looks into DVC's cache first, and else has DVC fetch it. Raises InputError and OutsideError when that fails.
    """
    shown_as = f"{path} at {commit[:8]}"
    tracked = tracked_at(repo, commit, path)
    top = folder / PurePosixPath(path).name
    if tracked is None:
        content = file_at(repo, commit, path)
        if content is None:
            return None
        top.write_bytes(content)
        return Version(source=Source.parse(top, shown_as=shown_as), shown_as=shown_as)
    doing(f"fetching {shown_as}")
    inside = path.removeprefix(tracked.path).strip("/")
    stored = [
        (name, place)
        for name, place in dvc.stored(repo, tracked.md5, top.name)
        if not inside or name == inside or name.startswith(f"{inside}/")
    ]
    is_folder = tracked.md5.endswith(".dir")
    for name, place in stored:
        # The cache names files by their digest; the format is in the name that people gave them.
        link = top if not is_folder or name == inside else top / name.removeprefix(inside).lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place.resolve())
    if not stored:
        dvc.get(repo, path, commit, top)
    return Version(source=Source.parse(top, shown_as=shown_as), shown_as=shown_as, digest=f"md5:{tracked.md5}")


def unchanged_since(repo: Path, commit: str, path: str) -> bool:
    """Whether the bytes at ``path`` are those that git asked for at a commit; nothing is fetched to find out."""
    then, now = tracked_at(repo, commit, path), dvc.find_tracked(repo, path)
    if then is None or now is None or (then.path, then.md5) != (now.path, now.md5):
        return False
    return not (repo / path).exists() or dvc.lies_here(repo, now)


def in_work_tree(repo: Path, path: str) -> Version:
    """The data as it lies in the working tree, fetched if only its ``.dvc`` file is there. Raises InputError."""
    place, tracked = repo / path, dvc.find_tracked(repo, path)
    if not place.exists():
        if tracked is None:
            msg = f"there is no {path} in {repo}"
            raise InputError(msg, fix="correct the path; it is relative to the model repository")
        dvc.pull(repo, [path])
    return Version(source=Source.parse(place, shown_as=path), shown_as=path, digest=tracked.digest if tracked else "")
