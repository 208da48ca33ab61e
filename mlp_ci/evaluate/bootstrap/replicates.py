"""Replicates of metrics: each replicate is one choice of rows, the same for all metrics and for both models."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.bootstrap.drawing import generator
from mlp_ci.evaluate.bootstrap.ranked import Ranked
from mlp_ci.evaluate.bootstrap.totals import columns_of
from mlp_ci.evaluate.metrics import BINARY, METRICS, Array, Metric, Predictions, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlp_ci.evaluate.bootstrap.design import Units

LANES = 128  # replicates side by side; fewer where there are so many units that they would not fit into memory
MANY = 200_000
FEWEST_LANES = 8
DOUBLES = 2_000_000  # at a time, where a metric needs weights as doubles
MEMORY = 4 << 30
AUC, AVERAGE_PRECISION = METRICS["roc_auc"].values, METRICS["pr_auc"].values

Found = dict[tuple[int, str], Array]  # by model and metric: (lanes,)
Part = Callable[[Array], Found]  # from weights (units, lanes)


@dataclass(frozen=True)
class Chunks:
    """All replicates in chunks; each has its own chance, whichever thread makes it."""

    units: Units
    replicates: int
    seed: int

    @property
    def lanes(self) -> int:
        """How many replicates are made side by side: fixed by the data, never by the machine."""
        lanes = LANES
        while lanes > FEWEST_LANES and self.units.count * lanes > MANY * LANES:
            lanes //= 2
        return lanes

    def __len__(self) -> int:
        return math.ceil(self.replicates / self.lanes)

    def weights(self, chunk: int) -> Array:
        """``(units, lanes)``: the last chunk has only as many lanes as are missing."""
        drawn = self.units.draw(self.lanes, generator(self.seed, chunk))
        if drawn.dtype != np.uint8 and int(drawn.max(initial=0)) < 2048:
            drawn = drawn.astype(np.uint16)  # 32 of them still add up
        return np.ascontiguousarray(drawn[:, : min(self.lanes, self.replicates - chunk * self.lanes)])

    def threads(self) -> int:
        """As many as there are cores for us, and as fit into memory."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        each = self.units.count * self.lanes * 8
        return max(1, min(cores, 8, len(self), MEMORY // max(1, each)))


def row_weights(chunks: Chunks, rows: int) -> Iterator[Array]:
    """How often each row is drawn, as ``(replicates, rows)`` doubles, some replicates at a time."""
    for chunk in range(len(chunks)):
        yield from _as_doubles(chunks.weights(chunk), chunks.units.codes, rows)


def replicates(metrics: Sequence[Metric], models: Sequence[Predictions], chunks: Chunks) -> Found:
    """The replicates of each computed metric of each model, by the model's index and the metric's name."""
    computed = [m for m in metrics if m.values]
    parts = [_sums(computed, models, chunks.units)]
    for index, model in enumerate(models):
        named = (index, model)
        ranked = [m for m in computed if is_ranked(m, model)]
        others = [m for m in computed if m not in ranked and not isinstance(m.values, Sums)]
        parts += [_ranked(ranked, named, chunks.units)] if ranked else []
        parts += [_others(others, named, chunks.units)] if others else []

    def one(chunk: int) -> Found:
        weights = chunks.weights(chunk)
        return {key: values for part in parts for key, values in part(weights).items()}

    with ThreadPoolExecutor(chunks.threads()) as pool:
        made = list(pool.map(one, range(len(chunks))))
    return {key: np.concatenate([found[key] for found in made]) for key in made[0]}


def is_ranked(metric: Metric, model: Predictions) -> bool:
    """Whether it is a metric of the order of scores, for which there is a fast way."""
    score = model.probability
    wanted = metric.values is AUC or metric.values is AVERAGE_PRECISION
    return wanted and model.task == BINARY and score is not None and score.ndim == 1 and not np.isnan(score).any()


def _ranked(metrics: Sequence[Metric], named: tuple[int, Predictions], units: Units) -> Part:
    index, model = named
    ranked = Ranked(model.target, np.asarray(model.probability), units)
    area, average = (any(m.values is kind for m in metrics) for kind in (AUC, AVERAGE_PRECISION))

    def part(weights: Array) -> Found:
        one, two = ranked.values(weights, auc=area, average_precision=average)
        return {(index, m.name): np.asarray(one if m.values is AUC else two) for m in metrics}

    return part


def _sums(metrics: Sequence[Metric], models: Sequence[Predictions], units: Units) -> Part:
    """All metrics of sums of all models in one matrix product; columns that metrics share are in it once."""
    blocks: dict[tuple[int, int], slice] = {}
    rows: list[Array] = []
    wanted: list[tuple[tuple[int, str], Sums, slice]] = []
    width = 0
    for index, model in enumerate(models):
        for metric in metrics:
            if not isinstance(metric.values, Sums):
                continue
            key = (index, id(metric.values.per_row))
            if key not in blocks:
                rows.append(metric.values.per_row(model))
                blocks[key] = slice(width, width + rows[-1].shape[1])
                width = blocks[key].stop
            wanted.append(((index, metric.name), metric.values, blocks[key]))
    columns = columns_of(np.concatenate(rows, axis=1), units) if rows else None

    def part(weights: Array) -> Found:
        if columns is None:
            return {}
        sums = columns.sums(weights)
        return {key: values.combine(sums[:, block]) for key, values, block in wanted}

    return part


def _others(metrics: Sequence[Metric], named: tuple[int, Predictions], units: Units) -> Part:
    """Metrics that are a function of all weights."""
    index, model = named

    def part(weights: Array) -> Found:
        made = [
            [m.values(model, w) for m in metrics if m.values] for w in _as_doubles(weights, units.codes, len(model))
        ]
        return {(index, m.name): np.concatenate([w[i] for w in made]) for i, m in enumerate(metrics)}

    return part


def _as_doubles(weights: Array, codes: Array | None, rows: int) -> Iterator[Array]:
    step = max(1, DOUBLES // max(1, rows))
    for start in range(0, weights.shape[1], step):
        some = np.ascontiguousarray(weights[:, start : start + step].T, dtype=float)
        yield some if codes is None else some[:, codes]
