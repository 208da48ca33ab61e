"""Keeps held-out data from a training command: off the machine in a job, out of the work tree everywhere else.

A job's machine gets held-out data back from the DVC remote when the model is judged, so there it is removed, from the
work tree and from DVC's cache, where an evaluation before may have left it. On a person's own machine the file is only
moved aside: it may be the one copy there is, and fetching it after every training would cost more than it shows.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import dvc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = "held-out"
CACHE_FOLDER = "held-out-cache"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A work tree, the folder for what is moved aside, and the paths of held-out and of training data in the tree."""

    repo: Path
    work: Path
    held_out: str
    train: str


@contextmanager
def out_of_reach(repo: Path, work: Path, paths: Sequence[str]) -> Iterator[None]:
    """Move ``paths`` of ``repo`` aside for as long as the block runs.

    A process that is killed inside the block leaves them below ``work``; :func:`bring_back` at the next start mends it.
    """
    try:
        for path in paths:
            source = repo / path
            if source.exists() or source.is_symlink():
                _move(source, work / FOLDER / path)
        yield
    finally:
        bring_back(repo, work)


@contextmanager
def never_seen(place: Place, *, in_job: bool) -> Iterator[None]:
    """Keep the held-out data of ``place`` from whatever runs inside the block; what is removed, evaluating fetches."""
    if in_job:
        _clear_cache(place)
        if _replaceable(place):
            _remove(place.repo / place.held_out)
    with out_of_reach(place.repo, place.work, [place.held_out]):
        yield


def _replaceable(place: Place) -> bool:
    """Whether the remote has, byte for byte, what lies in the work tree."""
    tracked = dvc.find_tracked(place.repo, place.held_out)
    if tracked is None or tracked.path != place.held_out or not dvc.lies_here(place.repo, tracked):
        return False
    return dvc.remote_holds(place.repo, place.held_out, dvc.objects_of(place.repo, place.held_out))


def _clear_cache(place: Place) -> None:
    """Take held-out data out of DVC's cache; what training needs as well (the same bytes) stays."""
    wanted = dvc.objects_of(place.repo, place.held_out) - dvc.objects_of(place.repo, place.train)
    there = [(md5, file) for md5 in sorted(wanted) for file in dvc.in_cache(place.repo, md5)]
    if not there:
        return
    safe = dvc.remote_holds(place.repo, place.held_out, {md5 for md5, _ in there})
    for number, (_, file) in enumerate(there):
        if safe:
            file.unlink(missing_ok=True)
            continue
        aside = place.work / CACHE_FOLDER / str(number)
        _move(file, aside)
        aside.with_suffix(".place").write_text(str(file), encoding="utf-8")


def _remove(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink()


def _move(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, destination)


def bring_back(repo: Path, work: Path) -> list[str]:
    """Put everything that was moved away back to its place; returns what was brought back.

    Where something lies at the place again, that is newer and stays; the copy aside is dropped.
    """
    aside = work / FOLDER
    restored = []
    for file in sorted(p for p in aside.rglob("*") if p.is_file() or p.is_symlink()):
        path = file.relative_to(aside)
        target = repo / path
        if not target.exists() and not target.is_symlink():
            _move(file, target)
            restored.append(path.as_posix())
    shutil.rmtree(aside, ignore_errors=True)
    _refill_cache(work / CACHE_FOLDER)
    return restored


def _refill_cache(aside: Path) -> None:
    for note in aside.glob("*.place"):
        target, kept = Path(note.read_text(encoding="utf-8")), note.with_suffix("")
        if kept.is_file() and not target.exists():
            _move(kept, target)
    shutil.rmtree(aside, ignore_errors=True)
