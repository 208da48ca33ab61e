"""``mlp-ci evaluate``: predict the held-out rows, compute metrics, judge the gates, keep the evidence."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc
from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate import custom, evidence, measured, measuring, plots, reuse
from mlp_ci.evaluate.bootstrap import Estimate, Settings, design_of, differences, estimates
from mlp_ci.evaluate.gates import Champion, Measured, Rows, Verdict, judge
from mlp_ci.evaluate.job import Job, open_job
from mlp_ci.evaluate.keeping import facts_of, kept_importance, publish, record, store
from mlp_ci.evaluate.metrics import computable, metric_called
from mlp_ci.evaluate.models import broken, champion_folders, find_champions, model_folder, where_of
from mlp_ci.evaluate.predict import predict
from mlp_ci.evaluate.rows import HeldOut, read_held_out, slice_columns
from mlp_ci.evaluate.slice_report import declared_slices, worst_slices
from mlp_ci.evaluate.slices import loss_of
from mlp_ci.evaluate.summary import report_of
from mlp_ci.progress import doing
from mlp_ci.report import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.evaluate.importance import Importance
    from mlp_ci.evaluate.predict import Predicted, Where
    from mlp_ci.spec import ModelSpec

__all__ = ["Job", "evaluate", "open_job", "publish"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into an evaluation besides the files: digests, champions, what is frozen since the first look."""

    test_digest: str
    champions: dict[str, Champion]
    uses: int

    def subject(self, job: Job, digest: str) -> measuring.Subject:
        command = job.spec.evaluate.command or ""
        return measuring.Subject(model=digest, test=self.test_digest, command=command)

    def all_of(self, job: Job, found: Mapping[str, measuring.Measurements]) -> dict[str, Any]:
        """As the evidence keeps them; ``found``: model digest → what was measured of it."""
        intended = evidence.intent(job.spec, job.run, self.test_digest)
        digests = {digest: m.digest for digest, m in sorted(found.items())}
        return evidence.inputs_of(intended, self.champions, digests, self.uses)


@dataclass(frozen=True)
class Made:
    """What an evaluation made: the evidence, the files to keep beside it (by name), what the predictions rest on."""

    folder: str
    content: bytes
    facts: Mapping[str, Mapping[str, Any]]
    importance: Importance


def evaluate(ctx: Context) -> Report:
    """Evaluate the model that the working tree describes; an evaluation of the same inputs is not done again.

    The report's outcome is fail or inconclusive when a gate says so. Raises InputError when there is no trained run,
    when no gate could be judged, or when the model or the held-out data make evaluating impossible.
    """
    job = open_job(ctx)
    _check_gates(job.spec)
    test_digest = dvc.tracked_digest(ctx.repo, job.spec.data.test)
    inputs = Inputs(test_digest=test_digest, champions=find_champions(job), uses=reuse.uses(job, test_digest))
    folder, content = _evaluated(job, inputs)
    if content:
        importance, reused = kept_importance(job, folder), True
    else:
        made = _evaluate(job, inputs)
        folder, content, importance, reused = made.folder, made.content, made.importance, False
        store(job, folder, content, made.facts)
    reuse.note(job, test_digest, inputs.uses)
    record(job, folder, content)
    return report_of(job, json.loads(content), content, importance, reused=reused)


def _evaluated(job: Job, inputs: Inputs) -> tuple[str, bytes]:
    """The folder and the evidence of an earlier evaluation of these inputs, which is whole; empty when there is none.

    One that could not try a champion does not count: perhaps it can be tried by now.
    """
    wanted = [job.run.digest, *(c.digest for c in inputs.champions.values() if c.digest and not c.broken)]
    found = {digest: measuring.kept(job, inputs.subject(job, digest)) for digest in wanted}
    known = {digest: m for digest, m in found.items() if m}
    folder = evidence.evaluation_folder(inputs.all_of(job, known))
    if not job.tracking.has_artifact(job.run.run_id, f"{folder}/{evidence.FILE}"):
        return "", b""
    content = job.tracking.read_bytes(job.run.run_id, f"{folder}/{evidence.FILE}")
    return ("", b"") if evidence.parsed(content).get("champion_trouble") else (folder, content)


