"""``mlp-ci evaluate``: predict the held-out rows, compute metrics, judge the gates, keep the evidence."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci import dvc
from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate import evidence
from mlp_ci.evaluate.bootstrap import Estimate, estimates
from mlp_ci.evaluate.gates import Champion, Measured, Verdict, judge, shown
from mlp_ci.evaluate.importance import Importance
from mlp_ci.evaluate.measured import kinds_of
from mlp_ci.evaluate.metrics import BINARY, computable, metric_called
from mlp_ci.evaluate.predict import NOT_MEASURED, Predicted, Where, predict, single_row_python
from mlp_ci.evaluate.rows import HeldOut, read_held_out
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec import load_model
from mlp_ci.tracking import RunFact, Tracking, artifact_digest, verify_digest
from mlp_ci.train import environment
from mlp_ci.train.flow import connect_to
from mlp_ci.train.key import TrainKey, train_key, work_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every step of one evaluation needs: the trained run of the working tree, and where things are."""

    ctx: Context
    spec: ModelSpec
    key: TrainKey
    tracking: Tracking
    run: RunFact


def evaluate(ctx: Context) -> Report:
    """Evaluate the model that the working tree describes; an evaluation of the same inputs is not done again.

    The report's outcome is fail or inconclusive when a gate says so. Raises InputError when there is no trained run,
    when no gate could be judged, or when the model or the held-out data make evaluating impossible.
    """
    job = open_job(ctx)
    _check_gates(job.spec)
    test_digest = dvc.tracked_digest(ctx.repo, job.spec.data.test)
    champions = find_champions(job)
    intended = evidence.intent(job.spec, job.run, test_digest)
    inputs = evidence.inputs_of(intended, champions)
    folder = evidence.evaluation_folder(inputs)
    if job.tracking.has_artifact(job.run.run_id, f"{folder}/{evidence.FILE}"):
        content = job.tracking.read_bytes(job.run.run_id, f"{folder}/{evidence.FILE}")
        _record(job, folder, content)
        return _report(job, json.loads(content), content, _kept_importance(job, folder), reused=True)
    content, facts, importance = _evaluate(job, inputs, champions)
    _store(job, folder, content, facts)
    _record(job, folder, content)
    return _report(job, json.loads(content), content, importance, reused=False)


def open_job(ctx: Context) -> Job:
    """The trained run of the working tree; InputError, with what changed since the last one, when there is none."""
    spec = load_model(ctx.repo)
    key = train_key(ctx, spec)
    tracking = connect_to(ctx)
    run = tracking.find_run(spec.name, key.digest)
    if run is None or not run.trained:
        raise _not_trained(tracking, spec, key, run)
    return Job(ctx=ctx, spec=spec, key=key, tracking=tracking, run=run)


def _not_trained(tracking: Tracking, spec: ModelSpec, key: TrainKey, run: RunFact | None) -> InputError:
    fix = "run `mlp-ci train` first"
    if run is not None:
        status = run.tags.get("mlp.status", run.status)
        msg = f"training of what lies here is not finished (run {run.run_id}: {status})"
        return InputError(msg, fix=f"{fix}; it goes on where it stopped")
    msg = "what lies here has not been trained"
    experiment = tracking.experiment(spec.name)
    newest = tracking.client.search_runs([experiment], max_results=1) if experiment else []
    if not newest:
        return InputError(msg, why=f"there is no run of {spec.name}", fix=fix)
    parts = json.loads(newest[0].data.tags.get("mlp.key_parts") or "{}")
    changed = ", ".join(key.changed_since(parts)) or "nothing that the key shows"
    why = f"since the newest run these changed: {changed}"
    if "code" in changed:
        fix += "; if training itself writes files into the repository, add them to .gitignore"
    return InputError(msg, why=why, fix=fix)


def _check_gates(spec: ModelSpec) -> None:
    task = None if spec.evaluate.task == "auto" else spec.evaluate.task
    for gate in spec.evaluate.gates:
        metric = metric_called(gate.metric, task)
        if gate.slice and metric.values is None:
            msg = f"{gate.metric} is measured for the whole model and has no slices"
            raise InputError(msg, fix=f"take `slice: {gate.slice}` out of the gate", file="model.yaml")


# ---------------------------------------------------------------- models


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
        if number is None:
            found[stage] = Champion(stage=stage, why=f"no version is in {stage} yet, so there is nothing to compare")
            continue
        version = job.tracking.version(job.spec.name, number)
        found[stage] = Champion(stage=stage, version=number, digest=version.digest)
    return found


# ---------------------------------------------------------------- evaluating


