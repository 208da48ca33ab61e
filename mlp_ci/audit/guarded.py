"""Whether what promotions rely on (workflows, owners, tier) only changed with the platform team's approval.

Looked at from the first recorded deployment on: before it, nobody relied on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci import git
from mlp_ci.audit.clones import fetched
from mlp_ci.errors import InputError, SpecError
from mlp_ci.progress import doing
from mlp_ci.promote.guarded import GUARDED_FILES, GUARDED_PATHS, guarded_changes
from mlp_ci.promote.people import WRITERS
from mlp_ci.report import Finding, Outcome
from mlp_ci.spec import MODEL_FILE

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.promote.gather import Gatherer

MOST = 100  # changes that are looked at, the newest


def guarded_files(ctx: Context, gatherer: Gatherer, since: str) -> list[Finding]:
    """What changed on the default branch after the commit ``since`` without the platform team."""
    doing("looking at workflows and owners")
    hub = gatherer.hub
    place = fetched(ctx, hub, hub.default_branch)
    assert place is not None, "the default branch is there"
    # A commit that is not in the history (somebody rewrote it) bounds nothing: then all of it is looked at.
    known = since in {c.sha for c in git.commits(place.repo, place.tip)}
    span = f"{since}..{place.tip}" if known else place.tip
    paths = (*GUARDED_PATHS, *GUARDED_FILES, MODEL_FILE)
    commits = git.commits(place.repo, span, *(f":(icase,top){path}" for path in paths), first_parent=True)
    found, changes = [], 0
    for commit in reversed(commits[-MOST:]):
        names = _changed(gatherer, commit)
        if names:
            changes += 1
            found += _judged(gatherer, commit, names)
    if len(commits) > MOST:
        what = f"only the newest {MOST} changes of such files were looked at, of {len(commits)}"
        found.append(Finding(check="guarded-files", outcome=Outcome.SKIP, severity="notice", message=what))
    if not any(f.outcome is Outcome.FAIL for f in found):
        what = f"{changes} changes of guarded files since the first deployment, all reviewed" if changes else _NO_CHANGE
        found.append(Finding(check="guarded-files", outcome=Outcome.PASS, message=what))
    return found


def _changed(gatherer: Gatherer, commit: git.Commit) -> tuple[str, ...]:
    files = [change.path for change in commit.changes]
    if not commit.parents:
        return tuple(files)
    try:
        return guarded_changes(gatherer.hub, files, commit.parents[0], commit.sha)
    except (SpecError, InputError):
        return (f"{MODEL_FILE} (it could not be read before)",)


def _judged(gatherer: Gatherer, commit: git.Commit, names: tuple[str, ...]) -> list[Finding]:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    pull = gatherer.walk.merged_pull(gatherer.walk.commit(commit.sha))
    if pull is None or not commit.parents:
        fact = gatherer.walk.commit(commit.sha)
        who = fact.author or fact.committer or commit.author
        what = f"{commit.sha[:12]} by {who} changed it without a pull request"
        fix = f"read it (`git show {commit.sha[:12]}`); revert it, or let a pull request of the same go through review"
        return [Finding(check="guarded-files", outcome=Outcome.FAIL, message=what, subject=shown, fix=fix)]
    verdict = gatherer.guarded_verdict(pull, names, commit.parents[0])
    failed = [r for r in verdict.reasons if r.outcome is Outcome.FAIL]
    if not failed:
        return [r for r in verdict.reasons if r.check == "guarded-files" and r.outcome is Outcome.SKIP]
    gone = [r.subject for r in verdict.reasons if r.check == "approval-counts" and r.subject]
    left = [who for who in gone if gatherer.hub.permission(who) not in WRITERS]
    if left and all(r.check == "approvals" or r.check.startswith("team:") for r in failed):
        what = f"#{pull.number} changed it; {', '.join(left)}, who approved that, may no longer write here"
        return [Finding(check="guarded-files", outcome=Outcome.SKIP, severity="notice", message=what, subject=shown)]
    what = f"#{pull.number} changed it, and {failed[0].message}"
    fix = f"have one of the platform team approve #{pull.number} now, or revert {commit.sha[:12]}"
    return [Finding(check="guarded-files", outcome=Outcome.FAIL, message=what, subject=shown, fix=fix)]


_NO_CHANGE = "no workflow, owner, tier or rule of promotion changed since the first deployment"
