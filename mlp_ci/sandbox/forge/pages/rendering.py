"""Templates and the small words in them: times, durations, states as a symbol with a word, safe addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlp_ci import clock
from mlp_ci.sandbox.forge.pages import markdown

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.records import Repo

_UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


@dataclass(frozen=True)
class Mark:
    """A state to show: a symbol, its colour's name in the style sheet, and the word that says the same."""

    symbol: str
    tone: str
    word: str


_MARKS = {
    "success": Mark("✓", "good", "passed"),
    "failure": Mark("✗", "bad", "failed"),
    "error": Mark("✗", "bad", "error"),
    "startup_failure": Mark("✗", "bad", "did not start"),
    "timed_out": Mark("✗", "bad", "timed out"),
    "action_required": Mark("!", "wait", "action required"),
    "cancelled": Mark("–", "calm", "cancelled"),
    "skipped": Mark("–", "calm", "skipped"),
    "neutral": Mark("–", "calm", "neutral"),
    "stale": Mark("–", "calm", "stale"),
    "queued": Mark("○", "calm", "queued"),
    "in_progress": Mark("●", "wait", "running"),
    "pending": Mark("●", "wait", "pending"),
    "waiting": Mark("●", "wait", "waiting"),
    "expected": Mark("○", "wait", "expected, not reported yet"),
    "inactive": Mark("–", "calm", "inactive"),
    "APPROVED": Mark("✓", "good", "approved"),
    "CHANGES_REQUESTED": Mark("✗", "bad", "requested changes"),
    "COMMENTED": Mark("●", "calm", "commented"),
    "DISMISSED": Mark("–", "calm", "review dismissed"),
    "open": Mark("●", "good", "open"),
    "closed": Mark("✗", "calm", "closed"),
    "merged": Mark("✓", "done", "merged"),
    "draft": Mark("○", "calm", "draft"),
}


class Renderer:
    """Renders the templates of this package for one forge."""

    def __init__(self, forge: Forge) -> None:
        self._url = forge.url
        self._env = Environment(
            loader=PackageLoader("mlp_ci.sandbox.forge.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters.update(
            when=when, took=took, short=lambda sha: sha[:7], md=markdown.render, mark=mark, href=self.href, path=quote
        )

    def __call__(self, template: str, values: dict[str, Any]) -> str:
        return self._env.get_template(template).render(values)

    def href(self, address: str | None) -> str:
        """An address from outside if a browser may follow it (http, https, or a path of this forge), else nothing."""
        text = (address or "").strip()
        own = text.removeprefix(self._url)
        if own != text and own.startswith(("/", "?", "#")):
            return own
        try:
            return text if urlsplit(text).scheme in ("http", "https") else ""
        except ValueError:
            return ""


def mark(state: str | None) -> Mark:
    """How to show a status, conclusion or review state; one that is not known is shown as it is."""
    return _MARKS.get(state or "queued", Mark("●", "calm", str(state).replace("_", " ").lower()))


def when(stamp: str | None) -> Markup:
    """An instant as its distance from now (by the sandbox's clock), the exact time in the tooltip."""
    if not stamp:
        return Markup("")
    at = instant(stamp)
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact, _distance(at))


def _distance(at: datetime) -> str:
    seconds = (clock.now() - at).total_seconds()
    if seconds < -60:
        return at.strftime("%Y-%m-%d %H:%M")
    for length, unit in _UNITS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def took(start: str | None, end: str | None) -> str:
    """How long something took: ``42 s``, ``3 min 05 s``; so far, when it has not ended."""
    if not start:
        return ""
    seconds = max(int(((instant(end) if end else clock.now()) - instant(start)).total_seconds()), 0)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def instant(stamp: str) -> datetime:
    """A stamp of the forge or of git; a commit may claim a date that no calendar has, and then counts as the oldest."""
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        at = datetime.min.replace(tzinfo=UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def file_base(repo: Repo, kind: str, ref: str, path: str = "") -> str:
    """The folder that relative links in a file of the repository start from; ``kind``: blob | raw."""
    folder = path.rpartition("/")[0]
    return f"/{repo.full_name}/{kind}/{quote(ref)}/" + (f"{quote(folder)}/" if folder else "")
