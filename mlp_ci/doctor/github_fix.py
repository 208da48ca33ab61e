"""``mlp-ci doctor --github``: GitHub's own settings beside what the policy relies on; ``--fix`` sets what is missing.

Every request is made so that a second one does no harm, and one that GitHub refuses does not keep back the others.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlp_ci.doctor.github_plan import compare, plan
from mlp_ci.doctor.github_read import read
from mlp_ci.doctor.settings import Unseen
from mlp_ci.errors import InputError, SpecError
from mlp_ci.report import Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlp_ci.context import Context
    from mlp_ci.doctor.settings import Change, Line
    from mlp_ci.github import Hub
    from mlp_ci.spec import PlatformSpec

COLUMNS = ("setting", "is", "should be", "why", "fix")


def examine_github(ctx: Context, *, fix: bool = False) -> Report:
    """Compare, and with ``fix`` set what can be set; then the table shows how it is afterwards."""
    from mlp_ci.github import connect

    hub = connect(ctx.require_github("doctor --github"))
    platform = _platform(ctx)
    settings = read(hub, platform)
    lines = compare(settings)
    changes = plan(settings, lines)
    done: list[tuple[Change, str]] = []
    if fix and changes:
        done = _all(hub, changes)
        settings = read(hub, platform)
        lines = compare(settings)
        changes = plan(settings, lines)
    report = _report(settings.full_name, lines, changes, done)
    if not fix and changes:
        report.links.append(("set them", "mlp-ci doctor --github --fix"))
    return report


def _platform(ctx: Context) -> PlatformSpec | Unseen:
    """The organisation's policy. Where it cannot be read nobody knows its stages; none are made up from the default."""
    from mlp_ci.github import policy_of

    try:
        return policy_of(ctx).spec
    except SpecError:
        raise
    except InputError as error:
        return Unseen(error.what, "`contents: read` on the organisation's .github", "pass --platform FILE")


def set_all(hub: Hub, platform: PlatformSpec, *, but: Collection[str] = ()) -> list[str]:
    """Set what is missing; the rules of the branches in ``but`` stay as they are. Gives what was refused."""
    settings = read(hub, platform)
    lines = [line for line in compare(settings) if not line.branch or line.branch not in but]
    return [refusal for _, refusal in _all(hub, plan(settings, lines)) if refusal]


def _all(hub: Hub, changes: Sequence[Change]) -> list[tuple[Change, str]]:
    """Make the changes in turn; what builds on one that was refused is not tried."""
    done: list[tuple[Change, str]] = []
    for change in changes:
        below = [other for other, refusal in done if refusal and change.path.startswith(f"{other.path}/")]
        done.append((change, "not tried: the one before was refused" if below else apply(hub, change)))
    return done


def apply(hub: Hub, change: Change) -> str:
    """Make one request; gives the refusal in words, or nothing when it is done."""
    from mlp_ci.github import GitHubError

    def step() -> None:
        if change.once is not None:
            there = hub.wire.pages(change.path, f"look before to {change.says}", item=change.once)
            if change.body["name"] in [one.get("name") for one in there]:
                return
        hub.wire.once(change.verb, change.path, change.says, body=change.body, needs=change.needs)

    try:
        hub.wire.again(step, change.says)
    except GitHubError as refusal:
        if refusal.status == 401:
            raise
        return f"{refusal.why or refusal.what}; {refusal.fix}" if refusal.fix else refusal.why or refusal.what
    return ""


def _report(name: str, lines: Sequence[Line], changes: Sequence[Change], done: Sequence[tuple[Change, str]]) -> Report:
    missing = [line for line in lines if line.outcome is Outcome.FAIL]
    by_hand = [line for line in missing if not line.mends_itself]
    skipped = [line for line in lines if line.outcome is Outcome.SKIP]
    hidden = [line for line in skipped if not line.fix.startswith("advice")]
    refused = [change for change, refusal in done if refusal]
    counts = {
        "as they should be": len(lines) - len(missing) - len(skipped),
        "set": len(done) - len(refused),
        "refused": len(refused),
        "for --fix": len(missing) - len(by_hand),
        "by hand": len(by_hand),
        "not checked": len(hidden),
        "with advice": len(skipped) - len(hidden),
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    report = Report(command="doctor", headline=f"settings of {name}: {told}")
    report.outcome = Outcome.FAIL if missing or refused else Outcome.PASS
    order = {Outcome.FAIL: 0, Outcome.SKIP: 1, Outcome.PASS: 2}
    rows = [(line.outcome, line.setting, line.now, line.wanted, line.why, line.fix) for line in lines]
    rows.sort(key=lambda row: order[row[0]])
    report.tables.append(Table(title="", columns=("", *COLUMNS), rows=tuple(rows)))
    if done:
        result = tuple((Outcome.FAIL if refusal else Outcome.PASS, c.says, refusal or "done") for c, refusal in done)
        report.tables.append(Table(title="What --fix did", columns=("", "change", "result"), rows=result))
    elif changes:
        asked = tuple((change.says, f"{change.verb} {change.path}", json.dumps(change.body)) for change in changes)
        columns = ("change", "request", "body")
        report.tables.append(Table(title="What --fix would do; nothing is changed yet", columns=columns, rows=asked))
    report.data = {
        "repository": name,
        "missing": len(missing),
        "settings": [_told(line) for line in lines],
        "changes": [asdict(change) for change in changes],
        "done": [{**asdict(change), "refusal": refusal} for change, refusal in done],
    }
    return report


def _told(line: Line) -> dict[str, Any]:
    shown = {"setting": line.setting, "is": line.now, "should_be": line.wanted, "why": line.why, "fix": line.fix}
    return {**shown, "outcome": str(line.outcome), "by": "--fix" if line.mends_itself else "hand" if line.fix else ""}
