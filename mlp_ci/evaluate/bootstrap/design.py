"""How rows are drawn again: alone, within strata, whole clusters, or blocks of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, Array

if TYPE_CHECKING:
    from collections.abc import Iterator

# A class with as many rows is lost by one draw in 10^11: its share is left to chance, as it was when rows were chosen.
RARE = 25


@dataclass(frozen=True, kw_only=True)
class Design:
    """How rows are drawn.

    ``strata``: codes, drawn within each. ``clusters``: codes, rows of one are drawn together. ``times`` in seconds with
    ``block`` in seconds: stretches of that length are drawn. All arrays have the shape ``(rows,)``.
    """

    rows: int
    strata: Array | None = None
    clusters: Array | None = None
    times: Array | None = None
    block: float | None = None


def design_of(
    task: str, target: Array, *, group: Array | None = None, times: Array | None = None, block: float | None = None
) -> Design:
    """The design for held-out rows: clusters where there is a group, blocks where there is a block length (seconds),
    else single rows, within classes where a draw might lose a class."""
    rows = len(target)
    if group is not None:
        return Design(rows=rows, clusters=np.unique(group, return_inverse=True)[1])
    if times is not None and block:
        return Design(rows=rows, times=times, block=block)
    return Design(rows=rows, strata=_rare_classes(task, target))


def _rare_classes(task: str, target: Array) -> Array | None:
    if task not in (BINARY, MULTICLASS):
        return None
    _, codes, counts = np.unique(target, return_inverse=True, return_counts=True)
    return codes if len(counts) > 1 and counts.min() < RARE else None


def units_of(design: Design) -> Array:
    """The code of the unit that each row is drawn with: ``(rows,)`` from 0."""
    if design.clusters is not None:
        return np.asarray(np.unique(design.clusters, return_inverse=True)[1])
    if design.times is not None and design.block:
        start = np.floor((design.times - design.times.min()) / design.block)
        return np.asarray(np.unique(start, return_inverse=True)[1])
    return np.arange(design.rows)


def weights_of(design: Design, replicates: int, seed: int, chunk: int = 50) -> Iterator[Array]:
    """How often each row is drawn, for ``chunk`` replicates at a time: ``(<= chunk, rows)``."""
    units = units_of(design)
    count = int(units.max()) + 1
    first = np.unique(units, return_index=True)[1]
    strata = np.zeros(count, dtype=int) if design.strata is None else design.strata[first]
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    chance = np.random.default_rng(seed)
    for start in range(0, replicates, chunk):
        many = min(chunk, replicates - start)
        drawn = np.zeros((many, count))
        for some in members:
            index = chance.integers(0, len(some), size=(many, len(some))) + np.arange(many)[:, None] * len(some)
            times = np.bincount(index.ravel(), minlength=many * len(some))
            drawn[:, some] = times.reshape(many, len(some))
        yield drawn if count == design.rows else drawn[:, units]
