"""What an evaluation tells of slices besides its gates: the declared ones, and the worst that a search found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap import estimates
from mlp_ci.evaluate.metrics import value_of
from mlp_ci.evaluate.slices import CORRECTION, METHOD, loss_of, masks_of, search, search_facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.evaluate.gates import Measured, Rows
    from mlp_ci.evaluate.metrics import Array, Metric

MOST_VALUES = 100  # of a column, the most frequent ones
MOST_METRICS = 3  # of those that gates name


def declared_slices(
    columns: Sequence[str], metrics: Sequence[Metric], this: Measured, rows: Rows
) -> list[dict[str, Any]]:
    """Every value of every column of ``evaluate.slices``, by the metrics of the gates; small ones without a value."""
    found = []
    for column in columns:
        text = rows.slices[column]
        names, counts = np.unique(text, return_counts=True)
        for i in np.argsort(-counts, kind="stable")[:MOST_VALUES]:
            about = {"column": column, "slice": str(names[i]), "rows": int(counts[i])}
            found += [{**about, **one} for one in _values(text == names[i], metrics[:MOST_METRICS], this, rows)]
    return found


def _values(chosen: Array, metrics: Sequence[Metric], this: Measured, rows: Rows) -> list[dict[str, Any]]:
    part = this.predictions.take(chosen)
    if len(part) < rows.min_slice_rows:
        return [{"metric": m.name, "value": None} for m in metrics]
    known = [m for m in metrics if math.isfinite(value_of(m, part))]
    made = estimates(known, part, rows.design.take(chosen), rows.settings)
    return [{"metric": m.name, "value": None, **(made[m.name].facts() if m.name in made else {})} for m in metrics]


def worst_slices(columns: Mapping[str, Array], metric: Metric, this: Measured, rows: Rows) -> dict[str, Any]:
    """What a search over ``columns`` found, with the value of ``metric`` on each slice; decides nothing."""
    loss = loss_of(this.predictions)
    if loss is None:
        return {"method": METHOD, "correction": CORRECTION, "trouble": "a single row of a ranking has no loss"}
    found = search(
        columns,
        loss[1],
        min_rows=rows.min_slice_rows,
        confidence=rows.settings.confidence,
        design=rows.design,
    )
    facts = search_facts(
        found, confidence=rows.settings.confidence, min_rows=rows.min_slice_rows, rows=rows.design.rows
    )
    facts["loss"] = loss[0]
    for one, mask in zip(facts["found"], masks_of(columns, found), strict=True):
        one |= {"metric": metric.name, "value": value_of(metric, this.predictions.take(mask))}
    return facts