def _evaluate(
    job: Job, inputs: Mapping[str, Any], champions: dict[str, Champion]
) -> tuple[bytes, dict[str, dict[str, Any]], Importance]:
    """The evidence, the other files to keep with it (by name), and what the predictions rest on."""
    file = dvc.pull(job.ctx.repo, [job.spec.data.test])[job.spec.data.test]
    held_out = read_held_out(file, job.spec)
    for gate in job.spec.evaluate.gates:
        metric_called(gate.metric, held_out.task)
    ours = model_folder(job)
    folders, champions = _champion_folders(job, champions)
    said = _predict(job, [ours, *folders.values()], held_out)
    this = said[0]
    if isinstance(this, MlpError):
        raise this
    measured = _measure(this, ours)
    for stage, theirs in zip(folders, said[1:], strict=True):
        champions[stage] = _tried(champions[stage], theirs, folders[stage])
    verdicts = [
        judge(gate, measured, champions, held_out.slices, job.spec.evaluate.min_slice_rows)
        for gate in job.spec.evaluate.gates
    ]
    _require_judged(verdicts)
    content = evidence.evidence_bytes(inputs, job.run, (measured, len(held_out)), champions, verdicts)
    return content, _facts(this), this.importance


def _champion_folders(job: Job, champions: dict[str, Champion]) -> tuple[dict[str, Path], dict[str, Champion]]:
    folders = {}
    champions = dict(champions)
    for stage, champion in champions.items():
        if champion.version is None:
            continue
        version = job.tracking.version(job.spec.name, champion.version)
        try:
            folders[stage] = cached_model(job.ctx, job.tracking, version.run_id, version.digest)
        except InputError as error:
            champions[stage] = _broken(champion, error)
    return folders, champions


def _broken(champion: Champion, error: MlpError) -> Champion:
    why = f"version {champion.version} in {champion.stage} cannot be tried: {error.what}"
    return Champion(stage=champion.stage, version=champion.version, digest=champion.digest, why=why, broken=True)


def _tried(champion: Champion, said: Predicted | MlpError, folder: Path) -> Champion:
    if isinstance(said, MlpError):
        return _broken(champion, said)
    return Champion(
        stage=champion.stage, version=champion.version, digest=champion.digest, measured=_measure(said, folder)
    )


