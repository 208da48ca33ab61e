"""Who last changed a value of promotion.yaml on the default branch: a stage's entry, or whether bytes are quarantined.

It is found so that no way of writing history can hide it.

The walk goes from the newest commit back and never takes git's word for "the last commit that touched the file":
git follows whichever parent of a merge has the same file, and so would follow a merge, pushed directly, that brings
an old promotion back. At a merge whose parents disagree, the entry must be what a three-way merge of them gives:

- it came from the first parent: the merge is neutral, and the walk goes on there;
- it came from the second parent: if this is the merge of a pull request, that is the change; if somebody merged on
  their own machine (``git pull``), the walk goes on in the second parent;
- anything else: somebody wrote the entry into the merge, and the merge is the change, made without a pull request.

A commit at which the file cannot be read (broken, or a link) says nothing: what its first parent says still holds, so
that breaking the file and mending it is no way of changing a value unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, SpecError
from mlp_ci.promote.files import promotion_at
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlp_ci.github import CommitFact, Hub, PullDetail

    Reader = Callable[[PromotionSpec], Any]  # one value of promotion.yaml

WALK_LIMIT = 20_000


def of_stage(stage: str) -> Reader:
    """The entry of a stage."""
    return lambda spec: spec.stages.get(stage)


def of_quarantine(digest: str) -> Reader:
    """Whether these bytes are quarantined; None where they are not, as for a stage that has no entry."""
    return lambda spec: True if digest in {q.digest for q in spec.quarantine} else None


@dataclass(frozen=True, kw_only=True)
class Change:
    """The commit that made a value what it is. ``pull``: the merged pull request that it is the merge of."""

    commit: CommitFact
    before: PromotionSpec
    after: PromotionSpec
    pull: PullDetail | None


@dataclass
class History:
    """The history of promotion.yaml on one default branch; every question is asked of GitHub once.

    ``patience``: seconds to wait for GitHub to show which pull request a commit is the merge of.
    """

    hub: Hub
    model: str
    patience: float = 0.0
    _commits: dict[str, CommitFact] = field(default_factory=dict)
    _specs: dict[str, PromotionSpec | None] = field(default_factory=dict)
    _pulls: dict[int, PullDetail] = field(default_factory=dict)

    def changes(self, reader: Reader, start: str) -> Iterator[Change]:
        """The changes of a value, newest first, beginning at the commit ``start``."""
        here = start
        while True:
            change = self.last_change(reader, here)
            if change is None:
                return
            yield change
            if not change.commit.parents:
                return
            here = change.commit.parents[0]

    def last_change(self, reader: Reader, start: str) -> Change | None:
        """The change that made the value what it is at ``start``; None when it always was None."""
        here, touching = start, self._touching(start)
        for _ in range(WALK_LIMIT):
            commit = self.commit(here)
            if len(commit.parents) == 1 and here not in touching:
                here = commit.parents[0]
                continue
            following, change = self._step(reader, commit)
            if following is None:
                return change
            here = following
            if len(commit.parents) > 1:  # git may have gone another way from here, and its list with it
                touching = self._touching(here)
        msg = f"{PROMOTION_FILE} did not change in the last {WALK_LIMIT:,} commits; nobody can say who approved it"
        raise InputError(msg, fix="promote the version again")

    def _step(self, reader: Reader, commit: CommitFact) -> tuple[str | None, Change | None]:
        """The parent to go on with, or (None, the change)."""
        value = reader(self.spec(commit.sha))
        parents = commit.parents
        if not parents:
            return None, (self._change(commit, None) if value else None)
        values = [reader(self.spec(p)) for p in parents]
        if all(v == value for v in values):
            return parents[0], None
        if len(parents) == 1:
            return None, self._change(commit, self.merged_pull(commit))
        if len(parents) == 2:
            base = reader(self.spec(self.hub.merge_base(*parents)))
            if values == [value, base]:
                return parents[0], None
            if values == [base, value]:
                pull = self.merged_pull(commit)
                return (None, self._change(commit, pull)) if pull else (parents[1], None)
        return None, self._change(commit, None)

    def _change(self, commit: CommitFact, pull: PullDetail | None) -> Change:
        before = self.spec(commit.parents[0]) if commit.parents else self._empty()
        return Change(commit=commit, before=before, after=self.spec(commit.sha), pull=pull)

    def _empty(self) -> PromotionSpec:
        return PromotionSpec(apiVersion="mlp-ci/v1", model=self.model)  # type: ignore[call-arg]

    def _touching(self, start: str) -> set[str]:
        return {c.sha for c in self.hub.commits_touching(PROMOTION_FILE, start)}

    def commit(self, sha: str) -> CommitFact:
        """One commit; a page of its history is read with it."""
        if sha not in self._commits:
            self._commits |= {c.sha: c for c in self.hub.commits(sha, limit=1)}
        return self._commits[sha]

    def spec(self, sha: str) -> PromotionSpec:
        """promotion.yaml at a commit; where it cannot be read, what it said before."""
        here = sha
        for _ in range(WALK_LIMIT):
            if here not in self._specs:
                try:
                    self._specs[here] = promotion_at(self.hub, here, self.model)
                except (SpecError, InputError):
                    self._specs[here] = None
            found = self._specs[here]
            if found is not None:
                return found
            parents = self.commit(here).parents
            if not parents:
                break
            here = parents[0]
        return self._empty()

    def merged_pull(self, commit: CommitFact) -> PullDetail | None:
        """The pull request into the default branch whose merge (or squash, or rebase) this commit is."""
        for number in self.hub.merged_pull_numbers(commit.sha, patience=self.patience):
            if number not in self._pulls:
                self._pulls[number] = self.hub.pull(number)
            pull = self._pulls[number]
            if pull.state == "merged" and pull.base_ref == self.hub.default_branch and self._is_merge(pull, commit):
                return pull
        return None

    def _is_merge(self, pull: PullDetail, commit: CommitFact) -> bool:
        """``commit`` is the merge commit, or one of those that a rebase of the pull request left."""
        here = pull.merge_commit_sha
        for _ in pull.commits:
            if here == commit.sha:
                return True
            parents = self.commit(here).parents if here else ()
            if len(parents) != 1:
                return False
            here = parents[0]
        return False
