"""What a broken check means: its severity, and whether it is accepted for a while."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mlp_ci.data.checks.verdict import Check, ColumnSummary
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from mlp_ci.spec.data import Data, Rule, Suppression

# These bring their own: each query has a severity, and changed schemas one in `checks.schema`.
_OWN = ("sql", "schema")


def graded(checks: Iterable[Check], data: Data) -> list[Check]:
    """Failing checks with the severity that model.yaml gives them; what is a warning by nature stays one."""
    return [
        replace(check, severity="warning")
        if check.outcome is Outcome.FAIL
        and check.severity == "error"
        and check.rule not in _OWN
        and data.severity_of(cast("Rule", check.rule), check.column) == "warn"
        else check
        for check in checks
    ]


class Acceptance:
    """The suppressions of ``data.checks.suppress``, and which of them found something to accept."""

    def __init__(self, asked: Sequence[Suppression], today: date) -> None:
        self._asked = asked
        self._today = today
        self._used: set[int] = set()

    def judge(self, checks: Iterable[Check]) -> list[Check]:
        """Failing checks that are accepted become skipped ones, which say why; one whose time is over says so."""
        return [self._one(check) if check.outcome is Outcome.FAIL else check for check in checks]

    def _one(self, check: Check) -> Check:
        over = ""
        for i, asked in enumerate(self._asked):
            if asked.check != check.rule or asked.column not in (None, check.column):
                continue
            self._used.add(i)
            if self._today <= asked.until:
                message = f"{check.message} (accepted until {asked.until:%Y-%m-%d}: {asked.reason})"
                return replace(check, outcome=Outcome.SKIP, message=message)
            over = f" (was accepted until {asked.until:%Y-%m-%d}: {asked.reason})"
        return replace(check, message=check.message + over) if over else check

    def unused(self) -> list[Check]:
        """A notice for each suppression that nothing needs any more."""
        return [
            Check(
                rule="suppress",
                column=asked.column or "",
                outcome=Outcome.FAIL,
                message=f"`{asked.check}` is suppressed and does not fail: {asked.reason}",
                fix="remove it from data.checks.suppress",
                severity="notice",
            )
            for i, asked in enumerate(self._asked)
            if i not in self._used
        ]


def outcomes(columns: Iterable[ColumnSummary], checks: Sequence[Check]) -> tuple[ColumnSummary, ...]:
    """The columns with their outcome as it is after all: fail where a check of theirs fails as an error."""
    bad = {
        name
        for check in checks
        if check.outcome is Outcome.FAIL and check.severity == "error"
        for name in check.column.split(", ")
    }
    return tuple(replace(c, outcome=Outcome.FAIL if c.name in bad else Outcome.PASS) for c in columns)
