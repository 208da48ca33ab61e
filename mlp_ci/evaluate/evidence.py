"""The evidence file: everything a verdict rests on, the same bytes for the same inputs.

An evaluation is stored with the run under ``evaluations/<digest of its inputs>/``, and a version's tag
``mlp.evaluation`` names the folder that it was registered with. The newest evaluation also lies as ``evidence.json`` at
the top of the run, until a version is registered.

Inputs: digests of model, held-out data and champions; what model.yaml asks for; the code that computes; what was
measured (:mod:`mlp_ci.evaluate.measuring`) and how often the rows were used (:mod:`mlp_ci.evaluate.reuse`), both frozen
when the model was first judged. Everything else follows from them. The format ``v2`` has all keys of ``v1`` in their
places, with the same meaning:

- ``outcome`` pass | fail | inconclusive, ``on_inconclusive`` what model.yaml says that the last means
- ``metrics`` and ``champion_metrics[stage]``: name → ``{value, low, high, standard_error, method}``, without what there
  is not; ``measured: true`` for what was measured. ``differences[stage]``: the same of this minus champion, paired
- ``gates``: per gate its words, ``outcome``, ``message``, ``rows_needed`` and the numbers that it was judged by
- ``slices.declared``, ``slices.search`` (see :mod:`mlp_ci.evaluate.slices`), ``fairness``, ``reuse``, ``warnings``
- ``intervals``: confidence, replicates, seed, and how rows were drawn; ``code``: what computed all this
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__
from mlp_ci.errors import InputError
from mlp_ci.evaluate.gates import Champion, Measured, Rows, Verdict, overall

if TYPE_CHECKING:
    from mlp_ci.evaluate.bootstrap import Estimate
    from mlp_ci.spec import ModelSpec
    from mlp_ci.tracking import RunFact

FORMAT = "mlp-ci/evidence/v2"
FILE = "evidence.json"
PROFILE_FILE = "prediction-profile.json"
IMPORTANCE_FILE = "importance.json"
OUTCOMES_FILE = "outcomes.json"
PLOTS_FILE = "plots.json"
# Of `evaluate` in model.yaml: what is not about the verdict, or has a place of its own.
APART = {"task", "gates", "on_inconclusive", "runner", "command_timeout", "reuse_warning"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All that an evaluation found out, to be written down. ``slices``, ``fairness`` and ``reuse`` are plain values."""

    this: Measured
    rows: Rows
    champions: Mapping[str, Champion]
    verdicts: Sequence[Verdict]
    slices: Mapping[str, Any] = field(default_factory=dict)
    reuse: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def intent(spec: ModelSpec, run: RunFact, test_digest: str) -> dict[str, Any]:
    """What is evaluated and what it must show: the part of the inputs that the working tree decides."""
    columns = {name: column.type for name, column in spec.data.columns.items()}
    return {
        "format": FORMAT,
        "model": spec.name,
        "model_digest": run.digest,
        "train_key": run.tags.get("mlp.train_key", ""),
        "test": {"path": spec.data.test, "digest": test_digest},
        "target": spec.data.target,
        "columns": columns,
        "task": spec.evaluate.task,
        "gates_spec": [g.model_dump(mode="json", exclude_none=True) for g in spec.evaluate.gates],
        "evaluate": spec.evaluate.model_dump(mode="json", exclude=APART),
        "on_inconclusive": spec.evaluate.on_inconclusive,
    }


def inputs_of(
    intended: Mapping[str, Any], champions: Mapping[str, Champion], measurements: Mapping[str, str], uses: int
) -> dict[str, Any]:
    """All inputs of an evaluation: what is intended, which versions it is compared with, what was measured (model
    digest → digest of its measurements), how many models these rows have judged, and the code."""
    compared = {stage: {"version": c.version, "digest": c.digest} for stage, c in sorted(champions.items())}
    found = {"champions": compared, "measurements": dict(measurements), "uses": uses, "code": code()}
    return {**intended, **found, "mlp_ci": __version__}


