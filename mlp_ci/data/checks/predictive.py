"""How well one feature alone orders two classes: the ROC AUC from counts per group of its values."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SEED = 17


def ordering(crossed: Iterable[tuple[int, str, int]], positive: str, *, ordered: bool, least: int) -> float | None:
    """ROC AUC of a feature, at least 0.5, from (group, class, rows); None with fewer rows of a class than ``least``.

    ``ordered`` groups are taken in their order, whichever way it points. Other groups have no order: one half of the
    rows gives it (by the share of the positive class), and the other half is what it is judged by, since among many
    small groups some order always fits the rows that it was taken from.
    """
    groups: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for group, value, rows in crossed:
        groups[group][value == positive] += rows
    counts = [(negative, known) for _, (negative, known) in sorted(groups.items())]
    if min((sum(column) for column in zip(*counts, strict=True)), default=0) < least:
        return None
    if ordered:
        auc = area(counts)
        return max(auc, 1 - auc)
    rng = random.Random(SEED)
    halves = [((_half(n, rng), n), (_half(p, rng), p)) for n, p in counts]
    total = [sum(h[i][0] for h in halves) for i in (0, 1)]
    prior = total[1] / max(1, sum(total))
    # A group without rows in the first half stands where an average one does.
    ranked = sorted(halves, key=lambda h: (h[1][0] + prior) / (h[0][0] + h[1][0] + 1))
    judged = [(n - first_n, p - first_p) for (first_n, n), (first_p, p) in ranked]
    if min(sum(column) for column in zip(*judged, strict=True)) < least // 2:
        return None
    return max(0.5, area(judged))


def area(counts: Sequence[tuple[int, int]]) -> float:
    """The share of pairs (negative, positive) whose positive lies in a later group; pairs of one group count half."""
    below, wins = 0, 0.0
    for negative, positive in counts:
        wins += positive * (below + negative / 2)
        below += negative
    positives = sum(p for _, p in counts)
    return wins / (below * positives) if below and positives else 0.5


def _half(rows: int, rng: random.Random) -> int:
    """How many of the rows fall into the first half when a fair coin decides for each."""
    return rng.getrandbits(rows).bit_count() if rows else 0
