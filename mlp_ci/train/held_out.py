"""Keeps held-out data out of the working tree while a training command runs, and brings it back, always."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER = "held-out"


@contextmanager
def out_of_reach(repo: Path, work: Path, paths: Sequence[str]) -> Iterator[None]:
    """Move ``paths`` of ``repo`` away for as long as the block runs.

    A process that is killed inside the block leaves them below ``work``; :func:`bring_back` at the next start mends it.
    """
    try:
        for path in paths:
            source, aside = repo / path, work / FOLDER / path
            if source.exists() or source.is_symlink():
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, aside)
        yield
    finally:
        bring_back(repo, work)


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
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
            restored.append(path.as_posix())
    shutil.rmtree(aside, ignore_errors=True)
    return restored
