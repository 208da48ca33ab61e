"""``mlp-ci reproduce``: commit, data and environment of a version, trained again, and what came out held against it."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from mlp_ci import dvc
from mlp_ci.errors import GateError, InputError, MlpError
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.reproduce.causes import causes, machine_differences, signs
from mlp_ci.reproduce.checkout import checked_out
from mlp_ci.reproduce.compare import Difference, difference, differing_files, differing_requirements
from mlp_ci.spec import load_model
from mlp_ci.train import train
from mlp_ci.train.flow import connect_to
from mlp_ci.train.key import Marked, TrainKey, train_key

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.tracking import RunFact, Tracking, VersionFact

TOLERANCE = 1e-6
SAME_BYTES, SAME_PREDICTIONS, DIFFERENT = "same bytes", "same predictions", "different"
SOURCES = (".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".R", ".jl")
LARGEST_SOURCE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A version's run and the run that trained it again, each with the folder of its model; and what differs."""

    version: VersionFact
    before: RunFact
    now: RunFact
    folders: tuple[Path, Path]
    files: list[str]
    predictions: Difference | None  # None where the bytes are the same: then nothing has to be predicted

    @property
    def verdict(self) -> str:
        if not self.files:
            return SAME_BYTES
        return SAME_PREDICTIONS if self.predictions and self.predictions.same else DIFFERENT


def reproduce(ctx: Context, number: int, *, tolerance: float = TOLERANCE, log: TextIO | None = None) -> Report:
    """Train version ``number`` again from what git, DVC and its lock say, in a run of its own that is never registered.

    Raises InputError for a version that is not there or cannot be rebuilt here; what training itself raises, it raises.
    """
    spec = load_model(ctx.repo)
    tracking = connect_to(ctx)
    version = tracking.version(spec.name, number)
    before = tracking.run(version.run_id)
    if not version.commit:
        msg = f"version {number} of {spec.name} does not say which commit it was trained from"
        raise InputError(msg, fix="only versions that `mlp-ci register` made can be reproduced")
    with checked_out(ctx, before.tags.get("mlp.commit") or version.commit) as there:
        then = load_model(there.repo)
        if then.name != spec.name:
            msg = f"at commit {version.commit[:12]} this folder holds the model {then.name}, not {spec.name}"
            raise InputError(msg, fix="run it in the folder that the model was in, with --path")
        key = train_key(there, then)
        now = _trained_again(there, version, before, key, log)
        pair = _compared(there, then, key, tracking, (version, before, now, tolerance))
        given_away = _signs(there.repo, tracking, now)
    tracking.log(now.run_id, tags={"mlp.reproduction": pair.verdict})
    return _report(spec, tracking, pair, _differs(key, pair), given_away)


def _trained_again(there: Context, version: VersionFact, before: RunFact, key: TrainKey, log: TextIO | None) -> RunFact:
    """A new run of the same key's parts, beside the one that counts."""
    from mlp_ci.train.backends import name_of
    from mlp_ci.train.params import Chosen, noted

    marked = Marked(
        salt=uuid.uuid4().hex,
        tags={"mlp.reproduces": str(version.number), "mlp.reproduction_of": before.run_id},
    )
    chosen = noted(before.tags) or Chosen(values={})
    spec = load_model(there.repo)
    # A cluster would train under the key itself and find the version's own run; here it is trained anew.
    place = replace(there, backend="runner") if name_of(there, spec) in ("kubernetes", "ray") else there
    report = train(place, log=log or sys.stdout, search=lambda *_: chosen, marked=marked)
    return connect_to(there).run(str(report.outputs["run-id"]))


def _compared(
    there: Context,
    spec: ModelSpec,
    key: TrainKey,
    tracking: Tracking,
    about: tuple[VersionFact, RunFact, RunFact, float],
) -> Pair:
    from mlp_ci.evaluate.models import cached_model

    version, before, now, tolerance = about
    one = cached_model(there, tracking, before.run_id, version.digest)
    other = cached_model(there, tracking, now.run_id, now.digest)
    files = [] if version.digest == now.digest else differing_files(one, other)
    predictions = _predictions(there, spec, key, (one, other), tolerance) if files else None
    return Pair(version=version, before=before, now=now, folders=(one, other), files=files, predictions=predictions)


def _predictions(
    there: Context, spec: ModelSpec, key: TrainKey, folders: tuple[Path, Path], tolerance: float
) -> Difference:
    """Both models on the held-out rows as they were at the commit."""
    from mlp_ci.evaluate.models import where_of
    from mlp_ci.evaluate.predict import predict_only
    from mlp_ci.evaluate.rows import read_held_out

    file = dvc.pull(there.repo, [spec.data.test], apart=[spec.data.test])[spec.data.test]
    held_out = read_held_out(file, spec)
    where = where_of(there, spec, key)
    said = []
    for folder, whose in zip(folders, ("the version's model", "the model that was trained again"), strict=True):
        one = predict_only(folder, held_out, spec, where)
        if isinstance(one, MlpError):
            return Difference(rows=len(held_out), incomparable=f"{whose} cannot be tried: {one.what}")
        said.append(one.predictions)
    return difference(said[0], said[1], tolerance)


