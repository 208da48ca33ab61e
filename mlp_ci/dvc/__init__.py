"""The only user of DVC: which digest git asks for, fetching exactly that, and tracking new data.

DVC takes half a second to start, so it is not asked what its own files already say: digests are read from the
``.dvc`` files, and a file that is there with the right digest is not fetched again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlp_ci.dvc.apart import fetch_straight, in_cache, lend, objects_of
from mlp_ci.dvc.places import is_here, stored
from mlp_ci.dvc.pointers import Tracked, find_tracked, mappings, pointer_text, read_yaml, tracked
from mlp_ci.dvc.remote import RemoteState, look_at_remote, remote_holds
from mlp_ci.dvc.running import check, default_remote, program, run_pull, said_by, transfer_error, without_credentials
from mlp_ci.errors import InputError
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


def tracked_digest(repo: Path, path: str) -> str:
    """The digest that git asks for: ``md5:<hex>``, or ``md5:<hex>.dir`` for a folder and for a file inside one.

    Raises InputError when DVC does not track ``path``.
    """
    return tracked(repo, path).digest


def pull(repo: Path, paths: Sequence[str], *, apart: Collection[str] = ()) -> dict[str, Path]:
    """Bring exactly these files into the working tree, fetching only what is missing; path → absolute path.

    What of them is ``apart`` (held-out data) goes straight to its place and leaves no copy in DVC's cache, where a
    training that comes later could find it.

    Raises InputError for a file that is not tracked, was changed, was never pushed or is empty, and OutsideError
    when the remote does not answer.
    """
    doing(f"looking for {', '.join(paths)}")
    asked = [tracked(repo, path) for path in paths]
    missing = sorted({t.path for t in asked if not is_here(repo, t)})
    straight = [path for path in missing if path in apart]
    with ThreadPoolExecutor(max_workers=1) as pool:
        fetching = pool.submit(fetch_straight, repo, straight)
        through_cache = [path for path in missing if path not in apart]
        if through_cache:
            run_pull(repo, through_cache)
        if left := fetching.result():
            run_pull(repo, left)
    found = {path: repo / path for path in paths}
    for path, file in found.items():
        if not file.exists():
            msg = f"{path} is not in the data that DVC fetched"
            raise InputError(msg, fix=f"`dvc add {path}`, `dvc push`, and commit {path}.dvc")
        if file.is_file() and file.stat().st_size == 0:
            msg = f"{path} is an empty file"
            why = "there is nothing to check and nothing to train on"
            raise InputError(msg, why=why, fix=f"write the data, then `dvc add {path} && dvc push`")
    return found


def get(repo: Path, path: str, revision: str, destination: Path) -> None:
    """Fetch a tracked file or folder as it was at a git revision to ``destination``, which does not exist yet.

    Raises InputError and OutsideError as :func:`pull` does.
    """
    done = program(repo, "get", ".", path, "--rev", revision, "--out", str(destination))
    if done.returncode != 0:
        raise transfer_error(repo, "get", [path], said_by(done))


def lies_here(repo: Path, tracked: Tracked) -> bool:
    """Whether the working tree holds these very bytes."""
    return is_here(repo, tracked)


def add_and_push(repo: Path, paths: Sequence[str]) -> list[str]:
    """Track these files as they are now and push them; returns the ``.dvc`` files that changed, for git.

    Pushes even when nothing changed, so that a run killed between the two steps is finished by the next one.
    """
    for path in paths:
        if not (repo / path).exists():
            msg = f"{path} does not exist"
            raise InputError(msg, fix=f"write {path} first")
    before = {path: pointer_text(repo, path) for path in paths}
    check(program(repo, "add", "--quiet", *paths), f"`dvc add {' '.join(paths)}`")
    done = program(repo, "push", *paths)
    if done.returncode != 0:
        raise transfer_error(repo, "push", list(paths), said_by(done))
    return [f"{path}.dvc" for path in paths if pointer_text(repo, path) != before[path]]


def imported(repo: Path, path: str) -> bool:
    """Whether ``path`` was made by ``dvc import`` or ``dvc import-url``, so that ``dvc update`` can make it newer."""
    pointer = repo / f"{path}.dvc"
    return pointer.is_file() and bool(mappings(read_yaml(pointer, f"{path}.dvc").get("deps")))


def update_imports(repo: Path, paths: Sequence[str]) -> None:
    """Bring imported files up to their source. Raises OutsideError with what DVC said when that fails."""
    check(program(repo, "update", "--quiet", *(f"{path}.dvc" for path in paths)), f"`dvc update {' '.join(paths)}`")


__all__ = [
    "RemoteState",
    "Tracked",
    "add_and_push",
    "default_remote",
    "find_tracked",
    "get",
    "imported",
    "in_cache",
    "lend",
    "lies_here",
    "look_at_remote",
    "objects_of",
    "program",
    "pull",
    "remote_holds",
    "said_by",
    "stored",
    "tracked",
    "tracked_digest",
    "update_imports",
    "without_credentials",
]
