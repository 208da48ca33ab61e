"""``mlp-ci report``: tell of the newest evaluation. It runs no code of the team, and judges nothing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.evaluate import evidence
from mlp_ci.evaluate.job import Job, open_job
from mlp_ci.evaluate.keeping import newest
from mlp_ci.evaluate.telling import tables
from mlp_ci.evaluate.telling.card import FILE as CARD_FILE
from mlp_ci.evaluate.telling.card import model_card
from mlp_ci.evaluate.telling.comment import MARKER, Links, comment
from mlp_ci.evaluate.telling.facts import Beside, Facts, facts_of
from mlp_ci.evaluate.telling.page import render
from mlp_ci.evaluate.telling.training import spent
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.context import Context

PAGE_FILE = "report.html"
MOST_SLICES = 20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to do besides showing it: write the page to ``html``, the comment, or the model card to stdout."""

    html: Path | None = None
    comment: bool = False
    card: bool = False


def tell(ctx: Context, asked: Asked) -> Report:
    """The report of the newest evaluation. A gate that failed is told, and is no failure of telling.

    Raises InputError when there is no evaluation, GateError when its evidence was changed afterwards, OutsideError when
    MLflow or GitHub cannot be reached or the page cannot be written.
    """
    job = open_job(ctx)
    facts = stored_facts(job)
    page = render(facts)
    made = _report(job, facts)
    if asked.html:
        _write(asked.html, page)
        made.outputs["report"] = str(asked.html)
        made.links.append(("Report", str(asked.html)))
    kept = _kept_page(job, page)
    if kept:
        made.findings.append(kept)
    if asked.card:
        made.document = model_card(facts, job.spec)
    if asked.comment:
        made.findings.append(_comment(job, facts, made, stored=kept is None))
    return made


# ---------------------------------------------------------------- reading


def stored_facts(job: Job) -> Facts:
    """The newest evaluation of the job's run, with what lies beside its evidence."""
    doing("reading the evaluation")
    content, folder = newest(job), job.run.tags["mlp.evaluation"]
    beside = Beside(
        importance=_kept(job, f"{folder}/{evidence.IMPORTANCE_FILE}"),
        plots=_kept(job, f"{folder}/{evidence.PLOTS_FILE}"),
        tags=job.run.tags,
    )
    return facts_of(evidence.parsed(content), beside)


def _kept(job: Job, path: str) -> Mapping[str, Any]:
    """A file beside the evidence; nothing where there is none, or none that can be read: pictures are no evidence."""
    if not job.tracking.has_artifact(job.run.run_id, path):
        return {}
    try:
        return job.tracking.read_json(job.run.run_id, path)
    except InputError:
        return {}


# ---------------------------------------------------------------- keeping


def keep_with_version(job: Job) -> None:
    """Store the model card of a version that is to be registered, and the page, beside its evidence.

    Raises OutsideError when the store takes nothing: a version without its card is not whole.
    """
    facts = stored_facts(job)
    _put(job, _beside(job, PAGE_FILE), render(facts))
    _put(job, _beside(job, CARD_FILE), model_card(facts, job.spec))


def _beside(job: Job, name: str) -> str:
    """The artefact of this name in the evaluation's folder."""
    return f"{job.run.tags['mlp.evaluation']}/{name}"


def _kept_page(job: Job, page: str) -> Finding | None:
    """Store the page beside the evidence it tells of; a finding where the store does not take it."""
    try:
        _put(job, _beside(job, PAGE_FILE), page)
    except (InputError, OutsideError) as error:
        message = f"the page was not stored with run {job.run.run_id}: {error.what}"
        outcome = Outcome.INCONCLUSIVE
        return Finding(check="store", outcome=outcome, message=message, fix=error.fix, severity="notice")
    return None


def _put(job: Job, path: str, text: str) -> None:
    """Store a text with the run, unless the same is there."""
    folder, _, name = path.rpartition("/")
    content, run_id = text.encode("utf-8", errors="backslashreplace"), job.run.run_id
    if job.tracking.has_artifact(run_id, path) and job.tracking.read_bytes(run_id, path) == content:
        return
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        file = Path(scratch) / name
        file.write_bytes(content)
        job.tracking.log_file(run_id, file, folder)


def _write(file: Path, page: str) -> None:
    try:
        file.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        msg = f"the page cannot be written to {file}: {error.strerror}"
        raise OutsideError(msg, fix="name another file with --html") from error


# ---------------------------------------------------------------- showing


def _report(job: Job, facts: Facts) -> Report:
    """News, whatever the verdict: the job that judged has failed already if it had to."""
    report = Report(command="report", headline=tables.headline(facts), outcome=facts.outcome, exit_code=0)
    report.findings = [
        Finding(check=g.gate, outcome=g.outcome, message=tables.why(g), severity="notice")
        for g in facts.gates
        if g.outcome is not Outcome.SKIP
    ]
    worst = tables.worst_slices(facts, MOST_SLICES)
    took = tuple(spent(facts).items())
    report.tables = [tables.comparison(facts)]
    report.tables += [tables.slices(facts, worst)] if worst else []
    report.tables += [tables.fairness(f) for f in facts.fairness]
    report.tables += [Table(title="Training", columns=("what", "value"), rows=took)] if took else []
    report.outputs = {"gate": str(facts.outcome), "report": "", "comment": ""}
    report.data = {"evidence": dict(facts.evidence), "run_id": job.run.run_id}
    report.links = [("MLflow run", job.tracking.run_page(job.run.run_id))]
    return report


def _comment(job: Job, facts: Facts, made: Report, *, stored: bool) -> Finding:
    """Write or renew the one comment; a pull request that leaves the model as it was gets none."""
    place = job.ctx.github
    pull = place.event.get("pull_request") if place else None
    number = pull.get("number") if isinstance(pull, dict) else None
    if not isinstance(number, int):
        said = "this is no job of a pull request: there is nothing to comment on"
        return Finding(check="comment", outcome=Outcome.SKIP, message=said)
    from mlp_ci.github import connect

    hub = connect(job.ctx.require_github("a comment on the pull request"))
    known = [v.number for v in job.tracking.versions(job.spec.name) if v.train_key == job.key.digest]
    address = hub.sticky_comment(number, MARKER, comment(facts, _links(job, stored=stored)), begin=not known)
    made.outputs["comment"] = address
    if address:
        made.links.append(("Comment", address))
        return Finding(check="comment", outcome=Outcome.PASS, message=f"on pull request {number}")
    said = f"the model is that of version {known[0]}, which this pull request does not change: no comment begun"
    return Finding(check="comment", outcome=Outcome.SKIP, message=said)


def _links(job: Job, *, stored: bool) -> Links:
    """The page where MLflow shows it; where training ran. Not this job: the same facts make the same comment."""
    run = job.tracking.run_page(job.run.run_id)
    page = f"{run}/artifacts/{_beside(job, PAGE_FILE)}" if stored else ""
    return Links(report=page, run=run, job=job.run.tags.get("mlp.job", ""))
