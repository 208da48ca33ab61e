"""How good the live version's answers probably are, before labels arrive: confidence-based estimation on counts.

The held-out data says how often a prediction of each size comes true. If that still holds, the sizes of the live
predictions alone say how many will come true, and with that every metric of two classes. Then, as for NannyML's CBPE
(https://nannyml.readthedocs.io, "Confidence-based Performance Estimation"), each bin of predictions counts as so many
expected positives and negatives. The same estimate for the held-out data itself is taken off, so that what it has of a
bias (bins, calibration) falls out of the difference:

    estimate = evidence + metric(window, c) - metric(held-out, c)

where c is the calibration: P(positive | bin) by isotonic regression (Zadrozny & Elkan 2002). Pure functions of counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.data.words import round_share
from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import BINARY, METRICS, THRESHOLD, Array, Metric, Predictions
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.profiles.outcomes import Outcomes

NONE, LOWER, SAME, INSUFFICIENT = "none", "lower", "same", "insufficient"
ASSUMPTION = "holds if the relation between inputs and target has not changed"
DRAWS = 200
LEVEL = 0.95
SEED = 20130101
MIN_ROWS = 500
FEWEST_OF_A_CLASS = 20
# More of the window than this where the held-out data has nothing: the calibration would be a guess.
MOST_UNSEEN = 0.1
# Where values lie between 0 and 1 (log loss: from 0), and depend on nothing but bins, scores and classes.
ESTIMABLE = {n: METRICS[n] for n in ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1", "precision", "recall")}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of a window without labels. ``outcome`` is lower (worse than the evidence, and not by chance), same (not
    lower), insufficient (the counts do not decide; ``reason`` says why) or none (the metric cannot be estimated).

    ``low`` and ``high``: where labels of these rows would put the metric, 95 times in 100, if the assumption holds.
    ``change`` is the estimated difference from the held-out data, with the 95 % interval that decides.
    """

    metric: str
    outcome: str
    rows: int
    evidence: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What is said about it, with the assumption."""
        if self.value is None or self.evidence is None:
            return f"{self.metric} cannot be estimated without labels: {self.reason}"
        middle = f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"
        than = "worse than" if self.outcome == LOWER else "against"
        known = f"{than} {self.evidence:.3f} in the evidence"
        return f"without labels, {self.metric} is estimated at {middle}, {known}; {ASSUMPTION}"

    def finding(self) -> Finding:
        """What the report says about it: news, never an alarm."""
        outcome = {SAME: Outcome.PASS, NONE: Outcome.SKIP}.get(self.outcome, Outcome.INCONCLUSIVE)
        return Finding(check="estimate", outcome=outcome, subject=self.metric, message=self.sentence, severity="notice")


def estimate(
    metric: str,
    outcomes: Outcomes | None,
    window_counts: Sequence[int],
    evidence: float,
    *,
    min_rows: int = MIN_ROWS,
    smallest: float = 0.0,
) -> Estimate:
    """Estimate ``metric`` of a window from ``window_counts``: its predictions counted in the bins of ``outcomes``.

    ``evidence`` is the metric as measured on the held-out data. It is lower only when the whole interval of the change
    is worse than by ``smallest``. Raises InputError when the window was counted in other bins.
    """
    rows = int(sum(window_counts))
    nothing = Estimate(metric=metric, outcome=NONE, rows=rows)
    if metric not in ESTIMABLE:
        return _because(nothing, NONE, f"possible are {', '.join(sorted(ESTIMABLE))}")
    if outcomes is None:
        return _because(nothing, NONE, "the version has no probabilities of two classes on held-out data")
    if len(window_counts) != len(outcomes.rows):
        msg = f"the window has {len(window_counts)} bins of predictions, the held-out data {len(outcomes.rows)}"
        raise InputError(msg, fix="count the predictions in the bins of the version's profile, or register it again")
    reason = _undecided(outcomes, np.asarray(window_counts), min_rows)
    if not reason and not math.isfinite(evidence):
        reason = "the version's evidence does not have it"
    if reason:
        return _because(nothing, INSUFFICIENT, reason)
    found = _estimated(ESTIMABLE[metric], outcomes, np.asarray(window_counts, dtype=float), evidence)
    if found is None:
        return _because(nothing, INSUFFICIENT, "it is not defined on such predictions")
    (value, low, high), (change, change_low, change_high) = found
    worst_left = change_high if ESTIMABLE[metric].higher_is_better else -change_low
    return Estimate(
        metric=metric,
        outcome=LOWER if worst_left < -smallest else SAME,
        rows=rows,
        evidence=evidence,
        value=value,
        low=low,
        high=high,
        change=change,
        change_low=change_low,
        change_high=change_high,
    )


def calibration(outcomes: Outcomes) -> Array:
    """P(positive | bin), shape (bins,): isotonic in the prediction; bins without rows lie between their neighbours."""
    rows, positives = np.asarray(outcomes.rows, dtype=float), np.asarray(outcomes.positives, dtype=float)
    curves = _isotonic(positives[None], rows[None], scores_of(outcomes))
    return curves.ravel()


def scores_of(outcomes: Outcomes) -> Array:
    """What the model says in each bin, shape (bins,): the mean on held-out data, the bin's middle where there is none.

    Inside the bin in any case, so that the order of the bins is the order of the scores.
    """
    edges = np.asarray(outcomes.edges, dtype=float)
    lower = np.nextafter(np.r_[min([0.0, *edges[:1]]), edges], np.inf)
    upper = np.r_[edges, max([1.0, *edges[-1:]])]
    said = np.asarray([math.nan if s is None else s for s in outcomes.scores] or [math.nan] * len(outcomes.rows))
    return np.clip(np.where(np.isnan(said), (lower + upper) / 2, said), lower, np.maximum(lower, upper))


# ---------------------------------------------------------------- the estimate


def _because(found: Estimate, outcome: str, reason: str) -> Estimate:
    return Estimate(metric=found.metric, outcome=outcome, rows=found.rows, reason=reason)


def _undecided(outcomes: Outcomes, window: Array, min_rows: int) -> str:
    """Why these counts decide nothing; empty when they do."""
    held_out, positives, rows = sum(outcomes.rows), sum(outcomes.positives), int(window.sum())
    if rows < min_rows:
        return f"{rows:,} predictions, {min_rows:,} are needed"
    if min(positives, held_out - positives) < FEWEST_OF_A_CLASS:
        fewest = min(positives, held_out - positives)
        return f"the held-out data has {fewest} rows of one class, {FEWEST_OF_A_CLASS} are needed"
    edges = np.asarray(outcomes.edges, dtype=float)
    lower, upper = np.r_[-np.inf, edges], np.r_[edges, np.inf]
    if window[(lower >= 1) | (upper < 0)].sum():
        return "the log has predictions that are no probabilities"
    unseen = float(window[np.asarray(outcomes.rows) == 0].sum()) / rows
    if unseen > MOST_UNSEEN:
        return f"{round_share(unseen)} of the predictions lie where the held-out data has none"
    return ""


Interval = tuple[float, float, float]


def _estimated(metric: Metric, outcomes: Outcomes, window: Array, evidence: float) -> tuple[Interval, Interval] | None:
    """The value and the change, each with its interval; None where the metric is not defined."""
    rows, up = np.asarray(outcomes.rows, dtype=float), np.asarray(outcomes.positives, dtype=float)
    scores, curve = scores_of(outcomes), calibration(outcomes)
    measured = _metric(metric, scores, up[None], (rows - up)[None])
    then = _metric(metric, scores, rows * curve, rows * (1 - curve))
    now = _metric(metric, scores, window * curve, window * (1 - curve))
    change = float((now - then)[0])
    levels, changes = _resampled(metric, scores, (up, rows - up), window)
    defined = np.isfinite(levels) & np.isfinite(changes)
    if not math.isfinite(change) or defined.sum() < DRAWS / 2:
        return None
    levels, changes = levels[defined], changes[defined]
    below, above = np.quantile(levels, _tails()) - (float(measured[0]) + change)
    most = math.inf if metric.name == "log_loss" else 1.0
    value, low, high = (min(most, max(0.0, evidence + change + float(d))) for d in (0.0, below, above))
    least, largest = np.quantile(changes, _tails())
    return (value, low, high), (change, float(least), float(largest))


def _tails() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def _resampled(metric: Metric, scores: Array, held_out: tuple[Array, Array], window: Array) -> tuple[Array, Array]:
    """What other held-out rows and another window of the same kind would have given, shape (draws,) each.

    Both are drawn again (multinomially) and the calibration is fitted again. The first holds the estimate against
    the labels that a window would have, so the labels' chance is in it too; the second only the expected change.
    """
    chance = np.random.default_rng(SEED)
    cells = np.concatenate(held_out)
    total = cells.sum()
    drawn = chance.multinomial(int(total), cells / total, size=DRAWS).astype(float)
    up, down = np.split(drawn, 2, axis=1)
    curves = _isotonic(up, up + down, scores)
    live = chance.multinomial(int(window.sum()), window / window.sum(), size=DRAWS)
    came_true = chance.binomial(live, curves).astype(float)
    measured = _metric(metric, scores, up, down)
    then = _metric(metric, scores, (up + down) * curves, (up + down) * (1 - curves))
    now = _metric(metric, scores, live * curves, live * (1 - curves))
    seen = _metric(metric, scores, came_true, live - came_true)
    return measured + seen - then, now - then


def _isotonic(up: Array, rows: Array, scores: Array) -> Array:
    """Isotonic regression of the rates up / rows on the scores, one per row of ``up`` (draws, bins)."""
    from scipy.optimize import isotonic_regression

    curves = np.empty_like(rows)
    for i, (positives, count) in enumerate(zip(up, rows, strict=True)):
        there = count > 0
        fitted = isotonic_regression(positives[there] / count[there], weights=count[there]).x
        curves[i] = np.interp(scores, scores[there], fitted)
    return np.clip(curves, 0.0, 1.0)


def _metric(metric: Metric, scores: Array, up: Array, down: Array) -> Array:
    """The metric of so many expected positives and negatives per bin, (draws, bins) or (bins,); shape (draws,).

    Each bin is two rows of the evidence's own formula, weighted by how many of each kind are expected.
    """
    bins = len(scores)
    positive = np.r_[np.ones(bins, dtype=int), np.zeros(bins, dtype=int)]
    both = np.r_[scores, scores]
    rows = Predictions(
        task=BINARY, target=positive, label=(both >= THRESHOLD).astype(int), probability=both, classes=("0", "1")
    )
    weights = np.concatenate([np.atleast_2d(up), np.atleast_2d(down)], axis=1)
    values: Any = metric.values(rows, weights) if metric.values else np.full(len(weights), np.nan)
    return np.asarray(values, dtype=float)
