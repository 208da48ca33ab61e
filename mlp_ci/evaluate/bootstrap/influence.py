"""How much each row moves a metric: what the acceleration of BCa intervals is made of.

The infinitesimal jackknife (Jaeckel 1972; Efron 1982): the derivative of the metric with respect to a row's weight. In
closed form for ROC AUC (the placements of DeLong et al. 1988) and average precision, by a small step for metrics of
sums; for all others a jackknife that leaves out groups of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.metrics import Array, Metric, Predictions, Sums, value_of

if TYPE_CHECKING:
    from mlp_ci.evaluate.bootstrap.design import Units

STEP = 1e-3  # of a row's weight
GROUPS = 200
AT_A_TIME = 10


def of_sums(values: Sums, predictions: Predictions, units: Units) -> Array:
    """Each unit's influence on a metric of sums."""
    rows = values.per_row(predictions)
    each, total = units.gathered(rows), rows.sum(axis=0)
    return np.asarray((values.combine(total + STEP * each) - values.combine(total - STEP * each)) / (2 * STEP))


def of_area(target: Array, score: Array) -> Array:
    """Each row's influence on ROC AUC: how its placement among the other class differs from the mean."""
    positive = target == 1
    ups, downs = np.sort(score[positive]), np.sort(score[~positive])
    below = (np.searchsorted(downs, score, "left") + np.searchsorted(downs, score, "right")) / 2 / len(downs)
    above = 1 - (np.searchsorted(ups, score, "left") + np.searchsorted(ups, score, "right")) / 2 / len(ups)
    area = below[positive].mean()
    return np.asarray(np.where(positive, (below - area) / len(ups), (above - area) / len(downs)))


def of_average_precision(target: Array, score: Array) -> Array:
    """Each row's influence on average precision.

    AP = 1/P sum_i w_i T_i / (T_i + F_i) over positives, T and F the weights of positives and negatives that score at
    least as much. A row at score s adds to T or F of every positive that scores at most s.
    """
    positive = target == 1
    falling = -score
    ups, downs = np.sort(falling[positive]), np.sort(falling[~positive])
    hits, false = (np.searchsorted(one, ups, "right").astype(float) for one in (ups, downs))
    seen = hits + false
    first = np.searchsorted(ups, falling, "left")  # of the positives that score at most as much
    more = np.append(np.cumsum((false / seen**2)[::-1])[::-1], 0.0)[first]
    less = np.append(np.cumsum((hits / seen**2)[::-1])[::-1], 0.0)[first]
    own = (hits / seen)[np.minimum(first, len(ups) - 1)] - (hits / seen).mean()
    return np.asarray(np.where(positive, own + more, -less) / len(ups))


def by_groups(metric: Metric, predictions: Predictions, units: Units) -> Array:
    """What the metric loses without each of at most 200 random groups of what is independent."""
    if metric.values is None:
        return np.zeros(1)
    codes = units.of_rows(np.arange(len(predictions)))
    codes = codes // units.circle.length if units.circle else codes
    count = int(codes.max()) + 1
    groups = np.random.default_rng(0).permutation(count)[codes] % min(count, GROUPS)
    whole, found = value_of(metric, predictions), []
    for start in range(0, min(count, GROUPS), AT_A_TIME):
        left_out = np.arange(start, min(start + AT_A_TIME, count, GROUPS))
        found.append(metric.values(predictions, (groups[None, :] != left_out[:, None]).astype(float)))
    return whole - np.concatenate(found)


def acceleration(influences: Array, strata: tuple[Array, ...] = ()) -> float:
    """A sixth of the skewness of the sum of the influences (Efron 1987), each less the mean of its stratum."""
    apart = np.nan_to_num(influences)
    for members in strata or (slice(None),):
        apart[members] -= apart[members].mean()
    spread = float((apart**2).sum())
    return float((apart**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0
