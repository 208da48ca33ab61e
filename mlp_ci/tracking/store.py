"""Artefacts of runs: straight to the server where it proxies them, else through MLflow's client to their store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.tracking.address import mlflow_client
from mlp_ci.tracking.rest import RestClient, RestError, place_of

AT_A_TIME = 4


class Store:
    """The artefacts behind one client. Paths are relative to a run's artefacts, with forward slashes."""

    def __init__(self, uri: str, client: Any) -> None:
        self._uri = uri
        self._client = client
        self._roots: dict[str, str] = {}
        self._full: Any = None if isinstance(client, RestClient) else client

    def root(self, run_id: str) -> str:
        """Where a run's artefacts are; never changes for a run, so it is asked for once."""
        if run_id not in self._roots:
            self._roots[run_id] = str(self._client.get_run(run_id).info.artifact_uri)
        return self._roots[run_id]

    def names(self, run_id: str, folder: str) -> list[Any]:
        """What lies directly in a folder: objects with ``path`` and ``is_dir``."""
        found: list[Any] = self._client.list_artifacts(run_id, folder or None)
        return found

    def put(self, run_id: str, file: Path, folder: str) -> None:
        place = self._place(run_id, f"{folder}/{file.name}" if folder else file.name)
        if place is None:
            self._mlflow().log_artifact(run_id, str(file), folder or None)
        else:
            self._client.put(place, file)

    def put_folder(self, run_id: str, source: Path, folder: str) -> None:
        """Afterwards exactly the files of ``source`` lie in ``folder``; several travel at a time."""
        files = sorted(p for p in source.rglob("*") if p.is_file())
        wanted = {f"{folder}/{p.relative_to(source).as_posix()}" for p in files}
        if any(item.is_dir or item.path not in wanted for item in self.names(run_id, folder)):
            self.remove(run_id, folder)

        def upload(path: Path) -> None:
            self.put(run_id, path, (PurePosixPath(folder) / path.parent.relative_to(source).as_posix()).as_posix())

        self.root(run_id)
        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            list(pool.map(upload, files))

    def fetch(self, run_id: str, path: str, destination: Path) -> Path:
        """Fetch a file or folder into the empty folder ``destination``; InputError when the run has none."""
        final = destination / PurePosixPath(path).name
        place = self._place(run_id, path)
        if place is None:
            fetched = Path(self._mlflow().download_artifacts(run_id, path, str(destination)))
            return fetched if fetched.exists() else final
        files = self._files_below(run_id, path)
        if not files:
            self._get(run_id, path, final)
            return final

        def one(name: str) -> None:
            self._get(run_id, name, final / PurePosixPath(name).relative_to(path))

        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            list(pool.map(one, files))
        return final

    def _get(self, run_id: str, path: str, destination: Path) -> None:
        try:
            self._client.get(self._place(run_id, path), destination)
        except RestError as error:
            if self._is_there(run_id, path):
                msg = f"downloading {path} of run {run_id} failed: {error}"
                raise OutsideError(msg, fix="see MLflow's log, then run the same command again") from error
            fix = "train and register again, or restore MLflow's artefact store from its backup"
            msg = f"run {run_id} has no artefact {path!r}"
            raise InputError(msg, fix=fix) from error

    def _is_there(self, run_id: str, path: str) -> bool:
        parent = PurePosixPath(path).parent.as_posix()
        return any(i.path == path for i in self.names(run_id, "" if parent == "." else parent))

    def _files_below(self, run_id: str, folder: str) -> list[str]:
        """All files below a folder; a name that points out of it, which no honest server gives, is refused."""
        found: list[str] = []
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            for item in self.names(run_id, here):
                path = PurePosixPath(item.path)
                if ".." in path.parts or not path.is_relative_to(here):
                    msg = f"MLflow lists {item.path!r} inside {here!r}"
                    raise OutsideError(msg, fix="find out what answers at the address of MLflow")
                (waiting if item.is_dir else found).append(item.path)
        return found

    def remove(self, run_id: str, folder: str) -> None:
        """Delete a file or a folder."""
        place = self._place(run_id, folder)
        if place is not None:
            self._client.remove(place)
            return
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(self.root(run_id), tracking_uri=self._uri).delete_artifacts(folder)

    def _place(self, run_id: str, path: str) -> str | None:
        return place_of(self.root(run_id), path) if isinstance(self._client, RestClient) else None

    def _mlflow(self) -> Any:
        self._full = self._full or mlflow_client(self._uri)
        return self._full
