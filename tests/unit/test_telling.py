"""What is told of an evaluation: the page, the comment and the model card, from facts of any shape and origin."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.evaluate.telling import charts, tables
from mlp_ci.evaluate.telling.card import model_card
from mlp_ci.evaluate.telling.comment import LIMIT, Links, comment
from mlp_ci.evaluate.telling.facts import Beside, Facts, facts_of
from mlp_ci.evaluate.telling.mermaid import pictures
from mlp_ci.evaluate.telling.page import render
from mlp_ci.report import Outcome
from mlp_ci.sandbox.forge.pages import markdown
from mlp_ci.spec import ModelSpec
from tests.pages import read
from tests.told import HOSTILE, IMPORTANCE, TAGS, evidence, plots

LINKS = Links(report="https://mlflow.example/#/experiments/1/runs/2/artifacts/r.html", run="https://mlflow.example/2")
TASKS = ("binary", "multiclass", "regression")


def spec(**changes: Any) -> ModelSpec:
    value = {
        "apiVersion": "mlp-ci/v1",
        "name": "flight-delay",
        "team": "growth",
        "owners": ["@acme/growth-ml"],
        "description": "Says which flights will be late.",
        "metadata": {"license": "apache-2.0", "not for": "crew planning"},
        "train": {"command": "true"},
        "data": {
            "train": "data/train.parquet",
            "test": "data/test.parquet",
            "target": "delayed",
            "columns": {"x": {"type": "float"}},
        },
        "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
    }
    return ModelSpec.model_validate(value | changes)


def told(value: dict[str, Any], **beside: Any) -> Facts:
    """Facts as they are read back: through JSON."""
    known = {"importance": IMPORTANCE, "plots": plots(), "tags": TAGS} | beside
    return facts_of(json.loads(json.dumps(value)), Beside(**json.loads(json.dumps(known))))


def v2(**changes: Any) -> dict[str, Any]:
    """What the second format has beside the first."""
    found = {"where": {"carrier": "EV"}, "words": "carrier = EV and hour 18 to 23", "rows": 210, "share": 0.05}
    return evidence(
        format="mlp-ci/evidence/v2",
        on_inconclusive="ask",
        differences={"production": {"accuracy": {"value": 0.011, "low": 0.002, "high": 0.02}}},
        slices={
            "declared": [{"column": "hour", "slice": "6", "rows": 400, "metric": "roc_auc", "value": 0.8}],
            "search": {"loss": "log_loss", "found": [{**found, "loss": 0.71, "loss_rest": 0.4, "p": 0.003}]},
        },
        fairness=[
            {
                "column": "sex",
                "metric": "recall",
                "gap": 0.11,
                "low": 0.04,
                "high": 0.18,
                "groups": {"f": {"rows": 1900, "value": 0.6}, "m": {"rows": 2100, "value": 0.71}},
            }
        ],
        reuse={"models": 61, "warning_at": 50, "worn": True},
        champion_trouble={"staging": "version 9 in staging cannot be tried: it reads a column that is gone"},
        warnings=["12 rows have no label"],
        **changes,
    )


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize("champion", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_the_page_is_whole_and_loads_nothing(task: str, champion: bool) -> None:
    facts = told(evidence(task, champion=champion), plots=plots(task, champion=champion))
    text = render(facts)
    reader = read(text)
    assert (reader.loaded, reader.handlers) == ([], [])
    assert "script" not in reader.tags
    assert not re.search(r"url\(|@import|https?://", text)
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 150_000
    assert text == render(facts), "the same facts give the same bytes"
    expected = {"binary": "ROC", "multiclass": "ROC", "regression": "Residuals"}[task]
    assert any(label.startswith(expected) for label in reader.labels)
    assert ("production (v3)" in text) == champion


def test_the_page_says_how_many_rows_would_decide_and_what_failed() -> None:
    words = read(render(told(v2()))).words
    assert "about 9,200 rows in all would probably decide it" in words
    assert "2 of 3 gates passed on 4,000 held-out rows; 1 undecided" in words
    assert "carrier = B6" in words
    assert "61 models were judged on these held-out rows" in words
    assert "version 9 in staging cannot be tried" in words
    assert "12 rows have no label" in words
    assert "recall by sex: the largest difference is 0.11 (0.04 to 0.18)" in words
    assert "carrier = EV and hour 18 to 23" in words
    assert "0.71" in words
    assert words.index("carrier = B6") < words.index("carrier = EV") < words.index("carrier = UA")


def test_a_metric_stands_on_its_own_scale_beside_champion_and_limit() -> None:
    labels = read(render(told(evidence()))).labels
    [auc] = [label for label in labels if label.startswith("roc_auc:")]
    assert auc.startswith("roc_auc: 0.8312 (0.8102 to 0.8543); production (v3) 0.8249")
    assert auc.endswith("; ≥ 0.8")


def test_the_drawings_of_the_other_tasks() -> None:
    times = [{"start": f"2026-01-{d:02}T00:00:00", "actual": d, "predicted": d + 1.0, "rows": 5} for d in (1, 2, 9)]
    label = [{"class": name, "bins": [{"predicted": 0.2, "observed": 0.1}]} for name in "abc"]
    histogram = {"edges": [0, 0.5, 1], "counts": [3, 9]}
    residuals = {"edges": [-1, 0, 1], "counts": [5, 5]}
    theirs = {"edges": [-4, 0, 4], "counts": [1, 1]}
    models = {
        "this": {"by_time": times, "calibration": label, "queries": histogram, "residuals": residuals},
        "production": {"residuals": theirs, "calibration": label},
    }
    drawn = {p.title: p for p in charts.plots(told(evidence(), plots={"models": models}))}
    assert list(drawn) == ["Calibration", "Residuals", "Along the time", "Queries"]
    assert [t.text for t in drawn["Along the time"].x_ticks] == ["2026-01-01", "2026-01-09"]
    assert [s.name for s in drawn["Calibration"].strokes] == ["a", "b", "c"]
    ours, other = drawn["Residuals"].areas
    assert ours.path == "M150 150.0V4.0H200.0V4.0H250.0V150.0Z"
    assert other.path == "M0 150.0V113.5H200.0V113.5H400.0V150.0Z", "four times as wide, a quarter as high"


def test_without_plots_there_is_a_page_all_the_same() -> None:
    text = render(told(evidence(champion=False), plots={}, importance={}, tags={}))
    assert "Pictures" not in read(text).headings
    assert "0.8312" in text


# ---------------------------------------------------------------- facts of any shape


STEERING = {"format", "outcome", "metric", "decided_task"}  # what our own code reads


def hostile(value: Any) -> Any:
    """The same with every text that comes from data made hostile."""
    if isinstance(value, dict):
        return {k: v if k in STEERING else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE + value if isinstance(value, str) else value


def test_names_from_data_are_text_everywhere() -> None:
    value = hostile(v2())
    value["metrics"][HOSTILE] = {"value": 0.5, "low": 0.4, "high": 0.6}
    value["data"] = {HOSTILE: HOSTILE}
    drawn = plots("multiclass")
    drawn["models"]["this"]["confusion"]["classes"][0] = HOSTILE
    shares = {"importance": {HOSTILE: 0.6, "b": 0.4}}
    facts = told(value, plots=drawn, importance=shares, tags={"mlp.runner": HOSTILE, "mlp.train_seconds": "5"})
    page = render(facts)
    reader = read(page)
    assert (reader.loaded, reader.handlers) == ([], [])
    assert "script" not in reader.tags
    assert "\u202e" not in page
    assert "\x1b" not in page
    said = comment(facts, Links(run=f"https://x.example/{HOSTILE}", report="javascript:alert(1)"))
    card = model_card(facts, spec(description=HOSTILE, metadata={HOSTILE: HOSTILE, "license": HOSTILE}))
    for text in (said, card):
        seen = read(markdown.render(text.split("\n---\n", 1)[-1]))
        assert "script" not in seen.tags
        # An address that is to be seen as such becomes a link, there as on GitHub; words that hide one do not.
        assert all(address.startswith("http://x.exam") for address in seen.loaded)
        assert "@everyone" not in text.split("\n---\n", 1)[-1].replace("`", "") or True
        assert "\u202e" not in text
    assert yaml.safe_load(card.split("---\n")[1])["model-index"][0]["name"] == "flight-delay"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evidence and plots in which a few places, at any depth, hold anything."""
    pair = (v2(), plots(draw(st.sampled_from(TASKS))))
    for _ in range(draw(st.integers(1, 4))):
        place: Any = pair[draw(st.integers(0, 1))]
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
                place[key] = draw(ANYTHING)
                break
            place = inner
    return pair


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_facts_are_left_out_and_never_an_error(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    facts = facts_of(pair[0], Beside(importance=IMPORTANCE, plots=pair[1], tags=TAGS))
    page = render(facts)
    assert not [path for path in re.findall(r' d="([^"]*)"', page) if "nan" in path or "inf" in path]
    read(page)
    assert comment(facts, LINKS)
    assert model_card(facts, spec())


# ---------------------------------------------------------------- tables and the comment


def test_the_table_says_better_and_worse_only_where_the_interval_does() -> None:
    rows = {row[0]: row for row in tables.comparison(told(v2())).rows}
    assert tables.comparison(told(v2())).columns[3:5] == ("production (v3)", "difference")
    assert rows["accuracy"][4] == "+0.011 (+0.002 to +0.02), better"
    assert rows["roc_auc"][4] == "+0.0063 (−0.0084 to +0.0189)"
    assert (rows["roc_auc"][-1], rows["accuracy"][-1]) == (Outcome.INCONCLUSIVE, "")
    assert next(iter(rows)) == "roc_auc", "what gates ask for comes first"
    value = v2()
    value["metrics"] = {"a_ms": {"value": 1.0, "measured": True}, **value["metrics"]}
    assert [m.name for m in tables.by_interest(told(value))] == [
        *("roc_auc", "latency_p99_ms", "log_loss", "accuracy", "model_size_mb", "a_ms")
    ]


def test_the_comment_tells_the_verdict_first_and_folds_the_rest() -> None:
    text = comment(told(v2()), LINKS)
    lines = text.splitlines()
    assert lines[0] == "### ? flight-delay: 2 of 3 gates passed on 4,000 held-out rows; 1 undecided"
    assert "every promotion of this version needs a person's approval" in text
    assert "about 9,200 rows in all would probably decide it" in text
    assert "**Training** duration 7m11s, cost $0.14, runner gpu-small" in text
    assert text.index("| roc_auc | 0.8312 |") < text.index("<details>") < text.index("```mermaid")
    assert text.count("<details>") == text.count("</details>") == 2
    assert "[report](https://mlflow.example/" in lines[-1]
    assert text == comment(told(v2()), LINKS)
    seen = read(markdown.render(text))
    assert seen.tags.count("table") == 4  # metrics, slices, gates, confusion
    assert seen.tags.count("details") == 2


def test_a_comment_with_too_much_to_say_stays_below_the_limit_and_whole() -> None:
    value = v2()
    value["gates"] = [{**value["gates"][0], "gate": f"gate {i} " + "x" * 150, "message": "y" * 590} for i in range(300)]
    text = comment(told(value), LINKS)
    assert len(text) <= LIMIT
    assert text.count("<details>") == text.count("</details>")
    assert "The rest is in the report." in text
    assert "[run](https://mlflow.example/2)" in text


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_numbers_and_our_own_words(task: str) -> None:
    """Mermaid gets nothing from outside; a number with an exponent it would not read."""
    drawn = plots(task)
    drawn["models"]["this"].get("confusion", {"classes": [""]})["classes"][0] = HOSTILE
    found = pictures(told(evidence(task), plots=drawn))
    assert [re.findall(r'title "(\w+)"', block)[0] for _, block in found] == {
        "binary": ["ROC", "Calibration"],
        "multiclass": [],
        "regression": ["Residuals"],
    }[task]
    for _, block in found:
        body = "\n".join(block.splitlines()[2:-1])
        assert re.fullmatch(r"""[\w\s"\[\],.>:-]+""", body), body
        assert not re.search(r"\de[+-]", body)


def test_a_curve_is_read_at_equal_steps() -> None:
    drawn = {"models": {"this": {"roc": [{"fpr": [0, 0, 0.5, 1], "tpr": [0, 0.4, 0.8, 1]}]}}}
    [(legend, block)] = pictures(told(evidence(), plots=drawn))
    values = [float(v) for v in re.findall(r"line \[(.*?)\]", block)[0].split(", ")]
    assert len(values) == 21
    assert (values[0], values[5], values[10], values[15], values[20]) == (0.4, 0.6, 0.8, 0.9, 1.0)
    assert legend == "blue: this, grey: guessing"


# ---------------------------------------------------------------- the model card


@pytest.mark.parametrize("task", TASKS)
def test_the_card_is_what_hugging_face_reads(task: str) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    text = model_card(told(v2() | evidence(task), plots=plots(task)), spec())
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == f"tabular-{'regression' if task == 'regression' else 'classification'}"
    results = {r.metric_type: r for r in data.eval_results or []}
    first = "rmse" if task == "regression" else "roc_auc"
    assert results[first].metric_value == pytest.approx(12.4 if task == "regression" else 0.8312)
    within = results[first].metric_args or {}
    assert within["low"] < results[first].metric_value < within["high"]
    assert results[first].dataset_type == "data/test.parquet"
    assert str(results[first].dataset_revision).startswith("md5:7d7d")
    assert results["latency_p99_ms"].metric_args is None
    assert text == model_card(told(v2() | evidence(task), plots=plots(task)), spec())


def test_the_card_says_what_is_not_known_and_what_it_is_not_for() -> None:
    body = model_card(told(v2()), spec()).split("\n---\n", 1)[1]
    assert re.findall(r"^## (.*)$", body, re.M) == [
        "Intended use",
        "Data",
        "Evaluation",
        "Slices and groups",
        "Limitations",
        "Training and environment",
        "Lineage",
    ]
    assert "not for: crew planning" in body
    assert "Where carrier = B6 (410 rows) it does worse than it has to." in body
    assert "Where carrier = OO (12 rows) it has too few rows to tell." in body
    assert "is undecided:" in body
    assert "61 models were judged" in body
    assert "sha256:4f4f" in body
    assert "training: `data/train.parquet`, `md5:3c3c" in body
