"""Pure parts of a search: folds without leakage, budgets, what is proposed and given up, lines of progress."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlp_ci.errors import InputError
from mlp_ci.spec.sweep import Folds, Sweep
from mlp_ci.sweep.budget import Budget, shown_seconds
from mlp_ci.sweep.folds import readable, split, write_rows
from mlp_ci.sweep.reported import Curve, point_of
from mlp_ci.sweep.study import Study, listed
from mlp_ci.sweep.telling import history
from mlp_ci.sweep.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trial, best_of
from mlp_ci.tracking import RunFact
from mlp_ci.train.params import noted, write_merged

C = {"c": {"float": [0.01, 10.0], "log": True}}


def sweep(**fields: Any) -> Sweep:
    return Sweep.model_validate({"parameters": C, "metric": "roc_auc", **fields})


def trial(number: int, values: dict[str, Any], state: str = COMPLETE, seconds: float = 0.0, **fields: Any) -> Trial:
    run = RunFact(
        run_id=f"run{number:04}",
        status="RUNNING",
        started=datetime.now(UTC),
        tags={"mlp.train_seconds": str(seconds)},
    )
    return Trial(run=run, number=number, state=state, values=values, **fields)


# ---------------------------------------------------------------- folds


@st.composite
def cases(draw: st.DrawFn) -> tuple[Folds, pd.DataFrame, np.ndarray[Any, Any] | None, int]:
    rows = draw(st.integers(12, 60))
    kind = draw(st.sampled_from(["k-fold", "group", "time"]))
    frame = pd.DataFrame(
        {
            "g": draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)),
            "t": draw(st.lists(st.integers(0, 30), min_size=rows, max_size=rows)),
        }
    )
    classes = draw(st.none() | st.lists(st.sampled_from(["0", "1"]), min_size=rows, max_size=rows))
    column = {"group": "g", "time": "t"}.get(kind)
    gap = timedelta(seconds=draw(st.integers(0, 3))) if kind == "time" else timedelta(0)
    folds = Folds(kind=kind, count=draw(st.integers(2, 4)), column=column, gap=gap)
    return folds, frame, None if classes is None else np.asarray(classes), draw(st.integers(0, 5))


@given(cases())
@settings(max_examples=150)
def test_what_judges_is_unknown_to_what_trains(case: tuple[Folds, pd.DataFrame, Any, int]) -> None:
    folds, frame, classes, seed = case
    try:
        found = split(folds, frame, classes, None, seed)
    except InputError:
        groups, counts = frame["g"].nunique(), None if classes is None else np.unique(classes, return_counts=True)[1]
        assert folds.kind == "time" or groups < folds.count or (counts is not None and counts.max() < folds.count)
        return
    assert len(found) == folds.count
    judged = np.concatenate([f.judge for f in found])
    assert len(set(judged.tolist())) == len(judged), "no row judges twice"
    for fold in found:
        assert len(fold.train)
        assert len(fold.judge)
        assert not set(fold.train.tolist()) & set(fold.judge.tolist())
        if folds.kind == "group":
            assert not set(frame["g"].iloc[fold.train]) & set(frame["g"].iloc[fold.judge])
        if folds.kind == "time":
            first = frame["t"].iloc[fold.judge].min()
            assert frame["t"].iloc[fold.train].max() < first - folds.gap.total_seconds()
    if folds.kind != "time":
        assert sorted(judged.tolist()) == list(range(len(frame))), "every row judges once"
    again = split(folds, frame, classes, None, seed)
    assert all(
        np.array_equal(a.train, b.train) and np.array_equal(a.judge, b.judge) for a, b in zip(found, again, strict=True)
    )


def test_classes_are_spread_evenly_over_folds() -> None:
    classes = np.asarray(["1"] * 10 + ["0"] * 90)
    for fold in split(Folds(count=5), pd.DataFrame({"x": range(100)}), classes, None, 1):
        assert (classes[fold.judge] == "1").sum() == 2


@pytest.mark.parametrize(
    ("folds", "frame", "says"),
    [
        (Folds(count=5), pd.DataFrame({"x": range(4)}), "4 rows"),
        (Folds(kind="group", column="who"), pd.DataFrame({"x": range(20)}), "no column 'who'"),
        (Folds(kind="group", column="g", count=3), pd.DataFrame({"g": ["a", "b"] * 5}), "2 different values"),
        (Folds(kind="group", column="g", count=2), pd.DataFrame({"g": ["a", None] * 5}), "have no g"),
        (Folds(kind="time"), pd.DataFrame({"x": range(20)}), "need a column"),
        (Folds(kind="time", column="t"), pd.DataFrame({"t": ["soon"] * 20}), "no times"),
        (Folds(kind="time", column="t"), pd.DataFrame({"t": [3] * 20}), "no row is earlier"),
        (
            Folds(kind="time", column="t"),
            pd.DataFrame({"t": [*range(19), None]}),
            "have no t",
        ),
    ],
)
def test_rows_that_allow_no_folds_are_refused(folds: Folds, frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(InputError, match=says):
        split(folds, frame, None, None, 0)


def test_times_of_all_kinds_are_put_in_order() -> None:
    texts = [f"2026-01-{day:02}T00:00:00" for day in range(1, 13)]
    for values in (texts, pd.to_datetime(texts), pd.to_datetime(texts, utc=True)):
        frame = pd.DataFrame({"t": values}).sample(frac=1, random_state=1).reset_index(drop=True)
        for fold in split(Folds(kind="time", count=3), frame, None, "t", 0):
            assert frame["t"].iloc[fold.train].max() < frame["t"].iloc[fold.judge].min()


def test_a_part_of_a_file_holds_the_same_values(tmp_path: Path) -> None:
    text = 'id,code,said\n1,007,"a, b"\n2,1e5,"two\nlines"\n3,,""\n4,00,é\n'
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    write_rows(tmp_path / "d.csv", np.asarray([0, 1, 3]), tmp_path / "part" / "d.csv")
    with (tmp_path / "d.csv").open(newline="") as whole, (tmp_path / "part" / "d.csv").open(newline="") as part:
        expected, found = list(csv.reader(whole)), list(csv.reader(part))
    assert found == [expected[0], expected[1], expected[2], expected[4]]

    (tmp_path / "d.jsonl").write_text('{"a": 1}\n\n{"a": "007"}\n{"a": null}', encoding="utf-8")
    write_rows(tmp_path / "d.jsonl", np.asarray([1, 2]), tmp_path / "part.jsonl")
    assert (tmp_path / "part.jsonl").read_text() == '{"a": "007"}\n{"a": null}\n'

    frame = pd.DataFrame({"a": pd.Categorical(["x", "y", "x"]), "b": pd.array([1, None, 3], dtype="Int64")})
    frame.to_parquet(tmp_path / "d.parquet")
    write_rows(tmp_path / "d.parquet", np.asarray([1, 2]), tmp_path / "part.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "part.parquet"), frame.iloc[[1, 2]].reset_index(drop=True))
    assert not readable(tmp_path)


# ---------------------------------------------------------------- the search


def test_a_grid_covers_all_and_repeats_nothing() -> None:
    asked = sweep(
        sampler="grid",
        parameters={
            "d": {"int": [1, 5], "step": 2},
            "f": {"float": [0, 0.3], "step": 0.1},
            "k": {"choice": ["a", "b"]},
        },
    )
    study, trials = Study(asked, maximize=True, seed=3), list[Trial]()
    while values := study.propose(trials):
        trials.append(trial(len(trials) + 1, values, [COMPLETE, FAILED, RUNNING][len(trials) % 3], value=0.5))
    assert len(trials) == study.size == 3 * 4 * 2
    assert {json.dumps(t.values) for t in trials} == {
        json.dumps({"d": d, "f": f, "k": k}) for d in (1, 3, 5) for f in (0.0, 0.1, 0.2, 0.3) for k in "ab"
    }


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_small_space_ends_and_a_proposal_depends_only_on_the_trials(sampler: str) -> None:
    asked = sweep(sampler=sampler, parameters={"d": {"int": [1, 3]}, "k": {"choice": [True, False]}})
    trials = list[Trial]()
    while values := Study(asked, maximize=False, seed=1).propose(trials):
        assert values == Study(asked, maximize=False, seed=1).propose(trials)
        trials.append(trial(len(trials) + 1, values, value=float(values["d"])))
    assert len(trials) == 6


def test_tpe_finds_better_values_than_chance() -> None:
    def found(sampler: str, seed: int) -> float:
        study, trials = Study(sweep(sampler=sampler, trials=40), maximize=True, seed=seed), list[Trial]()
        for number in range(40):
            values = study.propose(trials) or {}
            trials.append(trial(number, values, value=-abs(np.log(float(values["c"]) / 2.0))))
        best = best_of(trials, maximize=True)
        assert best
        return best.value or 0.0

    seeds = range(5)
    assert np.mean([found("tpe", s) for s in seeds]) > np.mean([found("random", s) for s in seeds])


@pytest.mark.parametrize("pruner", ["median", "successive-halving", "hyperband"])
def test_a_trial_that_falls_behind_is_given_up_and_one_that_leads_is_not(pruner: str) -> None:
    study = Study(sweep(pruner=pruner), maximize=True, seed=0)
    others = list[Trial]()
    for number in range(12):
        curve, rungs = dict[int, float](), dict[str, Any]()
        for step in range(1, 17):
            curve[step] = 0.5 + 0.02 * step + number / 1000
            running = trial(number, {"c": 1.0 + number / 4}, RUNNING, curve=dict(curve), rungs=rungs)
            rungs = study.falls_behind(others, running)[1]
        others.append(trial(number, {"c": 1.0 + number / 4}, value=curve[16], curve=curve, rungs=rungs))

    def ended(height: float) -> bool:
        rungs, curve = dict[str, Any](), dict[int, float]()
        for step in range(1, 17):
            curve[step] = height + 0.02 * step
            behind, rungs = study.falls_behind(others, trial(12, {"c": 9.0}, RUNNING, curve=dict(curve), rungs=rungs))
            if behind:
                return True
        return False

    assert ended(0.1)
    assert not ended(0.9)


def test_importances_name_what_matters() -> None:
    asked = sweep(parameters={**C, "idle": {"int": [0, 9]}})
    study, trials = Study(asked, maximize=True, seed=2), list[Trial]()
    for number in range(25):
        values = study.propose(trials) or {}
        trials.append(trial(number, values, value=-abs(float(values["c"]) - 3)))
    shares = study.importances(trials)
    assert list(shares) == ["c", "idle"]
    assert shares["c"] > 0.8
    assert study.importances(trials[:3]) == {}


def test_best_and_history() -> None:
    trials = [
        trial(1, {"c": 1.0}, value=0.5),
        trial(2, {"c": 2.0}, FAILED),
        trial(3, {"c": 3.0}, value=0.7),
        trial(4, {"c": 4.0}, value=0.7),
        trial(5, {"c": 5.0}, PRUNED, curve={1: 0.4}),
    ]
    best, worst = best_of(trials, maximize=True), best_of(trials, maximize=False)
    assert best
    assert worst
    assert (best.number, worst.number) == (3, 1)
    assert best_of(trials[1:2], maximize=True) is None
    drawn = history(trials, maximize=True)
    assert drawn
    assert (drawn.first, drawn.last, drawn.dots.count("h0"), drawn.pruned.count("h0")) == (1, 5, 3, 1)
    assert history(trials[1:2], maximize=True) is None


def test_budgets_count_all_attempts() -> None:
    used = [trial(1, {}, seconds=1800), trial(2, {}, FAILED, seconds=1800), trial(3, {}, RUNNING)]
    assert "3 trials" in Budget(trials=3).spent(used)
    assert not Budget(trials=4, seconds=3601, usd=2.01, price=2.0).spent(used)
    assert "1h00m, of 1h00m" in Budget(trials=4, seconds=3600).spent(used)
    assert "$2.00, of $2.00" in Budget(trials=4, usd=2.0, price=2.0).over(used)
    assert (
        Budget(trials=4, seconds=7200, usd=9, price=2).said(used)
        == "3 of at most 4 trials, 1h00m of 2h00m, $2.00 of $9.00"
    )
    assert [shown_seconds(s) for s in (9.26, 192, 7500)] == ["9.26s", "3m12s", "2h05m"]


# ---------------------------------------------------------------- what people and commands write


def test_lines_of_progress(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    curve = Curve(file)
    assert curve.more() == {}
    file.write_text('{"step": 1, "value": 0.5}\n{"step": 2, "val')
    assert curve.more() == {1: 0.5}
    with file.open("a") as stream:
        stream.write('ue": 0.75}\n\nnonsense\n{"step": 1, "value": 0.6}\n')
    assert curve.more() == {2: 0.75, 1: 0.6}
    assert curve.points == {1: 0.6, 2: 0.75}
    assert curve.bad == "nonsense"


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda s: st.dictionaries(st.sampled_from(["step", "value"]), s),
    ).map(lambda v: json.dumps(v).encode())
)
def test_a_line_is_a_finite_point_or_nothing(line: bytes) -> None:
    point = point_of(line)
    assert point is None or (point[0] >= 0 and np.isfinite(point[1]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"parameters": {"c": {"float": [1, 0]}}}, "not below"),
        ({"parameters": {"c": {"float": [0, 1], "log": True}}}, "above 0"),
        ({"parameters": {"c": {"float": [0.1, 1], "log": True, "step": 0.1}}}, "not both"),
        ({"parameters": {"c": {"int": [1, 9], "step": 0.5}}}, "whole number"),
        ({"parameters": {"c": {"int": [1, 3], "step": 9}}}, "longer than the range"),
        ({"parameters": {"c": {"choice": [1, 1]}}}, "twice"),
        ({"parameters": {"c": {"choice": [1, 2], "log": True}}}, "log and step"),
        ({"parameters": {"c": {"float": [0, 1]}}, "sampler": "grid"}, "step"),
        ({"parameters": {"c": {"float": [0, float("inf")]}}}, "finite"),
        ({"folds": {"kind": "group"}}, "need `column`"),
        ({"folds": {"kind": "k-fold", "column": "g"}}, "group or time"),
        ({"folds": {"kind": "k-fold", "gap": "1d"}}, "kind time"),
        ({"parameters": {}}, "at least 1"),
    ],
)
def test_searches_that_make_no_sense_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        sweep(**fields)


def test_listed_values_are_what_people_wrote() -> None:
    asked = sweep(parameters={"f": {"float": [0, 0.3], "step": 0.1}, "i": {"int": [1, 6], "step": 2}})
    assert [listed(v) for v in asked.parameters.values()] == [[0.0, 0.1, 0.2, 0.3], [1, 3, 5]]


def test_merged_params(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("model: {depth: 3, rate: 0.1}\na.b: 1\nname: Zoë\n", encoding="utf-8")
    file = write_merged(tmp_path, "p.yaml", {"model.depth": 7, "a.b": 0.25, "name": "x"}, tmp_path / "out")
    assert file == tmp_path / "out" / "p.yaml"
    assert yaml.safe_load(file.read_text()) == {"model": {"depth": 7, "rate": 0.1}, "a.b": 0.25, "name": "x"}
    (tmp_path / "p.json").write_text('{"a": {"b": [1, 2], "c": 1}}')
    assert json.loads(write_merged(tmp_path, "p.json", {"a.c": True}, tmp_path / "out").read_text()) == {
        "a": {"b": [1, 2], "c": True}
    }
    for name, fix in (
        ("model.dept", "did you mean `model.depth`"),
        ("model", "did you mean"),
        ("zzz", "add it to p.yaml"),
    ):
        with pytest.raises(InputError) as refused:
            write_merged(tmp_path, "p.yaml", {name: 1}, tmp_path / "out")
        assert fix in refused.value.fix


def test_noted_parameters_of_a_run() -> None:
    chosen = noted({"mlp.sweep_params": '{"c": 1.5}', "mlp.sweep": "abc", "mlp.commit": "f"})
    assert chosen
    assert chosen.values == {"c": 1.5}
    assert chosen.tags == {"mlp.sweep_params": '{"c": 1.5}', "mlp.sweep": "abc"}
    assert noted({}) is None
    assert noted({"mlp.sweep_params": "?"}) is None
