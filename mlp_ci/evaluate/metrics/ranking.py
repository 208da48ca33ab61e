"""Metrics of orders: each query's rows by their score, against how relevant each row is for the query.

Each is the mean over the queries that have a relevant row; the others say nothing about an order. A row carries its
query's value, divided by how many rows the query has, so that sums over rows are sums over queries: weights must be
the same for all rows of a query, which is to say that queries are drawn, not rows. Rows of equal score share their
places: what counts linearly gets the mean over their orders, the rest is taken at the end of the tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlp_ci.evaluate.metrics.kinds import Array, Predictions, Sums, ratio


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """Rows by query, and in it by falling score. ``order``: their indices; ``query``: which query, counted up;
    ``starts``: the first row of each; ``place``: from 0; ``relevance``; ``tie``: which run of equal scores, counted up;
    ``tie_starts``: the first row of each."""

    order: Array
    query: Array
    starts: Array
    place: Array
    relevance: Array
    tie: Array
    tie_starts: Array

    def per_query(self, values: Array) -> Array:
        """Sums of a value of each row, ``(queries,)``."""
        return np.asarray(np.add.reduceat(values, self.starts))

    def shared(self, values: Array) -> Array:
        """The mean over each run of equal scores, ``(rows,)``."""
        counts = np.diff(np.r_[self.tie_starts, len(self.order)])
        return np.asarray((np.add.reduceat(values, self.tie_starts) / counts)[self.tie])


def ordered(p: Predictions) -> Ordered:
    """The rows of each query in the model's order; ValueError without queries."""
    if p.groups is None:
        msg = "a ranking needs the query of each row"
        raise ValueError(msg)
    order = np.lexsort((-np.asarray(p.label, dtype=float), p.groups))
    groups, scores = p.groups[order], p.label[order]
    new_query = np.r_[True, groups[1:] != groups[:-1]][: len(order)]
    new_tie = new_query | np.r_[True, scores[1:] != scores[:-1]][: len(order)]
    starts, query = np.flatnonzero(new_query), np.cumsum(new_query) - 1
    return Ordered(
        order=order,
        query=query,
        starts=starts,
        place=np.arange(len(order)) - starts[query],
        relevance=np.asarray(p.target[order], dtype=float),
        tie=np.cumsum(new_tie) - 1,
        tie_starts=np.flatnonzero(new_tie),
    )


PerQuery = Callable[[Ordered], Array]


def mean_over_queries(value: PerQuery) -> Sums:
    """The mean of a value per query, ``(queries,)``, over those with a relevant row."""

    def per_row(p: Predictions) -> Array:
        if not len(p):
            return np.zeros((0, 2))
        rows = ordered(p)
        judged = rows.per_query(rows.relevance) > 0
        size = rows.per_query(np.ones(len(p)))
        columns = np.stack([np.where(judged, value(rows), 0) / size, judged / size], axis=1)
        found = np.empty((len(p), 2))
        found[rows.order] = columns[rows.query]
        return found

    return Sums(per_row=per_row, combine=lambda s: ratio(s[..., 0], s[..., 1]))


def gains(rows: Ordered, most: int | None = None) -> Array:
    """Normalised discounted cumulative gain of each query (Järvelin & Kekäläinen, 2002), linear in the relevance."""
    discount = 1 / np.log2(rows.place + 2)
    discount = discount if most is None else discount * (rows.place < most)
    best = rows.relevance[np.lexsort((-rows.relevance, rows.query))]
    return ratio(rows.per_query(rows.shared(rows.relevance) * discount), rows.per_query(best * discount))


def ndcg(most: int | None = None) -> Sums:
    """Over all places, or the first so many."""
    return mean_over_queries(lambda rows: gains(rows, most))


def precision(most: int) -> Sums:
    """The share of relevant rows in the first so many places."""
    return mean_over_queries(lambda rows: _found(rows, most) / most)


def recall(most: int) -> Sums:
    """The share of the relevant rows that is in the first so many places."""
    return mean_over_queries(lambda rows: ratio(_found(rows, most), rows.per_query((rows.relevance > 0) * 1.0)))


def _found(rows: Ordered, most: int) -> Array:
    return rows.per_query(rows.shared((rows.relevance > 0) * 1.0) * (rows.place < most))


def _tie_ends(rows: Ordered) -> Array:
    """How many rows of its query have at least this row's score, ``(rows,)``."""
    last = np.r_[rows.tie_starts[1:], len(rows.order)] - 1
    return np.asarray(rows.place[last][rows.tie] + 1)


def _average_precision(rows: Ordered) -> Array:
    relevant = (rows.relevance > 0) * 1.0
    reached = _tie_ends(rows)
    so_far = np.cumsum(relevant)
    before = (so_far - relevant)[rows.starts][rows.query]
    hits = so_far[rows.starts[rows.query] + reached - 1] - before
    return ratio(rows.per_query(relevant * hits / reached), rows.per_query(relevant))


def first_places(rows: Ordered) -> Array:
    """The place of the first relevant row of each query, from 1; infinite where there is none."""
    return np.asarray(np.minimum.reduceat(np.where(rows.relevance > 0, _tie_ends(rows), np.inf), rows.starts))


mean_average_precision = mean_over_queries(_average_precision)
mrr = mean_over_queries(lambda rows: 1 / first_places(rows))


def hit_rate(most: int) -> Sums:
    """How often a relevant row is in the first so many places."""
    return mean_over_queries(lambda rows: (first_places(rows) <= most) * 1.0)
