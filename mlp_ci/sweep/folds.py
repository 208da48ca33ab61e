"""Cross-validation: which rows train and which judge, so that nothing of what judges is known to what trains.

Splitting is scikit-learn's; what is added here is what leaks without it: rows of one moment on both sides of a boundary
in time, rows without a group, and parts of a data file that read back as other values than they were written.
"""

from __future__ import annotations

import csv
import gzip
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlp_ci.evaluate.metrics import Array
    from mlp_ci.spec.sweep import Folds


TEXT = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold: positions of the rows that train and of those that judge, both rising, without a common one."""

    train: Array
    judge: Array


def split(folds: Folds, frame: Any, target: Array | None, time: str | None, seed: int) -> list[Fold]:
    """The folds of ``frame``; the same for the same rows and seed, so that all trials are judged alike.

    ``target``: classes to be spread evenly (rows,), None for numbers. ``time``: the column of kind time. Raises
    InputError where the rows do not allow it.
    """
    if len(frame) < folds.count + 1:
        msg = f"{len(frame)} rows of training data cannot be parted into {folds.count} folds"
        raise InputError(msg, fix="take fewer folds (train.sweep.folds.count)", file="model.yaml")
    if folds.kind == "time":
        return _by_time(folds, _moments(frame, folds.column or time))
    if folds.kind == "group":
        return _by_group(folds, _groups(frame, str(folds.column)), target, seed)
    return _by_chance(folds, len(frame), target, seed)


def _by_chance(folds: Folds, rows: int, target: Array | None, seed: int) -> list[Fold]:
    from sklearn.model_selection import KFold, StratifiedKFold

    positions = np.arange(rows)
    if target is None:
        parts = KFold(folds.count, shuffle=True, random_state=seed).split(positions)
        return [Fold(train=train, judge=judge) for train, judge in parts]
    _require_enough(folds, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some class is rarer than there are folds: each then is where it can be
        parts = StratifiedKFold(folds.count, shuffle=True, random_state=seed).split(positions, target)
        return [Fold(train=train, judge=judge) for train, judge in parts]


def _require_enough(folds: Folds, target: Array) -> None:
    names, counts = np.unique(target, return_counts=True)
    if counts.max() < folds.count:
        msg = f"no class has {folds.count} rows, one for each fold (the most frequent, {names[counts.argmax()]}, "
        msg += f"has {counts.max()})"
        raise InputError(msg, fix="take fewer folds (train.sweep.folds.count)", file="model.yaml")


def _by_group(folds: Folds, groups: Array, target: Array | None, seed: int) -> list[Fold]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    known = len(np.unique(groups))
    if known < folds.count:
        msg = f"the column {folds.column} has {known} different values, too few for {folds.count} folds"
        fix = "take fewer folds (train.sweep.folds.count), or another column"
        raise InputError(msg, why="rows of one value stay together", fix=fix, file="model.yaml")
    positions = np.arange(len(groups))
    if target is not None:
        _require_enough(folds, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = StratifiedGroupKFold(folds.count, shuffle=True, random_state=seed).split(positions, target, groups)
            found = [Fold(train=train, judge=judge) for train, judge in made]
        if all(len(fold.train) and len(fold.judge) for fold in found):
            return found
    # Few groups and rare classes can leave a stratified fold empty; folds of even size then matter more.
    parts = GroupKFold(folds.count, shuffle=True, random_state=seed).split(positions, groups=groups)
    return [Fold(train=train, judge=judge) for train, judge in parts]


def _by_time(folds: Folds, moments: Array) -> list[Fold]:
    """Blocks in order of time, each judged by what was trained on rows that are earlier than its first by ``gap``."""
    from sklearn.model_selection import TimeSeriesSplit

    order = np.argsort(moments, kind="stable")
    gap = folds.gap.total_seconds()
    found = []
    for number, (_, block) in enumerate(TimeSeriesSplit(folds.count).split(order), start=1):
        judge = order[block]
        train = np.flatnonzero(moments < moments[judge].min() - gap)
        if not len(train):
            msg = f"no row is earlier than those that judge fold {number} of {folds.count}"
            fix = "take fewer folds, a shorter gap, or a column whose values differ"
            raise InputError(msg, why="only the past may train", fix=fix, file="model.yaml")
        found.append(Fold(train=train, judge=np.sort(judge)))
    return found


def _groups(frame: Any, column: str) -> Array:
    _require_column(frame, column)
    missing = int(frame[column].isna().sum())
    if missing:
        msg = f"{missing} rows of the training data have no {column}"
        why = "a row without its group may belong to any, so it could stand on both sides"
        raise InputError(msg, why=why, fix=f"fill {column} in, or leave those rows out", file="model.yaml")
    _, codes = np.unique(frame[column].astype(str).to_numpy(), return_inverse=True)
    return np.asarray(codes)


def _moments(frame: Any, column: str | None) -> Array:
    """Seconds since 1970 of each row, or the numbers themselves where the column holds numbers."""
    import pandas as pd

    if column is None:
        msg = "folds of kind time need a column"
        fix = "set data.time, or train.sweep.folds.column"
        raise InputError(msg, fix=fix, file="model.yaml")
    _require_column(frame, column)
    values = frame[column]
    if values.dtype.kind not in "iuf":
        try:
            stamps = pd.to_datetime(values, utc=True, format="ISO8601" if values.dtype.kind in "OTU" else None)
        except (ValueError, TypeError) as error:
            msg = f"the column {column} holds values that are no times: {' '.join(str(error).split())[:200]}"
            raise InputError(
                msg, fix="name a column of times in train.sweep.folds.column", file="model.yaml"
            ) from error
        values = (stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    moments: Array = values.to_numpy(dtype=float)
    if not np.isfinite(moments).all():
        msg = f"{int((~np.isfinite(moments)).sum())} rows of the training data have no {column}"
        raise InputError(msg, why="without its time a row may come from the future", fix="leave those rows out")
    return moments


def _require_column(frame: Any, column: str) -> None:
    if column not in frame.columns:
        msg = f"the training data has no column {column!r}, which train.sweep.folds names"
        raise InputError(msg, fix=f"its columns are {', '.join(map(str, frame.columns))}", file="model.yaml")


# ---------------------------------------------------------------- files


def write_rows(source: Path, rows: Array, destination: Path) -> None:
    """Copy some rows of a data file into a file of the same format, value for value; ``rows`` rise.

    Parquet keeps its types; of text formats the text of every value is kept, as another reader would see it.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(source).take(rows), destination)
        return
    wanted = np.zeros(int(rows.max()) + 1 if len(rows) else 0, dtype=bool)
    wanted[rows] = True
    if ".json" in source.name or ".ndjson" in source.name:
        with _text(source, "r") as read, _text(destination, "w") as written:
            lines = (line for line in read if line.strip())
            written.writelines(_ended(line) for line in _chosen(lines, wanted))
        return
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole document
    with _text(source, "r") as read, _text(destination, "w") as written:
        records = (record for record in csv.reader(read) if record)
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(next(records))
        writer.writerows(_chosen(records, wanted))


def _chosen(records: Iterator[Any], wanted: Array) -> Iterator[Any]:
    return (record for position, record in enumerate(records) if position < len(wanted) and wanted[position])


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n"


def _text(file: Path, mode: str) -> Any:
    if file.name.endswith(".gz"):
        return gzip.open(file, mode + "t", encoding="utf-8", newline="")
    return file.open(mode, encoding="utf-8", newline="")


def readable(file: Path) -> bool:
    """Whether rows of this file can be copied."""
    return file.is_file() and file.name.endswith((".parquet", *TEXT))
