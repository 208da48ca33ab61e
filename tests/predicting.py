"""Small models for the tests of predicting files, and where they are predicted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = subprocess.CompletedProcess[str]
Cli = Callable[..., Run]

COLUMNS = [
    {"type": "double", "name": "distance", "required": True},
    {"type": "long", "name": "hour", "required": True},
    {"type": "string", "name": "carrier", "required": False},
]
MODEL_YAML = """\
apiVersion: mlp-ci/v1
name: {name}
team: growth
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [flight_id]
  target: delayed
  columns:
    flight_id: {{type: int}}
    distance: {{type: float, sensitive: true}}
    hour: {{type: int}}
    carrier: {{type: string}}
    delayed: {{type: int}}
train: {{command: "true", environment: {{inherit: true}}}}
evaluate: {{gates: [{{metric: roc_auc, min: 0.5}}]}}
"""


def save(folder: Path, model: Any, columns: list[dict[str, Any]] | None = None) -> Path:
    """An MLflow model folder around any object that has `predict`; without MLflow, whose import takes seconds."""
    import cloudpickle

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    flavor = {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}
    inputs = json.dumps(COLUMNS if columns is None else columns)
    described = {"flavors": {"sklearn": flavor}, "signature": {"inputs": inputs if columns != [] else None}}
    (folder / "MLmodel").write_text(json.dumps(described), encoding="utf-8")  # JSON is YAML
    return folder


def simple(trouble: str = "", diary: Path | None = None, seconds: float = 0.0) -> Any:
    """A model that says distance + hour. ``trouble`` is what is wrong with it; the diary gets a line per batch."""

    class Simple:
        """Pickled by value, so that it needs no module of the tests where it is loaded."""

        def predict(self, rows: Any) -> Any:
            import os
            import signal
            import time

            print("the team's code prints what it likes")
            if diary is not None:
                with open(diary, "a") as stream:  # noqa: PTH123
                    stream.write(json.dumps({"pid": os.getpid(), "rows": len(rows), "env": dict(os.environ)}) + "\n")
            time.sleep(seconds)
            said = rows["distance"] + rows["hour"]
            if trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if trouble == "short":
                return said[:-1]
            if trouble == "exits":
                os._exit(3)
            if trouble == "refuses" and (rows["distance"] == 13).any():
                msg = "thirteen"
                raise ValueError(msg)
            if trouble == "columns":
                return said.to_frame("low").assign(high=said + 1)
            if trouble == "lists":
                return [[float(v), 0.5] for v in said]
            if trouble == "nan":
                return said.where(rows["distance"] != 13)
            return said

    return Simple()


def frame(rows: int, first: int = 0) -> Any:
    """Flights: key, inputs and the target."""
    import pandas as pd

    number = pd.Series(range(first, first + rows))
    carrier = number.map(lambda n: ["UA", "AA", None][n % 3])
    return pd.DataFrame(
        {
            "flight_id": number,
            "distance": number * 1.5 + 0.25,
            "hour": number % 24,
            "carrier": carrier,
            "delayed": number % 2,
        }
    )


def workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in this folder, with a model repository in it whose key is flight_id."""
    monkeypatch.chdir(folder)
    (folder / "repo").mkdir()
    (folder / "repo" / "model.yaml").write_text(MODEL_YAML.format(name="flights"))
    return folder


def expected(rows: int) -> list[float]:
    """What the simple model says of a frame's first rows."""
    made = frame(rows)
    return list((made.distance + made.hour).tolist())


def told(done: Run) -> dict[str, Any]:
    """The report of a command that went well."""
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def left_behind(folder: Path) -> list[str]:
    """What is hidden there."""
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def diary_of(file: Path) -> list[dict[str, Any]]:
    """What a model wrote down of its batches."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
