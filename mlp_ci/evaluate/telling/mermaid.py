"""Pictures that GitHub draws: in a comment it shows no ``data:`` address and no uploaded SVG, but it draws Mermaid.

A block of ``xychart-beta`` holds nothing but our own words and numbers, so that nothing from outside can steer the
program that draws it. Where nobody draws it (a mail, another forge) the numbers stand there as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.evaluate.telling.charts import named_models
from mlp_ci.evaluate.telling.facts import listed, mapping, number, points_of, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.telling.facts import Facts

# Mermaid puts the values of a line at equal distances, so curves are read at equal steps of x.
GRID = 21
MOST_BARS = 40
MOST_MODELS = 2
COLOURS = {"blue": "#2563c9", "orange": "#c2410c", "grey": "#8b949e", "light blue": "#8fb1ea"}
INIT = (
    '%%{init: {"xyChart": {"width": 560, "height": 360}, "themeVariables": {"xyChart": {"plotColorPalette": "%s"}}}}%%'
)


def pictures(facts: Facts) -> list[tuple[str, str]]:
    """(what its colours mean, the block) of each picture: a curve and calibration, or the residuals."""
    made = [_curve(facts, "roc"), _calibration(facts), _residuals(facts)]
    return [m for m in made if m]


def _curve(facts: Facts, key: str) -> tuple[str, str] | None:
    names, lines = [], []
    for model, name in named_models(facts)[:MOST_MODELS]:
        entries = listed(facts.plots[model].get(key))
        points = points_of(mapping(entries[0]).get("fpr"), mapping(entries[0]).get("tpr")) if len(entries) == 1 else []
        if len(points) > 1:
            names.append(name)
            lines.append(_at_equal_steps(points))
    if not names:
        return None
    axes = ['x-axis "false positive rate" 0 --> 1', 'y-axis "true positive rate" 0 --> 1']
    guessing = [i / (GRID - 1) for i in range(GRID)]
    colours = [*list(COLOURS)[: len(names)], "grey"]
    legend = ", ".join(f"{colour}: {name}" for colour, name in zip(colours, [*names, "guessing"], strict=True))
    return legend, _block("ROC", axes, [("line", v) for v in (*lines, guessing)], colours)


def _at_equal_steps(points: Sequence[tuple[float, float]]) -> list[float]:
    """The height of a rising curve at each of ``GRID`` steps from 0 to 1, straight between its points."""
    placed, at = [], 0
    for i in range(GRID):
        x = i / (GRID - 1)
        while at + 1 < len(points) and points[at + 1][0] <= x:
            at += 1
        (x0, y0), (x1, y1) = points[at], points[min(at + 1, len(points) - 1)]
        placed.append(y0 if x1 <= x0 or x <= x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return placed


def _calibration(facts: Facts) -> tuple[str, str] | None:
    """Bars: how often it came true; the line: what was predicted."""
    entries = listed(mapping(facts.plots.get("this")).get("calibration"))
    bins = [mapping(b) for b in listed(mapping(entries[0]).get("bins"))] if len(entries) == 1 else []
    pairs = [(number(b.get("predicted")), number(b.get("observed"))) for b in bins[:MOST_BARS]]
    known = [(p, o) for p, o in pairs if p is not None and o is not None]
    if len(known) < 2:
        return None
    names = ", ".join(f'"{p:.2f}"' for p, _ in known)
    axes = [f'x-axis "predicted probability" [{names}]', 'y-axis "came true" 0 --> 1']
    block = _block(
        "Calibration", axes, [("bar", [o for _, o in known]), ("line", [p for p, _ in known])], ("light blue", "orange")
    )
    return "light blue: how often it came true; orange: as predicted", block


def _residuals(facts: Facts) -> tuple[str, str] | None:
    found = mapping(mapping(facts.plots.get("this")).get("residuals"))
    edges = [number(e) for e in listed(found.get("edges"))]
    counts = [whole(c) or 0 for c in listed(found.get("counts"))]
    if len(counts) < 2 or len(edges) != len(counts) + 1 or edges[0] is None or edges[-1] is None:
        return None
    while len(counts) > MOST_BARS:
        counts = [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
    axes = [
        f'x-axis "prediction - target" {edges[0]:.6g} --> {edges[-1]:.6g}',
        f'y-axis "rows" 0 --> {max(1, *counts)}',
    ]
    return "", _block("Residuals", axes, [("bar", [float(c) for c in counts])], ("light blue",))


def _block(
    title: str, axes: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], colours: Sequence[str]
) -> str:
    palette = ", ".join(COLOURS[c] for c in colours)
    lines = [INIT.replace("%s", palette), "xychart-beta", f'    title "{title}"', *(f"    {a}" for a in axes)]
    lines += [f"    {kind} [{', '.join(_plain(v) for v in values)}]" for kind, values in series]
    return "\n".join(["```mermaid", *lines, "```"])


def _plain(value: float) -> str:
    """A number without an exponent, which Mermaid does not read."""
    return f"{value:.4f}".rstrip("0").rstrip(".") or "0"
