"""A fold's model judged on the rows that did not train it, as the evaluation judges a version on held-out rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate.metrics import metric_called, value_of
from mlp_ci.evaluate.models import where_of
from mlp_ci.evaluate.predict import predict_only
from mlp_ci.evaluate.rows import read_held_out

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.spec import ModelSpec
    from mlp_ci.sweep.job import Job


def judge(job: Job, model: Path, file: Path, called: str) -> float:
    """The metric of the search on the rows of ``file``; InputError where the model or the rows do not allow it."""
    spec = _as_test(job.spec, job.task, called)
    held_out = read_held_out(file, spec)
    said = predict_only(model, held_out, spec, where_of(job.ctx, job.spec, job.key))
    if isinstance(said, MlpError):
        raise said
    value = value_of(metric_called(job.sweep.metric, job.task), said.predictions)
    if not math.isfinite(value):
        msg = f"{job.sweep.metric} is not defined on {called} ({len(held_out)} rows)"
        raise InputError(msg, fix="take fewer folds, or another metric", file="model.yaml")
    return value


def _as_test(spec: ModelSpec, task: str, called: str) -> ModelSpec:
    """The same model whose held-out data is the fold; gates and slices are about other rows."""
    data = spec.data.model_copy(update={"test": called})
    evaluate = spec.evaluate.model_copy(update={"task": task, "gates": (), "slices": ()})
    return spec.model_copy(update={"data": data, "evaluate": evaluate})
