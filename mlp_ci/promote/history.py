"""Who last changed a stage's entry on the default branch, found so that no way of writing history can hide it.

The walk goes from the newest commit back and never takes git's word for "the last commit that touched the file":
git follows whichever parent of a merge has the same file, and so would follow a merge, pushed directly, that brings
an old promotion back. At a merge whose parents disagree, the entry must be what a three-way merge of them gives:

- it came from the first parent: the merge is neutral, and the walk goes on there;
- it came from the second parent: if this is the merge of a pull request, that is the change; if somebody merged on
  their own machine (``git pull``), the walk goes on in the second parent;
- anything else: somebody wrote the entry into the merge, and the merge is the change, made without a pull request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, SpecError
from mlp_ci.promote.gather import promotion_at
from mlp_ci.spec import PROMOTION_FILE, PromotionSpec, StageEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.github import CommitFact, Hub, PullDetail

WALK_LIMIT = 5_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """The commit that made a stage's entry what it is. ``pull``: the merged pull request that it is the merge of."""

    commit: CommitFact
    before: PromotionSpec
    after: PromotionSpec
    pull: PullDetail | None


@dataclass
class History:
    """The history of promotion.yaml on one default branch; every question is asked of GitHub once."""

    hub: Hub
    model: str
    _commits: dict[str, CommitFact] = field(default_factory=dict)
    _specs: dict[str, PromotionSpec | None] = field(default_factory=dict)
    _pulls: dict[int, PullDetail] = field(default_factory=dict)

    def changes(self, stage: str, start: str) -> Iterator[Change]:
        """The changes of a stage's entry, newest first, beginning at the commit ``start``."""
        here = start
        while True:
            change = self.last_change(stage, here)
            if change is None:
                return
            yield change
            if not change.commit.parents:
                return
            here = change.commit.parents[0]

    def last_change(self, stage: str, start: str) -> Change | None:
        """The change that made the entry what it is at ``start``; None when the stage never had one."""
        here, touching = start, self._touching(start)
        for _ in range(WALK_LIMIT):
            commit = self.commit(here)
            if len(commit.parents) == 1 and here not in touching:
                here = commit.parents[0]
                continue
            following, change = self._step(stage, commit)
            if following is None:
                return change
            here = following
            if len(commit.parents) > 1:  # git may have gone another way from here, and its list with it
                touching = self._touching(here)
        msg = f"the entry of {stage} did not change in the last {WALK_LIMIT:,} commits; nobody can say who approved it"
        raise InputError(msg, fix=f"promote the version to {stage} again")

    def _step(self, stage: str, commit: CommitFact) -> tuple[str | None, Change | None]:
        """The parent to go on with, or (None, the change)."""
        entry = self.entry(stage, commit.sha)
        parents = commit.parents
        if not parents:
            return None, (self._change(commit, None) if entry else None)
        entries = [self.entry(stage, p) for p in parents]
        if all(e == entry for e in entries):
            return parents[0], None
        if len(parents) == 1:
            return None, self._change(commit, self.merged_pull(commit))
        if len(parents) == 2:
            base = self.entry(stage, self.hub.merge_base(*parents))
            if entries == [entry, base]:
                return parents[0], None
            if entries == [base, entry]:
                pull = self.merged_pull(commit)
                return (None, self._change(commit, pull)) if pull else (parents[1], None)
        return None, self._change(commit, None)

    def _change(self, commit: CommitFact, pull: PullDetail | None) -> Change:
        empty = PromotionSpec(apiVersion="mlp-ci/v1", model=self.model)  # type: ignore[call-arg]
        before = self.spec(commit.parents[0]) if commit.parents else empty
        after = self.spec(commit.sha)
        return Change(commit=commit, before=before or empty, after=after or empty, pull=pull)

    def _touching(self, start: str) -> set[str]:
        return {c.sha for c in self.hub.commits_touching(PROMOTION_FILE, start)}

    def commit(self, sha: str) -> CommitFact:
        """One commit; a page of its history is read with it."""
        if sha not in self._commits:
            self._commits |= {c.sha: c for c in self.hub.commits(sha, limit=1)}
        return self._commits[sha]

    def spec(self, sha: str) -> PromotionSpec | None:
        """promotion.yaml at a commit; None where it could not be read."""
        if sha not in self._specs:
            try:
                self._specs[sha] = promotion_at(self.hub, sha, self.model)
            except SpecError:
                self._specs[sha] = None
        return self._specs[sha]

    def entry(self, stage: str, sha: str) -> StageEntry | None:
        spec = self.spec(sha)
        return spec.stages.get(stage) if spec else None

    def merged_pull(self, commit: CommitFact) -> PullDetail | None:
        """The pull request into the default branch whose merge (or squash, or rebase) this commit is."""
        numbers = dict.fromkeys([*self.hub.pulls_of_commit(commit.sha), *self.hub.pulls_merged_as(commit.sha)])
        for number in numbers:
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
