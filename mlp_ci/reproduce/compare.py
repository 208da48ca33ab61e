"""Two models side by side: their files, and what they predict for the same rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.evaluate.metrics import Predictions

DESCRIPTION = "MLmodel"
# What MLflow writes anew each time it saves a model, whatever the model is.
WRITTEN_ANEW = ("model_uuid", "utc_time_created", "run_id", "model_id", "artifact_path", "model_size_bytes")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far predictions are apart: ``share`` of the rows differ by more than the tolerance, ``most`` is the largest
    absolute difference (of probabilities, where there are any), ``decided_otherwise`` the share of rows whose predicted
    class differs (None for numbers). ``incomparable`` says why there are no figures.
    """

    rows: int
    share: float = 0.0
    most: float = 0.0
    decided_otherwise: float | None = None
    incomparable: str = ""

    @property
    def same(self) -> bool:
        return not self.incomparable and self.share == 0.0


def differing_files(one: Path, other: Path) -> list[str]:
    """Relative paths of the files that are not the same in both folders, but for what MLflow writes anew each time."""
    first, second = _contents(one), _contents(other)
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def _contents(folder: Path) -> dict[str, str]:
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            raw = _described(file) if name == DESCRIPTION else file.read_bytes()
            found[name] = hashlib.sha256(raw).hexdigest()
    return found


def _described(file: Path) -> bytes:
    """The description of a model without what is written anew each time."""
    import yaml

    raw = file.read_bytes()
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        return raw
    if not isinstance(value, dict):
        return raw
    return repr(sorted((k, v) for k, v in value.items() if k not in WRITTEN_ANEW)).encode()


def differing_requirements(one: Path, other: Path) -> list[str]:
    """Lines of the two models' ``requirements.txt`` that only one of them has."""
    lines = [
        set((folder / "requirements.txt").read_text(encoding="utf-8").split("\n"))
        if (folder / "requirements.txt").is_file()
        else set()
        for folder in (one, other)
    ]
    return sorted(line.strip() for line in lines[0] ^ lines[1] if line.strip())


def difference(one: Predictions, other: Predictions, tolerance: float) -> Difference:
    """Compare predictions of the same rows; values count as the same within ``tolerance`` (relative above 1)."""
    rows = len(one)
    if len(other) != rows or one.classes != other.classes:
        return Difference(rows=rows, incomparable="the two models do not know the same classes")
    if (one.probability is None) != (other.probability is None):
        return Difference(rows=rows, incomparable="one of the models gives probabilities, the other does not")
    first, second = _values(one), _values(other)
    if first.shape != second.shape:
        return Difference(rows=rows, incomparable="the predictions have different shapes")
    apart = np.abs(first - second)
    differs = apart > tolerance * np.maximum(1.0, np.abs(first))
    by_row = differs.reshape(rows, -1).any(axis=1)
    decided = None
    if one.probability is not None or one.classes:
        labels = (np.asarray(one.label) != np.asarray(other.label)).reshape(rows, -1)
        decided = float(labels.any(axis=1).mean())
    return Difference(rows=rows, share=float(by_row.mean()), most=float(apart.max()), decided_otherwise=decided)


def _values(predictions: Predictions) -> Any:
    given = predictions.label if predictions.probability is None else predictions.probability
    return np.asarray(given, dtype=float)
