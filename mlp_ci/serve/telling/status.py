"""``mlp-ci rollout status``, and what a deploy adds to the summary of its job: findings and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.report import SYMBOLS, Finding, Outcome, Report, Table, worst
from mlp_ci.serve.telling.standing import (
    OUTCOMES,
    Standing,
    coming,
    commands,
    outcome_of,
    sentence,
    steps_of,
)
from mlp_ci.serve.telling.words import at_time, lasting, percent, scale_of, title_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.analysis import Judged
    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.telling.facts import Facts

# As `verdict` in JSON and in the documentation says it.
INSUFFICIENT = f"{SYMBOLS[Outcome.INCONCLUSIVE]} insufficient"
STANDINGS: dict[Standing, Outcome | str] = {
    Standing.OVER: Outcome.PASS,
    Standing.FAILED: Outcome.FAIL,
    Standing.HERE: "→ here",
    Standing.AHEAD: "",
    Standing.LEFT_OUT: Outcome.SKIP,
    Standing.UNDECIDED: INSUFFICIENT,
}


def report(found: Sequence[Facts]) -> Report:
    """Every stage: where its rollout stands, what decides it, what comes next. It is news, so the exit code is 0."""
    outcomes = [outcome_of(f) for f in found]
    return Report(
        command="rollout status",
        headline="; ".join(sentence(f) for f in found) or "no stage is served",
        outcome=worst(outcomes),
        findings=[finding for f in found for finding in findings(f)],
        tables=[table for f in found for table in tables(f)],
        outputs={"rollout": _phase(found)},
        data={"stages": [as_dict(f) for f in found]},
        links=[(f.stage, f.address) for f in found if f.address],
        exit_code=0,
    )


def _phase(found: Sequence[Facts]) -> str:
    """The phase that matters most, for a workflow to go by; empty where no rollout is known."""
    phases = {f.progress.phase.value for f in found if f.progress}
    return next((p for p in ("aborted", "paused", "running", "done") if p in phases), "")


def as_dict(facts: Facts) -> dict[str, Any]:
    """The machine's copy of one stage."""
    progress, analysis = facts.progress, facts.analysis
    return {
        "model": facts.model,
        "stage": facts.stage,
        "live": facts.live,
        "at": facts.now.isoformat(),
        "sentence": sentence(facts),
        "next": coming(facts),
        "progress": progress.to_json() if progress else None,
        "verdict": str(analysis.verdict) if analysis else None,
        "metrics": [dict(vars(j)) for j in analysis.judged] if analysis else [],
        "forecast": list(facts.forecast),
    }


def findings(facts: Facts) -> list[Finding]:
    """One for each metric, then what comes next and what a person can do."""
    said = [
        Finding(
            check="analysis",
            outcome=OUTCOMES[str(judged.verdict)],
            subject=title_of(judged.metric),
            message=judged.reason,
            severity="error" if str(judged.verdict) == "fail" else "notice",
        )
        for judged in (facts.analysis.judged if facts.analysis else ())
    ]
    said += [_note(facts, "forecast", line) for line in facts.forecast]
    said += [_note(facts, "next", line) for line in coming(facts)]
    said += [_note(facts, "you can", f"`{command}`: {does}") for command, does in commands(facts)]
    return said


def _note(facts: Facts, check: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.SKIP, subject=facts.stage, message=message, severity="notice")


def tables(facts: Facts) -> list[Table]:
    """The steps, and what is measured against what; none without a rollout."""
    return [table for table in (steps_table(facts), metrics_table(facts)) if table is not None]


def steps_table(facts: Facts) -> Table | None:
    progress = facts.progress
    if progress is None:
        return None
    rows = tuple(
        (
            f"{step.weight} %",
            STANDINGS[step.standing],
            at_time(step.began, facts.now).removesuffix(" UTC"),
            lasting(step.seconds) if step.seconds is not None else "",
            _answered(step.canary, begun=bool(step.began)),
            _answered(step.stable, begun=bool(step.began)),
        )
        for step in steps_of(facts)
    )
    columns = ("traffic", "step", "began", "took", f"v{progress.version} errors", f"v{progress.stable} errors")
    beside = f"version {progress.version} beside version {progress.stable}"
    return Table(title=f"{facts.stage}: {progress.strategy}, {beside} (UTC)", columns=columns, rows=rows)


def _answered(seen: Seen, *, begun: bool) -> str:
    if not begun:
        return ""
    share = f" ({percent(seen.errors / seen.requests)} %)" if seen.errors and seen.requests else ""
    return f"{seen.errors:,} of {seen.requests:,}{share}"


def _verdict(judged: Judged) -> Outcome | str:
    outcome = OUTCOMES[str(judged.verdict)]
    return INSUFFICIENT if outcome is Outcome.INCONCLUSIVE else outcome


def metrics_table(facts: Facts) -> Table | None:
    """The new version against the old one, metric by metric."""
    if facts.progress is None or facts.analysis is None or not facts.analysis.judged:
        return None
    rows = []
    for judged in facts.analysis.judged:
        scale = scale_of(judged.metric, facts.rollout)
        rows.append(
            (
                title_of(judged.metric),
                _verdict(judged),
                scale.value(judged.canary),
                scale.value(judged.stable),
                scale.span(judged.low, judged.high) or scale.effect(judged.effect),
                scale.limit(judged.margin),
                f"{judged.seen:,}" + (f" of {judged.needed:,}" if judged.needed else ""),
            )
        )
    progress = facts.progress
    columns = (
        "metric",
        "verdict",
        f"v{progress.version}",
        f"v{progress.stable}",
        "difference",
        "harm from",
        "sample",
    )
    return Table(title="What decides it", columns=columns, rows=tuple(rows))
