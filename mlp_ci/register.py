"""``mlp-ci register``: a version with passed evidence and a reference profile, once; then its promotion is proposed."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc, git
from mlp_ci.errors import GateError, InputError, NotApproved, NothingToDo
from mlp_ci.evaluate import evidence
from mlp_ci.evaluate.flow import Job, open_job, publish
from mlp_ci.evaluate.keeping import newest
from mlp_ci.evaluate.telling.flow import keep_with_version
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec import MODEL_FILE
from mlp_ci.tracking import VersionFact, verify_digest
from mlp_ci.train.key import has_no_effect, uncommitted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context
    from mlp_ci.data.drift.reference import Reference
    from mlp_ci.github import Hub

PROFILE_FILE = "profile.json"


def register(ctx: Context, *, promote: bool) -> Report:
    """Register the model that the commit describes, if its evidence passed; propose it for the first stage.

    Raises GateError when the evidence failed or was changed, InputError when it is missing, made for other gates or
    data, or when the working tree is not what was committed.
    """
    job = open_job(ctx)
    _require_committed(job)
    content = _passed_evidence(job)
    version, made = _version(job, content)
    report = _report(job, version, made=made)
    if not promote:
        report.findings.append(_said("promotion", Outcome.SKIP, "not proposed: --no-promote"))
        return report
    propose_version(job, version, report)
    return report


def _require_committed(job: Job) -> None:
    dirty = uncommitted(job.ctx.repo, job.spec)
    if dirty:
        shown = ", ".join(dirty[:5]) + (f" and {len(dirty) - 5} more" if len(dirty) > 5 else "")
        msg = f"these files are not what the commit says: {shown}"
        why = "a version is tied to a commit, so that everybody can see what it is made of"
        fix = "commit them, or add files that training writes to .gitignore; then run `mlp-ci register` again"
        raise InputError(msg, why=why, fix=fix)


# ---------------------------------------------------------------- evidence


def _passed_evidence(job: Job) -> bytes:
    """The evidence file of the newest evaluation: unchanged, made for what the working tree asks, and not refused.

    Undecided gates refuse it where its ``on_inconclusive`` is block.
    """
    content = newest(job)
    value = evidence.parsed(content)
    intended = evidence.intent(job.spec, job.run, dvc.tracked_digest(job.ctx.repo, job.spec.data.test))
    other = evidence.same_intent(value, intended)
    if other:
        msg = f"the evidence is not about what lies here: {', '.join(other)} changed since"
        raise InputError(msg, fix="run `mlp-ci evaluate` again")
    undecided = value.get("outcome") == "inconclusive"
    if value.get("outcome") == "pass" or (undecided and value["on_inconclusive"] != "block"):
        return content
    failed = [g for g in value["gates"] if g["outcome"] in ("fail", "inconclusive")]
    why = "; ".join(f"{g['gate']}: {g['message']}" for g in failed)
    if undecided:
        msg = "the held-out rows do not decide the gates and on_inconclusive is block, so no version is registered"
        raise GateError(msg, why=why, fix="hold out more rows, or leave the gates more room in a reviewed pull request")
    msg = f"the gates did not pass ({value['outcome']}), so no version is registered"
    raise GateError(msg, why=why, fix="improve the model, or change the gates in a reviewed pull request")


def _gate(content: bytes) -> str:
    """What the version's tag says: pass, or inconclusive where a person has to approve it."""
    value = evidence.parsed(content)
    passed = value["outcome"] == "pass" or value["on_inconclusive"] == "pass"
    return "pass" if passed else "inconclusive"


# ---------------------------------------------------------------- version