def _check_gates(spec: ModelSpec) -> None:
    task = None if spec.evaluate.task == "auto" else spec.evaluate.task
    for gate in spec.evaluate.gates:
        if spec.evaluate.command and not custom.is_known(gate.metric):
            continue  # known once the command has run
        metric = metric_called(gate.metric, task, versus=bool(gate.versus))
        column = gate.slice or gate.gap
        if column and metric.values is None:
            msg = f"{gate.metric} is measured for the whole model and has no slices"
            key = "slice" if gate.slice else "gap"
            raise InputError(msg, fix=f"take `{key}: {column}` out of the gate", file="model.yaml")


# ---------------------------------------------------------------- evaluating


@dataclass(frozen=True)
class Bench:
    """What all models are tried on: the held-out file and its rows, and where models are loaded."""

    file: Path
    held_out: HeldOut
    where: Where


@dataclass(frozen=True)
class Tried:
    """A model after predicting, with its folder and its digest."""

    said: Predicted
    folder: Path
    digest: str


def _evaluate(job: Job, inputs: Inputs) -> Made:
    spec = job.spec
    file = dvc.pull(job.ctx.repo, [spec.data.test], apart=[spec.data.test])[spec.data.test]
    held_out = read_held_out(file, spec)
    for gate in spec.evaluate.gates:
        if custom.is_known(gate.metric):
            metric_called(gate.metric, held_out.task, versus=bool(gate.versus))
    ours = model_folder(job)
    folders, champions = champion_folders(job, inputs.champions)
    bench = Bench(file, held_out, where_of(job.ctx, spec, job.key))
    doing("predicting the held-out rows")
    spoilt = measured.kinds_of(spec.evaluate.gates)
    this, *others = predict([ours, *folders.values()], held_out, spec, bench.where, robustness=spoilt)
    if isinstance(this, MlpError):
        raise this
    theirs = {}
    for stage, said in zip(folders, others, strict=True):
        if isinstance(said, MlpError):
            champions[stage] = broken(champions[stage], said)
        else:
            theirs[stage] = Tried(said, folders[stage], champions[stage].digest)
    return _judged(job, replace(inputs, champions=champions), bench, (Tried(this, ours, job.run.digest), theirs))


def _judged(job: Job, inputs: Inputs, bench: Bench, models: tuple[Tried, Mapping[str, Tried]]) -> Made:
    doing("computing metrics and their intervals")
    spec, (this, theirs) = job.spec, models
    taken = {this.digest: _measured_once(job, inputs, bench, this)}
    custom.require(spec.evaluate.gates, taken[this.digest].own)
    rows = _rows(spec, bench.held_out, this.said)
    ours = _measure(spec, this.said, taken[this.digest], rows)
    champions = dict(inputs.champions)
    for stage, other in theirs.items():
        try:
            taken[other.digest] = _measured_once(job, inputs, bench, other)
        except InputError as error:
            champions[stage] = broken(champions[stage], error)
            continue
        also = _measure(spec, other.said, taken[other.digest], rows)
        champions[stage] = _compared(champions[stage], ours, also, rows)
    verdicts = [judge(gate, ours, champions, rows) for gate in spec.evaluate.gates]
    _require_judged(verdicts)
    asked = inputs.all_of(job, taken)
    found = evidence.Judged(
        this=ours,
        rows=rows,
        champions=champions,
        verdicts=verdicts,
        slices=_slices(spec, bench.held_out, ours, rows),
        reuse=reuse.reuse_facts(inputs.uses, spec.evaluate.reuse_warning),
        warnings=[w for w in [reuse.warning(inputs.uses, spec.evaluate.reuse_warning)] if w],
    )
    content = evidence.evidence_bytes(asked, job.run, found)
    said = {"this": ours.predictions, **{s: c.measured.predictions for s, c in champions.items() if c.measured}}
    facts = {**facts_of(this.said), evidence.PLOTS_FILE: plots.facts(said, times=bench.held_out.times)}
    return Made(evidence.evaluation_folder(asked), content, facts, this.said.importance)


