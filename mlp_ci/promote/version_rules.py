"""The rules about the version that an entry names: registered, gated, the same bytes, free, soaked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.promote.case import INCONCLUSIVE, Case, failed, passed, skipped
from mlp_ci.promote.requirement import strictest_care, tier_of
from mlp_ci.report import Outcome
from mlp_ci.spec import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.promote.case import Registered
    from mlp_ci.promote.requirement import Requirement
    from mlp_ci.report import Finding
    from mlp_ci.spec import StageEntry


def entry_rules(case: Case, needs: Requirement, *, waived: str = "") -> Iterator[Finding]:
    """All rules about the entry; ``waived`` says why order, soak and freezes are not asked for."""
    entry = case.entry
    if entry is None:
        yield passed("version", f"{case.stage} is to run nothing")
        yield from _freeze_rule(case, needs, waived)
        return
    yield from registry_rules(entry, case.registered, care_of(case))
    yield from _quarantine_rules(case, entry)
    if waived:
        yield skipped("stage-order", waived)
    else:
        order = _order_rule(case, entry)
        yield order
        yield from _soak_rule(case, needs, entry, in_order=order.outcome is Outcome.PASS)
    yield from _freeze_rule(case, needs, waived)


def care_of(case: Case) -> str:
    """What an undecided gate means here, by the strictest of model.yaml, the evidence and the platform's tier."""
    policy = case.platform.tiers.get(tier_of(case.platform, case.before.model, case.tier))
    said = [case.on_inconclusive, *([policy.on_inconclusive] if policy else [])]
    evidence = case.registered.on_inconclusive
    return strictest_care(*said, *([evidence] if evidence else []))


def registry_rules(entry: StageEntry, registered: Registered, care: str = "ask") -> Iterator[Finding]:
    """Whether the registry has the version that the entry names, gated, with the same bytes, evidence and lineage.

    ``care``: what it means that the held-out rows did not decide its gates (:func:`care_of`).
    """
    name = f"version {entry.version}"
    if not registered.exists:
        fix = "name a version that `mlp-ci register` made"
        yield failed("version", f"{name} is not in the registry", fix=fix)
        return
    yield passed("version", f"{name} is in the registry")
    yield _gate_rule(name, registered, care)
    if registered.digest == entry.digest:
        yield passed("digest", f"the registry has the same bytes ({entry.digest[:19]}…)")
    else:
        what = f"the file names {entry.digest[:19]}…, the registry has {registered.digest[:19] or 'none'}…"
        fix = "run `mlp-ci promote` again; if you did not expect this, find out who changed the artefact"
        yield failed("digest", what, fix=fix)
    yield _evidence_rule(entry, registered)
    yield _lineage_rule(name, registered)


def _gate_rule(name: str, registered: Registered, care: str) -> Finding:
    """What the tag says has to be what the evidence says: whoever may write tags must not decide alone."""
    fix = "promote a version that passed; `mlp-ci evaluate` says why this one did not"
    if registered.gate not in ("pass", INCONCLUSIVE) or registered.shown == "fail":
        return failed("gate", f"{name} did not pass its gate", fix=fix)
    if not registered.evidence:
        return failed("gate", f"{name} has no evidence", fix=fix)
    if registered.shown == "nothing":
        return failed("gate", f"the evidence of {name} does not say whether it passed its gate", fix=fix)
    if registered.gate == "pass" and registered.shown == INCONCLUSIVE and registered.on_inconclusive != "pass":
        what = f"the registry says that {name} passed its gate, and its evidence says inconclusive"
        return failed("gate", what, fix="find out who changed the tag `mlp.gate`; register the model again")
    if not registered.undecided:
        return passed("gate", f"{name} passed its gate")
    if care == "block":
        what = f"the held-out rows did not decide the gates of {name}, and on_inconclusive is block"
        return failed("gate", what, fix="hold out more rows and evaluate again, or promote a version that passed")
    asked = "a person has to approve it" if care == "ask" else "on_inconclusive is pass"
    return passed("gate", f"the held-out rows did not decide the gates of {name}; {asked}")


