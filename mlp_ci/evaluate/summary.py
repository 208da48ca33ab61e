"""What ``mlp-ci evaluate`` says of an evaluation, on a terminal and in a job's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.errors import EXIT_OK
from mlp_ci.evaluate import evidence
from mlp_ci.evaluate.predict import NOT_MEASURED
from mlp_ci.evaluate.telling.facts import facts_of
from mlp_ci.evaluate.telling.tables import comparison
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.importance import Importance
    from mlp_ci.evaluate.job import Job


def report_of(job: Job, value: Mapping[str, Any], content: bytes, importance: Importance, *, reused: bool) -> Report:
    """An inconclusive evaluation is a no only where model.yaml says so: the exit code is 0 under ask and pass."""
    outcome = Outcome(value["outcome"])
    gates = value["gates"]
    passed = sum(g["outcome"] == "pass" for g in gates)
    headline = f"{job.spec.name}: {passed} of {len(gates)} gates passed on {value['rows']:,} held-out rows"
    report = Report(command="evaluate", headline=headline + (" (evaluated before)" if reused else ""))
    report.outcome = outcome
    if outcome is Outcome.INCONCLUSIVE and value["on_inconclusive"] != "block":
        report.exit_code = EXIT_OK
    report.findings = [_finding(g, value) for g in gates]
    report.findings += [_told("held-out rows", text, "warning") for text in value["warnings"]]
    report.tables = [comparison(facts_of(value))]
    report.tables += [_slices(g) for g in gates if g.get("slices")]
    report.tables += [table for table in (_worst_slices(value),) if table]
    if importance.shares:
        report.tables.append(importance.table())
    elif importance is not NOT_MEASURED:
        message = f"how much the predictions rest on each input is not known: {importance.trouble}"
        report.findings.append(_told("importance", message, "notice"))
    report.outputs = {"gate": str(outcome), "evidence": evidence.digest_of(content)}
    report.data = {
        "evidence": dict(value),
        "importance": dict(importance.shares),
        "reused": reused,
        "run_id": job.run.run_id,
    }
    report.links = [("MLflow run", job.tracking.run_page(job.run.run_id))]
    return report


def _finding(gate: Mapping[str, Any], value: Mapping[str, Any]) -> Finding:
    outcome = Outcome(gate["outcome"])
    asks = outcome is Outcome.INCONCLUSIVE and value["on_inconclusive"] != "block"
    return Finding(
        check=gate["gate"],
        subject=gate["metric"],
        outcome=outcome,
        message=gate["message"],
        fix=_fix(gate),
        severity="warning" if asks else "error",
    )


def _told(check: str, message: str, severity: str) -> Finding:
    return Finding(check=check, outcome=Outcome.SKIP, message=message, severity=severity)


def _fix(gate: Mapping[str, Any]) -> str:
    if gate["outcome"] == "pass":
        return ""
    if gate["outcome"] == "fail":
        return "improve the model, or change the gate in a reviewed pull request"
    return "see the reason; hold out more rows, or leave the gate more room in a reviewed pull request"


def _shown(value: float | None, form: str = ".4g") -> str:
    return "" if value is None else format(value, form)


def _interval(metric: Mapping[str, Any], form: str = ".4g") -> str:
    low, high = metric.get("low"), metric.get("high")
    return f"{low:{form}} to {high:{form}}" if low is not None and high is not None else ""


def _slices(gate: Mapping[str, Any]) -> Table:
    rows = tuple(
        (s["slice"], s["rows"], _shown(s["value"]), _interval(s), Outcome(s["outcome"])) for s in gate["slices"][:30]
    )
    return Table(title=gate["gate"], columns=("slice", "rows", gate["metric"], "interval", "verdict"), rows=rows)


def _worst_slices(value: Mapping[str, Any]) -> Table | None:
    """What the search found; it decides nothing."""
    found = value["slices"].get("search") or {}
    if not found.get("found"):
        return None
    title = f"Worst slices of {found['tried']:,} looked at, by {found['loss']}"
    rows = tuple((s["words"], s["rows"], _shown(s["loss"]), _shown(s["loss_rest"])) for s in found["found"])
    return Table(title=title, columns=("slice", "rows", "loss", "loss of the other rows"), rows=rows)
