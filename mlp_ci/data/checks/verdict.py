"""What was found out about a file, as values: one :class:`Check` per rule and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mlp_ci.data.plan import PhysicalColumn
    from mlp_ci.report import Outcome


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule applied to one column (or to the whole file, when ``column`` is empty).

    ``severity`` is that of a report's finding: error, warning or notice.
    """

    rule: str
    column: str
    outcome: Outcome
    message: str
    rows: int = 0
    fix: str = ""
    severity: str = "error"


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """One line of the table of a file."""

    name: str
    type: str
    nulls: float | None
    smallest: str
    largest: str
    distinct: int | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class FileVerdict:
    """Everything that was found out about one file. ``newest`` is the largest value of ``data.time``.

    ``schema``: the columns as they lie in the file, those that model.yaml does not know among them.
    """

    rows: int
    newest: datetime | None
    checks: tuple[Check, ...]
    columns: tuple[ColumnSummary, ...]
    schema: tuple[PhysicalColumn, ...] = ()
