"""A number's shape as the heights of cells, to be drawn: the cells are the drawing's, the counts the profile's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.data.profiles.profile import MARGIN
from mlp_ci.data.profiles.shapes import FEW_VALUES, NumberProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# The outermost values would leave a drawing with all the rest in one cell; so they are drawn at its edge.
OUTERMOST = 0.002


def ends(shape: NumberProfile) -> tuple[float, float]:
    """Between which two numbers all but the outermost values lie; never equal."""
    low, high = shape.smallest or 0.0, shape.largest or 0.0
    if len(shape.edges) > FEW_VALUES and shape.count:
        low, high = shape.quantile(OUTERMOST) or low, shape.quantile(1 - OUTERMOST) or high
    return apart(low, high)


def apart(low: float, high: float) -> tuple[float, float]:
    """Two ends of an axis: as they are, or with some room where they are one, or too far apart to draw."""
    span, least = high - low, max(1e-300, abs(low) * 1e-12, abs(high) * 1e-12)
    if least < span < float("inf"):
        return low, high
    # One value, or several that a double hardly tells apart; or so far apart that their distance overflows.
    room = max(0.5, abs(low) * 1e-6)
    return (low - room, low + room) if span <= least else (low / 4, high / 4)


def cell_edges(low: float, high: float, cells: int, *, whole: bool) -> list[float]:
    """The edges of ``cells`` cells of equal width; a whole number fills the space around it, so they begin earlier."""
    start = low - 1.0 if whole else low
    return [start + (high - start) * i / cells for i in range(cells + 1)]


def heights(shape: NumberProfile, points: Sequence[float]) -> list[float]:
    """Share of the values in each cell between neighbouring points, which rise in equal steps.

    Values beyond the points count in the outermost cells, so nothing is lost. Inside a bin values are spread evenly, a
    whole number over the space before it. Where the edges are the values themselves (few distinct ones), each counts
    in the cell that it lies in.
    """
    cells = len(points) - 1
    if not shape.count:
        return [0.0] * cells
    if len(shape.edges) <= FEW_VALUES:
        found, width = [0.0] * cells, points[1] - points[0]
        for edge, count in zip((*shape.edges, shape.largest or 0.0), shape.counts, strict=True):
            found[max(0, min(cells - 1, int((edge - points[0]) / width)))] += count / shape.count
        return found
    xs, ys = _cumulative(shape)
    below = np.interp(points, xs, ys, left=0.0)
    below[0], below[-1] = 0.0, 1.0
    return [max(0.0, float(step)) for step in np.diff(below)]


def _cumulative(shape: NumberProfile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rising points and the share of values up to each; many values at the smallest are a jump there."""
    first = (shape.smallest or 0.0) - (1.0 if is_whole(shape) else 0.0)
    xs = np.minimum([*shape.edges, shape.largest or 0.0], shape.largest or 0.0)
    ys = np.cumsum(shape.counts) / shape.count
    # Of edges at the same place the last one counts.
    kept = np.append(np.diff(xs) > 0, True) & (xs >= first)
    xs, ys = xs[kept], ys[kept]
    return (np.append(first, xs), np.append(0.0, ys)) if xs[0] > first else (xs, ys)


def histogram(shape: NumberProfile, cells: int) -> tuple[list[float], float, float]:
    """Share of the values in each of ``cells`` cells of equal width, and between which numbers they lie.

    Whole numbers get a cell each where there are few of them.
    """
    low, high = ends(shape)
    few, whole = len(shape.edges) <= FEW_VALUES, is_whole(shape)
    if few and whole and 0 < high - low < cells:
        points = [low + i for i in range(int(high - low) + 2)]
    else:
        points = cell_edges(low, high, cells, whole=whole and not few)
    return heights(shape, points), low, high


def is_whole(shape: NumberProfile) -> bool:
    """Whether all values are whole numbers, as far as the bins tell: where values are, bins end at such.

    The equal bins of the margin beyond the reference's values end anywhere.
    """
    if shape.smallest is None or shape.largest is None:
        return False
    edges = shape.edges[MARGIN:-MARGIN] if len(shape.edges) > FEW_VALUES else shape.edges
    inside = (edge for edge in edges if shape.smallest <= edge <= shape.largest)
    return all(edge.is_integer() for edge in (shape.smallest, shape.largest, *inside))
