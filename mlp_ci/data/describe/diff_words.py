"""What changed between two versions of data, in words and tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.describe.diff import Changes, ColumnChanges, RowChanges, Values, numbers_of
from mlp_ci.data.plan import instant
from mlp_ci.data.words import cut, show_number, show_share
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_COLUMNS = 30
LONGEST = 24
# The customary reading of PSI (Siddiqi 2006): below 0.1 nothing to speak of, from 0.25 on another distribution.
SMALL, LARGE = 0.1, 0.25
# Less than this is not worth a line.
TINY, TINY_SHARE = 0.01, 0.001
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One pair of versions. ``same``: the same bytes, by their digest; ``first``: there is no version before."""

    before: str
    now: str
    changes: Changes | None = None
    same: bool = False
    first: bool = False
    guessed: bool = False

    @property
    def changed(self) -> bool:
        return self.first or (self.changes is not None and self.changes.any)


def report(compared: Sequence[Compared]) -> Report:
    """One report for all pairs. Its outcome is pass: that data changes is news, not a failure."""
    findings: list[Finding] = []
    tables: list[Table] = []
    for one in compared:
        findings += _findings(one)
        tables += _tables(one)
    changed = any(one.changed for one in compared)
    return Report(
        command="data diff",
        headline="; ".join(_sentence(one) for one in compared),
        outcome=Outcome.PASS,
        findings=findings,
        tables=tables,
        outputs={"changed": "true" if changed else "false"},
        data={"compared": [_plain(one) for one in compared]},
    )


def _sentence(one: Compared) -> str:
    if one.same:
        return f"{one.now} is what it was at {one.before.rpartition(' at ')[2]}"
    if one.first:
        return f"{one.now} is new"
    changes = one.changes
    assert changes is not None
    if not changes.any:
        return f"{one.now} holds what {one.before} holds"
    rows = changes.rows
    parts = [f"{rows.before:,} → {rows.now:,} rows"]
    parts += [f"{n:,} {word}" for n, word in _row_words(rows) if n]
    schema = [c for c in changes.columns if c.schema_change]
    if schema:
        parts.append(f"{len(schema)} column{'s' if len(schema) != 1 else ''} came, went or changed type")
    moved = [c for c in changes.columns if _moved(c, SMALL)]
    if moved:
        shown = ", ".join(f"{cut(c.name, LONGEST)} {c.psi:.2f}" for c in moved[:3])
        parts.append(f"{len(moved)} of {len(changes.columns)} distributions moved (PSI: {shown})")
    elif not schema:
        parts.append("no distribution moved beyond chance (PSI)")
    return f"{one.now}: {', '.join(parts)}"


