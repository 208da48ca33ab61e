"""Metrics of held-out predictions, for any row weights at once, so that a bootstrap is a few matrix products.

Every function takes the predictions and a matrix of weights, one row per replicate (shape ``(replicates, rows)``), and
returns one value per replicate; weights of one give the ordinary metric, equal to scikit-learn's. A value that is not
defined (one class only, nothing predicted positive) is NaN.
"""

from mlp_ci.evaluate.metrics.kinds import (
    BINARY,
    FORECASTING,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
    TASKS,
    THRESHOLD,
    TINY,
    Array,
    Metric,
    Predictions,
    Sums,
    Values,
)
from mlp_ci.evaluate.metrics.registry import (
    FAMILIES,
    METRICS,
    computable,
    metric_called,
    names_for,
    value_of,
    why_undefined,
)

__all__ = [
    "BINARY",
    "FAMILIES",
    "FORECASTING",
    "METRICS",
    "MULTICLASS",
    "MULTILABEL",
    "RANKING",
    "REGRESSION",
    "TASKS",
    "THRESHOLD",
    "TINY",
    "Array",
    "Metric",
    "Predictions",
    "Sums",
    "Values",
    "computable",
    "metric_called",
    "names_for",
    "value_of",
    "why_undefined",
]
