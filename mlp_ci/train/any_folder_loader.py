"""Runs the program ``predict`` of this model's folder. A copy of this file travels with the model, in ``code/``.

It needs pandas and nothing of mlp-ci.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any


class Program:
    """A program that reads CSV and prints one prediction per row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "predict"
        if not os.access(program, os.X_OK):  # stores of artefacts keep bytes, not modes
            program.chmod(program.stat().st_mode | 0o111)

    def predict(self, rows: Any, params: Any = None) -> Any:
        """Predictions of a DataFrame, (rows,): floats where all are numbers, else text."""
        import numpy as np

        done = subprocess.run(
            [str(self.folder / "predict")],
            cwd=self.folder,
            input=rows.to_csv(index=False, lineterminator="\n"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or "it said nothing")[-500:]
            msg = f"the model's program ended with code {done.returncode}: {said}"
            raise RuntimeError(msg)
        lines = done.stdout.splitlines()
        if len(lines) != len(rows):
            msg = f"the model's program printed {len(lines)} predictions for {len(rows)} rows"
            raise RuntimeError(msg)
        try:
            return np.asarray([float(line) for line in lines])
        except ValueError:
            return np.asarray([line.strip() for line in lines])

    def get_raw_model(self) -> Program:
        """What MLflow asks a model for; there is nothing else behind this one."""
        return self


def _load_pyfunc(path: str) -> Program:
    """MLflow calls this with the model's folder."""
    return Program(Path(path).resolve())
