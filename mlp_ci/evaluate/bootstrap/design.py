"""How rows are drawn again: alone, within strata, whole clusters, or blocks of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap.blocks import Circle, block_length, circle
from mlp_ci.evaluate.bootstrap.drawing import drawn
from mlp_ci.evaluate.metrics import BINARY, FORECASTING, MULTICLASS, Array

# A class with so many rows is lost by one draw in 10^11: its share is left to chance, as it was when rows were chosen.
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

    def take(self, rows: Array) -> Design:
        """The design of some rows: indices or a mask. The block length stays."""
        some = [None if a is None else a[rows] for a in (self.strata, self.clusters, self.times)]
        count = int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows)
        return Design(rows=count, strata=some[0], clusters=some[1], times=some[2], block=self.block)

    @property
    def independent(self) -> bool:
        """Whether single rows are drawn."""
        return self.clusters is None and (self.times is None or not self.block)


def design_of(
    task: str,
    target: Array,
    *,
    group: Array | None = None,
    times: Array | None = None,
    block: float | None = None,
    loss: Array | None = None,
) -> Design:
    """The design for held-out rows.

    Blocks where ``block`` (seconds) is given; clusters where ``group`` is; else single rows, within classes where a
    draw might lose a class. Forecasts with times are drawn in blocks, all series together; if no length is given, it is
    chosen from ``loss``, one number a row. InputError where blocks and groups are both asked for.
    """
    rows = len(target)
    forecast = task == FORECASTING and times is not None
    if block and group is not None and not forecast:
        msg = "evaluate.group and evaluate.block exclude each other"
        raise InputError(
            msg, why="rows are drawn by the group or by stretches of time", fix="keep one of them", file="model.yaml"
        )
    if times is not None and (block or (forecast and loss is not None)):
        if block is None and loss is not None:
            block = block_length(times, np.nan_to_num(loss))
        return Design(rows=rows, times=times, block=block)
    if group is not None:
        return Design(rows=rows, clusters=np.unique(group, return_inverse=True)[1].reshape(-1))
    return Design(rows=rows, strata=_rare_classes(task, target))


def _rare_classes(task: str, target: Array) -> Array | None:
    if task not in (BINARY, MULTICLASS) or not len(target):
        return None
    _, codes, counts = np.unique(target, return_inverse=True, return_counts=True)
    return codes if len(counts) > 1 and counts.min() < RARE else None


@dataclass(frozen=True)
class Units:
    """What is drawn. ``codes``: the unit of each row, None where each row is its own; ``count`` units; ``together``:
    the block of each unit, None where units are independent; ``independent`` of those there are."""

    count: int
    codes: Array | None = None
    strata: tuple[Array, ...] = ()
    circle: Circle | None = None

    @property
    def independent(self) -> int:
        """How many independent things there are: what a variance is estimated from."""
        return self.circle.blocks if self.circle else self.count

    def draw(self, lanes: int, chance: np.random.Generator) -> Array:
        """How often each unit is drawn: ``(count, lanes)`` whole numbers."""
        if self.circle:
            return self.circle.draw(lanes, chance)
        if not self.strata:
            return drawn(self.count, lanes, chance)
        weights = np.empty((self.count, lanes), dtype=np.int64)
        for members in self.strata:
            weights[members] = drawn(len(members), lanes, chance)
        return weights

    def of_rows(self, rows: Array) -> Array:
        """The units of these rows."""
        return rows if self.codes is None else self.codes[rows]

    def gathered(self, influences: Array) -> Array:
        """What the units add up to that are independent of each other, from a number (or some) a row."""
        if self.codes is None:
            return influences
        codes = self.codes // self.circle.length if self.circle else self.codes
        columns = influences.reshape(len(influences), -1)
        sums = np.stack([np.bincount(codes, weights=c, minlength=1) for c in columns.T], axis=1)
        return sums.reshape(-1, *influences.shape[1:])


def units_of(design: Design) -> Units:
    """What a design draws."""
    if design.times is not None and design.block:
        round_, cells = circle(design.times, design.block)
        return Units(count=round_.count, codes=cells, circle=round_)
    if design.clusters is not None:
        codes = np.unique(design.clusters, return_inverse=True)[1].reshape(-1)
        return Units(count=int(codes.max()) + 1, codes=codes)
    if design.strata is None:
        return Units(count=design.rows)
    strata = tuple(np.flatnonzero(design.strata == s) for s in np.unique(design.strata))
    return Units(count=design.rows, strata=strata)
