"""Pull requests: opening, editing, closing, and following the branches they are made of."""

from __future__ import annotations

from mlp_ci.sandbox.forge import access, events, history, protection
from mlp_ci.sandbox.forge.access import Actor, Forge
from mlp_ci.sandbox.forge.issues import new_issue
from mlp_ci.sandbox.forge.objects import Change, Commit, Person
from mlp_ci.sandbox.forge.records import Issue, Pull, Repo, Review, User
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import invalid, stamp

Moves = dict[str, tuple[str, str]]
# Who GitHub names as committer of what it commits itself.
WEB_FLOW = Person("GitHub", "noreply@github.com")


def open_pull(
    forge: Forge, repo: Repo, actor: Actor, ends: tuple[str, str], text: tuple[str, str | None], *, draft: bool
) -> Pull:
    """Open a pull request; ``ends``: (head, base), head as ``branch`` or ``owner:branch``; ``text``: (title, body)."""
    head, base = ends
    source, head_ref = _head(forge, repo, actor, head)
    head_sha = forge.git.refs(source, f"refs/heads/{head_ref}").get(f"refs/heads/{head_ref}")
    base_sha = forge.git.refs(repo, f"refs/heads/{base}").get(f"refs/heads/{base}")
    if head_sha is None:
        msg = "PullRequest"
        raise invalid(msg, "head")
    if base_sha is None:
        msg = "PullRequest"
        raise invalid(msg, "base")
    with forge.git.lock(repo):
        forge.git.fetch(repo, source, head_sha)
        if forge.git.merge_base(repo, base_sha, head_sha) is None:
            _custom(f"The {head_ref} branch has no history in common with {base}")
        if forge.git.is_ancestor(repo, head_sha, base_sha):
            _custom(f"No commits between {base} and {head_ref}")
        with forge.store.tx():
            where = "repo_id = ? AND head_repo_id = ? AND head_ref = ? AND base_ref = ? AND merged = 0"
            for other in forge.store.find(Pull, where, repo.id, source.id, head_ref, base):
                if forge.store.get(Issue, other.id).state == "open":
                    _custom(f"A pull request already exists for {source.owner}:{head_ref}.")
            issue = new_issue(forge, repo, actor, text[0], text[1], is_pull=True)
            pull = forge.store.insert(
                Pull, id=issue.id, repo_id=repo.id, number=issue.number, head_repo_id=source.id, head_ref=head_ref,
                head_sha=head_sha, base_ref=base, base_sha=base_sha, draft=draft, merged=False,
            )  # fmt: skip
            pull = refresh(forge, repo, pull)
            events.pull_event(forge, repo, actor, pull, "opened")
    return pull


def edit(forge: Forge, repo: Repo, actor: Actor, pull: Pull, title: str | None, body: str | None) -> Pull:
    """Change title or body (None: leave as it is)."""
    issue = forge.store.get(Issue, pull.id)
    new = {"title": title if title is not None else issue.title, "body": body if body is not None else issue.body}
    before = {"title": issue.title, "body": issue.body}
    if new != before:
        with forge.store.tx():
            forge.store.update(issue, **new, updated_at=stamp())
            changed = {key: {"from": before[key] or ""} for key in new if new[key] != before[key]}
            if "title" in changed:
                history.note(forge, repo, actor, pull.id, "renamed", rename={"from": issue.title, "to": new["title"]})
            events.pull_event(forge, repo, actor, pull, "edited", changes=changed)
    return pull


def set_base(forge: Forge, repo: Repo, actor: Actor, pull: Pull, base: str) -> Pull:
    """Point the pull request at another branch."""
    with forge.git.lock(repo):
        if f"refs/heads/{base}" not in forge.git.refs(repo, f"refs/heads/{base}"):
            msg = "PullRequest"
            raise invalid(msg, "base")
        with forge.store.tx():
            pull = refresh(forge, repo, forge.store.update(pull, base_ref=base))
            history.note(forge, repo, actor, pull.id, "base_ref_changed")
            events.pull_event(forge, repo, actor, pull, "edited", changes={})
    return pull


def retarget(forge: Forge, repo: Repo, actor: Actor, gone: str, base: str) -> None:
    """The branch ``gone`` was merged and is about to be deleted: what was to go there goes where it went."""
    with forge.git.lock(repo), forge.store.tx():
        for pull in _open_pulls(forge, "repo_id = ? AND base_ref = ?", repo.id, gone):
            moved = refresh(forge, repo, forge.store.update(pull, base_ref=base))
            history.note(forge, repo, actor, pull.id, "automatic_base_change_succeeded")
            events.pull_event(forge, repo, actor, moved, "edited", changes={})