def _version(job: Job, content: bytes) -> tuple[VersionFact, bool]:
    """The version of these bytes and this key: an earlier one, or a new one; and whether it is new."""
    gate = _gate(content)
    known = _known(job, gate)
    if known:
        return known[0], False
    _check_stored(job)
    publish(job, content)
    if not job.tracking.has_artifact(job.run.run_id, PROFILE_FILE):
        _store_profile(job)
    doing("writing the model card")
    keep_with_version(job)
    tracking, spec = job.tracking, job.spec
    tracking.register_model(spec.name, spec.description or f"{spec.name}, of team {spec.team}", {"mlp.team": spec.team})
    tags = {
        "mlp.commit": git.head(job.ctx.repo),
        "mlp.data": job.run.tags.get("mlp.data", "{}"),
        "mlp.train_key": job.key.digest,
        "mlp.digest": job.run.digest,
        "mlp.gate": gate,
        "mlp.evidence": evidence.digest_of(content),
        "mlp.evaluation": job.run.tags["mlp.evaluation"],
        "mlp.team": spec.team,
        # Which trial of a search gave its parameters, and which they are.
        **{k: v for k, v in job.run.tags.items() if k.startswith("mlp.sweep")},
    }
    made = tracking.create_version(spec.name, job.run.run_id, tags, _description(job, tags["mlp.commit"], content))
    # Another job may have registered the same bytes at this moment. Both see both now, and both keep the lower number.
    first = _known(job, gate)[0]
    if first.number != made.number:
        tracking.delete_version(spec.name, made.number)
    return first, first.number == made.number


def _known(job: Job, gate: str) -> list[VersionFact]:
    """The versions of these bytes and this key that are worth as much: a pass is also known where now none is.

    Where an undecided version passes with more held-out rows, there is a new version of the same bytes.
    """
    return [
        v
        for v in job.tracking.versions(job.spec.name)
        if v.digest == job.run.digest and v.train_key == job.key.digest and v.gate in ("pass", gate)
    ]


def _check_stored(job: Job) -> None:
    """What MLflow holds must be, byte for byte, what was trained and evaluated."""
    doing("checking the stored model's bytes")
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        verify_digest(job.tracking.download(job.run.run_id, "model", Path(scratch)), job.run.digest)


def _description(job: Job, commit: str, content: bytes) -> str:
    value = json.loads(content)
    shown = [
        f"- {name}: {m['value']:.4g}" + (f" ({m['low']:.4g} to {m['high']:.4g})" if {"low", "high"} <= set(m) else "")
        for name, m in value["metrics"].items()
        if m.get("value") is not None
    ]
    place = job.ctx.github
    source = f"[{commit[:12]}]({place.server_url}/{place.full_name}/commit/{commit})" if place else f"`{commit[:12]}`"
    lines = [f"Trained from {source}, evaluated on {value['rows']:,} held-out rows:", "", *shown]
    if place and place.run_url:
        lines += ["", f"Registered by [this job]({place.run_url})."]
    return "\n".join(lines)


# ---------------------------------------------------------------- reference profile


def _store_profile(job: Job) -> None:
    """What live data is compared with: inputs of training and held-out data, and what the evaluation found out."""
    doing("profiling the data and the predictions")
    from mlp_ci.data.drift.reference import reference_of

    spec = job.spec
    files = dvc.pull(job.ctx.repo, [spec.data.train, spec.data.test], apart=[spec.data.test])
    monitor = spec.monitor
    reference = reference_of(
        [files[spec.data.train], files[spec.data.test]], spec.data, monitor.window_length, monitor.segments
    )
    whole = _with_evaluation(job, reference)
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        file = Path(scratch) / PROFILE_FILE
        file.write_text(json.dumps(whole.to_json(), sort_keys=True, separators=(",", ":")), encoding="utf-8")
        job.tracking.log_file(job.run.run_id, file)


def _with_evaluation(job: Job, reference: Reference) -> Reference:
    """The reference with the predictions for the held-out data, what they rest on, and how often they came true."""
    from mlp_ci.data.profiles.outcomes import Outcomes
    from mlp_ci.data.profiles.profile import PREDICTION, Profile
    from mlp_ci.evaluate.importance import Importance

    def kept(name: str) -> dict[str, Any] | None:
        path = f"{job.run.tags['mlp.evaluation']}/{name}"
        there = job.tracking.has_artifact(job.run.run_id, path)
        return job.tracking.read_json(job.run.run_id, path) if there else None

    predicted = kept(evidence.PROFILE_FILE)
    if predicted is None:
        msg = "the evaluation kept no profile of its predictions"
        raise InputError(msg, fix="run `mlp-ci evaluate` again")
    column = Profile.from_json(predicted).columns[PREDICTION]
    whole = reference.with_predictions(column, predicted.get("windows"))
    outcomes, importance = kept(evidence.OUTCOMES_FILE), kept(evidence.IMPORTANCE_FILE)
    return replace(
        whole,
        outcomes=Outcomes.from_json(outcomes) if outcomes else None,
        importance=Importance.from_json(importance).shares if importance else {},
    )


