"""The models of an evaluation: the trained one, and the versions that it is compared with."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate.gates import Champion
from mlp_ci.evaluate.predict import Where, single_row_python
from mlp_ci.progress import doing
from mlp_ci.tracking import Tracking, artifact_digest, verify_digest
from mlp_ci.train import environment
from mlp_ci.train.key import work_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.context import Context
    from mlp_ci.evaluate.job import Job
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.key import TrainKey


def model_folder(job: Job) -> Path:
    """The run's model on this machine: where training left it if the bytes are the same, else from MLflow."""
    local = work_folder(job.ctx, job.key) / "output" / "model"
    if local.is_dir() and any(local.iterdir()) and artifact_digest(local) == job.run.digest:
        return local
    return cached_model(job.ctx, job.tracking, job.run.run_id, job.run.digest)


def cached_model(ctx: Context, tracking: Tracking, run_id: str, digest: str) -> Path:
    """A run's model by its digest, fetched once per machine and verified each time it is used."""
    folder = ctx.cache_folder / "models" / digest.removeprefix("sha256:")
    kept = folder / "model"
    if kept.is_dir():
        try:
            verify_digest(kept, digest)
        except InputError:
            shutil.rmtree(folder)
        else:
            return kept
    fetched = tracking.download(run_id, "model", folder)
    try:
        verify_digest(fetched, digest)
    except InputError:
        shutil.rmtree(folder)
        raise
    return fetched


def find_champions(job: Job) -> dict[str, Champion]:
    """Stage → the version that has the stage now, for every stage that a gate compares with; not yet measured."""
    doing("looking for the versions to compare with")
    found = {}
    for stage in sorted({g.versus for g in job.spec.evaluate.gates if g.versus}):
        number = job.tracking.alias(job.spec.name, stage)
        version = None if number is None else job.tracking.find_version(job.spec.name, number)
        if number is None:
            found[stage] = Champion(stage=stage, why=f"no version is in {stage} yet, so there is nothing to compare")
        elif version is None:
            why = f"version {number}, which {stage} has, is not in the registry any more"
            found[stage] = Champion(stage=stage, version=number, why=why, broken=True)
        else:
            found[stage] = Champion(stage=stage, version=number, digest=version.digest)
    return found


def champion_folders(job: Job, champions: dict[str, Champion]) -> tuple[dict[str, Path], dict[str, Champion]]:
    """Stage → the folder of its model; and the champions, with what is wrong with those that have none."""
    folders = {}
    champions = dict(champions)
    for stage, champion in champions.items():
        version = None
        if champion.version is not None and not champion.broken:
            version = job.tracking.find_version(job.spec.name, champion.version)
        if version is None:
            continue
        try:
            folders[stage] = cached_model(job.ctx, job.tracking, version.run_id, version.digest)
        except InputError as error:
            champions[stage] = broken(champion, error)
    return folders, champions


def broken(champion: Champion, error: MlpError) -> Champion:
    """A champion that could not be tried, and why."""
    why = f"version {champion.version} in {champion.stage} cannot be tried: {error.what}"
    return replace(champion, why=why, broken=True)


def where_of(ctx: Context, spec: ModelSpec, key: TrainKey) -> Where:
    """The training environment, without the job's secrets: loading a model runs code of the team."""
    return where_in(ctx, spec, lambda: key.parts["environment"])


def where_in(ctx: Context, spec: ModelSpec, digest: Callable[[], str]) -> Where:
    """The same, by the digest of what pins the environment, which is asked for where one has to be made."""
    environ = environment.for_loading(os.environ)
    kind = spec.train.environment
    if kind.kind == "inherit":
        return Where(python=Path(sys.executable), environ=environ)
    environ = {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    programs = environment.executables(kind, digest(), ctx.repo, ctx.cache_folder, lambda text: None)
    return Where(python=single_row_python(programs), environ=environ)
