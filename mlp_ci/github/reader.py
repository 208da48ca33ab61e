"""What mlp-ci reads of one repository on GitHub. Makes no change there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from mlp_ci.errors import InputError
from mlp_ci.github.facts import (
    CommitFact,
    DeploymentFact,
    PullDetail,
    PullHistory,
    ReviewFact,
    commit_fact,
    deployment_fact,
    login_of,
    pull_detail,
    review_fact,
)
from mlp_ci.github.graphql import ask
from mlp_ci.github.past import pull_history, pushes
from mlp_ci.github.trees import Trees
from mlp_ci.github.wire import GitHubError, Wire, repository_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMPARED_LIMIT = 300  # files that GitHub lists when it compares; there is no second page of them


class Reader:
    """One repository on GitHub, to be read."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.place = wire.place
        self.trees = Trees(wire)
        self._bases: dict[tuple[str, str], str] = {}

    def _path(self, *parts: str | int) -> str:
        return repository_path(self.place.owner, self.place.repo, *parts)

    def of(self, repo: str) -> Self:
        """The same GitHub and token, another repository of the same owner."""
        return type(self)(replace(self.wire, place=replace(self.place, repo=repo)))

    @cached_property
    def _repository(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.wire.get(self._path(), "read the repository")
        return found

    @property
    def default_branch(self) -> str:
        return str(self._repository["default_branch"])

    @cached_property
    def login(self) -> str:
        """Who the token belongs to; empty for the token of an app, which is nobody."""
        try:
            return login_of(self.wire.get("/user", "read who the token belongs to"))
        except GitHubError as refusal:
            if refusal.status in (403, 404):
                return ""
            raise

    def head(self, branch: str) -> str:
        """The commit that ``branch`` points to; InputError when there is no such branch."""
        sha = self.trees.head(branch)
        if sha is None:
            msg = f"there is no branch {branch} in {self.place.full_name}"
            raise InputError(msg, fix="push the branch, or check the name of the repository")
        return sha

    def read_file(self, path: str, ref: str) -> bytes | None:
        """The file's content at a branch or commit; None where it is not. InputError for links and folders."""
        return self.trees.read(ref, path)

    def commit(self, sha: str) -> CommitFact:
        """One commit; InputError when there is none of that name."""
        try:
            return commit_fact(self.wire.get(self._path("commits", sha), f"read the commit {sha[:12]}"))
        except GitHubError as refusal:
            if refusal.status in (404, 422):
                msg = f"there is no commit {sha} in {self.place.full_name}"
                raise InputError(msg, fix="push it first, or check the name") from refusal
            raise

    def commits(self, ref: str, *, limit: int = 0) -> list[CommitFact]:
        """The history of ``ref``, newest first; at least ``limit`` commits when that is not 0."""
        return [
            commit_fact(c) for c in self.wire.pages(self._path("commits"), "read the history", limit=limit, sha=ref)
        ]

    def commits_touching(self, path: str, ref: str, *, until: str = "", limit: int = 0) -> list[CommitFact]:
        """The commits in the history of ``ref`` that changed ``path``, newest first, as ``git log`` has them.

        ``until``: only those dated by then. Whoever makes a commit chooses its date.
        """
        asked = {"sha": ref, "path": path, **({"until": until} if until else {})}
        found = self.wire.pages(self._path("commits"), f"read the history of {path}", limit=limit, **asked)
        return [commit_fact(c) for c in found]

    def merge_base(self, one: str, other: str) -> str:
        """The commit where two histories parted; both are named by hash, so that it never changes."""
        if (one, other) not in self._bases:
            found = self.wire.get(self._path("compare", f"{one}...{other}"), "compare two commits", per_page=1)
            self._bases[one, other] = str(found["merge_base_commit"]["sha"])
        return self._bases[one, other]

    def changed_between(self, base: str, head: str) -> tuple[str, ...]:
        """Paths that ``head`` changed since it parted from ``base``."""
        found = self.wire.get(self._path("compare", f"{base}...{head}"), "compare two commits")
        files = found.get("files") or []
        after = self.trees.commit_of(head) if len(files) >= COMPARED_LIMIT else None
        if after:
            return tuple(sorted(self.trees.changed(str(found["merge_base_commit"]["sha"]), after)))
        names = {f["filename"] for f in files} | {f["previous_filename"] for f in files if f.get("previous_filename")}
        return tuple(sorted(names))

    def pull(self, number: int) -> PullDetail:
        """One pull request with its files and commits; InputError when there is none."""
        try:
            raw = self.wire.get(self._path("pulls", number), f"read pull request #{number}")
        except GitHubError as refusal:
            if refusal.status == 404:
                msg = f"there is no pull request #{number} in {self.place.full_name}"
                fix = "check the number; the token needs `pull-requests: read`"
                raise InputError(msg, fix=fix) from refusal
            raise
        files = self.wire.pages(self._path("pulls", number, "files"), "read the files of a pull request")
        commits = self.wire.pages(self._path("pulls", number, "commits"), "read the commits of a pull request")
        return pull_detail(raw, files, commits)

    def pull_history(self, pull: PullDetail) -> PullHistory:
        """Who pushed it, who took reviews back, when it was reopened, whom its commits name as co-authors."""
        return pull_history(self.wire, pull)

    def graphql(self, query: str, variables: Mapping[str, Any], purpose: str) -> Mapping[str, Any]:
        """The ``data`` that GitHub's GraphQL API answers; retried and refused as all else."""
        return ask(self.wire, query, variables, purpose)

    def pushes(self, branch: str) -> Iterator[Mapping[str, Any]]:
        """GitHub's own record of what moved a branch, newest first: actor, before, after, timestamp, activity_type."""
        return pushes(self.wire, self.place.full_name, branch)

    def pulls_of_commit(self, sha: str) -> list[int]:
        """Numbers of the pull requests that hold this commit or brought it to the default branch."""
        found = self.wire.pages(self._path("commits", sha, "pulls"), "find the pull request of a commit")
        return [int(p["number"]) for p in found]

    def pulls_merged_as(self, sha: str) -> list[int]:
        """Numbers of recently closed pull requests whose merge commit is ``sha``.

        The index behind :meth:`pulls_of_commit` can lag behind a merge by seconds; this list does not.
        """
        path, why = self._path("pulls"), "look for the pull request of a merge"
        newest = {"state": "closed", "sort": "updated", "direction": "desc"}
        found = self.wire.pages(path, why, limit=100, base=self.default_branch, **newest)
        return [int(p["number"]) for p in found if p.get("merge_commit_sha") == sha and p.get("merged_at")]

    def pulls_of_branch(self, branch: str, state: str = "open") -> list[Mapping[str, Any]]:
        """Pull requests from ``branch`` into the default branch, newest first (state: open, closed or all)."""
        head = f"{self.place.owner}:{branch}"
        path, why = self._path("pulls"), f"look for pull requests from {branch}"
        found = self.wire.pages(path, why, state=state, head=head, base=self.default_branch)
        same = [p for p in found if p["head"]["ref"] == branch]  # a server that ignores `head` must not fool us
        return sorted(same, key=lambda p: -int(p["number"]))

    def open_pulls(self) -> list[int]:
        """Numbers of all open pull requests into the default branch."""
        path, why = self._path("pulls"), "list the open pull requests"
        return [int(p["number"]) for p in self.wire.pages(path, why, state="open", base=self.default_branch)]

    def merged_pull_numbers(self, sha: str, *, patience: float = 0.0) -> list[int]:
        """Numbers of the pull requests that may have brought a commit; GitHub may take seconds to show a merge.

        ``patience``: seconds to ask again while there is none.
        """
        from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

        path, why = self._path("commits", sha, "pulls"), "find the pull request of a commit"
        numbers: list[int] = []

        def merged() -> bool:
            found = self.wire.pages(path, why)
            known = any(p.get("merged_at") and p.get("merge_commit_sha") == sha for p in found)
            as_merge = [] if known else self.pulls_merged_as(sha)
            numbers[:] = dict.fromkeys([*(int(p["number"]) for p in found), *as_merge])
            return bool(as_merge) or any(p.get("merged_at") for p in found)

        asking = Retrying(
            retry=retry_if_result(lambda found: not found),
            stop=stop_after_delay(patience),
            wait=wait_fixed(2.0),
            sleep=self.wire.sleep,
        )
        with suppress(RetryError):
            asking(merged)
        return numbers

    def is_ancestor(self, sha: str, branch: str) -> bool:
        """Whether a commit is in the history of a branch; one that is not there at all is not."""
        try:
            found = self.wire.get(self._path("compare", f"{branch}...{sha}"), "compare two commits", per_page=1)
        except GitHubError as refusal:
            if refusal.status in (404, 422):
                return False
            raise
        return found.get("status") in ("behind", "identical")

    def all_deployments(self, *, limit: int, stage: str = "") -> list[DeploymentFact]:
        """The newest deployments of every stage (or one), without their states: a hundred in one request."""
        only = {"environment": stage} if stage else {}
        raw = self.wire.pages(self._path("deployments"), "read the deployments", limit=limit, **only)
        return [deployment_fact(d) for d in raw[:limit]]

    def deployment_state(self, number: int) -> str:
        """The newest state of a deployment; empty where it has none."""
        states = self.wire.get(self._path("deployments", number, "statuses"), "read the state of a deployment")
        return str(states[0]["state"]) if states else ""

    def reviews(self, number: int) -> list[ReviewFact]:
        """All reviews of a pull request, oldest first."""
        raw = self.wire.pages(self._path("pulls", number, "reviews"), "read the reviews of a pull request")
        return sorted((review_fact(r) for r in raw), key=lambda r: (r.submitted, r.id))

    def permission(self, login: str) -> str:
        """admin, write, read or none: what this person may do in the repository."""
        path = self._path("collaborators", login, "permission")
        try:
            return str(self.wire.get(path, f"read the permission of {login}")["permission"])
        except GitHubError as refusal:
            if refusal.status == 404:
                return "none"
            raise

    def team_members(self, slug: str) -> frozenset[str]:
        """Logins of the members of a team of the owner (and of its child teams).

        GitHub answers the same whether there is no such team or the token may not see it; a job's own token never may.
        """
        owner = self.place.owner
        path, purpose = f"/orgs/{quote(owner)}/teams/{quote(slug)}/members", f"read the members of the team {slug}"
        try:
            return frozenset(login_of(m) for m in self.wire.pages(path, purpose))
        except GitHubError as refusal:
            if refusal.status not in (403, 404):
                raise
            what = f"cannot read who is in the team {slug} of {owner}: there is none, or the token may not see it"
            why = f"{refusal.why}; without it no rule about a team can be verified"
            fix = (
                "give the job the token of a GitHub App with `members: read` as MLP_CI_TOKEN (GITHUB_TOKEN never may "
                f"read teams), and check that {owner} has a team with the slug {slug}"
            )
            raise GitHubError(refusal.status, what, why=why, fix=fix) from refusal
