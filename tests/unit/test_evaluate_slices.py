"""The search for the worst slices: it finds what is there, and says nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_ci.evaluate.bootstrap import Design
from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, RANKING, REGRESSION, Predictions
from mlp_ci.evaluate.slices import loss_of, masks_of, search, search_facts


def columns(rows: int, chance: np.random.Generator, count: int = 6, values: int = 5) -> dict[str, np.ndarray]:
    return {f"c{i}": chance.integers(0, values, rows).astype(str) for i in range(count)}


def test_a_bad_pair_is_found_and_its_columns_alone_are_not_blamed() -> None:
    chance = np.random.default_rng(1)
    rows = 20_000
    cols = columns(rows, chance)
    bad = (cols["c1"] == "2") & (cols["c4"] == "0")
    loss = chance.random(rows) * 0.2 + np.where(bad, 0.15, 0.0)
    found = search(cols, loss, min_rows=50)
    assert [dict(s.where) for s in found.found] == [{"c1": "2", "c4": "0"}]
    one = found.found[0]
    assert one.words == "c1 = 2 and c4 = 0"
    assert one.rows == int(bad.sum())
    assert one.loss == pytest.approx(float(loss[bad].mean()))
    assert one.loss_rest == pytest.approx(float(loss[~bad].mean()))
    assert one.p < 1e-6
    assert next(iter(masks_of(cols, found))).tolist() == bad.tolist()
    facts = search_facts(found, confidence=0.95, min_rows=50, rows=rows)
    assert facts["tried"] == 6 * 5 + 15 * 25
    assert facts["found"][0]["share"] == pytest.approx(0.04, abs=0.01)


def test_a_bad_value_is_found_once_and_not_again_in_pairs() -> None:
    chance = np.random.default_rng(2)
    rows = 5_000
    cols = columns(rows, chance)
    cols["copy"] = cols["c0"]
    loss = chance.random(rows) * 0.5 + np.where(cols["c0"] == "3", 0.2, 0.0)
    assert [dict(s.where) for s in search(cols, loss, min_rows=50).found] in ([{"c0": "3"}], [{"copy": "3"}])


def test_where_there_is_nothing_seldom_anything_is_found() -> None:
    """At most 5 % of searches may find anything; 100 of them, so up to ten by chance (99 %)."""
    false = 0
    for seed in range(100):
        chance = np.random.default_rng(seed)
        cols = columns(2_000, chance, count=5)
        false += bool(search(cols, (chance.random(2_000) < 0.2).astype(float), min_rows=50).found)
    assert false <= 10


def test_rows_that_belong_together_count_as_one() -> None:
    """A patient with 200 bad rows is one bad patient, not a bad hospital."""
    chance = np.random.default_rng(5)
    patients = np.repeat(np.arange(100), 200)
    cols = {"hospital": (patients % 10).astype(str), "ward": chance.integers(0, 4, len(patients)).astype(str)}
    loss = chance.random(len(patients)) * 0.3 + np.where(np.isin(patients, [7, 17]), 0.3, 0.0)
    assert search(cols, loss, min_rows=50).found
    design = Design(rows=len(patients), clusters=patients)
    assert not search(cols, loss, min_rows=50, design=design).found


def test_small_slices_and_columns_of_one_value_are_not_looked_at() -> None:
    loss = np.r_[np.ones(30), np.zeros(970)]
    cols = {"small": np.r_[np.full(30, "a"), np.full(970, "b")], "one": np.full(1000, "x")}
    assert search(cols, loss, min_rows=50).tried == 0
    assert search({}, loss, min_rows=50).found == ()
    assert search(cols, loss, min_rows=20).found[0].where == {"small": "a"}


def test_every_task_has_a_loss_or_says_so() -> None:
    target = np.asarray([0, 1, 1])
    binary = Predictions(task=BINARY, target=target, label=target, probability=np.asarray([0.1, 0.8, 0.5]))
    name, loss = loss_of(binary) or ("", None)
    assert name == "squared error of the probability"
    assert loss == pytest.approx([0.01, 0.04, 0.25])
    wrong = loss_of(Predictions(task=MULTICLASS, target=target, label=np.asarray([0, 2, 1]), classes=("a", "b", "c")))
    assert wrong is not None
    assert wrong[1].tolist() == [0, 1, 0]
    error = loss_of(Predictions(task=REGRESSION, target=np.asarray([1.0, 2.0]), label=np.asarray([3.0, 2.0])))
    assert error is not None
    assert error[1].tolist() == [2, 0]
    assert loss_of(Predictions(task=RANKING, target=target, label=target, groups=target)) is None
