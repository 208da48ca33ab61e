"""The text of a promotion pull request: what the version showed, how it differs from what runs now, what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.promote.case import INCONCLUSIVE
from mlp_ci.promote.requirement import requirement, strictest_care, tier_of
from mlp_ci.report import Outcome, Table, markdown_cell, markdown_table
from mlp_ci.spec import show_duration

if TYPE_CHECKING:
    from mlp_ci.spec import ModelSpec, PlatformSpec, StageEntry
    from mlp_ci.tracking import RunFact, Tracking, VersionFact


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for: a version in a stage, where ``now`` is what the stage has."""

    model: ModelSpec
    stage: str
    version: VersionFact
    now: StageEntry | None
    commit_url: str  # with {sha} where the commit goes
    emergency: str = ""


def promotion_body(asked: Asked, tracking: Tracking, platform: PlatformSpec) -> str:
    """Markdown. What MLflow does not have is left out; a missing part never keeps a promotion from being proposed."""
    version, stage = asked.version, asked.stage
    evidence = _evidence(tracking, version)
    current = _current(tracking, asked)
    shown = f"version **{current.number}**" if current else "nothing"
    lines = [f"> **Emergency**: {markdown_cell(asked.emergency)}", ""] if asked.emergency else []
    lines += [
        (
            f"Asks for **{asked.model.name} {version.number}** in **{stage}**, which has {shown} now. "
            "Merging this deploys it."
        ),
        "",
        f"**Needs** {_needs(asked, platform, evidence)}",
        "",
    ]
    metrics = _metrics_table(evidence, *_compared(evidence, tracking, asked.stage, current))
    gates = _gates_table(evidence)
    lines += [part for table in (metrics, gates) if table for part in (markdown_table(table), "")]
    lines += [markdown_table(_lineage(asked, tracking, platform, current)), ""]
    if current:
        changes = _changes(version, current, tracking)
        if changes:
            lines += [f"**What differs from version {current.number}**", "", *changes, ""]
    lines.append(f"<sub>Approvals count for these bytes only: `{version.digest}`</sub>")
    return "\n".join(lines) + "\n"


def _needs(asked: Asked, platform: PlatformSpec, evidence: Mapping[str, Any]) -> str:
    if asked.emergency and platform.emergency:
        return f"somebody of the team {platform.emergency.team}; in an emergency no other approval, but a review later."
    tier = tier_of(platform, asked.model.name, asked.model.tier)
    if tier not in platform.tiers:
        return f"a tier that the platform knows; {tier} is none."
    needs = requirement(platform, asked.model.promote, tier, asked.stage)
    care = strictest_care(
        asked.model.evaluate.on_inconclusive, platform.tiers[tier].on_inconclusive, evidence.get("on_inconclusive", "")
    )
    undecided = INCONCLUSIVE in (asked.version.gate, evidence.get("outcome")) and care != "pass"
    needs = needs.with_person() if undecided else needs
    if needs.count == 0:
        merged = "and merges itself" if needs.machine else "somebody has to merge it"
        return f"no approval: tier {tier} asks for none in {asked.stage}; {merged}."
    noun = "approval" if needs.count == 1 else "approvals"
    text = (
        f"{needs.count} {noun} (tier {tier}, {asked.stage}) of the newest commit, by people with write access "
        "who did not write it"
    )
    text += f", one of each team: {', '.join(needs.teams)}" if needs.teams else ""
    text += ": a person, because the held-out rows did not decide its gates" if undecided else ""
    text += f"; after {show_duration(needs.soak)} in the stage before" if needs.soak else ""
    return f"{text}."


def _current(tracking: Tracking, asked: Asked) -> VersionFact | None:
    if asked.now is None:
        return None
    try:
        return tracking.version(asked.version.model, asked.now.version)
    except InputError:
        return None


def _evidence(tracking: Tracking, version: VersionFact) -> Mapping[str, Any]:
    try:
        return tracking.read_json(version.run_id, version.evidence_file)
    except (InputError, OutsideError):
        return {}


def _compared(
    evidence: Mapping[str, Any], tracking: Tracking, stage: str, current: VersionFact | None
) -> tuple[dict[str, tuple[float | None, str]], str]:
    """The metrics of what the stage has now and how to call them: on the same rows where a gate compared them."""
    if current is None:
        return {}, ""
    champion = (evidence.get("champions") or {}).get(stage) or {}
    same_rows = _metrics({"metrics": (evidence.get("champion_metrics") or {}).get(stage)})
    if champion.get("version") == current.number and same_rows:
        return same_rows, f"version {current.number}, same rows"
    return _metrics(_evidence(tracking, current)), f"version {current.number}, its own rows"