# ---------------------------------------------------------------- why


def _differs(key: TrainKey, pair: Pair) -> list[str]:
    """What differs between the two trainings, before anything is said about chance."""
    parts = json.loads(pair.before.tags.get("mlp.key_parts") or "{}")
    changed = [part for part in key.changed_since(parts) if part in parts and part != "environment"]
    found = [f"{part}: not what it was, although the commit is the same" for part in changed]
    return found + machine_differences(pair.before.tags, pair.now.tags)


def _signs(repo: Path, tracking: Tracking, now: RunFact) -> list[str]:
    from mlp_ci.git import tracked_files

    sources = []
    for name in sorted(tracked_files(repo)):
        file = repo / name
        is_source = file.suffix in SOURCES and name != "model.yaml" and file.is_file()
        if is_source and file.stat().st_size <= LARGEST_SOURCE:
            sources.append(file.read_text(encoding="utf-8", errors="replace"))
    log = tracking.read_bytes(now.run_id, "train.log") if tracking.has_artifact(now.run_id, "train.log") else b""
    return signs("\n".join(sources), log.decode("utf-8", errors="replace"))


# ---------------------------------------------------------------- report


def _report(spec: ModelSpec, tracking: Tracking, pair: Pair, differs: list[str], given_away: list[str]) -> Report:
    name, verdict = f"{spec.name} {pair.version.number}", pair.verdict
    different = verdict == DIFFERENT
    headline = f"{name} comes out again: {verdict}" if not different else f"{name} comes out different"
    report = Report(command="reproduce", headline=headline, outcome=Outcome.FAIL if different else Outcome.PASS)
    report.findings = [_finding(pair)]
    why: list[str] = []
    if different:
        packages = differing_requirements(*pair.folders)
        why = causes(differs, packages, given_away)
        report.findings += [
            Finding(check="cause", outcome=Outcome.INCONCLUSIVE, severity="warning", message=cause) for cause in why
        ]
        report.exit_code = GateError.exit_code
    elif differs:
        message = "not the same, and it did not matter: " + "; ".join(differs)
        report.findings.append(Finding(check="machine", outcome=Outcome.PASS, message=message))
    said = pair.predictions
    facts = {
        "commit": pair.before.tags.get("mlp.commit", "")[:12],
        "digest then": pair.version.digest,
        "digest now": pair.now.digest,
        "files that differ": ", ".join(pair.files[:5]) if pair.files else "none",
        "held-out rows": said.rows if said else None,
        "rows that differ": f"{said.share:.2%}" if said and not said.incomparable else None,
        "largest difference": f"{said.most:.3g}" if said and not said.incomparable else None,
        "seconds then, now": f"{_seconds(pair.before):.1f}, {_seconds(pair.now):.1f}",
    }
    rows = tuple((what, value) for what, value in facts.items() if value is not None)
    report.tables = [Table(title="", columns=("what", "value"), rows=rows)]
    report.outputs = {"result": verdict.replace(" ", "-"), "run-id": pair.now.run_id}
    report.data = {
        "version": pair.version.number,
        "result": verdict,
        "run_id": pair.now.run_id,
        "files": pair.files,
        "share": said.share if said else 0.0,
        "most": said.most if said else 0.0,
        "causes": why,
    }
    report.links = [("run of the version", tracking.run_page(pair.before.run_id))]
    report.links.append(("run of the reproduction", tracking.run_page(pair.now.run_id)))
    return report


def _finding(pair: Pair) -> Finding:
    said = pair.predictions
    if said is None:
        exact = pair.version.digest == pair.now.digest
        message = "every file is the same, byte for byte"
        if not exact:
            message = "every file is the same, but for the moment and the names that MLflow writes anew each time"
        return Finding(check="files", outcome=Outcome.PASS, message=message)
    if said.incomparable:
        return Finding(check="predictions", outcome=Outcome.FAIL, message=said.incomparable)
    message = f"{said.share:.2%} of {said.rows:,} held-out rows are predicted otherwise; the largest difference is "
    message += f"{said.most:.3g}"
    if said.decided_otherwise is not None:
        message += f"; {said.decided_otherwise:.2%} get another class"
    return Finding(check="predictions", outcome=Outcome.PASS if said.same else Outcome.FAIL, message=message)


def _seconds(run: RunFact) -> float:
    try:
        return float(run.tags.get("mlp.train_seconds") or 0)
    except ValueError:
        return 0.0
