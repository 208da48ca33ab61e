"""Where an evaluation is kept: its folder of the run, and the tags that point to the newest one."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import GateError, InputError
from mlp_ci.evaluate import evidence
from mlp_ci.evaluate.importance import Importance
from mlp_ci.evaluate.metrics import BINARY
from mlp_ci.evaluate.predict import NOT_MEASURED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.job import Job
    from mlp_ci.evaluate.predict import Predicted


def store(job: Job, folder: str, content: bytes, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """The evidence last: where it is, the evaluation is whole."""
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        place = Path(scratch)
        for name, value in facts.items():
            (place / name).write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
        (place / evidence.FILE).write_bytes(content)
        for name in (*facts, evidence.FILE):
            job.tracking.log_file(job.run.run_id, place / name, folder)


def kept_importance(job: Job, folder: str) -> Importance:
    path = f"{folder}/{evidence.IMPORTANCE_FILE}"
    if not job.tracking.has_artifact(job.run.run_id, path):
        return NOT_MEASURED
    return Importance.from_json(job.tracking.read_json(job.run.run_id, path))


def newest(job: Job) -> bytes:
    """The evidence of the run's newest evaluation, as the evaluation wrote it.

    Raises InputError when there is none and GateError when it was changed afterwards.
    """
    run_id, tags = job.run.run_id, job.run.tags
    folder, expected = tags.get("mlp.evaluation"), tags.get("mlp.evidence")
    if not folder or not expected:
        msg = f"{job.spec.name} has not been evaluated (run {run_id})"
        raise InputError(msg, why="nothing is known of the model without evidence", fix="run `mlp-ci evaluate` first")
    content = job.tracking.read_bytes(run_id, f"{folder}/{evidence.FILE}")
    found = evidence.digest_of(content)
    if found != expected:
        msg = f"the evidence of run {run_id} has digest {found}, not {expected}"
        why = "the file was changed after the evaluation wrote it"
        raise GateError(msg, why=why, fix="find out who can write to MLflow; evaluate in a new run (another seed)")
    return content


def record(job: Job, folder: str, content: bytes) -> None:
    """Point the run to its newest evaluation; a registered version's own evidence stays as it is."""
    value = json.loads(content)
    wanted = {
        "mlp.gate": value["outcome"] if value["outcome"] in ("pass", "inconclusive") else "fail",
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


def facts_of(predicted: Predicted) -> dict[str, Mapping[str, Any]]:
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
