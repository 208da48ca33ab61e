"""Which version predicts, and with what: its verified folder, its signature, the environment it is loaded in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.evaluate.models import cached_model, where_in
from mlp_ci.evaluate.predict import Where
from mlp_ci.progress import doing
from mlp_ci.serve.model import read_description
from mlp_ci.serve.signature import Signature, compile_signature
from mlp_ci.spec import PROMOTION_FILE, load_model, load_promotion
from mlp_ci.spec.load import MODEL_FILE
from mlp_ci.tracking import artifact_digest
from mlp_ci.train import environment
from mlp_ci.train.flow import connect_to
from mlp_ci.train.key import environment_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.tracking import Tracking, VersionFact


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A version (0: a folder that is no version), its bytes, and what model.yaml says of its data, if there is one."""

    name: str
    version: int
    digest: str
    folder: Path
    where: Where
    spec: ModelSpec | None

    @property
    def said(self) -> str:
        return f"version {self.version} of {self.name}" if self.version else self.name

    def signature(self) -> Signature:
        """What it needs. Nothing is loaded for that. InputError when the folder is no MLflow model."""
        described: Mapping[str, str] = read_description(self.folder).get("signature") or {}
        return compile_signature(described.get("inputs"))


def choose(ctx: Context, version: str, stage: str | None) -> Chosen:
    """What ``VERSION`` or ``--stage`` names: a number, a folder with a model, or what is live in a stage."""
    if bool(version) == bool(stage):
        msg = "say which version predicts" if not version else f"version {version} or what is live in {stage}: not both"
        raise InputError(msg, fix="`mlp-ci predict 3 …`, or `mlp-ci predict --stage production …`")
    if version and not version.isdecimal():
        return _folder(ctx, Path(version))
    spec = load_model(ctx.repo)
    doing("looking for the version")
    tracking = connect_to(ctx)
    number = int(version) if version else _live(tracking, spec.name, str(stage))
    fact = tracking.version(spec.name, number)
    if stage:
        _as_asked(ctx, spec.name, stage, fact)
    doing(f"fetching version {number} of {spec.name}")
    folder = cached_model(ctx, tracking, fact.run_id, fact.digest)
    return Chosen(name=spec.name, version=number, digest=fact.digest, folder=folder, where=_where(ctx, spec), spec=spec)


def _folder(ctx: Context, folder: Path) -> Chosen:
    if not folder.is_dir():
        msg = f"{folder} is neither the number of a version nor a folder"
        raise InputError(msg, fix="give a number, such as 3, or the folder of an MLflow model")
    spec = load_model(ctx.repo) if (ctx.repo / MODEL_FILE).is_file() else None
    plain = Where(python=Path(sys.executable), environ=environment.for_loading(_environ()))
    where = _where(ctx, spec) if spec else plain
    return Chosen(name=str(folder), version=0, digest=artifact_digest(folder), folder=folder, where=where, spec=spec)


def _environ() -> Mapping[str, str]:
    import os

    return os.environ


def _where(ctx: Context, spec: ModelSpec) -> Where:
    return where_in(ctx, spec, lambda: environment_digest(ctx.repo, spec))


def _live(tracking: Tracking, model: str, stage: str) -> int:
    """The version that was deployed: the alias follows deployments, and those were approved."""
    number = tracking.alias(model, stage)
    if number is None:
        msg = f"no version of {model} is live in {stage}"
        fix = f"`mlp-ci promote {stage}` and deploy; or name a version: `mlp-ci predict 3 …`"
        raise InputError(msg, fix=fix)
    return number


def _as_asked(ctx: Context, model: str, stage: str, fact: VersionFact) -> None:
    """Git names the bytes that were approved for a stage; InputError when the registry has others by that number."""
    if not (ctx.repo / PROMOTION_FILE).is_file():
        return
    entry = load_promotion(ctx.repo).stages.get(stage)
    if entry is not None and entry.version == fact.number and entry.digest != fact.digest:
        msg = f"version {fact.number} of {model} has the digest {fact.digest or 'none'} in the registry"
        why = f"{PROMOTION_FILE} asks for {entry.digest} in {stage}; these bytes are others than were approved"
        raise InputError(msg, why=why, fix="find out who changed the tag; register and promote the model again")
