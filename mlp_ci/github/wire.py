"""Requests to GitHub: tried again within a budget, and refused in words that say what to mend."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.github.exchange import Answer, Elsewhere, Question, Transient, exchange, same_server
from mlp_ci.github.limits import passing, pause
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tenacity import RetryCallState

    from mlp_ci.context import GitHubPlace

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
# A limit is no failure: GitHub says when to come back, a minute or more. So it gets more patience.
LIMIT_FACTOR = 3
# A server that nobody answers at is most often a wrong address: say so within seconds.
UNREACHABLE_SECONDS = 3.0
TOLD_SECONDS = 3.0  # a shorter wait is not worth a word
PAGES_LIMIT = 2_000  # of one list
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


class GitHubError(InputError):
    """GitHub understood and said no: ``status`` is 401, 403, 404, 409, 422, …"""

    def __init__(self, status: int, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.status = status


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
        """All items of a paged list, or at least ``limit`` of them; ``item`` is the key where the list is inside."""
        found: list[Any] = []
        for page in self._each_page(path, purpose, item, parameters):
            found += page
            if limit and len(found) >= limit:
                break
        return found

    def each(self, path: str, purpose: str, /, *, item: str = "", **parameters: Any) -> Iterator[Any]:
        """The same one after the other: a page is asked for when the one before is used up."""
        for page in self._each_page(path, purpose, item, parameters):
            yield from page

    def _each_page(self, path: str, purpose: str, item: str, parameters: Mapping[str, Any]) -> Iterator[list[Any]]:
        url, query = path, {"per_page": 100, **parameters}
        seen: set[str] = set()
        while url:
            seen.add(url)
            headers, page = self.again(
                lambda u=url, q=query: self._page(u, q, purpose, item),  # type: ignore[misc]
                purpose,
            )
            yield page
            following = _NEXT.search(headers.get("link", ""))
            url, query = (self._following(following[1], seen, purpose) if following else ""), {}

    def _page(self, url: str, query: Mapping[str, Any], purpose: str, item: str) -> tuple[Mapping[str, str], list[Any]]:
        headers, data = self.once("GET", url, purpose, parameters=query)
        found = data.get(item) if item and isinstance(data, dict) else data
        if not isinstance(found, list):
            msg = "the answer is no list"
            raise Transient(msg)
        return headers, found

    def _following(self, url: str, seen: set[str], purpose: str) -> str:
        """The address of the next page, which must be new and on the same server: the token goes there."""
        if not same_server(self.place.api_url, url):
            raise self._led_astray(purpose, f"the next page is said to be at {url.partition('?')[0]}")
        if url in seen or len(seen) >= PAGES_LIMIT:
            raise self._led_astray(purpose, "its pages never end")
        return url

    def send(self, verb: str, path: str, purpose: str, body: Mapping[str, Any], *, needs: str = "") -> Any:
        """A write that does no harm when it is done twice; what does harm goes through :meth:`again` by itself."""
        return self.again(lambda: self.once(verb, path, purpose, body=body, needs=needs)[1], purpose)

    def again(self, step: Callable[[], T], purpose: str) -> T:
        """Run ``step`` until it works, is refused, or the patience is spent; ``step`` must look before it writes."""
        from tenacity import RetryError, Retrying, retry_if_exception_type

        tries = Retrying(
            retry=retry_if_exception_type(Transient),
            wait=_wait,
            stop=self._spent,
            sleep=self.sleep,
            before_sleep=_tell,
        )
        try:
            return tries(step)
        except RetryError as spent:
            last = spent.last_attempt.exception()
            what = f"GitHub at {self.place.api_url} failed to {purpose}: {last}"
            raise OutsideError(what, fix=_cure(last)) from last

    def _spent(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        budget = self.patience
        if isinstance(error, Transient) and error.limited:
            budget *= LIMIT_FACTOR
        if isinstance(error, Transient) and error.unreachable:
            budget = min(UNREACHABLE_SECONDS, budget)
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
    ) -> tuple[Mapping[str, str], Any]:
        """One attempt. Raises Transient or GitHubError; ``needs`` is the permission the refusal names.

        ``path`` is below the API's root, or an address on its server.
        """
        url = f"{self.place.api_url.rstrip('/')}{path}" if path.startswith("/") else path
        if not self._token_is_sound():
            raise self.refusal(401, "it holds characters that no token has", purpose)
        try:
            answer = exchange(Question(verb=verb, url=url, parameters=parameters or {}, body=body), self.place.token)
        except Elsewhere as error:
            raise self._led_astray(purpose, str(error)) from error
        if answer.status >= 300:
            raise self._understood(answer, purpose, needs)
        return answer.headers, answer.data

    def _token_is_sound(self) -> bool:
        token = self.place.token
        return token.isascii() and token.isprintable() and " " not in token

    def _led_astray(self, purpose: str, how: str) -> OutsideError:
        what = f"GitHub at {self.place.api_url} failed to {purpose}: {how}"
        fix = "check the address (GITHUB_API_URL) and what stands between here and there, such as a proxy"
        return OutsideError(what, why="the token is sent to no other server", fix=fix)

    def _understood(self, answer: Answer, purpose: str, needs: str) -> Exception:
        """What an HTTP status means for us."""
        data = answer.data if isinstance(answer.data, dict) else {}
        said = str(data.get("message") or "no reason given")
        errors = data.get("errors")
        listed = errors if isinstance(errors, list) else []
        details = "; ".join(str((e.get("message") or e.get("code")) if isinstance(e, dict) else e) for e in listed)
        said = f"{said} ({details})" if details else said
        return passing(answer.status, answer.headers, said) or self.refusal(answer.status, said, purpose, needs)

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


def _wait(state: RetryCallState) -> float:
    return pause(state.outcome.exception() if state.outcome else None, state.attempt_number)


def _tell(state: RetryCallState) -> None:
    """Whoever waits at a terminal is told why."""
    error = state.outcome.exception() if state.outcome else None
    if state.upcoming_sleep >= TOLD_SECONDS:
        doing(f"waiting {state.upcoming_sleep:.0f} s for GitHub: {error}")


def _cure(error: BaseException | None) -> str:
    if isinstance(error, Transient) and error.unreachable:
        return "check the address (GITHUB_API_URL) and the network, then run again"
    if isinstance(error, Transient) and error.limited:
        minutes = max(1, round((error.wait or 0) / 60))
        return f"run the same command again in {minutes} min, or with another token: GitHub limits what one may ask"
    return "run the same command again in a few minutes; it goes on where it stopped"
