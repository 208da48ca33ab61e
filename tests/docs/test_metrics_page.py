"""The page of metrics lists every metric, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from mlp_ci.evaluate.metrics import FAMILIES, METRICS, metric_called

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
EXAMPLES = {"K": "3", "SHARE": "0.01", "QUANTILE": "0.9", "BETA": "2", "CLASS": "a"}


def named_in_tables() -> dict[str, list[str]]:
    """Metric → the other cells of its rows."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) >= 3 and cells[0].startswith("`") and not cells[0].startswith("`MLP_"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                found.setdefault(name, []).extend(cells[1:])
    return found


def test_every_metric_is_on_the_page_with_its_direction() -> None:
    rows = named_in_tables()
    made = {n for n in METRICS if re.search(r"_at_\d+$", n)}
    assert set(rows) == (set(METRICS) - made) | set(FAMILIES)
    for name, cells in rows.items():
        concrete = name
        for word, value in EXAMPLES.items():
            concrete = concrete.replace(word, value)
        metric = metric_called(concrete)
        direction = "none" if not metric.comparable else "higher" if metric.higher_is_better else "lower"
        assert {"none", "higher", "lower"} & set(cells) == {direction}, name