def _metrics_table(
    evidence: Mapping[str, Any], before: Mapping[str, tuple[float | None, str]], heading: str
) -> Table | None:
    metrics = _metrics(evidence)
    if not metrics:
        return None
    rows = []
    for name, (value, interval) in metrics.items():
        then = before.get(name, (None, ""))[0]
        change = value - then if value is not None and then is not None else None
        signed = f"{change:+.4g}" if change is not None else ""
        rows.append((name, value, interval, *((then, signed) if heading else ())))
    head = ("metric", "value", "95 % interval") + ((heading, "change") if heading else ())
    counted = evidence.get("rows")
    title = f"Evidence on {counted:,} held-out rows" if isinstance(counted, int) else "Evidence"
    return Table(title=title, columns=head, rows=tuple(rows))


def _metrics(evidence: Mapping[str, Any]) -> dict[str, tuple[float | None, str]]:
    """Metric → value and interval, from the evidence file."""
    found: dict[str, tuple[float | None, str]] = {}
    for name, metric in (evidence.get("metrics") or {}).items():
        if isinstance(metric, int | float):
            found[name] = (float(metric), "")
        elif isinstance(metric, Mapping) and isinstance(metric.get("value"), int | float):
            low, high = (metric.get(k) for k in ("low", "high"))
            interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
            found[name] = (float(metric["value"]), interval)
    return found


def _gates_table(evidence: Mapping[str, Any]) -> Table | None:
    gates = [g for g in evidence.get("gates") or [] if isinstance(g, Mapping)]
    rows = tuple((str(g.get("gate", "")), _outcome(g.get("outcome")), str(g.get("message", ""))) for g in gates)
    return Table(title="Gates", columns=("gate", "result", "reason"), rows=rows) if rows else None


def _outcome(value: Any) -> Outcome | str:
    return Outcome(value) if value in [str(o) for o in Outcome] else str(value)


def _lineage(asked: Asked, tracking: Tracking, platform: PlatformSpec, current: VersionFact | None) -> Table:
    version = asked.version
    rows: list[tuple[str, str]] = [("version", f"{version.number}"), ("run", version.run_id)]
    rows += [("commit", version.commit[:12])] if version.commit else []
    rows += [(path, digest) for path, digest in version.data.items()]
    spent, before = (_training(tracking, v, platform) for v in (version, current))
    if spent:
        rows.append(("training", spent + (f" (version {current.number}: {before})" if current and before else "")))
    if platform.serving.usd_per_hour:
        hour = platform.serving.usd_per_hour
        rows.append(("serving", f"${hour:.2f} an hour for each running version; both run while traffic moves"))
    return Table(title="Where it comes from", columns=("what", "which"), rows=tuple(rows))


def _training(tracking: Tracking, version: VersionFact | None, platform: PlatformSpec) -> str:
    """How long a version was trained and what that cost; empty where it is not known."""
    run = _run(tracking, version) if version else None
    seconds = float(run.tags.get("mlp.train_seconds", 0) or 0) if run else 0.0
    if run is None or not seconds:
        return ""
    price = platform.runners.get(run.tags.get("mlp.runner", ""))
    spent = f", ${seconds / 3600 * price.usd_per_hour:.2f}" if price and price.usd_per_hour else ""
    return show_duration(timedelta(seconds=round(seconds))) + spent


def _run(tracking: Tracking, version: VersionFact) -> RunFact | None:
    try:
        return tracking.run(version.run_id)
    except (InputError, OutsideError):
        return None


def _changes(version: VersionFact, current: VersionFact, tracking: Tracking) -> list[str]:
    """What differs in code, data and parameters, one line each."""
    lines = []
    if version.commit != current.commit:
        lines.append(f"- code: `{current.commit[:12]}` → `{version.commit[:12]}`")
    for path in sorted({*version.data, *current.data}):
        old, new = current.data.get(path, "none"), version.data.get(path, "none")
        if old != new:
            lines.append(f"- data: `{markdown_cell(path)}` {old[:16]}… → {new[:16]}…")
    runs = _run(tracking, version), _run(tracking, current)
    new_params, old_params = (dict(r.params) if r else {} for r in runs)
    for name in sorted({*new_params, *old_params}):
        if new_params.get(name) != old_params.get(name):
            was, now = old_params.get(name, "unset"), new_params.get(name, "unset")
            lines.append(f"- parameter `{markdown_cell(name)}`: {markdown_cell(was[:60])} → {markdown_cell(now[:60])}")
    return lines[:40]


def links(asked: Asked, tracking: Tracking) -> str:
    """A line of links: the version and the run in MLflow, and the commit."""
    version = asked.version
    pages = [
        ("version", tracking.version_page(version.model, version.number)),
        ("run", tracking.run_page(version.run_id)),
        ("commit", asked.commit_url.format(sha=version.commit) if version.commit else ""),
    ]
    return " · ".join(f"[{title}]({address})" for title, address in pages if "://" in address)
