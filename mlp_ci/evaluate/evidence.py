"""The evidence file: everything a verdict rests on, the same bytes for the same inputs.

An evaluation is stored with the run under ``evaluations/<digest of its inputs>/``; the newest one also as
``evidence.json``, until a version of the run is registered: from then on that file is part of the version.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__
from mlp_ci.evaluate import bootstrap
from mlp_ci.evaluate.gates import Champion, Measured, Verdict, overall

if TYPE_CHECKING:
    from mlp_ci.evaluate.bootstrap import Estimate
    from mlp_ci.spec import ModelSpec
    from mlp_ci.tracking import RunFact

FORMAT = "mlp-ci/evidence/v1"
FILE = "evidence.json"
PROFILE_FILE = "prediction-profile.json"
IMPORTANCE_FILE = "importance.json"
OUTCOMES_FILE = "outcomes.json"


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
        "min_slice_rows": spec.evaluate.min_slice_rows,
    }


def inputs_of(intended: Mapping[str, Any], champions: Mapping[str, Champion]) -> dict[str, Any]:
    """All inputs of an evaluation: what is intended, and which versions it is compared with."""
    compared = {stage: {"version": c.version, "digest": c.digest} for stage, c in sorted(champions.items())}
    return {**intended, "champions": compared, "mlp_ci": __version__}


def evaluation_folder(inputs: Mapping[str, Any]) -> str:
    """The artefact folder of an evaluation."""
    return f"evaluations/{hashlib.sha256(_bytes(inputs)).hexdigest()[:16]}"


def evidence_bytes(
    inputs: Mapping[str, Any],
    run: RunFact,
    measured: tuple[Measured, int],
    champions: Mapping[str, Champion],
    verdicts: Sequence[Verdict],
) -> bytes:
    """The evidence file. ``measured`` is the model on the held-out rows and how many those are."""
    this, rows = measured
    value = {
        **inputs,
        "run_id": run.run_id,
        "commit": run.tags.get("mlp.commit", ""),
        "data": json.loads(run.tags.get("mlp.data") or "{}"),
        "rows": rows,
        "decided_task": this.predictions.task,
        "classes": list(this.predictions.classes),
        "outcome": str(overall(verdicts)),
        "metrics": _metrics(this.metrics),
        "gates": [
            {"gate": v.gate, "metric": v.metric, "outcome": str(v.outcome), "message": v.message, **v.details}
            for v in verdicts
        ],
        "champion_metrics": {s: _metrics(c.measured.metrics) for s, c in sorted(champions.items()) if c.measured},
        "intervals": {
            "method": "BCa bootstrap",
            "level": bootstrap.LEVEL,
            "replicates": bootstrap.REPLICATES,
            "seed": bootstrap.SEED,
            "most_rows": bootstrap.MOST_ROWS,
        },
    }
    return _bytes(value)


def digest_of(content: bytes) -> str:
    """``sha256:<hex>`` of an evidence file."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def same_intent(evidence: Mapping[str, Any], intended: Mapping[str, Any]) -> list[str]:
    """What an evidence file was made for and is not wanted (any more), by name; empty when it fits."""
    return [name for name, value in _plain(intended).items() if evidence.get(name) != value]


def _metrics(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: e.facts() for name, e in sorted(metrics.items())}


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
