"""After traffic went back: make git say the same, and quarantine what was taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.github import GitHubError, PullFact, PullRequest
from mlp_ci.promote.files import model_at, promotion_at
from mlp_ci.report import markdown_cell
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, edited_promotion

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.spec import Quarantined, StageEntry


MOST_EVIDENCE = 30_000  # characters; a text of GitHub holds 65,536


def record_rollback(
    ctx: Context, hub: Hub, stage: str, back_to: StageEntry, held: Quarantined, evidence: str = ""
) -> PullFact | str:
    """Commit the rollback to the default branch and return the commit; it needs no approval (see ``verify_intent``).

    Where the branch is protected and refuses, a pull request says the same and is returned. Doing it twice is doing
    it once. Raises InputError when another version was promoted to the stage meanwhile, and when ``back_to`` was
    itself rolled back before. ``evidence`` is Markdown that says what was seen, where something was measured.
    """
    _ = ctx
    evidence = evidence[:MOST_EVIDENCE]
    branch = hub.default_branch
    name = model_at(hub, branch).name

    def make(head: str) -> dict[str, bytes]:
        now = promotion_at(hub, head, name)
        text = (hub.read_file(PROMOTION_FILE, head) or b"").decode()
        return {PROMOTION_FILE: edited_promotion(text, rolled_back(now, stage, back_to, held)).encode()}

    title = f"Roll back {stage} of {name} to version {back_to.version}"
    message = f"{title}\n\n{_one_line(held.reason)}\n\nQuarantines version {held.version} ({held.digest})."
    message += f"\n\n{evidence}" if evidence else ""
    try:
        return hub.commit_files(branch, make, message)[0]
    except GitHubError as refusal:
        if refusal.status not in (403, 409, 422):
            raise
        said = refusal.why or refusal.what
    reason = markdown_cell(_one_line(held.reason))
    body = (
        f"Traffic of **{stage}** already is on version {back_to.version} again: {reason}\n\n"
        f"This makes git say the same and quarantines version {held.version} (`{held.digest}`). It needs no approval. "
        f"It is a pull request because {branch} takes no direct commit: {said}\n"
    )
    body += f"\n{evidence}" if evidence else ""
    files = make(hub.head(branch))
    wanted = PullRequest(branch=f"mlp-ci/rollback-{stage}", title=title, body=body, files=files, message=message)
    return hub.open_or_update_pull(wanted)


def rolled_back(now: PromotionSpec, stage: str, back_to: StageEntry, held: Quarantined) -> PromotionSpec:
    """promotion.yaml after the rollback: the stage's entry put back, the bytes taken away quarantined, no more."""
    entry = now.stages.get(stage)
    known = held.digest in {q.digest for q in now.quarantine}
    if back_to.same(entry) and known:
        return now
    if entry is None or entry.digest not in (held.digest, back_to.digest):
        has = f"version {entry.version}" if entry else "nothing"
        msg = f"git asks for {has} in {stage} by now, not for version {held.version}"
        why = "somebody promoted meanwhile; recording this rollback would undo their promotion unseen"
        raise InputError(
            msg, why=why, fix=f"decide which should serve; then `mlp-ci rollback --stage {stage} --to NUMBER`"
        )
    if back_to.digest in {q.digest for q in now.quarantine}:
        msg = f"version {back_to.version} is quarantined in git, so git cannot ask for it in {stage}"
        why = "`mlp-ci deploy` would refuse to start it again after a reboot"
        fix = f"roll back to another version, or lift its quarantine in a pull request that changes {PROMOTION_FILE}"
        raise InputError(msg, why=why, fix=fix)
    quarantine = now.quarantine if known else (*now.quarantine, held)
    return now.model_copy(update={"stages": {**now.stages, stage: back_to}, "quarantine": quarantine})


def _one_line(reason: str) -> str:
    return " ".join(reason.split())[:500] or "No reason was given."
