"""Looks for the slices of the held-out rows on which a model is worst, and says of how many it had to choose.

Every value of a column, and every pair of values of two columns, is a slice if it has enough rows. It is compared with
all other rows by the loss of each row (Welch's t-test, never with less than the pooled variance), as SliceFinder does
(Chung, Kraska, Polyzotis, Tae & Whang, "Automated data slicing for model validation", 2019). A pair has to be worse
than the other rows of either of its two values too, or the shorter description is the better one; and what is reported
has to be worse still when the rows of the worse slices above it are set aside, or it is bad only because of them.

Thousands of slices are looked at, so some are bad by chance. The p-values are adjusted for all that was looked at by
Holm's method (1979): it keeps the chance that *any* reported slice is there by accident below 1 - confidence, however
the slices overlap. (Benjamini-Hochberg would find more, but lets a share of the reported be false, and a team goes
after each of the few that are reported.) What remains is ranked as in SliceLine (Sagadeeva & Boehm, 2021), by

    score = a · (loss / mean loss - 1) - (1 - a) · (rows / rows of the slice - 1),  a = 0.95

which weighs how bad a slice is against how small it is. Where rows belong together, the p-values of the worst slices
are those of a test with cluster-robust errors. A slice may be hard rather than badly predicted: the loss alone cannot
tell.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap.design import units_of
from mlp_ci.evaluate.decision import holm
from mlp_ci.evaluate.metrics import BINARY, FORECASTING, MULTICLASS, MULTILABEL, REGRESSION, Array, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlp_ci.evaluate.bootstrap import Design
    from mlp_ci.evaluate.bootstrap.design import Units

METHOD = "every value and every pair of values, against all other rows by Welch's t-test"
CORRECTION = "holm"
REPORTED = 5
MOST_PAIRED = 24  # columns that pairs are made of: those with the worst single slices
CANDIDATES = 200  # of the worst, for what is too slow to ask of all
WEIGHT = 0.95  # a of the score


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows that some columns' values describe; ``p`` is adjusted for all slices that were looked at."""

    where: Mapping[str, str]
    rows: int
    loss: float
    loss_rest: float
    p: float

    @property
    def words(self) -> str:
        return " and ".join(f"{column} = {value}" for column, value in self.where.items())


@dataclass(frozen=True, kw_only=True)
class Search:
    """The worst slices, worst first; ``tried`` is how many were looked at. ``trouble`` says why there was no search."""

    found: tuple[Slice, ...] = ()
    tried: int = 0
    columns: tuple[str, ...] = ()
    loss: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Column:
    """A column as codes of its values, ``(rows,)``."""

    name: str
    codes: Array
    values: tuple[str, ...]


@dataclass
class Tried:
    """Slices that were looked at: their describing codes, rows, mean losses inside and outside, and p-values."""

    where: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    inside: list[Array] = field(default_factory=list)
    outside: list[Array] = field(default_factory=list)
    p: list[Array] = field(default_factory=list)


def loss_of(predictions: Predictions) -> tuple[str, Array] | None:
    """The loss of each row and its name; None for tasks in which a row alone has none.

    Bounded losses where there are some: a t-test on logarithms of tiny probabilities would be about a few rows.
    """
    p = predictions
    if p.task in (REGRESSION, FORECASTING):
        return "absolute error", np.abs(np.asarray(p.label - p.target, dtype=float))
    if p.task == BINARY and p.probability is not None:
        return "squared error of the probability", (p.probability - p.target) ** 2
    if p.task == MULTICLASS and p.probability is not None:
        truth = np.zeros_like(p.probability)
        truth[np.arange(len(p)), p.target] = 1
        return "squared error of the probabilities", ((p.probability - truth) ** 2).sum(axis=1)
    if p.task == MULTILABEL:
        return "share of wrong labels", (p.label != p.target).mean(axis=1)
    if p.task in (BINARY, MULTICLASS):
        return "share of wrong answers", (p.label != p.target).astype(float)
    return None


