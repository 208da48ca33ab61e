"""A profile as one HTML file that needs no network; the layout is ``profile.html.jinja`` beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci import __version__, clock
from mlp_ci.data.describe.view import bars_of
from mlp_ci.data.profiles.histogram import histogram, is_whole
from mlp_ci.data.profiles.shapes import NumberProfile, TextProfile
from mlp_ci.data.words import round_share, show_number
from mlp_ci.drawing.template import fill

if TYPE_CHECKING:
    from mlp_ci.data.describe.view import ColumnView, FileView

TEMPLATE = Path(__file__).parent / "profile.html.jinja"
CELLS = 40
WIDTH, HEIGHT, GAP = 320, 96, 1.2
# A page stays small however many columns there are; the table has all of them.
MOST_PLOTS = 200


def render(view: FileView) -> str:
    """The whole page."""
    missing = sum(c.nulls for c in view.columns)
    cells = view.rows * len(view.columns)
    values = {
        "v": view,
        "plots": view.columns[:MOST_PLOTS],
        "hidden": max(0, len(view.columns) - MOST_PLOTS),
        "missing": missing / cells if cells else 0.0,
        "with_missing": sum(bool(c.nulls) for c in view.columns),
        "keys": [c.name for c in view.columns if c.unique],
        "sensitive": sum(c.sensitive for c in view.columns),
        "width": WIDTH,
        "height": HEIGHT,
        "created": clock.now(),
        "program": __version__,
        "bars": bars_of,
        "numbers_of": _numbers,
        "quantile": column_quantile,
        "plot": plot,
        "notes": notes,
    }
    return fill(TEMPLATE, {"number": show_number, "share": round_share}, values)


def _numbers(column: ColumnView) -> NumberProfile | None:
    """The numbers to draw: the column's own, or how long its texts are."""
    if isinstance(column.shape, NumberProfile):
        return column.shape if column.shape.count else None
    if isinstance(column.shape, TextProfile) and column.shape.length.count:
        return column.shape.length
    return None


def column_quantile(column: ColumnView, shape: NumberProfile, at: float) -> float | None:
    """A quantile; a whole number where the column holds such."""
    found = shape.quantile(at)
    return float(round(found)) if found is not None and column.type in ("int", "string") else found


def plot(shape: NumberProfile) -> dict[str, str]:
    """The path of a histogram, and what stands below its axis."""
    heights, low, high = histogram(shape, CELLS)
    whole = is_whole(shape)
    top, cell = max(heights) or 1.0, WIDTH / len(heights)
    parts = []
    for i, share in enumerate(heights):
        if share > 0:
            height = max(1.5, (HEIGHT - 2) * share / top)
            parts.append(f"M{i * cell + GAP / 2:.1f} {HEIGHT}v-{height:.1f}h{cell - GAP:.1f}v{height:.1f}z")
    return {
        "path": "".join(parts),
        "low": _at(low, high - low, whole=whole),
        "middle": _at((low + high) / 2, high - low, whole=whole),
        "high": _at(high, high - low, whole=whole),
    }


def _at(value: float, span: float, *, whole: bool) -> str:
    """A number below the axis: what cannot be seen there is zero."""
    if abs(value) < span / 200:
        return "0"
    return show_number(float(round(value)) if whole and span > 4 else value)


def notes(column: ColumnView) -> list[str]:
    """What stands below a column's name."""
    if column.sensitive:
        return [*([f"{column.missing} missing"] if column.nulls else []), "values are not shown"]
    said = [f"{column.missing} missing"] if 0 < column.nulls <= 0.2 * column.rows else []
    by_length = ["text, by its length"] if isinstance(column.shape, TextProfile) else []
    if column.unique:
        return [*said, "no value twice", *by_length]
    said += [f"{column.distinct_words} different"] if column.distinct_words else []
    shape = column.shape
    if isinstance(shape, NumberProfile) and shape.mean is not None:
        # No line is broken inside "12 ± 3".
        spread = f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{show_number(shape.deviation)}" if shape.deviation else ""
        said.append(f"mean\N{NO-BREAK SPACE}{show_number(shape.mean)}{spread}")
    return [*said, *by_length]
