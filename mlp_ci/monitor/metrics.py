"""The figures of a look for Prometheus: a file for the node exporter's textfile collector, or a push to a Pushgateway.

Every figure is a gauge of the newest look. There are at most :data:`MOST` series a look, the worst columns first; how
many columns were left out is a figure as well. grafana/ draws them, and its rules ring.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlp_ci import __version__
from mlp_ci.data.drift.decision import Decision
from mlp_ci.errors import InputError
from mlp_ci.monitor.estimate import LOWER, SAME
from mlp_ci.monitor.risk import LOOKS_PER_DAY
from mlp_ci.monitor.verdict import ALARM, INSUFFICIENT, PASS, Verdict
from mlp_ci.printable import in_one_line
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlp_ci.data.drift.compare import ColumnDrift

MOST = 500
JOB = "mlp-ci"
TIMEOUT = 10.0
SECONDS_A_DAY = 86_400
USER, PASSWORD, TOKEN = "MLP_CI_PUSHGATEWAY_USER", "MLP_CI_PUSHGATEWAY_PASSWORD", "MLP_CI_PUSHGATEWAY_TOKEN"

VERDICTS = {PASS: 0, ALARM: 1, INSUFFICIENT: -1}
STATES = {Decision.STABLE: 0, Decision.SUSPECTED: 1, Decision.DRIFTED: 2, Decision.INSUFFICIENT: -1}
HELP = {
    "mlp_ci_drift_psi": "Population stability index of a column against training, where there were enough rows.",
    "mlp_ci_drift_limit": "The PSI from which this column alone would count as changed.",
    "mlp_ci_drift_state": "0 stable, 1 suspected, 2 drifted, -1 too few rows.",
    "mlp_ci_drift_columns": "How many columns (with those of segments) are in a state.",
    "mlp_ci_drift_columns_left_out": "Columns without series of their own, because there would be too many.",
    "mlp_ci_monitor_verdict": "0 pass, 1 alarm (drift or performance), -1 too little to say.",
    "mlp_ci_monitor_rows": "Rows of the prediction log in the window.",
    "mlp_ci_monitor_missing_share": "Share of a column's rows that are missing.",
    "mlp_ci_monitor_window_start_timestamp_seconds": "Start of the window that was looked at.",
    "mlp_ci_monitor_window_end_timestamp_seconds": "End of the window that was looked at.",
    "mlp_ci_monitor_look_timestamp_seconds": "When the look was taken.",
    "mlp_ci_monitor_interval_seconds": "How often model.yaml wants a look.",
    "mlp_ci_monitor_missed_alarms": "Alarms of earlier windows that nobody looked at when they ended.",
    "mlp_ci_monitor_unreadable_files": "Files of the prediction log that could not be read.",
    "mlp_ci_performance": "The metric on labelled live data.",
    "mlp_ci_performance_low": "Lower end of its 95 % interval.",
    "mlp_ci_performance_high": "Upper end of its 95 % interval.",
    "mlp_ci_performance_evidence": "The metric when the version was registered.",
    "mlp_ci_performance_max_drop": "How much worse than the evidence is accepted.",
    "mlp_ci_performance_rows": "Labelled rows that it was measured on.",
    "mlp_ci_performance_state": "0 pass, 1 alarm, -1 too little to say.",
    "mlp_ci_performance_estimate": "The metric as estimated without labels.",
    "mlp_ci_performance_estimate_low": "Lower end of where labels would put it, 95 times in 100.",
    "mlp_ci_performance_estimate_high": "Upper end of where labels would put it, 95 times in 100.",
    "mlp_ci_performance_estimate_state": "0 not worse, 1 worse than the evidence, -1 cannot be told.",
    "mlp_ci_version_info": "The version that was looked at, and the mlp-ci that looked.",
}


@dataclass(frozen=True, kw_only=True)
class Export:
    """Where the figures of a look go: a ``.prom`` file, a Pushgateway, both or nowhere.

    Credentials come from the environment alone, and are never shown.
    """

    file: Path | None = None
    gateway: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @staticmethod
    def of(file: Path | None, gateway: str | None, environ: Mapping[str, str]) -> Export:
        """From the options and the environment. Raises InputError for what could never work."""
        found = Export(
            file=file,
            gateway=gateway or "",
            user=environ.get(USER, ""),
            password=environ.get(PASSWORD, ""),
            token=environ.get(TOKEN, ""),
        )
        found._require_sense()
        return found

    def _require_sense(self) -> None:
        if self.file is not None and self.file.suffix != ".prom":
            msg = f"{self.file.name} is not called .prom"
            raise InputError(msg, why="the textfile collector reads no other files", fix="--metrics <name>.prom")
        if self.file is not None and not self.file.absolute().parent.is_dir():
            msg = f"--metrics: there is no folder {self.file.absolute().parent}"
            raise InputError(msg, fix="make it, or name the folder that the node exporter reads")
        if self.gateway:
            _require_address(self.gateway)
        if (self.file or self.gateway) and importlib.util.find_spec("prometheus_client") is None:
            msg = "figures for Prometheus need the package prometheus_client"
            fix = "pip install 'mlp-ci[prometheus]'; in a workflow set MLP_CI_EXTRAS to train,prometheus"
            raise InputError(msg, fix=fix)


def _require_address(gateway: str) -> None:
    try:
        parts = urlsplit(gateway)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good, parts = False, urlsplit("")
    if "@" in gateway:
        msg = "the address of the Pushgateway holds a user or a password"
        fix = f"take it out of the address, and set {USER} and {PASSWORD}, or {TOKEN}"
        raise InputError(msg, why="addresses are shown in logs", fix=fix)
    if not good or parts.query or parts.fragment:
        msg = f"--pushgateway is {gateway!r}, which is no address of a Pushgateway"
        raise InputError(msg, fix="pass an address such as http://pushgateway:9091")


def export(verdict: Verdict, to: Export) -> list[Finding]:
    """Write and push the figures of a look. What fails is told as a warning: the verdict is the news, not its copy."""
    if not to.file and not to.gateway:
        return []
    from prometheus_client import CollectorRegistry, write_to_textfile

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(verdict))
    findings = []
    if to.file:
        try:
            write_to_textfile(str(to.file), registry)
        except OSError as error:
            message = f"the figures were not written to {to.file}: {error.strerror or error}"
            findings.append(_failed(message, "give this user the right to write there"))
    if to.gateway:
        try:
            _push(verdict, to, registry)
        except (OSError, ValueError) as error:
            message = f"the figures were not pushed to {urlsplit(to.gateway).netloc}: {_said(error)}"
            findings.append(_failed(message, f"see that it answers, and that {TOKEN} or {USER} are right"))
    return findings


def _failed(message: str, fix: str) -> Finding:
    return Finding(check="metrics", outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def _push(verdict: Verdict, to: Export, registry: Any) -> None:
    """Replace all figures of this model and stage in one request."""
    from http.client import HTTPException

    from prometheus_client import push_to_gateway
    from prometheus_client.exposition import basic_auth_handler, default_handler

    def handler(url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes) -> Any:
        if to.token:
            headers = [*headers, ("Authorization", f"Bearer {to.token}")]
        elif to.user:
            return basic_auth_handler(url, method, timeout, headers, data, to.user, to.password)
        return default_handler(url, method, timeout, headers, data)

    key = {"model": verdict.model, "stage": verdict.stage}
    try:
        push_to_gateway(to.gateway, JOB, registry, grouping_key=key, timeout=TIMEOUT, handler=handler)
    except HTTPException as error:
        msg = f"the answer is no HTTP ({type(error).__name__})"
        raise OSError(msg) from error


def _said(error: Exception) -> str:
    """What went wrong, with what the gateway says of it; headers of the request are in none of this."""
    from urllib.error import HTTPError, URLError

    if isinstance(error, HTTPError):
        try:
            body = error.read(300).decode("utf-8", "replace")
        except OSError:
            body = ""
        return in_one_line(f"HTTP {error.code} {error.reason} {body}").strip()
    return in_one_line(str(error.reason if isinstance(error, URLError) else error)) or type(error).__name__


# ---------------------------------------------------------------- the figures


class _Figures:
    """A collector of prometheus_client: hands out the families of one verdict."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._families: dict[str, Any] = {}

    def collect(self) -> Iterator[Any]:
        self._families = {}
        fixed = self._of_the_look() + self._of_performance()
        # PSI, limit, state and missing share.
        most = max(0, (MOST - fixed) // 4)
        for drift in self._verdict.drifts[:most]:
            self._of_column(drift)
        self._add("drift_columns_left_out", max(0, len(self._verdict.drifts) - most))
        yield from self._families.values()

    def _add(self, name: str, value: float | None, **labels: str) -> int:
        from prometheus_client.core import GaugeMetricFamily

        if value is None or math.isnan(value):
            return 0
        full = f"mlp_ci_{name}"
        if full not in self._families:
            names = ["model", "stage", *labels]
            self._families[full] = GaugeMetricFamily(full, HELP[full], labels=names)
        self._families[full].add_metric([self._verdict.model, self._verdict.stage, *labels.values()], float(value))
        return 1

    def _of_the_look(self) -> int:
        """How many series they are."""
        v = self._verdict
        decisions = [d.decision for d in v.drifts]
        figures: dict[str, float] = {
            "monitor_verdict": VERDICTS[v.outcome],
            "monitor_rows": v.look.rows,
            "monitor_window_start_timestamp_seconds": v.span.since.timestamp(),
            "monitor_window_end_timestamp_seconds": v.span.until.timestamp(),
            "monitor_look_timestamp_seconds": v.created.timestamp(),
            "monitor_interval_seconds": SECONDS_A_DAY / LOOKS_PER_DAY[v.spec.monitor.schedule],
            "monitor_missed_alarms": sum(past.missed for past in v.timeline),
            "monitor_unreadable_files": len(v.look.unreadable),
        }
        series = sum(self._add(name, value) for name, value in figures.items())
        series += sum(self._add("drift_columns", decisions.count(d), state=str(d)) for d in STATES)
        series += self._add("version_info", 1, version=str(v.version.number), mlp_ci=__version__)
        return series + 1  # what was left out

    def _of_performance(self) -> int:
        series = 0
        if live := self._verdict.performance:
            figures = {
                "performance": live.value,
                "performance_low": live.low,
                "performance_high": live.high,
                "performance_evidence": live.evidence,
                "performance_max_drop": live.max_drop,
                "performance_rows": live.rows,
                "performance_state": VERDICTS[live.outcome],
            }
            series += sum(self._add(name, value, metric=live.metric) for name, value in figures.items())
        if guess := self._verdict.estimate:
            figures = {
                "performance_estimate": guess.value,
                "performance_estimate_low": guess.low,
                "performance_estimate_high": guess.high,
                "performance_estimate_state": {SAME: 0, LOWER: 1}.get(guess.outcome, -1),
            }
            series += sum(self._add(name, value, metric=guess.metric) for name, value in figures.items())
        return series

    def _of_column(self, drift: ColumnDrift) -> None:
        place = {"column": drift.column, "segment": drift.segment}
        if drift.decision is not Decision.INSUFFICIENT:
            self._add("drift_psi", drift.psi, **place)
            self._add("drift_limit", drift.limit, **place)
        self._add("drift_state", STATES[drift.decision], **place)
        self._add("monitor_missing_share", drift.nulls_now if drift.rows_now else None, **place)
