"""How long to wait before asking GitHub again, as its "Best practices for using the REST API" want it.

- ``Retry-After`` (seconds, or a date): not before that.
- ``X-RateLimit-Remaining: 0``: not before ``X-RateLimit-Reset``.
- any other answer of a rate limit: at least a minute, and twice as long each further time.
- everything else that may pass: soon, then twice as long each time, never at the same moment as everybody else.
"""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from mlp_ci.github.exchange import Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 8.0
LIMIT_SECONDS = 60.0  # where GitHub limits and does not say for how long
_SIGNS = ("rate limit", "abuse detection")


def passing(status: int, headers: Mapping[str, str], said: str) -> Transient | None:
    """The failure that may pass which an answer is; None for a refusal."""
    stated = _stated(headers)
    limited = status == 429 or (status == 403 and (stated is not None or any(s in said.lower() for s in _SIGNS)))
    if limited:
        wait = LIMIT_SECONDS if stated is None else stated
        return Transient(f"{status} {said}", wait=wait, limited=True, repeats=stated is None)
    if status >= 500 or status == 408:
        return Transient(f"{status} {said}", wait=stated)
    return None


def pause(error: BaseException | None, attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1)."""
    soon = min(FIRST_SECONDS * 2.0 ** (attempt - 1), LONGEST_SECONDS) * random.uniform(0.5, 1.0)
    if not isinstance(error, Transient) or error.wait is None:
        return soon
    stated = error.wait * 2.0 ** (attempt - 1) if error.repeats else error.wait
    return max(soon, stated * random.uniform(1.0, 1.1))  # never sooner than asked


def _stated(headers: Mapping[str, str]) -> float | None:
    """Seconds that the answer asks to wait; None where it does not say."""
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return float(after)
    there = _instant(headers.get("date", "")) or time.time()  # its clock, against which its instants are meant
    if after and (instant := _instant(after)) is not None:
        return max(0.0, instant - there)
    reset = headers.get("x-ratelimit-reset", "").strip()
    if headers.get("x-ratelimit-remaining", "").strip() == "0" and reset.isdigit():
        return max(0.0, float(reset) - there) + 1.0
    return None


def _instant(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
