"""What lies on this machine: files by their digests, the cache, and remotes that are folders."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.dvc.pointers import mappings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.dvc.pointers import Tracked

# Hashing runs at about 600 MB/s; below this size a note about an unchanged file saves nothing.
NOTE_FROM_BYTES = 64 * 1024 * 1024


def is_here(repo: Path, tracked: Tracked) -> bool:
    place = repo / tracked.path
    if tracked.md5.endswith(".dir"):
        return place.is_dir() and md5_of_folder(place) == tracked.md5
    return place.is_file() and md5_of_file(repo, place) == tracked.md5


def md5_of_file(repo: Path, file: Path) -> str:
    """The md5 of a file's bytes; for large files noted by (inode, size, times) under ``.dvc/tmp``."""
    stat = file.stat()
    if stat.st_size < NOTE_FROM_BYTES:
        return hash_of(file)
    notes_file = repo / ".dvc" / "tmp" / "mlp-ci-digests.json"
    key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    try:
        notes = json.loads(notes_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        notes = {}
    name = str(file.relative_to(repo))
    known = notes.get(name) if isinstance(notes, dict) else None
    if isinstance(known, list) and len(known) == 2 and known[0] == key:
        return str(known[1])
    md5 = hash_of(file)
    if notes_file.parent.is_dir():
        scratch = notes_file.with_name(f"{notes_file.name}.{os.getpid()}")
        scratch.write_text(json.dumps({**(notes if isinstance(notes, dict) else {}), name: [key, md5]}))
        scratch.replace(notes_file)
    return md5


def hash_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_of_folder(folder: Path) -> str:
    """DVC's digest of a folder: md5 of the JSON list of its files and their md5, sorted by path."""
    files = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    listed = [{"md5": hash_of(folder / name), "relpath": name} for name in files]
    text = json.dumps(sorted(listed, key=lambda item: item["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def stored(repo: Path, md5: str, name: str) -> tuple[tuple[str, Path], ...]:
    """The files (name, place of the bytes) of the output with this md5, as far as this machine holds them all.

    Looks into DVC's cache and into the default remote where that is a folder; fetches nothing. Empty when a file is
    not there.
    """
    stores = stores_of(repo)
    place = place_of(stores, md5)
    if place is None or not md5.endswith(".dir"):
        return ((name, place),) if place else ()
    listed = listing(stores, md5)
    found = [(str(item.get("relpath")), place_of(stores, str(item.get("md5")))) for item in listed]
    files = tuple((relative, at) for relative, at in found if at)
    return files if files and len(files) == len(found) else ()


def listing(stores: Sequence[Path], md5: str) -> list[Mapping[str, Any]]:
    """The files of a folder, from the list that DVC keeps of them; none where that list is not here."""
    place = place_of(stores, md5)
    try:
        return mappings(json.loads(place.read_text(encoding="utf-8"))) if place else []
    except (OSError, ValueError):
        return []


def place_of(stores: Sequence[Path], md5: str) -> Path | None:
    # The layout of DVC 3, and the one before it.
    places = [store / top / md5[:2] / md5[2:] for store in stores for top in ("files/md5", "")]
    return next((place for place in places if place.is_file()), None)


def stores_of(repo: Path) -> list[Path]:
    """DVC's cache, and then a remote that is a folder, as DVC's configuration says; DVC itself need not be started."""
    top = top_of(repo)
    if top is None:
        return []
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read([*_shared_settings(), top / ".dvc" / "config", top / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return [top / ".dvc" / "cache"]
    cache = settings.get("cache", "dir", fallback="cache")
    remote = settings.get("core", "remote", fallback="")
    url = settings.get(f"'remote \"{remote}\"'", "url", fallback="").removeprefix("file://")
    return [top / ".dvc" / place for place in (cache, url) if place and "://" not in place]


def top_of(repo: Path) -> Path | None:
    """The folder of DVC's repository, which may be above ours."""
    return next((folder for folder in (repo, *repo.resolve().parents) if (folder / ".dvc").is_dir()), None)


def _shared_settings() -> list[Path]:
    """DVC's settings of the machine and of the user, the weaker first."""
    environ = os.environ
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/") / ".config") / "dvc"
    machine = environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc"
    return [Path(folder) / "config" for folder in (machine, environ.get("DVC_GLOBAL_CONFIG_DIR") or user)]
