"""Every question to MLflow and every change in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.tracking.address import open_client, server_time, shown, speaking
from mlp_ci.tracking.facts import Point, RunFact, VersionFact, run_fact, version_fact
from mlp_ci.tracking.rest import RestClient
from mlp_ci.tracking.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

PARAM_LENGTH = 500
BATCH = 100  # MLflow takes at most this many params and tags at once
POINTS = 500  # of the 1000 metrics that it takes at once
SKEW_SECONDS = 60.0  # clocks are set now and then, so theirs is asked for again
_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Tracking:
    """One MLflow. Every method raises OutsideError when MLflow fails and InputError when it refuses."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = open_client(uri)
        self.store = Store(uri, self.client)
        self._skew: float | None = None  # of the server's clock against ours
        self._skew_known = 0.0

    # ------------------------------------------------------------ runs

    def experiment(self, name: str, *, create: bool = False) -> str | None:
        """The id of the experiment; created when asked for, also when another runner does so at the same moment."""
        with speaking(f"looking for experiment {name}"):
            found = self.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            msg = f"the MLflow experiment {name!r} was deleted"
            raise InputError(
                msg,
                why="its name cannot be used again until it is restored or removed for good",
                fix=f"mlflow experiments restore --experiment-id {found.experiment_id}",
            )
        if found is not None:
            return str(found.experiment_id)
        if not create:
            return None
        try:
            return str(self.client.create_experiment(name))
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS":
                return self.experiment(name)
            with speaking(f"creating experiment {name}"):
                raise

    def run(self, run_id: str) -> RunFact:
        with speaking(f"reading run {run_id}"):
            return run_fact(self.client.get_run(run_id))

    def find_runs(self, experiment: str, train_key: str) -> list[RunFact]:
        """The runs with this train key: those with a whole model first, then the oldest first."""
        eid = self.experiment(experiment)
        if eid is None:
            return []
        with speaking(f"searching the runs of {experiment}"):
            found = self.client.search_runs([eid], f"tags.`mlp.train_key` = '{train_key}'", max_results=50)
        return sorted((run_fact(r) for r in found), key=lambda r: (not r.trained, r.started, r.run_id))

    def find_run(self, experiment: str, train_key: str) -> RunFact | None:
        """The run with this train key: the one with a whole model, else the oldest unfinished one, else None."""
        return next(iter(self.find_runs(experiment, train_key)), None)

    def runs(self, experiment: str, since: datetime, until: datetime) -> list[RunFact]:
        """Runs that started in ``[since, until)``, oldest first; none where there is no such experiment."""
        window = [int(moment.timestamp() * 1000) for moment in (since, until)]
        condition = f"attributes.start_time >= {window[0]} AND attributes.start_time < {window[1]}"
        return self._search(experiment, condition)

    def tagged(self, experiment: str, tag: str, value: str) -> list[RunFact]:
        """All runs with this value of a tag, oldest first; none where there is no such experiment."""
        return self._search(experiment, f"tags.`{tag}` = '{_plain(value)}'")

    def _search(self, experiment: str, condition: str) -> list[RunFact]:
        eid = self.experiment(experiment)
        if eid is None:
            return []
        found: list[Any] = []
        token = None
        with speaking(f"searching the runs of {experiment}"):
            while True:
                page = self.client.search_runs([eid], condition, max_results=500, page_token=token)
                found += page
                token = page.token
                if not token:
                    return sorted((run_fact(r) for r in found), key=lambda r: (r.started, r.run_id))

    def start_run(self, experiment_id: str, name: str, tags: Mapping[str, str], started: datetime) -> str:
        with speaking("starting a run"):
            moment = int(started.timestamp() * 1000)
            run = self.client.create_run(experiment_id, start_time=moment, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def set_status(self, run_id: str, status: str, ended: datetime | None = None) -> None:
        """``status`` is RUNNING, FINISHED, FAILED or KILLED; ``ended`` goes with all but the first."""
        with speaking(f"marking run {run_id} {status}"):
            if status == "RUNNING":
                self.client.update_run(run_id, status=status)
            else:
                self.client.set_terminated(run_id, status, int(ended.timestamp() * 1000) if ended else None)

    def delete_run(self, run_id: str) -> None:
        with speaking(f"deleting run {run_id}"):
            self.client.delete_run(run_id)

    def log(
        self,
        run_id: str,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Tags, params and metrics in as few requests as MLflow's limits allow; long params are cut."""
        shortened = {k: str(v)[:PARAM_LENGTH] for k, v in (params or {}).items()}
        measured, tagged = dict(metrics or {}), dict(tags or {})
        with speaking(f"writing to run {run_id}"):
            for start in range(0, max(len(measured), len(shortened), len(tagged)), BATCH):
                end = start + BATCH
                self._log_batch(
                    run_id,
                    dict(list(measured.items())[start:end]),
                    dict(list(shortened.items())[start:end]),
                    dict(list(tagged.items())[start:end]),
                )

    def _log_batch(self, run_id: str, metrics: dict[str, float], params: dict[str, str], tags: dict[str, str]) -> None:
        if isinstance(self.client, RestClient):
            self.client.log_values(run_id, metrics, params, tags)
            return
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            [Metric(k, float(v), now, 0) for k, v in metrics.items()],
            [Param(k, v) for k, v in params.items()],
            [RunTag(k, v) for k, v in tags.items()],
        )

    def log_curve(self, run_id: str, name: str, points: Mapping[int, float]) -> None:
        """Values of one metric by step."""
        known = list(points.items())
        with speaking(f"writing to run {run_id}"):
            for start in range(0, len(known), BATCH):
                part = dict(known[start : start + BATCH])
                if isinstance(self.client, RestClient):
                    self.client.log_steps(run_id, name, part)
                    continue
                from mlflow.entities import Metric

                now = int(time.time() * 1000)
                self.client.log_batch(run_id, [Metric(name, float(v), now, step) for step, v in part.items()], [], [])

    def curve(self, run_id: str, name: str) -> dict[int, float]:
        """What :meth:`log_curve` wrote, by rising step; of several values of one step the one written last."""
        with speaking(f"reading run {run_id}"):
            found = self.client.get_metric_history(run_id, name)
        by_time = sorted(found, key=lambda m: (m.step, m.timestamp))
        return {int(m.step): float(m.value) for m in by_time}

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Values of many metrics, each with the moment it was measured."""
        with speaking(f"writing to run {run_id}"):
            for start in range(0, len(points), POINTS):
                part = points[start : start + POINTS]
                if isinstance(self.client, RestClient):
                    self.client.log_points(run_id, [(p.name, p.value, p.moment, p.step) for p in part])
                    continue
                from mlflow.entities import Metric

                self.client.log_batch(run_id, [Metric(p.name, p.value, p.moment, p.step) for p in part], [], [])

    def now(self) -> float:
        """The time of the MLflow server (Unix seconds, to the second), which is the same for all that speak to it.

        Where no server tells the time, that of this machine.
        """
        if self._skew is None or time.monotonic() - self._skew_known > SKEW_SECONDS:
            told = server_time(self.uri)
            if told is not None:
                self._skew = told - time.time()
            self._skew_known = time.monotonic()
        return time.time() + (self._skew or 0.0)

    def run_page(self, run_id: str) -> str:
        """The page of a run in MLflow's UI; for an address without a UI, the run's id."""
        if not self.uri.startswith("http"):
            return f"run {run_id} in {shown(self.uri)}"
        with speaking(f"reading run {run_id}"):
            experiment = self.client.get_run(run_id).info.experiment_id
        return f"{shown(self.uri)}/#/experiments/{experiment}/runs/{run_id}"

    # ------------------------------------------------------------ artefacts

    def log_file(self, run_id: str, file: Path, artifact_folder: str = "") -> None:
        """Store one file with a run, replacing one of the same name."""
        with speaking(f"uploading {file.name}"):
            self.store.put(run_id, file, artifact_folder)

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        """Store a folder with a run so that exactly its files lie there; several files travel at a time."""
        with speaking(f"uploading {artifact_folder}"):
            self.store.put_folder(run_id, folder, artifact_folder)

    def remove_artifact(self, run_id: str, artifact_path: str) -> None:
        """Delete a file or a folder of a run; where there is none, nothing."""
        with speaking(f"removing {artifact_path}"):
            self.store.remove(run_id, artifact_path)

    def artifact_names(self, run_id: str, folder: str) -> list[str]:
        """The paths of what lies directly in a folder of a run's artefacts; none where there is no such folder."""
        with speaking(f"listing the artefacts of run {run_id}"):
            return [str(item.path) for item in self.store.names(run_id, folder)]

    def has_artifact(self, run_id: str, artifact_path: str) -> bool:
        """Whether the run holds a file or a folder of this path."""
        parent = artifact_path.rpartition("/")[0]
        with speaking(f"listing the artefacts of run {run_id}"):
            return any(i.path == artifact_path for i in self.store.names(run_id, parent))

    def download(self, run_id: str, artifact_path: str, destination: Path) -> Path:
        """Fetch a file or folder into the folder ``destination``; returns where it lies, ``destination/<name>``.

        Arrives whole or not at all. Proves nothing about the bytes: see :func:`verify_digest`.
        """
        destination.mkdir(parents=True, exist_ok=True)
        scratch = destination / f".download-{os.getpid()}-{time.monotonic_ns()}"
        scratch.mkdir()
        final = destination / Path(artifact_path).name
        try:
            with speaking(f"downloading {artifact_path} of run {run_id}"):
                fetched = self.store.fetch(run_id, artifact_path, scratch)
            if not fetched.exists() or (fetched.is_dir() and not any(fetched.rglob("*"))):
                fix = "train and register again, or restore MLflow's artefact store from its backup"
                msg = f"run {run_id} has no artefact {artifact_path!r}"
                raise InputError(msg, fix=fix)
            if final.is_dir():
                shutil.rmtree(final)
            fetched.replace(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return final

    def read_bytes(self, run_id: str, artifact_path: str) -> bytes:
        """The bytes of one small artefact."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="mlp-ci-") as folder:
            return self.download(run_id, artifact_path, Path(folder)).read_bytes()

    def read_json(self, run_id: str, artifact_path: str) -> dict[str, Any]:
        """One JSON artefact; InputError when it is not a JSON object."""
        try:
            value = json.loads(self.read_bytes(run_id, artifact_path))
        except ValueError as error:
            msg = f"{artifact_path} of run {run_id} is not JSON: {error}"
            raise InputError(msg, fix="run `mlp-ci evaluate` again") from error
        if not isinstance(value, dict):
            msg = f"{artifact_path} of run {run_id} is not a JSON object"
            raise InputError(msg, fix="run `mlp-ci evaluate` again")
        return value

    # ------------------------------------------------------------ versions

    def version(self, model: str, number: int) -> VersionFact:
        """One version; InputError, with the numbers that exist, when it does not."""
        found = self.find_version(model, number)
        if found is None:
            numbers = ", ".join(str(v.number) for v in self.versions(model)) or "none yet"
            msg = f"there is no version {number} of {model}"
            raise InputError(msg, fix=f"versions that exist: {numbers}")
        return found

    def find_version(self, model: str, number: int) -> VersionFact | None:
        """One version; None when the registry has none of that number. A refused look is an error, not a None."""
        try:
            return version_fact(self.client.get_model_version(model, str(number)))
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                return None
            with speaking(f"reading version {number} of {model}"):
                raise

    def versions(self, model: str) -> list[VersionFact]:
        """All versions, lowest number first; none where the model is not registered."""
        found: list[Any] = []
        token = None
        with speaking(f"listing the versions of {model}"):
            while True:
                page = self.client.search_model_versions(
                    f"name = '{_plain(model)}'", max_results=1000, page_token=token
                )
                found += page
                token = page.token
                if not token:
                    return sorted((version_fact(v) for v in found), key=lambda v: v.number)

    def register_model(self, model: str, description: str, tags: Mapping[str, str]) -> None:
        """Make the registry's entry unless it is there."""
        try:
            self.client.create_registered_model(model, tags=dict(tags), description=description)
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS":
                return
            with speaking(f"creating the registered model {model}"):
                raise

    def create_version(self, model: str, run_id: str, tags: Mapping[str, str], description: str) -> VersionFact:
        """A new version of the artefact ``model/`` of a run."""
        with speaking(f"creating a version of {model}"):
            source = f"{self.store.root(run_id)}/model"
            made = self.client.create_model_version(model, source, run_id, tags=dict(tags), description=description)
            return version_fact(made)

    def delete_version(self, model: str, number: int) -> None:
        with speaking(f"deleting version {number} of {model}"):
            self.client.delete_model_version(model, str(number))

    def set_version_tags(self, model: str, number: int, tags: Mapping[str, str]) -> None:
        with speaking(f"tagging version {number} of {model}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(model, str(number), key, value)

    def alias(self, model: str, stage: str) -> int | None:
        """The version that the alias names; None when there is no such alias or model."""
        try:
            return int(self.client.get_model_version_by_alias(model, stage).version)
        except Exception as error:
            code = getattr(error, "error_code", "")
            if code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)):
                return None
            with speaking(f"reading the alias {stage} of {model}"):
                raise

    def set_alias(self, model: str, stage: str, number: int) -> None:
        with speaking(f"setting the alias {stage} of {model}"):
            self.client.set_registered_model_alias(model, stage, str(number))

    def version_page(self, model: str, number: int) -> str:
        """The page of a version in MLflow's UI; for an address without a UI, its name."""
        if not self.uri.startswith("http"):
            return f"{model} version {number} in {shown(self.uri)}"
        return f"{shown(self.uri)}/#/models/{model}/versions/{number}"


def _plain(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        msg = f"{name!r} is not the name of a model"
        raise InputError(msg, fix="lower-case letters, digits and hyphens")
    return name
