"""What lies in grafana/ asks only for figures that a look writes, and can be imported as it is."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlp_ci.monitor.metrics import HELP

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "grafana/mlp-ci.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
RULES = [
    r for g in yaml.safe_load((ROOT / "grafana/alerts.yaml").read_text(encoding="utf-8"))["groups"] for r in g["rules"]
]
FIGURE = re.compile(r"\bmlp_ci_[a-z_]+")
ENDS = ("_low", "_high", "_max_drop", "_rows", "_state", "_end_")
TYPES = {"stat", "table", "timeseries", "state-timeline"}


def expressions() -> list[str]:
    variables = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return [t["expr"] for p in PANELS for t in p["targets"]] + variables


def test_only_figures_that_exist_are_asked_for() -> None:
    texts = [*expressions(), *(r["expr"] + r["annotations"]["description"] for r in RULES)]
    asked = {name for text in texts for name in FIGURE.findall(text)}
    assert asked <= set(HELP)
    assert len(asked) > 15
    assert all(FIGURE.search(text) for text in texts if "query" in text or "sum" in text)


@pytest.mark.parametrize("text", expressions())
def test_every_query_is_closed_and_asks_for_the_chosen_models(text: str) -> None:
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)
    assert text.count('"') % 2 == 0
    if not text.startswith("label_values(mlp_ci_monitor_verdict"):
        assert text.count('model=~"$model", stage=~"$stage"') == len(FIGURE.findall(text))


def test_panels_have_numbers_of_their_own_and_lie_side_by_side() -> None:
    assert len({p["id"] for p in PANELS}) == len(PANELS)
    assert {p["type"] for p in PANELS} <= TYPES
    assert all(p["title"] for p in PANELS)
    for place in (p["gridPos"] for p in PANELS):
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for a, b in itertools.combinations([p["gridPos"] for p in PANELS], 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above


def test_the_data_source_is_chosen_on_import() -> None:
    sources = [p["datasource"] for p in PANELS] + [t["datasource"] for p in PANELS for t in p["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    names = [v["name"] for v in DASHBOARD["templating"]["list"]]
    assert names[:3] == ["datasource", "model", "stage"]
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD


def test_alerts_are_told_apart_by_model_and_say_what_to_do() -> None:
    assert {r["alert"] for r in RULES} == {"ModelDrift", "ModelPerformance", "MonitorSilent"}
    for rule in RULES:
        assert "by (model, stage" in rule["expr"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{ $labels.model }}" in rule["annotations"]["summary"]


def test_the_page_names_every_figure_and_every_rule() -> None:
    page = (ROOT / "docs/how-to/prometheus-and-grafana.md").read_text(encoding="utf-8")
    short = [n for n in HELP if f"`{n}`" not in page]  # those after the first of a row are named by their end
    missing = [n for n in short if not any(end in n and f"`…{end}" in page for end in ENDS)]
    assert missing == []
    assert all(f"`{r['alert']}`" in page for r in RULES)
