"""What is counted of every version: requests, errors, latencies; and what a scrape or a rollout reads of it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.measured import LATENCY_BOUNDS_MS, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TOO_MANY = 429
# Seconds, for Prometheus: round ones for people, between them every fourth bound of the bins that a rollout is judged
# by, so that a quantile of a scrape is known within 40 %.
_ROUND = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS = tuple(sorted({*_ROUND, *(float(f"{bound / 1000:.6g}") for bound in LATENCY_BOUNDS_MS[3::4])}))


@dataclass(slots=True)
class Tally:
    """What one version did in one role since the gateway started. ``errors``: its own faults, not bad requests."""

    requests: int = 0
    errors: int = 0
    refused: int = 0  # 4xx: the clients' faults, unless one version refuses what another answers
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))

    def answered(self, seconds: float, status: int) -> None:
        """Count an answer that took so many seconds. 429 is an error: the version let a request go unanswered."""
        self.requests += 1
        if status >= 400:
            error = status >= 500 or status == TOO_MANY
            self.errors += error
            self.refused += not error
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.latency[bisect_left(LATENCY_BOUNDS_MS, seconds * 1000)] += 1

    def silent(self) -> None:
        """Count a request that it did not answer; there is no latency of that."""
        self.requests += 1
        self.errors += 1


@dataclass(slots=True)
class Compared:
    """How a shadow's predictions differ from those that were answered, row by row."""

    compared: int = 0
    different: int = 0
    skipped: int = 0  # requests that were not mirrored because too many were under way
    differences: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {
            "compared": self.compared,
            "different": self.different,
            "skipped": self.skipped,
            "differences": dict(self.differences),
        }


Key = tuple[str, str, int, str]  # model, stage, version, arm


@dataclass
class Counts:
    """All tallies, by model, stage, version and arm; they outlive the routes that they were counted for."""

    tallies: dict[Key, Tally] = field(default_factory=dict)
    shadows: dict[Key, Compared] = field(default_factory=dict)
    predictions: dict[Key, Counter[str]] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)  # each request once, however often it was tried
    unanswered: Counter[tuple[str, str]] = field(default_factory=Counter)
    keyless: Counter[tuple[str, str]] = field(default_factory=Counter)  # without the sticky key

    def tally(self, key: Key) -> Tally:
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = Tally()
        return found

    def shadow(self, key: Key) -> Compared:
        return self.shadows.setdefault(key, Compared())

    def seen(self, model: str, stage: str) -> dict[int, Seen]:
        """By version; of a version that was in two roles, both."""
        found: dict[int, Seen] = {}
        for key, tally in self.tallies.items():
            if key[:2] != (model, stage):
                continue
            one = Seen(
                requests=tally.requests,
                errors=tally.errors,
                rejected=tally.refused,
                latency={i: n for i, n in enumerate(tally.latency) if n},
                predictions=self.predictions.get(key, {}),
            )
            found[key[2]] = found[key[2]].plus(one) if key[2] in found else one
        return found

    def measured(self, model: str, stage: str) -> dict[str, Any]:
        """The part of ``/admin/measured`` that is about one model in one stage."""
        return {
            "versions": {str(v): s.to_json() for v, s in sorted(self.seen(model, stage).items())},
            "shadow": {str(k[2]): c.to_json() for k, c in self.shadows.items() if k[:2] == (model, stage)},
        }


def labels(**values: object) -> str:
    """Prometheus' labels, escaped."""
    return ",".join(f'{k}="{_escaped(str(v))}"' for k, v in values.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def family(name: str, kind: str, meaning: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    """The lines of one metric in Prometheus' text format; none without samples."""
    found = [f"{name}{{{given}}} {_number(value)}" for given, value in samples]
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *found] if found else []


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"


def _of(key: Key) -> str:
    return labels(model=key[0], stage=key[1], version=key[2], arm=key[3])


def exposition(counts: Counts) -> list[str]:
    """The lines about versions: requests, errors, seconds, shadows."""
    tallies = sorted(counts.tallies.items())
    lines = family(
        "mlp_requests_total",
        "counter",
        "Requests by the version that had them.",
        ((_of(k), t.requests) for k, t in tallies),
    )
    lines += family(
        "mlp_errors_total",
        "counter",
        "Requests that failed by the version's own fault: 5xx, 429, no answer.",
        ((_of(k), t.errors) for k, t in tallies),
    )
    lines += family(
        "mlp_rejected_total",
        "counter",
        "Requests that the version answered with 4xx.",
        ((_of(k), t.refused) for k, t in tallies),
    )
    if tallies:
        lines += ["# HELP mlp_request_seconds Time to the version's answer.", "# TYPE mlp_request_seconds histogram"]
    for key, tally in tallies:
        lines += _histogram(_of(key), tally)
    lines += _binned(counts)
    for name, kind, meaning in _SHADOW:
        samples = [(_of(k), float(getattr(c, kind))) for k, c in sorted(counts.shadows.items())]
        lines += family(name, "counter", meaning, samples)
    for name, meaning, counted in (
        ("mlp_asked_total", "Requests for predictions, each once.", counts.asked),
        ("mlp_unanswered_total", "Requests whose caller got no good answer: 5xx or 429.", counts.unanswered),
        ("mlp_sticky_missing_total", "Requests without the key that decides the arm.", counts.keyless),
    ):
        lines += family(name, "counter", meaning, ((labels(model=m, stage=s), n) for (m, s), n in counted.items()))
    return lines


def _binned(counts: Counts) -> list[str]:
    samples = [
        (f"{_of(key)},{labels(bin=name)}", float(n))
        for key, bins in sorted(counts.predictions.items())
        for name, n in sorted(bins.items())
    ]
    return family("mlp_predictions_total", "counter", "Predicted rows by bin of the prediction.", samples)


_SHADOW = (
    ("mlp_shadow_compared_total", "compared", "Rows whose prediction by the shadow was compared."),
    ("mlp_shadow_different_total", "different", "Rows that the shadow predicts differently."),
    ("mlp_shadow_skipped_total", "skipped", "Requests not mirrored: too many were under way."),
)


def _histogram(given: str, tally: Tally) -> Sequence[str]:
    lines, below = [], 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), tally.buckets, strict=True):
        below += count
        lines.append(f'mlp_request_seconds_bucket{{{given},le="{bound}"}} {below}')
    return [
        *lines,
        f"mlp_request_seconds_sum{{{given}}} {tally.seconds:.6f}",
        f"mlp_request_seconds_count{{{given}}} {below}",
    ]


def totals(counts: Counts, pairs: Iterable[tuple[str, str]]) -> Mapping[int, tuple[int, int]]:
    """Requests and errors by version, over the given models and stages."""
    wanted, found = set(pairs), dict[int, tuple[int, int]]()
    for key, tally in counts.tallies.items():
        if key[:2] in wanted:
            before = found.get(key[2], (0, 0))
            found[key[2]] = (before[0] + tally.requests, before[1] + tally.errors)
    return found