def search(
    columns: Mapping[str, Array], loss: Array, *, min_rows: int, confidence: float = 0.95, design: Design | None = None
) -> Search:
    """The worst slices among ``columns`` (text, ``(rows,)`` each) by ``loss`` per row.

    ``design`` says which rows belong together, if any do.
    """
    coded = [c for c in (_coded(name, text) for name, text in columns.items()) if len(c.values) > 1]
    tried = Tried()
    totals = _sums(np.zeros(len(loss), dtype=np.intp), 1, loss)[:, 0]
    worst_of = []
    for index, column in enumerate(coded):
        sums = _sums(column.codes, len(column.values), loss)
        p = _worse(sums, totals[:, None] - sums, min_rows)
        _note(tried, [((index, code),) for code in range(len(column.values))], sums, totals, p)
        worst_of.append(float(np.nanmin(p)) if np.isfinite(p).any() else 1.0)
    chosen = sorted(np.argsort(worst_of, kind="stable")[:MOST_PAIRED].tolist())
    for one, two in itertools.combinations(chosen, 2):
        _try_pairs(tried, coded, (one, two), loss, totals, min_rows)
    if not tried.p:
        return Search(columns=tuple(c.name for c in coded))
    return _chosen(tried, coded, loss, confidence, design)


def _coded(name: str, text: Array) -> Column:
    import pandas as pd

    codes, values = pd.factorize(text.astype(object), sort=True)
    return Column(name, codes, tuple(str(v) for v in values))


def _sums(codes: Array, count: int, loss: Array) -> Array:
    """Rows, sum and sum of squares of the loss per code: ``(3, count)``. The loss is centred, so nothing cancels."""
    centred = loss - loss.mean()
    squares = np.bincount(codes, centred**2, count)
    return np.stack([np.bincount(codes, minlength=count).astype(float), np.bincount(codes, centred, count), squares])


def _worse(inside: Array, outside: Array, min_rows: int) -> Array:
    """p-values of "no worse than the other rows", ``(count,)``; NaN where there are too few rows to look."""
    from scipy.special import stdtr

    n, m = inside[0], outside[0]
    looked = (n >= min_rows) & (m >= min_rows) & (n > 1) & (m > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = inside[1] / n, outside[1] / m
        spread = [np.maximum(s[2] - s[1] ** 2 / s[0], 0) for s in (inside, outside)]
        parts = spread[0] / (n - 1) / n, spread[1] / (m - 1) / m
        pooled = (spread[0] + spread[1]) / (n + m - 2) * (1 / n + 1 / m)
        error = np.maximum(parts[0] + parts[1], pooled)
        freedom = np.maximum((parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1)), 1)
        t = (means[0] - means[1]) / np.sqrt(error)
    p = stdtr(np.where(np.isfinite(freedom), freedom, n + m - 2), -np.where(np.isfinite(t), t, 0))
    return np.where(looked, p, np.nan)


def _note(tried: Tried, where: Sequence[tuple[tuple[int, int], ...]], sums: Array, totals: Array, p: Array) -> None:
    looked = np.flatnonzero(np.isfinite(p))
    n, rest = sums[0, looked], totals[:, None] - sums[:, looked]
    tried.where += [where[i] for i in looked.tolist()]
    tried.rows.append(n)
    tried.inside.append(sums[1, looked] / n)
    tried.outside.append(rest[1] / rest[0])
    tried.p.append(p[looked])


def _try_pairs(
    tried: Tried, coded: list[Column], pair: tuple[int, int], loss: Array, totals: Array, min_rows: int
) -> None:
    one, two = (coded[i] for i in pair)
    shape = len(one.values), len(two.values)
    sums = _sums(one.codes * shape[1] + two.codes, shape[0] * shape[1], loss)
    grid = sums.reshape(3, *shape)
    rows, columns = (np.broadcast_to(grid.sum(axis=a, keepdims=True), grid.shape).reshape(3, -1) for a in (2, 1))
    p = _worse(sums, totals[:, None] - sums, min_rows)
    for whole in (rows, columns):
        inner = _worse(sums, whole - sums, 2)
        p = np.where(np.isfinite(p), np.maximum(p, np.where(np.isfinite(inner), inner, 1.0)), np.nan)
    where = [((pair[0], i), (pair[1], j)) for i in range(shape[0]) for j in range(shape[1])]
    _note(tried, where, sums, totals, p)