@cache
def code() -> dict[str, str]:
    """The code that computes: mlp-ci's version, a digest over the sources of this package, and the libraries' versions.

    The package ``telling`` only shows what was found and is left out.
    """
    import numpy as np
    import scipy

    here = Path(__file__).parent
    found = hashlib.sha256()
    for file in sorted(p.relative_to(here).as_posix() for p in here.rglob("*.py") if "telling" not in p.parts):
        found.update(f"{file}\0{hashlib.sha256((here / file).read_bytes()).hexdigest()}\n".encode())
    return {
        "mlp_ci": __version__,
        "metrics": f"sha256:{found.hexdigest()}",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def evaluation_folder(inputs: Mapping[str, Any]) -> str:
    """The artefact folder of an evaluation."""
    return f"evaluations/{hashlib.sha256(_bytes(inputs)).hexdigest()[:16]}"


def evidence_bytes(inputs: Mapping[str, Any], run: RunFact, judged: Judged) -> bytes:
    """The evidence file."""
    this, champions, verdicts = judged.this, judged.champions, judged.verdicts
    tried = {s: c for s, c in sorted(champions.items()) if c.measured}
    value = {
        **inputs,
        "run_id": run.run_id,
        "commit": run.tags.get("mlp.commit", ""),
        "data": json.loads(run.tags.get("mlp.data") or "{}"),
        "rows": judged.rows.design.rows,
        "decided_task": this.predictions.task,
        "classes": list(this.predictions.classes),
        "outcome": str(overall(verdicts)),
        "metrics": _metrics(this.metrics),
        "gates": [
            {**v.details, "gate": v.gate, "metric": v.metric, "outcome": str(v.outcome), "message": v.message}
            for v in verdicts
        ],
        "champion_metrics": {s: _metrics(c.measured.metrics) for s, c in tried.items() if c.measured},
        "champion_trouble": {s: c.why for s, c in sorted(champions.items()) if c.broken},
        "differences": {s: _metrics(c.differences) for s, c in tried.items()},
        "slices": judged.slices,
        "fairness": [_fairness(v) for v in verdicts if v.details.get("gap")],
        "reuse": judged.reuse,
        "warnings": list(judged.warnings),
        "intervals": _intervals(judged.rows),
    }
    return _bytes(value)


def _fairness(verdict: Verdict) -> dict[str, Any]:
    found = {k: verdict.details[k] for k in ("low", "high", "groups", "pair") if k in verdict.details}
    return {**found, "column": verdict.details["gap"], "metric": verdict.metric, "gap": verdict.details.get("value")}


def _intervals(rows: Rows) -> dict[str, Any]:
    design, settings = rows.design, rows.settings
    drawn = {
        "rows": design.rows,
        "strata": design.strata is not None,
        "clusters": None if design.clusters is None else len(set(design.clusters.tolist())),
        "block": design.block if design.times is not None else None,
    }
    return {
        "method": "BCa bootstrap",
        "level": settings.confidence,
        "confidence": settings.confidence,
        "replicates": settings.replicates,
        "seed": settings.seed,
        "design": drawn,
    }


def parsed(content: bytes) -> dict[str, Any]:
    """An evidence file; InputError where it is none."""
    fix = "run `mlp-ci evaluate` again"
    try:
        value = json.loads(content)
    except ValueError as error:
        msg = "the evidence file is not JSON"
        raise InputError(msg, fix=fix) from error
    if not isinstance(value, dict):
        msg = "the evidence file is not a JSON object"
        raise InputError(msg, fix=fix)
    return value


def digest_of(content: bytes) -> str:
    """``sha256:<hex>`` of an evidence file."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def same_intent(evidence: Mapping[str, Any], intended: Mapping[str, Any]) -> list[str]:
    """What an evidence file was made for and is not wanted (any more), by name; empty when it fits."""
    return [name for name, value in _plain(intended).items() if evidence.get(name) != value]


def _metrics(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    """Measured numbers have no interval, nor a method of making one."""
    return {name: e.facts() | ({} if e.method else {"measured": True}) for name, e in sorted(metrics.items())}


def _bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
