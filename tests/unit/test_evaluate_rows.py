"""How held-out rows are read: targets of every task, groups, times, slices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import FORECASTING, MULTILABEL, RANKING
from mlp_ci.evaluate.rows import HeldOut, read_held_out, slice_columns
from mlp_ci.spec import ModelSpec, parse_model

if TYPE_CHECKING:
    from pathlib import Path


def spec(test: str = "test.parquet", **evaluate: Any) -> ModelSpec:
    columns = {"x": {"type": "float"}, "kind": {"type": "string"}, "sex": {"type": "string", "sensitive": True}}
    value = {
        "apiVersion": "mlp-ci/v1",
        "name": "m",
        "team": "t",
        "data": {"train": "train.csv", "test": test, "target": "y", "time": "at", "columns": columns},
        "train": {"command": "true"},
        "evaluate": {"gates": [{"metric": "accuracy", "min": 0.5}], **evaluate},
    }
    return parse_model(json.dumps(value).encode())


def read(folder: Path, columns: dict[str, list[Any]], **evaluate: Any) -> HeldOut:
    pd.DataFrame(columns).to_parquet(folder / "test.parquet")
    return read_held_out(folder / "test.parquet", spec(**evaluate))


def test_multilabel_targets_are_lists_or_text(tmp_path: Path) -> None:
    found = read(tmp_path, {"y": [["b", "a"], [], ["c"]]})
    assert (found.task, found.classes) == (MULTILABEL, ("a", "b", "c"))
    assert found.target.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    (tmp_path / "test.csv").write_text("x,y\n1,b|a\n1,\n1, c \n")
    text = read_held_out(tmp_path / "test.csv", spec("test.csv", task="multilabel"))
    assert text.classes == found.classes
    assert (text.target == found.target).all()


def test_rows_of_a_query_have_its_code(tmp_path: Path) -> None:
    found = read(tmp_path, {"y": [0, 2, 1], "q": ["b", "a", "b"]}, task="ranking", group="q")
    assert found.task == RANKING
    assert found.groups is not None
    assert found.groups.tolist() == [1, 0, 1]


def test_times_are_seconds_and_scale_the_errors_of_each_series(tmp_path: Path) -> None:
    at = pd.to_datetime(["1970-01-02", "1970-01-01", "1970-01-03", "1970-01-01", "1970-01-02", "1970-01-01"])
    columns = {"y": [3.0, 1.0, 9.0, 5.0, 5.0, 1.0], "at": list(at), "series": ["a", "a", "a", "b", "b", "c"]}
    found = read(tmp_path, columns, task="forecasting", group="series")
    assert found.task == FORECASTING
    assert found.times is not None
    assert found.times.tolist() == [86400, 0, 172800, 0, 86400, 0]
    assert found.scale is not None
    # a: 1, 3, 9 moves by 2 and 6; b never changes; c is a single row.
    assert found.scale.tolist() == pytest.approx([4, 4, 4, np.nan, np.nan, np.nan], nan_ok=True)
    seasonal = read(tmp_path, columns, task="forecasting", group="series", season=2)
    assert seasonal.scale is not None
    assert seasonal.scale[0] == 8


@pytest.mark.parametrize(
    ("columns", "evaluate", "said"),
    [
        ({"y": [1, 2]}, {"task": "ranking"}, "a ranking needs evaluate.group"),
        ({"y": [1, -2], "q": [1, 2]}, {"task": "ranking", "group": "q"}, "1 rows of test.parquet have a negative y"),
        ({"y": [0, 0], "q": [1, 2]}, {"task": "ranking", "group": "q"}, "no row of test.parquet has a y above 0"),
        ({"y": [0, 1], "q": [1, None]}, {"group": "q"}, "1 of 2 rows of test.parquet have no q"),
        ({"y": [0, 1], "q": [1, 1]}, {"group": "q"}, "every row of test.parquet has the same q"),
        ({"y": [0, 1]}, {"group": "q"}, "no column 'q', evaluate.group"),
        ({"y": [0.5, 1]}, {"task": "forecasting"}, "no column 'at', data.time"),
        ({"y": [0.5, 1], "at": ["x", "y"]}, {"task": "forecasting"}, "at of test.parquet cannot be read as a time"),
        ({"y": [0, 1], "at": [0, None]}, {"block": "1h"}, "1 of 2 rows of test.parquet have no at"),
        ({"y": [1, 2]}, {"task": "multilabel"}, "holds one number per row"),
        ({"y": [[], []]}, {"task": "multilabel"}, "no row of test.parquet has a label in y"),
        ({"y": [0.5, np.inf]}, {"task": "regression"}, "1 rows of test.parquet have an infinite y"),
        ({"y": [0, 1]}, {"slices": ["kind"]}, "no column 'kind', and evaluate.slices names it"),
        (
            {"y": [0, 1]},
            {"gates": [{"metric": "recall", "gap": "sex", "max": 0.1}]},
            "no column 'sex', and a gate bounds a gap over it",
        ),
    ],
)
def test_held_out_data_that_does_not_fit(
    columns: dict[str, list[Any]], evaluate: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, columns, **evaluate)
    assert said in caught.value.what
    assert caught.value.fix or caught.value.why


def test_times_that_nobody_needs_may_be_missing(tmp_path: Path) -> None:
    assert read(tmp_path, {"y": [0, 1], "at": ["2013-01-01", None]}).times is None
    assert read(tmp_path, {"y": [0, 1], "at": ["soon", "late"]}).times is None


def test_every_named_column_is_sliced_and_a_sensitive_one_keeps_its_values(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "y": [0, 1] * 50,
        "x": [float(i) for i in range(100)],
        "kind": ["a", None] * 50,
        "sex": ["f"] * 60 + ["m"] * 40,
        "size": [1.0, 2.0, None, 3.0] * 25,
    }
    rules = [{"metric": "recall", "gap": "sex", "max": 0.1}, {"metric": "accuracy", "slice": "kind", "min": 0.1}]
    found = read(tmp_path, columns, gates=rules, slices=["x", "size"]).slices
    assert sorted(found) == ["kind", "sex", "size", "x"]
    assert set(found["kind"]) == {"a", "(missing)"}
    assert (found["sex"][0], found["sex"][-1]) == ("sex 1", "sex 2")
    assert set(found["size"]) == {"1", "2", "3", "(missing)"}
    assert dict(zip(*np.unique(found["x"], return_counts=True), strict=True)) == {
        "0 to 24.75": 25,
        "24.75 to 49.5": 25,
        "49.5 to 74.25": 25,
        "74.25 to 99": 25,
    }


def test_where_a_search_may_look(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "y": [0, 1] * 200,
        "at": ["2013-01-01"] * 400,
        "x": [float(i) for i in range(400)],
        "kind": [f"k{i % 80}" for i in range(400)],
        "sex": ["f", "m"] * 200,
        "other": ["a", "b"] * 200,
        "free": [f"text {i}" for i in range(400)],
    }
    found = slice_columns(pd.DataFrame(columns), spec(slices=["other", "free"]))
    assert sorted(found) == ["free", "kind", "other", "x"]
    assert len(set(found["kind"])) == 51
    assert len(set(found["x"])) == 4
