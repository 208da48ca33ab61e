"""Where the data is kept, and whether it is there."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlp_ci.dvc.places import place_of, stores_of
from mlp_ci.dvc.pointers import in_lock, in_pointer
from mlp_ci.dvc.running import default_remote, program, why_unreachable, without_credentials

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RemoteState:
    """The default remote, as seen from here.

    ``address`` has no credentials and is empty when there is no remote; ``unreachable`` says why it cannot be
    reached; ``lacking`` are the paths whose data it does not have, None where finding out would take too long.
    """

    address: str = ""
    unreachable: str = ""
    lacking: tuple[str, ...] | None = None


def look_at_remote(repo: Path, paths: Sequence[str], *, seconds: float) -> RemoteState:
    """Where the data is kept and whether it is there; paths that DVC does not track are left out."""
    remote = default_remote(repo)
    if remote is None:
        return RemoteState()
    address, shown = urlsplit(remote), without_credentials(remote)
    folder = repo / (address.path if address.scheme else remote)
    is_folder = address.scheme in ("", "file")
    unreachable = why_unreachable(str(folder) if is_folder else remote)
    if unreachable:
        return RemoteState(address=shown, unreachable=unreachable)
    asked = [found for path in paths if (found := in_pointer(repo, path) or in_lock(repo, path))]
    if is_folder:
        return RemoteState(address=shown, lacking=tuple(t.path for t in asked if place_of([folder], t.md5) is None))
    names = [t.path for t in asked]
    try:
        done = program(repo, "status", "--cloud", "--json", *names, timeout=seconds)
        status = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return RemoteState(address=shown)
    return RemoteState(address=shown, lacking=tuple(name for name in names if status.get(name) in ("new", "missing")))


def remote_holds(repo: Path, path: str, md5s: Collection[str], *, seconds: float = 60.0) -> bool:
    """Whether the default remote surely has these objects, all of which belong to ``path``."""
    folders = stores_of(repo)[1:]
    if folders:
        return all(place_of(folders, md5) is not None for md5 in md5s)
    lacking = look_at_remote(repo, [path], seconds=seconds).lacking
    return lacking is not None and path not in lacking
