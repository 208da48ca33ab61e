"""How often predictions came true: counted, kept as JSON, and refused when damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.data.profiles.outcomes import BELOW_HALF, FORMAT, Outcomes, outcomes_of, probability_edges
from mlp_ci.data.profiles.profile import Profile, profile_values
from mlp_ci.data.profiles.profiling import profile_file
from mlp_ci.data.profiles.shapes import NumberProfile
from mlp_ci.errors import InputError
from mlp_ci.spec.data import Column

SMALL = {
    "format": FORMAT,
    "edges": [0.2, 0.6],
    "rows": [10, 4, 0],
    "positives": [1, 3, 0],
    "scores": [0.1, 0.5, None],
}
shares = st.lists(st.floats(0, 1), min_size=1, max_size=400)


@given(shares, st.randoms(use_true_random=False))
def test_every_row_is_counted_once_and_read_back(values: list[float], random: Any) -> None:
    probabilities = np.asarray(values)
    positive = np.asarray([random.randint(0, 1) for _ in values])
    edges = probability_edges(probabilities)
    found = outcomes_of(edges, probabilities, positive)
    assert sum(found.rows) == len(values)
    assert sum(found.positives) == positive.sum()
    assert Outcomes.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert list(edges) == sorted(set(edges))


def test_no_bin_holds_both_a_yes_and_a_no() -> None:
    random = np.random.default_rng(3)
    probabilities = np.r_[random.uniform(size=3000), 0.5, BELOW_HALF]
    edges = probability_edges(probabilities)
    bins = np.searchsorted(edges, probabilities)
    for number in range(len(edges) + 1):
        assert len(set(probabilities[bins == number] >= 0.5)) < 2


def test_the_log_is_counted_in_the_same_bins(tmp_path: Path) -> None:
    """Also at the edge that is no round number."""
    random = np.random.default_rng(4)
    said = np.r_[random.uniform(size=2000), [0.5] * 50, [BELOW_HALF] * 30]
    edges = probability_edges(said)
    found = outcomes_of(edges, said, np.zeros(len(said)))
    pd.DataFrame({"prediction": said}).to_parquet(tmp_path / "log.parquet")
    column = replace(profile_values(said), edges=edges)  # type: ignore[type-var]
    stored = json.loads(
        json.dumps(Profile(rows=1, columns={"prediction": profile_values(said, like=column)}).to_json())
    )
    columns = {"prediction": Column(type="float")}  # type: ignore[call-arg]
    counted = profile_file(tmp_path / "log.parquet", columns, like=Profile.from_json(stored)).columns["prediction"]
    assert isinstance(counted, NumberProfile)
    assert counted.counts == found.rows


def test_a_bin_knows_what_was_said_and_what_came_true() -> None:
    found = outcomes_of((0.25, 0.5), np.asarray([0.1, 0.2, 0.5, 0.9]), np.asarray([0, 1, 1, 1]))
    assert (found.rows, found.positives) == ((2, 1, 1), (1, 1, 1))
    assert found.scores == (pytest.approx(0.15), 0.5, 0.9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "mlp-ci/outcomes/v9"}, "mlp-ci/outcomes/v9"),
        ({"edges": [0.6, 0.2]}, "do not rise"),
        ({"edges": [0.2, float("nan")]}, "no number"),
        ({"edges": [0.2, "0.6"]}, "no number"),
        ({"edges": 3}, "damaged"),
        ({"edges": [0.2]}, "3 counts for 2 bins"),
        ({"rows": [10, -4, 0]}, "no count"),
        ({"rows": [10, 4.0, 0]}, "no count"),
        ({"rows": None}, "no list"),
        ({"positives": [1, 5, 0]}, "more positives than rows"),
        ({"positives": [1]}, "1 counts for 3 bins"),
        ({"scores": [0.1]}, "1 mean predictions for 3 bins"),
        ({"scores": [0.1, True, None]}, "no number"),
    ],
)
def test_damaged_outcomes_are_refused(change: dict[str, Any], said: str) -> None:
    assert Outcomes.from_json(SMALL).rows == (10, 4, 0)
    with pytest.raises(InputError, match=said):
        Outcomes.from_json({**SMALL, **change})


@pytest.mark.parametrize("missing", ["edges", "rows", "positives", "scores"])
def test_what_is_missing_is_refused(missing: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        Outcomes.from_json({k: v for k, v in SMALL.items() if k != missing})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({k: json_values for k in SMALL if k != "format"}) | json_values)
def test_nothing_damaged_is_a_traceback(value: Any) -> None:
    given_value = {"format": FORMAT, **value} if isinstance(value, dict) else value
    try:
        found = Outcomes.from_json(given_value)
    except InputError:
        return
    assert len(found.rows) == len(found.positives) == len(found.edges) + 1
