"""Facts of evaluations as they are stored, for what is told of them: real curves of made-up predictions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

HOSTILE = "a|b](http://x.example) <script>alert(1)</script> @everyone\u202e\x1b[31m `code` --- ```\n# title"


def evidence(
    task: str = "binary", *, champion: bool = True, outcome: str = "inconclusive", **changes: Any
) -> dict[str, Any]:
    """An evidence file of format v1 with a gate that failed to be decided, one that passed and one over slices."""
    names = {"regression": ("rmse", "mae", "r2")}.get(task, ("roc_auc", "log_loss", "accuracy"))
    values = {"regression": (12.4, 8.81, 0.713)}.get(task, (0.8312, 0.4127, 0.7641))
    width = 0.021 * max(1.0, values[0] / 10)
    metrics: dict[str, Any] = {
        n: {"value": v, "low": v - width * s, "high": v + 1.1 * width * s}
        for n, v, s in zip(names, values, (1.0, 0.8, 0.6), strict=True)
    }
    metrics |= {"latency_p99_ms": {"value": 3.72}, "model_size_mb": {"value": 1.204}}
    theirs = {n: {k: x - 0.3 * width for k, x in m.items()} for n, m in metrics.items() if "low" in m}
    limit = {"max": 15} if task == "regression" else {"min": 0.8}
    spec = [
        {"metric": names[0], **limit, "versus": "production", "max_drop": 0.005},
        {"metric": names[0], "slice": "carrier", **limit},
        {"metric": "latency_p99_ms", "max": 20},
    ]
    difference = {"champion": values[0] - 0.3 * width, "difference": 0.3 * width}
    interval = {"difference_low": -0.4 * width, "difference_high": 0.9 * width}
    slices = [
        {"slice": name, "rows": rows, "value": None if delta is None else values[0] + delta, "outcome": said}
        for name, rows, delta, said in (
            ("UA", 1400, 0.012, "pass"),
            ("AA", 900, -0.004, "pass"),
            ("B6", 410, -0.06, "fail"),
            ("OO", 12, None, "inconclusive"),
        )
    ]
    gates = [
        {
            "gate": f"{names[0]} ≥ 0.8 versus production, max_drop 0.005",
            "metric": names[0],
            "outcome": outcome,
            "message": f"{names[0]} is {values[0]}; the rows do not tell whether it is worse than production by 0.005",
            "rows_needed": 9200,
            "value": values[0],
            **(difference | interval if champion else {}),
        },
        {
            "gate": f"{names[0]} per carrier ≥ 0.8",
            "metric": names[0],
            "outcome": "fail" if outcome == "fail" else "pass",
            "message": "1 of 3 slices miss it: B6 0.77; not judged (too few rows, or one class only): OO (12)",
            "slices": slices,
        },
        {"gate": "latency_p99_ms ≤ 20", "metric": "latency_p99_ms", "outcome": "pass", "message": "it is 3.72"},
    ]
    return {
        "format": "mlp-ci/evidence/v1",
        "model": "flight-delay",
        "model_digest": "sha256:" + "4f" * 32,
        "train_key": "sha256:" + "1b" * 32,
        "test": {"path": "data/test.parquet", "digest": "md5:" + "7d" * 16},
        "target": "delayed",
        "task": "auto",
        "columns": {"distance": "float", "carrier": "string"},
        "gates_spec": spec,
        "champions": {"production": {"version": 3, "digest": "sha256:" + "aa" * 32}} if champion else {},
        "mlp_ci": "0.1.0",
        "run_id": "0123456789abcdef0123456789abcdef",
        "commit": "c0ffee" * 6 + "c0ff",
        "data": {"data/test.parquet": "md5:" + "7d" * 16, "data/train.parquet": "md5:" + "3c" * 16},
        "rows": 4000,
        "decided_task": task,
        "classes": ["0", "1"],
        "outcome": outcome,
        "metrics": metrics,
        "gates": gates,
        "champion_metrics": {"production": theirs} if champion else {},
        "intervals": {"method": "percentile bootstrap", "level": 0.95, "replicates": 1000, "seed": 17},
    } | changes


TAGS = {
    "mlp.train_seconds": "431.2",
    "mlp.runner": "gpu-small",
    "mlp.cost_usd": "0.143",
    "mlp.cpus": "8",
    "mlp.memory_gb": "31.2",
    "mlp.gpu": "NVIDIA A10G, 23028 MiB, 550.54",
    "mlp.env": "uv:sha256:9a",
    "mlp.seed": "17",
    "mlp.job": "https://github.com/acme/flight-delay/actions/runs/77",
}
IMPORTANCE = {"importance": {"distance": 0.41, "carrier": 0.27, "hour": 0.2, "month": 0.12}, "rows": 500}


def plots(task: str = "binary", *, champion: bool = True) -> dict[str, Any]:
    """``plots.json`` with the curves of 4,000 made-up predictions of each model."""
    models = {"this": 1.4} | ({"production": 1.1} if champion else {})
    made = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[task]
    drawn = {name: made(strength, seed) for seed, (name, strength) in enumerate(models.items())}
    return {"format": "mlp-ci/plots/v1", "task": task, "rows": 4000, "models": drawn}


def _curves(score: Any, positive: Any, name: str) -> dict[str, Any]:
    order = np.argsort(-score)
    hits = positive[order]
    tp, fp = np.cumsum(hits), np.cumsum(~hits)
    at = np.linspace(0, len(score) - 1, 80).astype(int)
    roc = {"class": name, "fpr": [0.0, *(fp[at] / fp[-1])], "tpr": [0.0, *(tp[at] / tp[-1])]}
    pr = {"class": name, "recall": list(tp[at] / tp[-1]), "precision": list(tp[at] / (tp[at] + fp[at]))}
    return {"roc": roc, "pr": {**pr, "share": float(positive.mean())}}


def _binary(strength: float, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=4000) * strength - 0.6
    p = 1 / (1 + np.exp(-x))
    y = chance.random(4000) < p
    shown = p**1.15
    both = _curves(shown, y, "1")
    bins, edges = [], np.linspace(0, 1, 11)
    for low, high in pairwise(edges):
        chosen = (shown >= low) & (shown < high)
        if chosen.sum() > 5:
            share = float(y[chosen].mean())
            room = 1.96 * (share * (1 - share) / chosen.sum()) ** 0.5
            bins.append(
                {"predicted": float(shown[chosen].mean()), "observed": share, "rows": int(chosen.sum())}
                | {"low": max(0.0, share - room), "high": min(1.0, share + room)}
            )
    cells = np.linspace(0, 1, 21)
    counts = {str(k): np.histogram(shown[y == bool(k)], cells)[0].tolist() for k in (0, 1)}
    label = shown > 0.5
    confusion = [[int((~label & ~y).sum()), int((label & ~y).sum())], [int((~label & y).sum()), int((label & y).sum())]]
    return {
        "roc": [both["roc"]],
        "pr": [both["pr"]],
        "calibration": [{"class": "1", "bins": bins, "ece": 0.0213}],
        "confusion": {"classes": ["0", "1"], "counts": confusion},
        "scores": {"edges": cells.tolist(), "counts": counts},
    }


def _multiclass(strength: float, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    names = ["on time", "late", "very late", "cancelled"]
    truth = chance.integers(0, 4, 4000)
    score = chance.normal(size=(4000, 4))
    score[np.arange(4000), truth] += strength
    label = score.argmax(axis=1)
    curves = [_curves(score[:, k], truth == k, name) for k, name in enumerate(names)]
    counts = [[int(((truth == a) & (label == b)).sum()) for b in range(4)] for a in range(4)]
    return {
        "roc": [c["roc"] for c in curves],
        "pr": [c["pr"] for c in curves],
        "confusion": {"classes": names, "counts": counts},
    }


def _regression(strength: float, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    target = chance.gamma(2.0, 20.0, 4000)
    said = target + chance.normal(size=4000) * 14 / strength
    edges = np.linspace(-40, 40, 41)
    order = np.array_split(np.argsort(said), 20)
    rows = [
        {"predicted": float(said[o].mean()), "rows": len(o)}
        | dict(zip(("low", "middle", "high"), np.quantile(target[o], [0.1, 0.5, 0.9]).tolist(), strict=True))
        for o in order
    ]
    return {
        "residuals": {"edges": edges.tolist(), "counts": np.histogram(said - target, edges)[0].tolist()},
        "predicted": rows,
    }
