"""The figures for Prometheus: what a scrape of the file or of the gateway would see, and what goes wrong."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlp_ci import __version__
from mlp_ci.data.drift.compare import Sample, compare
from mlp_ci.data.drift.reference import Reference
from mlp_ci.data.profiles.profile import Profile, profile_values
from mlp_ci.errors import InputError
from mlp_ci.monitor.estimate import LOWER, Estimate
from mlp_ci.monitor.look import Look
from mlp_ci.monitor.metrics import HELP, MOST, PASSWORD, TOKEN, USER, Export, export
from mlp_ci.monitor.performance import PerformanceLook
from mlp_ci.monitor.verdict import Past, Verdict
from mlp_ci.monitor.windows import Span
from mlp_ci.spec.model import ModelSpec
from mlp_ci.tracking import VersionFact

NOW = datetime(2013, 7, 31, tzinfo=UTC)
SPAN = Span(since=NOW - timedelta(days=7), until=NOW)
Values = dict[str, Any]


def normal(rows: int, seed: int, shift: float = 0.0) -> Any:
    return np.random.default_rng(seed).normal(shift, 1, rows)


def model(**drift: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "apiVersion": "mlp-ci/v1",
            "name": "toy",
            "team": "growth",
            "train": {"command": "true"},
            "data": {"train": "a.csv", "test": "b.csv", "target": "y", "columns": {"x": {"type": "float"}}},
            "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.5}]},
            "monitor": {"schedule": "daily", "drift": {"persistence": 1, **drift}},
        }
    )


def verdict(
    then: Values, now: Values, segments: dict[str, tuple[Values, Values]] | None = None, **more: Any
) -> Verdict:
    """The verdict on these values; segments as their values then and now."""

    def profile(values: Values, like: Profile | None = None) -> Profile:
        columns = {n: profile_values(v, like=like.columns[n] if like else None) for n, v in values.items()}
        return Profile(rows=max(map(len, values.values())), columns=columns)

    whole = profile(then)
    parts = {name: (profile(a, whole), profile(b, whole)) for name, (a, b) in (segments or {}).items()}
    reference = Reference(profile=whole, segments={name: part for name, (part, _) in parts.items()})
    sample = Sample(profile=profile(now, whole), segments={name: part for name, (_, part) in parts.items()})
    spec = model()
    empty: dict[str, Any] = dict.fromkeys(("digest", "evidence", "commit", "train_key"), "")
    seen = Look(
        span=SPAN,
        rows=sample.profile.rows,
        versions={3: sample.profile.rows},
        profile=sample.profile,
        segments=sample.segments,
        absent=(),
        unreadable=("date=2013-07-30/hour=01/part-1.parquet",),
    )
    return Verdict(
        model="toy",
        stage="production",
        version=VersionFact(model="toy", number=3, run_id="abc", gate="pass", data={}, created=NOW, **empty),
        span=SPAN,
        created=NOW + timedelta(minutes=5),
        look=seen,
        reference=reference,
        drifts=tuple(compare(reference, sample, spec.monitor.drift)),
        risk=0.01,
        spec=spec,
        **more,
    )


@pytest.fixture(scope="module")
def drifted() -> Verdict:
    """``x`` drifted, ``calm`` did not, of ``thin`` there are too few."""
    holes = [*normal(980, 4), *[float("nan")] * 20]
    return verdict(
        {"calm": normal(2000, 3), "x": normal(2000, 1), "thin": normal(2000, 5)},
        {"calm": np.array(holes), "x": normal(1000, 2, shift=2), "thin": normal(20, 6)},
    )


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation == HELP[family.name], "the help of every file on a machine has to be the same"
        assert family.type == "gauge"
        for sample in family.samples:
            assert sample.timestamp is None, "the textfile collector refuses timestamps"
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def written(found: Verdict, folder: Path) -> Series:
    file = folder / "toy.prom"
    assert export(found, Export.of(file, None, {})) == []
    return series_of(file.read_text(encoding="utf-8"))


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset({"model": "toy", "stage": "production", **labels}.items())]


# ---------------------------------------------------------------- the file


def test_a_scrape_sees_the_verdict_and_every_column(drifted: Verdict, tmp_path: Path) -> None:
    series = written(drifted, tmp_path)
    assert value(series, "mlp_ci_monitor_verdict") == 1
    assert value(series, "mlp_ci_monitor_rows") == 1000
    assert value(series, "mlp_ci_monitor_unreadable_files") == 1
    assert value(series, "mlp_ci_monitor_interval_seconds") == 86_400
    assert value(series, "mlp_ci_monitor_window_end_timestamp_seconds") == NOW.timestamp()
    assert value(series, "mlp_ci_monitor_look_timestamp_seconds") == NOW.timestamp() + 300
    assert value(series, "mlp_ci_version_info", version="3", mlp_ci=__version__) == 1
    [x] = [d for d in drifted.drifts if d.column == "x"]
    assert value(series, "mlp_ci_drift_psi", column="x", segment="") == pytest.approx(x.psi)
    assert value(series, "mlp_ci_drift_limit", column="x", segment="") == pytest.approx(x.limit)
    states = {c: value(series, "mlp_ci_drift_state", column=c, segment="") for c in ("x", "calm", "thin")}
    assert states == {"x": 2, "calm": 0, "thin": -1}
    assert value(series, "mlp_ci_monitor_missing_share", column="calm", segment="") == pytest.approx(0.02)
    counts = {s: value(series, "mlp_ci_drift_columns", state=s) for s in ("drifted", "suspected", "stable")}
    assert counts == {"drifted": 1, "suspected": 0, "stable": 1}
    assert value(series, "mlp_ci_drift_columns_left_out") == 0


def test_a_psi_of_too_few_rows_is_not_shown(drifted: Verdict, tmp_path: Path) -> None:
    names = {name for name, labels in written(drifted, tmp_path) if ("column", "thin") in labels}
    assert names == {"mlp_ci_drift_state", "mlp_ci_monitor_missing_share"}


def test_performance_and_its_estimate(drifted: Verdict, tmp_path: Path) -> None:
    live = PerformanceLook(
        metric="roc_auc", outcome="alarm", rows=800, value=0.61, low=0.58, high=0.64, evidence=0.7, max_drop=0.02
    )
    guess = Estimate(metric="roc_auc", outcome=LOWER, rows=1000, evidence=0.7, value=0.66, low=0.65, high=0.67)
    series = written(replace(drifted, performance=live, estimate=guess), tmp_path)
    figures = {
        name.removeprefix("mlp_ci_performance"): number
        for (name, labels), number in series.items()
        if ("metric", "roc_auc") in labels
    }
    assert figures == {
        "": 0.61,
        "_low": 0.58,
        "_high": 0.64,
        "_evidence": 0.7,
        "_max_drop": 0.02,
        "_rows": 800,
        "_state": 1,
        "_estimate": 0.66,
        "_estimate_low": 0.65,
        "_estimate_high": 0.67,
        "_estimate_state": 1,
    }


def test_what_is_not_known_yet_is_not_a_zero(drifted: Verdict, tmp_path: Path) -> None:
    live = PerformanceLook(metric="roc_auc", outcome="insufficient", rows=0, reason="no labels yet")
    series = written(replace(drifted, performance=live), tmp_path)
    assert value(series, "mlp_ci_performance_state", metric="roc_auc") == -1
    assert not [name for name, _ in series if name in ("mlp_ci_performance", "mlp_ci_performance_low")]


def test_segments_and_odd_names_stay_one_label(tmp_path: Path) -> None:
    odd = 'a "quoted"\\ back\nslash'
    values, moved = {odd: normal(2000, 1)}, {odd: normal(1000, 2, shift=3)}
    series = written(verdict(values, moved, {'carrier=U"A\n': (values, moved)}), tmp_path)
    assert value(series, "mlp_ci_drift_state", column=odd, segment='carrier=U"A\n') == 2
    assert value(series, "mlp_ci_drift_state", column=odd, segment="") == 2


def test_alarms_that_nobody_saw_are_counted(drifted: Verdict, tmp_path: Path) -> None:
    past = Past(span=SPAN, rows=900, outcome="alarm", psi={}, drifted=("x",), suspected=(), missed=True)
    found = replace(drifted, timeline=(past, replace(past, missed=False)))
    assert value(written(found, tmp_path), "mlp_ci_monitor_missed_alarms") == 1


@pytest.mark.parametrize("columns", [100, 400])
def test_series_are_bounded_and_the_worst_columns_stay(columns: int, tmp_path: Path) -> None:
    names = [f"c{i:03}" for i in range(columns)]
    calm = normal(2000, 1)
    now = dict.fromkeys(names, normal(1000, 2)) | {"c077": normal(1000, 3, shift=2)}
    series = written(verdict(dict.fromkeys(names, calm), now), tmp_path)
    assert len(series) <= MOST
    assert value(series, "mlp_ci_drift_state", column="c077", segment="") == 2
    shown = sum(name == "mlp_ci_drift_state" for name, _ in series)
    assert shown + value(series, "mlp_ci_drift_columns_left_out") == columns
    assert (shown == columns) == (columns == 100)
    assert value(series, "mlp_ci_drift_columns", state="stable") == columns - 1


def test_the_file_is_replaced_in_one_moment(drifted: Verdict, tmp_path: Path) -> None:
    file = tmp_path / "toy.prom"
    file.write_text("old")
    with file.open() as reader:
        written(drifted, tmp_path)
        assert reader.read() == "old", "who reads the old file reads it to its end"
    assert [p.name for p in tmp_path.iterdir()] == ["toy.prom"]


def test_a_file_that_cannot_be_written_is_a_warning(drifted: Verdict, tmp_path: Path) -> None:
    (tmp_path / "toy.prom").mkdir()
    [finding] = export(drifted, Export.of(tmp_path / "toy.prom", None, {}))
    assert (finding.severity, finding.check) == ("warning", "metrics")
    assert "were not written" in finding.message
    assert [p.name for p in tmp_path.iterdir()] == ["toy.prom"]


# ---------------------------------------------------------------- the gateway


@contextmanager
def gateway(status: int = 200, body: bytes = b"", location: str = "") -> Iterator[tuple[str, list[SimpleNamespace]]]:
    """A server on loopback: its address, and the requests that it got."""
    got: list[SimpleNamespace] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(SimpleNamespace(path=self.path, body=sent.decode(), headers=dict(self.headers)))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_push_replaces_the_figures_of_model_and_stage(drifted: Verdict, tmp_path: Path) -> None:
    with gateway() as (address, got):
        assert export(drifted, Export.of(None, f"{address}/", {})) == []
    [request] = got
    assert request.path == "/metrics/job/mlp-ci/model/toy/stage/production"
    assert series_of(request.body) == written(drifted, tmp_path)
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({TOKEN: "s3cret"}, "Bearer s3cret"),
        ({USER: "jane", PASSWORD: "s3cret"}, "Basic " + base64.b64encode(b"jane:s3cret").decode()),
    ],
)
def test_credentials_of_the_environment_are_sent_and_never_shown(
    drifted: Verdict, environ: dict[str, str], expected: str
) -> None:
    with gateway(401, b"who\nare you?") as (address, got):
        to = Export.of(None, address, environ)
        [finding] = export(drifted, to)
    assert got[0].headers["Authorization"] == expected
    assert finding.severity == "warning"
    assert re.search(r"not pushed to 127\.0\.0\.1:\d+: HTTP 401 Unauthorized who\\nare you\?$", finding.message)
    assert "s3cret" not in f"{to!r} {finding}"


def test_credentials_do_not_follow_to_another_host(drifted: Verdict) -> None:
    with gateway() as (other, elsewhere), gateway(302, location=other) as (address, _):
        [finding] = export(drifted, Export.of(None, address, {TOKEN: "s3cret"}))
    assert elsewhere == []
    assert "HTTP 302" in finding.message


def test_a_gateway_that_does_not_answer_is_a_warning(drifted: Verdict, tmp_path: Path) -> None:
    to = Export.of(tmp_path / "toy.prom", "http://127.0.0.1:9", {})
    [finding] = export(drifted, to)
    assert finding.severity == "warning"
    assert "127.0.0.1:9" in finding.message
    assert (tmp_path / "toy.prom").is_file(), "the file is written all the same"


# ---------------------------------------------------------------- what could never work


@pytest.mark.parametrize(
    ("file", "address", "says"),
    [
        ("toy.txt", None, "not called .prom"),
        ("no/such/folder/toy.prom", None, "there is no folder"),
        (None, "http://jane:s3cret@host:9091", "holds a user or a password"),
        (None, "gateway:9091", "no address"),
        (None, "file:///etc/passwd", "no address"),
        (None, "http://host:port", "no address"),
        (None, "http://[", "no address"),
        (None, "http://host/?query", "no address"),
    ],
)
def test_nonsense_is_refused_before_the_look(file: str | None, address: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        Export.of(Path(file) if file else None, address, {})
    assert "s3cret" not in f"{error.value.what} {error.value.fix}"
    assert error.value.fix


def test_nothing_is_asked_for_by_default(drifted: Verdict) -> None:
    assert export(drifted, Export.of(None, None, {TOKEN: "x"})) == []


def test_every_figure_has_a_good_name(drifted: Verdict, tmp_path: Path) -> None:
    """As promtool's linter sees it, and all with the labels by which models are told apart."""
    for name, labels in written(drifted, tmp_path):
        assert re.fullmatch(r"mlp_ci_[a-z_]+", name)
        assert {"model", "stage"} <= {label for label, _ in labels}
    assert all(text.endswith(".") for text in HELP.values())
