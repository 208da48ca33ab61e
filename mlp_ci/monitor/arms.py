"""How good two versions are while a rollout goes on, by the labels that have come for what each of them answered.

A rollout knows nothing of labels; it is handed what this finds (:func:`source`), as means with variances.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import MlpError
from mlp_ci.monitor.labelled import join_labels
from mlp_ci.monitor.performance import LIVE, measure
from mlp_ci.monitor.windows import Span, log_parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.serve.measured import Means
    from mlp_ci.spec.model import ModelSpec

EVERY = 300.0  # seconds between two looks at the labels: they are fetched and joined anew each time
LEAST = 30  # labelled rows that a metric is computed on
NORMAL = 1.959964  # half the width of a 95 % interval, in standard errors


@dataclass
class Source:
    """Where the labels and the answers of one model are: ``repo`` with DVC's pointers, ``log`` the prediction log.

    Called with a stage, the moment a rollout began and versions, it says for each version (rows, value, variance) of
    each metric that labels can give; the value's standard error is the root of variance / rows. What cannot be known,
    since no label has come or none can be fetched, is left out. Asked again within ``EVERY`` seconds it says the same.
    """

    repo: Path
    spec: ModelSpec
    log: Path
    _known: dict[tuple[str, str, tuple[int, ...]], tuple[float, Mapping[int, Means]]] = field(default_factory=dict)

    def __call__(self, stage: str, since: datetime, versions: tuple[int, ...]) -> Mapping[int, Means]:
        """Means by version; versions without any are absent."""
        key, now = (stage, since.isoformat(), versions), time.monotonic()
        if key not in self._known or now - self._known[key][0] >= EVERY:
            self._known[key] = (now, self._measured(stage, since, versions))
        return self._known[key][1]

    def _measured(self, stage: str, since: datetime, versions: tuple[int, ...]) -> Mapping[int, Means]:
        span = Span(since=since, until=max(clock.now(), since))
        try:
            parts = log_parts(self.log, self.spec.name, stage, span)
            found = {v: self._means(parts, span, v) for v in versions} if parts else {}
        except MlpError:  # labels are late or out of reach: the rollout waits for them, it does not fail
            return {}
        return {version: means for version, means in found.items() if means}

    def _means(self, parts: list[Path], span: Span, version: int) -> Means:
        labels, predictions = join_labels(self.repo, self.spec, parts, [span], version).within(span)
        found: dict[str, tuple[int, float, float]] = {}
        for name in sorted(self.wanted):
            try:
                value, low, high = measure(LIVE[name], labels, predictions, LEAST)
            except MlpError:  # too few, or one class only
                continue
            found[name] = (len(labels), value, ((high - low) / 2 / NORMAL) ** 2 * len(labels))
        return found

    @property
    def wanted(self) -> set[str]:
        """The metrics of the rollout's analysis that labels can give."""
        return {check.metric for check in self.spec.serve.rollout.analysis} & set(LIVE)


def source(repo: Path, spec: ModelSpec, log: Path) -> Source | None:
    """None where nobody asks for such a metric, or the model names no labels."""
    found = Source(repo, spec, log)
    return found if spec.monitor.labels and found.wanted else None
