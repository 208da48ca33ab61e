"""What the versions of a stage answered: from the gateways beside the servers, the servers themselves, or Prometheus.

A counter in a pod begins anew when the pod does, so ``boot`` names the pods (and their restarts) that were added up.
Prometheus remembers pods that are gone: there it is the largest value of each series since a fixed moment that is
added up, which never becomes smaller.
"""

from __future__ import annotations

import hashlib
import json
import math
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mlp_ci.errors import OutsideError
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS, Measured, Seen, latency_bin
from mlp_ci.serve.targets.kubernetes.pods import PORT
from mlp_ci.serve.targets.kubernetes.wanted import VERSION, selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets.kubernetes.api import Api
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest

AT_ONCE = 8  # pods that are asked beside each other
ASK_SECONDS = 10
SERVER = "mlp_server_"  # how the model server's own counters begin; the gateway's begin with GATEWAY
GATEWAY = "mlp_"


@dataclass(frozen=True)
class Series:
    """One line of a Prometheus answer or page: the name without what it begins with, labels, value."""

    name: str
    labels: Mapping[str, str]
    value: float


def by_pods(api: Api, place: Place) -> Measured:
    """Ask every pod that runs, by way of the API server. OutsideError when there are pods and none answers."""
    pods = [pod for pod in api.find("v1", "Pod", selector(place.model, place.stage)) if _runs(pod)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(lambda pod: _asked(api, pod), pods))
    if pods and not any(seen is not None for seen in told):
        msg = f"no pod of {place} says what it answered"
        fix = f"`kubectl --namespace {api.namespace} get pods`; the role needs `get` on pods/proxy"
        raise OutsideError(msg, why="each was asked for /measured and /metrics", fix=fix)
    versions: dict[int, Seen] = {}
    counted = []
    for pod, seen in zip(pods, told, strict=True):
        if seen is not None:
            version = int(pod["metadata"]["labels"][VERSION])
            versions[version] = versions.get(version, Seen()).plus(seen[1])
            counted.append(f"{pod['metadata']['uid']}/{_restarts(pod)}/{seen[0]}")
    boot = hashlib.sha256("\n".join(sorted(counted)).encode()).hexdigest()[:16]
    return Measured(boot=boot, versions=versions)


def _runs(pod: Manifest) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return (pod.get("status") or {}).get("phase") == "Running" and str(labels.get(VERSION, "")).isdigit()


def _restarts(pod: Manifest) -> int:
    return sum(int(c.get("restartCount") or 0) for c in pod["status"].get("containerStatuses") or ())


def _asked(api: Api, pod: Manifest) -> tuple[str, Seen] | None:
    """(boot, counts) of one pod: of the gateway in it, else of its server; None when it cannot say now."""
    what = f"pods/{pod['metadata']['name']}:{PORT}"
    try:
        answer = api.through("GET", what, "/measured")
        if answer.status == 200:
            return _measured(json.loads(answer.body))
        answer = api.through("GET", what, "/metrics")
        return ("", seen_of(series_of(answer.body.decode(), SERVER))) if answer.status == 200 else None
    except (OutsideError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _measured(told: Any) -> tuple[str, Seen]:
    """What a gateway says of its one upstream."""
    total = Seen()
    for seen in told["versions"].values():
        total = total.plus(Seen.from_json(seen))
    return str(told["boot"]), total


def series_of(page: str, prefix: str) -> list[Series]:
    """The counters of a page in Prometheus' text format whose name begins with ``prefix``."""
    from prometheus_client.parser import text_string_to_metric_families

    return [
        Series(sample.name.removeprefix(prefix), sample.labels, float(sample.value))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(prefix)
    ]


def seen_of(series: Iterable[Series]) -> Seen:
    """Requests, errors, refusals and latencies of one version. NaN counts as nothing."""
    requests = errors = rejected = 0
    buckets: dict[float, int] = {}
    predictions: dict[str, int] = {}
    for one in series:
        if math.isnan(one.value):
            continue
        count = round(one.value)
        if one.name == "requests_total":
            requests += count
            rejected += count if _refused(one.labels.get("code", "")) else 0
        elif one.name == "errors_total":
            errors += count
        elif one.name == "rejected_total":
            rejected += count
        elif one.name == "request_seconds_bucket":
            bound = float(one.labels.get("le", "inf"))
            buckets[bound] = buckets.get(bound, 0) + count
        elif one.name == "predictions_total":
            predictions[one.labels.get("bin", "")] = predictions.get(one.labels.get("bin", ""), 0) + count
    latency = _latency(buckets)
    return Seen(requests=requests, errors=errors, rejected=rejected, latency=latency, predictions=predictions)


def _refused(code: str) -> bool:
    """Whether an answer of this status was a refusal of the request: too much at once is an error of the version."""
    return code.startswith("4") and code != "429"


def _latency(buckets: Mapping[float, int]) -> dict[int, int]:
    """Cumulative buckets by upper bound in seconds → requests by our bins; each at its bucket's upper end."""
    found: dict[int, int] = {}
    below = 0
    for bound in sorted(buckets):
        count, below = buckets[bound] - below, max(below, buckets[bound])
        # A hair less, so that a bound that is ours falls into the bin that it ends.
        index = len(LATENCY_BOUNDS_MS) if math.isinf(bound) else latency_bin(bound * 1000 * (1 - 1e-9))
        if count > 0:
            found[index] = found.get(index, 0) + count
    return found


def by_prometheus(address: str, place: Place, since: datetime, now: datetime) -> Measured:
    """Ask Prometheus for what the gateways beside the servers counted since ``since``."""
    seconds = max(60, math.ceil((now - since).total_seconds()) + 60)
    # json.dumps quotes as PromQL does.
    where = f"{{model={json.dumps(place.model)},stage={json.dumps(place.stage)}}}[{seconds}s]"

    def total(name: str, by: str) -> list[Series]:
        told = _query(address, f"sum by ({by}) (max_over_time({GATEWAY}{name}{where}))")
        return [Series(name, one["metric"], float(one["value"][1])) for one in told]

    return _by_version(since, total)


def _by_version(since: datetime, total: Callable[[str, str], Sequence[Series]]) -> Measured:
    found: dict[int, list[Series]] = {}
    for name, by in (
        *(("requests_total", "version"), ("errors_total", "version"), ("rejected_total", "version")),
        *(("request_seconds_bucket", "version,le"), ("predictions_total", "version,bin")),
    ):
        for one in total(name, by):
            if str(one.labels.get("version", "")).isdigit():
                found.setdefault(int(one.labels["version"]), []).append(one)
    versions = {version: seen_of(series) for version, series in found.items()}
    return Measured(boot=f"prometheus {since.isoformat()}", versions=versions)


def _query(address: str, query: str) -> list[Any]:
    """The vector that Prometheus answers a query with."""
    url = f"{address.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=ASK_SECONDS) as answer:
            told = json.load(answer)
        if told["status"] != "success":
            raise ValueError(told.get("error", "no success"))
        return list(told["data"]["result"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"Prometheus at {address} does not answer"
        fix = "see `serving: {kubernetes: {prometheus: …}}` in platform.yaml; without it the pods themselves are asked"
        raise OutsideError(msg, why=" ".join(str(error).split())[:400], fix=fix) from error
