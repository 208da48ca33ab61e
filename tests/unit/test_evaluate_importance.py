"""Which inputs the predictions rest on: columns shuffled one by one, for models of every kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import InputError
from mlp_ci.evaluate import predictor
from mlp_ci.evaluate.importance import FORMAT, Importance, importance_of


def features(rows: int = 3000) -> pd.DataFrame:
    random = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "strong": random.normal(size=rows),
            "weak": random.normal(size=rows),
            "unused": random.normal(size=rows),
            "kind": pd.Categorical(random.choice(["a", "b"], rows)),
            "seen_at": pd.Timestamp("2013-01-01") + pd.to_timedelta(random.integers(0, 9, rows), "D"),
        }
    )


def probability(frame: pd.DataFrame) -> Any:
    share = 1 / (1 + np.exp(-(2 * frame["strong"] + 0.5 * frame["weak"] + (frame["kind"] == "a"))))
    return np.column_stack([1 - share, share])


def number(frame: pd.DataFrame) -> Any:
    return 200 * frame["strong"] - 100 * frame["weak"] + (frame["seen_at"].dt.day > 3)


def name(frame: pd.DataFrame) -> Any:
    return np.where(frame["strong"] > 0, "yes", np.where(frame["weak"] > 1, "perhaps", "no"))


def shares(predict: Any, frame: pd.DataFrame | None = None, *, classes: bool = True) -> dict[str, float]:
    found = predictor.importances(predict, features() if frame is None else frame, classes=classes)
    return dict(importance_of(found).shares)


@pytest.mark.parametrize(
    ("predict", "classes"),
    [(probability, True), (lambda f: probability(f)[:, 1], True), (number, False), (name, True)],
)
def test_what_matters_comes_first_and_what_is_unused_has_nothing(predict: Any, classes: bool) -> None:
    found = shares(predict, classes=classes)
    assert list(found) == ["strong", "weak", "unused", "kind", "seen_at"]
    assert found["strong"] > found["weak"] > found["unused"] == 0
    assert sum(found.values()) == pytest.approx(1)
    assert found == shares(predict, classes=classes)


def test_the_formula() -> None:
    """For f = 3a + b with a and b alike, a moves the prediction three times as far."""
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"a": random.normal(size=2000), "b": random.normal(size=2000)})
    found = predictor.importances(lambda f: 3 * f["a"] + f["b"], frame, classes=False)
    assert found["importance"][0] / found["importance"][1] == pytest.approx(3, rel=0.05)
    # The mean distance of two independent standard normal numbers is 2 / sqrt(pi).
    assert found["importance"][1] == pytest.approx(2 / np.pi**0.5, rel=0.05)
    assert int(found["importance_rows"]) == 2000


def test_two_columns_of_probabilities_count_once() -> None:
    one = predictor.importances(lambda f: probability(f)[:, 1], features(), classes=True)
    two = predictor.importances(probability, features(), classes=True)
    assert two["importance"] == pytest.approx(one["importance"])


def test_whole_numbers_are_classes_or_amounts() -> None:
    frame = pd.DataFrame({"a": np.arange(500) % 3, "b": np.arange(500) % 2})
    as_classes = predictor.importances(lambda f: f["a"] * 10, frame, classes=True)["importance"]
    as_numbers = predictor.importances(lambda f: f["a"] * 10, frame, classes=False)["importance"]
    assert 0.6 < as_classes[0] < 0.73
    assert as_numbers[0] > 8


def test_many_columns_are_tried_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shares(probability)
    monkeypatch.setattr(predictor, "IMPORTANCE_CELLS", 2000 * 5 * 2)
    assert shares(probability) == pytest.approx(whole)


def test_a_wide_table_stays_small() -> None:
    sizes = []

    def first(frame: pd.DataFrame) -> Any:
        sizes.append(frame.size)
        return frame["c0"]

    random = np.random.default_rng(0)
    wide = pd.DataFrame({f"c{i}": random.normal(size=400) for i in range(300)})
    assert shares(first, wide, classes=False)["c0"] == 1
    assert max(sizes) <= predictor.IMPORTANCE_CELLS + wide.shape[1] * predictor.IMPORTANCE_ROWS
    huge = pd.DataFrame(np.zeros((60, 2000)), columns=[f"c{i}" for i in range(2000)])
    assert "2,000 columns, too many" in trouble(first, huge)


def trouble(predict: Any, frame: pd.DataFrame, per_row: float = 0.0) -> str:
    found = predictor.importances(predict, frame, classes=True, per_row=per_row)
    return importance_of(found).trouble


def refuses(frame: pd.DataFrame) -> Any:
    msg = f"cannot read {frame['kind'].iloc[0]}: secret"
    raise KeyError(msg)


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (refuses, "refused rows with one column shuffled (KeyError)"),
        (lambda f: np.full(len(f), np.nan), "gave no number"),
        (lambda f: np.ones(3), "refused rows with one column shuffled (ValueError)"),
        (lambda f: np.ones(len(f)), "no column moves the predictions"),
    ],
)
def test_what_cannot_be_measured_is_left_out_with_a_reason(predict: Any, said: str) -> None:
    found = trouble(predict, features(200))
    assert said in found
    assert "secret" not in found


def test_a_slow_model_is_left_alone() -> None:
    assert trouble(probability, features(), per_row=0.06) == "it would take 10 minutes"


def test_one_row_and_no_row() -> None:
    assert "no column moves" in trouble(probability, features(1))
    assert trouble(probability, features(0))


# ---------------------------------------------------------------- what is kept


def test_it_is_read_back() -> None:
    kept = Importance(shares={"a": 0.75, "b": 0.25}, rows=2000)
    assert Importance.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    none = Importance(shares={}, rows=0, trouble="why")
    assert Importance.from_json(json.loads(json.dumps(none.to_json()))) == none


@pytest.mark.parametrize(
    "change",
    [
        {"format": "mlp-ci/importance/v9"},
        {"importance": {"a": 0.7, "b": 0.7}},
        {"importance": {"a": -1.0, "b": 2.0}},
        {"importance": {"a": float("nan")}},
        {"importance": {"a": "1"}},
        {"importance": [1.0]},
        {"rows": -1},
        {"rows": None},
    ],
)
def test_damaged_files_are_refused(change: dict[str, Any]) -> None:
    good = {"format": FORMAT, "importance": {"a": 0.75, "b": 0.25}, "rows": 10}
    assert Importance.from_json(good).shares["a"] == 0.75
    with pytest.raises(InputError, match="importance"):
        Importance.from_json({**good, **change})


@given(
    st.recursive(st.none() | st.floats() | st.text(max_size=4), lambda i: st.lists(i) | st.dictionaries(st.text(), i))
)
def test_nothing_is_a_traceback(value: Any) -> None:
    with pytest.raises(InputError):
        Importance.from_json(value)
    with pytest.raises(InputError):
        Importance.from_json({"format": FORMAT, "importance": value, "rows": value})


def test_the_table_shows_ten_the_largest_first() -> None:
    many = Importance(shares={f"c{i:02}": (i + 1) / 78 for i in range(12)}, rows=100)
    table = many.table()
    assert len(table.rows) == 10
    assert table.rows[0] == ("c11", "15.4%")
    assert "10 of 12" in table.title
