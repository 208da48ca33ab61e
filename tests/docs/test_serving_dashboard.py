"""What lies in grafana/ about serving asks for what gateways count, is read by Prometheus, and rings when it should."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlp_ci.serve.gateway

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "grafana/serving.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ALERTS = ROOT / "grafana/serving-alerts.yaml"
PAGE = ROOT / "docs/explanation/service-levels.md"
FIGURE = re.compile(r"\bmlp_[a-z_]+")
PROMTOOL = shutil.which("promtool")
EXPRESSIONS = [t["expr"] for p in PANELS for t in p["targets"]]


def counted() -> set[str]:
    """Every name that the gateway's code writes; a histogram has three."""
    folder = Path(str(mlp_ci.serve.gateway.__file__)).parent
    written = {n for f in folder.glob("*.py") for n in re.findall(r"\bmlp_[a-z_]+", f.read_text("utf-8"))}
    return written | {"mlp_request_seconds_bucket", "mlp_request_seconds_count"}


def promql_of_the_page() -> list[str]:
    found = re.findall(r"```promql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [re.sub(r"^#.*\n", "", text) for text in found]


def test_only_figures_that_gateways_count_are_asked_for() -> None:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    texts = [*EXPRESSIONS, *(r["expr"] for r in rules), *promql_of_the_page()]
    asked = {name for text in texts for name in FIGURE.findall(text)}
    assert asked <= counted()
    assert len(asked) > 10
    variables = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    assert {n for v in variables for n in FIGURE.findall(v)} == {"mlp_requests_total"}


def test_panels_lie_side_by_side_and_ask_for_the_chosen_models() -> None:
    assert len({p["id"] for p in PANELS}) == len(PANELS)
    for a, b in itertools.combinations([p["gridPos"] for p in PANELS], 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in PANELS)
    assert all(e.count('model=~"$model", stage=~"$stage"') == len(FIGURE.findall(e)) for e in EXPRESSIONS)
    sources = [p["datasource"] for p in PANELS] + [t["datasource"] for p in PANELS for t in p["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


@pytest.mark.skipif(not PROMTOOL, reason="needs promtool (Debian's prometheus)")
def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    texts = [*(e.replace("$model", ".*").replace("$stage", ".*") for e in EXPRESSIONS), *promql_of_the_page()]
    rules = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(texts)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    for path in (file, ALERTS):
        done = subprocess.run([str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not PROMTOOL, reason="needs promtool (Debian's prometheus)")
def test_the_alarm_rings_for_a_burning_budget_and_for_no_blip(tmp_path: Path) -> None:
    """Ten requests a second for two hours: 3 % of them fail, or 0.05 %, or all of them for one minute an hour ago."""
    labels = 'model="m",stage="production"'

    def scene(failed: str, firing: bool) -> dict[str, Any]:
        alert = {
            "exp_labels": {"severity": "critical", "model": "m", "stage": "production"},
            "exp_annotations": {
                "summary": "m in production: 3% of the requests are not answered well",
                "description": "At this pace the error budget of a month is gone in two days. If a version was "
                "deployed just now: mlp-ci rollback --stage production. What is live, and since when: mlp-ci history.",
            },
        }
        return {
            "interval": "1m",
            "input_series": [
                {"series": f"mlp_asked_total{{{labels}}}", "values": "0+600x120"},
                {"series": f"mlp_unanswered_total{{{labels}}}", "values": failed},
            ],
            "alert_rule_test": [
                {"eval_time": "2h", "alertname": "ModelUnavailable", "exp_alerts": [alert] if firing else []}
            ],
        }

    scenes = [scene("0+18x120", True), scene("0+0.3x120", False), scene("0x70 600x50", False)]
    file = tmp_path / "scenes.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": scenes}), encoding="utf-8")
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
