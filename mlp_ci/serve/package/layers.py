"""Layers of an image: tar files that are the same whenever and wherever the same files go into them."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Layer:
    """A layer that was written. ``diff_id`` is the digest of the tar, which is how an image names it."""

    file: Path
    diff_id: str

    @property
    def size(self) -> int:
        return self.file.stat().st_size


def write(file: Path, entries: Mapping[str, Callable[[], bytes]], *, programs: frozenset[str] = frozenset()) -> Layer:
    """A layer with these files: absolute path → its contents. Owned by root, from 1970, readable by all.

    ``programs`` may be run. The folders above them are part of the layer, since a base image may lack them.
    """
    folders = {parent for path in entries for parent in PurePosixPath(path).parents if parent != PurePosixPath("/")}
    scratch = file.with_name(f".{file.name}.part")
    with scratch.open("wb") as stream:
        watched = _Hashed(stream)
        with tarfile.open(fileobj=watched, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
            for folder in sorted(folders):
                archive.addfile(_about(str(folder), 0o755, folder=True))
            for path in sorted(entries):
                content = entries[path]()
                about = _about(path, 0o755 if path in programs else 0o644)
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    scratch.replace(file)
    return Layer(file, f"sha256:{watched.total.hexdigest()}")


def copied(file: Path, source: IO[bytes]) -> Path:
    """A layer that another image has already, out of that image's archive; it may be compressed there."""
    with file.open("wb") as stream:
        shutil.copyfileobj(source, stream, _CHUNK)
    return file


def folder_entries(folder: Path, place: str) -> dict[str, Callable[[], bytes]]:
    """All files below ``folder``, as they are to lie below ``place``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {f"{place}/{p.relative_to(folder).as_posix()}": p.read_bytes for p in files}


def _about(path: str, mode: int, *, folder: bool = False) -> tarfile.TarInfo:
    about = tarfile.TarInfo(path.lstrip("/"))
    about.mode, about.mtime, about.uid, about.gid = mode, 0, 0, 0
    about.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    return about


class _Hashed:
    """A stream that knows the SHA-256 of all that was written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.total = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.total.update(data)
        return self._stream.write(data)
