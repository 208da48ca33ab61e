"""One repository on GitHub: what mlp-ci reads there and the few things it writes. Every write looks first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlp_ci.github.exchange import Transient
from mlp_ci.github.facts import DeploymentFact, PullFact, PullRequest, is_bot, login_of
from mlp_ci.github.reader import Reader
from mlp_ci.github.wire import PATIENCE_SECONDS, GitHubError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlp_ci.context import GitHubPlace

DESCRIPTION_LIMIT = 140  # of a commit status
BODY_LIMIT = 65_536  # of a comment or a pull request, in characters
MERGE_METHODS = ("merge", "squash", "rebase")


def connect(place: GitHubPlace, *, patience: float = PATIENCE_SECONDS) -> Hub:
    """GitHub at ``place``. Makes no request; ``patience`` is the seconds one call may spend on being tried again."""
    return Hub(Wire(place, patience))


class Hub(Reader):
    """One repository on GitHub, to be read and written."""

    def commit_files(self, branch: str, make: Callable[[str], Mapping[str, bytes]], message: str) -> tuple[str, bool]:
        """Commit to a branch that others move too; see :meth:`Trees.add_commit`."""
        return self.trees.add_commit(branch, make, message)

    def open_or_update_pull(self, wanted: PullRequest) -> PullFact:
        """Make the one pull request of a branch be as ``wanted``; what already is so is left alone.

        The branch is one commit on top of the default branch, made anew when its files should change, unless
        somebody added other files to it: then the new commit goes on top of theirs.
        """
        open_pulls = self.pulls_of_branch(wanted.branch)
        existing = open_pulls[0] if open_pulls else None
        sha, written = self._bring_branch(wanted, has_pull=existing is not None)
        body = wanted.body if len(wanted.body) <= BODY_LIMIT else wanted.body[: BODY_LIMIT - 2] + "…\n"
        texts = {"title": wanted.title, "body": body}
        path, needs = self._path("pulls"), "pull-requests: write"
        created = False
        if existing is None:
            request = {**texts, "head": wanted.branch, "base": self.default_branch}
            existing, created = self._create_pull(wanted.branch, request)
        stale = any((existing.get(k) or "").replace("\r\n", "\n") != v for k, v in texts.items())
        if stale:
            purpose = f"update pull request #{existing['number']}"
            self.wire.send("PATCH", f"{path}/{existing['number']}", purpose, texts, needs=needs)
        missing = set(wanted.labels) - {label["name"] for label in existing.get("labels") or []}
        if missing:
            labels = self._path("issues", existing["number"], "labels")
            self.wire.send("POST", labels, "label a pull request", {"labels": sorted(missing)}, needs=needs)
        changed = created or stale or written
        return PullFact(number=existing["number"], url=existing["html_url"], created=created, changed=changed, sha=sha)

    def _bring_branch(self, wanted: PullRequest, *, has_pull: bool) -> tuple[str, bool]:
        base = self.head(self.default_branch)
        message = wanted.message or wanted.title
        head = self.trees.head(wanted.branch)
        if head and not self.trees.different(head, wanted.files):
            touched = set(self.changed_between(base, head))
            if has_pull or touched == set(self.trees.different(base, wanted.files)):
                return head, False
        if head and has_pull and not set(self.changed_between(base, head)) <= set(wanted.files):
            sha, _ = self.trees.add_commit(wanted.branch, lambda _: wanted.files, message)
            return sha, True
        sha = self.trees.commit(base, wanted.files, message)
        self.trees.point(wanted.branch, sha, force=True)
        return sha, True

    def _create_pull(self, branch: str, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
        purpose, needs = "open a pull request", "pull-requests: write"

        def step() -> tuple[Mapping[str, Any], bool]:
            already = self.pulls_of_branch(branch)
            if already:  # an attempt of ours whose answer was lost
                return already[0], True
            try:
                return self.wire.once("POST", self._path("pulls"), purpose, body=request, needs=needs)[1], True
            except GitHubError as refusal:
                already = self.pulls_of_branch(branch) if refusal.status == 422 else []
                if already:
                    return already[0], False  # somebody opened it between our look and our request
                if refusal.status == 422 and "already exists" in refusal.what:
                    msg = "there is a pull request that GitHub does not list yet"
                    raise Transient(msg) from refusal
                raise

        return self.wire.again(step, purpose)

    def sticky_comment(self, number: int, marker: str, body: str, *, begin: bool = True) -> str:
        """Write the one comment that carries ``marker`` (hidden), or update it; returns its address.

        Only a comment of our own is updated: another person's, with the marker copied, stays theirs. Without
        ``begin`` none is written where there is none, and the address is empty.
        """
        hidden = f"<!-- {marker} -->"
        text = f"{hidden}\n{body}"
        text = text if len(text) <= BODY_LIMIT else text[: BODY_LIMIT - 2] + "…\n"
        purpose, needs = f"comment on #{number}", "pull-requests: write"

        def step() -> str:
            comments = self.wire.pages(self._path("issues", number, "comments"), "read the comments")
            mine = [c for c in comments if hidden in (c.get("body") or "") and self._is_ours(c.get("user"))]
            if not mine and not begin:
                return ""
            if not mine:
                path = self._path("issues", number, "comments")
                return str(self.wire.once("POST", path, purpose, body={"body": text}, needs=needs)[1]["html_url"])
            if (mine[0]["body"] or "").replace("\r\n", "\n").rstrip() != text.rstrip():
                path = self._path("issues", "comments", mine[0]["id"])
                self.wire.once("PATCH", path, purpose, body={"body": text}, needs=needs)
            for extra in mine[1:]:  # two jobs at the same moment may each have begun one
                self._remove(self._path("issues", "comments", extra["id"]), purpose, needs)
            return str(mine[0]["html_url"])

        return self.wire.again(step, purpose)

    def _is_ours(self, user: Mapping[str, Any] | None) -> bool:
        return login_of(user) == self.login if self.login else is_bot(user)

    def _remove(self, path: str, purpose: str, needs: str) -> None:
        try:
            self.wire.once("DELETE", path, purpose, needs=needs)
        except GitHubError as refusal:
            if refusal.status != 404:
                raise

    def set_status(self, sha: str, state: str, context: str, description: str, url: str = "") -> None:
        """The commit status ``context``: success, pending, failure or error. What already says so is left alone."""
        if len(description) > DESCRIPTION_LIMIT:
            description = description[: DESCRIPTION_LIMIT - 1] + "…"
        body = {"state": state, "context": context, "description": description, **({"target_url": url} if url else {})}
        purpose, needs = "set a commit status", "statuses: write"

        def step() -> None:
            newest = self.wire.each(self._path("commits", sha, "statuses"), "read the statuses of a commit")
            now = next((s for s in newest if s["context"] == context), None)
            if not now or (now["state"], now.get("description") or "") != (state, description):
                self.wire.once("POST", self._path("statuses", sha), purpose, body=body, needs=needs)

        self.wire.again(step, purpose)

    def merge_pull(self, number: int, head_sha: str, title: str = "") -> str:
        """Merge, if the head still is ``head_sha``, the way the repository allows; returns the merge commit."""
        allowed = [m for m in MERGE_METHODS if self._repository.get(_ALLOWS[m], True)]
        body = {"sha": head_sha, "merge_method": allowed[0] if allowed else "merge"}
        body |= {"commit_title": title} if title else {}
        purpose, needs = f"merge pull request #{number}", "contents: write"
        attempts = 0

        def step() -> str:
            nonlocal attempts
            attempts += 1
            before = self.wire.get(self._path("pulls", number), "read a pull request")
            if before.get("merged"):
                return str(before["merge_commit_sha"])
            path = self._path("pulls", number, "merge")
            try:
                return str(self.wire.once("PUT", path, purpose, body=body, needs=needs)[1]["sha"])
            except GitHubError as refusal:
                if attempts == 1 or refusal.status not in (405, 409):
                    raise
                msg = f"an answer got lost, and now: {refusal.what}"  # merged, most likely, and not shown yet
                raise Transient(msg) from refusal

        return self.wire.again(step, purpose)

    def approve(self, number: int, head_sha: str, body: str) -> None:
        """An approving review of exactly this head; one that we already gave is enough."""
        request = {"commit_id": head_sha, "event": "APPROVE", "body": body}
        path, purpose = self._path("pulls", number, "reviews"), f"approve pull request #{number}"

        def step() -> None:
            given = self.wire.pages(path, "read the reviews of a pull request")
            ours = [r for r in given if r.get("commit_id") == head_sha and self._is_ours(r.get("user"))]
            if "APPROVED" not in [r["state"] for r in ours]:
                self.wire.once("POST", path, purpose, body=request, needs="pull-requests: write")

        self.wire.again(step, purpose)

    def dispatch_workflow(self, file: str, ref: str, inputs: Mapping[str, str] | None = None) -> None:
        """Start a workflow by hand; the one event that also a job's own token starts workflows with."""
        body = {"ref": ref, "inputs": dict(inputs or {})}
        path, purpose = self._path("actions", "workflows", file), f"start the workflow {file}"
        before: set[int] = set()

        def started() -> set[int]:
            newest = {"event": "workflow_dispatch", "branch": ref}
            runs = self.wire.pages(
                f"{path}/runs", "look for runs of a workflow", item="workflow_runs", limit=1, **newest
            )
            return {int(run["id"]) for run in runs}

        def step() -> None:
            if not before:
                before.update(started() or {0})
            elif started() - before:  # an attempt whose answer was lost
                return
            self.wire.once("POST", f"{path}/dispatches", purpose, body=body, needs="actions: write")

        self.wire.again(step, purpose)

    def has_run(self, file: str, since: str) -> bool:
        """Whether a workflow was started at or after an instant, as GitHub writes one, by whatever event."""
        path = self._path("actions", "workflows", file, "runs")
        newest = self.wire.pages(path, "look for runs of a workflow", item="workflow_runs", limit=1)
        return any(run["created_at"] >= since for run in newest)

    def open_issue(self, marker: str, title: str, body: str, labels: tuple[str, ...] = ()) -> int:
        """The one open issue that carries ``marker`` (hidden), opened or brought up to date; returns its number."""
        hidden = f"<!-- {marker} -->"
        text = f"{hidden}\n{body}"
        text = text if len(text) <= BODY_LIMIT else text[: BODY_LIMIT - 2] + "…\n"
        path, purpose, needs = self._path("issues"), "open an issue", "issues: write"

        def step() -> int:
            mine = self._issues_with(hidden)
            if not mine:
                request = {"title": title, "body": text, "labels": list(labels)}
                return int(self.wire.once("POST", path, purpose, body=request, needs=needs)[1]["number"])
            now = mine[0]
            if (now["title"], (now["body"] or "").replace("\r\n", "\n").rstrip()) != (title, text.rstrip()):
                request = {"title": title, "body": text}
                self.wire.once("PATCH", f"{path}/{now['number']}", purpose, body=request, needs=needs)
            return int(now["number"])

        return self.wire.again(step, purpose)

    def _issues_with(self, hidden: str) -> list[Mapping[str, Any]]:
        """Open issues of our own with this text, oldest first; the API lists pull requests among them."""
        found = self.wire.pages(self._path("issues"), "look for an issue", state="open")
        ours = [i for i in found if "pull_request" not in i and self._is_ours(i.get("user"))]
        return sorted((i for i in ours if hidden in (i.get("body") or "")), key=lambda i: int(i["number"]))

    def open_issues(self, marker: str) -> list[int]:
        """Numbers of the open issues of our own that carry ``marker``."""
        return [int(i["number"]) for i in self._issues_with(f"<!-- {marker} -->")]

    def close_issue(self, number: int, comment: str) -> None:
        """Say why in one comment, then close; an issue that is closed stays as it is."""
        path, purpose = self._path("issues", number), f"close issue #{number}"
        if self.wire.get(path, f"read issue #{number}").get("state") == "closed":
            return
        self.sticky_comment(number, "mlp-ci closed", comment)
        body = {"state": "closed", "state_reason": "completed"}
        self.wire.send("PATCH", path, purpose, body, needs="issues: write")

    def deployments(self, stage: str, *, limit: int = 100) -> list[DeploymentFact]:
        """Deployments of a stage, newest first, each with its newest state."""
        found = self.all_deployments(limit=limit, stage=stage)
        return [replace(d, state=self.deployment_state(d.id)) for d in found]

    def record_deployment(self, sha: str, stage: str, address: str, payload: Mapping[str, Any]) -> int:
        """Record that ``stage`` now runs what ``payload`` says; the same record twice is one. Returns its id."""
        purpose, needs = "record a deployment", "deployments: write"

        def create() -> int:
            newest = self.deployments(stage, limit=1)
            if newest and newest[0].sha == sha and dict(newest[0].payload) == dict(payload):
                return newest[0].id
            body = {
                "ref": sha,
                "environment": stage,
                "payload": dict(payload),
                "auto_merge": False,
                "required_contexts": [],
                "description": f"mlp-ci deploy to {stage}",
            }
            return int(self.wire.once("POST", self._path("deployments"), purpose, body=body, needs=needs)[1]["id"])

        number = self.wire.again(create, purpose)
        path = self._path("deployments", number, "statuses")
        state = {"state": "success", "environment": stage, "description": f"{stage} is live"}
        state |= {"environment_url": address} if "://" in address else {}
        state |= {"log_url": self.place.run_url} if self.place.run_url else {}

        def tell() -> None:
            states = self.wire.get(path, "read the state of a deployment")
            if not states or states[0]["state"] != "success":
                self.wire.once("POST", path, purpose, body=state, needs=needs)

        self.wire.again(tell, purpose)
        return number


_ALLOWS = {"merge": "allow_merge_commit", "squash": "allow_squash_merge", "rebase": "allow_rebase_merge"}
