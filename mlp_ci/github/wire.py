"""One request to GitHub through PyGithub: retried within a budget, and refused in words that say what to mend."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from github import GithubException
    from tenacity import RetryCallState

    from mlp_ci.context import GitHubPlace

T = TypeVar("T")

REQUEST_SECONDS = 10
PATIENCE_SECONDS = 60.0
# A server that nobody answers at is most often a wrong address: say so within seconds.
UNREACHABLE_SECONDS = 3.0
PAGES_LIMIT = 2_000  # of one list
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


class GitHubError(InputError):
    """GitHub understood and said no: ``status`` is 401, 403, 404, 409, 422, …"""

    def __init__(self, status: int, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.status = status


class Transient(Exception):
    """A failure that may pass: GitHub's own, a limit, the network. Never leaves this package."""

    def __init__(self, what: str, *, wait: float | None = None, unreachable: bool = False) -> None:
        super().__init__(what)
        self.wait = wait
        self.unreachable = unreachable


@dataclass(frozen=True)
class Wire:
    """A connection to one GitHub. ``patience``: seconds that one call may spend on being tried again."""

    place: GitHubPlace
    patience: float = PATIENCE_SECONDS
    sleep: Callable[[float], None] = time.sleep

    def get(self, path: str, purpose: str, /, **parameters: Any) -> Any:
        """The JSON at ``path`` (below the API's root)."""
        return self.again(lambda: self.once("GET", path, purpose, parameters=parameters)[1], purpose)

    def pages(self, path: str, purpose: str, /, *, item: str = "", limit: int = 0, **parameters: Any) -> list[Any]:
        """All items of a paged list, or ``limit`` of them; ``item`` is the key where the list is inside."""
        found = self.each(path, purpose, item=item, **parameters)
        return list(islice(found, limit)) if limit else list(found)

    def each(self, path: str, purpose: str, /, *, item: str = "", **parameters: Any) -> Iterator[Any]:
        """The items of a paged list, one after the other: a page is asked for when the one before is used up."""
        url, query = path, {"per_page": 100, **parameters}
        seen = set()
        while url:
            seen.add(url)
            headers, data = self.again(
                lambda u=url, q=query: self._page(u, q, purpose, item),  # type: ignore[misc]
                purpose,
            )
            yield from data
            following = _NEXT.search(headers.get("link", ""))
            url, query = (self._following(following[1], seen, purpose) if following else ""), {}

    def _page(self, url: str, query: Mapping[str, Any], purpose: str, item: str) -> tuple[dict[str, str], list[Any]]:
        headers, data = self.once("GET", url, purpose, parameters=query)
        found = data.get(item) if item and isinstance(data, dict) else data
        if not isinstance(found, list):
            msg = "the answer is no list"
            raise Transient(msg)
        return headers, found

    def _following(self, url: str, seen: set[str], purpose: str) -> str:
        """The address of the next page, which must be new and on the same server: the token goes there."""
        own, other = urlsplit(self.place.api_url), urlsplit(url)
        where = f"GitHub at {self.place.api_url} failed to {purpose}"
        fix = "check the address (GITHUB_API_URL) and what stands between here and there, such as a proxy"
        if (own.scheme, own.netloc.lower()) != (other.scheme, other.netloc.lower()):
            what = f"{where}: the next page is said to be at {other.scheme}://{other.netloc}"
            raise OutsideError(what, why="the token is sent to no other server", fix=fix)
        if url in seen or len(seen) >= PAGES_LIMIT:
            what = f"{where}: its pages never end"
            raise OutsideError(what, fix=fix)
        return url

    def send(self, verb: str, path: str, purpose: str, body: Mapping[str, Any], *, needs: str = "") -> Any:
        """A write that does no harm when it is done twice; what does harm goes through :meth:`again` by itself."""
        return self.again(lambda: self.once(verb, path, purpose, body=body, needs=needs)[1], purpose)

    def again(self, step: Callable[[], T], purpose: str) -> T:
        """Run ``step`` until it works, is refused, or the patience is spent; ``step`` must look before it writes."""
        from tenacity import RetryError, Retrying, retry_if_exception_type

        tries = Retrying(
            retry=retry_if_exception_type(Transient), wait=_wait, stop=self._spent, sleep=self.sleep, reraise=False
        )
        try:
            return tries(step)
        except RetryError as spent:
            last = spent.last_attempt.exception()
            what = f"GitHub at {self.place.api_url} failed to {purpose}: {last}"
            if isinstance(last, Transient) and last.unreachable:
                fix = "check the address (GITHUB_API_URL) and the network, then run again"
                raise OutsideError(what, fix=fix) from last
            fix = "run the same command again in a few minutes; it goes on where it stopped"
            raise OutsideError(what, fix=fix) from last

    def _spent(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        unreachable = isinstance(error, Transient) and error.unreachable
        budget = min(UNREACHABLE_SECONDS, self.patience) if unreachable else self.patience
        return (state.seconds_since_start or 0.0) + (state.upcoming_sleep or 0.0) > budget

    def once(
        self,
        verb: str,
        path: str,
        purpose: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        needs: str = "",
    ) -> tuple[dict[str, str], Any]:
        """One attempt. Raises Transient or GitHubError; ``needs`` is the permission the refusal names."""
        import requests
        from github import GithubException

        try:
            headers, data = self._requester().requestJsonAndCheck(
                verb, path, parameters=dict(parameters or {}), input=dict(body) if body is not None else None
            )
        except GithubException as error:
            raise self._understood(error, purpose, needs) from error
        except requests.exceptions.ConnectTimeout as error:
            msg = "nobody answers there"
            raise Transient(msg, unreachable=True) from error
        except requests.exceptions.ChunkedEncodingError as error:
            msg = "the answer broke off"
            raise Transient(msg) from error
        except requests.exceptions.ConnectionError as error:
            broke_off = "aborted" in str(error) or "reset" in str(error)
            raise Transient(_network_reason(error), unreachable=not broke_off) from error
        except requests.exceptions.Timeout as error:
            msg = f"no answer within {REQUEST_SECONDS} s"
            raise Transient(msg) from error
        except json.JSONDecodeError as error:
            msg = "the answer is not whole"
            raise Transient(msg) from error
        return headers, data

    def _requester(self) -> Any:
        return _requester(self.place.api_url, self.place.token)

    def _understood(self, error: GithubException, purpose: str, needs: str) -> Exception:
        """What an HTTP status means for us."""
        headers = {k.lower(): v for k, v in (error.headers or {}).items()}
        data = error.data if isinstance(error.data, dict) else {}
        said = str(data.get("message") or error.message or "no reason given")
        errors = data.get("errors") or []
        details = "; ".join(str((e.get("message") or e.get("code")) if isinstance(e, dict) else e) for e in errors)
        said = f"{said} ({details})" if details else said
        asked = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
        limited = error.status == 429 or (error.status == 403 and (asked or "rate limit" in said.lower()))
        if limited or error.status >= 500 or error.status == 408:
            return Transient(f"{error.status} {said}", wait=_asked_wait(headers))
        return self.refusal(error.status, said, purpose, needs)

    def refusal(self, status: int, said: str, purpose: str, needs: str = "") -> GitHubError:
        """What GitHub refused, in words that name what to mend."""
        where = self.place.full_name
        if status == 401:
            fix = "set GITHUB_TOKEN to a token that is valid and not expired"
            return GitHubError(401, f"GitHub does not accept the token: cannot {purpose}", why=said, fix=fix)
        if status in (403, 404):
            permission = needs or "contents: read"
            fix = f"give the token `{permission}` on {where}, and check that the name is right"
            if status == 403 or needs:
                what = f"the token may not {purpose} in {where}"
            else:
                what = f"cannot {purpose} in {where}: it does not exist, or the token may not see it"
            return GitHubError(status, what, why=f"GitHub says {status}: {said}", fix=fix)
        return GitHubError(status, f"GitHub refuses to {purpose} in {where}: {said}")


def repository_path(owner: str, repo: str, *parts: str | int) -> str:
    """``/repos/owner/repo/…`` with every part quoted."""
    return "/" + "/".join(["repos", *(quote(str(p), safe="/") for p in (owner, repo, *parts))])


def _requester(api_url: str, token: str) -> Any:
    from github import Auth, Github

    key = (api_url, token)
    if key not in _REQUESTERS:
        # PyGithub's own retries and pauses are off: Wire has a budget over all attempts, PyGithub has none.
        _REQUESTERS[key] = Github(
            base_url=api_url,
            auth=Auth.Token(token) if token else None,
            timeout=REQUEST_SECONDS,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
            user_agent="mlp-ci",
        ).requester
    return _REQUESTERS[key]


_REQUESTERS: dict[tuple[str, str], Any] = {}  # connections of this process, kept open between calls


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Transient) and error.wait is not None:
        return error.wait
    return float(min(0.25 * 2 ** (state.attempt_number - 1), 8.0))


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that GitHub asks to wait: ``Retry-After``, or the end of the rate limit's hour."""
    after = headers.get("retry-after", "")
    if after.isdigit():
        return float(after)
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return max(0.0, float(reset) - time.time()) + 1.0
    return None


def _network_reason(error: Exception) -> str:
    text = str(error)
    if "Name or service not known" in text or "NameResolution" in text or "Temporary failure in name" in text:
        return "the name of the server is not known"
    if "refused" in text:
        return "the connection was refused"
    if "certificate" in text.lower():
        return "its certificate is not trusted"
    return "the connection failed"
