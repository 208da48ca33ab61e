"""Where sets of checkpoints are kept: with the run in MLflow, or in the team's DVC remote.

A set is named by its digest and stored whole before anything names it; so it is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from mlp_ci.errors import InputError, MlpError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.dvc.folders import Corner
    from mlp_ci.tracking import Tracking
    from mlp_ci.train.snapshot import Kept, Snapshot

FORMAT = "mlp-ci/checkpoints/v1"
FOLDER = "checkpoints"
AT_A_TIME = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Cancelled(Exception):
    """Saving was given up, because there is something newer to save."""


class Store(Protocol):
    """Keeps sets of checkpoints of one train key, each under a name that goes into the run's tag."""

    def save(self, snapshot: Snapshot, cancelled: Callable[[], bool]) -> str:
        """Store the set and return its name; what is stored already does not travel again."""
        ...

    def fetch(self, name: str, scratch: Path) -> Path:
        """A folder below ``scratch`` with the set, or with the one before it; InputError when neither is whole."""
        ...

    def forget_others(self) -> None:
        """Drop what neither the newest set nor, where it is kept, the one before needs."""
        ...

    def clear(self) -> None:
        """Drop everything."""
        ...


class InMlflow:
    """Sets as artefacts of the run: files by digest in ``checkpoints/files``, and a list of its files for each set."""

    def __init__(self, tracking: Tracking, run_id: str, name: str, scratch: Path) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._scratch = scratch
        self._newest = name
        self._sets: dict[str, dict[str, Any]] = {}  # name → its list, of the sets that are kept
        self._stored: set[str] | None = None  # digests of files that lie there; None: not looked yet

    def save(self, snapshot: Snapshot, cancelled: Callable[[], bool]) -> str:
        stored = self._look()
        missing = {k.sha256: path for path, k in snapshot.files.items() if k.sha256 not in stored}

        def upload(digest: str, path: str) -> None:
            if cancelled():
                raise Cancelled
            link = self._scratch / "upload" / digest  # names of files are the team's; a store may stumble over them
            link.unlink(missing_ok=True)
            link.symlink_to(snapshot.mirror / path)
            self._tracking.log_file(self._run_id, link, f"{FOLDER}/files")
            stored.add(digest)

        shutil.rmtree(self._scratch / "upload", ignore_errors=True)
        (self._scratch / "upload").mkdir(parents=True)
        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            list(pool.map(lambda item: upload(*item), missing.items()))
        text = _list_of(snapshot.files, self._newest)
        name = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        file = self._scratch / "upload" / "set.json"
        file.write_text(text, encoding="utf-8")
        self._tracking.log_file(self._run_id, file, _place(name))
        self._sets = {k: v for k, v in self._sets.items() if k == self._newest} | {name: json.loads(text)}
        self._newest = name
        return name

    def _look(self) -> set[str]:
        """The files that lie there; those of a set that was never finished are used again."""
        if self._stored is None:
            self._stored = set(self._names("files"))
            if self._newest:
                with suppress(MlpError):
                    self._sets[self._newest] = self._list(self._newest)
        return self._stored

    def _names(self, folder: str) -> list[str]:
        return [PurePosixPath(p).name for p in self._tracking.artifact_names(self._run_id, f"{FOLDER}/{folder}")]

    def _list(self, name: str) -> dict[str, Any]:
        raw = self._tracking.read_bytes(self._run_id, f"{_place(name)}/set.json")
        if f"sha256:{hashlib.sha256(raw).hexdigest()}" != name:
            msg = f"the list of the checkpoints {name[:19]} is not the one that was stored"
            raise InputError(msg, fix="find out who changed MLflow's artefacts")
        value: dict[str, Any] = json.loads(raw)
        return value

    def fetch(self, name: str, scratch: Path) -> Path:
        target = scratch / "fetched"
        before = ""
        try:
            value = self._list(name)
            before = str(value.get("before", ""))
            self._fetch_files(value["files"], target)
        except InputError:
            if not before:
                raise
            self._fetch_files(self._list(before)["files"], target)
        return target

    def _fetch_files(self, files: dict[str, dict[str, Any]], target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)

        def bring(path: str, digest: str) -> None:
            if not _DIGEST.fullmatch(digest) or ".." in PurePosixPath(path).parts or path.startswith("/"):
                msg = f"the list of checkpoints names {path!r}"
                raise InputError(msg, fix="find out who changed MLflow's artefacts")
            apart = self._scratch / "download" / hashlib.sha256(path.encode()).hexdigest()
            file = self._tracking.download(self._run_id, f"{FOLDER}/files/{digest}", apart)
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != digest:
                msg = f"the checkpoint {path} in MLflow is not the one that was stored"
                raise InputError(msg, fix="look into MLflow's store of artefacts")
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            file.replace(target / path)

        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            list(pool.map(lambda item: bring(item[0], str(item[1]["sha256"])), files.items()))
        shutil.rmtree(self._scratch / "download", ignore_errors=True)

    def forget_others(self) -> None:
        needed = {str(f["sha256"]) for value in self._sets.values() for f in value["files"].values()}
        stored = self._look()
        for digest in stored - needed:
            self._tracking.remove_artifact(self._run_id, f"{FOLDER}/files/{digest}")
            stored.discard(digest)
        keep = {PurePosixPath(_place(name)).name for name in self._sets}
        for name in set(self._names("sets")) - keep:
            self._tracking.remove_artifact(self._run_id, f"{FOLDER}/sets/{name}")

    def clear(self) -> None:
        self._tracking.remove_artifact(self._run_id, FOLDER)


class InDvc:
    """Sets in a corner of the DVC remote, one at a time: a set is whole before the one before is dropped."""

    def __init__(self, corner: Corner) -> None:
        self._corner = corner

    def save(self, snapshot: Snapshot, cancelled: Callable[[], bool]) -> str:
        if cancelled():
            raise Cancelled
        return self._corner.save()

    def fetch(self, name: str, scratch: Path) -> Path:
        return self._corner.fetch(name)

    def forget_others(self) -> None:
        self._corner.forget_others()

    def clear(self) -> None:
        self._corner.clear()


def _place(name: str) -> str:
    return f"{FOLDER}/sets/{name.removeprefix('sha256:')[:16]}"


def _list_of(files: dict[str, Kept], before: str) -> str:
    listed = {path: {"sha256": kept.sha256, "size": kept.size} for path, kept in sorted(files.items())}
    return json.dumps({"format": FORMAT, "before": before, "files": listed}, sort_keys=True)