def _predict(job: Job, folders: list[Path], held_out: HeldOut) -> list[Predicted | MlpError]:
    """In the training environment and without the job's secrets: loading a model runs code of the team."""
    doing("predicting the held-out rows")
    environ = environment.for_loading(os.environ)
    kind = job.spec.train.environment
    if kind.kind == "inherit":
        python = Path(sys.executable)
    else:
        environ = {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        lock = job.key.parts["environment"]
        programs = environment.executables(kind, lock, job.ctx.repo, job.ctx.cache_folder, lambda text: None)
        python = single_row_python(programs)
    robustness = kinds_of(job.spec.evaluate.gates)
    return predict(folders, held_out, job.spec, Where(python=python, environ=environ), robustness)


def _measure(predicted: Predicted, folder: Path) -> Measured:
    doing("computing metrics and their intervals")
    found = estimates(computable(predicted.predictions), predicted.predictions)
    if len(predicted.latency_ms):
        for name, share in (("latency_p50_ms", 0.5), ("latency_p99_ms", 0.99)):
            found[name] = Estimate(value=float(np.quantile(predicted.latency_ms, share)))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    found["model_size_mb"] = Estimate(value=size / 1e6)
    return Measured(predictions=predicted.predictions, metrics=found)


def _require_judged(verdicts: list[Verdict]) -> None:
    if any(v.outcome in (Outcome.PASS, Outcome.FAIL) for v in verdicts):
        return
    why = "; ".join(f"{v.gate}: {v.message}" for v in verdicts)
    fix = "add a gate with `min` or `max` to evaluate.gates; a first version has nothing to be compared with"
    msg = "no gate could be judged, so nothing is known"
    raise InputError(msg, why=why, fix=fix, file="model.yaml")


def _facts(predicted: Predicted) -> dict[str, dict[str, Any]]:
    """What monitoring will need besides the evidence: file name → content.

    How often predictions came true is counted in the bins of their profile, so that a window counted in them says how
    good the version probably is. Only for probabilities of two classes: nothing of the kind follows from a number.
    """
    from mlp_ci.data.drift.null_windows import windows_of
    from mlp_ci.data.profiles.outcomes import outcomes_of, probability_edges
    from mlp_ci.data.profiles.profile import PREDICTION, Profile, profile_values
    from mlp_ci.data.profiles.shapes import NumberProfile

    said, facts = predicted.predictions, {}
    column = profile_values(predicted.logged)
    if said.task == BINARY and said.probability is not None and isinstance(column, NumberProfile):
        edges = probability_edges(said.probability)
        column = profile_values(predicted.logged, like=replace(column, edges=edges))
        facts[evidence.OUTCOMES_FILE] = outcomes_of(edges, said.probability, said.target).to_json()
    profile = Profile(rows=len(predicted.logged), columns={PREDICTION: column})
    return {
        **facts,
        evidence.PROFILE_FILE: {**profile.to_json(), "windows": windows_of(predicted.logged, column)},
        evidence.IMPORTANCE_FILE: predicted.importance.to_json(),
    }


# ---------------------------------------------------------------- keeping


def _store(job: Job, folder: str, content: bytes, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """The evidence last: where it is, the evaluation is whole."""
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        place = Path(scratch)
        for name, value in facts.items():
            (place / name).write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
        (place / evidence.FILE).write_bytes(content)
        for name in (*facts, evidence.FILE):
            job.tracking.log_file(job.run.run_id, place / name, folder)


def _kept_importance(job: Job, folder: str) -> Importance:
    path = f"{folder}/{evidence.IMPORTANCE_FILE}"
    if not job.tracking.has_artifact(job.run.run_id, path):
        return NOT_MEASURED
    return Importance.from_json(job.tracking.read_json(job.run.run_id, path))


def _record(job: Job, folder: str, content: bytes) -> None:
    """Point the run to its newest evaluation; a registered version's own evidence stays as it is."""
    value = json.loads(content)
    wanted = {
        "mlp.gate": "pass" if value["outcome"] == "pass" else "fail",
        "mlp.evidence": evidence.digest_of(content),
        "mlp.evaluation": folder,
    }
    if not any(v.run_id == job.run.run_id for v in job.tracking.versions(job.spec.name)):
        publish(job, content)
    if any(job.run.tags.get(k) != v for k, v in wanted.items()):
        metrics = {f"test_{name}": m["value"] for name, m in value["metrics"].items() if m.get("value") is not None}
        job.tracking.log(job.run.run_id, tags=wanted, metrics=metrics)


def publish(job: Job, content: bytes) -> None:
    """Put an evidence file where everybody looks for it, unless it is there."""
    run_id = job.run.run_id
    there = job.tracking.has_artifact(run_id, evidence.FILE)
    if there and job.tracking.read_bytes(run_id, evidence.FILE) == content:
        return
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        file = Path(scratch) / evidence.FILE
        file.write_bytes(content)
        job.tracking.log_file(job.run.run_id, file)


# ---------------------------------------------------------------- report


def _report(job: Job, value: Mapping[str, Any], content: bytes, importance: Importance, *, reused: bool) -> Report:
    outcome = Outcome(value["outcome"])
    gates = value["gates"]
    passed = sum(g["outcome"] == "pass" for g in gates)
    headline = f"{job.spec.name}: {passed} of {len(gates)} gates passed on {value['rows']:,} held-out rows"
    report = Report(command="evaluate", headline=headline + (" (evaluated before)" if reused else ""))
    report.outcome = outcome
    report.findings = [
        Finding(check=g["gate"], subject=g["metric"], outcome=Outcome(g["outcome"]), message=g["message"], fix=_fix(g))
        for g in gates
    ]
    report.tables = [_comparison(value)]
    report.tables += [_slices(g) for g in gates if g.get("slices")]
    if importance.shares:
        report.tables.append(importance.table())
    elif importance is not NOT_MEASURED:
        message = f"how much the predictions rest on each input is not known: {importance.trouble}"
        report.findings.append(Finding(check="importance", outcome=Outcome.SKIP, message=message, severity="notice"))
    report.outputs = {"gate": str(outcome), "evidence": evidence.digest_of(content)}
    report.data = {
        "evidence": dict(value),
        "importance": dict(importance.shares),
        "reused": reused,
        "run_id": job.run.run_id,
    }
    report.links = [("MLflow run", job.tracking.run_page(job.run.run_id))]
    return report


def _fix(gate: Mapping[str, Any]) -> str:
    if gate["outcome"] == "pass":
        return ""
    if gate["outcome"] == "fail":
        return "improve the model, or change the gate in a reviewed pull request"
    return "see the reason; more held-out rows may decide it"


def _comparison(value: Mapping[str, Any]) -> Table:
    stages = list(value["champion_metrics"])
    columns = ["metric", "this", "95 % interval"]
    for stage in stages:
        columns += [stage, "difference"]
    columns.append("verdict")
    verdicts = {g["metric"]: Outcome(g["outcome"]) for g in reversed(value["gates"])}
    rows = []
    for name, metric in value["metrics"].items():
        estimate = Estimate(value=metric["value"] if metric.get("value") is not None else float("nan"))
        interval = f"{metric['low']:.4g} to {metric['high']:.4g}" if "low" in metric else ""
        row: list[Any] = [name, shown(estimate), interval]
        for stage in stages:
            theirs = value["champion_metrics"][stage].get(name, {}).get("value")
            known = theirs is not None and metric.get("value") is not None
            row += [f"{theirs:.4g}" if known else "", f"{metric['value'] - theirs:+.4g}" if known else ""]
        rows.append((*row, verdicts.get(name, "")))
    return Table(title="Held-out data", columns=tuple(columns), rows=tuple(rows))


def _slices(gate: Mapping[str, Any]) -> Table:
    rows = tuple((s["slice"], s["rows"], s["value"], Outcome(s["outcome"])) for s in gate["slices"][:30])
    return Table(title=gate["gate"], columns=("slice", "rows", gate["metric"], "verdict"), rows=rows)