def _chosen(tried: Tried, coded: list[Column], loss: Array, confidence: float, design: Design | None) -> Search:
    rows, inside, outside, p = (np.concatenate(x) for x in (tried.rows, tried.inside, tried.outside, tried.p))
    worst = np.argsort(p, kind="stable")[:CANDIDATES]
    masks = {int(i): _mask(coded, tried.where[i]) for i in worst[p[worst] * len(p) <= 1]}
    if design is not None and not design.independent:
        units = units_of(design)
        for i, mask in masks.items():
            p[i] = max(p[i], _clustered(mask, loss, units))
    adjusted = np.asarray(holm(p.tolist()))
    mean, count = float(loss.mean()), len(loss)
    score = WEIGHT * inside / (mean or 1.0) - (1 - WEIGHT) * (count / rows - 1)
    found: list[int] = []
    explained = np.zeros(count, dtype=bool)
    for i in sorted(masks, key=lambda i: -score[i]):
        if len(found) == REPORTED or adjusted[i] > 1 - confidence:
            continue
        # What is left of it when the rows of worse slices are set aside has to be worse still.
        if not found or _left(masks[i], explained, loss) * len(p) <= 1 - confidence:
            found.append(i)
            explained |= masks[i]
    slices = tuple(
        Slice(
            where={coded[c].name: coded[c].values[v] for c, v in tried.where[i]},
            rows=int(rows[i]),
            loss=float(inside[i] + mean),
            loss_rest=float(outside[i] + mean),
            p=float(adjusted[i]),
        )
        for i in found
    )
    return Search(found=slices, tried=len(p), columns=tuple(c.name for c in coded))


def _mask(coded: list[Column], where: tuple[tuple[int, int], ...]) -> Array:
    return np.asarray(np.logical_and.reduce([coded[c].codes == v for c, v in where]))


def _left(mask: Array, explained: Array, loss: Array) -> float:
    """The p-value of a slice among the rows that are not explained yet; 1 where too few are left."""
    rest = loss[~explained]
    sums = _sums(mask[~explained].astype(np.intp), 2, rest)
    return float(np.nan_to_num(_worse(sums[:, 1:], sums[:, :1], 2), nan=1.0)[0])


def _clustered(mask: Array, loss: Array, units: Units) -> float:
    """The p-value with cluster-robust errors: the influence of each row on the difference, summed over its unit."""
    from scipy.special import ndtr

    means = loss[mask].mean(), loss[~mask].mean()
    influence = np.where(mask, (loss - means[0]) / mask.sum(), -(loss - means[1]) / (~mask).sum())
    error = float(np.sqrt((units.gathered(influence) ** 2).sum()))
    return float(ndtr(-(means[0] - means[1]) / error)) if error > 0 else 1.0


def masks_of(columns: Mapping[str, Array], found: Search) -> Iterator[Array]:
    """The rows of each slice of a search."""
    for one in found.found:
        yield np.logical_and.reduce([columns[name] == value for name, value in one.where.items()])


def search_facts(found: Search, *, confidence: float, min_rows: int, rows: int) -> dict[str, Any]:
    """A search as the evidence keeps it."""
    facts: dict[str, Any] = {"method": METHOD, "correction": CORRECTION, "tried": found.tried, "loss": found.loss}
    facts |= {"columns": list(found.columns), "confidence": confidence, "min_rows": min_rows}
    facts |= {"trouble": found.trouble} if found.trouble else {}
    facts["found"] = [
        {
            "where": dict(s.where),
            "words": s.words,
            "rows": s.rows,
            "share": s.rows / rows,
            "loss": s.loss,
            "loss_rest": s.loss_rest,
            "p": s.p,
        }
        for s in found.found
    ]
    return facts
