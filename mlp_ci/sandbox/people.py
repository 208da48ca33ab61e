"""The people of the sandbox, at work: what a person does with git and with GitHub's API, nothing that a person cannot.

Tokens travel in headers and in git's credential store (mode 0600), never in an argument list or an address.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci import clock
from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.git import git

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlp_ci.sandbox.home import Home


class Refused(MlpError):
    """GitHub said no to a person. ``status`` is the HTTP status."""

    exit_code = 7

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Person:
    """Somebody with a token. ``login`` is also the name of their e-mail address."""

    home: Home
    login: str
    _token: str = field(repr=False)

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """Call GitHub's REST API as this person; raises Refused with GitHub's own words."""
        import httpx

        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/vnd.github+json"}
        try:
            answer = httpx.request(
                method, f"{self.home.api_url}{path}", json=body, params=query, headers=headers, timeout=60
            )
        except httpx.HTTPError as error:
            msg = f"the forge at {self.home.forge_url} does not answer: {error}"
            raise OutsideError(msg, fix="start it with `mlp-ci sandbox up`") from error
        if answer.is_error:
            raise Refused(answer.status_code, _words(answer))
        return answer.json() if answer.content else None

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of this person's shell."""
        from mlp_ci.sandbox.home import job_environment

        identity = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", self.login.capitalize()), ("EMAIL", f"{self.login}@acme.test"))
        }
        return {
            **job_environment(self.home),
            **identity,
            "GITHUB_TOKEN": self._token,
            "GITHUB_API_URL": self.home.api_url,
            "GITHUB_SERVER_URL": self.home.forge_url,
            **more,
        }

    def git(self, folder: Path, *arguments: str) -> str:
        """Run git as this person, at the time that the sandbox's clock shows."""
        now = clock.instant_of(self.home.clock_file.read_text()) if self.home.clock_file.exists() else clock.now()
        dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), now.isoformat(timespec="seconds"))
        return git(folder, *arguments, env=self.environment(**dates))

    def remember_credentials(self, folder: Path) -> None:
        """Let git in ``folder`` log in as this person."""
        store = self.home.user_home / f".git-credentials-{self.login}"
        line = self.home.forge_url.replace("http://", f"http://{self.login}:{self._token}@")
        with os.fdopen(os.open(store, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self.git(folder, "config", "credential.helper", f"store --file={store}")

    # ------------------------------------------------------------ pull requests

    def open_pull(self, repo: str, branch: str, title: str, body: str = "", base: str = "main") -> dict[str, Any]:
        request = {"title": title, "head": branch, "base": base, "body": body}
        return dict(self.api("POST", f"/repos/{repo}/pulls", request))

    def pull_of(self, repo: str, branch: str) -> dict[str, Any] | None:
        """The open pull request of ``branch``, if there is one."""
        owner = repo.split("/", maxsplit=1)[0]
        found = self.api("GET", f"/repos/{repo}/pulls", head=f"{owner}:{branch}", state="open")
        return dict(found[0]) if found else None

    def approve(self, repo: str, number: int, words: str = "") -> None:
        self.api("POST", f"/repos/{repo}/pulls/{number}/reviews", {"event": "APPROVE", "body": words})

    def merge(self, repo: str, number: int) -> str:
        """Merge a pull request and return the merge commit."""
        return str(self.api("PUT", f"/repos/{repo}/pulls/{number}/merge", {"merge_method": "merge"})["sha"])

    def status(self, repo: str, sha: str, context: str) -> tuple[str, str] | None:
        """State and description of a commit status."""
        for found in self.api("GET", f"/repos/{repo}/commits/{sha}/status")["statuses"]:
            if found["context"] == context:
                return str(found["state"]), str(found["description"])
        return None

    # ------------------------------------------------------------ workflow runs

    def runs(self, repo: str) -> list[dict[str, Any]]:
        return list(self.api("GET", f"/repos/{repo}/actions/runs", None, per_page="100")["workflow_runs"])

    def wait_for_run(self, repo: str, wanted: Callable[[dict[str, Any]], bool], timeout: float = 300) -> dict[str, Any]:
        """Wait until the newest run that ``wanted`` picks is completed, and return it."""
        deadline = time.monotonic() + timeout
        newest: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            found = sorted((r for r in self.runs(repo) if wanted(r)), key=lambda r: r["id"])
            newest = found[-1] if found else None
            if newest and newest["status"] == "completed":
                return newest
            time.sleep(0.15)
        state = f"run {newest['html_url']} is {newest['status']}" if newest else "no such run was started"
        msg = f"{repo}: waited {timeout:.0f} s, and {state}"
        raise OutsideError(msg, fix=f"look at {self.home.forge_url}/{repo}/actions")


def _words(answer: Any) -> str:
    try:
        body = answer.json()
        details = [e if isinstance(e, str) else e.get("message") or e.get("field") for e in body.get("errors") or ()]
        return ": ".join(
            [str(answer.status_code), str(body.get("message", answer.text)), *(str(d) for d in details if d)]
        )
    except ValueError:
        return f"{answer.status_code}: {answer.text[:200]}"


def person(home: Home, login: str) -> Person:
    """Somebody of the sandbox, by login."""
    return Person(home, login, home.tokens[login])
