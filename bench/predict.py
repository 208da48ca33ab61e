"""Predicting files of 20 columns with a small scikit-learn model: `mlp-ci predict` next to MLflow's ways of doing it.

Memory is that of all processes together (what they share is counted twice); ours must not grow with the file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

COLUMNS = [f"f{i}" for i in range(20)]
WHOLE = """
import sys, pandas as pd, mlflow.pyfunc
rows = pd.read_parquet(sys.argv[2])
said = mlflow.pyfunc.load_model(sys.argv[1]).predict(rows[[c for c in rows.columns if c != "id"]])
pd.DataFrame({"id": rows["id"], "prediction": said}).to_parquet(sys.argv[3])
"""


@dataclass(frozen=True)
class Measured:
    """One run: wall seconds, and the most memory of all its processes together, in MB."""

    seconds: float
    megabytes: float


def generate(folder: Path, rows: int) -> None:
    """``small.parquet`` with a quarter of the rows, ``large.parquet`` and ``large.csv`` with all of them; the model."""
    import duckdb
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    values = ", ".join(f"(hash(i, {k}) % 1000000) / 1000.0 AS {name}" for k, name in enumerate(COLUMNS))
    for name, count, options in (
        ("small.parquet", rows // 4, ""),
        ("large.parquet", rows, ""),
        ("large.csv", rows, "(HEADER)"),
    ):
        connection.execute(f"COPY (SELECT i AS id, {values} FROM range({count}) t(i)) TO '{folder / name}' {options}")
    sample = pd.DataFrame(np.random.default_rng(0).uniform(0, 1000, (500, 20)), columns=COLUMNS)
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(sample, sample.f0 * 2)
    mlflow.sklearn.save_model(
        model,
        str(folder / "model"),
        signature=infer_signature(sample, model.predict(sample)),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )


def measure(command: list[str], folder: Path) -> Measured:
    """Run it. RuntimeError with its last words where it fails."""
    environ = {**os.environ, "MLP_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    with tempfile.TemporaryFile() as said:
        began, most = time.perf_counter(), 0.0
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=environ)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _memory(watched))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-500:])
    return Measured(seconds, most / 1e6)


def _memory(top: psutil.Process) -> float:
    total = 0.0
    try:
        for one in (top, *top.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total


def commands(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Who takes part → its command, and into how many parts of all the rows its file is divided."""
    python = sys.executable
    ours = [python, "-m", "mlp_ci", "predict", "model", "-C", str(folder / "repo"), "--keep", "id", "--replace"]
    mlflow = [python, "-m", "mlflow", "models", "predict", "-m", "model", "--env-manager", "local"]
    found = {
        f"mlp-ci, {count} process{'es' * (count > 1)}, Parquet": (
            [*ours, "--workers", str(count), "--input", "large.parquet", "--output", f"out-{count}.parquet"],
            1,
        )
        for count in sorted({1, os.cpu_count() or 1})
    }
    found["mlp-ci, a quarter of the rows"] = ([*ours, "--input", "small.parquet", "--output", "small"], 4)
    found["mlp-ci, CSV to CSV"] = ([*ours, "--input", "large.csv", "--output", "out.csv"], 1)
    whole = [python, "-c", WHOLE, "model", "large.parquet", "whole.parquet"]
    found["pandas + mlflow.pyfunc, whole file"] = (whole, 1)
    found["mlflow models predict, CSV to JSON"] = ([*mlflow, "-i", "large.csv", "-t", "csv", "-o", "out.json"], 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = max(10_000, parser.parse_args().rows)
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as name:
        folder = Path(name)
        (folder / "repo").mkdir()
        made = f"import predict; from pathlib import Path; predict.generate(Path({name!r}), {rows})"
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", made], check=True, cwd=here, stderr=subprocess.DEVNULL)
        print(f"{rows:,} × 20, whole processes, {os.cpu_count()} cores", flush=True)
        for who, (command, part) in commands(folder).items():
            try:
                done = measure(command, folder)
            except RuntimeError as error:
                print(f"  {who:36} left out: {error}", flush=True)
                continue
            rate = rows / part / done.seconds
            print(f"  {who:36}{done.seconds:8.1f} s {rate:12,.0f} rows/s {done.megabytes:8.0f} MB", flush=True)


if __name__ == "__main__":
    main()