def set_state(forge: Forge, repo: Repo, actor: Actor, pull: Pull, state: str) -> Pull:
    """Close, or open again; a merged pull request stays closed."""
    issue = forge.store.get(Issue, pull.id)
    if issue.state == state:
        return pull
    if pull.merged:
        _custom("state cannot be changed. The pull request has been merged.")
    with forge.git.lock(repo):
        if state == "closed":
            return _close(forge, repo, actor, pull)
        source = forge.store.get(Repo, pull.head_repo_id)
        head = forge.git.refs(source, f"refs/heads/{pull.head_ref}").get(f"refs/heads/{pull.head_ref}")
        if head is None:
            _custom(f"state cannot be changed. The {pull.head_ref} branch has been deleted.")
        if not forge.git.is_ancestor(source, pull.head_sha, head or ""):
            _custom(f"state cannot be changed. The {pull.head_ref} branch was force-pushed or recreated.")
        with forge.store.tx():
            forge.store.update(issue, state="open", closed_at=None, closed_by=None, updated_at=stamp())
            forge.git.fetch(repo, source, head or "")
            pull = refresh(forge, repo, forge.store.update(pull, head_sha=head))
            history.note(forge, repo, actor, pull.id, "reopened")
            events.pull_event(forge, repo, actor, pull, "reopened")
    return pull


def set_draft(forge: Forge, repo: Repo, actor: Actor, pull: Pull, draft: bool) -> Pull:
    """Mark as draft or as ready for review (GitHub has this only in GraphQL and on the page)."""
    if pull.draft != draft:
        with forge.store.tx():
            pull = forge.store.update(pull, draft=draft)
            history.note(forge, repo, actor, pull.id, "convert_to_draft" if draft else "ready_for_review")
            events.pull_event(forge, repo, actor, pull, "converted_to_draft" if draft else "ready_for_review")
    return pull


def follow(forge: Forge, repo: Repo, actor: Actor, moved: Moves) -> None:
    """Branches have moved: mark merged, synchronize or close pull requests into ``repo``. The caller holds its lock."""
    for pull in _open_pulls(forge, "repo_id = ?", repo.id):
        base = moved.get(f"refs/heads/{pull.base_ref}")
        head = moved.get(f"refs/heads/{pull.head_ref}") if pull.head_repo_id == repo.id else None
        if base and _merged(forge, repo, actor, pull, *base):
            continue
        if head:
            _head_moved(forge, repo, actor, pull, head[1])
        elif base and base[1] == ZERO:
            _close(forge, repo, actor, pull)
        elif base:
            refresh(forge, repo, pull, keep_base=True)


def follow_fork(forge: Forge, fork: Repo, actor: Actor) -> None:
    """Bring pull requests from a fork up to its branches. The caller holds no lock: the other repository's is taken."""
    for pull in _open_pulls(forge, "head_repo_id = ? AND repo_id != head_repo_id", fork.id):
        home = forge.store.get(Repo, pull.repo_id)
        new = forge.git.refs(fork, f"refs/heads/{pull.head_ref}").get(f"refs/heads/{pull.head_ref}", ZERO)
        if new != pull.head_sha:
            with forge.git.lock(home), forge.store.tx():
                _head_moved(forge, home, actor, pull, new)


def refresh(forge: Forge, repo: Repo, pull: Pull, *, keep_base: bool = False) -> Pull:
    """Compute again whether it merges cleanly, and put refs/pull/N/head and refs/pull/N/merge in place."""
    git = forge.git
    tip = git.refs(repo, f"refs/heads/{pull.base_ref}")[f"refs/heads/{pull.base_ref}"]
    tree = git.merge_tree(repo, tip, pull.head_sha)
    merge = None
    if tree is not None:
        title = f"Merge {pull.head_sha} into {tip}"
        merge = git.commit_tree(repo, tree, [tip, pull.head_sha], title, (WEB_FLOW, WEB_FLOW))
    git.force_ref(repo, f"refs/pull/{pull.number}/head", pull.head_sha)
    git.force_ref(repo, f"refs/pull/{pull.number}/merge", merge)
    base_sha = pull.base_sha if keep_base else tip
    return forge.store.update(pull, base_sha=base_sha, mergeable=merge is not None, merge_sha=merge)