def _moved(column: ColumnChanges, limit: float) -> bool:
    """Whether PSI is at least ``limit`` beyond what chance makes of it: about (groups - 1)(1/n + 1/m), with ten groups.

    B. Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    if column.psi is None or column.before is None or column.now is None:
        return False
    rows = [max(1, p.count + p.nulls) for p in (column.before, column.now)]
    return column.psi - 9 * sum(1 / n for n in rows) >= limit


def _row_words(rows: RowChanges) -> tuple[tuple[int, str], ...]:
    return (rows.added, "added"), (rows.removed, "removed"), (rows.changed or 0, "changed")


def _findings(one: Compared) -> Iterable[Finding]:
    changes = one.changes
    if changes is None:
        return
    for column in changes.columns:
        what = {
            "added": f"new column, {column.type_now}",
            "removed": f"the column is gone; it was {column.type_before}",
            "retyped": f"{column.type_before} → {column.type_now}",
        }.get(column.schema_change)
        if what:
            yield Finding(
                check="schema",
                outcome=Outcome.FAIL,
                subject=cut(column.name, LONGEST),
                message=what,
                severity="warning",
            )
    for column in changes.columns:
        if _moved(column, LARGE):
            message = f"is distributed differently: PSI {column.psi:.2f}"
            yield Finding(
                check="psi",
                outcome=Outcome.FAIL,
                subject=cut(column.name, LONGEST),
                message=message,
                severity="warning",
            )


# ---------------------------------------------------------------- tables


def _tables(one: Compared) -> Iterable[Table]:
    changes = one.changes
    if changes is None or not changes.any:
        return
    rows = changes.rows
    by = f"by {', '.join(rows.key)}{' (a guess)' if one.guessed else ''}" if rows.key else "as whole rows"
    cells: list[tuple[str, Any]] = [("rows before", rows.before), ("rows now", rows.now)]
    cells += [("added", rows.added), ("removed", rows.removed)]
    cells += [("changed", rows.changed)] if rows.changed is not None else []
    yield Table(
        title=f"{one.now}: rows compared {by}",
        columns=tuple(name for name, _ in cells),
        rows=(tuple(value for _, value in cells),),
    )
    both = [c for c in changes.columns if c.type_before and c.type_now]
    shown = [c for c in both if _notable(c)]
    if not shown:
        return
    title = "Columns, the largest change first"
    if len(shown) > MOST_COLUMNS:
        title += f"; {len(shown) - MOST_COLUMNS} more in the JSON report"
    if len(shown) < len(both):
        title += f"; {len(both) - len(shown)} hardly differ or not at all"
    yield Table(
        title=title,
        columns=("column", "", "PSI", "missing", "mean", *(show_share(at) for at in QUANTILES)),
        rows=tuple(row for c in shown[:MOST_COLUMNS] for row in _two_rows(c)),
    )
    said = [(cut(c.name, LONGEST), words) for c in shown[:MOST_COLUMNS] if (words := _values(c, rows))]
    if said:
        yield Table(title="Values", columns=("column", "what differs"), rows=tuple(said))


def _notable(column: ColumnChanges) -> bool:
    moved = (column.psi or 0) >= TINY or abs(column.nulls_now - column.nulls_before) >= TINY_SHARE
    return bool(moved or column.new.count or column.gone.count or column.changed_rows or column.schema_change)


def _two_rows(column: ColumnChanges) -> Iterable[tuple[Any, ...]]:
    """The column before and now, one below the other: side by side no terminal is wide enough."""
    psi = None if column.psi is None else round(column.psi, 3)
    for name, side, nulls, profile in (
        (cut(column.name, LONGEST), "before", column.nulls_before, column.before),
        ("", "now", column.nulls_now, column.now),
    ):
        found = numbers_of(profile)
        if column.sensitive:
            measured = ["hidden"] + [""] * len(QUANTILES)
        elif found is None:
            measured = [""] * (1 + len(QUANTILES))
        else:
            measured = [show_number(found.mean), *(show_number(found.quantile(at)) for at in QUANTILES)]
        yield name, side, psi if side == "now" else None, show_share(nulls), *measured


def _values(column: ColumnChanges, rows: RowChanges) -> str:
    if column.sensitive:
        return "hidden: it is sensitive"
    parts = []
    if column.span_before != column.span_now and column.span_before and column.span_now:
        parts.append(_pair(_span(column.span_before), _span(column.span_now)))
    a, b = numbers_of(column.before), numbers_of(column.now)
    if a and b and (a.smallest, a.largest) != (b.smallest, b.largest):
        ends = [f"{show_number(p.smallest)} … {show_number(p.largest)}" if p.count else "" for p in (a, b)]
        parts.append(f"range {_pair(ends[0], ends[1])}")
    parts += [
        f"{word} {_named(values)}" for word, values in (("new:", column.new), ("gone:", column.gone)) if values.count
    ]
    if column.changed_rows and rows.changed:
        parts.append(f"differs in {column.changed_rows:,} row{'s' if column.changed_rows != 1 else ''}")
    return "; ".join(parts)


def _named(values: Values) -> str:
    shown = ", ".join(f"{cut(value, LONGEST) or repr('')} ({n:,})" for value, n in values.most[:3])
    more = values.count - min(3, len(values.most))
    return f"{shown} and {more:,} more" if more > 0 else shown


def _pair(before: str, now: str) -> str:
    return before if before == now else f"{before or 'none'} → {now or 'none'}"


def _span(ends: tuple[Any, Any]) -> str:
    low, high = ends
    return "" if low is None else f"{instant(int(low)):%Y-%m-%d} … {instant(int(high)):%Y-%m-%d}"


# ---------------------------------------------------------------- for programs


def _plain(one: Compared) -> dict[str, Any]:
    found: dict[str, Any] = {"before": one.before, "now": one.now, "changed": one.changed}
    if one.changes is None:
        return {**found, "same": one.same, "first": one.first}
    columns = [_plain_column(column) for column in one.changes.columns]
    return {**found, "rows": asdict(one.changes.rows), "key_guessed": one.guessed, "columns": columns}


def _plain_column(column: ColumnChanges) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": column.name,
        "schema": column.schema_change or None,
        "type": [column.type_before or None, column.type_now or None],
        "sensitive": column.sensitive,
        "nulls": [column.nulls_before, column.nulls_now],
    }
    if column.sensitive:
        return found
    a, b = numbers_of(column.before), numbers_of(column.now)
    if a and b:
        found["mean"] = [a.mean, b.mean]
        found["quantiles"] = {str(at): [a.quantile(at), b.quantile(at)] for at in QUANTILES}
        found["range"] = [[a.smallest, a.largest], [b.smallest, b.largest]]
    for name, span in (("span", (column.span_before, column.span_now)),):
        if any(span):
            found[name] = [[instant(int(v)).isoformat() for v in s] if s and s[0] is not None else None for s in span]
    return {
        **found,
        "psi": column.psi,
        "changed_rows": column.changed_rows,
        "new_values": {"count": column.new.count, "most": dict(column.new.most)},
        "gone_values": {"count": column.gone.count, "most": dict(column.gone.most)},
    }
