"""What a run remembers besides the model: commit, data, params, hardware, duration."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc, git
from mlp_ci.train.gpus import Gpus
from mlp_ci.train.key import TrainKey, uncommitted
from mlp_ci.train.output import flatten
from mlp_ci.train.params import read_document

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

# What MLflow allows in the name of a param or metric.
_NOT_IN_A_NAME = re.compile(r"[^\w./ :-]")


def run_tags(ctx: Context, spec: ModelSpec, key: TrainKey) -> dict[str, str]:
    """The tags that a run has from its first moment."""
    commit = git.head(ctx.repo)
    runner = spec.train.runner if isinstance(spec.train.runner, str) else ",".join(spec.train.runner)
    tags = {
        "mlp.train_key": key.digest,
        "mlp.key_parts": json.dumps(dict(key.parts), sort_keys=True),
        "mlp.commit": commit,
        "mlp.dirty": "true" if uncommitted(ctx.repo, spec) else "false",
        "mlp.data": json.dumps(data_digests(ctx.repo, spec), sort_keys=True),
        "mlp.status": "training",
        "mlp.team": spec.team,
        "mlp.runner": runner,
        "mlp.env": key.parts["environment"],
        "mlp.command": spec.train.command,
        "mlp.seed": str(spec.train.seed),
        "mlflow.source.git.commit": commit,
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": ctx.github.full_name if ctx.github else ctx.repo.name,
    }
    if ctx.github and ctx.github.run_url:
        tags["mlp.job"] = ctx.github.run_url
    return tags


def data_digests(repo: Path, spec: ModelSpec) -> dict[str, str]:
    """Path → DVC digest of training and held-out data."""
    return {path: dvc.tracked_digest(repo, path) for path in (spec.data.train, spec.data.test)}


def hardware_tags() -> dict[str, str]:
    """What this machine is: processor count, memory, GPUs (none without a driver), Python, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "mlp.cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "mlp.memory_gb": f"{memory / 2**30:.1f}",
        "mlp.gpu": Gpus().shown(),
        "mlp.python": platform.python_version(),
        "mlp.system": f"{platform.system()} {platform.machine()}",
        "mlp.host": socket.gethostname(),
    }


def read_params(repo: Path, path: str | None) -> dict[str, Any]:
    """The params file, flattened to dotted names; InputError when it is neither YAML nor JSON."""
    if path is None:
        return {}
    value = read_document(repo / path, path)
    return {_NOT_IN_A_NAME.sub("_", name): inner for name, inner in flatten(value).items()}