def diff(forge: Forge, repo: Repo, pull: Pull) -> list[Change]:
    """What the pull request changes: from where it left the base branch to its head."""
    base = forge.git.merge_base(repo, pull.base_sha, pull.head_sha) or pull.base_sha
    return forge.git.diff(repo, base, pull.head_sha)


def commits(forge: Forge, repo: Repo, pull: Pull) -> list[Commit]:
    """Its commits, oldest first."""
    base = forge.git.merge_base(repo, pull.base_sha, pull.head_sha) or pull.base_sha
    return forge.git.log(repo, "--reverse", "--topo-order", f"{base}..{pull.head_sha}")


def _open_pulls(forge: Forge, where: str, *args: int | str) -> list[Pull]:
    is_open = "id IN (SELECT id FROM issues WHERE is_pull = 1 AND state = 'open')"
    return forge.store.find(Pull, f"({where}) AND {is_open}", *args)


def _head(forge: Forge, repo: Repo, actor: Actor, head: str) -> tuple[Repo, str]:
    owner, colon, branch = head.rpartition(":")
    if not colon or owner.lower() == repo.owner.lower():
        return repo, branch
    fork = forge.store.first(Repo, "owner = ? COLLATE NOCASE AND fork_of = ?", owner, repo.id)
    if fork is None or not access.visible(forge, actor, fork):
        msg = "PullRequest"
        raise invalid(msg, "head")
    return fork, branch


def _head_moved(forge: Forge, repo: Repo, actor: Actor, pull: Pull, new: str) -> None:
    if new == ZERO:
        _close(forge, repo, actor, pull)
        return
    old = pull.head_sha
    forge.git.fetch(repo, forge.store.get(Repo, pull.head_repo_id), new)
    pull = refresh(forge, repo, forge.store.update(pull, head_sha=new))
    if not forge.git.is_ancestor(repo, old, new):
        history.note(forge, repo, actor, pull.id, "head_ref_force_pushed", new)
    if protection.dismisses_stale(forge, repo, pull.base_ref):
        for review in forge.store.find(Review, "pull_id = ? AND state = 'APPROVED'", pull.id):
            history.dismiss(forge, repo, actor, review, None, new)
    forge.store.update(forge.store.get(Issue, pull.id), updated_at=stamp())
    events.pull_event(forge, repo, actor, pull, "synchronize", before=old, after=new)


def _merged(forge: Forge, repo: Repo, actor: Actor, pull: Pull, old: str, new: str) -> bool:
    """Whether the move of the base branch merged it, by its button or by a push that contains its head."""
    if new == ZERO:
        return False
    git = forge.git
    meant = pull.intent_sha is not None and git.is_ancestor(repo, pull.intent_sha, new)
    by_push = git.is_ancestor(repo, pull.head_sha, new) and (
        old == ZERO or not git.is_ancestor(repo, pull.head_sha, old)
    )
    if not meant and not by_push:
        return False
    at = stamp()
    who = forge.store.get(User, pull.intent_user) if meant and pull.intent_user else actor.user
    done = forge.store.update(
        pull, merged=True, merged_at=at, merged_by=who.id, merge_sha=pull.intent_sha if meant else new, intent_sha=None
    )
    issue = forge.store.get(Issue, pull.id)
    forge.store.update(issue, state="closed", closed_at=at, closed_by=who.id, updated_at=at)
    git.force_ref(repo, f"refs/pull/{pull.number}/merge", None)
    by = Actor(who, actor.token)
    history.note(forge, repo, by, pull.id, "merged", done.merge_sha)
    history.note(forge, repo, by, pull.id, "closed")
    events.pull_event(forge, repo, by, done, "closed")
    return True


def _close(forge: Forge, repo: Repo, actor: Actor, pull: Pull) -> Pull:
    at = stamp()
    with forge.store.tx():
        issue = forge.store.get(Issue, pull.id)
        forge.store.update(issue, state="closed", closed_at=at, closed_by=actor.user.id, updated_at=at)
        pull = forge.store.get(Pull, pull.id)
        history.note(forge, repo, actor, pull.id, "closed")
        events.pull_event(forge, repo, actor, pull, "closed")
    return pull


def _custom(message: str) -> None:
    msg = "PullRequest"
    raise invalid(msg, "base", "custom", message)