# ---------------------------------------------------------------- promotion


def propose_version(job: Job, version: VersionFact, report: Report) -> None:
    """Open or update the promotion pull request of the first stage; in a job only on the default branch."""
    doing("proposing the promotion")
    place = job.ctx.github
    if place is None or not place.token:
        message = "not proposed: there is no GitHub repository with a token here"
        report.findings.append(_said("promotion", Outcome.SKIP, message))
        return
    from mlp_ci.github import connect, platform_of
    from mlp_ci.promote import Wish, propose

    hub = connect(place)
    if job.ctx.in_job and not _on_default_branch(job, hub):
        message = f"not proposed: this job runs on {place.ref or 'another ref'}, not on {hub.default_branch}"
        report.findings.append(_said("promotion", Outcome.SKIP, message))
        return
    newer = _moved_on(job, hub) if job.ctx.in_job else ""
    if newer:
        message = f"not proposed: {hub.default_branch} has gone on to {newer[:12]}, whose own job proposes"
        report.findings.append(_said("promotion", Outcome.SKIP, message))
        return
    platform = platform_of(job.ctx)
    stage = platform.stages[0].name
    try:
        pull = propose(job.ctx, hub, job.tracking, platform, Wish(stage=stage, version=version))
    except NothingToDo as done:
        report.findings.append(_said("promotion", Outcome.PASS, done.what))
        return
    except (NotApproved, GateError) as held:
        # Rolled back before, or from a commit that is not on the default branch: it is registered all the same.
        said = f"not proposed: {held.what}; {held.why}" if held.why else f"not proposed: {held.what}"
        report.findings.append(replace(_said("promotion", Outcome.SKIP, said), fix=held.fix))
        return
    what = "opened" if pull.created else "updated" if pull.changed else "is open already"
    report.findings.append(_said("promotion", Outcome.PASS, f"pull request {pull.number} for {stage} {what}"))
    report.outputs["pull-request"] = str(pull.number)
    report.links.append(("Promotion pull request", pull.url))


def _on_default_branch(job: Job, hub: Hub) -> bool:
    place = job.ctx.github
    return place is not None and place.ref == f"refs/heads/{hub.default_branch}"


def _moved_on(job: Job, hub: Hub) -> str:
    """The head of the default branch when something that trains changed since our commit; else empty.

    Jobs of two pushes may end in any order, and old ones are run again: an older version must not take the place of
    a newer one in the pull request.
    """
    ours, head = git.head(job.ctx.repo), hub.head(hub.default_branch)
    if head == ours:
        return ""
    changed = hub.changed_between(ours, head)
    return head if any(path == MODEL_FILE or not has_no_effect(path) for path in changed) else ""


def _said(check: str, outcome: Outcome, message: str) -> Finding:
    return Finding(check=check, outcome=outcome, message=message)


def _report(job: Job, version: VersionFact, *, made: bool) -> Report:
    verb = "registered" if made else "is registered already as"
    name = job.spec.name
    headline = f"{verb} {name} {version.number}" if made else f"{name} {verb} version {version.number}"
    report = Report(command="register", headline=headline)
    report.outputs = {"version": str(version.number), "digest": version.digest, "pull-request": ""}
    report.data = {"version": version.number, "digest": version.digest, "run_id": version.run_id, "made": made}
    report.links = [
        ("Version", job.tracking.version_page(name, version.number)),
        ("MLflow run", job.tracking.run_page(version.run_id)),
    ]
    report.tables = [_facts(version)]
    return report


def _facts(version: VersionFact) -> Table:
    facts: Mapping[str, str] = {
        "version": str(version.number),
        "digest": version.digest,
        "evidence": version.evidence,
        "commit": version.commit,
        **version.data,
    }
    return Table(title="", columns=("what", "value"), rows=tuple(facts.items()))
