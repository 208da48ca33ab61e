"""Whether the records are whole: the chain itself, what GitHub's deployments say of it, and what clones remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.audit.clones import fetched
from mlp_ci.progress import doing
from mlp_ci.promote.ledger import RESTORE, Ledger, broken, read_local
from mlp_ci.promote.records import BRANCH
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.github.facts import DeploymentFact

MOST_DEPLOYMENTS = 2_000
NONE = Ledger(tip="", commits=(), files={})


def ledger_of(ctx: Context, hub: Hub) -> tuple[Ledger, list[Finding]]:
    """The records as GitHub has them now, and what does not hold of them."""
    doing("reading the records of deployments")
    place = fetched(ctx, hub, BRANCH)
    ledger = (read_local(place.repo) if place else None) or NONE
    deployments = hub.all_deployments(limit=MOST_DEPLOYMENTS)
    findings = broken(ledger, _announced(deployments))
    if place and place.before and place.before not in {c.sha for c in ledger.commits}:
        what = f"{BRANCH} was {place.before[:12]} when this machine last looked, which is not in its history any more"
        findings.append(Finding(check="chain-end", outcome=Outcome.FAIL, message=what, subject=BRANCH, fix=RESTORE))
    if not findings:
        findings = [_whole(ledger), *_unannounced(ledger, deployments)]
    return ledger, findings


def local_ledger(ctx: Context) -> tuple[Ledger, list[Finding]]:
    """The same for a repository on no GitHub."""
    ledger = read_local(ctx.repo) or NONE
    return ledger, broken(ledger) or [_whole(ledger)]


def _announced(deployments: Sequence[DeploymentFact]) -> dict[str, str]:
    """The hashes that deployments carry → which deployment."""
    found = {}
    for d in reversed(deployments):
        record = d.payload.get("record")
        if isinstance(record, str) and record:
            found[record] = f"deployment {d.id} of {d.created} to {d.stage}"
    return found


def _whole(ledger: Ledger) -> Finding:
    count = len(ledger.records)
    if not count:
        return Finding(check="chain", outcome=Outcome.SKIP, message="no deployment is on record yet")
    said = "1 record" if count == 1 else f"{count:,} records, each with the hash of the one before"
    return Finding(check="chain", outcome=Outcome.PASS, message=f"{said}; nobody changed, dropped or replaced one")


def _unannounced(ledger: Ledger, deployments: Sequence[DeploymentFact]) -> list[Finding]:
    """Records without a deployment: left by what was killed in between, or written by somebody else's hand."""
    known = {d.payload.get("record") for d in deployments}
    alone = [number for digest, number in ledger.digests.items() if digest not in known]
    if not alone or len(deployments) >= MOST_DEPLOYMENTS:
        return []
    shown = ", ".join(map(str, sorted(alone)[:5])) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
    what = f"GitHub has no deployment for record {shown}; a deployment that was cut short leaves one like this"
    return [Finding(check="chain", outcome=Outcome.SKIP, severity="notice", message=what)]
