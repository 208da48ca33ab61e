"""How much of a model's behaviour rests on each of its inputs, measured by shuffling one column at a time.

The importance of column j over n held-out rows x, with π a random order of them:

    moved(j) = 1/n · Σ_i |f(x_i) - f(x_i with x_j taken from row π(i))|,   importance(j) = moved(j) / Σ_k moved(k)

Permutation is Breiman's idea (Random Forests, 2001), and works for every model (Fisher, Rudin & Dominici, 2019, "model
reliance"). Both ask how much the loss grows; here it is how far the prediction moves, which needs no labels and does
not forget a column that the model uses badly. f is the probability of each class (the change is half the sum over the
classes), else the value, else the class (the change is 0 or 1). What a column tells together with another, as copies
of each other do, is shared between them or hidden by them. The shuffling itself is done where the model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.report import Table

if TYPE_CHECKING:
    from mlp_ci.evaluate.metrics import Array

FORMAT = "mlp-ci/importance/v1"
METHOD = "mean absolute change of the prediction when one column is permuted"
SHOWN = 10
TOTAL_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Column → its share of the model's behaviour; the shares add up to one. Empty where ``trouble`` says why."""

    shares: Mapping[str, float]
    rows: int
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        value = {"format": FORMAT, "importance": dict(self.shares), "rows": self.rows, "method": METHOD}
        return {**value, "trouble": self.trouble} if self.trouble else value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Importance:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        fix = "use the mlp-ci that evaluated the version, or evaluate again"
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            found = str(value.get("format") if isinstance(value, Mapping) else type(value).__name__)[:60]
            msg = f"the importance has the format {found!r}, and this mlp-ci reads {FORMAT!r}"
            raise InputError(msg, fix=fix)
        shares, rows = value.get("importance"), value.get("rows")
        if not isinstance(shares, Mapping) or not all(_is_share(s) for s in shares.values()):
            msg = "the importance is damaged: the shares are no numbers between 0 and 1"
            raise InputError(msg, fix=fix)
        if shares and abs(sum(shares.values()) - 1) > TOTAL_TOLERANCE:
            msg = f"the importance is damaged: the shares add up to {sum(shares.values()):.3g}, not to 1"
            raise InputError(msg, fix=fix)
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
            msg = "the importance is damaged: rows is no count"
            raise InputError(msg, fix=fix)
        return Importance(
            shares={str(name): float(s) for name, s in shares.items()},
            rows=rows,
            trouble=str(value.get("trouble") or ""),
        )

    def table(self) -> Table:
        """The columns that matter most."""
        order = sorted(self.shares.items(), key=lambda item: (-item[1], item[0]))
        rows = tuple((name, f"{share:.1%}") for name, share in order[:SHOWN])
        rest = len(order) - SHOWN
        title = "What the predictions rest on" + (f" (the first {SHOWN} of {len(order)})" if rest > 0 else "")
        return Table(title=title, columns=("input", "share"), rows=rows)


def importance_of(stored: Mapping[str, Array]) -> Importance:
    """What the predicting process found, as shares."""
    if "importance" not in stored:
        said = stored.get("importance_trouble")
        return Importance(shares={}, rows=0, trouble=str(said) if said is not None else "it was not asked for")
    moved = [float(v) for v in stored["importance"]]
    total = math.fsum(moved)
    if not math.isfinite(total) or total <= 0:
        return Importance(shares={}, rows=0, trouble="no column moves the predictions when it is shuffled alone")
    names = [str(name) for name in stored["importance_columns"]]
    shares = {name: value / total for name, value in zip(names, moved, strict=True)}
    return Importance(shares=shares, rows=int(stored["importance_rows"]))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
