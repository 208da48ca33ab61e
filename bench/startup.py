"""`mlp-ci --help` (at most 0.25 s) and `mlp-ci lint` (at most 0.5 s), next to the command lines of MLflow and DVC."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ROUNDS = 7
MODEL = """\
apiVersion: mlp-ci/v1
name: bench
team: bench
data:
  train: train.csv
  test: test.csv
  target: y
  columns: {x: {type: float}, y: {type: int}}
train: {command: python train.py}
evaluate: {gates: [{metric: roc_auc, min: 0.5}]}
"""


def seconds(command: list[str]) -> float:
    """Wall time of one whole process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run all of them in turn, several rounds, and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.yaml").write_text(MODEL)
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], None),
            "mlp-ci --help": ([str(BIN / "mlp-ci"), "--help"], 0.25),
            "mlp-ci lint": ([str(BIN / "mlp-ci"), "lint", "--path", folder], 0.5),
            "mlflow --help": ([str(BIN / "mlflow"), "--help"], None),
            "dvc --help": ([str(BIN / "dvc"), "--help"], None),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, (command, _) in commands.items():
                times[name].append(seconds(command))
    for name, (_, limit) in commands.items():
        bound = f"   must be ≤ {limit:.2f} s" if limit else ""
        print(f"{name:16} {statistics.median(times[name]):6.3f} s (median of {ROUNDS}){bound}")


if __name__ == "__main__":
    main()
