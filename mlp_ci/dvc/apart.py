"""Held-out data goes straight to its place, past the cache where a training that comes later could find it."""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlp_ci.dvc.places import is_here, listing, place_of, stores_of, top_of
from mlp_ci.dvc.pointers import Tracked, find_tracked, tracked
from mlp_ci.dvc.running import program

if TYPE_CHECKING:
    from collections.abc import Sequence


def fetch_straight(repo: Path, paths: Sequence[str]) -> list[str]:
    """Fetch these from the remote to their places; gives back those that DVC's own way must bring (and explain)."""
    top, left = top_of(repo), []
    for path in paths:
        place = repo / path
        if top is None or (place.exists() and not _fetched_before(repo, path)):
            left.append(path)  # somebody's own change: DVC knows whether it may be replaced
            continue
        tmp = top / ".dvc" / "tmp"
        tmp.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="mlp-ci-", dir=tmp) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            if place.exists():  # or DVC would take what lies there for what is asked for
                place.replace(old)
            if program(repo, "get", ".", path, "--out", str(new)).returncode != 0 or not new.exists():
                if old.exists():
                    old.replace(place)
                left.append(path)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            new.replace(place)
        _note_fetched(repo, path)
    return left


def _fetched_file(repo: Path) -> Path:
    return (top_of(repo) or repo) / ".dvc" / "tmp" / "mlp-ci-fetched.json"


def _fetched(repo: Path) -> dict[str, str]:
    try:
        value = json.loads(_fetched_file(repo).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _note_fetched(repo: Path, path: str) -> None:
    scratch = _fetched_file(repo).with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({**_fetched(repo), str(repo / path): tracked(repo, path).md5}), encoding="utf-8")
    scratch.replace(_fetched_file(repo))


def _fetched_before(repo: Path, path: str) -> bool:
    """Whether what lies there is, byte for byte, an older version that was fetched: it can be replaced."""
    md5 = _fetched(repo).get(str(repo / path))
    return md5 is not None and is_here(repo, Tracked(path=path, md5=md5, said_in=""))


def lend(repo: Path, clone: Path) -> None:
    """Let a clone of ``repo`` (both by their top folders) use its cache, its remote and the settings git does not have.

    An address of a remote, like the place of the cache, may be relative to where the repository lies.
    """
    top, stores = top_of(repo), stores_of(repo)
    if top is None or not stores:
        return
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([top / ".dvc" / "config", top / ".dvc" / "config.local"], encoding="utf-8")
    remote = f"'remote \"{settings.get('core', 'remote', fallback='')}\"'"
    for section in ("cache", *([remote] if stores[1:] else [])):
        if not settings.has_section(section):
            settings.add_section(section)
    settings.set("cache", "dir", str(stores[0].resolve()))
    if stores[1:]:
        settings.set(remote, "url", str(stores[1].resolve()))
    file = clone / top.relative_to(repo) / ".dvc" / "config.local"
    if file.parent.is_dir():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            settings.write(stream)


def objects_of(repo: Path, path: str) -> set[str]:
    """The md5 of every file behind ``path`` (and of the list that names them), as far as this machine can tell."""
    found = find_tracked(repo, path)
    if found is None:
        return set()
    if not found.md5.endswith(".dir"):
        return {found.md5}
    listed = {str(item.get("relpath")): str(item.get("md5")) for item in listing(stores_of(repo), found.md5)}
    inside = PurePosixPath(path).relative_to(found.path).as_posix()
    if inside == ".":
        return {found.md5, *listed.values()}
    return {md5 for name, md5 in listed.items() if name == inside or name.startswith(f"{inside}/")}


def in_cache(repo: Path, md5: str) -> list[Path]:
    """Where this object lies in DVC's cache, and in the one of its own that a repository had before it shared one."""
    top = top_of(repo)
    caches = dict.fromkeys([*stores_of(repo)[:1], *([top / ".dvc" / "cache"] if top else [])])
    return [place for cache in caches if (place := place_of([cache], md5)) is not None]
