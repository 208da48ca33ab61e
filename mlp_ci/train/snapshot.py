"""A copy of a folder that somebody is writing to, in which no file is half of itself.

A file may be caught while it is written, and a folder between two files that belong together. So a copy counts only if
nothing in the folder moved while it was made and no process of the command held a file of it open for writing. For
folders that never come to rest, each file counts by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PIECE = 4 * 1024 * 1024
# Which file, how long, and when it was changed last: (device, inode, bytes, nanoseconds).
Look = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One file of a snapshot: how the original looked, and what is in it."""

    look: Look
    sha256: str
    size: int


def listing(folder: Path) -> dict[str, Look]:
    """The files of a folder by path. A link counts as the file it leads to, unless that lies outside of the folder."""
    found: dict[str, Look] = {}
    root = os.path.realpath(folder)
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 (four times a second)
            with contextlib.suppress(OSError):
                if os.path.islink(path) and not os.path.realpath(path).startswith(root + os.sep):  # noqa: PTH114
                    continue
                stat = os.stat(path)  # noqa: PTH116
                if os.path.isfile(path):  # noqa: PTH113
                    relative = os.path.relpath(path, folder).replace(os.sep, "/")
                    found[relative] = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def being_written(folder: Path, processes: Iterable[int]) -> set[str]:
    """The files of a folder that one of these processes holds open for writing, as far as the system tells."""
    import psutil

    root = os.path.realpath(folder) + os.sep
    found = set()
    for pid in processes:
        with contextlib.suppress(psutil.Error, OSError):
            for file in psutil.Process(pid).open_files():
                mode = getattr(file, "mode", "r")  # told by Linux only
                if file.path.startswith(root) and mode not in ("r", "rt"):
                    found.add(file.path.removeprefix(root))
    return found


class Snapshot:
    """The copy of ``source`` in ``mirror``; only files that changed are copied again."""

    def __init__(self, source: Path, mirror: Path) -> None:
        self.source = source
        self.mirror = mirror
        self.files: dict[str, Kept] = {}

    def take(self, writers: Iterable[int] = (), *, at_rest: bool = True) -> bool:
        """Bring the copy up to date; False, and nothing is changed, when the folder moved meanwhile.

        With ``at_rest`` false a folder in motion is taken file by file: what moved keeps its last whole copy, if it
        has one. Raises OSError when there is no room for a copy.
        """
        before = listing(self.source)
        busy = being_written(self.source, writers)
        if at_rest and busy:
            return False
        new = self.mirror.with_name(f"{self.mirror.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        changed = {p: look for p, look in before.items() if p not in self.files or self.files[p].look != look}
        try:
            digests = {p: _copy(self.source / p, new / p) for p in changed}
        except FileNotFoundError:  # it went away while it was looked at
            return False
        after = listing(self.source)
        moved = {p for p in {*before, *after} if before.get(p) != after.get(p)}
        if at_rest and (moved or being_written(self.source, writers)):
            return False
        copies = {p: _kept(changed[p], digest) for p, digest in digests.items() if p not in moved}
        self._put_in_place(new, copies, keep={*before, *after})
        return True

    def take_for_good(self, *, link: bool) -> None:
        """Bring the copy up to date when nobody writes any more; ``link``: without copying, where that works."""
        now = listing(self.source)
        new = self.mirror.with_name(f"{self.mirror.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        changed = {p: look for p, look in now.items() if p not in self.files or self.files[p].look != look}
        for path in changed:
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if link:
                with contextlib.suppress(OSError):
                    os.link(os.path.realpath(self.source / path), target)
            if not target.exists():
                shutil.copyfile(self.source / path, target)
        self._put_in_place(new, {p: _kept(look, _digest(new / p)) for p, look in changed.items()}, keep=set(now))

    def _put_in_place(self, new: Path, copies: Mapping[str, Kept], keep: set[str]) -> None:
        for path in set(self.files) - keep:
            (self.mirror / path).unlink(missing_ok=True)
            del self.files[path]
        self.mirror.mkdir(parents=True, exist_ok=True)
        for path, kept in copies.items():
            target = self.mirror / path
            if target.is_dir():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            (new / path).replace(target)
            self.files[path] = kept
        shutil.rmtree(new, ignore_errors=True)

    def drop(self) -> None:
        """Remove the copy from the disk."""
        shutil.rmtree(self.mirror, ignore_errors=True)
        shutil.rmtree(self.mirror.with_name(f"{self.mirror.name}.new"), ignore_errors=True)
        self.files = {}


def _kept(look: Look, digest: str) -> Kept:
    return Kept(look=look, sha256=digest, size=look[2])


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the SHA-256 of what was copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as original, target.open("wb") as copy:
        while piece := original.read(PIECE):
            digest.update(piece)
            copy.write(piece)
    return digest.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