def _evidence_rule(entry: StageEntry, registered: Registered) -> Finding:
    fix = "find out who changed the evidence; then evaluate, register and promote the model again"
    if registered.evidence_found != registered.evidence or not registered.evidence:
        what = "its evidence is not what it was registered with" if registered.evidence_found else "it has no evidence"
        return failed("evidence", what, fix=fix)
    if entry.evidence is None:
        return passed("evidence", "its evidence is what it was registered with (promotion.yaml does not name it)")
    if entry.evidence != registered.evidence:
        what = f"the file names the evidence {entry.evidence[:19]}…, the registry has {registered.evidence[:19]}…"
        return failed("evidence", what, fix=fix)
    return passed("evidence", f"its evidence is what the file names ({entry.evidence[:19]}…)")


def _lineage_rule(name: str, registered: Registered) -> Finding:
    missing = []
    if not registered.commit:
        missing.append("no commit")
    elif not registered.commit_known:
        missing.append(f"its commit {registered.commit[:12]} is not in the history of the default branch")
    if not registered.data:
        missing.append("no data by digest")
    if missing:
        what = f"{name} does not say where it comes from: {', '.join(missing)}"
        return failed("lineage", what, fix="train and register it through the workflow")
    return passed("lineage", f"{name} comes from commit {registered.commit[:12]} and data that is named by digest")


def _quarantine_rules(case: Case, entry: StageEntry) -> Iterator[Finding]:
    held = {q.digest: q for q in (*case.before.quarantine, *case.after.quarantine)}.get(entry.digest)
    if held:
        what = f"these bytes are quarantined since {held.since:%Y-%m-%d}: {held.reason or 'no reason given'}"
        fix = "promote another version, or first lift the quarantine in a pull request of its own"
        yield failed("quarantine", what, fix=fix)
    elif case.lifted:
        fix = "put the quarantine back, and lift it in a pull request of its own that is approved"
        yield failed("quarantine-lift", case.lifted, fix=fix)
    else:
        yield passed("quarantine", "its bytes are not quarantined")


def _order_rule(case: Case, entry: StageEntry) -> Finding:
    earlier = case.platform.stage_before(case.stage)
    if earlier is None:
        return passed("stage-order", f"{case.stage} is the first stage")
    there = case.before.stages.get(earlier.name)
    if entry.same(there):
        return passed("stage-order", f"{earlier.name} has this version")
    runs = f"version {there.version}" if there else "nothing"
    if there and there.version == entry.version:
        runs += " with other bytes"
    fix = f"mlp-ci promote {earlier.name} --version {entry.version}, and merge that first"
    what = f"{case.stage} only takes what {earlier.name} has; {earlier.name} has {runs}"
    return failed("stage-order", what, fix=fix)


def _soak_rule(case: Case, needs: Requirement, entry: StageEntry, *, in_order: bool) -> Iterator[Finding]:
    earlier = case.platform.stage_before(case.stage)
    if earlier is None or not needs.soak:
        return
    asked = show_duration(needs.soak)
    if case.stay.longest >= needs.soak:
        yield passed("soak", f"it was verified in {earlier.name} for the {asked} that it has to be")
    elif case.stay.since is not None:
        end = case.stay.since + needs.soak
        what = f"it has to be in {earlier.name} for {asked}; it is there since {case.stay.since:%Y-%m-%d %H:%M} UTC"
        yield failed("soak", what, fix=f"wait until {end:%Y-%m-%d %H:%M} UTC; this is judged again by itself")
    elif in_order:
        what = f"it has to be in {earlier.name} for {asked}, and no deployment of it there is on record"
        fix = f"let the deploy workflow bring version {entry.version} to {earlier.name} first"
        yield failed("soak", what, fix=fix)


def _freeze_rule(case: Case, needs: Requirement, waived: str) -> Iterator[Finding]:
    ends = [(end, freeze.reason) for freeze in needs.freezes if (end := freeze.end(case.at))]
    if not ends:
        return
    end, reason = max(ends)
    what = f"{case.stage} is frozen until {end:%Y-%m-%d %H:%M} UTC: {reason}"
    if waived:
        yield skipped("freeze", f"{what}; {waived}")
    else:
        yield failed("freeze", what, fix="wait; this is judged again by itself, or see `mlp-ci promote --emergency`")
