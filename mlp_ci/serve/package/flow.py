"""``mlp-ci package VERSION``: the version's image, made, tried and pushed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from mlp_ci import containers
from mlp_ci.errors import GateError, InputError, OutsideError
from mlp_ci.evaluate.models import cached_model
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.serve import smoke
from mlp_ci.serve.package import lock as locks
from mlp_ci.serve.package.contract import tested
from mlp_ci.serve.package.making import Made, made, subject_of
from mlp_ci.spec import load_model
from mlp_ci.train.flow import connect_to

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.containers import Engine
    from mlp_ci.context import Context
    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.image import Subject
    from mlp_ci.spec import ModelSpec
    from mlp_ci.spec.serve import DockerServing
    from mlp_ci.tracking import Tracking, VersionFact

_OCI = "org.opencontainers.image"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for. ``base`` wins over platform.yaml; files are None where they are not wanted."""

    base: str = ""
    push: bool = True
    image: Path | None = None
    sbom: Path | None = None
    lock: Path | None = None


def package(ctx: Context, number: int, options: Options) -> Report:
    """Make the image of version ``number`` of the repository's model, ask it what it must answer, and push it.

    Raises GateError for a version that did not pass its gate, and when the image does not start; InputError for what
    does not fit together; OutsideError when the engine or the registry fails. An image that answers wrongly is a
    report that fails: it stays on the engine, and is not pushed.
    """
    spec = load_model(ctx.repo)
    docker = _settings(ctx, options)
    engine = containers.Engine(containers.program("an image takes a Docker engine"), docker.host or "")
    engine.require()
    asked = locks.parse(_text(options.lock), str(options.lock)) if options.lock else None
    questions = smoke.read(ctx.repo / spec.serve.smoke) if spec.serve.smoke else ()
    tracking = connect_to(ctx)
    version = _version(tracking, spec, number)
    folder = cached_model(ctx, tracking, version.run_id, version.digest)
    subject = subject_of(folder, spec.name, number, version.digest, _lineage(ctx, spec, version))
    with made(engine, docker, subject, ctx.cache_folder / "images", asked) as image:
        findings = [*tested(engine, image.loaded, subject, questions), *another_python(folder, image.base)]
        good = not any(f.outcome is Outcome.FAIL for f in findings)
        if good and options.image:
            image.export(options.image)
        if good and options.sbom:
            options.sbom.write_bytes(image.bill)
        pushed = _push(engine, image.reference) if good and options.push and docker.registry else ""
        if pushed:
            tracking.set_version_tags(spec.name, number, {"mlp.serving_image": pushed})
        return _report(subject, image, findings, pushed, options)


def another_python(folder: Path, base: Base) -> list[Finding]:
    """A warning, where the model was made with another Python than the base has: a pickle may load and yet differ."""
    try:
        made_with = str(yaml.safe_load((folder / "python_env.yaml").read_text(encoding="utf-8"))["python"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []  # not every model says it
    if made_with.split(".")[:2] == base.minor.split("."):
        return []
    message = f"the model was made with Python {made_with}, and {base.name} has {base.minor}"
    fix = f"name a base with Python {'.'.join(made_with.split('.')[:2])}, or train with {base.minor}"
    return [
        Finding(
            check="python",
            outcome=Outcome.INCONCLUSIVE,
            severity="warning",
            subject="image",
            message=message,
            fix=fix,
        )
    ]


def _settings(ctx: Context, options: Options) -> DockerServing:
    from mlp_ci.github import platform_of

    docker = platform_of(ctx).serving.docker
    return docker.model_copy(update={"base": options.base or docker.base})


def _version(tracking: Tracking, spec: ModelSpec, number: int) -> VersionFact:
    version = tracking.version(spec.name, number)
    if version.gate not in ("pass", "inconclusive"):
        msg = f"version {number} of {spec.name} did not pass its gate (it says {version.gate or 'nothing'})"
        raise GateError(msg, fix="package a version that passed")
    if not version.digest:
        msg = f"version {number} of {spec.name} has no digest"
        why = "nobody could say whether the image holds what was registered"
        raise InputError(msg, why=why, fix="package a version that `mlp-ci register` made")
    return version


def _lineage(ctx: Context, spec: ModelSpec, version: VersionFact) -> dict[str, str]:
    """Labels that lead from an image back to code, data, run and evidence."""
    source = f"{ctx.github.server_url}/{ctx.github.full_name}" if ctx.github else ""
    told = {
        f"{_OCI}.source": source,
        f"{_OCI}.revision": version.commit,
        f"{_OCI}.vendor": spec.team,
        "mlp-ci.run": version.run_id,
        "mlp-ci.evidence": version.evidence,
        "mlp-ci.train-key": version.train_key,
        "mlp-ci.data": json.dumps(dict(version.data), sort_keys=True) if version.data else "",
    }
    return {name: value for name, value in told.items() if value}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"the lock {file} cannot be read: {error}"
        raise InputError(msg, fix="give --lock the lock.txt of an image") from error


def _push(engine: Engine, reference: str) -> str:
    """Push the image; what the registry knows it by, as ``repository@sha256:…``."""
    doing(f"pushing {reference}")
    done = engine.ask("push", "--quiet", reference)
    found = engine.describe("image", reference) if done.code == 0 else None
    if found is None:
        msg = f"the registry did not take {reference}"
        fix = "`docker login` to it as somebody who may push there, or package with --no-push"
        raise OutsideError(msg, why=done.why, fix=fix)
    repository = reference.rpartition(":")[0]
    mine = (str(d) for d in found.get("RepoDigests") or () if str(d).startswith(f"{repository}@"))
    return next(mine, reference)


def _report(subject: Subject, image: Made, findings: list[Finding], pushed: str, options: Options) -> Report:
    good = not any(f.outcome is Outcome.FAIL for f in findings)
    where = "pushed" if pushed else "on this engine"
    headline = f"{subject.model}: version {subject.version} is the image {pushed or image.reference} ({where})"
    if not good:
        headline = f"{subject.model}: the image of version {subject.version} does not answer as it should"
    packages = image.library.packages
    came = "fetched as wheels" if image.library.fetched else "copied from where mlp-ci runs"
    table = Table(
        title="",
        columns=("part", "what"),
        rows=(
            ("base", f"{image.base.name} ({image.base.digest[:19]}…, Python {image.base.minor})"),
            ("packages", f"{len(packages)}, {came}"),
            ("size", f"{image.size / 1e6:.0f} MB with the base"),
            ("image", image.image.id),
        ),
    )
    files = [(t, str(f)) for t, f in (("image", options.image), ("bill of materials", options.sbom)) if f and good]
    return Report(
        command="package",
        headline=headline,
        outcome=Outcome.PASS if good else Outcome.FAIL,
        findings=findings,
        tables=[table],
        outputs={"image": pushed or image.reference, "image-id": image.image.id},
        data={
            "version": subject.version,
            "digest": subject.digest,
            "image": image.reference,
            "pushed": pushed,
            "id": image.image.id,
            "base": {"name": image.base.name, "digest": image.base.digest},
            "packages": {p.name: p.version for p in packages},
        },
        links=files,
    )