def _measured_once(job: Job, inputs: Inputs, bench: Bench, tried: Tried) -> measuring.Measurements:
    subject = inputs.subject(job, tried.digest)
    known = measuring.kept(job, subject)
    if known:
        return known
    trial = custom.Trial(
        repo=job.ctx.repo,
        spec=job.spec,
        model=tried.folder,
        test=bench.file,
        predicted=tried.said,
        where=bench.where,
    )
    return measuring.keep(job, subject, measured.facts(tried.said, tried.folder), custom.run(trial))


def _rows(spec: ModelSpec, held_out: HeldOut, this: Predicted) -> Rows:
    """How rows are drawn, and what slices them."""
    asked = spec.evaluate
    loss = loss_of(this.predictions)
    design = design_of(
        held_out.task,
        held_out.target,
        group=held_out.groups,
        times=held_out.times,
        block=asked.block.total_seconds() if asked.block else None,
        loss=loss[1] if loss else None,
    )
    settings = Settings(replicates=asked.replicates, confidence=asked.confidence)
    return Rows(design=design, settings=settings, slices=held_out.slices, min_slice_rows=asked.min_slice_rows)


def _measure(spec: ModelSpec, predicted: Predicted, taken: measuring.Measurements, rows: Rows) -> Measured:
    said, gates = predicted.predictions, spec.evaluate.gates
    found = estimates(computable(said, [g.metric for g in gates]), said, rows.design, rows.settings)
    headline = measured.headline(gates, said)
    spoilt, troubles = measured.robustness(predicted, headline, design=rows.design, settings=rows.settings)
    return Measured(
        predictions=said,
        metrics={**found, **taken.estimates(rows.settings.confidence), **spoilt},
        troubles=troubles,
        own={name: custom.metric(name, one) for name, one in taken.own.items()},
    )


def _compared(champion: Champion, ours: Measured, theirs: Measured, rows: Rows) -> Champion:
    """The champion with its metrics and with the differences of those that both have, paired where rows give them."""
    found = {}
    both = [name for name in ours.metrics if name in theirs.metrics]
    computed = [m for m in (metric_called(name) for name in both if name not in ours.own) if m.values]
    found = differences(computed, ours.predictions, theirs.predictions, rows.design, rows.settings)
    for name in both:
        if name not in found:
            found[name] = Estimate(value=ours.metrics[name].value - theirs.metrics[name].value)
    return replace(champion, measured=theirs, differences=found)


def _slices(spec: ModelSpec, held_out: HeldOut, ours: Measured, rows: Rows) -> dict[str, Any]:
    doing("looking at slices")
    names = list(dict.fromkeys(g.metric for g in spec.evaluate.gates if not g.gap))
    known = [metric_called(name) for name in names if name not in ours.own]
    shown = [m for m in known if m.values and m.name in ours.metrics]
    shown = shown or [measured.headline(spec.evaluate.gates, ours.predictions)]
    found: dict[str, Any] = {"declared": declared_slices(spec.evaluate.slices, shown, ours, rows)}
    if spec.evaluate.search_slices:
        found["search"] = worst_slices(slice_columns(held_out.frame, spec), shown[0], ours, rows)
    return found


def _require_judged(verdicts: list[Verdict]) -> None:
    if any(v.outcome in (Outcome.PASS, Outcome.FAIL) or _looked(v) for v in verdicts):
        return
    why = "; ".join(f"{v.gate}: {v.message}" for v in verdicts)
    fix = "add a gate with `min` or `max` to evaluate.gates; a first version has nothing to be compared with"
    msg = "no gate could be judged, so nothing is known"
    raise InputError(msg, why=why, fix=fix, file="model.yaml")


def _looked(verdict: Verdict) -> bool:
    """Whether an undecided gate has a value that could have decided it."""
    details = verdict.details
    slices = any(s.get("value") is not None for s in details.get("slices", ()))
    return details.get("value") is not None or "difference" in details or slices
