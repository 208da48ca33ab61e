"""Which versions are left alone for a while: those that do not answer, or fail far more often than their neighbours.

Answers of 5xx eject no version by being many: one client that repeats an input that no version can predict would move
all traffic to a canary. It takes a share of them that another version, asked at the same time, does not have.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SILENT_IN_A_ROW = 5  # requests without an answer
WINDOW = 10  # seconds that shares are taken over
ENOUGH = 20  # requests in it
ENOUGH_BESIDE = 5  # of the version that it is held against
SHARE = 0.5  # of 5xx
TIMES = 4.0  # as often as beside
FIRST_REST, LONGEST_REST = 5.0, 60.0  # seconds; each further ejection doubles it


@dataclass(slots=True)
class Health:
    """How one version has been lately. Times are ``time.monotonic``."""

    silent: int = 0  # in a row
    ejected: bool = False
    until: float = 0.0  # not before is it probed
    times: int = 0
    steady_since: float = 0.0
    slots: deque[list[int]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # [second, requests, failed]

    def note(self, now: float, *, failed: bool, silent: bool) -> None:
        """One more request and how it went."""
        self.silent = self.silent + 1 if silent else 0
        second = int(now)
        if not self.slots or self.slots[-1][0] != second:
            self.slots.append([second, 0, 0])
        slot = self.slots[-1]
        slot[1] += 1
        slot[2] += failed

    def lately(self, now: float) -> tuple[int, int]:
        """Requests and failures within the window."""
        recent = [slot for slot in self.slots if slot[0] > now - WINDOW]
        return sum(s[1] for s in recent), sum(s[2] for s in recent)

    def eject(self, now: float) -> None:
        """Leave it alone for a while, longer each time."""
        if now - self.steady_since > 2 * LONGEST_REST:
            self.times = 0
        self.until = now + min(LONGEST_REST, FIRST_REST * 2**self.times)
        self.times += 1
        self.ejected = True

    def back(self, now: float) -> None:
        """It answered a probe."""
        self.ejected, self.silent, self.steady_since = False, 0, now
        self.slots.clear()

    def still_bad(self, now: float) -> None:
        """It did not answer a probe; ask again in a while."""
        self.until = now + FIRST_REST


def outliers(healths: Sequence[Health], now: float) -> list[Health]:
    """Those that are to be ejected now, never the last one that is not."""
    left = [h for h in healths if not h.ejected]
    found = []
    for one in left:
        others = [h for h in left if h is not one and h not in found]
        if any(_is_worse(one, other, now) for other in others):
            found.append(one)
    return found


def _is_worse(one: Health, other: Health, now: float) -> bool:
    if one.silent >= SILENT_IN_A_ROW:
        return other.silent < SILENT_IN_A_ROW
    requests, failed = one.lately(now)
    if requests < ENOUGH or failed < SHARE * requests:
        return False
    beside, beside_failed = other.lately(now)
    return beside >= ENOUGH_BESIDE and beside_failed / beside * TIMES <= failed / requests
