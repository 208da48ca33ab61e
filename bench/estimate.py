"""Performance without labels: what the estimate is off by, and how long it takes, next to NannyML's CBPE."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import peers

HERE = Path(__file__).parent
ROWS = 5_000
TRUTH_ROWS = 400_000
METRICS = ["roc_auc", "accuracy", "precision", "recall", "f1"]
WORLDS = {
    "nothing changed": (False, False),
    "inputs moved": (True, False),
    "meaning changed": (True, True),
}

OURS = """
import json, sys
import numpy as np
import duckdb
from mlp_ci.data.profiles.outcomes import outcomes_of, probability_edges
from mlp_ci.evaluate.metrics import BINARY, METRICS, Predictions, value_of
from mlp_ci.monitor.estimate import estimate
job = json.loads(sys.argv[1])
found = []
for held_out, window in job["pairs"]:
    then = duckdb.execute(f"SELECT y, p FROM '{held_out}'").fetchnumpy()
    now = duckdb.execute(f"SELECT p FROM '{window}'").fetchnumpy()["p"]
    y, p = np.asarray(then["y"]), np.asarray(then["p"])
    edges = probability_edges(p)
    outcomes = outcomes_of(edges, p, y)
    counts = np.bincount(np.searchsorted(edges, now), minlength=len(edges) + 1).tolist()
    said = Predictions(task=BINARY, target=y, label=(p >= 0.5).astype(int), probability=p)
    row = {}
    for name in job["metrics"]:
        e = estimate(name, outcomes, counts, value_of(METRICS[name], said))
        row[name] = [e.value, e.low, e.high]
    found.append(row)
print(json.dumps(found))
"""


def draw(seed: int, rows: int, moved: bool, changed: bool) -> Any:
    """Targets and answers of a model that ranks well and is badly calibrated; one input may move, or turn around."""
    import numpy as np

    random = np.random.default_rng(seed)
    weights = np.asarray([1.2, -0.8, 0.5, 0.3])
    x = random.normal(size=(rows, 4))
    if moved:
        x = x + np.asarray([1.0, -0.5, 0, 0])
        x[:, 0] *= 0.6
    odds = x @ weights - 0.8 - (1.5 * x[:, 0] if changed else 0)
    target = (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    return target, 1 / (1 + np.exp(0.5 - 1.6 * (x @ weights)))


def write(folder: str, seeds: int) -> None:
    """Per seed the held-out rows and one window of every world; and what is true of each world."""
    import duckdb
    import numpy as np
    import pandas as pd

    from mlp_ci.evaluate.metrics import BINARY, Predictions, value_of
    from mlp_ci.evaluate.metrics import METRICS as KNOWN

    def save(name: str, target: Any, said: Any) -> None:
        frame = pd.DataFrame({"y": target, "p": said})  # noqa: F841 (DuckDB finds it by its name)
        duckdb.execute(f"COPY frame TO '{folder}/{name}.parquet'")

    truth = {}
    for name, (moved, changed) in WORLDS.items():
        target, said = draw(10**6, TRUTH_ROWS, moved, changed)
        rows = Predictions(task=BINARY, target=target, label=(said >= 0.5).astype(int), probability=said)
        truth[name] = {m: value_of(KNOWN[m], rows) for m in METRICS}
        for seed in range(seeds):
            save(f"{name} {seed}", *draw(1000 + seed, ROWS, moved, changed))
    for seed in range(seeds):
        save(f"held out {seed}", *draw(seed, ROWS, False, False))
    assert np.isfinite([v for t in truth.values() for v in t.values()]).all()
    print(json.dumps(truth))


def pairs(folder: str, world: str, seeds: int) -> list[tuple[str, str]]:
    return [(f"{folder}/held out {s}.parquet", f"{folder}/{world} {s}.parquet") for s in range(seeds)]


def errors(found: list[dict[str, list[float]]], truth: dict[str, float]) -> str:
    """Per metric the mean distance from the truth."""
    return "  ".join(f"{m} {sum(abs(row[m][0] - truth[m]) for row in found) / len(found):.4f}" for m in METRICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    commands = {"mlp-ci": [sys.executable, "-c", OURS]}
    python = peers.python_of("nannyml")
    if python:
        commands["NannyML CBPE"] = [str(python), str(HERE / "rivals" / "estimate_nannyml.py")]
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        truth = json.loads(peers.child(__file__, f"write({folder!r}, {seeds})"))
        print(f"{ROWS:,} held-out rows, {ROWS:,} live ones, {seeds} seeds: mean |estimate - truth|; {peers.setting()}")
        for world in WORLDS:
            before, now = truth["nothing changed"]["roc_auc"], truth[world]["roc_auc"]
            print(f"{world}: true roc_auc {now:.3f} ({before:.3f} before)")
            for name, command in commands.items():
                job = json.dumps({"pairs": pairs(folder, world, seeds), "metrics": METRICS})
                done = peers.measure([*command, job], repeats=1)
                found = json.loads(done.said.splitlines()[-1])
                near = sum(abs(row["roc_auc"][0] - truth[world]["roc_auc"]) <= 0.02 for row in found)
                print(f"  {name:14} {errors(found, truth[world])}  roc_auc within 0.02: {near} of {seeds}")
        print("one window, whole process")
        one = json.dumps({"pairs": pairs(folder, "inputs moved", 1), "metrics": METRICS})
        for name, command in commands.items():
            print(peers.measure([*command, one]).line(name))


if __name__ == "__main__":
    main()
